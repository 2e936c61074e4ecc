"""A child that is kept running: real processes, and a clock that the test turns."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feed_rig import FakeClock

from obs.clock import NS
from obs.shm.counters import ROLE_CELL
from obs.supervisor.process import Child, signal_name
from obs.supervisor.state import ABORT_S, BACKOFF_S, START_S, State

LIMIT_S = 15.0
SLEEP = ["sleep", "60"]


class Kept:
    """A Child, what it logged, and the processes it started."""

    def __init__(self, *commands: list[str]) -> None:
        self.commands, self.clock = list(commands), FakeClock()
        self.cell: Any = np.zeros((), ROLE_CELL)
        self.log: list[tuple[str, dict[str, Any]]] = []
        self.started: list[subprocess.Popen[bytes]] = []
        self.child = Child("feed", "kis", self.start, self.cell, LIMIT_S, self.clock)

    def start(self, _stacks: int) -> subprocess.Popen[bytes]:
        command = self.commands[min(len(self.started), len(self.commands) - 1)]
        self.started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        return self.started[-1]

    def turn(self, **how: Any) -> None:
        self.child.turn(lambda event, **facts: self.log.append((event, facts)), **how)

    def beat(self) -> None:
        """What the process itself does."""
        self.cell["pid"], self.cell["heartbeat_ns"] = self.child.pid, self.clock.mono

    def until(self, condition: Callable[[], bool]) -> None:
        """Turn until the operating system has done its part."""
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end, (self.child.life, self.log)
            self.turn(may_start=False)
            time.sleep(0.001)

    @property
    def state(self) -> State:
        return self.child.life.state

    def events(self) -> list[str]:
        return [event for event, _ in self.log]


@pytest.fixture
def keep() -> Iterator[Callable[..., Kept]]:
    made: list[Kept] = []

    def begin(*commands: list[str]) -> Kept:
        made.append(Kept(*commands))
        made[-1].turn()
        return made[-1]

    yield begin
    for kept in made:
        for process in kept.started:
            process.kill()
            process.wait()


def test_started_then_running_with_its_first_heartbeat(keep: Callable[..., Kept]) -> None:
    kept = keep(SLEEP)
    assert kept.state is State.STARTING
    kept.turn()
    assert kept.state is State.STARTING
    kept.beat()
    kept.turn()
    assert kept.state is State.RUNNING
    assert not kept.child.ready
    kept.cell["ready"] = 1
    assert kept.child.ready
    assert not kept.child.has_been_ready
    kept.turn()
    assert kept.child.has_been_ready
    assert kept.events() == ["process_started"]


def test_the_heartbeat_of_an_earlier_process_is_none_of_this_one(keep: Callable[..., Kept]) -> None:
    kept = keep(SLEEP)
    kept.cell["pid"], kept.cell["heartbeat_ns"] = kept.child.pid + 1, kept.clock.mono
    kept.turn()
    assert kept.state is State.STARTING


@pytest.mark.parametrize(
    ("command", "facts"),
    [(["sh", "-c", "exit 7"], {"exit_code": 7}), (["sh", "-c", "kill -9 $$"], {"signal": "SIGKILL"})],
)
def test_a_death_is_told_and_answered_by_a_restart(keep: Callable[..., Kept], command: list[str], facts: dict[str, Any]) -> None:
    kept = keep(command, SLEEP)
    kept.cell["ready"] = kept.cell["waiting"] = kept.cell["waiting_since_ns"] = 1
    kept.until(lambda: kept.state is State.BACKOFF)
    event, told = kept.log[-1]
    assert event == "process_died"
    assert kept.child.has_been_ready, "also if it died right after"
    assert facts.items() <= told.items()
    assert kept.cell["ready"] == 0
    kept.turn()
    assert len(kept.started) == 1, "not before its time"
    kept.clock.forward(int(BACKOFF_S[0] * NS))
    kept.turn()
    assert (kept.state, len(kept.started)) == (State.STARTING, 2)
    assert kept.cell["waiting"] == kept.cell["waiting_since_ns"] == 0, "what the dead one waited for is over"


@pytest.mark.parametrize("code", [2, 3])
def test_exit_codes_2_and_3_are_final(keep: Callable[..., Kept], code: int) -> None:
    kept = keep(["sh", "-c", f"exit {code}"])
    kept.until(lambda: kept.state is State.FATAL)
    kept.clock.forward(3600 * NS)
    kept.turn()
    assert (kept.state, len(kept.started)) == (State.FATAL, 1)


def ignores(pid: int, number: signal.Signals) -> bool:
    """Whether a process ignores a signal by now."""
    words = Path("/proc", str(pid), "status").read_text().split("SigIgn:")[1].split()
    return bool(int(words[0], 16) >> (number - 1) & 1)


def test_silence_is_ended_by_sigabrt_and_then_by_sigkill(keep: Callable[..., Kept]) -> None:
    kept = keep(["sh", "-c", "trap '' ABRT; while :; do sleep 0.01; done"])
    kept.until(lambda: ignores(kept.started[0].pid, signal.SIGABRT))
    kept.beat()
    kept.turn()
    kept.clock.forward(int(LIMIT_S * NS))
    kept.turn()
    assert "process_silent" not in kept.events()
    kept.clock.forward(1)
    kept.turn()
    kept.turn()
    assert kept.events().count("process_silent") == 1
    kept.clock.forward(ABORT_S * NS)
    kept.turn()
    assert kept.started[0].poll() is None, "it has the time to print its stacks"
    kept.clock.forward(1)
    kept.until(lambda: kept.state is State.BACKOFF)
    assert kept.log[-1][1]["signal"] in ("SIGKILL", "SIGABRT")
    assert kept.started[0].returncode == -9


def test_a_process_that_honours_sigabrt_dies_of_it(keep: Callable[..., Kept]) -> None:
    kept = keep(SLEEP)
    kept.beat()
    kept.turn()
    kept.clock.forward(int(LIMIT_S * NS) + 1)
    kept.until(lambda: kept.state is State.BACKOFF)
    assert kept.log[-1][1]["signal"] == "SIGABRT"


def test_a_process_that_never_beats_is_ended_too(keep: Callable[..., Kept]) -> None:
    kept = keep(SLEEP)
    kept.clock.forward(START_S * NS)
    kept.turn()
    assert kept.events() == ["process_started"]
    kept.clock.forward(1)
    kept.until(lambda: kept.state is State.BACKOFF)


def test_a_stopped_process_is_killed_although_it_cannot_take_sigabrt(keep: Callable[..., Kept]) -> None:
    kept = keep(SLEEP)
    kept.beat()
    kept.turn()
    kept.started[0].send_signal(signal.SIGSTOP)
    kept.clock.forward(int(LIMIT_S * NS) + 1)
    kept.turn()
    kept.clock.forward(ABORT_S * NS + 1)
    kept.until(lambda: kept.state is State.BACKOFF)
    assert kept.started[0].returncode == -9


def test_asked_to_stop_it_exits_and_is_not_restarted(keep: Callable[..., Kept]) -> None:
    kept = keep(SLEEP)
    kept.beat()
    kept.turn()
    assert kept.cell["stopping"] == 0
    kept.child.stop(lambda *_: None)
    assert kept.cell["stopping"] == 1, "whoever sees it gone sees why"
    kept.until(lambda: kept.state is State.EXITED)
    kept.clock.forward(3600 * NS)
    kept.turn()
    assert len(kept.started) == 1


def test_asked_to_stop_while_it_waits_for_its_restart_it_has_ended(keep: Callable[..., Kept]) -> None:
    kept = keep(["sh", "-c", "exit 1"])
    kept.until(lambda: kept.state is State.BACKOFF)
    kept.child.stop(lambda *_: None)
    kept.clock.forward(3600 * NS)
    kept.turn()
    assert (kept.state, len(kept.started)) == (State.EXITED, 1)


def test_a_process_that_cannot_be_started_is_tried_again() -> None:
    """No process to be had, no memory: that passes, and the supervisor outlives it."""
    clock, log = FakeClock(), []
    tries = 0

    def start(_stacks: int) -> subprocess.Popen[bytes]:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return subprocess.Popen(SLEEP)

    child = Child("feed", "kis", start, None, LIMIT_S, clock)
    for _ in range(3):
        child.turn(lambda event, **_: log.append(event))
        clock.forward(NS)
    assert log == ["process_not_started", "process_not_started", "process_started"]
    assert child.process is not None
    child.process.kill()
    child.process.wait()


def test_a_child_without_heartbeats_runs_while_it_lives() -> None:
    clock = FakeClock()
    child = Child("exchange", "kis", lambda _: subprocess.Popen(SLEEP), None, 3600, clock)
    child.turn(lambda *_, **__: None)
    child.turn(lambda *_, **__: None)
    assert child.life.state is State.RUNNING
    assert child.ready
    assert child.process is not None
    child.process.kill()
    child.process.wait()


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (6, "SIGABRT"), (35, "signal 35"), (64, "SIGRTMAX")])
def test_signal_names(number: int, name: str) -> None:
    assert signal_name(number) == name
