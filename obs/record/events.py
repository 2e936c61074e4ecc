"""EVENT rows and their lines: session ids, gap markers, and every other event, as they stand in system/events.

An event's payload is a JSON object of at most EVENT_PAYLOAD_BYTES; a longer one is shortened, never refused, because
an event is evidence and its sender has no better place for it. The line of an event is its payload with the facts that
the ring knows (session, ring, sequence, times) around it. A gap line has the key order of the archive format, so it
reads the same in a segment, in system/events and in scalp_gaps.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import orjson

from obs.errors import DecodeError
from obs.record.schema import EVENT, EVENT_KINDS, EVENT_PAYLOAD_BYTES

GAP_REASONS: Final = (
    "ws_disconnect", "mute", "api_error", "rate_limit", "refused", "venue_count", "restart", "host_death", "ring_lap",
    "disk_full", "disk_error", "ring_foreign", "quarantine_full", "db_rejected", "mitigation", "short_sweep", "no_universe",
)  # fmt: skip
_MUTE_ENDS: Final = ("mute", "pong_timeout", "timeout")
_REFUSED_ENDS: Final = ("auth", "in_use", "AuthRejected")
GAP_SCOPES: Final = ("scalp", "swing", "all")
GAP_SINKS: Final = (None, "archive", "database")
SCOPE_OF_RING: Final = {"tick": "scalp", "swing": "swing"}  # a gap of any other ring has scope "all"

BRIEF_S: Final = 10  # under it: brief
MINOR_S: Final = 60  # up to it: minor
MAJOR_S: Final = 300  # up to it: major; beyond: critical

# Invariant: the keys of a gap line, in this order; more keys may follow.
GAP_KEYS: Final = (
    "event_type", "gap_start_ts", "gap_end_ts", "gap_seconds", "scope", "reason", "session_id", "provider", "symbol", "ring",
    "sink", "first_seq", "last_seq", "lost", "severity", "acc_volume_before", "acc_volume_after", "inside", "event_ring",
    "event_seq",
)  # fmt: skip

_KIND_CODE: Final = {name: code for code, name in enumerate(EVENT_KINDS)}
_NS: Final = 1_000_000_000
_SHORTEST: Final = 8  # texts and lists are not cut below this length
_DUMP: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def reason_of_end(why: str) -> str:
    """Return the reason of the gap that the end of a connection leaves; `why`: as obs.wire names the end, or a failed connect."""
    return "mute" if why in _MUTE_ENDS else "refused" if why in _REFUSED_ENDS else "ws_disconnect"


def iso_ms(ns: int) -> str:
    """Return UTC epoch nanoseconds as "2026-01-22T00:31:05.500Z", milliseconds truncated."""
    seconds, rest = divmod(ns, _NS)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest // 1_000_000:03d}Z"


def new_session_id(provider: str, wall_ns: int) -> str:
    """Return a new "sess_YYYYMMDD_HHMMSS_<provider>_<4 hex>" (UTC); the hex is random."""
    moment = datetime.fromtimestamp(wall_ns // _NS, UTC)
    return f"sess_{moment:%Y%m%d_%H%M%S}_{provider}_{secrets.token_hex(2)}"


def provider_of(session_id: str) -> str:
    """Return the provider named in a session id; DecodeError if it is not one."""
    parts = session_id.split("_")
    if len(parts) < 5 or parts[0] != "sess":
        raise DecodeError("not a session id", value=session_id, expected="sess_YYYYMMDD_HHMMSS_<provider>_<4 hex>")
    return "_".join(parts[3:-1])


def severity_of(seconds: float) -> str:
    """Return brief (under 10 s), minor (to 60 s), major (to 300 s) or critical."""
    if seconds < BRIEF_S:
        return "brief"
    if seconds <= MINOR_S:
        return "minor"
    return "major" if seconds <= MAJOR_S else "critical"


def gap_payload(
    *,
    start_ns: int,
    end_ns: int,
    scope: str,
    reason: str,
    session_id: str,
    provider: str,
    symbol: str | None = None,
    ring: str = "tick",
    sink: str | None = None,
    first_seq: int | None = None,
    last_seq: int | None = None,
    lost: int | None = None,
    acc_volume_before: float | None = None,
    acc_volume_after: float | None = None,
    inside: Any = None,
    **more: Any,
) -> dict[str, Any]:
    """Build the payload of a gap_marker; `gap_line` or `event_line` makes the line of it.

    `start_ns`, `end_ns`: UTC epoch, the span that is missing. `sink`: None = lost before the rings, `lost` in inputs if
    known; "archive" or "database" = lost by that sink, sequences exact. `inside`: names another gap that holds this one.
    `more`: further keys, after all others. A reason, scope or sink outside the closed lists raises ValueError.
    """
    if reason not in GAP_REASONS or scope not in GAP_SCOPES or sink not in GAP_SINKS:
        raise ValueError(f"gap outside the closed lists: reason={reason!r} scope={scope!r} sink={sink!r}")
    whole, rest = divmod(max(0, end_ns - start_ns), _NS)
    seconds = whole if rest == 0 else round(whole + rest / _NS, 3)
    return {
        "gap_start_ts": iso_ms(start_ns), "gap_end_ts": iso_ms(end_ns), "gap_seconds": seconds, "scope": scope, "reason": reason,
        "session_id": session_id, "provider": provider, "symbol": symbol, "ring": ring, "sink": sink, "first_seq": first_seq,
        "last_seq": last_seq, "lost": lost, "severity": severity_of(max(0, end_ns - start_ns) / _NS),
        "acc_volume_before": acc_volume_before, "acc_volume_after": acc_volume_after, "inside": inside,
        "gap_start_ns": start_ns, "gap_end_ns": end_ns, **more,
    }  # fmt: skip


def gap_line(payload: dict[str, Any], event_ring: str | None = None, event_seq: int | None = None) -> bytes:
    """Return the line of a gap: keys as GAP_KEYS, then the rest of `payload`. A sink's own gap has no place in a ring."""
    line: dict[str, Any] = dict.fromkeys(GAP_KEYS)
    line |= {key: value for key, value in payload.items() if key not in ("event_type", "event_ring", "event_seq")}
    line |= {"event_type": "gap_marker", "event_ring": event_ring, "event_seq": event_seq}
    return _dump(line)


