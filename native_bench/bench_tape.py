"""Absolute: the largest rate that the whole system records in tape mode without losing anything, found by bisection.

A rate counts as held when, over the span, both rings published at least 98 % of it, the archive writers stayed less than two
seconds behind, and no gap row was written; the exchanges, the database and the watcher share the machine. Shown beside it: what the
loader, which reads what has left the ring from the archive, stored by then, and who had how much of the machine.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from typing import Final

from native_bench.demo import demo
from native_bench.rows import Result, Row, Target, plain_main

ROW: Final = Row(
    "tape", "whole system in tape mode, largest lossless rate", "-", (Target("at_least", 50_000, of="inputs/s"),), items="", clock="wall",
)  # fmt: skip
_HELD: Final = 0.98
_BEHIND_S: Final = 2.0


def held(rate: float, settle_s: float, span_s: float, result: Result) -> bool:
    """Run the system at `rate` inputs/s in all; return whether nothing was lost and nobody fell behind."""
    tables = {"demo": {"source": "numbered", "mode": "tape", "rate": rate}}
    with demo(tables) as one:
        rings = one.started()
        time.sleep(settle_s)
        begun, before = time.monotonic(), {name: ring.published for name, ring in rings.items()}
        worst, spent = 0, one.cpu_by_kind()
        while time.monotonic() - begun < span_s:
            one.alive()
            worst = max(worst, *(ring.published - ring.durable("archive") for ring in rings.values()))
            time.sleep(0.05)
        took = time.monotonic() - begun
        found = sum(ring.published - before[name] for name, ring in rings.items()) / took
        loader = sum(ring.published - ring.durable("load") for ring in rings.values())
        shares = {kind: (cpu_s - spent.get(kind, 0.0)) / took * 100 for kind, cpu_s in one.cpu_by_kind().items()}
        for ring in rings.values():
            ring.close()
        try:
            code: int | str = one.stop()
        except subprocess.TimeoutExpired:
            code = "not within 40 s"
        gaps = [line for name in rings for line in one.lines(name) if line.get("event_type") == "gap_marker"]
    good = found >= _HELD * rate and worst < _BEHIND_S * rate and not gaps and code == 0
    told = ", ".join(f"{kind} {share:.0f}" for kind, share in sorted(shares.items(), key=lambda item: -item[1]) if share >= 1)
    why = f"published {found:,.0f}/s, archive at most {worst:,} behind, loader {loader:,} behind, gap rows {len(gaps)}, exit {code}"
    result.notes.append(f"{rate:,.0f}/s {'held' if good else 'not held'}: {why}; % of a core: {told}")
    return good


def measure(result: Result, fast: bool, _args: argparse.Namespace) -> None:
    if fast:
        if held(500, 0.5, 1.5, result):
            result.figures["inputs/s"] = [500.0]
        else:
            result.missing["inputs/s"] = "not held at 500/s; see the notes"
        return
    low, high = 0.0, 64_000.0
    rate = 16_000.0
    for _ in range(5):
        if held(rate, 4.0, 12.0, result):
            low = rate
        else:
            high = rate
        rate = (low + high) / 2
    if low:
        result.figures["inputs/s"] = [low]
    else:
        result.missing["inputs/s"] = "no rate was held; see the notes"


if __name__ == "__main__":
    plain_main(ROW, measure)
