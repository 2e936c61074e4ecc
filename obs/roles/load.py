"""The loader of one provider: rings and archive to PostgreSQL, exactly once. It never pushes back.

Rows of the present session come from its rings; what has left a ring, and sessions before it, from the archive. Gap rows
and minutes come from system/events, which the archive writer has made durable; the day's universe from its file. While the
database is away it waits and says so; nothing else of the provider notices.
"""

from __future__ import annotations

import os
import secrets
import threading
from pathlib import Path
from typing import Any, Final

from obs.clock import MINUTE_NS, NS, SYSTEM, Clock
from obs.config.process import ProcessSpec
from obs.errors import LoadRetryable, SchemaMismatch
from obs.log import Log
from obs.market.calendar import ZONES
from obs.pg.bars import fill_bars
from obs.pg.connect import Connection, Dsn, close, connect
from obs.pg.embedded import EmbeddedPostgres
from obs.pg.gaps import GapLoader, TextPosition
from obs.pg.loader import RingLoader
from obs.pg.migrate import migrate
from obs.pg.proof import session_rows
from obs.record.jsonl import SwingLines, TickLines
from obs.record.schema import DTYPES
from obs.ring import Ring, attach_ring
from obs.roles.loading import SessionLoad, rejected_folder, rejected_to
from obs.roles.minutes import Minutes
from obs.roles.sink import Progress, Stop, begin, run_sink
from obs.roles.universe_load import UniverseLoad
from obs.segment.format import DATASETS, Series
from obs.segment.reader import last_archived_ns
from obs.segment.sessions import SessionInfo, read_sessions
from obs.segment.textlog import TextLog, day_files, day_name, ends_a_line, json_object, text_lines
from obs.shm import Counters, block_path
from obs.shm.counters import WAITING

_TURN_S: Final = 0.2
_BARS_S: Final = 1.0  # for bars, at a stop
_AWAY_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
_SESSIONS_NS: Final = 2 * NS  # how often the session file is read again
_LINES: Final = 20_000  # of system/events in one round
_LATE_FILES: Final = 2  # older day files that may still grow


def run(spec: ProcessSpec, log: Log) -> int:
    """Run until SIGTERM, then load to the last published record; return the exit code."""
    cell = Counters(spec.counters).cell("load")
    begin(cell, SYSTEM)
    progress = Progress(cell, SYSTEM)
    return run_sink(_Load(spec, log, cell, progress, SYSTEM), cell, progress, log, SYSTEM, Stop())


