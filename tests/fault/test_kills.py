"""SIGKILL of each process, of all at once, and of the database, at seeded random moments: nothing is lost silently."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest
from checker import Verdict
from harness import LONG, PROVIDERS, Demo, until

from obs.pg import postmaster
from obs.pg.embedded import EmbeddedPostgres

KILLS = 5 if LONG else 2
AWAY_S = 60.0 if LONG else 3.0
FEED_S = 3.0  # from the death of a feed to the first record of the next, two exchanges and all on two cores

Make = Callable[..., Demo]
pytestmark = pytest.mark.timeout(1200 if LONG else 120)


def restart_gaps(verdict: Verdict) -> list[dict]:
    """Restart gaps with the same start are one."""
    return list({gap["gap_start_ns"]: gap for gap in verdict.gap_lines if gap["reason"] == "restart"}.values())


def test_feed_killed(demo: Make, dsn: str) -> None:
    """One gap row from the last record to the first new one, and the same session goes on."""
    one = demo(dsn=dsn)
    one.start()
    sessions = {provider: one.session(provider) for provider in PROVIDERS}
    slowest = 0.0
    for _ in range(KILLS):
        for provider in PROVIDERS:
            one.random_moment(provider)
            old = one.kill("feed", provider)
            before, begun = one.published(provider), time.monotonic()
            one.restarted("feed", provider, old)
            until("first record after a feed's death", lambda: one.published(provider) > before)  # noqa: B023
            slowest = max(slowest, time.monotonic() - begun)
    one.more("kis", 100)
    one.more("upbit", 100)
    one.figures["slowest_restart_s"] = round(slowest, 2)
    verdicts = one.finish()
    assert {provider: one.session(provider) for provider in PROVIDERS} == sessions
    for verdict in verdicts.values():
        assert len(restart_gaps(verdict)) == KILLS
        assert verdict.gaps["restart/None"] == KILLS
    assert slowest < FEED_S + KILLS, "the backoff of the supervisor alone may add to it"
