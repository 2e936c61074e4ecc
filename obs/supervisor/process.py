"""One child: its specification, its state and its operating-system process, joined."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np

from obs.clock import NS, Clock
from obs.errors import EXIT_FOUND
from obs.supervisor.stacks import STDERR, Stacks
from obs.supervisor.state import ABORT_S, ProcessState, State

Log = Callable[..., None]


class Child:
    """A process that is kept running. `cell` is its row of counters, if it beats.

    `start` spawns it and returns the Popen; it is given the descriptor to which the process is to write its stacks.
    """

    def __init__(
        self, role: str, owner: str, start: Callable[[int], subprocess.Popen[Any]], cell: np.ndarray | None, limit_s: float, clock: Clock
    ) -> None:
        self.role, self.owner = role, owner
        self.life = ProcessState()
        self._start, self._cell, self._limit_s, self._clock = start, cell, limit_s, clock
        self._stacks: Stacks | None = None  # of one that beats, and may be killed for its silence
        self.process: subprocess.Popen[Any] | None = None
        self.has_been_ready = False  # in this life of the supervisor

    @property
    def pid(self) -> int:
        return self.process.pid if self.process is not None else 0

    @property
    def ready(self) -> bool:
        """Whether the role has recovered and does its work."""
        return self.life.state is State.RUNNING and (self._cell is None or bool(self._cell["ready"]))

    def _beat_ns(self) -> int:
        """Monotonic time of the last heartbeat of this very process, 0 if it has not stamped one."""
        if self._cell is None:
            return self._clock.mono_ns()
        return int(self._cell["heartbeat_ns"]) if int(self._cell["pid"]) == self.pid else 0

    def turn(self, log: Log, may_start: bool = True) -> None:
        """Reap, judge, restart: bring the process one step nearer to running."""
        now, life = self._clock.mono_ns(), self.life
        self.has_been_ready |= self._cell is not None and bool(self._cell["ready"])
        if self.process is not None and life.alive:
            code = self.process.poll()
            if code is not None:
                self._died(code, now, log)
            elif beat := self._beat_ns():
                life.beat(now)
                self._judge(beat, now, log)
            else:
                self._judge(0, now, log)
        if may_start and (life.state is State.STOPPED or (life.state is State.BACKOFF and now >= life.due_ns)):
            if self._cell is not None:
                self._cell["ready"] = self._cell["stopping"] = 0
                self._cell["waiting"] = self._cell["waiting_since_ns"] = 0
            try:
                if self._cell is not None and self._stacks is None:
                    self._stacks = Stacks()
                self.process = self._start(self._stacks.fd if self._stacks is not None else STDERR)
            except OSError as error:  # no process, descriptor or memory to be had: that passes, and we must outlive it
                life.died(EXIT_FOUND, now)
                log("process_not_started", child=self.role, owner=self.owner, error=str(error), state=life.state.value)
                return
            life.spawned(now)
            log("process_started", child=self.role, owner=self.owner, child_pid=self.pid, restarts=life.restarts)

    def _died(self, code: int, now: int, log: Log) -> None:
        asked = self.life.state is State.STOPPING
        self.life.died(code, now)
        facts = {"child": self.role, "owner": self.owner, "child_pid": self.pid, "state": self.life.state.value}
        if self._stacks is not None and (lines := self._stacks.take()):
            log("process_stacks", child=self.role, owner=self.owner, child_pid=self.pid, lines=lines)
        what: dict[str, Any] = {"signal": signal_name(-code)} if code < 0 else {"exit_code": code}
        log("process_ended" if asked and code == 0 else "process_died", **facts, **what)
        if self._cell is not None:
            self._cell["ready"] = 0

    def _judge(self, beat: int, now: int, log: Log) -> None:
        if self.life.aborted_ns:
            if now - self.life.aborted_ns > ABORT_S * NS:
                self.signal(signal.SIGKILL)
        elif self.life.silent(beat, self._limit_s, now):
            # SIGABRT makes a stuck process write its stacks before it ends.
            log("process_silent", child=self.role, owner=self.owner, child_pid=self.pid, limit_s=self._limit_s)
            self.life.aborted_ns = now
            self.signal(signal.SIGABRT)

    def stop(self, log: Log) -> None:
        """Ask it to end. A process that is not alive has ended."""
        if self._cell is not None:
            # Order: before the signal, so that whoever sees it gone sees why.
            self._cell["stopping"] = 1
        if self.life.state in (State.STARTING, State.RUNNING):
            self.signal(signal.SIGTERM)
        self.life.asked_to_stop(self._clock.mono_ns())

    def close(self) -> None:
        """Give back what was kept for it."""
        if self._stacks is not None:
            self._stacks.close()
            self._stacks = None

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, number)


def signal_name(number: int) -> str:
    """Return "SIGKILL" for 9; a real-time signal has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
