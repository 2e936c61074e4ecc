"""What a connection tells its owner: messages, broken bytes, and why it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from obs.wire.frames import Excerpt


class MessageSink(Protocol):
    """Where a connection puts what it receives. An exception of any of these ends the connection, see Connection.wait_closed."""

    def on_open(self) -> None:
        """The handshake is done; nothing was delivered before."""
        ...

    def on_message(self, payload: bytes | memoryview, recv_ns: int) -> None:
        """Take one whole message, text or binary alike.

        `payload`: a memoryview into the receive buffer, borrowed until this returns; owned bytes if it came in fragments.
        `recv_ns`: UTC epoch, from the ws_frame that completed the message.
        """
        ...

    def on_broken(self, data: Excerpt, reason: str) -> None:
        """Take bytes that are no message: `reason` "oversize" (the connection goes on, or not) or "framing" (it ends).

        `data`: the first 64 KiB, owned, with total_bytes and sha256 of the whole.
        """
        ...

    def on_close(self, reason: str, code: int) -> None:
        """The socket is gone; nothing is delivered after."""
        ...


@dataclass(frozen=True)
class CloseReason:
    """Why a connection ended: see the module. `detail`: the venue's or the kernel's words, without secrets."""

    reason: str
    code: int
    detail: str = ""
    unfinished_bytes: int = 0  # of an incomplete message that was cut off
