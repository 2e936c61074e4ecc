"""The table market_universe: who was watched on one day of one market, all of it in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import psycopg

from obs.pg.connect import Connection, is_refusal, translated
from obs.pg.statements import statement


@dataclass(frozen=True, slots=True)
class UniverseDay:
    """One day's list in the order of its ranks; the sequences have one length. An unknown number is None."""

    market: str
    day: date
    source: str
    made_ns: int
    stale_since: date | None
    symbols: Sequence[str]
    names: Sequence[str]
    closes: Sequence[float | None]
    values: Sequence[float | None]


def stored_days(conn: Connection, market: str) -> dict[date, int]:
    """Return the days of a market that are stored, with the made_ns of each. Raises LoadRetryable."""
    with translated(conn):
        return {day: int(made_ns) for day, made_ns in conn.execute(statement("universe_days"), {"market": market})}


def store_day(conn: Connection, one: UniverseDay) -> str:
    """Store a day whole, in place of another building of it; return "" or what the database has against it.

    Idempotent: a day that is stored as it was made stays as it is. Raises LoadRetryable: then nothing of it is stored, or all.
    """
    facts = {
        "market": one.market, "date": one.day, "source": one.source, "made_ns": one.made_ns, "stale_since": one.stale_since,
        "symbols": [_plain(symbol) for symbol in one.symbols], "names": [_plain(name) for name in one.names],
        "closes": list(one.closes), "values": list(one.values),
    }  # fmt: skip
    with translated(conn):
        try:
            with conn.transaction():
                # Several providers of one market may look at the same file.
                conn.execute(statement("universe_lock"), {"market": one.market})
                row = conn.execute(statement("universe_made"), facts).fetchone()
                if row is None or row[0] != one.made_ns:
                    conn.execute(statement("universe_clear"), facts)
                    conn.execute(statement("universe_insert"), facts)
        except psycopg.Error as error:
            if not is_refusal(error):
                raise
            return f"{error.sqlstate} {str(error).strip().splitlines()[0]}"
    return ""


def _plain(text: str) -> str:
    """Return the text without what PostgreSQL does not store."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()
