"""What could not be recorded, and why: the gap lines of system/events, which holds those of all rings and sinks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import orjson

from obs.clock import MINUTE_NS, NS
from obs.record.events import gap_key
from obs.segment.textlog import day_files, text_lines

SEVERITIES: Final = ("brief", "minor", "major", "critical")
GAPS: Final = 20_000  # kept of one day file; the rest is counted
CELLS: Final = 100_000  # of a map: more would not be looked at, and a browser would not bear it
_END_NS: Final = 253_402_300_800 * NS  # of the year 9999: no time and no length is beyond it
_TEXTS: Final = ("gap_start_ts", "gap_end_ts", "scope", "reason", "session_id", "provider", "ring", "severity")
_TEXTS_OR_NULL: Final = ("symbol", "sink", "event_ring")
_COUNTS_OR_NULL: Final = ("event_seq", "first_seq", "last_seq", "lost")
_TIMES: Final = ("gap_start_ns", "gap_end_ns")


def is_gap_line(line: bytes) -> bool:
    """Tell whether a line of a segment or of an event file is a gap marker; other events begin with their type as well."""
    return line.startswith(b'{"event_type":"gap_marker"')


def read_gap(line: bytes) -> dict[str, Any]:
    """Return the value of a gap line of system/events; ValueError, with the key, if a reader could not rely on it.

    Every reader takes gap lines through here: what is valid JSON may still be damage, and what of one key is of another type would
    stop a reader far from where it was read. Words of a newer version are no damage.
    """
    value = orjson.loads(line)
    if not isinstance(value, dict):
        raise ValueError("no object")
    for key in (*_TEXTS, *_TEXTS_OR_NULL):
        if not isinstance(_known(value, key), str) and (key in _TEXTS or value[key] is not None):
            raise ValueError(f"{key} is no text")
    for key in (*_TIMES, *_COUNTS_OR_NULL):
        number = _known(value, key)
        if type(number) is not int and (key in _TIMES or number is not None):  # a bool is an int
            raise ValueError(f"{key} is no whole number")
    seconds = _known(value, "gap_seconds")
    if type(seconds) not in (int, float) or not 0 <= seconds <= _END_NS // NS:
        raise ValueError("gap_seconds is no length of time")
    if not all(0 <= value[key] <= _END_NS for key in _TIMES):
        raise ValueError("gap_start_ns or gap_end_ns is no time")
    return value


def _known(value: dict[str, Any], key: str) -> Any:
    if key not in value:
        raise ValueError(f"{key} is missing")
    return value[key]


def about(line: bytes, symbol: str | None) -> bool:
    """Tell whether a line concerns `symbol`: a record of it, or a gap of it or of all symbols."""
    if symbol is None:
        return True
    if os.fsencode(symbol) not in line and not is_gap_line(line):  # cheap, and right for nearly all lines
        return False
    try:
        found = orjson.loads(line).get("symbol")
    except (ValueError, AttributeError):
        return True  # not for this filter to hide
    return found == symbol or (found is None and is_gap_line(line))


def read_gaps(
    data_dir: Path, provider: str | None, symbol: str | None, unreadable: list[str], day: tuple[str, Callable[[str], int]] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the gap lines of the event files, each key once, in file order; put into `unreadable` what does not read.

    `day`: those of a path date alone, and when that ends for a provider (UTC ns). A line stands in the file of the day in which its gap
    ended: what lasted over days in the next file that there is.
    """
    seen: set[tuple[Any, ...]] = set()
    for path, before_ns in _gap_files(data_dir, provider, day):
        for number, (_, line) in enumerate(text_lines(path), 1):
            if not is_gap_line(line):
                continue
            try:
                gap = read_gap(line)
            except ValueError as error:
                unreadable.append(f"{path}:{number}: {error!r}")
                continue
            key = gap_key(gap)
            if gap["gap_start_ns"] < before_ns and key not in seen and (symbol is None or gap["symbol"] in (None, symbol)):
                seen.add(key)
                yield gap


