"""The table anomaly_days: brought to what the log of marked days says, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, NamedTuple

import orjson

from obs.pg.connect import Connection, translated
from obs.pg.gaps import moment
from obs.pg.statements import statement


class AnomalyDay(NamedTuple):
    """One row."""

    market: str
    day: date
    reason: str
    detail: dict[str, Any]
    marked_ns: int


def sync_days(conn: Connection, provider: str, days: Sequence[AnomalyDay]) -> int:
    """Make the rows of a provider those of `days`; return how many had to change. Raises LoadRetryable: then none has, or all."""
    wanted = {(one.market, one.day, one.reason): one for one in days}
    with translated(conn), conn.transaction():
        found = {tuple(row[:3]): row[3] for row in conn.execute(statement("anomaly_days"), {"provider": provider})}
        wrong = [one for key, one in wanted.items() if key not in found or found[key] != one.detail]
        for one in wrong:
            conn.execute(statement("anomaly_day_upsert"), {
                "provider": provider, "market": one.market, "day": one.day, "reason": one.reason,
                "detail": orjson.dumps(one.detail).decode(), "marked_at": moment(one.marked_ns),
            })  # fmt: skip
        gone = [key for key in found if key not in wanted]
        for market, day, reason in gone:
            conn.execute(statement("anomaly_day_delete"), {"provider": provider, "market": market, "day": day, "reason": reason})
    return len(wrong) + len(gone)
