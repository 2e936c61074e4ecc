"""The other side of a wire test: a WebSocket server that can say anything, a proxy that can do anything, a sink that remembers.

The server writes its frames itself, because no library would write the broken ones.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ctypes
import hashlib
import os
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import uvloop

from obs.wire import CloseReason, Connection, ConnectOptions, Excerpt

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
DEADLINE_S = 20.0
Result = TypeVar("Result")
Script = Callable[["Peer"], Awaitable[None]]


def run(main: Coroutine[Any, Any, Result], loop_factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop) -> Result:
    """Run `main` on uvloop with a deadline; what the loop could only log, and tasks left behind, are failures."""
    complaints: list[str] = []

    async def watched() -> Result:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(repr(context)))
        result = await asyncio.wait_for(main, DEADLINE_S)
        await until(lambda: len(asyncio.all_tasks()) <= 1, "no task left behind")
        return result

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        result = runner.run(watched())
    assert not complaints
    return result


def open_sockets() -> set[str]:
    """Return the sockets of this process."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return {target for target in found if target.startswith("socket:")}


async def until(condition: Callable[[], object], what: str, within_s: float = 5.0) -> None:
    """Poll until `condition` holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}; tasks: {asyncio.all_tasks()}"
        await asyncio.sleep(0.002)


def ws_frame(kind: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes = b"") -> bytes:
    """Return one frame as a server writes it, or with `mask` as only a client may."""
    size = len(payload)
    first = fin << 7 | rsv << 4 | kind
    bit = 0x80 if mask else 0
    if size < 126:
        head = struct.pack(">BB", first, bit | size)
    elif size < 65536:
        head = struct.pack(">BBH", first, bit | 126, size)
    else:
        head = struct.pack(">BBQ", first, bit | 127, size)
    return head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload)) if mask else head + payload


def close_frame(code: int | None, words: bytes = b"") -> bytes:
    return ws_frame(CLOSE, b"" if code is None else struct.pack(">H", code) + words)


@dataclass
class Peer:
    """One accepted connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    request: bytes = b""

    async def say(self, *frames: bytes) -> None:
        for one in frames:
            self.writer.write(one)
        await self.writer.drain()

    async def hear(self) -> tuple[int, bytes]:
        """Return (opcode, payload) of the client's next frame."""
        first, second = await self.reader.readexactly(2)
        assert second & 0x80, "a client masks"
        size = second & 0x7F
        if size >= 126:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
        mask = await self.reader.readexactly(4)
        data = await self.reader.readexactly(size)
        return first & 0xF, bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))

    async def hear_end(self) -> None:
        """Read until the client is gone."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self.reader.read(65536):
                pass

    async def answer_handshake(self, extra: str = "") -> None:
        self.request = await self.reader.readuntil(b"\r\n\r\n")
        key = next(line.split(b":", 1)[1].strip() for line in self.request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
        head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.writer.write(f"{head}Sec-WebSocket-Accept: {accept}\r\n{extra}\r\n".encode())
        await self.writer.drain()

    def reset(self) -> None:
        """End with RST."""
        raw_socket(self.writer).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@contextlib.contextmanager
def _dup(fd: int) -> Any:
    sock = socket.socket(fileno=os.dup(fd))
    try:
        yield sock
    finally:
        sock.close()


class raw_socket:  # noqa: N801, reads as a function
    """Set options of the socket below a stream, whatever the loop wraps it in."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._fd = writer.get_extra_info("socket").fileno()

    def setsockopt(self, level: int, option: int, value: bytes | int) -> None:
        with _dup(self._fd) as sock:
            sock.setsockopt(level, option, value)

    def deafen(self) -> None:
        """Drop every packet that arrives, before TCP sees it: nothing is acknowledged, as behind a cut path."""
        drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0
        program = struct.pack("HxxxxxxP", 1, ctypes.addressof(drop_all))
        self.setsockopt(socket.SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER


@dataclass
class Server:
    """Runs `script` for each connection after the handshake (`raw`: instead of it)."""

    script: Script
    raw: bool = False
    ssl_context: ssl.SSLContext | None = None
    extra: str = ""
    port: int = 0
    peers: list[Peer] = field(default_factory=list)
    over: int = 0  # connections whose script has ended
    failures: list[BaseException] = field(default_factory=list)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        try:
            if not self.raw:
                await peer.answer_handshake(self.extra)
            await self.script(peer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except Exception as error:
            self.failures.append(error)
        finally:
            self.over += 1
            writer.close()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Server]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.ssl_context)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
            server.close()
            for peer in self.peers:
                peer.writer.transport.abort()
            await until(lambda: self.over == len(self.peers), "a script goes on")
            assert not self.failures, self.failures
        finally:
            server.close()

    @property
    def url(self) -> str:
        return f"{'wss' if self.ssl_context else 'ws'}://127.0.0.1:{self.port}/feed"


