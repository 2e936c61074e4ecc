"""What systemd tells us and wants to hear: READY, WATCHDOG, STOPPING and STATUS. Nothing happens where systemd did not ask.

The watchdog is fed by progress: `Pulse.beat` is called by the loop that reaps, judges and restarts the children, and by
nothing else, so a supervisor that hangs falls silent and is ended. No thread may call it: that would prove nothing.

Why not a library: the protocol is one datagram (sd_notify(3)); the Python packages for it are unmaintained or need
systemd's headers to build.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final

from obs.clock import NS, Clock

_EVERY_S: Final = 5.0  # how often at least, so that `systemctl status` shows the present


class Notifier:
    def __init__(self, address: str | None) -> None:
        """`address`: of NOTIFY_SOCKET, or None."""
        self._address = "\0" + address[1:] if address and address.startswith("@") else address

    def send(self, text: str) -> bool:
        """Send one datagram, for example "READY=1"; a manager that does not listen is no error.

        Never waits: return False if the manager's queue is full, then what must arrive has to be sent again.
        """
        if not self._address:
            return True
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            try:
                sender.connect(self._address)
                sender.send(text.encode())
            except BlockingIOError:
                return False
        return True


class Pulse:
    """The regular word of a loop that is alive. `limit_s`: after so long a silence the manager ends us; 0: it does not watch."""

    def __init__(self, notifier: Notifier, limit_s: float, clock: Clock) -> None:
        self._notifier, self._clock = notifier, clock
        self._every_ns = int(min(limit_s / 4 or _EVERY_S, _EVERY_S) * NS)
        self._told: tuple[int, str] | None = None  # when (monotonic), what

    def beat(self, status: str) -> None:
        """Say that one more turn was made; call it each turn. What the manager's full queue refuses is said again in the next."""
        now = self._clock.mono_ns()
        due = self._told is None or self._told[1] != status or now - self._told[0] >= self._every_ns
        if due and self._notifier.send(f"WATCHDOG=1\nSTATUS={status}"):
            self._told = now, status


def watchdog_s() -> float:
    """Return how often systemd wants to hear WATCHDOG=1 at least, 0 if it does not."""
    pid = os.environ.get("WATCHDOG_PID")
    if pid and int(pid) != os.getpid():
        return 0.0
    return int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6


def journal_stream() -> str:
    """Return which stream leads to the journal, "device:inode", "" if none does (systemd.exec(5))."""
    return os.environ.get("JOURNAL_STREAM", "")
