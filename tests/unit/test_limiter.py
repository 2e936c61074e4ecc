"""The limiter: evenly spaced, in order, never faster than the rate, and silent while the venue said so."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Coroutine
from typing import Any

import pytest
from paces import JumpPace

from obs.clock import NS
from obs.wire.limiter import Limiter

START_NS = 1_770_000_000 * NS


def run(pace: JumpPace, *work: Coroutine[Any, Any, None], late_s: list[float] | None = None) -> None:
    """Run `work` to its end on the clock that jumps; each wake comes late by the next of `late_s`."""

    async def main() -> None:
        tasks = [asyncio.ensure_future(one) for one in work]
        while not all(task.done() for task in tasks):
            for _ in range(10):  # whatever became ready runs until it waits for the clock again
                await asyncio.sleep(0)
            pace.advance(pace.next_s() + (late_s.pop(0) if late_s else 0.0))
        await asyncio.gather(*tasks)

    asyncio.run(main())


def most_within(times: list[float], seconds: float) -> int:
    return max(sum(1 for other in times if at <= other < at + seconds) for at in times)


@pytest.mark.parametrize("rate", [0.9, 8.0, 15.0])
def test_many_at_once_leave_evenly_spaced_and_in_order(rate: float) -> None:
    pace = JumpPace(START_NS)
    limiter = Limiter({"rest": rate}, pace)
    left: list[tuple[int, float]] = []

    async def call(number: int) -> None:
        await limiter.acquire("rest")
        left.append((number, pace.mono_ns() / NS))

    run(pace, *(call(number) for number in range(40)))
    assert [number for number, _ in left] == list(range(40))
    spacing = [later - before for (_, before), (_, later) in itertools.pairwise(left)]
    assert min(spacing) == pytest.approx(1 / rate, rel=1e-6)
    assert max(spacing) == pytest.approx(1 / rate, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_late_loop_loses_little_and_never_bursts(seed: int) -> None:
    """Each wake comes up to 10 ms late, one in ten by up to 2 s: the venue's 18 a second hold at 15."""
    rng = random.Random(seed)
    late_s = [rng.random() * 0.01 if rng.random() < 0.9 else rng.random() * 2 for _ in range(600)]
    small = sum(late for late in late_s if late > 0.1)
    pace = JumpPace(START_NS)
    limiter = Limiter({"rest": 15.0}, pace)
    left: list[float] = []

    async def calls() -> None:
        for _ in range(600):
            await limiter.acquire("rest")
            left.append(pace.mono_ns() / NS)

    run(pace, calls(), late_s=late_s)
    assert most_within(left, 1.0) <= 17
    assert min(later - before for before, later in itertools.pairwise(left)) >= 0.75 / 15.0 - 1e-6
    assert left[-1] - left[0] <= 600 / 15.0 + small + 0.5, "but for the long stops, nothing is lost"


def test_groups_do_not_wait_for_each_other_and_a_pause_holds_its_own() -> None:
    pace = JumpPace(START_NS)
    limiter = Limiter({"a": 10.0, "b": 10.0}, pace)
    left: dict[str, list[float]] = {"a": [], "b": []}
    begin = pace.mono_ns() / NS

    async def calls(group: str) -> None:
        for _ in range(20):
            await limiter.acquire(group)
            left[group].append(pace.mono_ns() / NS - begin)
            if group == "a" and len(left[group]) == 5:
                limiter.pause("a", 3.0)
                limiter.pause("a", 1.0)  # a shorter one does not shorten it
                assert limiter.paused_s("a") == 3.0
                assert limiter.paused_s("b") == 0.0

    run(pace, calls("a"), calls("b"))
    assert left["b"][-1] == pytest.approx(1.9)
    assert left["a"][4] == pytest.approx(0.4)
    assert left["a"][5] == pytest.approx(3.4)
    assert most_within(left["a"], 1.0) <= 11


def test_a_pause_reaches_who_waits_already() -> None:
    pace = JumpPace(START_NS)
    limiter = Limiter({"rest": 1.0}, pace)
    left: list[float] = []
    begin = pace.mono_ns() / NS

    async def call() -> None:
        await limiter.acquire("rest")
        left.append(pace.mono_ns() / NS - begin)

    async def refused() -> None:
        await pace.sleep(0.5)
        limiter.pause("rest", 5.0)

    run(pace, call(), call(), refused())
    assert left == [0.0, pytest.approx(5.5)]


def test_a_wall_clock_that_steps_changes_nothing() -> None:
    pace = JumpPace(START_NS)
    limiter = Limiter({"rest": 2.0}, pace)
    left: list[float] = []

    async def calls() -> None:
        for number in range(10):
            pace.step((-1) ** number * 3600.0 * number)
            await limiter.acquire("rest")
            left.append(pace.mono_ns() / NS)

    run(pace, calls())
    assert left[-1] - left[0] == pytest.approx(4.5)


def test_what_has_no_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="expected > 0"):
        Limiter({"a": 1.0, "b": 0.0}, JumpPace(START_NS))
    with pytest.raises(KeyError):
        asyncio.run(Limiter({"a": 1.0}, JumpPace(START_NS)).acquire("b"))
