"""An embedded PostgreSQL of the benchmark's own, in a temporary folder, with all migrations."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

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


class Spent(NamedTuple):
    wall_s: float
    cpu_s: float  # of this process and of its server process


def stopwatch(backend: int) -> Callable[[], Spent]:
    """Start a clock; what it returns stops it. `backend`: the pid of the server process that works for us."""
    schedstat = Path(f"/proc/{backend}/schedstat")  # ns on a CPU, then two other numbers

    def cpu_s() -> float:
        return time.process_time() + int(schedstat.read_text().split()[0]) / 1e9

    wall, cpu = time.perf_counter(), cpu_s()
    return lambda: Spent(time.perf_counter() - wall, cpu_s() - cpu)