def gap_key(line: dict[str, Any]) -> tuple[Any, ...]:
    """Return the identity of a gap line, by which readers and scalp_gaps de-duplicate.

    (session_id, event_ring, event_seq) if it was lost before the rings, else (session_id, ring, sink, first_seq).
    """
    if line.get("sink") is None:
        return (line["session_id"], line["event_ring"], line["event_seq"])
    return (line["session_id"], line["ring"], line["sink"], line["first_seq"])


def make_event(kind: str, ts_ns: int, payload: dict[str, Any], *, symbol: str = "", start_ns: int = 0, end_ns: int = 0) -> np.ndarray:
    """Build one EVENT row, shape (1,), ready to publish (the ring sets seq).

    `kind`: one of EVENT_KINDS. Times: UTC epoch ns; an event without a span has start = end = 0. A payload that does not fit
    has its longest lists and texts shortened and a key "shortened": true; one that JSON cannot express is kept as text.
    """
    data = _fit(payload)
    row = np.zeros(1, EVENT)
    row["ts_ns"], row["start_ns"], row["end_ns"] = ts_ns, start_ns, end_ns
    row["symbol"] = symbol.encode("ascii", "replace")
    row["kind"], row["payload_bytes"] = _KIND_CODE[kind], len(data)
    row["payload"] = np.void(data.ljust(EVENT_PAYLOAD_BYTES, b"\0"))
    return row


