"""Gap lines to rows: any line becomes parameters that the table takes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs.errors import LoadRetryable
from obs.pg.connect import is_refusal
from obs.pg.gaps import gap_values, moment, session_values
from obs.pg.loader import RingLoader, _beyond
from obs.record.events import gap_line, gap_payload
from obs.record.schema import TICK

SESSION = "sess_20260122_003105_kis_ab12"


def gap(first: int, last: int | None, **more: Any) -> dict[str, Any]:
    return gap_payload(
        start_ns=10**18, end_ns=10**18 + 5, scope="scalp", reason="ring_lap", session_id=SESSION, provider="kis", sink="database",
        first_seq=first, last_seq=last, lost=None if last is None else last - first + 1, **more,
    )  # fmt: skip


def test_a_whole_line() -> None:
    line = orjson.loads(gap_line(gap(3, 9, inside={"ring": "event", "seq": 4}, extra="x"), "event", 88))
    values = gap_values(line)
    assert values["gap_start_ts"] == moment(10**18) == datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)
    assert (values["first_seq"], values["last_seq"], values["lost"], values["event_seq"]) == (3, 9, 7, 88)
    assert values["inside"] == '{"ring":"event","seq":4}'
    assert orjson.loads(values["more"]) == {"extra": "x"}


def test_times_of_a_line_without_integers() -> None:
    values = gap_values({"gap_start_ts": "2026-01-22T00:31:05.500Z", "gap_end_ts": "nonsense"})
    assert values["gap_start_ts"] == datetime(2026, 1, 22, 0, 31, 5, 500_000, tzinfo=UTC)
    assert values["gap_end_ts"] is None


texts = st.text(alphabet="a\0\\u\ud800é", max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
KEYS = ["gap_start_ts", "gap_seconds", "symbol", "session_id", "first_seq", "lost", "inside", "gap_start_ns", "acc_volume_before", "odd"]


@given(st.dictionaries(st.sampled_from(KEYS), json_values))
def test_no_line_is_refused(line: dict[str, Any]) -> None:
    values = gap_values(line)
    assert all("\0" not in value for value in values.values() if isinstance(value, str))
    for key in ("inside", "more"):
        assert values[key] is None or "\0" not in str(orjson.loads(values[key]))
    assert values["first_seq"] is None or abs(values["first_seq"]) < 2**63


def test_session_values() -> None:
    values = session_values({"session_id": SESSION, "started_ns": 1_500, "rings": {"tick": 131072}}, "kis")
    assert values["started_at"] == datetime(1970, 1, 1, microsecond=1, tzinfo=UTC)
    assert (values["ended_at"], values["rings"], values["host"]) == (None, '{"tick":131072}', None)


def rows(*seqs: int) -> np.ndarray:
    made = np.zeros(len(seqs), TICK)
    made["seq"] = seqs
    return made


@pytest.mark.parametrize(
    ("seqs", "gaps", "last"),
    [
        ((0, 1, 2), [], 2),
        ((), [gap(0, 4)], 4),
        ((0, 1, 5, 6), [gap(2, 4)], 6),
        ((3, 4), [gap(0, 2), gap(5, 5)], 5),
        ((), [gap(0, None)], -1),
        ((0, 1), [gap(2, None)], 1),
        ((), [], -1),
        ((0, 2), [], None),
        ((1, 2), [], None),
        ((0, 1), [gap(1, 2)], None),
        ((0, 1), [gap(3, 4)], None),
        ((0, 1), [gap(1, None)], None),
        ((), [gap(1, 0)], None),
        ((0,), [gap(1, 1) | {"sink": "archive"}], None),
        ((0,), [gap(1, 1) | {"ring": "swing"}], None),
    ],
)
def test_rows_and_gaps_cover(seqs: tuple[int, ...], gaps: list[dict[str, Any]], last: int | None) -> None:
    loader = RingLoader("", "kis", SESSION, "me", lambda row, text: None)
    if last is None:
        with pytest.raises(ValueError, match="gap"):
            loader._covered(rows(*seqs), gaps)
    else:
        assert loader._covered(rows(*seqs), gaps) == last


def test_gaps_behind_a_watermark() -> None:
    assert [(left["first_seq"], left["last_seq"], left["lost"]) for left in _beyond([gap(0, 4), gap(5, 9), gap(10, None)], 6)] == [
        (7, 9, 3),
        (10, None, None),
    ]


def test_a_loader_that_is_not_open() -> None:
    with pytest.raises(LoadRetryable):
        RingLoader("", "kis", SESSION, "me", lambda row, text: None).commit(rows(0))


def test_refusals() -> None:
    assert is_refusal(psycopg.errors.NumericValueOutOfRange())
    assert is_refusal(psycopg.errors.CharacterNotInRepertoire())
    assert is_refusal(psycopg.errors.CheckViolation())
    for kind in (psycopg.errors.BadCopyFileFormat, psycopg.errors.DiskFull, psycopg.errors.AdminShutdown, psycopg.OperationalError):
        assert not is_refusal(kind())
