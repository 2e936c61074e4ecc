"""A supervisor as an operator runs it: a real tree of processes on a configuration of its own, with simulated venues apart."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import psutil

from obs.config import demo_environ
from obs.record.schema import TICK
from obs.ring import attach_ring
from obs.segment.sessions import read_sessions
from obs.shm import block_path

ROOT = Path(__file__).resolve().parents[2]
SYMBOLS = {"kis": ["005930", "000660", "Q500001"], "upbit": ["KRW-BTC", "KRW-ETH", "KRW-XRP"]}


def until(what: str, condition: Callable[[], Any], deadline_s: float = 30.0) -> Any:
    """Return the first true value of `condition`; AssertionError after `deadline_s`."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.01)
    return value


class Supervised:
    """One data directory, the venues it records, and the supervisors started on it."""

    def __init__(self, folder: Path, dsn: str | None, providers: tuple[str, ...] = ("kis", "upbit"), **tables: dict[str, Any]) -> None:
        self.folder, self.data, self.config, self.dsn = folder, folder / "data", folder / "obs.toml", dsn
        self.shm = Path(tempfile.mkdtemp(prefix="obs-test-", dir="/dev/shm"))
        self.starts: list[Supervisor] = []
        self.venues = {name: self._venue(name) for name in providers}
        wanted: dict[str, dict[str, Any]] = {
            "http": {"port": 0}, "ring": {"dir": str(self.shm), "capacity": 4096}, "archive": {"flush_s": 0.2}, "loader": {"flush_s": 0.2},
        }  # fmt: skip
        for name, (_, port) in self.venues.items():
            wanted[f"providers.{name}"] = {
                "rest_url": f"http://127.0.0.1:{port}", "ws_url": f"ws://127.0.0.1:{port}", "symbols": SYMBOLS[name], "hours": "always",
                "credentials": ["DEMO_KIS"] if name == "kis" else [],
            }  # fmt: skip
        for name, table in tables.items():
            wanted.setdefault(name.replace("__", "."), {}).update(table)
        text = ""
        for name, table in wanted.items():
            text += f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        self.config.write_text(text)

    def _venue(self, name: str) -> tuple[subprocess.Popen[bytes], int]:
        command = [sys.executable, "-m", "obs.sim", name, "--port", "0", "--source", "numbered", "--rate", "60", "--die-with-parent"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT)
        assert process.stdout is not None
        return process, int(orjson.loads(process.stdout.readline())["port"])

    def do(self, name: str, what: str, **how: Any) -> None:
        """Let a venue misbehave now, in the words of its scripts."""
        body = orjson.dumps({"do": what, **how})
        request = urllib.request.Request(f"http://127.0.0.1:{self.venues[name][1]}/sim/do", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert answer.status == 200

    def events(self, provider: str, kind: str) -> list[dict[str, Any]]:
        """What system/events holds, in its order."""
        paths = sorted((self.data / "system" / "events" / provider).glob("*.jsonl"))
        lines = [orjson.loads(line) for path in paths for line in path.read_bytes().splitlines()]
        return [line for line in lines if line["event_type"] == kind]

    def environ(self) -> dict[str, str]:
        unwanted = ("OBS_DSN", "OBS_CONFIG", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
        kept = {key: value for key, value in os.environ.items() if key not in unwanted}
        return kept | demo_environ() | ({"OBS_DSN": self.dsn} if self.dsn else {})

    def start(self, *words: str, environ: dict[str, str] | None = None) -> Supervisor:
        """Start a supervisor with these further words and return at once."""
        made = Supervisor(self, len(self.starts), words, self.environ() | (environ or {}))
        self.starts.append(made)
        return made

    def published(self, provider: str) -> int:
        """How many records the present session of a provider has published."""
        sessions = read_sessions(self.data, provider)
        if not sessions:
            return 0
        try:
            found = attach_ring(block_path(self.shm, self.data, sessions[-1].session_id, "tick"), TICK)
        except FileNotFoundError:
            return 0
        published = found.published
        found.close()
        return published

    def recording(self, *providers: str) -> None:
        """Wait until each of them has published something more."""
        for provider in providers:
            before = self.published(provider)
            until(f"records of {provider}", lambda name=provider, count=before: self.published(name) > count)

    def close(self) -> None:
        for supervisor in self.starts:
            supervisor.close()
        for process, _ in self.venues.values():
            process.terminate()
            process.wait(10)
            assert process.stdout is not None
            process.stdout.close()
        shutil.rmtree(self.shm, ignore_errors=True)


class Supervisor:
    """One process tree."""

    def __init__(self, of: Supervised, number: int, words: tuple[str, ...], environ: dict[str, str]) -> None:
        self._of, self.stdout, self.stderr = of, of.folder / f"stdout.{number}", of.folder / f"stderr.{number}"
        command = [sys.executable, "-m", "obs.supervisor", "--config", str(of.config), "--data", str(of.data), *words]
        with self.stdout.open("wb") as out, self.stderr.open("wb") as errors:
            # A group of its own: a test can do what a terminal does.
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, cwd=ROOT, env=environ, start_new_session=True
            )
        self.seen: dict[int, psutil.Process] = {}

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self, event: str = "") -> list[dict[str, Any]]:
        """The log lines so far, of one event or all."""
        lines = [orjson.loads(line) for line in self.stderr.read_bytes().splitlines() if line.startswith(b"{") and line.endswith(b"}")]
        return [line for line in lines if event in ("", line["event"])]

    def children(self) -> dict[str, int]:
        """Title -> pid of the roles that run, as `ps` shows them."""
        found = {}
        try:
            processes = psutil.Process(self.pid).children()
        except psutil.NoSuchProcess:
            return {}
        for process in processes:
            try:
                title = " ".join(process.cmdline()).strip()
            except psutil.NoSuchProcess:
                continue
            self.seen[process.pid] = process
            if title.startswith("obs "):
                found[title] = process.pid
        return found

    def child(self, title: str, not_pid: int = 0) -> int:
        """Wait for a role and return its pid, other than `not_pid`."""
        return int(until(title, lambda: self.alive() and (pid := self.children().get(title)) != not_pid and pid))

    def alive(self) -> bool:
        assert self.process.poll() is None, f"the supervisor ended: exit code {self.process.returncode}\n{self.tail()}"
        return True

    def ready(self, deadline_s: float = 40.0) -> None:
        until("every process is ready", lambda: self.alive() and self.log("ready"), deadline_s)

    def wait(self, deadline_s: float = 30.0) -> int:
        """Wait for its end; return the exit code."""
        self.children()
        try:
            return self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it has not ended after {deadline_s} s\n{self.tail()}") from None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Ask it to stop; return after how many seconds it had, with exit code 0."""
        self.children()
        began = time.monotonic()
        self.process.send_signal(number)
        code = self.wait()
        assert code == 0, f"exit code {code}\n{self.tail()}"
        return time.monotonic() - began

    def left(self) -> list[str]:
        """The processes of this tree that were seen and are still alive."""
        alive = []
        for process in self.seen.values():
            try:
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    alive.append(" ".join(process.cmdline()))
            except psutil.NoSuchProcess:
                continue
        return alive

    def tail(self) -> str:
        return self.stderr.read_text(errors="replace")[-6000:]

    def close(self) -> None:
        if self.process.poll() is None:
            self.children()
            self.process.kill()
            self.process.wait(10)
        for process in self.seen.values():
            if process.is_running():
                process.kill()
