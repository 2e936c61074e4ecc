"""The database's side: what it says of a provider, its rows in order of sequence, and where they differ from the archive's.

Numbers are compared as the columns hold them: 8 decimals (obs.pg.rows). A number with more of them must be stored as what it
rounds to; nothing else may differ at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, Final

import numpy as np

from obs.monitor.audit.spans import END, Runs
from obs.pg.connect import Connection
from obs.pg.proof import Watermark, gap_rows, session_rows, sessions_stored, stream_rows, watermarks
from obs.pg.rows import SCALE, TABLES
from obs.record.schema import DTYPES

_RINGS: Final = tuple(TABLES)
_OF_DTYPE: Final = {table.dtype: table for table in TABLES.values()}
_UNIT: Final = Decimal(1).scaleb(-SCALE)
_SPACIOUS: Final = Context(prec=400)


@dataclass
class Stored:
    """What the database says of one provider, read before the files: all of it is on disk when they are read."""

    marks: dict[tuple[str, str], int]  # (session, ring) -> last sequence stored or gap-covered
    gaps_file: str  # system/events has been copied up to this file and offset
    gaps_offset: int
    gaps: list[dict[str, Any]]
    finished: set[str]  # sessions that the loader has ended
    sessions: set[str]  # those that have rows at all; empty if not asked for


def read_stored(conn: Connection, provider: str, *, with_sessions: bool) -> Stored:
    """Order: watermarks before gap rows, so that a row behind a watermark is never taken for a missing one."""
    marks: list[Watermark] = watermarks(conn, provider)
    place = next((mark for mark in marks if mark.source_type == "gaps"), None)
    return Stored(
        {(mark.session_id, mark.ring): mark.last_seq for mark in marks if mark.source_type == "ring"},
        (place.file or "") if place else "",
        place.last_seq if place else 0,
        gap_rows(conn, provider),
        {str(row["session_id"]) for row in session_rows(conn, provider) if row["ended_ns"] is not None},
        {stored.session_id for ring in _RINGS for stored in sessions_stored(conn, provider, ring)} if with_sessions else set(),
    )


class StoredRows:
    """The rows of one ring of a session in order of sequence, taken piece by piece. `runs`: the sequences taken so far."""

    def __init__(self, conn: Connection, ring: str, session_id: str, first_seq: int, last_seq: int) -> None:
        self._chunks: Iterator[np.ndarray] = stream_rows(conn, ring, session_id, first_seq, last_seq, chunk_rows=20_000)
        self._left = np.zeros(0, DTYPES[ring])
        self.runs = Runs()

    def upto(self, last_seq: int) -> np.ndarray:
        """Return the next rows with seq <= last_seq, each sequence once; what is stored twice shows in `runs`."""
        taken = []
        while True:
            place = int(np.searchsorted(self._left["seq"], last_seq, side="right"))
            if place:
                taken.append(self._left[:place])
                self._left = self._left[place:]
            if len(self._left):
                break
            following = next(self._chunks, None)
            if following is None:
                break
            self._left = following
        rows = np.concatenate(taken) if taken else self._left[:0]
        self._note(rows["seq"])
        return np.asarray(rows[np.diff(rows["seq"], prepend=-END) != 0])

    def _note(self, seqs: np.ndarray) -> None:
        breaks = np.flatnonzero(np.diff(seqs) != 1)
        starts = [0, *(breaks + 1).tolist()] if len(seqs) else []
        stops = [*breaks.tolist(), len(seqs) - 1] if len(seqs) else []
        for start, stop in zip(starts, stops, strict=True):
            self.runs.add(int(seqs[start]), int(seqs[stop]))


def differences(archived: np.ndarray, stored: np.ndarray) -> Iterator[tuple[int, str, str, Any, Any]]:
    """Yield (seq, symbol, field, archived, stored) of every value that differs.

    `archived`, `stored`: rows of one dtype, ascending seq, each once; only sequences that both have are compared.
    """
    if len(archived) != len(stored) or (archived["seq"] != stored["seq"]).any():
        _, here, there = np.intersect1d(archived["seq"], stored["seq"], assume_unique=True, return_indices=True)
        archived, stored = archived[here], stored[there]
    numerics = _OF_DTYPE[archived.dtype].numerics
    for name in (name for name in archived.dtype.names or () if name not in numerics and not name.startswith("pad")):
        for at in np.flatnonzero(archived[name] != stored[name]).tolist():
            yield int(archived["seq"][at]), *_named(archived, stored, at, name)
    for name in numerics:
        one, other = archived[name], stored[name]
        unequal = np.flatnonzero(~((one == other) | (np.isnan(one) & np.isnan(other))))
        for at in unequal.tolist():
            if not _rounds_to(float(one[at]), float(other[at])):
                yield int(archived["seq"][at]), *_named(archived, stored, at, name)


def _named(archived: np.ndarray, stored: np.ndarray, at: int, name: str) -> tuple[str, str, Any, Any]:
    return archived["symbol"][at].decode("ascii", "replace"), name, _plain(archived[name][at]), _plain(stored[name][at])


def _plain(value: Any) -> Any:
    plain = value.item() if hasattr(value, "item") else value
    if isinstance(plain, bytes):
        return plain.decode("ascii", "replace")
    return None if plain != plain else plain


def _rounds_to(value: float, stored: float) -> bool:
    """Tell whether `stored` is what a column keeps of `value`: its decimal, rounded half up to the column's scale."""
    if not (math.isfinite(value) and math.isfinite(stored)):
        return False
    return float(Decimal(repr(value)).quantize(_UNIT, ROUND_HALF_UP, _SPACIOUS)) == stored
