"""A demo that runs, and the real Prometheus that scrapes it: the metrics, the rules and the dashboard as an operator has them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from operating import OPS, ROOT, alerts, expressions, families, metrics, program

START_S = 60.0
TOKEN = "a-token-of-the-test-0123456789"
# What a demo of half a minute has not: a sweep (its symbols are listed), a minute that is over, an alert, a mark.
SILENT = re.compile(r"obs_sweep_(quotes_)?seconds|obs_sweep_(expected|received)_symbols|obs_coverage_ratio|ALERTS")


@dataclass
class Running:
    """A demo and the Prometheus beside it."""

    data: Path
    log: Path
    url: str
    prometheus: str

    def metrics(self) -> str:
        request = urllib.request.Request(f"{self.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            text: str = answer.read().decode()
            return text

    def ask(self, path: str, **how: str) -> Any:
        """Ask the API of Prometheus; the data of its answer."""
        words = urllib.parse.urlencode(how)
        with urllib.request.urlopen(f"{self.prometheus}/api/v1/{path}?{words}", timeout=10) as answer:
            said = json.load(answer)
        assert said["status"] == "success", said
        return said["data"]


def until(what: str, condition: Callable[[], Any], deadline_s: float = START_S) -> Any:
    """Return the first true value of `condition`; what is not there yet is asked again."""
    end = time.monotonic() + deadline_s
    while True:
        try:
            if value := condition():
                return value
        except (OSError, KeyError, ValueError):
            pass
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Both, as compose runs them: a token, its file, the shipped configuration with its paths and addresses of here."""
    server, folder = program("prometheus"), tmp_path_factory.mktemp("watched")
    shm = Path(tempfile.mkdtemp(prefix="obs-test-", dir="/dev/shm"))
    token, log = folder / "token", folder / "log"
    token.write_text(TOKEN + "\n")
    token.chmod(0o600)
    (folder / "obs.toml").write_text(
        f'[http]\nhost = "0.0.0.0"\nport = 0\ntoken_file = "{token}"\n[ring]\ndir = "{shm}"\ncapacity = 8192\n[demo]\nrate = 200.0\n'
    )
    environ = {key: value for key, value in os.environ.items() if key not in ("OBS_DSN", "OBS_CONFIG", "NOTIFY_SOCKET")}
    command = [sys.executable, "-m", "obs.supervisor", "--demo", "--config", str(folder / "obs.toml"), "--data", str(folder / "data")]
    with log.open("wb") as errors:
        demo = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, cwd=ROOT, env=environ)
    watcher = None
    try:
        place = until("the monitor listens", lambda: orjson.loads((folder / "data" / "state" / "http.json").read_bytes()))
        text = (OPS / "prometheus" / "prometheus.yml").read_text()
        replaced = {
            "/etc/prometheus/alerts.yml": str(OPS / "prometheus" / "alerts.yml"), "/run/secrets/obs_token": str(token),
            "obs:8000": f"127.0.0.1:{place['port']}", "scrape_interval: 10s": "scrape_interval: 1s",
            "scrape_timeout: 5s": "scrape_timeout: 1s",
            "evaluation_interval: 10s": "evaluation_interval: 1s", "alertmanager:9093": "127.0.0.1:9",
        }  # fmt: skip
        for old, new in replaced.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        (folder / "prometheus.yml").write_text(text)
        port = free_port()
        with (folder / "prometheus.log").open("wb") as errors:
            watcher = subprocess.Popen(
                [
                    server, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
                ],
                stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
            )  # fmt: skip
        yield Running(folder / "data", log, f"http://127.0.0.1:{place['port']}", f"http://127.0.0.1:{port}")
    finally:
        for process in (watcher, demo):
            if process is not None:
                process.send_signal(signal.SIGTERM)
        codes = [process.wait(30) for process in (watcher, demo) if process is not None]
        shutil.rmtree(shm, ignore_errors=True)
        assert codes[-1] == 0, log.read_text()[-3000:]


