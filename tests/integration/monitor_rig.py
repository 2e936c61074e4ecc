"""A monitor as a process of its own over a data directory made by hand, and clients that see every byte of its answers."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from obs.clock import NS, SYSTEM
from obs.config import load
from obs.config.options import Config
from obs.config.process import SERVICES, ProcessSpec, children_lock_path
from obs.record.schema import DTYPES, TICK
from obs.ring import Producer, create_ring, fence
from obs.segment.sessions import SessionStart, append_start
from obs.shm import Board, Counters, block_path
from obs.supervisor.child import spawn

CONFIG = """\
data_dir = "data"
[http]
port = 0
{http}
[ring]
dir = "shm"
[providers.upbit]
symbols = ["KRW-BTC", "KRW-ETH"]
hours = "always"
"""
SYMBOLS = ("KRW-BTC", "KRW-ETH")


def configured(folder: Path, http: str = "") -> Config:
    for name in ("shm", "data"):
        (folder / name).mkdir()
    (folder / "obs.toml").write_text(CONFIG.format(http=http))
    return load(folder / "obs.toml", environ={}, cwd=folder)


def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "too late"
        time.sleep(0.02)
    return found


class Running:
    """A monitor that listens. `pid`, `place`: of its process."""

    def __init__(self, config: Config, child: subprocess.Popen[bytes]) -> None:
        self.config, self.child = config, child
        self.pid = child.pid

        def read() -> dict[str, Any] | None:
            with contextlib.suppress(FileNotFoundError):
                place: dict[str, Any] = json.loads((config.data_dir / "state" / "http.json").read_bytes())
                return place
            return None

        self.place = ("127.0.0.1", int(until(read)["port"]))
        until(lambda: self.ask("/api/status")[0] != 503)  # it has looked

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        """Return status, body and headers (names in lower case) of one answer; redirects are not followed."""
        connection = http.client.HTTPConnection(*self.place, timeout=30)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()

    def json(self, path: str) -> Any:
        status, body, headers = self.ask(path)
        assert (status, headers["content-type"]) == (200, "application/json"), body
        return orjson.loads(body)

    def raw(self, data: bytes) -> bytes:
        """Send bytes as they are; return everything up to the end of the connection."""
        with socket.create_connection(self.place, timeout=30) as sock:
            sock.sendall(data)
            found = b""
            while part := sock.recv(1 << 16):
                found += part
            return found


@contextmanager
def running(config: Config, dsn: str = "") -> Iterator[Running]:
    children_lock_path(config.data_dir, SERVICES).parent.mkdir(exist_ok=True)
    path = Counters.path(config.ring.dir, config.data_dir, SERVICES)
    counters = Counters(path, make=True)
    counters.add("monitor")
    child = spawn(ProcessSpec("monitor", SERVICES, config, path, os.getpid(), dsn=dsn))
    try:
        yield Running(config, child)
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            code = child.wait(10)
        finally:
            child.kill()  # what did not end must not outlive the test
            child.wait()
            counters.close()
    assert code == 0


class Feed:
    """What a feed that records keeps in shared memory: counters, board, and a tick ring into which the test publishes."""

    def __init__(self, config: Config, number: int = 1) -> None:
        folder, data = config.ring.dir, config.data_dir
        self.data, self.session = data, f"sess_20261121_000000_upbit_000{number}"
        append_start(data, SessionStart(self.session, "upbit", SYSTEM.wall_ns(), "host", "boot", "1", "hash", dict.fromkeys(DTYPES, 4096)))
        self.counters = Counters(Counters.path(folder, data, "upbit"), make=True)
        for role in ("archive", "load", "poll", "feed"):
            self.counters.add(role)
            cell = self.counters.cell(role)
            cell["pid"], cell["ready"], cell["started_ns"] = os.getpid(), 1, SYSTEM.wall_ns()
            cell["heartbeat_ns"] = SYSTEM.mono_ns() + 3600 * NS
        self.board = Board.create(Board.path(folder, data, "upbit"), fence)
        self.wants(SYMBOLS)
        self.board["link"].write_json([{"name": "upbit", "pid": os.getpid(), "connected": True, "connection_no": 1}])
        self.rings = {
            name: create_ring(block_path(folder, data, self.session, name), dtype, 4096, self.session, name, SYSTEM.wall_ns())
            for name, dtype in DTYPES.items()
        }
        self._tick = Producer(self.rings["tick"])

    def wants(self, symbols: tuple[str, ...]) -> None:
        self.board["wanted"].write_json({"version": 1, "symbols": symbols})
        self.board["actual"].write_json({"version": 1, "capacity": 41, "slots": dict.fromkeys(symbols, "confirmed")})

    def publish(self, symbol: str, price: float) -> int:
        """Publish a record; return its time in milliseconds."""
        rows = np.zeros(1, TICK)
        now = SYSTEM.wall_ns()
        rows["symbol"], rows["last_price"], rows["volume"], rows["ts_ns"], rows["recv_ns"], rows["event_ns"] = (
            symbol, price, 1, now, now, now - 25_000_000,
        )  # fmt: skip
        self._tick.publish(rows)
        return now // 1_000_000

    def tell(self, value: dict[str, Any], day: str) -> None:
        """Append a line to system/events."""
        path = self.data / "system" / "events" / "upbit" / f"{day}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(orjson.dumps(value) + b"\n")

    def close(self) -> None:
        for ring in self.rings.values():
            ring.close()
        self.counters.close()
        self.board.close()


class Stream:
    """A browser's end of /api/live: messages as they come."""

    def __init__(self, place: tuple[str, int], path: str = "/api/live", **headers: str) -> None:
        self._sock = socket.create_connection(place, timeout=30)
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n".encode())
        self._answer = http.client.HTTPResponse(self._sock)
        self._answer.begin()
        self.status = self._answer.status
        self.headers = {name.lower(): value for name, value in self._answer.getheaders()}

    def next(self) -> tuple[str, Any]:
        """Return the next message: event and value."""
        event, data = "", b""
        while line := self._answer.readline():
            line = line.rstrip(b"\n")
            if line.startswith(b"event: "):
                event = line[7:].decode()
            elif line.startswith(b"data: "):
                data = line[6:]
            elif not line and event:
                return event, orjson.loads(data)
        raise ConnectionError("the stream has ended")

    def wait(self, event: str, condition: Callable[[Any], bool] = lambda _: True) -> Any:
        """Return the value of the next message of a kind that fulfils a condition."""
        while True:
            found, value = self.next()
            if found == event and condition(value):
                return value

    def body(self) -> bytes:
        return self._answer.read()

    def close(self) -> None:
        self._answer.close()
        self._sock.close()
