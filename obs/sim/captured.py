"""Real captured frames from a folder of recordings, sent as they are, with their symbols mapped where they must be.

`<folder>/<kis|upbit>/ws_*`: one message per line (`.txt`, `.jsonl`), or receive time, tab, message (`.tsv`); `.json`
files are requests and are left out. Every data frame goes out once, soon after the first subscription, oldest file content first,
to the first connection that has subscribed (the next one goes on where it ended).

A frame keeps its bytes if its symbol is subscribed, or if nothing is subscribed on its channel; else its symbol is
replaced by a subscribed one of the same channel: each captured symbol gets its own while there are enough.

Control frames go out the same way where a server may say them unasked: acknowledgements, PINGPONG, `{"status":"UP"}`. The
others (refusals, errors) are answers: they would make a client give up a connection or a key that is fine, and the
simulator gives them word for word where they belong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from obs.errors import ConfigError
from obs.sim.market import Message


@dataclass(frozen=True, slots=True)
class Captured:
    """One captured message and the file and line that it came from."""

    payload: bytes
    origin: str
    control: bool


def load_captured(folder: Path, venue: str) -> list[Captured]:
    """Return the frames to send, control frames first. Raises ConfigError if there are none."""
    out = []
    try:
        for path in sorted((folder / venue).glob("ws_*")):
            if path.suffix == ".json":
                continue
            for number, line in enumerate(path.read_bytes().splitlines(), 1):
                payload = line.split(b"\t", 1)[1] if path.suffix == ".tsv" else line
                frame = Captured(payload, f"{path.name}:{number}", "control" in path.name)
                if payload and (not frame.control or is_unasked(payload)):
                    out.append(frame)
    except OSError as error:
        raise ConfigError("cannot read the recordings", problems=[f"{folder}: {error}"]) from error
    if not out:
        raise ConfigError("no recordings", problems=[f"{folder / venue}: holds no ws_* file with a frame in it"])
    return sorted(out, key=lambda frame: (not frame.control, _date_of(frame.payload)))


def is_unasked(payload: bytes) -> bool:
    """Return True for a control message that a server may send without being asked."""
    message = json.loads(payload)
    if message.get("status") == "UP" or message.get("header", {}).get("tr_id") == "PINGPONG":
        return True
    code: str = message.get("body", {}).get("msg_cd", "")
    return code == "OPSP0000"


def _date_of(payload: bytes) -> str:
    """Return the date or time in a frame, as text that sorts: accumulated volumes then grow within a day."""
    if payload.startswith(b"{"):
        found = re.search(rb'"(?:tms|timestamp)":(\d+)', payload)
        return found[1].decode() if found else ""
    fields = payload.split(b"^")
    place = 3 if payload[2:6] == b"HDFS" else 33 if b"CNT0|" in payload[:16] else len(fields)
    return fields[place].decode() if len(fields) > place else ""


class SymbolMap:
    """Which subscribed symbol stands for a captured one, by channel."""

    def __init__(self) -> None:
        self._chosen: dict[tuple[str, str], str] = {}

    def of(self, channel: str, code: str, subscribed: Mapping[str, list[str]]) -> str:
        codes = subscribed.get(channel, [])
        if not codes or code in codes:
            return code
        chosen = self._chosen.get((channel, code))
        if chosen is None or chosen not in codes:
            taken = sum(1 for known, _ in self._chosen if known == channel)
            chosen = self._chosen[channel, code] = codes[taken % len(codes)]
        return chosen


def _tail(symbol: str, kind: str, price: Any, size: Any, acc: Any, **more: Any) -> str:
    facts = {"symbol": symbol, "kind": kind, "price": price, "size": size, "acc_volume": acc, **more, "captured": True}
    return json.dumps(facts, separators=(",", ":"))[1:-1]


def _number(text: str) -> float | int | None:
    try:
        return int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError:
        return None


def map_kis(payload: bytes, subscribed: Mapping[str, list[str]], mapping: SymbolMap) -> Message:
    """Return a captured KIS message with the symbol of each record mapped."""
    if payload.startswith(b"{"):
        return Message(payload, 0)
    flag, tr_id, count, body = payload.decode().split("|", 3)
    fields = body.split("^")
    width = len(fields) // int(count)
    us = tr_id.startswith("HDFS")
    tails = []
    for start in range(0, width * int(count), width):
        code = mapping.of(tr_id, fields[start], subscribed)
        if code != fields[start]:
            fields[start] = code
            if us:
                fields[start + 1] = code[4:]
        record = fields[start : start + width]
        if "CNT" in tr_id:
            price, size, acc = (11, 19, 20) if us else (2, 12, 13)
            tails.append(_tail(code, "trade", _number(record[price]), _number(record[size]), _number(record[acc])))
        else:
            tails.append(_tail(code, "quote", None, None, None, bid=_number(record[13]), ask=_number(record[3])))
    return Message("|".join((flag, tr_id, count, "^".join(fields))).encode(), len(tails), tails, fields[0])


def map_upbit(payload: bytes, subscribed: Mapping[str, list[str]], mapping: SymbolMap) -> Message:
    """Return a captured Upbit message with its code mapped; every other byte stays."""
    message = json.loads(payload)
    kind = message.get("type") or message.get("ty")
    if not kind:
        return Message(payload, 0)
    captured = message.get("code") or message["cd"]
    code = mapping.of(kind, captured, subscribed)
    if code != captured:
        payload = re.sub(rb'("(?:code|cd)":")[^"]*"', lambda found: found[1] + code.encode() + b'"', payload, count=1)
    snapshot = "SNAPSHOT" in (message.get("stream_type"), message.get("st"))
    price, size = message.get("trade_price", message.get("tp")), message.get("trade_volume", message.get("tv"))
    acc = message.get("acc_trade_volume", message.get("atv"))
    name = {"orderbook": "quote"}.get(kind, kind)
    more: dict[str, Any] = {"of": name} if snapshot else {}
    if kind == "trade":
        more["venue_seq"] = message.get("sequential_id", message.get("sid"))
    best = next(iter(message.get("orderbook_units") or message.get("obu") or [{}]))
    if best:
        more["bid"], more["ask"] = best.get("bid_price", best.get("bp")), best.get("ask_price", best.get("ap"))
    return Message(payload, 1, [_tail(code, "snapshot" if snapshot else name, price, size, acc, **more)], code)