def _gap_files(data_dir: Path, provider: str | None, day: tuple[str, Callable[[str], int]] | None) -> Iterator[tuple[Path, int]]:
    """Yield the event files in which to look, each with the time before which a gap must have begun."""
    for folder in sorted((data_dir / "system" / "events").glob("*")):
        if provider not in (None, folder.name):
            continue
        files = day_files(folder)
        if day is None:
            yield from ((path, _END_NS + 1) for path in files)
            continue
        date, end_ns_of = day
        yield from ((path, _END_NS + 1) for path in files if path.stem == date)
        yield from [(path, end_ns_of(folder.name)) for path in files if path.stem > date][:1]


class Gap(NamedTuple):
    """What a picture needs of a gap line. `symbol` None: all. `at`: where its line begins in its file. `is_inside`: it names one that
    holds it."""

    start_ns: int
    end_ns: int
    symbol: str | None
    reason: str
    severity: str
    scope: str
    at: int
    is_inside: bool = False


def gap_of(value: dict[str, Any], at: int = 0) -> Gap:
    """Return the gap of a line that `read_gap` has read."""
    start_ns = value["gap_start_ns"]
    return Gap(
        start_ns, max(start_ns, value["gap_end_ns"]), value["symbol"], value["reason"], value["severity"], value["scope"], at,
        value.get("inside") is not None,
    )  # fmt: skip


