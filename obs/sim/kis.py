"""The simulated KIS WebSocket: registrations, acknowledgements, PINGPONG, one connection per appkey, data messages.

Source: KIS Open API sheet, sections 2.2, 3 and 4 (portal tables, notices to 2026-09 and captures). Assumed, because nothing
public tells it: the answer to a text that is not JSON (OPSP8993), how long an appkey stays taken after a connection broke
(`zombie_s`), and what a loop of connects meets (HTTP 403 until fewer than `connects_per_min` lie in the last minute).
"""

from __future__ import annotations

import json
import random
import string
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from obs.sim.captured import Captured, SymbolMap, map_kis
from obs.sim.connection import Connection
from obs.sim.exchange import Encoded, Exchange
from obs.sim.frames import TEXT
from obs.sim.kis_encode import MAX_RECORDS, KstClock, book_record, trade_record, us_book_record, us_trade_record
from obs.sim.kis_rest import KisAccounts, KisRest
from obs.sim.log import SimLog
from obs.sim.market import BOOK, TRADE, Message, Source, Stream
from obs.sim.now import host_s, mono_s, wall_ns
from obs.sim.options import SimOptions
from obs.sim.script import Action

# tr_id -> (group, kind of its stream); kind None: accepted and silent
CHANNELS: Final[dict[str, tuple[str, str | None]]] = {
    "H0STCNT0": ("krx", TRADE), "H0STASP0": ("krx", BOOK), "H0UNCNT0": ("unified", TRADE), "H0UNASP0": ("unified", BOOK),
    "H0NXCNT0": ("nxt", TRADE), "H0NXASP0": ("nxt", BOOK), "HDFSCNT0": ("us", TRADE), "HDFSASP0": ("us", BOOK),
    "H0STMKO0": ("krx", None), "H0STCNI0": ("krx", None), "H0STCNI9": ("krx", None), "H0GSCNI0": ("us", None), "H0GSCNI9": ("us", None),
}  # fmt: skip
_ENCRYPTED: Final = ("H0STCNI0", "H0STCNI9", "H0GSCNI0", "H0GSCNI9")
_MINUTE_S: Final = 60.0
_MERGED_BOOK_FIELDS: Final = 3  # H0UNASP0 and H0NXASP0: the NXT midpoint's price, quantity and side


@dataclass(slots=True)
class _State:
    """What the venue knows of a connection."""

    key: str = ""  # the approval key it registered with
    appkey: str = ""
    registered: set[tuple[str, str]] = field(default_factory=set)
    next_ping_s: float = 0.0
    unanswered_s: float = 0.0  # when the first PINGPONG without an answer was sent; 0: none


@dataclass(slots=True)
class _Holder:
    """Who holds an appkey: a connection, or the ghost of one until `until_s`."""

    conn: Connection
    until_s: float | None = None


