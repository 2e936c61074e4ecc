"""What a venue's REST side tells of many symbols at once: quotes of a snapshot sweep, and true 10-minute bars.

Neither travels in a ring: they are what poll scores (obs.select) and what it makes SWING rows of. Times are UTC epoch nanoseconds, 0
for "not known"; prices and sizes float64, NaN for "not known". A venue's price of 0 means that it has none, and is NaN here.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from obs.record.schema import SYMBOL_BYTES

BAR_S: Final = 600  # a bar of Track A: ten minutes, and the period of its sweeps

QUOTE: Final = np.dtype(
    [
        ("symbol", f"S{SYMBOL_BYTES}"),  # as records carry it
        ("event_ns", "<i8"),  # the venue's time of its last trade, 0 if it tells none
        ("price", "<f8"),  # the last one
        ("day_open", "<f8"),
        ("day_high", "<f8"),
        ("day_low", "<f8"),
        ("acc_volume", "<f8"),  # of the venue's day
        ("acc_value", "<f8"),  # traded value of the venue's day, in the market's currency
        ("bid_price", "<f8"),
        ("ask_price", "<f8"),
        ("base_price", "<f8"),  # previous close
    ]
)
_FIGURES: Final = tuple(name for name in QUOTE.names or () if name not in ("symbol", "event_ns"))


class Candle(NamedTuple):
    """A true 10-minute bar: of the trades in bar_ns <= t < bar_ns + BAR_S, and of nothing else."""

    bar_ns: int
    open: float
    high: float
    low: float
    close: float
    volume: float


def unknown_quotes(count: int) -> np.ndarray:
    """Return `count` QUOTE rows of which nothing is known, symbols empty."""
    rows = np.zeros(count, QUOTE)
    for name in _FIGURES:
        rows[name] = np.nan
    return rows


def merge_quotes(into: np.ndarray, rows: np.ndarray, place: dict[bytes, int]) -> None:
    """Write what is known in `rows` into `into`, both QUOTE; what they do not know stays as it was.

    `place`: symbol -> place in `into`; a symbol that nobody asked for is passed over. Two answers may know the trade and the book of one.
    """
    for row in rows:
        at = place.get(row["symbol"])
        if at is None:
            continue
        for name in _FIGURES:
            if row[name] == row[name]:  # NaN is not itself
                into[name][at] = row[name]
        into["event_ns"][at] = max(into["event_ns"][at], row["event_ns"])
