"""The access tokens of one provider: kept valid on the board, renewed when the venue no longer takes one.

Tokens live on the board and, copied by the supervisor, in data/state: a venue rations how often one is issued, so it is
asked for again only shortly before it expires, never once per start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from obs.clock import NS, Pace
from obs.errors import AuthRejected, ConnectionLost
from obs.log import Log
from obs.providers.base import Auth, Credential, Provider
from obs.shm import Board
from obs.wire import RestClient

_LOOK_S: Final = 1.0
_REFRESH_BEFORE_S: Final = 1800  # of the token's end
_AGAIN_S: Final = 65  # after a failure: the venue allows one request a minute
_REJECTED_S: Final = 3600  # wrong keys: asking again cannot help, but an operator may have mended them


class Tokens:
    """A valid token per credential, on the board. Safety: one event loop, one writer of the cell."""

    def __init__(self, provider: Provider, credentials: Sequence[Credential], board: Board, pace: Pace, log: Log) -> None:
        self._provider, self._credentials, self._board, self._pace, self._log = provider, tuple(credentials), board, pace, log
        # When to look again; monotonic, since a wall clock that steps back would put it off for as long as it stepped.
        self._next_ns = dict.fromkeys([credential.name for credential in self._credentials], 0)
        self._turn = asyncio.Lock()
        for credential in self._credentials:
            log.mask(credential.key, credential.secret)

    async def keep(self) -> None:
        """Renew tokens before they end; ends by being cancelled."""
        while True:
            async with self._turn:
                for credential in self._credentials:
                    if self._pace.mono_ns() >= self._next_ns[credential.name]:
                        await self._refresh(credential)
            await self._pace.sleep(_LOOK_S)

    def auth(self) -> Auth | None:
        """Return what data calls are signed with: the first credential and its token; None if it has no valid one."""
        if not self._credentials:
            return None
        credential = self._credentials[0]
        kept = self._stored().get(credential.name)
        if not kept or int(kept["expires_ns"]) <= self._pace.wall_ns():
            return None
        return Auth(credential, str(kept["value"]))

    async def renew(self, dead: Auth) -> Auth | None:
        """Return another token than `dead`, which the venue does not take any more; None if there is none for now.

        Many calls learn of it at once: one of them asks, and none asks again before the venue allows it.
        """
        async with self._turn:
            present = self.auth()
            if present is not None and present.token != dead.token:
                return present
            name, stored = dead.credential.name, self._stored()
            if present is not None:
                del stored[name]
                self._board["tokens"].write_json(stored)
            elif self._pace.mono_ns() < self._next_ns[name]:
                return None
            self._log.warning("token_dead", credential=name)
            await self._refresh(dead.credential)
            renewed = self.auth()
            # Source: KIS sheet: for six hours a request gives the same token again.
            return renewed if renewed is not None and renewed.token != dead.token else None

    def _stored(self) -> dict[str, Any]:
        return self._board["tokens"].read_json() or {}

    async def _refresh(self, credential: Credential) -> None:
        """Fetch a token if the one on the board ends soon, and decide when to look again."""
        request = self._provider.token_request(credential)
        now, mono = self._pace.wall_ns(), self._pace.mono_ns()
        if request is None:
            self._next_ns[credential.name] = mono + 24 * 3600 * NS
            return
        stored = self._stored()
        kept = stored.get(credential.name)
        if kept and int(kept["expires_ns"]) - _REFRESH_BEFORE_S * NS > now:
            self._log.mask(kept["value"])
            self._next_ns[credential.name] = mono + min(int(kept["expires_ns"]) - _REFRESH_BEFORE_S * NS - now, 60 * NS)
            return
        client = RestClient()
        try:
            answer = await client.request(request.method, request.url, headers=dict(request.headers), body=request.body)
            token = self._provider.parse_token(answer.status, answer.body, now)
        except (ConnectionLost, AuthRejected) as error:
            rejected = isinstance(error, AuthRejected)
            wait_s = _REJECTED_S if rejected else max(_AGAIN_S, self._provider.limits.token_spacing_s)
            self._next_ns[credential.name] = mono + int(wait_s * NS)
            self._log.error("token_refused" if rejected else "token_failed", credential=credential.name, text=str(error), again_s=wait_s)
            return
        finally:
            await client.close()
        self._log.mask(token.value)
        stored[credential.name] = {"value": token.value, "expires_ns": token.expires_ns}
        self._board["tokens"].write_json(stored)
        self._next_ns[credential.name] = mono + 60 * NS
        self._log.info("token_refreshed", credential=credential.name, expires_ns=token.expires_ns)
