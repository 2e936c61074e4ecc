"""Connections to PostgreSQL, and what an error of theirs means for the caller.

There are two meanings. A *refusal* (SQLSTATE classes 22 and 23) is the fault of the rows that were sent: sending them again
gives the same answer. Everything else (away, full, restarting, a lock not had in time, a missing table) is a state of
the server that ends some day: LoadRetryable, with the SQLSTATE for the alarm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg.rows import TupleRow

from obs.errors import ConfigError, LoadRetryable
from obs.pg.statements import statement

OLDEST_SERVER: Final = 150000  # NULLS NOT DISTINCT
CONNECT_TIMEOUT_S: Final = 5

Dsn = str | Callable[[], str]  # an embedded server may come back at another place: ask before each connect
Connection = psycopg.Connection[TupleRow]

# Class 22 that speaks of the block or the statement, not of a row in it.
_NOT_OF_A_ROW: Final = {"22P04"}  # bad_copy_file_format


def connect(dsn: Dsn, name: str) -> Connection:
    """Return a connection in autocommit mode, UTC, shown to operators as `name`.

    Raises LoadRetryable if the server cannot be reached now, ConfigError if it is older than PostgreSQL 15 or if the DSN is
    malformed. Neither message holds the DSN, which may hold a password.
    """
    try:
        conn = psycopg.connect(
            dsn() if callable(dsn) else dsn,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_S,
            application_name=name,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=30_000,
        )
    except psycopg.ProgrammingError:
        raise ConfigError("malformed database DSN", problems=["database.dsn: a libpq connection string or URL"]) from None
    except psycopg.Error as error:
        raise retryable(error) from error
    if conn.info.server_version < OLDEST_SERVER:
        version = conn.info.server_version
        conn.close()
        raise ConfigError("database server too old", problems=[f"database.dsn: server {version}: PostgreSQL 15 or newer"])
    with translated(conn):
        conn.execute(statement("session_settings"))
    return conn


def is_refusal(error: psycopg.Error) -> bool:
    """Say whether the rows that were sent are at fault."""
    state = error.sqlstate or ""
    return state[:2] in ("22", "23") and state not in _NOT_OF_A_ROW


def retryable(error: psycopg.Error) -> LoadRetryable:
    """Return the LoadRetryable that says what `error` says: kind, SQLSTATE and the server's first line."""
    first_line = (str(error).strip().splitlines() or [""])[0]
    return LoadRetryable("database not usable now", kind=type(error).__name__, sqlstate=error.sqlstate, text=first_line)


@contextmanager
def translated(conn: Connection) -> Iterator[None]:
    """Turn any error of psycopg inside into LoadRetryable and close `conn`: what it had begun is rolled back."""
    try:
        yield
    except psycopg.Error as error:
        close(conn)
        raise retryable(error) from error


def close(conn: psycopg.Connection[Any] | None) -> None:
    """Close a connection in whatever state it is."""
    if conn is not None:
        conn.close()
