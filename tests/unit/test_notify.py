"""sd_notify through a real datagram socket."""

from __future__ import annotations

import itertools
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from obs.clock import NS
from obs.supervisor.notify import Notifier, Pulse, watchdog_s


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, str]]:
    """A listening manager and the address that it would put into NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener, tempfile.TemporaryDirectory() as folder:
        # tmp_path may be longer than the 107 bytes that an address can have.
        name = str(Path(folder, "notify")) if request.param == "path" else f"@obs-test-{os.getpid()}-{os.urandom(4).hex()}"
        listener.bind("\0" + name[1:] if name.startswith("@") else name)
        listener.settimeout(5)
        yield listener, name


@pytest.mark.parametrize("text", ["READY=1", "WATCHDOG=1\nSTATUS=8 of 9 processes running", "STOPPING=1"])
def test_each_text_is_one_datagram(manager: tuple[socket.socket, str], text: str) -> None:
    listener, address = manager
    notifier = Notifier(address)
    notifier.send(text)
    notifier.send("LAST=1")
    assert listener.recv(4096).decode() == text
    assert listener.recv(4096) == b"LAST=1"


def test_a_manager_that_restarts_is_found_again(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        address = str(Path(folder, "notify"))
        notifier = Notifier(address)
        notifier.send("nobody listens yet")
        for number in range(2):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
                listener.bind(address)
                listener.settimeout(5)
                notifier.send(f"N={number}")
                assert listener.recv(100) == f"N={number}".encode()
            os.unlink(address)
            notifier.send("nobody listens")


@pytest.mark.parametrize("address", [None, "", "/nonexistent/notify"])
def test_without_a_manager_nothing_happens(address: str | None) -> None:
    assert Notifier(address).send("READY=1"), "nobody to tell is not a reason to try again"


def test_a_manager_that_does_not_read_is_not_waited_for(manager: tuple[socket.socket, str]) -> None:
    """Its queue is full: the supervisor must go on judging heartbeats."""
    listener, address = manager
    notifier = Notifier(address)
    sent = [notifier.send(f"STATUS={number}") for number in range(2000)]
    assert sent[0] is True
    assert sent[-1] is False, "and says so: READY=1 must be sent again"
    listener.recv(100)
    assert notifier.send("READY=1")


class Hands:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.ns = 5 * NS

    def wall_ns(self) -> int:
        return self.ns

    def mono_ns(self) -> int:
        return self.ns


def told(listener: socket.socket) -> list[str]:
    """What the manager has got by now."""
    listener.setblocking(False)
    found = []
    while True:
        try:
            found.append(listener.recv(4096).decode())
        except BlockingIOError:
            return found


@pytest.mark.parametrize(("limit_s", "every_s"), [(2.0, 0.5), (60.0, 5.0), (0.0, 5.0)])
def test_the_pulse_comes_four_times_within_the_limit_and_with_each_change(
    manager: tuple[socket.socket, str], limit_s: float, every_s: float
) -> None:
    listener, address = manager
    clock = Hands()
    pulse = Pulse(Notifier(address), limit_s, clock)
    times = []
    for _ in range(200):
        pulse.beat("4 of 4")
        if told(listener):
            times.append(clock.ns)
        clock.ns += NS // 10
    gaps = {(later - sooner) / NS for sooner, later in itertools.pairwise(times)}
    assert times[0] == 5 * NS
    assert gaps == {every_s}
    pulse.beat("3 of 4")
    assert told(listener) == ["WATCHDOG=1\nSTATUS=3 of 4"], "what has changed is not waited with"


def test_a_pulse_that_a_full_queue_refused_comes_with_the_next_turn(manager: tuple[socket.socket, str]) -> None:
    listener, address = manager
    clock, notifier = Hands(), Notifier(address)
    pulse = Pulse(notifier, 60.0, clock)
    while notifier.send("X=1"):
        pass
    pulse.beat("4 of 4")
    assert set(told(listener)) == {"X=1"}
    pulse.beat("4 of 4")
    assert told(listener) == ["WATCHDOG=1\nSTATUS=4 of 4"], "the limit would have passed before another regular one"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, 0.0), ({"WATCHDOG_USEC": "30000000"}, 30.0), ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0.0),  # meant for another process
    ],
)  # fmt: skip
def test_how_often_the_watchdog_wants_to_hear(environ: dict[str, str], expected: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert watchdog_s() == expected
