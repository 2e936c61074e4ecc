"""A small REST client: one request, one answer, no retries: the caller decides what an answer means.

aiohttp is imported by the first request, because it costs 11 MB that a feed without REST need not pay.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from obs.errors import ConnectionLost
from obs.wire.mask import masked_url
from obs.wire.options import USER_AGENT

if TYPE_CHECKING:
    import aiohttp

MAX_BODY_BYTES: Final = 32 << 20  # the largest answer known is a master file of a few MB


@dataclass(frozen=True)
class Response:
    """An answer, whatever its status; header names compare without case. Headers and body may hold secrets and stay out of `repr`."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class RestClient:
    """Safety: one event loop. Keeps connections alive between requests; `close` ends them."""

    def __init__(self, timeout_s: float = 10.0, ssl_context: ssl.SSLContext | None = None) -> None:
        self._timeout_s = timeout_s
        self._ssl = ssl_context
        self._session: aiohttp.ClientSession | None = None

    async def request(self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Response:
        """Send one request and return its answer; never follows a redirect, which would carry headers to another host.

        `url`: http:// or https://. The time-out holds for name, TCP, TLS, request and the whole answer together.
        Raises ConnectionLost: reason timeout, dns, refused, reset, eof, tls, network, oversize (over MAX_BODY_BYTES). No
        header, body or query value is in it.
        """
        import aiohttp

        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self._timeout_s)
            self._session = aiohttp.ClientSession(timeout=timeout, headers={"User-Agent": USER_AGENT}, trust_env=False)
        shown = masked_url(url)
        ssl_context = True if self._ssl is None else self._ssl
        try:
            async with self._session.request(
                method, url, headers=headers, data=body or None, allow_redirects=False, ssl=ssl_context
            ) as answer:
                data = bytearray()
                async for part in answer.content.iter_any():
                    data += part
                    if len(data) > MAX_BODY_BYTES:
                        raise ConnectionLost("answer is too long", reason="oversize", url=shown, limit=MAX_BODY_BYTES)
                return Response(answer.status, answer.headers, bytes(data))
        except (aiohttp.ClientError, OSError) as error:
            # from None: the text of aiohttp's errors holds the URL, and with it query values
            raise ConnectionLost("REST request failed", reason=_why(error), url=shown, kind=type(error).__name__) from None

    async def close(self) -> None:
        """End the connections that are kept alive. May be called again; a request afterwards begins anew."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def _why(error: Exception) -> str:
    import aiohttp

    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, (aiohttp.ClientSSLError, ssl.SSLError)):
        return "tls"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, socket.gaierror):
        return "dns"
    if isinstance(cause, ConnectionRefusedError):
        return "refused"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "eof"
    if isinstance(cause, OSError) and cause.errno in (errno.ECONNRESET, errno.EPIPE):
        return "reset"
    return "network"
