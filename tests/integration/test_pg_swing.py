"""The swing ring's way into the database: as exact and as stubborn as the ticks', through the same machinery."""

from __future__ import annotations

import dataclasses
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import orjson
import psycopg
import pytest
from feed_rig import FakeClock
from segment_lines import rows_of

from obs.clock import MINUTE_NS, NS, minute_of
from obs.config import Config, ProviderConfig
from obs.config.options import LoaderOptions, RingOptions
from obs.config.process import ProcessSpec
from obs.errors import LoadRetryable, OwnedElsewhere
from obs.log import Log
from obs.market.universe import Universe, save
from obs.monitor.audit import run
from obs.pg.connect import connect
from obs.pg.loader import RingLoader
from obs.pg.proof import gap_rows, session_rows, sessions_stored, watermarks
from obs.record.instruments import Instrument
from obs.record.schema import SWING
from obs.ring import Producer
from obs.roles.archive import _Archive
from obs.roles.load import _Load
from obs.roles.minutes import Minutes
from obs.roles.sink import Progress
from obs.roles.universe_load import UniverseLoad
from obs.shm.counters import ROLE_CELL
from obs.supervisor.rings import ProviderMemory
from tests.integration.audit_archive import PROVIDER, SWING_GAP, SWING_REFUSED, Archive
from tests.integration.pg_load_child import GAP_EVERY, batch_of
from tests.integration.pg_rows import START_NS, make_swings, same, stored_rows

SESSION = "sess_20260122_003105_kis_ab12"
URLS = ("http://127.0.0.1:1", "ws://127.0.0.1:1")
KIS = ProviderConfig("kis", "kis", True, "kr_stocks", "krx", *URLS, (), None, ("005930",), ("trade",), 41, "sample", "always")


def unexpected(row: np.void, text: str) -> None:
    raise AssertionError(f"refused: {row} {text}")


def make_loader(dsn: Any, holder: str = "one", rejected: Callable[[np.void, str], None] = unexpected) -> RingLoader:
    return RingLoader(dsn, "kis", SESSION, holder, rejected, "swing")


def database_gaps(dsn: str) -> list[tuple[int, int | None, str, str]]:
    with connect(dsn, "test") as conn:
        gaps = [gap for gap in gap_rows(conn, "kis") if gap["sink"] == "database"]
    assert {gap["ring"] for gap in gaps} <= {"swing"}
    return sorted((gap["first_seq"], gap["last_seq"], gap["reason"], gap["scope"]) for gap in gaps)


def database_gaps_of(dsn: str, session_id: str) -> list[tuple[str, int, int | None, str]]:
    with connect(dsn, "test") as conn:
        gaps = [gap for gap in gap_rows(conn, "kis") if gap["sink"] == "database" and gap["session_id"] == session_id]
    return [(gap["ring"], gap["first_seq"], gap["last_seq"], gap["reason"]) for gap in gaps]


def swing_mark(dsn: str) -> int:
    with connect(dsn, "test") as conn:
        return next((mark.last_seq for mark in watermarks(conn, "kis") if (mark.source_type, mark.ring) == ("ring", "swing")), -1)


# --- the loader


def test_rows_come_back_as_they_went(pg_dsn: str) -> None:
    loader = make_loader(pg_dsn)
    assert loader.open() == -1
    assert loader.commit(make_swings(0, 3000)) == 2999
    assert loader.commit(make_swings(3000, 1)) == 3000
    loader.close()
    assert same(stored_rows(pg_dsn, SESSION, "swing"), make_swings(0, 3001))
    with connect(pg_dsn, "test") as conn:
        assert sessions_stored(conn, "kis", "swing") == [(SESSION, 3001, 0, 3000, 3001)]
        assert sessions_stored(conn, "kis") == []
        assert watermarks(conn, "kis") == [("ring", "kis", SESSION, "swing", "one", 3000, None)]
        wrong = conn.execute(
            "SELECT count(*) FROM swing_bars_10m WHERE ts <> 'epoch'::timestamptz + ts_ns / 1000 * interval '1 microsecond'"
            " OR bar_time IS DISTINCT FROM 'epoch'::timestamptz + bar_ns / 1000 * interval '1 microsecond'"
            " OR receive_time IS DISTINCT FROM 'epoch'::timestamptz + recv_ns / 1000 * interval '1 microsecond' OR provider <> 'kis'"
        ).fetchone()
        assert wrong == (0,)
        named = conn.execute("SELECT bar_source, market, venue, quality_flag FROM swing_bars_10m WHERE seq = 1").fetchone()
    assert named == ("candle", "kr_stocks", "krx", "degraded")


