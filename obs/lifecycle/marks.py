"""The log of marked days of one provider: data/system/days/<provider>.jsonl, one line for each change, never rewritten.

    {"what":"marked","day":20260122,"reason":"reconnects","detail":{"reconnects":23},"provider":"kis","market":"kr_stocks",
     "by":"keeper","ts":"2026-01-22T05:10:00.000Z","ts_ns":…}
    {"what":"unmarked","day":20260122,"reason":"manual",…,"by":"hand",…}

It is the truth: the table anomaly_days follows it, poll tells each of its lines as an event, retention reads it. The keeper and the
commands of a person append to it, so each line is written under a lock of the file, behind its last whole line, and fsynced.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from obs.record.events import iso_ms
from obs.segment.textlog import json_object, text_lines

MARKED: Final = "marked"
UNMARKED: Final = "unmarked"
_TAIL: Final = 64 * 1024  # longer than any line


@dataclass(frozen=True)
class Mark:
    """One reason why one day (YYYYMMDD) is an anomaly. `ts_ns`: when it was marked."""

    provider: str
    market: str
    day: int
    reason: str
    detail: dict[str, Any]
    by: str
    ts_ns: int


@dataclass(frozen=True)
class Change:
    """One line of the log; `end`: the offset behind it."""

    what: str
    mark: Mark
    end: int


def path_of(data_dir: Path, provider: str) -> Path:
    return data_dir / "system" / "days" / f"{provider}.jsonl"


def changes(path: Path, offset: int = 0) -> list[Change]:
    """Return the changes behind `offset`; a line that does not read is passed over."""
    found = []
    for end, line in text_lines(path, offset):
        change = _change(json_object(line), end)
        if change is not None:
            found.append(change)
    return found


def marked(path: Path) -> dict[tuple[int, str], Mark]:
    """Return what is marked now, by day and reason."""
    standing: dict[tuple[int, str], Mark] = {}
    for change in changes(path):
        key = (change.mark.day, change.mark.reason)
        if change.what == MARKED:
            standing[key] = change.mark
        else:
            standing.pop(key, None)
    return standing


def append(path: Path, what: str, mark: Mark) -> bool:
    """Write a change; durable on return. False: it is no change, and nothing was written. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        key = (mark.day, mark.reason)
        if (key in marked(path)) == (what == MARKED):
            return False
        end = _whole(fd)
        os.ftruncate(fd, end)  # what a writer began and did not end is no change
        line = orjson.dumps({
            "what": what, "day": mark.day, "reason": mark.reason, "detail": mark.detail, "provider": mark.provider,
            "market": mark.market, "by": mark.by, "ts": iso_ms(mark.ts_ns), "ts_ns": mark.ts_ns,
        })  # fmt: skip
        os.pwrite(fd, line + b"\n", end)
        os.fsync(fd)
    finally:
        os.close(fd)
    if end == 0:  # Durable: a new file is on disk with its name
        for folder in (path.parent, path.parent.parent):
            place = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(place)
            finally:
                os.close(place)
    return True


def _whole(fd: int) -> int:
    """Return the offset behind the last newline."""
    size = os.fstat(fd).st_size
    start = max(0, size - _TAIL)
    return start + os.pread(fd, size - start, start).rfind(b"\n") + 1


def _change(value: dict[str, Any], end: int) -> Change | None:
    try:
        what, day, reason, detail, ts_ns = value["what"], value["day"], value["reason"], value["detail"], value["ts_ns"]
        texts = (reason, value["provider"], value["market"], value["by"])
    except KeyError:
        return None
    if what not in (MARKED, UNMARKED) or type(day) is not int or type(ts_ns) is not int or not isinstance(detail, dict):
        return None
    if not all(isinstance(text, str) for text in texts):
        return None
    return Change(what, Mark(value["provider"], value["market"], day, reason, detail, value["by"], ts_ns), end)
