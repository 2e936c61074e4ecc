"""The watcher over real blocks of shared memory: lags from the rings themselves, and the ledger while it happens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from obs.clock import NS
from obs.config import load
from obs.config.options import Config
from obs.config.process import lock_path
from obs.ledger import Intake
from obs.monitor.health import judge
from obs.monitor.status import collect, status_of
from obs.monitor.view import Watcher
from obs.record.events import gap_line, gap_payload
from obs.record.schema import DTYPES, INPUT, TICK
from obs.ring import Consumer, Producer, Ring, create_ring, fence
from obs.segment.sessions import SessionStart, append_end, append_start
from obs.shm import Board, Counters, block_path, remove

SESSION = "sess_20260122_003105_upbit_ab12"
CAPACITY = 64
T0 = 1_769_041_865 * NS


class Hands:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.ns = T0

    def wall_ns(self) -> int:
        return self.ns

    def mono_ns(self) -> int:
        return self.ns

    def forward(self, seconds: float) -> None:
        self.ns += int(seconds * NS)


class Provider:
    """What a running provider keeps in shared memory, made by hand."""

    def __init__(self, config: Config, clock: Hands) -> None:
        self.config, self.clock = config, clock
        folder, data = config.ring.dir, config.data_dir
        self.counters = Counters(Counters.path(folder, data, "upbit"), make=True)
        for role in ("archive", "load", "poll", "feed"):
            self.counters.add(role)
            cell = self.counters.cell(role)
            cell["pid"], cell["ready"] = os.getpid(), 1
        self.beat()
        self.board = Board.create(Board.path(folder, data, "upbit"), fence)
        self.board["link"].write_json([{"name": "upbit", "connected": True, "closed_market": False, "last_reason": "", "attempt": 0}])
        append_start(data, SessionStart(SESSION, "upbit", T0, "host", "boot", "0", "hash", dict.fromkeys(DTYPES, CAPACITY)))
        self.rings = {
            name: create_ring(block_path(folder, data, SESSION, name), dtype, CAPACITY, SESSION, name, T0) for name, dtype in DTYPES.items()
        }
        self.tick = Producer(self.rings["tick"])
        self.intake = Intake(self.board["intake"], np.array([b"", b"KRW-BTC"]))
        self.intake.head["session_id"] = SESSION.encode()
        self.intake.head["n"] = 1
        self.intake.commit()

    def beat(self) -> None:
        for role in ("archive", "load", "poll", "feed"):
            self.counters.cell(role)["heartbeat_ns"] = self.clock.mono_ns()

    def take(self, trades: int) -> None:
        """Count inputs and commit, as a feed does before it publishes their record."""
        inputs = np.zeros(trades, INPUT)
        inputs["row"] = 1
        self.intake.count(inputs)
        self.intake.head["messages"] += trades
        self.intake.head["data"] += trades
        self.intake.table["pending_trades"][1] += trades
        self.intake.head["tick_as_of"] = self.tick.published
        self.intake.commit()

    def publish(self, trades: int) -> None:
        rows = np.zeros(1, TICK)
        rows["ts_ns"], rows["trades"] = self.clock.ns, trades
        self.tick.publish(rows)
        self.intake.table["pending_trades"] = 0
        self.intake.head["tick_as_of"] = self.tick.published
        self.intake.commit()

    def durable(self, ring: Ring, consumer: str, seq: int) -> None:
        Consumer(ring, consumer).durable = seq

    def close(self) -> None:
        for ring in self.rings.values():
            remove(ring.path)
            ring.close()
        self.counters.close()
        self.board.close()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "shm").mkdir()
    (tmp_path / "obs.toml").write_text(
        'data_dir = "data"\n[ring]\ndir = "shm"\n[providers.upbit]\nsymbols = ["KRW-BTC"]\nhours = "always"\n'
    )
    (tmp_path / "data").mkdir()
    return load(tmp_path / "obs.toml", environ={}, cwd=tmp_path)


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def running(config: Config, clock: Hands) -> Iterator[Provider]:
    provider = Provider(config, clock)
    yield provider
    provider.close()


@pytest.fixture
def watcher(config: Config, clock: Hands) -> Iterator[Watcher]:
    one = Watcher(config, clock)
    yield one
    one.close()


def reasons(watcher: Watcher, config: Config) -> list[str]:
    return [one.reason for one in judge(watcher.look(), config.supervisor).reasons]


def test_nothing_runs(config: Config) -> None:
    status = collect(config)
    assert status["running"] is False
    assert status["processes"] == []
    assert [one["name"] for one in status["providers"]] == ["upbit"]
    assert status["health"]["reasons"] == ["heartbeat"]


def test_what_runs_is_seen(running: Provider, watcher: Watcher, config: Config) -> None:
    running.take(3)
    running.publish(3)
    running.counters.cell("feed")["messages"] = 3
    lock_path(config.data_dir, "upbit").parent.mkdir()
    lock_path(config.data_dir, "upbit").write_text(f"{os.getpid()}\n")
    view = watcher.look()
    (provider,) = view.providers
    assert view.supervisors == {"upbit": os.getpid()}
    assert provider.session_id == SESSION
    assert provider.ring["tick"].published == 1
    assert provider.roles["feed"].counters["messages"] == 3
    assert reasons(watcher, config) == []
    status = collect(config)
    assert status["running"] is True
    assert {(one["role"], one["provider"]) for one in status["processes"]} >= {("supervisor", "upbit"), ("feed", "upbit")}


def test_the_gaps_of_the_day_are_counted_as_its_file_grows(running: Provider, watcher: Watcher, config: Config, clock: Hands) -> None:
    """From the file and not from the feed, which begins at 0 with each restart; a new day begins at 0."""

    def tell(day: str, *numbers: int, symbol: str | None = None) -> None:
        path = config.data_dir / "system" / "events" / "upbit" / f"{day}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            for number in numbers:
                payload = gap_payload(
                    start_ns=T0 + number * NS, end_ns=T0 + (number + 5) * NS, scope="scalp", reason="mute", session_id=SESSION,
                    provider="upbit", symbol=symbol,
                )  # fmt: skip
                file.write(gap_line(payload, "event", number) + b"\n")

    def told() -> int:
        view = watcher.look()
        return int(status_of(view, judge(view, config.supervisor))["providers"][0]["gaps"])

    clock.ns = int(datetime.fromisoformat("2026-01-22T23:59:00Z").timestamp()) * NS
    running.counters.cell("feed")["gaps"] = 99
    assert told() == 0
    tell("20260122", 0, 100)
    tell("20260123", 0)
    assert told() == 2
    tell("20260122", 0, 200)  # the first a second time
    tell("20260122", 201, symbol="KRW-BTC")  # partly beside it
    assert told() == 4
    tell("20260122", 100_000)
    (config.data_dir / "system" / "events" / "upbit" / "20260122.jsonl").write_bytes(b"")  # a recovery cut it
    assert told() == 0
    clock.ns += 120 * NS
    assert told() == 1


def test_the_next_opening_and_the_level_are_told(tmp_path: Path, running: Provider, clock: Hands) -> None:
    path = tmp_path / "obs.toml"
    host = f'data_dir = "{running.config.data_dir}"\n[ring]\ndir = "{running.config.ring.dir}"\n'
    path.write_text(host + "[providers.kis]\n[providers.upbit]\n")
    running.board["level"].write_json({"level": 2, "ns": 1})
    watcher = Watcher(load(path, environ={}, cwd=tmp_path), clock)
    for moment, opens in (
        ("2026-01-22T00:31:05Z", None),  # 09:31 KST
        ("2026-01-22T09:00:00Z", "2026-01-22T23:30"),
        ("2026-01-23T09:00:00Z", "2026-01-25T23:30"),  # a Friday
    ):
        clock.ns = int(datetime.fromisoformat(moment).timestamp()) * NS
        view = watcher.look()
        kis, upbit = status_of(view, judge(view, running.config.supervisor))["providers"]
        assert (kis["open"], kis["next_open"] and kis["next_open"][:16]) == (opens is None, opens)
        assert (upbit["open"], upbit["next_open"], upbit["mitigation_level"]) == (True, None, 2)
    watcher.close()


def test_lag_is_the_age_of_the_oldest_record(running: Provider, watcher: Watcher, config: Config, clock: Hands) -> None:
    for _ in range(20):
        running.take(1)
        running.publish(1)
        clock.forward(1)
    tick = running.rings["tick"]
    running.durable(tick, "archive", 15)
    running.durable(tick, "load", 20)
    running.beat()
    ring = watcher.look().providers[0].ring["tick"]
    assert (ring.archive_lag_s, ring.load_lag_s) == (5.0, 0.0)
    assert reasons(watcher, config) == []
    clock.forward(5.5)
    running.beat()
    assert reasons(watcher, config) == ["archive_lag"]
    running.durable(tick, "archive", 20)
    assert reasons(watcher, config) == []


def test_a_lapped_sink_lags_by_what_the_ring_still_holds(running: Provider, watcher: Watcher, clock: Hands) -> None:
    for _ in range(CAPACITY * 2):
        running.take(1)
        running.publish(1)
        clock.forward(1)
    ring = watcher.look().providers[0].ring["tick"]
    assert ring.load_lag_s == CAPACITY
    assert ring.used == 2.0


def test_the_ledger_holds_whenever_it_is_read(running: Provider, watcher: Watcher, config: Config) -> None:
    for turn in range(50):
        running.take(1 + turn % 7)
        assert "ledger" not in reasons(watcher, config)
        if turn % 3 == 2:
            pending = int(running.intake.table["pending_trades"].sum())
            running.publish(pending)
            assert "ledger" not in reasons(watcher, config)


def test_inputs_that_reach_no_record_turn_it_red(running: Provider, watcher: Watcher, config: Config, clock: Hands) -> None:
    running.take(100)
    running.publish(100)
    assert reasons(watcher, config) == []
    running.take(97)
    running.publish(1)  # 96 of them are in no record
    assert reasons(watcher, config) == ["ledger"]
    assert reasons(watcher, config) == ["ledger"], "it stays red: the proof of it is past"


def test_messages_without_a_fate_turn_it_red(running: Provider, watcher: Watcher, config: Config) -> None:
    running.intake.head["messages"] += 1
    running.intake.commit()
    assert reasons(watcher, config) == ["ledger"]


def test_more_durable_than_published_turns_it_red(running: Provider, watcher: Watcher, config: Config) -> None:
    running.durable(running.rings["event"], "archive", 7)
    assert reasons(watcher, config) == ["ledger"]


def test_a_new_bucket_begins_a_new_comparison(running: Provider, watcher: Watcher, config: Config) -> None:
    running.take(5)
    running.publish(5)
    watcher.look()
    running.intake.next_bucket(T0)
    running.intake.commit()
    running.take(3)
    running.publish(3)
    assert reasons(watcher, config) == []


def test_rings_of_an_ended_session_are_let_go(running: Provider, watcher: Watcher, config: Config) -> None:
    watcher.look()
    append_end(config.data_dir, "upbit", SESSION, T0 + NS, dict.fromkeys(DTYPES, -1))
    for ring in running.rings.values():
        remove(ring.path)
    watcher.look()
    mapped = {path.name for path in watcher._mapped}
    assert not any(name.endswith(tuple(f"-{ring}" for ring in DTYPES)) for name in mapped), mapped


def test_counters_made_anew_are_mapped_anew(running: Provider, watcher: Watcher, config: Config) -> None:
    assert watcher.look().providers[0].roles["feed"].ready
    Counters(running.counters.block.path, make=True).close()
    assert watcher.look().providers[0].roles == {}


def test_quiet_is_what_its_feed_says(running: Provider, watcher: Watcher, config: Config, clock: Hands) -> None:
    """A monitor that has just begun knows as much as one that has watched all the time."""
    cell = running.counters.cell("feed")
    cell["heard_ns"] = clock.mono_ns()
    watcher.look()
    clock.forward(61)
    running.beat()
    assert reasons(watcher, config) == reasons(Watcher(config, clock), config) == ["mute"]
    assert Watcher(config, clock).look().providers[0].quiet_s == 61.0
    cell["heard_ns"] = clock.mono_ns()
    assert reasons(watcher, config) == []
    cell["heard_ns"] = 0  # of an older version
    assert reasons(watcher, config) == []
