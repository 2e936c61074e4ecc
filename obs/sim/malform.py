"""Messages that must not be readable, made from a good one; pure.

`inject` makes a whole extra message beside the good ones: a client must set all of it aside. `spoil` hurts one input inside a
real message: a client must set that input aside and keep its neighbours.

Why the KIS variants hold two records: one record with a field more or less is legal (widths drift), two records with an odd
sum of fields are not. Their fields hold no number, so that a client that looks for record starts finds nothing to count either.
"""

from __future__ import annotations

import base64
import re
from typing import Final

from obs.sim.market import Message

SPOILED: Final = ("nan", "type", "neighbour")
HUGE_BYTES: Final = 10 * 1024 * 1024
FRAMING: Final = bytes((0xF3, 5)) + b"junk!"  # reserved bits set, and an opcode that does not exist


def inject(venue: str, variant: str, good: Message) -> bytes:
    """Return the payload of an unreadable message; `framing` is not a payload: FRAMING goes out unframed."""
    return _inject_kis(variant, good.payload) if venue == "kis" else _inject_upbit(variant, good.payload)


def _inject_kis(variant: str, payload: bytes) -> bytes:
    _, tr_id, count, body = payload.split(b"|", 3)
    fields = body.split(b"^")
    record = fields[: len(fields) // int(count)]
    twice = b"^".join(2 * [record[0], *[b"?"] * (len(record) - 1)])
    one = b"0|" + tr_id + b"|001|"
    match variant:
        case "cut":
            return one + b"^".join(record)[: len(b"^".join(record)) // 2]
        case "huge":
            return one + b"9" * (HUGE_BYTES - len(one))
        case "fields_more":
            return b"0|" + tr_id + b"|002|" + twice + b"^0"
        case "fields_less":
            return b"0|" + tr_id + b"|002|" + twice.rsplit(b"^", 1)[0]
        case "count":
            return b"0|" + tr_id + b"|003|" + twice
        case "count_text":
            return b"0|" + tr_id + b"|abc|" + twice
        case "cp949":
            return one + b"^".join(["삼성전자".encode("cp949")] * len(record))
        case "empty":
            return b""
        case "no_records":
            return one
        case "unknown":
            return b"0|H0ZZCNT9|001|" + b"^".join(record)
        case "encrypted":
            return b"1|" + tr_id + b"|001|" + base64.b64encode(b"^".join(record)[:96])
    raise ValueError(f"variant={variant!r} is not an extra message")


def _inject_upbit(variant: str, payload: bytes) -> bytes:
    match variant:
        case "cut":
            return payload[: len(payload) // 2]
        case "huge":
            return b'{"type":"trade","code":"KRW-BTC","filler":"' + b"9" * (HUGE_BYTES - 45) + b'"}'
        case "fields_more":
            return payload + b"}"
        case "fields_less":
            return b'{"type":"trade"}'
        case "count":
            return b"[" + payload.strip(b"[]") + b","
        case "count_text":
            return b'{"type":"trade","code":123,"trade_price":1.0,"trade_volume":1.0}'
        case "cp949":
            return '{"type":"trade","code":"비트코인"}'.encode("cp949")
        case "empty":
            return b""
        case "no_records":
            return b"[]"
        case "unknown":
            return b'{"type":"nope","code":"KRW-BTC","trade_price":1.0}'
        case "encrypted":
            return base64.b64encode(payload[:96])
    raise ValueError(f"variant={variant!r} is not an extra message")


def spoil(venue: str, variant: str, good: Message) -> tuple[Message, int]:
    """Return the message with one input hurt, and that input's place in it."""
    text = b"NaN" if variant == "nan" else b"abc" if venue == "kis" else b"{}"
    if venue == "kis":
        head, tr_id, count, body = good.payload.split(b"|", 3)
        fields = body.split(b"^")
        width = len(fields) // int(count)
        place = int(count) // 2 if variant == "neighbour" else 0
        price = {b"HDFSCNT0": 11, b"HDFSASP0": 11}.get(tr_id, 3 if b"ASP" in tr_id else 2)
        fields[place * width + price] = text
        return Message(b"|".join((head, tr_id, count, b"^".join(fields))), good.count, good.tails, good.symbol), place
    payload = re.sub(rb'("(?:trade_price|tp|ask_price|ap)":)[^,}]+', lambda found: found[1] + text, good.payload, count=1)
    return Message(payload, good.count, good.tails, good.symbol), 0
