"""The figures of a run: written by the tests as JSON lines, and from there into the table of README.md by this command.

    OBS_FAULT_FIGURES=figures.jsonl OBS_FAULT_LONG=1 python -m pytest tests/fault
    python tests/fault/figures.py figures.jsonl             # rewrite the table
    python tests/fault/figures.py --show figures.jsonl      # print it only

A row of the table sums up the tests that it names. Rows of which a run says nothing keep what they had, so that the table can be
brought up to date in parts; of a test that ran twice the last run counts.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

README = Path(__file__).with_name("README.md")
COLUMNS = ("fault", "test", "injected", "records moved", "lost, in gap rows", "invented", "recovery p50 / p99", "date")
_RULE = re.compile(r"^\|[-|]+\|$")
_TOKEN = re.compile(r"`([^`]+)`")
_SHOWN_KINDS = 3

Row = dict[str, Any]


def note(
    test: str, seed: int, *, long: bool, faults: dict[str, int], moved: int = 0, lost: int = 0, invented: int = 0, **more: Any
) -> None:
    """Append the figures of one test to the file that OBS_FAULT_FIGURES names, if it does. `more`: recovery_s by kind, and others."""
    path = os.environ.get("OBS_FAULT_FIGURES")
    if path:
        facts = {"test": test, "date": datetime.now(UTC).strftime("%Y-%m-%d"), "seed": seed, "form": "long" if long else "short"}
        facts |= {"faults": faults, "moved": moved, "lost": lost, "invented": invented, **more}
        with open(path, "ab") as file:
            file.write(orjson.dumps(facts) + b"\n")


def this_test() -> str:
    """Return the name of the test that runs, as the table names it: `file.py::test[parameters]`."""
    return os.environ.get("PYTEST_CURRENT_TEST", "?").rpartition(" (")[0].rpartition("/")[2]


def quantile(values: list[float], share: float) -> float:
    """Return the smallest of `values` that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def spread(values: list[float]) -> str:
    """Return median and 99th percentile, and of how many."""
    return f"{quantile(values, 0.5):.1f} / {quantile(values, 0.99):.1f} s"


def read(paths: Iterable[Path]) -> dict[str, Row]:
    """Return the last figures of each test (and of each demo in it)."""
    found: dict[str, Row] = {}
    for path in paths:
        for line in path.read_bytes().splitlines():
            row = orjson.loads(line)
            found[f"{row['test']} {row.get('demo', '')}"] = row
    return found


def named(cell: str) -> list[str]:
    """Return the tests that a cell names: `file.py`, `file.py::test`, `test` of the file before, a * at the end for any."""
    found, file = [], ""
    for token in _TOKEN.findall(cell):
        name = token.partition("::")[0]
        if name.endswith(".py"):
            file = name
            found.append(token)
        elif file:
            found.append(f"{file}::{name}")
    return found


def belongs(test: str, name: str) -> bool:
    """Whether a test is one that `name` stands for."""
    if name.endswith("*"):
        return test.startswith(name[:-1])
    return test == name or test.startswith((f"{name}[", f"{name}::"))


def cells_of(rows: list[Row]) -> list[str]:
    """Return the figures of a table row."""
    faults: Counter[str] = Counter()
    times: list[float] = []
    for row in rows:
        faults.update(row["faults"])
        for values in row.get("recovery_s", {}).values():
            times += values
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(faults.items()))
    injected = kinds if len(faults) <= _SHOWN_KINDS else f"{faults.total():,} of {len(faults)} kinds"
    dates = max(row["date"] for row in rows) + (" (short)" if any(row["form"] == "short" for row in rows) else "")
    counts = [f"{sum(row[key] for row in rows):,}" for key in ("moved", "lost", "invented")]
    return [injected, *counts, spread(times) if times else "", dates]


def line_of(cells: list[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def rewritten(text: str, figures: dict[str, Row]) -> str:
    """Return the text with the figures in the table that begins with the columns `fault` and `test`."""
    lines, inside = [], False
    for line in text.split("\n"):
        if line.startswith("| fault | test |"):
            inside = True
            lines.append(line_of(list(COLUMNS)))
        elif inside and _RULE.match(line):
            lines.append("|" + "---|" * len(COLUMNS))
        elif inside and line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            cells += [""] * (len(COLUMNS) - len(cells))
            names = named(cells[1])
            rows = [row for row in figures.values() if any(belongs(row["test"], name) for name in names)]
            lines.append(line_of(cells[:2] + (cells_of(rows) if rows else cells[2:])))
        else:
            inside = False
            lines.append(line)
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="+", type=Path, help="what OBS_FAULT_FIGURES named")
    parser.add_argument("--show", action="store_true", help="print the table, change nothing")
    given = parser.parse_args()
    before = README.read_text()
    after = rewritten(before, read(given.figures))
    if given.show:
        table = after.partition("| fault | test |")
        print(table[1] + table[2].partition("\n\n")[0])
    elif after != before:
        README.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
