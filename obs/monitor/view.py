"""Shared memory of everything that runs here, read into plain values: counters, boards, ring headers, the rings' oldest rows.

Of the files it reads who had a session, and the gaps of the market's day: those that a feed has counted end with the feed.

A `Watcher` keeps its mappings and what it needs to see movement (how long a provider has been quiet, what the ledger said
last time); `look` returns one `HostView`. Nothing is written, nothing is locked, and what is not there is simply missing: it works
when nothing runs.

Lag is the age of the oldest record that a sink has not made durable, read from the ring itself: a stopped sink cannot hide it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from obs.clock import NS, SYSTEM, Clock
from obs.config import Config, ProviderConfig
from obs.config.process import SERVICES, lock_path
from obs.errors import SchemaMismatch
from obs.ledger import read as read_intake
from obs.market import calendar as calendars
from obs.monitor.day import today
from obs.monitor.gaps import GapFile, sum_of
from obs.monitor.host import HostFigures, ProcessFigures, host_figures, is_alive, process_figures
from obs.monitor.ledger import LedgerWatch
from obs.monitor.notices import events_folder
from obs.monitor.slots import foreign
from obs.record.schema import DTYPES
from obs.ring import Ring, attach_ring, copy_rows, fence
from obs.segment.format import DATASETS
from obs.segment.sessions import SessionInfo, read_sessions, sessions_path
from obs.shm import ROLE_CELL, Board, Counters, block_path
from obs.shm.counters import WAITING

_FIGURES: Final = tuple(name for name in ROLE_CELL.names or () if name not in ("pid", "spare"))
_TIMES: Final = {"tick": "ts_ns", "event": "ts_ns", "poll_event": "ts_ns", "swing": "ts_ns", "quarantine": "recv_ns"}
T = TypeVar("T")


@dataclass(frozen=True)
class RoleView:
    """One process. `beat_age_s` None: it has not stamped a heartbeat. `counters`: every other field of its row, by name."""

    role: str
    owner: str
    pid: int
    alive: bool
    ready: bool
    beat_age_s: float | None
    waiting: str
    waiting_s: float
    counters: dict[str, int]
    figures: ProcessFigures


@dataclass(frozen=True)
class RingView:
    """One ring. archived, loaded: sequences below it are durable there; lags in seconds, 0 = nothing waits; None: no such sink."""

    session_id: str
    name: str
    capacity: int
    published: int
    archived: int
    archive_lag_s: float
    loaded: int | None = None
    load_lag_s: float | None = None

    @property
    def used(self) -> float:
        """Return how much of the ring the slowest sink still needs, 1 and more: it loses records. The loader has the archive."""
        return (self.published - self.archived) / self.capacity


@dataclass(frozen=True)
class ProviderView:
    """One provider. `seen`: its counters are there. `session_age_s`: since its session began. `quiet_s`: since its feed last received a
    message. `away_s`: since its loader last had a database, as far as watched, 0 while it has. `gaps`: of the market's day."""

    name: str
    market: str
    venue: str
    mode: str
    seen: bool
    open_now: bool
    regular_now: bool
    calendar_dated: bool
    symbols: int
    session_id: str = ""
    roles: dict[str, RoleView] = field(default_factory=dict)
    links: list[dict[str, Any]] = field(default_factory=list)
    slots: dict[str, str] = field(default_factory=dict)
    level: int = 0
    rings: list[RingView] = field(default_factory=list)
    old_sessions: int = 0
    broken: list[str] = field(default_factory=list)  # identities of the ledger that do not hold
    quiet_s: float = 0.0
    away_s: float = 0.0
    session_age_s: float = math.inf
    next_open_ns: int = 0  # while it is closed
    gaps: int = 0

    @property
    def ring(self) -> dict[str, RingView]:
        """Return the rings of the present session by name."""
        return {ring.name: ring for ring in self.rings if ring.session_id == self.session_id}


@dataclass(frozen=True)
class HostView:
    """Everything at one moment."""

    now_ns: int
    providers: list[ProviderView]
    services: dict[str, RoleView]
    supervisors: dict[str, int]  # owner -> pid of a supervisor that lives
    host: HostFigures

    @property
    def runs(self) -> bool:
        """Whether any process of ours lives."""
        everything = [*self.services.values(), *(role for provider in self.providers for role in provider.roles.values())]
        return bool(self.supervisors) or any(role.alive for role in everything)


