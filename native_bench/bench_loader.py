"""Against a floor: the loader into the real table, beside a server-side COPY of the same binary bytes from a file into the same table.

Ours: compare-and-set of the watermark, the block made of records, COPY over the socket, COMMIT, one transaction a batch. The
floor: the same blocks, made before and lying in files that the server reads itself, one COMMIT each. Wall seconds; beside them the
CPU seconds of client and server process together. Partitions exist and the table is empty before each round.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import psycopg

from native_bench import postgres
from native_bench.inputs import SESSION, tick_rows
from native_bench.postgres import Spent, stopwatch
from native_bench.rows import OURS, Result, Row, Target, plain_main
from obs.pg.loader import RingLoader
from obs.pg.rows import copy_block
from obs.pg.statements import statement

ROW: Final = Row(
    "loader_copy", "loader, real table with its real indexes", "server-side COPY of the same binary bytes from a file into the same table",
    (Target("rate", 0.8, "COPY from file"),), "batches of 10,000", clock="wall",
)  # fmt: skip
ROUNDS: Final = 7


def refused(row: np.void, text: str) -> None:
    raise AssertionError(f"refused: {row} {text}")


def load(dsn: str, rows: np.ndarray, batch: int) -> Spent:
    """Return what loading `rows` in batches takes, but for the first of them."""
    postgres.empty(dsn)
    loader = RingLoader(dsn, "kis", SESSION, "bench", refused)
    loader.open()
    loader.commit(rows[:1])  # partitions are known, statements prepared
    assert loader._conn is not None
    stop = stopwatch(loader._conn.info.backend_pid)
    for at in range(1, len(rows), batch):
        loader.commit(rows[at : at + batch])
    spent = stop()
    loader.close()
    return spent


def from_files(dsn: str, rows: np.ndarray, batch: int, folder: Path) -> Spent:
    """Return what COPY FROM of the same blocks takes."""
    postgres.empty(dsn)
    paths = []
    for at in range(1, len(rows), batch):
        path = folder / f"{at}.copy"
        path.write_bytes(copy_block(rows[at : at + batch], SESSION, "kis"))
        path.chmod(0o644)
        paths.append(path)
    with psycopg.connect(dsn, autocommit=True) as conn:
        stop = stopwatch(conn.info.backend_pid)
        for path in paths:
            conn.execute(statement("copy_scalp_ticks").replace("FROM STDIN", f"FROM '{path}'"))
        spent = stop()
        stored = conn.execute("SELECT count(*) FROM scalp_ticks").fetchone()
    assert stored == (len(rows) - 1,), stored
    return spent


def add(result: Result, batch: int, side: str, spent: Spent, count: int) -> None:
    """Note both clocks of one round."""
    result.add(f"batches of {batch:,}", side, [spent.wall_s / count])
    result.add(f"batches of {batch:,}, CPU of client and server", side, [spent.cpu_s / count])


def measure(result: Result, fast: bool, _args: argparse.Namespace) -> None:
    batches = (1000,) if fast else (1000, 10_000)
    with postgres.server() as dsn, tempfile.TemporaryDirectory(prefix="obs-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server may run as another user
        for batch in batches:
            rows = tick_rows(1 + batch * (2 if fast else max(5, 50_000 // batch)))
            for _ in range(1 if fast else ROUNDS):
                add(result, batch, OURS, load(dsn, rows, batch), len(rows) - 1)
                add(result, batch, "COPY from file", from_files(dsn, rows, batch, folder), len(rows) - 1)


if __name__ == "__main__":
    plain_main(ROW, measure)
