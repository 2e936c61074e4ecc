"""What is known of each symbol of the day's universe: columns that sweeps and live records fill, and that outlive poll.

What is known of a symbol comes from one source at a time. One that sends live records is observed by them, each minute, and not by the
sweep; the sweep's volume of any other is the growth of the venue's accumulated volume, as a rate, over the time since it was observed.

The columns lie in `data/state/<provider>.select.npy`, one row per symbol, 600 KB, written after each sweep by a thread, because the
averages of the triggers take an hour to form. Why not from the swing archive: it holds neither averages nor what live records
showed, and reading an hour of it costs seconds. What is lost with the file is warmth alone: slots and pins do not depend on it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np

from obs.clock import NS
from obs.log import Log
from obs.market.universe import Universe
from obs.select import Observation, TriggerOptions, TriggerState, observe

LIVE_LEAST_NS: Final = 30 * NS  # live records of a shorter time say nothing of a rate
LIVE_AWAY_NS: Final = 120 * NS  # a symbol that was observed live so lately is not observed by a sweep
FORGET_NS: Final = 1800 * NS  # three sweeps: what was seen before is no beginning of an interval

# One row per symbol, beside the TriggerState: the last sweep, and the live records since they were last observed.
_SYMBOL: Final = np.dtype(
    [
        ("size", "<f8"),  # traded value: today's, before the first sweep that of the day before
        ("acc_volume", "<f8"), ("acc_ns", "<i8"),  # the venue's accumulated volume, and when it was read
        ("fell", "<i8"),  # 1: the last reading was less, and was not taken: one may be wrong, two are a new count
        ("day_high", "<f8"), ("day_low", "<f8"),
        ("live_ns", "<i8"),  # when it was last observed by live records
        ("since_ns", "<i8"),  # begin of what follows, 0 = no live record
        ("price", "<f8"), ("high", "<f8"), ("low", "<f8"), ("volume", "<f8"), ("trades", "<f8"),
    ]
)  # fmt: skip
_UNKNOWN: Final = np.zeros((), _SYMBOL)
for _name in ("acc_volume", "day_high", "day_low", "price", "high", "low"):
    _UNKNOWN[_name] = math.nan
_LIVE: Final = ("since_ns", "price", "high", "low", "volume", "trades")
_SAVED: Final = np.dtype(
    [
        ("symbol", "S20"), ("day", "<i8"), ("swept", "<i8"), ("seen_ns", "<i8"), ("seen_price", "<f8"), ("volume_rate", "<f8"),
        ("range_rate", "<f8"), ("warm_s", "<f8"), ("strength", "<f8", (4,)), ("fired_ns", "<i8", (4,)), ("of", _SYMBOL),
    ]
)  # fmt: skip


class Watched:
    """The columns, one row per symbol: those of the universe in its order, then pinned ones that it lacks. Safety: one thread, poll's."""

    def __init__(self, path: Path, options: TriggerOptions, log: Log) -> None:
        self._path, self._options, self._log = path, options, log
        self.symbols: list[str] = []
        self.row: dict[str, int] = {}
        self._row_of_record: dict[bytes, int] = {}
        self.state = TriggerState.empty(0)
        self.of = np.zeros(0, _SYMBOL)
        self._inside = 0  # rows of the universe
        self.swept_ns = 0  # when a sweep of this day last ended
        self.saving: threading.Thread | None = None
        self._unsaved: np.ndarray | None = None

    @property
    def size(self) -> np.ndarray:
        return self.of["size"]

    def mask(self, symbols: Iterable[str]) -> np.ndarray:
        """Return (n,) bool: which rows are of `symbols`."""
        mask = np.zeros(len(self.symbols), bool)
        mask[[self.row[symbol] for symbol in symbols if symbol in self.row]] = True
        return mask

    # --- rows

    def forget(self) -> None:
        """Know nothing any more."""
        self.state, self.of, self.symbols, self.row = TriggerState.empty(0), np.zeros(0, _SYMBOL), [], {}

    def lay(self, universe: Universe, beside: Iterable[str]) -> None:
        """Have a row for each symbol of `universe` and of `beside`; what is known of a symbol moves with it."""
        names = list(dict.fromkeys([*universe.symbols, *beside]))
        self._inside = len(universe.instruments)
        if names == self.symbols:
            return
        take = np.array([self.row.get(name, -1) for name in names], dtype=np.int64)
        known = take >= 0
        state, of = TriggerState.empty(len(names)), np.full(len(names), _UNKNOWN)
        of[known] = self.of[take[known]]
        columns = []
        for old, new in zip(self.state, state, strict=True):
            column = new.copy()
            column[..., known] = old[..., take[known]]
            columns.append(column)
        self.state, self.of, self.symbols = TriggerState(*columns), of, names
        self.row = {name: row for row, name in enumerate(names)}
        self._row_of_record = {name.encode(): row for name, row in self.row.items()}

    def begin_day(self, universe: Universe) -> None:
        """Begin the venue's counts anew: its accumulated volumes start at 0, its highs and lows too."""
        self.swept_ns = 0
        for name in ("acc_volume", "day_high", "day_low"):
            self.of[name] = np.nan
        self.size_by(universe)

    def size_by(self, universe: Universe) -> None:
        """Before the first sweep, rank by the value that was traded the day before."""
        if self.swept_ns == 0:
            self.of["size"] = 0.0
            self.of["size"][: self._inside] = np.nan_to_num(np.array([one.traded_value for one in universe.instruments]))

    def _placed(self, quotes: np.ndarray) -> np.ndarray:
        """Return `quotes` with one row for each of ours; of a universe that has been renewed meanwhile, by symbol."""
        named = quotes["symbol"] != b""
        if len(quotes) == self._inside and (quotes["symbol"][named] == np.array(self.symbols[: self._inside], "S20")[named]).all():
            places = np.arange(self._inside)
        else:
            places = np.array([self._row_of_record.get(symbol, -1) for symbol in quotes["symbol"].tolist()], dtype=np.int64)
        placed = np.zeros(len(self.symbols), quotes.dtype)
        for name in quotes.dtype.names or ():
            if quotes.dtype[name].kind == "f":
                placed[name] = np.nan
        placed[places[places >= 0]] = quotes[places >= 0]
        return placed

    # --- what is seen

    def sweep(self, quotes: np.ndarray, ended_ns: int) -> bool:
        """Take a snapshot sweep (QUOTE rows, NaN price where it failed); return whether anything was quoted at all."""
        quotes = self._placed(quotes)
        of, state = self.of, self.state
        known = quotes["price"] > 0  # NaN is not
        if not known.any():
            return False
        acc, first = quotes["acc_volume"], of["acc_ns"] == 0
        counted = known & (acc > 0)
        fell = counted & ~first & (acc < of["acc_volume"])
        with np.errstate(invalid="ignore", divide="ignore"):
            grown = np.where(counted & ~first & ~fell, acc - of["acc_volume"], np.nan)
            rate = grown / np.maximum(ended_ns - of["acc_ns"], 1)
            # A new high of the day was made since the last sweep: within the interval only if that has seen the symbol last.
            whole = state.seen_ns <= self.swept_ns
            high = np.where(whole & (quotes["day_high"] > of["day_high"]), quotes["day_high"], np.nan)
            low = np.where(whole & (quotes["day_low"] < of["day_low"]), quotes["day_low"], np.nan)
        stale = known & (ended_ns - state.seen_ns > FORGET_NS)
        if stale.any():
            state = state._replace(seen_ns=np.where(stale, 0, state.seen_ns), price=np.where(stale, np.nan, state.price))
        by_live = ended_ns - of["live_ns"] < LIVE_AWAY_NS
        volume = rate * np.maximum(ended_ns - state.seen_ns, 0)
        price = np.where(known & ~by_live, quotes["price"], np.nan)
        self.state = observe(state, Observation(price, high, low, volume, np.full(len(of), np.nan)), ended_ns, self._options)

        taken = counted & ~(fell & (of["fell"] == 0))
        np.copyto(of["acc_volume"], acc, where=taken)
        np.copyto(of["acc_ns"], ended_ns, where=taken)
        of["fell"] = fell & ~taken
        for name in ("day_high", "day_low"):
            np.copyto(of[name], quotes[name], where=known & (quotes[name] > 0))
        if self.swept_ns == 0:
            of["size"] = 0.0  # from now on today's
        value = np.where(quotes["acc_value"] > 0, quotes["acc_value"], quotes["price"] * acc)
        np.copyto(of["size"], value, where=known & (value > 0))
        self.swept_ns = ended_ns
        return True

    def live(self, records: np.ndarray) -> None:
        """Take TICK records, in their order; other symbols than ours are passed over."""
        if not len(records):
            return
        rows = np.array([self._row_of_record.get(symbol, -1) for symbol in records["symbol"].tolist()])
        records, rows = records[rows >= 0], rows[rows >= 0]
        of = self.of
        begin = rows[of["since_ns"][rows] == 0]
        if len(begin):
            of["since_ns"][begin] = int(records["ts_ns"].min())
        priced = records["last_price"] > 0
        of["price"][rows[priced]] = records["last_price"][priced]
        np.fmax.at(of["high"], rows, records["high"])
        np.fmin.at(of["low"], rows, np.where(records["low"] > 0, records["low"], np.nan))
        np.add.at(of["volume"], rows, np.where(records["volume"] > 0, records["volume"], 0.0))
        np.add.at(of["trades"], rows, records["trades"])

    def fold_live(self, now_ns: int) -> None:
        """Observe the symbols that have sent records for long enough."""
        of = self.of
        due = (of["since_ns"] > 0) & (now_ns - of["since_ns"] >= LIVE_LEAST_NS)
        if not due.any():
            return
        span_ns = np.where(due, now_ns - of["since_ns"], 1)
        price = np.where(due, of["price"], np.nan)
        volume = of["volume"] / span_ns * (now_ns - self.state.seen_ns)
        found = Observation(price, of["high"], of["low"], volume, of["trades"] / span_ns * NS)
        self.state = observe(self.state, found, now_ns, self._options)
        of["live_ns"][due] = now_ns
        for name in _LIVE:
            of[name][due] = _UNKNOWN[name]

    def step_back(self, back_ns: int) -> None:
        """Move every time that is known back with the wall clock: as if no time had passed."""
        state, of = self.state, self.of
        self.state = state._replace(seen_ns=np.where(state.seen_ns > 0, state.seen_ns - back_ns, 0), fired_ns=state.fired_ns - back_ns)
        for name in ("acc_ns", "live_ns", "since_ns"):
            np.subtract(of[name], back_ns, out=of[name], where=of[name] > 0)
        self.swept_ns = max(0, self.swept_ns - back_ns)

    # --- over a restart

    def load(self, day: int, other_days: bool) -> str:
        """Take up what an earlier poll has saved, as far as it is of `day`, or averages at least with `other_days`.

        Return what is wrong with it, "" if nothing is or if there is none.
        """
        try:
            saved = np.load(self._path, allow_pickle=False)
        except FileNotFoundError:
            return ""
        except (OSError, ValueError, EOFError) as error:
            return f"{self._path}: {error}"
        if saved.dtype != _SAVED or not len(saved):
            return f"{self._path}: of another version"
        same_day = int(saved["day"][0]) == day
        if not same_day and not other_days:
            return ""
        places = np.array([self._row_of_record.get(symbol, -1) for symbol in saved["symbol"].tolist()])
        saved, places = saved[places >= 0], places[places >= 0]
        for name, column in zip(TriggerState._fields, self.state, strict=True):
            column[..., places] = saved["seen_price" if name == "price" else name].T
        if same_day and len(saved):
            self.of[places] = saved["of"]
            self.swept_ns = int(saved["swept"][0])
            for name in _LIVE:
                self.of[name] = _UNKNOWN[name]  # live records begin anew
        self._log.info("selection_restored", symbols=len(places), day=day)
        return ""

    def save(self, day: int) -> None:
        """Save everything in a thread: a disk that hangs holds up neither poll nor the slots."""
        rows = np.zeros(len(self.symbols), _SAVED)
        rows["symbol"] = np.array(self.symbols, "S20")
        rows["day"], rows["swept"], rows["of"] = day, self.swept_ns, self.of
        for name, column in zip(TriggerState._fields, self.state, strict=True):
            rows["seen_price" if name == "price" else name] = column.T
        self._unsaved = rows
        self.save_on()

    def save_on(self) -> None:
        """Begin to write what is to be saved, unless a write is under way: then the next call does."""
        if self._unsaved is None or (self.saving is not None and self.saving.is_alive()):
            return
        self.saving = threading.Thread(target=self._write, args=(self._unsaved,), name="save", daemon=True)
        self._unsaved = None
        self.saving.start()

    def _write(self, rows: np.ndarray) -> None:
        temporary = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            with temporary.open("wb") as file:
                np.save(file, rows, allow_pickle=False)
            temporary.chmod(0o640)
            temporary.replace(self._path)  # not fsynced: what a crash of the host takes is warmth alone
        except OSError as error:
            self._log.warning("selection_not_saved", path=str(self._path), text=str(error))
