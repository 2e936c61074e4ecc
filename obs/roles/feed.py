"""The feed of one provider: keeps its connections, decodes, samples, publishes. It never waits for a disk or a database.

The symbols of the configuration are fixed. Without any, the feed obeys what stands as wanted on the board, from its start and while it
runs; as long as nothing is wanted it waits without a connection.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from random import Random
from typing import Final

import orjson
import uvloop

from obs.clock import NS, SYSTEM, Clock
from obs.config import read_secrets
from obs.config.process import ProcessSpec
from obs.errors import EXIT_GOOD, ConfigError
from obs.log import Log
from obs.market import calendar as calendars
from obs.providers.base import Credential
from obs.record.schema import DTYPES
from obs.ring import attach_ring, fence
from obs.roles.link import Link, Linking
from obs.roles.placing import Placing, rows_for
from obs.roles.recorder import Recorder, Rings
from obs.roles.subscriptions import Standing
from obs.roles.takeover import take_over
from obs.roles.venue import provider_of
from obs.sample import Slots
from obs.shm import Board, Counters

_BEAT_S: Final = 1.0
_TAPE_S: Final = 0.01  # inputs wait this long at most for the next batch
_SAMPLE_S: Final = 0.25  # the grid publishes every half second; this only bounds what a death leaves uncounted
_CALENDAR_NS: Final = 600 * NS  # how often the calendar's file is read again
_LOOK_S: Final = 0.2  # between two looks at what is wanted, and at the mitigation level
_LINKS: Final = 3  # place of the first link's task, behind grid, heart and look
_CLOSE_S: Final = 1.5  # for the farewell of the sockets


def run(spec: ProcessSpec, log: Log) -> int:
    """Run until SIGTERM; return the exit code."""
    return uvloop.run(_Feed(spec, log, SYSTEM).run())


class _Feed:
    def __init__(self, spec: ProcessSpec, log: Log, clock: Clock) -> None:
        assert spec.provider is not None and spec.session is not None and spec.board is not None
        self._spec, self._log, self._clock = spec, log, clock
        config = spec.provider
        self._board = Board.attach(spec.board, fence)
        self._counters = Counters(spec.counters)
        self._cell = self._counters.cell("feed")
        self._cell["pid"] = os.getpid()
        self._cell["started_ns"] = clock.wall_ns()
        self._cell["heard_ns"] = clock.mono_ns()
        self._beat()
        self._provider = provider_of(spec)
        credentials = [Credential(secret.name, secret.key, secret.secret) for secret in read_secrets(config, os.environ)]
        for credential in credentials:
            log.mask(credential.key, credential.secret)
        symbols = [self._provider.slot_symbol(symbol) for symbol in config.symbols]
        self._moving = not symbols
        rings = {name: attach_ring(path, DTYPES[name], spec.session.session_id) for name, path in spec.session.rings.items()}
        rows = rows_for(config.slots * max(1, len(credentials))) if self._moving else len(symbols)
        names = [self._provider.record_symbol(symbol) for symbol in symbols]
        slots = Slots(names + [""] * (rows - len(names)), config.market, config.venue)
        self._recorder = Recorder(
            self._provider, slots, Rings(rings["tick"], rings["event"], rings["quarantine"]), self._board, clock, config.name,
            config.mode == "tape",
        )  # fmt: skip
        self._calendar_path = Path(spec.config.data_dir, "state", "calendar.json")
        self._calendar = calendars.load(self._calendar_path)
        self._links = self._make_links(symbols, credentials)
        self._placing = Placing(self._provider, self._recorder, self._links, log) if self._moving else None
        self._wanted = b""
        self._shown_slots: dict[str, object] = {}
        self._pump: asyncio.TimerHandle | None = None
        self._pump_s = _TAPE_S if config.mode == "tape" else _SAMPLE_S
        self._loop: asyncio.AbstractEventLoop | None = None

    def _make_links(self, symbols: list[str], credentials: list[Credential]) -> list[Link]:
        """Deal the symbols to one connection per credential, as many to each as its registrations allow. Where they move, none has any."""
        assert self._spec.provider is not None
        config, rng = self._spec.provider, Random(self._clock.wall_ns())
        owners: list[Credential | None] = list(credentials) or [None]
        rows = {symbol: row for row, symbol in enumerate(symbols, 1)}
        share = config.slots
        if len(symbols) > share * len(owners):
            problem = f"providers.{config.name}.symbols: {len(symbols)} of them, {share * len(owners)} slots"
            raise ConfigError("too many symbols", problems=[problem])
        linking = Linking(
            self._provider, self._recorder, lambda: self._calendar, self._board, self._clock, self._log, config.hours, rng, self._schedule
        )
        links = []
        for place, credential in enumerate(owners):
            mine = symbols[place * share : (place + 1) * share]
            if mine or self._moving:
                links.append(Link(linking, credential, {symbol: rows[symbol] for symbol in mine}, share if self._moving else None))
        return links

    async def run(self) -> int:
        self._loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        self._loop.add_signal_handler(signal.SIGTERM, stop.set)
        self._take_over()
        tasks = [asyncio.create_task(task) for task in (self._grid(), self._heart(), self._look())]
        assert len(tasks) == _LINKS
        tasks += [asyncio.create_task(link.run()) for link in self._links]  # a link's run ends only after its stop
        self._cell["ready"] = 1
        stopping = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            task.result()  # none of them ends by itself: what it raised ends the feed
            raise RuntimeError(f"a task of the feed ended: {task!r}")
        await self._close(tasks)
        return EXIT_GOOD

    def _take_over(self) -> None:
        recorder = self._recorder
        debt = take_over(recorder, self._spec.config.ring.dir, self._spec.config.data_dir, self._open_spans)
        if debt is not None:
            self._log.warning("took_over", of_session=debt.snapshot.session_id, lost=debt.restart.lost, start_ns=debt.restart.start_ns)
        elif recorder.restart is not None:
            self._log.info("came_back", of_session=recorder.restart.of_session, start_ns=recorder.restart.start_ns)
        self._obey()  # Order: after the takeover, which reads the intake that this writes to
        recorder.event("lifecycle", {"what": "feed_started", "pid": os.getpid(), "symbols": int(recorder.watched.sum())})

    def _open_spans(self, start_ns: int, end_ns: int) -> list[tuple[int, int]]:
        assert self._spec.provider is not None
        config = self._spec.provider
        if config.hours == "always":
            return [(start_ns, end_ns)]
        return self._calendar.open_spans(config.market, config.venue, start_ns, end_ns)

    def _schedule(self) -> None:
        """See that what was staged is processed soon, together with what comes meanwhile."""
        if self._pump is None and self._recorder.staged:
            assert self._loop is not None
            self._pump = self._loop.call_later(self._pump_s, self._process)

    def _process(self) -> None:
        self._pump = None
        self._recorder.process()

    async def _grid(self) -> None:
        """Turn at every grid point, a moment after it: what was received up to it has been handed over by then."""
        while True:
            wait_ns = self._recorder.boundary_ns - self._clock.wall_ns()
            if wait_ns < 0:
                self._recorder.turn(self._clock.wall_ns())
                continue
            # Not for long: the wall clock may step, or the level change, while we sleep.
            await asyncio.sleep(min(wait_ns / NS + 0.001, _LOOK_S))

    async def _look(self) -> None:
        """Obey the board: which slots are wanted, how fine the grid is."""
        while True:
            await asyncio.sleep(_LOOK_S)
            self._recorder.obey_level()
            self._obey()
            self._show_slots(if_new=True)

    def _obey(self) -> None:
        if self._placing is None:
            return
        text = self._board["wanted"].read()
        if text == self._wanted:
            self._placing.arrange()  # what was learned meanwhile, what was not possible before
            return
        self._wanted = text
        wanted = orjson.loads(text)
        self._placing.want(wanted.get("symbols", ()), int(wanted.get("version", 0)))

    async def _heart(self) -> None:
        read_ns = self._clock.mono_ns()
        while True:
            self._beat()
            self._show()
            if self._clock.mono_ns() - read_ns > _CALENDAR_NS:
                read_ns = self._clock.mono_ns()
                # In a thread: this process never waits for a disk.
                self._calendar = await asyncio.to_thread(calendars.load, self._calendar_path)
            await asyncio.sleep(_BEAT_S)

    def _beat(self) -> None:
        self._cell["heartbeat_ns"] = self._clock.mono_ns()

    def _show(self) -> None:
        """Put what others read on counters and board: monitor, status, poll."""
        cell, totals, now = self._cell, self._recorder.totals, self._clock.mono_ns()
        if self._recorder.messages != cell["messages"]:
            cell["heard_ns"] = now
        cell["messages"], cell["inputs"], cell["ignored"] = self._recorder.messages, totals.inputs, totals.ignored
        cell["quarantined"], cell["records"], cell["gaps"] = totals.quarantined, totals.records, self._recorder.gaps
        cell["progress"] += 1
        states = [link.state for link in self._links]
        cell["reconnects"] = sum(state.reconnects for state in states)
        cell["connected"] = sum(state.connected for state in states)
        cell["disconnected_ns"] = sum(state.disconnected_ns + (0 if state.connected else now - state.since_ns) for state in states)
        cell["log_dropped"] = self._log.dropped
        self._board["link"].write_json([self._shown(link) for link in self._links])
        self._show_slots()

    def _show_slots(self, if_new: bool = False) -> None:
        slots = {symbol: standing for link in self._links for symbol, standing in link.standings().items()}
        version = self._placing.version if self._placing is not None else 0
        actual = {"slots": slots, "capacity": sum(link.room for link in self._links), "version": version}
        if not if_new or actual != self._shown_slots:
            self._shown_slots = actual
            self._board["actual"].write_json(actual | {"ns": self._clock.wall_ns()})

    def _shown(self, link: Link) -> dict[str, object]:
        state, restart = link.state, self._recorder.restart
        return {
            "name": link.name, "pid": os.getpid(), "connected": state.connected, "since_mono_ns": state.since_ns,
            "connection_no": state.connection_no, "attempt": state.attempt, "reconnects": state.reconnects,
            "last_reason": state.last_reason, "closed_market": state.closed_market,
            "waiting": not link.rows, "subscribed": len(link.subscriptions.of(Standing.CONFIRMED)),
            "wanted": len(link.subscriptions.pairs), "refused": link.subscriptions.silent_symbols(),
            "restart_ns": None if restart is None else restart.start_ns,
        }  # fmt: skip

    async def _close(self, tasks: list[asyncio.Task[None]]) -> None:
        """Close the sockets, then publish all that is pending; counts are the last that is published."""
        for link, task in zip(self._links, tasks[_LINKS:], strict=True):
            link.stop()
            if not link.state.connected:
                task.cancel()  # in a backoff or a handshake
        await asyncio.wait(tasks[_LINKS:], timeout=_CLOSE_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._pump is not None:
            self._pump.cancel()
        now = self._clock.wall_ns()
        for link in self._links:
            # Time that was disconnected before the stop has its own cause; of the stop itself the next start tells.
            if link.state.last_reason == "stopped":
                self._recorder.forgive(link)
            else:
                link.end_gap(now)
        self._recorder.event("lifecycle", {"what": "feed_stopped", "pid": os.getpid()})
        self._recorder.stop()
        self._show()
        self._log.info("feed_stopped", records=self._recorder.totals.records, messages=self._recorder.messages)
