"""Run every row, or those named, and keep what was measured: results.json, results.md, ratios.png."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from native_bench import machine, report
from native_bench.rows import Result

ROUNDS: Final = 5
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


def run_row(name: str, fast: bool, rounds: int) -> Result | str:
    """Return what was measured of a row, or why nothing was."""
    options = (_PYPERF_FAST if fast else _PYPERF) if name in WITH_PYPERF else ("--fast",) if fast else ()
    result: Result | None = None
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "row.json")
        for _ in range(1 if fast or name in PLAIN else rounds):
            out.unlink(missing_ok=True)
            words = [sys.executable, "-m", f"native_bench.bench_{name}", *options, "--row-out", str(out)]
            done = subprocess.run(words, cwd=_REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
            if done.returncode or not out.exists():
                return f"exit code {done.returncode}: {done.stderr.strip()[-2000:]}"
            found = read(out)
            if result is None:
                result = found
            else:
                result.merge(found)
    assert result is not None
    return result


def read(path: Path) -> Result:
    return Result.from_json(json.loads(path.read_text()))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m native_bench", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"some of: {', '.join(ORDER)}")
    parser.add_argument("--fast", action="store_true", help="only show that every benchmark runs: its times mean nothing")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of the rows with pyperf ({ROUNDS})")
    parser.add_argument("--out", type=Path, default=Path("native_bench_results"), metavar="DIR", help="for results (native_bench_results)")
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - set(ORDER):
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ORDER)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    facts = machine.description()
    results, failed = [], {}
    for name in [name for name in ORDER if not arguments.rows or name in arguments.rows]:
        begun = time.monotonic()
        found = run_row(name, arguments.fast, arguments.rounds)
        took = time.monotonic() - begun
        if isinstance(found, str):
            failed[name] = found
            print(f"{name}: failed after {took:.0f} s: {found}", file=sys.stderr, flush=True)
        else:
            results.append(found)
            print(f"{name}: {took:.0f} s", file=sys.stderr, flush=True)
    facts["load_at_end"] = [round(load, 2) for load in os.getloadavg()]
    facts["failed"] = failed
    report.write_json(arguments.out / "results.json", facts, results)
    text = report.write_markdown(arguments.out / "results.md", facts, results, arguments.fast)
    try:
        report.draw(arguments.out / "ratios.png", facts, results, arguments.fast)
    except ImportError as error:
        print(f"no picture: {error}", file=sys.stderr)
    print(text)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
