"""BYTES from and to a venue; knows no venue.

Purpose: hold one WebSocket to a venue (connection), say how long to wait before the next attempt (backoff), ask by REST
(http) and how fast (limiter). Input: options as values and a sink. Output: whole messages with their receive time, broken bytes,
the reason of every end; `ConnectionLost` where the caller must back off.

Invariants: every connection that opened ends in exactly one `on_close`; no exception of a sink is swallowed; bytes
that the WebSocket protocol cannot explain are handed over, not dropped; no secret in an error, a repr or a log. Nothing here
writes to disk, logs, or waits for anything but the network and its turn. May import obs.errors and obs.clock; it alone, with obs.sim,
imports picows. aiohttp is imported by the first REST request, not before.
"""

from __future__ import annotations

from obs.wire.backoff import Budget, attempt_after, delay
from obs.wire.connection import Connection
from obs.wire.frames import Excerpt
from obs.wire.http import RestClient
from obs.wire.options import ConnectOptions
from obs.wire.sink import CloseReason, MessageSink

__all__ = [
    "Budget",
    "CloseReason",
    "ConnectOptions",
    "Connection",
    "Excerpt",
    "MessageSink",
    "RestClient",
    "attempt_after",
    "delay",
]
