"""Events, gap lines and session ids."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obs.errors import DecodeError
from obs.record import events
from obs.record.schema import EVENT_KINDS, EVENT_PAYLOAD_BYTES

NS = 1_000_000_000
T = 1_769_041_865_500_000_000
SESSION = "sess_20260122_003105_kis_0a1b"


def gap(**facts: Any) -> dict[str, Any]:
    base = {"start_ns": T, "end_ns": T + 45 * NS, "scope": "scalp", "reason": "mute", "session_id": SESSION, "provider": "kis"}
    return events.gap_payload(**{**base, **facts})


@pytest.mark.parametrize(
    ("provider", "session"),
    [("kis", "sess_20260122_003105_kis_"), ("kis_us_2", "sess_20260122_003105_kis_us_2_")],
)
def test_session_ids(provider, session):
    made = events.new_session_id(provider, T)
    assert re.fullmatch(re.escape(session) + "[0-9a-f]{4}", made)
    assert events.provider_of(made) == provider


@pytest.mark.parametrize("text", ["", "kis", "sess_1_2_3", "ses_20260122_003105_kis_0a1b"])
def test_what_is_no_session_id(text):
    with pytest.raises(DecodeError):
        events.provider_of(text)


@pytest.mark.parametrize(
    ("ns", "text"),
    [(T, "2026-01-22T00:31:05.500Z"), (T + 999_999, "2026-01-22T00:31:05.500Z"), (0, "1970-01-01T00:00:00.000Z"),
     (T - 500_000_001, "2026-01-22T00:31:04.999Z")],
)  # fmt: skip
def test_iso(ns, text):
    assert events.iso_ms(ns) == text


@pytest.mark.parametrize(
    ("lasting_ns", "seconds", "severity"),
    [
        (0, 0, "brief"), (9_999_999_999, 10.0, "brief"), (10 * NS, 10, "minor"), (60 * NS, 60, "minor"), (60 * NS + 1, 60.0, "major"),
        (300 * NS, 300, "major"), (300 * NS + 1, 300.0, "critical"), (-5 * NS, 0, "brief"), (1_234_567_890, 1.235, "brief"),
    ],
)  # fmt: skip
def test_severity(lasting_ns, seconds, severity):
    payload = gap(end_ns=T + lasting_ns)
    assert (payload["gap_seconds"], payload["severity"]) == (seconds, severity)


@pytest.mark.parametrize("facts", [{"reason": "because"}, {"scope": "tick"}, {"sink": "disk"}])
def test_closed_lists(facts):
    with pytest.raises(ValueError, match="closed lists"):
        gap(**facts)


def test_a_gap_event_keeps_the_key_order_and_its_place():
    row = events.make_event("gap_marker", T, gap(symbol="005930", lost=7, channel="trade"), symbol="005930")
    row["seq"] = 88
    line = events.event_line(row[0], SESSION, "kis", "event")
    value = orjson.loads(line)
    assert line.startswith(b'{"event_type"')
    assert tuple(value)[: len(events.GAP_KEYS)] == events.GAP_KEYS
    assert (value["gap_start_ts"], value["gap_seconds"], value["channel"]) == ("2026-01-22T00:31:05.500Z", 45, "trade")
    assert (value["event_ring"], value["event_seq"], value["sink"], value["lost"]) == ("event", 88, None, 7)
    assert events.gap_key(value) == (SESSION, "event", 88)


def test_a_sinks_gap_has_its_own_key():
    line = events.gap_line(gap(reason="ring_lap", sink="archive", first_seq=5, last_seq=9, lost=5))
    value = orjson.loads(line)
    assert tuple(value)[: len(events.GAP_KEYS)] == events.GAP_KEYS
    assert events.gap_key(value) == (SESSION, "tick", "archive", 5)


def test_an_events_line_carries_what_the_ring_knows():
    row = events.make_event("counts", T, {"minute_ns": 1, "session_id": "sess_other", "n": 2}, symbol="KRW-BTC", start_ns=3, end_ns=4)
    row["seq"] = 9
    assert orjson.loads(events.event_line(row, SESSION, "upbit", "event")) == {
        "event_type": "counts", "timestamp": "2026-01-22T00:31:05.500Z", "symbol": "KRW-BTC", "minute_ns": 1, "n": 2,
        "of_session": "sess_other", "session_id": SESSION, "provider": "upbit", "event_ring": "event", "event_seq": 9, "ts_ns": T,
        "start_ns": 3, "end_ns": 4,
    }  # fmt: skip


def test_a_long_payload_loses_its_longest_parts_only():
    payload = {"text": "x" * 5000, "slots": [f"{k:06d}" for k in range(300)], "level": 1, "inner": {"why": "y" * 900}}
    row = events.make_event("slot", T, payload)
    assert row["payload_bytes"][0] <= EVENT_PAYLOAD_BYTES
    kept = events.event_payload(row)
    assert kept["level"] == 1
    assert kept["shortened"] is True
    assert kept["slots"] == payload["slots"][: len(kept["slots"])]
    assert payload["text"].startswith(kept["text"])
    assert len(payload["slots"]) == 300, "the caller's payload is not touched"


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=400)),
    lambda inner: st.one_of(st.lists(inner, max_size=30), st.dictionaries(st.text(max_size=60), inner, max_size=30)),
    max_leaves=40,
)


@given(st.dictionaries(st.one_of(st.text(max_size=1200), st.integers()), json_values, max_size=40), st.sampled_from(EVENT_KINDS))
@settings(max_examples=60, deadline=None)
def test_any_payload_makes_a_row_and_a_line(payload, kind):
    row = events.make_event(kind, T, payload)
    assert row.shape == (1,)
    assert isinstance(events.event_payload(row), dict)
    line = events.event_line(row, SESSION, "kis", "event")
    value = orjson.loads(line)
    assert (value["session_id"], value["event_ring"], value["event_seq"]) == (SESSION, "event", 0)
    assert b"\n" not in line


def test_a_payload_that_json_cannot_say_is_kept_as_text():
    kept = events.event_payload(events.make_event("warning", T, {"n": 2**70, "s": "\ud800"}))
    assert "1180591620717411303424" in kept["unreadable"]


def test_a_broken_payload_leaves_as_a_warning():
    row = np.concatenate([events.make_event("gap_marker", T, gap())])
    row["payload"] = np.void(b"{broken".ljust(EVENT_PAYLOAD_BYTES, b"\0"))
    value = orjson.loads(events.event_line(row, SESSION, "kis", "event"))
    assert value["event_type"] == "warning"
    assert value["unreadable"].startswith("{broken")
