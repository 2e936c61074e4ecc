"""What is traded at all: the master files of KIS and the pairs of Upbit."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from obs.errors import DecodeError
from obs.providers.kis.master import BOARDS, parse_master
from obs.providers.upbit.markets import parse_markets


def record(board: str, symbol: str, name: str = "가나다전자", **fields: str) -> bytes:
    """A synthetic record by the documented places, everything else blank."""
    layout = BOARDS[board]
    made = bytearray(b" " * layout.record_bytes)
    texts = {"kind": "ST", "spac": "N", "base_price": "000071500", "halted": "NNN", "previous_volume": "000012345678", "preferred": "0"}
    texts |= fields
    made[0 : len(symbol)] = symbol.encode()
    encoded = name.encode("cp949")
    made[21 : 21 + len(encoded)] = encoded
    for field, text in texts.items():
        at = getattr(layout, field)
        made[at : at + len(text)] = text.encode()
    return bytes(made) + b"\n"


@pytest.mark.parametrize("board", BOARDS)
def test_a_share(board: str) -> None:
    (one,) = parse_master(record(board, "005930", "삼성전자"), board)
    assert one == ("005930", "삼성전자", 71_500.0, 71_500.0 * 12_345_678, "")


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"halted": "YNN"}, "halted"), ({"halted": "NYN"}, "liquidation"), ({"halted": "NNY"}, "administrative"),
        ({"halted": "YYY"}, "halted"),
        ({"preferred": "1"}, "preferred"), ({"preferred": "2"}, "preferred"), ({"spac": "Y"}, "spac"), ({"kind": "EF"}, "kind EF"),
        ({"kind": "RT"}, "kind RT"), ({}, ""),
    ],
)  # fmt: skip
def test_who_is_not_to_be_watched(board: str, fields: dict[str, str], refused: str) -> None:
    assert parse_master(record(board, "005930", **fields), board)[0].refused == refused


def test_codes_with_letters_and_blank_figures() -> None:
    data = record("kosdaq", "0193T0") + record("kosdaq", "33637K", base_price=" " * 9) + record("kosdaq", "KR7005")
    plain, blank, odd = parse_master(data, "kosdaq")
    assert (plain.symbol, plain.refused) == ("0193T0", "")
    assert math.isnan(blank.previous_close)
    assert math.isnan(blank.traded_value)
    assert odd.refused == "symbol"


def test_a_name_that_fills_its_forty_bytes_is_not_cut_in_a_letter() -> None:
    name = "가" * 20
    assert parse_master(record("kospi", "005930", name), "kospi")[0].name == name


GOOD = record("kospi", "005930") * 3


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\n", GOOD[:-1], GOOD[:-100], GOOD[:100] + b"\n" + GOOD, GOOD.replace(b"000071500", b"00007150X"),
        GOOD + record("kosdaq", "005930"), record("kospi", "005930", halted="   "), record("kospi", "005930", halted="01N"),
        GOOD.replace("가".encode("cp949"), b"\xff\xff"), b"<html>not found</html>\n", record("kospi", "005930").decode("cp949").encode(),
    ],
    ids=[
        "empty", "blank", "open", "cut", "cut inside", "no number", "other board", "no flags", "other flags", "not cp949", "html", "utf-8",
    ],
)  # fmt: skip
def test_a_file_that_is_not_whole_is_no_list(data: bytes) -> None:
    with pytest.raises(DecodeError):
        parse_master(data, "kospi")


@pytest.mark.parametrize("board", BOARDS)
def test_real_records(board: str) -> None:
    folder = os.environ.get("OBS_RECORDINGS")
    if not folder:
        pytest.skip("OBS_RECORDINGS names no folder of recordings")
    data = (Path(folder) / "kis" / f"{board}_code_sample.mst").read_bytes()
    found = parse_master(data if data.endswith(b"\n") else data + b"\n", board)
    assert len(found) == 2
    for one in found:
        assert one.previous_close > 0
        assert one.traded_value > 0
        assert one.name.strip() == one.name != ""


# --- Upbit


def market(code: str, **more: Any) -> dict[str, Any]:
    return {"market": code, "korean_name": f"이름 {code}", "english_name": code, **more}


def ticker(code: str, price: float = 1000.0, value: float = 2e9) -> dict[str, Any]:
    return {"market": code, "trade_price": price, "prev_closing_price": price, "acc_trade_price_24h": value}


MARKETS = [market("KRW-BTC"), market("KRW-ETH"), market("BTC-ETH"), market("KRW-NEW")]
TICKERS = [ticker("KRW-ETH", 5.5, 0), ticker("KRW-BTC"), ticker("KRW-OLD")]


def test_pairs_of_krw_alone_and_what_one_answer_lacks_is_refused() -> None:
    found = {one.symbol: one for one in parse_markets(orjson.dumps(MARKETS), orjson.dumps(TICKERS))}
    assert list(found) == ["KRW-BTC", "KRW-ETH", "KRW-NEW", "KRW-OLD"]
    assert found["KRW-BTC"] == ("KRW-BTC", "이름 KRW-BTC", 1000.0, 2e9, "")
    assert (found["KRW-ETH"].traded_value, found["KRW-ETH"].refused) == (0.0, "")
    assert [found[code].refused for code in ("KRW-NEW", "KRW-OLD")] == ["listing", "listing"]


@pytest.mark.parametrize(
    ("markets", "tickers"),
    [
        (b"<html>", TICKERS), ([], TICKERS), ({"error": {"name": 429}}, TICKERS), (MARKETS, []), (MARKETS, [1]), (MARKETS, "x"),
        ([{"market": "KRW-BTC"}], TICKERS), ([{"korean_name": "x"}], TICKERS), (MARKETS, [{"market": "KRW-BTC"}]),
        (MARKETS, [ticker("KRW-BTC") | {"acc_trade_price_24h": "1"}]), (MARKETS, [ticker("KRW-BTC") | {"prev_closing_price": -1}]),
        (MARKETS, [ticker("KRW-BTC") | {"prev_closing_price": True}]),
    ],
)  # fmt: skip
def test_an_answer_that_is_not_whole_is_no_list(markets: Any, tickers: Any) -> None:
    with pytest.raises(DecodeError):
        parse_markets(*(value if isinstance(value, bytes) else orjson.dumps(value) for value in (markets, tickers)))


def test_real_pairs() -> None:
    folder = os.environ.get("OBS_RECORDINGS")
    if not folder:
        pytest.skip("OBS_RECORDINGS names no folder of recordings")
    lines = [json.loads(line) for line in (Path(folder) / "upbit" / "rest_2026-03-11.jsonl").read_text().splitlines()]
    tickers = next(line["body"] for line in lines if line["target"].startswith("/v1/ticker/all"))
    found = parse_markets(orjson.dumps([market(row["market"]) for row in tickers]), orjson.dumps(tickers))
    assert len(found) == len(tickers) == 244
    assert sum(one.traded_value >= 1e9 for one in found) > 10
    assert not any(one.refused for one in found)
