"""One life of a connection: what picows calls while the socket is open, and everything that ends it.

The first reason to end stands (`end`); from then on the socket has close_timeout_s to go in peace before it is cut. picows tells
of the end in two steps, the transport's error and its own (a frame that broke the protocol); `_settle` waits for both, then tells
the sink.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Final, cast

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSParsedURL, WSProtocolError, WSTransport

from obs.clock import NS, Clock
from obs.errors import ConnectionLost
from obs.wire.dial import dial
from obs.wire.frames import Excerpt, Head, Join, Tap, header_of
from obs.wire.liveness import Liveness
from obs.wire.mask import scrub, secrets_of
from obs.wire.options import ConnectOptions
from obs.wire.sink import CloseReason, MessageSink

_TEXT: Final = WSMsgType.TEXT
_BINARY: Final = WSMsgType.BINARY
_UNSENDABLE: Final = (0, 1005, 1006, 1015)  # codes that only ever describe the absence of one, RFC 6455 section 7.4
_ABNORMAL: Final = 1006
_LOOK_S: Final = 0.5
_DEAD_LOOKS: Final = 3
_TCP_CLOSE: Final = 7  # tcpi_state, first byte of struct tcp_info. Source: linux/tcp_states.h


class Life(WSListener):
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
        self._dead_looks = 0
        self._over: asyncio.Task[CloseReason] | None = None

    # --- before it opens

    async def dial(self, url: WSParsedURL) -> socket.socket:
        self._sock = await dial(url.host, url.port, self._options.keepalive, self._options.connect_timeout_s)
        return self._sock

    def listener(self, *_: object) -> Life:
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
        self._look_later()
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
        if error is not None and not isinstance(error, OSError):
            self._error = self._error or error  # no fault of the network: it comes out of wait_closed

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

    def _look(self) -> None:
        """Make a loop that has stopped listening to a dead socket read it once more.

        picows reads by add_reader, and uvloop drops a reader after one call if the kernel reports an error with the data: a reset
        behind more data than one call reads would be noticed by nobody, until silence is. Found by stopping a feed (SIGSTOP) until
        the venue reset the connection; uvloop 0.23, picows 2.3.
        """
        if not self.is_open or self._sock is None or self.transport is None or self._sock.fileno() < 0:
            return
        self._look_later()
        if self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _TCP_CLOSE:
            return
        self._dead_looks += 1
        if self._dead_looks < _DEAD_LOOKS:
            self.transport.underlying_transport.pause_reading()
            self.transport.underlying_transport.resume_reading()
        else:
            self._end = CloseReason("reset", _ABNORMAL, "the socket is closed, and could not be read any more")
            self.transport.disconnect(graceful=False)

    def _look_later(self) -> None:
        self._timers["look"] = self._loop.call_later(_LOOK_S, self._look)

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
            if self._error is None and (parse_error is not None or end.reason == "framing"):
                self._report(self._tap.unparsed() if self._tap is not None else Head().excerpt(), _broken_reason(parse_error))
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
            return CloseReason(_broken_reason(parse_error), int(parse_error.code), str(parse_error))
        if end is None and self._error is not None:
            end = CloseReason("sink_error", 1011, type(self._error).__name__)
        if end is None:
            reason, detail = why_lost(self._transport_error)
            end = CloseReason(reason, _ABNORMAL, detail)
        left = self._join.held_bytes + (self._tap.unparsed().total_bytes if self._tap else 0)
        secrets = secrets_of(self._options.url, self._options.headers)
        return CloseReason(end.reason, end.code, scrub(end.detail, secrets), 0 if end.reason == "framing" else left)

    async def wait_over(self) -> CloseReason:
        if self._over is None:
            raise RuntimeError("wait_closed of a connection that did not open")
        end = await asyncio.shield(self._over)
        self.raise_sink_error()
        return end


def _ignore(_payload: bytes | memoryview, _recv_ns: int) -> None:
    """Stands for on_message once the connection is broken: what follows is lost, and lies in the caller's gap."""


def _ns(seconds: float | None) -> int:
    return 0 if seconds is None else int(seconds * NS)


def _broken_reason(error: WSProtocolError | None) -> str:
    return "oversize" if error is not None and int(error.code) == 1009 else "framing"


def why_lost(error: Exception | None) -> tuple[str, str]:
    """Return the reason and the words for a socket that ended with `error`."""
    if error is None:
        return "eof", ""
    if isinstance(error, ssl.SSLError):
        return "tls", type(error).__name__
    if isinstance(error, (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)):
        return "reset", str(error)
    if isinstance(error, TimeoutError) or (isinstance(error, OSError) and error.errno == errno.ETIMEDOUT):
        return "timeout", str(error)
    return "network", f"{type(error).__name__}: {error}"
