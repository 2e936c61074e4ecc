"""Shared memory that is not what it was: stale, foreign, cut or deleted rings, a host that died, too little room."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
from checker import Verdict
from harness import LONG, PROVIDERS, Demo, until

from obs.clock import NS

Make = Callable[..., Demo]
pytestmark = pytest.mark.timeout(600 if LONG else 300)


def killed_with_undrained_rings(one: Demo) -> dict[str, str]:
    """Let both sinks stand still for a while, then kill everything: the rings hold what nobody has stored. Return the sessions."""
    one.start()
    return stopped_sinks_killed(one)


def stopped_sinks_killed(one: Demo) -> dict[str, str]:
    for provider in PROVIDERS:
        one.more(provider, 500)
    for provider in PROVIDERS:
        for sink in ("archive", "load"):
            one.kill(sink, provider, signal.SIGSTOP)
    for provider in PROVIDERS:
        one.more(provider, 500)
    sessions = {provider: one.session(provider) or "" for provider in PROVIDERS}
    one.kill_everything()
    return sessions


def budget(state: Path) -> float | None:
    """Return the connection attempts that the file says are left to KIS."""
    one = (orjson.loads(state.read_bytes()).get("budget") or {}).get("DEMO_KIS")
    return None if one is None else float(one["tokens"])


def lost_rings(verdict: Verdict, session: str, reason: str) -> dict[str, int]:
    """Return ring -> first lost sequence of the archive's gap rows without an end, asserting their form."""
    gaps = [gap for gap in verdict.gap_lines if gap["reason"] == reason]
    for gap in gaps:
        assert (gap["sink"], gap["session_id"], gap["last_seq"], gap["lost"]) == ("archive", session, None, None), gap
    assert len({gap["ring"] for gap in gaps}) == len(gaps)
    return {gap["ring"]: gap["first_seq"] for gap in gaps}


