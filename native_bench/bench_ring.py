"""Absolute cost: publish and poll of 192-byte records through a ring, beside a copy in and a copy out of the same bytes.

    python -m native_bench.bench_ring            # all sizes; pyperf options as usual, for example --fast -o ring.json

The floor copies the batch into a numpy array and out into a fresh one, as void items (a structured copy goes field by field and
is slower), through as many cells as the ring has, which is what a ring must do at least: it cannot stay in the cache. The same
with always the same cells is shown beside it. Set-up, and the kernel's zeroing of new pages, are outside the clock.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from native_bench.rows import Row, Target, pyperf_main
from obs.record.schema import TICK
from obs.ring import Consumer, Producer, create_ring

SIZES: Final = (1, 16, 64, 256, 1024)
CAPACITY: Final = 131_072
ROW: Final = Row(
    "ring_batches", "ring publish + poll, 192-byte records, batches of 256", "one copy in and one copy out of the same bytes",
    (Target("rate", 0.5, "floor"),), "256 records",
)  # fmt: skip


def ring(loops: int, batch: int) -> float:
    """Return the seconds of `loops` publishes and polls of `batch` records."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        made = create_ring(Path(folder, "ring"), TICK, CAPACITY, "sess_20260101_000000_bench_0000", "tick", 0)
        producer, consumer = Producer(made), Consumer(made, "archive")
        rows = np.zeros(batch, TICK)
        _touch(loops, batch, lambda: (producer.publish(rows), consumer.poll(batch)))
        start = time.process_time()
        for _ in range(loops):
            producer.publish(rows)
            consumer.poll(batch)
        spent = time.process_time() - start
        made.close()
    return spent


def floor_in_cache(loops: int, batch: int) -> float:
    """Return the seconds of `loops` copies in and out of the same bytes, always the same cells: they stay in the cache."""
    void = np.dtype(f"V{TICK.itemsize}")
    rows, cells = np.zeros(batch, void), np.zeros(batch, void)
    start = time.process_time()
    for _ in range(loops):
        cells[:] = rows
        cells.copy()
    return time.process_time() - start


def floor(loops: int, batch: int) -> float:
    """The same through as many cells as the ring has, one batch behind the other, as a ring must."""
    void = np.dtype(f"V{TICK.itemsize}")
    rows, cells = np.zeros(batch, void), np.zeros(CAPACITY, void)
    cells[:] = np.zeros(1, void)
    at = 0
    start = time.process_time()
    for _ in range(loops):
        cells[at : at + batch] = rows
        cells[at : at + batch].copy()
        at = at + batch if at + 2 * batch <= CAPACITY else 0
    return time.process_time() - start


def _touch(loops: int, batch: int, once: Callable[[], object]) -> None:
    """Fault the pages in before the clock runs: the kernel's zeroing of a new ring is paid once in its life."""
    for _ in range(min(loops, CAPACITY // batch + 1)):
        once()


def main() -> None:
    sides = {"obs": ring, "floor": floor, "floor in the cache": floor_in_cache}
    pyperf_main(ROW, sides, {f"{batch:,} records": (partial(int, batch), batch) for batch in SIZES})


if __name__ == "__main__":
    main()
