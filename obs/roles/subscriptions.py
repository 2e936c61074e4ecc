"""What one connection wants, asked for, and knows to be true: pure.

A symbol without a confirmation stays silent for ever, so each (channel, symbol) pair is followed from wanted to confirmed
or refused, and again after every reconnect.
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


@dataclass
class Subscriptions:
    """The pairs of one connection."""

    pairs: dict[Pair, _One] = field(default_factory=dict)

    def want(self, pairs: Iterable[Pair]) -> None:
        for pair in pairs:
            self.pairs.setdefault(pair, _One())

    def reconnected(self) -> None:
        """Begin anew: a new connection has no subscription."""
        for pair in self.pairs:
            self.pairs[pair] = _One()

    def asked(self, pairs: Iterable[Pair], now_ns: int) -> None:
        for pair in pairs:
            one = self.pairs.get(pair)
            if one is not None and one.standing is not Standing.CONFIRMED:
                one.standing, one.asked_ns, one.asks = Standing.ASKED, now_ns, one.asks + 1

    def confirmed(self, pair: Pair) -> bool:
        """Note a confirmation; return whether it is news."""
        one = self.pairs.get(pair)
        if one is None or one.standing is Standing.CONFIRMED:
            return False
        one.standing = Standing.CONFIRMED
        return True

    def refused(self, pair: Pair, reason: str, retry: bool) -> None:
        one = self.pairs.get(pair)
        if one is not None:
            one.standing, one.reason, one.retry = Standing.REFUSED, reason, retry

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
