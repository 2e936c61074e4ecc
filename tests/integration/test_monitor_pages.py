"""What the monitor serves to browsers: pages, answers with and without a database, the stream; and to whom."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest

from obs.clock import NS, SYSTEM
from obs.config.options import Config
from obs.lifecycle.marks import MARKED, Mark, append, path_of
from obs.monitor.access import HEADERS
from obs.record.events import gap_payload, iso_ms
from obs.roles.serving import WEB
from obs.roles.streams import CLIENTS
from tests.integration.monitor_rig import Feed, Running, Stream, configured, running, until

TOKEN = "a-secret-token-of-the-test"
DAY = "20260122"
START = int(datetime(2026, 1, 22, tzinfo=UTC).timestamp()) * NS
BIG = 400_000


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return configured(tmp_path)


@pytest.fixture
def guarded(tmp_path: Path) -> Config:
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    token.chmod(0o600)
    return configured(tmp_path, f'token_file = "{token}"')


@pytest.fixture
def feed(config: Config) -> Iterator[Feed]:
    one = Feed(config)
    yield one
    one.close()


def gap(number: int, seconds: float = 90, symbol: str | None = None, **more: Any) -> dict[str, Any]:
    start = START + number * 60 * NS
    payload = gap_payload(
        start_ns=start, end_ns=start + int(seconds * NS), scope="scalp", reason="mute", session_id="sess_20260122_000000_upbit_0001",
        provider="upbit", symbol=symbol, **more,
    )  # fmt: skip
    return {"event_type": "gap_marker", **payload, "event_ring": "event", "event_seq": number}


def header_lines(answer: bytes) -> dict[str, str]:
    lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


# --- who may ask


def test_every_answer_has_the_headers(config: Config) -> None:
    """Pages, answers, errors, and what is no request at all."""
    with running(config) as one:
        paths = {
            "/": 200, "/day/20260122": 200, "/day/2026-01-22": 303, "/symbol/upbit/KRW-BTC": 200, "/health": 503, "/metrics": 200,
            "/api/status": 200, "/api/days": 200, "/api/day?date=x": 400, "/api/day?provider=x": 404, "/api/nothing": 404, "/login": 404,
            "/nothing": 404, "/assets/nothing.js": 404, "/assets/../index.html": 404, "/api/events?limit=0": 400, "/api/symbol": 400,
        }  # fmt: skip
        answers = {path: one.ask(path) for path in paths}
        answers["POST"] = one.ask("/health", "POST", b"x")
        answers["elsewhere"] = one.ask("/", Host="evil.example")
        long = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: %s\r\n\r\n" % (b"x" * 20_000)
        for kind, data in (("nonsense", b"\x16\x03\x01\r\n\r\n"), ("long", long)):
            raw = one.raw(data)
            answers[kind] = (int(raw.split()[1]), raw.partition(b"\r\n\r\n")[2], header_lines(raw))
        stream = Stream(one.place)
        answers["/api/live"] = (stream.status, b"", stream.headers)
        stream.close()
    assert {path: answers[path][0] for path in paths} == paths
    assert {kind: answers[kind][0] for kind in answers.keys() - paths} == {
        "POST": 405, "elsewhere": 421, "nonsense": 400, "long": 400, "/api/live": 200,
    }  # fmt: skip
    for kind, (status, body, headers) in answers.items():
        cached = {"cache-control": "no-cache"} if status in (200, 304) and b"</html>" in body else {}
        assert headers.items() >= ({name.lower(): value for name, value in HEADERS.items()} | cached).items(), kind
        if status >= 400 and kind != "/health":
            assert b'"error":"' in body, kind
    assert b"xxxx" not in answers["long"][1], "an error quotes nothing"


def test_a_browser_asks_whether_a_file_has_changed(config: Config) -> None:
    with running(config) as one:
        name = next(path.name for path in sorted((WEB / "assets").iterdir()) if path.suffix == ".css")
        status, body, headers = one.ask(f"/assets/{name}")
        assert (status, body, headers["content-type"]) == (200, (WEB / "assets" / name).read_bytes(), "text/css; charset=utf-8")
        assert one.ask(f"/assets/{name}", If_None_Match=headers["etag"])[:2] == (304, b"")
        assert one.ask(f"/assets/{name}", If_None_Match='"another"')[0] == 200
        assert one.ask(f"/assets/{name}", "HEAD")[1] == b""


def test_logging_in(guarded: Config) -> None:
    """Without token or cookie: the login page for people, 401 for programs; a cookie for the token, and with it everything."""
    with running(guarded) as one:
        assert (one.ask("/")[0], one.ask("/")[2]["location"]) == (303, "/login")
        for path in ("/api/status", "/metrics", "/health", "/api/live", "/nothing"):
            assert one.ask(path)[0] == 401, path
        status, body, _ = one.ask("/login")
        assert (status, b"password" in body) == (200, True)
        assert one.ask("/assets/nothing.css")[0] == 404, "what the login page is made of needs no token"
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        status, _, headers = one.ask("/login", "POST", b"token=wrong", **form)
        assert (status, headers["location"], "set-cookie" in headers) == (303, "/login?wrong=1", False)
        assert one.ask("/login", "POST", f"token={TOKEN}".encode(), **form, Sec_Fetch_Site="cross-site")[0] == 403
        assert one.ask("/login", "POST", b"token=" + b"x" * 5000, **form)[0] == 413
        status, _, headers = one.ask("/login", "POST", f"token={TOKEN}&x=1".encode(), **form)
        assert (status, headers["location"]) == (303, "/")
        cookie, *flags = headers["set-cookie"].split("; ")
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(flags)
        assert TOKEN not in cookie
        for path in ("/", "/api/status", "/metrics", "/api/days"):
            assert one.ask(path, Cookie=cookie)[0] == 200, path
            assert one.ask(path, Authorization=f"Bearer {TOKEN}")[0] == 200, path
        assert one.ask("/api/status", Cookie=cookie[:-1] + ("0" if cookie[-1] != "0" else "1"))[0] == 401
        assert one.ask("/api/status", Host="evil.example", Authorization=f"Bearer {TOKEN}")[0] == 200, "a foreign page has no token"


def test_logging_out(guarded: Config) -> None:
    """The cookie ends; only a page of ours can ask for it, and pages know whether there is anything to end."""
    with running(guarded) as one:
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        cookie = one.ask("/login", "POST", f"token={TOKEN}".encode(), **form)[2]["set-cookie"].split("; ")[0]
        session = [one.ask("/api/session", Cookie=cookie), one.ask("/api/session", Authorization=f"Bearer {TOKEN}")]
        assert [(status, orjson.loads(body)) for status, body, _ in session] == [
            (200, {"token": True, "cookie": True}), (200, {"token": True, "cookie": False}),
        ]  # fmt: skip
        assert one.ask("/api/session")[0] == 401
        for name, (status, headers) in {
            "a link": (405, {}), "another site": (403, {"Sec_Fetch_Site": "cross-site"}),
            "a neighbour": (403, {"Sec_Fetch_Site": "same-site"}),
        }.items():  # fmt: skip
            method = "GET" if name == "a link" else "POST"
            answer = one.ask("/logout", method, Cookie=cookie, **headers)
            assert (answer[0], "set-cookie" in answer[2]) == (status, False), name
        assert one.ask("/logout", Cookie=cookie)[2]["allow"] == "POST"
        status, _, headers = one.ask("/logout", "POST", b"", Cookie=cookie, Sec_Fetch_Site="same-origin")
        assert (status, headers["location"]) == (303, "/login")
        name, *flags = headers["set-cookie"].split("; ")
        assert name == cookie.split("=")[0] + "="
        assert {"Max-Age=0", "Path=/", "HttpOnly", "SameSite=Strict"} == set(flags)
        assert one.ask("/api/status", Cookie=name)[0] == 401
        status, _, headers = one.ask("/logout", "POST", b"")
        assert (status, "set-cookie" in headers) == (303, False), "a page of another site asks without the cookie, and ends nobody's"


def test_without_a_token_there_is_nothing_to_log_out_of(config: Config) -> None:
    with running(config) as one:
        assert one.json("/api/session") == {"token": False, "cookie": False}
        assert one.ask("/logout", "POST", b"")[0] == 404


def test_what_is_not_there_is_a_page_that_says_what_to_do(config: Config, feed: Feed, pg_dsn: str) -> None:
    """For a browser; a program gets the same status and a text. A symbol is there if anything knows it, also if only old bars do."""
    with psycopg.connect(pg_dsn, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO scalp_1m_bars (provider, symbol, minute, volume, trades, quotes, records, coverage_ratio, mitigation_level,"
            " quality_flag, session_id) VALUES ('upbit', 'KRW-OLD', '2026-01-01T00:00Z', 3.5, 1, 0, 120, 1.0, 0, 'normal', 'x')"
        )
    feed.tell(gap(4, 60, "KRW-GONE"), DAY)
    with running(config, pg_dsn) as one:
        days, symbols = ("20261399", "2026-02-30"), ("upbit/KRW-BTX", "nobody/KRW-BTC", "upbit/%ED%95%9C")
        for path in (*(f"/day/{one}" for one in days), *(f"/symbol/{one}" for one in symbols), "/nothing"):
            status, body, headers = one.ask(path, Accept="text/html,*/*;q=0.8")
            assert (status, headers["content-type"], headers["cache-control"]) == (404, "text/html; charset=utf-8", "no-store"), path
            assert body == (WEB / "missing.html").read_bytes()
            status, body, headers = one.ask(path)
            assert (status, headers["content-type"]) == (404, "application/json"), path
        assert b"YYYYMMDD" in one.ask("/day/20261399")[1]
        assert b"/api/slots" in one.ask("/symbol/upbit/KRW-BTX")[1]
        assert one.ask("/api/symbol?provider=upbit&symbol=KRW-BTX")[0] == 404
        for path in ("/symbol/upbit/KRW-BTC", "/symbol/upbit/KRW-OLD", f"/symbol/upbit/KRW-GONE?date={DAY}", "/day/20200229"):
            assert one.ask(path, Accept="text/html")[0] == 200, path
        assert one.ask("/assets/nothing.js", Accept="text/html")[2]["content-type"] == "application/json"
        feed.board["wanted"].write_json({"version": 2, "symbols": ["KRW-BTX"]})
        assert one.ask("/symbol/upbit/KRW-BTX")[0] == 200


def test_while_the_database_is_away_a_symbol_may_be_there(config: Config, feed: Feed) -> None:
    with running(config) as one:
        assert one.ask("/symbol/upbit/KRW-OLD", Accept="text/html")[0] == 200


def test_a_wrong_token_waits_and_the_right_one_does_not(guarded: Config) -> None:
    with running(guarded) as one, ThreadPoolExecutor(8) as pool:
        begun = time.monotonic()
        wrong = [pool.submit(one.ask, "/api/status", Authorization="Bearer guess") for _ in range(3)]
        assert one.ask("/api/status", Authorization=f"Bearer {TOKEN}")[0] == 200
        right_s = time.monotonic() - begun
        assert [guess.result()[0] for guess in wrong] == [401] * 3
        wrong_s = time.monotonic() - begun
    assert wrong_s >= 2.0, "0.5, 1 and 2 s"
    assert right_s < wrong_s / 2


# --- answers


def test_answers_from_files_alone(config: Config, feed: Feed) -> None:
    """There is no database: each answer that wants it says so, and none fails."""
    for minute, symbol in ((1, "KRW-BTC"), (5, None), (5, None)):
        feed.tell(gap(minute, symbol=symbol), DAY)
    counts = {"event_type": "counts", "timestamp": iso_ms(START), "symbol": "KRW-ETH", "minute_ns": START, "inputs": 5}
    feed.tell(counts, DAY)
    append(path_of(config.data_dir, "upbit"), MARKED, Mark("upbit", "crypto", int(DAY), "gaps", {"gaps": 2}, "keeper", START))
    with running(config) as one:
        assert one.json("/api/status")["providers"][0]["latency"]["venue_ms"] is None
        query = f"provider=upbit&date={DAY}"
        gaps = one.json(f"/api/gaps?{query}")
        assert [(line["symbol"], line["within"]) for line in gaps["gaps"]] == [("KRW-BTC", False), (None, False)]
        assert one.json(f"/api/gaps?{query}&symbol=KRW-ETH")["gaps"][0]["symbol"] is None
        heat = one.json(f"/api/heat?{query}")
        assert (heat["start_ms"], heat["minutes"], heat["symbols"]) == (START // 1_000_000, 1440, ["KRW-BTC"])
        assert heat["all"] == [[5, 60.0, "mute", "major"], [6, 30.0, "mute", "major"]]
        assert heat["cells"] == [[0, 1, 60.0, "mute", "major"], [0, 2, 30.0, "mute", "major"]]
        day = one.json(f"/api/day?{query}")
        assert {row["symbol"]: (row["records"], row["gaps"], row["gap_seconds"]) for row in day["symbols"]} == {
            "KRW-BTC": (None, 2, 180.0), "KRW-ETH": (None, 1, 90.0),
        }  # fmt: skip
        assert (day["previous"], day["next"], day["anomaly"]["reason"], day["totals"]["gaps"]) == (None, None, "gaps", 2)
        assert "not running" in day["database"]
        assert day["heat"]["cells"] == heat["cells"]
        symbol = one.json(f"/api/symbol?{query}&symbol=KRW-BTC")
        assert (symbol["bars"], len(symbol["gaps"])) == ([], 2)
        assert "not running" in symbol["database"]
        assert [line["day"] for line in one.json("/api/days")["days"]] == [DAY]
        empty = one.json("/api/day?provider=upbit&date=20260124")
        assert (empty["symbols"], empty["sessions"], empty["previous"], empty["next"]) == ([], [], DAY, None)
        assert one.json("/api/gaps?provider=upbit&date=20260124")["gaps"] == []
        assert one.json("/api/symbol?provider=upbit&date=20260124&symbol=KRW-BTC")["gaps"] == []
        assert {line["event_type"] for line in one.json("/api/events")["events"]} == {"gap_marker"}
        slots = one.json("/api/slots")["providers"][0]
        assert [(row["symbol"], row["standing"]) for row in slots["slots"]] == [("KRW-BTC", "confirmed"), ("KRW-ETH", "confirmed")]


def test_a_damaged_gap_line_spoils_no_answer(config: Config, feed: Feed) -> None:
    for wrong in ({"symbol": ["KRW-BTC"]}, {"symbol": {}}, {"gap_start_ns": "x"}, {"gap_seconds": None}, {"provider": 5}, {"severity": []}):
        feed.tell(gap(9) | wrong, DAY)
    feed.tell(gap(1), DAY)
    with running(config) as one:
        query = f"provider=upbit&date={DAY}"
        gaps = one.json(f"/api/gaps?{query}")
        assert ([line["event_seq"] for line in gaps["gaps"]], gaps["unreadable"]) == ([1], 6)
        assert one.json(f"/api/heat?{query}")["all"] == [[1, 60.0, "mute", "major"], [2, 30.0, "mute", "major"]]
        assert one.json(f"/api/day?{query}")["totals"]["gaps"] == 1
        assert len(one.json(f"/api/symbol?{query}&symbol=KRW-BTC")["gaps"]) == 1
        assert [line["event_seq"] for line in one.json("/api/events")["events"]] == [1]
        stream = Stream(one.place)
        assert [line["event_seq"] for line in stream.wait("hello")["events"]] == [1]
        stream.close()
        assert one.ask("/metrics")[0] == 200


def test_answers_with_a_database_that_goes_away(config: Config, feed: Feed, pg_dsn: str) -> None:
    bars = [("KRW-BTC", minute, 100 + minute, 1.0 if minute else 0.5) for minute in range(10)] + [("KRW-ETH", 3, 7.25, 1.0)]
    with psycopg.connect(pg_dsn, autocommit=True) as conn:
        for provider, shift in (("upbit", 0), ("upbit", -1), ("other", 0)):
            for symbol, minute, price, coverage in bars:
                moment = datetime.fromtimestamp(START // NS, UTC) + timedelta(days=shift, minutes=minute)
                conn.execute(
                    "INSERT INTO scalp_1m_bars (provider, symbol, minute, open, high, low, close, volume, trades, quotes, records,"
                    " coverage_ratio, mitigation_level, quality_flag, session_id) VALUES"
                    " (%s, %s, %s, %s, %s, %s, %s, 3.5, 1, 0, 120, %s, 0, 'normal', 'x')",
                    (provider, symbol, moment, price, price + 1, price - 1, price + 0.5, coverage),
                )
        feed.tell(gap(20, 120), DAY)
        feed.tell(gap(4, 60, "KRW-BTC"), DAY)  # mute: its minute has all its records, and nothing was heard in it
        with running(config, pg_dsn.replace("@", ":planted@", 1)) as one:
            query = f"provider=upbit&date={DAY}"
            day = until(lambda: (found := one.json(f"/api/day?{query}"))["database"] == "" and found)
            assert [(row["symbol"], row["minutes"], row["records"], row["coverage"], row["worst"]) for row in day["symbols"]] == [
                ("KRW-BTC", 10, 1200, 0.85, 0.0), ("KRW-ETH", 1, 120, 1.0, 1.0),
            ]  # fmt: skip
            assert [(row["first_ms"], row["last_ms"]) for row in day["symbols"]] == [
                (START // 1_000_000 + 60_000 * first, START // 1_000_000 + 60_000 * last) for first, last in ((0, 10), (3, 4))
            ]
            assert day["totals"] == {"records": 1320, "gaps": 2, "gap_seconds": 180.0, "coverage": 0.8636}
            page = one.json(f"/api/symbol?{query}&symbol=KRW-BTC")
            assert (page["coverage"], page["worst"]) == (0.85, 0.0), "the page of the symbol says what that of the day says"
            assert [bar[6] for bar in page["bars"]] == [0.5, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]
            bar = one.json(f"/api/symbol?{query}&symbol=KRW-ETH")["bars"]
            assert bar == [[START // 1_000_000 + 180_000, 7.25, 8.25, 6.25, 7.75, 3.5, 1.0, 120, "normal"]]
            name = conn.info.dbname
            with psycopg.connect(pg_dsn.replace(f"/{name}?", "/obs?"), autocommit=True) as admin:
                admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
                away = one.json(f"/api/day?{query}")
                assert "not currently accepting" in away["database"]
                assert "planted" not in away["database"]
                assert [(row["symbol"], row["coverage"]) for row in away["symbols"]] == [("KRW-BTC", None)], "its gap tells of it"
                admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            until(lambda: one.json(f"/api/day?{query}")["database"] == "")


def test_a_big_day_holds_nobody_up_and_is_read_once(config: Config, feed: Feed) -> None:
    path = config.data_dir / "system" / "events" / "upbit" / f"{DAY}.jsonl"
    path.parent.mkdir(parents=True)
    line = b'{"event_type":"counts","timestamp":"%s","symbol":"S%03d","minute_ns":%d,"inputs":3,"padding":"%s"}\n'
    with path.open("wb") as file:
        for number in range(BIG):
            file.write(line % (iso_ms(START).encode(), number % 300, START + number // 300 * 60 * NS, b"x" * 250))
    feed.tell(gap(3), DAY)
    with running(config) as one, ThreadPoolExecutor(1) as pool:
        begun = time.monotonic()
        asked = pool.submit(one.json, f"/api/heat?provider=upbit&date={DAY}")
        slowest, looks = 0.0, 0
        while not asked.done():
            start = time.monotonic()
            one.ask("/health")
            slowest, looks = max(slowest, time.monotonic() - start), looks + 1
        first_s = time.monotonic() - begun
        assert len(asked.result()["all"]) == 2
        begun = time.monotonic()
        again = one.json(f"/api/heat?provider=upbit&date={DAY}")
        again_s = time.monotonic() - begun
        assert again["all"] == asked.result()["all"]
        feed.tell(gap(9), DAY)
        assert len(one.json(f"/api/heat?provider=upbit&date={DAY}")["all"]) == 4
    print(f"  {BIG} lines: first {first_s:.2f} s, slowest other answer {slowest:.3f} s of {looks}, again {again_s:.3f} s")
    assert again_s < first_s / 4
    assert looks >= 3
    assert slowest < first_s / 2


def test_a_disk_that_hangs_holds_up_files_alone(config: Config, feed: Feed) -> None:
    """A file that does not open: answers from files say so in the end, everything else goes on, and when it opens all is as before."""
    feed.tell(gap(1), DAY)
    hung = config.data_dir / "system" / "events" / "upbit" / "20260101.jsonl"
    os.mkfifo(hung)
    with running(config) as one, ThreadPoolExecutor(1) as pool:
        stream = Stream(one.place)
        stream.wait("ticks")
        try:
            asked = pool.submit(one.ask, "/api/heat?provider=upbit&date=20260101")
            published = 0
            while not asked.done():
                published += 1
                feed.publish("KRW-BTC", published)
                assert stream.wait("ticks")["upbit"]["KRW-BTC"][1] == published
                assert one.ask("/metrics")[0] == 200
            status, body, _ = asked.result()
            assert (status, b"has not answered" in body) == (503, True)
            assert published > 5
        finally:
            stream.close()
            writer = os.open(hung, os.O_WRONLY)  # the disk is back
            hung.unlink()
            os.close(writer)
        assert len(one.json(f"/api/heat?provider=upbit&date={DAY}")["all"]) == 2


# --- the stream


def test_the_stream_tells_everything_as_it_comes(config: Config, feed: Feed) -> None:
    feed.tell({"event_type": "warning", "timestamp": iso_ms(START), "what": "before"}, DAY)
    feed.publish("KRW-BTC", 100.5)
    with running(config) as one:
        stream = Stream(one.place)
        assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        event, hello = stream.next()
        assert (event, [line["what"] for line in hello["events"]]) == ("hello", ["before"])
        assert [price for _, price in hello["spark"]["upbit"]["KRW-BTC"]] == [100.5]
        assert stream.wait("status")["providers"][0]["name"] == "upbit"
        ts_ms = feed.publish("KRW-ETH", 7.25)
        ticks = stream.wait("ticks", lambda value: "KRW-ETH" in value["upbit"])
        assert ticks["upbit"]["KRW-ETH"] == [ts_ms, 7.25, 1.0, "normal"]
        assert SYSTEM.wall_ns() // 1_000_000 - ts_ms < 5000
        measured = stream.wait("status", lambda value: value["providers"][0]["latency"]["venue_ms"] is not None)
        assert measured["providers"][0]["latency"]["venue_ms"] == 25.0
        feed.wants(("KRW-ETH",))
        assert stream.wait("slots", lambda value: len(value["providers"][0]["slots"]) == 1)
        feed.tell({"event_type": "warning", "timestamp": iso_ms(START), "what": "after"}, DAY)
        feed.tell({"event_type": "counts", "timestamp": iso_ms(START)}, DAY)
        assert [line["what"] for line in stream.wait("notices")["events"]] == ["after"]
        second = Stream(one.place)
        event, hello = second.next()
        assert (event, hello["version"] != "", len(hello["events"])) == ("hello", True, 2)
        assert set(second.wait("ticks")["upbit"]) == {"KRW-BTC", "KRW-ETH"}, "who comes late is told of every symbol"
        stream.close()
        second.close()
        feed.publish("KRW-BTC", 1)
        assert one.child.poll() is None


def test_a_page_begins_with_what_has_been(config: Config, feed: Feed) -> None:
    """The figures of the looks before anybody asked: CPU and memory, and the rates of each provider."""
    with running(config) as one:
        looked = len(until(lambda: (past := told(one)["past"])["ms"][2:] and past)["ms"])
        past = until(lambda: len((past := told(one)["past"])["ms"]) > looked and past)
    assert {len(past[key]) for key in ("ms", "cpu", "memory")} == {len(past["providers"]["upbit"]["records"])} == {len(past["ms"])}
    assert past["ms"] == sorted(past["ms"])
    assert all(0 < one <= 1 for one in past["memory"])
    assert past["providers"]["upbit"]["messages"][-1] == 0.0


def told(one: Running) -> Any:
    """What a page that opens now is told first."""
    stream = Stream(one.place)
    try:
        return stream.wait("hello")
    finally:
        stream.close()


def test_a_loss_is_told_while_it_goes_on(config: Config, feed: Feed) -> None:
    """From the cut connection to the new subscription, with the time of the last message; no gap line is there yet."""
    link = {"name": "upbit", "pid": os.getpid(), "connection_no": 1, "subscribed": 2, "attempt": 0, "last_reason": ""}

    def losing(**changes: Any) -> list[dict[str, Any]]:
        feed.board["link"].write_json([link | changes])
        looked = one.json("/api/status")["ts"]
        return list(until(lambda: (found := one.json("/api/status"))["ts"] > looked and found)["providers"][0]["losing"])

    with running(config) as one:
        assert losing(connected=True) == []
        cut_ns, cut_mono = SYSTEM.wall_ns(), SYSTEM.mono_ns()
        (loss,) = losing(connected=False, last_reason="reset", since_mono_ns=cut_mono)
        assert (loss["link"], loss["reason"], loss["sure"]) == (None, "ws_disconnect", True)
        assert 0 <= cut_ns // 1_000_000 - loss["since_ms"] < 30_000, "from the last message on"
        (again,) = losing(connected=True, subscribed=0, last_reason="reset", since_mono_ns=SYSTEM.mono_ns())
        assert again["since"] == loss["since"], "connected, but without an answer yet"
        assert losing(connected=True, last_reason="reset") == []


def test_no_event_is_missed_or_told_twice(config: Config, feed: Feed) -> None:
    """Browsers that come while events are written: hello and notices together tell each event once, in order."""
    last = 300

    def write() -> None:
        for number in range(last + 1):
            feed.tell({"event_type": "warning", "timestamp": iso_ms(START + number * 1_000_000), "number": number}, DAY)
            time.sleep(0.01)

    def watch(delay_s: float) -> list[int]:
        time.sleep(delay_s)
        stream = Stream(one.place)
        try:
            seen = [line["number"] for line in reversed(stream.wait("hello")["events"])]
            while not seen or seen[-1] != last:
                seen += [line["number"] for line in stream.wait("notices")["events"]]
            return seen
        finally:
            stream.close()

    with running(config) as one, ThreadPoolExecutor(6) as pool:
        writing = pool.submit(write)
        for seen in pool.map(watch, (0.0, 0.3, 0.9, 1.7)):
            assert seen == list(range(seen[0], last + 1))
        writing.result()


def test_a_new_session_is_followed(config: Config, feed: Feed) -> None:
    with running(config) as one:
        stream = Stream(one.place)
        stream.wait("slots")
        second = Feed(config, 2)
        try:
            stream.wait("status", lambda value: value["providers"][0]["session_id"] == second.session)
            second.publish("KRW-BTC", 3)
            assert stream.wait("ticks", lambda value: value.get("upbit"))["upbit"]["KRW-BTC"][1] == 3.0
        finally:
            stream.close()
            second.close()


def test_streams_are_bounded_and_those_that_leave_are_forgotten(config: Config, feed: Feed, capfd: pytest.CaptureFixture[str]) -> None:
    with running(config) as one:
        before = len(os.listdir(f"/proc/{one.pid}/fd"))
        streams = [Stream(one.place) for _ in range(CLIENTS)]
        assert [stream.status for stream in streams] == [200] * CLIENTS
        refused = Stream(one.place)
        assert (refused.status, b"close one" in refused.body()) == (503, True)
        refused.close()
        assert one.ask("/health")[0] in (200, 503), "ordinary requests have places of their own"
        hellos = [stream.next() for stream in streams]
        assert {event for event, _ in hellos} == {"hello"}
        for stream in streams:
            stream.close()
        until(lambda: len(os.listdir(f"/proc/{one.pid}/fd")) <= before)
        late = Stream(one.place)
        assert late.next()[0] == "hello"
    late.close()  # it did not hold up the stop
    assert "trace" not in capfd.readouterr().err, "a browser that leaves is no error"