class _Load:
    """The work of the thread; everything here runs in it."""

    def __init__(self, spec: ProcessSpec, log: Log, cell: Any, progress: Progress, clock: Clock) -> None:
        assert spec.provider is not None and spec.session is not None
        self._spec, self._log, self._cell, self._progress, self._clock = spec, log, cell, progress, clock
        self._name = spec.provider.name
        self._root: Path = spec.config.data_dir
        self._tz = ZONES[spec.provider.market]
        self._series = {ring: Series(self._root, dataset, self._name, spec.provider.market) for ring, dataset in DATASETS.items()}
        self._events = self._root / "system" / "events" / self._name
        self._holder = f"{os.getpid()}-{secrets.token_hex(4)}"
        rejected = rejected_folder(self._root, self._name)
        self._rejected = TextLog(self._root, rejected, day_name(self._tz, "_rejected.jsonl"), progress.waiting)
        self._loads: dict[tuple[str, str], SessionLoad] = {}  # by session and ring
        self._finished: set[str] = set()
        # An embedded server may come back at another place: it is asked before each connect.
        self._dsn: Dsn = spec.dsn or EmbeddedPostgres(self._root / "pg").dsn
        self._gaps = GapLoader(self._dsn, self._name, self._holder)
        self._universes = UniverseLoad(self._dsn, self._root, spec.provider.market, log)
        self._position = TextPosition("", 0)
        self._late: dict[str, int] = {}  # older day file -> offset behind what was read of it by this process
        self._minutes = Minutes()
        self._filling: threading.Thread | None = None  # fills bars
        self._taken: dict[int, dict[str, int]] = {}  # the minutes that it fills; it removes what is done
        self._ready = False
        self._failures = 0
        self._away_ns = 0
        self._sessions_ns = self._committed_ns = 0

    def step(self) -> float:
        """One round; returns how long to rest."""
        if not self._away_ns:  # else it has been waiting since then
            self._progress.waiting("database")
        try:
            moved = self._round()
        except LoadRetryable as error:
            return self._away(error)  # goes on waiting, since when it went away
        self._progress.waiting("")
        self._back()
        return 0.0 if moved >= self._spec.config.loader.rows else _TURN_S

    def finish(self) -> None:
        """Load what is published, as far as the database takes it; what is left comes from the archive at the next start."""
        while True:
            try:
                self._sessions_ns = self._committed_ns = 0
                if self._round() == 0:
                    break
            except LoadRetryable as error:
                self._log.warning("stopped_behind", text=str(error), watermarks=self._watermarks())
                break
        self._finish_bars()
        for load in self._loads.values():
            load.close()
        self._gaps.close()
        self._rejected.close()

    def _watermarks(self) -> dict[str, int]:
        return {f"{session}/{ring}": load.watermark for (session, ring), load in self._loads.items() if not load.untouched}

    def _round(self) -> int:
        if not self._ready:
            self._open()
        now = self._clock.mono_ns()
        if now - self._sessions_ns >= _SESSIONS_NS:
            self._sessions_ns = now
            self._look_for_sessions()
        moved = 0
        if now - self._committed_ns >= int(self._spec.config.loader.flush_s * NS) or self._much_waits():
            self._committed_ns = now
            for load in list(self._loads.values()):
                moved += 0 if load.done else load.step()
            for session_id in {load.session_id for load in self._loads.values() if load.done}:
                self._end_if_done(session_id)
        moved += self._copy_gaps()
        self._universes.step(now)
        self._fill_minutes()
        self._count()
        return moved

    def _open(self) -> None:
        """Bring the schema up to date and find out what is loaded. Raises LoadRetryable."""
        applied = migrate(self._dsn)
        if applied.applied:
            self._log.info("migrated", applied=applied.applied)
        conn = connect(self._dsn, f"obs load {self._name} start")
        self._position = self._gaps.open()
        self._finished = {str(row["session_id"]) for row in session_rows(conn, self._name) if row["ended_ns"] is not None}
        for load in self._loads.values():
            load.reopen()
        self._minutes.start(conn, self._name, self._events, self._clock.wall_ns())
        close(conn)
        self._ready = True
        self._cell["ready"] = 1
        self._log.info("loader_ready", holder=self._holder, sessions_done=len(self._finished))

    def _much_waits(self) -> bool:
        return any(load.waiting >= self._spec.config.loader.rows for load in self._loads.values())

    # --- sessions

    def _look_for_sessions(self) -> None:
        """Open a load for every session that is not wholly in the database, oldest first, and learn of ends."""
        for info in read_sessions(self._root, self._name):
            if info.session_id in self._finished:
                continue
            if (info.session_id, "tick") not in self._loads:
                self._loads |= {(info.session_id, ring): self._load_of(info, ring) for ring in DATASETS if _has(info, ring)}
                self._gaps.save_sessions([_session(info, stored=False)])
            for ring in DATASETS if info.ended is not None else ():
                load = self._loads.get((info.session_id, ring))
                if load is not None and load.final is None:
                    load.final = (info.ended or {}).get(ring)
                    if load.final is None:  # its ring went with the host: what the archive has is all there is
                        self._end_without_ring(load)

    def _load_of(self, info: SessionInfo, ring: str) -> SessionLoad:
        lines = TickLines(self._name, info.session_id) if ring == "tick" else SwingLines(self._name, info.session_id)
        more = {} if ring == "tick" else {"session_id": info.session_id, "ring": ring}
        keep = rejected_to(self._rejected, lines.encode, self._note_rejected, more)
        loader = RingLoader(self._dsn, self._name, info.session_id, self._holder, keep, ring)
        attached = self._ring_of(info.session_id, ring)
        return SessionLoad(loader, info.session_id, self._series[ring], attached, self._spec.config.loader.rows)

    def _ring_of(self, session_id: str, ring: str) -> Ring | None:
        path = block_path(self._spec.config.ring.dir, self._root, session_id, ring)
        try:
            return attach_ring(path, DTYPES[ring], session_id)
        except (FileNotFoundError, SchemaMismatch):
            return None

    def _end_without_ring(self, load: SessionLoad) -> None:
        gap = self._lost_ring_line(load.session_id, load.ring)
        if gap is not None:
            load.host_death = gap
            load.final = int(gap["first_seq"]) - 1

    def _lost_ring_line(self, session_id: str, ring: str) -> dict[str, Any] | None:
        """Find the archive's gap line without an end of a ring of this session."""
        for path in reversed(day_files(self._events)):
            for _, line in text_lines(path):
                if b'"last_seq":null' in line and session_id.encode() in line:
                    gap = json_object(line)
                    named = gap.get("sink") == "archive" and gap.get("ring") == ring and gap.get("session_id") == session_id
                    if named and type(gap.get("first_seq")) is int:
                        return gap
        return None

    def _end_if_done(self, session_id: str) -> None:
        """If all rings of an ended session are in the database, say so there, and look at it no more."""
        loads = [load for load in self._loads.values() if load.session_id == session_id]
        if not all(load.done for load in loads):
            return
        for load in loads:
            load.close_host_death()
        info = next(info for info in read_sessions(self._root, self._name) if info.session_id == session_id)
        self._gaps.save_sessions([_session(info, stored=True)])
        self._finished.add(session_id)
        for load in loads:
            if load.ring == "tick":
                self._minutes.note(session_id, load.watermark)
                if load.host_death is not None:
                    self._minutes.uncounted(session_id, load.watermark, last_archived_ns(self._series["tick"], session_id))
            del self._loads[session_id, load.ring]
            load.close()
        rows = {load.ring: load.watermark + 1 for load in loads}
        self._log.info("session_loaded", session=session_id, rows=rows, from_archive=sum(load.from_archive for load in loads))

    def _note_rejected(self, seq: int, text: str) -> None:
        self._cell["rejected"] += 1
        self._log.error("row_rejected", seq=seq, text=text)

    # --- gap rows and minutes

    def _copy_gaps(self) -> int:
        """Copy new gap lines of system/events into scalp_gaps, and note the minutes that are complete."""
        copied = self._copy_late()
        for path in day_files(self._events):
            if path.name < self._position.file:
                continue
            offset = self._position.offset if path.name == self._position.file else 0
            if not ends_a_line(path, offset):
                offset = 0  # the file was cut by a recovery: what is stored already is recognised by its key
            gaps, reached = self._read_events(path, offset)
            if reached != offset or path.name != self._position.file:
                position = TextPosition(path.name, reached)
                if path.name != self._position.file:
                    self._late[self._position.file] = self._position.offset
                if gaps or path.name != self._position.file:
                    self._gaps.commit(gaps, position)
                    self._position = position
                    copied += len(gaps)
                else:
                    self._position = position  # no gap among the lines: the stored place may stay behind, they are read again
        return copied

    def _copy_late(self) -> int:
        """Copy gap lines that came to a day's file after a later one was begun: around midnight, or by a clock that stepped back.

        A file that is seen for the first time is read whole: what is stored already is recognised by its key, and its minutes were
        read when this loader began.
        """
        copied = 0
        for path in [path for path in day_files(self._events) if path.name < self._position.file][-_LATE_FILES:]:
            known = path.name in self._late
            offset = self._late.get(path.name, 0)
            gaps, reached = self._read_events(path, offset if ends_a_line(path, offset) else 0, minutes=known)
            if gaps:
                self._gaps.commit(gaps, self._position)
                copied += len(gaps)
            self._late[path.name] = reached
        return copied

    def _read_events(self, path: Path, offset: int, *, minutes: bool = True) -> tuple[list[dict[str, Any]], int]:
        """Return the gap lines of a file from `offset` on, at most _LINES, and the offset behind the last line read; note `minutes`."""
        gaps: list[dict[str, Any]] = []
        for end, line in text_lines(path, offset):
            offset = end
            kind = line[:64]
            if b'"gap_marker"' in kind:
                gaps += [gap] if (gap := json_object(line)) else []
            elif minutes and b'"counts"' in kind:
                self._minutes.counts(line)
            if len(gaps) >= _LINES:
                break
        return gaps, offset

    def _fill_minutes(self) -> None:
        """Fill the bars of minutes whose counts were read and whose records are all stored.

        In a thread with a connection of its own: a full minute takes the database seconds, which no row is to wait for.
        """
        for load in self._loads.values():
            if load.ring == "tick":
                self._minutes.note(load.session_id, load.watermark)
        if self._filling is not None and self._filling.is_alive():
            return
        self._minutes.put_back(self._taken)  # what the thread has not filled: the database was away
        self._taken = self._minutes.take()
        if self._taken:
            self._filling = threading.Thread(target=self._fill, args=(self._taken,), name="bars", daemon=True)
            self._filling.start()

    def _fill(self, taken: dict[int, dict[str, int]]) -> None:
        conn: Connection | None = None
        try:
            conn = connect(self._dsn, f"obs load {self._name} bars")
            for minute_ns in sorted(taken):
                fill_bars(conn, self._name, minute_ns, minute_ns + MINUTE_NS)
                del taken[minute_ns]
        except LoadRetryable as error:
            self._log.warning("bars_delayed", text=str(error))
        finally:
            close(conn)

    def _finish_bars(self) -> None:
        """Fill what is complete at the end, as far as a moment allows; the next start looks back for the rest."""
        for _ in range(2):
            if self._filling is not None:
                self._filling.join(_BARS_S)
            self._fill_minutes()
        if self._filling is not None:
            self._filling.join(_BARS_S)

    # --- the database is away

    def _away(self, error: LoadRetryable) -> float:
        now = self._clock.mono_ns()
        if not self._away_ns:
            self._away_ns = now
            self._log.warning("database_away", text=str(error))
        self._ready = False
        self._committed_ns = 0  # the next round tries to commit: a full database can still be connected to
        self._cell["database_away"] = 1
        self._cell["waiting"], self._cell["waiting_since_ns"] = WAITING.index("database"), self._away_ns
        self._failures += 1
        self._gaps.close()
        return _AWAY_S[min(self._failures, len(_AWAY_S)) - 1]

    def _back(self) -> None:
        if self._away_ns:
            self._log.info("database_back", away_s=round((self._clock.mono_ns() - self._away_ns) / NS, 1))
            self._away_ns = 0
        self._cell["database_away"] = 0
        self._failures = 0

    def _count(self) -> None:
        cell = self._cell
        present = self._loads.get((self._spec.session.session_id, "tick")) if self._spec.session else None
        if present is not None:
            cell["stored"] = present.watermark + 1
        cell["lost"] = sum(load.lost for load in self._loads.values())


def _has(info: SessionInfo, ring: str) -> bool:
    """Whether a session has that ring; one that does not say has all."""
    return ring == "tick" or not info.start.rings or ring in info.start.rings


def _session(info: SessionInfo, *, stored: bool) -> dict[str, Any]:
    """Return a row of the table sessions. Invariant: it has an end only once all of the session is in the database (`stored`)."""
    start = info.start
    known: dict[str, Any] = {
        "session_id": info.session_id, "host": start.host, "boot_id": start.boot_id, "code_version": start.code_version,
        "config_hash": start.config_hash, "started_ns": start.ts_ns, "rings": start.rings,
    }  # fmt: skip
    if info.ended is not None and stored:
        known |= {"ended_ns": info.ended_ns, "final_seqs": info.ended, "host_death": info.host_death}
    return known
