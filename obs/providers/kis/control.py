"""KIS control messages: answers to registrations and PINGPONG, both JSON objects in text frames.

An answer is matched to its request by (tr_id, tr_key). Its `output` holds an AES key, which is left where it is.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from obs.errors import DecodeError
from obs.providers.base import MAX_MESSAGE_BYTES, Control
from obs.providers.kis import protocol as p
from obs.providers.kis.symbols import symbol_of

_TEXT_LENGTH: Final = 120
_CHANNELS: Final = {tr_id: channel for channels in p.TR_IDS.values() for channel, tr_id in channels.items()}
# Source: observed, an answer without msg_cd: the right to that product's data was not granted.
_NO_RIGHT: Final = "mci send failed"


def read_control(payload: bytes, market: str) -> list[Control]:
    """Return what a control message says. Raises DecodeError."""
    if len(payload) > MAX_MESSAGE_BYTES:
        raise DecodeError("oversize", length=len(payload), allowed=MAX_MESSAGE_BYTES)
    try:
        message = orjson.loads(payload)
    except orjson.JSONDecodeError:
        raise DecodeError("json", length=len(payload)) from None
    if not isinstance(message, dict) or not isinstance(header := message.get("header"), dict):
        raise DecodeError("control", length=len(payload), expected="an object with a header")
    tr_id, key, body = header.get("tr_id"), header.get("tr_key"), message.get("body")
    if tr_id == p.PINGPONG:
        return [Control("ping", code=p.PINGPONG, reply=payload)]
    if not isinstance(body, dict):
        raise DecodeError("control", tr_id=repr(tr_id)[:32], expected="a body")
    channel = _CHANNELS.get(tr_id, "") if isinstance(tr_id, str) else ""
    symbol = symbol_of(market, key) if isinstance(key, str) else ""
    return [_answer(body, channel, symbol)]


def _answer(body: dict[str, Any], channel: str, symbol: str) -> Control:
    """Class the body of an answer by its msg_cd; one that is not in the table by its rt_cd."""
    code, text, good = str(body.get("msg_cd") or ""), str(body.get("msg1") or "")[:_TEXT_LENGTH], str(body.get("rt_cd"))
    facts: dict[str, Any] = {"code": code[:_TEXT_LENGTH], "text": text, "channel": channel, "symbol": symbol}
    if code in p.CODE_REGISTERED:
        return Control("ack", registered=True, **facts)
    if code in p.CODE_UNREGISTERED:
        return Control("ack", registered=False, **facts)
    if code == p.CODE_LIMIT:
        return Control("limit", retry=True, **facts)
    if code == p.CODE_BAD_APPROVAL:
        return Control("auth", retry=True, fatal=True, **facts)
    if code == p.CODE_IN_USE:
        return Control("in_use", retry=True, fatal=True, **facts)
    if code == p.CODE_RETRY:
        return Control("refused", retry=True, **facts)
    if code == p.CODE_BAD_TR or _NO_RIGHT in text:
        return Control("refused", retry=False, **facts)
    if good == "0":
        return Control("status", **facts)
    if not code and not text:
        raise DecodeError("control", expected="rt_cd, msg_cd or msg1")
    return Control("refused" if channel and symbol else "error", retry=True, **facts)
