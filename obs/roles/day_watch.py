"""From system/events and the host to marked days: reads what is new, keeps the evidence of the last days, asks obs.lifecycle.days.

Nothing of it is stored: a start reads the two newest files again and comes to the same marks, which are there already. What the host
did is known from the keeper's start on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from obs.clock import MINUTE_NS, NS, minute_of
from obs.config import ProviderConfig
from obs.lifecycle.days import Evidence, HostMinute, Span, judge, judge_host, moment_of, take
from obs.lifecycle.marks import MARKED, Mark, append, marked, path_of
from obs.log import Log
from obs.market.calendar import ALWAYS, ZONES, Calendar
from obs.monitor.host import HostFigures
from obs.segment.textlog import day_files, ends_a_line, json_object, text_lines

_FILES: Final = 2  # newest day files that are read
_LINES: Final = 20_000  # of a file in one step
_WHOLE_NS: Final = 10 * NS  # a minute of the host counts if it was seen from so early on
_KEPT_MINUTES: Final = 60


class DayWatch:
    """The days of one provider. Safety: one thread."""

    def __init__(self, data_dir: Path, provider: ProviderConfig, log: Log) -> None:
        self.name, self.market = provider.name, provider.market
        self._provider, self._log = provider, log
        self._tz = ZONES.get(provider.market, ZoneInfo("UTC"))
        self._events = data_dir / "system" / "events" / provider.name
        self.path = path_of(data_dir, provider.name)
        self._places: dict[str, int] = {}  # file -> offset behind what was read
        self._evidence: dict[int, Evidence] = {}
        self._touched: set[int] = set()  # days of which something new is known
        self._marks: set[tuple[int, str]] | None = None

    def step(self, calendar: Calendar, now_ns: int) -> bool:
        """Read what is new and mark what follows from it; return whether there may be more to read. Raises OSError."""
        if self._marks is None:
            self._marks = set(marked(self.path))
        more = False
        for path in day_files(self._events)[-_FILES:]:
            offset = self._places.get(path.name, 0)
            if not ends_a_line(path, offset):  # cut by a recovery: what was counted of it cannot be taken back, so all is read anew
                self._places.clear()
                self._evidence.clear()
                self._touched.clear()
                return True
            for end, line in islice(text_lines(path, offset), _LINES):
                offset = end
                self._touched |= self._take(line)
            more = more or offset - self._places.get(path.name, 0) > 0
            self._places[path.name] = offset
        for day in sorted(self._touched):
            self._mark(day, judge(self._evidence[day], self.hours(calendar, day)), now_ns)
            self._touched.discard(day)  # not before: a full disk leaves it to the next step
        for day in sorted(self._evidence)[: -_FILES - 1]:
            del self._evidence[day]
        return more

    def host(self, minutes: Sequence[HostMinute], calendar: Calendar, now_ns: int) -> None:
        """Judge what the host did; each minute belongs to the day of its start. Raises OSError."""
        for day in sorted({self.day_of(one.minute_ns + 1) for one in minutes}):
            self._mark(day, judge_host(minutes, self.hours(calendar, day)), now_ns)

    def hours(self, calendar: Calendar, day: int) -> Span | None:
        """Return from when to when something may be lost on a day, None on a day without trading."""
        on = date(day // 10_000, day // 100 % 100, day % 100)
        if self._provider.hours == "always" or self.market in ALWAYS or self.market not in ZONES:
            return self._midnight(on), self._midnight(on + timedelta(days=1))
        session = calendar.session(self.market, self._provider.venue, on)
        return None if session is None else (session.open_ns, session.close_ns)

    def day_of(self, ts_ns: int) -> int:
        """Return the path date of an instant: that of the nanosecond before it."""
        local = datetime.fromtimestamp((ts_ns - 1) // NS, self._tz)
        return local.year * 10_000 + local.month * 100 + local.day

    def _midnight(self, on: date) -> int:
        return int(datetime.combine(on, time(), self._tz).timestamp()) * NS

    def _take(self, line: bytes) -> set[int]:
        """Return the days of which a line tells something."""
        head = line[:64]
        counts = b'"counts"' in head and b'"covered_s"' in line
        if not (counts or b'"gap_marker"' in head or b'"reconnection_event"' in head or b'"anomaly_day"' in line):
            return set()
        value = json_object(line)
        span = moment_of(value)
        if span is None:
            return set()
        last = self.day_of(span[1])
        days = {last, max(self.day_of(span[0] + 1), self.day_of(span[1] - 86_400 * NS))}
        return {day for day in days if take(value, self._evidence.setdefault(day, Evidence()))}

    def _mark(self, day: int, found: dict[str, dict[str, Any]], now_ns: int) -> None:
        assert self._marks is not None
        for reason, detail in found.items():
            if (day, reason) not in self._marks:
                append(self.path, MARKED, Mark(self.name, self.market, day, reason, detail, "keeper", now_ns))
                self._marks.add((day, reason))
                self._log.warning("anomaly_day", provider=self.name, day=day, reason=reason, **detail)


class HostWatch:
    """Minutes of the host out of figures that are looked at every few seconds: pure but for what it remembers."""

    def __init__(self) -> None:
        self.minutes: deque[HostMinute] = deque(maxlen=_KEPT_MINUTES)
        self._begun: tuple[int, HostFigures] | None = None
        self._disk = 0.0

    def look(self, now_ns: int, figures: HostFigures) -> bool:
        """Take the figures of now; return whether a minute is over."""
        over = False
        if self._begun is None or minute_of(now_ns) != minute_of(self._begun[0]):
            over = self._close(now_ns, figures)
            self._begun, self._disk = (now_ns, figures), 0.0
        used = figures.disk_bytes - figures.disk_free_bytes
        self._disk = max(self._disk, used / figures.disk_bytes if figures.disk_bytes else 0.0)
        return over

    def _close(self, now_ns: int, figures: HostFigures) -> bool:
        if self._begun is None:
            return False
        begun_ns, then = self._begun
        minute_ns = minute_of(begun_ns)
        busy, idle = figures.cpu_s - then.cpu_s, figures.idle_s - then.idle_s
        if begun_ns - minute_ns > _WHOLE_NS or now_ns - minute_ns > MINUTE_NS + _WHOLE_NS or busy + idle <= 0:
            return False  # not the whole of it was seen: a start, a step of the clock, a machine that stood still
        self.minutes.append(HostMinute(minute_ns, busy / (busy + idle), self._disk))
        return True
