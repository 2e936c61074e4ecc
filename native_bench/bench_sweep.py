"""Against a floor: one sweep of the trigger engine, beside one numpy pass over the same columns.

A sweep is what follows ten minutes of Track A: the averages, ratios, strengths and expiries of every symbol (`observe`), then their
scores (`scores`). The floor reads each of its columns once, what is seen and what is known, and writes one as large. Some symbols fire,
some were not seen, some are named by an operator.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Final

import numpy as np

from native_bench.inputs import START_NS
from native_bench.rows import Row, Target, pyperf_main
from obs.clock import NS
from obs.select import Observation, TriggerOptions, TriggerState, observe, scores

ROW: Final = Row(
    "sweep", "one sweep of the trigger engine, 2,500 symbols", "one numpy pass over the same columns", (Target("time", 10, "numpy pass"),),
    "2,500 symbols", items="symbols",
)  # fmt: skip
SIZES: Final = (41, 2500, 25_000)
_EVERY_NS: Final = 600 * NS
_OPTIONS: Final = TriggerOptions()


def swept(count: int) -> tuple[TriggerState, Observation, np.ndarray, int]:
    """Return what four sweeps left, what the fifth sees, who is named by hand, and when it is."""
    rng = np.random.default_rng(20260714)
    state, now_ns = TriggerState.empty(count), START_NS
    price = rng.uniform(1000, 500_000, count)
    for sweep in range(5):
        price = price * (1 + rng.normal(0, 0.01, count))
        volume = rng.lognormal(9, 1, count) * np.where(rng.random(count) < 0.02, 5, 1)
        trades = np.where(rng.random(count) < 0.02, rng.uniform(0, 30, count), np.nan)
        seen = Observation(np.where(rng.random(count) < 0.01, np.nan, price), price * 1.004, price * 0.996, volume, trades)
        if sweep < 4:
            state, now_ns = observe(state, seen, now_ns, _OPTIONS), now_ns + _EVERY_NS
    return state, seen, rng.random(count) < 0.004, now_ns


def engine(loops: int, count: int) -> float:
    state, seen, manual, now_ns = swept(count)
    _, strength = scores(observe(state, seen, now_ns, _OPTIONS), manual, now_ns, _OPTIONS)
    assert count < 2500 or (strength > 0).any(axis=1).all(), "each trigger fires somewhere"
    start = time.process_time()
    for _ in range(loops):
        after = observe(state, seen, now_ns, _OPTIONS)
        scores(after, manual, now_ns, _OPTIONS)
    return time.process_time() - start


def floor(loops: int, count: int) -> float:
    state, seen, manual, _ = swept(count)
    columns = [*seen, *state, manual]
    start = time.process_time()
    for _ in range(loops):
        for column in columns:
            np.add(column, column)
    return time.process_time() - start


def main() -> None:
    pyperf_main(ROW, {"obs": engine, "numpy pass": floor}, {f"{count:,} symbols": (partial(int, count), count) for count in SIZES})


if __name__ == "__main__":
    main()
