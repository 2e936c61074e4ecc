"""The sampler once more, row by row and value by value: slow, and plain enough to be believed. Tests compare the two."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np

from obs.record.schema import FLAGS, HAS_QUOTE, INPUT_QUOTE, INPUT_TRADE, KINDS, MARKETS, PHASES, QUALITIES, TICK, VENUES

NAN = math.nan
AUCTIONS = ("pre_open", "closing", "expected", "after_hours")
QUOTED = ("bid_price", "ask_price", "bid_size", "ask_size")


def known(value: float) -> bool:
    return value == value


@dataclass
class Slot:
    """What is known of one symbol."""

    last: dict[str, Any] = field(default_factory=dict)
    open: float = NAN
    high: float = NAN
    low: float = NAN
    sizes: list[float] = field(default_factory=list)
    trades: int = 0
    quotes: int = 0
    seen: bool = False
    after_gap: bool = False
    base: float = NAN
    price_before: float = NAN
    event_before: int = 0
    volumes: list[float] = field(default_factory=list)  # of records with trades, for the usual volume


class PlainSampler:
    def __init__(self, symbols: list[str], market: str, venue: str) -> None:
        self.symbols, self.market, self.venue = symbols, market, venue
        self.slots = {row: Slot() for row in range(1, len(symbols) + 1)}
        for slot in self.slots.values():
            slot.last = dict.fromkeys((*QUOTED, "last_price", "acc_volume"), NAN)
            slot.last |= {"event_ns": 0, "recv_ns": 0, "side": 0, "phase": 0, "venue_seq": -1}

    def fold(self, inputs: np.ndarray) -> None:
        for one in inputs:
            slot = self.slots[int(one["row"])]
            self._learn(slot, one)
            if one["kind"] == INPUT_TRADE:
                slot.trades += 1
                slot.last["side"] = int(one["side"])
                price = float(one["price"])
                if known(price):
                    slot.open = price if not known(slot.open) else slot.open
                    slot.high = price if not known(slot.high) else max(slot.high, price)
                    slot.low = price if not known(slot.low) else min(slot.low, price)
                if known(one["size"]):
                    slot.sizes.append(float(one["size"]))
            else:
                slot.quotes += 1

    @staticmethod
    def _learn(slot: Slot, one: np.void) -> None:
        last = slot.last
        slot.seen = True
        last["event_ns"], last["recv_ns"] = int(one["event_ns"]), int(one["recv_ns"])
        if one["phase"]:
            last["phase"] = int(one["phase"])
        if known(one["acc_volume"]):
            last["acc_volume"] = float(one["acc_volume"])
        if one["venue_seq"] != -1:
            last["venue_seq"] = int(one["venue_seq"])
        if known(one["price"]):
            last["last_price"] = float(one["price"])
        if known(one["base_price"]):
            slot.base = float(one["base_price"])
        if one["kind"] == INPUT_QUOTE or one["flags"] & HAS_QUOTE:
            for name in QUOTED:
                last[name] = float(one[name])

    def emit(self, ts_ns: int, level: int, rows: list[int]) -> list[dict[str, Any]]:
        records = []
        for row in rows:
            slot = self.slots[row]
            record = dict(slot.last) | {
                "ts_ns": ts_ns, "kind": KINDS.index("sample"), "volume": self.total(slot.sizes), "open": slot.open, "high": slot.high,
                "low": slot.low, "trades": slot.trades, "quotes": slot.quotes,
            }  # fmt: skip
            records.append(self._finish(row, record, level))
            slot.open = slot.high = slot.low = NAN
            slot.sizes, slot.trades, slot.quotes = [], 0, 0
        return records

    def tape(self, inputs: np.ndarray, level: int) -> list[dict[str, Any]]:
        records = []
        for one in inputs:
            slot = self.slots[int(one["row"])]
            self._learn(slot, one)
            trade = one["kind"] == INPUT_TRADE
            price = float(one["price"]) if trade else NAN
            record = dict(slot.last) | {
                "ts_ns": int(one["recv_ns"]), "kind": KINDS.index("trade" if trade else "quote"),
                "open": price, "high": price, "low": price, "volume": float(one["size"]) if trade and known(one["size"]) else 0.0,
                "trades": int(trade), "quotes": int(not trade),
                "side": int(one["side"]) if trade else 0, "venue_seq": int(one["venue_seq"]),
            }  # fmt: skip
            records.append(self._finish(int(one["row"]), record, level))
        return records

    def _finish(self, row: int, record: dict[str, Any], level: int) -> dict[str, Any]:
        slot = self.slots[row]
        record |= {
            "seq": 0, "symbol": self.symbols[row - 1].encode(), "market": MARKETS.index(self.market),
            "venue": VENUES.index(self.venue), "mitigation_level": level, "flags": self.flags(slot, record),
        }  # fmt: skip
        record["quality"] = QUALITIES.index("gap" if slot.after_gap else "degraded" if record["flags"] else "normal")
        slot.after_gap = False
        slot.price_before = record["last_price"]
        slot.event_before = max(slot.event_before, record["event_ns"])
        if record["trades"]:
            slot.volumes.append(record["volume"])
        return record

    @staticmethod
    def flags(slot: Slot, record: dict[str, Any]) -> int:
        """NaN compares false with everything, which is what "unknown" must do here."""
        last, bid, ask, volume = (record[name] for name in ("last_price", "bid_price", "ask_price", "volume"))
        event, recv = record["event_ns"], record["recv_ns"]
        traded = record["trades"] > 0
        fired = {
            "price_limit": traded and abs(last - slot.base) > 0.3 * slot.base,
            "price_jump": traded and abs(last - slot.price_before) > 0.05 * slot.price_before,
            "volume_spike": volume > 10 * usual(slot.volumes),
            "time_backwards": event != 0 and event < slot.event_before,
            "time_ahead": event != 0 and event > recv + 5 * 10**9,
            "time_behind": event != 0 and event < recv - 86_400 * 10**9,
            "crossed": bid > ask and PHASES[record["phase"]] not in AUCTIONS,
            "bad_range": last <= 0 or bid <= 0 or ask <= 0 or volume < 0 or record["bid_size"] < 0 or record["ask_size"] < 0,
            "ohlc_order": record["high"] < record["low"] or record["open"] > record["high"] or record["open"] < record["low"],
        }
        return sum(1 << FLAGS.index(name) for name, hit in fired.items() if hit)

    def disconnected(self, rows: list[int]) -> None:
        for row in rows:
            slot = self.slots[row]
            slot.last |= dict.fromkeys(QUOTED, NAN)
            slot.seen, slot.after_gap = False, True

    def occupied(self) -> list[int]:
        return [row for row, slot in self.slots.items() if slot.seen]

    def pending(self) -> list[int]:
        return [row for row, slot in self.slots.items() if slot.trades + slot.quotes]

    @staticmethod
    def total(sizes: list[float]) -> float:
        """The sum of the decimals that the sizes came as."""
        return float(sum((Decimal(repr(size)) for size in sizes), Decimal(0)))


def usual(volumes: list[float]) -> float:
    """A moving mean, unknown until 20 records with trades."""
    if len(volumes) < 20:
        return NAN
    mean = volumes[0]
    for volume in volumes[1:]:
        mean = mean + (1 / 120) * (volume - mean)
    return mean


def plain(records: np.ndarray) -> list[dict[str, Any]]:
    """TICK rows as plain values."""
    names = [name for name in TICK.names or () if not name.startswith("pad")]
    return [{name: record[name].item() for name in names} for record in records]


def same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Assert equality to the last bit of every number; NaN equals NaN."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert {name: repr(one[name]) for name in sorted(one)} == {name: repr(other[name]) for name in sorted(other)}
