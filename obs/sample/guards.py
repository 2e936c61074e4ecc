"""Guards over finished records: they flag, they never drop.

Each is a pure test over columns; a record with any bit set gets quality `degraded`. Limits by spec: 30 % from the
previous close (KRX daily price limit), 5 % between two records, 10 times the usual volume, time going backwards, more
than 5 s ahead of our clock or 24 h behind it.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from obs.record.schema import FLAGS, PHASES

_BIT: Final = {name: np.uint32(1 << place) for place, name in enumerate(FLAGS)}
# In an auction the book may be crossed: it is matched at its end.
_AUCTIONS: Final = tuple(PHASES.index(name) for name in ("pre_open", "closing", "expected", "after_hours"))
_AHEAD_NS: Final = 5 * 10**9
_BEHIND_NS: Final = 24 * 3600 * 10**9


def flags_of(records: np.ndarray, base: np.ndarray, previous: np.ndarray, event: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Return uint32 (n,), the guards that fired for `records` (n,), dtype TICK.

    `base`: previous close (NaN unknown); `previous`: last price of the record before; `event`: event_ns of that one;
    `usual`: usual volume of a record with trades (NaN while unknown).
    """
    flags = np.zeros(len(records), np.uint32)
    last, bid, ask = records["last_price"], records["bid_price"], records["ask_price"]
    opened, high, low = records["open"], records["high"], records["low"]
    event_ns = records["event_ns"]
    known = event_ns != 0
    traded = records["trades"] > 0
    with np.errstate(invalid="ignore"):
        fired = {
            "price_limit": traded & (np.abs(last - base) > 0.3 * base),
            "price_jump": traded & (np.abs(last - previous) > 0.05 * previous),
            "volume_spike": records["volume"] > 10 * usual,
            "time_backwards": known & (event_ns < event),
            "time_ahead": known & (event_ns > records["recv_ns"] + _AHEAD_NS),
            "time_behind": known & (event_ns < records["recv_ns"] - _BEHIND_NS),
            "crossed": (bid > ask) & ~np.isin(records["phase"], _AUCTIONS),
            "bad_range": (last <= 0) | (bid <= 0) | (ask <= 0) | _negative(records, "volume", "bid_size", "ask_size"),
            "ohlc_order": (high < low) | (opened > high) | (opened < low),
        }
    for name, hit in fired.items():
        if hit.any():
            flags[hit] |= _BIT[name]
    return flags


def _negative(records: np.ndarray, *names: str) -> np.ndarray:
    found = np.zeros(len(records), bool)
    for name in names:
        found |= records[name] < 0
    return found
