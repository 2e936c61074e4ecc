"""Plain-text files of lines that operators tail: system/events, overflow, quarantine, rejected rows.

Lines are buffered by `append` and made durable by `flush`, in the order they were appended: if a flush touches two day files,
the first is durable before the second is written, so what is on disk is always a prefix. One process writes a file.

Recovery happens when a file is opened for appending: it is cut behind its last newline (or before its first NUL byte, which
is what a lost page of an unsynced append looks like; JSON has none), what is cut off is kept beside as <name>.torn, and the
rest is fsynced. After a failed write or fsync the descriptor is closed; the lines stay buffered, and the next flush cuts the
file, through a new descriptor, to its last fsynced line before it writes them again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import orjson

from obs.errors import DiskTrouble, FileGone
from obs.segment.disk import Disk, Progress, silent
from obs.segment.format import TORN_SUFFIX, free_suffixed
from obs.segment.writer import LocalClock

NameOf = Callable[[int], str]
RECOVER_FILES: Final = 3  # lines around midnight alternate between two days


def day_name(tz: ZoneInfo, suffix: str = ".jsonl") -> NameOf:
    """Return a function that names the day file of a ts_ns: "20260122.jsonl", local date of the instant ts - 1 ns."""
    clock = LocalClock(tz)
    return lambda ts_ns: f"{clock.moment(ts_ns):%Y%m%d}{suffix}"


def is_day(text: str) -> bool:
    """Whether a text is a path date, YYYYMMDD, of the calendar."""
    try:
        return re.fullmatch(r"[0-9]{8}", text) is not None and bool(datetime.strptime(text, "%Y%m%d"))
    except ValueError:
        return False


class TextLog:
    """Appends lines to the files of one folder. Safety: one thread; one process per folder and kind of name.

    `folder` is made, with what is missing above it below `root`, when the first line is written.
    """

    def __init__(self, root: Path, folder: Path, name_of: NameOf, progress: Progress = silent) -> None:
        self._root = root
        self._folder = folder
        self._name_of = name_of
        self._disk = Disk(progress)
        self._pending: list[tuple[str, bytes]] = []
        self._path: Path | None = None
        self._fd = -1
        self._size = 0  # durable bytes of the open file
        self._uncut: tuple[Path, int] | None = None

    def recover(self, suffix: str = ".jsonl") -> None:
        """Recover the day files that a crash may have left unsynced: the newest by change, at most RECOVER_FILES.

        Durable: call it at start, before anything on disk is taken for archived; what SIGKILL left in memory only is fsynced.
        """
        files = sorted(day_files(self._folder, suffix), key=lambda path: path.stat().st_mtime_ns)
        if not files:
            return
        self._disk.make_folder(self._folder, self._root)
        for path in files[-RECOVER_FILES:]:
            if path != self._path:
                recover_text(self._disk, path)
        self._disk.fsync_folder(self._folder)

    @property
    def buffered(self) -> int:
        """Lines that are not durable yet."""
        return len(self._pending)

    @property
    def buffered_bytes(self) -> int:
        """Their bytes."""
        return sum(len(line) + 1 for _, line in self._pending)

    def append(self, line: bytes, ts_ns: int) -> None:
        """Buffer one line, without newline, for the file of `ts_ns`; no disk call."""
        assert b"\n" not in line, line[:80]
        self._pending.append((self._name_of(ts_ns), line))

    def flush(self) -> None:
        """Make every appended line durable. Raises DiskTrouble: lines not durable stay buffered for the next flush.

        Raises FileGone, before it writes: what was durable in the open file is so no more; begin anew from what is there.
        """
        while self._pending:
            name = self._pending[0][0]
            count = next((at for at, (other, _) in enumerate(self._pending) if other != name), len(self._pending))
            self._write(name, b"".join(line + b"\n" for _, line in self._pending[:count]))
            del self._pending[:count]

    def close(self) -> None:
        """Close the file; what is buffered stays. The next flush opens it again."""
        if self._fd >= 0:
            self._disk.close(self._fd)
        self._fd, self._path = -1, None

    def _write(self, name: str, data: bytes) -> None:
        if self._uncut is not None:
            if not self._uncut[0].exists():
                raise FileGone("a text log was removed or moved", path=str(self._uncut[0]), size=self._uncut[1])
            self._disk.cut(*self._uncut)
            self._uncut = None
        if self._path is not None and not self._disk.has_name(self._fd, self._path):
            raise FileGone("a text log was removed or moved while it was open", path=str(self._path), size=self._size)
        path = self._folder / name
        if path != self._path:
            self.close()
            self._open(path)
        try:
            self._disk.write_all(self._fd, path, self._size, data)
            self._disk.fsync_file(self._fd, path)
        except DiskTrouble:
            self._uncut = (path, self._size)
            self.close()
            raise
        self._size += len(data)

    def _open(self, path: Path) -> None:
        self._disk.make_folder(self._folder, self._root)
        self._size = 0
        if path.exists():
            self._size = recover_text(self._disk, path)
            self._fd = self._disk.append_open(path)
        else:
            self._fd = self._disk.create(path)
        self._path = path
        try:
            self._disk.fsync_folder(self._folder)
        except DiskTrouble:
            self.close()
            raise


def recover_text(disk: Disk, path: Path) -> int:
    """Bring a text file to an end behind a newline, durably; return its size. What is cut off is kept as <name>.torn."""
    data = path.read_bytes()
    hole = data.find(b"\0")
    end = data.rfind(b"\n", 0, hole if hole >= 0 else len(data)) + 1
    if end < len(data):
        disk.write_new(free_suffixed(path, TORN_SUFFIX), data[end:])
        disk.cut(path, end)
    else:
        disk.fsync_path(path)
    return end


def text_lines(path: Path, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Read (offset behind the line, line without newline) of the whole lines from `offset` on; a file that is not there has none."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield offset, line[:-1]


def ends_a_line(path: Path, offset: int) -> bool:
    """Return whether `offset`, reached before, is still behind a newline of the file: a recovery may have cut it."""
    if offset == 0:
        return True
    with path.open("rb") as file:
        file.seek(offset - 1)
        return file.read(1) == b"\n"


def json_object(line: bytes) -> dict[str, Any]:
    """Return the object of a line, an empty one if it is damaged: a reader passes over it, and `obs verify` names it."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def day_files(folder: Path, suffix: str = ".jsonl") -> list[Path]:
    """Return the day files of a folder, oldest first."""
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(suffix) and path.name.removesuffix(suffix).isdigit())
    except FileNotFoundError:
        return []


