"""Absolute cost: publish and poll of 192-byte records through a ring, beside a copy in and a copy out of the same bytes.

    python -m native_bench.bench_ring            # all sizes; pyperf options as usual, for example --fast -o ring.json
    python -m native_bench.bench_ring --fast

The floor copies the batch into one numpy array and out into a fresh one, as void items (a structured copy goes field by field
and is slower), which is what a ring must do at least. Set-up is outside the clock.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np
import pyperf

from obs.record.schema import TICK
from obs.ring import Consumer, Producer, create_ring

SIZES: Final = (1, 16, 64, 256, 1024)
CAPACITY: Final = 131_072


def ring(loops: int, batch: int) -> float:
    """Return the seconds of `loops` publishes and polls of `batch` records."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        made = create_ring(Path(folder, "ring"), TICK, CAPACITY, "sess_20260101_000000_bench_0000", "tick", 0)
        producer, consumer = Producer(made), Consumer(made, "archive")
        rows = np.zeros(batch, TICK)
        start = time.perf_counter()
        for _ in range(loops):
            producer.publish(rows)
            consumer.poll(batch)
        spent = time.perf_counter() - start
        made.close()
    return spent


def floor(loops: int, batch: int) -> float:
    """Return the seconds of `loops` copies in and out of the same bytes."""
    void = np.dtype(f"V{TICK.itemsize}")
    rows, cells = np.zeros(batch, void), np.zeros(CAPACITY, void)
    start = time.perf_counter()
    for _ in range(loops):
        cells[:batch] = rows
        cells[:batch].copy()
    return time.perf_counter() - start


def main() -> None:
    runner = pyperf.Runner()
    for batch in SIZES:
        runner.bench_time_func(f"ring publish + poll, {batch} records", ring, batch)
        runner.bench_time_func(f"floor: copy in + copy out, {batch} records", floor, batch)


if __name__ == "__main__":
    main()
