"""Partitions of scalp_ticks: one UTC day each, made before they are needed, and for any day that catch-up needs."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final

import numpy as np

from obs.clock import NS
from obs.pg.connect import Connection
from obs.pg.statements import statement

DAY_NS: Final = 86_400 * NS


class Partitions:
    """Remembers which days exist, so that the database is asked once for each."""

    def __init__(self) -> None:
        self._known: set[int] = set()

    def ensure(self, conn: Connection, ts_ns: np.ndarray) -> None:
        """Make the partitions that rows of these times need. `ts_ns`: (n,), int64, UTC epoch. Call outside a transaction."""
        days = {int(day) for day in np.unique(ts_ns // DAY_NS)} - self._known
        for day in sorted(days):
            make_day(conn, day_of(day * DAY_NS))
        self._known |= days

    def forget(self) -> None:
        """Ask the database again: a partition was dropped meanwhile."""
        self._known.clear()


def day_of(ts_ns: int) -> date:
    """Return the UTC day of an instant."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=ts_ns // DAY_NS)).date()


def make_day(conn: Connection, day: date) -> bool:
    """Make the partition of one UTC day, in its own transaction; False if it was there."""
    row = conn.execute(statement("ensure_day"), {"day": day}).fetchone()
    return row is not None and bool(row[0])


def make_around(conn: Connection, now_ns: int) -> None:
    """Make the partitions of yesterday, today and tomorrow (UTC)."""
    for days in (-1, 0, 1):
        make_day(conn, day_of(now_ns + days * DAY_NS))
