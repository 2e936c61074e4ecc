"""One sweep of the trigger engine over 2,500 symbols, beside one numpy pass over the same columns.

The engine (the room `select`) is not part of this version: the row says so, and prints no figure.
"""

from __future__ import annotations

import argparse
import importlib.util
from typing import Final

from native_bench.rows import Result, Row, Target, plain_main

ROW: Final = Row(
    "sweep", "one sweep of the trigger engine, 2,500 symbols", "one numpy pass over the same columns", (Target("time", 10, "numpy pass"),),
    "2,500 symbols",
)  # fmt: skip


def measure(result: Result, fast: bool, _: argparse.Namespace) -> None:
    built = importlib.util.find_spec("obs.select") is not None
    result.missing[""] = "no benchmark of obs.select has been written" if built else "this version has no trigger engine"


if __name__ == "__main__":
    plain_main(ROW, measure)
