"""Two readings of the venues' REST documents check each other: what the simulators answer, and what the providers make of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from obs.errors import DecodeError
from obs.market.universe import build
from obs.providers.kis import rest as kis_rest
from obs.providers.upbit import rest as upbit_rest
from obs.providers.upbit.markets import parse_markets
from obs.sim.kis_listed import KisListed
from obs.sim.kis_master import PATHS
from obs.sim.listing import KOSDAQ, KOSPI
from obs.sim.universe import BAR_NS, Universe
from obs.sim.upbit_listed import UpbitListed, encoded

DAY = 20261120
OPEN_NS = int(datetime.fromisoformat("2026-11-20T09:00:00+09:00").timestamp()) * 10**9
AT_NS = OPEN_NS + 3 * 3600 * 10**9 + 61 * 10**9
GOOD = {"rt_cd": "0", "msg_cd": "MCA00000", "msg1": ""}


def answered(universe: Universe, name: str, at_ns: int = AT_NS, **query: str) -> bytes:
    return json.dumps(KisListed(universe).answer(name, query, at_ns)[0] | GOOD, ensure_ascii=False).encode()


def test_the_universe_of_kis_is_what_the_masters_list() -> None:
    sim = Universe("kis", 800, 4)
    bodies = [KisListed(sim).master(path, AT_NS) for path in sorted(PATHS, key=lambda path: PATHS[path])]
    assert (KOSPI, KOSDAQ) == (0, 1)
    listed = kis_rest.parse_universe([body for body in bodies if body is not None])
    assert len(listed) == 800
    found = build("kr_stocks", DAY, "kis", listed, AT_NS)
    price = sim.previous_close(sim.hours.day_of(AT_NS // 10**6))
    assert set(found.symbols) == {code for code, row in sim.row_of.items() if sim.listing.wanted[row] and price[row] >= 4000}
    assert {"halted", "administrative", "preferred", "spac", "small"} <= set(found.refused)
    for one in listed:
        assert one.name == sim.listing.names[sim.row_of[one.symbol]]
    with pytest.raises(DecodeError, match="zip"):
        kis_rest.parse_universe([(bodies[0] or b"")[:1000], bodies[1] or b""])


def test_quotes_of_kis() -> None:
    sim = Universe("kis", 200, 4)
    codes = list(sim.listing.codes[:30])
    query = {f"FID_INPUT_ISCD_{place}": code for place, code in enumerate(codes, 1)}
    state = sim.state(np.arange(30), AT_NS // 10**6)
    quotes = kis_rest.parse_quotes(answered(sim, "intstock-multprice", **query), codes)
    assert quotes["symbol"].tolist() == [code.encode() for code in codes]
    assert quotes["price"].tolist() == state.price.tolist()
    assert quotes["acc_volume"].tolist() == state.volume.tolist()
    assert quotes["acc_value"].tolist() == state.value.tolist()
    assert (quotes["bid_price"] < quotes["ask_price"]).all()
    early = kis_rest.parse_quotes(answered(sim, "intstock-multprice", OPEN_NS - 10**9, **query), codes)
    assert np.isnan(early["day_open"]).all()
    assert (early["base_price"] > 0).all()


def test_bars_of_kis_are_the_true_ones() -> None:
    sim = Universe("kis", 150, 4)
    sim.play("halt", sim.listing.codes[5], OPEN_NS + 700 * 10**9, for_s=1500)
    for symbol in (*sim.listing.codes[:20], *sim.listing.codes[-40:]):
        for bar_ns in (OPEN_NS, OPEN_NS + BAR_NS, OPEN_NS + 2 * BAR_NS, OPEN_NS + 17 * BAR_NS):
            hour = datetime.fromtimestamp((bar_ns + BAR_NS) // 10**9 - 60 + 9 * 3600, UTC).strftime("%H%M%S")
            body = answered(sim, "inquire-time-itemchartprice", FID_INPUT_ISCD=symbol, FID_INPUT_HOUR_1=hour, FID_PW_DATA_INCU_YN="Y")
            read, true = kis_rest.parse_candle(body, bar_ns), sim.bar(symbol, bar_ns)
            assert (read is None) == (true is None)
            assert read is None or tuple(read) == tuple(true or ())


def test_holidays_of_kis() -> None:
    sim = Universe("kis", 50, 4)
    days = kis_rest.parse_holidays(answered(sim, "chk-holiday", BASS_DT=str(DAY)))
    assert len(days) >= 7
    assert [days[DAY + ahead] for ahead in range(5)] == [True, False, False, True, True]


def upbit_body(universe: Universe, path: str, **query: str) -> bytes:
    return encoded(UpbitListed(universe).answer(path, query, AT_NS)).encode()


def test_universe_and_quotes_of_upbit() -> None:
    sim = Universe("upbit", 200, 4)
    markets = upbit_body(sim, "/v1/market/all", is_details="true")
    tickers = upbit_body(sim, "/v1/ticker/all", quote_currencies="KRW")
    found = build("crypto", DAY, "upbit", parse_markets(markets, tickers), AT_NS)
    assert found.symbols[0] == "KRW-BTC"
    assert 50 < len(found.symbols) < 170
    quotes = upbit_rest.parse_quotes(tickers, found.symbols)
    rows = np.array([sim.row_of[bytes(symbol).decode()] for symbol in quotes["symbol"]])
    state = sim.state(rows, AT_NS // 10**6)
    assert quotes["price"].tolist() == (state.price / 1e8).tolist()
    assert quotes["acc_volume"] == pytest.approx(state.volume / 1e8)
    assert (quotes["event_ns"] <= AT_NS).all()
    assert (quotes["event_ns"] > AT_NS - 600 * 10**9).all()
    books = upbit_rest.parse_quotes(upbit_body(sim, "/v1/orderbook", markets=",".join(found.symbols), count="1"), found.symbols)
    assert (books["bid_price"] < books["ask_price"]).all()


def test_bars_of_upbit_are_the_true_ones() -> None:
    sim = Universe("upbit", 60, 4)
    sim.play("halt", "KRW-XRP", AT_NS - 4 * BAR_NS, for_s=1800)
    checked = 0
    for symbol in sim.listing.codes[:20]:
        for back in range(1, 5):
            bar_ns = AT_NS // BAR_NS * BAR_NS - back * BAR_NS
            until = datetime.fromtimestamp((bar_ns + BAR_NS) // 10**9, UTC).isoformat()
            read: Any = upbit_rest.parse_candle(upbit_body(sim, "/v1/candles/minutes/10", market=symbol, to=until), bar_ns)
            true = sim.bar(symbol, bar_ns)
            assert (read is None) == (true is None)
            assert read is None or tuple(read) == tuple(true or ())
            checked += read is None
    assert checked > 0, "a bar in which nothing was traded"
