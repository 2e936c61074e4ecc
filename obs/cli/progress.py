"""How far long work is, on stderr, for as long as somebody looks at a terminal; what is piped or logged has none of it."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from obs.cli.terminal import is_terminal

Advance = Callable[[float, str], None]


@contextmanager
def progress(what: str, total: float | None, *, unit: str = "", wanted: bool = True) -> Iterator[Advance]:
    """Give a function that is told of each step: how much it was (of `total`, None: not known) and what comes now.

    `unit` "bytes" shows sizes and speed. Where stderr is no terminal, or `wanted` is False, nothing is shown and rich is not loaded.
    """
    if not wanted or not is_terminal(sys.stderr):
        yield _unseen
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

    count: ProgressColumn = DownloadColumn(binary_units=True) if unit == "bytes" else MofNCompleteColumn()
    console = Console(stderr=True, highlight=False)
    shown = Progress(
        TextColumn("{task.description}", markup=False), BarColumn(bar_width=None), count, TimeRemainingColumn(),
        TextColumn("{task.fields[now]}", markup=False), console=console, transient=True, expand=True, redirect_stdout=False,
        redirect_stderr=True,
    )  # fmt: skip
    with shown:
        task = shown.add_task(what, total=total, now="")

        def advance(step: float, now: str) -> None:
            shown.update(task, advance=step, now=now)

        yield advance


@contextmanager
def through(what: str, files: Iterable[Path], *, wanted: bool = True) -> Iterator[Iterable[Path]]:
    """Give `files` back, and show how far their reader is by their sizes. Where nothing is shown they are not listed beforehand."""
    if not wanted or not is_terminal(sys.stderr):
        yield files
        return
    listed = list(files)
    measured = list(sizes(listed))
    with progress(what, sum(measured), unit="bytes") as advance:

        def one_by_one() -> Iterator[Path]:
            for path, size in zip(listed, measured, strict=True):
                advance(0, path.name)
                yield path
                advance(size, path.name)

        yield one_by_one()


def sizes(files: Iterable[Path]) -> Iterator[int]:
    """Yield how large files are, 0 for one that is sealed or removed meanwhile: it is for a bar."""
    for path in files:
        try:
            yield path.stat().st_size
        except OSError:
            yield 0


def _unseen(_: float, __: str) -> None:
    """A step that nobody sees."""


def goes_to_file() -> bool:
    """Tell whether stdout is a file: a bar on the terminal does not stand in the way of anybody's output then."""
    try:
        return stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode)
    except (OSError, ValueError):
        return False
