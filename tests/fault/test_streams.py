"""Fifty browsers on the live stream, some of which read nothing: those are cut, the others see every moment, and no record comes later."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
from harness import PROVIDERS, Demo, gauge, health, listening, until

Make = Callable[..., Demo]
pytestmark = pytest.mark.timeout(300)

BROWSERS, DEAF = 50, 10
QUIET_S = 3.0  # how long the processes are watched without a browser
STREAMED_S = 3.0  # and at least with all of them
CUT_S = 60.0  # a generous bound: their sockets hold a few seconds of the stream, and then they are borne for five
LATE_MS = 1000.0  # from a record's time to a browser
MORE_BYTES = 48 << 20  # that all of them may cost the monitor
COLLECTORS = ("feed", "archive", "load")
_ASK = b"GET /api/live HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"


class Browsers:
    """Sockets on the stream. All but the first `deaf` are read, by one thread; of some the messages are looked at."""

    def __init__(self, host: str, port: int, count: int, deaf: int) -> None:
        self.deaf, self._read = [self._connect(host, port, 4096) for _ in range(deaf)], selectors.DefaultSelector()
        self.lateness_ms: list[float] = []
        self.kinds: dict[str, int] = {}
        self.ended = 0
        self._seen: dict[str, int] = {}  # symbol -> time of its newest record
        self._sockets = [self._connect(host, port, None) for _ in range(count - deaf)]
        self.bytes = [0] * len(self._sockets)
        self._rest = b""
        for number, sock in enumerate(self._sockets):
            self._read.register(sock, selectors.EVENT_READ, number)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @staticmethod
    def _connect(host: str, port: int, room: int | None) -> socket.socket:
        sock = socket.socket()
        if room is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        sock.connect((host, port))
        sock.sendall(_ASK)
        sock.setblocking(False)
        return sock

    def _run(self) -> None:
        while not self._stop.is_set():
            for key, _ in self._read.select(0.2):
                sock, number = key.fileobj, key.data
                assert isinstance(sock, socket.socket)
                try:
                    data = sock.recv(1 << 18)
                except (BlockingIOError, ConnectionError):
                    data = b""
                if not data:
                    self.ended += 1
                    self._read.unregister(sock)
                    continue
                self.bytes[number] += len(data)
                if number == 0:
                    self._look(data)

    def _look(self, data: bytes) -> None:
        now_ms = time.time_ns() / 1e6
        *messages, self._rest = (self._rest + data).split(b"\n\n")
        for message in messages:
            kind, found, body = message.rpartition(b"event: ")[2].partition(b"\ndata: ")
            if not found:
                continue
            name = kind.decode()
            self.kinds[name] = self.kinds.get(name, 0) + 1
            if name == "ticks":
                for symbols in orjson.loads(body.partition(b"\r\n")[0]).values():
                    for symbol, (ts_ms, *_) in symbols.items():
                        if self._seen.get(symbol, ts_ms) < ts_ms:  # not the first: that is what was there before we came
                            self.lateness_ms.append(now_ms - ts_ms)
                        self._seen[symbol] = ts_ms

    def cut(self) -> int:
        """Return how many of the deaf were cut: told by the kernel without reading."""
        return sum(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != 1 for sock in self.deaf)  # TCP_ESTABLISHED

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._read.close()
        for sock in (*self.deaf, *self._sockets):
            sock.close()


def mapped(pid: int) -> int:
    """Return how often a process maps tick rings."""
    return Path(f"/proc/{pid}/maps").read_text().count("-tick")


def cpu(one: Demo) -> dict[str, float]:
    """Return the CPU seconds of each collecting process, and of the monitor, so far."""
    found = {f"{role} {provider}": psutil.Process(one.pid(role, provider)) for provider in PROVIDERS for role in COLLECTORS}
    found["monitor"] = psutil.Process(int(listening(one)["pid"]))
    return {name: sum(process.cpu_times()[:2]) for name, process in found.items()}


def per_input(one: Demo, act: Callable[[], Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Return what each process spent while `act` went on: microseconds of CPU for each record published, and parts of a core."""
    before, records, begun = cpu(one), sum(map(one.published, PROVIDERS)), time.monotonic()
    act()
    spent = {name: now - before[name] for name, now in cpu(one).items()}
    count, seconds = sum(map(one.published, PROVIDERS)) - records, time.monotonic() - begun
    return {name: 1e6 * took / count for name, took in spent.items()}, {name: took / seconds for name, took in spent.items()}


