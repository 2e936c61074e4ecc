"""The simulated exchanges as real children, spoken to over real sockets: protocol, limits, errors, faults, log."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from obs.sim.numbered import trade

DEADLINE_S = 15.0
APPKEY, SECRET = "k" * 36, "s" * 180


class Sim:
    """A running simulator."""

    def __init__(self, process: subprocess.Popen[bytes], ready: dict[str, Any], log: Path) -> None:
        self.process = process
        self.ws: str = ready["ws"]
        self.rest: str = ready["rest"]
        self.port: int = ready["port"]
        self.log = log

    def lines(self) -> list[dict[str, Any]]:
        """Return what the log holds; a line that is being written is not whole yet."""
        return [json.loads(line) for line in self.log.read_text().split("\n")[:-1]]

    def inputs(self) -> list[dict[str, Any]]:
        return [line for line in self.lines() if "do" not in line]

    def done(self) -> list[str]:
        return [line["do"] for line in self.lines() if "do" in line]

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(DEADLINE_S)


Start = Callable[..., Sim]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[Sim] = []

    def run(venue: str, *arguments: str) -> Sim:
        log = tmp_path / f"{venue}{len(running)}.jsonl"
        command = [sys.executable, "-m", "obs.sim", venue, "--log", str(log), "--die-with-parent", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        line = process.stdout.readline()
        process.stdout.close()
        assert line, f"exit code {process.wait(DEADLINE_S)}"
        running.append(Sim(process, json.loads(line), log))
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


async def do(session: aiohttp.ClientSession, sim: Sim, **action: Any) -> int:
    async with session.post(f"{sim.rest}/sim/do", json=action) as answer:
        body = await answer.json()
        assert answer.status == 200, body
        met: int = body["met"]
        return met


@contextlib.asynccontextmanager
async def connected(session: aiohttp.ClientSession, sim: Sim) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with session.ws_connect(sim.ws, max_msg_size=0, autoping=False, timeout=aiohttp.ClientWSTimeout(ws_close=1.0)) as socket:
        yield socket


async def until_end(socket: aiohttp.ClientWebSocketResponse, messages: list[bytes] | None = None) -> int | None:
    """Read until the connection ends; return the close code (1006: TCP ended without a close frame)."""
    while True:
        message = await socket.receive(DEADLINE_S)
        if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
            return socket.close_code
        if messages is not None and isinstance(message.data, (str, bytes)):
            messages.append(message.data.encode() if isinstance(message.data, str) else message.data)


# KIS


async def approve(session: aiohttp.ClientSession, sim: Sim, appkey: str = APPKEY) -> str:
    body = {"grant_type": "client_credentials", "appkey": appkey, "secretkey": SECRET}
    async with session.post(f"{sim.rest}/oauth2/Approval", json=body) as answer:
        assert answer.status == 200, await answer.text()
        key: str = (await answer.json(content_type=None))["approval_key"]
        return key


async def register(socket: aiohttp.ClientWebSocketResponse, key: str, code: str, tr_id: str = "H0STCNT0", tr_type: str = "1") -> None:
    header = {"approval_key": key, "custtype": "P", "tr_type": tr_type, "content-type": "utf-8"}
    await socket.send_str(json.dumps({"header": header, "body": {"input": {"tr_id": tr_id, "tr_key": code}}}))


async def answer_of(
    socket: aiohttp.ClientWebSocketResponse, tr_id: str | None = None, passed: list[bytes] | None = None
) -> dict[str, Any]:  # fmt: skip
    """Return the next control message, PINGPONG skipped (PINGPONG wanted: name it). `passed`: gets the data messages before it."""
    while True:
        text = await socket.receive_str(timeout=DEADLINE_S)
        if text.startswith("{"):
            message: dict[str, Any] = json.loads(text)
            if (message["header"]["tr_id"] == "PINGPONG") == (tr_id == "PINGPONG"):
                return message
        elif passed is not None:
            passed.append(text.encode())


async def data_of(socket: aiohttp.ClientWebSocketResponse, count: int = 1) -> list[str]:
    out: list[str] = []
    while len(out) < count:
        message = await socket.receive(DEADLINE_S)
        assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.PING), message
        if message.type is aiohttp.WSMsgType.TEXT and message.data[:1] in ("0", "1"):
            out.append(message.data)
    return out


def kis_trades(messages: list[str] | list[bytes]) -> list[tuple[str, int, int, int]]:
    """Return (symbol, price, size, accumulated volume) of every trade record."""
    out = []
    for message in messages:
        text = message.decode() if isinstance(message, bytes) else message
        if not text.startswith("0|H0STCNT0|"):
            continue
        _, _, count, body = text.split("|", 3)
        fields = body.split("^")
        width = len(fields) // int(count)
        out += [(fields[at], int(fields[at + 2]), int(fields[at + 12]), int(fields[at + 13])) for at in range(0, len(fields), width)]
    return out


def logged_trades(sim: Sim) -> list[tuple[str, int, int, int]]:
    return [(line["symbol"], line["price"], line["size"], line["acc_volume"]) for line in sim.inputs() if line["kind"] == "trade"]


def test_kis_registrations_and_their_refusals(start: Start) -> None:
    sim = start("kis", "--source", "numbered", "--rate", "50", "--slots", "3", "--start-k", "0", "--approval-spacing-s", "0")

    async def story(session: aiohttp.ClientSession) -> None:
        async with connected(session, sim) as socket:

            async def code(key: str, symbol: str, **more: str) -> str:
                await register(socket, key, symbol, **more)
                body = (await answer_of(socket))["body"]
                return f"{body['msg_cd']} {body['rt_cd']}"

            assert await code("never issued", "005930") == "OPSP0011 1"
            key = await approve(session, sim)
            await register(socket, key, "005930")
            ack = await answer_of(socket)
            assert ack["header"] == {"tr_id": "H0STCNT0", "tr_key": "005930", "encrypt": "N"}
            assert ack["body"]["msg1"] == "SUBSCRIBE SUCCESS"
            assert (len(ack["body"]["output"]["iv"]), len(ack["body"]["output"]["key"])) == (16, 32)
            assert await code(key, "005930") == "OPSP0002 1"
            assert await code(key, "000660", tr_type="2") == "OPSP0003 1"
            assert await code(key, "000660") == "OPSP0000 0"
            assert await code(key, "005930", tr_id="H0STASP0") == "OPSP0000 0"  # a channel of the same symbol is one more
            assert await code(key, "035720") == "OPSP0008 1"
            assert await code(key, "000660", tr_type="2") == "OPSP0001 0"
            assert await code(key, "035720") == "OPSP0000 0"
            assert await code(key, "035720", tr_id="H0ZZCNT9") == "OPSP8991 9"
            await socket.send_str("not json")
            assert (await answer_of(socket))["header"]["tr_id"] == "(null)"
            await do(session, sim, do="refuse_symbol", symbol="005380", s=30)
            await code(key, "035720", tr_type="2")
            assert await code(key, "005380") == "OPSP0007 1"
            await data_of(socket, 3)

    talk(story)
    assert sim.stop() == 0


def test_kis_sends_what_it_logs_and_the_market_goes_on_unheard(start: Start) -> None:
    sim = start("kis", "--source", "numbered", "--rate", "2000", "--start-k", "0", "--zombie-s", "0", "--approval-spacing-s", "0")
    codes = ["005930", "000660", "Q500001"]
    heard: list[list[tuple[str, int, int, int]]] = []

    async def one_connection(session: aiohttp.ClientSession) -> None:
        key = await approve(session, sim)
        async with connected(session, sim) as socket:
            for code in codes:
                await register(socket, key, code)
            heard.append(kis_trades(await data_of(socket, 300)))
            await do(session, sim, do="close", code=1000)
            rest: list[bytes] = []
            assert await until_end(socket, rest) == 1000
            heard[-1] += kis_trades(rest)

    async def story(session: aiohttp.ClientSession) -> None:
        await one_connection(session)
        await asyncio.sleep(0.2)  # the market goes on unheard; there is no condition to wait for
        await one_connection(session)

    talk(story)
    assert heard[0] + heard[1] == logged_trades(sim)  # every one, in order, nothing else
    for line in sim.inputs():
        assert (line["price"], line["size"], line["acc_volume"]) == trade("krx", line["symbol"], line["k"])[:3]
    by_symbol = {code: [row for row in heard[0] if row[0] == code] for code in codes}
    for rows in by_symbol.values():
        assert all(after[3] - before[3] == after[2] for before, after in pairwise(rows))
    last, first = by_symbol["005930"][-1], next(row for row in heard[1] if row[0] == "005930")
    assert first[3] - first[2] > last[3]
    assert [line["n"] for line in sim.inputs() if line["conn"] == 2] == list(range(1, len(heard[1]) + 1))


def test_kis_one_connection_per_appkey_and_the_zombie(start: Start) -> None:
    sim = start("kis", "--rate", "10", "--zombie-s", "0.6", "--approval-spacing-s", "0")

    async def story(session: aiohttp.ClientSession) -> None:
        async def outcome(appkey: str = APPKEY) -> str:
            key = await approve(session, sim, appkey)
            async with connected(session, sim) as socket:
                await register(socket, key, "005930")
                answer = await answer_of(socket)
                if answer["body"]["msg_cd"] == "OPSP8996":
                    assert answer["header"] == {"tr_id": "(null)", "tr_key": "", "encrypt": "N"}
                    assert answer["body"]["rt_cd"] == "9"
                    assert await until_end(socket) == 1006
                return str(answer["body"]["msg_cd"])

        key = await approve(session, sim)
        async with connected(session, sim) as socket:
            await register(socket, key, "005930")
            await answer_of(socket)
            assert await outcome() == "OPSP8996"
            assert await outcome("another" * 5) == "OPSP0000"
            await do(session, sim, do="drop", conn=1)
            assert await until_end(socket) == 1006
        assert await outcome() == "OPSP8996"  # the slot of a broken connection stays taken for a while
        deadline = time.monotonic() + DEADLINE_S
        while (code := await outcome()) != "OPSP0000":
            assert code == "OPSP8996"
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)  # a loop of connects would be blocked
        assert await outcome() == "OPSP0000"  # a clean close frees it at once
        await do(session, sim, do="take_appkey", s=30)
        assert await outcome() == "OPSP8996"

    talk(story)


@pytest.mark.parametrize("answer", ["echo", "pong", "none"])
def test_kis_pingpong(start: Start, answer: str) -> None:
    sim = start("kis", "--pingpong-s", "0.2", "--pong-timeout-s", "0.5", "--approval-spacing-s", "0")

    async def story(session: aiohttp.ClientSession) -> None:
        async with connected(session, sim) as socket:
            begun = time.monotonic()
            for _ in range(5):
                if answer == "none":
                    assert await until_end(socket) == 1006
                    assert 0.5 < time.monotonic() - begun < 5
                    return
                ping = await answer_of(socket, "PINGPONG")
                assert list(ping) == ["header"]
                assert len(ping["header"]["datetime"]) == 14
                text = json.dumps(ping, separators=(",", ":"))
                await (socket.send_str(text) if answer == "echo" else socket.pong(text.encode()))
            assert time.monotonic() - begun > 0.8

    talk(story)


def test_kis_rest(start: Start) -> None:
    sim = start("kis", "--rate", "10", "--rest-rate", "3", "--approval-spacing-s", "30")
    quotations = f"{sim.rest}/uapi/domestic-stock/v1/quotations"

    async def story(session: aiohttp.ClientSession) -> None:
        async def issue(path: str, **body: str) -> tuple[int, dict[str, Any]]:
            async with session.post(f"{sim.rest}/oauth2/{path}", json={"grant_type": "client_credentials", **body}) as answer:
                return answer.status, await answer.json(content_type=None)

        async def call(name: str, headers: dict[str, str], query: dict[str, str]) -> tuple[int, dict[str, Any]]:
            async with session.get(f"{quotations}/{name}", headers=headers, params=query) as answer:
                return answer.status, await answer.json(content_type=None)

        assert (await issue("tokenP", appkey="bad", appsecret=SECRET))[1]["error_code"] == "EGW00103"
        assert (await issue("tokenP", appkey=APPKEY, appsecret="bad"))[1]["error_code"] == "EGW00105"
        status, token = await issue("tokenP", appkey=APPKEY, appsecret=SECRET)
        assert (status, token["token_type"], token["expires_in"]) == (200, "Bearer", 86399)
        status, early = await issue("tokenP", appkey=APPKEY, appsecret=SECRET)
        assert (status, early["error_code"]) == (403, "EGW00133")
        assert "error_code" in (await issue("Approval", appkey=APPKEY, appsecret=SECRET))[1]  # here it is secretkey
        assert "approval_key" in (await issue("Approval", appkey=APPKEY, secretkey=SECRET))[1]
        assert (await issue("Approval", appkey=APPKEY, secretkey=SECRET))[1]["error_code"] == "EGW00133"

        headers = {
            "authorization": f"Bearer {token['access_token']}", "appkey": APPKEY, "appsecret": SECRET,
            "tr_id": "FHKST11300006", "custtype": "P",
        }  # fmt: skip
        query = {
            "FID_COND_MRKT_DIV_CODE_1": "J",
            "FID_INPUT_ISCD_1": "005930",
            "FID_COND_MRKT_DIV_CODE_2": "J",
            "FID_INPUT_ISCD_2": "000660",
        }
        assert (await call("intstock-multprice", headers | {"authorization": "Bearer x"}, query))[1]["msg_cd"] == "EGW00121"
        status, body = await call("intstock-multprice", headers, query)
        assert (status, body["rt_cd"], body["msg_cd"]) == (200, "0", "MCA00000")
        assert [row["inter_shrn_iscd"] for row in body["output"]] == ["005930", "000660"]
        assert int(body["output"][0]["inter2_bidp"]) < int(body["output"][0]["inter2_askp"])
        status, body = await call("volume-rank", headers | {"tr_id": "FHPST01710000"}, {"FID_INPUT_ISCD": "0000"})
        assert len(body["output"]) == 30
        assert [row["data_rank"] for row in body["output"]] == [str(rank) for rank in range(1, 31)]
        await call("volume-rank", headers | {"tr_id": "FHPST01710000"}, {})
        status, body = await call("volume-rank", headers | {"tr_id": "FHPST01710000"}, {})
        assert (status, body["msg_cd"]) == (500, "EGW00201")
        await do(session, sim, do="expire_token")
        assert (await call("intstock-multprice", headers, query))[1]["msg_cd"] == "EGW00123"

    talk(story)


# Upbit


async def ask(socket: aiohttp.ClientWebSocketResponse, *parts: dict[str, Any], form: str | None = "DEFAULT") -> None:
    request = [{"ticket": "t"}, *parts, *([{"format": form}] if form else [])]
    await socket.send_str(json.dumps(request))


async def frames_of(socket: aiohttp.ClientWebSocketResponse, count: int) -> list[Any]:
    """Return the next frames; all must be binary."""
    return [json.loads(await socket.receive_bytes(timeout=DEADLINE_S)) for _ in range(count)]


def test_upbit_snapshot_then_stream_and_a_request_replaces(start: Start) -> None:
    sim = start("upbit", "--source", "numbered", "--rate", "100", "--start-k", "5")

    async def story(session: aiohttp.ClientSession) -> None:
        async with connected(session, sim) as socket:
            await ask(
                socket, {"type": "trade", "codes": ["KRW-BTC", "krw-eth", "KRW-NOSUCHCOIN"]}, {"type": "orderbook", "codes": ["KRW-XRP.5"]}
            )
            frames = await frames_of(socket, 60)
            assert {(frame["type"], frame["code"]) for frame in frames} == {("trade", "KRW-BTC"), ("orderbook", "KRW-XRP")}
            snapshots = [frame for frame in frames if frame["stream_type"] == "SNAPSHOT"]
            assert sorted(frame["type"] for frame in snapshots) == ["orderbook", "trade"]
            assert {len(frame["orderbook_units"]) for frame in frames if frame["type"] == "orderbook"} == {5}
            ids = [frame["sequential_id"] for frame in frames if frame["type"] == "trade" and frame["stream_type"] == "REALTIME"]
            assert ids == list(range(ids[0], ids[0] + len(ids)))

            await ask(socket, {"type": "ticker", "codes": ["KRW-BTC"], "is_only_realtime": True}, form="SIMPLE_LIST")
            deadline = time.monotonic() + DEADLINE_S
            while not isinstance((await frames_of(socket, 1))[0], list):
                assert time.monotonic() < deadline
            frames = await frames_of(socket, 20)
            assert {(frame[0]["ty"], frame[0]["cd"], frame[0]["st"]) for frame in frames} == {("ticker", "KRW-BTC", "REALTIME")}

            await socket.send_str('[{"method":"LIST_SUBSCRIPTIONS"},{"ticket":"mine"}]')
            answer = next(frame[0] for frame in await frames_of(socket, 60) if "mthd" in frame[0])
            assert answer == {"mthd": "LIST_SUBSCRIPTIONS", "rslt": [{"ty": "ticker", "cds": ["KRW-BTC"]}], "tckt": "mine"}

            await ask(socket, {"type": "trade", "codes": ["KRW-BTC"], "is_only_snapshot": True})
            deadline = time.monotonic() + DEADLINE_S
            while isinstance(frame := (await frames_of(socket, 1))[0], list):
                assert time.monotonic() < deadline
            assert frame["stream_type"] == "SNAPSHOT"

    talk(story)
    real = [line for line in sim.inputs() if line["kind"] == "trade"]
    for line in real:
        assert (line["price"], line["size"], line["acc_volume"]) == trade("crypto", line["symbol"], line["k"])[:3]
    assert [line["of"] for line in sim.inputs() if line["kind"] == "snapshot"].count("trade") == 2


@pytest.mark.parametrize(
    ("request_text", "name"),
    [("{", "WRONG_FORMAT"), ('[{"type":"trade","codes":["KRW-BTC"]}]', "NO_TICKET"), ('[{"ticket":"x"}]', "NO_TYPE"),
     ('[{"ticket":"x"},{"type":"nope","codes":["KRW-BTC"]}]', "INVALID_PARAM"), ('[{"ticket":"x"},{"type":"trade"}]', "NO_CODES")],
)  # fmt: skip
def test_upbit_errors_close_with_1000(start: Start, request_text: str, name: str) -> None:
    sim = start("upbit")

    async def story(session: aiohttp.ClientSession) -> None:
        async with connected(session, sim) as socket:
            await socket.send_str(request_text)
            [error] = await frames_of(socket, 1)
            assert error["error"]["name"] == name
            asked = time.monotonic()
            assert await until_end(socket) == 1000
            assert 0.1 < time.monotonic() - asked < 5

    talk(story)


def test_upbit_limits(start: Start) -> None:
    sim = start("upbit", "--idle-s", "0.7", "--connects-per-s", "2", "--origin-s", "60")

    async def story(session: aiohttp.ClientSession) -> None:
        async def status(**headers: str) -> tuple[int, str]:
            try:
                async with session.ws_connect(sim.ws, headers=headers) as socket:
                    return 101, str(socket._response.headers["Remaining-Req"])
            except aiohttp.WSServerHandshakeError as error:
                return error.status, ""

        async with connected(session, sim) as socket:
            begun = time.monotonic()
            assert await until_end(socket) == 1006  # idle: TCP closed without a close frame
            assert 0.6 < time.monotonic() - begun < 5
        assert (await status())[1].startswith("group=websocket; min=300; sec=")
        assert [(await status())[0] for _ in range(4)][-2:] == [429, 429]
        async with session.get(f"{sim.rest}/v1/market/all", headers={"Origin": "http://x"}) as answer:
            assert answer.status == 200
        async with session.get(f"{sim.rest}/v1/market/all", headers={"Origin": "http://x"}) as answer:
            assert answer.status == 429

    talk(story)


def test_upbit_message_limit_ping_and_up(start: Start) -> None:
    sim = start("upbit", "--seed", "4")  # whose first UP comes early

    async def story(session: aiohttp.ClientSession) -> None:
        async with connected(session, sim) as socket:
            await socket.ping(b"x")
            pong = await socket.receive(DEADLINE_S)
            assert (pong.type, pong.data) == (aiohttp.WSMsgType.PONG, b"x")
            await socket.send_str("PING")
            assert await frames_of(socket, 1) == [{"status": "UP"}]
        async with connected(session, sim) as socket:
            for _ in range(6):
                await socket.send_str("PING")
            [error] = await frames_of(socket, 1)
            assert error["error"]["name"] == "TOO_MANY_REQUESTS"
            assert await until_end(socket) == 1000

    talk(story)


def test_upbit_rest(start: Start) -> None:
    sim = start("upbit")

    async def story(session: aiohttp.ClientSession) -> None:
        async def get(path: str) -> tuple[int, Any, str]:
            async with session.get(f"{sim.rest}{path}") as answer:
                return answer.status, await answer.json(content_type=None), answer.headers.get("Remaining-Req", "")

        status, markets, left = await get("/v1/market/all?is_details=true")
        assert (status, left) == (200, "group=market; min=600; sec=9")
        assert set(markets[0]) == {"market", "korean_name", "english_name", "market_event"}
        status, rows, left = await get("/v1/ticker?markets=KRW-BTC,krw-eth")
        assert [row["market"] for row in rows] == ["KRW-BTC", "KRW-ETH"]
        assert left == "group=ticker; min=600; sec=9"
        assert (await get("/v1/ticker?markets=KRW-BTC,KRW-NOSUCHCOIN"))[:2] == (404, {"error": {"name": 404, "message": "Code not found"}})
        status, rows, _ = await get("/v1/ticker/all?quote_currencies=KRW")
        assert len(rows) == sum(1 for market in markets if market["market"].startswith("KRW-"))
        statuses = [(await get("/v1/ticker?markets=KRW-BTC"))[0] for _ in range(16)]
        assert statuses[-1] == 418
        assert {200, 429, 418} >= set(statuses)

    talk(story)


# Faults


async def says_something(socket: aiohttp.ClientWebSocketResponse, within_s: float) -> bool:
    """Return whether a data frame came; anything else is an error."""
    try:
        message = await socket.receive(within_s)
    except TimeoutError:
        return False
    assert message.type is aiohttp.WSMsgType.BINARY
    return True


@contextlib.asynccontextmanager
async def kis_listening(
    session: aiohttp.ClientSession, sim: Sim, *codes: str, passed: list[bytes] | None = None
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    key = await approve(session, sim)
    async with connected(session, sim) as socket:
        for code in codes:
            await register(socket, key, code)
            await answer_of(socket, passed=passed)  # the first symbol trades while the second one is registered
        yield socket


FAST = ("--source", "numbered", "--rate", "500", "--start-k", "0", "--zombie-s", "0", "--approval-spacing-s", "0")


@pytest.mark.parametrize(
    ("action", "code"),
    [({"do": "drop"}, 1006), ({"do": "rst"}, 1006), ({"do": "close", "code": 1000}, 1000), ({"do": "close", "code": 1001}, 1001),
     ({"do": "close", "code": 1006}, 1006), ({"do": "close", "code": 1011, "reason": "x"}, 1011)],
)  # fmt: skip
def test_ends(start: Start, action: dict[str, Any], code: int) -> None:
    sim = start("kis", *FAST)

    async def story(session: aiohttp.ClientSession) -> None:
        async with kis_listening(session, sim, "005930") as socket:
            await data_of(socket)
            assert await do(session, sim, **action, symbol="000660") == 0
            assert await do(session, sim, **action, symbol="005930", conn=1) == 1
            assert await until_end(socket) == code

    talk(story)


def test_a_reset_comes_in_the_middle_of_a_frame(start: Start) -> None:
    sim = start("kis", *FAST)
    with socket.create_connection(("127.0.0.1", sim.port)) as raw:
        raw.settimeout(DEADLINE_S)
        key = base64.b64encode(os.urandom(16)).decode()
        raw.sendall(
            f"GET /tryitout HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert b"101" in raw.recv(4096)

        async def story(session: aiohttp.ClientSession) -> None:
            await do(session, sim, do="rst")

        talk(story)
        half = b""
        try:
            while chunk := raw.recv(4096):
                half += chunk
            pytest.fail("the connection ended without a reset")
        except ConnectionResetError:
            pass
        assert half
        assert len(half) < 2 + half[1]


def test_mute_loses_data_and_keeps_the_connection(start: Start) -> None:
    sim = start("kis", *FAST, "--pingpong-s", "0.05")

    async def story(session: aiohttp.ClientSession) -> None:
        async with kis_listening(session, sim, "005930") as socket:
            await data_of(socket, 3)
            await do(session, sim, do="mute", s=0.6)
            began = time.monotonic()
            await socket.ping(b"there?")
            pong = None
            while pong is None:
                message = await socket.receive(DEADLINE_S)
                pong = message.data if message.type is aiohttp.WSMsgType.PONG else None
            quiet = time.monotonic()
            trades = []
            while not trades:
                trades = kis_trades([await socket.receive_str(timeout=DEADLINE_S)])
            assert time.monotonic() - began > 0.5
            assert quiet - began < 0.5

    talk(story)
    ks = [line["k"] for line in sim.inputs()]
    assert any(after - before > 100 for before, after in pairwise(ks))


def test_half_open_answers_nothing(start: Start) -> None:
    sim = start("upbit", "--source", "numbered", "--rate", "500")

    async def story(session: aiohttp.ClientSession) -> None:
        async with connected(session, sim) as socket:
            await ask(socket, {"type": "trade", "codes": ["KRW-BTC"]})
            await frames_of(socket, 5)
            await do(session, sim, do="half_open")
            await socket.ping(b"there?")
            deadline = time.monotonic() + DEADLINE_S
            while await says_something(socket, 0.5):
                assert time.monotonic() < deadline

    talk(story)


def test_refused_handshakes(start: Start) -> None:
    sim = start("upbit")

    async def story(session: aiohttp.ClientSession) -> None:
        await do(session, sim, do="refuse", s=0.5)
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(sim.ws)
        assert caught.value.status == 503
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                async with connected(session, sim):
                    return
            except aiohttp.WSServerHandshakeError:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)

    talk(story)


@pytest.mark.parametrize(
    ("action", "key", "value"),
    [({"do": "duplicate", "n": 3}, "repeat", True), ({"do": "late", "n": 3, "delay_s": 0.2}, "late", True),
     ({"do": "malformed", "variant": "neighbour"}, "variant", "neighbour"),
     ({"do": "malformed", "variant": "cut", "n": 2}, "variant", "cut"),
     ({"do": "malformed", "variant": "huge"}, "variant", "huge")],
)  # fmt: skip
def test_the_log_tells_what_was_done_to_a_message(start: Start, action: dict[str, Any], key: str, value: Any) -> None:
    sim = start("kis", *FAST)
    got: list[bytes] = []

    async def story(session: aiohttp.ClientSession) -> None:
        async with kis_listening(session, sim, "005930", "000660", passed=got) as socket:
            await do(session, sim, **action)
            deadline = time.monotonic() + DEADLINE_S
            while not any(line.get(key) == value for line in sim.inputs()):
                got.extend(text.encode() for text in await data_of(socket, 5))
                assert time.monotonic() < deadline
            await do(session, sim, do="close", code=1000)
            assert await until_end(socket, got) == 1000

    talk(story)
    marked = [line for line in sim.inputs() if line.get(key) == value]
    if value == "huge":
        assert max(map(len, got)) == 10 * 1024 * 1024
    if key == "repeat":
        assert kis_trades(got) == logged_trades(sim)
    if key == "late":
        steps = [line["acc_volume"] for line in sim.inputs() if line["symbol"] == marked[0]["symbol"]]
        assert steps != sorted(steps)
        assert sorted(row[3] for row in kis_trades(got)) == sorted(row[3] for row in logged_trades(sim))
    if value == "neighbour":
        message = next(text for text in got if b"^abc^" in text)
        assert int(message.split(b"|")[2]) > 1
        assert len(marked) == 1
        assert marked[0]["was"] == "trade"
    if value == "cut":
        assert len(marked) == 2
        assert {line["kind"] for line in marked} == {"malformed"}


def test_broken_framing_is_broken(start: Start) -> None:
    sim = start("kis", *FAST)

    async def story(session: aiohttp.ClientSession) -> None:
        async with kis_listening(session, sim, "005930") as socket:
            await do(session, sim, do="malformed", variant="framing")
            assert await until_end(socket) == 1002  # what the client says to it

    talk(story)
    assert "framing" in [line.get("variant") for line in sim.inputs()]


def test_a_client_that_does_not_read_is_cut(start: Start) -> None:
    sim = start("upbit", "--source", "numbered", "--rate", "50000", "--buffer-bytes", "200000")

    async def story(session: aiohttp.ClientSession) -> None:
        async with connected(session, sim) as socket:
            await ask(socket, {"type": "trade", "codes": ["KRW-BTC"]})
            deadline = time.monotonic() + DEADLINE_S
            while "overrun" not in sim.done():  # aiohttp stops reading when nobody takes its messages
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)

    talk(story)
    assert sim.stop() == 0


def test_kis_blocks_a_loop_of_connects(start: Start) -> None:
    sim = start("kis", "--connects-per-min", "3")

    async def story(session: aiohttp.ClientSession) -> None:
        for _ in range(3):
            async with connected(session, sim):
                pass
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(sim.ws)
        assert caught.value.status == 403

    talk(story)


def test_fragments_burst_skew_and_a_quiet_symbol(start: Start) -> None:
    sim = start("kis", *FAST)

    async def story(session: aiohttp.ClientSession) -> None:
        async with kis_listening(session, sim, "005930", "000660") as socket:
            await do(session, sim, do="fragment", s=1, parts=4)
            assert kis_trades(await data_of(socket, 5))
            await do(session, sim, do="quiet_symbol", symbol="000660", s=60)
            await data_of(socket, 60)  # what was under way
            assert {row[0] for row in kis_trades(await data_of(socket, 60))} == {"005930"}
            [today] = [text.split("^")[33] for text in await data_of(socket)]
            last = kis_trades(await data_of(socket))[-1]
            await do(session, sim, do="skew", offset_s=-86400, s=60)
            skewed = await data_of(socket, 200)
            assert skewed[-1].split("^")[33] < today
            assert kis_trades(skewed)[-1][3] > last[3]  # the numbers go on
            before = sum(1 for _ in sim.inputs())
            await do(session, sim, do="burst", x=20, s=0.5)
            deadline = time.monotonic() + DEADLINE_S
            while sum(1 for _ in sim.inputs()) - before < 2000:
                await data_of(socket, 50)
                assert time.monotonic() < deadline

    talk(story)


def test_poison_expired_keys_and_unknown_actions(start: Start) -> None:
    sim = start("kis", *FAST)

    async def story(session: aiohttp.ClientSession) -> None:
        await do(session, sim, do="poison", variant="encrypted", s=60)
        async with kis_listening(session, sim, "005930") as socket:
            deadline = time.monotonic() + DEADLINE_S
            while not (await data_of(socket))[0].startswith("1|H0STCNT0|001|"):
                assert time.monotonic() < deadline
        key = await approve(session, sim)
        await do(session, sim, do="expire_approval")
        async with connected(session, sim) as socket:
            await register(socket, key, "005930")
            assert (await answer_of(socket))["body"]["msg_cd"] == "OPSP0011"
        await do(session, sim, do="refuse_approval", s=60)
        async with connected(session, sim) as socket:
            key = await approve(session, sim)
            await register(socket, key, "005930")
            assert (await answer_of(socket))["body"]["msg_cd"] == "OPSP0011"
            await do(session, sim, do="calm")
            await register(socket, key, "005930")
            assert (await answer_of(socket))["body"]["msg_cd"] == "OPSP0000"
        async with session.post(f"{sim.rest}/sim/do", json={"do": "explode"}) as answer:
            assert answer.status == 400
        async with session.get(f"{sim.rest}/sim/stats") as answer:
            assert (await answer.json())["connections_total"] == 3

    talk(story)


def test_a_script_runs_by_itself(start: Start, tmp_path: Path) -> None:
    script = tmp_path / "script.jsonl"
    script.write_text('{"at_s":0.3,"do":"close","code":1011,"from":"subscription"}\n')
    sim = start("kis", *FAST, "--script", str(script))

    async def story(session: aiohttp.ClientSession) -> None:
        async with kis_listening(session, sim, "005930") as socket:
            assert await until_end(socket) == 1011

    talk(story)
    assert "close" in sim.done()


# The process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly_with_clients_connected(start: Start, number: int) -> None:
    sim = start("kis", *FAST)

    async def story(session: aiohttp.ClientSession) -> None:
        async with kis_listening(session, sim, "005930") as socket:
            await data_of(socket)
            sim.process.send_signal(number)
            assert await until_end(socket) == 1001

    talk(story)
    assert sim.process.wait(DEADLINE_S) == 0
    assert "stop" in sim.done()


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import subprocess,sys,time\n"
        "child=subprocess.Popen([sys.executable,'-m','obs.sim','upbit','--die-with-parent'],stdout=subprocess.PIPE)\n"
        "print(child.stdout.readline().decode(),flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    ready = json.loads(parent.stdout.readline())
    parent.stdout.close()
    parent.kill()
    parent.wait(DEADLINE_S)
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            with socket.create_connection(("127.0.0.1", ready["port"]), 1.0):
                pass
        except OSError:
            return
        assert time.monotonic() < deadline


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["--rate", "0"], "rate = 0.0"), (["--source", "recordings"], "recordings is missing"), (["--script", "/nowhere"], "/nowhere"),
     (["--source", "recordings", "--recordings", "/nowhere"], "/nowhere"), (["--port", "99999"], "port = 99999"), (["--what"], "usage")],
)  # fmt: skip
def test_wrong_options_exit_2(arguments: list[str], told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "obs.sim", "kis", *arguments], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_told(start: Start) -> None:
    sim = start("upbit")
    command = [sys.executable, "-m", "obs.sim", "kis", "--port", str(sim.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{sim.port}" in done.stderr


def test_a_log_that_cannot_be_written_ends_it(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    """One line, exit code 1, whole lines on disk, and nothing was sent that they do not tell of."""
    sim = start("upbit", "--source", "numbered", "--rate", "2000")
    resource.prlimit(sim.process.pid, resource.RLIMIT_FSIZE, (30_001, 30_001))  # the kernel takes a part of a line, then no more
    messages: list[bytes] = []

    async def story(session: aiohttp.ClientSession) -> None:
        async with connected(session, sim) as socket:
            await ask(socket, {"type": "trade", "codes": ["KRW-BTC", "KRW-ETH"]})
            await until_end(socket, messages)

    talk(story)
    assert sim.process.wait(DEADLINE_S) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line == f"obs sim: the log {sim.log} cannot be written: File too large"
    assert sim.log.read_bytes().endswith(b"}\n")
    told = {line["venue_seq"] for line in sim.inputs()}
    sent = {json.loads(message)["sequential_id"] for message in messages}
    assert len(told) > 50
    assert sent <= told


def test_a_log_that_cannot_be_opened(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "obs.sim", "kis", "--log", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 1
    assert done.stderr == f"obs sim: the log {tmp_path} cannot be written: Is a directory\n"


# Recordings


RECORDINGS = os.environ.get("OBS_RECORDINGS", "")
needs_recordings = pytest.mark.skipif(not RECORDINGS, reason="OBS_RECORDINGS names no folder")


@needs_recordings
@pytest.mark.parametrize("venue", ["kis", "upbit"])
def test_every_captured_data_frame_is_carried(start: Start, venue: str) -> None:
    sim = start(venue, "--source", "recordings", "--recordings", RECORDINGS, "--rate", "300", "--approval-spacing-s", "0")
    frames = []
    for path in sorted((Path(RECORDINGS) / venue).glob("ws_*")):
        if path.suffix != ".json" and "control" not in path.name:
            frames += [line.split(b"\t")[-1] for line in path.read_bytes().splitlines() if line]
    got: set[bytes] = set()

    async def story(session: aiohttp.ClientSession) -> None:
        key = await approve(session, sim) if venue == "kis" else ""
        async with connected(session, sim) as socket:
            if venue == "kis":
                # The symbols that were captured, and one that was not: what is subscribed is not mapped.
                for tr_id, code in (("H0STCNT0", "005930"), ("H0STCNT0", "000660"), ("H0STASP0", "005930"), ("H0STASP0", "000660")):
                    await register(socket, key, code, tr_id=tr_id)
            else:
                codes = sorted({json.loads(frame).get("code") or json.loads(frame)["cd"] for frame in frames})
                await ask(socket, {"type": "trade", "codes": codes}, {"type": "orderbook", "codes": [f"{code}.1" for code in codes]},
                          {"type": "ticker", "codes": codes})  # fmt: skip
            deadline = time.monotonic() + 2 * DEADLINE_S
            while not set(frames) <= got:
                message = await socket.receive(DEADLINE_S)
                got.add(message.data.encode() if isinstance(message.data, str) else message.data)
                assert time.monotonic() < deadline, [frame for frame in frames if frame not in got]

    talk(story)
    captured = [line for line in sim.inputs() if line.get("captured")]
    assert captured
    assert any(line["kind"] == "trade" and not line.get("captured") for line in sim.inputs())
