"""Against a rival: the loader, beside executemany INSERT of the same rows, as most collectors do.

The rival's rows are Python values that were made outside the clock; psycopg sends them in pipeline mode, one COMMIT a batch.
"from records" makes those values from the records inside the clock, as the loader makes its blocks. Both clocks of bench_loader.
"""

from __future__ import annotations

import argparse
from typing import Final

import numpy as np
import psycopg

from native_bench import postgres
from native_bench.bench_copy_block import values_of
from native_bench.bench_loader import add, load
from native_bench.inputs import tick_rows
from native_bench.postgres import Spent, stopwatch
from native_bench.rows import OURS, Result, Row, Target, plain_main
from obs.pg.rows import COLUMNS

ROW: Final = Row(
    "loader_insert", "loader, beside INSERT", "executemany INSERT, as most collectors do", (Target("rate", 5, "executemany"),),
    "batches of 10,000", clock="wall",
)  # fmt: skip
ROUNDS: Final = 5


def insert(dsn: str, rows: np.ndarray, batch: int, from_records: bool) -> Spent:
    """Return what inserting all rows but the first takes."""
    postgres.empty(dsn)
    names = ", ".join(column for column, _, _ in COLUMNS)
    query = f"INSERT INTO scalp_ticks ({names}) VALUES ({', '.join(['%s'] * len(COLUMNS))})"
    batches = [rows[at : at + batch] for at in range(1, len(rows), batch)]
    ready = [] if from_records else [values_of(some) for some in batches]
    with psycopg.connect(dsn) as conn, conn.cursor() as cur:
        stop = stopwatch(conn.info.backend_pid)
        for place, some in enumerate(batches):
            cur.executemany(query, values_of(some) if from_records else ready[place])
            conn.commit()
        return stop()


def measure(result: Result, fast: bool, _args: argparse.Namespace) -> None:
    with postgres.server() as dsn:
        for batch in (500,) if fast else (1000, 10_000):
            rows = tick_rows(1 + batch * (1 if fast else max(3, 10_000 // batch)))
            count = len(rows) - 1
            load(dsn, rows, batch)  # partitions are made
            for _ in range(1 if fast else ROUNDS):
                add(result, batch, OURS, load(dsn, rows, batch), count)
                add(result, batch, "executemany", insert(dsn, rows, batch, False), count)
                add(result, batch, "from records", insert(dsn, rows, batch, True), count)


if __name__ == "__main__":
    plain_main(ROW, measure)
