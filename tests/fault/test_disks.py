"""Disks that are full, fail or are slow, under the whole running system: the archive's and the database's.

The full ones are small file systems in memory, mounted over one folder of the data directory; a failing and a slow fsync are
strace's, attached to the archive writer while it runs.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import orjson
import psycopg
import pytest
from harness import BACK_S, LONG, PROVIDERS, Demo, steady_for, until
from strace import Strace

from obs.errors import LoadRetryable
from obs.pg.embedded import EmbeddedPostgres

SMALL_RING = 1024
FULL_S = 20.0 if LONG else 2.0
FLOOR = 16 << 20 >> 5  # of a disk of 16 MiB: below it archive writers stop

Make = Callable[..., Demo]
pytestmark = pytest.mark.timeout(600 if LONG else 300)


class SmallDisk:
    """A file system in memory over a folder, seen by this process and by all that it starts from now on."""

    def __init__(self, folder: Path, size: str) -> None:
        own_mounts()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder, self._ballast = folder, folder / "ballast"
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "obs-test", str(folder)], check=True)

    def fill(self, left: int = 0) -> None:
        """Take all that is free, but for `left` bytes."""
        with self._ballast.open("ab", buffering=0) as file:
            for block in (1 << 20, 4096):
                with suppress(OSError):
                    while True:
                        file.write(bytes(block))
            file.truncate(file.tell() - left)

    def free(self) -> None:
        self._ballast.unlink()

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


@functools.cache
def own_mounts() -> None:
    """Give this process mounts of its own, which nobody else sees and which go with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    clone_newns, rec, slave = 0x20000, 0x4000, 1 << 19
    if os.geteuid() or libc.unshare(clone_newns) or libc.mount(b"none", b"/", None, rec | slave, None):
        pytest.skip("only root may mount a small tmpfs")


@pytest.fixture
def small() -> Iterator[Callable[[Path, str], SmallDisk]]:
    """Return a maker of small disks. A test names it before `demo`, which then ends first."""
    made: list[SmallDisk] = []

    def make(folder: Path, size: str) -> SmallDisk:
        made.append(SmallDisk(folder, size))
        return made[-1]

    yield make
    for disk in made:
        disk.close()


def red(one: Demo) -> set[tuple[str, str]]:
    """Return the (reason, provider) that GET /health gives."""
    with suppress(FileNotFoundError):
        return ask(orjson.loads((one.data / "state" / "http.json").read_bytes())["url"])
    return {("no answer yet", "")}


def ask(url: str) -> set[tuple[str, str]]:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/health", timeout=5) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        with error:
            body = error.read()
    return {(line["reason"], line["provider"]) for line in orjson.loads(body)["details"]}


def of_all(one: Demo, event: str, after: int = 0) -> bool:
    """Whether a role of every provider has logged this event, its first `after` lines apart."""
    return {line["provider"] for line in one.logged(event)[after:]} >= set(PROVIDERS)


# --- the archive's disk


