"""Which minutes are complete in the database: told of, and all their records stored."""

from __future__ import annotations

from typing import Any

import orjson

from obs.clock import MINUTE_NS
from obs.roles.minutes import Minutes

A, B = "sess_20260714_033400_kis_aaaa", "sess_20260714_040000_kis_bbbb"
M = 29_733_334 * MINUTE_NS


def told(minutes: Minutes, minute: int, session: str, seq: int, from_ns: int = 0, **more: Any) -> None:
    line = {"event_type": "counts", "minute_ns": M + minute * MINUTE_NS, "of_session": session, "symbol": None, "tick_seq": seq}
    minutes.counts(orjson.dumps(line | more), from_ns)


def taken(minutes: Minutes) -> list[int]:
    return sorted((minute - M) // MINUTE_NS for minute in minutes.take())


def test_complete_when_every_record_published_by_then_is_stored() -> None:
    minutes = Minutes()
    told(minutes, 0, A, 100)
    told(minutes, 1, A, 200)
    assert taken(minutes) == []
    for watermark, complete in ((98, []), (99, [0]), (198, []), (199, [1]), (500, [])):
        minutes.note(A, watermark)
        assert taken(minutes) == complete


def test_a_minute_of_two_sessions_needs_both() -> None:
    minutes = Minutes()
    told(minutes, 0, A, 100)
    told(minutes, 0, B, 3)
    minutes.note(A, 99)
    assert taken(minutes) == []
    minutes.note(B, 2)
    assert taken(minutes) == [0]


def test_a_session_without_a_record_needs_nothing() -> None:
    minutes = Minutes()
    told(minutes, 0, A, 0)
    assert taken(minutes) == [0]


def test_the_last_minutes_of_a_session_whose_host_died_need_what_there_is() -> None:
    """Its counts of them died with it; those of its successor may come before or after."""
    minutes = Minutes()
    told(minutes, 1, B, 5)
    minutes.note(A, 199)
    minutes.uncounted(A, 199, M + 2 * MINUTE_NS)  # a minute ends with its last record
    assert taken(minutes) == [0, 2]
    minutes.note(B, 4)
    assert taken(minutes) == [1]
    minutes.uncounted(A, -1, 0)
    assert taken(minutes) == [], "nothing of it is stored"


def test_told_twice_the_larger_counts() -> None:
    """A restart, or a clock that stepped back: another bucket of the same minute."""
    minutes = Minutes()
    told(minutes, 0, A, 100)
    told(minutes, 0, A, 120)
    told(minutes, 0, A, 110)
    minutes.note(A, 118)
    assert taken(minutes) == []
    minutes.note(A, 119)
    assert taken(minutes) == [0]


def test_told_again_after_it_was_filled_it_is_filled_again() -> None:
    minutes = Minutes()
    told(minutes, 0, A, 100)
    minutes.note(A, 150)
    assert taken(minutes) == [0]
    assert taken(minutes) == []
    told(minutes, 0, A, 140)
    assert taken(minutes) == [0]


def test_what_was_taken_and_not_filled_waits_again_with_what_was_told_meanwhile() -> None:
    minutes = Minutes()
    told(minutes, 0, A, 100)
    minutes.note(A, 99)
    failed = minutes.take()
    told(minutes, 0, A, 130)
    told(minutes, 0, B, 1)
    minutes.put_back(failed)
    assert taken(minutes) == []
    minutes.note(A, 129)
    minutes.note(B, 0)
    assert taken(minutes) == [0]


def test_only_the_providers_own_counts_matter() -> None:
    minutes = Minutes()
    told(minutes, 0, A, 0, symbol="005930")
    minutes.counts(orjson.dumps({"event_type": "counts", "minute_ns": M, "of_session": A, "symbol": "", "inputs": 3}))
    assert taken(minutes) == []


def test_minutes_before_the_look_back_are_left_alone() -> None:
    minutes = Minutes()
    told(minutes, 0, A, 0, from_ns=M + 1)
    told(minutes, 1, A, 0, from_ns=M + 1)
    assert taken(minutes) == [1]
