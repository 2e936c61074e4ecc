"""sd_notify: tell systemd READY, WATCHDOG, STOPPING and STATUS. Nothing happens where systemd did not ask.

Why not a library: the protocol is one datagram (sd_notify(3)); the Python packages for it are unmaintained or need
systemd's headers to build.
"""

from __future__ import annotations

import contextlib
import os
import socket


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


def watchdog_s() -> float:
    """Return how often systemd wants to hear WATCHDOG=1 at least, 0 if it does not."""
    pid = os.environ.get("WATCHDOG_PID")
    if pid and int(pid) != os.getpid():
        return 0.0
    return int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