def test_the_two_rings_of_a_session_do_not_meet(pg_dsn: str) -> None:
    ticks, swings = RingLoader(pg_dsn, "kis", SESSION, "one", unexpected), make_loader(pg_dsn)
    for loader in (ticks, swings):
        loader.open()
    tick_rows, tick_gaps = batch_of(SESSION, 0, 5)
    ticks.commit(tick_rows, tick_gaps)
    swings.commit(make_swings(0, 7))
    with pytest.raises(ValueError, match="not a database gap of this ring"):
        swings.commit(make_swings(7, 0), [batch_of(SESSION, 0, GAP_EVERY)[1][0]])
    for loader in (ticks, swings):
        loader.close()
    assert (len(stored_rows(pg_dsn, SESSION)), len(stored_rows(pg_dsn, SESSION, "swing"))) == (5, 7)


def test_takeover(pg_dsn: str) -> None:
    old, new = make_loader(pg_dsn, "old"), make_loader(pg_dsn, "new")
    old.open()
    old.commit(make_swings(0, 10))
    assert new.open() == 9
    with pytest.raises(OwnedElsewhere):
        old.commit(make_swings(10, 10))
    assert new.commit(make_swings(10, 10)) == 19
    for loader in (old, new):
        loader.close()
    assert same(stored_rows(pg_dsn, SESSION, "swing"), make_swings(0, 20))


@pytest.mark.parametrize("bad", [(0,), (999,), (7, 400, 401, 998), tuple(range(300, 340))])
def test_refused_rows_are_set_aside_alone(pg_dsn: str, bad: tuple[int, ...]) -> None:
    rows = make_swings(0, 1000)
    rows["close"][list(bad)] = np.resize([1e12, np.inf, 1e300], len(bad))
    aside: list[int] = []
    loader = make_loader(pg_dsn, rejected=lambda row, text: aside.append(int(row["seq"])))
    loader.open()
    assert loader.commit(rows) == 999
    loader.close()
    assert tuple(aside) == bad
    assert same(stored_rows(pg_dsn, SESSION, "swing"), np.delete(rows, bad))
    assert database_gaps(pg_dsn) == [(seq, seq, "db_rejected", "swing") for seq in bad]


def test_rows_that_are_there_already_are_neither_lost_nor_doubled(pg_dsn: str) -> None:
    rows = make_swings(0, 1000)
    loader = make_loader(pg_dsn)
    loader.open()
    loader.commit(rows[:700])
    loader.close()
    with psycopg.connect(pg_dsn, autocommit=True) as conn:
        conn.execute("UPDATE etl_watermark SET last_seq = 99")
        conn.execute("DELETE FROM swing_bars_10m WHERE seq = 500")
    assert loader.open() == 99
    assert loader.commit(rows[100:]) == 999
    loader.close()
    assert same(stored_rows(pg_dsn, SESSION, "swing"), rows)


def test_bars_of_a_minute_do_not_wait_for_swings_nor_are_they_content_with_them(pg_dsn: str, tmp_path: Path) -> None:
    loader = make_loader(pg_dsn)
    loader.open()
    loader.commit(make_swings(0, 100))
    loader.close()
    minutes = Minutes()
    with connect(pg_dsn, "test") as conn:
        minutes.start(conn, "kis", tmp_path, START_NS)
    minutes.counts(orjson.dumps({"minute_ns": START_NS, "of_session": SESSION, "tick_seq": 50, "symbol": None}))
    assert minutes.take() == {}
    minutes.note(SESSION, 49)
    assert list(minutes.take()) == [START_NS]


