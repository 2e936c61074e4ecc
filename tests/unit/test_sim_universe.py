"""A simulated market of many symbols: everything is a function of seed, symbol and time, and all ways of asking agree."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from obs.errors import ConfigError
from obs.sim import now
from obs.sim.build import build_exchange, start_clock
from obs.sim.hours import hours_of
from obs.sim.kis_listed import KisListed
from obs.sim.kis_master import WIDTHS, master
from obs.sim.listing import ETF, ETN, KOSDAQ, KOSPI, PREFERRED, SHARE, SPAC
from obs.sim.live import Live
from obs.sim.market import BOOK, TRADE, Stream, Symbol
from obs.sim.model import crypto_tick, krx_tick
from obs.sim.options import SimOptions
from obs.sim.universe import BAR_NS, SCENARIO, Universe, scenario_rows
from obs.sim.upbit_listed import RestError, UpbitListed

MINUTE_NS = 60 * 10**9


def ns_of(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 10**9


OPEN_NS = ns_of("2026-11-20T09:00:00+09:00")  # a Friday
NOON_NS = ns_of("2026-11-20T12:00:00+09:00")


@pytest.fixture(autouse=True)
def host_clock() -> Iterator[None]:
    yield
    now.use_host()


def kis(count: int = 120, seed: int = 3) -> Universe:
    return Universe("kis", count, seed)


def upbit(count: int = 60, seed: int = 3) -> Universe:
    return Universe("upbit", count, seed)


def trades_until(universe: Universe, symbol: str, first_ns: int, until_ns: int) -> list[tuple[int, int, int, int]]:
    """Return (ms, price, size, value) of one symbol's trades, first_ns <= t <= until_ns: one minute after the other."""
    row, out = universe.row_of[symbol], []
    for minute in range(first_ns // MINUTE_NS, until_ns // MINUTE_NS + 1):
        trades = universe.trades(np.array([row]), np.array([minute]))
        out += list(zip(trades.ms.tolist(), trades.price.tolist(), trades.size.tolist(), trades.value.tolist(), strict=True))
    return [one for one in out if first_ns <= one[0] * 10**6 <= until_ns]


@pytest.mark.parametrize(("make", "start_ns"), [(kis, OPEN_NS), (upbit, ns_of("2026-11-20T00:00:00+00:00"))])
def test_a_snapshot_is_the_sum_of_the_trades_before_it(make: Any, start_ns: int) -> None:
    universe: Universe = make()
    at_ns = start_ns + 75 * MINUTE_NS + 31_234 * 10**6
    state = universe.state(universe.rows, at_ns // 10**6)
    checked = 0
    for row, symbol in enumerate(universe.listing.codes):
        found = trades_until(universe, symbol, start_ns, at_ns)
        assert state.trades[row] == len(found)
        if not found:
            continue
        prices = [price for _, price, _, _ in found]
        assert (state.open[row], state.high[row], state.low[row], state.price[row]) == (prices[0], max(prices), min(prices), prices[-1])
        assert (state.volume[row], state.value[row]) == (sum(one[2] for one in found), sum(one[3] for one in found))
        checked += 1
    assert checked > 0.8 * len(universe.rows)


@pytest.mark.parametrize(("make", "start_ns"), [(kis, OPEN_NS), (upbit, NOON_NS)])
def test_the_order_of_questions_does_not_matter(make: Any, start_ns: int) -> None:
    asked: Universe = make()
    for minute in range(0, 50, 3):
        asked.state(asked.rows, (start_ns + minute * MINUTE_NS + 999_000_000) // 10**6)
    late: Universe = make()
    at_ms = (start_ns + 50 * MINUTE_NS + 30 * 10**9) // 10**6
    here, there = asked.state(asked.rows, at_ms), late.state(late.rows, at_ms)
    for name in ("open", "high", "low", "price", "volume", "value", "trades"):
        assert (getattr(here, name) == getattr(there, name)).all(), name
    other: Universe = make(seed=4)
    assert other.listing.codes != asked.listing.codes or (other.state(other.rows, at_ms).volume != here.volume).any()


def test_a_bar_is_that_of_its_trades_and_of_no_others() -> None:
    universe = kis()
    for symbol in universe.listing.codes[:40]:
        for bar_ns in (OPEN_NS, OPEN_NS + 7 * BAR_NS, OPEN_NS + 38 * BAR_NS):
            found = trades_until(universe, symbol, bar_ns, bar_ns + BAR_NS - 1)
            prices = [float(one[1]) for one in found]
            bar = universe.bar(symbol, bar_ns)
            if not found:
                assert bar is None
            else:
                assert bar == (bar_ns, prices[0], max(prices), min(prices), prices[-1], float(sum(one[2] for one in found)))
    assert universe.bar(universe.listing.codes[0], OPEN_NS - BAR_NS) is None
    assert universe.bar(universe.listing.codes[0], OPEN_NS + 39 * BAR_NS) is None, "15:30 is not within hours"
    with pytest.raises(ValueError, match="ten minutes"):
        universe.bar(universe.listing.codes[0], OPEN_NS + 1)


def test_prices_lie_on_the_tick_grid_and_the_book_does_not_cross() -> None:
    for universe, tick in ((kis(), lambda code, price: krx_tick(price)), (upbit(), crypto_tick)):
        minutes = np.full(len(universe.rows), NOON_NS // MINUTE_NS)
        trades = universe.trades(universe.rows, minutes)
        assert len(trades.ms) > 100
        assert (trades.bid < trades.ask).all()
        assert ((trades.price == trades.bid) | (trades.price == trades.ask)).all()
        assert (trades.size > 0).all()
        for pair, bid in zip(trades.pair.tolist(), trades.bid.tolist(), strict=True):
            if universe.listing.kinds[pair] != "USDT":  # whose grid moves with the price
                assert bid % tick(universe.listing.codes[pair], bid) == 0


def test_the_listing_has_what_a_universe_must_leave_out() -> None:
    universe = Universe("kis", 2500, 1)
    listing = universe.listing
    assert len(set(listing.codes)) == 2500
    assert {SHARE, PREFERRED, ETF, ETN, SPAC} <= set(listing.kinds)
    for flag in (listing.halted, listing.administrative, listing.liquidation):
        assert 0 < flag.sum() < 200
    halted, base = np.flatnonzero(listing.halted), universe.previous_close(universe.hours.day_of(NOON_NS // 10**6))
    for minutes in (0, 7, 200):
        at = np.full(len(halted), NOON_NS // 10**6 + minutes * 60_000)
        assert (universe.quote(halted, at)[0] == base[halted]).all()
        assert (universe.state(halted, int(at[0])).trades == 0).all()
    cheap = universe.previous_close(universe.hours.day_of(NOON_NS // 10**6)) < 4000
    assert 300 < cheap.sum() < 900
    assert 1200 < (listing.wanted & ~cheap).sum() < 2200
    coins = Universe("upbit", 200, 1)
    tickers = json.loads("[" + ",".join(UpbitListed(coins).answer("/v1/ticker/all", {"quote_currencies": "KRW"}, NOON_NS)) + "]")
    assert len(coins.listing.codes) == 200
    assert 20 < sum(one["acc_trade_price_24h"] < 1e9 for one in tickers) < 100


def test_no_symbol_is_remarkable_without_a_scenario() -> None:
    universe = Universe("kis", 400, 1)
    for row in universe.rows.tolist():
        minutes = universe.candles(row, OPEN_NS // MINUTE_NS, 390)
        bars = minutes.volume.reshape(39, 10).sum(axis=1)
        assert bars.max() <= 3 * bars.mean()
        assert minutes.trades.max() < 120, "ten trades a second are what the velocity trigger waits for"
        high, low = minutes.high.reshape(39, 10).max(axis=1), np.where(minutes.trades, minutes.low, 1 << 40).reshape(39, 10).min(axis=1)
        assert (high[low > 2000] <= 1.03 * low[low > 2000]).all(), "a cheaper share moves by whole ticks"


# Scenario


def test_a_surge_makes_trades_larger_for_its_minutes_alone() -> None:
    plain, surged = kis(), kis()
    effect = surged.play("surge", "005930", OPEN_NS + 600 * 10**9, factor=8.0, for_s=600)
    assert effect is not None
    before, during, after = (plain.bar("005930", OPEN_NS + place * BAR_NS) for place in range(3))
    assert before
    assert during
    assert after
    assert surged.bar("005930", OPEN_NS) == before
    assert surged.bar("005930", OPEN_NS + 2 * BAR_NS) == after
    bar = surged.bar("005930", OPEN_NS + BAR_NS)
    assert bar
    assert bar[:5] == during[:5]
    assert bar.volume == pytest.approx(8 * during.volume, rel=0.01)
    assert surged.bar("000660", OPEN_NS + BAR_NS) == plain.bar("000660", OPEN_NS + BAR_NS)


def test_speed_spike_halt_and_vanish() -> None:
    universe = kis()
    minute = NOON_NS // MINUTE_NS
    codes = ("005930", "000660", "035420", "005380")
    plain = kis()
    for do, symbol in zip(("speed", "spike", "halt", "vanish"), codes, strict=True):
        assert universe.play(do, symbol, NOON_NS, factor=12.0 if do == "speed" else 1.08, for_s=120) is not None
    rows = np.array([universe.row_of[code] for code in codes])
    counts = universe.trades(rows, np.full(4, minute)).count
    usual = plain.trades(rows, np.full(4, minute)).count
    assert counts[0] == pytest.approx(12 * usual[0], abs=12)
    assert counts[2] == counts[3] == 0
    sped, was = universe.bar(codes[0], NOON_NS), plain.bar(codes[0], NOON_NS)
    assert sped
    assert was
    assert sped.volume == pytest.approx(was.volume, rel=0.35)
    there, here = plain.quote(rows[1:2], np.array([NOON_NS // 10**6]))[0], universe.quote(rows[1:2], np.array([NOON_NS // 10**6]))[0]
    assert here[0] == pytest.approx(1.08 * there[0], rel=0.003)
    in_it, after = NOON_NS // 10**6 + 61_000, NOON_NS // 10**6 + 120_000
    assert universe.listed(rows, in_it).tolist() == [True, True, True, False]
    assert universe.listed(rows, after).tolist() == [True] * 4
    halted = universe.quote(rows[2:3].repeat(3), np.array([NOON_NS // 10**6, in_it, after - 1]))[0]
    assert len(set(halted.tolist())) == 1, "the book of a halted symbol stands still"


def test_a_spike_stays_within_the_limits_of_the_day() -> None:
    universe = kis()
    universe.play("spike", "005930", NOON_NS, factor=3.0)
    row = np.array([universe.row_of["005930"]])
    base = universe.previous_close(universe.hours.day_of(NOON_NS // 10**6))[row]
    assert 1.28 * base < universe.quote(row, np.array([NOON_NS // 10**6 + 500]))[1] <= 1.3 * base


def test_what_somebody_has_seen_is_not_changed_any_more() -> None:
    universe = kis()
    row, at_ms = np.array([universe.row_of["005930"]]), NOON_NS // 10**6 + 20_000
    seen = universe.state(row, at_ms)
    effect = universe.play("surge", "005930", NOON_NS + 20 * 10**9, factor=50.0)
    assert effect is not None
    assert effect.first == NOON_NS // MINUTE_NS + 1
    assert universe.play("surge", "005930", NOON_NS - 600 * 10**9) is not None
    assert universe.effects[1].first == NOON_NS // MINUTE_NS + 1, "not even when it comes late"
    again = universe.state(row, at_ms)
    assert (seen.volume, seen.value, seen.price) == (again.volume, again.value, again.price)
    universe.calm()
    assert all(one.first == one.last for one in universe.effects)


def test_scenario_lines_of_a_script_count_from_the_clock_s_start() -> None:
    universe = kis()
    scenario_rows(universe, [{"do": "surge", "symbol": "005930", "at_s": 90, "factor": 4, "for_s": 61}, {"do": "drop"}], OPEN_NS)
    assert universe.scenario() == [
        {"do": "surge", "symbol": "005930", "factor": 4.0, "from_ns": OPEN_NS + 120 * 10**9, "until_ns": OPEN_NS + 240 * 10**9}
    ]
    with pytest.raises(ConfigError, match="wrong"):
        scenario_rows(universe, [{"do": "halt", "symbol": "none"}], OPEN_NS)
    assert set(SCENARIO) == {"surge", "speed", "spike", "halt", "vanish"}


# KIS


def test_master_records_have_the_sheet_s_lengths_and_offsets() -> None:
    universe = Universe("kis", 600, 5)
    listing, day = universe.listing, universe.hours.day_of(NOON_NS // 10**6)
    places = {  # Source: kis.md 10: group, SPAC, base price, trading halt, previous volume, listed shares in thousands, preferred
        KOSPI: (61, 90, 102, 121, 142, 174, 219), KOSDAQ: (61, 85, 97, 116, 137, 169, 214),
    }  # fmt: skip
    seen = set()
    for board, (group, spac, base, halt, volume, shares, preferred) in places.items():
        data = master(universe, board, day)
        assert data.endswith(b"\n")
        for record in data[:-1].split(b"\n"):
            assert len(record) == WIDTHS[board] == {KOSPI: 288, KOSDAQ: 282}[board]
            code = record[:9].decode().strip()
            row = universe.row_of[code]
            seen.add(code)
            assert record[21:61].decode("cp949").rstrip() == listing.names[row]
            assert record[9:12] == b"KR7"
            assert len(record[9:21].strip()) == 12
            assert record[group : group + 2].decode() == {ETF: "EF", ETN: "EN"}.get(listing.kinds[row], "ST")
            assert (record[spac : spac + 1] == b"Y") == (listing.kinds[row] == SPAC)
            assert int(record[base : base + 9]) == universe.previous_close(day)[row]
            flags = [bool(one[row]) for one in (listing.halted, listing.liquidation, listing.administrative)]
            assert [record[halt + place : halt + place + 1] == b"Y" for place in range(3)] == flags
            assert int(record[volume : volume + 12]) == universe.previous_day(day)[0][row]
            assert int(record[shares : shares + 15]) == listing.shares[row] // 1000
            assert (record[preferred : preferred + 1] != b"0") == (listing.kinds[row] == PREFERRED)
    assert seen == set(listing.codes)
    packed = KisListed(universe).master("/common/master/kosdaq_code.mst.zip", NOON_NS)
    assert packed is not None
    with zipfile.ZipFile(io.BytesIO(packed)) as file:
        assert file.namelist() == ["kosdaq_code.mst"]
        assert file.read("kosdaq_code.mst") == master(universe, KOSDAQ, day)


def multi(*codes: str) -> dict[str, str]:
    asked = {f"FID_COND_MRKT_DIV_CODE_{place}": "J" for place in range(1, len(codes) + 1)}
    return asked | {f"FID_INPUT_ISCD_{place}": code for place, code in enumerate(codes, 1)}


def test_the_quote_of_30_symbols() -> None:
    universe = kis()
    rest = KisListed(universe)
    universe.play("vanish", "000660", NOON_NS)
    rows = rest.answer("intstock-multprice", multi("005930", "000660", "999999", "035420"), NOON_NS + 5 * 10**9)[0]["output"]
    assert [row["inter_shrn_iscd"] for row in rows] == ["005930", "035420"]
    state = universe.state(np.array([universe.row_of["005930"]]), NOON_NS // 10**6 + 5000)
    assert (rows[0]["inter2_prpr"], rows[0]["acml_vol"], rows[0]["inter2_hgpr"]) == tuple(
        str(figure[0]) for figure in (state.price, state.volume, state.high)
    )
    early = rest.answer("intstock-multprice", multi("005930"), OPEN_NS - MINUTE_NS)[0]["output"][0]
    assert [early[name] for name in ("inter2_oprc", "inter2_hgpr", "inter2_lwpr", "acml_vol", "hour_cls_code")] == ["0", "0", "0", "0", "B"]
    assert early["inter2_prpr"] == early["inter2_sdpr"]


def test_a_quote_of_30_symbols_is_cheap() -> None:
    universe = Universe("kis", 2500, 1)
    rest = KisListed(universe)
    codes = [universe.listing.codes[place * 80] for place in range(30)]
    rest.answer("intstock-multprice", multi(*codes), NOON_NS)
    began = time.process_time()
    for call in range(100):
        rest.answer("intstock-multprice", multi(*codes), NOON_NS + call * 66 * 10**6)
    assert time.process_time() - began < 0.5, "five milliseconds of CPU a call; some 0.3 are needed"


def test_kis_minute_candles() -> None:
    universe = kis()
    rest = KisListed(universe)
    at_ns = NOON_NS + 10 * 10**9

    def rows(hour: str, past: str = "N", symbol: str = "005930", now_ns: int = at_ns) -> list[dict[str, str]]:
        query = {"FID_INPUT_ISCD": symbol, "FID_INPUT_HOUR_1": hour, "FID_PW_DATA_INCU_YN": past}
        found: list[dict[str, str]] = rest.answer("inquire-time-itemchartprice", query, now_ns)[0]["output2"]
        return found

    found = rows("115900")
    assert [row["stck_cntg_hour"] for row in found] == [f"{minute // 60:02d}{minute % 60:02d}00" for minute in range(719, 689, -1)]
    bar = universe.bar("005930", NOON_NS - BAR_NS)
    assert bar is not None
    ten = found[:10]
    assert sum(int(row["cntg_vol"]) for row in ten) == bar.volume
    assert max(int(row["stck_hgpr"]) for row in ten) == bar.high
    assert min(int(row["stck_lwpr"]) for row in ten) == bar.low
    assert (int(ten[-1]["stck_oprc"]), int(ten[0]["stck_prpr"])) == (bar.open, bar.close)
    assert int(found[0]["acml_tr_pbmn"]) == sum(one[3] for one in trades_until(universe, "005930", OPEN_NS, NOON_NS - 1))
    assert [row["stck_cntg_hour"] for row in rows("090200")] == ["090200", "090100", "090000"]
    past = rows("090200", "Y")
    assert [(row["stck_bsop_date"], row["stck_cntg_hour"]) for row in past[2:5]] == [
        ("20261120", "090000"), ("20261119", "152900"), ("20261119", "152800"),
    ]  # fmt: skip
    assert len(past) == 30
    yesterday = universe.bar("005930", ns_of("2026-11-19T15:20:00+09:00"))
    assert yesterday is not None
    assert sum(int(row["cntg_vol"]) for row in past[3:13]) == yesterday.volume
    ahead = rows("121000")[:9]
    price = rest.answer("intstock-multprice", multi("005930"), at_ns)[0]["output"][0]["inter2_prpr"]
    assert {(row["stck_prpr"], row["cntg_vol"]) for row in ahead} == {(price, "0")}
    assert rows("115900", symbol="none") == []


def test_a_minute_shows_the_volume_of_the_one_before_until_its_first_trade() -> None:
    universe = kis()
    rest = KisListed(universe)
    symbol = next(
        code for code in universe.listing.codes
        if (found := trades_until(universe, code, NOON_NS - MINUTE_NS, NOON_NS + MINUTE_NS))
        and found[0][0] * 10**6 < NOON_NS and all(one[0] * 10**6 > NOON_NS + 5 * 10**9 for one in found if one[0] * 10**6 >= NOON_NS)
    )  # fmt: skip
    query = {"FID_INPUT_ISCD": symbol, "FID_INPUT_HOUR_1": "120000"}
    found = rest.answer("inquire-time-itemchartprice", query, NOON_NS + 10**9)[0]["output2"]
    assert found[0]["stck_cntg_hour"] == "120000"
    assert found[0]["cntg_vol"] == found[1]["cntg_vol"] != "0"
    assert found[0]["acml_tr_pbmn"] == found[1]["acml_tr_pbmn"]
    universe.play("halt", symbol, NOON_NS + MINUTE_NS, for_s=1200)
    query["FID_INPUT_HOUR_1"] = "121500"
    halted = rest.answer("inquire-time-itemchartprice", query, NOON_NS + 16 * MINUTE_NS)[0]["output2"][:15]
    assert len({(row["cntg_vol"], row["acml_tr_pbmn"], row["stck_prpr"]) for row in halted}) == 1, "nor does a minute that never has one"


def test_the_volume_rank_and_what_it_excludes() -> None:
    universe = Universe("kis", 500, 2)
    rest = KisListed(universe)
    found = rest.answer("volume-rank", {"FID_BLNG_CLS_CODE": "3"}, NOON_NS)[0]["output"]
    values = [int(row["acml_tr_pbmn"]) for row in found]
    assert len(values) == 30
    assert values == sorted(values, reverse=True)
    assert values[0] == universe.state(universe.rows, NOON_NS // 10**6).value.max()
    query = {"FID_DIV_CLS_CODE": "1", "FID_TRGT_EXLS_CLS_CODE": "0110111101", "FID_INPUT_PRICE_1": "4000", "FID_INPUT_PRICE_2": "50000"}
    for row in rest.answer("volume-rank", query, NOON_NS)[0]["output"]:
        place = universe.row_of[row["mksc_shrn_iscd"]]
        assert universe.listing.kinds[place] == SHARE
        assert not universe.listing.administrative[place]
        assert 4000 <= int(row["stck_prpr"]) <= 50000


def test_holidays() -> None:
    universe = Universe("kis", 50, 1, hours_of("kis", "10:00-16:30", (20261126,)))
    outputs, tr_cont = KisListed(universe).answer("chk-holiday", {"BASS_DT": "20261120"}, NOON_NS)
    opened = {row["bass_dt"]: row["opnd_yn"] for row in outputs["output"]}
    assert list(opened)[:8] == [f"202611{day}" for day in range(20, 28)]
    assert [opened[f"202611{day}"] for day in range(20, 28)] == ["Y", "N", "N", "Y", "Y", "Y", "N", "Y"]
    assert outputs["output"][0]["wday_dvsn_cd"] == "06", "20 November 2026 is a Friday"
    assert tr_cont == "M"
    closed, late = ns_of("2026-11-26T11:00:00+09:00"), ns_of("2026-11-20T16:20:00+09:00")
    assert universe.bar("005930", closed) is None
    assert universe.state(universe.rows, closed // 10**6).trades.sum() == 0
    assert universe.bar("005930", OPEN_NS) is None
    assert universe.bar("005930", late) is not None


# Upbit


def answered(rest: UpbitListed, path: str, now_ns: int, **query: str) -> list[dict[str, Any]]:
    rows = rest.answer(path, query, now_ns)
    return [json.loads(row) if isinstance(row, str) else row for row in rows]


def test_upbit_candles() -> None:
    universe = upbit()
    rest = UpbitListed(universe)
    at_ns = NOON_NS + 3 * MINUTE_NS
    found = answered(rest, "/v1/candles/minutes/10", at_ns, market="krw-btc", count="200")
    starts = [row["candle_date_time_utc"] for row in found]
    assert len(found) == 200
    assert starts == sorted(starts, reverse=True)
    assert starts[0] == "2026-11-20T03:00:00"
    for row in found[1:60]:
        bar_ns = ns_of(row["candle_date_time_utc"] + "+00:00")
        bar = universe.bar("KRW-BTC", bar_ns)
        assert bar == (
            bar_ns, row["opening_price"], row["high_price"], row["low_price"], row["trade_price"], row["candle_acc_trade_volume"],
        )  # fmt: skip
        assert bar_ns // 10**6 <= row["timestamp"] < (bar_ns + BAR_NS) // 10**6
    young = trades_until(universe, "KRW-BTC", NOON_NS, at_ns)
    assert found[0]["candle_acc_trade_volume"] == sum(one[2] for one in young) / 1e8, "the candle under way holds what was traded until now"
    one = answered(rest, "/v1/candles/minutes/10", at_ns, market="KRW-BTC", to="2026-11-20T03:00:00Z")
    assert [row["candle_date_time_utc"] for row in one] == ["2026-11-20T02:50:00"], "`to` is exclusive"
    assert one == answered(rest, "/v1/candles/minutes/10", at_ns, market="KRW-BTC", to="2026-11-20T12:00:00 09:00")
    universe.play("halt", "KRW-ETH", NOON_NS + 20 * MINUTE_NS, for_s=1800)
    later = answered(rest, "/v1/candles/minutes/10", NOON_NS + 65 * MINUTE_NS, market="KRW-ETH", count="4")
    assert [row["candle_date_time_utc"][11:16] for row in later] == ["04:00", "03:50", "03:10", "03:00"], "empty periods are missing"


def test_upbit_errors_and_unknown_markets() -> None:
    universe = upbit()
    rest = UpbitListed(universe)
    for path, query, status in (
        ("/v1/ticker", {"markets": "KRW-BTC,KRW-NONE"}, 404), ("/v1/orderbook", {"markets": ""}, 404),
        ("/v1/candles/minutes/10", {"market": "KRW-BTC", "count": "201"}, 400),
        ("/v1/candles/minutes/10", {"market": "KRW-BTC", "to": "noon"}, 400),
    ):  # fmt: skip
        with pytest.raises(RestError) as caught:
            rest.answer(path, query, NOON_NS)
        assert caught.value.status == status
    universe.play("vanish", "KRW-XRP", NOON_NS)
    assert "KRW-XRP" not in [row["market"] for row in answered(rest, "/v1/market/all", NOON_NS)]
    with pytest.raises(RestError):
        rest.answer("/v1/ticker", {"markets": "KRW-BTC,KRW-XRP"}, NOON_NS)


def test_upbit_tickers_books_and_last_trades_agree() -> None:
    universe = upbit()
    rest = UpbitListed(universe)
    at_ns = NOON_NS + 12_345 * 10**6
    tickers = {row["market"]: row for row in answered(rest, "/v1/ticker/all", at_ns, quote_currencies="KRW,BTC,USDT")}
    assert set(tickers) == set(universe.listing.codes)
    for code in universe.listing.codes[::5]:
        (last,) = answered(rest, "/v1/trades/ticks", at_ns, market=code)
        row = tickers[code]
        assert [row[name] for name in ("trade_price", "trade_volume")] == [last[name] for name in ("trade_price", "trade_volume")]
        assert row["trade_timestamp"] == last["timestamp"]
        assert row["low_price"] <= row["trade_price"] <= row["high_price"]
        assert last["timestamp"] * 10**6 <= at_ns
    books = answered(rest, "/v1/orderbook", at_ns, markets=",".join(universe.listing.codes), count="2")
    for book in books:
        best, second = book["orderbook_units"]
        assert best["bid_price"] < best["ask_price"] < second["ask_price"]
    assert answered(rest, "/v1/orderbook", at_ns, markets="BTC-ETH", level="1000") == []


# The live side and the clock


@pytest.mark.parametrize(("make", "group"), [(kis, "krx"), (upbit, "crypto")])
def test_what_is_streamed_is_what_rest_tells(make: Any, group: str) -> None:
    universe: Universe = make()
    live = Live(universe, NOON_NS)
    symbols = {code: Symbol(group, code) for code in (*universe.listing.codes, "none")}
    streams = {code: (Stream(("trade", code), TRADE, symbol), Stream(("book", code), BOOK, symbol)) for code, symbol in symbols.items()}
    late = universe.listing.codes[1]  # subscribed to in the middle of a minute
    first_ms = dict.fromkeys(symbols, NOON_NS // 10**6)

    def subscribe(code: str) -> None:
        for stream in streams[code]:
            stream.subs[object()] = None
            live.add(stream)
        live.show(symbols[code])

    for code in symbols:
        if code != late:
            subscribe(code)
    events: dict[str, list[tuple[int, int, int]]] = {code: [] for code in symbols}
    last_ns, booked, now_ns = 0, 0, NOON_NS
    for step in np.random.default_rng(5).integers(5_000_000, 2_000_000_000, 400).tolist():
        now_ns += step
        for stream, count in live.due(now_ns):
            code = stream.symbol.code
            for _ in range(count):
                before, at_ns = stream.symbol.acc, live.happen(stream)
                assert last_ns <= at_ns <= now_ns
                last_ns = at_ns
                assert 0 < stream.symbol.bid < stream.symbol.ask
                if stream.kind == TRADE:
                    events[code].append((at_ns // 10**6, stream.symbol.price, stream.symbol.size))
                    assert stream.symbol.acc == before + stream.symbol.size
                else:
                    booked += 1
        if now_ns > NOON_NS + 200 * 10**9 and not streams[late][0].subs:
            first_ms[late] = now_ns // 10**6
            subscribe(late)
    for code in universe.listing.codes:
        assert events[code] == [one[:3] for one in trades_until(universe, code, (first_ms[code] + 1) * 10**6, now_ns)]
        live.show(symbols[code])
    assert events["none"] == []
    assert booked > sum(map(len, events.values())) > 500
    state = universe.state(universe.rows, now_ns // 10**6)
    listed = [symbols[code] for code in universe.listing.codes]
    assert [symbol.acc for symbol in listed] == state.volume.tolist()
    assert [symbol.price for symbol, trades in zip(listed, state.trades, strict=True) if trades] == state.price[state.trades > 0].tolist()


def test_a_new_day_has_a_new_base_price_and_begins_at_0() -> None:
    universe = kis()
    live = Live(universe, OPEN_NS - 10**9)
    stream = Stream(("trade", "005930"), TRADE, Symbol("krx", "005930"))
    stream.subs[object()] = None
    live.add(stream)
    live.show(stream.symbol)
    friday = stream.symbol.prev_close
    monday_ns = ns_of("2026-11-23T09:00:00+09:00")
    live.seen_ms = monday_ns // 10**6
    found = live.due(monday_ns + 2 * MINUTE_NS)
    assert found
    assert found[0][0] is stream
    live.happen(stream)
    assert stream.symbol.prev_close == universe.previous_close(universe.hours.day_of(monday_ns // 10**6))[universe.row_of["005930"]]
    assert stream.symbol.prev_close != friday
    assert stream.symbol.acc == stream.symbol.size, "the day's first trade"


def test_a_venue_s_clock_runs_at_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    host = [10**12]
    monkeypatch.setattr(now, "SYSTEM", type("Host", (), {"mono_ns": staticmethod(lambda: host[0]), "wall_ns": staticmethod(lambda: 5)}))
    now.use(now.VenueClock(NOON_NS, 10**12, 60.0))
    started = now.mono_s()
    host[0] += 2 * 10**9
    assert now.wall_ns() == NOON_NS + 120 * 10**9
    assert now.mono_s() - started == pytest.approx(120.0)
    assert now.started_s() == pytest.approx(started)
    assert now.host_s() == pytest.approx(1002.0)
    assert now.second_s() == pytest.approx(6.0), "a tenth of a host's second, so that a host's jitter is not taken for a burst"
    now.use_host()
    assert now.second_s() == 1.0


def test_a_venue_s_clock_may_run_faster_in_the_lull_of_each_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    host = [1000]
    monkeypatch.setattr(now, "SYSTEM", type("Host", (), {"mono_ns": staticmethod(lambda: host[0])}))
    begin_ns = NOON_NS + 90 * 10**9
    clock = now.VenueClock(begin_ns, 1000, 10.0, 270.0)
    # 12:01:30 to 12:05:30, the rest of the ten minutes, then whole ones: 33 + 1 s each
    for host_s, venue_s in ((0, 0), (12, 120), (24, 240), (25, 510), (26, 520), (58, 840), (59, 1110), (25 + 34 * 6 + 1, 510 + 3600 + 10)):
        host[0] = 1000 + host_s * 10**9
        assert clock.wall_ns() - begin_ns == pytest.approx(venue_s * 10**9, abs=1000)
        assert clock.mono_ns() - 1000 == clock.wall_ns() - begin_ns
        assert clock.host_mono_ns(1000 + venue_s * 10**9) == pytest.approx(host[0], abs=1000)


def test_options_of_a_universe_are_checked(tmp_path: Path) -> None:
    for options, told in (
        ({"universe": 10, "source": "numbered"}, "universe"), ({"clock_start": "2026-11-20T09:00:00"}, "clock_start"),
        ({"clock_mono_ns": 5}, "clock_start is missing"), ({"universe": 10, "holidays": (20261301,)}, "holiday"),
        ({"universe": 10, "hours": "9-15"}, "hours"), ({"clock_rate": 0.0}, "clock_rate"),
        ({"clock_lull_rate": -1.0}, "clock_lull_rate"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            build_exchange(SimOptions("kis", **options))  # type: ignore[arg-type]
        assert told in "\n".join(caught.value.problems)
    script = tmp_path / "script.jsonl"
    script.write_text('{"do":"surge","symbol":"none"}\n')
    for count in (0, 10):
        with pytest.raises(ConfigError) as caught:
            build_exchange(SimOptions("kis", universe=count, script=script))
        assert "no symbol of --universe" in caught.value.problems[0]
    assert start_clock(SimOptions("kis")) == {}
    told_clock = start_clock(SimOptions("kis", clock_start="2026-11-20T09:00:00+09:00", clock_mono_ns=7, clock_rate=60.0))
    assert told_clock == {"start_ns": OPEN_NS, "mono_ns": 7, "rate": 60.0}
