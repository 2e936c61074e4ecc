"""What both sinks share: the work in a thread, heartbeats from its progress, a stop by signal, and errors that reach the role."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from obs.clock import SYSTEM
from obs.errors import LoadRetryable
from obs.log import Log
from obs.roles import sink
from obs.roles.sink import Progress, Stop, begin, run_sink
from obs.shm.counters import ROLE_CELL, WAITING


class Work:
    """Work whose every step is the next of some functions; the last one is repeated."""

    def __init__(self, *steps: Callable[[], float]) -> None:
        self.steps, self.done, self.finished = list(steps), 0, False

    def step(self) -> float:
        self.done += 1
        return self.steps[min(self.done, len(self.steps)) - 1]()

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def log() -> Iterator[Log]:
    descriptor = os.open(os.devnull, os.O_WRONLY)
    made = Log("archive", "kis", descriptor=descriptor)
    yield made
    made.close()
    os.close(descriptor)


@pytest.fixture(autouse=True)
def _signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sink, "_BEAT_S", 0.01)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def cell_of() -> Any:
    return np.zeros((), ROLE_CELL)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def beside(watch: Callable[[], None]) -> list[BaseException]:
    """Watch in another thread while the sink has the main one, as signals want it; then ask it to stop."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            watch()
        except BaseException as error:
            failed.append(error)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=run, daemon=True).start()
    return failed


def test_it_works_until_asked_and_finishes(log: Log) -> None:
    cell, work = cell_of(), Work(lambda: 0.0)
    failed = beside(lambda: until(lambda: cell["progress"] > 3))
    assert run_sink(work, cell, Progress(cell, SYSTEM), log, SYSTEM, Stop()) == 0
    assert not failed
    assert work.finished
    assert cell["heartbeat_ns"] > 0


def test_a_long_rest_ends_with_the_wish_to_stop(log: Log) -> None:
    cell, work = cell_of(), Work(lambda: 3600.0)
    failed = beside(lambda: until(lambda: work.done))
    began = time.monotonic()
    run_sink(work, cell, Progress(cell, SYSTEM), log, SYSTEM, Stop())
    assert time.monotonic() - began < 10
    assert not failed
    assert work.finished


@pytest.mark.parametrize("where", ["step", "finish"])
def test_what_the_work_raises_the_role_raises(log: Log, where: str) -> None:
    def fail() -> float:
        raise LoadRetryable("away", code=7)

    cell, work = cell_of(), Work(fail if where == "step" else lambda: 0.0)
    if where == "finish":
        work.finish = fail  # type: ignore[assignment, method-assign]
        beside(lambda: until(lambda: work.done))
    with pytest.raises(LoadRetryable, match="code=7"):
        run_sink(work, cell, Progress(cell, SYSTEM), log, SYSTEM, Stop())


def test_heartbeats_follow_the_work_and_not_the_loop(log: Log) -> None:
    """A thread that is stuck somewhere must show: only one that says that it waits for disk or database is left alone."""
    cell, stuck, waits = cell_of(), threading.Event(), threading.Event()
    progress = Progress(cell, SYSTEM)

    def hang() -> float:
        stuck.wait(30)
        return 0.0

    def wait() -> float:
        progress.waiting("disk")
        waits.wait(30)
        progress.waiting("")
        return 0.0

    def watch() -> None:
        until(lambda: work.done == 2)
        time.sleep(0.05)  # the last stamp of the step before
        silent = int(cell["heartbeat_ns"])
        time.sleep(0.1)
        assert int(cell["heartbeat_ns"]) == silent, "stuck, and nobody stamps for it"
        stuck.set()
        until(lambda: cell["waiting"] == WAITING.index("disk"))
        assert cell["waiting_since_ns"] > 0
        beat = int(cell["heartbeat_ns"])
        until(lambda: int(cell["heartbeat_ns"]) > beat)
        waits.set()
        until(lambda: not cell["waiting_since_ns"])

    work = Work(lambda: 0.0, hang, wait, lambda: 0.01)
    failed = beside(watch)
    run_sink(work, cell, progress, log, SYSTEM, Stop())
    assert failed == []


def test_the_first_heartbeat_is_stamped_before_the_work_begins() -> None:
    cell = cell_of()
    begin(cell, SYSTEM)
    assert cell["pid"] == os.getpid()
    assert 0 < SYSTEM.mono_ns() - int(cell["heartbeat_ns"]) < 10**9
