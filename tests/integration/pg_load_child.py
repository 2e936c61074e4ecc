"""A loader process that tests kill: loads rows in small commits until `total` are stored, again after every failure.

Prints "ready" when it is open and "commit" after each commit.

Usage: python -m tests.integration.pg_load_child DSN SESSION_ID HOLDER TOTAL BATCH REJECTED_FILE RING
Every 997th row is refused by the database, and every 1000th sequence lies in a gap.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np

from obs.errors import LoadRetryable
from obs.pg.loader import RingLoader
from obs.record.events import SCOPE_OF_RING, gap_payload
from tests.integration.pg_rows import START_NS, make_rows, make_swings

REFUSED_EVERY = 997
GAP_EVERY = 1000
MAKE = {"tick": make_rows, "swing": make_swings}
REFUSED_FIELD = {"tick": "last_price", "swing": "close"}


def batch_of(session_id: str, first: int, count: int, ring: str = "tick") -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Return rows and gap lines of a batch."""
    rows = MAKE[ring](first, count)
    rows[REFUSED_FIELD[ring]][rows["seq"] % REFUSED_EVERY == REFUSED_EVERY - 1] = 1e12
    missing = rows["seq"][rows["seq"] % GAP_EVERY == GAP_EVERY - 1]
    gaps = [
        gap_payload(
            start_ns=START_NS, end_ns=START_NS + 1, scope=SCOPE_OF_RING[ring], reason="disk_full", session_id=session_id,
            provider="kis", ring=ring, sink="database", first_seq=int(seq), last_seq=int(seq), lost=1,
        )
        for seq in missing
    ]  # fmt: skip
    return rows[rows["seq"] % GAP_EVERY != GAP_EVERY - 1], gaps


def main(dsn: str, session_id: str, holder: str, total: int, batch: int, rejected_file: str, ring: str) -> None:
    rejected = os.open(rejected_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def set_aside(row: np.void, text: str) -> None:
        os.write(rejected, b"%d %s\n" % (row["seq"], text.encode()))

    loader = RingLoader(dsn, "kis", session_id, holder, set_aside, ring)
    mark = -1
    ready = False
    while mark < total - 1:
        try:
            mark = loader.open()
            if not ready:
                print("ready", flush=True)
                ready = True
            while mark < total - 1:
                mark = loader.commit(*batch_of(session_id, mark + 1, min(batch, total - 1 - mark), ring))
                os.write(1, b"commit\n")
        except LoadRetryable:
            time.sleep(0.005)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6], sys.argv[7])
