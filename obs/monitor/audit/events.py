"""Reads system/events: the sequences of both event rings, the counts, and the gap lines. One pass, line by line.

Counts are kept as rows of numbers, a line each, in the order of publication; everything else but gaps is forgotten at once.
A counts event may have been published twice around a crash: `Counted.settled` keeps one of each and tells of those that differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import orjson

from obs.monitor.audit.scope import Scope
from obs.monitor.audit.spans import Runs
from obs.monitor.gaps import read_gap
from obs.record.events import gap_key
from obs.record.schema import IGNORED
from obs.segment.textlog import day_files, text_lines

REASONS: Final = (*IGNORED[1:], "other")
_BLOCK: Final = 20_000

# Of one symbol and bucket. `of`, `by`: sessions, as places in Book.sessions; `at`: event_seq in the ring of `by`.
SYMBOL_COUNTS: Final = np.dtype(
    [
        ("of", "<i4"), ("by", "<i4"), ("n", "<i8"), ("at", "<i8"), ("minute", "<i8"), ("symbol", "<i4"),
        ("inputs", "<i8"), ("trades", "<i8"), ("quotes", "<i8"), ("lost_trades", "<i8"), ("lost_quotes", "<i8"),
        ("ignored", "<i4", (len(REASONS),)),
    ]
)  # fmt: skip
# Of the provider and bucket.
COUNTS: Final = np.dtype(
    [
        ("of", "<i4"), ("by", "<i4"), ("n", "<i8"), ("at", "<i8"), ("minute", "<i8"), ("messages", "<i8"), ("data", "<i8"),
        ("control", "<i8"), ("quarantined", "<i8"), ("lost_quarantined", "<i8"), ("tick_seq", "<i8"), ("symbols", "<i8"),
    ]
)  # fmt: skip
_IDENTITY: Final = ("of", "n", "symbol")
_PLACE: Final = ("by", "at")  # differs between the copies of one event


class Table:
    """Rows of one dtype, collected one by one."""

    def __init__(self, dtype: np.dtype) -> None:
        self._dtype = dtype
        self._rows: list[tuple[Any, ...]] = []
        self._blocks: list[np.ndarray] = []

    def add(self, row: tuple[Any, ...]) -> None:
        self._rows.append(row)
        if len(self._rows) >= _BLOCK:
            self._pack()

    def _pack(self) -> None:
        self._blocks.append(np.array(self._rows, self._dtype))
        self._rows = []

    def rows(self) -> np.ndarray:
        """Return everything, shape (n,)."""
        if self._rows or not self._blocks:
            self._pack()
        self._blocks = [np.concatenate(self._blocks)]
        return self._blocks[0]


@dataclass(frozen=True)
class Gap:
    """One gap line. `file`, `end`: where it stands in system/events and the offset behind it."""

    line: dict[str, Any]
    file: str
    end: int

    def __getattr__(self, name: str) -> Any:
        # Keys of the line are read as attributes; a key that the line lacks is None.
        return self.line.get(name)


@dataclass
class Book:
    """What system/events of one provider says."""

    sessions: dict[str, int] = field(default_factory=dict)  # session id -> place
    symbols: dict[str, int] = field(default_factory=dict)
    seqs: dict[tuple[str, str], Runs] = field(default_factory=dict)  # (session, event ring)
    judged: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)  # the same: first and last seq in judged files
    gaps: dict[tuple[Any, ...], Gap] = field(default_factory=dict)
    starts: list[tuple[int, int]] = field(default_factory=list)  # (session place, event_seq) of each feed start
    unreadable: list[tuple[str, int, str]] = field(default_factory=list)  # file, offset behind the line, why
    symbol_counts: Table = field(default_factory=lambda: Table(SYMBOL_COUNTS))
    counts: Table = field(default_factory=lambda: Table(COUNTS))

    def place(self, session_id: str) -> int:
        return self.sessions.setdefault(session_id, len(self.sessions))

    def symbol(self, name: str) -> int:
        return self.symbols.setdefault(name, len(self.symbols))

    def archive_gaps(self, session_id: str, ring: str) -> list[Gap]:
        """Return the gap lines by which the archive writer says what it lost of a ring."""
        return [gap for gap in self.gaps.values() if gap.sink == "archive" and gap.session_id == session_id and gap.ring == ring]


def read_events(scope: Scope) -> Book:
    """Read every day file; those outside the scope too, since the counts of a minute may stand in a later file."""
    book = Book()
    for path in day_files(scope.events):
        judged = scope.holds_file(path.name)
        for end, line in text_lines(path):
            try:
                _take(book, line, path.name, end, judged)
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, OverflowError) as error:
                book.unreadable.append((path.name, end, repr(error)))
    return book


def _take(book: Book, line: bytes, file: str, end: int, judged: bool) -> None:
    value = orjson.loads(line)
    ring, session = value["event_ring"], value["session_id"]
    if ring is not None:
        seq = int(value["event_seq"])
        key = (session, ring)
        runs = book.seqs.get(key)
        if runs is None:
            runs = book.seqs[key] = Runs()
        runs.add(seq, seq)
        if judged:
            low, high = book.judged.get(key, (seq, seq))
            book.judged[key] = (min(low, seq), max(high, seq))
    kind = value["event_type"]
    if kind == "counts":
        _take_counts(book, value)
    elif kind == "gap_marker":
        book.gaps.setdefault(gap_key(read_gap(line)), Gap(value, file, end))
    elif kind == "lifecycle" and value.get("what") == "feed_started":
        book.starts.append((book.place(session), value["event_seq"]))


def _take_counts(book: Book, value: dict[str, Any]) -> None:
    of, by = book.place(value["of_session"]), book.place(value["session_id"])
    common = (of, by, value["n"], value["event_seq"], value["minute_ns"])
    if value["symbol"] is None:
        names = ("messages", "data", "control", "quarantined")
        book.counts.add(
            (*common, *[value[name] for name in names], value.get("lost_quarantined", 0), value["tick_seq"], value["symbols"])
        )
        return
    ignored = [0] * len(REASONS)
    for reason, number in value["ignored"].items():
        ignored[REASONS.index(reason) if reason in REASONS else -1] += number
    book.symbol_counts.add((
        *common, book.symbol(value["symbol"]), value["inputs"], value["trades"], value["quotes"], value.get("lost_trades", 0),
        value.get("lost_quotes", 0), ignored,
    ))  # fmt: skip


def settled(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return counts with each event once (the first that was published), and the copies that differ from theirs."""
    identity: list[str] = [name for name in _IDENTITY if name in (rows.dtype.names or ())]
    order = np.lexsort([np.arange(len(rows)), *(rows[name] for name in reversed(identity))])
    rows = rows[order]
    if len(rows) < 2:
        return rows, rows[:0]
    same = np.ones(len(rows) - 1, bool)
    for name in identity:
        same &= rows[name][1:] == rows[name][:-1]
    again = np.concatenate([[False], same])
    differs = np.zeros(len(rows), bool)
    for name in rows.dtype.names or ():
        if name not in (*identity, *_PLACE):
            other = rows[name][1:] != rows[name][:-1]
            differs[1:] |= other.any(axis=1) if other.ndim > 1 else other
    return rows[~again], rows[again & differs]
