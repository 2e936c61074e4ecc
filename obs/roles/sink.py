"""What both sinks share: their work is done in a thread, and the role's own loop stamps the heartbeat from its progress.

A hung disk or database is an alarm ("waiting for disk since …"), not a reason to kill; a thread that is stuck for any other
reason is. So the heartbeat is stamped when the thread has made progress since the last stamp, or is waiting for one of the two.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Final, Protocol

import numpy as np

from obs.clock import Clock
from obs.errors import EXIT_GOOD
from obs.log import Log
from obs.shm.counters import WAITING

_BEAT_S: Final = 0.5


class Progress:
    """What the working thread says of itself. Safety: written by that thread alone, read by the role's loop."""

    def __init__(self, cell: np.ndarray, clock: Clock) -> None:
        self._cell, self._clock = cell, clock
        self.turns = 0

    def turn(self) -> None:
        self.turns += 1

    def waiting(self, what: str) -> None:
        """Say that a call that may hang begins ("disk", "database") or is over ("")."""
        self._cell["waiting"] = WAITING.index(what)
        self._cell["waiting_since_ns"] = self._clock.mono_ns() if what else 0

    @property
    def is_waiting(self) -> bool:
        return bool(self._cell["waiting_since_ns"])


class Work(Protocol):
    """A sink's work. `step` does one round and returns how long to rest; `finish` ends after a last round."""

    def step(self) -> float: ...

    def finish(self) -> None: ...


class Stop:
    """The wish to stop, set by a signal."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self, *_: object) -> None:
        self._event.set()

    @property
    def wished(self) -> bool:
        return self._event.is_set()

    def rest(self, seconds: float) -> None:
        """Sleep, but not past the wish to stop."""
        self._event.wait(seconds)


def run_sink(work: Work, cell: np.ndarray, progress: Progress, log: Log, clock: Clock, stop: Stop) -> int:
    """Run `work` in a thread until SIGTERM and stamp heartbeats meanwhile; raises what the work raised."""
    failure: list[BaseException] = []

    def loop() -> None:
        try:
            while not stop.wished:
                rest_s = work.step()
                progress.turn()
                if rest_s:
                    stop.rest(rest_s)
            work.finish()
        except BaseException as error:  # handed to the role's own thread, which raises it
            failure.append(error)

    signal.signal(signal.SIGTERM, stop.set)
    thread = threading.Thread(target=loop, name="work", daemon=True)
    thread.start()
    seen = -1
    while thread.is_alive():
        if progress.turns != seen or progress.is_waiting:
            seen = progress.turns
            cell["heartbeat_ns"] = clock.mono_ns()
        cell["progress"] = progress.turns
        cell["log_dropped"] = log.dropped
        thread.join(_BEAT_S)
    if failure:
        raise failure[0]
    return EXIT_GOOD


def begin(cell: np.ndarray, clock: Clock) -> None:
    """Stamp the first heartbeat of this process."""
    cell["pid"], cell["started_ns"] = os.getpid(), clock.wall_ns()
    cell["heartbeat_ns"] = clock.mono_ns()


