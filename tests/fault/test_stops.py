"""Stopped processes (SIGSTOP), lapped rings, the ordered stop under flood, and two supervisors on one data directory."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from harness import LONG, PROVIDERS, Demo, steady_for, until
from strace import Strace

STOPPED_S = 30.0 if LONG else 3.0
SMALL_RING = 1024
NOTICED_S = 10.0  # a cut while nobody read

Make = Callable[..., Demo]
pytestmark = pytest.mark.timeout(600 if LONG else 300)


def stop_processes(one: Demo, roles: tuple[str, ...]) -> dict[tuple[str, str], int]:
    """SIGSTOP these roles of both providers; return their pids."""
    return {(role, provider): one.kill(role, provider, signal.SIGSTOP) for role in roles for provider in PROVIDERS}


def go_on(one: Demo, pids: dict[tuple[str, str], int]) -> None:
    """SIGCONT; and assert that none of them was taken for dead."""
    for (role, provider), pid in pids.items():
        assert one.kill(role, provider, signal.SIGCONT) == pid, f"{role} of {provider} was killed while it was stopped"


@pytest.mark.parametrize("role", ["archive", "load"])
def test_sink_stopped(demo: Make, dsn: str, role: str) -> None:
    """The feed does not notice; the sink is not killed for it; nothing is lost.

    The archive writer is stopped for as long as the ring holds all; the loader until it is lapped: it reads the archive.
    """
    one = demo(dsn=dsn, ring={"capacity": SMALL_RING if role == "load" else 131072})
    one.start()
    one.more("upbit", 1000)
    begun, before = time.time_ns(), one.published("upbit")
    pids = stop_processes(one, (role,))
    until("what a stopped sink cannot take", lambda: one.published("upbit") - before > STOPPED_S * one.rate / 2, STOPPED_S * 1.5 + 5)
    ended, published = time.time_ns(), one.published("upbit") - before
    go_on(one, pids)
    one.more("upbit", 1000)
    verdicts = one.finish()
    for provider, verdict in verdicts.items():
        assert not verdict.gaps, verdict.gaps
        assert verdict.sent == verdict.archived == verdict.database
        inside, outside = verdict.latency_ms(begun, ended)
        one.figures[f"latency_ms_{provider}"] = (round(inside, 2), round(outside, 2))
        assert inside < 2 * outside + 10, f"{provider}: a record took {inside} ms while {role} was stopped, {outside} ms else"
    print("  figures", one.figures, published)


@pytest.mark.parametrize("roles", [("archive",), ("archive", "load")], ids=["archive", "both-sinks"])
def test_archive_writer_lapped(demo: Make, dsn: str, roles: tuple[str, ...]) -> None:
    """What the ring could not hold is an exact gap row of the archive; of the database only if it has not loaded it either."""
    one = demo(dsn=dsn, ring={"capacity": SMALL_RING})
    one.start()
    one.more("upbit", 1000)
    before = {provider: one.published(provider) for provider in PROVIDERS}
    pids = stop_processes(one, roles)
    for provider in PROVIDERS:
        until("the ring is overrun", lambda: one.published(provider) > before[provider] + 3 * SMALL_RING)  # noqa: B023
    go_on(one, pids)
    one.more("kis", 1000)
    verdicts = one.finish()
    for verdict in verdicts.values():
        assert verdict.gaps["ring_lap/archive"] >= 1
        assert verdict.archive_lost >= SMALL_RING
        assert verdict.sent == verdict.archived + verdict.archive_lost == verdict.database + verdict.database_lost
        if "load" in roles:
            assert verdict.database_lost >= SMALL_RING


def test_feed_stopped_for_a_moment(demo: Make, dsn: str) -> None:
    """The kernel keeps what comes meanwhile; everything is received in the end."""
    one = demo(dsn=dsn)
    one.start()
    one.more("kis", 500)
    pids = stop_processes(one, ("feed",))
    before = one.published("kis")
    steady_for("a stopped feed publishes nothing", 1.0, lambda: one.published("kis") <= before + one.rate)
    go_on(one, pids)
    one.more("kis", 500)
    verdicts = one.finish()
    for verdict in verdicts.values():
        assert not verdict.gaps, verdict.gaps
        assert verdict.sent == verdict.archived == verdict.database


def test_feed_stopped_until_the_venue_drops_it(demo: Make, dsn: str) -> None:
    """A client that does not read is cut by the venue: it notices at once, a gap row, and every subscription is restored."""
    words = ["--buffer-bytes", str(1 << 20)]
    # A slow machine needs long to fill the buffers; the feed is not to be taken for dead meanwhile.
    one = demo(dsn=dsn, venues={"kis": words, "upbit": words}, demo={"rate": 16000}, supervisor={"heartbeat_s": 120.0})
    one.start()
    for provider in PROVIDERS:
        until("all subscriptions are confirmed", lambda: len(subscribed(one, provider)) == 1)  # noqa: B023
    pids = stop_processes(one, ("feed",))
    for provider in PROVIDERS:
        log = one.data / "sim" / f"{provider}.jsonl"
        until(f"{provider} has cut the connection", lambda: b'"do":"overrun"' in log.read_bytes(), 30.0)  # noqa: B023
    go_on(one, pids)
    begun = time.monotonic()
    for provider in PROVIDERS:
        until(f"{provider} notices", lambda: one.counter("feed", provider, "reconnects") > 0, NOTICED_S)  # noqa: B023
    one.figures["noticed_s"] = round(time.monotonic() - begun, 2)
    for provider in PROVIDERS:
        until("all subscriptions are confirmed", lambda: len(subscribed(one, provider)) == 2, 30.0)  # noqa: B023
        one.more(provider, 500)
    verdicts = one.finish()
    for provider, verdict in verdicts.items():
        # KIS says "already in use" for a while, which may become the reason of the same gap.
        assert sum(verdict.gaps[f"{reason}/None"] for reason in ("ws_disconnect", "refused")) == 1, verdict.gaps
        assert verdict.unreceived > 0
        assert all(line["confirmed"] == 41 for line in subscribed(one, provider))


@pytest.mark.parametrize("how", ["stopped", "stuck"])
def test_feed_stopped_for_good(demo: Make, dsn: str, how: str, tmp_path: Path) -> None:
    """Silence of its own loop is death: SIGABRT, SIGKILL, a new feed, one gap row.

    Stuck: the thread of the loop waits in the kernel, and all its other threads run; none of them may speak for it.
    """
    one = demo(dsn=dsn, supervisor={"heartbeat_s": 5, "sink_heartbeat_s": 20})
    one.start()
    one.more("kis", 500)
    if how == "stopped":
        pid = one.kill("feed", "kis", signal.SIGSTOP)
        one.restarted("feed", "kis", pid, 40.0)
    else:
        pid = one.pid("feed", "kis")
        one.count("stuck feed")
        with closing(Strace(pid, tmp_path / "strace", "epoll_wait,epoll_pwait", "delay_enter=60000000", threads=False)):
            until("its silence is noticed", lambda: one.logged("process_silent"))
        # Gone before the new one is waited for: it would keep the dead process from its parent.
        one.restarted("feed", "kis", pid, 40.0)
    (silent,) = one.logged("process_silent")
    assert (silent["child"], silent["child_pid"]) == ("feed", pid)
    one.more("kis", 500)
    verdicts = one.finish()
    assert verdicts["kis"].gaps == {"restart/None": 1}
    assert not verdicts["upbit"].gaps


def subscribed(one: Demo, provider: str) -> list[dict]:
    return [line for line in one.logged("subscribed") if line["provider"] == provider]


def test_ordered_stop_under_flood(demo: Make, dsn: str) -> None:
    """Exit 0 in under 10 s, and everything that was received is stored."""
    one = demo(dsn=dsn, demo={"rate": 20000}, ring={"capacity": 131072})
    one.start()
    for provider in PROVIDERS:
        one.more(provider, 20000)
    one.figures["stop_s"] = round(one.stop(within_s=10.0), 2)
    if any(one.undrained(provider) for provider in PROVIDERS):
        # A deadline ended it harder, and what was published stayed in the ring: the next start stores it.
        one.figures["left"] = {provider: one.undrained(provider) for provider in PROVIDERS}
        one.start()
        one.finish()
        return
    for verdict in one.judge().values():
        assert not verdict.gaps, verdict.gaps
        assert verdict.sent == verdict.archived + verdict.unread_at_stop
        assert verdict.archived == verdict.database


def test_restart_on_the_same_day(demo: Make, dsn: str) -> None:
    """No start writes over what an earlier one of that day has written: sealed files stay as they are, the others only grow.

    What the venues sent between stop and start is a gap line of its own, also where the host was started anew meanwhile.
    """
    one = demo(dsn=dsn)
    before: dict[Path, bytes] = {}
    starts = 5 if LONG else 3
    for start in range(starts):
        if start == 1:
            one.forget_budget()
        one.start()
        for provider in PROVIDERS:
            one.more(provider, 300)
        one.caught_up()
        one.stop()
        now = {path: path.read_bytes() for path in one.data.rglob("*.*") if path.suffix in (".zst", ".jsonl")}
        for path, data in before.items():
            assert now[path] == data if path.suffix == ".zst" else now[path].startswith(data), path
        assert not before or any(len(now[path]) > len(data) > 0 and "events" in path.parts for path, data in before.items())
        before = now
    assert sum(path.suffix == ".zst" for path in before) >= 4
    for verdict in one.judge().values():
        assert verdict.gaps == {"restart/None": starts - 1}
        assert [gap["lost"] for gap in verdict.gap_lines] == [0] * (starts - 1)
        assert verdict.sent == verdict.archived + verdict.unreceived + verdict.unread_at_stop
        assert verdict.archived == verdict.database


def test_second_stop_signal_loses_nothing(demo: Make, dsn: str) -> None:
    """An impatient second SIGTERM ends it harder; the rings remain, and the next start stores what they hold."""
    one = demo(dsn=dsn)
    one.start()
    one.more("kis", 1000)
    one.note()
    assert one.process is not None
    one.process.terminate()
    until("the stop has begun", lambda: one.logged("stopping"))
    one.process.terminate()
    one.wait()
    until("all processes of the run have gone", lambda: not one.left(), 5.0)
    one.start()
    one.more("kis", 100)
    one.finish()


def test_second_supervisor_is_refused(demo: Make, dsn: str) -> None:
    """It says who owns the data directory and exits 3 at once; the first does not notice."""
    one = demo(dsn=dsn)
    one.start()
    assert one.process is not None
    children = one.children()
    begun = time.monotonic()
    done = subprocess.run(one.command(), capture_output=True, timeout=30, check=False, env=one.environ())
    assert done.returncode == 3, done.stderr.decode()
    assert time.monotonic() - begun < 5.0
    last = json.loads(done.stderr.decode().splitlines()[-1])
    assert f"pid={str(one.process.pid)!r}" in last["text"], last
    assert "another supervisor" in last["text"], last
    one.more("kis", 500)
    one.more("upbit", 500)
    assert one.children() == children
    for verdict in one.finish().values():
        assert not verdict.gaps, verdict.gaps
        assert verdict.sessions == 1
