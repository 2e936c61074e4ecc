"""One WebSocket to a venue at a time, on uvloop and picows; knows no venue.

    sink.on_open()  ->  sink.on_message(payload, recv_ns) …  sink.on_broken(data, reason) …  ->  sink.on_close(reason, code)

All of it is called from the loop's thread, in this order, on_close exactly once for each on_open; a sink may send and close from
within. life.py is one socket from handshake to end; picows parses; frames.py joins fragments and keeps the bytes that picows
cannot explain; liveness.py judges pings and silence; dial.py makes the kernel notice a cut path.

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
import logging
import socket
import ssl
from typing import Any, Final, cast

from picows import WSHandshakeError, WSInvalidStatusError, ws_connect

from obs.clock import SYSTEM, Clock
from obs.errors import ConnectionLost
from obs.wire.life import Life, why_lost
from obs.wire.mask import scrub, secrets_of
from obs.wire.options import ConnectOptions
from obs.wire.sink import CloseReason, MessageSink

_BUFFER_BYTES: Final = 2048  # of picows to begin with; it grows with the load


class Connection:
    """One venue socket at a time. May connect again after it has closed; each life is a connection of its own."""

    def __init__(self, options: ConnectOptions, sink: MessageSink, clock: Clock = SYSTEM) -> None:
        self.options = options
        self._sink = sink
        self._clock = clock
        self._ssl = options.ssl_context
        self._life: Life | None = None

    @property
    def is_open(self) -> bool:
        """True from on_open until the end begins."""
        return self._life is not None and self._life.is_open

    @property
    def response_headers(self) -> dict[str, str]:
        """The venue's headers of the last handshake that succeeded."""
        if self._life is None or self._life.transport is None:
            return {}
        return dict(self._life.transport.response.headers)

    async def connect(self) -> None:
        """Open the connection; messages may have been delivered before this returns.

        Raises ConnectionLost (see the module); what the sink raised meanwhile. Cancelled or failed, it leaves no socket behind.
        """
        if self._life is not None and not self._life.is_over:
            raise RuntimeError("connect while a connection is open: close it and await wait_closed first")
        options = self.options
        if self._ssl is None and options.url.startswith("wss:"):
            self._ssl = ssl.create_default_context()
        life = self._life = Life(options, self._sink, self._clock)
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
        life.raise_sink_error()

    def send(self, payload: bytes | str, text: bool) -> None:
        """Send one message; it is queued if the socket is not writable.

        Raises ConnectionLost if the connection is not open, or ends it when more than max_unsent_bytes are queued.
        """
        if self._life is None:
            raise ConnectionLost("send before connect", reason="closed", url=str(self.options))
        self._life.send(payload, text)

    async def drain(self) -> None:
        """Wait until the socket takes bytes again. Raises ConnectionLost if it ends instead."""
        if self._life is not None:
            await self._life.writable.wait()
            self._life.raise_unless_open()

    def close(self, reason: str = "closed", code: int = 1000) -> None:
        """Say farewell and close, within close_timeout_s; what the venue still sends until then is delivered."""
        if self._life is not None:
            self._life.end(reason, code, wait_peer=True)

    async def wait_closed(self) -> CloseReason:
        """Wait for the end of the connection, on_close included, and return why. Not for one that did not open.

        Raises what the sink raised: the connection was closed with the reason "sink_error", and what came after is lost.
        """
        if self._life is None:
            raise RuntimeError("wait_closed before connect")
        return await self._life.wait_over()


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
        reason, detail = why_lost(error)
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