# --- a connection that breaks at each step of the transaction


class CutAt:
    """Passes one connection on to the server until its `at`-th message from the client since `arm`, then cuts it.

    `delivers`: the server gets that message and answers; the answer is lost.
    """

    def __init__(self, dsn: str, at: int, delivers: bool) -> None:
        facts = parse_qs(urlsplit(dsn).query)
        self._server = f"{facts['host'][0]}/.s.PGSQL.{facts['port'][0]}"
        self._folder = tempfile.TemporaryDirectory(prefix="obs-proxy-")
        self.dsn = f"postgresql://obs@{urlsplit(dsn).path}?host={self._folder.name}&port=5432"
        self._left, self._delivers = at, delivers
        self._armed, self.cut = threading.Event(), threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{self._folder.name}/.s.PGSQL.5432")
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def arm(self) -> None:
        self._armed.set()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._server)
            back = threading.Thread(target=self._pass_back, args=(server, client))
            back.start()
            while data := client.recv(4096):
                self._left -= self._armed.is_set()
                if self._armed.is_set() and self._left < 0:
                    self.cut.set()
                    if self._delivers:
                        server.sendall(data)
                    break
                server.sendall(data)
            for end in (client, server):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_WR if end is server and self._delivers else socket.SHUT_RDWR)
            back.join()

    def _pass_back(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if not self.cut.is_set():
                    client.sendall(data)

    def close(self) -> None:
        self._thread.join()
        self._listener.close()
        self._folder.cleanup()


@pytest.mark.parametrize("delivers", [False, True])
def test_cut_at_each_message_of_the_transaction(pg_dsn: str, delivers: bool) -> None:
    """Rows, a gap and a refused row: whatever message is the last, everything is there once in the end, or was not there at all."""
    total, outcomes, aside = 0, [], set[int]()
    for at in range(200):
        proxy = CutAt(pg_dsn, at, delivers)
        places = [proxy.dsn]
        loader = make_loader(lambda: places.pop(0) if places else pg_dsn, rejected=lambda row, text: aside.add(int(row["seq"])))  # noqa: B023
        loader.open()
        proxy.arm()
        rows, gaps = _awkward(total, 60)
        whole = False
        try:
            loader.commit(rows, gaps)
            whole = True
        except LoadRetryable:
            assert proxy.cut.is_set()
            mark = loader.open()
            outcomes.append(mark - total + 1)
            # The lost backend may still be on its way: the compare-and-set decides, and the same rows may be given again.
            assert loader.commit(rows, gaps) == total + 59
        loader.close()
        proxy.close()
        total += 60
        if whole and not proxy.cut.is_set():
            break
    else:
        raise AssertionError("the transaction has no end")
    assert set(outcomes) <= {0, 60}, "all or nothing"
    assert len(outcomes) >= 8, "the transaction had steps to be cut at"
    parts = [_awkward(first, 60)[0] for first in range(0, total, 60)]
    expected = np.concatenate(parts)
    refused = expected["seq"][expected["close"] == 1e12].tolist()
    assert same(stored_rows(pg_dsn, SESSION, "swing"), expected[expected["close"] != 1e12])
    lost = [(first + 30, first + 34, "disk_full", "swing") for first in range(0, total, 60)]
    assert database_gaps(pg_dsn) == sorted([*lost, *((seq, seq, "db_rejected", "swing") for seq in refused)])
    assert set(refused) == aside
    assert swing_mark(pg_dsn) == total - 1


def _awkward(first: int, count: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
    rows = make_swings(first, count)
    rows["close"][7] = 1e12
    gap = batch_of(SESSION, 0, GAP_EVERY, "swing")[1][0] | {"first_seq": first + 30, "last_seq": first + 34, "lost": 5}
    inside = (rows["seq"] >= first + 30) & (rows["seq"] <= first + 34)
    return rows[~inside], [gap]


def test_loader_killed_at_random_moments(pg_dsn: str, tmp_path: Path) -> None:
    total, batch, rng = 20_000, 200, random.Random(8)
    rejected = tmp_path / "rejected"

    def start(number: int, commits: int | None, more_s: float = 0) -> int:
        arguments = [pg_dsn, SESSION, f"holder {number}", str(total), str(batch), str(rejected), "swing"]
        command = [sys.executable, "-m", "tests.integration.pg_load_child", *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as child:
            assert child.stdout is not None
            if commits is not None:
                for _ in range(1 + commits):
                    assert child.stdout.readline()
                end = time.perf_counter() + more_s
                while time.perf_counter() < end:
                    pass  # a moment, not a condition: anything may be going on when it ends
                child.send_signal(signal.SIGKILL)
            child.stdout.read()
            return child.wait(60)

    marks = []
    for number in range(10):
        assert start(number, rng.randrange(1, 5), rng.uniform(0, 0.015)) == -signal.SIGKILL
        marks.append(swing_mark(pg_dsn))
    assert start(10, None) == 0
    assert marks == sorted(marks)
    assert len(set(marks)) > 5
    expected, gaps = batch_of(SESSION, 0, total, "swing")
    refused = expected["seq"][expected["close"] == 1e12].tolist()
    assert same(stored_rows(pg_dsn, SESSION, "swing"), expected[expected["close"] != 1e12])
    wanted = [(gap["first_seq"], gap["last_seq"], "disk_full", "swing") for gap in gaps]
    assert database_gaps(pg_dsn) == sorted([*wanted, *((seq, seq, "db_rejected", "swing") for seq in refused)])
    assert set(refused) <= {int(line.split()[0]) for line in rejected.read_bytes().splitlines()}


# --- the role: ring, archive, both


class Provider:
    """One provider's memory and disk, with the real archive writer and the real loader on it, step by step."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.data, self.clock, self.dsn = folder / "data", FakeClock(wall=START_NS), dsn
        (folder / "shm").mkdir()
        self.data.mkdir()
        ring = RingOptions(folder / "shm", 64, 32, 32, 64, 5)
        self.config = Config(self.data, ring=ring, loader=LoaderOptions(8, 1.0), providers=(KIS,))
        self.log = Log("load", "kis", descriptor=os.open(os.devnull, os.O_WRONLY))
        self.memories: list[ProviderMemory] = []
        self.loader: _Load | None = None
        self.start()

    def start(self) -> None:
        """A supervisor starts: a new session, a new archive writer, a new loader."""
        self.clock.forward(2 * NS)
        self.memories.append(ProviderMemory(self.config, "kis", self.clock))
        self.archive = _Archive(self._spec("archive"), self.log, *self._cell(), self.clock)
        self.load()

    def load(self) -> None:
        """A loader starts; the one before it is dead: its connections are cut, nothing is finished."""
        self.drop()
        self.cell, progress = self._cell()
        self.loader = _Load(self._spec("load"), self.log, self.cell, progress, self.clock)

    def drop(self) -> None:
        if self.loader is not None:
            for one in (*self.loader._loads.values(), self.loader._gaps):
                one.close()

    def _spec(self, role: str) -> ProcessSpec:
        memory = self.memories[-1]
        place = (memory.counters_path, os.getpid(), KIS, memory.spec(), memory.board.block.path, self.dsn)
        return ProcessSpec(role, "kis", self.config, *place)

    def _cell(self) -> tuple[Any, Progress]:
        cell: Any = np.zeros((), ROLE_CELL)
        return cell, Progress(cell, self.clock)

    @property
    def session(self) -> str:
        return self.memories[-1].current.session_id

    def publish(self, count: int, memory: int = -1) -> None:
        producer = Producer(self.memories[memory].current.rings["swing"])
        producer.publish(make_swings(producer.published, count))

    def steps(self, archive: int = 0, load: int = 0) -> None:
        assert self.loader is not None
        for number in range(max(archive, load)):
            self.clock.forward(3 * NS)
            if number < archive:
                self.archive.step()
            if number < load:
                self.loader.step()

    def die_with_host(self) -> None:
        """The shared memory goes; the next start finds the files alone."""
        for ring in self.memories[-1].current.rings.values():
            ring.path.unlink()

    def close(self) -> None:
        self.drop()
        for memory in self.memories:
            memory.close()
        self.log.close()


@pytest.fixture
def provider(tmp_path: Path, pg_dsn: str) -> Iterator[Provider]:
    made = Provider(tmp_path, pg_dsn)
    yield made
    made.close()


def test_from_the_ring(provider: Provider) -> None:
    provider.steps(archive=1, load=1)
    assert swing_mark(provider.dsn) == -1
    provider.publish(20)
    provider.steps(load=4)
    assert same(stored_rows(provider.dsn, provider.session, "swing"), make_swings(0, 20))
    assert provider.memories[-1].current.rings["swing"].durable("load") == 20
    provider.load()
    provider.publish(5)
    provider.steps(load=3)
    assert same(stored_rows(provider.dsn, provider.session, "swing"), make_swings(0, 25))


def test_a_ring_in_which_nothing_is_asks_nothing_of_the_database(provider: Provider) -> None:
    provider.steps(archive=1, load=3)
    with connect(provider.dsn, "test") as conn:
        assert [mark.ring for mark in watermarks(conn, "kis") if mark.source_type == "ring"] == ["tick"]


def test_what_has_left_the_ring_comes_from_the_archive(provider: Provider) -> None:
    provider.steps(archive=1)
    for _ in range(4):  # 80 records through a ring of 32, archived in time
        provider.publish(20)
        provider.steps(archive=2)
    provider.steps(load=20)
    assert same(stored_rows(provider.dsn, provider.session, "swing"), make_swings(0, 80))
    assert database_gaps(provider.dsn) == []


def test_what_the_archive_lost_is_a_gap_of_the_database_too(provider: Provider) -> None:
    provider.steps(archive=1)
    provider.publish(10)
    provider.steps(archive=2)
    provider.publish(30)
    provider.publish(30)  # the archive writer is overtaken
    provider.steps(archive=4)
    provider.steps(load=20)
    (gap,) = database_gaps(provider.dsn)
    first, last, reason, scope = gap
    assert last is not None
    assert (first, reason, scope) == (10, "ring_lap", "swing")
    rows = make_swings(0, 70)
    assert same(stored_rows(provider.dsn, provider.session, "swing"), np.delete(rows, range(first, last + 1)))


@pytest.mark.parametrize(("bars", "early"), [(0, 0), (0, 3), (12, 0), (12, 8)])
def test_a_host_that_died(provider: Provider, bars: int, early: int) -> None:
    """Archived and not loaded is loaded by the next start, then the database says where the ring ended; an empty ring says nothing."""
    provider.steps(archive=1, load=1)
    provider.publish(bars)
    provider.steps(archive=2)
    dead = provider.session
    provider.die_with_host()
    provider.start()
    provider.steps(archive=3, load=early)  # it may look at the session before the end line is there
    assert provider.memories[-1].remove_drained() == [dead]
    provider.steps(load=8)
    assert same(stored_rows(provider.dsn, dead, "swing"), make_swings(0, bars))
    with connect(provider.dsn, "test") as conn:
        ended = {row["session_id"] for row in session_rows(conn, "kis") if row["ended_ns"] is not None}
    expected = {("tick", 0, None, "host_death")} | ({("swing", bars, None, "host_death")} if bars else set())
    assert set(database_gaps_of(provider.dsn, dead)) == expected
    assert dead in ended
    report = run(provider.config, dsn=provider.dsn)
    assert report.to_json()["mismatches"] == []


@pytest.mark.parametrize("archived", [False, True])
def test_the_last_minute_before_a_host_died_has_bars(provider: Provider, archived: bool) -> None:
    """Its counts, which come with the minute's end, died with the host. The loader had stored some of it, or nothing."""
    provider.steps(archive=1, load=1)
    last_ns = minute_of(provider.clock.wall_ns()) + 2 * MINUTE_NS - NS
    ticks = rows_of(0, 41, start_ns=last_ns - 21 * NS)
    Producer(provider.memories[-1].current.rings["tick"]).publish(ticks)
    provider.steps(archive=2, load=0 if archived else 3)
    dead = provider.session
    provider.die_with_host()
    provider.clock.forward(600 * NS)
    provider.start()
    provider.steps(archive=3)
    assert provider.memories[-1].remove_drained() == [dead]
    provider.steps(load=8)
    assert provider.loader is not None
    provider.loader._finish_bars()
    with psycopg.connect(provider.dsn) as conn:
        bars = conn.execute("SELECT symbol, records, (extract(epoch FROM minute) * 1e9)::int8 FROM scalp_1m_bars ORDER BY 1").fetchall()
    assert bars == [(f"{number:06d}", 1, minute_of(last_ns)) for number in range(41)]


def test_a_host_that_died_before_its_archive_writer_wrote_anything(provider: Provider) -> None:
    """What the loader had taken from the ring is in the database alone, and its gap row begins behind that."""
    provider.steps(archive=1, load=1)
    provider.publish(12)
    provider.steps(load=4)
    dead = provider.session
    assert swing_mark(provider.dsn) == 11
    provider.die_with_host()
    provider.start()
    provider.steps(archive=3)
    assert provider.memories[-1].remove_drained() == [dead]
    provider.steps(load=8)
    assert [gap for gap in database_gaps_of(provider.dsn, dead) if gap[0] == "swing"] == [("swing", 12, None, "host_death")]
    report = run(provider.config, dsn=provider.dsn)
    assert report.to_json()["mismatches"] == []


def test_the_database_was_away(provider: Provider) -> None:
    provider.steps(archive=1, load=1)
    provider.publish(6)
    provider.steps(load=2)
    with psycopg.connect(provider.dsn, autocommit=True) as conn:
        killed = conn.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE application_name LIKE 'obs load%' AND datname = current_database()"
        ).fetchone()
    assert killed == (3,), "ticks, swings, gaps"
    for _ in range(3):
        provider.publish(20)
        provider.steps(archive=2)
    provider.steps(load=20)
    assert same(stored_rows(provider.dsn, provider.session, "swing"), make_swings(0, 66))
    assert provider.cell["database_away"] == 0


def test_a_refused_bar_is_kept_beside_the_archive(provider: Provider) -> None:
    provider.steps(archive=1, load=1)
    rows = make_swings(0, 5)
    rows["high"][3] = 1e12
    Producer(provider.memories[-1].current.rings["swing"]).publish(rows)
    provider.steps(archive=2, load=3)
    assert database_gaps(provider.dsn) == [(3, 3, "db_rejected", "swing")]
    (path,) = (provider.data / "quarantine" / "kis").glob("*_rejected.jsonl")
    (line,) = map(orjson.loads, path.read_bytes().splitlines())
    assert (line["session_id"], line["ring"], line["seq"], line["price"]["high"]) == (provider.session, "swing", 3, 1e12)
    assert line["error"].startswith("22003")
    assert provider.cell["rejected"] == 1


# --- the audit


BARS = 200


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return Archive(tmp_path_factory.mktemp("swings") / "data", bars=BARS).write()


def verdict(archive: Archive, dsn: str, **options: Any) -> tuple[bool | None, list[dict[str, Any]], dict[str, Any]]:
    report = run(archive.config, dsn=dsn, **options)
    found = report.to_json()
    return report.ok, found["mismatches"], found["totals"]["providers"][PROVIDER]["rings"]["swing"]


def test_the_audit_closes(written: Archive, pg_dsn: str) -> None:
    written.load(pg_dsn)
    lost = SWING_GAP[1] - SWING_GAP[0] + 1
    for options in ({}, {"date": "20260122"}):
        ok, mismatches, ledger = verdict(written, pg_dsn, **options)
        assert (ok, mismatches) == (True, []), options
        assert ledger == {
            "published": BARS, "archived": BARS - lost, "archive_gaps": lost, "in_flight": 0, "loaded": BARS - lost - 1,
            "database_gaps": lost + 1, "not_loaded": 0,
        }  # fmt: skip


CORRUPTIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "another value": ("UPDATE swing_bars_10m SET day_high = 1.5 WHERE seq = 100", "value", {"seq": 100, "field": "day_high", "found": 1.5}),
    "another bar": ("UPDATE swing_bars_10m SET bar_ns = bar_ns + 1 WHERE seq = 3", "value", {"seq": 3, "field": "bar_ns"}),
    "another source": (
        "UPDATE swing_bars_10m SET bar_source = 'snapshot' WHERE seq = 101", "value", {"field": "bar_source", "expected": 1, "found": 0}
    ),
    "an unknown that became known": ("UPDATE swing_bars_10m SET high = 1 WHERE seq = 4", "value", {"field": "high", "expected": None}),
    "a row is gone": ("DELETE FROM swing_bars_10m WHERE seq = 55", "loaded", {"first_seq": 55, "last_seq": 55, "expected": 1, "found": 0}),
    "a row too many": (
        "INSERT INTO swing_bars_10m SELECT * FROM swing_bars_10m_copy WHERE seq = 500", "loaded", {"first_seq": 500, "found": 1}
    ),
    "the database gap is gone": (
        "DELETE FROM scalp_gaps WHERE sink = 'database' AND reason = 'ring_lap' AND ring = 'swing'", "loaded",
        {"first_seq": SWING_GAP[0], "last_seq": SWING_GAP[1]},
    ),
    "the refusal is told of ticks": (
        "UPDATE scalp_gaps SET ring = 'tick' WHERE reason = 'db_rejected' AND ring = 'swing'", "loaded", {"first_seq": SWING_REFUSED}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_audit_names_what_differs(written: Archive, pg_dsn: str, name: str) -> None:
    statement, stage, facts = CORRUPTIONS[name]
    written.load(pg_dsn)
    with psycopg.connect(pg_dsn, autocommit=True) as conn:
        conn.execute("CREATE TABLE swing_bars_10m_copy AS SELECT * FROM swing_bars_10m WHERE seq = 10")
        conn.execute("UPDATE swing_bars_10m_copy SET seq = 500")
        assert conn.execute(statement).rowcount == 1
    ok, mismatches, _ = verdict(written, pg_dsn)
    assert ok is False
    assert any(one["ring"] == "swing" and one["stage"] == stage and facts.items() <= one.items() for one in mismatches), mismatches


def test_a_refused_bar_that_is_not_kept_is_named(written: Archive, pg_dsn: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(written.root, root)
    archive = dataclasses.replace(written, root=root)
    archive.load(pg_dsn)
    assert verdict(archive, pg_dsn)[0] is True
    (path,) = (root / "quarantine" / PROVIDER).glob("*_rejected.jsonl")
    lines = [line for line in path.read_bytes().splitlines() if b'"ring":"swing"' not in line]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    ok, mismatches, _ = verdict(archive, pg_dsn)
    assert ok is False
    assert [(one["ring"], one["first_seq"]) for one in mismatches] == [("swing", SWING_REFUSED)]


def test_dtype_has_a_column_for_every_field() -> None:
    """A field that a later dtype gains would be lost silently."""
    from obs.pg.rows import SWINGS

    assert {field for _, _, field in SWINGS.columns} - {""} == {name for name in SWING.names or () if not name.startswith("pad")}


# --- the universe of a day


def universe(day: int, count: int, made_ns: int = 1, **more: Any) -> Universe:
    listed = [Instrument(f"{number:06d}", f"이름 {number}", 4000.5 + number, 1e12 - number) for number in range(count)]
    if count > 1:
        listed[1] = Instrument("000001", "널\0", 5000.0, math.nan)
    return Universe("kr_stocks", day, "kis", made_ns, tuple(listed), count + 5, {"price": 5}, **more)


def universe_rows(dsn: str, day: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as conn:
        return conn.execute(
            "SELECT symbol, rank, name, previous_close::float8, traded_value::float8, source, stale_since::text, made_ns"
            " FROM market_universe WHERE market = 'kr_stocks' AND date = %s ORDER BY rank", [day],
        ).fetchall()  # fmt: skip


def test_the_universe_file_becomes_rows_once(provider: Provider) -> None:
    provider.steps(load=1)
    assert save(universe(20260122, 2500), provider.data)
    assert save(universe(20260123, 3, made_ns=9, stale_since=20260122), provider.data)
    provider.steps(load=4)
    rows = universe_rows(provider.dsn, "2026-01-22")
    assert len(rows) == 2500
    assert rows[0] == ("000000", 1, "이름 0", 4000.5, 1e12, "kis", None, 1)
    assert rows[1] == ("000001", 2, "널", 5000.0, None, "kis", None, 1)
    assert [row[6:] for row in universe_rows(provider.dsn, "2026-01-23")] == [("2026-01-22", 9)] * 3
    with psycopg.connect(provider.dsn, autocommit=True) as conn:
        versions = conn.execute("SELECT array_agg(DISTINCT xmin::text) FROM market_universe").fetchone()
        assert versions is not None
        assert len(versions[0]) == 2, "a transaction for each day"
        provider.load()
        provider.steps(load=3)
        assert conn.execute("SELECT array_agg(DISTINCT xmin::text) FROM market_universe").fetchone() == versions, "and never again"


def test_a_universe_of_a_time_without_database_is_brought_in_later(tmp_path: Path, pg_dsn: str) -> None:
    for day in range(20260101, 20260121):
        save(universe(day, 4), tmp_path)
    places = ["host=/nonexistent", pg_dsn]
    log = Log("load", "kis", descriptor=os.open(os.devnull, os.O_WRONLY))
    one = UniverseLoad(lambda: places.pop(0), tmp_path, "kr_stocks", log)
    with pytest.raises(LoadRetryable):
        one.step(0)
    assert one.step(1) == 20, "at once, not when the next look is due"
    assert one.step(60 * NS) == 0, "and the database is not asked again: there is no place left to ask"
    log.close()
    with psycopg.connect(pg_dsn) as conn:
        assert conn.execute("SELECT count(DISTINCT date), count(*) FROM market_universe").fetchone() == (20, 80)


def test_a_day_that_was_built_anew_replaces_its_rows_and_odd_files_stop_nothing(tmp_path: Path, pg_dsn: str) -> None:
    log = Log("load", "kis", descriptor=os.open(os.devnull, os.O_WRONLY))
    save(universe(20260122, 10), tmp_path)
    assert UniverseLoad(pg_dsn, tmp_path, "kr_stocks", log).step(0) == 1
    folder = tmp_path / "universe" / "kr_stocks"
    (folder / "20260122.json").rename(tmp_path / "aside")
    save(universe(20260122, 3, made_ns=2), tmp_path)
    (folder / "20260120.json").write_text("{")
    save(universe(20261399, 3), tmp_path)
    huge = universe(20260121, 3)
    save(dataclasses.replace(huge, instruments=(Instrument("000001", "", 1e30, 1.0),)), tmp_path)
    save(universe(20260119, 0), tmp_path)
    again = UniverseLoad(pg_dsn, tmp_path, "kr_stocks", log)
    assert again.step(0) == 2
    assert again.step(60 * NS) == 0
    log.close()
    assert [row[0] for row in universe_rows(pg_dsn, "2026-01-22")] == ["000000", "000001", "000002"]
    assert universe_rows(pg_dsn, "2026-01-21") == []


def test_a_list_that_breaks_off_leaves_nothing(tmp_path: Path, pg_dsn: str) -> None:
    save(universe(20260122, 500), tmp_path)
    with psycopg.connect(pg_dsn, autocommit=True) as conn:
        conn.execute("ALTER TABLE market_universe ADD CHECK (symbol <> '000400')")
    log = Log("load", "kis", descriptor=os.open(os.devnull, os.O_WRONLY))
    assert UniverseLoad(pg_dsn, tmp_path, "kr_stocks", log).step(0) == 0
    log.close()
    assert universe_rows(pg_dsn, "2026-01-22") == []
