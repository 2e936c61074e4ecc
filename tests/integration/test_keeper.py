"""The keeper in a real tree: it marks days, keeps the table at the log of marks, fills bars for late data, and lives like the others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import psutil
import psycopg
import pytest

from obs.clock import MINUTE_NS, NS, minute_of
from obs.config import Config, ProviderConfig
from obs.config.process import ProcessSpec
from obs.lifecycle.marks import MARKED, UNMARKED, Mark, append, marked, path_of
from obs.log import Log
from obs.pg.bars import fill_bars, late_minutes
from obs.pg.connect import connect
from obs.pg.days import AnomalyDay, sync_days
from obs.pg.gaps import moment
from obs.pg.loader import RingLoader
from obs.record.events import event_line, gap_payload, make_event
from obs.roles.keeper import _Keeper
from obs.roles.sink import Progress
from obs.shm.counters import ROLE_CELL
from tests.integration.pg_rows import START_NS, make_rows
from tests.integration.supervised import ROOT, Supervised, until

Make = Callable[..., Supervised]
SESSION = "sess_20260122_003105_kis_ab12"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Supervised] = []

    def build(dsn: str | None, **options: Any) -> Supervised:
        made.append(Supervised(tmp_path, dsn, **options))
        return made[-1]

    yield build
    for one in made:
        one.close()


def rows_of(dsn: str, provider: str = "kis") -> set[tuple[str, str, str]]:
    with psycopg.connect(dsn) as conn:
        found = conn.execute("SELECT market, day::text, reason FROM anomaly_days WHERE provider = %s", [provider]).fetchall()
    return {(row[0], row[1], row[2]) for row in found}


def obs(tree: Supervised, *words: str) -> tuple[int, list[dict[str, Any]], str]:
    command = [sys.executable, "-m", "obs.cli", "--config", str(tree.config), "--data", str(tree.data), "--json", "days", *words]
    done = subprocess.run(command, capture_output=True, cwd=ROOT, env=tree.environ(), timeout=60, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode()


def told(tree: Supervised, provider: str = "kis") -> list[tuple[str, int, str]]:
    return [(one["change"], one["day"], one["reason"]) for one in tree.events(provider, "lifecycle") if one.get("what") == "anomaly_day"]


def test_a_mark_by_hand_goes_everywhere_and_back(make: Make, pg_dsn: str) -> None:
    tree = make(pg_dsn, providers=("kis",))
    supervisor = tree.start()
    supervisor.ready()
    assert supervisor.children().keys() == {
        "obs archive kis", "obs load kis", "obs poll kis", "obs feed kis", "obs monitor services", "obs keeper services",
    }  # fmt: skip
    code, lines, _ = obs(tree, "mark", "2026-01-22", "--reason", "power cut")
    assert (code, lines[0]["what"], lines[0]["detail"]) == (0, "marked", {"text": "power cut"})
    until("the row", lambda: rows_of(pg_dsn) == {("kr_stocks", "2026-01-22", "manual")})
    until("the event", lambda: told(tree) == [("marked", 20260122, "manual")])
    code, lines, _ = obs(tree, "--date", "20260122")
    assert (code, [(line["provider"], line["day"], line["by"]) for line in lines]) == (0, [("kis", "20260122", "hand")])
    assert obs(tree, "mark", "20260122", "--reason", "again")[0] == 1
    assert obs(tree, "unmark", "20260122")[0] == 0
    until("no row", lambda: rows_of(pg_dsn) == set())
    until("the event", lambda: told(tree) == [("marked", 20260122, "manual"), ("unmarked", 20260122, "manual")])
    assert supervisor.stop() < 10
    second = tree.start()
    second.ready()
    assert obs(tree, "mark", "20260123", "--reason", "third")[0] == 0
    until("what is new is told, what was told is not", lambda: len(told(tree)) > 2)
    assert told(tree)[2:] == [("marked", 20260123, "manual")]
    second.stop()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("mark",), "needs a date"),
        (("mark", "20260122"), "needs its reason"),
        (("mark", "20260122", "--reason", " "), "needs its reason"),
        (("mark", "yesterday", "--reason", "x"), "is not a date"),
        (("mark", "20260122", "--reason", "x", "--provider", "other"), "no such provider"),
    ],
)
def test_usage_errors(make: Make, words: tuple[str, ...], says: str) -> None:
    code, _, errors = obs(make(None, providers=()), *words)
    assert code == 2
    assert says in errors or "no provider is configured" in errors


def test_a_bad_day_is_seen_while_it_runs(make: Make, pg_dsn: str) -> None:
    """Nobody tells the keeper anything: what the venue does shows in system/events, and that is enough."""
    tree = make(pg_dsn, providers=("kis",))
    supervisor = tree.start()
    supervisor.ready()
    tree.recording("kis")
    # Yesterday's file is not the archive writer's any more, and is read like today's.
    on = datetime.now(ZoneInfo("Asia/Seoul")).date() - timedelta(days=1)
    noon = int(datetime.combine(on, time(12), ZoneInfo("Asia/Seoul")).timestamp()) * NS
    lines = []
    for number in range(2):
        start = noon + 200 * number * NS
        payload = gap_payload(start_ns=start, end_ns=start + 70 * NS, scope="scalp", reason="ring_lap", session_id=SESSION, provider="kis")
        row = make_event("gap_marker", start, payload)
        row["seq"] = number
        lines.append(event_line(row, SESSION, "kis", "event"))
    path = tree.data / "system" / "events" / "kis" / f"{on:%Y%m%d}.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    found = until("marks", lambda: {key for key in marked(path_of(tree.data, "kis")) if key[1] == "gaps"})
    assert found == {(int(path.stem), "gaps")}
    until("the row", lambda: ("kr_stocks", f"{on}", "gaps") in rows_of(pg_dsn))
    until("the event", lambda: ("marked", int(path.stem), "gaps") in told(tree))
    (line,) = [line for line in supervisor.log("anomaly_day") if line["reason"] == "gaps"]
    assert (line["gaps"], line["longest_s"]) == (2, 70.0)
    supervisor.stop()


def test_killed_it_comes_back_and_nothing_else_notices(make: Make, empty_dsn: str) -> None:
    tree = make(empty_dsn, providers=("kis",))
    supervisor = tree.start()
    supervisor.ready()
    others = {title: pid for title, pid in supervisor.children().items() if "keeper" not in title}
    pid = supervisor.child("obs keeper services")
    os.kill(pid, signal.SIGKILL)
    supervisor.child("obs keeper services", not_pid=pid)
    assert {title: pid for title, pid in supervisor.children().items() if "keeper" not in title} == others
    assert supervisor.stop() < 10
    assert supervisor.left() == []


def test_without_a_database_it_marks_all_the_same_and_stops_in_time(make: Make) -> None:
    tree = make("postgresql://nobody@/nowhere?host=/nonexistent", providers=("kis",))
    supervisor = tree.start("--services")
    until("it runs", lambda: supervisor.alive() and "obs keeper services" in supervisor.children())
    append(path_of(tree.data, "kis"), MARKED, Mark("kis", "kr_stocks", 20260122, "manual", {}, "hand", 1))
    folder = tree.data / "system" / "events" / "kis"
    folder.mkdir(parents=True)
    lines = [event_line(make_event("reconnection_event", START_NS + n, {"result": "SUCCESS"}), SESSION, "kis", "event") for n in range(20)]
    (folder / "20260122.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    until("the mark", lambda: (20260122, "reconnects") in marked(path_of(tree.data, "kis")))
    until("it says why nothing is stored", lambda: [line for line in supervisor.log("database_away") if line["role"] == "keeper"])
    assert supervisor.stop() < 10


def test_it_stays_small(make: Make, empty_dsn: str) -> None:
    tree = make(empty_dsn, providers=("kis",))
    supervisor = tree.start()
    supervisor.ready()
    pid = supervisor.child("obs keeper services")
    append(path_of(tree.data, "kis"), MARKED, Mark("kis", "kr_stocks", 20260122, "manual", {}, "hand", 1))
    until("it has stored something", lambda: rows_of(empty_dsn))
    held = psutil.Process(pid).memory_full_info()
    assert held.uss < 40 << 20, held
    supervisor.stop()


# --- the database's side


def test_the_table_follows_the_log(pg_dsn: str) -> None:
    def day(number: int, reason: str, market: str = "kr_stocks", **detail: Any) -> AnomalyDay:
        return AnomalyDay(market, date(2026, 1, number), reason, detail, START_NS)

    with connect(pg_dsn, "test") as conn:
        assert sync_days(conn, "kis", [day(22, "cpu", minutes=10), day(22, "manual", text="널"), day(21, "gaps", market="us_stocks")]) == 3
        assert sync_days(conn, "other", [day(22, "cpu")]) == 1
        assert sync_days(conn, "kis", [day(22, "cpu", minutes=10), day(22, "manual", text="널"), day(21, "gaps", market="us_stocks")]) == 0
        assert sync_days(conn, "kis", [day(22, "cpu", minutes=11), day(23, "disk")]) == 4
        rows = conn.execute("SELECT provider, market, day::text, reason, detail, marked_at FROM anomaly_days ORDER BY 1, 3, 4").fetchall()
    assert rows == [
        ("kis", "kr_stocks", "2026-01-22", "cpu", {"minutes": 11}, moment(START_NS)),
        ("kis", "kr_stocks", "2026-01-23", "disk", {}, moment(START_NS)),
        ("other", "kr_stocks", "2026-01-22", "cpu", {}, moment(START_NS)),
    ]  # fmt: skip


def unexpected(row: np.void, text: str) -> None:
    raise AssertionError(f"refused: {row} {text}")


def load(dsn: str, first: int, count: int) -> None:
    loader = RingLoader(dsn, "kis", SESSION, f"from {first}", unexpected)
    loader.open()
    loader.commit(make_rows(first, count))
    loader.close()


def records_of_bars(dsn: str) -> int:
    with psycopg.connect(dsn) as conn:
        (records,) = conn.execute("SELECT coalesce(sum(records), 0)::int8 FROM scalp_1m_bars").fetchone() or (0,)
    return int(records)


def test_minutes_with_later_records_are_found(pg_dsn: str) -> None:
    first = minute_of(START_NS)
    load(pg_dsn, 0, 9000)
    with connect(pg_dsn, "test") as conn:
        assert late_minutes(conn, "kis", first, first + 5 * MINUTE_NS) == [first, first + MINUTE_NS], "no bars yet"
        fill_bars(conn, "kis", first, first + 5 * MINUTE_NS)
        assert late_minutes(conn, "kis", first, first + 5 * MINUTE_NS) == []
        assert records_of_bars(pg_dsn) == 9000
    load(pg_dsn, 9000, 3000)
    with connect(pg_dsn, "test") as conn:
        late = late_minutes(conn, "kis", first, first + 5 * MINUTE_NS)
        assert late == [first + MINUTE_NS, first + 2 * MINUTE_NS]
        assert late_minutes(conn, "kis", first, first + 2 * MINUTE_NS) == [first + MINUTE_NS]
        assert late_minutes(conn, "other", first, first + 5 * MINUTE_NS) == []


class Hand:
    """A clock that only a test moves."""

    def __init__(self, wall: int) -> None:
        self.wall, self.mono = wall, 10**12

    def wall_ns(self) -> int:
        return self.wall

    def mono_ns(self) -> int:
        return self.mono


def test_the_keeper_fills_them(pg_dsn: str, tmp_path: Path) -> None:
    kis = ProviderConfig("kis", "kis", True, "kr_stocks", "krx", "", "", (), None, ("005930",), ("trade",), 41, "sample", "always")
    config = Config(tmp_path, providers=(kis,))
    cell: Any = np.zeros((), ROLE_CELL)
    clock = Hand(minute_of(START_NS) + 20 * 3600 * NS)
    log = Log("keeper", "services", descriptor=os.open(os.devnull, os.O_WRONLY))
    load(pg_dsn, 0, 9000)
    keeper = _Keeper(ProcessSpec("keeper", "services", config, tmp_path, 1, dsn=pg_dsn), log, cell, Progress(cell, clock), clock)
    keeper.step()
    until("all bars at the start, a day back", lambda: records_of_bars(pg_dsn) == 9000)
    load(pg_dsn, 9000, 3000)
    clock.wall = minute_of(START_NS) + 3600 * NS
    keeper._stored.finish()
    keeper.step()
    keeper._stored.finish()
    assert records_of_bars(pg_dsn) == 9000, "not yet: once an hour"
    clock.mono += 3600 * NS
    keeper.step()
    until("the late ones", lambda: records_of_bars(pg_dsn) == 12_000)
    keeper.finish()
    log.close()


def test_marks_made_while_the_database_was_away_are_stored_later(pg_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kis = ProviderConfig("kis", "kis", True, "kr_stocks", "krx", "", "", (), None, ("005930",), ("trade",), 41, "sample", "always")
    cell: Any = np.zeros((), ROLE_CELL)
    clock = Hand(START_NS)
    log = Log("keeper", "services", descriptor=os.open(os.devnull, os.O_WRONLY))
    spec = ProcessSpec("keeper", "services", Config(tmp_path, providers=(kis,)), tmp_path, 1, dsn="host=/nonexistent")
    keeper = _Keeper(spec, log, cell, Progress(cell, clock), clock)
    append(path_of(tmp_path, "kis"), MARKED, Mark("kis", "kr_stocks", 20260122, "manual", {"text": "x"}, "hand", START_NS))
    keeper.step()
    until("it has tried", lambda: cell["database_away"] == 1)
    keeper._stored.finish()
    keeper._stored._dsn = pg_dsn
    keeper.step()
    keeper._stored.finish()
    assert rows_of(pg_dsn) == set(), "not at once again"
    clock.mono += 10 * NS
    keeper.step()
    until("the row", lambda: rows_of(pg_dsn) == {("kr_stocks", "2026-01-22", "manual")})
    keeper._stored.finish()
    assert cell["database_away"] == 0
    append(path_of(tmp_path, "kis"), UNMARKED, Mark("kis", "kr_stocks", 20260122, "manual", {}, "hand", START_NS))
    keeper.step()
    until("no row", lambda: rows_of(pg_dsn) == set())
    keeper.finish()
    last = keeper._stored._thread
    keeper.step()
    assert keeper._stored._thread is last, "nothing is due, nothing is asked"
    log.close()


def test_a_full_disk_is_an_alarm_and_the_day_is_marked_later(pg_dsn: str, tmp_path: Path) -> None:
    kis = ProviderConfig("kis", "kis", True, "kr_stocks", "krx", "", "", (), None, ("005930",), ("trade",), 41, "sample", "always")
    cell: Any = np.zeros((), ROLE_CELL)
    clock = Hand(START_NS)
    log = Log("keeper", "services", descriptor=os.open(os.devnull, os.O_WRONLY))
    spec = ProcessSpec("keeper", "services", Config(tmp_path, providers=(kis,)), tmp_path, 1, dsn=pg_dsn)
    keeper = _Keeper(spec, log, cell, Progress(cell, clock), clock)
    folder = tmp_path / "system" / "events" / "kis"
    folder.mkdir(parents=True)
    lines = [event_line(make_event("reconnection_event", START_NS + n, {"result": "SUCCESS"}), SESSION, "kis", "event") for n in range(20)]
    (folder / "20260122.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    (tmp_path / "system" / "days").write_bytes(b"")  # a file where the folder should be: nothing can be written there
    keeper.step()
    assert cell["disk_trouble"] == 1
    (tmp_path / "system" / "days").unlink()
    keeper.step()
    assert cell["disk_trouble"] == 0
    assert set(marked(path_of(tmp_path, "kis"))) == {(20260122, "reconnects")}
    keeper.finish()
    log.close()


def test_the_counts_tell_how_much_of_the_minute_is_covered(make: Make, empty_dsn: str) -> None:
    """It is what the record rate of a day is judged by."""
    tree = make(empty_dsn, providers=("kis",))
    supervisor = tree.start()
    supervisor.ready()
    tree.recording("kis")
    supervisor.stop()
    own = [line for line in tree.events("kis", "counts") if line["symbol"] is None]
    assert sum(line["covered_s"] for line in own) > 0
    assert {line["slots"] for line in own} <= {0, 1, 2, 3}
