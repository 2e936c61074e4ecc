"""The intake: counts of what came in, their identities, and the events that carry them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from obs.ledger import Intake, Snapshot, broken_identity, counts_payloads, read
from obs.record.events import event_payload, make_event
from obs.record.schema import EVENT_PAYLOAD_BYTES, IGNORED, INPUT, INPUT_QUOTE, INPUT_TICKER, INPUT_TRADE
from obs.ring import fence
from obs.shm import Board

SYMBOLS = np.array(["", "005930", "000660"], "S20")
SESSION = "sess_20260714_033400_kis_a1b2"
MINUTE = 1_784_000_040 * 10**9


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    made = Board.create(tmp_path / "board", fence)
    yield made
    made.close()


def intake_of(board: Board) -> Intake:
    intake = Intake(board["intake"], SYMBOLS)
    intake.head["session_id"], intake.head["n"], intake.head["minute_ns"] = SESSION.encode(), 7, MINUTE
    return intake


def inputs_of(*rows: tuple[int, int, str]) -> np.ndarray:
    """(row, kind, ignored as)"""
    out = np.zeros(len(rows), INPUT)
    for place, (row, kind, ignored) in enumerate(rows):
        out["row"][place], out["kind"][place], out["ignore"][place] = row, kind, IGNORED.index(ignored)
    return out


MIXED = (
    (1, INPUT_TRADE, ""), (1, INPUT_TRADE, ""), (1, INPUT_TRADE, "duplicate"), (1, INPUT_QUOTE, ""), (1, INPUT_TICKER, ""),
    (2, INPUT_TRADE, "snapshot"), (2, INPUT_QUOTE, "expected"), (0, INPUT_TRADE, "unknown_symbol"), (0, INPUT_QUOTE, "unknown_symbol"),
)  # fmt: skip


def told(snapshot: Snapshot, **more: Any) -> dict[str | None, dict[str, Any]]:
    payloads = list(counts_payloads(snapshot, 123, **more))
    assert payloads[-1][0] is None, "the provider's own comes last: it tells how many there are"
    assert all(symbol == payload["symbol"] for symbol, payload in payloads)
    return dict(payloads)


def test_each_input_is_folded_or_ignored(board: Board) -> None:
    intake = intake_of(board)
    intake.count(inputs_of(*MIXED))
    intake.count_malformed(3)
    intake.commit()
    snapshot = read(board["intake"])
    assert snapshot is not None
    assert broken_identity(snapshot) == ""
    assert snapshot.session_id == SESSION
    rows = told(snapshot)
    common = {"minute_ns": MINUTE, "of_session": SESSION, "n": 7}
    assert rows["005930"] == common | {"symbol": "005930", "inputs": 5, "trades": 2, "quotes": 2, "ignored": {"duplicate": 1}}
    assert rows["000660"] == common | {"symbol": "000660", "inputs": 2, "trades": 0, "quotes": 0, "ignored": {"snapshot": 1, "expected": 1}}
    assert rows[""] == common | {"symbol": "", "inputs": 5, "trades": 0, "quotes": 0, "ignored": {"unknown_symbol": 2, "malformed": 3}}
    assert rows[None] == common | {
        "symbol": None, "messages": 0, "data": 0, "control": 0, "quarantined": 0, "lost_quarantined": 0, "tick_seq": 123, "symbols": 3
    }  # fmt: skip


def test_every_reason_is_counted(board: Board) -> None:
    intake = intake_of(board)
    for reason in IGNORED[1:]:
        intake.count(inputs_of((1, INPUT_TRADE, reason)))
    intake.commit()
    snapshot = read(board["intake"])
    assert snapshot is not None
    assert told(snapshot)["005930"]["ignored"] == dict.fromkeys(IGNORED[1:], 1)


def test_symbols_without_inputs_are_not_told(board: Board) -> None:
    intake = intake_of(board)
    intake.commit()
    snapshot = read(board["intake"])
    assert snapshot is not None
    assert set(told(snapshot)) == {None}
    assert told(snapshot)[None]["symbols"] == 0


def test_what_a_dead_feed_lost_is_told_per_symbol(board: Board) -> None:
    intake = intake_of(board)
    intake.count(inputs_of(*MIXED))
    intake.commit()
    snapshot = read(board["intake"])
    assert snapshot is not None
    rows = told(snapshot, lost_trades=np.array([0, 2, 0]), lost_quotes=np.array([0, 1, 0]), lost_quarantined=4)
    assert (rows["005930"]["lost_trades"], rows["005930"]["lost_quotes"]) == (2, 1)
    assert rows["000660"]["lost_trades"] == 0
    assert rows[None]["lost_quarantined"] == 4


def test_the_next_bucket_starts_at_zero_and_keeps_what_is_pending(board: Board) -> None:
    intake = intake_of(board)
    intake.count(inputs_of(*MIXED))
    intake.head["messages"] = intake.head["data"] = 4
    intake.table["pending_trades"][1] = 2
    intake.next_bucket(MINUTE + 60 * 10**9)
    intake.commit()
    snapshot = read(board["intake"])
    assert snapshot is not None
    assert (int(snapshot.head["n"]), int(snapshot.head["minute_ns"])) == (8, MINUTE + 60 * 10**9)
    assert set(told(snapshot)) == {None}
    assert snapshot.table["pending_trades"].tolist() == [0, 2, 0]
    assert int(snapshot.head["messages"]) == 0


def test_nothing_is_seen_before_the_commit(board: Board) -> None:
    assert read(board["intake"]) is None
    intake = intake_of(board)
    assert read(board["intake"]) is None
    intake.commit()
    intake.count(inputs_of(*MIXED))
    before = read(board["intake"])
    assert before is not None
    assert not before.table["inputs"].any()
    intake.commit()
    after = read(board["intake"])
    assert after is not None
    assert after.table["inputs"].sum() == len(MIXED)
    assert not before.table["inputs"].any(), "what was read is owned"


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("data", "messages=0, expected data + control + quarantined = 1"),
        ("messages", "messages=1, expected data + control + quarantined = 0"),
    ],
)
def test_a_message_without_a_fate_is_told(board: Board, field: str, text: str) -> None:
    intake = intake_of(board)
    intake.head[field] += 1
    intake.commit()
    snapshot = read(board["intake"])
    assert snapshot is not None
    assert broken_identity(snapshot) == text


@pytest.mark.parametrize("field", ["inputs", "trades", "quotes"])
def test_an_input_without_a_fate_is_told(board: Board, field: str) -> None:
    intake = intake_of(board)
    intake.count(inputs_of(*MIXED))
    intake.table[field][2] += 1
    intake.commit()
    snapshot = read(board["intake"])
    assert snapshot is not None
    assert "000660" in broken_identity(snapshot)


def test_the_largest_counts_event_fits() -> None:
    """An event that is shortened would no longer prove anything."""
    huge = 2**63 - 1
    payload = {
        "minute_ns": huge, "of_session": "sess_20260714_033400_" + "x" * 24 + "_a1b2", "n": huge, "symbol": "X" * 20, "inputs": huge,
        "trades": huge, "quotes": huge, "lost_trades": huge, "lost_quotes": huge, "ignored": dict.fromkeys(IGNORED[1:], huge),
    }  # fmt: skip
    assert len(orjson.dumps(payload)) < EVENT_PAYLOAD_BYTES
    assert event_payload(make_event("counts", 1, payload)) == payload


def test_counts_of_another_layout_are_not_read(board: Board) -> None:
    intake = intake_of(board)
    intake.commit()
    assert read(board["intake"]) is not None
    intake.head["layout"] += 1
    intake.commit()
    assert read(board["intake"]) is None


@pytest.mark.parametrize("symbols", [1, 42, 1001, 4000])
def test_a_table_of_many_symbols_fits_the_cell(board: Board, symbols: int) -> None:
    names = np.array([f"S{number}" for number in range(symbols)], "S20")
    intake = Intake(board["intake"], names)
    intake.table["inputs"] = np.arange(symbols)
    intake.commit()
    snapshot = read(board["intake"])
    assert snapshot is not None
    assert len(snapshot.table) == symbols
    assert snapshot.table["inputs"].tolist() == list(range(symbols))
