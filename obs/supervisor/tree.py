"""The supervisor's turn: take signals, reap, judge heartbeats, converge to the plan; and the ordered stop.

Stop order: feeds and polls close; the archive writers drain to the last published record and seal; the loaders commit all of
it; then the services; then end lines are written and drained rings unlinked. Every phase has a deadline, after which it ends
harder: what was published stays in the rings, so nothing of it is lost either way.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from obs.clock import NS, Clock
from obs.config import Config, ProviderConfig
from obs.config.process import SERVICES, ProcessSpec
from obs.errors import DiskTrouble, ShmFull
from obs.log import Log
from obs.shm import Board, Counters, remove
from obs.supervisor.child import spawn
from obs.supervisor.plan import PROVIDER_ROLES, SERVICE_ROLES, SINKS, Plan, heartbeat_limit_s
from obs.supervisor.process import Child
from obs.supervisor.rings import ProviderMemory
from obs.supervisor.state import State
from obs.supervisor.state_file import StateFile

TURN_S: Final = 0.1
_SOURCES_S: Final = 3.0  # for feeds and polls to close
_SINK_S: Final = {"archive": 3.5, "load": 2.5}  # for each to drain
_SERVICES_S: Final = 2.0
_KILL_S: Final = 2.0
_HOUSEKEEPING_NS: Final = NS
_STATE_NS: Final = 5 * NS


class Owner:
    """The processes and the memory of one provider."""

    def __init__(self, provider: ProviderConfig, config: Config, clock: Clock, dsn: str) -> None:
        self.provider, self._config, self._dsn = provider, config, dsn
        self.memory = ProviderMemory(config, provider.name, clock)
        self.state_file = StateFile(config.data_dir, provider.name)
        self.state_file.fill(self.memory.board)
        self.children: dict[str, Child] = {}
        for role in PROVIDER_ROLES:
            self.memory.counters.add(role)
            cell = self.memory.counters.cell(role)
            limit_s = heartbeat_limit_s(config, role)
            self.children[role] = Child(role, provider.name, self._starter(role), cell, limit_s, clock)

    def _starter(self, role: str) -> Callable[[int], subprocess.Popen[bytes]]:
        # The specification is made anew at each start: the list of old sessions has changed.
        memory = self.memory

        def start(stacks: int) -> subprocess.Popen[bytes]:
            session, board = memory.spec(), memory.board.block.path
            owner, config = self.provider.name, self._config
            spec = ProcessSpec(role, owner, config, memory.counters_path, os.getpid(), self.provider, session, board, self._dsn)
            return spawn(spec, stacks)

        return start

    def recorded(self) -> bool:
        """Whether the first record of this life of the provider has been published."""
        return self.memory.current.rings["tick"].published > 0


class Tree:
    """All children of one supervisor. Call `turn` every TURN_S, then `stop`; from the main thread."""

    def __init__(self, config: Config, plan: Plan, log: Log, clock: Clock, dsn: str) -> None:
        self._config, self._log, self._clock, self._dsn = config, log, clock, dsn
        self.owners: list[Owner] = []
        try:
            for provider in plan.providers:
                self.owners.append(self._owner(provider))
        except ShmFull:
            for owner in self.owners:  # a refusal leaves no memory behind that a start would need
                owner.memory.end_current()
                owner.memory.close()
            raise
        for owner in self.owners:
            for event, facts in owner.memory.notes:
                log.warning(event, provider=owner.provider.name, **facts)
            log.info("session_started", provider=owner.provider.name, session=owner.memory.current.session_id, old=len(owner.memory.old))
        self.services: dict[str, Child] = {}
        self._service_counters: Counters | None = None
        if plan.services:
            self._plan_services(dsn)
        self.extra: list[Child] = []  # simulated exchanges
        self.pulse: Callable[[], None] = _nothing  # called while a phase of a stop waits: that, too, is progress
        self._housekept_ns = self._saved_ns = 0
        self._saving: threading.Thread | None = None

    def _plan_services(self, dsn: str) -> None:
        config, folder = self._config, self._config.ring.dir
        path = Counters.path(folder, config.data_dir, SERVICES)
        counters = self._service_counters = Counters(path, make=True)
        # Every provider that is configured, also those that another supervisor of this host runs.
        peers = {
            provider.name: (Counters.path(folder, config.data_dir, provider.name), Board.path(folder, config.data_dir, provider.name))
            for provider in config.planned()
        }
        for role in SERVICE_ROLES:
            counters.add(role)
            spec = ProcessSpec(role, SERVICES, config, path, os.getpid(), dsn=dsn, peers=peers)
            limit_s = heartbeat_limit_s(config, role)
            self.services[role] = Child(role, SERVICES, partial(spawn, spec), counters.cell(role), limit_s, self._clock)

    def children(self) -> list[Child]:
        """Return all children in the order of their start."""
        data = [owner.children[role] for role in PROVIDER_ROLES for owner in self.owners]
        return [*self.extra, *data, *self.services.values()]

    def turn(self) -> None:
        """Bring everything one step nearer to the plan."""
        for child in self.children():
            child.turn(self.report)
        now = self._clock.mono_ns()
        if now - self._housekept_ns > _HOUSEKEEPING_NS:
            self._housekept_ns = now
            self._remove_drained()
            for owner in list(self.owners):
                if missing := owner.memory.missing():
                    self._renew(owner, missing)
        if now - self._saved_ns > _STATE_NS:
            self._saved_ns = now
            self._save_state()

    def report(self, event: str, **facts: Any) -> None:
        """Log what happened to a child."""
        if event in ("process_died", "process_silent", "process_stacks", "process_not_started"):
            self._log.warning(event, **facts)
        else:
            self._log.info(event, **facts)

    def _remove_drained(self) -> None:
        for owner in self.owners:
            # Ready is what it is once it has told of lost rings: before that no old session may go.
            if owner.children["archive"].has_been_ready:
                try:
                    for session_id in owner.memory.remove_drained():
                        self._log.info("session_drained", provider=owner.provider.name, session=session_id)
                except DiskTrouble as error:  # no end line, no removal; the next turn tries again
                    self._log.warning("session_not_ended", provider=owner.provider.name, error=str(error))

    def _save_state(self) -> None:
        """Copy budget and tokens to disk in a thread: this loop judges heartbeats and must not wait for a disk."""
        if self._saving is not None and self._saving.is_alive():
            return
        pending = [(owner.state_file, owner.state_file.collect(owner.memory.board)) for owner in self.owners]

        def save() -> None:
            for file, value in pending:
                try:
                    file.save(value)
                except OSError as error:
                    self._log.warning("state_not_saved", path=str(file.path), error=str(error))

        self._saving = threading.Thread(target=save, name="state", daemon=True)
        self._saving.start()

    def steady(self) -> bool:
        """Whether every child has stamped its first heartbeat."""
        return all(child.life.state is State.RUNNING for child in self.children())

    def recorded(self) -> bool:
        return all(owner.recorded() for owner in self.owners)

    def fatal(self) -> Child | None:
        """Return a child that no restart can help, if there is one."""
        return next((child for child in self.children() if child.life.state is State.FATAL), None)

    def stop(self, hurry: Callable[[], bool]) -> bool:
        """Stop everything in order; return whether all children ended by themselves and every ring was drained.

        `hurry` says that a second signal came: every deadline is now.
        """
        sources = [child for owner in self.owners for role, child in owner.children.items() if role not in SINKS]
        clean = self._phase("sources", sources, _SOURCES_S, hurry)
        clean &= self._phase("exchanges", self.extra, _KILL_S, hurry)
        for role in SINKS:
            # Order: the archive writer, then the loader, who takes gap lines, and what has left the ring, from the archive.
            clean &= self._phase(role, [owner.children[role] for owner in self.owners], _SINK_S[role], hurry)
        clean &= self._phase("services", list(self.services.values()), _SERVICES_S, hurry)
        self._remove_drained()
        for owner in self.owners:
            if not self._end_current(owner):
                clean = False
                self._log.warning("session_left", provider=owner.provider.name, session=owner.memory.current.session_id)
        self._save_state()
        if self._saving is not None:
            self._saving.join(_KILL_S)
        return clean

    def _renew(self, owner: Owner, missing: list[str]) -> None:
        """Begin a new session for a provider whose ring files were removed under it (a clean-up at logout, a person).

        Its processes still map the rings: they are stopped in order, and what they drain is stored. What a dead one can no
        longer reach gets its gap row from the next start, as after the death of a host.
        """
        self._log.error("rings_removed", provider=owner.provider.name, rings=missing, session=owner.memory.current.session_id)
        children = owner.children
        self._phase("sources", [child for role, child in children.items() if role not in SINKS], _SOURCES_S, _never)
        for role in SINKS:
            self._phase(role, [children[role]], _SINK_S[role], _never)
        self._end_current(owner)
        for child in children.values():
            child.close()
        owner.memory.close()
        self.owners[self.owners.index(owner)] = self._owner(owner.provider)

    def _owner(self, provider: ProviderConfig) -> Owner:
        return Owner(provider, self._config, self._clock, self._dsn)

    def _end_current(self, owner: Owner) -> bool:
        try:
            return owner.memory.end_current()
        except DiskTrouble as error:
            self._log.warning("session_not_ended", provider=owner.provider.name, error=str(error))
            return False

    def _phase(self, name: str, children: list[Child], deadline_s: float, hurry: Callable[[], bool]) -> bool:
        for child in children:
            child.stop(self.report)
        end = self._clock.mono_ns() + int(deadline_s * NS)
        while any(child.life.alive for child in children):
            for child in children:
                child.turn(self.report, may_start=False)
            self.pulse()
            if self._clock.mono_ns() > end or hurry():
                break
            time.sleep(TURN_S / 5)
        late = [child for child in children if child.life.alive]
        for child in late:
            self.pulse()
            self._log.warning("process_killed", phase=name, child=child.role, owner=child.owner, child_pid=child.pid, deadline_s=deadline_s)
            if child.process is not None:
                child.process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the kernel: the next start waits for its lock
                    child.process.wait(_KILL_S)
                child.turn(self.report, may_start=False)
        return not late

    def close(self) -> None:
        for owner in self.owners:
            owner.memory.close()
        if self._service_counters is not None:
            path: Path = self._service_counters.block.path
            self._service_counters.close()
            remove(path)


def _never() -> bool:
    return False


def _nothing() -> None:
    pass