# What is done to a ring's header; obs/ring/layout.py tells the offsets.
WRONGS = {
    "magic": lambda data: b"OTHERRNG" + data[8:],
    "older-layout": lambda data: data[:8] + struct.pack("<I", 0) + data[12:],
    "dtype": lambda data: data[:24] + bytes(16) + data[40:],
    "stale": lambda data: data[:64] + b"sess_20200101_000000_other_0000".ljust(64, b"\0") + data[128:],
    "impossible": lambda data: data[:320] + struct.pack("<Q", 1 << 40) + data[328:],
    "truncated": lambda data: data[: len(data) // 2],
    "headless": lambda data: data[:100],
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("shift", range(len(WRONGS)) if LONG else (0, 5))
def test_foreign_ring_is_set_aside(demo: Make, dsn: str, shift: int) -> None:
    """Never misread: it is kept in quarantine/rings, a gap row says what is unknown, and a new session starts at once."""
    one = demo(dsn=dsn)
    old = killed_with_undrained_rings(one)
    kinds = list(WRONGS)[shift:] + list(WRONGS)[:shift]
    rings = [("kis", "tick"), ("upbit", "tick"), ("kis", "event"), ("upbit", "quarantine"), ("kis", "swing"), ("upbit", "poll_event")]
    kept: dict[str, bytes] = {}
    for (provider, ring), kind in zip(rings, kinds, strict=False):
        path = one.ring(provider, old[provider], ring)
        data = WRONGS[kind](path.read_bytes())
        path.write_bytes(data)
        one.count("foreign ring")
        kept[path.name] = data
    one.start()
    verdicts = one.finish()
    for provider in PROVIDERS:
        found = lost_rings(verdicts[provider], old[provider], "ring_foreign")
        assert set(found) == {ring for name, ring in rings if name == provider}
        assert found["tick"] >= 500
        assert verdicts[provider].sessions == 2
    aside = {path.name.partition(".")[0]: path.read_bytes() for path in (one.data / "quarantine" / "rings").iterdir()}
    assert aside == kept


def test_host_died(demo: Make, dsn: str) -> None:
    """All shared memory is gone: one gap row per ring, from the last archived record on, and one to the first record.

    The reconnect budget is on disk.
    """
    one = demo(dsn=dsn)
    state = one.data / "state" / "kis.json"
    one.start()
    until("the budget is saved", lambda: state.exists() and budget(state) is not None, 10.0)
    before = budget(state)
    old = stopped_sinks_killed(one)
    for path in one.view.iterdir():
        path.unlink()
    one.count("host death")
    one.start()
    until("an attempt is taken from the old budget", lambda: (budget(state) or 10.0) < (before or 0.0), 10.0)
    verdicts = one.finish()
    for provider in PROVIDERS:
        found = lost_rings(verdicts[provider], old[provider], "host_death")
        assert set(found) == {"tick", "event", "swing", "poll_event", "quarantine"}
        assert found["tick"] >= 500
        starts = {line["session_id"]: line for line in one.session_lines(provider) if line["event"] == "start"}
        newest = one.session(provider) or ""
        ends = {gap["gap_end_ns"] for gap in verdicts[provider].gap_lines if gap["reason"] == "host_death"}
        assert ends == {starts[newest]["ts_ns"]}
        (restart,) = [gap for gap in verdicts[provider].gap_lines if gap["reason"] == "restart"]
        assert restart["gap_start_ns"] == starts[newest]["ts_ns"], "from there to the first record"


def test_host_died_twice(demo: Make, dsn: str) -> None:
    """The second death comes before the first one's session is judged by the loader; each has its own gap rows.

    What nobody recorded at the second start is told, at the first record, or with what the second death took.
    """
    one = demo(dsn=dsn)
    for _ in range(2):
        one.start()
        one.more("kis", 100)
        one.kill_everything()
        for path in one.view.iterdir():
            path.unlink()
        one.count("host death")
    one.start()
    for provider, verdict in one.finish().items():
        assert verdict.sessions == 3
        assert verdict.gaps["host_death/archive"] == 10
        _, *starts = [line["ts_ns"] for line in one.session_lines(provider) if line["event"] == "start"]
        begun = {gap["gap_start_ns"] for gap in verdict.gap_lines if gap["reason"] == "restart" or gap["ring"] == "tick"}
        assert begun >= set(starts)


def test_host_died_without_a_connection(demo: Make, dsn: str) -> None:
    """The loss that its feed could not tell any more is told by the next start, from where it began."""
    one = demo(dsn=dsn, venues={"kis": [], "upbit": []})
    one.start()
    one.more("upbit", 200)
    one.venues["upbit"].do("refuse", s=600.0)
    one.venues["upbit"].do("drop")

    def tried() -> list[int]:
        """Since when it loses, by what is on disk of an attempt that failed longer after that than a flush may take."""
        lines = (line for path in (one.data / "system" / "events" / "upbit").glob("*.jsonl") for line in path.read_bytes().splitlines())
        failed = [orjson.loads(line) for line in lines if line.endswith(b"}") and b'"FAIL"' in line]
        return [line["lost_since_ns"] for line in failed if line["ts_ns"] - line["lost_since_ns"] > 12 * NS]

    since_ns = until("an attempt after twelve seconds is archived", tried)[0]
    dead = one.session("upbit")
    one.kill_everything()
    for path in one.view.iterdir():
        path.unlink()
    one.count("host death")
    one.venues["upbit"].do("calm")
    one.start()
    gaps = one.finish()["upbit"].gap_lines
    (gap,) = [gap for gap in gaps if gap["reason"] == "host_death" and gap["ring"] == "tick"]
    assert (gap["session_id"], gap["gap_start_ns"]) == (dead, since_ns)
    (restart,) = [gap for gap in gaps if gap["reason"] == "restart"]
    assert restart["gap_start_ns"] == gap["gap_end_ns"], "without a hole between"


@pytest.mark.parametrize("also_killed", [None, "feed", "archive"])
def test_ring_deleted_while_mapped(demo: Make, dsn: str, also_killed: str | None) -> None:
    """The supervisor notices, stores what those who map it still reach, and begins a new session by itself."""
    one = demo(dsn=dsn)
    one.start()
    one.more("kis", 500)
    session = one.session("kis") or ""
    one.ring("kis", session).unlink()
    one.count("ring deleted")
    if also_killed is not None:
        one.kill(also_killed, "kis")
    until("a new session records", lambda: one.session("kis") != session and one.published("kis") > 100)
    assert one.logged("rings_removed")
    one.more("upbit", 500)
    verdict = one.finish()["kis"]
    assert verdict.sessions == 2
    if also_killed is None:
        assert not [gap for gap in verdict.gap_lines if gap.get("sink")], "what was mapped was stored"


def test_too_many_undrained_sessions(demo: Make, dsn: str) -> None:
    """With max_sessions undrained ones the newest goes on, as for a restarted feed."""
    turns = 5 if LONG else 2
    one = demo(dsn=dsn, ring={"max_sessions": 1})
    for _ in range(turns):
        killed_with_undrained_rings(one)
    sessions = {provider: one.session(provider) for provider in PROVIDERS}
    one.start()
    assert {provider: one.session(provider) for provider in PROVIDERS} == sessions
    assert [line["why"] for line in one.logged("session_continued")] == ["max_sessions"] * 2 * turns  # of both providers
    for verdict in one.finish().values():
        assert verdict.sessions == 1
        assert verdict.gaps == {"restart/None": turns}


class SmallMemory:
    """A mount namespace in which a tmpfs of `size` lies over the folder of a demo's rings; it goes with the process that holds it."""

    def __init__(self, one: Demo, size: str) -> None:
        as_root = [] if os.geteuid() == 0 else ["-r"]
        script = f'mount -t tmpfs -o size={size} obs-test "{one.shm}" && echo ready && exec cat'
        self.holder = subprocess.Popen(
            ["unshare", *as_root, "-m", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self.holder.stdout is not None
        assert self.holder.stderr is not None
        if self.holder.stdout.readline() != b"ready\n":
            why = self.holder.stderr.read().decode().strip()
            self.close()
            pytest.skip(f"a small tmpfs cannot be mounted in a namespace here: {why}")
        keep = [] if os.geteuid() == 0 else ["-U", "--preserve-credentials"]
        one.prefix = ["nsenter", "-t", str(self.holder.pid), "-m", *keep, "env", "-C", str(Path(__file__).parents[2])]
        one.view = Path(f"/proc/{self.holder.pid}/root{one.shm}")

    def close(self) -> None:
        for pipe in (self.holder.stdin, self.holder.stdout, self.holder.stderr):
            if pipe is not None:
                pipe.close()
        self.holder.wait(5)


@pytest.fixture
def small(request: pytest.FixtureRequest) -> Iterator[Callable[[Demo, str], None]]:
    """Return what puts a demo into a small memory."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        pytest.skip("no unshare and nsenter to mount a small tmpfs with")
    made: list[SmallMemory] = []
    yield lambda one, size: made.append(SmallMemory(one, size))
    for memory in made:
        memory.close()


@pytest.mark.parametrize("size", ["64k", "12m", "45m"])
def test_too_little_shared_memory(small: Callable[[Demo, str], None], demo: Make, dsn: str, size: str) -> None:
    """A clear refusal at the start: how much is needed, how much there is, what to do; and nothing is left."""
    one = demo(dsn=dsn)
    small(one, size)
    done = subprocess.run(one.command(), capture_output=True, timeout=60, check=False, env=one.environ())
    assert done.returncode == 2, done.stderr.decode()
    last = orjson.loads(done.stderr.splitlines()[-1])
    for words in ("no room in shared memory", "enlarge it or lower [ring] capacity", "need=", "free="):
        assert words in last["text"], last
    assert not list(one.data.glob("scalp/**/*")), "something was recorded"
    assert all(path.name.endswith("-board") for path in one.view.iterdir()), list(one.view.iterdir())


def test_no_room_for_a_second_session(small: Callable[[Demo, str], None], demo: Make, dsn: str) -> None:
    """The undrained session is continued, as by a restarted feed: collecting goes on."""
    one = demo(dsn=dsn)
    small(one, "100m")
    killed_with_undrained_rings(one)
    sessions = {provider: one.session(provider) for provider in PROVIDERS}
    one.start()
    assert [line["why"] for line in one.logged("session_continued")] == ["no room in shared memory"] * 2
    assert {provider: one.session(provider) for provider in PROVIDERS} == sessions
    for verdict in one.finish().values():
        assert verdict.sessions == 1
        assert verdict.gaps == {"restart/None": 1}


def test_paths_are_as_layout_says() -> None:
    """The offsets that this file patches are those of the ring's header."""
    from obs.ring import layout

    assert (layout.PUBLISHED * 8, layout.HEADER_BYTES, len(layout.MAGIC)) == (320, 4096, 8)
    assert Path(layout.__file__).name == "layout.py"


@pytest.mark.parametrize("gone", ["foreign", "deleted"])
@pytest.mark.parametrize("mode", ["tape", "sample"])
def test_tick_ring_lost_after_it_was_archived(demo: Make, dsn: str, gone: str, mode: str) -> None:
    """The dead feed's last batch is in the archive, and its ring is not there to say so: it must not count as lost too."""
    one = demo(dsn=dsn, demo={"source": "numbered", "mode": mode, "rate": 3000})
    one.start()
    for provider in PROVIDERS:
        one.more(provider, 300)
    assert one.process is not None
    one.process.send_signal(signal.SIGSTOP)  # it would start the feeds again
    for provider in PROVIDERS:
        one.kill("feed", provider)
    for provider in PROVIDERS:
        until("all is archived", lambda name=provider: one.durable("archive", name) >= one.published(name))
    old = {provider: one.session(provider) or "" for provider in PROVIDERS}
    one.kill_everything()
    for provider in PROVIDERS:
        path = one.ring(provider, old[provider])
        if gone == "deleted":
            path.unlink()
        else:
            path.write_bytes(b"XXXXXXXX" + path.read_bytes()[8:])
    one.start()
    one.caught_up()
    one.stop()
    one.audit()
