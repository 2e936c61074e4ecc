"""Against the venue's own count: duplicates by its trade identity, missed volume by its accumulated volume.

A venue that sends an accumulated volume with every trade (KIS ACML_VOL, Kiwoom FID 13) proves completeness: it must grow
by exactly the size of each trade. A larger step is volume that we did not see. A venue with a unique id per trade (Upbit
sequential_id) tells duplicates only, because its ids are neither dense nor ordered.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

import numpy as np

from obs.record.schema import IGNORED, INPUT_TRADE, NO_SEQ

_REMEMBERED: Final = 512  # trade identities kept per symbol: far more than a reconnect repeats
_DUPLICATE: Final = IGNORED.index("duplicate")


class Missed(NamedTuple):
    """A step of the venue's accumulated volume that our trades do not explain."""

    row: int
    before: float
    after: float
    start_ns: int  # receive time of the last trade before the step; 0 unknown
    end_ns: int


class Completeness:
    """Judges batches of inputs, per table row (one row = one symbol). Row 0 (unknown symbols) is never judged."""

    def __init__(self, rows: int) -> None:
        self._seen: list[OrderedDict[tuple[int, float, int], None]] = [OrderedDict() for _ in range(rows)]
        self._acc = np.full(rows, np.nan)
        self._day = np.zeros(rows, np.int64)
        self._recv = np.zeros(rows, np.int64)

    def forget(self, row: int) -> None:
        """Start anew for a row that another symbol takes."""
        self._seen[row].clear()
        self._acc[row] = np.nan
        self._day[row] = 0
        self._recv[row] = 0

    def judge(self, inputs: np.ndarray) -> list[Missed]:
        """Mark repeated trades in `inputs` (n,), dtype INPUT, as ignored `duplicate`; return the steps missed.

        Inputs already ignored are left alone. A trade whose accumulated volume is lower than one seen before is late,
        not lost, and is folded; it was reported when it was missed.
        """
        trades = np.flatnonzero((inputs["kind"] == INPUT_TRADE) & (inputs["ignore"] == 0) & (inputs["row"] > 0))
        if not len(trades):
            return []
        missed: list[Missed] = []
        picked = inputs[trades]
        columns = zip(
            trades.tolist(), picked["row"].tolist(), picked["venue_seq"].tolist(), picked["acc_volume"].tolist(),
            picked["acc_day"].tolist(), picked["size"].tolist(), picked["recv_ns"].tolist(), strict=True,
        )  # fmt: skip
        acc_of, day_of, recv_of, ignore = self._acc, self._day, self._recv, inputs["ignore"]
        for place, row, venue_seq, acc, day, size, recv_ns in columns:
            counted = acc == acc  # not NaN
            if venue_seq != NO_SEQ or counted:
                seen = self._seen[row]
                identity = (venue_seq, acc if counted else 0.0, day)
                if identity in seen:
                    ignore[place] = _DUPLICATE
                    continue
                seen[identity] = None
                if len(seen) > _REMEMBERED:
                    seen.popitem(last=False)
            if counted:
                before = float(acc_of[row])
                if before == before and day == day_of[row]:
                    if acc < before:
                        continue
                    tolerance = 2 * np.spacing(acc)
                    if acc - before - size > tolerance and size == size:
                        missed.append(Missed(row, before, acc, int(recv_of[row]), recv_ns))
                acc_of[row] = acc
                day_of[row] = day
                recv_of[row] = recv_ns
        return missed