def _scalar(row: np.ndarray | np.void) -> Any:
    return row[0] if isinstance(row, np.ndarray) and row.ndim else row


def event_payload(row: np.ndarray | np.void) -> dict[str, Any]:
    """Return the payload of one EVENT row (a scalar row, or shape (1,)); DecodeError if it is not a JSON object."""
    one = _scalar(row)
    data = one["payload"].tobytes()[: int(one["payload_bytes"])]
    try:
        payload = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise DecodeError("event payload is not JSON", data=data[:80]) from error
    if not isinstance(payload, dict):
        raise DecodeError("event payload is not an object", data=data[:80])
    return payload


def event_line(row: np.ndarray | np.void, session_id: str, provider: str, ring: str) -> bytes:
    """Return the line of one EVENT row as it stands in system/events, without newline.

    `session_id`, `ring`: of the ring that holds the row; they and its seq are its identity, so a payload that names another
    session keeps that as "of_session". A payload that does not read (it should not happen) is kept under "unreadable".
    """
    one = _scalar(row)
    kind = EVENT_KINDS[one["kind"]] if one["kind"] < len(EVENT_KINDS) else f"kind_{one['kind']}"
    try:
        payload = event_payload(one)
    except DecodeError:
        payload = {"unreadable": one["payload"].tobytes()[: int(one["payload_bytes"])].decode("utf-8", "replace")}
        kind = "warning" if kind == "gap_marker" else kind
    if payload.get("session_id", session_id) != session_id:
        payload.setdefault("of_session", payload["session_id"])
    seq = int(one["seq"])
    if kind == "gap_marker":
        return gap_line({**payload, "session_id": session_id, "provider": provider}, ring, seq)
    symbol = one["symbol"].decode("ascii", "replace")
    line: dict[str, Any] = {"event_type": kind, "timestamp": iso_ms(int(one["ts_ns"]))}
    if symbol:
        line["symbol"] = symbol
    line |= {key: value for key, value in payload.items() if key not in ("event_type", "timestamp", "session_id", "provider")}
    line |= {"session_id": session_id, "provider": provider, "event_ring": ring, "event_seq": seq, "ts_ns": int(one["ts_ns"])}
    if one["start_ns"] or one["end_ns"]:
        line |= {"start_ns": int(one["start_ns"]), "end_ns": int(one["end_ns"])}
    return _dump(line)


def _dump(value: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(value, default=repr, option=_DUMP)
    except (TypeError, ValueError):  # an integer beyond 64 bits, a lone surrogate: keep what it looked like
        return orjson.dumps({"unreadable": repr(value).encode("ascii", "replace").decode()})


def _fit(payload: dict[str, Any]) -> bytes:
    """Return the JSON of `payload`, shortened until it fits; halving the longest value ends, whatever the payload."""
    data = _dump(payload)
    if len(data) <= EVENT_PAYLOAD_BYTES:
        return data
    short = orjson.loads(data) | {"shortened": True}
    while len(data := orjson.dumps(short)) > EVENT_PAYLOAD_BYTES:
        longest = _longest(short)
        if longest is None:  # many short values: the last keys go first, "shortened" stays
            short.pop(next(key for key in reversed(list(short)) if key != "shortened"))
        else:
            holder, key = longest
            holder[key] = holder[key][: len(holder[key]) // 2]
    return data


def _longest(node: Any) -> tuple[Any, Any] | None:
    """Find the list or text that takes most bytes and may still be halved; as (its holder, its key there)."""
    best: tuple[Any, Any] | None = None
    best_bytes = 0
    nodes = [node]
    while nodes:
        holder = nodes.pop()
        for key, value in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
            if isinstance(value, (dict, list)):
                nodes.append(value)
            if isinstance(value, (list, str)) and len(value) >= _SHORTEST:
                size = len(orjson.dumps(value))
                if size > best_bytes:
                    best, best_bytes = (holder, key), size
    return best
