"""The simulated Upbit WebSocket: request arrays, silent snapshots, a subscription that replaces, everything binary.

Source: Upbit sheet, section 2 (guide v1.6.4 and measurements of 2026-09-23): Korean host. Assumed, because nothing public tells
it: a connection over the message limit gets an error frame `TOO_MANY_REQUESTS` and is closed like after any error; the
handshake over a limit gets HTTP 429; an order book suffix other than .1 .5 .15 .30 is an INVALID_PARAM; candles are accepted
and stay silent.
"""

from __future__ import annotations

import json
import random
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from obs.sim.captured import Captured, SymbolMap, map_upbit
from obs.sim.connection import Connection
from obs.sim.exchange import Encoded, Exchange
from obs.sim.frames import BINARY
from obs.sim.log import SimLog
from obs.sim.market import BOOK, TICKER, TRADE, Message, Source, Stream
from obs.sim.now import host_s, mono_s, wall_ns
from obs.sim.options import SimOptions
from obs.sim.symbols import crypto_pairs
from obs.sim.upbit_encode import BOOK_LEVELS, FORMATS, UtcClock, book_text, fixed, ticker_text, trade_text
from obs.sim.upbit_rest import UpbitRest

PATH: Final = "/websocket/v1"
_KINDS: Final = {"trade": TRADE, "orderbook": BOOK, "ticker": TICKER}
_CANDLE: Final = re.compile(r"candle\.(1s|(1|3|5|10|15|30|60|240)m)")
_SUFFIXES: Final = ("1", "5", "15", "30")
_SNAPSHOT_S: Final = (0.172, 0.354)  # Source: upbit.md 2.2
_ERROR_CLOSE_S: Final = (0.150, 0.180)  # Source: upbit.md 2.4, Korean host
_FIRST_UP_S: Final = (0.6, 8.9)  # Source: upbit.md 2.3
_UP_EVERY_S: Final = 10.0
_MINUTE_S: Final = 60.0

ERRORS: Final = {
    "NO_TICKET": "티켓이 존재하지 않거나, 유효하지 않습니다.",
    "NO_TYPE": "타입 필드가 존재하지 않습니다.",
    "NO_CODES": "코드 필드가 존재하지 않습니다.",
    "WRONG_FORMAT": "Format 이 맞지 않습니다.",
    "INVALID_PARAM": "{} 은 지원하지 않는 타입입니다.",
    "INVALID_AUTH": "인증 정보가 올바르지 않습니다.",
    "TOO_MANY_REQUESTS": "요청 수 제한을 초과했습니다.",
}


class RequestError(Exception):
    """A request that Upbit answers with an error frame; `name` is what clients match on."""

    def __init__(self, name: str, subject: str = "") -> None:
        super().__init__(name, subject)
        self.name = name
        self.subject = subject


@dataclass(frozen=True, slots=True)
class Wanted:
    """One type object of a request. `levels` of an order book by code; `level` groups prices."""

    kind: str
    codes: dict[str, int]
    snapshot: bool
    realtime: bool
    level: int


@dataclass(slots=True)
class _State:
    form: str = "DEFAULT"
    wanted: list[Wanted] = field(default_factory=list)
    sent: deque[float] = field(default_factory=deque)  # times of the client's messages, last minute
    next_up_s: float = 0.0
    request_no: int = 0


