"""The states of a child process and their transitions: pure, in monotonic time only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from obs.clock import NS
from obs.errors import EXIT_CONFIG, EXIT_GOOD, EXIT_STATE

BACKOFF_S: Final = (0.1, 0.5, 1, 2, 5, 10, 20, 30, 60)
STABLE_S: Final = 60  # after so long without a death the next one counts as the first
START_S: Final = 60  # a child that has not stamped its first heartbeat by then is stuck
ABORT_S: Final = 5  # between SIGABRT, at which it writes where it hangs, and SIGKILL
FINAL: Final = (EXIT_CONFIG, EXIT_STATE)


class State(Enum):
    STOPPED = "stopped"  # not asked to run yet
    STARTING = "starting"  # spawned, no heartbeat yet
    RUNNING = "running"
    BACKOFF = "backoff"  # died, to be started again
    STOPPING = "stopping"  # asked to stop
    EXITED = "exited"  # stopped because it was asked to
    FATAL = "fatal"  # exit code 2 or 3: a restart cannot help


@dataclass
class ProcessState:
    """The life of one child. `now_ns` is monotonic everywhere."""

    state: State = State.STOPPED
    since_ns: int = 0
    due_ns: int = 0  # BACKOFF: when to start again
    failures: int = 0  # in a row
    restarts: int = 0
    aborted_ns: int = 0  # when SIGABRT was sent to a silent child; 0 = not
    exit_code: int | None = None

    def _to(self, state: State, now_ns: int) -> None:
        self.state, self.since_ns = state, now_ns

    def spawned(self, now_ns: int) -> None:
        """STOPPED or BACKOFF -> STARTING."""
        self.aborted_ns = 0
        self._to(State.STARTING, now_ns)

    def beat(self, now_ns: int) -> None:
        """A heartbeat was seen: STARTING -> RUNNING."""
        if self.state is State.STARTING:
            self._to(State.RUNNING, now_ns)

    def asked_to_stop(self, now_ns: int) -> None:
        """STARTING or RUNNING -> STOPPING; a child that is not alive -> EXITED."""
        if self.state in (State.STARTING, State.RUNNING):
            self._to(State.STOPPING, now_ns)
        elif self.state in (State.STOPPED, State.BACKOFF):
            self._to(State.EXITED, now_ns)

    def died(self, exit_code: int, now_ns: int) -> None:
        """STOPPING -> EXITED; exit codes 2 and 3 -> FATAL; everything else -> BACKOFF, for ever."""
        self.exit_code = exit_code
        if self.state is State.STOPPING:
            self._to(State.EXITED, now_ns)
        elif exit_code in FINAL:
            self._to(State.FATAL, now_ns)
        else:
            stable = self.state is State.RUNNING and now_ns - self.since_ns > STABLE_S * NS
            self.failures = 1 if stable else self.failures + 1
            self.restarts += 1
            self.due_ns = now_ns + int(BACKOFF_S[min(self.failures, len(BACKOFF_S)) - 1] * NS)
            self._to(State.BACKOFF, now_ns)

    def silent(self, last_beat_ns: int, limit_s: float, now_ns: int) -> bool:
        """Whether a child that should beat has been silent for too long."""
        if self.state is State.STARTING:
            return now_ns - self.since_ns > START_S * NS
        return self.state is State.RUNNING and now_ns - max(last_beat_ns, self.since_ns) > limit_s * NS

    @property
    def alive(self) -> bool:
        return self.state in (State.STARTING, State.RUNNING, State.STOPPING)


assert EXIT_GOOD not in FINAL
