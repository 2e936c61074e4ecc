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
from obs.sample.guards import flags_of

_INCREMENT_DECIMALS: Final = {"crypto": 8, "us_stocks": 0, "kr_stocks": 0, "global_stocks": 8}
_TRADE: Final = KINDS.index("trade")
_QUOTE: Final = KINDS.index("quote")
_DEGRADED: Final = QUALITIES.index("degraded")
_GAP: Final = QUALITIES.index("gap")
_USUAL_AFTER: Final = 20  # records with trades before "usual volume" means anything
_USUAL_WEIGHT: Final = 1 / 120

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
        self._decimals = _INCREMENT_DECIMALS.get(market, 8)
        self.symbol = np.zeros(rows, f"S{SYMBOL_BYTES}")
        self.symbol[1:] = [symbol.encode() for symbol in symbols]
        self._last = {name: np.zeros(rows, _CARRIED[name]) for name in _CARRIED.names or ()}
        # The open interval
        self.trades = np.zeros(rows, np.uint32)
        self.quotes = np.zeros(rows, np.uint32)
        self._open, self._high, self._low = (np.full(rows, np.nan) for _ in range(3))
        self._volume = np.zeros(rows)
        # For the guards
        self._base, self._previous = np.full(rows, np.nan), np.full(rows, np.nan)
        self._previous_event = np.zeros(rows, np.int64)
        self._usual, self._usual_count = np.zeros(rows), np.zeros(rows, np.int64)
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
        quoted = (inputs["kind"] == INPUT_QUOTE) | (inputs["flags"] & HAS_QUOTE != 0)
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
        np.add.at(self._volume, rows, np.nan_to_num(size))

    def emit(self, ts_ns: int, level: int, rows: np.ndarray) -> np.ndarray:
        """Close the interval of `rows` (n,) int and return a record of each, TICK (n,), kind sample, `ts` = ts_ns."""
        records = np.zeros(len(rows), TICK)
        for name, column in self._last.items():
            records[name] = column[rows]
        records["ts_ns"] = ts_ns
        records["volume"] = self._rounded(self._volume[rows])
        records["open"], records["high"], records["low"] = self._open[rows], self._high[rows], self._low[rows]
        records["trades"], records["quotes"] = self.trades[rows], self.quotes[rows]
        self._finish(records, rows, level, self._previous[rows], self._previous_event[rows])
        self._previous[rows] = records["last_price"]
        self._previous_event[rows] = np.maximum(self._previous_event[rows], records["event_ns"])
        self._reset(rows)
        return records

    def occupied(self) -> np.ndarray:
        """Rows that get a record at each grid point: those that have been heard of."""
        return np.flatnonzero(self.seen)

    def pending(self) -> np.ndarray:
        """Rows with inputs that no record holds yet."""
        return np.flatnonzero(self.trades + self.quotes)

    def tape(self, inputs: np.ndarray, level: int) -> np.ndarray:
        """Return one record of each of `inputs` (n,), in their order, kind trade or quote, `ts` = its receive time."""
        rows = inputs["row"]
        order = np.argsort(rows, kind="stable")
        sorted_rows = rows[order]
        starts = np.zeros(len(rows), np.int64)
        changed = np.flatnonzero(sorted_rows[1:] != sorted_rows[:-1]) + 1
        starts[changed] = changed
        np.maximum.accumulate(starts, out=starts)
        records = np.zeros(len(inputs), TICK)
        is_trade = inputs["kind"] == INPUT_TRADE
        quoted = (inputs["kind"] == INPUT_QUOTE) | (inputs["flags"] & HAS_QUOTE != 0)

        def carry(name: str, values: np.ndarray, told: np.ndarray) -> None:
            """Fill what an input does not tell from the input of the same row before it, or from the state."""
            place = np.where(told[order], np.arange(len(order)), -1)
            np.maximum.accumulate(place, out=place)
            here = place >= starts
            found = self._last[name][sorted_rows]
            found[here] = values[order][place[here]]
            records[name][order] = found

        for name in ("event_ns", "recv_ns"):
            records[name] = inputs[name]
        for name in _QUOTED:
            carry(name, inputs[name], quoted)
        price = inputs["price"]
        carry("last_price", price, price == price)
        carry("acc_volume", inputs["acc_volume"], inputs["acc_volume"] == inputs["acc_volume"])
        carry("phase", inputs["phase"], inputs["phase"] != 0)
        records["venue_seq"] = inputs["venue_seq"]
        records["side"] = np.where(is_trade, inputs["side"], 0)
        records["ts_ns"] = inputs["recv_ns"]
        records["volume"] = np.where(is_trade, np.nan_to_num(inputs["size"]), 0.0)
        for name in ("open", "high", "low"):
            records[name] = np.where(is_trade, price, np.nan)
        records["trades"], records["quotes"] = is_trade, ~is_trade
        records["kind"] = np.where(is_trade, _TRADE, _QUOTE)
        previous, previous_event = np.empty(len(rows)), np.empty(len(rows), np.int64)
        previous[order] = np.where(np.arange(len(order)) == starts, self._previous[sorted_rows], np.roll(records["last_price"][order], 1))
        event = records["event_ns"][order]
        previous_event[order] = np.where(np.arange(len(order)) == starts, self._previous_event[sorted_rows], np.roll(event, 1))
        self.fold(inputs)
        self._finish(records, rows, level, previous, previous_event)
        self._previous[rows] = records["last_price"]
        np.maximum.at(self._previous_event, rows, records["event_ns"])
        self._reset(np.unique(rows))
        return records

    def _finish(self, records: np.ndarray, rows: np.ndarray, level: int, previous: np.ndarray, previous_event: np.ndarray) -> None:
        records["symbol"] = self.symbol[rows]
        records["market"], records["venue"], records["mitigation_level"] = self._market, self._venue, level
        usual = np.where(self._usual_count[rows] >= _USUAL_AFTER, self._usual[rows], np.nan)
        records["flags"] = flags_of(records, self._base[rows], previous, previous_event, usual)
        records["quality"] = np.where(records["flags"] != 0, _DEGRADED, 0)
        if self._after_gap[rows].any():
            # Only the first record of a row follows the gap.
            firsts, places = np.unique(rows, return_index=True)
            records["quality"][places[self._after_gap[firsts]]] = _GAP
            self._after_gap[firsts] = False
        traded = records["trades"] > 0
        at, volume = rows[traded], records["volume"][traded]
        fresh = self._usual_count[at] == 0
        self._usual[at] = np.where(fresh, volume, self._usual[at] + _USUAL_WEIGHT * (volume - self._usual[at]))
        np.add.at(self._usual_count, at, 1)

    def _reset(self, rows: np.ndarray) -> None:
        self.trades[rows] = 0
        self.quotes[rows] = 0
        self._open[rows] = self._high[rows] = self._low[rows] = np.nan
        self._volume[rows] = 0.0

    def _rounded(self, volume: np.ndarray) -> np.ndarray:
        """Round sums to the size increment, where the product with its scale is exact in a float64."""
        scale = 10.0**self._decimals
        return np.where(volume * scale < 2.0**53, np.rint(volume * scale) / scale, volume)
