"""The loader of the rings with a table, tick and swing: every sequence once, as a row or inside a database gap row.

One transaction moves the watermark by compare-and-set of (holder, last_seq), copies the rows, and inserts the gap rows.
The compare-and-set comes first: it takes the lock of the watermark's row, so that a backend that is still committing
for a connection we have lost, or for a loader that has been replaced, is waited for and then seen.

Unknown COMMIT: the connection broke while COMMIT was under way. `open` reads the watermark, which moved with the rows or
not at all; should the lost backend commit after that, the next compare-and-set fails and finds the watermark moved.

A refused COPY is rolled back and bisected in a transaction of its own, each part under a savepoint, down to the rows that
the database refuses. Each of them is handed to `rejected`, which makes it durable before COMMIT, and becomes a gap row
of one sequence. A row that is already stored (the watermark was set back by hand) is not a refusal and not an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import psycopg

from obs.errors import LoadRetryable
from obs.pg.connect import Connection, Dsn, close, connect, is_refusal, translated
from obs.pg.gaps import check_holder, insert_gaps, moment, take_watermark
from obs.pg.partitions import Partitions
from obs.pg.rows import TABLES, copy_chunks
from obs.pg.statements import statement
from obs.record.events import SCOPE_OF_RING, gap_payload

NOTHING: Final = -1  # the watermark of a ring of which nothing is loaded

Rejected = Callable[[np.void, str], None]  # (row, what the database said); durable when it returns


class RingLoader:
    """Loads one ring of one session.

    `holder`: this loader's start id; opening takes the ring over from any other holder, which then gets OwnedElsewhere.
    Safety: one thread of one process. After LoadRetryable: back off, `open`, go on from what it returns.
    """

    def __init__(self, dsn: Dsn, provider: str, session_id: str, holder: str, rejected: Rejected, ring: str = "tick") -> None:
        self._dsn = dsn
        self._provider = provider
        self._session_id = session_id
        self._ring, self._table = ring, TABLES[ring]
        self._holder = holder
        self._rejected = rejected
        self._key = {"source_type": "ring", "provider": provider, "session_id": session_id, "ring": ring}
        self._partitions = Partitions()
        self._conn: Connection | None = None
        self._taken = False
        self._watermark = NOTHING
        self.refused_total = 0  # rows set aside since this loader was made, for the alarm

    @property
    def watermark(self) -> int:
        """The last sequence known to be stored or gap-covered."""
        return self._watermark

    def open(self) -> int:
        """Connect, become the holder (the first time), and return the last sequence stored or gap-covered, -1 if none.

        Call it at the start and after each LoadRetryable; what it returns may be more than the last `commit` returned (an
        unknown COMMIT had succeeded) or less (the database was restored from a backup).
        Raises LoadRetryable, and OwnedElsewhere if another loader has taken over since the first call.
        """
        self.close()
        self._conn = conn = connect(self._dsn, f"obs load {self._provider} {self._ring}")
        self._partitions.forget()
        with translated(conn):
            self._watermark, _ = take_watermark(conn, self._key, self._holder, takes=not self._taken, start=NOTHING)
        self._taken = True
        return self._watermark

    def commit(self, rows: np.ndarray, gaps: Sequence[Mapping[str, Any]] = ()) -> int:
        """Store rows and gap rows in one transaction and return the new watermark, which has reached their last sequence.

        `rows`: (n,), of the ring's dtype, ascending seq, borrowed. `gaps`: gap lines of sink "database" of this ring. Together they
        cover every sequence from watermark + 1 on, each once (ValueError if not); those up to the watermark are skipped. A gap
        with last_seq null (its end is not known) must start behind them all and moves nothing.
        After the call everything is durable. Raises LoadRetryable (all or nothing is stored), OwnedElsewhere.
        """
        assert rows.dtype == self._table.dtype, rows.dtype
        conn = self._conn
        if conn is None or conn.closed:
            raise LoadRetryable("loader is not open", session_id=self._session_id, ring=self._ring)
        last = self._covered(rows, gaps)
        while True:
            mark = self._watermark
            rows = rows[np.searchsorted(rows["seq"], mark, side="right") :]
            gaps = _beyond(gaps, mark)
            if not len(rows) and not gaps:
                return mark
            with translated(conn):
                self._make_days(conn, rows)
                if self._store(conn, rows, gaps, max(last, mark)):
                    self._watermark = max(last, mark)
                    return self._watermark
                self._watermark = self._moved(conn)

    def close(self) -> None:
        """Close the connection; `open` may follow."""
        close(self._conn)
        self._conn = None

    def _make_days(self, conn: Connection, rows: np.ndarray) -> None:
        if self._table.by_day:
            self._partitions.ensure(conn, rows["ts_ns"])

    def _covered(self, rows: np.ndarray, gaps: Sequence[Mapping[str, Any]]) -> int:
        """Return the last sequence that rows and gaps cover without a hole; ValueError if they do not."""
        seqs = rows["seq"]
        for gap in gaps:
            if gap["sink"] != "database" or gap["ring"] != self._ring or gap["session_id"] != self._session_id:
                raise ValueError(f"not a database gap of this ring: {dict(gap)}")
        spans = [(int(gap["first_seq"]), int(gap["last_seq"])) for gap in gaps if gap["last_seq"] is not None]
        breaks = np.flatnonzero(np.diff(seqs) != 1)
        starts = [0, *(breaks + 1).tolist()] if len(rows) else []
        stops = [*breaks.tolist(), len(rows) - 1] if len(rows) else []
        spans += [(int(seqs[start]), int(seqs[stop])) for start, stop in zip(starts, stops, strict=True)]
        spans.sort()
        last = self._watermark
        for place, (first, end) in enumerate(spans):
            behind = first <= last + 1 if place == 0 else first == last + 1
            if not behind or end < first:
                raise ValueError(f"rows and gaps do not follow each other: after {last} comes {first}..{end}")
            last = end if place == 0 else max(last, end)
        last = max(last, self._watermark)
        for gap in gaps:
            if gap["last_seq"] is None and gap["first_seq"] <= last:
                raise ValueError(f"a gap without end starts at {gap['first_seq']}, inside what is covered up to {last}")
        return last

    def _store(self, conn: Connection, rows: np.ndarray, gaps: Sequence[Mapping[str, Any]], last: int) -> bool:
        """Store in one transaction, False if the compare-and-set failed; a refused block is bisected in a second one."""
        try:
            with conn.transaction():
                if not self._move(conn, rows, last):
                    return False
                self._copy(conn, rows)
                insert_gaps(conn, gaps)
                return True
        except psycopg.Error as error:
            if not is_refusal(error):
                raise
        # A partition may have been dropped meanwhile, which is a refusal too.
        self._partitions.forget()
        self._make_days(conn, rows)
        with conn.transaction():
            if not self._move(conn, rows, last):
                return False
            refused: list[dict[str, Any]] = []
            self._bisect(conn, rows, refused)
            insert_gaps(conn, [*gaps, *refused])
        self.refused_total += len(refused)
        return True

    def _move(self, conn: Connection, rows: np.ndarray, last: int) -> bool:
        """Compare-and-set the watermark; it locks the row until the end of the transaction."""
        ts = moment(int(rows["ts_ns"][-1])) if len(rows) else None
        facts = self._key | {
            "holder": self._holder, "old_seq": self._watermark, "old_file": None, "new_seq": last, "new_file": None, "ts": ts,
        }  # fmt: skip
        return conn.execute(statement("watermark_move"), facts).rowcount == 1

    def _moved(self, conn: Connection) -> int:
        """Say where the watermark is after a failed compare-and-set: an unknown COMMIT had succeeded."""
        mark = check_holder(conn, self._key, self._holder)
        if mark is None or mark <= self._watermark:
            raise LoadRetryable("watermark was set back, open again", **self._key, expected=self._watermark, found=mark)
        return mark

    def _copy(self, conn: Connection, rows: np.ndarray, into: str = "") -> None:
        if len(rows):
            with conn.cursor() as cur, cur.copy(statement(f"copy_{self._table.name}{into}")) as copy:
                for chunk in copy_chunks(rows, self._session_id, self._provider, self._table):
                    copy.write(chunk)

    def _bisect(self, conn: Connection, rows: np.ndarray, refused: list[dict[str, Any]]) -> None:
        """Store what can be stored of `rows` and add a gap line to `refused` for each row that cannot."""
        text = self._refusal(conn, rows)
        if text is None:
            return
        if len(rows) == 1:
            # Durable: the row is on disk beside the archive before the COMMIT that says it is not in the database.
            self._rejected(rows[0], text)
            refused.append(self._gap_of(rows[0], text))
            return
        middle = len(rows) // 2
        self._bisect(conn, rows[:middle], refused)
        self._bisect(conn, rows[middle:], refused)

    def _refusal(self, conn: Connection, rows: np.ndarray) -> str | None:
        """Store all of `rows` and return None, or store none and return what the database says."""
        try:
            try:
                with conn.transaction():
                    self._copy(conn, rows)
            except psycopg.errors.UniqueViolation:
                with conn.transaction():
                    self._copy_missing(conn, rows)
        except psycopg.Error as error:
            if not is_refusal(error):
                raise
            return f"{error.sqlstate} {str(error).strip().splitlines()[0]}"
        return None

    def _copy_missing(self, conn: Connection, rows: np.ndarray) -> None:
        """Store the rows that are not stored yet."""
        conn.execute(statement(f"stage_{self._table.name}"))
        self._copy(conn, rows, "_stage")
        conn.execute(statement(f"take_{self._table.name}"))
        conn.execute(statement(f"unstage_{self._table.name}"))

    def _gap_of(self, row: np.void, text: str) -> dict[str, Any]:
        seq, ts_ns = int(row["seq"]), int(row["ts_ns"])
        return gap_payload(
            start_ns=ts_ns, end_ns=ts_ns, scope=SCOPE_OF_RING[self._ring], reason="db_rejected", session_id=self._session_id,
            provider=self._provider, symbol=bytes(row["symbol"]).decode("ascii", "replace") or None, ring=self._ring, sink="database",
            first_seq=seq, last_seq=seq, lost=1, error=text,
        )  # fmt: skip


def _beyond(gaps: Sequence[Mapping[str, Any]], mark: int) -> list[Mapping[str, Any]]:
    """Return the gap lines, or what is left of them, behind the watermark."""
    left = []
    for gap in gaps:
        if gap["last_seq"] is None or gap["first_seq"] > mark:
            left.append(gap)
        elif gap["last_seq"] > mark:
            left.append({**gap, "first_seq": mark + 1, "lost": gap["last_seq"] - mark})
    return left
