"""Slots that move while a feed runs: a real feed process, a simulated venue behind a real WebSocket, and the board in our hands.

Everything is judged from what others hold: the venue's own log of what it sent, and the rings. Without a fault every input that the
venue sent is counted for its symbol, in a record or as ignored, also of a symbol that is on its way out.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from feed_rig import counted, restart_lost

from obs.clock import SYSTEM
from obs.config.load import load
from obs.config.process import ProcessSpec, SessionSpec, children_lock_path
from obs.record.events import event_payload, new_session_id
from obs.record.schema import DTYPES, EVENT_KINDS
from obs.ring import Ring, copy_rows, create_ring, fence
from obs.shm import Board, Counters, block_path
from obs.sim.symbols import crypto_pairs
from obs.supervisor.child import module_command

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CAPACITIES = {"tick": 1 << 17, "event": 1 << 14, "swing": 16, "poll_event": 16, "quarantine": 128}
KEYS = 6  # app keys of KIS, each with a connection of its own: 41 registrations, 20 messages a second
UPBIT_SLOTS = 60
UNIVERSE = {"kis": [f"{number:06d}" for number in range(100_000, 100_600)], "upbit": list(crypto_pairs())}
RATE = 300.0
DEADLINE_S = 60.0


def until(what: str, condition: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
    """Return the first true value of `condition`; AssertionError after `deadline_s`."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.01)
    return value


