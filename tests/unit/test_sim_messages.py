"""The venues' messages: field counts and sums of KIS, keys, formats and spellings of Upbit, and what must not be readable."""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from obs.sim.captured import SymbolMap, is_unasked, map_kis, map_upbit
from obs.sim.kis import KisExchange
from obs.sim.log import SimLog
from obs.sim.malform import HUGE_BYTES, SPOILED, inject, spoil
from obs.sim.market import Message, Stream
from obs.sim.model import ModelSource
from obs.sim.numbered import NumberedSource, trade
from obs.sim.options import SimOptions
from obs.sim.script import VARIANTS
from obs.sim.upbit import ERRORS, RequestError, UpbitExchange, parse_request
from obs.sim.upbit_encode import fixed, java, short

NOW_NS = 1_795_250_417_898_123_456


class Conn:
    """Stands for a subscriber: streams only keep it."""


def kis(source: Any = None, **options: Any) -> KisExchange:
    return KisExchange(SimOptions("kis", **options), source or NumberedSource(100, start_k=0), SimLog(None), [])


def upbit(source: Any = None) -> UpbitExchange:
    return UpbitExchange(SimOptions("upbit"), source or NumberedSource(100, start_k=0), SimLog(None), [])


def kis_stream(exchange: KisExchange, tr_id: str, code: str) -> Stream:
    from obs.sim.kis import CHANNELS

    group, kind = CHANNELS[tr_id]
    assert kind is not None
    return Stream((tr_id, code), kind, exchange.symbol(group, code))


def records(message: Message) -> list[list[str]]:
    flag, _, count, body = message.payload.decode().split("|", 3)
    assert flag == "0"
    assert len(count) == 3
    fields = body.split("^")
    width, rest = divmod(len(fields), int(count))
    assert rest == 0
    return [fields[at : at + width] for at in range(0, len(fields), width)]


@pytest.mark.parametrize(
    ("tr_id", "code", "fields"),
    [("H0STCNT0", "005930", 47), ("H0UNCNT0", "Q500001", 47), ("H0NXCNT0", "0193T0", 47), ("H0STASP0", "005930", 63),
     ("H0UNASP0", "005930", 66), ("HDFSCNT0", "DNASAAPL", 26), ("HDFSASP0", "DNASAAPL", 71)],
)  # fmt: skip
@pytest.mark.parametrize("source", [NumberedSource(100), ModelSource(100, 1)], ids=["numbered", "model"])
def test_kis_record_widths(tr_id: str, code: str, fields: int, source: Any) -> None:
    exchange = kis(source)
    [(_, messages)] = exchange.encode(kis_stream(exchange, tr_id, code), 12, NOW_NS)
    got = [record for message in messages for record in records(message)]
    assert len(got) == 12
    assert {len(record) for record in got} == {fields}
    assert {record[0] for record in got} == {code}
    assert all(text.isascii() for record in got for text in record)


@pytest.mark.parametrize("width", [46, 47, 49])
def test_kis_trade_width_is_settable(width: int) -> None:
    exchange = kis(width=width)
    [(_, messages)] = exchange.encode(kis_stream(exchange, "H0STCNT0", "005930"), 3, NOW_NS)
    assert {len(record) for record in records(messages[0])} == {width}


def test_kis_trades_are_grouped_and_their_sums_hold() -> None:
    exchange = kis()
    stream = kis_stream(exchange, "H0STCNT0", "005930")
    [(_, messages)] = exchange.encode(stream, 20, NOW_NS)
    assert [message.count for message in messages] == [9, 9, 2]
    rows = [record for message in messages for record in records(message)]
    for k, (before, after) in enumerate(pairwise(rows), 2):
        want = trade("krx", "005930", k)
        assert int(after[13]) - int(before[13]) == int(after[12])
        assert int(after[14]) - int(before[14]) == int(after[12]) * int(after[2])
        assert (float(after[2]), float(after[12]), float(after[13])) == want[:3]
        assert (float(after[11]), float(after[10]), float(after[37]), float(after[36])) == want[4:]
        assert after[21] == ("1" if want.side == "buy" else "5")
        assert int(after[7]) <= int(after[9]) or int(after[9]) <= int(after[2]) <= int(after[8])
        assert (after[34], after[43], after[46]) == ("20", "0", "2")
    assert rows[0][33] + rows[0][1] == "20261121174017"


def test_kis_book_levels_are_in_order() -> None:
    exchange = kis(ModelSource(100, 1))
    [(_, messages)] = exchange.encode(kis_stream(exchange, "H0STASP0", "005930"), 50, NOW_NS)
    for message in messages:
        [record] = records(message)
        asks, bids = [int(text) for text in record[3:13]], [int(text) for text in record[13:23]]
        assert asks == sorted(set(asks))
        assert bids == sorted(set(bids), reverse=True)
        assert bids[0] < asks[0]
        assert all(int(text) > 0 for text in record[23:43])
        assert Decimal(record[59]) == Decimal(asks[0] + bids[0]) / 2