class GapFile:
    """The gaps of one day file, each key once, read on from where the last call ended. Safety: one thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._clear()

    def _clear(self) -> None:
        self._offset, self._inode = 0, 0
        self._keys: set[tuple[Any, ...]] = set()
        self.gaps: list[Gap] = []
        self.more_gaps = 0  # beyond GAPS
        self.unreadable = 0

    def read(self) -> Self:
        """Take what is new; a file that is shorter than before, or another one, is read anew. Raises OSError."""
        try:
            state = self.path.stat()
        except FileNotFoundError:
            self._clear()
            return self
        if state.st_size < self._offset or (self._inode and state.st_ino != self._inode):
            self._clear()
        self._inode = state.st_ino
        for end, line in text_lines(self.path, self._offset):
            if is_gap_line(line):
                self._gap(line, self._offset)
            else:
                self._other(line)
            self._offset = end
        return self

    def _other(self, line: bytes) -> None:
        """Take a line that is no gap."""

    def _gap(self, line: bytes, at: int) -> None:
        try:
            value = read_gap(line)
        except ValueError:
            self.unreadable += 1
            return
        key = gap_key(value)
        if key in self._keys:
            return
        if len(self.gaps) >= GAPS:
            self.more_gaps += 1
            return
        self._keys.add(key)
        self.gaps.append(gap_of(value, at))


class GapSum(NamedTuple):
    """What gaps of one provider come to. number: those that lie in no other; inside: the rest, whose time is that of those that hold them.

    seconds: how long anything live was missing; of_all_s: how long all symbols were; symbols: how many had gaps of their own; sweeps: how
    many of `number` are of the sweeps, whose bars miss no second of the live track; sweeps_s: how long.
    """

    number: int
    inside: int
    seconds: float
    of_all_s: float
    symbols: int
    sweeps: int
    sweeps_s: float


def gaps_inside(gaps: Sequence[Gap]) -> set[int]:
    """Return the places of gaps of one provider that lie within another of them, or say that they do.

    A sweep that came short explains no lost connection, nor the other way round.
    """
    found = inside([("swing" if gap.scope == "swing" else "", gap.symbol, gap.start_ns, gap.end_ns) for gap in gaps])
    return found | {at for at, gap in enumerate(gaps) if gap.is_inside}


def sum_of(gaps: Sequence[Gap]) -> GapSum:
    """Count gaps of one provider, and add up their time: what several share counts once. Whatever tells a number of gaps asks here.

    A gap that lies inside another is not counted: one lost connection is one gap, however many symbols it has cost a trade.
    """
    within = gaps_inside(gaps)
    kept = [gap for at, gap in enumerate(gaps) if at not in within]
    live, swept = [gap for gap in kept if gap.scope != "swing"], [gap for gap in kept if gap.scope == "swing"]
    return GapSum(
        len(kept), len(within), seconds(gap[:2] for gap in live), seconds(gap[:2] for gap in live if gap.symbol is None),
        len({gap.symbol for gap in live if gap.symbol is not None}), len(swept), seconds(gap[:2] for gap in swept),
    )  # fmt: skip


def inside(spans: Sequence[tuple[str, str | None, Any, Any]]) -> set[int]:
    """Return the places of spans (provider, symbol or None for all, from, to) that lie within another of their symbol or of all."""
    ends: dict[tuple[str, str | None], Any] = {}
    found = set()
    for at in sorted(sorted(range(len(spans)), key=lambda at: spans[at][3], reverse=True), key=lambda at: spans[at][2]):
        provider, symbol, _, end = spans[at]
        known = [ends[key] for key in ((provider, None), (provider, symbol)) if key in ends]
        if known and end <= max(known):
            found.add(at)
        own = ends.get((provider, symbol))
        ends[provider, symbol] = end if own is None else max(own, end)
    return found


class Heat(NamedTuple):
    """Gaps cut at the borders of minutes. all: (minute, seconds, reason, severity); cells: the same behind the index of a symbol."""

    symbols: list[str]
    all: list[tuple[int, float, str, str]]
    cells: list[tuple[int, int, float, str, str]]
    is_whole: bool

    def to_json(self) -> dict[str, Any]:
        return {"symbols": self.symbols, "all": self.all, "cells": self.cells, "whole": self.is_whole}


def heat(gaps: Iterable[Gap], start_ns: int, minutes: int) -> Heat:
    """Return what of each minute from `start_ns` on is missing. Of gaps that share a minute the longest names the reason."""
    by_symbol: dict[str | None, list[Gap]] = {}
    for gap in gaps:
        by_symbol.setdefault(gap.symbol, []).append(gap)
    everything = _minutes(by_symbol.pop(None, []), start_ns, minutes)
    symbols: list[str] = []
    cells: list[tuple[int, int, float, str, str]] = []
    for symbol in sorted(name for name in by_symbol if name is not None):
        found = _minutes(by_symbol[symbol], start_ns, minutes)
        if len(cells) + len(found) > CELLS:
            return Heat(symbols, everything, cells, False)
        if found:
            cells += [(len(symbols), *one) for one in found]
            symbols.append(symbol)
    return Heat(symbols, everything, cells, True)


def _minutes(gaps: list[Gap], start_ns: int, minutes: int) -> list[tuple[int, float, str, str]]:
    pieces: dict[int, list[tuple[int, int, Gap]]] = {}
    end_ns = start_ns + minutes * MINUTE_NS
    for gap in gaps:
        if gap.start_ns >= end_ns or gap.end_ns < start_ns or (gap.end_ns == start_ns and gap.start_ns < start_ns):
            continue
        first = max(0, (gap.start_ns - start_ns) // MINUTE_NS)
        last = min(minutes - 1, max(first, (gap.end_ns - 1 - start_ns) // MINUTE_NS))
        for minute in range(first, last + 1):
            begin = start_ns + minute * MINUTE_NS
            piece = (max(gap.start_ns, begin), min(gap.end_ns, begin + MINUTE_NS), gap)
            pieces.setdefault(minute, []).append(piece)
    found = []
    for minute in sorted(pieces):
        here = pieces[minute]
        longest = max(here, key=lambda piece: (piece[1] - piece[0], piece[2].end_ns - piece[2].start_ns))[2]
        worst = max((piece[2].severity for piece in here), key=_rank)
        found.append((minute, round(seconds(piece[:2] for piece in here), 3), longest.reason, worst))
    return found


def seconds(spans: Iterable[tuple[int, int]]) -> float:
    """Return how long spans (ns, ns) last together; what they share counts once."""
    total, reached = 0, 0
    for start, end in sorted(spans):
        if end > max(start, reached):
            total += end - max(start, reached)
            reached = end
    return total / NS


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)
