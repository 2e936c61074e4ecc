"""The triggers: four that the market pulls, and the manual one, over columns of the whole universe.

| trigger | fires when | weight |
|---|---|---|
| volume_surge | volume per second of the interval >= 3 x its own average before | 10 |
| trade_velocity | over 10 trades a second (live records alone know the trades) | 8 |
| volatility_spike | true range of the interval >= 2 x its average, both per square root of the interval's length | 6 |
| price_spike | the price moved by 3 % or more within the interval | 6 |
| manual | an operator said so | 5 |

A trigger that fires has a strength: 0.5 at its threshold, 1 at twice the threshold and beyond. The score of a symbol is the
weighted mean of its strengths, in 0..1. Strength is kept until the trigger expires, 5 minutes after it last fired (velocity: 3);
a later, weaker firing replaces it. Thresholds, weights and expiry are those of the specification, but for price_spike, for which
it names none.

An interval is the time since the symbol was observed before, whatever its length: ten minutes of Track A or a minute of live
records. Averages are exponential in time, not in observations, and range grows with the square root of time as a random walk's
does; so both kinds of interval share one average. A symbol has no average, and cannot fire by it, before it has been observed for
`warm_s`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

TRIGGERS: Final = ("volume_surge", "trade_velocity", "volatility_spike", "price_spike", "manual")
_MANUAL: Final = TRIGGERS.index("manual")
_MARKET: Final = len(TRIGGERS) - 1
_NS: Final = 1_000_000_000
_NEVER: Final = -(2**62)


@dataclass(frozen=True, slots=True)
class TriggerOptions:
    """Thresholds, weights in the order of TRIGGERS, and expiry in seconds in the same order."""

    surge_ratio: float = 3.0
    velocity_per_s: float = 10.0
    range_ratio: float = 2.0
    spike_fraction: float = 0.03
    weights: tuple[float, ...] = (10.0, 8.0, 6.0, 6.0, 5.0)
    expire_s: tuple[float, ...] = (300.0, 180.0, 300.0, 300.0, 300.0)
    average_s: float = 3600.0  # time constant of the averages
    warm_s: float = 1050.0  # two sweeps, of which the second may end up to a quarter of the period sooner than the first


class Observation(NamedTuple):
    """What was seen of each symbol in the interval that ended now: columns (n,) float64, NaN where nothing is known.

    `price`: the last one; a symbol without a price was not observed at all. `high`, `low`: of the interval, NaN where only prices are
    known. `volume`: traded in the interval. `trades_per_s`: of live records.
    """

    price: np.ndarray
    high: np.ndarray
    low: np.ndarray
    volume: np.ndarray
    trades_per_s: np.ndarray


class TriggerState(NamedTuple):
    """What one evaluation leaves for the next: columns (n,), `strength` and `fired_ns` (4, n) in the order of TRIGGERS."""

    seen_ns: np.ndarray  # int64, of the last observation; 0 = none yet
    price: np.ndarray  # then
    volume_rate: np.ndarray  # average, per second; NaN before the first interval
    range_rate: np.ndarray  # average true range, per square root of a second
    warm_s: np.ndarray  # for how long it has been observed
    strength: np.ndarray
    fired_ns: np.ndarray

    @classmethod
    def empty(cls, n: int) -> TriggerState:
        """Return the state of a universe of `n` symbols that nothing is known of."""
        nan = np.full(n, np.nan)
        return cls(np.zeros(n, np.int64), nan, nan, nan, np.zeros(n), np.zeros((_MARKET, n)), np.full((_MARKET, n), _NEVER))


def observe(state: TriggerState, seen: Observation, now_ns: int, options: TriggerOptions) -> TriggerState:
    """Return the state after `seen`. `state` is not changed. A time before the last observation counts as no interval at all."""
    observed = seen.price > 0  # NaN is not
    seconds = np.where(observed & (state.seen_ns > 0), (now_ns - state.seen_ns) / _NS, 0.0)
    interval = seconds > 0
    length = np.where(interval, seconds, 1.0)
    high = np.fmax(np.fmax(seen.high, seen.price), state.price)
    low = np.fmin(np.fmin(seen.low, seen.price), state.price)
    volume_rate = seen.volume / length
    range_rate = (high - low) / np.sqrt(length)
    warm = interval & (state.warm_s >= options.warm_s)

    ratios = np.empty((_MARKET, len(seen.price)))
    with np.errstate(divide="ignore", invalid="ignore"):  # an average of 0: any volume is infinitely more
        np.divide(volume_rate, state.volume_rate * options.surge_ratio, out=ratios[0])
        np.divide(seen.trades_per_s, options.velocity_per_s, out=ratios[1])
        np.divide(range_rate, state.range_rate * options.range_ratio, out=ratios[2])
        np.divide(np.abs(seen.price / state.price - 1.0), options.spike_fraction, out=ratios[3])
    fires = ratios >= 1.0  # NaN does not
    fires[0] &= warm
    fires[1] &= observed & (ratios[1] > 1.0)  # "over"
    fires[2] &= warm
    fires[3] &= interval
    strength, fired_ns = state.strength.copy(), state.fired_ns.copy()
    places = np.flatnonzero(fires)  # few
    strength.reshape(-1)[places] = np.minimum(ratios.reshape(-1)[places] * 0.5, 1.0)
    fired_ns.reshape(-1)[places] = now_ns

    kept = np.exp(seconds / -options.average_s)
    renewed = 1.0 - kept
    return TriggerState(
        np.where(observed, now_ns, state.seen_ns),
        np.where(observed, seen.price, state.price),
        _average(state.volume_rate, volume_rate, kept, renewed, interval),
        _average(state.range_rate, range_rate, kept, renewed, interval),
        state.warm_s + seconds,
        strength,
        fired_ns,
    )


def scores(state: TriggerState, manual: np.ndarray, now_ns: int, options: TriggerOptions) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores (n,) in 0..1 and the strengths (5, n) that make them, 0 where a trigger has expired.

    `manual`: (n,) bool, the symbols that an operator named.
    """
    strength = np.zeros((len(TRIGGERS), len(manual)))
    expiry = (np.asarray(options.expire_s[:_MARKET]) * _NS).astype(np.int64)[:, None]
    np.copyto(strength[:_MARKET], state.strength, where=state.fired_ns > now_ns - expiry)
    strength[_MANUAL][manual] = 1.0
    weights = np.asarray(options.weights)
    return weights @ strength / weights.sum(), strength


def _average(average: np.ndarray, value: np.ndarray, kept: np.ndarray, renewed: np.ndarray, interval: np.ndarray) -> np.ndarray:
    """Return the average with one more interval; the first one is the average."""
    mixed = average * kept
    mixed += value * renewed
    np.copyto(mixed, value, where=np.isnan(average))
    return np.where(interval & (value == value), mixed, average)  # NaN is not itself