def test_upbit_formats_carry_the_same_values() -> None:
    exchange = upbit()
    stream = Stream(("trade", "KRW-BTC"), "trade", exchange.symbol("crypto", "KRW-BTC"))
    for form in ("DEFAULT", "SIMPLE", "JSON_LIST", "SIMPLE_LIST"):
        stream.subs[Conn()] = (form, 30, 0)
    by_form = {way[0]: json.loads(messages[0].payload, parse_float=Decimal) for way, messages in exchange.encode(stream, 1, NOW_NS)}
    default, simple = by_form["DEFAULT"], by_form["SIMPLE"]
    assert by_form["JSON_LIST"] == [default]
    assert by_form["SIMPLE_LIST"] == [simple]
    assert list(default.values()) == list(simple.values())
    want = trade("crypto", "KRW-BTC", 1)
    assert (float(simple["tp"]), float(simple["tv"]), simple["ab"]) == (want.price, want.size, "BID")
    assert (float(simple["bbp"]), float(simple["bap"])) == want[4:6]
    assert simple["sid"] > 2**53
    assert (simple["td"], simple["ttm"], simple["ttms"], simple["st"]) == ("2026-11-21", "08:40:17", NOW_NS // 10**6, "REALTIME")


@pytest.mark.parametrize("levels", [1, 5, 15, 30])
def test_upbit_book_levels(levels: int) -> None:
    exchange = upbit(ModelSource(100, 1))
    stream = Stream(("orderbook", "KRW-XRP"), "book", exchange.symbol("crypto", "KRW-XRP"))
    stream.subs[Conn()] = ("DEFAULT", levels, 0)
    [(_, messages)] = exchange.encode(stream, 20, NOW_NS)
    for message in messages:
        book = json.loads(message.payload)
        units = book["orderbook_units"]
        assert len(units) == levels
        assert units[0]["bid_price"] < units[0]["ask_price"]
        assert [unit["ask_price"] for unit in units] == sorted(unit["ask_price"] for unit in units)


def test_upbit_ticker_tells_the_trades_of_its_symbol() -> None:
    exchange = upbit()
    symbol = exchange.symbol("crypto", "KRW-BTC")
    ticker = Stream(("ticker", "KRW-BTC"), "ticker", symbol)
    ticker.subs[Conn()] = ("DEFAULT", 30, 0)
    [(_, alone)] = exchange.encode(ticker, 3, NOW_NS)
    assert [json.loads(message.payload)["acc_trade_volume"] for message in alone] == [
        trade("crypto", "KRW-BTC", k).acc_volume for k in (1, 2, 3)
    ]
    symbol.has_trades = True  # a trade stream moves the market now; the ticker only tells it
    [(_, beside)] = exchange.encode(ticker, 3, NOW_NS)
    assert {json.loads(message.payload)["acc_trade_volume"] for message in beside} == {trade("crypto", "KRW-BTC", 3).acc_volume}


@pytest.mark.parametrize(
    ("units", "spelled"),
    [
        (11653900000000000, "1.16539E8"),
        (12700000000, "127.0"),
        (79276, "7.9276E-4"),
        (50000, "5.0E-4"),
        (0, "0.0"),
        (162416300, "1.624163"),
    ],
)
def test_java_doubles(units: int, spelled: str) -> None:
    assert java(units) == spelled
    assert Decimal(spelled) == Decimal(fixed(units)) == Decimal(short(units))


@pytest.mark.parametrize(
    ("request_text", "error"),
    [
        ("{", "WRONG_FORMAT"),
        ('{"ticket":"x"}', "WRONG_FORMAT"),
        ('[1,{"ticket":"x"}]', "WRONG_FORMAT"),
        ('[{"type":"trade","codes":["KRW-BTC"]}]', "NO_TICKET"),
        ('[{"ticket":""},{"type":"trade","codes":["KRW-BTC"]}]', "NO_TICKET"),
        ('[{"ticket":"x"}]', "NO_TYPE"),
        ('[{"ticket":"x"},{"codes":["KRW-BTC"]}]', "NO_TYPE"),
        ('[{"ticket":"x"},{"type":"trade"}]', "NO_CODES"),
        ('[{"ticket":"x"},{"type":"trade","codes":[]}]', "NO_CODES"),
        ('[{"ticket":"x"},{"type":"nope","codes":["KRW-BTC"]}]', "INVALID_PARAM"),
        ('[{"ticket":"x"},{"type":"candle.2m","codes":["KRW-BTC"]}]', "INVALID_PARAM"),
        ('[{"ticket":"x"},{"type":"orderbook","codes":["KRW-BTC.7"]}]', "INVALID_PARAM"),
        ('[{"ticket":"x"},{"type":"trade","codes":["KRW-BTC"]},{"format":"XML"}]', "WRONG_FORMAT"),
        ('[{"ticket":"x"},{"type":"trade","codes":["KRW-BTC"],"is_only_realtime":1}]', "WRONG_FORMAT"),
        ('[{"method":"DROP_ALL"},{"ticket":"x"}]', "INVALID_PARAM"),
    ],
)
def test_upbit_refuses(request_text: str, error: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_request(request_text.encode())
    assert caught.value.name == error
    assert error in ERRORS


def test_upbit_accepts_both_spellings_of_the_options() -> None:
    text = '[{"ticket":"x"},{"format":"SIMPLE"},{"type":"orderbook","codes":["KRW-BTC.5","BTC-ETH"],"isOnlyRealtime":true,"level":0}]'
    ticket, form, method, [wanted] = parse_request(text.encode())
    assert (ticket, form, method) == ("x", "SIMPLE", "")
    assert wanted.codes == {"KRW-BTC": 5, "BTC-ETH": 30}
    assert (wanted.snapshot, wanted.realtime) == (False, True)


def good(venue: str) -> Message:
    if venue == "kis":
        exchange = kis()
        [(_, [message])] = exchange.encode(kis_stream(exchange, "H0STCNT0", "005930"), 3, NOW_NS)
        return message
    market = upbit()
    return market.peek(Stream(("trade", "KRW-BTC"), "trade", market.symbol("crypto", "KRW-BTC")))


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in (*SPOILED, "framing")])
@pytest.mark.parametrize("venue", ["kis", "upbit"])
def test_an_unreadable_message_cannot_be_read(venue: str, variant: str) -> None:
    """By the sheet's own rule: KIS width divides exactly and is at least 46, every record starts with the symbol."""
    payload = inject(venue, variant, good(venue))
    if variant == "huge":
        assert len(payload) == HUGE_BYTES
        return
    if venue == "upbit":
        try:
            message = json.loads(payload)
        except ValueError:
            return
        assert not isinstance(message, dict) or message.get("type") != "trade" or not isinstance(message.get("code"), str)
        return
    assert not kis_readable(payload)
    assert kis_readable(good("kis").payload)


