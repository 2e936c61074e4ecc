"""The REST side of the simulated exchanges with a universe, over real HTTP: masters, limits, errors, bars, scenarios, faults."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from obs.sim.universe import BAR_NS, Bar, Universe

DEADLINE_S = 30.0
APPKEY, SECRET = "k" * 36, "s" * 180
START = "2026-11-20T10:00:00+09:00"  # a Friday
START_NS = int(datetime.fromisoformat(START).timestamp()) * 10**9
SYMBOLS = 300
SEED = 7
QUOTATIONS = "/uapi/domestic-stock/v1/quotations/"
TR_IDS = {
    "intstock-multprice": "FHKST11300006", "inquire-time-itemchartprice": "FHKST03010200", "volume-rank": "FHPST01710000",
    "chk-holiday": "CTCA0903R",
}  # fmt: skip


class Sim:
    """A running simulator."""

    def __init__(self, process: subprocess.Popen[bytes], ready: dict[str, Any]) -> None:
        self.process = process
        self.ws: str = ready["ws"]
        self.rest: str = ready["rest"]
        self.clock: dict[str, float] = ready["clock"]

    def venue_ns(self) -> int:
        """Return the venue's time, from what the ready line tells of its clock."""
        return int(self.clock["start_ns"] + (time.monotonic_ns() - self.clock["mono_ns"]) * self.clock["rate"])


