"""The poll of one provider: REST, apart from the WebSocket. It keeps the access tokens and says which slots are wanted.

Each part is a task of its own, so that none holds up the heartbeat:

    tokens      obs/roles/tokens.py       valid ones on the board
    level       obs/roles/strain.py       how hard the machine has it, and the mitigation level that follows
    days        obs/roles/day_events.py   which days are marked as anomalies

and, where no symbols are listed, those that decide who is watched:

    universe    obs/roles/universes.py    the day's list
    sweeps      obs/roles/sweeps.py       Track A: the whole list each ten minutes, to the ring "swing"
    selection   obs/roles/selection.py    the wanted slots on the board, each minute
    holidays    obs/roles/holidays.py     the venue's calendar against ours, once a day
    calendar    the file of dated sessions, read again each ten minutes

A task that fails for a reason that nobody foresaw says so, in the log and as an event, and begins anew a minute later; the others, and the
slots that are on the board, are not touched.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any, Final

import numpy as np

from obs.clock import PACE, Pace
from obs.config import read_secrets
from obs.config.process import ProcessSpec
from obs.errors import EXIT_GOOD
from obs.log import Log
from obs.market import calendar as calendars
from obs.market.universe import Universe
from obs.providers.base import Credential
from obs.record.events import make_event
from obs.record.schema import EVENT, SWING, TICK
from obs.ring import Producer, attach_ring, fence
from obs.roles.asking import Asking
from obs.roles.day_events import DayEvents
from obs.roles.holidays import keep_checking
from obs.roles.notes import Notes
from obs.roles.polling import Polling
from obs.roles.selection import Selection, Tail, keep_selecting
from obs.roles.strain import Machine, Strain, keep_level
from obs.roles.sweeps import Sweeps
from obs.roles.tokens import Tokens
from obs.roles.universes import Universes
from obs.roles.venue import provider_of
from obs.shm import Board, Counters

_BEAT_S: Final = 1.0
_CALENDAR_S: Final = 600.0
_DISK_S: Final = 5.0  # at the start, before the first heartbeat
_AFTER_FAILURE_S: Final = 60.0

_Task = tuple[str, Callable[[], Awaitable[None]]]


def run(spec: ProcessSpec, log: Log) -> int:
    """Run until SIGTERM; return the exit code."""
    return asyncio.run(Poll(spec, log, PACE).run())


class Poll:
    """`run` is the process. Safety: one event loop."""

    def __init__(self, spec: ProcessSpec, log: Log, pace: Pace) -> None:
        assert spec.provider is not None and spec.session is not None and spec.board is not None
        self._spec, self._config, self._session = spec, spec.provider, spec.session
        self._log, self._pace = log, pace
        self._data_dir = spec.config.data_dir
        self._board = Board.attach(spec.board, fence)
        self._cell = Counters(spec.counters).cell("poll")
        self._cell["pid"], self._cell["started_ns"] = os.getpid(), pace.wall_ns()
        self._cell["heartbeat_ns"] = self._heartbeat_ns()
        self._events = Producer(attach_ring(self._session.rings["poll_event"], EVENT, self._session.session_id))
        self._provider = provider_of(spec)
        credentials = [Credential(secret.name, secret.key, secret.secret) for secret in read_secrets(self._config, os.environ)]
        self._tokens = Tokens(self._provider, credentials, self._board, pace, log)
        self._calendar = calendars.Calendar({}, 0, 0)
        self._asking: Asking | None = None

    async def run(self, stop: asyncio.Event | None = None) -> int:
        """Work until `stop`; None: until SIGTERM."""
        if stop is None:
            stop = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        days = DayEvents(self._data_dir, self._config.name, self._emit, self._pace)
        machine = self._machine()
        strain = Strain(self._board, self._events, machine.measure, self._pace, self._log, self._spec.config.mitigation.enabled)
        work: list[_Task] = [
            ("tokens", self._tokens.keep), ("level", lambda: keep_level(strain, machine, self._pace)), ("days", days.keep),
        ]  # fmt: skip
        if self._config.selects:
            work += await self._selecting(strain)
        else:
            self._want()
        self._emit("lifecycle", {"what": "poll_started", "pid": os.getpid()})
        self._cell["ready"] = 1
        tasks = [asyncio.create_task(self._guarded(name, begin), name=name) for name, begin in work]
        while not stop.is_set():
            self._cell["heartbeat_ns"] = self._heartbeat_ns()
            self._cell["progress"] += 1
            self._cell["log_dropped"] = self._log.dropped
            try:
                await asyncio.wait_for(stop.wait(), _BEAT_S)
            except TimeoutError:
                continue
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._asking is not None:
            await self._asking.close()
        self._emit("lifecycle", {"what": "poll_stopped", "pid": os.getpid()})
        return EXIT_GOOD

    def _heartbeat_ns(self) -> int:
        return PACE.mono_ns()  # of the host, whatever the pace of the day: the supervisor reads the same clock

    def _want(self) -> None:
        """Put the listed symbols on the board, once."""
        self._board["wanted"].write_json({"symbols": list(self._config.symbols), "ns": self._pace.wall_ns()})

    async def _selecting(self, strain: Strain) -> list[_Task]:
        """Return the tasks of a provider whose symbols are selected."""
        config, pace, log, board = self._config, self._pace, self._log, self._board
        notes = Notes(self._data_dir, config.name, log)
        try:
            async with asyncio.timeout(_DISK_S):
                await notes.load()
                await self._read_calendar()
        except TimeoutError:  # standing hours, and no memory of the last sweep, are better than no poll
            log.error("disk_hangs", seconds=_DISK_S)
        asking = self._asking = Asking(self._provider, self._tokens, pace, log)
        polling = Polling(asking, config, self._calendar_now, pace, self._emit, log)
        universes = Universes(polling, self._data_dir, self._cell)
        selection = Selection(self._provider, config, board, self._events, self._data_dir, None, pace, log)
        swing = Producer(attach_ring(self._session.rings["swing"], SWING, self._session.session_id))
        sweeps = Sweeps(polling, universes, swing, notes, level=lambda: strain.level, on_swept=selection.swept)

        def renew(universe: Universe) -> None:
            selection.renew(universe)
            selection.evaluate(pace.wall_ns())

        universes.subscribe(renew)
        ticks = Tail(attach_ring(self._session.rings["tick"], TICK, self._session.session_id))
        return [
            ("universe", universes.keep),
            ("sweeps", sweeps.run),
            ("selection", lambda: keep_selecting(selection, ticks, pace)),
            ("holidays", lambda: keep_checking(polling, notes)),
            ("calendar", self._keep_calendar),
        ]

    def _machine(self) -> Machine:
        counters, session = Counters(self._spec.counters), self._session
        archive: np.ndarray | None = counters.cell("archive") if "archive" in counters.roles() else None
        dtypes = {"tick": TICK, "event": EVENT, "swing": SWING, "poll_event": EVENT}
        rings = [attach_ring(session.rings[name], dtype, session.session_id) for name, dtype in dtypes.items() if name in session.rings]
        return Machine(archive, rings, self._spec.config.archive.flush_s, self._pace)

    async def _guarded(self, name: str, begin: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await begin()
                return  # a part that this provider does not have
            except Exception as error:
                self._cell["errors"] += 1
                self._log.exception("task_failed", error, task=name, again_s=_AFTER_FAILURE_S)
                self._emit("warning", {"what": "task_failed", "task": name, "why": repr(error)[:400], "again_s": _AFTER_FAILURE_S})
                await asyncio.sleep(_AFTER_FAILURE_S)

    def _emit(self, kind: str, payload: dict[str, Any], *, symbol: str = "", start_ns: int = 0, end_ns: int = 0) -> None:
        self._events.publish(make_event(kind, self._pace.wall_ns(), payload, symbol=symbol, start_ns=start_ns, end_ns=end_ns))

    def _calendar_now(self) -> calendars.Calendar:
        return self._calendar

    async def _read_calendar(self) -> None:
        self._calendar = await asyncio.to_thread(calendars.load, self._data_dir / "state" / "calendar.json")

    async def _keep_calendar(self) -> None:
        while True:
            await self._pace.sleep(_CALENDAR_S)
            await self._read_calendar()
