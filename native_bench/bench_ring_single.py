"""Absolute cost: one record at a time through a ring, beside multiprocessing.Queue and Pipe of the same 192 bytes."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np

from native_bench.bench_ring import CAPACITY
from native_bench.rows import Row, Target, pyperf_main
from obs.record.schema import TICK
from obs.ring import Consumer, Producer, create_ring

ROW: Final = Row(
    "ring_single", "ring publish + poll, one record at a time", "multiprocessing.Queue and Pipe of the same record",
    (Target("rate", 10, "Queue"),), "1 record",
)  # fmt: skip


def ring(loops: int, _size: None) -> float:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        made = create_ring(Path(folder, "ring"), TICK, CAPACITY, "sess_20260101_000000_bench_0000", "tick", 0)
        producer, consumer = Producer(made), Consumer(made, "archive")
        row = np.zeros(1, TICK)
        start = time.process_time()
        for _ in range(loops):
            producer.publish(row)
            consumer.poll(1)
        spent = time.process_time() - start
        made.close()
    return spent


def queue(loops: int, _size: None) -> float:
    """The feeder thread that a Queue has works in the same process, so its CPU seconds count too."""
    one: multiprocessing.Queue[bytes] = multiprocessing.Queue()
    record = np.zeros(1, TICK).tobytes()
    start = time.process_time()
    for _ in range(loops):
        one.put(record)
        one.get()
    spent = time.process_time() - start
    one.close()
    one.join_thread()
    return spent


def pipe(loops: int, _size: None) -> float:
    """Without pickling: send_bytes and recv_bytes."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    record = np.zeros(1, TICK).tobytes()
    start = time.process_time()
    for _ in range(loops):
        writer.send_bytes(record)
        reader.recv_bytes()
    spent = time.process_time() - start
    reader.close()
    writer.close()
    return spent


def main() -> None:
    pyperf_main(ROW, {"obs": ring, "Queue": queue, "Pipe": pipe}, {"1 record": (lambda: None, 1)})


if __name__ == "__main__":
    main()
