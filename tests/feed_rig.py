"""A feed without its sockets: a real provider, real rings and a real board in a folder, and a clock that tests turn.

`Rig` outlives the feeds that run in it, as shared memory does; `feed()` is what a feed process does at its start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from obs.clock import NS
from obs.providers.base import Context, ProviderOptions
from obs.providers.registry import make_provider
from obs.record.events import event_payload, new_session_id
from obs.record.schema import DTYPES, EVENT_KINDS
from obs.ring import Ring, copy_rows, create_ring, fence
from obs.roles.recorder import Recorder, Rings
from obs.roles.takeover import Debt, OpenSpans, take_over
from obs.sample import Slots
from obs.shm import Board, block_path

T0 = 1_784_000_040 * NS  # a whole minute: 2026-07-14T03:34:00Z, 12:34 in Seoul
CAPACITIES = {"tick": 4096, "event": 1024, "swing": 16, "poll_event": 16, "quarantine": 128}
VENUES = {"kis": ("kr_stocks", "krx", ("trade",)), "upbit": ("crypto", "kr", ("trade", "book"))}
SYMBOLS = {"kis": ["005930", "000660", "Q500001"], "upbit": ["KRW-BTC", "KRW-ETH", "KRW-XRP"]}


def always(start_ns: int, end_ns: int) -> list[tuple[int, int]]:
    """When a venue was open that never closes."""
    return [(start_ns, end_ns)]


@dataclass
class FakeClock:
    wall: int = T0
    mono: int = 10**12

    def wall_ns(self) -> int:
        return self.wall

    def mono_ns(self) -> int:
        return self.mono

    def forward(self, ns: int) -> int:
        self.wall += ns
        self.mono += ns
        return self.wall


@dataclass
class Rig:
    """The shared memory of one provider. `fence`: called between the stores of the board; `open_spans`: see obs.roles.takeover."""

    folder: Path
    venue: str = "kis"
    tape: bool = False
    fence: Callable[[], None] = fence
    open_spans: OpenSpans = always
    capacities: dict[str, int] = field(default_factory=lambda: dict(CAPACITIES))

    def __post_init__(self) -> None:
        self.shm, self.data = self.folder / "shm", self.folder / "data"
        self.shm.mkdir(exist_ok=True)
        self.data.mkdir(exist_ok=True)
        self.clock = FakeClock()
        market, venue, channels = VENUES[self.venue]
        self.market, self.symbols = market, SYMBOLS[self.venue]
        options = ProviderOptions(self.venue, market, venue, channels, 41, "http://127.0.0.1:1", "ws://127.0.0.1:1")
        self.provider = make_provider(self.venue, options)
        self.board = Board.create(Board.path(self.shm, self.data, self.venue), self.fence)
        self.sessions: dict[str, dict[str, Ring]] = {}
        self.recorder: Recorder
        self.begin_session()

    def begin_session(self) -> None:
        while (session_id := new_session_id(self.venue, self.clock.wall)) in self.sessions:
            pass
        self.session_id = session_id
        self.rings = self.sessions[self.session_id] = {}
        for name, dtype in DTYPES.items():
            path = block_path(self.shm, self.data, self.session_id, name)
            self.rings[name] = create_ring(path, dtype, self.capacities[name], self.session_id, name, self.clock.wall)

    def make_recorder(self) -> Recorder:
        slots = Slots(self.symbols, self.market, VENUES[self.venue][1])
        rings = Rings(self.rings["tick"], self.rings["event"], self.rings["quarantine"])
        self.recorder = Recorder(self.provider, slots, rings, self.board, self.clock, self.venue, self.tape)
        return self.recorder

    def feed(self) -> Debt | None:
        """Begin the life of a feed; return what the one before it owed."""
        self.make_recorder()
        return take_over(self.recorder, self.shm, self.data, self.open_spans)

    def context(self) -> Context:
        return self.provider.context(self.symbols)

    def close(self) -> None:
        for rings in self.sessions.values():
            for ring in rings.values():
                ring.close()
        self.board.close()

    # --- what a reader of the rings finds

    def rows(self, name: str) -> np.ndarray:
        """All rows that the rings of this name hold, in the order of their sessions."""
        parts = [copy_rows(rings[name], rings[name].oldest, rings[name].published - rings[name].oldest) for rings in self.sessions.values()]
        return np.concatenate(parts)

    def events(self, kind: str) -> list[dict[str, Any]]:
        rows = self.rows("event")
        return [event_payload(row) | {"ts_ns": int(row["ts_ns"])} for row in rows if EVENT_KINDS[row["kind"]] == kind]

    def kinds(self) -> list[str]:
        return [EVENT_KINDS[row["kind"]] for row in self.rows("event")]

    def gaps(self, reason: str = "") -> list[dict[str, Any]]:
        return [gap for gap in self.events("gap_marker") if reason in ("", gap["reason"])]


@dataclass
class Sums:
    """The counts of one minute and symbol, over its buckets."""

    inputs: int = 0
    trades: int = 0
    quotes: int = 0
    lost: int = 0
    ignored: Counter[str] = field(default_factory=Counter)


def counted(events: Sequence[dict[str, Any]]) -> tuple[dict[tuple[int, str], Sums], dict[str, int]]:
    """Add up counts events as a reader must: each (session, n, symbol) once. Return by (minute, symbol), and of the provider."""
    once: dict[Any, dict[str, Any]] = {}
    for event in events:
        key = (event["of_session"], event["n"], event["symbol"])
        plain = {name: value for name, value in event.items() if name != "ts_ns" and not name.startswith("lost")}
        earlier = once.get(key)
        if earlier is not None:
            assert {name: earlier[name] for name in plain} == plain, "a bucket told twice must say the same"
        if earlier is None or "lost_trades" in event or "lost_quarantined" in event:
            once[key] = (earlier or {}) | event
    sums: dict[tuple[int, str], Sums] = {}
    provider: dict[str, int] = dict.fromkeys(("messages", "data", "control", "quarantined", "lost_quarantined"), 0)
    for event in once.values():
        if event["symbol"] is None:
            for name in provider:
                provider[name] += event.get(name, 0)
            of_bucket = [key for key in once if key[:2] == (event["of_session"], event["n"]) and key[2] is not None]
            assert event["symbols"] == len(of_bucket)
            continue
        one = sums.setdefault((event["minute_ns"], event["symbol"]), Sums())
        assert event["inputs"] == event["trades"] + event["quotes"] + sum(event["ignored"].values())
        one.inputs += event["inputs"]
        one.trades += event["trades"]
        one.quotes += event["quotes"]
        one.lost += event.get("lost_trades", 0) + event.get("lost_quotes", 0)
        one.ignored.update(event["ignored"])
    assert provider["messages"] == provider["data"] + provider["control"] + provider["quarantined"]
    return sums, provider


def restart_lost(gaps: Sequence[dict[str, Any]]) -> int:
    """Restart gaps with the same start are one gap, the longest."""
    longest: dict[int, dict[str, Any]] = {}
    for gap in gaps:
        known = longest.get(gap["gap_start_ns"])
        if known is None or gap["gap_end_ns"] >= known["gap_end_ns"]:
            longest[gap["gap_start_ns"]] = gap
    return sum(gap["lost"] or 0 for gap in longest.values())


class KisTrades:
    """Trade messages of one KIS connection: accumulated volumes that add up, whatever is asked for."""

    def __init__(self, symbols: Sequence[str] = tuple(SYMBOLS["kis"])) -> None:
        self.acc = dict.fromkeys(symbols, 1000)

    def record(self, symbol: str, size: int = 5, price: int = 71_500, skip: int = 0) -> str:
        self.acc[symbol] = self.acc.get(symbol, 0) + size + skip
        head = f"{symbol} 123400 {price} 2 500 0.70 71320.15 71100 71900 70800 71600 71500 {size} {self.acc[symbol]} 85890123450 4100"
        rest = "5200 1100 112.40 500123 600321 1 0.54 35.20 090012 2 400 091500 5 -400 090301 2 700 20260714 20 N 812 3301 120345"
        return "^".join(f"{head} {rest} 98012 0.02 1100000 109.48 0 - 71000".split(" ")).replace("^-^", "^^")

    def message(self, *records: str) -> bytes:
        return f"0|H0STCNT0|{len(records):03d}|{'^'.join(records)}".encode()

    def trade(self, symbol: str, **how: int) -> bytes:
        return self.message(self.record(symbol, **how))


KIS_ACK = orjson.dumps(
    {
        "header": {"tr_id": "H0STCNT0", "tr_key": "005930", "encrypt": "N"},
        "body": {"rt_cd": "0", "msg_cd": "OPSP0000", "msg1": "SUBSCRIBE SUCCESS"},
    }
)


def upbit_trade(code: str, number: int, price: float = 100.0, size: float = 0.5) -> bytes:
    message = {
        "type": "trade", "code": code, "timestamp": T0 // 10**6, "trade_date": "2026-07-14", "trade_time": "03:34:00",
        "trade_timestamp": T0 // 10**6, "trade_price": price, "trade_volume": size, "ask_bid": "BID", "prev_closing_price": 99.0,
        "sequential_id": number, "stream_type": "REALTIME",
    }  # fmt: skip
    return orjson.dumps(message)


def upbit_book(code: str, bid: float, ask: float) -> bytes:
    unit = {"ask_price": ask, "bid_price": bid, "ask_size": 1.5, "bid_size": 2.5}
    message = {"type": "orderbook", "code": code, "timestamp": T0 // 10**6, "orderbook_units": [unit], "stream_type": "REALTIME"}
    return orjson.dumps(message | {"level": 0})
