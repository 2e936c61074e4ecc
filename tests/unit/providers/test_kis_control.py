"""KIS: what answers mean, what is sent, symbols, credentials, settings."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cases import kis
from synthetic_kis import answer

from obs.errors import AuthRejected, ConfigError, ConnectionLost, DecodeError
from obs.providers.base import Credential, ProviderOptions
from obs.providers.registry import make_provider

KR = kis()
US = kis("us_stocks", "us", ("trade",))
CREDENTIAL = Credential("KIS", "synthetic-app-key", "synthetic-app-secret")
NOW_NS = 1_784_000_000_000_000_000


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (answer("OPSP0000", "SUBSCRIBE SUCCESS", "0"), {"kind": "ack", "registered": True}),
        (answer("OPSP0001", "UNSUBSCRIBE SUCCESS", "0"), {"kind": "ack", "registered": False}),
        (answer("OPSP0002", "ALREADY IN SUBSCRIBE"), {"kind": "ack", "registered": True}),
        (answer("OPSP0003", "UNSUBSCRIBE ERROR(not found!)"), {"kind": "ack", "registered": False}),
        (answer("OPSP0007", "SUBSCRIBE INTERNAL ERROR"), {"kind": "refused", "retry": True}),
        (answer("OPSP0008", "MAX SUBSCRIBE OVER"), {"kind": "limit", "retry": True, "fatal": False}),
        (answer("OPSP0011", "invalid approval : NOT FOUND"), {"kind": "auth", "retry": True, "fatal": True}),
        (answer("OPSP8991", "invalid tr_id"), {"kind": "refused", "retry": False}),
        (answer("", "SUBSCRIBE ERROR : mci send failed"), {"kind": "refused", "retry": False}),
        (answer("OPSP9999", "something new"), {"kind": "refused", "retry": True}),
        (answer("OPSP9998", "something good", "0"), {"kind": "status"}),
    ],
)
def test_an_answer_is_classed_and_names_its_registration(payload: bytes, expected: dict[str, Any]) -> None:
    (control,) = KR.control(memoryview(payload))
    assert (control.channel, control.symbol) == ("trade", "005930")
    assert {name: getattr(control, name) for name in expected} == expected


def test_in_use_needs_no_known_tr_id() -> None:
    (control,) = KR.control(answer("OPSP8996", "ALREADY IN USE appkey", "9", "(null)", ""))
    assert (control.kind, control.channel, control.symbol, control.fatal, control.retry) == ("in_use", "", "", True, True)
    assert KR.limits.in_use_backoff_s[:4] == (5.0, 10.0, 20.0, 40.0)
    (control,) = KR.control(answer("OPSP1234", "no registration named", "1", "(null)", ""))
    assert control.kind == "error"


def test_a_ping_is_answered_with_the_same_text() -> None:
    payload = b'{"header":{"tr_id":"PINGPONG","datetime":"20260714093000"}}'
    (control,) = KR.control(payload)
    assert (control.kind, control.reply) == ("ping", payload)


def test_an_answer_gives_away_no_key() -> None:
    payload = b'{"header":{"tr_id":"H0STCNT0","tr_key":"005930","encrypt":"N"},"body":{"rt_cd":"0","msg_cd":"OPSP0000","msg1":"OK",'
    payload += b'"output":{"iv":"syntheticiviviv1","key":"synthetickeykeykeykeykeykeykey12"}}}'
    assert "synthetic" not in repr(KR.control(payload))


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"[]", b"{}", b'{"header":1}', b'{"header":{}}', b'{"header":{},"body":{}}', b'{"header":{"tr_id":[]},"body":1}']
)
def test_a_control_message_that_says_nothing_is_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        KR.control(payload)


def test_subscribe_and_unsubscribe_are_a_message_for_each_pair() -> None:
    pairs = [("trade", "005930"), ("book", "Q500001")]
    sent = KR.subscribe(pairs, "synthetic-approval")
    assert [json.loads(one.payload) for one in sent] == [
        {
            "header": {"approval_key": "synthetic-approval", "custtype": "P", "tr_type": "1", "content-type": "utf-8"},
            "body": {"input": {"tr_id": tr_id, "tr_key": key}},
        }
        for tr_id, key in (("H0STCNT0", "005930"), ("H0STASP0", "Q500001"))
    ]
    assert [(one.text, one.spacing_s, one.covers) for one in sent] == [(True, 0.05, (pair,)) for pair in pairs]
    assert [json.loads(one.payload)["header"]["tr_type"] for one in KR.unsubscribe(pairs, "k")] == ["2", "2"]
    assert "synthetic-approval" not in repr(sent)


@pytest.mark.parametrize(
    ("written", "symbol", "key", "record"),
    [
        ("AAPL", "NAS:AAPL", "DNASAAPL", "AAPL"),
        ("NYS:BRK.B", "NYS:BRK.B", "DNYSBRK.B", "BRK.B"),
        ("AMS:SPY", "AMS:SPY", "DAMSSPY", "SPY"),
        ("BAQ:AAPL", "BAQ:AAPL", "RBAQAAPL", "AAPL"),
    ],
)
def test_us_symbols_from_configuration_to_key_and_back(written: str, symbol: str, key: str, record: str) -> None:
    assert US.slot_symbol(written) == symbol
    (outgoing,) = US.subscribe([("trade", symbol)], "k")
    assert json.loads(outgoing.payload)["body"]["input"] == {"tr_id": "HDFSCNT0", "tr_key": key}
    (control,) = US.control(answer("OPSP0000", "SUBSCRIBE SUCCESS", "0", "HDFSCNT0", key))
    assert (control.channel, control.symbol) == ("trade", symbol)
    assert US.record_symbol(symbol) == record


@pytest.mark.parametrize("symbol", ["005930", "0193T0", "33637K", "Q500001"])
def test_korean_symbols_are_themselves(symbol: str) -> None:
    assert KR.slot_symbol(symbol) == KR.record_symbol(symbol) == symbol


@pytest.mark.parametrize(
    ("provider", "text"), [(KR, "AAPL"), (KR, "05930"), (KR, "A005930"), (KR, ""), (US, "aapl"), (US, "XXX:AAPL"), (US, "NAS:")]
)
def test_a_symbol_that_the_market_does_not_have_is_refused(provider: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=repr(text)):
        provider.slot_symbol(text)


def test_registrations_count_channels() -> None:
    assert KR.limits.registrations == 41
    assert kis(channels=("trade",)).registrations(41) == 41
    assert kis(channels=("trade", "book")).registrations(20) == 40


def test_the_paper_server_wants_longer_pauses_and_every_limit_is_a_setting() -> None:
    assert KR.connect_url() == "ws://127.0.0.1:21000/tryitout"
    paper = kis(registrations=40, mute_s=45)
    assert (paper.limits.registrations, paper.limits.mute_s) == (40, 45)
    options = ProviderOptions("kis", "kr_stocks", "krx", ("trade",), 41, "http://h", "ws://h:31000/root")
    provider = make_provider("kis", options)
    assert provider.subscribe([("trade", "005930")], "k")[0].spacing_s == 0.5
    assert provider.connect_url() == "ws://h:31000/root"


@pytest.mark.parametrize(
    "wrong",
    [
        {"market": "crypto", "venue": "kr"},
        {"venue": "us"},
        {"channels": ("ticker",)},
        {"channels": ()},
        {"market": "us_stocks", "venue": "us", "channels": ("trade", "book")},
        {"mute_s": "90"},
        {"mute_s": -1},
        {"speed": 1},
    ],
)
def test_options_that_kis_does_not_have_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        kis(**wrong)
    assert len(caught.value.problems) >= 1


def test_requests_for_keys_hold_the_secret_in_the_body_alone() -> None:
    approval, token = KR.approval_request(CREDENTIAL), KR.token_request(CREDENTIAL)
    assert approval is not None
    assert token is not None
    assert (approval.method, approval.url) == ("POST", "http://127.0.0.1:9443/oauth2/Approval")
    assert (token.method, token.url) == ("POST", "http://127.0.0.1:9443/oauth2/tokenP")
    same = {"grant_type": "client_credentials", "appkey": CREDENTIAL.key}
    assert json.loads(approval.body) == same | {"secretkey": CREDENTIAL.secret}
    assert json.loads(token.body) == same | {"appsecret": CREDENTIAL.secret}
    for shown in (repr(approval), repr(token), repr(CREDENTIAL), str(KR.parse_approval(200, b'{"approval_key":"synthetic-key"}'))):
        assert "synthetic" not in shown


def test_an_approval_key_is_returned() -> None:
    assert KR.parse_approval(200, b'{"approval_key":"synthetic-key"}').key == "synthetic-key"


@pytest.mark.parametrize(
    ("body", "expires_s"),
    [
        ({"expires_in": 86400}, 86400),
        ({"expires_in": 86400, "access_token_token_expired": "2026-07-14 18:33:20"}, 6 * 3600),  # the same token again: KST
        ({"expires_in": 60, "access_token_token_expired": "2026-07-14 18:33:20"}, 60),
        ({"access_token_token_expired": "2026-07-14 18:33:20", "expires_in": "x"}, 6 * 3600),
    ],
)
def test_a_token_ends_at_the_earlier_of_its_stated_ends(body: dict[str, Any], expires_s: int) -> None:
    token = KR.parse_token(200, json.dumps({"access_token": "synthetic-token", **body}).encode(), NOW_NS)
    assert token.value == "synthetic-token"
    assert (token.expires_ns - NOW_NS) // 10**9 == expires_s
    assert "synthetic" not in repr(token)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (403, b'{"error_description":"x","error_code":"EGW00103"}', AuthRejected),
        (500, b'{"error_description":"x","error_code":"EGW00105"}', AuthRejected),
        (403, '{"error_description":"(1분당 1회)","error_code":"EGW00133"}'.encode(), ConnectionLost),
        (200, b'{"error_code":"EGW00201"}', ConnectionLost),
        (503, b"<html>", ConnectionLost),
        (200, b"[]", ConnectionLost),
        (200, b"{}", ConnectionLost),
        (200, b'{"approval_key":"","access_token":5}', ConnectionLost),
        (200, b'{"approval_key":"a\\r\\nb","access_token":"a\\u0000"}', ConnectionLost),
    ],
)
def test_other_answers_say_whether_to_stop_or_to_wait(status: int, body: bytes, error: type[Exception]) -> None:
    with pytest.raises(error) as approval:
        KR.parse_approval(status, body)
    with pytest.raises(error) as token:
        KR.parse_token(status, body, NOW_NS)
    if b"EGW00133" in body:  # too early: the code is the same, the spacing is each call's own
        assert approval.value.facts["retry_after_s"] == 1.0  # type: ignore[attr-defined]
        assert token.value.facts["retry_after_s"] == 60.0  # type: ignore[attr-defined]


def test_a_token_without_an_end_is_not_taken() -> None:
    with pytest.raises(ConnectionLost):
        KR.parse_token(200, b'{"access_token":"synthetic-token"}', NOW_NS)
