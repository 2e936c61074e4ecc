"""Against a floor: the loader into the real table, beside a server-side COPY of the same binary bytes from a file into the same table.

Ours: compare-and-set of the watermark, the block made of records, COPY over the socket, COMMIT, one transaction a batch. The
floor: the same blocks, made before and lying in files that the server reads itself, one COMMIT each. Wall seconds: most of it
is the server's work, which no clock of this process sees. Partitions exist and the table is empty before each round.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np
import psycopg

from native_bench import postgres
from native_bench.inputs import SESSION, tick_rows
from native_bench.rows import OURS, Result, Row, Target, plain_main
from obs.pg.loader import TickLoader
from obs.pg.rows import copy_block
from obs.pg.statements import statement

ROW: Final = Row(
    "loader_copy", "loader, real table with its real indexes", "server-side COPY of the same binary bytes from a file into the same table",
    (Target("rate", 0.8, "COPY from file"),), "batches of 10,000", clock="wall",
)  # fmt: skip
ROUNDS: Final = 7


def refused(row: np.void, text: str) -> None:
    raise AssertionError(f"refused: {row} {text}")


def load(dsn: str, rows: np.ndarray, batch: int) -> float:
    """Return the seconds of loading `rows` in batches."""
    postgres.empty(dsn)
    loader = TickLoader(dsn, "kis", SESSION, "bench", refused)
    loader.open()
    loader.commit(rows[:1])  # partitions are known, statements prepared
    start = time.perf_counter()
    for at in range(1, len(rows), batch):
        loader.commit(rows[at : at + batch])
    spent = time.perf_counter() - start
    loader.close()
    return spent


def from_files(dsn: str, rows: np.ndarray, batch: int, folder: Path) -> float:
    """Return the seconds of COPY FROM of the same blocks."""
    postgres.empty(dsn)
    paths = []
    for at in range(1, len(rows), batch):
        path = folder / f"{at}.copy"
        path.write_bytes(copy_block(rows[at : at + batch], SESSION, "kis"))
        path.chmod(0o644)
        paths.append(path)
    with psycopg.connect(dsn, autocommit=True) as conn:
        start = time.perf_counter()
        for path in paths:
            conn.execute(statement("copy_scalp_ticks").replace("FROM STDIN", f"FROM '{path}'"))
        spent = time.perf_counter() - start
        stored = conn.execute("SELECT count(*) FROM scalp_ticks").fetchone()
    assert stored == (len(rows) - 1,), stored
    return spent


def measure(result: Result, fast: bool, _: argparse.Namespace) -> None:
    batches = (1000,) if fast else (1000, 10_000)
    with postgres.server() as dsn, tempfile.TemporaryDirectory(prefix="obs-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server may run as another user
        for batch in batches:
            rows = tick_rows(1 + batch * (2 if fast else max(5, 50_000 // batch)))
            for _ in range(1 if fast else ROUNDS):
                count = len(rows) - 1
                result.add(f"batches of {batch:,}", OURS, [load(dsn, rows, batch) / count])
                result.add(f"batches of {batch:,}", "COPY from file", [from_files(dsn, rows, batch, folder) / count])


if __name__ == "__main__":
    plain_main(ROW, measure)
