"""When is a silent connection dead? The decision, on times alone."""

from __future__ import annotations

import pytest

from obs.clock import NS
from obs.wire.liveness import Liveness


def run(limits: tuple[float, float, float], frames_s: list[float], until_s: float = 200.0) -> tuple[str, float, int]:
    """Follow the verdicts, frames arriving at `frames_s`; return (how it ended, when, pings sent)."""
    life = Liveness(0, *(int(limit * NS) for limit in limits))
    due, pings = life.first(), 0
    while due < until_s * NS:
        now = due
        seen = max((int(at * NS) for at in frames_s if at * NS <= now), default=0)
        action, due = life.judge(now, seen)
        if action == "ping":
            pings += 1
        elif action:
            return action, now / NS, pings
    return "", until_s, pings


EVERY_SECOND = [float(second) for second in range(1, 200)]


@pytest.mark.parametrize(
    ("limits", "frames_s", "ended", "at_s", "pings"),
    [
        ((20, 10, 0), [], "pong_timeout", 30, 1),  # cut at once: the venue of 30 s
        ((20, 10, 0), [20.1], "pong_timeout", 50, 2),  # cut just after a pong: 30 s again
        ((20, 10, 0), [29.9, 49.9], "pong_timeout", 70, 3),  # any frame answers
        ((20, 10, 0), EVERY_SECOND, "", 200, 9),  # data but no pong: it delivers, it lives
        ((0, 10, 90), [], "mute", 90, 0),  # the venue of 90 s
        ((0, 10, 90), [89.9], "mute", 179.9, 0),
        ((0, 10, 90), EVERY_SECOND, "", 200, 0),
        ((20, 10, 25), [], "mute", 25, 1),  # whichever comes first
        ((0, 10, 0), [], "", 200, 0),  # nothing asked for, nothing judged
    ],
)
def test_verdicts(limits: tuple[float, float, float], frames_s: list[float], ended: str, at_s: float, pings: int) -> None:
    how, when_s, pinged = run(limits, frames_s)
    assert (how, pinged) == (ended, pings)
    assert when_s == pytest.approx(at_s, abs=0.01)


def test_a_stopped_process_reads_before_it_judges() -> None:
    life = Liveness(0, 0, 0, 10 * NS)
    assert life.first() == 10 * NS
    assert life.judge(60 * NS, 0).action == "", "it was stopped for 50 s: what came meanwhile is unread"
    assert life.judge(60 * NS + NS // 2, 60 * NS + 1).action == "", "and something had come"


def test_a_stopped_process_still_finds_a_dead_connection() -> None:
    life = Liveness(0, 0, 0, 10 * NS)
    life.first()
    grace = life.judge(60 * NS, 0)
    assert grace.action == ""
    assert life.judge(grace.next_ns, 0).action == "mute"