class UpbitExchange(Exchange):
    """The venue's WebSocket side; REST is in upbit_rest.py."""

    venue = "upbit"
    opcode = BINARY

    def __init__(
        self, options: SimOptions, source: Source, log: SimLog, captured: list[Captured], pairs: dict[str, float] | None = None
    ) -> None:
        super().__init__(options, source, log, captured)
        self.clock = UtcClock()
        self.pairs = (crypto_pairs() if not options.universe else {}) | (pairs or {})
        self._rest = UpbitRest(self)
        self._random = random.Random(options.seed)
        self._connects: dict[str, deque[float]] = {}
        self._with_origin: dict[str, float] = {}

    def set_clock(self, now_ns: int) -> tuple[str, str, int]:
        self.clock.set(now_ns)
        return self.clock.day, self.clock.hms, self.clock.day_ms

    # Handshake, life and end

    def origin_refused(self, request: web.BaseRequest) -> bool:
        """Return True for a second request with an Origin header within ten seconds."""
        if "Origin" not in request.headers:
            return False
        now, ip = mono_s(), request.remote or ""
        refused = now - self._with_origin.get(ip, -self.options.origin_s) < self.options.origin_s
        if not refused:
            self._with_origin[ip] = now
        return refused

    def refuse_upgrade(self, request: web.BaseRequest) -> web.Response | None:
        if request.path == f"{PATH}/private":
            return web.Response(status=401)  # the private socket is out of scope
        if request.path != PATH:
            return web.Response(status=404)
        now = mono_s()
        times = self._connects.setdefault(request.remote or "", deque())
        while times and now - times[0] >= 1.0:
            times.popleft()
        if len(times) >= self.options.connects_per_s or self.origin_refused(request):
            self.log.do("connect limit", ip=request.remote)
            return web.Response(status=429, headers=self.upgrade_headers())
        times.append(now)
        return None

    def upgrade_headers(self) -> dict[str, str]:
        left = self.options.connects_per_s - max((len(times) for times in self._connects.values()), default=0)
        return {"Remaining-Req": f"group=websocket; min=300; sec={max(0, left)}", "Limit-By-Ip": "Yes"}

    async def rest(self, request: web.BaseRequest) -> web.Response:
        return self._rest.answer(request)

    def opened(self, conn: Connection) -> None:
        conn.state = _State()

    def ended(self, conn: Connection) -> None:
        """Nothing is kept: Upbit knows no slots."""

    def housekeeping(self, conn: Connection, now_s: float) -> None:
        state: _State = conn.state
        if now_s - conn.last_io_s > self.options.idle_s:
            # Source: upbit.md 2.3: TCP closed without close frame.
            self.log.do("idle", conn=conn.no)
            conn.end("idle")
        elif state.next_up_s and now_s >= state.next_up_s:
            state.next_up_s = now_s + _UP_EVERY_S
            if not self.faults.find("mute", conn.no):
                conn.say(b'{"status":"UP"}', BINARY)

    def received_pong(self, conn: Connection, data: bytes) -> None:
        """Upbit never pings; an unasked pong means nothing."""

    # Requests

    def received(self, conn: Connection, data: bytes) -> None:
        state: _State = conn.state
        now = mono_s()
        while state.sent and now - state.sent[0] >= _MINUTE_S:
            state.sent.popleft()
        state.sent.append(now)
        last_second = sum(1 for at in state.sent if now - at < 1.0)
        try:
            if last_second > self.options.messages_per_s or len(state.sent) > self.options.messages_per_min:
                raise RequestError("TOO_MANY_REQUESTS")
            if data.strip() == b"PING":
                state.next_up_s = state.next_up_s or host_s() + self._random.uniform(*_FIRST_UP_S)
                return
            self._request(conn, data)
        except RequestError as error:
            self._fail(conn, error)

    def _fail(self, conn: Connection, error: RequestError) -> None:
        """Send an error frame, and close with 1000 a moment later."""
        message = {"name": error.name, "message": ERRORS[error.name].format(error.subject)}
        self.log.do("error", conn=conn.no, code=error.name)
        conn.say(_compact({"error": message}), BINARY)
        conn.loop.call_later(self._random.uniform(*_ERROR_CLOSE_S), lambda: conn.close(1000, why=error.name))

    def _request(self, conn: Connection, data: bytes) -> None:
        state: _State = conn.state
        ticket, form, method, wanted = parse_request(data)
        state.form = form or ("DEFAULT" if wanted else state.form)
        if method:
            self._list(conn, ticket)
            return
        # Invariant: a request replaces the whole subscription of its connection.
        for stream in self.streams.values():
            stream.subs.pop(conn, None)
        state.wanted = wanted
        state.request_no += 1
        for item in wanted:
            self._subscribe(conn, item)
        delay_s = self._random.uniform(*_SNAPSHOT_S)
        conn.loop.call_later(delay_s, self._snapshots, conn, state.request_no)

    def _subscribe(self, conn: Connection, item: Wanted) -> None:
        kind = _KINDS.get(item.kind)
        if kind is None:
            return
        for code, levels in item.codes.items():
            # Source: upbit.md 2.1: unknown and lower-case codes get neither frame nor error; so does level on a BTC pair.
            if code not in self.pairs or (item.level and not code.startswith("KRW-")):
                continue
            if item.realtime:
                way = (conn.state.form, levels, item.level)
                self.subscribe(conn, (item.kind, code), kind, self.symbol("crypto", code), way)

    def _snapshots(self, conn: Connection, request_no: int) -> None:
        """Send one SNAPSHOT frame per code, unless another request has replaced this one."""
        state: _State = conn.state
        if not conn.alive or state.request_no != request_no:
            return
        self.set_clock(wall_ns())
        messages = []
        for item in state.wanted:
            if item.kind not in _KINDS or not item.snapshot:
                continue
            for code, levels in item.codes.items():
                if code in self.pairs and not (item.level and not code.startswith("KRW-")):
                    stream = Stream((item.kind, code), _KINDS[item.kind], self.symbol("crypto", code))
                    messages.append(self._message(stream, (state.form, levels, item.level), "SNAPSHOT"))
        self.send_now(conn, messages)

    def _list(self, conn: Connection, ticket: str) -> None:
        """Answer LIST_SUBSCRIPTIONS."""
        state: _State = conn.state
        simple = state.form.startswith("SIMPLE")
        names = ("ty", "cds", "lv") if simple else ("type", "codes", "level")
        result = []
        for item in state.wanted:
            row: dict[str, Any] = {names[0]: item.kind, names[1]: list(item.codes)}
            if item.kind == "orderbook":
                row[names[2]] = item.level
            result.append(row)
        outer = ("mthd", "rslt", "tckt") if simple else ("method", "result", "ticket")
        answer = {outer[0]: "LIST_SUBSCRIPTIONS", outer[1]: result, outer[2]: ticket}
        conn.say(_compact([answer] if state.form.endswith("LIST") else answer), BINARY)

    # Data

    def encode(self, stream: Stream, count: int, now_ns: int) -> Encoded:
        ways = list(dict.fromkeys(stream.subs.values()))
        out: Encoded = [(way, []) for way in ways]
        for _ in range(count):
            self.advance(stream, now_ns)
            for way, messages in out:
                messages.append(self._message(stream, way, "REALTIME"))
        return out

    def peek(self, stream: Stream) -> Message:
        return self._message(stream, ("DEFAULT", 1, 0), "REALTIME")

    def _message(self, stream: Stream, way: tuple[str, int, int], stream_type: str) -> Message:
        s = stream.symbol
        form, levels, level = way
        if stream.kind == TRADE:
            text = trade_text(s, self.clock, form, stream_type)
        elif stream.kind == TICKER:
            text = ticker_text(s, self.clock, form, stream_type)
        else:
            text = book_text(s, self.clock, form, stream_type, levels, level)
        tails = [self._tail(stream, stream_type == "SNAPSHOT")] if self.log.on else []
        return Message(text.encode(), 1, tails, s.code)

    @staticmethod
    def _tail(stream: Stream, snapshot: bool) -> str:
        s = stream.symbol
        name = "quote" if stream.kind == BOOK else stream.kind
        kind = f'"snapshot","of":"{name}"' if snapshot else f'"{name}"'
        if stream.kind == BOOK:
            return (
                f'"symbol":"{s.code}","kind":{kind},"price":null,"size":null,"acc_volume":{fixed(s.acc)},"k":{s.q},"venue_seq":null'
                f',"bid":{fixed(s.bid)},"ask":{fixed(s.ask)},"bid_size":{fixed(s.bid_size)},"ask_size":{fixed(s.ask_size)}'
            )
        seq = s.venue_seq if stream.kind == TRADE else "null"
        return (
            f'"symbol":"{s.code}","kind":{kind},"price":{fixed(s.price)},"size":{fixed(s.size)},"acc_volume":{fixed(s.acc)}'
            f',"k":{s.k},"venue_seq":{seq}'
        )

    def map_captured(self, frame: Captured, subscribed: dict[str, list[str]], symbols: SymbolMap) -> Message:
        return map_upbit(frame.payload, subscribed, symbols)


