"""A small REST client: one request, one answer, no retries: the caller decides what an answer means.

aiohttp is imported by the first request, because it costs 15 MB that a feed without REST need not pay.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from obs.errors import ConnectionLost
from obs.wire.mask import masked_url
from obs.wire.options import USER_AGENT

if TYPE_CHECKING:
    import aiohttp

MAX_BODY_BYTES = 32 << 20


@dataclass(frozen=True)
class Response:
    """An answer, whatever its status. `body` may hold secrets and stays out of `repr`."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class RestClient:
    """Safety: one event loop. Keeps connections alive between requests; `close` ends them."""

    def __init__(self, timeout_s: float = 10.0, ssl_context: ssl.SSLContext | None = None) -> None:
        self._timeout_s = timeout_s
        self._ssl = ssl_context
        self._session: aiohttp.ClientSession | None = None

    async def request(self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Response:
        """Send one request and return its answer; never follows a redirect, which would carry headers to another host.

        Raises ConnectionLost: reason timeout, refused, network, tls, oversize. No header, body or query value is in it.
        """
        import aiohttp

        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self._timeout_s)
            self._session = aiohttp.ClientSession(timeout=timeout, headers={"User-Agent": USER_AGENT}, trust_env=False)
        shown = masked_url(url)
        try:
            async with self._session.request(
                method, url, headers=headers, data=body or None, allow_redirects=False, ssl=self._ssl if self._ssl is not None else True
            ) as answer:
                data = await answer.content.read(MAX_BODY_BYTES + 1)
                while len(data) <= MAX_BODY_BYTES and (more := await answer.content.read(MAX_BODY_BYTES + 1 - len(data))):
                    data += more
                if len(data) > MAX_BODY_BYTES:
                    raise ConnectionLost("answer is too long", reason="oversize", url=shown, limit=MAX_BODY_BYTES)
                return Response(answer.status, dict(answer.headers), data)
        except asyncio.TimeoutError:
            raise ConnectionLost("no answer in time", reason="timeout", url=shown, timeout_s=self._timeout_s) from None
        except aiohttp.ClientSSLError as error:
            raise ConnectionLost("TLS failed", reason="tls", url=shown, text=type(error).__name__) from None
        except aiohttp.ClientConnectorError as error:
            raise ConnectionLost("not reachable", reason="refused", url=shown, text=str(error.os_error)) from None
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionLost("request failed", reason="network", url=shown, text=type(error).__name__) from None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