@pytest.fixture(scope="module")
def healthy(running: Running) -> Running:
    """The same once everything is green and Prometheus has seen it for long enough to take rates."""
    until("health is green", lambda: "\nobs_healthy 1.0\n" in running.metrics())
    until("some looks of both", lambda: float(_value(running, "min(count_over_time(obs_healthy[1m]))")) >= 5)
    return running


def _value(running: Running, expression: str) -> str:
    (one,) = running.ask("query", query=expression)["result"]
    value: str = one["value"][1]
    return value


def test_the_metrics_pass_the_linter(healthy: Running) -> None:
    text = healthy.metrics()
    done = subprocess.run([program("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert families(text) == metrics(), "what a running system shows is what the tests of rules and dashboard take for granted"
    assert len(text) < 200_000


def test_the_target_is_up_with_its_token_and_not_without(healthy: Running) -> None:
    states = {one["labels"]["job"]: one["health"] for one in healthy.ask("targets")["activeTargets"]}
    assert states["obs"] == "up"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{healthy.url}/metrics", timeout=5)
    assert TOKEN not in healthy.metrics()


def test_the_rules_are_loaded_and_a_healthy_system_calls_nobody(healthy: Running) -> None:
    rules = [rule for group in healthy.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == set(alerts())
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}, [rule for rule in rules if rule["health"] == "err"]
    firing = {one["labels"]["alertname"] for one in healthy.ask("alerts")["alerts"] if one["state"] == "firing"}
    # Of the machine that runs the tests nothing is promised.
    assert not {name for name in firing if not name.startswith(("ObsHost", "ObsDisk", "ObsFlush", "ObsArchiveLagGrows"))}


def test_every_expression_of_the_dashboard_has_data(healthy: Running) -> None:
    empty = []
    for title, expression in expressions():
        whole = re.sub(r" (> 0|== 1)$", "", expression)  # what is hidden while nothing is wrong is there all the same
        result = healthy.ask("query", query=whole)["result"]
        if not result and not SILENT.search(expression):
            empty.append((title, expression))
    assert not empty


def test_no_label_has_many_values(healthy: Running) -> None:
    """41 symbols, two providers: no series bears a symbol, a session or a number of a process."""
    series = healthy.ask("query", query='count({__name__=~"obs_.*"})')["result"][0]["value"][1]
    assert int(series) < 1200, series
    for label in healthy.ask("labels"):
        assert label not in ("symbol", "session", "session_id", "pid")


def test_the_pipeline_of_logs_finds_its_labels_in_real_lines(healthy: Running) -> None:
    """No Alloy runs here, so its stages are held against what the processes write: keys, levels, times, and few values."""
    text = (OPS / "alloy" / "config.alloy").read_text()
    wanted = set(re.findall(r"^\s+(\w+)\s+= \"(?:\w+)\",$", text, re.M))
    assert wanted == {"ts", "level", "role", "provider"}
    labels = re.search(r"stage\.labels \{\s+values = \{([^}]*)\}", text)
    kept = re.search(r"stage\.label_keep \{\s+values = \[([^\]]*)\]", text)
    assert labels is not None
    assert kept is not None
    assert set(re.findall(r"\w+(?=\s+=)", labels[1])) == set(re.findall(r"\w+", kept[1])) == wanted - {"ts"}
    lines = [orjson.loads(line) for line in healthy.log.read_bytes().splitlines() if line.startswith(b"{")]
    assert len(lines) > 10
    values: dict[str, set[str]] = {key: set() for key in wanted - {"ts"}}
    for line in lines:
        assert wanted <= set(line)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["ts"])  # RFC3339Nano reads it
        for key, seen in values.items():
            seen.add(line[key])
    assert values["level"] <= {"debug", "info", "warning", "error"}
    assert all(len(seen) <= 12 for seen in values.values())
