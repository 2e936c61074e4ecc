"""The keeper of a host: the daily work that no provider waits for. It marks anomaly days and fills bars again for late data.

Its loop reads files and never a database; what goes to the database does so in a thread with a connection of its own, so that a stop
waits for no query. A transaction that is cut off leaves nothing half done, and the next start does it again.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Final

from obs.clock import MINUTE_NS, NS, SYSTEM, Clock
from obs.config import Config
from obs.config.process import ProcessSpec
from obs.errors import LoadRetryable, ObsError
from obs.lifecycle.marks import marked
from obs.log import Log
from obs.market import calendar as calendars
from obs.monitor.host import host_figures
from obs.roles.day_watch import DayWatch, HostWatch
from obs.roles.sink import Progress, Stop, begin, run_sink
from obs.shm import Counters

_TURN_S: Final = 2.0
_CALENDAR_NS: Final = 60 * NS
_AGAIN_NS: Final = 10 * NS  # after the database was away
_LATE_NS: Final = 3600 * NS  # how often bars are compared with their records
_LATE_SPAN_NS: Final = 3 * 3600 * NS  # how far back; at a start a day more
_SETTLED_NS: Final = 10 * MINUTE_NS  # the loader itself fills what is younger
_FINISH_S: Final = 0.5


def run(spec: ProcessSpec, log: Log) -> int:
    """Run until SIGTERM; return the exit code."""
    cell = Counters(spec.counters).cell("keeper")
    begin(cell, SYSTEM)
    progress = Progress(cell, SYSTEM)
    return run_sink(_Keeper(spec, log, cell, progress, SYSTEM), cell, progress, log, SYSTEM, Stop())


class _Keeper:
    """The work of the thread; everything but `_Stored` runs in it."""

    def __init__(self, spec: ProcessSpec, log: Log, cell: Any, progress: Progress, clock: Clock) -> None:
        self._cell, self._progress, self._clock, self._log = cell, progress, clock, log
        self._root: Path = spec.config.data_dir
        self._days = [DayWatch(self._root, provider, log) for provider in spec.config.planned()]
        self._host = HostWatch()
        self._calendar, self._calendar_ns = calendars.Calendar({}, 0, 0), -_CALENDAR_NS
        self._stored = _Stored(spec.config, spec.dsn, self._days, cell, clock, log)
        self._trouble = ""
        cell["ready"] = 1

    def step(self) -> float:
        """One round; returns how long to rest."""
        self._progress.waiting("disk")
        more = False
        try:
            more = self._look()
            self._trouble = ""
        except OSError as error:  # a full disk: a day is marked when there is room again
            if str(error) != self._trouble:
                self._log.error("days_not_marked", error=str(error))
            self._trouble = str(error)
        self._cell["disk_trouble"] = bool(self._trouble)
        self._progress.waiting("")
        self._stored.turn()
        return 0.0 if more else _TURN_S

    def finish(self) -> None:
        self._stored.finish()

    def _look(self) -> bool:
        now = self._clock.wall_ns()
        if self._clock.mono_ns() - self._calendar_ns >= _CALENDAR_NS:
            self._calendar, self._calendar_ns = calendars.load(self._root / "state" / "calendar.json"), self._clock.mono_ns()
        more = [days.step(self._calendar, now) for days in self._days]
        if self._host.look(now, host_figures(self._root)):
            for days in self._days:
                days.host(self._host.minutes, self._calendar, now)
        return any(more)


class _Stored:
    """Brings to the database what is due, one thing after another, in a thread that is started for it."""

    def __init__(self, config: Config, dsn: str, days: list[DayWatch], cell: Any, clock: Clock, log: Log) -> None:
        self._config, self._dsn, self._days, self._cell, self._clock, self._log = config, dsn, days, cell, clock, log
        self._synced: dict[str, tuple[int, int]] = {}  # provider -> state of the log of marks that the table follows
        self._late_ns: int | None = None  # when bars were last compared
        self._tried_ns = -_AGAIN_NS
        self._away = False
        self._thread: threading.Thread | None = None

    def turn(self) -> None:
        now = self._clock.mono_ns()
        if self._thread is not None and self._thread.is_alive():
            return
        if self._away and now - self._tried_ns < _AGAIN_NS:
            return
        due = [days for days in self._days if _state(days.path) != self._synced.get(days.name, (0, 0))]
        late = self._late_ns is None or now - self._late_ns >= _LATE_NS
        if due or late:
            self._tried_ns = now
            self._thread = threading.Thread(target=self._work, args=(due, late), name="database", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """Give what is under way a moment."""
        if self._thread is not None:
            self._thread.join(_FINISH_S)

    def _work(self, due: list[DayWatch], late: bool) -> None:
        # Imported here: what the database needs comes into memory when there is something to store, not before.
        from obs.pg.connect import close, connect
        from obs.pg.embedded import EmbeddedPostgres

        conn = None
        try:
            conn = connect(self._dsn or EmbeddedPostgres(self._config.data_dir / "pg").dsn, "obs keeper")
            for days in due:
                self._sync(conn, days)
            if late:
                self._fill_late(conn)
                self._late_ns = self._clock.mono_ns()
            self._away = False
        except LoadRetryable as error:
            if not self._away:
                self._log.warning("database_away", text=str(error))
            self._away = True
        except (ObsError, OSError) as error:
            self._log.error("not_stored", error=type(error).__name__, text=str(error))
            self._away = True
        finally:
            close(conn)
            self._cell["database_away"] = self._away

    def _sync(self, conn: Any, days: DayWatch) -> None:
        from datetime import date

        from obs.pg.days import AnomalyDay, sync_days

        state = _state(days.path)  # Order: before the file is read, so that a line behind it makes it due again
        rows = []
        for mark in marked(days.path).values():
            try:
                on = date(mark.day // 10_000, mark.day // 100 % 100, mark.day % 100)
            except ValueError:
                continue
            rows.append(AnomalyDay(mark.market, on, mark.reason, mark.detail, mark.ts_ns))
        changed = sync_days(conn, days.name, rows)
        self._synced[days.name] = state
        if changed:
            self._log.info("anomaly_days_stored", provider=days.name, days=len({row.day for row in rows}), changed=changed)

    def _fill_late(self, conn: Any) -> None:
        """Fill the bars again whose minutes have got records since: of a session that was drained late, or a loader far behind."""
        from obs.pg.bars import fill_bars, late_minutes

        end_ns = (self._clock.wall_ns() - _SETTLED_NS) // MINUTE_NS * MINUTE_NS
        start_ns = end_ns - _LATE_SPAN_NS - (86_400 * NS if self._late_ns is None else 0)
        for days in self._days:
            minutes = late_minutes(conn, days.name, start_ns, end_ns)
            for minute_ns in minutes:
                fill_bars(conn, days.name, minute_ns, minute_ns + MINUTE_NS)
            if minutes:
                self._log.info("bars_filled_again", provider=days.name, minutes=len(minutes))


def _state(path: Path) -> tuple[int, int]:
    try:
        state = path.stat()
    except OSError:
        return (0, 0)
    return (state.st_ino, state.st_size)
