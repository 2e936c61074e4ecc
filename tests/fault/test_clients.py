"""Clients of the HTTP server that do not read: they alone are cut, and nothing else notices."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import LONG, PROVIDERS, Demo, gauge, listening, until

Make = Callable[..., Demo]
pytestmark = pytest.mark.timeout(600 if LONG else 300)

CLIENTS = 50
PIPELINED = 400  # requests at once of one client: answers of many times what the sockets of both sides hold
CUT_S = 20.0  # how long a client is borne; obs/roles/monitor.py
SERVED_S = 5.0  # a client that reads: the slowest answer, on a busy machine
MORE_BYTES = 32 << 20  # that 50 of them may cost the monitor


class Deaf:
    """A client that asks much and reads nothing."""

    def __init__(self, host: str, port: int) -> None:
        self._sock = socket.socket()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._sock.connect((host, port))
        self._sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            self._sock.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * PIPELINED)

    def cut(self) -> bool:
        """Whether the server has ended it: told by the kernel without reading."""
        state = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        return bool(state != 1)  # TCP_ESTABLISHED

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def deaf() -> Iterator[Callable[[str, int], Deaf]]:
    made: list[Deaf] = []

    def make(host: str, port: int) -> Deaf:
        made.append(Deaf(host, port))
        return made[-1]

    yield make
    for one in made:
        one.close()


def served(place: dict[str, Any], path: str) -> float:
    """Ask as an ordinary client does; return how long the answer took."""
    begun = time.monotonic()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{place['url']}{path}", timeout=10) as answer:
        assert answer.read()
    return time.monotonic() - begun


def test_clients_that_do_not_read(demo: Make, dsn: str, deaf: Callable[[str, int], Deaf]) -> None:
    """Fifty of them are cut after a while; others are served all the time, memory stays bounded, and no record comes later for it."""
    one = demo(dsn=dsn)
    one.start()
    for provider in PROVIDERS:
        one.more(provider, 1000)
    place = listening(one)
    pid = int(place["pid"])
    until("health is green", lambda: served_well(place))
    before = gauge(pid)
    begun_ns, begun = time.time_ns(), time.monotonic()
    clients = [deaf(place["host"], place["port"]) for _ in range(CLIENTS)]
    one.count("deaf client", CLIENTS)
    until("all are connected", lambda: len(os.listdir(f"/proc/{pid}/fd")) >= before.files + CLIENTS)
    slowest = most = 0.0
    while not all(client.cut() for client in clients):
        assert time.monotonic() - begun < CUT_S + 20, f"{sum(not client.cut() for client in clients)} clients were not cut"
        slowest = max(slowest, served(place, "/metrics"), served(place, "/health"), served(place, "/"))
        most = max(most, gauge(pid).resident)
    took, ended_ns = time.monotonic() - begun, time.time_ns()
    until("their descriptors are free again", lambda: len(os.listdir(f"/proc/{pid}/fd")) <= before.files + 1)
    for provider in PROVIDERS:
        one.more(provider, 1000)
    assert int(listening(one)["pid"]) == pid, "the monitor was restarted"
    one.figures |= {"cut_s": round(took, 1), "slowest_s": round(slowest, 2), "more_mib": round((most - before.resident) / 2**20, 1)}
    assert slowest < SERVED_S
    assert most - before.resident < MORE_BYTES
    for provider, verdict in one.finish().items():
        assert not verdict.gaps, verdict.gaps
        inside, outside = verdict.latency_ms(begun_ns, ended_ns)
        one.figures[f"latency_ms_{provider}"] = (round(inside, 2), round(outside, 2))
        assert inside < 2 * outside + 10, f"{provider}: a record took {inside} ms with deaf clients, {outside} ms without"
    print("  figures", one.figures)


def served_well(place: dict[str, Any]) -> bool:
    with contextlib.suppress(urllib.error.HTTPError):
        return served(place, "/health") > 0
    return False
