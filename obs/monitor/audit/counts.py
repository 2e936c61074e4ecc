"""Messages and inputs against their fates, by session, minute and symbol (P1).

A counts event tells what one bucket of the intake saw: n numbers the buckets of a provider, several may speak of one minute,
and their numbers add up. It is published after the minute's last record, the provider's own last of all; one of a dead feed is
published by the feed after it, perhaps in another session. What is missing is a difference, unless a gap of an event ring
lies where it would have been published: then the minute is unproven.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np

from obs.monitor.audit.events import REASONS, SYMBOL_COUNTS, Book, settled
from obs.monitor.audit.findings import Findings
from obs.monitor.audit.scope import Scope
from obs.monitor.audit.spans import END
from obs.monitor.audit.ticks import SUMS, grouped
from obs.record.schema import IGNORED

GAP: Final = "gap"  # the counts lie in a gap of an event ring
WAITING: Final = "waiting"  # they have not been published or archived yet
_FOLDED: Final = np.dtype([*((name, SUMS[name]) for name in ("of", "minute", "symbol")), ("trades", "<i8"), ("quotes", "<i8"),
                           ("found_trades", "<i8"), ("found_quotes", "<i8"), ("events", "<i8")])  # fmt: skip


@dataclass(frozen=True)
class Cut:
    """How far one session is judged: buckets up to `n`, records before `seq`. Of an ended one everything is."""

    n: int = END
    seq: int = END


@dataclass
class Totals:
    """What the judged buckets of a provider add up to."""

    messages: int = 0
    data: int = 0
    control: int = 0
    quarantined: int = 0
    inputs: int = 0
    trades: int = 0
    quotes: int = 0
    lost: int = 0
    ignored: dict[str, int] = field(default_factory=dict)
    minutes: int = 0
    first_minute_ns: int = 0
    last_minute_ns: int = 0


class Counted:
    """The counts of one provider, each once, within the cuts. `order`: place of a session -> its place in time."""

    def __init__(
        self, book: Book, scope: Scope, order: dict[int, int], cuts: dict[int, Cut], newest_runs: bool, findings: Findings
    ) -> None:
        self.book, self._scope, self._order, self._cuts, self._findings = book, scope, order, cuts, findings
        self._newest_runs = newest_runs
        self._names = {place: name for name, place in book.sessions.items()}
        self._symbols = {place: name for name, place in book.symbols.items()}
        self._told = book.counts.rows()
        every, differing = settled(self._told)
        self.every_symbol, differing_symbols = settled(book.symbol_counts.rows())
        self._everything = every
        self.buckets = self._inside(every)
        self.symbols = self._inside(self.every_symbol)
        self._gaps = [
            (self._rank(gap.session_id), int(gap.first_seq), END if gap.last_seq is None else int(gap.last_seq))
            for gap in book.gaps.values() if gap.sink == "archive" and gap.ring == "event"
        ]  # fmt: skip
        self._why: dict[tuple[int, int], str] = {}
        for rows in (self._inside(differing), self._inside(differing_symbols)):
            for row in rows:
                symbol = self._symbols[int(row["symbol"])] if rows.dtype == SYMBOL_COUNTS else None
                self._wrong("counts", "equal copies", "copies that differ", row, symbol=symbol, what="a counts event that came twice")

    def name(self, place: int) -> str:
        return self._names[place]

    def _rank(self, session_id: str) -> int:
        return self._order.get(self.book.sessions.get(session_id, -1), -1)

    def _inside(self, rows: np.ndarray) -> np.ndarray:
        limits = np.array([self._cuts.get(place, Cut()).n for place in range(len(self.book.sessions))] or [END])
        return np.asarray(rows[(rows["n"] <= limits[rows["of"]]) & self._scope.holds_minutes(rows["minute"])])

    def _wrong(self, stage: str, expected: Any, found: Any, row: Any, *, symbol: str | None = None, **facts: Any) -> None:
        self._findings.mismatch(
            self._scope.provider, stage, expected, found, minute_ns=int(row["minute"]), symbol=symbol,
            session_id=self.name(int(row["of"])), bucket=int(row["n"]), **facts,
        )  # fmt: skip

    def _unproven(self, stage: str, why: str, of: int, minute_ns: int | None, symbol: str | None = None) -> None:
        self._findings.cannot_prove(self._scope.provider, stage, why, minute_ns=minute_ns, symbol=symbol, session_id=self.name(of))

    # --- where a counts event would have been published

    def why_missing(self, of: int, minute_ns: int) -> str:
        """Say why a session's minute may lack its counts: GAP, WAITING, or "" if nothing excuses it."""
        key = (of, minute_ns)
        if key not in self._why:
            self._why[key] = self._look(of, minute_ns)
        return self._why[key]

    def _look(self, of: int, minute_ns: int) -> str:
        rows = self._told
        ranks = np.array([self._order[place] for place in range(len(self.book.sessions))] or [0])
        mine, its = self._order[of], ranks[rows["of"]]
        before = rows[(its < mine) | ((its == mine) & (rows["minute"] < minute_ns))]
        after = rows[(its > mine) | ((its == mine) & (rows["minute"] > minute_ns))]
        low = max(((int(ranks[by]), int(at)) for by, at in zip(before["by"], before["at"], strict=True)), default=(mine, -1))
        high = min(((int(ranks[by]), int(at)) for by, at in zip(after["by"], after["at"], strict=True)), default=(END, END))
        if self._gap_between(max(low, (mine, -1)), high):
            return GAP
        return WAITING if high[0] == END and self._newest_runs else ""

    def _gap_between(self, low: tuple[int, int], high: tuple[int, int]) -> bool:
        return any((rank, last) > low and (rank, first) < high for rank, first, last in self._gaps)

    # --- identities

    def judge(self, sums: np.ndarray, blind: dict[int, list[tuple[int, int]]]) -> None:
        """Prove P1 of everything within the cuts.

        `sums`: trades and quotes of the archived records. `blind`: session -> (from, to) minutes in which archived records are
        missing with a reason.
        """
        self._judge_messages()
        self._judge_inputs()
        self._judge_presence()
        self._judge_numbers()
        self._judge_folded(sums, blind)

    def _judge_messages(self) -> None:
        rows = self.buckets
        fates = rows["data"] + rows["control"] + rows["quarantined"]
        for row in rows[rows["messages"] != fates]:
            fate = int(row["data"] + row["control"] + row["quarantined"])
            self._wrong("messages", fate, int(row["messages"]), row, what="messages = data + control + quarantined")

    def _judge_inputs(self) -> None:
        rows = self.symbols
        fates = rows["trades"] + rows["quotes"] + rows["ignored"].sum(axis=1)
        for at in np.flatnonzero(rows["inputs"] != fates).tolist():
            symbol = self._symbols[int(rows["symbol"][at])]
            inputs = int(rows["inputs"][at])
            self._wrong("inputs", int(fates[at]), inputs, rows[at], symbol=symbol, what="inputs = trades + quotes + ignored")

    def _judge_presence(self) -> None:
        """The provider's own event says how many symbol events its bucket has; every symbol event has one of the provider."""
        found: dict[tuple[int, int], tuple[int, int]] = {}
        for row, number in _counted(self.symbols):
            found[int(row["of"]), int(row["n"])] = (number, int(row["minute"]))
        for row in self.buckets:
            number, _ = found.pop((int(row["of"]), int(row["n"])), (0, 0))
            expected = int(row["symbols"])
            if number == expected:
                continue
            if number < expected and self._torn(row):
                why = f"{expected - number} of its counts events lie in a gap of the event ring"
                self._unproven("counts", why, int(row["of"]), int(row["minute"]))
            else:
                self._wrong("counts", expected, number, row, what="counts events of symbols in this bucket")
        for (of, n), (number, minute) in found.items():
            excuse = self.why_missing(of, minute)
            if excuse == GAP:
                self._unproven("counts", "the provider's own counts lie in a gap of the event ring", of, minute)
            elif not excuse:
                bucket = {"of": of, "n": n, "minute": minute}
                self._wrong("counts", 1, 0, bucket, what=f"the provider's own counts event of a bucket with {number} symbols")

    def _torn(self, row: np.void) -> bool:
        """Tell whether any copy of a bucket was published across a gap: its symbol events stand right before it."""
        copies = self._told[(self._told["of"] == row["of"]) & (self._told["n"] == row["n"])]
        places = [(self._order[int(copy["by"])], int(copy["at"])) for copy in copies]
        return any(self._gap_between((rank, at - int(row["symbols"]) - 1), (rank, at)) for rank, at in places)

    def _judge_numbers(self) -> None:
        """Buckets are numbered without a hole, but for the empty one that a feed leaves when it stops in order."""
        rows = self._everything
        rows = rows[np.lexsort([rows["n"], np.array([self._order[int(of)] for of in rows["of"]], np.int64)])]
        for one, other in pairwise(rows):
            hole = int(other["n"]) - int(one["n"]) - 1
            if hole <= 0 or not self._judged(other):
                continue  # smaller: another board, so its numbers began anew
            low, high = ((self._order[int(row["by"])], int(row["at"])) for row in (one, other))
            if hole == 1 and any(low < (self._order[by], at) < high for by, at in self.book.starts):
                continue
            if self._gap_between(low, high):
                self._unproven("counts", f"{hole} buckets of counts lie in a gap of the event ring", int(other["of"]), int(one["minute"]))
            else:
                what = "number of the next bucket: some are missing before it"
                self._wrong("counts", int(one["n"]) + 1, int(other["n"]), other, what=what)

    def _judged(self, row: np.void) -> bool:
        cut = self._cuts.get(int(row["of"]), Cut())
        return bool(row["n"] <= cut.n and self._scope.holds_minutes(row["minute"].reshape(1))[0])

    def _judge_folded(self, sums: np.ndarray, blind: dict[int, list[tuple[int, int]]]) -> None:
        """Per symbol and minute: folded = what the records hold + what a dead feed lost."""
        counted = np.zeros(len(self.symbols), _FOLDED)
        for name in ("of", "minute", "symbol"):
            counted[name] = self.symbols[name]
        for name in ("trades", "quotes"):
            counted[name] = self.symbols[name] - self.symbols[f"lost_{name}"]
        counted["events"] = 1
        sums = sums[self._scope.holds_minutes(sums["minute"])]
        held = np.zeros(len(sums), _FOLDED)
        for name in ("of", "minute", "symbol"):
            held[name] = sums[name]
        held["found_trades"], held["found_quotes"] = sums["trades"], sums["quotes"]
        both = grouped(np.concatenate([counted, held]))
        for row in both[(both["trades"] != both["found_trades"]) | (both["quotes"] != both["found_quotes"])]:
            self._unequal(row, blind)

    def _unequal(self, row: np.void, blind: dict[int, list[tuple[int, int]]]) -> None:
        of, minute, symbol = int(row["of"]), int(row["minute"]), self._symbols[int(row["symbol"])]
        fewer = row["found_trades"] <= row["trades"] and row["found_quotes"] <= row["quotes"]
        if fewer and any(first <= minute <= last for first, last in blind.get(of, ())):
            self._unproven("folded", "records of this minute lie in an archive gap", of, minute, symbol)
            return
        if not fewer:
            buckets = self.buckets[(self.buckets["of"] == of) & (self.buckets["minute"] == minute)]
            why = self.why_missing(of, minute)
            if why == GAP or any(self._torn(bucket) for bucket in buckets):
                self._unproven("folded", "counts of this minute lie in a gap of the event ring", of, minute, symbol)
                return
            if why == WAITING and not len(buckets):
                return
        for name in ("trades", "quotes"):
            expected, found = int(row[name]), int(row[f"found_{name}"])
            if expected != found:
                self._findings.mismatch(
                    self._scope.provider, "folded", expected, found, minute_ns=minute, symbol=symbol, session_id=self.name(of),
                    what=f"{name} counted before sampling (without those a dead feed lost), and those in the archived records"
                    if row["events"] else f"{name} in archived records of a minute and symbol without a counts event",
                )  # fmt: skip

    # --- figures

    def totals(self) -> Totals:
        """Add up what was judged."""
        rows, symbols = self.buckets, self.symbols
        ignored = symbols["ignored"].sum(axis=0, dtype=np.int64) if len(symbols) else np.zeros(len(REASONS), np.int64)
        total = Totals(
            **{name: int(rows[name].sum()) for name in ("messages", "data", "control", "quarantined")},
            **{name: int(symbols[name].sum()) for name in ("inputs", "trades", "quotes")},
            lost=int(symbols["lost_trades"].sum() + symbols["lost_quotes"].sum()),
            ignored={name: int(number) for name, number in zip(REASONS, ignored, strict=True) if number},
        )
        if len(rows):
            total.minutes = len(np.unique(rows["minute"]))
            total.first_minute_ns, total.last_minute_ns = int(rows["minute"].min()), int(rows["minute"].max())
        return total


def _counted(rows: np.ndarray) -> Iterator[tuple[np.void, int]]:
    """Yield a row of each bucket (of, n), and how many rows it has; `rows` are sorted by of and n."""
    if not len(rows):
        return
    new = np.ones(len(rows), bool)
    new[1:] = (rows["of"][1:] != rows["of"][:-1]) | (rows["n"][1:] != rows["n"][:-1])
    starts = np.flatnonzero(new)
    numbers = np.diff(np.append(starts, len(rows)))
    yield from zip(rows[starts], numbers.tolist(), strict=True)


assert len(REASONS) == len(IGNORED)
