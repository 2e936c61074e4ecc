"""SIGKILL of each process, of all at once, and of the database, at seeded random moments: nothing is lost silently."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from checker import Verdict
from harness import BACK_S, LONG, PROVIDERS, RATE, Demo, steady_for, until

from obs.pg import postmaster
from obs.pg.cluster import locate
from obs.pg.embedded import EmbeddedPostgres
from obs.supervisor.state import BACKOFF_S

KILLS = 5 if LONG else 2
SINK_KILLS = 6 if LONG else 3
AWAY_S = 60.0 if LONG else 3.0
RESTARTED_S = 3.0  # from the death of a feed until the next one does its work

Make = Callable[..., Demo]
pytestmark = pytest.mark.timeout(1200 if LONG else 300)


def restart_gaps(verdict: Verdict) -> list[dict]:
    """Restart gaps with the same start are one."""
    return list({gap["gap_start_ns"]: gap for gap in verdict.gap_lines if gap["reason"] == "restart"}.values())


def assert_new_sessions(one: Demo, verdict: Verdict, starts: int) -> None:
    """Each start begins a session, except where so many are undrained that the newest is continued."""
    continued = sum(line["provider"] == verdict.provider for line in one.logged("session_continued"))
    assert verdict.sessions + continued == starts + 1


def test_feed_killed(demo: Make, dsn: str) -> None:
    """One gap row from the last record to the first new one, and the same session goes on."""
    one = demo(dsn=dsn)
    one.start()
    sessions = {provider: one.session(provider) for provider in PROVIDERS}
    ready, first = [], []
    for turn in range(KILLS):
        for provider in PROVIDERS:
            one.random_moment(provider)
            old = one.kill("feed", provider)
            before, begun = one.published(provider), time.monotonic()
            ready.append(one.restarted("feed", provider, old) - BACKOFF_S[turn])
            until("first record after a feed's death", lambda: one.published(provider) > before, BACK_S)  # noqa: B023
            first.append(time.monotonic() - begun)
    one.more("kis", 100)
    one.more("upbit", 100)
    one.figures |= {"feed_ready_s": round(max(ready), 2), "feed_first_record_s": round(max(first), 2)}
    verdicts = one.finish()
    assert {provider: one.session(provider) for provider in PROVIDERS} == sessions
    for verdict in verdicts.values():
        assert len(restart_gaps(verdict)) == KILLS
        assert verdict.gaps["restart/None"] == KILLS
    assert max(ready) < RESTARTED_S, ready


def test_stopped_right_after_a_gap(demo: Make, dsn: str) -> None:
    """The last gap rows reach the archive and the database, although everything ends at that moment and the disk is slow.

    The exchanges are not the supervisor's here: in a demo, stopping them would leave the sinks half a second more.
    """
    one = demo(dsn=dsn, venues={"kis": ["--zombie-s", "0", "--approval-spacing-s", "0"], "upbit": []})
    one.start()
    for provider in PROVIDERS:
        one.more(provider, 200)
    old = {provider: one.kill("feed", provider) for provider in PROVIDERS}
    writers = {provider: one.kill("archive", provider, signal.SIGSTOP) for provider in PROVIDERS}
    before = {provider: one.published(provider) for provider in PROVIDERS}
    for provider in PROVIDERS:
        one.restarted("feed", provider, old[provider])
    until("first records after the deaths", lambda: all(one.published(name) > before[name] for name in PROVIDERS), BACK_S)
    one.note()
    assert one.process is not None
    one.process.terminate()
    until("the feeds have ended", lambda: not any(role == "feed" for role, _ in one.children()))
    steady_for("the slow disk", 0.5, lambda: all(pid in one.children().values() for pid in writers.values()))
    for pid in writers.values():
        os.kill(pid, signal.SIGCONT)
    assert one.wait() == 0
    for verdict in one.judge().values():
        assert len(restart_gaps(verdict)) == 1


def test_feed_killed_in_sample_mode(demo: Make, dsn: str) -> None:
    """Half a second of inputs is in its slots when it dies: the restart gap says how many, the counts say of which symbol.

    Records of samples are no function of one number, so here the audit is the judge.
    """
    one = demo(dsn=dsn, demo={"rate": RATE, "mode": "sample"})
    one.start()
    for turn in range(KILLS):
        for provider in PROVIDERS:
            until("its gap is over", lambda: sum(line["provider"] == provider for line in one.logged("subscribed")) > turn)  # noqa: B023
            before = one.published(provider)
            until("a few records", lambda: one.published(provider) > before + 41)  # noqa: B023
            time.sleep(one.random.random() * 0.5)  # the moment within an interval is what is random here
            one.restarted("feed", provider, one.kill("feed", provider))
            before = one.published(provider)
            until("first record after a feed's death", lambda: one.published(provider) > before, BACK_S)  # noqa: B023
    one.caught_up()
    one.stop()
    report = one.audit()
    gaps = [orjson.loads(line) for path in one.data.glob("system/events/*/*.jsonl") for line in path.read_bytes().splitlines()]
    gaps = [gap for gap in gaps if gap.get("reason") == "restart"]
    assert len(gaps) == 2 * KILLS
    assert sum(gap["lost"] for gap in gaps) > 0
    # What was received and lost lies in the gap: it begins with the last record, which stands on the grid.
    assert all(gap["gap_start_ns"] % 500_000_000 == 0 for gap in gaps if gap["lost"]), gaps
    assert report["ok"], report


def kill_sinks(one: Demo, role: str, times: int) -> None:
    """Kill the sink of each provider at a moment of its own; several records and flushes lie between."""
    for _ in range(times):
        old = {}
        for provider in PROVIDERS:
            one.random_moment(provider, 0.7)
            old[provider] = one.kill(role, provider)
        for provider, pid in old.items():
            one.restarted(role, provider, pid, BACK_S)


def test_archive_writer_killed(demo: Make, dsn: str) -> None:
    """Nothing is lost while the ring holds it; files are sealed every second, so that a rename is hit too."""
    one = demo(dsn=dsn, archive={"flush_s": 0.1, "segment_s": 1})
    one.start()
    kill_sinks(one, "archive", SINK_KILLS)
    for verdict in one.finish().values():
        assert not verdict.gaps, verdict.gaps
        assert verdict.sent == verdict.archived == verdict.database


def test_loader_killed(demo: Make, dsn: str) -> None:
    """It goes on from the watermark: before, during and after COMMIT, of which there are many."""
    one = demo(dsn=dsn, loader={"flush_s": 0.05, "rows": 50})
    one.start()
    kill_sinks(one, "load", SINK_KILLS)
    for verdict in one.finish().values():
        assert not verdict.gaps, verdict.gaps
        assert verdict.sent == verdict.archived == verdict.database


def test_loader_killed_in_a_session_that_has_ended(demo: Make, dsn: str) -> None:
    """An old session that the archive writer has drained counts as loaded when its last row is, and not before."""
    slow = {"rows": 1, "flush_s": 0.05}
    one = demo(dsn=dsn, loader=slow)
    one.start()
    one.more("kis", 500)
    one.more("upbit", 500)
    one.kill_everything()
    one.start()
    until("the old sessions have ended", lambda: all(len(one.undrained(name)) == 1 for name in PROVIDERS))
    for provider in PROVIDERS:
        one.restarted("load", provider, one.kill("load", provider), 15.0)  # it finds a session that has ended already
    until("one more row", lambda: all(one.counter("load", name, "progress") > 5 for name in PROVIDERS))
    for provider in PROVIDERS:
        one.kill("load", provider)
    one.kill_everything()
    one.configure(loader={"rows": 10_000, "flush_s": 0.2})
    one.start()
    for verdict in one.finish().values():
        assert verdict.archived == verdict.database


def test_supervisor_killed(demo: Make, dsn: str) -> None:
    """Its children go with it, so there is no second owner of a connection; the next start drains the old rings."""
    one = demo(dsn=dsn)
    one.start()
    for _ in range(KILLS):
        one.random_moment("kis")
        one.kill_supervisor()
        one.start()
        assert len(one.children()) >= 8, one.children()
    verdicts = one.finish()
    for verdict in verdicts.values():
        assert_new_sessions(one, verdict, KILLS)
        assert verdict.gaps == {"restart/None": KILLS}


def test_everything_killed(demo: Make) -> None:
    """Supervisor, all children and the embedded database server at once; the next start adopts or recovers all of it."""
    one = demo()
    one.start()
    for turn in range(KILLS):
        one.random_moment("upbit")
        one.kill_everything(postgres=turn % 2 == 0)
        one.start()
    verdicts = one.finish()
    for verdict in verdicts.values():
        assert_new_sessions(one, verdict, KILLS)
        assert verdict.gaps == {"restart/None": KILLS}


def test_everything_killed_while_the_database_is_away(demo: Make, tmp_path: Path) -> None:
    """The next starts record at once and drain the old rings; the database has everything once it is back."""
    server = EmbeddedPostgres(tmp_path / "pg")
    one = demo(dsn=server.start())
    try:
        one.start()
        one.more("kis", 500)
        kill_server(server, tmp_path / "pg")
        one.count("kill database")
        for _ in range(KILLS):
            one.random_moment("kis")
            one.kill_everything()
            one.start()
        assert server.pid() is None
        until("old sessions are drained without a database", lambda: all(len(one.undrained(name)) == 1 for name in PROVIDERS))
        assert one.dsn == server.start()
        verdicts = one.finish()
    finally:
        server.stop()
    for verdict in verdicts.values():
        assert verdict.gaps == {"restart/None": KILLS}


def test_database_server_killed(demo: Make) -> None:
    """The postmaster, or it and all its backends: the supervisor starts the server again, the loaders catch up by themselves."""
    one = demo()
    one.start()
    for turn in range(KILLS):
        one.random_moment("upbit")
        until("the loader has loaded", lambda: one.durable("load", "upbit") > 0)
        pids = one.postgres()
        postmaster.send(pids if turn % 2 else pids[:1], signal.SIGKILL)
        one.count("kill database")
        until("another server", lambda: (found := one.postgres()) and found[0] != pids[0], 30.0)  # noqa: B023
        goal = one.published("upbit")
        until("the loader is back", lambda: one.durable("load", "upbit") >= goal, 30.0)  # noqa: B023
    verdicts = one.finish()
    for verdict in verdicts.values():
        assert not verdict.gaps, verdict.gaps
        assert verdict.sent == verdict.archived == verdict.database


def test_database_away(demo: Make, tmp_path: Path) -> None:
    """The archive is untouched; the loaders read what has left the ring from the archive, faster than it came."""
    server = EmbeddedPostgres(tmp_path / "pg")
    one = demo(dsn=server.start(), ring={"capacity": 65536 if LONG else 2048})
    try:
        one.start()
        until("the loader has loaded", lambda: one.durable("load", "upbit") > 500)
        kill_server(server, tmp_path / "pg")
        one.count("kill database")
        behind = one.published("upbit")
        steady_for("the archive writer keeps up", AWAY_S, lambda: one.published("upbit") - one.durable("archive", "upbit") < one.rate)
        until("what is missing has left the ring", lambda: one.published("upbit") - behind > (65536 if LONG else 2048) * 1.2, 120.0)
        missing = one.published("upbit") - behind
        assert server.start() == one.dsn
        begun, goal = time.monotonic(), one.published("upbit")
        until("the loader has caught up", lambda: one.durable("load", "upbit") >= goal, 60.0)
        one.figures |= {"missing": missing, "caught_up_s": round(time.monotonic() - begun, 2)}
        verdicts = one.finish()
    finally:
        server.stop()
    for verdict in verdicts.values():
        assert not verdict.gaps, verdict.gaps
        assert verdict.sent == verdict.archived == verdict.database


def kill_server(server: EmbeddedPostgres, folder: Path) -> None:
    """SIGKILL all processes of a database server, and wait until the kernel says that none is left."""
    cluster = locate(folder) / "cluster"
    postmaster.send(postmaster.processes(cluster), signal.SIGKILL)
    until("the database server has gone", lambda: not postmaster.processes(cluster))
    assert server.pid() is None


def test_one_after_the_other(demo: Make) -> None:
    """All of it in one run: each process killed at random, then all at once, the server stopped and killed, the writer stopped."""
    times = 5 if LONG else 1
    one = demo(ring={"capacity": 131072})
    one.start()
    for role in ("feed", "archive", "load"):
        for _ in range(times):
            for provider in PROVIDERS:
                one.random_moment(provider)
                one.restarted(role, provider, one.kill(role, provider), BACK_S)
            before = {provider: one.published(provider) for provider in PROVIDERS}
            until("both go on", lambda: all(one.published(name) > before[name] for name in PROVIDERS), BACK_S)  # noqa: B023
    for turn in range(2 * times):
        one.random_moment("kis")
        if turn < times:
            one.kill_supervisor()
        else:
            one.kill_everything(postgres=bool(turn % 2))
        one.start()
    until("the loaders are back", lambda: one.durable("load", "kis") > 0 and one.durable("load", "upbit") > 0, BACK_S)
    one.postgres_stopped(60.0 if LONG else 2.0)
    postmaster.send(one.postgres(), signal.SIGKILL)
    one.count("kill database")
    pids = {provider: one.kill("archive", provider, signal.SIGSTOP) for provider in PROVIDERS}
    one.more("upbit", (30.0 if LONG else 2.0) * one.rate / 2, BACK_S)
    for provider, pid in pids.items():
        assert one.kill("archive", provider, signal.SIGCONT) == pid
    one.more("kis", 500)
    for verdict in one.finish().values():
        assert_new_sessions(one, verdict, 2 * times)
        assert set(verdict.gaps) <= {"restart/None", "ws_disconnect/None", "refused/None", "venue_count/None"}, verdict.gaps
        assert len(restart_gaps(verdict)) == 3 * times
        assert not verdict.unexplained
        assert verdict.archived == verdict.database
