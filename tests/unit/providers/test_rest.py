"""The REST side of both providers as tables: what is asked, and what is made of answers, good and bad."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_instruments import market, record, ticker

from obs.clock import NS
from obs.config.venues import TYPES
from obs.errors import ConfigError, ConnectionLost, DecodeError, ObsError, RateLimited, TokenExpired
from obs.providers.base import Auth, Call, Credential, ProviderOptions, figure
from obs.providers.kis import KisProvider
from obs.providers.kis.master import BOARDS
from obs.providers.registry import make_provider
from obs.providers.upbit import UpbitProvider
from obs.record.quotes import QUOTE, Candle, merge_quotes, unknown_quotes

KEY, SECRET, TOKEN = "K" * 36, "S" * 180, "T" * 300
AUTH = Auth(Credential("KIS", KEY, SECRET), TOKEN)
PAPER = "https://openapivts.koreainvestment.com:29443"


def kis(venue: str = "krx", market: str = "kr_stocks", rest_url: str = "http://sim", **options: Any) -> KisProvider:
    return KisProvider(ProviderOptions("kis", market, venue, ("trade",), 41, rest_url, "ws://sim", options))


def upbit(venue: str = "kr", **options: Any) -> UpbitProvider:
    return UpbitProvider(ProviderOptions("upbit", "crypto", venue, ("trade",), 41, "http://sim", "ws://sim", options))


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * NS


def query(call: Call) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(call.request.url).query, keep_blank_values=True).items()}


def path(call: Call) -> str:
    return urlsplit(call.request.url).path


# --- what is asked


def test_kis_quotes_thirty_symbols_a_call() -> None:
    symbols = [f"{number:06}" for number in range(61)]
    calls = kis().quote_calls(symbols, AUTH)
    assert [call.symbols for call in calls] == [tuple(symbols[:30]), tuple(symbols[30:60]), ("000060",)]
    assert {(path(call), call.group, call.request.method) for call in calls} == {
        ("/uapi/domestic-stock/v1/quotations/intstock-multprice", "rest", "GET")
    }
    asked = query(calls[1])
    assert (asked["FID_INPUT_ISCD_1"], asked["FID_INPUT_ISCD_30"], len(asked)) == ("000030", "000059", 60)
    assert {value for name, value in asked.items() if name.startswith("FID_COND")} == {"J"}
    assert set(query(kis("unified").quote_calls(["005930"], AUTH)[0]).items()) == {
        ("FID_COND_MRKT_DIV_CODE_1", "UN"), ("FID_INPUT_ISCD_1", "005930"),
    }  # fmt: skip


def test_kis_signs_its_data_calls_and_shows_no_secret() -> None:
    provider = kis()
    holiday = provider.holiday_call(20260122, AUTH)
    assert holiday is not None
    calls = [*provider.quote_calls(["005930"], AUTH), provider.candle_call("005930", ns("2026-01-22T09:30+09:00"), AUTH), holiday]
    for call, tr_id in zip(calls, ("FHKST11300006", "FHKST03010200", "CTCA0903R"), strict=True):
        headers = dict(call.request.headers)
        assert headers["authorization"] == f"Bearer {TOKEN}"
        assert (headers["appkey"], headers["appsecret"], headers["tr_id"], headers["custtype"]) == (KEY, SECRET, tr_id, "P")
        assert not any(secret in repr(call) + call.request.url for secret in (KEY, SECRET, TOKEN))
    assert not any(secret in repr(AUTH) for secret in (KEY, SECRET, TOKEN))
    for make in (lambda: provider.quote_calls(["005930"], None), lambda: provider.candle_call("005930", 0, None)):
        with pytest.raises(ValueError, match="needs a token"):
            make()


def test_kis_asks_for_the_last_minute_of_the_bar_and_for_the_calendar() -> None:
    asked = query(kis().candle_call("005930", ns("2026-01-22T15:20+09:00"), AUTH))
    assert (asked["FID_INPUT_ISCD"], asked["FID_INPUT_HOUR_1"], asked["FID_COND_MRKT_DIV_CODE"]) == ("005930", "152900", "J")
    holiday = kis().holiday_call(20260122, AUTH)
    assert holiday is not None
    assert query(holiday) == {"BASS_DT": "20260122", "CTX_AREA_NK": "", "CTX_AREA_FK": ""}


def test_the_masters_are_where_the_section_says() -> None:
    assert [call.request.url for call in kis().universe_calls(20260122)] == [
        "https://new.real.download.dws.co.kr/common/master/kospi_code.mst.zip",
        "https://new.real.download.dws.co.kr/common/master/kosdaq_code.mst.zip",
    ]
    (first, _) = kis(master_url="http://127.0.0.1:9/common/master").universe_calls(20260122)
    assert (first.request.url, first.request.headers) == ("http://127.0.0.1:9/common/master/kospi_code.mst.zip", ())


def test_upbit_asks_for_all_tickers_at_once_and_for_books_by_the_hundred() -> None:
    symbols = [f"KRW-A{number}" for number in range(101)]
    calls = upbit().quote_calls(symbols, None)
    assert [(path(call), call.group, len(call.symbols)) for call in calls] == [
        ("/v1/ticker/all", "ticker", 101), ("/v1/orderbook", "orderbook", 100), ("/v1/orderbook", "orderbook", 1),
    ]  # fmt: skip
    assert query(calls[2]) == {"markets": "KRW-A100", "count": "1"}
    asked = upbit().candle_call("KRW-BTC", ns("2026-01-22T23:50+00:00"), None)
    assert (path(asked), asked.group) == ("/v1/candles/minutes/10", "candles")
    assert query(asked) == {"market": "KRW-BTC", "to": "2026-01-23T00:00:00Z", "count": "1"}
    assert [path(call) for call in upbit().universe_calls(20260122)] == ["/v1/market/all", "/v1/ticker/all"]
    assert upbit().holiday_call(20260122, None) is None


@pytest.mark.parametrize(
    ("provider", "rates", "selects"),
    [
        (kis(), {"rest": 15.0, "master": 1.0}, True), (kis("unified"), {"rest": 15.0, "master": 1.0}, True),
        (kis(calls_per_s=3), {"rest": 3.0, "master": 1.0}, True), (kis(rest_url=PAPER), {"rest": 0.9, "master": 1.0}, False),
        (kis("nxt"), {"rest": 15.0, "master": 1.0}, False), (kis("us", "us_stocks"), {"rest": 15.0, "master": 1.0}, False),
        (upbit(), dict.fromkeys(("market", "ticker", "orderbook", "candles"), 8.0), True),
        (upbit("sg", calls_per_s=1), dict.fromkeys(("market", "ticker", "orderbook", "candles"), 1.0), False),
    ],
)  # fmt: skip
def test_limits_and_where_there_is_a_universe(provider: KisProvider | UpbitProvider, rates: dict[str, float], selects: bool) -> None:
    assert (dict(provider.rest.calls_per_s), provider.rest.selects) == (rates, selects)
    assert provider.rest.candle_group in rates
    assert bool(provider.universe_calls(20260122)) == selects


def test_the_configuration_and_the_providers_agree_where_symbols_can_be_selected() -> None:
    for name, kind in TYPES.items():
        for place in kind.places:
            options = ProviderOptions(name, place.market, place.venue, kind.channels, 41, place.rest_url, place.ws_url)
            assert make_provider(name, options).rest.selects == (not place.unselected), place
    assert [urlsplit(PAPER).port] == list(TYPES["kis"].paper_ports)


@pytest.mark.parametrize("make", [kis, upbit])
def test_a_wrong_setting_of_the_rest_side_is_refused(make: Any) -> None:
    for wrong in ({"calls_per_s": 0}, {"quote_symbols": -1}, {"master_url": 5}, {"call_per_s": 3}):
        with pytest.raises(ConfigError):
            make(**wrong)


# --- quotes

KIS_ROW = {
    "inter_shrn_iscd": "005930", "inter_kor_isnm": "삼성전자", "inter2_prpr": "71500", "inter2_oprc": "71000", "inter2_hgpr": "72000",
    "inter2_lwpr": "70900", "inter2_askp": "71600", "inter2_bidp": "71500", "acml_vol": "123456", "acml_tr_pbmn": "8827104000",
    "inter2_prdy_clpr": "70000", "inter2_sdpr": "70100",
}  # fmt: skip


def good(output: Any, name: str = "output") -> bytes:
    return orjson.dumps({name: output, "rt_cd": "0", "msg_cd": "MCA00000", "msg1": "정상처리 되었습니다."})


def figures(row: np.void) -> dict[str, float]:
    return {name: float(row[name]) for name in QUOTE.names or () if name not in ("symbol", "event_ns") and not math.isnan(row[name])}


def test_a_quote_of_kis() -> None:
    (row,) = kis().parse_quotes(good([KIS_ROW]), ["005930"])
    assert (row["symbol"], row["event_ns"]) == (b"005930", 0)
    assert figures(row) == {
        "price": 71500, "day_open": 71000, "day_high": 72000, "day_low": 70900, "acc_volume": 123456, "acc_value": 8827104000,
        "bid_price": 71500, "ask_price": 71600, "base_price": 70100,
    }  # fmt: skip
    assert figures(kis().parse_quotes(good(KIS_ROW), ["005930"])[0]) == figures(row), "one object instead of a list of one"


@pytest.mark.parametrize(
    ("change", "unknown"),
    [
        ({"inter2_prpr": "0"}, {"price"}), ({"inter2_prpr": ""}, {"price"}), ({"inter2_prpr": "-71500"}, {"price"}),
        ({"inter2_prpr": "NaN"}, {"price"}), ({"inter2_prpr": "1e999"}, {"price"}), ({"inter2_prpr": None}, {"price"}),
        ({"inter2_prpr": {}}, {"price"}), ({"inter2_prpr": True}, {"price"}),
        ({"inter2_oprc": "0", "inter2_hgpr": "0", "inter2_lwpr": "0"}, {"day_open", "day_high", "day_low"}),
        ({"inter2_askp": "0"}, {"ask_price"}), ({"acml_vol": "0"}, set()), ({"acml_vol": "x"}, {"acc_volume"}),
    ],
)  # fmt: skip
def test_a_figure_that_is_none_is_not_known_and_its_neighbours_are(change: dict[str, Any], unknown: set[str]) -> None:
    first, second = kis().parse_quotes(good([KIS_ROW | change, KIS_ROW | {"inter_shrn_iscd": "000660"}]), ["005930", "000660"])
    assert set(figures(second)) - set(figures(first)) == unknown
    assert len(figures(second)) == 9


def test_rows_of_kis_that_do_not_read_are_left_out() -> None:
    others = [KIS_ROW | {"inter_shrn_iscd": symbol} for symbol in ("999999", None, 5930, ["005930"], {})]
    rows: list[Any] = ["x", None, {}, *others, KIS_ROW]
    assert [row["symbol"] for row in kis().parse_quotes(good(rows), ["000660", "005930"])] == [b"005930"]


def upbit_ticker(code: str, **more: Any) -> dict[str, Any]:
    return ticker(code) | {
        "opening_price": 900.0, "high_price": 1.1e3, "low_price": "899.5", "acc_trade_volume": 5.0e-4, "acc_trade_price": 2e6,
        "trade_timestamp": 1773240058930, **more,
    }  # fmt: skip


def book(code: str, bid: float, ask: float) -> dict[str, Any]:
    unit = {"ask_price": ask, "bid_price": bid, "ask_size": 1.0, "bid_size": 2.0}
    return {"market": code, "timestamp": 1, "orderbook_units": [unit, unit | {"ask_price": 9e9}]}


def test_tickers_and_books_of_upbit_are_one_quote() -> None:
    symbols = ["KRW-BTC", "KRW-ETH", "KRW-GONE"]
    quotes, place = unknown_quotes(3), {symbol.encode(): at for at, symbol in enumerate(symbols)}
    quotes["symbol"] = symbols
    tickers = orjson.dumps([upbit_ticker("KRW-ETH"), upbit_ticker("KRW-ELSE"), upbit_ticker("KRW-BTC", trade_price=0), 7])
    for body in (tickers, orjson.dumps([book("KRW-ETH", 999.0, 1001.0), book("KRW-BTC", 0, 8.0)])):
        merge_quotes(quotes, upbit().parse_quotes(body, symbols), place)
    btc, eth, gone = quotes
    assert figures(eth) == {
        "price": 1000, "day_open": 900, "day_high": 1100, "day_low": 899.5, "acc_volume": 5e-4, "acc_value": 2e6, "bid_price": 999,
        "ask_price": 1001, "base_price": 1000,
    }  # fmt: skip
    assert eth["event_ns"] == 1773240058930 * 10**6
    assert math.isnan(btc["price"])
    assert math.isnan(btc["bid_price"])
    assert btc["ask_price"] == 8.0
    assert figures(gone) == {}


# --- bars

BAR = ns("2026-01-22T09:30+09:00")


def minute(hhmm: str, value: int, volume: int = 10, prices: tuple[int, ...] = (100, 105, 95, 101), day: str = "20260122") -> dict[str, str]:
    names = ("stck_oprc", "stck_hgpr", "stck_lwpr", "stck_prpr")
    return {
        "stck_bsop_date": day, "stck_cntg_hour": f"{hhmm}00", "cntg_vol": str(volume), "acml_tr_pbmn": str(value),
        **{name: str(price) for name, price in zip(names, prices, strict=True)},
    }  # fmt: skip


def bar(rows: list[Any]) -> Candle | None:
    return kis().parse_candle(good(rows, "output2"), BAR)


WHOLE = [minute(f"09{number}", 1000 * number, number, (number, number + 5, number - 5, number + 1)) for number in range(10, 40)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (WHOLE[::-1], (30, 44, 25, 40, sum(range(30, 40)))),  # newest first, as the venue sends them
        (WHOLE, (30, 44, 25, 40, sum(range(30, 40)))),
        ([minute("0930", 1000)], (100, 105, 95, 101, 10)),
        ([minute("0939", 1000)], (100, 105, 95, 101, 10)),
        ([minute("0929", 1000), minute("0940", 2000), minute("0935", 1000, day="20260121")], None),
        ([minute("0935", 1000, volume=0)], None),
        # A minute without a trade shows the volume of the one before, and the cumulative value has not moved.
        ([minute("0935", 1500, 7), minute("0934", 1500, 7), minute("0933", 1500, 7), minute("0932", 800)], (100, 105, 95, 101, 17)),
        ([minute("0930", 800, 9), minute("0929", 800, 9)], None),
        ([minute("0935", 1500, 7), minute("0935", 1500, 7)], (100, 105, 95, 101, 7)),  # the same row twice
    ],
)
def test_the_bar_is_made_of_its_own_minutes(rows: list[Any], expected: tuple[float, ...] | None) -> None:
    assert bar(rows) == (None if expected is None else Candle(BAR, *map(float, expected)))


@pytest.mark.parametrize(
    "body",
    [
        good([], "output2"), good({}, "output2"), good([1], "output2"), good([minute("0930", 1000)], "output"), b"", b"{", b"[]",
        b"<html>", good([minute("0930", 1000, prices=(0, 105, 95, 101))], "output2"),
        good([minute("0930", 1000, prices=(100, 99, 95, 101))], "output2"),
    ],
)  # fmt: skip
def test_no_bar_is_made_of_what_is_not_whole(body: bytes) -> None:
    with pytest.raises(DecodeError):
        kis().parse_candle(body, BAR)


UPBIT_BAR = ns("2026-01-22T00:30+00:00")


def candle(begins: str, **more: Any) -> dict[str, Any]:
    return {
        "market": "KRW-BTC", "candle_date_time_utc": begins, "opening_price": 10.0, "high_price": 12.0, "low_price": 9.0,
        "trade_price": 11.0, "candle_acc_trade_volume": 0.5, "unit": 10, **more,
    }  # fmt: skip


def test_a_candle_of_upbit_is_of_its_own_period_or_none() -> None:
    def parse(rows: Any) -> Candle | None:
        return upbit().parse_candle(orjson.dumps(rows), UPBIT_BAR)

    assert parse([candle("2026-01-22T00:30:00")]) == Candle(UPBIT_BAR, 10.0, 12.0, 9.0, 11.0, 0.5)
    assert parse([candle("2026-01-22T00:20:00")]) is None, "the newest one is older: nothing was traded"
    assert parse([]) is None
    for wrong in (
        {"error": 1}, [candle("2026-01-22T00:30:00", high_price=0)], [candle("2026-01-22T00:30:00", low_price=10.5)],
        [candle("2026-01-22T00:30:00", candle_acc_trade_volume=None)], [{"market": "KRW-BTC"}],
    ):  # fmt: skip
        with pytest.raises(DecodeError):
            parse(wrong)


# --- masters, holidays


def zipped(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


MASTERS = [zipped((f"{board}_code.mst", record(board, f"00593{place}"))) for place, board in enumerate(BOARDS)]


def test_both_masters_are_one_list() -> None:
    assert [one.symbol for one in kis().parse_universe(MASTERS)] == ["005930", "005931"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", MASTERS[0][:-30], MASTERS[0][:40], zipped(), zipped(("a.mst", b"x\n"), ("b.mst", b"y\n")), zipped(("a.txt", b"x")),
        MASTERS[0].replace(MASTERS[0][60:64], b"\0\0\0\0"), zipped(("kospi_code.mst", record("kosdaq", "005930"))),
    ],
    ids=["empty", "html", "cut", "head", "no member", "two", "other", "hurt", "other board"],
)  # fmt: skip
def test_a_hurt_master_is_no_list(body: bytes) -> None:
    with pytest.raises(DecodeError):
        kis().parse_universe([body, MASTERS[1]])


def test_holidays() -> None:
    rows = [{"bass_dt": "20260122", "opnd_yn": "Y"}, {"bass_dt": "20260123", "opnd_yn": "N"}]
    assert kis().parse_holidays(good(rows)) == {20260122: True, 20260123: False}
    spoiled = ([], {}, [{"bass_dt": "x", "opnd_yn": "Y"}], [{"bass_dt": "20260122", "opnd_yn": ""}], [7])
    for wrong in (*map(good, spoiled), b"x", b"[]"):
        with pytest.raises(DecodeError):
            kis().parse_holidays(wrong)


def test_upbit_lists_pairs_from_two_answers() -> None:
    found = upbit().parse_universe([orjson.dumps([market("KRW-BTC")]), orjson.dumps([ticker("KRW-BTC")])])
    assert [one.symbol for one in found] == ["KRW-BTC"]


# --- answers as a whole


def refusal(code: str) -> bytes:
    return orjson.dumps({"rt_cd": "1", "msg_cd": code, "msg1": "…"})


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (refusal("EGW00201"), RateLimited), (refusal("EGW00215"), RateLimited), (refusal("EGW00121"), TokenExpired),
        (refusal("EGW00123"), TokenExpired), (refusal("OPSQ2000"), ConnectionLost), (b"<html>", ConnectionLost), (b"", ConnectionLost),
        (b'{"rt_cd":"0"', ConnectionLost), (b"[]", ConnectionLost), (b"{}", ConnectionLost), (b'{"error_code":"EGW00123"}', TokenExpired),
        (good([]), None),
    ],
)  # fmt: skip
def test_kis_is_judged_by_the_body(status: int, body: bytes, kind: type[ObsError] | None) -> None:
    if kind is None:
        assert kis().judge(status, {}, body) == 0.0
        return
    with pytest.raises(kind) as caught:
        kis().judge(status, {}, body)
    if kind is RateLimited:
        assert caught.value.wait_s == 1.0  # type: ignore[attr-defined]
    if kind is ConnectionLost:
        assert caught.value.facts["reason"] == "api_error"


def test_a_master_is_good_by_its_first_bytes() -> None:
    assert kis().judge(200, {}, MASTERS[0]) == 0.0
    for status, body in ((404, MASTERS[0]), (200, b"PK<html>")):
        with pytest.raises(ConnectionLost):
            kis().judge(status, {}, body)
    with pytest.raises(RateLimited):
        kis().judge(429, {}, b"<html>")


@pytest.mark.parametrize(
    ("status", "body", "reason", "wait_s"),
    [
        (429, b'{"error":{"name":"too_many_requests"}}', "limited", 1.0),
        (418, b'{"error":{"name":"blocked","message":"This IP is blocked for 31 seconds."}}', "limited", 31.0),
        (418, b'{"error":{"name":418,"message":"blocked"}}', "limited", 10.0),
        (418, b'{"error":{"message":"blocked until 999999"}}', "limited", 3600.0),
        (404, b'{"error":{"name":404,"message":"Code not found"}}', "unknown_symbol", 0.0),
        (404, b"<html>", "api_error", 0.0), (500, b"[]", "api_error", 0.0), (200, b'{"error":{"name":500}}', "api_error", 0.0),
        (200, b"<html>", "api_error", 0.0), (200, b"", "api_error", 0.0), (200, b" [", "", 0.0),
    ],
)  # fmt: skip
def test_upbit_is_judged_by_status_and_body(status: int, body: bytes, reason: str, wait_s: float) -> None:
    if not reason:
        assert upbit().judge(status, {}, body) == 0.0
        return
    with pytest.raises(ObsError) as caught:
        upbit().judge(status, {}, body)
    assert isinstance(caught.value, RateLimited) == (reason == "limited")
    if reason == "limited":
        assert caught.value.wait_s == wait_s  # type: ignore[attr-defined]
    else:
        assert caught.value.facts["reason"] == reason


@pytest.mark.parametrize(("left", "wait_s"), [("group=ticker; min=600; sec=9", 0.0), ("group=ticker; min=600; sec=0", 0.25), ("?", 0.0)])
def test_upbit_tells_that_nothing_is_left(left: str, wait_s: float) -> None:
    assert upbit().judge(200, {"Remaining-Req": left}, b"[]") == wait_s


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("12.5", 12.5), (3, 3.0), ("1.16539E8", 116539000.0), ("", None), (None, None), ("-1", None), (True, None), ("inf", None),
        ([1], None),
    ],
)  # fmt: skip
def test_a_figure(value: object, number: float | None) -> None:
    assert figure(value) == number if number is not None else math.isnan(figure(value))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from([
            "output", "output2", "inter_shrn_iscd", "inter2_prpr", "stck_bsop_date", "stck_cntg_hour", "cntg_vol", "acml_tr_pbmn",
            "stck_prpr", "bass_dt", "opnd_yn", "market", "orderbook_units", "bid_price", "trade_price", "trade_timestamp",
            "candle_date_time_utc", "korean_name", "rt_cd", "msg_cd", "error",
        ]) | st.text(max_size=3),
        inner, max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip
PARSES = [
    *(lambda body, make=make: make().parse_quotes(body, ["005930", ""]) for make in (kis, upbit)),
    *(lambda body, make=make: make().parse_candle(body, BAR) for make in (kis, upbit)),
    lambda body: kis().parse_holidays(body),
    lambda body: kis().parse_universe([body, body]),
    lambda body: upbit().parse_universe([body, body]),
    *(lambda body, make=make: make().judge(200, {}, body) for make in (kis, upbit)),
]


@pytest.mark.parametrize("place", range(len(PARSES)))
@given(value=JSON | st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_whatever_comes_is_read_or_refused(place: int, value: Any) -> None:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    with contextlib.suppress(DecodeError, ConnectionLost, RateLimited, TokenExpired):
        PARSES[place](body)


# --- recorded answers


def recordings() -> Path:
    folder = os.environ.get("OBS_RECORDINGS")
    if not folder:
        pytest.skip("OBS_RECORDINGS names no folder of recordings")
    return Path(folder)


def test_recorded_answers_of_upbit() -> None:
    lines = [json.loads(line) for line in (recordings() / "upbit" / "rest_2026-03-11.jsonl").read_text().splitlines()]
    found = {line["target"].split("?")[0]: line for line in lines}
    provider = upbit()
    for line in lines:
        assert provider.judge(line["status"], line["headers"], orjson.dumps(line["body"])) == 0.0
    tickers = found["/v1/ticker/all"]["body"]
    symbols = [row["market"] for row in tickers]
    quotes = provider.parse_quotes(orjson.dumps(tickers), symbols)
    assert [symbol.decode() for symbol in quotes["symbol"]] == symbols
    for name, field in (("price", "trade_price"), ("day_high", "high_price"), ("acc_volume", "acc_trade_volume")):
        assert quotes[name].tolist() == [float(row[field]) for row in tickers]
    (row,) = provider.parse_quotes(orjson.dumps(found["/v1/orderbook"]["body"]), ["KRW-BTC"])
    best = found["/v1/orderbook"]["body"][0]["orderbook_units"][0]
    assert (row["bid_price"], row["ask_price"]) == (best["bid_price"], best["ask_price"])
    (minute_candle,) = found["/v1/candles/minutes/1"]["body"]
    at = ns(minute_candle["candle_date_time_utc"] + "+00:00")
    made = provider.parse_candle(orjson.dumps([minute_candle]), at)
    assert made is not None
    assert made[1:] == tuple(
        float(minute_candle[name]) for name in ("opening_price", "high_price", "low_price", "trade_price", "candle_acc_trade_volume")
    )
    assert at == int(datetime(2026, 3, 11, 14, 40, tzinfo=UTC).timestamp()) * NS


def test_recorded_errors_of_kis() -> None:
    lines = (recordings() / "kis" / "rest_errors.jsonl").read_bytes().splitlines()
    with pytest.raises(RateLimited):
        kis().judge(500, {}, lines[0])
    with pytest.raises(ConnectionLost, match="EGW00133"):
        kis().judge(403, {}, lines[1])


def test_recorded_masters_of_kis() -> None:
    folder = recordings() / "kis"
    bodies = []
    for board in BOARDS:
        data = (folder / f"{board}_code_sample.mst").read_bytes()
        bodies.append(zipped((f"{board}_code.mst", data if data.endswith(b"\n") else data + b"\n")))
    assert len(kis().parse_universe(bodies)) == 4


