"""One client of the simulated venue, with the ways that a connection can end."""

from __future__ import annotations

import contextlib
import socket
import struct
from asyncio import AbstractEventLoop, Transport
from typing import Any, Final

from obs.sim.frames import close_frame, frame
from obs.sim.market import Message
from obs.sim.now import host_s, mono_s

_LINGER_0: Final = struct.pack("ii", 1, 0)


class Connection:
    """A WebSocket connection after its handshake. `state` is the venue's own; `opened_s` and `last_io_s`: host seconds."""

    __slots__ = (
        "closing", "half_open_until_s", "held", "ip", "last_io_s", "loop", "n", "no", "opened_s", "pending", "said_close",
        "slow_until_s", "state", "transport",
    )  # fmt: skip

    def __init__(self, no: int, ip: str, transport: Transport, loop: AbstractEventLoop) -> None:
        self.no = no
        self.ip = ip
        self.transport = transport
        self.loop = loop
        self.n = 0  # inputs logged
        self.pending: list[Message] = []
        self.held: list[tuple[float, int, Message]] = []  # heap by due time
        self.slow_until_s = 0.0
        self.half_open_until_s = 0.0
        self.opened_s = self.last_io_s = host_s()
        self.closing = ""  # how we end it; "" while it lives
        self.said_close = False  # the client sent a close frame: a clean end
        self.state: Any = None

    @property
    def alive(self) -> bool:
        """False once it is ending, and while it is half open (nothing can be sent then)."""
        return not self.closing and not self.transport.is_closing() and self.half_open_until_s <= mono_s()

    def write(self, data: bytes) -> None:
        """Hand framed bytes to the transport; nothing once the connection is ending."""
        if self.alive:
            self.last_io_s = host_s()
            self.transport.write(data)

    def say(self, payload: bytes, opcode: int) -> None:
        """Send one message that carries no input."""
        self.write(frame(payload, opcode))

    def drop(self) -> None:
        """End it with a TCP reset."""
        self.closing = self.closing or "drop"
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):  # gone already, which is what we want
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        self.transport.abort()

    def reset_in_frame(self, payload: bytes, opcode: int) -> None:
        """Send half a frame, and reset once it can have arrived."""
        whole = frame(payload, opcode)
        self.write(whole[: max(3, len(whole) // 2)])
        self.closing = "rst"
        self.loop.call_later(0.05, self.drop)

    def end(self, why: str) -> None:
        """End TCP without a close frame, after what was written has left."""
        self.closing = self.closing or why
        self.transport.close()

    def close(self, code: int, reason: str = "", *, why: str = "close") -> None:
        """Send a close frame and end TCP a moment later; 1006 is what a client sees if there is no close frame."""
        if code != 1006:
            self.write(close_frame(code, reason))
        self.closing = self.closing or why
        self.loop.call_later(0.2, self.transport.close)
