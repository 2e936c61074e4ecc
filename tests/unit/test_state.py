"""The states of a child process: every state under every event, backoff, and what silence is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from obs.clock import NS
from obs.supervisor.state import BACKOFF_S, START_S, ProcessState, State

STOPPED, STARTING, RUNNING, BACKOFF, STOPPING, EXITED, FATAL = State
Event = Callable[[ProcessState], None]
NOW = 1000 * NS


def in_state(state: State) -> ProcessState:
    """A child brought there by the events that lead there."""
    life = ProcessState()
    ways: dict[State, list[Event]] = {
        STOPPED: [],
        STARTING: [spawned],
        RUNNING: [spawned, beat],
        BACKOFF: [spawned, died(1)],
        STOPPING: [spawned, beat, stop],
        EXITED: [spawned, beat, stop, died(0)],
        FATAL: [spawned, died(2)],
    }
    for event in ways[state]:
        event(life)
    assert life.state is state
    return life


def spawned(life: ProcessState) -> None:
    life.spawned(NOW)


def beat(life: ProcessState) -> None:
    life.beat(NOW)


def stop(life: ProcessState) -> None:
    life.asked_to_stop(NOW)


def died(code: int) -> Event:
    return lambda life: life.died(code, NOW)


@pytest.mark.parametrize(
    ("state", "event", "then"),
    [
        (STOPPED, spawned, STARTING), (BACKOFF, spawned, STARTING),
        (STARTING, beat, RUNNING), (RUNNING, beat, RUNNING), (STOPPING, beat, STOPPING), (BACKOFF, beat, BACKOFF), (STOPPED, beat, STOPPED),
        (STOPPED, stop, EXITED), (STARTING, stop, STOPPING), (RUNNING, stop, STOPPING), (BACKOFF, stop, EXITED), (STOPPING, stop, STOPPING),
        (EXITED, stop, EXITED), (FATAL, stop, FATAL),
        *[(state, died(code), FATAL) for state in (STARTING, RUNNING) for code in (2, 3)],
        *[(state, died(code), BACKOFF) for state in (STARTING, RUNNING) for code in (0, 1, 4, 77, -6, -9, -11, -15)],
        *[(STOPPING, died(code), EXITED) for code in (0, 1, 2, 3, -9, -15)],
        (STOPPED, died(1), BACKOFF),  # it could not even be spawned
    ],
)  # fmt: skip
def test_transitions(state: State, event: Event, then: State) -> None:
    life = in_state(state)
    event(life)
    assert life.state is then


@pytest.mark.parametrize("state", list(State))
def test_alive_is_what_has_a_process(state: State) -> None:
    assert in_state(state).alive is (state in (STARTING, RUNNING, STOPPING))


@pytest.mark.parametrize(("code", "state"), [(0, BACKOFF), (2, FATAL), (-9, BACKOFF)])
def test_the_exit_code_is_remembered(code: int, state: State) -> None:
    life = in_state(RUNNING)
    life.died(code, NOW)
    assert (life.exit_code, life.state) == (code, state)


def test_restarts_go_on_for_ever_and_no_rarer_than_once_a_minute() -> None:
    life, now, waits = ProcessState(), NOW, []
    for _ in range(200):
        life.spawned(now)
        life.beat(now)
        life.died(1, now)
        waits.append((life.due_ns - now) / NS)
        now = life.due_ns
    assert waits[: len(BACKOFF_S)] == list(BACKOFF_S)
    assert waits == sorted(waits)
    assert set(waits[len(BACKOFF_S) :]) == {60.0}
    assert life.restarts == 200


@pytest.mark.parametrize(("ran_s", "failures"), [(60, 6), (60.001, 1)])
def test_after_a_stable_minute_the_next_death_is_the_first(ran_s: float, failures: int) -> None:
    life = ProcessState()
    for _ in range(5):
        life.spawned(NOW)
        life.died(1, NOW)
    life.spawned(NOW)
    life.beat(NOW)
    life.died(-9, NOW + int(ran_s * NS))
    assert life.failures == failures
    assert life.restarts == 6


def test_a_long_start_is_no_stable_run() -> None:
    life = ProcessState()
    life.spawned(NOW)
    life.died(1, NOW)
    life.spawned(NOW)
    life.died(1, NOW + 3600 * NS)
    assert life.failures == 2


@pytest.mark.parametrize(
    ("state", "last_beat_s", "now_s", "silent"),
    [
        (STARTING, 0, START_S, False), (STARTING, 0, START_S + 0.1, True), (RUNNING, 0, 15, False), (RUNNING, 0, 15.1, True),
        (RUNNING, 10, 25, False), (RUNNING, 10, 25.1, True), (RUNNING, -500, 15, False),  # a beat of an earlier process
        (STOPPING, 0, 10_000, False), (BACKOFF, 0, 10_000, False), (EXITED, 0, 10_000, False), (FATAL, 0, 10_000, False),
        (STOPPED, 0, 10_000, False),
    ],
)  # fmt: skip
def test_silence(state: State, last_beat_s: float, now_s: float, silent: bool) -> None:
    life = in_state(state)
    assert life.silent(NOW + int(last_beat_s * NS), 15, NOW + int(now_s * NS)) is silent


def test_a_new_process_is_not_judged_by_the_abortion_of_the_last() -> None:
    life = in_state(RUNNING)
    life.aborted_ns = NOW
    life.died(-6, NOW)
    life.spawned(NOW)
    assert life.aborted_ns == 0
