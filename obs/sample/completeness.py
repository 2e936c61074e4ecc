"""Against the venue's own count: duplicates by its trade identity, missed volume by its accumulated volume.

A venue that sends an accumulated volume with every trade (KIS ACML_VOL, Kiwoom FID 13) proves completeness: it must grow
by exactly the size of each trade. A larger step is volume that we did not see. A venue with a unique id per trade (Upbit
sequential_id) tells duplicates only, because its ids are neither dense nor ordered.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import repeat
from typing import Final, NamedTuple

import numpy as np

from obs.record.schema import IGNORED, INPUT_TRADE, NO_SEQ

_REMEMBERED: Final = 512  # trade identities kept per symbol: far more than a reconnect repeats
_MANY: Final = 128  # trades, from which on taking the plain ones by columns is faster than one by one
_DUPLICATE: Final = IGNORED.index("duplicate")
_NAN: Final = float("nan")


class Missed(NamedTuple):
    """A step of the venue's accumulated volume that our trades do not explain."""

    row: int
    before: float
    after: float
    start_ns: int  # receive time of the last trade before the step; 0 unknown
    end_ns: int


class _Ids:
    """The venue's trade ids of one symbol that came last. Two generations: at least _REMEMBERED of them, at most twice that."""

    __slots__ = ("new", "old")

    def __init__(self) -> None:
        self.new: set[int] = set()
        self.old: set[int] = set()

    def repeated(self, venue_seq: int) -> bool:
        """Whether it has come before; remembers it."""
        if venue_seq in self.new or venue_seq in self.old:
            return True
        self.new.add(venue_seq)
        if len(self.new) >= _REMEMBERED:
            self.old, self.new = self.new, set()
        return False


class Completeness:
    """Judges batches of inputs, per table row (one row = one symbol). Row 0 (unknown symbols) is never judged.

    A trade is known by the venue's id where it has one, else by accumulated volume and day. Why lists: rows repeat within
    a batch and each trade counts in turn.
    """

    def __init__(self, rows: int) -> None:
        self._ids = [_Ids() for _ in range(rows)]
        self._steps: list[deque[tuple[float, int]]] = [deque(maxlen=_REMEMBERED) for _ in range(rows)]
        self._acc = [_NAN] * rows
        self._day = [0] * rows
        self._recv = [0] * rows

    def forget(self, row: int) -> None:
        """Begin anew with a row that has got another symbol."""
        self._ids[row] = _Ids()
        self._steps[row].clear()
        self._acc[row], self._day[row], self._recv[row] = _NAN, 0, 0

    def judge(self, inputs: np.ndarray) -> list[Missed]:
        """Mark repeated trades in `inputs` (n,), dtype INPUT, as ignored `duplicate`; return the steps missed.

        Inputs already ignored are left alone. A trade whose accumulated volume is lower than one seen before is late,
        not lost, and is folded; it was reported when it was missed.
        """
        judged = (inputs["kind"] == INPUT_TRADE) & (inputs["ignore"] == 0) & (inputs["row"] > 0)
        trades = np.flatnonzero(judged)
        if not len(trades):
            return []
        picked = inputs if len(trades) == len(inputs) else inputs[trades]
        if len(trades) >= _MANY and picked["venue_seq"][0] == NO_SEQ:
            odd = self._take_plain(picked)
            picked, trades = picked[odd], trades[odd]
        columns = (picked[name].tolist() for name in ("row", "venue_seq", "acc_volume", "acc_day", "size", "recv_ns"))
        ids, steps, acc_of, day_of, recv_of = self._ids, self._steps, self._acc, self._day, self._recv
        missed: list[Missed] = []
        repeated: list[int] = []
        for place, row, venue_seq, acc, day, size, recv_ns in zip(trades.tolist(), *columns, strict=True):
            if venue_seq != NO_SEQ and ids[row].repeated(venue_seq):
                repeated.append(place)
                continue
            if acc != acc:
                continue  # not counted by the venue
            if day != day_of[row]:
                # It counts anew; a late trade of another day must not make us forget where this one stood.
                day_of[row] = day
                acc_of[row] = max((step for step, of_day in steps[row] if of_day == day), default=_NAN)
            before = acc_of[row]
            # A higher volume than ever before on its day has not come before: only the others are looked up.
            if acc <= before:
                if venue_seq == NO_SEQ and (acc, day) in steps[row]:
                    repeated.append(place)
                else:
                    steps[row].append((acc, day))
                continue
            # Volumes beyond 15 digits: each of the three numbers may be off by half an ulp.
            if acc - before > size and acc - before - size > 2 * math.ulp(acc):
                missed.append(Missed(row, before, acc, recv_of[row], recv_ns))
            steps[row].append((acc, day))
            acc_of[row], recv_of[row] = acc, recv_ns
        if repeated:
            inputs["ignore"][repeated] = _DUPLICATE
        return missed

    def _take_plain(self, trades: np.ndarray) -> np.ndarray:
        """Take the trades of those rows where each explains its step, all on one day; return which (n,) of `trades` are of other rows."""
        order = np.argsort(trades["row"], kind="stable")
        row, venue_seq, acc, day, size, recv_ns = (
            trades[name][order] for name in ("row", "venue_seq", "acc_volume", "acc_day", "size", "recv_ns")
        )
        starts = np.concatenate(([0], np.flatnonzero(row[1:] != row[:-1]) + 1))
        rows = row[starts].tolist()
        before = np.concatenate(([_NAN], acc[:-1]))
        before[starts] = [self._acc[one] for one in rows]
        of_day = np.repeat([self._day[one] for one in rows], np.diff(starts, append=len(row)))
        step = acc - before
        odd = ~(step > 0) | (step > size) | (day != of_day) | (venue_seq != NO_SEQ)  # a volume or size that is not known: NaN
        stops = [*starts[1:].tolist(), len(row)]
        for one, start, stop, is_odd in zip(rows, starts.tolist(), stops, np.logical_or.reduceat(odd, starts).tolist(), strict=True):
            odd[start:stop] = is_odd
            if not is_odd:
                self._acc[one], self._recv[one] = float(acc[stop - 1]), int(recv_ns[stop - 1])
                self._steps[one].extend(zip(acc[max(start, stop - _REMEMBERED) : stop].tolist(), repeat(self._day[one])))
        found = np.empty(len(odd), bool)
        found[order] = odd
        return found
