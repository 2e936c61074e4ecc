"""From the bytes of a socket to whole messages: what picows does not keep for us.

picows parses frames out of its own buffer and delivers them one by one, fragments as they come; a frame that breaks the
protocol it drops with a text, and its buffer is out of reach. So a Tap stands between the transport and picows. It copies
each read before picows parses it (parsing may move or free the memory behind the view), and afterwards keeps of the copy
only what lies behind the last frame that was delivered: an incomplete frame, or the bytes that broke the framing. That is
one copy per read of at most 64 KiB, not per message: 1 to 3 % of the cost of a flood of 300-byte messages
(tests/integration/test_wire_throughput.py prints it for the machine at hand), and of one that comes alone.

Join puts the fragments of a message together, up to a bound; of a longer one it keeps the head, the length and the hash.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from picows import WSFrame, WSTransport

KEEP_BYTES: Final = 64 * 1024  # of what cannot be handed over as a message; quarantine keeps as much
# Per read. It bounds the copy, and picows' buffer, which doubles whenever a read fills it and never shrinks: after a stop of
# the process the kernel may hold tens of megabytes (tcp_rmem). It costs a tenth of a loopback flood, where every read is full.
READ_BYTES: Final = 64 * 1024


class Excerpt(bytes):
    """The first KEEP_BYTES of something longer; `total_bytes` and `sha256` (32 bytes) are those of the whole."""

    total_bytes: int
    sha256: bytes

    @classmethod
    def of(cls, head: bytes, total_bytes: int, sha256: bytes) -> Excerpt:
        excerpt = cls(head)
        excerpt.total_bytes = total_bytes
        excerpt.sha256 = sha256
        return excerpt


class Head:
    """Keeps the first KEEP_BYTES of a stream of bytes, its length and its hash."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._hash = hashlib.sha256()
        self.total_bytes = 0

    def add(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`, borrowed."""
        room = KEEP_BYTES - len(self._kept)
        if room > 0:
            self._kept += data[:room]
        self._hash.update(data)
        self.total_bytes += len(data)

    def excerpt(self) -> Excerpt:
        """Return what was kept, owned."""
        return Excerpt.of(bytes(self._kept), self.total_bytes, self._hash.digest())


class Join:
    """The fragments of one message. `open` while one is being joined."""

    def __init__(self, max_message_bytes: int) -> None:
        self._max = max_message_bytes
        self._parts = bytearray()
        self._long: Head | None = None  # once the message is longer than allowed
        self.open = False

    def add(self, part: memoryview, fin: bool) -> bytes | Excerpt | None:
        """Append a fragment, borrowed. Return the message, owned, with its last one; an Excerpt if it is too long."""
        self.open = not fin
        if self._long is None and len(self._parts) + len(part) > self._max:
            self._long = Head()
            self._long.add(self._parts)
            self._parts = bytearray()
        if self._long is not None:
            self._long.add(part)
        else:
            self._parts += part
        if not fin:
            return None
        joined = bytes(self._parts) if self._long is None else self._long.excerpt()
        self._parts, self._long = bytearray(), None
        return joined

    @property
    def held_bytes(self) -> int:
        """Bytes of the message that is not complete."""
        return len(self._parts) if self._long is None else self._long.total_bytes


def header_of(frame: WSFrame, kind: int) -> bytes:
    """Return the two to ten bytes that announced `frame` of opcode `kind`: a server's frame is unmasked, its length minimal."""
    first = frame.fin << 7 | frame.rsv1 << 6 | frame.rsv2 << 5 | frame.rsv3 << 4 | kind
    size = frame.payload_size
    if size < 126:
        return bytes((first, size))
    return bytes((first, 126)) + size.to_bytes(2, "big") if size < 65536 else bytes((first, 127)) + size.to_bytes(8, "big")


class Reader(Protocol):
    """What the Tap tells, and asks, the listener of the same connection."""

    frame: WSFrame | None  # the last frame that was delivered; only its tail_size is read, which is a number of its own

    last_frame_ns: int  # monotonic, of the last read that completed a frame

    def close_sent(self) -> None:
        """Called after a read if a CLOSE has been sent, by whomever."""
        ...

    def writing_paused(self, paused: bool) -> None:
        """Called when the write buffer passes its marks."""
        ...

    def lost(self, error: Exception | None) -> None:
        """Called with the transport's reason, before picows hears of the end."""
        ...


class Tap(asyncio.BufferedProtocol):
    """Stands between a transport and picows' protocol; see above. Nothing may keep a view of its buffer."""

    def __init__(self, transport: WSTransport, reader: Reader, mono_ns: Callable[[], int]) -> None:
        inner = cast(asyncio.BufferedProtocol, transport.underlying_transport.get_protocol())
        self._inner = inner
        self._transport = transport
        self._reader = reader
        self._mono_ns = mono_ns
        # picows' C methods bound once; typeshed knows the abstract class only.
        self._give: Callable[[int], memoryview] = cast(Any, inner).get_buffer
        self._parse: Callable[[int], None] = cast(Any, inner).buffer_updated
        self._view = memoryview(b"")
        self._copy = memoryview(bytearray(READ_BYTES))
        self._tail = b""  # behind the last frame, of the read that completed it
        self._more: Head | None = None  # and what came since
        self._diverted: Head | None = None  # once nothing is parsed any more
        self._nbytes = 0  # of the present read

    def get_buffer(self, sizehint: int) -> memoryview:
        view = self._give(sizehint)
        if len(view) > READ_BYTES:
            view = view[:READ_BYTES]
        self._view = view
        return view

    def buffer_updated(self, nbytes: int) -> None:
        reader, copy = self._reader, self._copy
        copy[:nbytes] = self._view[:nbytes]  # Order: before picows parses, see above
        if self._diverted is not None:
            self._diverted.add(copy[:nbytes])
            return
        self._nbytes = nbytes
        reader.frame = None
        self._parse(nbytes)
        if self._diverted is not None:
            return
        frame = reader.frame
        if frame is not None:
            tail = frame.tail_size
            self._tail = bytes(copy[nbytes - tail : nbytes]) if tail else b""
            self._more = None
            reader.last_frame_ns = self._mono_ns()
        else:
            if self._more is None:
                self._more = Head()
                self._more.add(self._tail)
            self._more.add(copy[:nbytes])
        if self._transport.is_close_frame_sent:
            reader.close_sent()

    def divert(self, begin: bytes | None = None, tail_bytes: int = 0) -> None:
        """Parse no more: keep what is unparsed, and what still comes.

        `begin`: a frame that picows has parsed already; `tail_bytes`: what lay behind it in the present read.
        """
        if self._diverted is not None:
            return
        if begin is None:
            head = self._more or Head()
            if self._more is None:
                head.add(self._tail)
        else:
            head = Head()
            head.add(begin)
            head.add(self._copy[max(0, self._nbytes - tail_bytes) : self._nbytes])
        self._diverted = head

    def unparsed(self) -> Excerpt:
        """Return the bytes since the last frame that was delivered, owned."""
        head = self._diverted or self._more
        if head is None:
            head = Head()
            head.add(self._tail)
        return head.excerpt()

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._reader.writing_paused(True)

    def resume_writing(self) -> None:
        self._reader.writing_paused(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._reader.lost(exc)
        self._inner.connection_lost(exc)
