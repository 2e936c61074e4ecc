"""Ask a venue by REST: in turn, until a deadline, and again where that can help. The provider says what to ask and what it means.

| answer | what is done |
|---|---|
| 429 and its like | nobody of the group asks for as long as it says; then the same call again |
| the token is dead | one renewal, then the same call again, once |
| no answer, an error body, HTML, cut off | the same call again, `attempts` times in all |
| one unknown symbol has cost the call | given back at once: the caller asks for fewer |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from obs.clock import NS, Pace
from obs.errors import ConnectionLost, DecodeError, RateLimited, TokenExpired
from obs.log import Log
from obs.providers.base import Auth, Call, Provider
from obs.roles.tokens import Tokens
from obs.wire import RestClient
from obs.wire.limiter import Limiter
from obs.wire.mask import masked_url

UNKNOWN_SYMBOL: Final = "unknown_symbol"
DEADLINE: Final = "deadline"
_AGAIN_S: Final = 0.5  # before the second attempt, twice that before the third
_Answer = TypeVar("_Answer")


class Asking:
    """The REST side of one provider. Safety: one event loop; `close` ends its connections."""

    def __init__(self, provider: Provider, tokens: Tokens, pace: Pace, log: Log, timeout_s: float = 10.0) -> None:
        self.provider, self.tokens = provider, tokens
        self.limiter = Limiter(provider.rest.calls_per_s, pace)
        self._client, self._pace, self._log = RestClient(timeout_s), pace, log
        self.calls = 0  # made so far
        self.limited = 0  # answers that said "too many"

    def auth(self) -> Auth | None:
        """Return what the next call is signed with, None for a venue without tokens, or with none for now (is_ready)."""
        return self.tokens.auth() if self.provider.rest.needs_token else None

    def is_ready(self) -> bool:
        return not self.provider.rest.needs_token or self.tokens.auth() is not None

    async def ask(
        self,
        make: Callable[[Auth | None], Call],
        parse: Callable[[bytes], _Answer],
        deadline_ns: int,
        *,
        attempts: int = 3,
        signed: bool = True,
    ) -> _Answer:
        """Return what `parse` makes of the answer to the call that `make` makes.

        `deadline_ns`: monotonic; no call is begun after it, nor one that would wait beyond it. `signed`: it is a data call, which
        wants a token where the venue has any. Raises ConnectionLost, DecodeError,
        RateLimited or TokenExpired: those of the last attempt.
        """
        failed, renewed = 0, False
        auth = self.auth() if signed else None
        while True:
            if auth is None and signed and self.provider.rest.needs_token:
                raise TokenExpired("there is no token")
            call = make(auth)
            left_s = (deadline_ns - self._pace.mono_ns()) / NS
            if self.limiter.paused_s(call.group) >= left_s:
                paused_s = self.limiter.paused_s(call.group)
                raise RateLimited("no turn before the deadline", reason=DEADLINE, group=call.group, wait_s=paused_s)
            await self.limiter.acquire(call.group)
            if self._pace.mono_ns() >= deadline_ns:
                raise RateLimited("no turn before the deadline", reason=DEADLINE, group=call.group, wait_s=0.0)
            self.calls += 1
            request = call.request
            try:
                answer = await self._client.request(request.method, request.url, headers=dict(request.headers), body=request.body)
                wait_s = self.provider.judge(answer.status, answer.headers, answer.body)
                if wait_s:
                    self.limiter.pause(call.group, wait_s)
                return parse(answer.body)
            except RateLimited as error:
                self.limited += 1
                self.limiter.pause(call.group, error.wait_s)
                self._log.warning("rate_limited", group=call.group, wait_s=error.wait_s, text=str(error))
            except TokenExpired:
                if renewed or auth is None:
                    raise
                auth, renewed = await self.tokens.renew(auth), True
            except (ConnectionLost, DecodeError) as error:
                error.facts.setdefault("url", masked_url(request.url))
                failed += 1
                if failed >= attempts or error.facts.get("reason") == UNKNOWN_SYMBOL:
                    raise
                await self._pace.sleep(_AGAIN_S * failed)

    async def close(self) -> None:
        await self._client.close()
