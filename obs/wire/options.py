"""What a connection is told: checked once, shown without secrets."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from obs.errors import ConfigError
from obs.wire.mask import HIDDEN, masked_url

USER_AGENT: Final = "obs"


@dataclass(frozen=True)
class ConnectOptions:
    """One WebSocket to one address. `headers` may hold secrets and stay out of `repr`, as do the query values of `url`.

    Raises ConfigError for a URL that is not ws:// or wss://, an `Origin` header (venues ration browsers), a line break in a
    header, a limit out of range.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    user_agent: str = USER_AGENT  # unless `headers` has one
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)  # None: the system's certificates
    connect_timeout_s: float = 10.0  # for name, TCP, TLS and handshake together
    ping_every_s: float | None = None  # protocol pings of ours
    pong_timeout_s: float = 10.0  # after a ping, for a sign of life
    idle_s: float | None = None  # without a frame of any kind
    close_timeout_s: float = 1.0  # for the farewell, then the socket is cut
    max_message_bytes: int = 1 << 20  # a longer one is reported as broken, and the connection goes on
    max_frame_bytes: int = 16 << 20  # a longer frame closes it: picows holds a frame whole, in a buffer of up to twice this
    max_unsent_bytes: int = 1 << 20  # more than this unsent: the venue does not read, the connection is cut
    keepalive: tuple[int, int, int] = (2, 1, 2)  # TCP: seconds idle, seconds between probes, probes; see dial.py

    def __post_init__(self) -> None:
        shown = masked_url(self.url)
        problems = []
        parts = urlsplit(self.url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname or shown == HIDDEN:
            problems.append(f"url={shown!r}: expected ws://host[:port]/path or wss://…")
        elif parts.username or parts.password:
            problems.append(f"url={shown!r}: user and password in a WebSocket URL are not sent; use a header")
        for name, value in {"User-Agent": self.user_agent, **self.headers}.items():
            if name.lower() == "origin":
                problems.append("headers: Origin is never sent")
            if any(ord(mark) < 32 or ord(mark) == 127 for mark in name + value):
                problems.append(f"headers: {name!r} holds a control character")
        for limit in ("connect_timeout_s", "pong_timeout_s", "close_timeout_s", "max_message_bytes", "max_unsent_bytes"):
            if not getattr(self, limit) > 0:
                problems.append(f"{limit}={getattr(self, limit)}: expected > 0")
        for limit in ("ping_every_s", "idle_s"):
            if getattr(self, limit) is not None and not getattr(self, limit) > 0:
                problems.append(f"{limit}={getattr(self, limit)}: expected > 0, or None")
        if self.max_frame_bytes < self.max_message_bytes:
            problems.append(f"max_frame_bytes={self.max_frame_bytes}: expected >= max_message_bytes={self.max_message_bytes}")
        if problems:
            raise ConfigError("connection options are wrong", problems=problems)

    def __str__(self) -> str:
        return masked_url(self.url)

    def request_headers(self) -> dict[str, str]:
        """Return the headers of the handshake beyond those of the protocol."""
        if any(name.lower() == "user-agent" for name in self.headers):
            return dict(self.headers)
        return {"User-Agent": self.user_agent, **self.headers}
