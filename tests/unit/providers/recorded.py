"""The recorded frames of OBS_RECORDINGS, read a second time by code that shares nothing with obs: plain splits, exact decimals."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from inputs import row

NAN = float("nan")
KST = timezone(timedelta(hours=9))


def frames(provider: str) -> Iterator[tuple[str, bytes, int | None]]:
    """Yield (place, payload, receive time in ns if recorded) of every ws_* file; skips the test if there are none."""
    folder = os.environ.get("OBS_RECORDINGS")
    if not folder:
        pytest.skip("OBS_RECORDINGS names no folder of recordings")
    files = sorted((Path(folder) / provider).glob("ws_*"))
    assert files, f"no ws_* files in {folder}/{provider}"
    for path in files:
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            place = f"{path.name}:{number}"
            if path.suffix == ".tsv":
                seconds, _, payload = line.partition(b"\t")
                yield place, payload, int(Decimal(seconds.decode()) * 10**9)
            else:
                yield place, line, None


def _ns(day: str, time: str) -> int:
    return int(datetime.strptime(day + time, "%Y%m%d%H%M%S").replace(tzinfo=KST).timestamp()) * 10**9


def _price(text: str) -> float:
    return float(Decimal(text)) or NAN


def kis_rows(payload: bytes, places: dict[str, int], recv_ns: int) -> list[dict[str, Any]]:
    """Return the rows of a KIS data message by the tables of the fact sheet."""
    _, tr_id, count, body = payload.decode().split("|")
    fields = body.split("^")
    width = len(fields) // int(count)
    return [_kis_row(tr_id, fields[at : at + width], places, recv_ns) for at in range(0, len(fields), width)]


def _kis_row(tr_id: str, f: list[str], places: dict[str, int], recv_ns: int) -> dict[str, Any]:
    if tr_id == "H0STCNT0":
        change = abs(Decimal(f[4])) * {"1": -1, "2": -1, "3": 0, "4": 1, "5": 1}[f[3]]
        return row(
            "trade",
            f[0],
            places[f[0]],
            event_ns=_ns(f[33], f[1]),
            recv_ns=recv_ns,
            side={"1": "buy", "5": "sell"}.get(f[21], ""),
            quoted=True,
            phase={"20": "regular"}[f[34]],
            price=_price(f[2]),
            size=float(f[12]),
            bid_price=_price(f[11]),
            ask_price=_price(f[10]),
            bid_size=float(f[37]),
            ask_size=float(f[36]),
            acc_volume=float(f[13]),
            base_price=float(Decimal(f[2]) + change),
            acc_day=int(f[33]),
        )
    if tr_id == "H0STASP0":
        day = datetime.fromtimestamp(recv_ns / 1e9, KST).strftime("%Y%m%d")
        return row(
            "quote",
            f[0],
            places[f[0]],
            event_ns=_ns(day, f[1]),
            recv_ns=recv_ns,
            phase={"0": "regular"}[f[2]],
            bid_price=_price(f[13]),
            ask_price=_price(f[3]),
            bid_size=float(f[33]),
            ask_size=float(f[23]),
            acc_volume=float(f[53]),
            base_price=-float(f[50]),
            acc_day=int(day),
        )
    assert tr_id == "HDFSCNT0"
    return row(
        "trade",
        f[1],
        places[f[1]],
        event_ns=_ns(f[6], f[7]),
        recv_ns=recv_ns,
        quoted=True,
        phase={"1": "pre_market", "2": "regular"}[f[25]],
        price=_price(f[11]),
        size=float(f[19]),
        bid_price=_price(f[15]),
        ask_price=_price(f[16]),
        bid_size=float(f[17]),
        ask_size=float(f[18]),
        acc_volume=float(f[20]),
        acc_day=int(f[3]),
    )


def upbit_rows(payload: bytes, places: dict[str, int], recv_ns: int) -> list[dict[str, Any]]:
    """Return the rows of an Upbit data message by the tables of the fact sheet."""
    message = json.loads(payload, parse_float=Decimal)
    long = "type" in message

    def get(name: str, short: str) -> Any:
        return message.get(name if long else short)

    code, stream = get("code", "cd"), get("stream_type", "st")
    facts: dict[str, Any] = {"recv_ns": recv_ns}
    match get("type", "ty"):
        case "trade":
            ask, bid = get("best_ask_price", "bap"), get("best_bid_price", "bbp")
            if stream == "SNAPSHOT":
                facts["ignore"] = "snapshot"
            if ask is not None:
                facts |= {"quoted": True, "ask_price": float(ask), "bid_price": float(bid)}
                facts |= {"ask_size": float(get("best_ask_size", "bas")), "bid_size": float(get("best_bid_size", "bbs"))}
            facts |= {"event_ns": get("trade_timestamp", "ttms") * 10**6, "side": {"ASK": "sell", "BID": "buy"}[get("ask_bid", "ab")]}
            facts |= {
                "price": float(get("trade_price", "tp")),
                "size": float(get("trade_volume", "tv")),
                "venue_seq": get("sequential_id", "sid"),
            }
            return [row("trade", code, places[code], **facts)]
        case "orderbook":
            best = get("orderbook_units", "obu")[0]
            facts |= {"event_ns": get("timestamp", "tms") * 10**6}
            for name, short in (("ask_price", "ap"), ("bid_price", "bp"), ("ask_size", "as"), ("bid_size", "bs")):
                facts[name] = float(best[name if long else short])
            return [row("quote", code, places[code], **facts)]
        case "ticker":
            made = datetime.fromtimestamp(get("timestamp", "tms") / 1000, timezone.utc)  # noqa: UP017 - one spelling for both zones
            facts |= {"event_ns": get("trade_timestamp", "ttms") * 10**6, "price": float(get("trade_price", "tp")), "phase": "regular"}
            facts |= {"acc_volume": float(get("acc_trade_volume", "atv")), "acc_day": int(made.strftime("%Y%m%d"))}
            return [row("ticker", code, places[code], **facts)]
    raise AssertionError(f"no rule for {payload[:40]!r}")
