"""Memory in tape mode: flat. PSS of all `obs` processes without ring pages, each minute, at 2,000 inputs/s.

    python -m native_bench.bench_memory --minutes 60

What is judged is growth: the median of the last fifth of the looks against that of the second fifth (the first one fills caches).
The whole run takes only a few minutes of it; the hour is for a machine that has it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Final

from native_bench.demo import demo
from native_bench.rows import Result, Row, Target, plain_main

ROW: Final = Row(
    "memory", "memory in tape mode, 2,000 inputs/s", "flat", (Target("at_most", 1.05, of="PSS at the end / after the start"),), items="",
    clock="-",
)  # fmt: skip
LOOKS: Final = 20


def measure(result: Result, fast: bool, arguments: argparse.Namespace) -> None:
    seconds = 3.0 if fast else arguments.minutes * 60
    points = []
    with demo({"demo": {"source": "numbered", "mode": "tape", "rate": 500 if fast else 2000}}) as one:
        for ring in one.started().values():
            ring.close()
        time.sleep(0.0 if fast else 10.0)
        begun = time.monotonic()
        looks = 5 if fast else max(LOOKS, int(arguments.minutes))
        for look in range(looks):
            time.sleep(max(0.0, begun + seconds * (look + 1) / looks - time.monotonic()))
            one.alive()
            points.append(((time.monotonic() - begun) / 60, one.pss_mb()))
    result.series["PSS in MB, by minutes, tape mode"] = points
    fifth = len(points) // 5
    early, late = (statistics.median(pss for _, pss in some) for some in (points[fifth : 2 * fifth], points[-fifth:]))
    result.figures["PSS at the end / after the start"] = [late / early]
    result.figures["PSS at the end, MB"] = [late]
    result.figures["minutes"] = [points[-1][0]]


def more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=3.0, help="how long to look (3)")


if __name__ == "__main__":
    plain_main(ROW, measure, more)
