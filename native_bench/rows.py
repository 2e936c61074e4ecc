"""What a row of the table is, and the two ways to measure one: with pyperf, or by a function of its own.

A row has sides, `obs` and what stands beside it, each measured at every size of its ladder. Times are CPU seconds of the whole
process, threads included, where a row computes (on a machine with other work, wall time measures the others); rows that
wait for a disk, a database or a socket say which seconds they take. Rounds alternate between the sides, so that a change of
the machine's mood meets all of them; a ratio is made of the medians of one round, never across rounds.

Invariant: a figure exists only if it was measured. A side that cannot run leaves its reason in `missing` instead.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import pyperf

OURS: Final = "obs"
INHERITED: Final = ("OBS_RECORDINGS", "PYTHONPATH", "HOME", "TMPDIR")  # by pyperf's workers
Timed = Callable[[int, Any], float]  # (loops, size) -> seconds of all loops


@dataclass(frozen=True)
class Target:
    """rate: rival's time / ours is at least `bound`; time: ours / rival's is at most it; value: our figure is at most (least) it."""

    kind: Literal["rate", "time", "at_most", "at_least"]
    bound: float
    rival: str = ""
    of: str = ""  # value rows: the figure that is judged

    def reached(self, value: float) -> bool:
        return value <= self.bound if self.kind in ("time", "at_most") else value >= self.bound

    @property
    def text(self) -> str:
        bound = f"{self.bound:,g}"
        return {
            "rate": f"at least {bound}x its rate", "time": f"at most {bound}x its time", "at_most": f"at most {bound}",
            "at_least": f"at least {bound}",
        }[self.kind]  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One row: `what` is measured, in `unit` per item; `judged` is the size by which its targets are judged."""

    key: str
    what: str
    beside: str
    targets: tuple[Target, ...] = ()
    judged: str = ""
    unit: str = "s"
    items: str = "records"
    clock: str = "CPU"


@dataclass
class Result:
    """What was measured of a row. `samples`: size -> side -> rounds of values (seconds per item). `figures`: what is no time per item."""

    row: Row
    samples: dict[str, dict[str, list[list[float]]]] = field(default_factory=dict)
    figures: dict[str, list[float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)  # side or figure, or "" for the whole row -> why it was not measured
    notes: list[str] = field(default_factory=list)
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)  # for the picture: name -> points

    def add(self, size: str, side: str, values: Sequence[float], new_round: bool = True) -> None:
        rounds = self.samples.setdefault(size, {}).setdefault(side, [])
        if new_round or not rounds:
            rounds.append([])
        rounds[-1] += values

    def merge(self, other: Result) -> None:
        """Add the rounds of another run of the same row."""
        for size, sides in other.samples.items():
            for side, rounds in sides.items():
                self.samples.setdefault(size, {}).setdefault(side, []).extend(rounds)
        for name, values in other.figures.items():
            self.figures.setdefault(name, []).extend(values)
        for name, points in other.series.items():
            self.series.setdefault(name, []).extend(points)
        self.missing |= other.missing
        self.notes += [note for note in other.notes if note not in self.notes]

    def middle(self, size: str, side: str) -> float | None:
        """Return the median of the rounds' medians, None if nothing was measured."""
        rounds = [values for values in self.samples.get(size, {}).get(side, []) if values]
        return statistics.median(map(statistics.median, rounds)) if rounds else None

    def ratios(self, size: str, target: Target) -> list[float]:
        """Return the ratio of each round, as the target tells it."""
        sides = self.samples.get(size, {})
        found = []
        for ours, theirs in zip(sides.get(OURS, []), sides.get(target.rival, []), strict=False):
            if ours and theirs and statistics.median(ours) > 0:
                ratio = statistics.median(theirs) / statistics.median(ours)
                found.append(ratio if target.kind == "rate" else 1 / ratio)
        return found

    def judged_size(self, _target: Target) -> str:
        """Return the size by which the row is judged: the chosen one, else (no recordings, --fast) the last that was measured."""
        return self.row.judged if self.row.judged in self.samples else next(reversed(self.samples), "")

    def judged(self, target: Target) -> list[float]:
        """Return what the target is judged by, one value for each round; empty if it was not measured."""
        if target.kind in ("rate", "time"):
            return self.ratios(self.judged_size(target), target)
        return self.figures.get(target.of, [])

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Result:
        row = dict(value["row"])
        row["targets"] = tuple(Target(**target) for target in row["targets"])
        return cls(**{**value, "row": Row(**row)})


def pyperf_main(
    row: Row, sides: Mapping[str, Timed], sizes: Mapping[str, tuple[Callable[[], Any], int]], missing: Mapping[str, str] | None = None
) -> None:
    """Measure each side at each size with pyperf. `sizes`: name -> (makes the argument of the side, items per loop).

    An argument is made only where it is measured: each value is measured in a process of its own, which has no need of the others.
    With `--row-out FILE` one round is written as a Result; all other options are pyperf's.
    """
    out = _take_row_out()
    if not any(word.startswith(("--inherit-environ", "--worker")) for word in sys.argv):
        sys.argv.append(f"--inherit-environ={','.join(INHERITED)}")
    module = f"native_bench.{Path(sys.argv[0]).stem}"
    runner = pyperf.Runner(program_args=("-m", module))
    result = Result(row, missing=dict(missing or {}))
    for size, (make, items) in sizes.items():
        made = cache(make)
        for side, timed in sides.items():
            bench = runner.bench_time_func(f"{row.key}: {side}, {size}", _with_made, timed, made, inner_loops=items)
            if bench is not None and not runner.args.worker:
                result.add(size, side, list(bench.get_values()))
    if out is not None and not runner.args.worker:
        write(out, result)


def _with_made(loops: int, timed: Timed, made: Callable[[], Any]) -> float:
    return timed(loops, made())


def plain_main(
    row: Row,
    measure: Callable[[Result, bool, argparse.Namespace], None],
    more: Callable[[argparse.ArgumentParser], None] | None = None,
) -> None:
    """Measure a row by its own function: measure(result, fast, arguments) fills the result."""
    parser = argparse.ArgumentParser(description=row.what)
    parser.add_argument("--fast", action="store_true", help="only show that it runs: times mean nothing")
    parser.add_argument("--row-out", type=Path, metavar="FILE", help="write the result here instead of printing it")
    if more is not None:
        more(parser)
    arguments = parser.parse_args()
    result = Result(row)
    measure(result, arguments.fast, arguments)
    if arguments.row_out is not None:
        write(arguments.row_out, result)
    else:
        print(json.dumps(result.to_json(), indent=1))


def write(path: Path, result: Result) -> None:
    path.write_text(json.dumps(result.to_json()))


def _take_row_out() -> Path | None:
    if "--row-out" not in sys.argv:
        return None
    at = sys.argv.index("--row-out")
    path = Path(sys.argv[at + 1])
    del sys.argv[at : at + 2]
    return path
