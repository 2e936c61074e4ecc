"""Text for a terminal: tables, and colours where somebody is looking."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Sequence
from typing import Final

import orjson

COLOURS: Final = {"good": "32", "warning": "33", "wrong": "31", "faint": "2"}


def paint(text: str, colour: str) -> str:
    """Return `text` in a colour of COLOURS if stdout is a terminal and NO_COLOR is not set."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"


def table(head: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[str] = ()) -> list[str]:
    """Return the lines of a table; columns named in `right` are aligned to the right, None shows as -."""
    cells = [list(head), *[["-" if value is None else str(value) for value in row] for row in rows]]
    widths = [max(_width(row[at]) for row in cells) for at in range(len(head))]
    lines = []
    for row in cells:
        padded = [
            " " * (width - _width(cell)) + cell if name in right else cell + " " * (width - _width(cell))
            for name, cell, width in zip(head, row, widths, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return lines


def print_json(value: object) -> None:
    """Print one JSON value on one line."""
    sys.stdout.write(orjson.dumps(value, default=str).decode() + "\n")


def complain(command: str, text: str) -> None:
    """Say on stderr what the output could not show."""
    print(f"obs {command}: {text}", file=sys.stderr)


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