class KisExchange(Exchange):
    """The venue's WebSocket side; REST is in kis_rest.py."""

    venue = "kis"
    opcode = TEXT

    def __init__(self, options: SimOptions, source: Source, log: SimLog, captured: list[Captured]) -> None:
        super().__init__(options, source, log, captured)
        self.clock = KstClock()
        self.accounts = KisAccounts(options)
        self._rest = KisRest(self)
        self._holders: dict[str, _Holder] = {}
        self._random = random.Random(options.seed)
        self._connects: dict[str, deque[float]] = {}  # handshakes of the last minute, by address

    def set_clock(self, now_ns: int) -> tuple[str, str, int]:
        self.clock.set(now_ns)
        return self.clock.day, self.clock.hms, self.clock.day_ms

    # Handshake, life and end

    def refuse_upgrade(self, request: web.BaseRequest) -> web.Response | None:
        # Every path is served: /tryitout, /tryitout/<tr_id> and the root have all been seen to work.
        now, ip = mono_s(), request.remote or ""
        times = self._connects.setdefault(ip, deque())
        while times and now - times[0] >= _MINUTE_S:
            times.popleft()
        times.append(now)
        if len(times) <= self.options.connects_per_min:
            return None
        self.log.do("blocked", ip=ip)
        return web.Response(status=403)

    def upgrade_headers(self) -> dict[str, str]:
        return {}

    async def rest(self, request: web.BaseRequest) -> web.Response:
        return await self._rest.answer(request)

    def opened(self, conn: Connection) -> None:
        conn.state = _State(next_ping_s=host_s() + self.options.pingpong_s)

    def ended(self, conn: Connection) -> None:
        state: _State = conn.state
        holder = self._holders.get(state.appkey)
        if holder is None or holder.conn is not conn:
            return
        if conn.said_close or not self.options.zombie_s:
            del self._holders[state.appkey]
        else:
            holder.until_s = host_s() + self.options.zombie_s

    def housekeeping(self, conn: Connection, now_s: float) -> None:
        state: _State = conn.state
        if state.unanswered_s and now_s - state.unanswered_s > self.options.pong_timeout_s:
            self.log.do("pingpong unanswered", conn=conn.no)
            conn.end("pingpong unanswered")
            return
        if now_s >= state.next_ping_s:
            state.next_ping_s = now_s + self.options.pingpong_s
            if not self.faults.find("mute", conn.no):
                self.set_clock(wall_ns())
                state.unanswered_s = state.unanswered_s or now_s
                conn.say(_compact({"header": {"tr_id": "PINGPONG", "datetime": self.clock.day + self.clock.hms}}), TEXT)

    def act(self, action: Action) -> bool:
        if action.do == "expire_approval":
            self.accounts.approvals.clear()
        elif action.do == "expire_token":
            self.accounts.expire_tokens()
        else:
            return False
        return True

    def received_pong(self, conn: Connection, data: bytes) -> None:
        # The provider's own sample answers with a pong frame that carries the text.
        conn.state.unanswered_s = 0.0

    def ping(self, conn: Connection, data: bytes) -> None:
        conn.state.unanswered_s = 0.0
        super().ping(conn, data)

    # Registrations

    def received(self, conn: Connection, data: bytes) -> None:
        try:
            message = json.loads(data)
            header = message["header"]
            if header.get("tr_id") == "PINGPONG":
                conn.state.unanswered_s = 0.0
                return
            wanted = message["body"]["input"]
            tr_id, tr_key = str(wanted["tr_id"]), str(wanted["tr_key"])
            key, tr_type = str(header.get("approval_key", "")), str(header.get("tr_type", ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            self._reply(conn, "(null)", "", "9", "OPSP8993", "JSON PARSING ERROR : invalid format")
            return
        if self._authenticate(conn, key, tr_id, tr_key):
            self._register(conn, tr_type, tr_id, tr_key)

    def _authenticate(self, conn: Connection, key: str, tr_id: str, tr_key: str) -> bool:
        """Check the approval key and take the appkey. A key that has served this connection stays good for it."""
        state: _State = conn.state
        if state.key and key == state.key:
            return True
        appkey = self.accounts.appkey_of(key)
        if appkey is None or self.faults.find("refuse_approval", conn.no):
            self._reply(conn, tr_id, tr_key, "1", "OPSP0011", "invalid approval : NOT FOUND")
            return False
        holder = self._holders.get(appkey)
        taken = holder is not None and holder.conn is not conn and (holder.until_s is None or holder.until_s > host_s())
        if taken or self.faults.find("take_appkey", conn.no):
            self._reply(conn, "(null)", "", "9", "OPSP8996", "ALREADY IN USE appkey")
            self.log.do("already in use", conn=conn.no)
            conn.end("already in use")
            return False
        state.key, state.appkey = key, appkey
        self._holders[appkey] = _Holder(conn)
        return True

    def _register(self, conn: Connection, tr_type: str, tr_id: str, tr_key: str) -> None:
        state: _State = conn.state
        place = (tr_id, tr_key)
        if tr_id not in CHANNELS or tr_type not in ("1", "2"):
            self._reply(conn, tr_id, tr_key, "9", "OPSP8991", "invalid tr_id")
        elif tr_type == "2":
            if place in state.registered:
                state.registered.discard(place)
                self.unsubscribe(conn, place)
                self._reply(conn, tr_id, tr_key, "0", "OPSP0001", "UNSUBSCRIBE SUCCESS", self._cipher())
            else:
                self._reply(conn, tr_id, tr_key, "1", "OPSP0003", "UNSUBSCRIBE ERROR (not found)")
        elif place in state.registered:
            self._reply(conn, tr_id, tr_key, "1", "OPSP0002", "ALREADY IN SUBSCRIBE")
        elif refusal := self.faults.find("refuse_symbol", conn.no, tr_key):
            self._reply(conn, tr_id, tr_key, "1", str(refusal.parameters.get("code", "OPSP0007")), "SUBSCRIBE INTERNAL ERROR")
        elif len(state.registered) >= self.options.slots:
            self._reply(conn, tr_id, tr_key, "1", "OPSP0008", "MAX SUBSCRIBE OVER")
        else:
            state.registered.add(place)
            self._reply(conn, tr_id, tr_key, "0", "OPSP0000", "SUBSCRIBE SUCCESS", self._cipher())
            group, kind = CHANNELS[tr_id]
            if kind is not None:
                self.subscribe(conn, place, kind, self.symbol(group, tr_key))

    def _cipher(self) -> dict[str, str]:
        letters = string.ascii_letters + string.digits
        return {"iv": "".join(self._random.choices(string.hexdigits, k=16)), "key": "".join(self._random.choices(letters, k=32))}

    def _reply(
        self, conn: Connection, tr_id: str, tr_key: str, rt_cd: str, code: str, text: str, output: dict[str, str] | None = None
    ) -> None:
        body: dict[str, Any] = {"rt_cd": rt_cd, "msg_cd": code, "msg1": text}
        if output:
            body["output"] = output
        header = {"tr_id": tr_id, "tr_key": tr_key, "encrypt": "Y" if tr_id in _ENCRYPTED else "N"}
        if code != "OPSP0000":
            self.log.do("reply", conn=conn.no, code=code, symbol=tr_key)
        if not self.faults.find("mute", conn.no):
            conn.say(_compact({"header": header, "body": body}), TEXT)

    # Data

    def encode(self, stream: Stream, count: int, now_ns: int) -> Encoded:
        out = []
        while count > 0:
            run = min(count, MAX_RECORDS if stream.kind == TRADE else 1)
            count -= run
            records, tails = [], []
            for _ in range(run):
                self.advance(stream, now_ns)
                records.append(self._record(stream))
                if self.log.on:
                    tails.append(self._tail(stream))
            payload = f"0|{stream.key[0]}|{run:03d}|{'^'.join(records)}".encode()
            out.append(Message(payload, run, tails, stream.symbol.code))
        return [(None, out)]

    def peek(self, stream: Stream) -> Message:
        return Message(f"0|{stream.key[0]}|001|{self._record(stream)}".encode(), 1, [self._tail(stream)], stream.symbol.code)

    def _record(self, stream: Stream) -> str:
        symbol = stream.symbol
        if symbol.group.name == "us":
            return us_trade_record(symbol, self.clock) if stream.kind == TRADE else us_book_record(symbol, self.clock)
        if stream.kind == TRADE:
            return trade_record(symbol, self.clock, self.options.width)
        width = self.options.book_width
        return book_record(symbol, self.clock, width if stream.key[0] == "H0STASP0" else width + _MERGED_BOOK_FIELDS)

    @staticmethod
    def _tail(stream: Stream) -> str:
        s = stream.symbol
        unit = s.group.price_unit
        if stream.kind == TRADE:
            price = s.price if unit == 1 else s.price / unit
            return f'"symbol":"{s.code}","kind":"trade","price":{price},"size":{s.size},"acc_volume":{s.acc},"k":{s.k}'
        bid, ask = (s.bid, s.ask) if unit == 1 else (s.bid / unit, s.ask / unit)
        return (
            f'"symbol":"{s.code}","kind":"quote","price":null,"size":null,"acc_volume":{s.acc},"k":{s.q}'
            f',"bid":{bid},"ask":{ask},"bid_size":{s.bid_size},"ask_size":{s.ask_size}'
        )

    def map_captured(self, frame: Captured, subscribed: dict[str, list[str]], symbols: SymbolMap) -> Message:
        return map_kis(frame.payload, subscribed, symbols)


def _compact(message: dict[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