def test_fifty_browsers_of_which_ten_read_nothing(demo: Make, dsn: str) -> None:
    one = demo(dsn=dsn)
    one.start()
    for provider in PROVIDERS:
        one.more(provider, 500)
    place = listening(one)
    pid = int(place["pid"])
    until("health is green", lambda: health(one)["ok"])
    before, rings = gauge(pid), mapped(pid)
    assert before is not None
    alone_us, _ = per_input(one, lambda: time.sleep(QUIET_S))  # what they cost by themselves, over a while
    begun_ns = time.time_ns()
    browsers = Browsers(place["host"], place["port"], BROWSERS, DEAF)
    one.count("browser that does not read", DEAF)
    most = before.resident
    begun = time.monotonic()

    def stream() -> None:
        nonlocal most
        while browsers.cut() < DEAF or time.monotonic() < begun + STREAMED_S:
            assert time.monotonic() < begun + CUT_S, f"{DEAF - browsers.cut()} of those that do not read were not cut"
            held = gauge(pid)
            assert held is not None
            most = max(most, held.resident)
            time.sleep(0.1)

    try:
        beside_us, cores = per_input(one, stream)
        took, ended_ns = time.monotonic() - begun, time.time_ns()
        assert mapped(pid) == rings + len(PROVIDERS), "once for all browsers together"
        assert browsers.ended == 0, "one that reads was cut"
        assert min(browsers.bytes) > max(browsers.bytes) / 2, "one of them saw less than another"
    finally:
        browsers.close()
    until("their descriptors are free again", lambda: len(os.listdir(f"/proc/{pid}/fd")) <= before.files + 1)
    until("it looks at the rings no longer", lambda: mapped(pid) == rings)
    assert int(listening(one)["pid"]) == pid, "the monitor was restarted"
    late = sorted(browsers.lateness_ms)
    with contextlib.suppress(ZeroDivisionError):
        one.figures |= {
            "cut_s": round(took, 1), "late_ms_p50_p95": (round(late[len(late) // 2]), round(late[len(late) * 95 // 100])),
            "more_mib": round((most - before.resident) / 2**20, 1), "monitor_cores": round(cores["monitor"], 3),
            "kib_per_s": round(max(browsers.bytes) / took / 1024, 1), "kinds": browsers.kinds,
            "cpu_us_per_record": {name: (round(alone_us[name], 1), round(beside_us[name], 1)) for name in alone_us if name != "monitor"},
        }  # fmt: skip
    print("  figures", one.figures)
    assert {"hello", "status", "slots", "ticks"} <= browsers.kinds.keys()
    assert browsers.kinds["hello"] == 1
    assert browsers.kinds["status"] > took / 4
    assert late[len(late) * 95 // 100] < LATE_MS
    assert most - before.resident < MORE_BYTES
    alone, beside = (sum(cost for name, cost in costs.items() if name != "monitor") for costs in (alone_us, beside_us))
    assert beside < 1.5 * alone + 20, f"a record cost the collectors {beside:.0f} µs with browsers, {alone:.0f} µs without"
    for provider, verdict in one.finish().items():
        assert not verdict.gaps, verdict.gaps
        inside, outside = verdict.latency_ms(begun_ns, ended_ns)
        one.figures[f"latency_ms_{provider}"] = (round(inside, 2), round(outside, 2))
        assert inside < 2 * outside + 10, f"{provider}: a record took {inside} ms with browsers, {outside} ms without"
    print("  figures", one.figures)
