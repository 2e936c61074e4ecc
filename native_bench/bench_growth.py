"""Growth: cost against 41, 410 and 4,100 symbols, and against 1, 2, 4 and 8 providers; linear or better.

Symbols: the data path of both sides in one process, because no venue allows 4,100 registrations: each symbol has a trade every half
second; a round decodes, counts, folds, samples on the grid, publishes, polls, and makes lines and a COPY block. Providers: the
real processes, as many Upbit sections as said against one simulated exchange each, 41 symbols at 2 Hz; CPU and memory of all
`obs` processes, after the start.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Final

import numpy as np
import orjson

from native_bench.demo import demo
from native_bench.inputs import SESSION, kis_frames, provider_of
from native_bench.rows import Result, Row, Target, plain_main
from obs.config.demo import UPBIT_SYMBOLS
from obs.pg.rows import copy_chunks
from obs.record.jsonl import TickLines
from obs.record.schema import INPUT
from obs.sample import Slots

_OF_SYMBOLS: Final = "CPU per symbol at 4,100 symbols, by that at 41"
_OF_PROVIDERS: Final = "CPU per provider at 8 providers, by that at 1"
ROW: Final = Row(
    "growth", "growth", "linear growth", (Target("at_most", 1.0, of=_OF_SYMBOLS), Target("at_most", 1.0, of=_OF_PROVIDERS)),
    items="", clock="CPU",
)  # fmt: skip


def symbols_cost(count: int, seconds: int) -> float:
    """Return the CPU seconds of one second of `count` symbols."""
    symbols = [f"{place:06d}" for place in range(count)]
    provider = provider_of("kis", ("trade",))
    context, slots, lines = provider.context(symbols), Slots(symbols, "kr_stocks", "krx"), TickLines("kis", SESSION)
    frames = kis_frames(count, 1, tuple(symbols))
    out = np.zeros(3072, INPUT)
    every = np.arange(1, count + 1)
    spent = time.process_time()
    for half in range(2 * seconds):
        at = 0
        for frame in frames:
            at += provider.decode(frame, half, context, out, at)[0]
            if at >= 2048:
                slots.fold(out[:at])
                at = 0
        slots.fold(out[:at])
        records = slots.emit(half, 0, every)
        lines.encode(records)
        for _ in copy_chunks(records, SESSION, "kis"):
            pass
    return (time.process_time() - spent) / seconds


def providers_cost(count: int, settle_s: float, span_s: float) -> tuple[float, float]:
    """Return (CPU seconds per second, PSS in MB) of `count` providers."""
    with ExitStack() as stack:
        tables: dict[str, dict[str, object]] = {}
        for place in range(count):
            words = [sys.executable, "-m", "obs.sim", "upbit", "--port", "0", "--rate", "100", "--seed", str(place), "--die-with-parent"]
            venue = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            stack.callback(venue.wait)
            stack.callback(venue.terminate)
            assert venue.stdout is not None
            stack.enter_context(venue.stdout)
            port = orjson.loads(venue.stdout.readline())["port"]
            tables[f"providers.u{place}"] = {
                "type": "upbit", "rest_url": f"http://127.0.0.1:{port}", "ws_url": f"ws://127.0.0.1:{port}", "symbols": UPBIT_SYMBOLS,
                "mode": "sample", "hours": "always",
            }  # fmt: skip
        one = stack.enter_context(demo({**tables, "ring": {"capacity": 16384}}, words=()))
        rings = one.started(tuple(f"u{place}" for place in range(count)))
        time.sleep(settle_s)
        before, begun = one.cpu_s(), time.monotonic()
        time.sleep(span_s)
        after, took = one.cpu_s(), time.monotonic() - begun
        pss = one.pss_mb()
        for ring in rings.values():
            ring.close()
        return sum(spent - before.get(pid, 0.0) for pid, spent in after.items()) / took, pss


def measure(result: Result, fast: bool, _args: argparse.Namespace) -> None:
    counts, rounds = ((41, 410), 1) if fast else ((41, 410, 4100), 5)
    costs: dict[int, list[float]] = {count: [] for count in counts}
    symbols_cost(41, 1)  # warm
    for _ in range(rounds):
        for count in counts:
            costs[count].append(symbols_cost(count, 1 if fast else max(1, 4100 // count // 5)))
    result.series["CPU s per s, by symbols"] = [(count, float(np.median(values))) for count, values in costs.items()]
    few, many = costs[counts[0]], costs[counts[-1]]
    name = _OF_SYMBOLS if not fast else f"CPU per symbol at {counts[-1]:,} symbols, by that at 41"
    result.figures[name] = [b / counts[-1] / (a / counts[0]) for a, b in zip(few, many, strict=True)]
    found = {count: providers_cost(count, *((0.0, 1.5) if fast else (6.0, 15.0))) for count in ((1,) if fast else (1, 2, 4, 8))}
    result.series["CPU s per s, by providers"] = [(count, cpu) for count, (cpu, _) in found.items()]
    result.series["PSS in MB, by providers"] = [(count, pss) for count, (_, pss) in found.items()]
    if 8 in found:
        result.figures[_OF_PROVIDERS] = [found[8][0] / 8 / found[1][0]]
    else:
        result.missing[_OF_PROVIDERS] = "--fast runs one provider"
        result.missing[_OF_SYMBOLS] = "--fast stops at 410 symbols"


if __name__ == "__main__":
    plain_main(ROW, measure)
