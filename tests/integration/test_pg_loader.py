"""The tick loader against a real server: exactly once, whatever breaks and whoever takes over."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import psycopg
import pytest

from obs.errors import DiskTrouble, LoadRetryable, OwnedElsewhere
from obs.pg.connect import connect
from obs.pg.loader import RingLoader
from obs.pg.proof import duplicates, gap_rows, sessions_stored, watermarks
from obs.pg.rows import CHUNK
from tests.integration.pg_load_child import GAP_EVERY, REFUSED_EVERY, batch_of
from tests.integration.pg_rows import make_rows, same, stored_rows

SESSION = "sess_20260122_003105_kis_ab12"


def unexpected(row: np.void, text: str) -> None:
    raise AssertionError(f"refused: {row} {text}")


def make_loader(dsn: str, holder: str = "one", rejected: Callable[[np.void, str], None] = unexpected) -> RingLoader:
    return RingLoader(dsn, "kis", SESSION, holder, rejected)


@contextmanager
def opened(dsn: str, **options: Any) -> Iterator[RingLoader]:
    loader = make_loader(dsn, **options)
    loader.open()
    yield loader
    loader.close()


def gaps_of(dsn: str) -> list[tuple[int, int, str]]:
    with connect(dsn, "test") as conn:
        return sorted((gap["first_seq"], gap["last_seq"], gap["reason"]) for gap in gap_rows(conn, "kis"))


def test_rows_come_back_as_they_went(pg_dsn: str) -> None:
    with opened(pg_dsn) as loader:
        assert loader.watermark == -1
        assert loader.commit(make_rows(0, 3000)) == 2999
        assert loader.commit(make_rows(3000, 1)) == 3000
    assert same(stored_rows(pg_dsn, SESSION), make_rows(0, 3001))
    with connect(pg_dsn, "test") as conn:
        assert sessions_stored(conn, "kis") == [(SESSION, 3001, 0, 3000, 3001)]
        assert watermarks(conn, "kis") == [("ring", "kis", SESSION, "tick", "one", 3000, None)]
        assert duplicates(conn, SESSION) == []


def test_numbers_equal_the_text_road(pg_dsn: str) -> None:
    rng = np.random.default_rng(11)
    rows = make_rows(0, 2000)
    for field in ("last_price", "volume", "acc_volume"):
        rows[field] = [float(f"{n}e{-e}") for n, e in zip(rng.integers(0, 10**11, 2000), rng.integers(0, 9, 2000), strict=True)]
    with opened(pg_dsn) as loader:
        loader.commit(rows)
    with psycopg.connect(pg_dsn, autocommit=True) as conn:
        conn.execute("CREATE TABLE spelled (seq bigint, last_price numeric(20,8), volume numeric(28,8), acc_volume numeric(28,8))")
        with conn.cursor() as cur, cur.copy("COPY spelled FROM STDIN") as copy:
            for row in rows:
                copy.write_row((int(row["seq"]), *(repr(float(row[field])) for field in ("last_price", "volume", "acc_volume"))))
        different = conn.execute(
            "SELECT count(*) FROM scalp_ticks t JOIN spelled s USING (seq) WHERE (t.last_price, t.volume, t.acc_volume)"
            " IS DISTINCT FROM (s.last_price, s.volume, s.acc_volume)"
        ).fetchone()
    assert different == (0,)


def test_timestamps_are_truncated_to_microseconds(pg_dsn: str) -> None:
    rows = make_rows(0, 2)
    rows["ts_ns"] += 999
    rows["event_ns"] = [-(2**63), 2**63 - 1]
    with opened(pg_dsn) as loader:
        loader.commit(rows)
    with psycopg.connect(pg_dsn) as conn:
        wrong = conn.execute(
            "SELECT count(*) FROM scalp_ticks"
            " WHERE ts <> 'epoch'::timestamptz + ts_ns / 1000 * interval '1 microsecond' OR event_time IS NULL"
        ).fetchone()
    assert wrong == (0,)
    assert same(stored_rows(pg_dsn, SESSION), rows)


def test_days_apart_get_their_partitions(pg_dsn: str) -> None:
    day = 86_400 * 10**9
    with opened(pg_dsn) as loader:
        loader.commit(make_rows(0, 40, step_ns=day // 10))
        with psycopg.connect(pg_dsn, autocommit=True) as conn:
            conn.execute("DROP TABLE scalp_ticks_20260124")
        loader.commit(make_rows(40, 40, step_ns=-day // 20))
    assert loader.watermark == 79
    with connect(pg_dsn, "test") as conn:
        assert sessions_stored(conn, "kis")[0].last_seq == 79


def test_a_day_dropped_behind_the_loader_is_made_again(pg_dsn: str) -> None:
    with opened(pg_dsn) as loader:
        loader.commit(make_rows(0, 10))
        with psycopg.connect(pg_dsn, autocommit=True) as conn:
            conn.execute("DROP TABLE scalp_ticks_20260122")
        loader.commit(make_rows(10, 10))
    assert same(stored_rows(pg_dsn, SESSION), make_rows(10, 10))


def test_gaps_share_the_transaction(pg_dsn: str) -> None:
    rows, gaps = batch_of(SESSION, 0, 1000)
    gap = dict(gaps[0], first_seq=1000, last_seq=1009, lost=10)
    rows["last_price"][996] = 1
    with opened(pg_dsn) as loader:
        assert loader.commit(rows, gaps) == 999
        assert loader.commit(make_rows(0, 0), [gap]) == 1009
        assert loader.commit(make_rows(0, 0), [gap]) == 1009
        open_end = dict(gap, first_seq=1010, last_seq=None, lost=None, reason="host_death")
        assert loader.commit(make_rows(0, 0), [open_end]) == 1009
    with connect(pg_dsn, "test") as conn:
        found = [(gap["first_seq"], gap["last_seq"], gap["reason"]) for gap in gap_rows(conn, "kis")]
    assert sorted(found, key=str) == [(1000, 1009, "disk_full"), (1010, None, "host_death"), (999, 999, "disk_full")]


@pytest.mark.parametrize("bad", [(), (0,), (999,), (0, 1, 2, 3), (7, 400, 401, 998), tuple(range(300, 340))])
def test_refused_rows_are_set_aside_alone(pg_dsn: str, bad: tuple[int, ...]) -> None:
    rows = make_rows(0, 1000)
    rows["last_price"][list(bad)] = np.resize([1e12, np.inf, 1e300], len(bad))
    aside: list[tuple[int, str]] = []
    with opened(pg_dsn, rejected=lambda row, text: aside.append((int(row["seq"]), text))) as loader:
        assert loader.commit(rows) == 999
        assert loader.refused_total == len(bad)
    assert [seq for seq, _ in aside] == list(bad)
    assert all(text.startswith("22003 numeric field overflow") for _, text in aside)
    assert same(stored_rows(pg_dsn, SESSION), np.delete(rows, bad))
    assert gaps_of(pg_dsn) == [(seq, seq, "db_rejected") for seq in bad]


def test_a_row_refused_while_most_of_the_block_is_still_to_be_sent(pg_dsn: str) -> None:
    """The server says no at its first row; the chunks behind it, far more than a socket holds, must not turn that into an error."""
    rows = make_rows(0, 10 * CHUNK)
    rows["last_price"][0] = 1e12
    aside: list[int] = []
    with opened(pg_dsn, rejected=lambda row, text: aside.append(int(row["seq"]))) as loader:
        assert loader.commit(rows) == len(rows) - 1
    assert aside == [0]
    assert same(stored_rows(pg_dsn, SESSION), rows[1:])
    assert gaps_of(pg_dsn) == [(0, 0, "db_rejected")]


def test_a_symbol_that_is_not_text(pg_dsn: str) -> None:
    rows = make_rows(0, 10)
    rows["symbol"][3], rows["symbol"][5] = b"\xff\xfe", b"a\0b"
    aside: list[int] = []
    with opened(pg_dsn, rejected=lambda row, text: aside.append(int(row["seq"]))) as loader:
        loader.commit(rows)
    assert aside == [3, 5]


def test_what_cannot_be_set_aside_is_not_committed(pg_dsn: str) -> None:
    def full(row: np.void, text: str) -> None:
        raise DiskTrouble("no room", seq=int(row["seq"]))

    rows = make_rows(0, 10)
    rows["last_price"][3] = 1e12
    with opened(pg_dsn, rejected=full) as loader:
        with pytest.raises(DiskTrouble):
            loader.commit(rows)
        assert loader.open() == -1
        assert loader.commit(make_rows(0, 10)) == 9
    assert gaps_of(pg_dsn) == []


def test_rows_that_are_there_already_are_neither_lost_nor_doubled(pg_dsn: str) -> None:
    rows = make_rows(0, 1000)
    with opened(pg_dsn) as loader:
        loader.commit(rows[:700])
    with psycopg.connect(pg_dsn, autocommit=True) as conn:
        conn.execute("UPDATE etl_watermark SET last_seq = 99")
        conn.execute("DELETE FROM scalp_ticks WHERE seq = 500")
    rows["last_price"][[600, 900]] = 1e12
    aside: list[int] = []
    with opened(pg_dsn, rejected=lambda row, text: aside.append(int(row["seq"]))) as loader:
        assert loader.watermark == 99
        assert loader.commit(rows[100:]) == 999
    assert aside == [600, 900]
    with connect(pg_dsn, "test") as conn:
        assert sessions_stored(conn, "kis") == [(SESSION, 999, 0, 999, 999)]


def test_takeover(pg_dsn: str) -> None:
    old, new = make_loader(pg_dsn, "old"), make_loader(pg_dsn, "new")
    old.open()
    old.commit(make_rows(0, 10))
    assert new.open() == 9
    with pytest.raises(OwnedElsewhere):
        old.commit(make_rows(10, 10))
    with pytest.raises(OwnedElsewhere):
        old.open()
    assert new.commit(make_rows(10, 10)) == 19
    for loader in (old, new):
        loader.close()
    assert same(stored_rows(pg_dsn, SESSION), make_rows(0, 20))


def test_a_watermark_that_was_set_back(pg_dsn: str) -> None:
    with opened(pg_dsn) as loader:
        loader.commit(make_rows(0, 10))
        with psycopg.connect(pg_dsn, autocommit=True) as conn:
            conn.execute("TRUNCATE scalp_ticks, etl_watermark")
        with pytest.raises(LoadRetryable):
            loader.commit(make_rows(10, 10))
        assert loader.open() == -1
        loader.commit(make_rows(0, 20))
    assert same(stored_rows(pg_dsn, SESSION), make_rows(0, 20))


def test_two_rings_of_two_sessions_do_not_meet(pg_dsn: str) -> None:
    other = SESSION.replace("ab12", "ffff")
    loaders = [make_loader(pg_dsn), RingLoader(pg_dsn, "kis", other, "two", unexpected)]
    for loader in loaders:
        loader.open()
    loaders[0].commit(make_rows(0, 5))
    loaders[1].commit(make_rows(0, 7))
    for loader in loaders:
        loader.close()
    assert (len(stored_rows(pg_dsn, SESSION)), len(stored_rows(pg_dsn, other))) == (5, 7)


class CuttingProxy:
    """Passes one connection on to the server until the client says COMMIT, then cuts it.

    `delivers`: the server gets the COMMIT and answers; only the answer is lost.
    """

    def __init__(self, dsn: str, delivers: bool) -> None:
        facts = parse_qs(urlsplit(dsn).query)
        self._server = f"{facts['host'][0]}/.s.PGSQL.{facts['port'][0]}"
        self._folder = tempfile.TemporaryDirectory(prefix="obs-proxy-")
        self.dsn = f"postgresql://obs@{urlsplit(dsn).path}?host={self._folder.name}&port=5432"
        self._delivers = delivers
        self.cut = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{self._folder.name}/.s.PGSQL.5432")
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._server)
            back = threading.Thread(target=self._pass_back, args=(server, client))
            back.start()
            while data := client.recv(65536):
                if b"COMMIT" in data:
                    self.cut.set()
                    if self._delivers:
                        server.sendall(data)
                        back.join(5)  # the answer has arrived, and goes no further
                    break
                server.sendall(data)
            for end in (client, server):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            back.join()

    def _pass_back(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if self.cut.is_set():
                    return
                client.sendall(data)

    def close(self) -> None:
        self._thread.join()
        self._listener.close()
        self._folder.cleanup()


@pytest.mark.parametrize("delivers", [True, False])
def test_unknown_commit(pg_dsn: str, delivers: bool) -> None:
    proxy = CuttingProxy(pg_dsn, delivers)
    places = [proxy.dsn, pg_dsn]
    loader = RingLoader(lambda: places.pop(0), "kis", SESSION, "one", unexpected)
    assert loader.open() == -1
    with connect(pg_dsn, "test") as conn:
        conn.execute("SELECT ensure_scalp_ticks_day('2026-01-22')")
    with pytest.raises(LoadRetryable):
        loader.commit(make_rows(0, 100))
    assert proxy.cut.is_set()
    proxy.close()
    mark = loader.open()
    if delivers:
        assert mark == 99
    # The lost backend may still be on its way: the compare-and-set decides, and the same rows may be given again.
    assert loader.commit(make_rows(0, 150)) == 149
    loader.close()
    assert same(stored_rows(pg_dsn, SESSION), make_rows(0, 150))


def test_a_commit_that_succeeds_behind_our_back(pg_dsn: str) -> None:
    with opened(pg_dsn) as loader, opened(pg_dsn) as twin:
        loader.commit(make_rows(0, 50))
        twin.commit(make_rows(0, 60))
        assert loader.commit(make_rows(50, 20)) == 69
    assert same(stored_rows(pg_dsn, SESSION), make_rows(0, 70))


def check_child_rows(dsn: str, total: int, rejected: set[int]) -> None:
    """I1 and I3 for what pg_load_child loads: each sequence once, as a row with its own values or as one gap row."""
    expected, _ = batch_of(SESSION, 0, total)
    refused = expected["seq"][expected["last_price"] == 1e12]
    assert same(stored_rows(dsn, SESSION), expected[expected["last_price"] != 1e12])
    missing = range(GAP_EVERY - 1, total, GAP_EVERY)
    wanted = [(seq, seq, "disk_full") for seq in missing] + [(int(seq), int(seq), "db_rejected") for seq in refused]
    assert gaps_of(dsn) == sorted(wanted)
    assert set(refused.tolist()) <= rejected
    with connect(dsn, "test") as conn:
        assert watermarks(conn, "kis")[0].last_seq == total - 1
        assert duplicates(conn, SESSION) == []


def test_connections_killed_at_random(pg_dsn: str) -> None:
    total, rng, aside = 40_000, random.Random(3), set[int]()
    stop = threading.Event()
    kills = 0

    def kill() -> None:
        nonlocal kills
        with connect(pg_dsn, "killer") as conn:
            while not stop.wait(rng.uniform(0.001, 0.06)):
                found = conn.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name LIKE 'obs load%' AND datname = current_database()"
                ).fetchall()
                kills += len(found)

    killer = threading.Thread(target=kill)
    killer.start()
    loader = make_loader(pg_dsn, rejected=lambda row, text: aside.add(int(row["seq"])))
    deadline = time.monotonic() + 60
    mark = -1
    while mark < total - 1 and time.monotonic() < deadline:
        with suppress(LoadRetryable):
            mark = loader.open()
            while mark < total - 1:
                mark = loader.commit(*batch_of(SESSION, mark + 1, min(rng.randrange(1, 700), total - 1 - mark)))
    stop.set()
    killer.join()
    loader.close()
    assert mark == total - 1
    assert kills > 10
    check_child_rows(pg_dsn, total, aside)


def test_loader_killed_at_30_random_moments(pg_dsn: str, tmp_path: Path) -> None:
    total, batch, rng = 40_000, 200, random.Random(8)
    rejected = tmp_path / "rejected"

    def run(number: int, commits: int | None, more_s: float = 0) -> int:
        """Run a loader to its end, or kill it so many commits and seconds after it was ready."""
        arguments = [pg_dsn, SESSION, f"holder {number}", str(total), str(batch), str(rejected), "tick"]
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
    for number in range(30):
        assert run(number, rng.randrange(4), rng.uniform(0, 0.015)) == -signal.SIGKILL
        with connect(pg_dsn, "test") as conn:
            marks.append(watermarks(conn, "kis")[0].last_seq)
    assert run(30, None) == 0
    assert marks == sorted(marks)
    assert len(set(marks)) > 15
    check_child_rows(pg_dsn, total, {int(line.split()[0]) for line in rejected.read_bytes().splitlines()})
    assert total > REFUSED_EVERY


def test_copying_into_a_missing_schema_is_a_state_not_a_refusal(empty_dsn: str) -> None:
    with pytest.raises(LoadRetryable) as caught:
        make_loader(empty_dsn).open()
    assert caught.value.facts["sqlstate"] == "42P01"
