"""JSON lines to stderr for one process, through a bounded queue that a thread drains.

The process that holds a socket must not wait for whoever reads its stderr, so `Log` only encodes a line and queues it; one
daemon thread masks and writes. When the reader is slow the queue fills and further lines are dropped and counted
(`dropped`); the next line that gets through says how many. An event name that comes more than `LIMIT_LINES` times in
`LIMIT_S` seconds is held back for the rest of that window, and one line then says how often (`suppressed`), so a storm costs
a bounded number of lines without being silent.

A line is `{"ts","level","role","provider","pid","event", …facts}`. Where the descriptor is a stream to systemd's journal, `<4>`
and the like stand before it: the journal takes them off and files the line under that priority, so that `journalctl -p warning`
works and its message is still the JSON. Secrets registered with `mask` leave as `***`, as they
are, as JSON spells them and as a URL spells them. Libraries raise instead of logging; a role gets the `Log` of its process as an
argument. The lines of the standard library's `logging` (asyncio, aiohttp) are taken in by `capture_standard`.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import threading
import traceback
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import orjson

from obs import clock

LEVELS: Final = ("debug", "info", "warning", "error")
_PRIORITIES: Final = (b"<7>", b"<6>", b"<4>", b"<3>")  # of the journal, by level: sd-daemon(3)
CAPACITY_LINES: Final = 4096
LIMIT_LINES: Final = 20
LIMIT_S: Final = 10
MASK: Final = b"***"
SHORTEST_SECRET: Final = 6  # a shorter value would blank out ordinary words
_OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


class Log:
    """The log of one process. Any thread may call it; it never blocks and never raises."""

    def __init__(
        self,
        role: str,
        provider: str = "",
        *,
        level: str = "info",
        descriptor: int = 2,
        journal: str = "",
        time: clock.Clock = clock.SYSTEM,
    ) -> None:
        """Start the thread that writes to `descriptor`, which stays the caller's. Lines below `level` are not made.

        `journal`: the stream to the journal that systemd has told of, "device:inode" (JOURNAL_STREAM, systemd.exec(5)).
        """
        self.dropped = 0  # lines that the queue had no room for, or that nobody was left to read
        self._counting = threading.RLock()
        self._head = {"role": role, "provider": provider, "pid": os.getpid()}
        self._level = LEVELS.index(level)
        self._prefixes = _PRIORITIES if journal and journal == _stream(descriptor) else (b"",) * len(LEVELS)
        self._time = time
        self._windows: dict[str, list[int]] = {}  # event -> [start (monotonic ns), lines, suppressed]
        # Why not queue.Queue: its put takes a lock that a signal handler of the same thread may already hold.
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._writer = _Writer(self, descriptor)
        self._writer.start()

    def debug(self, event: str, **facts: Any) -> None:
        self.write(0, event, facts)

    def info(self, event: str, **facts: Any) -> None:
        self.write(1, event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        self.write(2, event, facts)

    def error(self, event: str, **facts: Any) -> None:
        self.write(3, event, facts)

    def exception(self, event: str, error: BaseException, **facts: Any) -> None:
        """Log an error with its type, its text and where it came from."""
        trace = "".join(traceback.format_exception(error))
        self.write(3, event, {"error": type(error).__name__, "text": str(error), **facts, "trace": trace})

    def mask(self, *secrets: str) -> None:
        """Keep these values out of every line from now on, those already queued included."""
        self._writer.mask(secrets)

    def close(self, timeout_s: float = 2.0) -> bool:
        """Write what is queued and stop; return whether all of it was written in time."""
        self._queue.put(None)
        self._writer.join(timeout_s)
        return not self._writer.is_alive()

    def write(self, level: int, event: str, facts: dict[str, Any]) -> None:
        """Queue one line; `level` indexes LEVELS."""
        if level < self._level or not self._admitted(event):
            return
        if self._queue.qsize() >= CAPACITY_LINES:
            self.count_dropped()
            return
        self._queue.put(self.line(level, event, facts))

    def line(self, level: int, event: str, facts: dict[str, Any]) -> bytes:
        """Return the line, newline included, not yet masked."""
        ts = datetime.fromtimestamp(self._time.wall_ns() / clock.NS, UTC).isoformat(timespec="milliseconds")
        row = {"ts": ts.replace("+00:00", "Z"), "level": LEVELS[level], **self._head, "event": event, **facts}
        try:
            return self._prefixes[level] + orjson.dumps(row, default=str, option=_OPTIONS) + b"\n"
        except (TypeError, orjson.JSONEncodeError) as error:  # a fact that cannot be written must not cost the line
            row = {key: row[key] for key in ("ts", "level", *self._head, "event")} | {"facts": repr(facts), "unwritable": str(error)}
            return self._prefixes[level] + orjson.dumps(row, default=repr) + b"\n"

    def _admitted(self, event: str) -> bool:
        now = self._time.mono_ns()
        window = self._windows.get(event)
        if window is None or now - window[0] >= LIMIT_S * clock.NS:
            held = window[2] if window else 0
            self._windows[event] = [now, 1, 0]
            if held:
                self._queue.put(self.line(2, "log_lines_suppressed", {"of": event, "lines": held}))
            return True
        window[1] += 1
        if window[1] > LIMIT_LINES:
            window[2] += 1
            return False
        return True

    def count_dropped(self) -> None:
        """Count one line that will never be written."""
        with self._counting:
            self.dropped += 1

    def report_suppressed(self, *, all_windows: bool = False) -> list[bytes]:
        """Return one line for each event name whose window has ended with lines held back (called by the writer)."""
        now = self._time.mono_ns()
        lines = []
        for event, window in list(self._windows.items()):
            if window[2] and (all_windows or now - window[0] >= LIMIT_S * clock.NS):
                lines.append(self.line(2, "log_lines_suppressed", {"of": event, "lines": window[2]}))
                window[2] = 0
        return lines

    @property
    def holds_back(self) -> bool:
        """Whether any event name has lines held back that no line has told of yet."""
        return any(window[2] for window in list(self._windows.values()))


class _Writer(threading.Thread):
    """Drains the queue to the descriptor; the only thread that may wait for it."""

    def __init__(self, log: Log, descriptor: int) -> None:
        super().__init__(name="log", daemon=True)
        self._log = log
        self._descriptor = descriptor
        self._masked: tuple[bytes, ...] = ()
        self._told = 0  # of log.dropped, how many lines have been told of

    def mask(self, secrets: tuple[str, ...]) -> None:
        forms = {form for secret in secrets if len(secret) >= SHORTEST_SECRET for form in _spellings(secret)}
        # Longest first, so that a secret inside a longer one leaves no rest of the longer one behind.
        self._masked = tuple(sorted(forms.union(self._masked), key=len, reverse=True))

    def run(self) -> None:
        while True:
            try:
                line = self._log._queue.get(timeout=1.0 if self._log.holds_back else None)
            except queue.Empty:
                self._write_all(self._log.report_suppressed())
                continue
            if line is None:
                self._write_all(self._log.report_suppressed(all_windows=True))
                self._tell_dropped()
                return
            if self._write(line):
                self._tell_dropped()

    def _write_all(self, lines: list[bytes]) -> None:
        for line in lines:
            self._write(line)

    def _tell_dropped(self) -> None:
        dropped = self._log.dropped
        if dropped > self._told and self._write(self._log.line(2, "log_lines_dropped", {"lines": dropped - self._told, "in_all": dropped})):
            self._told = dropped

    def _write(self, line: bytes) -> bool:
        for secret in self._masked:
            line = line.replace(secret, MASK)
        view = memoryview(line)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [])
            except OSError:  # the reader has gone: nobody is left to tell, so count and go on
                self._log.count_dropped()
                return False
        return True


def _stream(descriptor: int) -> str:
    """Return "device:inode" of an open file: stderr may have been redirected since systemd opened it."""
    try:
        there = os.fstat(descriptor)
    except OSError:
        return ""
    return f"{there.st_dev}:{there.st_ino}"


def _spellings(secret: str) -> set[bytes]:
    return {secret.encode(), orjson.dumps(secret)[1:-1], quote(secret, safe="").encode(), quote(secret).encode()}


class _Bridge(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__(logging.INFO)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        facts: dict[str, Any] = {"text": record.getMessage()}
        if record.exc_info and record.exc_info[1] is not None:
            facts["trace"] = "".join(traceback.format_exception(record.exc_info[1]))
        level = 3 if record.levelno >= logging.ERROR else 2 if record.levelno >= logging.WARNING else 1
        self._log.write(level, f"library:{record.name}", facts)


def capture_standard(log: Log) -> None:
    """Send the lines of the standard library's logging, and Python's warnings, into `log` instead of stderr."""
    root = logging.getLogger()
    root.handlers[:] = [_Bridge(log)]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
