"""The state of each slot: inputs are folded into its interval, and records are made of the intervals.

All state is columns indexed by table row (row 0 = unknown symbols, never used). A batch is folded with array operations
whose order keeps "the last one wins": numpy assigns repeated indices in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from obs.record.schema import (
    HAS_QUOTE,
    INPUT_QUOTE,
    INPUT_TRADE,
    KINDS,
    MARKETS,
    NO_SEQ,
    QUALITIES,
    SYMBOL_BYTES,
    TICK,
    VENUES,
)  # fmt: skip
from obs.sample.guards import History, flags_of

_DECIMALS: Final = 8  # of the finest size increment; sums of whole shares have none, and rounding leaves them as they are
_TRADE: Final = KINDS.index("trade")
_QUOTE: Final = KINDS.index("quote")
_DEGRADED: Final = QUALITIES.index("degraded")
_GAP: Final = QUALITIES.index("gap")
_DIGITS: Final = 1e15  # whole numbers below it have at most 15 digits
_SCALES: Final = np.array([float(10**places) for places in range(_DECIMALS + 1)])

# Carried from one interval to the next, and copied as they are into a record.
_CARRIED: Final = np.dtype(
    [
        ("event_ns", "<i8"), ("recv_ns", "<i8"), ("side", "u1"), ("phase", "u1"), ("bid_price", "<f8"), ("ask_price", "<f8"),
        ("bid_size", "<f8"), ("ask_size", "<f8"), ("last_price", "<f8"), ("acc_volume", "<f8"), ("venue_seq", "<i8"),
    ]
)  # fmt: skip
_QUOTED: Final = ("bid_price", "ask_price", "bid_size", "ask_size")


class Slots:
    """Slots of one provider: `rows` places, of which row 0 is nobody's."""

    def __init__(self, symbols: Sequence[str], market: str, venue: str) -> None:
        rows = len(symbols) + 1
        self.rows = rows
        self._market = MARKETS.index(market)
        self._venue = VENUES.index(venue)
        self.symbol = np.zeros(rows, f"S{SYMBOL_BYTES}")
        self.symbol[1:] = [symbol.encode() for symbol in symbols]
        self._last = {name: np.zeros(rows, _CARRIED[name]) for name in _CARRIED.names or ()}
        # The open interval
        self.trades = np.zeros(rows, np.uint32)
        self.quotes = np.zeros(rows, np.uint32)
        self._open, self._high, self._low = (np.full(rows, np.nan) for _ in range(3))
        self._volume = np.zeros(rows)
        self._base = np.full(rows, np.nan)  # previous close, for the guards
        self._history = History(rows)
        # Seen: an input came since the slot was occupied or its connection came back. After a gap: the next record says so.
        self.seen = np.zeros(rows, bool)
        self._after_gap = np.zeros(rows, bool)
        for row in range(rows):
            self._clear(row)

    def _clear(self, row: int) -> None:
        for name, column in self._last.items():
            column[row] = NO_SEQ if name == "venue_seq" else np.nan if column.dtype.kind == "f" else 0

    def disconnected(self, rows: np.ndarray) -> None:
        """Forget the quotes of `rows` and mark a gap: no records until the next input, which says it follows one."""
        for name in _QUOTED:
            self._last[name][rows] = np.nan
        self.seen[rows] = False
        self._after_gap[rows] = True

    def fold(self, inputs: np.ndarray) -> None:
        """Fold `inputs` (n,), dtype INPUT, in order of arrival, none ignored, all of known rows."""
        rows = inputs["row"]
        is_trade = inputs["kind"] == INPUT_TRADE
        last = self._last
        np.add.at(self.trades, rows[is_trade], 1)
        np.add.at(self.quotes, rows[~is_trade], 1)
        self.seen[rows] = True
        for name in ("event_ns", "recv_ns"):
            last[name][rows] = inputs[name]
        self._keep(rows, inputs, "phase", inputs["phase"] != 0)
        self._keep(rows, inputs, "acc_volume", inputs["acc_volume"] == inputs["acc_volume"])
        self._keep(rows, inputs, "venue_seq", inputs["venue_seq"] != NO_SEQ)
        priced = inputs["price"] == inputs["price"]
        last["last_price"][rows[priced]] = inputs["price"][priced]
        based = inputs["base_price"] == inputs["base_price"]
        self._base[rows[based]] = inputs["base_price"][based]
        quoted = _quoted(inputs)
        at = rows[quoted]
        for name in _QUOTED:
            last[name][at] = inputs[name][quoted]
        if is_trade.any():
            self._fold_trades(rows[is_trade], inputs["price"][is_trade], inputs["size"][is_trade])
            last["side"][rows[is_trade]] = inputs["side"][is_trade]

    def _keep(self, rows: np.ndarray, inputs: np.ndarray, name: str, known: np.ndarray) -> None:
        self._last[name][rows[known]] = inputs[name][known]

    def _fold_trades(self, rows: np.ndarray, price: np.ndarray, size: np.ndarray) -> None:
        priced = price == price  # a venue may send a trade without a price
        first = np.full(self.rows, np.nan)
        first[rows[priced][::-1]] = price[priced][::-1]  # reversed: the first of each row wins
        fresh = np.isnan(self._open)
        self._open[fresh] = first[fresh]
        np.fmax.at(self._high, rows, price)
        np.fmin.at(self._low, rows, price)
        np.add.at(self._volume, rows, _known(size))

    def emit(self, ts_ns: int, level: int, rows: np.ndarray) -> np.ndarray:
        """Close the interval of `rows` (n,) int and return a record of each, TICK (n,), kind sample, `ts` = ts_ns."""
        records = np.zeros(len(rows), TICK)
        for name, column in self._last.items():
            records[name] = column[rows]
        records["ts_ns"] = ts_ns
        records["volume"] = _rounded(self._volume[rows], self.trades[rows])
        records["open"], records["high"], records["low"] = self._open[rows], self._high[rows], self._low[rows]
        records["trades"], records["quotes"] = self.trades[rows], self.quotes[rows]
        self._finish(records, rows, level, self._base[rows])
        self.trades[rows] = 0
        self.quotes[rows] = 0
        self._open[rows] = self._high[rows] = self._low[rows] = np.nan
        self._volume[rows] = 0.0
        return records

    def occupied(self) -> np.ndarray:
        """Rows that get a record at each grid point: those that have been heard of."""
        return np.flatnonzero(self.seen)

    def pending(self) -> np.ndarray:
        """Rows with inputs that no record holds yet."""
        return np.flatnonzero(self.trades + self.quotes)

    def tape(self, inputs: np.ndarray, level: int) -> np.ndarray:
        """Return one record of each of `inputs` (n,), in their order, kind trade or quote, `ts` = its receive time."""
        rows, price = inputs["row"], inputs["price"]
        is_trade = inputs["kind"] == INPUT_TRADE
        batch, last = _Batch(rows), self._last
        records = np.zeros(len(inputs), TICK)
        for name in ("event_ns", "recv_ns"):
            records[name] = inputs[name]
        tellers = batch.tellers(_quoted(inputs))
        for name in _QUOTED:
            records[name] = batch.carried(last[name], inputs[name], tellers)
        records["last_price"] = batch.carried(last["last_price"], price, batch.tellers(price == price))
        acc_volume, base, phase = inputs["acc_volume"], inputs["base_price"], inputs["phase"]
        records["acc_volume"] = batch.carried(last["acc_volume"], acc_volume, batch.tellers(acc_volume == acc_volume))
        records["phase"] = batch.carried(last["phase"], phase, batch.tellers(phase != 0))
        based = batch.carried(self._base, base, batch.tellers(base == base))
        records["venue_seq"] = inputs["venue_seq"]
        records["side"] = np.where(is_trade, inputs["side"], 0)
        records["ts_ns"] = inputs["recv_ns"]
        records["volume"] = np.where(is_trade, _known(inputs["size"]), 0.0)
        records["open"] = records["high"] = records["low"] = np.where(is_trade, price, np.nan)
        records["trades"], records["quotes"] = is_trade, ~is_trade
        records["kind"] = np.where(is_trade, _TRADE, _QUOTE)
        self.seen[rows] = True
        self._finish(records, rows, level, based)
        return records

    def _finish(self, records: np.ndarray, rows: np.ndarray, level: int, base: np.ndarray) -> None:
        records["symbol"] = self.symbol[rows]
        records["market"], records["venue"], records["mitigation_level"] = self._market, self._venue, level
        records["flags"] = flags_of(records, base, self._history.before(rows, records))
        records["quality"] = np.where(records["flags"] != 0, _DEGRADED, 0)
        if self._after_gap[rows].any():
            # Only the first record of a row follows the gap.
            firsts, places = np.unique(rows, return_index=True)
            records["quality"][places[self._after_gap[firsts]]] = _GAP
            self._after_gap[firsts] = False

