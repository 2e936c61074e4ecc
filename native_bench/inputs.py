"""What the rows are measured on: frames as the simulated venues send them, captured ones through OBS_RECORDINGS, and records.

Everything is seeded: two sides, and two runs, see the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from obs.clock import NS
from obs.config.demo import KIS_SYMBOLS, UPBIT_SYMBOLS
from obs.providers.base import Provider, ProviderOptions
from obs.providers.registry import make_provider
from obs.record.schema import MARKETS, NO_SEQ, PHASES, TICK, VENUES
from obs.sim.build import build_exchange
from obs.sim.kis import KisExchange
from obs.sim.market import BOOK, TICKER, TRADE, Stream
from obs.sim.options import SimOptions
from obs.sim.upbit import UpbitExchange

START_NS: Final = 1_784_000_040 * NS  # a whole minute
SESSION: Final = "sess_20260714_033400_bench_0000"
RECORDINGS: Final = "OBS_RECORDINGS"


def provider_of(venue: str, channels: tuple[str, ...]) -> Provider:
    market, place = {"kis": ("kr_stocks", "krx"), "upbit": ("crypto", "kr")}[venue]
    return make_provider(venue, ProviderOptions(venue, market, place, channels, 41, "http://127.0.0.1:1", "ws://127.0.0.1:1"))


def recordings() -> Path | None:
    """Return the folder of captured frames, None if OBS_RECORDINGS names none."""
    folder = os.environ.get(RECORDINGS)
    return Path(folder) if folder and Path(folder).is_dir() else None


def kis_frames(count: int, records: int, symbols: Sequence[str] = KIS_SYMBOLS) -> list[bytes]:
    """Return trade messages of `records` records each, symbols in turn, as the simulated KIS sends them."""
    exchange = build_exchange(SimOptions("kis"))
    assert isinstance(exchange, KisExchange)
    group = ("H0STCNT0", "krx")
    streams = [Stream((group[0], code), TRADE, exchange.symbol(group[1], code)) for code in symbols]
    now_ns = START_NS
    frames = []
    for place in range(count):
        stream = streams[place % len(streams)]
        now_ns += 10_000_000
        frames += [message.payload for _, messages in exchange.encode(stream, records, now_ns) for message in messages]
    return frames


def upbit_frames(count: int, kinds: Sequence[str], form: str = "DEFAULT", symbols: Sequence[str] = UPBIT_SYMBOLS) -> list[bytes]:
    """Return messages of these kinds in turn, as the simulated Upbit sends them; books have 15 levels."""
    exchange = build_exchange(SimOptions("upbit"))
    assert isinstance(exchange, UpbitExchange)
    way = (form, 15, 0)
    streams = [Stream((kind, code), kind, exchange.symbol("crypto", code)) for code in symbols for kind in kinds]
    for stream in streams:
        stream.subs[None] = way
    now_ns = START_NS
    frames = []
    for place in range(count):
        now_ns += 10_000_000
        frames += [message.payload for _, messages in exchange.encode(streams[place % len(streams)], 1, now_ns) for message in messages]
    return frames


def recorded_kis() -> list[bytes]:
    """Return the captured domestic trade messages, whose symbols are 005930 and 000660; empty without recordings."""
    folder = recordings()
    return [] if folder is None else _lines(folder / "kis" / "ws_krx_trade.txt")


def recorded_upbit() -> list[bytes]:
    """Return the captured SIMPLE frames of a live socket; empty without recordings."""
    folder = recordings()
    return [] if folder is None else [line.split(b"\t", 1)[1] for line in _lines(folder / "upbit" / "ws_simple_2021-04-17.tsv")]


def _lines(path: Path) -> list[bytes]:
    return [line for line in path.read_bytes().split(b"\n") if line] if path.exists() else []


def tick_rows(count: int, symbols: int = 41) -> np.ndarray:
    """Return records as two samples a second of `symbols` shares give them: dtype TICK, seq from 0."""
    rng = np.random.default_rng(20260714)
    rows = np.zeros(count, TICK)
    place = np.arange(count)
    rows["seq"] = place
    rows["ts_ns"] = START_NS + (place // symbols + 1) * (NS // 2)
    rows["recv_ns"] = rows["ts_ns"] - rng.integers(1, NS // 2, count)
    rows["event_ns"] = rows["recv_ns"] // NS * NS
    rows["symbol"] = np.array([b"%06d" % (10 * k) for k in range(symbols)])[place % symbols]
    rows["market"], rows["venue"], rows["phase"] = MARKETS.index("kr_stocks"), VENUES.index("krx"), PHASES.index("regular")
    rows["side"] = rng.integers(0, 3, count)
    price = 50_000 + place % symbols * 1000 + rng.integers(-10, 11, count) * 50
    for name, away in (("last_price", 0), ("open", 0), ("high", 50), ("low", -50), ("bid_price", -50), ("ask_price", 50)):
        rows[name] = price + away
    for name in ("bid_size", "ask_size"):
        rows[name] = rng.integers(1, 5000, count)
    rows["volume"], rows["trades"], rows["acc_volume"] = rng.integers(0, 500, count), rng.integers(0, 9, count), 1_000_000 + place * 7
    quiet = rows["trades"] == 0
    for name in ("open", "high", "low"):
        rows[name][quiet] = np.nan
    rows["volume"][quiet] = 0.0
    rows["flags"] = np.where(rng.random(count) < 0.01, 2, 0)
    rows["quality"] = rows["flags"] != 0
    rows["venue_seq"] = NO_SEQ
    return rows


__all__ = [
    "BOOK", "RECORDINGS", "SESSION", "START_NS", "TICKER", "TRADE", "kis_frames", "provider_of", "recorded_kis", "recorded_upbit",
    "recordings", "tick_rows", "upbit_frames",
]  # fmt: skip
