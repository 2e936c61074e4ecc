"""Guards over finished records: they flag, they never drop.

Each is a pure test over columns; a record with any bit set gets quality `degraded`. Limits by spec: 30 % from the
previous close (KRX daily price limit), 5 % between two records, 10 times the usual volume, time going backwards, more
than 5 s ahead of our clock or 24 h behind it.

What a record is compared with is what its symbol's records before it told (History), whatever batch they came in: when a
batch ends is an accident of timing, and the same inputs must give the same flags.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from obs.record.schema import FLAGS, PHASES

_BIT: Final = {name: np.uint32(1 << place) for place, name in enumerate(FLAGS)}
# By phase. In an auction the book may be crossed: it is matched at its end.
_AUCTION: Final = np.isin(np.arange(256), [PHASES.index(name) for name in ("pre_open", "closing", "expected", "after_hours")])
_USUAL_AFTER: Final = 20  # records with trades before "usual volume" means anything
_USUAL_WEIGHT: Final = 1 / 120
_NAN: Final = float("nan")
_AHEAD_NS: Final = 5 * 10**9
_BEHIND_NS: Final = 24 * 3600 * 10**9


class Before(NamedTuple):
    """What was known before each of some records, (n,) each."""

    price: np.ndarray  # last price of the record before, NaN unknown
    event_ns: np.ndarray  # the newest event_ns of all records before, 0 unknown
    volume: np.ndarray  # the usual volume of a record with trades, NaN while unknown


class History:
    """What the records so far told, per table row. Why lists: rows repeat within a batch and each record counts in turn."""

    def __init__(self, rows: int) -> None:
        self._price = [_NAN] * rows
        self._event = [0] * rows
        self._mean = [0.0] * rows
        self._traded = [0] * rows

    def before(self, rows: np.ndarray, records: np.ndarray) -> Before:
        """Return what was known before each of `records` (n,), dtype TICK, in their order, and learn from them.

        `rows`: (n,) int, the table row of each; rows may repeat.
        """
        price, event, mean, traded = self._price, self._event, self._mean, self._traded
        prices, events, volumes = [], [], []
        columns = (records[name].tolist() for name in ("last_price", "event_ns", "trades", "volume"))
        for row, last, event_ns, trades, volume in zip(rows.tolist(), *columns, strict=True):
            prices.append(price[row])
            price[row] = last
            newest = event[row]
            events.append(newest)
            if event_ns > newest:
                event[row] = event_ns
            count, usual = traded[row], mean[row]
            volumes.append(usual if count >= _USUAL_AFTER else _NAN)
            if trades:
                traded[row] = count + 1
                mean[row] = usual + _USUAL_WEIGHT * (volume - usual) if count else volume
        return Before(np.array(prices, np.float64), np.array(events, np.int64), np.array(volumes, np.float64))


def flags_of(records: np.ndarray, base: np.ndarray, before: Before) -> np.ndarray:
    """Return uint32 (n,), the guards that fired for `records` (n,), dtype TICK. `base`: previous close, NaN unknown."""
    flags = np.zeros(len(records), np.uint32)
    last, bid, ask = records["last_price"], records["bid_price"], records["ask_price"]
    opened, high, low = records["open"], records["high"], records["low"]
    event_ns = records["event_ns"]
    known = event_ns != 0
    traded = records["trades"] > 0
    with np.errstate(invalid="ignore"):
        fired = {
            "price_limit": traded & (np.abs(last - base) > 0.3 * base),
            "price_jump": traded & (np.abs(last - before.price) > 0.05 * before.price),
            "volume_spike": records["volume"] > 10 * before.volume,
            "time_backwards": known & (event_ns < before.event_ns),
            "time_ahead": known & (event_ns > records["recv_ns"] + _AHEAD_NS),
            "time_behind": known & (event_ns < records["recv_ns"] - _BEHIND_NS),
            "crossed": (bid > ask) & ~_AUCTION[records["phase"]],
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
