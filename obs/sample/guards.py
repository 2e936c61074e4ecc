"""Guards over finished records: they flag, they never drop.

Each is a pure test over columns; a record with any bit set gets quality `degraded`. Limits by spec: 30 % from the
previous close (KRX daily price limit), 5 % between two records, 10 times the usual volume, time going backwards, more
than 5 s ahead of our clock or 24 h behind it.

What a record is compared with is what its symbol's records before it told (History), whatever batch they came in: when a
batch ends is an accident of timing, and the same inputs must give the same flags.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

import numpy as np

from obs.record.schema import FLAGS, PHASES

# The guards, in the order in which flags_of judges them
_GUARDS: Final = (
    "price_limit", "price_jump", "volume_spike", "time_backwards", "time_ahead", "time_behind", "crossed", "bad_range", "ohlc_order",
)  # fmt: skip
_BITS: Final = np.array([1 << FLAGS.index(name) for name in _GUARDS], np.uint32)
# By phase. In an auction the book may be crossed: it is matched at its end.
_AUCTION: Final = np.isin(np.arange(256), [PHASES.index(name) for name in ("pre_open", "closing", "expected", "after_hours")])
_USUAL_AFTER: Final = 20  # records with trades before "usual volume" means anything
_USUAL_WEIGHT: Final = 1 / 120
_MANY: Final = 128  # records, from which on looking at them by columns is faster than one by one
_NAN: Final = float("nan")
_AHEAD_NS: Final = 5 * 10**9
_BEHIND_NS: Final = 24 * 3600 * 10**9


Records = np.ndarray | Mapping[str, np.ndarray]  # dtype TICK, or columns of it by name


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

    def forget(self, row: int) -> None:
        """Begin anew with a row that has got another symbol."""
        self._price[row], self._event[row], self._mean[row], self._traded[row] = _NAN, 0, 0.0, 0

    def before(self, rows: np.ndarray, records: Records) -> Before:
        """Return what was known before each of `records` (n,), dtype TICK, in their order, and learn from them.

        `rows`: (n,) int, the table row of each; rows may repeat.
        """
        if len(rows) >= _MANY:
            return self._before_many(rows, records)
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
                mean[row] = _mean_after(usual, volume) if count else volume
        return Before(np.array(prices, np.float64), np.array(events, np.int64), np.array(volumes, np.float64))

    def _before_many(self, rows: np.ndarray, records: Records) -> Before:
        """The same, column by column: records are put in the order of their rows, and each looks at the one before it."""
        order = np.argsort(rows, kind="stable")
        row = rows[order]
        starts = np.concatenate(([0], np.flatnonzero(row[1:] != row[:-1]) + 1))
        stops = [*starts[1:].tolist(), len(row)]
        last, event_ns = records["last_price"][order], records["event_ns"][order]
        price, event = np.roll(last, 1), np.roll(event_ns, 1)
        here = row[starts].tolist()
        price[starts], event[starts] = [self._price[one] for one in here], [self._event[one] for one in here]
        backwards = (event_ns < event).any()
        for one, start, stop in zip(here, starts.tolist(), stops, strict=True):
            if backwards:
                np.maximum.accumulate(event[start:stop], out=event[start:stop])
            self._price[one], self._event[one] = float(last[stop - 1]), max(int(event[stop - 1]), int(event_ns[stop - 1]))
        before = Before(np.empty(len(row)), np.empty(len(row), np.int64), np.full(len(row), _NAN))
        before.price[order], before.event_ns[order] = price, event
        places = order[records["trades"][order] > 0]
        self._usual(rows[places], records["volume"][places], places, before.volume)
        return before

    def _usual(self, rows: np.ndarray, volumes: np.ndarray, places: np.ndarray, before: np.ndarray) -> None:
        """Write to `before` the usual volume before each record with trades, and learn.

        `rows` (k,): of these records, sorted; `places`: theirs in `before`.
        """
        starts = np.concatenate(([0], np.flatnonzero(rows[1:] != rows[:-1]) + 1)).tolist() if len(rows) else []
        listed = volumes.tolist()
        for start, stop in pairwise([*starts, len(rows)]):
            row = int(rows[start])
            count, first = self._traded[row], start
            if not count:
                self._mean[row] = listed[start]
                first += 1
            means = list(accumulate(listed[first:stop], _mean_after, initial=self._mean[row]))
            self._traded[row], self._mean[row] = count + stop - start, means[-1]
            known = max(start, start + _USUAL_AFTER - count)  # the first that has enough of them before it
            before[places[known:stop]] = means[known - first : -1]


def _mean_after(mean: float, volume: float) -> float:
    return mean + _USUAL_WEIGHT * (volume - mean)


def flags_of(records: Records, base: np.ndarray, before: Before) -> np.ndarray:
    """Return uint32 (n,), the guards that fired for `records` (n,), dtype TICK. `base`: previous close, NaN unknown."""
    last, bid, ask, volume = records["last_price"], records["bid_price"], records["ask_price"], records["volume"]
    opened, high, low = records["open"], records["high"], records["low"]
    event_ns, recv_ns = records["event_ns"], records["recv_ns"]
    known = event_ns != 0
    with np.errstate(invalid="ignore"):
        fired = np.array(
            [
                np.abs(last - base) > 0.3 * base,
                np.abs(last - before.price) > 0.05 * before.price,
                volume > 10 * before.volume,
                event_ns < before.event_ns,
                event_ns > recv_ns + _AHEAD_NS,
                event_ns < recv_ns - _BEHIND_NS,
                bid > ask,
                (np.fmin(np.fmin(last, bid), ask) <= 0) | (np.fmin(np.fmin(volume, records["bid_size"]), records["ask_size"]) < 0),
                (high < low) | (opened > high) | (opened < low),
            ]
        )
    if not fired.any():
        return np.zeros(len(known), np.uint32)
    fired[:2] &= records["trades"] > 0
    fired[3:6] &= known
    fired[6] &= ~_AUCTION[records["phase"]]
    flags: np.ndarray = _BITS @ fired.astype(np.uint32)
    return flags
