"""The gap lines of system/events as they come: of losses before the rings, which no segment tells of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson

from obs.monitor.gaps import about, is_gap_line
from obs.segment.textlog import text_lines


class GapTail:
    """Reads what is appended to the newest event files; a gap of a sink is in a segment too, and left to that."""

    def __init__(self, data_dir: Path, provider: str | None, symbol: str | None) -> None:
        self._folder, self._provider, self._symbol = data_dir / "system" / "events", provider, symbol
        self._offsets: dict[Path, int] = {}

    def read(self) -> list[bytes]:
        """Return the gap lines since the last call; of the first, all of the two newest days."""
        return [line for path in self._files() for line in self._new(path)]

    def _files(self) -> Iterator[Path]:
        for folder in sorted(self._folder.glob(self._provider or "*")):
            yield from sorted(folder.glob("*.jsonl"))[-2:]  # midnight is between them

    def _new(self, path: Path) -> Iterator[bytes]:
        for offset, line in text_lines(path, self._offsets.get(path, 0)):
            self._offsets[path] = offset
            if is_gap_line(line) and about(line, self._symbol) and _before_the_rings(line):
                yield line


def _before_the_rings(line: bytes) -> bool:
    try:
        return orjson.loads(line)["sink"] is None
    except (ValueError, KeyError):
        return True  # not for us to hide
