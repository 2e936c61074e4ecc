"""Absolute cost: one sweep of the trigger engine over the whole universe, beside one numpy pass over the same columns.

The engine reads what was seen (5 columns) and what it knew (13 columns: averages, strengths, times), and returns what it knows now
and the scores. The pass adds one to each of these columns, into a fresh array. Beside it, "with slots" also decides who holds the
41 slots and who is in the overflow ledger. One symbol in fifty fires.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Final, NamedTuple

import numpy as np

from native_bench.rows import Row, Target, pyperf_main
from obs.select import Observation, SlotOptions, TriggerOptions, TriggerState, decide, observe, overflow, scores

ROW: Final = Row(
    "sweep", "one sweep of the trigger engine, 2,500 symbols", "one numpy pass over the same columns", (Target("time", 10, "numpy pass"),),
    "2,500 symbols", items="symbols",
)  # fmt: skip
SLOTS: Final = 41
EVERY_NS: Final = 600 * 1_000_000_000
OPTIONS: Final = TriggerOptions()


class Made(NamedTuple):
    state: TriggerState
    seen: Observation
    now_ns: int
    size: np.ndarray
    nobody: np.ndarray


def made(symbols: int) -> Made:
    """Return a universe after five sweeps, and the sixth."""
    rng = np.random.default_rng(1)
    price, state, now_ns = rng.uniform(4_000, 500_000, symbols), TriggerState.empty(symbols), 10**18
    for last in range(6):
        price = price * (1 + 0.002 * rng.standard_normal(symbols))
        volume = rng.uniform(0.5, 1.5, symbols) * 1e4
        if last == 5:
            volume[::50] *= 8
        seen = Observation(price, price * 1.003, price * 0.997, volume, np.full(symbols, np.nan))
        now_ns += EVERY_NS
        if last < 5:
            state = observe(state, seen, now_ns, OPTIONS)
    return Made(state, seen, now_ns, rng.random(symbols), np.zeros(symbols, bool))


def sweep(loops: int, at: Made) -> float:
    start = time.process_time()
    for _ in range(loops):
        scores(observe(at.state, at.seen, at.now_ns, OPTIONS), at.nobody, at.now_ns, OPTIONS)
    return time.process_time() - start


def with_slots(loops: int, at: Made) -> float:
    options = SlotOptions()
    before = scores(at.state, at.nobody, at.now_ns, OPTIONS)[0]
    held = dict.fromkeys(decide(before, at.size, {}, at.nobody, at.nobody, SLOTS, at.now_ns, options).held, 0)
    start = time.process_time()
    for _ in range(loops):
        score, _ = scores(observe(at.state, at.seen, at.now_ns, OPTIONS), at.nobody, at.now_ns, OPTIONS)
        decision = decide(score, at.size, held, at.nobody, at.nobody, SLOTS, at.now_ns, options)
        holds = np.zeros(len(score), bool)
        holds[list(decision.held)] = True
        overflow(score, at.size, holds, at.nobody, options.least_score)
    return time.process_time() - start


def numpy_pass(loops: int, at: Made) -> float:
    state = at.state
    columns = [*at.seen, state.seen_ns, state.price, state.volume_rate, state.range_rate, state.warm_s, *state.strength, *state.fired_ns]
    start = time.process_time()
    for _ in range(loops):
        for column in columns:
            column + 1
    return time.process_time() - start


def main() -> None:
    sizes = {f"{number:,} symbols": (partial(made, number), number) for number in (250, 2_500, 25_000)}
    pyperf_main(ROW, {"obs": sweep, "with slots": with_slots, "numpy pass": numpy_pass}, sizes)


if __name__ == "__main__":
    main()
