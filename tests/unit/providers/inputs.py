"""Rows of INPUT as plain values, to compare with what a decoder wrote."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from obs.providers.base import MAX_INPUTS_PER_MESSAGE, Fault, Provider
from obs.record.schema import HAS_QUOTE, IGNORED, INPUT, INPUT_QUOTE, INPUT_TICKER, INPUT_TRADE, NO_SEQ, NO_TIME, PHASES, SIDES

RECV_NS = 1_784_000_000_123_456_789  # 2026-07-14T03:33:20Z, 12:33:20 KST
NUMBERS = ("price", "size", "bid_price", "ask_price", "bid_size", "ask_size", "acc_volume", "base_price")
KINDS = {"trade": INPUT_TRADE, "quote": INPUT_QUOTE, "ticker": INPUT_TICKER}


def row(kind: str, symbol: str, place: int, **known: Any) -> dict[str, Any]:
    """Return one row as plain values: what is not named is unknown."""
    unknown: dict[str, Any] = dict.fromkeys(NUMBERS, math.nan)
    unknown |= {
        "recv_ns": RECV_NS,
        "event_ns": NO_TIME,
        "symbol": symbol.encode(),
        "row": place,
        "kind": KINDS[kind],
        "ignore": 0,
        "side": 0,
    }
    unknown |= {"phase": 0, "flags": 0, "venue_seq": NO_SEQ, "acc_day": 0}
    if "ignore" in known:
        known["ignore"] = IGNORED.index(known["ignore"])
    if "side" in known:
        known["side"] = SIDES.index(known["side"])
    if "phase" in known:
        known["phase"] = PHASES.index(known["phase"])
    if known.pop("quoted", False):
        known["flags"] = HAS_QUOTE
    assert known.keys() <= unknown.keys(), known.keys() - unknown.keys()
    return unknown | known


def decoded(provider: Provider, ctx: Any, payload: bytes, recv_ns: int = RECV_NS) -> tuple[list[dict[str, Any]], list[Fault]]:
    """Decode into the middle of a fresh array and return rows as plain values; checks that nothing before them was touched."""
    out = np.zeros(MAX_INPUTS_PER_MESSAGE + 3, INPUT)
    count, faults = provider.decode(payload, recv_ns, ctx, out, 3)
    assert not out[:3].tobytes().strip(b"\0")
    return [plain(record) for record in out[3 : 3 + count]], faults


def plain(record: np.void) -> dict[str, Any]:
    return {name: record[name].item() for name in INPUT.names or () if name != "pad"}


def same(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Assert equality of every field, to the last bit of every number; NaN equals NaN."""
    assert {name: repr(value) for name, value in found.items()} == {name: repr(value) for name, value in expected.items()}
