"""`obs tail`: the newest lines of the archive, and with -f the next ones as they become durable.

A line is shown once it is archived, that is at most [archive] flush_s plus POLL_S after its publication. Files are looked
at every POLL_S: open segments are read on from where their last whole frame ended, new ones are found by listing the two
newest day folders. Order: whether a file is sealed is asked before it is read to its end, never after, or its last frames
would be missed. On a terminal lines are shown in columns, with the gaps of system/events among them; a pipe, a file and --json get
the archive's lines as they were recorded, and nothing else.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import time
from collections import deque
from pathlib import Path
from typing import Final

from obs.cli import archive
from obs.cli.columns import Columns
from obs.cli.gap_tail import GapTail
from obs.cli.terminal import columns, complain, paint
from obs.config import Config
from obs.errors import EXIT_GOOD, EXIT_UNKNOWN
from obs.segment.format import OPEN_SUFFIX, Series, next_frame, read_frame

HELP: Final = "print the newest recorded lines, and follow"
EXAMPLES: Final = """\
  obs tail -f --symbol 005930                 in columns: time, symbol, price, change, volume, bid and ask, quality; gaps marked
  obs tail -f --json --symbol 005930          the lines as they were recorded, as a pipe gets them too
  obs tail -n 100 --provider kis | jq .symbol"""
EXITS: Final = {EXIT_GOOD: "printed; with -f: interrupted", EXIT_UNKNOWN: "there is nothing to read"}
POLL_S: Final = 0.2
_CHUNK_BYTES: Final = 4 << 20
_WHEN: Final = re.compile(rb'"(?:ts|gap_end_ts)":"([^"]+)"')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--follow", action="store_true", help="go on with new lines until interrupted")
    parser.add_argument("-n", "--lines", metavar="N", type=_count, default=10, help="how many of the newest lines first (default: 10)")
    archive.add_filters(parser, date=False)


def run(args: argparse.Namespace, config: Config) -> int:
    """Print the newest lines in the order of their time; with --follow, wait also for a collector that has yet to start."""
    if not args.follow:
        archive.require(config.data_dir, args.provider)
    shown = not args.json and sys.stdout.isatty()
    show = _Screen().show if shown else _print
    gaps = GapTail(config.data_dir, args.provider, args.symbol)
    followers: dict[Path, SeriesTail] = {}
    newest = [line for tail in _join(config, args.provider, followers) for line in tail.begin(args.lines, args.symbol)]
    newest.sort(key=_when)
    newest = newest[len(newest) - args.lines :] if args.lines < len(newest) else newest
    if shown and (missed := gaps.read()) and newest:
        newest = sorted([*newest, *(line for line in missed if _when(line) >= _when(newest[0]))], key=_when)
    show(newest)
    if not args.follow:
        if followers and args.symbol is not None and args.lines and not newest:
            complain("tail", f"nothing was recorded of {args.symbol} in the two newest days")
        return EXIT_GOOD if followers else EXIT_UNKNOWN
    try:
        while True:
            time.sleep(POLL_S)
            _join(config, args.provider, followers)
            for tail in followers.values():
                show([line for line in tail.read() if archive.about(line, args.symbol)])
            if shown:
                show(gaps.read())
    except KeyboardInterrupt:
        return EXIT_GOOD


def _join(config: Config, provider: str | None, followers: dict[Path, SeriesTail]) -> list[SeriesTail]:
    """Add the series that have appeared; return the new ones."""
    added = []
    for series in archive.series_of(config.data_dir, "scalp", provider):
        if series.folder not in followers:
            followers[series.folder] = SeriesTail(series)
            added.append(followers[series.folder])
    return added


def _print(lines: list[bytes]) -> None:
    if lines:
        sys.stdout.buffer.write(b"\n".join(lines) + b"\n")
        sys.stdout.buffer.flush()


class _Screen:
    """Shows lines in columns, and their names once a screenful."""

    def __init__(self) -> None:
        self._columns = Columns(0)
        self._left = 0  # lines until the names are due again

    def show(self, lines: list[bytes]) -> None:
        for line in lines:
            self._columns.room = columns() or 0  # the terminal may have been resized
            text, colour = self._columns.line(line)
            if self._left <= 0:
                print(paint(self._columns.head(), "bold"))
                self._left = max(5, shutil.get_terminal_size().lines - 2)
            print(paint(text, colour) if colour else text)
            self._left -= 1
        sys.stdout.flush()


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of lines")
    return min(int(text), sys.maxsize)


def _when(line: bytes) -> bytes:
    found = _WHEN.search(line)
    return found[1] if found else b""


class SeriesTail:
    """Reads what is appended to one series, in any of its newest segments."""

    def __init__(self, series: Series) -> None:
        self._series = series
        self._growing: dict[Path, _Growing] = {}  # by sealed name
        self._known: set[Path] = set()  # sealed names of all files that are, or have been, read

    def begin(self, count: int, symbol: str | None) -> list[bytes]:
        """Return the last `count` lines about `symbol` of the two newest days, oldest first, and stand at the end."""
        newest: list[list[bytes]] = []
        missing = count
        for path in reversed(self._files()):
            growing = self._open(path)
            if growing is None:
                continue
            if missing > 0 or not growing.sealed:
                kept: deque[bytes] = deque((line for line in growing.read() if archive.about(line, symbol)), maxlen=max(0, missing))
                newest.append(list(kept))
                missing -= len(kept)
            if growing.sealed:
                self._close(growing)
        return [line for lines in reversed(newest) for line in lines]

    def read(self) -> list[bytes]:
        """Return all lines that have been added since, files in the order of their opening."""
        lines: list[bytes] = []
        for path in self._files():
            if path not in self._known:
                self._open(path)
        for growing in sorted(self._growing.values(), key=lambda growing: archive.opening(growing.path)):
            growing.sealed = growing.sealed or not growing.path.with_name(growing.path.name + OPEN_SUFFIX).exists()
            lines += growing.read()
            if growing.sealed:
                self._close(growing)
        return lines

    def _files(self) -> list[Path]:
        """Return the sealed names of the segments of the two newest days: midnight is between them."""
        found = [path for folder in self._series.day_folders()[-2:] for path in archive.segments(folder)]
        return [path.with_name(path.name.removesuffix(OPEN_SUFFIX)) for path in found]

    def _open(self, path: Path) -> _Growing | None:
        if path in self._known:
            return None
        for candidate in (path.with_name(path.name + OPEN_SUFFIX), path):
            try:
                descriptor = os.open(candidate, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            self._known.add(path)
            self._growing[path] = _Growing(path, descriptor, sealed=candidate == path)
            return self._growing[path]
        return None

    def _close(self, growing: _Growing) -> None:
        os.close(growing.descriptor)
        del self._growing[growing.path]


class _Growing:
    """One open descriptor of a segment; sealing renames the file and does not disturb it."""

    def __init__(self, path: Path, descriptor: int, *, sealed: bool) -> None:
        self.path, self.descriptor, self.sealed = path, descriptor, sealed
        self._offset = 0  # of the first byte of `_data`
        self._data = b""

    def read(self) -> list[bytes]:
        """Return the lines of every whole frame from where the last call ended."""
        lines: list[bytes] = []
        while chunk := os.pread(self.descriptor, _CHUNK_BYTES, self._offset + len(self._data)):
            self._data += chunk
            at = 0
            while at < len(self._data):
                end, raw, _ = read_frame(self._data, at)
                if end < 0:
                    # A write in progress, or damage: only a whole frame further on tells that it is damage.
                    end = next_frame(self._data, at + 1)
                    if end == len(self._data):
                        break
                    complain("tail", f"{self.path}: {end - at} bytes at offset {self._offset + at} do not read")
                else:
                    lines += raw[:-1].split(b"\n")
                at = end
            self._offset, self._data = self._offset + at, self._data[at:]
        return lines
