"""What one connection wants, asked for, and knows to be true: pure.

A symbol without a confirmation stays silent for ever, so each (channel, symbol) pair is followed from wanted to confirmed
or refused, and again after every reconnect. A pair that is released is followed until the venue has confirmed that too; so
long it holds a registration, and its symbol is not wanted again.

Where each request replaces the whole set and nothing is acknowledged, a pair has left once the first frame came of another that
was first asked for in the request that left it out, or in a later one; or when nothing has come of it for long enough.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

Pair = tuple[str, str]  # channel, slot symbol
_ASKS: Final = 3  # asked this often without an answer, a pair counts as failed


class Standing(Enum):
    WANTED = "wanted"
    ASKED = "asked"
    CONFIRMED = "confirmed"
    REFUSED = "refused"  # the venue said no
    FAILED = "failed"  # the venue said nothing


@dataclass
class _One:
    standing: Standing = Standing.WANTED
    asked_ns: int = 0  # monotonic
    asks: int = 0
    reason: str = ""
    retry: bool = True
    request: int = 0  # number of the request that asked for it first


@dataclass
class _Leaving:
    asked_ns: int = 0  # monotonic, 0: the venue has not been told
    asks: int = 0
    request: int = 0  # number of the request that left it out first, where requests replace
    heard_ns: int = 0  # monotonic, of its last input


@dataclass
class Subscriptions:
    """The pairs of one connection. `learned`: so many registrations the venue has taken when it took no more."""

    pairs: dict[Pair, _One] = field(default_factory=dict)
    leaving: dict[Pair, _Leaving] = field(default_factory=dict)
    learned: int | None = None
    learned_ns: int = 0
    requests: int = 0

    def want(self, pairs: Iterable[Pair]) -> None:
        for pair in pairs:
            self.pairs.setdefault(pair, _One())

    def reconnected(self) -> None:
        """Begin anew: a new connection has no subscription."""
        for pair in self.pairs:
            self.pairs[pair] = _One()
        self.leaving.clear()
        self.learned = None

    def asked(self, pairs: Iterable[Pair], now_ns: int) -> None:
        for pair in pairs:
            one = self.pairs.get(pair)
            if one is not None and one.standing is not Standing.CONFIRMED:
                one.request = one.request or self.requests
                one.standing, one.asked_ns, one.asks = Standing.ASKED, now_ns, one.asks + 1

    def confirmed(self, pair: Pair) -> bool:
        """Note a confirmation; return whether it is news."""
        one = self.pairs.get(pair)
        if one is None or one.standing is Standing.CONFIRMED:
            return False
        one.standing = Standing.CONFIRMED
        if self.learned is not None:
            self.learned = max(self.learned, self.held() - len(self.of(Standing.ASKED)))
        return True

    def refused(self, pair: Pair, reason: str, retry: bool) -> None:
        one = self.pairs.get(pair)
        if one is not None:
            one.standing, one.reason, one.retry = Standing.REFUSED, reason, retry

    def ask_anew(self) -> None:
        """Note that a venue which was silent has begun to answer: who got no answer meanwhile is asked for as if never before."""
        self.pairs |= {pair: _One() for pair in self.of(Standing.FAILED)}

    def limit(self, now_ns: int) -> None:
        """Learn, from a refusal, that no more registrations fit than those that have been answered."""
        self.learned, self.learned_ns = self.held() - len(self.of(Standing.ASKED)), now_ns

    def want_again(self, pair: Pair) -> None:
        """Forget what was answered."""
        if self.pairs.pop(pair, None) is not None:
            self.want([pair])

    def forget_limit(self, now_ns: int, after_ns: int) -> None:
        """Try once more than was learned, `after_ns` later: what took the place may have gone."""
        if self.learned is not None and now_ns - self.learned_ns > after_ns:
            self.learned = None

    def is_confirmed(self, pair: Pair) -> bool:
        return pair in self.pairs and self.pairs[pair].standing is Standing.CONFIRMED

    def held(self) -> int:
        """Return how many registrations the venue may hold for us."""
        return len(self.of(Standing.ASKED, Standing.CONFIRMED, Standing.FAILED)) + len(self.leaving)

    def next_ask(self, now_ns: int, confirm_ns: int, retry_ns: int, limit: int | None) -> Pair | None:
        """Return the pair to ask for now, None if there is none.

        `limit`: of registrations, learned or known, beyond which nothing new is asked for; None: the pairs are known to fit.
        """
        room = limit is None or self.held() < (limit if self.learned is None else min(limit, self.learned))
        more = (Standing.WANTED, Standing.REFUSED)  # they would need another registration
        due = self.due(now_ns, confirm_ns, retry_ns)
        return next((pair for pair in due if room or self.pairs[pair].standing not in more), None)

    def due(self, now_ns: int, confirm_ns: int, retry_ns: int) -> list[Pair]:
        """Return the pairs that are to be asked for, for the first time or again."""
        late = self.overdue(now_ns, confirm_ns)
        return [*self.of(Standing.WANTED), *late, *self.to_retry(now_ns, retry_ns)]

    # --- what is wanted no longer

    def release(self, symbol: str) -> bool:
        """Want no pair of `symbol` any longer; return whether the venue is to be told first."""
        told = (Standing.ASKED, Standing.CONFIRMED, Standing.FAILED)
        for pair in [pair for pair in self.pairs if pair[1] == symbol]:
            if self.pairs.pop(pair).standing in told:
                self.leaving[pair] = _Leaving()
        return self.leaves(symbol)

    def leaves(self, symbol: str) -> bool:
        """Whether the venue may still send some pair of `symbol` that is wanted no longer."""
        return any(left == symbol for _, left in self.leaving)

    def left(self, pair: Pair) -> bool:
        """Note that the venue has ended a pair; return whether that is what was asked for."""
        return self.leaving.pop(pair, None) is not None

    def next_leave(self, now_ns: int, confirm_ns: int, retry_ns: int) -> Pair | None:
        """Return the pair to tell the venue to end now; one that is not answered is told of again, after _ASKS times rarely."""
        for pair, one in self.leaving.items():
            if not one.asked_ns or now_ns - one.asked_ns > (confirm_ns if one.asks < _ASKS else retry_ns):
                return pair
        return None

    def untold(self) -> bool:
        """Whether there is a pair that leaves, and no request has left it out yet."""
        return any(not one.asked_ns for one in self.leaving.values())

    def told_to_leave(self, pair: Pair, now_ns: int) -> None:
        if pair in self.leaving:
            self.leaving[pair].asked_ns = now_ns
            self.leaving[pair].asks += 1

    def left_out(self, now_ns: int) -> None:
        """Note that a request has replaced the whole set, without the pairs that leave."""
        for one in self.leaving.values():
            if not one.asked_ns:
                one.asked_ns, one.request = now_ns, self.requests

    def proved_gone(self, pair: Pair) -> list[Pair]:
        """Return the pairs that have left, as the first frame of `pair` proves."""
        request = self.pairs[pair].request
        return [left for left, one in self.leaving.items() if one.asked_ns and one.request <= request]

    def silent_leavers(self, now_ns: int, confirm_ns: int) -> list[Pair]:
        """Return the pairs that have left because nothing comes of them. One that goes on for that long is to be left out again."""
        for one in self.leaving.values():
            if one.asked_ns and one.heard_ns - one.asked_ns > confirm_ns:
                one.asked_ns = 0
        told = [(pair, one) for pair, one in self.leaving.items() if one.asked_ns]
        return [pair for pair, one in told if now_ns - max(one.asked_ns, one.heard_ns) > confirm_ns]

    def overdue(self, now_ns: int, confirm_ns: int) -> list[Pair]:
        """Return the pairs to ask for again: asked long ago and not answered. After _ASKS times they count as failed."""
        late = []
        for pair, one in self.pairs.items():
            if one.standing is Standing.ASKED and now_ns - one.asked_ns > confirm_ns:
                if one.asks >= _ASKS:
                    one.standing, one.reason = Standing.FAILED, "no answer"
                else:
                    late.append(pair)
        return late

    def to_retry(self, now_ns: int, after_ns: int) -> list[Pair]:
        """Return the refused and failed pairs that may be asked for again, `after_ns` later."""
        again = (Standing.REFUSED, Standing.FAILED)
        return [pair for pair, one in self.pairs.items() if one.standing in again and one.retry and now_ns - one.asked_ns > after_ns]

    def of(self, *standings: Standing) -> list[Pair]:
        return [pair for pair, one in self.pairs.items() if one.standing in standings]

    def settled(self) -> bool:
        """Whether every pair has been answered, one way or the other."""
        return not self.of(Standing.WANTED, Standing.ASKED)

    def silent_symbols(self) -> dict[str, str]:
        """Return symbol -> why, of those that the venue does not send on some channel."""
        lost = (Standing.REFUSED, Standing.FAILED)
        return {symbol: one.reason for (_, symbol), one in self.pairs.items() if one.standing in lost}
