"""One session's ticks or swings, read once from the archive and once from the database, side by side, chunk by chunk.

It gives what the ring identities need (sequences on both sides), of ticks the sums that the counts are compared with (trades and
quotes by minute and symbol), and every value that differs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from obs.clock import MINUTE_NS, minute_of
from obs.monitor.audit.archive import SessionSegments
from obs.monitor.audit.database import StoredRows, differences
from obs.monitor.audit.findings import NAMED
from obs.monitor.audit.rings import Place
from obs.monitor.audit.spans import END, Span, merge

SUMS: Final = np.dtype([("of", "<i4"), ("minute", "<i8"), ("symbol", "<i4"), ("records", "<i8"), ("trades", "<i8"), ("quotes", "<i8")])
_PACK: Final = 50_000


class Sums:
    """Trades and quotes of records by session, minute and symbol. `symbols`: the places of names, shared with the counts."""

    def __init__(self, symbols: dict[str, int]) -> None:
        self._symbols = symbols
        self._blocks: list[np.ndarray] = []
        self._rows = 0

    def add(self, of: int, rows: np.ndarray) -> None:
        """Add TICK rows of one session."""
        if not len(rows):
            return
        names, symbol = np.unique(rows["symbol"], return_inverse=True)
        places = np.array([self._symbols.setdefault(name.decode("ascii", "replace"), len(self._symbols)) for name in names.tolist()])
        block = np.zeros(len(rows), SUMS)
        block["of"], block["minute"] = of, (rows["ts_ns"] - 1) // MINUTE_NS * MINUTE_NS
        block["symbol"], block["records"] = places[symbol], 1
        block["trades"], block["quotes"] = rows["trades"], rows["quotes"]
        self._blocks.append(grouped(block))
        self._rows += len(self._blocks[-1])
        if self._rows > _PACK:
            self._blocks = [grouped(np.concatenate(self._blocks))]
            self._rows = 0

    def table(self) -> np.ndarray:
        """Return the sums, shape (n,), sorted, each (session, minute, symbol) once."""
        return grouped(np.concatenate(self._blocks)) if self._blocks else np.zeros(0, SUMS)


def grouped(rows: np.ndarray) -> np.ndarray:
    """Add up rows with the same of, minute and symbol; every other field is summed."""
    if len(rows) < 2:
        return rows
    rows = rows[np.lexsort([rows["symbol"], rows["minute"], rows["of"]])]
    new = np.zeros(len(rows), bool)
    new[0] = True
    for name in ("of", "minute", "symbol"):
        new[1:] |= rows[name][1:] != rows[name][:-1]
    starts = np.flatnonzero(new)
    out = rows[starts].copy()
    for name in rows.dtype.names or ():
        if name not in ("of", "minute", "symbol"):
            out[name] = np.add.reduceat(rows[name], starts)
    return out


@dataclass
class Compared:
    """What comparing found, beside the differences that are named already."""

    missing: list[Span] = field(default_factory=list)  # archived sequences that are no rows; named
    extra: dict[int, tuple[int, str]] = field(default_factory=dict)  # sequences that are only rows: minute and symbol
    rows: int = 0
    first_missing_ns: int = 0  # time of the first archived record behind the limit of the database


def compare(
    place: Place, segments: SessionSegments, stored: StoredRows | None, limit: int, refused: list[Span], sums: Sums | None, of: int,
    seq_end: int,
) -> Compared:  # fmt: skip
    """Read both sides to their ends.

    `limit`: the last sequence that the database must have. `refused`: sequences in database gap rows. `seq_end`: records from
    there on are in minutes that are not judged yet, so they are not added to `sums`. `stored` None: the archive alone is read;
    `sums` None: nothing is added up.
    """
    done = Compared()
    gone = merge(refused)
    for rows in segments.read():
        done.rows += len(rows)
        if sums is not None:
            sums.add(of, rows[: int(np.searchsorted(rows["seq"], seq_end))])
        if stored is None:
            continue
        inside = rows[: int(np.searchsorted(rows["seq"], limit, side="right"))]
        if len(inside) < len(rows) and not done.first_missing_ns:
            done.first_missing_ns = int(rows["ts_ns"][len(inside)])
        if len(inside):
            _compare_chunk(place, inside, stored.upto(int(inside["seq"][-1])), gone, done)
    if stored is not None:
        _note_extra(done, stored.upto(END))
    return done


def _compare_chunk(place: Place, archived: np.ndarray, stored: np.ndarray, gone: list[Span], done: Compared) -> None:
    there = archived["seq"], stored["seq"]
    if len(archived) != len(stored) or (there[0] != there[1]).any():
        lacks = ~np.isin(there[0], there[1], assume_unique=True)
        for low, high in gone:
            lacks &= (there[0] < low) | (there[0] > high)
        _name_missing(place, archived[lacks], done)
        _note_extra(done, stored[~np.isin(there[1], there[0], assume_unique=True)])
    for seq, symbol, name, expected, found in differences(archived, stored):
        ts_ns = int(archived["ts_ns"][np.searchsorted(archived["seq"], seq)])
        place.findings.mismatch(
            place.provider, "value", expected, found, minute_ns=minute_of(ts_ns), symbol=symbol, session_id=place.session_id,
            ring=place.ring, seq=seq, field=name, what="the database row differs from the archive line",
        )  # fmt: skip


def _name_missing(place: Place, rows: np.ndarray, done: Compared) -> None:
    """Name archived records that are no rows, a finding per run of sequences."""
    seqs = rows["seq"]
    breaks = np.flatnonzero(np.diff(seqs) != 1)
    starts = [0, *(breaks + 1).tolist()] if len(seqs) else []
    stops = [*breaks.tolist(), len(seqs) - 1] if len(seqs) else []
    for start, stop in zip(starts, stops, strict=True):
        low, high = int(seqs[start]), int(seqs[stop])
        done.missing.append((low, high))
        facts: dict[str, Any] = {"session_id": place.session_id, "ring": place.ring, "first_seq": low, "last_seq": high}
        place.findings.mismatch(
            place.provider, "loaded", high - low + 1, 0, minute_ns=minute_of(int(rows["ts_ns"][start])),
            symbol=rows["symbol"][start].decode("ascii", "replace") if low == high else None, **facts,
            what="archived, but neither a row nor in a database gap row",
        )  # fmt: skip


def _note_extra(done: Compared, rows: np.ndarray) -> None:
    for row in rows[: max(0, NAMED - len(done.extra))]:
        done.extra[int(row["seq"])] = (minute_of(int(row["ts_ns"])), row["symbol"].decode("ascii", "replace"))


def name_extra(place: Place, extra: list[Span], done: Compared) -> None:
    """Name rows that the archive lacks and does not explain by an archive gap row."""
    for low, high in extra:
        minute, symbol = done.extra.get(low, (None, None))
        place.findings.mismatch(
            place.provider, "loaded", 0, high - low + 1, minute_ns=minute, symbol=symbol if low == high else None,
            session_id=place.session_id, ring=place.ring, first_seq=low, last_seq=high,
            what="a database row that the archive lacks and no archive gap row explains",
        )  # fmt: skip
