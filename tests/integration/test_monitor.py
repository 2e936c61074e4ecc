"""The monitor as a process of its own: what it answers, to whom, and that nobody can hold it up."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from obs.clock import NS, SYSTEM
from obs.config import load
from obs.config.options import Config
from obs.config.process import SERVICES, ProcessSpec, children_lock_path
from obs.monitor.health import STARTING_S
from obs.ring import fence
from obs.segment.sessions import SessionStart, append_start
from obs.shm import Board, Counters
from obs.supervisor.child import spawn

CONFIG = """\
data_dir = "data"
[http]
port = {port}
{http}
[ring]
dir = "shm"
[providers.upbit]
symbols = ["KRW-BTC"]
"""


def configured(folder: Path, port: int = 0, http: str = "") -> Config:
    (folder / "shm").mkdir()
    (folder / "data").mkdir()
    (folder / "obs.toml").write_text(CONFIG.format(port=port, http=http))
    return load(folder / "obs.toml", environ={}, cwd=folder)


@contextmanager
def started(config: Config) -> Iterator[tuple[subprocess.Popen[bytes], Counters]]:
    children_lock_path(config.data_dir, SERVICES).parent.mkdir()
    path = Counters.path(config.ring.dir, config.data_dir, SERVICES)
    counters = Counters(path, make=True)
    counters.add("monitor")
    child = spawn(ProcessSpec("monitor", SERVICES, config, path, os.getpid()))
    try:
        yield child, counters
    finally:
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0
        counters.close()


def until(condition: Callable[[], Any], seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "too late"
        time.sleep(0.02)
    return found


def address(config: Config) -> tuple[str, int]:
    def read() -> dict[str, Any] | None:
        with contextlib.suppress(FileNotFoundError):
            place: dict[str, Any] = json.loads((config.data_dir / "state" / "http.json").read_bytes())
            return place
        return None

    place = until(read)
    return "127.0.0.1", place["port"]


def get(place: tuple[str, int], path: str, token: str | None = None) -> tuple[int, bytes, str]:
    request = urllib.request.Request(f"http://{place[0]}:{place[1]}{path}")
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read(), answer.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers["Content-Type"]


def test_it_answers_and_stops(tmp_path: Path) -> None:
    config = configured(tmp_path)
    with started(config) as (child, _):
        place = address(config)
        status, body, kind = get(place, "/health")
        health = json.loads(body)
        assert (status, health["ok"], kind) == (503, False, "application/json")
        until(lambda: json.loads(get(place, "/health")[1])["reasons"] == ["heartbeat"])
        status, body, kind = get(place, "/metrics")
        assert status == 200
        assert kind.startswith("text/plain")
        assert b'obs_process_up{provider="services",role="monitor"} 1.0' in body.splitlines()
        status, body, kind = get(place, "/")
        assert (status, kind) == (200, "text/html; charset=utf-8")
        assert b"</html>" in body
        assert get(place, "/nothing")[0] == 404
        assert child.poll() is None
    assert not (config.data_dir / "state" / "http.json").exists()


def test_a_feed_that_never_connects_becomes_an_alarm(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Red at once for those who ask; told once its session is a minute old, and not before."""
    config = configured(tmp_path)
    folder, data = config.ring.dir, config.data_dir
    began_ns = SYSTEM.wall_ns() - int((STARTING_S - 4) * NS)
    append_start(data, SessionStart("sess_20261121_090000_upbit_0001", "upbit", began_ns, "host", "boot", "1", "hash", {}))
    counters, board = Counters(Counters.path(folder, data, "upbit"), make=True), Board.create(Board.path(folder, data, "upbit"), fence)
    counters.add("feed")
    cell = counters.cell("feed")
    cell["pid"], cell["ready"], cell["heartbeat_ns"] = os.getpid(), 1, SYSTEM.mono_ns() + 3600 * NS
    board["link"].write_json([{"name": "upbit", "pid": os.getpid(), "connected": False, "connection_no": 0, "attempt": 3}])
    told: list[dict[str, Any]] = []

    def alarms() -> list[dict[str, Any]]:
        told.extend(json.loads(line) for line in capfd.readouterr().err.splitlines())
        return [line for line in told if line["event"] == "health_red" and line["reason"] == "not_connected"]

    with started(config):
        place = address(config)
        until(lambda: "not_connected" in json.loads(get(place, "/health")[1])["reasons"])
        (alarm,) = until(alarms)
        assert datetime.fromisoformat(alarm["ts"]).timestamp() * NS >= began_ns + (STARTING_S - 0.1) * NS
        assert (alarm["of"], alarm["text"]) == ("upbit", "upbit: connecting, attempt 3")
    del cell
    counters.close()
    board.close()


@pytest.mark.parametrize("given", ["", "wrong", "한글", "secret-token"])
def test_a_token_where_anybody_may_connect(given: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret-token\n")
    token.chmod(0o600)
    config = configured(tmp_path, http=f'host = "0.0.0.0"\ntoken_file = "{token}"')
    with started(config):
        place = address(config)
        header = given.encode().decode("latin-1") if given else None
        status, body, _ = get(place, "/health", header)
        assert status == (503 if given == "secret-token" else 401)
        assert b"secret-token" not in body


def test_clients_that_hold_on_are_cut_and_nobody_waits(tmp_path: Path) -> None:
    config = configured(tmp_path)
    with started(config):
        place = address(config)
        held = [socket.create_connection(place) for _ in range(90)]
        for number, one in enumerate(held):
            one.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + (b"\r\n" if number % 2 else b""))
        assert get(place, "/health")[0] == 503

        def cut(one: socket.socket) -> bool:
            one.settimeout(0.001)
            try:
                return one.recv(1 << 16) == b""
            except ConnectionError:
                return True
            except TimeoutError:
                return False

        until(lambda: sum(cut(one) for one in held) >= 20)
        assert get(place, "/health")[0] == 503
        for one in held:
            one.close()


def test_a_port_that_is_taken_is_tried_again(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = configured(tmp_path, port=taken.getsockname()[1])
        with started(config) as (child, counters):
            cell = counters.cell("monitor")
            until(lambda: cell["ready"] and cell["progress"] > 2)
            assert child.poll() is None
            taken.close()
            assert get(address(config), "/health")[0] == 503