def last_event_seqs(folder: Path, sessions: Iterable[str] | None = None) -> dict[tuple[str, str], int]:
    """Return the last seq on disk per (session_id, ring) of the rings that system/events archives; `recover` the log first.

    Counts events by event_ring and event_seq, and an archive gap of a ring without segments by its ring and last_seq.
    `sessions`: only these, and then no further back than one file beyond where each was seen (lines follow the local day of
    their ts, so the last ones of a session lie in its newest file or the one beside it); None: every file is read.
    """
    wanted = None if sessions is None else set(sessions)
    last: dict[tuple[str, str], int] = {}
    beyond = False
    for path in reversed(day_files(folder)):
        for _, line in text_lines(path):
            place = _place(line)
            if place is not None and (wanted is None or place[0] in wanted):
                key = place[:2]
                last[key] = max(last.get(key, -1), place[2])
        if beyond:
            break
        beyond = wanted is not None and wanted <= {session for session, _ in last}
    return last


def _place(line: bytes) -> tuple[str, str, int] | None:
    try:
        value: dict[str, Any] = orjson.loads(line)
        if value.get("event_ring") is not None:
            place = value["session_id"], value["event_ring"], value["event_seq"]
        elif value.get("sink") == "archive" and value.get("last_seq") is not None and value["ring"] not in ("tick", "swing"):
            place = value["session_id"], value["ring"], value["last_seq"]
        else:
            return None
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
    return place if tuple(map(type, place)) == (str, str, int) else None
