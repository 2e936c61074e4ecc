"""Text for a terminal: tables that fit, and colours where somebody is looking. A pipe gets neither colours nor cut lines.

What files hold may be anything: before it is shown to a person it goes through `plain`, as every cell of a table does.
"""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Collection, Sequence
from typing import Final, TextIO

import orjson

COLOURS: Final = {"good": "32", "warning": "33", "wrong": "31", "faint": "2", "bold": "1", "line": "36"}
_CONTROLS: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")  # C0, C1 and DEL; what turns or hides text; halves of letters; ends of lines
_LEAST_COLUMNS: Final = 20  # below it nothing is fitted any more


def is_terminal(stream: TextIO | None = None) -> bool:
    """Tell whether a stream (default: stdout) is a terminal that can do more than print."""
    return (stream or sys.stdout).isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str) -> str:
    """Return `text` in a colour of COLOURS if stdout is a terminal and NO_COLOR is not set."""
    if not is_terminal() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"


def columns() -> int | None:
    """Return how wide the terminal on stdout is, None if it is none: then nothing is fitted."""
    return max(_LEAST_COLUMNS, shutil.get_terminal_size().columns) if sys.stdout.isatty() else None


def table(head: Sequence[str], rows: Sequence[Sequence[object]], right: Collection[str] = ()) -> list[str]:
    """Return the lines of a table; columns named in `right` are aligned to the right, None shows as -. Every cell is plain."""
    cells = [list(head), *[["-" if value is None else plain(str(value)) for value in row] for row in rows]]
    widths = [max(width(row[at]) for row in cells) for at in range(len(head))]
    lines = []
    for row in cells:
        padded = [pad(cell, size, right=name in right) for name, cell, size in zip(head, row, widths, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return lines


def fitted(
    head: Sequence[str], rows: Sequence[Sequence[object]], right: Collection[str], room: int | None, spare: Sequence[str]
) -> list[str]:
    """Return a table that is at most `room` wide, if it can be: columns of `spare` are left out, the first first. None: all of it."""
    kept = list(range(len(head)))
    left_out = iter(spare)
    while True:
        lines = table([head[at] for at in kept], [[row[at] for at in kept] for row in rows], right)
        if room is None or max(map(width, lines)) <= room or (name := next(left_out, None)) is None:
            return lines
        kept = [at for at in kept if head[at] != name]


def plain(text: str) -> str:
    """Return `text` with a visible escape in place of every character that a terminal would obey instead of showing it."""
    if text.isprintable():
        return text
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in _CONTROLS else letter for letter in text
    )


def pad(text: str, size: int, *, right: bool = False) -> str:
    """Return `text` with spaces to a width of `size`, on its left if `right`."""
    spaces = " " * (size - width(text))
    return spaces + text if right else text + spaces


def width(text: str) -> int:
    """Return how many columns a terminal needs for `text`: Korean letters need two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def print_json(value: object) -> None:
    """Print one JSON value on one line."""
    sys.stdout.write(orjson.dumps(value, default=str).decode() + "\n")


def complain(command: str, text: str) -> None:
    """Say on stderr what the output could not show."""
    print("\n".join(map(plain, f"obs {command}: {text}".split("\n"))), file=sys.stderr)
