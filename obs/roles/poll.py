"""The poll of one provider: REST, apart from the WebSocket. It keeps the access token and says which slots are wanted.

Tokens live on the board and, copied by the supervisor, in data/state: a venue rations how often one is issued, so it is
asked for again only shortly before it expires, never once per start.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any, Final

from obs.clock import NS, SYSTEM, Clock
from obs.config import read_secrets
from obs.config.process import ProcessSpec
from obs.errors import EXIT_GOOD, AuthRejected, ConnectionLost
from obs.log import Log
from obs.providers.base import Credential
from obs.record.events import make_event
from obs.record.schema import EVENT
from obs.ring import Producer, attach_ring, fence
from obs.roles.venue import provider_of
from obs.shm import Board, Counters
from obs.wire import RestClient

_BEAT_S: Final = 1.0
_REFRESH_BEFORE_S: Final = 1800  # of the token's end
_AGAIN_S: Final = 65  # after a failure: the venue allows one request a minute
_REJECTED_S: Final = 3600  # wrong keys: asking again cannot help, but an operator may have mended them


def run(spec: ProcessSpec, log: Log) -> int:
    """Run until SIGTERM; return the exit code."""
    return asyncio.run(_Poll(spec, log, SYSTEM).run())


class _Poll:
    def __init__(self, spec: ProcessSpec, log: Log, clock: Clock) -> None:
        assert spec.provider is not None and spec.session is not None and spec.board is not None
        self._config, self._log, self._clock = spec.provider, log, clock
        self._board = Board.attach(spec.board, fence)
        self._cell = Counters(spec.counters).cell("poll")
        self._cell["pid"], self._cell["started_ns"] = os.getpid(), clock.wall_ns()
        self._cell["heartbeat_ns"] = clock.mono_ns()
        self._events = Producer(attach_ring(spec.session.rings["poll_event"], EVENT, spec.session.session_id))
        self._provider = provider_of(spec)
        self._credentials = [Credential(secret.name, secret.key, secret.secret) for secret in read_secrets(self._config, os.environ)]
        for credential in self._credentials:
            log.mask(credential.key, credential.secret)
        # When to look again; monotonic, since a wall clock that steps back would put it off for as long as it stepped.
        self._next_ns = dict.fromkeys([credential.name for credential in self._credentials], 0)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        self._want()
        self._event("lifecycle", {"what": "poll_started", "pid": os.getpid()})
        self._cell["ready"] = 1
        tokens = asyncio.create_task(self._keep_tokens())
        while not stop.is_set():
            self._cell["heartbeat_ns"] = self._clock.mono_ns()
            self._cell["progress"] += 1
            if tokens.done():
                tokens.result()
            try:
                await asyncio.wait_for(stop.wait(), _BEAT_S)
            except TimeoutError:
                continue
        tokens.cancel()
        await asyncio.gather(tokens, return_exceptions=True)
        self._event("lifecycle", {"what": "poll_stopped", "pid": os.getpid()})
        return EXIT_GOOD

    def _want(self) -> None:
        """Put the slots and the mitigation level on the board; both are fixed while nothing selects or mitigates."""
        self._board["wanted"].write_json({"symbols": list(self._config.symbols), "ns": self._clock.wall_ns()})
        self._board["level"].write_json({"level": 0, "ns": self._clock.wall_ns()})

    def _event(self, kind: str, payload: dict[str, Any]) -> None:
        self._events.publish(make_event(kind, self._clock.wall_ns(), payload))

    async def _keep_tokens(self) -> None:
        """Keep a valid token per credential on the board."""
        while True:
            for credential in self._credentials:
                if self._clock.mono_ns() >= self._next_ns[credential.name]:
                    await self._refresh(credential)
            await asyncio.sleep(_BEAT_S)

    async def _refresh(self, credential: Credential) -> None:
        """Fetch a token if the one on the board ends soon, and decide when to look again."""
        request = self._provider.token_request(credential)
        now, mono = self._clock.wall_ns(), self._clock.mono_ns()
        if request is None:
            self._next_ns[credential.name] = mono + 24 * 3600 * NS
            return
        stored: dict[str, Any] = self._board["tokens"].read_json() or {}
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
