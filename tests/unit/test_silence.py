"""When is a connection that is open, but brings nothing, mute? The decision, on counts and times alone."""

from __future__ import annotations

import pytest

from obs.clock import NS
from obs.roles.silence import Silence

OPENED_S, LIMIT_S, LOOKS_PER_S = 1_000, 30, 4
Stretches = list[tuple[float, float]]  # seconds, messages per second


def verdicts(stretches: Stretches) -> tuple[float | None, float | None]:
    """Return how many seconds after the opening a connection came into doubt, for good, and when it was mute; None: it was not."""
    silence, messages, at_s = Silence(OPENED_S * NS), 0.0, 0.0
    doubt: float | None = None
    for seconds, rate in stretches:
        for _ in range(int(seconds * LOOKS_PER_S)):
            at_s += 1 / LOOKS_PER_S
            messages += rate / LOOKS_PER_S
            silence.look(int((OPENED_S + at_s) * NS), int(messages))
            doubt = (doubt or at_s) if silence.in_doubt() else None
            if silence.is_mute(LIMIT_S):
                return doubt, at_s
    return doubt, None


@pytest.mark.parametrize(
    ("stretches", "doubt_s", "mute_s"),
    [
        ([(60, 100), (120, 0)], 65.25, 90),  # the mute venue
        ([(60, 100), (4, 0), (60, 100)], None, None),  # a breath
        ([(60, 100), (29, 0), (60, 100)], None, None),  # it came back: what was missed, the venue's counter says
        ([(60, 100), (29, 0), (1, 100), (120, 0)], 95.25, 120),  # each silence for itself
        ([(600, 1), (49, 0), (10, 1)], None, None),  # one message a second: fifty seconds are nothing
        ([(600, 1), (120, 0)], 650.25, 650.25),  # but more of them are
        ([(600, 0.2), (240, 0)], None, None),  # a quiet market: four minutes are no more than its pace explains
        ([(600, 10), (300, 0.2), (29, 0)], 907.5, None),  # a market that falls quiet may be in doubt, but is no mute venue
        ([(40, 0)], None, 30),  # not even an answer
        ([(1, 82), (299, 0)], None, None),  # answers in one burst are no pace: ten times the limit …
        ([(1, 82), (400, 0)], None, 301),  # … and no more
    ],
)
def test_a_silence_is_judged_by_the_pace_before_it(stretches: Stretches, doubt_s: float | None, mute_s: float | None) -> None:
    assert verdicts(stretches) == (doubt_s, mute_s)


@pytest.mark.parametrize("messages", [0, 1, 99, 100, 10_000])
def test_a_look_that_finds_more_ends_every_doubt(messages: int) -> None:
    silence = Silence(OPENED_S * NS)
    silence.look((OPENED_S + 1) * NS, messages)
    silence.look((OPENED_S + 3_000) * NS, messages + 1)
    assert (silence.lasted_ns, silence.in_doubt(), silence.is_mute(LIMIT_S)) == (0, False, False)
