"""One WebSocket to a venue at a time, on uvloop and picows; knows no venue.

    sink.on_open()  ->  sink.on_message(payload, recv_ns) …  sink.on_broken(data, reason) …  ->  sink.on_close(reason, code)

All of it is called from the loop's thread, in this order, on_close exactly once for each on_open. picows parses; frames.py
joins fragments and keeps the bytes that picows cannot explain; liveness.py judges pings and silence; dial.py makes the
kernel notice a cut path.

How a connection ends (`CloseReason.reason`): "closed" (asked to, or the caller's own word), "peer_close" (a CLOSE frame came),
"eof" (the stream ended without one), "reset", "timeout" (the kernel gave up on the path), "network", "tls", "pong_timeout",
"mute", "framing" and "oversize" (on_broken has the bytes), "send_stalled", "sink_error". `code` is the CLOSE code that came, else
the one we sent, else 1006.

How connect fails (`ConnectionLost.facts["reason"]`): "dns", "refused", "reset", "timeout", "network", "tls", "handshake",
"eof", "http_<status>" (with retry_after_s where the venue says so).

Known limit: bytes that arrive in the same read as the answer to the handshake reach picows before the Tap is in place.
Frames among them are delivered; if they break the framing, on_broken gets what can be had, perhaps nothing.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from picows import (
    WSCloseCode,
    WSFrame,
    WSHandshakeError,
    WSInvalidStatusError,
    WSListener,
    WSMsgType,
    WSParsedURL,
    WSProtocolError,
    WSTransport,
    ws_connect,
)

from obs.clock import NS, SYSTEM, Clock
from obs.errors import ConnectionLost
from obs.wire.dial import dial
from obs.wire.frames import Excerpt, Head, Join, Tap, header_of
from obs.wire.liveness import Liveness
from obs.wire.mask import scrub, secrets_of
from obs.wire.options import ConnectOptions

_TEXT: Final = WSMsgType.TEXT
_BINARY: Final = WSMsgType.BINARY
_UNSENDABLE: Final = (0, 1005, 1006, 1015)  # codes that only ever describe the absence of one, RFC 6455 section 7.4
_ABNORMAL: Final = 1006
_BUFFER_BYTES: Final = 2048  # to begin with; it grows with the load


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


class Connection:
    """One venue socket at a time. May connect again after it has closed; each life is a connection of its own."""

    def __init__(self, options: ConnectOptions, sink: MessageSink, clock: Clock = SYSTEM) -> None:
        self.options = options
        self._sink = sink
        self._clock = clock
        self._ssl = options.ssl_context
        self._socket: _Socket | None = None

    @property
    def is_open(self) -> bool:
        """True from on_open until the end begins."""
        return self._socket is not None and self._socket.is_open

    @property
    def response_headers(self) -> dict[str, str]:
        """The venue's headers of the last handshake that succeeded."""
        if self._socket is None or self._socket.transport is None:
            return {}
        return dict(self._socket.transport.response.headers)

    async def connect(self) -> None:
        """Open the connection; messages may have been delivered before this returns.

        Raises ConnectionLost (see the module); what the sink raised meanwhile. Cancelled or failed, it leaves no socket behind.
        """
        if self._socket is not None and not self._socket.is_over:
            raise RuntimeError("connect while a connection is open: close it and await wait_closed first")
        options = self.options
        if self._ssl is None and options.url.startswith("wss:"):
            self._ssl = ssl.create_default_context()
        life = _Socket(options, self._sink, self._clock)
        try:
            async with asyncio.timeout(options.connect_timeout_s):
                _, listener = await ws_connect(
                    cast(Any, life.listener),
                    options.url,
                    ssl_context=self._ssl,
                    extra_headers=options.request_headers(),
                    websocket_handshake_timeout=options.connect_timeout_s,
                    socket_factory=life.dial,
                    max_redirects=0,  # a redirect would carry the headers to another host
                    max_frame_size=options.max_frame_bytes,
                    enable_auto_pong=False,  # every frame must pass by us: see Tap
                    read_buffer_init_size=_BUFFER_BYTES,
                    logger_name=_SILENT,
                )
            if listener is None:
                raise ConnectionResetError("closed before the handshake was answered")
        except BaseException as error:
            life.abandon()
            if isinstance(error, (OSError, WSHandshakeError)):
                raise _connect_error(error, options) from None
            raise
        self._socket = life
        life.raise_sink_error()

    def send(self, payload: bytes | str, text: bool) -> None:
        """Send one message; it is queued if the socket is not writable.

        Raises ConnectionLost if the connection is not open, or ends it when more than max_unsent_bytes are queued.
        """
        if self._socket is None:
            raise ConnectionLost("send before connect", reason="closed", url=str(self.options))
        self._socket.send(payload, text)

    async def drain(self) -> None:
        """Wait until the socket takes bytes again. Raises ConnectionLost if it ends instead."""
        if self._socket is not None:
            await self._socket.writable.wait()
            self._socket.raise_unless_open()

    def close(self, reason: str = "closed", code: int = 1000) -> None:
        """Say farewell and close, within close_timeout_s; what the venue still sends until then is delivered."""
        if self._socket is not None:
            self._socket.end(reason, code, wait_peer=True)

    async def wait_closed(self) -> CloseReason:
        """Wait for the end of the connection, on_close included, and return why.

        Raises what the sink raised: the connection was closed with the reason "sink_error", and what came after is lost.
        """
        if self._socket is None:
            raise RuntimeError("wait_closed before connect")
        return await self._socket.wait_over()


