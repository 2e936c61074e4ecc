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
    INPUT,
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

_QUOTED: Final = ("bid_price", "ask_price", "bid_size", "ask_size")
# What a record tells of earlier inputs where its own do not: the numbers of an input, as they lie side by side in it, and the phase.
# The size is there for its place only.
_NUMBERS: Final = ("price", "size", *_QUOTED, "acc_volume", "base_price")
_PRICE, _SIZE, _BID, _ACC, _BASE, _PHASE = 0, 1, 2, 6, 7, 8
_QUOTES: Final = slice(_BID, _BID + len(_QUOTED))
_CARRIED: Final = len(_NUMBERS) + 1


def _numbers_of(inputs: np.ndarray) -> np.ndarray:
    """Return the _NUMBERS of each of `inputs` (n,) as (n, 8)."""
    words = np.ndarray((len(inputs), INPUT.itemsize // 8), np.float64, np.ascontiguousarray(inputs))
    return words[:, _FIRST_NUMBER : _FIRST_NUMBER + len(_NUMBERS)]


_FIRST_NUMBER: Final = INPUT.fields["price"][1] // 8  # type: ignore[index]
assert [INPUT.fields[name][1] // 8 - _FIRST_NUMBER for name in _NUMBERS] == list(range(len(_NUMBERS)))  # type: ignore[index]


class Slots:
    """Slots of one provider: `rows` places, of which row 0 is nobody's.

    A row may change its symbol while it runs (`assign`); one without a symbol, b"", has not had any. What a row does not hold any more
    (`release`) keeps its name until it gets another.
    """

    def __init__(self, symbols: Sequence[str], market: str, venue: str) -> None:
        rows = len(symbols) + 1
        self.rows = rows
        self._market = MARKETS.index(market)
        self._venue = VENUES.index(venue)
        self.symbol = np.zeros(rows, f"S{SYMBOL_BYTES}")
        self.symbol[1:] = [symbol.encode() for symbol in symbols]
        self._carried = np.full((rows, _CARRIED), np.nan)
        self._carried[:, _PHASE] = 0
        self._last = {name: self._carried[:, place] for place, name in enumerate(_QUOTED, _BID)}
        self._last |= {"last_price": self._carried[:, _PRICE], "acc_volume": self._carried[:, _ACC], "phase": self._carried[:, _PHASE]}
        self._last |= {name: np.zeros(rows, TICK[name]) for name in ("event_ns", "recv_ns", "side")}
        self._last["venue_seq"] = np.full(rows, NO_SEQ)
        # The open interval
        self.trades = np.zeros(rows, np.uint32)
        self.quotes = np.zeros(rows, np.uint32)
        self._open, self._high, self._low = (np.full(rows, np.nan) for _ in range(3))
        self._volume = np.zeros(rows)
        self._base = self._carried[:, _BASE]  # previous close, for the guards
        self._history = History(rows)
        # Seen: an input came since the slot was occupied or its connection came back. After a gap: the next record says so.
        self.seen = np.zeros(rows, bool)
        self._after_gap = np.zeros(rows, bool)

    def disconnected(self, rows: np.ndarray) -> None:
        """Forget the quotes of `rows` and mark a gap: no records until the next input, which says it follows one."""
        for name in _QUOTED:
            self._last[name][rows] = np.nan
        self.seen[rows] = False
        self._after_gap[rows] = True

    def release(self, rows: np.ndarray) -> None:
        """Make no more records of `rows`; what was pending in them has been published."""
        self.seen[rows] = False

    def assign(self, row: int, symbol: bytes) -> None:
        """Give a released row to a symbol: nothing is known of it, and no gap lies before its first record."""
        self.symbol[row] = symbol
        self._carried[row] = np.nan
        self._carried[row, _PHASE] = 0
        for name in ("event_ns", "recv_ns", "side"):
            self._last[name][row] = 0
        self._last["venue_seq"][row] = NO_SEQ
        self.trades[row] = self.quotes[row] = 0
        self._open[row] = self._high[row] = self._low[row] = np.nan
        self._volume[row] = 0.0
        self._history.forget(row)
        self.seen[row] = self._after_gap[row] = False

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
        columns = {name: column[rows] for name, column in self._last.items()}
        columns["phase"] = columns["phase"].astype(np.uint8)
        columns |= {"open": self._open[rows], "high": self._high[rows], "low": self._low[rows]}
        columns |= {"trades": self.trades[rows], "quotes": self.quotes[rows], "volume": _rounded(self._volume[rows], self.trades[rows])}
        records = self._records(columns, rows, level, self._base[rows])
        records["ts_ns"] = ts_ns
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
        rows, phase, recv_ns = inputs["row"].astype(np.intp), inputs["phase"], inputs["recv_ns"].copy()
        is_trade = inputs["kind"] == INPUT_TRADE
        told = np.empty((len(inputs), _CARRIED))
        told[:, :_PHASE], told[:, _PHASE] = _numbers_of(inputs), phase
        known = told == told
        known[:, _QUOTES] = _quoted(inputs)[:, None]
        known[:, _SIZE], known[:, _PHASE] = True, phase != 0
        carried = told if known.all() else _fill(told, known, rows, self._carried)
        self._carried[rows] = carried
        self.seen[rows] = True
        numbers = carried.T.copy()
        price = np.where(is_trade, told[:, _PRICE], np.nan)
        columns = dict(zip(_QUOTED, numbers[_QUOTES], strict=True))
        columns |= {"last_price": numbers[_PRICE], "acc_volume": numbers[_ACC], "phase": numbers[_PHASE].astype(np.uint8)}
        columns |= {"event_ns": inputs["event_ns"].copy(), "recv_ns": recv_ns, "ts_ns": recv_ns, "venue_seq": inputs["venue_seq"]}
        columns |= {"open": price, "high": price, "low": price, "volume": np.where(is_trade, _known(told[:, _SIZE]), 0.0)}
        columns |= {"trades": is_trade, "quotes": ~is_trade, "side": np.where(is_trade, inputs["side"], 0)}
        columns["kind"] = np.where(is_trade, _TRADE, _QUOTE)
        return self._records(columns, rows, level, numbers[_BASE])

    def _records(self, columns: dict[str, np.ndarray], rows: np.ndarray, level: int, base: np.ndarray) -> np.ndarray:
        """Return records of `columns`, judged by the guards. The columns are judged before they are put into records: it is faster."""
        flags = flags_of(columns, base, self._history.before(rows, columns))
        records = np.zeros(len(rows), TICK)
        for name, column in columns.items():
            records[name] = column
        records["symbol"] = self.symbol[rows]
        records["market"], records["venue"], records["mitigation_level"] = self._market, self._venue, level
        if flags.any():
            records["flags"] = flags
            records["quality"] = np.where(flags != 0, _DEGRADED, 0)
        if self._after_gap[rows].any():
            # Only the first record of a row follows the gap.
            firsts, places = np.unique(rows, return_index=True)
            records["quality"][places[self._after_gap[firsts]]] = _GAP
            self._after_gap[firsts] = False
        return records


def _fill(told: np.ndarray, known: np.ndarray, rows: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Return `told` (n, k) where `known` (n, k), else what the newest input of the same row before it told, else `state` (rows, k)."""
    order = np.argsort(rows, kind="stable")
    row, places = rows[order], np.arange(len(rows))
    starts = np.where(np.concatenate(([True], row[1:] != row[:-1])), places, 0)
    np.maximum.accumulate(starts, out=starts)
    place = np.where(known[order], places[:, None], -1)
    np.maximum.accumulate(place, axis=0, out=place)
    found = np.where(place >= starts[:, None], np.take_along_axis(told[order], place, axis=0), state[row])
    filled = np.empty_like(told)
    filled[order] = found
    return filled


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
