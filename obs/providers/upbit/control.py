"""Upbit control messages: `{"status":"UP"}`, `{"error":{…}}`, and the list of subscriptions. JSON in binary frames.

An error comes from the request itself and the venue then closes with code 1000: sending the same request again loops.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from obs.errors import DecodeError
from obs.providers.base import MAX_MESSAGE_BYTES, Control

_TEXT_LENGTH: Final = 120
# Source: documentation: DEFAULT and SIMPLE spellings of the key that names LIST_SUBSCRIPTIONS in its answer.
_LIST_KEYS: Final = ("method", "mthd")
_DATA_HEADS: Final = frozenset({b'{"type', b'{"ty":', b'[{"typ', b'[{"ty"'})
_KEYS: Final = (b'"error"', b'"status"', b'"method"', b'"mthd"')


def is_control(payload: bytes | memoryview) -> bool:
    """Say whether `read_control` reads this payload. Data messages are told by their first six bytes."""
    if bytes(payload[:6]) in _DATA_HEADS:
        return False
    # A market's own texts never hold these keys, and a control message is short.
    head = bytes(payload[:256])
    if not any(key in head for key in _KEYS):
        return False
    try:
        message = _object(bytes(payload))
    except DecodeError:
        return False
    return not ("type" in message or "ty" in message)


def read_control(payload: bytes) -> list[Control]:
    """Return what a control message says. Raises DecodeError."""
    message = _object(payload)
    error = message.get("error")
    if isinstance(error, dict):
        # Names are text on the socket, numbers in REST answers; messages are Korean on the Korean host, so only names count.
        name, text = str(error.get("name", ""))[:_TEXT_LENGTH], str(error.get("message", ""))[:_TEXT_LENGTH]
        return [Control("error", code=name, text=text, fatal=True)]
    if "status" in message:
        return [Control("status", code=str(message["status"])[:_TEXT_LENGTH])]
    for key in _LIST_KEYS:
        if key in message:
            return [Control("status", code=str(message[key])[:_TEXT_LENGTH])]
    raise DecodeError("control", length=len(payload), expected="error, status or method")


def _object(payload: bytes) -> dict[str, Any]:
    """Return the object of a payload, also of a list of one (the LIST formats wrap everything). Raises DecodeError."""
    if len(payload) > MAX_MESSAGE_BYTES:
        raise DecodeError("oversize", length=len(payload), allowed=MAX_MESSAGE_BYTES)
    try:
        message = orjson.loads(payload)
    except orjson.JSONDecodeError:
        raise DecodeError("json", length=len(payload)) from None
    if isinstance(message, list) and len(message) == 1:
        message = message[0]
    if not isinstance(message, dict):
        raise DecodeError("control", length=len(payload), expected="an object")
    return message