class _Socket(WSListener):
    """One life of a connection: what picows calls, and what ends it."""

    def __init__(self, options: ConnectOptions, sink: MessageSink, clock: Clock) -> None:
        self.frame: WSFrame | None = None
        self.last_frame_ns = 0
        self.transport: WSTransport | None = None
        self.writable = asyncio.Event()
        self.writable.set()
        self.is_over = False
        self._options = options
        self._sink = sink
        self._deliver: Callable[[bytes | memoryview, int], None] = sink.on_message
        self._clock = clock
        self._wall_ns = clock.wall_ns
        self._mono_ns = clock.mono_ns
        self._loop = asyncio.get_running_loop()
        self._max_bytes = options.max_message_bytes
        self._join = Join(options.max_message_bytes)
        self._sock: socket.socket | None = None
        self._tap: Tap | None = None
        self._abandoned = False
        self._end: CloseReason | None = None
        self._error: Exception | None = None  # of the sink, or of ours
        self._transport_error: Exception | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._over: asyncio.Task[CloseReason] | None = None

    # --- before it opens

    async def dial(self, url: WSParsedURL) -> socket.socket:
        self._sock = await dial(url.host, url.port, self._options.keepalive, self._options.connect_timeout_s)
        return self._sock

    def listener(self, *_: object) -> _Socket:
        return self

    def abandon(self) -> None:
        """Cut the socket of a connect that failed or was cancelled.

        picows goes on with the handshake by itself, and a venue would count the connection. Shutting the socket down,
        not closing it, lets the transport that owns it find out and close it.
        """
        self._abandoned = True
        self.is_over = self._over is None
        if self.transport is not None:
            self.transport.disconnect(graceful=False)
        elif self._sock is not None and self._sock.fileno() >= 0:
            try:
                self._sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                self._sock.close()  # not connected (any more)

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        if self._abandoned:
            transport.disconnect(graceful=False)
            return
        self._tap = Tap(transport, self, self._mono_ns)
        transport.underlying_transport.set_protocol(self._tap)
        self._over = self._loop.create_task(self._settle(transport))
        options = self._options
        self._liveness = Liveness(
            self._mono_ns(), _ns(options.ping_every_s), _ns(options.pong_timeout_s), _ns(options.idle_s)
        )  # fmt: skip
        self.last_frame_ns = self._liveness.opened_ns
        self._watch_at(self._liveness.first())
        try:
            self._sink.on_open()
        except Exception as error:
            self._sink_failed(error)

    # --- while it is open

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.frame = frame
        kind = frame.msg_type
        plain = frame.fin and not (self._join.open or frame.rsv1 or frame.rsv2 or frame.rsv3)
        if plain and (kind is _TEXT or kind is _BINARY) and frame.payload_size <= self._max_bytes:
            recv_ns = self._wall_ns()
            try:
                self._deliver(frame.get_payload_as_memoryview(), recv_ns)
            except Exception as error:  # a broad one: whatever a sink raises is stored, and raised again by wait_closed
                self._sink_failed(error)
            return
        self._other_frame(transport, frame, kind)

    def _other_frame(self, transport: WSTransport, frame: WSFrame, kind: WSMsgType) -> None:
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._broken_framing(frame, kind, "reserved bits without an extension")  # picows lets them pass
        elif kind is WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
            self._check_unsent()
        elif kind is WSMsgType.CLOSE:
            self._peer_closes(transport, frame)
        elif kind is not WSMsgType.PONG:
            self._fragment(frame, kind)

    def _fragment(self, frame: WSFrame, kind: WSMsgType) -> None:
        recv_ns = self._wall_ns()
        if (kind is WSMsgType.CONTINUATION) is not self._join.open:
            self._broken_framing(frame, kind, "a CONTINUATION of nothing" if not self._join.open else "a new message inside another")
            return
        message = self._join.add(frame.get_payload_as_memoryview(), bool(frame.fin))
        if message is None:
            return
        try:
            if isinstance(message, Excerpt):
                self._report(message, "oversize")
            else:
                self._deliver(message, recv_ns)
        except Exception as error:
            self._sink_failed(error)

    def _peer_closes(self, transport: WSTransport, frame: WSFrame) -> None:
        code = int(frame.get_close_code().value)
        words = (frame.get_close_message() or b"").decode("utf-8", "replace")
        self.end("peer_close", code or 1005, detail=words, reply=1000 if code in _UNSENDABLE else code)
        transport.disconnect(graceful=True)  # also where it is the answer to our own CLOSE

    def close_sent(self) -> None:
        if self._end is None:
            # We have sent no CLOSE: picows has, and drops what breaks the protocol. It says why when the socket is gone.
            self._end = CloseReason("framing", 1002)
            self._deliver = _ignore
            if self._tap is not None:
                self._tap.divert()
            self._cut_later()

    def writing_paused(self, paused: bool) -> None:
        if paused:
            self.writable.clear()
        else:
            self.writable.set()

    def lost(self, error: Exception | None) -> None:
        self._transport_error = error

    def _watch(self) -> None:
        verdict = self._liveness.judge(self._mono_ns(), self.last_frame_ns)
        if verdict.action == "ping" and self.transport is not None:
            self.transport.send_ping()
            self._check_unsent()
        elif verdict.action:
            self.end(verdict.action, 1001)
        if self.is_open:
            self._watch_at(verdict.next_ns)

    def _watch_at(self, due_ns: int) -> None:
        self._timers["watch"] = self._loop.call_later(max(0.0, (due_ns - self._mono_ns()) / NS), self._watch)

    # --- sending

    @property
    def is_open(self) -> bool:
        return self.transport is not None and self._end is None and not self.is_over

    def raise_sink_error(self) -> None:
        if self._error is not None:
            raise self._error

    def raise_unless_open(self) -> None:
        if not self.is_open:
            end = self._end or CloseReason("closed", _ABNORMAL)
            raise ConnectionLost("the connection is not open", reason=end.reason, code=end.code, url=str(self._options))

    def send(self, payload: bytes | str, text: bool) -> None:
        self.raise_unless_open()
        assert self.transport is not None
        self.transport.send(_TEXT if text else _BINARY, payload)
        self._check_unsent()
        self.raise_unless_open()

    def _check_unsent(self) -> None:
        if self.transport is None or self.writable.is_set():
            return
        unsent = self.transport.underlying_transport.get_write_buffer_size()
        if unsent > self._options.max_unsent_bytes:
            self.end("send_stalled", 1001, detail=f"unsent_bytes={unsent}")

    # --- the end

    def end(self, reason: str, code: int, *, detail: str = "", reply: int | None = None, wait_peer: bool = False) -> None:
        """Begin the end; the first reason stands. `wait_peer`: let the venue answer our CLOSE before the socket goes."""
        if self._end is not None or self.is_over or self.transport is None:
            return
        self._end = CloseReason(reason, code, detail)
        self.transport.send_close(cast(WSCloseCode, reply or code))
        if not wait_peer:
            self.transport.disconnect(graceful=True)
        self._cut_later()

    def _cut_later(self) -> None:
        # Graceful waits for unsent bytes, and TLS for the peer's farewell: on a dead path both would take for ever.
        assert self.transport is not None
        self._timers["cut"] = self._loop.call_later(self._options.close_timeout_s, self.transport.disconnect, False)
        if "watch" in self._timers:
            self._timers.pop("watch").cancel()
        self.writable.set()

    def _sink_failed(self, error: Exception) -> None:
        self._deliver = _ignore
        self._error = self._error or error
        self.end("sink_error", 1011, detail=type(error).__name__)

    def _broken_framing(self, frame: WSFrame, kind: WSMsgType, words: str) -> None:
        """End because of a frame that picows accepts and the protocol does not."""
        if self._tap is not None:
            self._tap.divert(header_of(frame, kind.value) + frame.get_payload_as_bytes(), frame.tail_size)
        self._deliver = _ignore
        self.end("framing", 1002, detail=words)

    def _report(self, data: Excerpt, reason: str) -> None:
        self._sink.on_broken(data, reason)

    async def _settle(self, transport: WSTransport) -> CloseReason:
        """Wait until picows is through, then tell the sink how it ended."""
        parse_error: WSProtocolError | None = None
        try:
            await transport.wait_disconnected()
        except WSProtocolError as error:
            parse_error = error
        except Exception as error:
            self._error = self._error or error
        for timer in self._timers.values():
            timer.cancel()
        end = self._final(parse_error)
        self._end = end
        try:
            if self._error is None and end.reason in ("framing", "oversize"):
                self._report(self._tap.unparsed() if self._tap is not None else Head().excerpt(), end.reason)
        except Exception as error:
            self._error = error
        try:
            self._sink.on_close(end.reason, end.code)
        except Exception as error:
            self._error = self._error or error
        self.is_over = True
        self.writable.set()
        return end

    def _final(self, parse_error: WSProtocolError | None) -> CloseReason:
        end = self._end
        if parse_error is not None and (end is None or end.reason == "framing"):
            code = int(parse_error.code)
            return CloseReason("oversize" if code == 1009 else "framing", code, str(parse_error))
        if end is None and self._error is not None:
            end = CloseReason("sink_error", 1011, type(self._error).__name__)
        if end is None:
            reason, detail = _why_lost(self._transport_error)
            end = CloseReason(reason, _ABNORMAL, detail)
        left = self._join.held_bytes + (self._tap.unparsed().total_bytes if self._tap else 0)
        secrets = secrets_of(self._options.url, self._options.headers)
        return CloseReason(end.reason, end.code, scrub(end.detail, secrets), 0 if end.reason == "framing" else left)

    async def wait_over(self) -> CloseReason:
        assert self._over is not None
        end = await asyncio.shield(self._over)
        self.raise_sink_error()
        return end


