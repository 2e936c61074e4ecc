"""Run every row, or those named, and keep what was measured: results.json, results.md, ratios.png.

A whole run takes about half an hour on a quiet machine of two cores; no row may take more than LIMIT_S. `--publish` runs nothing: it
keeps the results of a whole run in native_bench/results and puts their table into the README, so that nobody types a figure.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from native_bench import machine, report
from native_bench.rows import Result

ROUNDS: Final = 5
LIMIT_S: Final = 420.0  # for a row; one that has measured at least a round by then is cut short, and says so
_UNWIND_S: Final = 60.0  # for a row that is interrupted to end the processes it has started
# In the order of the table. With pyperf: all sides and sizes of a row in each round. Plain ones have rounds of their own.
WITH_PYPERF: Final = (
    "ring", "ring_single", "decode_kis", "decode_upbit", "upbit_published", "jsonl", "segment", "copy_block", "sweep",
)  # fmt: skip
PLAIN: Final = ("socket", "loader", "loader_insert", "latency", "system", "tape", "growth", "memory")
ORDER: Final = (
    "ring", "ring_single", "decode_kis", "decode_upbit", "upbit_published", "socket", "jsonl", "segment", "copy_block", "loader",
    "loader_insert", "latency", "system", "tape", "sweep", "growth", "memory",
)  # fmt: skip
_PYPERF: Final = ("--quiet", "--processes=2", "--values=3", "--warmups=1", "--min-time=0.05")
_PYPERF_FAST: Final = ("--quiet", "--debug-single-value")
_REPOSITORY: Final = Path(__file__).parents[1]
README: Final = _REPOSITORY / "README.md"
KEPT: Final = Path(__file__).parent / "results"


def run_row(name: str, fast: bool, rounds: int, minutes: float | None = None) -> Result | str:
    """Return what was measured of a row, or why nothing was. `minutes`: how long the row "memory" looks, if not as usual."""
    options: tuple[str, ...] = (_PYPERF_FAST if fast else _PYPERF) if name in WITH_PYPERF else ("--fast",) if fast else ()
    limit_s = LIMIT_S
    if name == "memory" and minutes is not None and not fast:
        options, limit_s = (*options, f"--minutes={minutes}"), LIMIT_S + 60 * minutes
    result: Result | None = None
    end = time.monotonic() + limit_s
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "row.json")
        for done in range(1 if fast or name in PLAIN else rounds):
            out.unlink(missing_ok=True)
            words = [sys.executable, "-m", f"native_bench.bench_{name}", *options, "--row-out", str(out)]
            failure = _run(words, end - time.monotonic())
            if failure == "" and out.exists():
                found = read(out)
            elif failure is None and result is not None:
                result.notes.append(f"cut short after {limit_s:.0f} s: {done} rounds of {rounds}")
                return result
            else:
                return f"not done in {limit_s:.0f} s" if failure is None else failure or "it wrote no result"
            if result is None:
                result = found
            else:
                result.merge(found)
    assert result is not None
    return result


def _run(words: list[str], timeout_s: float) -> str | None:
    """Run a program; return "" if it went well, how it failed, or None if it was not done in time."""
    child = subprocess.Popen(
        words, cwd=_REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,  # Ctrl-C reaches it through us, once
    )  # fmt: skip
    try:
        _, errors = child.communicate(timeout=max(timeout_s, 0.1))
    except BaseException as error:
        child.send_signal(signal.SIGINT)  # it ends what it has started
        try:
            child.communicate(timeout=_UNWIND_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            return None
        raise
    return f"exit code {child.returncode}: {errors.strip()[-2000:]}" if child.returncode else ""


def read(path: Path) -> Result:
    return Result.from_json(json.loads(path.read_text()))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m native_bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"some of: {', '.join(ORDER)}")
    parser.add_argument("--fast", action="store_true", help="only show that every benchmark runs: its times mean nothing")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of the rows with pyperf ({ROUNDS})")
    parser.add_argument("--minutes", type=float, help='how long the row "memory" looks, for example 60')
    parser.add_argument("--out", type=Path, default=Path("native_bench_results"), metavar="DIR", help="for results (native_bench_results)")
    parser.add_argument("--publish", action="store_true", help="run nothing: put the results of --out into the README")
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - set(ORDER):
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ORDER)}")
    if arguments.publish:
        return publish(arguments.out, README, KEPT)
    arguments.out.mkdir(parents=True, exist_ok=True)
    facts = machine.description()
    facts["fast"] = arguments.fast
    results, failed = [], {}
    begun = time.monotonic()
    for name in [name for name in ORDER if not arguments.rows or name in arguments.rows]:
        started = time.monotonic()
        found = run_row(name, arguments.fast, arguments.rounds, arguments.minutes)
        took = time.monotonic() - started
        if isinstance(found, str):
            failed[name] = found
            print(f"{name}: failed after {took:.0f} s: {found}", file=sys.stderr, flush=True)
        else:
            results.append(found)
            print(f"{name}: {took:.0f} s", file=sys.stderr, flush=True)
    facts["load_at_end"] = [round(load, 2) for load in os.getloadavg()]
    facts["minutes"] = round((time.monotonic() - begun) / 60, 1)
    facts["failed"] = failed
    report.write_json(arguments.out / "results.json", facts, results)
    text = report.write_markdown(arguments.out / "results.md", facts, results)
    try:
        report.draw(arguments.out / "ratios.png", facts, results)
    except ImportError as error:
        print(f"no picture: {error}", file=sys.stderr)
    print(text)
    return 1 if failed else 0


def publish(out: Path, readme: Path, kept: Path) -> int:
    """Keep the results of a whole run and put their table between the marks of the README; return the exit code."""
    facts, results = report.read_json(out / "results.json")
    if facts["fast"] or facts["failed"] or len({result.row.key for result in results}) != len(ORDER):
        print("these results are not of a whole run: nothing was changed", file=sys.stderr)
        return 1
    head, mark, rest = readme.read_text().partition(report.BEGIN)
    _, closing, tail = rest.partition(report.END)
    if not (mark and closing):
        print(f"{readme}: no marks {report.BEGIN} and {report.END}", file=sys.stderr)
        return 1
    kept.mkdir(exist_ok=True)
    for name in ("results.json", "results.md", "ratios.png"):
        shutil.copyfile(out / name, kept / name)
    readme.write_text(head + report.readme_part(facts, results) + tail)
    return 0


if __name__ == "__main__":
    sys.exit(main())