def parse_request(data: bytes) -> tuple[str, str | None, str, list[Wanted]]:
    """Return (ticket, format or None, method or "", type objects) of a request. Raises RequestError."""
    try:
        request = json.loads(data)
    except ValueError as error:
        raise RequestError("WRONG_FORMAT") from error
    if not isinstance(request, list) or not all(isinstance(part, dict) for part in request):
        raise RequestError("WRONG_FORMAT")
    tickets = [part["ticket"] for part in request if "ticket" in part]
    if not tickets or not isinstance(tickets[0], str) or not tickets[0]:
        raise RequestError("NO_TICKET")
    forms = [part["format"] for part in request if "format" in part]
    if forms and forms[-1] not in FORMATS:
        raise RequestError("WRONG_FORMAT")
    form = forms[-1] if forms else None
    methods = [part["method"] for part in request if "method" in part]
    if methods:
        if methods[0] != "LIST_SUBSCRIPTIONS":
            raise RequestError("INVALID_PARAM", str(methods[0]))
        return tickets[0], form, methods[0], []
    types = [part for part in request if "ticket" not in part and "format" not in part]
    if not types or not all("type" in part for part in types):
        raise RequestError("NO_TYPE")
    return tickets[0], form, "", [_wanted(part) for part in types]


def _wanted(part: dict[str, Any]) -> Wanted:
    """Return one checked type object. Snake case is documented; the camel case of 2021 is still accepted."""
    kind = part["type"]
    if not isinstance(kind, str) or not (kind in _KINDS or _CANDLE.fullmatch(kind)):
        raise RequestError("INVALID_PARAM", str(kind))
    codes = part.get("codes")
    if not isinstance(codes, list) or not codes or not all(isinstance(code, str) for code in codes):
        raise RequestError("NO_CODES")
    level = part.get("level", 0)
    if isinstance(level, bool) or not isinstance(level, (int, float)):
        raise RequestError("WRONG_FORMAT")
    only_snapshot = part.get("is_only_snapshot", part.get("isOnlySnapshot", False))
    only_realtime = part.get("is_only_realtime", part.get("isOnlyRealtime", False))
    if not isinstance(only_snapshot, bool) or not isinstance(only_realtime, bool):
        raise RequestError("WRONG_FORMAT")
    levels = {}
    for code in codes:
        base, dot, suffix = code.partition(".")
        if dot and (kind != "orderbook" or suffix not in _SUFFIXES):
            raise RequestError("INVALID_PARAM", code)
        levels[base] = int(suffix) if dot else BOOK_LEVELS
    return Wanted(kind, levels, not only_realtime or only_snapshot, not only_snapshot or only_realtime, int(level))


def _compact(message: object) -> bytes:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