def kis_readable(payload: bytes) -> bool:
    parts = payload.split(b"|", 3)
    if len(parts) != 4 or parts[0] != b"0" or parts[1] != b"H0STCNT0" or not parts[2].isdigit() or not int(parts[2]):
        return False
    fields = parts[3].split(b"^")
    width, rest = divmod(len(fields), int(parts[2]))
    return rest == 0 and width >= 46 and all(fields[at] == b"005930" for at in range(0, len(fields), width))


@pytest.mark.parametrize("variant", SPOILED)
def test_a_spoiled_input_leaves_its_neighbours_alone(variant: str) -> None:
    whole = good("kis")
    hurt, place = spoil("kis", variant, whole)
    before, after = records(whole), records(hurt)
    assert [n for n in range(3) if before[n] != after[n]] == [place]
    assert after[place][2] in ("NaN", "abc")
    spoiled, _ = spoil("upbit", variant, good("upbit"))
    assert spoiled.payload != good("upbit").payload


def test_captured_kis_symbols_are_mapped_where_they_must_be() -> None:
    synthetic = good("kis").payload
    symbols = SymbolMap()
    kept = map_kis(synthetic, {"H0STCNT0": ["005930", "000660"]}, symbols)
    assert kept.payload == synthetic
    assert kept.count == 3
    assert [json.loads("{" + tail + "}")["acc_volume"] for tail in kept.tails] == [2, 5, 9]
    mapped = map_kis(synthetic, {"H0STCNT0": ["035720", "000660"]}, symbols)
    assert mapped.payload == synthetic.replace(b"005930", b"035720")
    assert map_kis(synthetic, {"H0UNCNT0": ["035720"]}, symbols).payload == synthetic


def test_captured_upbit_codes_are_mapped_and_spellings_kept() -> None:
    synthetic = b'{"ty":"trade","cd":"KRW-AAA","tp":1.20000E2,"tv":5.0E-4,"sid":17952192611994884,"st":"REALTIME"}'
    symbols = SymbolMap()
    assert map_upbit(synthetic, {"orderbook": ["KRW-BTC"]}, symbols).payload == synthetic
    mapped = map_upbit(synthetic, {"trade": ["KRW-BTC", "KRW-ETH"]}, symbols)
    assert mapped.payload == synthetic.replace(b"KRW-AAA", b"KRW-BTC")
    other = map_upbit(synthetic.replace(b"AAA", b"BBB"), {"trade": ["KRW-BTC", "KRW-ETH"]}, symbols)
    assert b'"KRW-ETH"' in other.payload
    assert json.loads("{" + mapped.tails[0] + "}")["venue_seq"] == 17952192611994884


@pytest.mark.parametrize(
    ("payload", "unasked"),
    [
        (b'{"status":"UP"}', True),
        (b'{"header":{"tr_id":"PINGPONG","datetime":"20230502221924"}}', True),
        (b'{"header":{"tr_id":"H0STCNT0"},"body":{"rt_cd":"0","msg_cd":"OPSP0000","msg1":"SUBSCRIBE SUCCESS"}}', True),
        (b'{"header":{"tr_id":"(null)"},"body":{"rt_cd":"9","msg_cd":"OPSP8996","msg1":"ALREADY IN USE appkey"}}', False),
        (b'{"error":{"name":"NO_TICKET","message":""}}', False),
    ],
)
def test_which_control_messages_a_server_may_say_unasked(payload: bytes, unasked: bool) -> None:
    assert is_unasked(payload) is unasked
