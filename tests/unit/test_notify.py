"""sd_notify through a real datagram socket."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from obs.supervisor.notify import Notifier, watchdog_s


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
