"""Isolation: p99 publish latency while PostgreSQL is stopped and each fsync takes 2 s, beside the same without either.

The latency of a record is the time from its event at the venue (which stamps milliseconds) until it can be read from the ring, as a
watcher sees it that looks each half millisecond; tape mode, both exchanges at 2,000 inputs/s together. Spans with and without
the trouble alternate. PostgreSQL is stopped by SIGSTOP of all its processes; the fsyncs of the archive writers are delayed by
`strace -e inject`, which is attached to them in the spans without trouble as well (with a delay of nothing).
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from native_bench.demo import Demo, demo
from native_bench.rows import OURS, Result, Row, Target, plain_main
from obs.pg import postmaster
from obs.ring import Ring, copy_rows

ROW: Final = Row(
    "latency", "publish latency p99 while PostgreSQL is stopped and fsync takes 2 s", "the same without either",
    (Target("time", 1.1, "without trouble"),), "p99", items="", clock="wall",
)  # fmt: skip
RATE: Final = 2000
_DELAY_US: Final = 2_000_000


def watch(ring: Ring, seconds: float) -> np.ndarray:
    """Return the latency of each record published within `seconds`, in ns."""
    seen, found = ring.published, []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        published = ring.published
        if published > seen:
            now_ns = time.time_ns()
            found.append(now_ns - copy_rows(ring, seen, published - seen)["event_ns"])
            seen = published
        time.sleep(0.0005)
    return np.concatenate(found)


@contextmanager
def slow_fsync(one: Demo, delay_us: int) -> Iterator[None]:
    inject = f"inject=fsync,fdatasync:delay_enter={delay_us}"
    words = ["strace", "-f", "-qq", "-e", "trace=fsync,fdatasync", "-e", inject, "-o", "/dev/null"]
    for pid in one.pids("archive"):
        words += ["-p", str(pid)]
    tracer = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    time.sleep(0.5)
    if tracer.poll() is not None:
        assert tracer.stderr is not None
        raise PermissionError(tracer.stderr.read().decode(errors="replace").strip())
    try:
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(15)


def measure(result: Result, fast: bool, _args: argparse.Namespace) -> None:
    if shutil.which("strace") is None:
        result.missing[""] = "strace is not installed"
        return
    rounds, span_s = (1, 2.5) if fast else (5, 8.0)
    tables: dict[str, dict[str, Any]] = {"demo": {"source": "numbered", "mode": "tape", "rate": RATE}, "archive": {"flush_s": 0.2}}
    with demo(tables) as one:
        rings = one.started()
        time.sleep(0.5 if fast else 5.0)
        ring = rings["upbit"]
        try:
            for _ in range(rounds):
                with slow_fsync(one, 0):
                    plain = watch(ring, span_s)
                stopped = one.postgres()
                with slow_fsync(one, _DELAY_US):
                    postmaster.send(stopped, signal.SIGSTOP)
                    try:
                        troubled = watch(ring, span_s)
                    finally:
                        postmaster.send(stopped, signal.SIGCONT)
                for name, share in (("p50", 50), ("p99", 99)):
                    result.add(name, OURS, [float(np.percentile(troubled, share)) / 1e9])
                    result.add(name, "without trouble", [float(np.percentile(plain, share)) / 1e9])
                time.sleep(0.5 if fast else 3.0)  # the sinks catch up
        except PermissionError as error:
            result.missing[""] = f"strace may not attach here: {error}"
        gaps = [line for line in one.lines("upbit") if line.get("event_type") == "gap_marker"]
        result.notes.append(f"gap rows during the run: {len(gaps)}")
        for each in rings.values():
            each.close()


if __name__ == "__main__":
    plain_main(ROW, measure)
