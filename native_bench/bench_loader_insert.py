"""Against a rival: the loader, beside executemany INSERT of the same rows, as most collectors do.

The rival's rows are Python values that were made outside the clock; psycopg sends them in pipeline mode, one COMMIT a batch.
Wall seconds, as in bench_loader.
"""

from __future__ import annotations

import argparse
import time
from typing import Final

import numpy as np
import psycopg

from native_bench import postgres
from native_bench.bench_copy_block import values_of
from native_bench.bench_loader import load
from native_bench.inputs import tick_rows
from native_bench.rows import OURS, Result, Row, Target, plain_main
from obs.pg.rows import COLUMNS

ROW: Final = Row(
    "loader_insert", "loader, beside INSERT", "executemany INSERT, as most collectors do", (Target("rate", 5, "executemany"),),
    "batches of 10,000", clock="wall",
)  # fmt: skip
ROUNDS: Final = 3


def insert(dsn: str, rows: np.ndarray, batch: int) -> float:
    postgres.empty(dsn)
    names = ", ".join(column for column, _, _ in COLUMNS)
    query = f"INSERT INTO scalp_ticks ({names}) VALUES ({', '.join(['%s'] * len(COLUMNS))})"
    values = values_of(rows[1:])
    with psycopg.connect(dsn) as conn, conn.cursor() as cur:
        start = time.perf_counter()
        for at in range(0, len(values), batch):
            cur.executemany(query, values[at : at + batch])  # type: ignore[arg-type]
            conn.commit()
        return time.perf_counter() - start


def measure(result: Result, fast: bool, _: argparse.Namespace) -> None:
    with postgres.server() as dsn:
        for batch in (500,) if fast else (1000, 10_000):
            rows = tick_rows(1 + batch * (1 if fast else max(2, 10_000 // batch)))
            load(dsn, rows, batch)  # partitions are made
            for _ in range(1 if fast else ROUNDS):
                result.add(f"batches of {batch:,}", OURS, [load(dsn, rows, batch) / (len(rows) - 1)])
                result.add(f"batches of {batch:,}", "executemany", [insert(dsn, rows, batch) / (len(rows) - 1)])


if __name__ == "__main__":
    plain_main(ROW, measure)
