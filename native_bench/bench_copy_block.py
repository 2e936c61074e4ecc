"""Against a rival: records to a binary COPY block, beside psycopg's Copy.write_row formatting of the same rows.

The rival is given its rows as Python values that were made outside the clock (datetimes, floats, texts), and only formats them:
text, which is what `Copy.write_row` does unless told otherwise. "with conversion" counts the making of those values from the
records as well, which a user of write_row has to do. A binary write_row needs Decimals for NUMERIC and is slower still.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import numpy as np
from psycopg._copy_base import TextFormatter  # what Copy.write_row calls; the public way needs a connection in COPY
from psycopg.adapt import Transformer

from native_bench.inputs import SESSION, tick_rows
from native_bench.rows import Row, Target, pyperf_main
from obs.pg.rows import CODES, COLUMNS, NULLS, copy_block
from obs.record.schema import FLAGS, SCHEMA_VERSION

ROW: Final = Row(
    "copy_block", "records to COPY block", "psycopg Copy.write_row formatting of the same rows", (Target("rate", 5, "write_row"),),
    "10,000 records",
)  # fmt: skip
SIZES: Final = (41, 1000, 10_000)


def values_of(rows: np.ndarray) -> list[tuple[Any, ...]]:
    """Return rows as Python values, in the order of the table's columns."""
    columns: list[list[Any]] = []
    count = len(rows)
    for _, kind, field in COLUMNS:
        if kind == "time":
            columns.append([None if ns == 0 else datetime.fromtimestamp(ns / 1e9, UTC) for ns in rows[field].tolist()])
        elif kind == "code":
            table = [name or None for name in CODES[field]]
            columns.append([table[code] for code in rows[field].tolist()])
        elif kind == "flags":
            columns.append([[name for bit, name in enumerate(FLAGS) if value >> bit & 1] for value in rows[field].tolist()])
        elif kind == "symbol":
            columns.append([symbol.decode() for symbol in rows[field].tolist()])
        elif kind == "numeric":
            columns.append([None if value != value else value for value in rows[field].tolist()])
        elif field in NULLS:
            columns.append([None if value == NULLS[field] else value for value in rows[field].tolist()])
        elif field:
            columns.append(rows[field].tolist())
        else:
            columns.append([{"session_id": SESSION, "provider": "kis", "version": SCHEMA_VERSION}[kind]] * count)
    return list(zip(*columns, strict=True))


def block(loops: int, count: int) -> float:
    rows = tick_rows(count)
    start = time.process_time()
    for _ in range(loops):
        copy_block(rows, SESSION, "kis")
    return time.process_time() - start


def _format(values: list[tuple[Any, ...]]) -> int:
    formatter = TextFormatter(Transformer())
    total = 0
    for row in values:
        total += len(formatter.write_row(row))
    return total + len(formatter.end() or b"")


def write_row(loops: int, count: int) -> float:
    values = values_of(tick_rows(count))
    start = time.process_time()
    for _ in range(loops):
        assert _format(values)
    return time.process_time() - start


def with_conversion(loops: int, count: int) -> float:
    rows = tick_rows(count)
    start = time.process_time()
    for _ in range(loops):
        assert _format(values_of(rows))
    return time.process_time() - start


def main() -> None:
    sides = {"obs": block, "write_row": write_row, "with conversion": with_conversion}
    pyperf_main(ROW, sides, {f"{count:,} records": (partial(int, count), count) for count in SIZES})


if __name__ == "__main__":
    main()