class Floor:
    """A venue, the shared memory of one provider, and the feeds that live in it, one after the other."""

    def __init__(self, folder: Path, venue: str, mode: str, *sim: str, keys: int = KEYS) -> None:
        self.folder, self.venue, self.data = folder, venue, folder / "data"
        self.shm = Path(tempfile.mkdtemp(prefix="obs-test-", dir="/dev/shm"))
        self.sent_path = folder / "sim.jsonl"
        words = ["--source", "numbered", "--rate", str(RATE), "--log", str(self.sent_path), *sim]
        words += ["--zombie-s", "0", "--approval-spacing-s", "0"]
        keys = keys if venue == "kis" else 0
        channels = ["trade"] if mode == "tape" else ["trade", "book"]
        each = 41 // len(channels) if keys else UPBIT_SLOTS
        self.slots = each * max(1, keys)
        command = [*module_command("obs.sim"), venue, *words, "--die-with-parent"]
        self.sim = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=ROOT)
        assert self.sim.stdout is not None
        self.port = int(orjson.loads(self.sim.stdout.readline())["port"])
        self.environ = {f"K{number}_APP_{what}": f"{what}{number}" * 6 for number in range(keys) for what in ("KEY", "SECRET")}
        section = {
            "rest_url": f"http://127.0.0.1:{self.port}", "ws_url": f"ws://127.0.0.1:{self.port}", "hours": "always", "mode": mode,
            "credentials": [f"K{number}" for number in range(keys)], "channels": channels,
            "slots": each,
        }  # fmt: skip
        tables = {f"providers.{venue}": section, "ring": {"dir": str(self.shm)}}
        config = folder / "obs.toml"
        config.write_text("".join(f"[{n}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in t.items()) for n, t in tables.items()))
        self.config = load(config, data=self.data, environ={})
        children_lock_path(self.data, venue).parent.mkdir(parents=True)
        counters = Counters.path(self.shm, self.data, venue)
        self.counters = Counters(counters, make=True)
        self.counters.add("feed")
        self.cell = self.counters.cell("feed")
        self.board = Board.create(Board.path(self.shm, self.data, venue), fence)
        session_id, self.rings = new_session_id(venue, SYSTEM.wall_ns()), {}
        paths = {name: block_path(self.shm, self.data, session_id, name) for name in DTYPES}
        for name, dtype in DTYPES.items():
            self.rings[name]: Ring = create_ring(paths[name], dtype, CAPACITIES[name], session_id, name, SYSTEM.wall_ns())
        self.spec = ProcessSpec(
            "feed", venue, self.config, counters, os.getpid(), self.config.provider(venue),
            SessionSpec(session_id, SYSTEM.wall_ns(), paths), Board.path(self.shm, self.data, venue),
        )  # fmt: skip
        self.feed: subprocess.Popen[bytes] | None = None
        self.version = 0
        self.wanted: list[str] = []

    # --- processes

    def start(self) -> None:
        with (self.folder / "feed.log").open("ab") as log:
            environ = os.environ | self.environ
            self.feed = subprocess.Popen(module_command("obs.supervisor.child"), stdin=subprocess.PIPE, stderr=log, cwd=ROOT, env=environ)
        assert self.feed.stdin is not None
        self.feed.stdin.write(pickle.dumps(self.spec))
        self.feed.stdin.close()
        pid = self.feed.pid
        until("the feed is at work", lambda: self.alive() and int(self.cell["pid"]) == pid and self.cell["ready"])

    def alive(self) -> bool:
        assert self.feed is not None
        assert self.feed.poll() is None, (self.folder / "feed.log").read_text()[-3000:]
        return True

    def kill(self) -> None:
        assert self.feed is not None
        self.feed.kill()
        self.feed.wait()
        self.cell["ready"] = 0

    def stop(self) -> None:
        """End everything in order, with nothing on its way."""
        self.do("burst", x=1e-9, s=1000)
        until("all that was sent is counted", lambda: self.alive() and self._quiet())
        assert self.feed is not None
        self.feed.send_signal(signal.SIGTERM)
        assert self.feed.wait(20) == 0, (self.folder / "feed.log").read_text()[-3000:]

    def _quiet(self) -> bool:
        before = (int(self.cell["messages"]), self.sent_path.stat().st_size)
        told = int(self.cell["progress"])
        until("the feed tells its figures twice", lambda: self.alive() and int(self.cell["progress"]) >= told + 2)
        return before == (int(self.cell["messages"]), self.sent_path.stat().st_size)

    def do(self, what: str, **how: Any) -> None:
        body = orjson.dumps({"do": what, **how})
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/sim/do", body, {"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=5) as answer:
            assert answer.status == 200

    def close(self) -> None:
        for process in (self.feed, self.sim):
            if process is not None:
                process.kill()
                process.wait()
        assert self.sim.stdout is not None
        self.sim.stdout.close()
        for ring in self.rings.values():
            ring.close()
        self.board.close()
        self.counters.close()
        for path in sorted(self.shm.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        self.shm.rmdir()

    # --- the board

    def want(self, symbols: list[str]) -> None:
        self.version += 1
        self.wanted = symbols
        self.board["wanted"].write_json({"symbols": symbols, "ns": SYSTEM.wall_ns(), "version": self.version})

    def actual(self) -> dict[str, Any]:
        value: dict[str, Any] = self.board["actual"].read_json() or {}
        return value

    def obeyed(self) -> bool:
        return self.alive() and self.actual().get("version") == self.version

    def confirmed(self) -> bool:
        """Whether the feed has exactly what is wanted."""
        return self.obeyed() and self.actual()["slots"] == dict.fromkeys(self.wanted, "confirmed")

    def others(self, rng: random.Random, count: int) -> list[str]:
        """What is wanted, with so many symbols of it swapped for others, at their places."""
        symbols, free = list(self.wanted), [symbol for symbol in UNIVERSE[self.venue] if symbol not in self.wanted]
        for place, symbol in zip(rng.sample(range(len(symbols)), count), rng.sample(free, count), strict=True):
            symbols[place] = symbol
        return symbols

    # --- what was sent, and what became of it

    def sent(self) -> list[dict[str, Any]]:
        lines = [orjson.loads(line) for line in self.sent_path.read_bytes().splitlines()]
        return [line for line in lines if "do" not in line]

    def done(self, what: str) -> list[dict[str, Any]]:
        lines = [orjson.loads(line) for line in self.sent_path.read_bytes().splitlines()]
        return [line for line in lines if line.get("do") == what]

    def rows(self, name: str) -> np.ndarray:
        ring = self.rings[name]
        assert ring.oldest == 0, "the ring is too small for this test"
        return copy_rows(ring, 0, ring.published)

    def events(self, kind: str) -> list[dict[str, Any]]:
        found = [(row, event_payload(row)) for row in self.rows("event") if EVENT_KINDS[row["kind"]] == kind]
        return [payload | {"of": row["symbol"].decode()} for row, payload in found]

    def judge(self) -> Counter[str]:
        """Assert that every record and every count is of the symbol that it names; return what was sent and never counted."""
        records: Counter[str] = Counter()
        for row in self.rows("tick"):
            records[row["symbol"].decode()] += int(row["trades"]) + int(row["quotes"])
        sums, _ = counted(self.events("counts"))
        folded: Counter[str] = Counter()
        inputs: Counter[str] = Counter()
        ignored: Counter[str] = Counter()
        for (_, symbol), one in sums.items():
            folded[symbol] += one.trades + one.quotes - one.lost
            inputs[symbol] += one.inputs
            ignored.update(one.ignored)
        assert +records == +folded
        assert restart_lost([gap for gap in self.events("gap_marker") if gap["reason"] == "restart"]) == sum(s.lost for s in sums.values())
        assert set(ignored) <= {"unsubscribed", "snapshot"}, ignored
        sent = Counter(line["symbol"] for line in self.sent())
        assert not inputs - sent, "counted for a symbol that sent less"
        return sent - inputs


@pytest.fixture
def floor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Floor]:
    made = Floor(tmp_path, *request.param)
    yield made
    made.close()


def begin(floor: Floor) -> None:
    floor.want(UNIVERSE[floor.venue][: floor.slots])
    until("everything is subscribed", floor.confirmed)


def swap(floor: Floor, rng: random.Random, swaps: int, most: int) -> None:
    """Let so many symbols be swapped, up to `most` at once; every third time without waiting for the end of the time before."""
    while swaps > 0:
        count = min(swaps, rng.randint(max(1, most // 4), most))
        floor.want(floor.others(rng, count))
        swaps -= count
        until("it has been seen", floor.obeyed)
        if rng.random() < 0.67:
            until("the swap is done", floor.confirmed)
    until("all swaps are done", floor.confirmed)


@pytest.mark.parametrize("floor", [("kis", "tape"), ("upbit", "tape")], indirect=True, ids="-".join)
def test_a_thousand_swaps(floor: Floor) -> None:
    """Nothing is lost, nothing is counted for another symbol, the venue never refuses a registration, and it sends what is wanted."""
    rng = random.Random(41)
    floor.start()
    waiting = until("the board says that it waits", floor.board["link"].read_json)
    assert all(link["waiting"] and not link["connected"] for link in waiting)
    assert floor.actual()["capacity"] == floor.slots
    begin(floor)
    swap(floor, rng, 1000, most=floor.slots * 3 // 4)
    last = len(floor.sent())
    until("more is sent", lambda: len(floor.sent()) > last + RATE)
    assert {line["symbol"] for line in floor.sent()[last:]} <= set(floor.wanted)
    floor.stop()
    assert floor.judge() == Counter(), "sent, and not counted"
    assert floor.done("reply") == [line for line in floor.done("reply") if line["code"] == "OPSP0001"], "the venue refused"
    assert not floor.done("error")
    assert not floor.events("gap_marker")
    moves = floor.events("slot")
    last_move = {event["of"]: event["what"] for event in moves}
    assert sorted(symbol for symbol, what in last_move.items() if what == "allocate_confirmed") == sorted(floor.wanted)
    told = Counter(event["what"] for event in moves)
    assert told.keys() == {"allocate_confirmed", "release_confirmed"}
    assert min(told.values()) > 700, "most were confirmed before they were swapped again"
    assert all(0 <= event["seconds"] < 30 for event in moves)
    assert int(floor.cell["reconnects"]) == 0


@pytest.mark.parametrize("floor", [("kis", "sample"), ("upbit", "sample"), ("upbit", "tape")], indirect=True, ids="-".join)
def test_killed_and_cut_in_the_middle(floor: Floor) -> None:
    """A feed that dies in a swap, and a connection that is cut in one, end in what is wanted; all that was missed lies in a gap."""
    rng = random.Random(42)
    floor.start()
    begin(floor)
    many = floor.slots // 2
    for turn in range(2):
        swap(floor, rng, 10, most=10)
        floor.want(floor.others(rng, many))
        until("it has been seen", floor.obeyed)
        until("some of it is done", lambda: sum(1 for symbol in floor.wanted if floor.actual()["slots"].get(symbol) == "confirmed") > many)
        if turn % 2:
            floor.do("drop")
        else:
            floor.kill()
            floor.want(floor.others(rng, 3))  # while nobody looks
            floor.start()
        until("what is wanted is subscribed", floor.confirmed)
    floor.stop()
    missing = floor.judge()
    gaps = [gap for gap in floor.events("gap_marker") if gap["reason"] in ("restart", "ws_disconnect")]
    assert len([gap for gap in gaps if gap["reason"] == "restart"]) == 1
    early = 250_000_000  # what was on its way when the last message came
    for symbol, count in missing.items():
        spans = [(gap["gap_start_ns"], gap["gap_end_ns"]) for gap in gaps if gap["symbol"] in (None, symbol)]
        times = [line["t_ns"] for line in floor.sent() if line["symbol"] == symbol]
        inside = sum(1 for t in times if any(start - early <= t <= end for start, end in spans))
        assert count <= inside, f"{symbol}: {count} inputs were not counted, {inside} of those sent lie in a gap"
    assert not [line for line in floor.done("reply") if line["code"] == "OPSP0008"]




def test_a_limit_that_the_venue_shows(tmp_path: Path) -> None:
    """The venue takes 30 of 41: the feed learns it, says so, and carries the first 30 that are wanted, whatever is swapped."""
    floor = Floor(tmp_path, "kis", "tape", "--slots", "30", keys=1)
    rng = random.Random(43)
    try:
        floor.start()
        floor.want(UNIVERSE["kis"][:50])
        for _ in range(3):
            fit = floor.wanted[:30]
            until("the first of them are in", lambda: floor.obeyed() and floor.actual()["slots"] == dict.fromkeys(fit, "confirmed"))  # noqa: B023
            assert floor.actual()["capacity"] == 30
            floor.want(floor.others(rng, 20))
        until("the swap is done", lambda: floor.actual()["slots"] == dict.fromkeys(floor.wanted[:30], "confirmed"))
        floor.stop()
        assert floor.judge() == Counter()
        refused = [line for line in floor.done("reply") if line["code"] == "OPSP0008"]
        assert 1 <= len(refused) <= 11, "asked again and again"
        assert [event["what"] for event in floor.events("slot")].count("limit") == len(refused)
        assert not floor.events("gap_marker"), "who is not in has lost nothing"
    finally:
        floor.close()


def test_a_level_is_obeyed_before_its_old_interval_ends(tmp_path: Path) -> None:
    """Back from one record in two seconds: the first of the finer grid comes before the interval of the old one would have ended."""
    floor = Floor(tmp_path, "upbit", "sample")
    try:
        floor.start()
        begin(floor)
        floor.board["level"].write_json({"level": 2, "ns": SYSTEM.wall_ns()})
        step_ns = 2_000_000_000

        def last() -> int:
            rows = floor.rows("tick")
            return int(rows["ts_ns"][-1]) if len(rows) and rows["mitigation_level"][-1] == 2 else 0

        known = until("records of level 2", last)
        whole = until("another, on its grid", lambda: at if (at := last()) > known and at % step_ns == 0 else 0)
        floor.board["level"].write_json({"level": 0, "ns": SYSTEM.wall_ns()})

        def first() -> int:
            rows = floor.rows("tick")
            later = rows["ts_ns"][(rows["mitigation_level"] == 0) & (rows["ts_ns"] > whole)]
            return int(later[0]) if len(later) else 0

        assert until("records of level 0", first) < whole + step_ns
    finally:
        floor.close()