class Watcher:
    """Looks at one data directory again and again. Safety: one thread."""

    def __init__(self, config: Config, clock: Clock = SYSTEM) -> None:
        self._config, self._clock = config, clock
        self._root: Path = config.data_dir
        self._folder: Path = config.ring.dir
        self._mapped: dict[Path, tuple[int, Any]] = {}  # inode, mapping
        self._sessions: dict[str, tuple[tuple[int, int], list[SessionInfo]]] = {}
        self._watches: dict[str, LedgerWatch] = {}
        self._away: dict[str, int] = {}  # provider -> monotonic time at which its loader was first seen without a database
        self._gap_files: dict[str, tuple[GapFile, int, int]] = {}  # provider -> today's, how many lines, the gaps that they are
        self._visited: set[Path] = set()
        self._calendar = calendars.load(self._root / "state" / "calendar.json")
        self._calendar_ns = clock.mono_ns()

    def look(self) -> HostView:
        """Return what is there now."""
        if self._clock.mono_ns() - self._calendar_ns > 60 * NS:
            self._calendar, self._calendar_ns = calendars.load(self._root / "state" / "calendar.json"), self._clock.mono_ns()
        self._visited.clear()
        services = self._roles(SERVICES)
        providers = [self._provider(provider) for provider in (*self._config.planned(), *self._others())]
        # A mapping keeps the memory of a block that was unlinked: those of sessions that have ended are let go.
        for path in self._mapped.keys() - self._visited:
            self._forget(path)
        owners = [provider.name for provider in providers] + [SERVICES]
        supervisors = {owner: pid for owner in owners if (pid := _holder(lock_path(self._root, owner)))}
        return HostView(self._clock.wall_ns(), providers, services, supervisors, host_figures(self._root))

    def _others(self) -> list[ProviderConfig]:
        """Return the providers that run in this data directory under another configuration, as those of a demo do."""
        found = []
        for path in sorted((self._root / "system" / "sessions").glob("*.jsonl")):
            name = path.stem
            if self._config.provider(name) is None and Counters.path(self._folder, self._root, name).exists():
                found.append(foreign(self._root, name))
        return found

    def close(self) -> None:
        """Unmap everything."""
        for _, mapping in self._mapped.values():
            mapping.close()
        self._mapped.clear()

    # --- mappings

    def _attached(self, path: Path, attach: Callable[[Path], T]) -> T | None:
        """Return the mapping of a block, made anew if the name has another file now; None if there is none, or not one of ours."""
        self._visited.add(path)
        try:
            inode = path.stat().st_ino
        except OSError:
            self._forget(path)
            return None
        known = self._mapped.get(path)
        if known is not None and known[0] == inode:
            mapping: T = known[1]
            return mapping
        self._forget(path)
        try:
            mapping = attach(path)
        except (OSError, ValueError, SchemaMismatch):
            return None
        self._mapped[path] = (inode, mapping)
        return mapping

    def _forget(self, path: Path) -> None:
        known = self._mapped.pop(path, None)
        if known is not None:
            known[1].close()

    # --- processes

    def _roles(self, owner: str) -> dict[str, RoleView]:
        counters = self._attached(Counters.path(self._folder, self._root, owner), Counters)
        if counters is None:
            return {}
        return {role: self._role(role, owner, counters) for role in counters.roles()}

    def _role(self, role: str, owner: str, counters: Counters) -> RoleView:
        cell, now = counters.cell(role), self._clock.mono_ns()
        pid = int(cell["pid"])
        alive = is_alive(pid)
        figures = {name: int(cell[name]) for name in _FIGURES}  # Order: after `alive`, for the same reason
        beat, since = figures["heartbeat_ns"], figures["waiting_since_ns"]
        return RoleView(
            role, owner, pid, alive, bool(figures["ready"]), max(0.0, (now - beat) / NS) if beat else None,
            WAITING[figures["waiting"]] if figures["waiting"] < len(WAITING) else "?", max(0.0, (now - since) / NS) if since else 0.0,
            figures, process_figures(pid) if alive else ProcessFigures(),
        )  # fmt: skip

    # --- one provider

    def _provider(self, config: ProviderConfig) -> ProviderView:
        now = self._clock.wall_ns()
        calendar, always = self._calendar, config.hours == "always"
        place = (config.market, config.venue, now)
        board = self._attached(Board.path(self._folder, self._root, config.name), lambda path: Board.attach(path, fence))
        # Order: the links before the roles, or one that a feed closed at its stop would be seen without the wish to stop.
        links: list[dict[str, Any]] = (board["link"].read_json() if board else None) or []
        roles = self._roles(config.name)
        infos = self._infos(config.name)
        living = [info.session_id for info in infos if info.ended is None]
        session_id = infos[-1].session_id if infos else ""
        rings = {(one, name): ring for one in living for name in DTYPES if (ring := self._ring(one, name)) is not None}
        views = [self._ring_view(ring) for ring in rings.values()]
        slots: dict[str, Any] = (board["actual"].read_json() if board else None) or {}
        wanted: dict[str, Any] = (board["wanted"].read_json() if board else None) or {}
        level: dict[str, Any] = (board["level"].read_json() if board else None) or {}
        return ProviderView(
            config.name, config.market, config.venue, config.mode, bool(roles), always or calendar.is_open(*place),
            always or calendar.is_open(*place, regular=True), always or calendar.covers(*place),
            len(config.symbols) or len(wanted.get("symbols", ())), session_id, roles, links, slots.get("slots", {}),
            int(level.get("level", 0)), views, max(0, len(living) - 1), self._broken(config.name, board, rings, views, roles),
            self._quiet_s(roles), self._away_s(config.name, roles),
            max(0.0, (now - infos[-1].start.ts_ns) / NS) if infos else math.inf,
            0 if always or calendar.is_open(*place) else _next_open(calendar, *place), self._gaps(config, now),
        )  # fmt: skip

    def _gaps(self, config: ProviderConfig, now_ns: int) -> int:
        """Return how many gaps the market's day has; where its file does not read now, how many it had."""
        path = events_folder(self._root, config.name) / f"{today(config, now_ns)}.jsonl"
        file, lines, count = self._gap_files.get(config.name, (GapFile(path), 0, 0))
        if file.path != path:
            file, lines, count = GapFile(path), 0, 0
        with contextlib.suppress(OSError):
            file.read()
        if len(file.gaps) != lines:
            lines, count = len(file.gaps), sum_of(file.gaps).number
        self._gap_files[config.name] = (file, lines, count)
        return count + file.more_gaps

    def _infos(self, name: str) -> list[SessionInfo]:
        try:
            state = sessions_path(self._root, name).stat()
        except OSError:
            return []
        known = self._sessions.get(name)
        if known is None or known[0] != (state.st_ino, state.st_size):
            known = self._sessions[name] = ((state.st_ino, state.st_size), read_sessions(self._root, name))
        return known[1]

    def _ring(self, session_id: str, name: str) -> Ring | None:
        path = block_path(self._folder, self._root, session_id, name)
        return self._attached(path, lambda path: attach_ring(path, DTYPES[name], session_id))

    def _ring_view(self, ring: Ring) -> RingView:
        # Order: durable before published, or a moment's delay would show more durable than published.
        archived, loaded = ring.durable("archive"), ring.durable("load")
        published = ring.published
        goes = ring.name in DATASETS  # to the database
        return RingView(
            ring.session_id, ring.name, ring.capacity, published, archived, self._age_s(ring, archived),
            loaded if goes else None, self._age_s(ring, loaded) if goes else None,
        )  # fmt: skip

    def _age_s(self, ring: Ring, seq: int) -> float:
        """Return how old the record `seq` is, 0 if it is not published; of one that was overwritten, the oldest there is."""
        while seq < ring.published:
            at = max(seq, ring.oldest)
            ts_ns = int(copy_rows(ring, at, 1)[_TIMES[ring.name]][0])
            fence()
            if at >= ring.oldest:
                return max(0.0, (self._clock.wall_ns() - ts_ns) / NS)
        return 0.0

    def _broken(
        self, name: str, board: Board | None, rings: dict[tuple[str, str], Ring], views: list[RingView], roles: dict[str, RoleView]
    ) -> list[str]:
        broken = [
            f"ring={view.name} session={view.session_id} {sink}={durable}, more than published={view.published}"
            for view in views
            for sink, durable in (("archived", view.archived), ("loaded", view.loaded or 0))
            if durable > view.published
        ]
        broken += [f"{role.role} says so" for role in roles.values() if role.counters["ledger_broken"]]
        snapshot = read_intake(board["intake"]) if board is not None else None
        if snapshot is not None:
            watch = self._watches.setdefault(name, LedgerWatch(self._clock))
            broken += watch.judge(snapshot, rings.get((snapshot.session_id, "tick")))
        return broken

    def _quiet_s(self, roles: dict[str, RoleView]) -> float:
        feed = roles.get("feed")
        if feed is None or not feed.alive or not feed.counters["heard_ns"]:
            return 0.0
        return max(0.0, (self._clock.mono_ns() - feed.counters["heard_ns"]) / NS)

    def _away_s(self, name: str, roles: dict[str, RoleView]) -> float:
        load = roles.get("load")
        if load is None or not load.alive or not load.counters["database_away"]:
            self._away.pop(name, None)
            return 0.0
        now = self._clock.mono_ns()
        return (now - self._away.setdefault(name, now)) / NS


def _holder(path: Path) -> int:
    """Return the pid of the supervisor that a lock file names, 0 if it does not live. The lock itself is not touched."""
    try:
        text = path.read_text().strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() and is_alive(int(text)) else 0


def _next_open(calendar: calendars.Calendar, market: str, venue: str, now_ns: int) -> int:
    """Return when a market opens next, 0 if no calendar knows: a clock that is not set must not end the look."""
    try:
        return calendar.next_open(market, venue, now_ns)
    except (ValueError, OverflowError):
        return 0