@pytest.mark.parametrize("left", [0, FLOOR // 2], ids=["full", "below-the-floor"])
def test_archive_disk_full(small: Callable[[Path, str], SmallDisk], demo: Make, dsn: str, left: int) -> None:
    """The archive writers stop at their last durable record and say so; what the rings could not hold is told; they go on.

    On the full disk one of them is killed meanwhile: the next one can neither recover nor write until there is space.
    """
    one = demo(dsn=dsn, demo={"rate": 4000}, ring={"capacity": SMALL_RING})
    disk = small(one.data, "16m")
    (one.folder / "sim").mkdir()
    (one.data / "sim").symlink_to(one.folder / "sim")  # the exchanges' logs are evidence, and not of this disk
    one.start()
    for provider in PROVIDERS:
        one.more(provider, 2000)
    until("health is green", lambda: not red(one))
    one.settle()
    writers = {provider: one.pid("archive", provider) for provider in PROVIDERS}
    disk.fill(left)
    one.count("archive disk full")
    until("both say so", lambda: of_all(one, "disk_trouble"))
    full_ns = time.time_ns()
    durable = {provider: one.durable("archive", provider) for provider in PROVIDERS}
    before = {provider: one.published(provider) for provider in PROVIDERS}
    until("health is red for it", lambda: red(one) >= {("disk", name) for name in PROVIDERS})
    if not left:
        one.kill("archive", "kis")
        until("the next one says so too", lambda: [line["provider"] for line in one.logged("disk_trouble")].count("kis") == 2)
        writers["kis"] = one.pid("archive", "kis")
    for provider in PROVIDERS:
        until("the ring is overrun", lambda: one.published(provider) > before[provider] + 4 * SMALL_RING)  # noqa: B023
    steady_for("no more is durable", FULL_S, lambda: durable == {name: one.durable("archive", name) for name in PROVIDERS})
    free_ns = time.time_ns()
    disk.free()
    until("both go on", lambda: of_all(one, "disk_recovered"))
    until("health is green", lambda: not red(one))
    for provider in PROVIDERS:
        one.more(provider, 2000)
    assert {provider: one.pid("archive", provider) for provider in PROVIDERS} == writers
    assert {line["reason"] for line in one.logged("disk_trouble")} == {"disk_full"}
    for verdict in one.finish().values():
        # A ring of half a second may be overrun at other times too, if the machine is busy with other things.
        during = {gap["reason"] for gap in verdict.gap_lines if gap["gap_start_ns"] < free_ns and gap["gap_end_ns"] > full_ns}
        assert during == {"disk_full"}, verdict.gaps
        assert set(verdict.gaps) <= {"disk_full/archive", "ring_lap/archive"}
        assert verdict.archive_lost >= SMALL_RING
        assert verdict.sent == verdict.archived + verdict.archive_lost == verdict.database + verdict.database_lost


# --- the database's disk


@pytest.mark.parametrize("what", ["tables", "log"])
def test_database_disk_full(small: Callable[[Path, str], SmallDisk], demo: Make, what: str) -> None:
    """The loaders wait and say so, the archive goes on; with space again all is loaded, also if the server had died of it.

    Without room for a table the server refuses; without room for its own log it dies and cannot start.
    """
    one = demo(demo={"rate": 2000}, loader={"flush_s": 1.0})
    disk = small(one.data / "pg", "256m")
    (one.data / ".demo").touch()
    one.start()
    until("both have loaded", lambda: all(one.durable("load", name) > 0 for name in PROVIDERS), BACK_S)
    until("health is green", lambda: not red(one))
    one.settle()
    server = one.postgres()[0]
    away, back = len(one.logged("database_away")), len(one.logged("database_back"))  # as they may be at a slow start
    use_log(one)  # so that there is room in the present file of its log
    disk.fill()
    one.count("database disk full")
    if what == "log":
        until("the server has died of it", lambda: server not in one.postgres() or use_log(one))
        until("not even its configuration fits", lambda: disk.fill() or said_full(one))
    until("both say so", lambda: of_all(one, "database_away", away))
    until("health is red for it", lambda: red(one) >= {("database_away", name) for name in PROVIDERS}, 90.0)
    steady_for("the archive writers keep up", FULL_S, one.archives_keep_up)
    behind = {provider: one.durable("load", provider) for provider in PROVIDERS}
    assert (one.postgres()[:1] == [server]) == (what == "tables")
    assert len(one.logged("database_slow")) < 20, "started again and again"
    begun, goal = time.monotonic(), {provider: one.published(provider) for provider in PROVIDERS}
    disk.free()
    until("both go on", lambda: of_all(one, "database_back", back), BACK_S)
    until("all is loaded", lambda: all(one.durable("load", name) >= goal[name] for name in PROVIDERS), BACK_S)
    one.figures |= {"missing": goal["upbit"] - behind["upbit"], "caught_up_s": round(time.monotonic() - begun, 2)}
    until("health is green", lambda: not red(one))
    for event, before in (("database_away", away), ("database_back", back)):
        assert sorted(line["provider"] for line in one.logged(event)[before:]) == sorted(PROVIDERS), one.logged(event)
    assert "Traceback" not in one.log()
    for verdict in one.finish().values():
        assert not verdict.gaps, verdict.gaps
        assert verdict.sent == verdict.archived == verdict.database


def said_full(one: Demo) -> bool:
    """Whether a start of the server has failed for want of space."""
    return any("No space left on device" in line["text"] for line in one.logged("database_slow"))


def use_log(one: Demo) -> bool:
    """Write to the database's log until it needs another file; always False."""
    with suppress(psycopg.Error, LoadRetryable):
        dsn = EmbeddedPostgres(one.data / "pg").dsn()
        with psycopg.connect(dsn, autocommit=True, connect_timeout=2) as conn:
            conn.execute("SELECT pg_logical_emit_message(true, 'test', 'a page'), pg_switch_wal()")
    return False


# --- fsync


class Synced:
    """strace on an archive writer, with something injected into its fsyncs."""

    def __init__(self, pid: int, out: Path, inject: str) -> None:
        self._strace = Strace(pid, out, "fsync,fdatasync,close", inject, into="fsync,fdatasync")
        self.close = self._strace.close

    def syncs(self) -> list[tuple[str, bool]]:
        """Return (path, whether it failed) of each fsync that has returned."""
        return [(call["path"], "EIO" in call["result"]) for call in self._strace.calls() if call["name"] != "close"]

    def synced_after_a_failure(self) -> list[dict[str, str]]:
        """Return the fsyncs of a descriptor that had failed before and was not closed meanwhile."""
        failed: set[str] = set()
        wrong = []
        for call in self._strace.calls():
            if call["name"] == "close":
                failed.discard(call["fd"])
            elif call["fd"] in failed:
                wrong.append(call)
            elif "EIO" in call["result"]:
                failed.add(call["fd"])
        return wrong


@pytest.fixture
def strace(tmp_path: Path) -> Iterator[Callable[[Demo, dict[str, str]], dict[str, Synced]]]:
    """Return what attaches strace to the archive writers: provider -> what is injected."""
    made: list[Synced] = []

    def attach(one: Demo, inject: dict[str, str]) -> dict[str, Synced]:
        found = {}
        for provider, what in inject.items():
            found[provider] = Synced(one.pid("archive", provider), tmp_path / f"{provider}.strace", what)
            made.append(found[provider])
        return found

    yield attach
    for one in made:
        one.close()


Attach = Callable[[Demo, dict[str, str]], dict[str, Synced]]


def test_fsync_fails(demo: Make, strace: Attach, dsn: str) -> None:
    """No descriptor is synced again after a failure; what it was to make durable goes into another file, once.

    Of one writer every third call fails, so that all kinds of files are hit; of the other each call, until it is let go.
    """
    one = demo(dsn=dsn, ring={"capacity": 131072})
    one.start()
    for provider in PROVIDERS:
        one.more(provider, 500)
    until("health is green", lambda: not red(one))
    one.settle()
    writers = {provider: one.pid("archive", provider) for provider in PROVIDERS}
    traces = strace(one, {"kis": "error=EIO:when=2+3", "upbit": "error=EIO"})

    def enough(trace: Synced) -> bool:
        failed = [path for path, failed in trace.syncs() if failed]
        return len(failed) >= (15 if LONG else 5) and any(path.endswith(".zst.open") for path in failed)

    for provider, trace in traces.items():
        until(f"fsync has failed for {provider}", lambda: enough(trace), BACK_S)  # noqa: B023
        until("it says so", lambda: any(line["provider"] == provider for line in one.logged("disk_trouble")))  # noqa: B023
    for trace in traces.values():
        trace.close()
        one.count("fsync fails", sum(failed for _, failed in trace.syncs()))
        assert trace.synced_after_a_failure() == []
    until("both go on", lambda: of_all(one, "disk_recovered"))
    for provider in PROVIDERS:
        one.more(provider, 500)
    assert {provider: one.pid("archive", provider) for provider in PROVIDERS} == writers
    assert {line["reason"] for line in one.logged("disk_trouble")} == {"disk_error"}
    assert all("EIO" in line["text"] for line in one.logged("disk_trouble"))
    for verdict in one.finish().values():
        assert not verdict.gaps, verdict.gaps
        assert verdict.sent == verdict.archived == verdict.database


@pytest.mark.parametrize("what", ["scalp/kis/**/*.open", "system/events/kis/*.jsonl", "scalp"], ids=["segment", "events", "folder"])
def test_files_taken_away(demo: Make, dsn: str, tmp_path: Path, what: str) -> None:
    """What was durable in a file that is moved away while it grows is so no more: it is taken from the ring once again."""
    one = demo(dsn=dsn, ring={"capacity": 131072})
    one.start()
    for provider in PROVIDERS:
        one.more(provider, 1000)
    one.caught_up()
    writer = one.pid("archive", "kis")
    taken = list(one.data.glob(what))
    assert taken
    for number, path in enumerate(taken):
        path.rename(tmp_path / f"taken-{number}")
    one.count("files taken away", len(taken))
    until("it says so", lambda: any(line["error"] == "FileGone" and line["provider"] == "kis" for line in one.logged("role_failed")))
    until("the archive writer begins anew", lambda: one.logged("archive_ready")[-1]["pid"] == one.pid("archive", "kis") != writer)
    for provider in PROVIDERS:
        one.more(provider, 500)
    for verdict in one.finish().values():
        assert not verdict.gaps, verdict.gaps
        assert verdict.sent == verdict.archived == verdict.database


@pytest.mark.parametrize("delay_s", [0.05, 5.0])
def test_slow_fsync(demo: Make, strace: Attach, dsn: str, delay_s: float) -> None:
    """The feed does not notice; a writer is not killed for a call that takes longer than it may be silent; nothing is lost."""
    # Segments of their default length: sealing takes several fsyncs, and at each five seconds no disk as slow as this would follow.
    options = {"ring": {"capacity": 131072}, "archive": {"flush_s": 0.2, "segment_s": 300}}
    one = demo(dsn=dsn, supervisor={"heartbeat_s": 4.0, "sink_heartbeat_s": 4.0}, **options)
    one.start()
    one.more("upbit", 1000)
    until("health is green", lambda: not red(one))
    one.settle()
    writers = {provider: one.pid("archive", provider) for provider in PROVIDERS}
    begun = time.time_ns()
    traces = strace(one, dict.fromkeys(PROVIDERS, f"delay_enter={int(delay_s * 1e6)}"))
    calls = int((30.0 if LONG else 10.0) / delay_s) if delay_s > 1 else 40
    for provider, trace in traces.items():
        until(f"slow calls of {provider}", lambda: one.pid("archive", provider) == writers[provider] and len(trace.syncs()) >= calls, 90.0)  # noqa: B023
    if LONG and delay_s > 1:  # five minutes of it are too much for the machine
        until("the mitigation level rises", lambda: len(one.logged("mitigation")) >= len(PROVIDERS), 450.0)
        assert all({"disk_s", "queue_s"} & set(line["causes"]) for line in one.logged("mitigation"))
    ended = time.time_ns()
    for trace in traces.values():
        trace.close()
        one.count("slow fsync", len(trace.syncs()))
    one.more("upbit", 1000)
    assert {provider: one.pid("archive", provider) for provider in PROVIDERS} == writers
    for provider, verdict in one.finish().items():
        assert not verdict.gaps, verdict.gaps
        assert verdict.sent == verdict.archived == verdict.database
        inside, outside = verdict.latency_ms(begun, ended)
        one.figures[f"latency_ms_{provider}"] = (round(inside, 2), round(outside, 2))
        assert inside < 2 * outside + 10, f"{provider}: a record took {inside} ms while fsync took {delay_s} s, {outside} ms else"
    print("  figures", one.figures)
