"""What the event files of the last days tell: gaps, symbols that were heard, and the newest events; each line is read once.

A day file only grows; one that is shorter than what was read of it (a recovery cut it) is read anew. What is kept is bounded, however
much a day brings: the files of KEPT days, and of each at most GAPS of its gaps, the rest counted.

Safety: one thread. A day of a busy market is a hundred thousand lines: not for an event loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from obs.monitor.gaps import Gap, GapFile, is_gap_line, read_gap
from obs.segment.textlog import day_files, json_object, text_lines

KEPT: Final = 6
_BACK_BYTES: Final = 32 << 20  # how far back the newest events are looked for, in a file
_BACK_FILES: Final = 3
_COUNTS: Final = b'{"event_type":"counts"'


def events_folder(data_dir: Path, provider: str) -> Path:
    return data_dir / "system" / "events" / provider


class Heard(NamedTuple):
    """A symbol by its counts: the first and the last minute (ns, their starts) in which it was heard, and inputs."""

    first_ns: int
    last_ns: int
    inputs: int


class Digest(GapFile):
    """One day file: its gaps, and the symbols that were heard."""

    def _clear(self) -> None:
        super()._clear()
        self.heard: dict[str, Heard] = {}

    def _other(self, line: bytes) -> None:
        if line.startswith(_COUNTS) and b'"symbol"' in line[:96]:
            value = json_object(line)
            symbol, minute_ns, inputs = value.get("symbol"), value.get("minute_ns"), value.get("inputs")
            if isinstance(symbol, str) and isinstance(minute_ns, int) and isinstance(inputs, int):
                known = self.heard.get(symbol, Heard(minute_ns, minute_ns, 0))
                self.heard[symbol] = Heard(min(known.first_ns, minute_ns), max(known.last_ns, minute_ns), known.inputs + inputs)

    def lines(self, gaps: Sequence[Gap]) -> Iterator[dict[str, Any]]:
        """Yield the whole lines of gaps of this file. Raises OSError."""
        if not gaps:
            return  # there may be no file
        with self.path.open("rb") as file:
            for gap in gaps:
                file.seek(gap.at)
                yield json_object(file.readline())


class Digests:
    """Those of all providers, the KEPT that were asked for last."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._known: dict[Path, Digest] = {}

    def of(self, provider: str, date: str) -> Digest:
        """Return the digest of a path date, up to now; an empty one if there is no such file. Raises OSError."""
        path = events_folder(self._data_dir, provider) / f"{date}.jsonl"
        digest = self._known.pop(path, None) or Digest(path)
        self._known[path] = digest
        while len(self._known) > KEPT:
            del self._known[next(iter(self._known))]
        return digest.read()

    def after(self, provider: str, date: str) -> str:
        """Return the next path date behind `date` of which there is a file, "" if there is none. Raises OSError."""
        return min((path.stem for path in day_files(events_folder(self._data_dir, provider)) if path.stem > date), default="")


class Notices:
    """The newest events of all providers but counts, and then what is added."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._places: dict[Path, int] = {}  # file -> offset behind what was read, of each provider's newest two

    def begin(self, limit: int) -> list[dict[str, Any]]:
        """Return the last `limit` lines, oldest first, and stand behind them: `read` goes on with the next. Raises OSError."""
        self._places = {path: _whole(path) for path in self._files()}
        newest = self.newest(limit)
        found = newest[::-1] + [line for line in self.read() if line not in newest]  # what was added meanwhile may be in both
        return found[-limit:]

    def read(self) -> list[dict[str, Any]]:
        """Return the lines that were added since, oldest first; of a file that was not there before, all. Raises OSError."""
        found: list[dict[str, Any]] = []
        places: dict[Path, int] = {}
        for path in self._files():
            offset = min(self._places.get(path, 0), path.stat().st_size)
            for end, line in text_lines(path, offset):
                offset = end
                if value := _told(line):
                    found.append(value)
            places[path] = offset
        self._places = places
        return sorted(found, key=moment)

    def _files(self) -> list[Path]:
        """Return the newest two files of each provider: around midnight lines go to both."""
        return [path for provider in self._providers() for path in day_files(events_folder(self._data_dir, provider))[-2:]]

    def newest(self, limit: int) -> list[dict[str, Any]]:
        """Return the last `limit` lines that are no counts, newest first. Raises OSError."""
        found: list[dict[str, Any]] = []
        for provider in self._providers():
            mine: list[dict[str, Any]] = []
            for path in reversed(day_files(events_folder(self._data_dir, provider))[-_BACK_FILES:]):
                mine += _last(path, limit - len(mine))
                if len(mine) >= limit:
                    break
            found += mine
        return sorted(found, key=moment, reverse=True)[:limit]

    def _providers(self) -> list[str]:
        return sorted(path.name for path in events_folder(self._data_dir, "").glob("*") if path.is_dir())


def moment(line: dict[str, Any]) -> str:
    """Return when an event was: ISO texts sort by time."""
    return str(line.get("timestamp") or line.get("gap_end_ts") or "")


def _told(line: bytes) -> dict[str, Any]:
    """Return what a line tells people of, an empty object if that is nothing: counts, and what does not read."""
    if line.startswith(_COUNTS):
        return {}
    try:
        return read_gap(line) if is_gap_line(line) else json_object(line)
    except ValueError:
        return {}


def _whole(path: Path) -> int:
    """Return the offset behind the last newline."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = max(0, size - (64 << 10))
        file.seek(start)
        return start + file.read(size - start).rfind(b"\n") + 1


def _last(path: Path, limit: int) -> list[dict[str, Any]]:
    """Return the last lines of a file that are no counts, newest first."""
    found: list[dict[str, Any]] = []
    with path.open("rb") as file:
        at = file.seek(0, 2)
        rest, floor, ends = b"", max(0, at - _BACK_BYTES), False
        while at > floor and len(found) < limit:
            step = min(1 << 20, at - floor)
            at -= step
            file.seek(at)
            first, *lines = (file.read(step) + rest).split(b"\n")
            if not ends and lines:
                lines.pop()  # behind the last newline: nothing, or a line that is being written
                ends = True
            rest = first
            if at == 0 and ends:
                lines.insert(0, first)
            for line in reversed(lines):
                if value := _told(line):
                    found.append(value)
                    if len(found) == limit:
                        break
    return found
