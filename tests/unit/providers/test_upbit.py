"""Upbit: lists with bad elements, refusals, numbers, control messages, requests, settings."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cases import CASES, upbit
from hypothesis import given
from hypothesis import strategies as st
from inputs import RECV_NS, decoded, same
from synthetic_upbit import NS, book, literal, short, text, ticker, ticker_row, trade, trade_row

from obs.errors import ConfigError, ConnectionLost, DecodeError
from obs.providers.base import MAX_INPUTS_PER_MESSAGE, Credential

CASE = CASES[-1]
UPBIT = CASE.provider


def read(payload: bytes) -> tuple[list[dict[str, Any]], list[Any]]:
    return decoded(UPBIT, CASE.context(), payload)


def refused(payload: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        read(payload)
    return caught.value.reason


BAD = [
    (trade(trade_price="absent"), "field"),
    (trade(trade_volume=None), "field"),
    (trade(trade_price="nan"), "field"),
    (trade(trade_price="1_000"), "field"),
    (trade(trade_price=" 1"), "field"),
    (trade(trade_price=True), "field"),
    (trade(trade_price=[1]), "field"),
    (trade(ask_bid="BUY"), "field"),
    (trade(stream_type="SNAPSHQT"), "field"),
    (trade(trade_timestamp=-1), "field"),
    (trade(trade_timestamp=10**16), "field"),
    (trade(trade_timestamp=1.5), "field"),
    (trade(sequential_id=2**63), "field"),
    (trade(sequential_id=1.5), "field"),
    (trade(code="absent"), "field"),
    (trade(code=5), "field"),
    (trade(code="krw-btc"), "symbol"),
    (trade(code="KRW-ABCDEFGHIJKLMNOPQRS"), "symbol"),
    (trade(code="원-비트"), "symbol"),
    (trade(type="candle.1m"), "unknown_type"),
    (trade(type=None), "unknown_type"),
    (trade(type="absent"), "no_type"),
    (book(orderbook_units=None), "field"),
    (book(orderbook_units=[{"ask_price": 1}]), "field"),
    (book(orderbook_units=[5]), "field"),
    (ticker(trade_price={}), "field"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD)
def test_a_bad_message_is_refused_and_costs_no_neighbour(bad: dict[str, Any], reason: str) -> None:
    for form in (bad, short(bad)):
        assert refused(text(form)) == reason
        assert refused(text([form])) == reason
        payload = text([trade(), form, ticker("KRW-ETH")])
        rows, faults = read(payload)
        same(rows[0], trade_row())
        same(rows[1], ticker_row("KRW-ETH", 2))
        assert [(payload[fault.start : fault.stop], fault.reason) for fault in faults] == [(text(form), reason)]


@pytest.mark.parametrize("spelling", ["NaN", "Infinity", "1_0", "+1", "01", "1.", ".5", "", "0x1", "--1"])
def test_what_is_no_json_number_costs_no_neighbour_either(spelling: str) -> None:
    bad = text(trade(trade_price=literal(spelling)))
    assert refused(bad) == "json"
    payload = text([trade(), literal(bad.decode()), short(trade())]).replace(b'\\"', b'"').replace(b'"#', b"").replace(b'#"', b"")
    rows, faults = read(payload)
    assert [row["row"] for row in rows] == [1, 1]
    assert [(payload[fault.start : fault.stop], fault.reason) for fault in faults] == [(bad, "json")]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "json"), (b"{", "json"), (b"[]", "empty"), (b"[", "json"), (b"[{}]", "no_type"), (b"7", "no_type"), (b"null", "no_type"),
        (b'{"type":"trade"', "json"), (b"\xff" * 20, "json"), (b'{"type":' + b"[" * 5000, "json"), (b'{"status":"UP"}', "no_type"),
        (text(trade())[:-1], "json"), (text(trade()).replace(b"KRW-BTC", b"\xbb\xef\xbc\xba"), "json"), (text(trade()) + b"x", "json"),
        (text([trade()] * (MAX_INPUTS_PER_MESSAGE + 1)), "count"), (text(trade(trade_price=literal("1e400"))), "json"),
    ],
)  # fmt: skip
def test_a_payload_of_which_nothing_is_readable_is_refused(payload: bytes, reason: str) -> None:
    assert refused(payload) == reason


def test_a_list_may_hold_as_many_as_fit() -> None:
    rows, faults = read(text([trade()] * MAX_INPUTS_PER_MESSAGE))
    assert (len(rows), faults) == (MAX_INPUTS_PER_MESSAGE, [])


@given(st.integers(-(10**15) + 1, 10**15 - 1), st.integers(-12, 6), st.booleans())
def test_a_decimal_of_fifteen_digits_keeps_its_value(digits: int, exponent: int, quoted: bool) -> None:
    spelling = f"{digits}E{exponent}"
    (row,), _ = read(text(trade(trade_volume=spelling if quoted else literal(spelling))))
    assert row["size"] == float(spelling)


def test_a_sequence_stays_an_integer() -> None:
    for sequence in (2**53 + 1, 17_840_000_001_010_005, 2**63 - 1):
        (row,), _ = read(text(trade(sequential_id=sequence)))
        assert row["venue_seq"] == sequence


def test_a_duplicate_key_and_deep_unknown_fields_do_no_harm() -> None:
    (row,), _ = read(text(trade())[:-1] + b',"trade_price":7,"x":' + b"[" * 50 + b"]" * 50 + b"}")
    assert (row["price"], row["event_ns"]) == (7.0, NS)


@pytest.mark.parametrize(
    ("payload", "kind", "code", "fatal"),
    [
        (b'{"status":"UP"}', "status", "UP", False),
        (b'[{"status":"UP"}]', "status", "UP", False),
        (b'{"error":{"name":"NO_TICKET","message":"x"}}', "error", "NO_TICKET", True),
        ('{"error":{"message":"형식","name":"WRONG_FORMAT"}}'.encode(), "error", "WRONG_FORMAT", True),
        (b'[{"error":{"name":404,"message":"Code not found"}}]', "error", "404", True),
        (b'{ "message":"x", "error":{}}', "error", "", True),
        (b'{"method":"LIST_SUBSCRIPTIONS","result":[],"ticket":"x"}', "status", "LIST_SUBSCRIPTIONS", False),
        (b'{"mthd":"LIST_SUBSCRIPTIONS","rslt":[],"tckt":"x"}', "status", "LIST_SUBSCRIPTIONS", False),
    ],
)
def test_control_messages(payload: bytes, kind: str, code: str, fatal: bool) -> None:
    assert UPBIT.classify(payload) == "control"
    (control,) = UPBIT.control(memoryview(payload))
    assert (control.kind, control.code, control.fatal, control.retry) == (kind, code, fatal, False)


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b'{"error":5}', b'"status"', b"{", b'{"status"'])
def test_a_control_message_that_says_nothing_is_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        UPBIT.control(payload)


@pytest.mark.parametrize("payload", [b"", b"{", b'{"status"', text(trade()), text([short(book())]), b'{"code":"status","type":"trade"}'])
def test_all_else_is_data(payload: bytes) -> None:
    assert UPBIT.classify(payload) == "data"


def test_one_request_names_everything_wanted() -> None:
    pairs = [("trade", "KRW-BTC"), ("book", "KRW-BTC"), ("trade", "KRW-ETH"), ("ticker", "BTC-XRP")]
    (sent,) = UPBIT.subscribe(pairs, "synthetic-ticket")
    assert json.loads(sent.payload) == [
        {"ticket": "synthetic-ticket"},
        {"type": "trade", "codes": ["KRW-BTC", "KRW-ETH"]},
        {"type": "orderbook", "codes": ["KRW-BTC.1"]},
        {"type": "ticker", "codes": ["BTC-XRP"]},
        {"format": "DEFAULT"},
    ]
    assert (sent.text, sent.covers) == (True, tuple(pairs))
    assert 60 / sent.spacing_s <= 100
    assert UPBIT.subscribe([], "t") == UPBIT.unsubscribe(pairs, "t") == []
    assert UPBIT.replaces
    assert UPBIT.confirmation == "first_frame"
    assert json.loads(upbit(depth=15).subscribe([("book", "KRW-BTC")], "")[0].payload)[1:2] == [
        {"type": "orderbook", "codes": ["KRW-BTC.15"]}
    ]


def test_addresses_and_limits() -> None:
    assert UPBIT.connect_url() == "ws://127.0.0.1:81/websocket/v1"
    assert UPBIT.limits.registrations is None
    assert (UPBIT.limits.ping_every_s, UPBIT.limits.pong_timeout_s, UPBIT.limits.mute_s) == (20.0, 10.0, 30.0)
    assert upbit(mute_s=12).limits.mute_s == 12


def test_no_key_is_needed() -> None:
    assert not UPBIT.needs_credential
    assert UPBIT.approval_request(Credential("X", "k", "s")) is UPBIT.token_request(Credential("X", "k", "s")) is None
    with pytest.raises(ConnectionLost):
        UPBIT.parse_approval(200, b"{}")
    with pytest.raises(ConnectionLost):
        UPBIT.parse_token(200, b"{}", RECV_NS)


@pytest.mark.parametrize("wrong", [{"venue": "krx"}, {"channels": ("orderbook",)}, {"depth": 2}, {"depth": True}, {"level": 0}])
def test_options_that_upbit_does_not_have_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        upbit(**wrong)


@pytest.mark.parametrize("symbol", ["krw-btc", "KRWBTC", "KRW-", "KRW-BTC.1", ""])
def test_a_code_that_the_socket_would_ignore_is_refused(symbol: str) -> None:
    with pytest.raises(ConfigError):
        UPBIT.slot_symbol(symbol)
    assert UPBIT.slot_symbol("BTC-1INCH") == UPBIT.record_symbol("BTC-1INCH") == "BTC-1INCH"
