"""How one ring of a session reaches the database: from shared memory while that holds it, from the archive where it does not.

Sequences are loaded in order, so one watermark tells everything. Invariant: a sequence is committed as a row, or inside a
database gap row that repeats the archive's own; a lap of the ring is no gap here, because the archive has those records or
says itself that it lost them. While the archive does not have them yet, the loader waits: that is lag.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from obs.pg.loader import NOTHING, Rejected, RingLoader
from obs.record.jsonl import decode_swings, decode_ticks
from obs.record.schema import DTYPES
from obs.ring import Consumer, Ring
from obs.segment.cursor import SegmentCursor
from obs.segment.format import Series
from obs.segment.textlog import TextLog

_DECODERS: Final[dict[str, Callable[[Sequence[bytes]], np.ndarray]]] = {"tick": decode_ticks, "swing": decode_swings}


class SessionLoad:
    """Loads one ring of one session, that of `series`. `final`: its last sequence once the session has ended, None while it lives.

    A ring other than "tick" may stay empty for ever, so it connects when there is something to load.
    """

    def __init__(self, loader: RingLoader, session_id: str, series: Series, ring: Ring | None, max_rows: int) -> None:
        self.session_id, self.ring = session_id, series.ring
        self.final: int | None = None
        self.host_death: dict[str, Any] | None = None  # the archive's gap line of a ring that died with its host
        self._loader, self._max_rows = loader, max_rows
        self._ring = ring
        self._consumer = Consumer(ring, "load") if ring is not None else None
        self._cursor = SegmentCursor(series, session_id)
        self.from_archive = 0  # rows that had left the ring
        self.lost = 0
        self._decode, self._empty = _DECODERS[self.ring], np.empty(0, DTYPES[self.ring])
        self._open = self._ever = False

    @property
    def watermark(self) -> int:
        return self._loader.watermark

    @property
    def waiting(self) -> int:
        """Records that the ring holds and the database lacks."""
        return self._ring.published - self._loader.watermark - 1 if self._ring is not None else 0

    def open(self) -> None:
        """Connect and go on behind the watermark. Raises LoadRetryable, OwnedElsewhere."""
        mark = self._loader.open()
        if self._consumer is not None:
            self._consumer.seek(mark + 1)
        self._open = self._ever = True

    def reopen(self) -> None:
        """Connect again, if it ever was connected."""
        if self._ever:
            self.open()

    @property
    def untouched(self) -> bool:
        """Whether there has been nothing to load, so that the database was never asked."""
        nothing = self.final == NOTHING if self._ring is None else self._ring.published == 0
        return self.ring != "tick" and not self._ever and nothing

    def step(self) -> int:
        """Load up to `max_rows` sequences; return how many were committed, 0 if there is nothing to load now.

        Raises LoadRetryable (then `open` again), OwnedElsewhere.
        """
        if self.untouched:
            return 0
        if not self._open:
            self.open()
        self._open = False  # until this step has gone well
        before = self._loader.watermark
        rows, gaps = self._next(before + 1)
        if len(rows) or gaps:
            self._loader.commit(rows, gaps)
            self.lost += sum(gap["last_seq"] - gap["first_seq"] + 1 for gap in gaps)
        after = self._loader.watermark
        if self._consumer is not None:
            if self._consumer.cursor != after + 1:
                self._consumer.seek(after + 1)
            self._consumer.durable = after + 1
        self._open = True
        return after - before

    def _next(self, seq: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Return the records and database gaps that follow, from `seq` on without a hole; nothing if there is nothing yet."""
        if self._consumer is not None and self._ring is not None and seq >= self._ring.oldest:
            batch = self._consumer.poll(self._max_rows)
            if batch.lost == 0:
                return batch.rows, []
            self._consumer.seek(seq)  # overtaken in this moment: the archive has it
        elif self._ring is not None and seq >= self._ring.published:
            return self._empty, []
        lines, archive_gaps = self._cursor.read(seq, self._max_rows)
        rows = self._decode(lines) if lines else self._empty
        self.from_archive += len(rows)
        return rows, [database_gap(gap, seq) for gap in archive_gaps if gap["last_seq"] is not None]

    def close_host_death(self) -> None:
        """Store the database's gap row of a ring that died with its host, once all of the archive is loaded.

        A swing ring of which nothing was ever stored has none: the archive's own row says all of it.
        """
        if self.host_death is not None:
            if not self._open:
                self.open()
            first = max(int(self.host_death["first_seq"]), self._loader.watermark + 1)
            if first == 0 and self.ring != "tick":
                return
            self._loader.commit(self._empty, [{**self.host_death, "sink": "database", "first_seq": first}])

    @property
    def done(self) -> bool:
        return self.final is not None and self._loader.watermark >= self.final

    def close(self) -> None:
        self._loader.close()
        self._cursor.close()
        if self._ring is not None:
            self._ring.close()


def database_gap(gap: dict[str, Any], from_seq: int) -> dict[str, Any]:
    """Return the gap line by which the database says that it lacks what the archive lost, from `from_seq` on."""
    first = max(int(gap["first_seq"]), from_seq)
    return {**gap, "sink": "database", "first_seq": first, "lost": gap["last_seq"] - first + 1}


def rejected_to(
    log: TextLog, encode: Callable[[np.ndarray], list[bytes]], noted: Callable[[int, str], None], more: Mapping[str, str]
) -> Rejected:
    """Return the callback that keeps a refused row beside the archive, durable before the gap row that names it.

    `more`: what its line says beside the archive's: session_id and ring, where that does not.
    """

    def keep(row: np.void, text: str) -> None:
        one = np.array([row], row.dtype)
        line: dict[str, Any] = {**orjson.loads(encode(one)[0]), **more, "error": text}
        log.append(orjson.dumps(line), int(row["ts_ns"]))
        log.flush()
        noted(int(row["seq"]), text)

    return keep


def rejected_folder(root: Path, provider: str) -> Path:
    return root / "quarantine" / provider
