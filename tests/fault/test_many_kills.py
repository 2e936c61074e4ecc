"""Two hundred SIGKILLs of one kind in one run of the system, each at a seeded random moment, mended and killed again.

Two things stand against two hundred deaths in a row, and both are meant to: the supervisor waits longer after each (0.1 s to 60 s),
and a credential connects ten times at once and then once a minute. So a life of the supervisor takes eight kills; then everything is
stopped in order, and the next life begins with a reconnect budget as of an app key that was never used. The data directory and
the database stay, the checker judges all of it in the end, and now and then on the way.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from figures import quantile
from harness import BACK_S, LONG, PROVIDERS, Demo, until

KILLS = 200 if LONG else 8
PER_LIFE = 8 if LONG else 4  # kills, of both providers together
CHECKED = 13  # lives between two looks of checker and audit on the way
MEDIAN_S, SLOWEST_S = 30.0, 120.0  # until the first record after a death; the supervisor's own waits are part of it
# No ghost of a broken connection holds the app key, and nobody counts how often a client comes back.
VENUES = {"kis": ["--zombie-s", "0", "--approval-spacing-s", "0", "--connects-per-min", "100000"], "upbit": []}

Make = Callable[..., Demo]
pytestmark = pytest.mark.timeout(7200 if LONG else 300)


def kill_roles(one: Demo, role: str) -> int:
    """Kill this role of both providers, each at a moment of its own, and wait for the first record after each."""
    before = {}
    for provider in PROVIDERS:
        one.random_moment(provider, 0.7)
        pid = one.kill(role, provider)
        before[provider] = pid, count(one, role, provider)
    for provider, (pid, records) in before.items():
        one.restarted(role, provider, pid, BACK_S)
        until("the first record after a death", lambda: count(one, role, provider) > records, BACK_S)  # noqa: B023
    return len(PROVIDERS)


def count(one: Demo, role: str, provider: str) -> int:
    return one.published(provider) if role == "feed" else one.durable(role, provider)


def kill_supervisor(one: Demo) -> int:
    one.random_moment(one.random.choice(PROVIDERS), 0.7)
    one.kill_supervisor()
    one.start()
    return 1


def kill_everything(one: Demo) -> int:
    """The embedded database server too, every other time."""
    one.random_moment(one.random.choice(PROVIDERS), 0.7)
    one.kill_everything(postgres=one.random.random() < 0.5)
    one.start()
    return 1


@pytest.mark.parametrize("kind", ["feed", "archive", "load", "supervisor", "everything"])
def test_many_kills(demo: Make, request: pytest.FixtureRequest, kind: str) -> None:
    """Nothing is lost but what came while no feed lived, and every gap row says which death it was."""
    dsn = None if kind == "everything" else request.getfixturevalue("dsn")
    one = demo(dsn=dsn, venues=VENUES, archive={"flush_s": 0.1, "segment_s": 2}, loader={"flush_s": 0.05, "rows": 200})
    strikes = {"supervisor": kill_supervisor, "everything": kill_everything}
    kills = lives = 0
    while kills < KILLS:
        one.start()
        lives += 1
        goal = min(KILLS, kills + PER_LIFE)
        while kills < goal:
            kills += strikes[kind](one) if kind in strikes else kill_roles(one, kind)
        one.caught_up(BACK_S)
        one.flat()
        one.figures["stop_s"] = max(one.figures.get("stop_s", 0.0), round(one.stop(), 2))
        one.forget_budget()
        if lives % CHECKED == 0 and kills < KILLS:
            one.judge(last=False)
    verdicts = one.judge()
    assert one.faults == {f"kill {kind}": KILLS}
    recovery_s = one.recovery_s[f"kill {kind}"]
    assert len(recovery_s) >= KILLS, "a recovery was not seen"
    assert quantile(recovery_s, 0.5) < MEDIAN_S, sorted(recovery_s)
    assert max(recovery_s) < SLOWEST_S, sorted(recovery_s)
    deaths = {"feed": KILLS // 2, "supervisor": KILLS, "everything": KILLS}.get(kind, 0)
    for verdict in verdicts.values():
        # One gap line of each death, and one of each ordered stop between two lives. Two with the same start are one gap: a feed that
        # died as it told it left it to the next.
        assert verdict.gaps["restart/None"] == deaths + lives - 1, verdict.gaps
        # A feed that was killed between its connect and its first record leaves the loss to the next.
        assert set(verdict.gaps) <= {"restart/None", "ws_disconnect/None", "venue_count/None"}, verdict.gaps
        assert verdict.archive_lost == verdict.database_lost == 0
        assert verdict.archived == verdict.database
        if not deaths:
            assert verdict.sent == verdict.archived + verdict.unread_at_stop + (verdict.unreceived if lives > 1 else 0)