Start = Callable[..., Sim]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[Sim] = []

    def run(venue: str, *arguments: str, rate: float = 1.0) -> Sim:
        command = [
            sys.executable, "-m", "obs.sim", venue, "--universe", str(SYMBOLS), "--seed", str(SEED), "--clock-start", START,
            "--clock-rate", str(rate), "--die-with-parent", *arguments,
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        line = process.stdout.readline()
        process.stdout.close()
        assert line, f"exit code {process.wait(DEADLINE_S)}"
        running.append(Sim(process, json.loads(line)))
        return running[-1]

    yield run
    for sim in running:
        sim.process.kill()
        sim.process.wait(DEADLINE_S)


def talk(story: Callable[[aiohttp.ClientSession], Coroutine[Any, Any, None]]) -> None:
    """Run one client's story on a loop of its own."""

    async def told() -> None:
        async with aiohttp.ClientSession() as session, asyncio.timeout(2 * DEADLINE_S):
            await story(session)

    asyncio.run(told())


async def do(session: aiohttp.ClientSession, sim: Sim, **action: Any) -> None:
    async with session.post(f"{sim.rest}/sim/do", json=action) as answer:
        assert answer.status == 200, await answer.text()


async def token(session: aiohttp.ClientSession, sim: Sim) -> dict[str, str]:
    """Return the headers that a data call is signed with."""
    body = {"grant_type": "client_credentials", "appkey": APPKEY, "appsecret": SECRET}
    async with session.post(f"{sim.rest}/oauth2/tokenP", json=body) as answer:
        found = await answer.json()
        assert answer.status == 200, found
    return {"authorization": f"Bearer {found['access_token']}", "appkey": APPKEY, "appsecret": SECRET, "custtype": "P"}


async def call(session: aiohttp.ClientSession, sim: Sim, signed: dict[str, str], name: str, **query: str) -> tuple[int, dict[str, Any]]:
    async with session.get(f"{sim.rest}{QUOTATIONS}{name}", params=query, headers=signed | {"tr_id": TR_IDS[name]}) as answer:
        return answer.status, json.loads(await answer.read())


def multi(codes: list[str]) -> dict[str, str]:
    asked = {f"FID_COND_MRKT_DIV_CODE_{place}": "J" for place in range(1, len(codes) + 1)}
    return asked | {f"FID_INPUT_ISCD_{place}": code for place, code in enumerate(codes, 1)}


async def venue_time(sim: Sim, until_ns: int) -> None:
    """Return once the venue's clock shows `until_ns`."""
    await asyncio.sleep(max(0.0, (until_ns - sim.venue_ns()) / 1e9 / sim.clock["rate"] + 0.002))
    assert sim.venue_ns() >= until_ns


def test_the_masters_unzip_and_list_the_universe(start: Start) -> None:
    sim, universe = start("kis"), Universe("kis", SYMBOLS, SEED)

    async def story(session: aiohttp.ClientSession) -> None:
        found = {}
        for name, width, base in (("kospi_code", 288, 102), ("kosdaq_code", 282, 97)):
            async with session.get(f"{sim.rest}/common/master/{name}.mst.zip") as answer:
                assert answer.status == 200
                with zipfile.ZipFile(io.BytesIO(await answer.read())) as file:
                    assert file.testzip() is None
                    data = file.read(f"{name}.mst")
            records = data.removesuffix(b"\n").split(b"\n")
            assert {len(record) for record in records} == {width}
            found |= {record[:9].decode().strip(): int(record[base : base + 9]) for record in records}
        prices = universe.previous_close(universe.hours.day_of(START_NS // 10**6))
        assert found == dict(zip(universe.listing.codes, prices.tolist(), strict=True))
        async with session.get(f"{sim.rest}/common/master/nasmst.cod.zip") as answer:
            assert answer.status == 404

    talk(story)


def test_kis_counts_calls_per_second_and_tokens_expire(start: Start) -> None:
    sim, universe = start("kis", rate=0.5), Universe("kis", SYMBOLS, SEED)  # slowly, so that a slow machine is fast enough
    codes = list(universe.listing.codes[:30])

    async def story(session: aiohttp.ClientSession) -> None:
        status, body = await call(session, sim, {"authorization": "Bearer none", "appkey": APPKEY, "appsecret": SECRET}, "volume-rank")
        assert (status, body["msg_cd"]) == (500, "EGW00121")
        signed = await token(session, sim)
        answers = await asyncio.gather(*(call(session, sim, signed, "intstock-multprice", **multi(codes)) for _ in range(60)))
        good = [body for _, body in answers if body["rt_cd"] == "0"]
        refused = [(status, body["msg_cd"]) for status, body in answers if body["rt_cd"] != "0"]
        assert 18 <= len(good) < 60
        assert {code for _, code in refused} == {"EGW00201"}
        assert {status for status, _ in refused} == {200, 500}, "business errors come with 500, and with 200 at times"
        assert [row["inter_shrn_iscd"] for row in good[0]["output"]] == codes
        await venue_time(sim, sim.venue_ns() + 1_100_000_000)
        for _ in range(18):
            status, body = await call(session, sim, signed, "intstock-multprice", **multi(codes[:1]))
            assert (status, body["msg_cd"]) == (200, "MCA00000")
        await venue_time(sim, sim.venue_ns() + 1_100_000_000)
        status, body = await call(session, sim, signed, "chk-holiday", BASS_DT="20261120", CTX_AREA_NK="", CTX_AREA_FK="")
        assert [row["opnd_yn"] for row in body["output"][:4]] == ["Y", "N", "N", "Y"]
        await do(session, sim, do="expire_token")
        status, body = await call(session, sim, signed, "intstock-multprice", **multi(codes[:1]))
        assert (status, body["msg_cd"]) == (500, "EGW00123")

    talk(story)


def test_a_token_lives_a_day_of_the_venue_s_time(start: Start) -> None:
    sim = start("kis", rate=86_400.0)  # a day a second

    async def story(session: aiohttp.ClientSession) -> None:
        signed = await token(session, sim)
        await venue_time(sim, sim.venue_ns() + 86_400 * 10**9)
        _, body = await call(session, sim, signed, "volume-rank")
        assert body["msg_cd"] == "EGW00123"

    talk(story)


def test_upbit_counts_calls_per_group_and_blocks_who_goes_on(start: Start) -> None:
    sim = start("upbit", rate=0.05)  # slowly, so that a slow machine is fast enough

    async def story(session: aiohttp.ClientSession) -> None:
        async def get(path: str) -> tuple[int, str, Any]:
            async with session.get(f"{sim.rest}{path}") as answer:
                return answer.status, answer.headers.get("Remaining-Req", ""), json.loads(await answer.read())

        status, left, rows = await get("/v1/market/all?is_details=true")
        assert (status, left, len(rows)) == (200, "group=market; min=600; sec=9", SYMBOLS)
        assert rows[0]["market_event"]["caution"]["PRICE_FLUCTUATIONS"] is False
        candles = "/v1/candles/minutes/10?market=KRW-BTC&count=2"
        answers = await asyncio.gather(*(get(candles) for _ in range(14)))
        assert sorted({status for status, _, _ in answers}) == [200, 429]
        told = [left for status, left, _ in answers if status == 200]
        assert sorted(int(left.rpartition("=")[2]) for left in told) == list(range(10))
        assert all(left.startswith("group=candles; min=600; ") for left in told)
        assert (await get("/v1/ticker/all?quote_currencies=KRW"))[0] == 200, "another group has its own limit"
        blocked = None
        for _ in range(20):
            status, _, body = await get(candles)
            if status == 418:
                blocked = body
                break
        assert blocked is not None
        assert "seconds" in blocked["error"]["message"]
        status, _, body = await get("/v1/ticker?markets=KRW-BTC,KRW-NONE")
        assert (status, body) == (404, {"error": {"name": 404, "message": "Code not found"}})

    talk(story)


def test_a_limit_holds_per_second_of_the_venue(start: Start) -> None:
    sim = start("kis", rate=60.0)

    async def story(session: aiohttp.ClientSession) -> None:
        signed = await token(session, sim)
        began_ns, good, calls = sim.venue_ns(), 0, 0
        while calls < 600:
            answers = await asyncio.gather(*(call(session, sim, signed, "intstock-multprice", **multi(["005930"])) for _ in range(50)))
            good += sum(body["rt_cd"] == "0" for _, body in answers)
            calls += 50
        passed_s = (sim.venue_ns() - began_ns) / 1e9
        assert good <= 18 * (passed_s + 6), "6 seconds, counted together, are what a host's jitter may be off by"
        assert good >= min(calls, 18 * 6)

    talk(story)


# Bars


def kst(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9 + 9 * 3600, UTC).strftime("%H%M%S")


def folded(bar_ns: int, trades: list[tuple[int, float, float]]) -> Bar | None:
    """Return the bar of (ns, price, size) trades."""
    inside = [(price, size) for at_ns, price, size in trades if bar_ns <= at_ns < bar_ns + BAR_NS]
    if not inside:
        return None
    prices = [price for price, _ in inside]
    return Bar(bar_ns, prices[0], max(prices), min(prices), prices[-1], round(sum(size for _, size in inside), 8))


def test_kis_bars_are_the_sums_of_what_was_streamed(start: Start) -> None:
    sim, universe = start("kis", rate=300.0), Universe("kis", SYMBOLS, SEED)
    codes = list(universe.listing.codes[:8])

    async def story(session: aiohttp.ClientSession) -> None:
        async with session.post(
            f"{sim.rest}/oauth2/Approval", json={"grant_type": "client_credentials", "appkey": APPKEY, "secretkey": SECRET}
        ) as answer:
            key = (await answer.json())["approval_key"]
        signed = await token(session, sim)
        trades: dict[str, list[tuple[int, float, float]]] = {code: [] for code in codes}
        async with session.ws_connect(sim.ws) as socket:
            for code in codes:
                header = {"approval_key": key, "custtype": "P", "tr_type": "1", "content-type": "utf-8"}
                await socket.send_json({"header": header, "body": {"input": {"tr_id": "H0STCNT0", "tr_key": code}}})
            acked, bar_ns = 0, 1 << 62
            while min((found[-1][0] if found else 0) for found in trades.values()) < bar_ns + BAR_NS:
                text = (await socket.receive(DEADLINE_S)).data
                if text.startswith("{"):
                    acked += '"OPSP0000"' in text
                    if acked == len(codes):
                        bar_ns = (sim.venue_ns() // BAR_NS + 1) * BAR_NS  # the first that is streamed as a whole
                    continue
                _, _, count, payload = text.split("|")
                fields = payload.split("^")
                width = len(fields) // int(count)
                for place in range(0, len(fields), width):
                    record = fields[place : place + width]
                    at = datetime.strptime(record[33] + record[1], "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp() - 9 * 3600
                    trades[record[0]].append((int(at) * 10**9, float(record[2]), float(record[12])))
        for code in codes:
            bar = folded(bar_ns, trades[code])
            assert bar is not None
            assert bar == universe.bar(code, bar_ns)
            query = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": code, "FID_INPUT_HOUR_1": kst(bar_ns + 540 * 10**9),
                     "FID_PW_DATA_INCU_YN": "N"}  # fmt: skip
            _, body = await call(session, sim, signed, "inquire-time-itemchartprice", FID_ETC_CLS_CODE="", **query)
            ten = body["output2"][:10]
            assert [row["stck_cntg_hour"] for row in ten] == [kst(bar_ns + minute * 60 * 10**9) for minute in range(9, -1, -1)]
            assert sum(int(row["cntg_vol"]) for row in ten) == bar.volume
            assert (max(int(row["stck_hgpr"]) for row in ten), min(int(row["stck_lwpr"]) for row in ten)) == (bar.high, bar.low)

    talk(story)


def test_upbit_bars_are_the_sums_of_what_was_streamed(start: Start) -> None:
    sim, universe = start("upbit", rate=300.0), Universe("upbit", SYMBOLS, SEED)
    codes = ["KRW-BTC", "KRW-ETH", "KRW-XRP", "KRW-SOL"]

    async def story(session: aiohttp.ClientSession) -> None:
        trades: dict[str, list[tuple[int, float, float]]] = {code: [] for code in codes}
        async with session.ws_connect(sim.ws) as socket:
            await socket.send_json([{"ticket": "t"}, {"type": "trade", "codes": codes, "is_only_realtime": True}, {"format": "DEFAULT"}])
            ids, bar_ns = set(), 0
            while not bar_ns or min((found[-1][0] if found else 0) for found in trades.values()) < bar_ns + BAR_NS:
                message = json.loads((await socket.receive(DEADLINE_S)).data)
                bar_ns = bar_ns or (sim.venue_ns() // BAR_NS + 1) * BAR_NS  # the first that is streamed as a whole
                trades[message["code"]].append((message["trade_timestamp"] * 10**6, message["trade_price"], message["trade_volume"]))
                ids.add((message["code"], message["sequential_id"]))
            assert len(ids) == sum(map(len, trades.values()))
        for code in codes:
            bar = folded(bar_ns, trades[code])
            assert bar is not None
            assert bar == universe.bar(code, bar_ns)
            to = datetime.fromtimestamp((bar_ns + BAR_NS) / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            url = f"{sim.rest}/v1/candles/minutes/10?market={code}&to={to}"
            async with session.get(url) as answer:
                (row,) = await answer.json()
            assert bar == (
                bar_ns, row["opening_price"], row["high_price"], row["low_price"], row["trade_price"], row["candle_acc_trade_volume"],
            )  # fmt: skip

    talk(story)


# Scenarios and faults


def test_a_scenario_of_a_script_is_seen_at_its_time(start: Start, tmp_path: Path) -> None:
    script = tmp_path / "day.jsonl"
    lines = [
        {"at_s": 600, "do": "surge", "symbol": "005930", "factor": 9, "for_s": 600},
        {"at_s": 600, "do": "vanish", "symbol": "000660", "for_s": 1200},
    ]
    script.write_text("".join(json.dumps(line) + "\n" for line in lines))
    sim, plain = start("kis", "--script", str(script), rate=600.0), Universe("kis", SYMBOLS, SEED)

    async def story(session: aiohttp.ClientSession) -> None:
        signed = await token(session, sim)
        await venue_time(sim, START_NS + 2 * BAR_NS)
        query = {"FID_INPUT_ISCD": "005930", "FID_INPUT_HOUR_1": "101900", "FID_PW_DATA_INCU_YN": "N"}
        _, body = await call(session, sim, signed, "inquire-time-itemchartprice", **query)
        usual = plain.bar("005930", START_NS + BAR_NS)
        assert usual is not None
        assert sum(int(row["cntg_vol"]) for row in body["output2"][:10]) == pytest.approx(9 * usual.volume, rel=0.01)
        _, body = await call(session, sim, signed, "intstock-multprice", **multi(["005930", "000660"]))
        if sim.venue_ns() < START_NS + 3 * BAR_NS:  # else the machine is so slow that it is over
            assert [row["inter_shrn_iscd"] for row in body["output"]] == ["005930"]
        await venue_time(sim, START_NS + 3 * BAR_NS + 10**9)
        _, body = await call(session, sim, signed, "intstock-multprice", **multi(["005930", "000660"]))
        assert [row["inter_shrn_iscd"] for row in body["output"]] == ["005930", "000660"]
        async with session.get(f"{sim.rest}/sim/stats") as answer:
            told = (await answer.json())["scenario"]
        assert [(one["do"], one["symbol"], one["from_ns"] - START_NS, one["until_ns"] - START_NS) for one in told] == [
            ("surge", "005930", BAR_NS, 2 * BAR_NS), ("vanish", "000660", BAR_NS, 3 * BAR_NS),
        ]  # fmt: skip
        async with session.post(f"{sim.rest}/sim/do", json={"do": "surge", "symbol": "none"}) as answer:
            assert answer.status == 400

    talk(story)


def test_answers_can_be_spoiled(start: Start) -> None:
    kis, upbit = start("kis"), start("upbit")

    async def story(session: aiohttp.ClientSession) -> None:
        signed = await token(session, kis)
        paths = {
            kis: f"{QUOTATIONS}intstock-multprice?FID_INPUT_ISCD_1=005930",
            upbit: "/v1/ticker/all?quote_currencies=KRW",
        }
        for sim, path in paths.items():
            async def get(sim: Sim = sim, path: str = path) -> tuple[int, str, bytes]:
                headers = signed | {"tr_id": TR_IDS["intstock-multprice"]}
                async with session.get(f"{sim.rest}{path}", headers=headers) as answer:
                    return answer.status, answer.content_type, await answer.read()

            good = (await get())[2]
            assert json.loads(good)
            for how in ("html", "truncated", "empty", "error200", "zero"):
                await do(session, sim, do="answer", path=path.partition("?")[0], **{"with": how}, for_s=60)
                status, kind, body = await get()
                assert status == 200
                match how:
                    case "html":
                        assert kind == "text/html"
                        assert body.startswith(b"<html>")
                    case "truncated":
                        assert 0 < len(body) < len(good)
                        with pytest.raises(ValueError, match=r"line|Unterminated|Expecting"):
                            json.loads(body)
                    case "empty":
                        assert body == b""
                    case "error200":
                        assert json.loads(body).keys() & {"msg_cd", "error"}
                    case _:
                        rows = json.loads(body)
                        row = rows["output"][0] if sim is kis else rows[0]
                        assert float(row["inter2_prpr" if sim is kis else "trade_price"]) == 0
                await do(session, sim, do="calm")
            assert json.loads((await get())[2])
        await do(session, kis, do="answer", path="kosdaq", **{"with": "truncated"}, for_s=60)
        for board, whole in (("kospi", True), ("kosdaq", False)):
            async with session.get(f"{kis.rest}/common/master/{board}_code.mst.zip") as answer:
                assert zipfile.is_zipfile(io.BytesIO(await answer.read())) is whole

    talk(story)