@dataclass
class Remembers:
    """A sink."""

    calls: list[str] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    kinds: list[type] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    broken: list[tuple[Excerpt, str]] = field(default_factory=list)
    closed: list[tuple[str, int]] = field(default_factory=list)
    raises_in: str = ""

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name == self.raises_in:
            raise ZeroDivisionError(name)

    def on_open(self) -> None:
        self._called("on_open")

    def on_message(self, payload: bytes | memoryview, recv_ns: int) -> None:
        self.messages.append(bytes(payload))
        self.kinds.append(type(payload))
        self.times.append(recv_ns)
        self._called("on_message")

    def on_broken(self, data: Excerpt, reason: str) -> None:
        self.broken.append((data, reason))
        self._called("on_broken")

    def on_close(self, reason: str, code: int) -> None:
        self.closed.append((reason, code))
        self._called("on_close")


async def outcome(server: Server, sink: Remembers, first: bytes = b"", **options: Any) -> CloseReason:
    """Connect to `server`, say `first`, wait for the end, check that the sink was told the same."""
    connection = Connection(ConnectOptions(server.url, **options), sink)
    await connection.connect()
    if first:
        connection.send(first, True)
    end = await connection.wait_closed()
    assert sink.closed == [(end.reason, end.code)]
    assert sink.calls[0] == "on_open"
    assert sink.calls[-1] == "on_close"
    return end


@dataclass
class Proxy:
    """Between a client and a server. `mode`: pass, stop (reads nothing more), swallow (reads, forwards nothing), slow.

    Its kernel goes on acknowledging: keepalive cannot see any of these.
    """

    target_port: int
    mode: str = "pass"
    only: str = ""  # "up" (from the client) or "down": the direction that `mode` holds for; both if empty
    slow_bytes: int = 1024  # per 10 ms
    port: int = 0
    pairs: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        self.pairs.append((writer, up_writer))
        for way, source, target in (("up", reader, up_writer), ("down", up_reader, writer)):
            task = asyncio.create_task(self._carry(way, source, target))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _carry(self, way: str, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while True:
                mode = self.mode if self.only in ("", way) else "pass"
                if mode == "stop":
                    await asyncio.sleep(0.01)
                    continue
                data = await source.read(self.slow_bytes if mode == "slow" else 65536)
                if not data:
                    break
                mode = self.mode if self.only in ("", way) else "pass"  # it may have changed while we read
                if mode in ("swallow", "stop"):
                    continue
                if mode == "slow":
                    await asyncio.sleep(0.01)
                target.write(data)
                await target.drain()
            target.close()

    def reset(self) -> None:
        """RST to both sides."""
        for pair in self.pairs:
            for writer in pair:
                raw_socket(writer).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()

    def cut(self) -> None:
        """FIN to both sides, in the middle of whatever is under way."""
        for pair in self.pairs:
            for writer in pair:
                writer.transport.abort()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Proxy]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            for task in list(self.tasks):
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/feed"