class _Batch:
    """The inputs of a batch as chains, one for each row, in order of arrival. `rows`: (n,) int."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows
        self._order: np.ndarray | None = None  # places sorted by row
        self._starts = np.zeros(len(rows), np.int64)  # where the chain of a place in `_order` begins

    def tellers(self, told: np.ndarray) -> np.ndarray | None:
        """Return (n,) the place of the newest input of the same row, up to and with each, for which `told` (n,) is true.

        -1 where there is none in this batch; None if each told by itself, which is the rule for most venues.
        """
        if told.all():
            return None
        if self._order is None:
            self._order = np.argsort(self._rows, kind="stable")
            ordered = self._rows[self._order]
            changed = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
            self._starts[changed] = changed
            np.maximum.accumulate(self._starts, out=self._starts)
        order = self._order
        place = np.where(told[order], np.arange(len(order)), -1)
        np.maximum.accumulate(place, out=place)
        found = np.empty(len(order), np.int64)
        found[order] = np.where(place >= self._starts, order[place], -1)
        return found

    def carried(self, state: np.ndarray, values: np.ndarray, tellers: np.ndarray | None) -> np.ndarray:
        """Return (n,) what was last told by each input's time: of `values` (n,), else of `state` (rows,), which is brought up to date."""
        found = values
        if tellers is not None:
            found = np.where(tellers >= 0, values[tellers], state[self._rows])
        state[self._rows] = found
        return found


def _quoted(inputs: np.ndarray) -> np.ndarray:
    quoted: np.ndarray = (inputs["kind"] == INPUT_QUOTE) | (inputs["flags"] & HAS_QUOTE != 0)
    return quoted


def _known(sizes: np.ndarray) -> np.ndarray:
    """A size that is not known adds nothing to a volume."""
    return np.where(sizes == sizes, sizes, 0.0)


def _rounded(volume: np.ndarray, trades: np.ndarray) -> np.ndarray:
    """Round sums (n,) to the size increment, or to 15 digits where they have more; a single size leaves as it came."""
    sums, scales = trades > 1, _SCALES[_DECIMALS]
    if (np.abs(volume) * scales >= _DIGITS).any():
        with np.errstate(divide="ignore"):
            places = np.floor(np.log10(_DIGITS / np.abs(volume)))
        scales = _SCALES[np.clip(places, 0, _DECIMALS).astype(np.int64)]
        sums &= np.abs(volume) < _DIGITS
    return np.where(sums, np.rint(volume * scales) / scales, volume)
