"""How long to wait before the next attempt: pure values, no clock, no sleep.

Two rules, and the longer wait wins. `delay` spaces the attempts after one failure: 1, 2, 5, 10, 20, 30, then 60 s for
ever. `Budget` bounds the attempts of a credential over a day of restarts: a token bucket that the caller keeps in shared
memory and on disk, so that a crash loop, or a message that kills the feed at each connect, cannot get an app key blocked.

    budget = Budget(**stored) if stored else Budget.full(now)
    while True:
        wait_s = budget.take(now)          # 0: a token was spent
        if wait_s: sleep(wait_s); continue
        store(budget)                      # Order: stored before the attempt, else a crash in connect would be free
        lived_s = connect_and_run()
        attempt = attempt_after(attempt, lived_s)
        sleep(delay(attempt, rng))
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Final

from obs.clock import NS

BACKOFF_S: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
JITTER: Final = 0.25  # of the delay, taken off: two collectors cut at once must not return at once, and 60 s stays the cap
STABLE_S: Final = 60.0  # a connection that lived this long was a good one: the next failure counts as the first
BURST: Final = 10  # attempts at once, after a quiet time
PER_HOUR: Final = 60  # attempts in the long run: one a minute, the pace of the last backoff step


def delay(attempt: int, rng: Random) -> float:
    """Return the seconds to wait after the `attempt`-th failure in a row (1 = the first), jittered downwards by up to JITTER."""
    if attempt < 1:
        raise ValueError(f"attempt={attempt}, expected >= 1")
    return BACKOFF_S[min(attempt, len(BACKOFF_S)) - 1] * (1.0 - JITTER * rng.random())


def attempt_after(attempt: int, lived_s: float) -> int:
    """Return the number of failures in a row after one more end of a connection that was open for `lived_s` seconds.

    `attempt`: the failures before it; `lived_s`: 0 if it did not open. An opened connection alone proves nothing: a venue
    that accepts and cuts at once would otherwise be asked once a second for ever.
    """
    return 1 if lived_s >= STABLE_S else attempt + 1


@dataclass(slots=True)
class Budget:
    """A token bucket of connection attempts for one credential. Plain numbers: store the fields, build it again from them.

    `tokens`: 0..burst, attempts that may be made at once. `last_ns`: wall clock (UTC epoch) of the last refill; wall and not
    monotonic, because it must hold across a reboot. A clock that steps back refills nothing, one that steps ahead refills at
    most `burst`: no step of a clock ever allows more than one burst extra.
    """

    tokens: float
    last_ns: int
    burst: int = BURST
    per_hour: float = PER_HOUR

    @classmethod
    def full(cls, now_wall_ns: int, burst: int = BURST, per_hour: float = PER_HOUR) -> Budget:
        """Return the budget of a credential that was never used."""
        return cls(float(burst), now_wall_ns, burst, per_hour)

    def take(self, now_wall_ns: int) -> float:
        """Spend one token and return 0.0, or spend none and return the seconds until there is one (> 0)."""
        self.refill(now_wall_ns)
        if self.tokens >= 1.0 - 1e-9:  # a caller that waited as told is served, whatever the rounding
            self.tokens = max(0.0, self.tokens - 1.0)
            return 0.0
        return (1.0 - self.tokens) * 3600.0 / self.per_hour

    def refill(self, now_wall_ns: int) -> None:
        """Bring the tokens up to `now_wall_ns`. A stored value that is no number, or out of range, counts as an empty bucket."""
        elapsed_ns = max(0, now_wall_ns - self.last_ns)
        held = self.tokens if math.isfinite(self.tokens) and 0.0 <= self.tokens <= self.burst else 0.0
        self.tokens = min(float(self.burst), held + elapsed_ns / NS * self.per_hour / 3600.0)
        self.last_ns = now_wall_ns
