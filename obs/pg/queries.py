"""Queries for people and programs: async, read-only, rows as dictionaries by column name.

Times are timezone-aware datetimes in UTC; prices and sizes are `decimal.Decimal`, exactly as stored.
Every function raises LoadRetryable if the database cannot answer now; the connection may then be closed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row

from obs.errors import ConfigError
from obs.pg.connect import CONNECT_TIMEOUT_S, Dsn, retryable
from obs.pg.statements import statement

ROWS_AT_MOST: Final = 1_000_000
Rows = list[dict[str, Any]]
AsyncConnection = psycopg.AsyncConnection[dict[str, Any]]


async def connect_reader(dsn: Dsn) -> AsyncConnection:
    """Return a read-only connection for the functions here.

    Raises LoadRetryable if the server cannot be reached, ConfigError if the DSN is malformed, without it: it may hold a password.
    """
    try:
        conn = await psycopg.AsyncConnection.connect(
            dsn() if callable(dsn) else dsn,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_S,
            application_name="obs query",
            row_factory=dict_row,
        )
        await conn.execute(statement("reader_settings"))
    except psycopg.ProgrammingError:
        raise ConfigError("malformed database DSN", problems=["database.dsn: a libpq connection string or URL"]) from None
    except psycopg.Error as error:
        raise retryable(error) from error
    return conn


async def get_latest_ticks(conn: AsyncConnection, provider: str, symbol: str, limit: int = 100) -> Rows:
    """Return the newest rows of a symbol, newest first."""
    return await _fetch(conn, "latest_ticks", {"provider": provider, "symbol": symbol, "limit": limit})


async def get_ticks_in_range(
    conn: AsyncConnection, provider: str, symbol: str, from_ts: datetime, to_ts: datetime, limit: int = ROWS_AT_MOST
) -> Rows:
    """Return the rows of a symbol with from_ts < ts <= to_ts, oldest first."""
    facts = {"provider": provider, "symbol": symbol, "from_ts": from_ts, "to_ts": to_ts, "limit": limit}
    return await _fetch(conn, "ticks_in_range", facts)


async def get_1m_bars(conn: AsyncConnection, provider: str, symbol: str, from_ts: datetime, to_ts: datetime) -> Rows:
    """Return the bars of the minutes M with from_ts <= M < to_ts."""
    return await _fetch(conn, "bars_1m", {"provider": provider, "symbol": symbol, "from_ts": from_ts, "to_ts": to_ts})


async def has_bars(conn: AsyncConnection, provider: str, symbol: str) -> bool:
    """Tell whether there is a bar of a symbol, of any day."""
    (row,) = await _fetch(conn, "has_bars", {"provider": provider, "symbol": symbol})
    return bool(row["found"])


async def get_day_symbols(conn: AsyncConnection, provider: str, from_ts: datetime, to_ts: datetime) -> Rows:
    """Return what the bars of the minutes M with from_ts <= M < to_ts say of each symbol.

    records: of all; minutes: the places of its bars, counted in minutes from from_ts on; ratios: the coverage_ratio of each of them.
    """
    return await _fetch(conn, "day_symbols", {"provider": provider, "from_ts": from_ts, "to_ts": to_ts})


async def count_gaps(conn: AsyncConnection, provider: str, from_ts: datetime, to_ts: datetime) -> dict[str, int]:
    """Count the gaps that touch a span of time, by reason."""
    rows = await _fetch(conn, "count_gaps", {"provider": provider, "from_ts": from_ts, "to_ts": to_ts})
    return {row["reason"]: row["count"] for row in rows}


async def get_critical_gaps(conn: AsyncConnection, provider: str, from_ts: datetime, to_ts: datetime) -> Rows:
    """Return the gaps of severity critical that touch a span of time."""
    return await _fetch(conn, "critical_gaps", {"provider": provider, "from_ts": from_ts, "to_ts": to_ts})


async def _fetch(conn: AsyncConnection, name: str, facts: dict[str, Any]) -> Rows:
    try:
        cur = await conn.execute(statement(name), facts)
        return await cur.fetchall()
    except psycopg.Error as error:
        raise retryable(error) from error
