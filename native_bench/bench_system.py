"""Absolute cost: the whole system at the mission's load: 41 symbols at 2 Hz from each of two providers, both sinks.

CPU seconds of all `obs` processes together per second, and their proportional memory without ring pages; PostgreSQL and the simulated
exchanges apart. Imports and the start are over when the clock begins.
"""

from __future__ import annotations

import argparse
import time
from typing import Final

from native_bench.demo import demo
from native_bench.rows import Result, Row, Target, plain_main

ROW: Final = Row(
    "system", "whole system at 41 x 2 Hz x 2 providers", "-",
    (Target("at_most", 5, of="CPU, % of a core"), Target("at_most", 400, of="PSS without rings, MB")), items="", clock="CPU",
)  # fmt: skip


def measure(result: Result, fast: bool, _args: argparse.Namespace) -> None:
    spans, settle_s, span_s = (1, 0.0, 2.0) if fast else (3, 10.0, 20.0)
    by_role: dict[str, float] = {}
    with demo() as one:
        rings = one.started()
        time.sleep(settle_s)
        for _ in range(spans):
            before, begun, published = one.cpu_s(), time.monotonic(), sum(ring.published for ring in rings.values())
            time.sleep(span_s)
            after, took = one.cpu_s(), time.monotonic() - begun
            spent = {pid: after[pid] - before.get(pid, 0.0) for pid in after}
            result.figures.setdefault("CPU, % of a core", []).append(sum(spent.values()) / took * 100)
            result.figures.setdefault("PSS without rings, MB", []).append(one.pss_mb())
            rate = (sum(ring.published for ring in rings.values()) - published) / took
            result.figures.setdefault("records/s", []).append(rate)
            for pid, title in one.processes().items():
                role = title.split()[1]
                by_role[role] = by_role.get(role, 0.0) + spent.get(pid, 0.0) / took * 100 / spans
        for ring in rings.values():
            ring.close()
    shares = ", ".join(f"{role} {share:.2f}" for role, share in sorted(by_role.items(), key=lambda item: -item[1]))
    result.notes.append(f"% of a core by role, both providers: {shares}")


if __name__ == "__main__":
    plain_main(ROW, measure)
