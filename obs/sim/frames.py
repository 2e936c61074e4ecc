"""WebSocket frames as a server sends them (RFC 6455): unmasked, framed by ourselves.

Why not the library's own writer: thousands of messages a tick leave as one joined bytes object in one transport write,
and faults need what a correct writer refuses to do: half a frame, reserved bits, fragments with a ping between them.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
_FIN: Final = 0x80


@lru_cache(maxsize=65536)
def head(opcode: int, size: int, fin: bool = True) -> bytes:
    """Return the header of an unmasked frame of `size` payload bytes."""
    first = opcode | (_FIN if fin else 0)
    if size < 126:
        return bytes((first, size))
    if size < 1 << 16:
        return struct.pack("!BBH", first, 126, size)
    return struct.pack("!BBQ", first, 127, size)


def frame(payload: bytes, opcode: int) -> bytes:
    """Return one whole frame."""
    return head(opcode, len(payload)) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """Return a close frame; 1005 is one without a code."""
    return frame(b"" if code == 1005 else struct.pack("!H", code) + reason.encode()[:123], CLOSE)


def fragments(payload: bytes, opcode: int, parts: int) -> bytes:
    """Return the message in `parts` frames (fewer if it is shorter), with a ping between the first two.

    A control frame between fragments is what RFC 6455 section 5.4 allows and clients forget.
    """
    parts = max(1, min(parts, len(payload)))
    size = max(1, -(-len(payload) // parts))
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
    out = []
    for place, piece in enumerate(pieces):
        last = place == len(pieces) - 1
        out.append(head(opcode if place == 0 else 0, len(piece), last) + piece)
        if place == 0 and not last:
            out.append(frame(b"between fragments", PING))
    return b"".join(out)