def _ignore(_payload: bytes | memoryview, _recv_ns: int) -> None:
    """Stands for on_message once the connection is broken: what follows is lost, and lies in the caller's gap."""


def _ns(seconds: float | None) -> int:
    return 0 if seconds is None else int(seconds * NS)


def _why_lost(error: Exception | None) -> tuple[str, str]:
    if error is None:
        return "eof", ""
    if isinstance(error, ssl.SSLError):
        return "tls", type(error).__name__
    if isinstance(error, (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)):
        return "reset", str(error)
    if isinstance(error, TimeoutError) or (isinstance(error, OSError) and error.errno == errno.ETIMEDOUT):
        return "timeout", str(error)
    return "network", f"{type(error).__name__}: {error}"


def _connect_error(error: OSError | WSHandshakeError, options: ConnectOptions) -> ConnectionLost:
    facts: dict[str, Any] = {}
    if isinstance(error, WSInvalidStatusError) and error.response is not None:
        reason = f"http_{int(error.response.status)}"
        detail = (error.raw_body or b"")[:200].decode("utf-8", "replace")
        retry_after = error.response.headers.get("Retry-After", "")
        if retry_after.isascii() and retry_after.isdigit():
            facts["retry_after_s"] = int(retry_after)
    elif isinstance(error, WSHandshakeError):
        reason, detail = "handshake", str(error)
    elif isinstance(error, socket.gaierror):
        reason, detail = "dns", str(error)
    elif isinstance(error, ConnectionRefusedError):
        reason, detail = "refused", str(error)
    elif isinstance(error, ConnectionResetError) and error.errno is None:
        reason, detail = "eof", str(error)
    else:
        reason, detail = _why_lost(error)
    return ConnectionLost(
        "could not connect", reason=reason, url=str(options), detail=scrub(detail, secrets_of(options.url, options.headers)), **facts
    )


class _Silent(logging.LoggerAdapter[logging.Logger]):
    """picows logs what it also raises or tells by calls; its lines would carry addresses and redirect URLs."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802, the standard library's name
        return False

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        return None


_SILENT: Final = _Silent(logging.getLogger(__name__), {})
