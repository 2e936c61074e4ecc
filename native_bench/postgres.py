"""An embedded PostgreSQL of the benchmark's own, in a temporary folder, with all migrations."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from obs.pg.embedded import EmbeddedPostgres
from obs.pg.migrate import migrate


@contextmanager
def server() -> Iterator[str]:
    """Yield the DSN of an empty database with the real tables and indexes; the server goes in the end."""
    with tempfile.TemporaryDirectory(prefix="obs-bench-") as folder:
        postgres = EmbeddedPostgres(Path(folder, "pg"))
        try:
            dsn = postgres.start()
            migrate(dsn)
            yield dsn
        finally:
            postgres.stop()


def empty(dsn: str) -> None:
    """Take the rows away and let the server write down what it owes, outside any clock."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("TRUNCATE scalp_ticks, etl_watermark")
        conn.execute("CHECKPOINT")
