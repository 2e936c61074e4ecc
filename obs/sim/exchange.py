"""What the simulated venues have in common: the market's pace, subscriptions, faults, and one write per client and tick.

Each 10 ms the source says which events happened. Their messages are made once, queued for every subscriber, logged with
one os.write, and handed over as one joined bytes object per client. A client that does not read is cut when its unsent
bytes pass a bound, so a stopped reader costs bounded memory.

Invariant: time passes in the market for every stream that anybody has ever subscribed to, listened to or not: a client that
comes back sees an accumulated volume that tells exactly what it missed. Only what is sent is logged.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from asyncio import AbstractEventLoop, TimerHandle, get_running_loop
from collections import deque
from typing import Any, Final

from aiohttp import web

from obs.sim.captured import Captured, SymbolMap
from obs.sim.connection import Connection
from obs.sim.faults import Faults
from obs.sim.frames import PONG, head
from obs.sim.live import Live
from obs.sim.log import SimLog
from obs.sim.market import BOOK, STEP_S, TICKER, TRADE, Message, Source, Stream, Symbol
from obs.sim.now import host_s, mono_s, started_s, wall_ns
from obs.sim.options import SimOptions
from obs.sim.script import Action
from obs.sim.universe import SCENARIO, Effect, Universe

_MAX_CATCH_UP_STEPS: Final = 100  # after a stall of more than a second the market skips the rest
_HOUSEKEEPING_STEPS: Final = 10
_CAPTURED_PER_TICK: Final = 2
_CAPTURED_SETTLE_S: Final = 1.0  # without a new subscription; the first frames wait at most _CAPTURED_WAIT_S
_CAPTURED_WAIT_S: Final = 5.0

Encoded = list[tuple[Any, list[Message]]]  # by the way that a subscriber wants it (None: all alike)


class Exchange(ABC):
    """A venue. Subclasses know its protocol; everything runs on one event loop."""

    venue: str
    opcode: int  # of its data messages

    def __init__(self, options: SimOptions, source: Source, log: SimLog, captured: list[Captured]) -> None:
        self.options = options
        self.source = source
        self.log = log
        self.faults = Faults(self.venue, self.opcode)
        self.symbols: dict[tuple[str, str], Symbol] = {}
        self.streams: dict[tuple[str, str], Stream] = {}
        self.connections: dict[int, Connection] = {}
        self.script: list[Action] = []
        self.inputs_total = 0
        self.conn_total = 0
        self.universe: Universe | None = None
        self.live: Live | None = None  # what moves the symbols of a universe, instead of the source
        self._planned: list[Action] = []  # scenario lines that the universe knows of since the start
        self._captured = deque(captured)
        self._symbol_map = SymbolMap()
        self._last_subscription_s = 0.0
        self._first_subscription_s = 0.0
        self._started_s = 0.0  # venue time
        self._paced_s = 0.0  # host time: when the pace began
        self._steps = 0
        self._timer: TimerHandle | None = None
        self._loop: AbstractEventLoop | None = None

    # The protocol of a venue

    @abstractmethod
    def set_clock(self, now_ns: int) -> tuple[str, str, int]:
        """Set the time texts; return the venue's day, the time of day as text, and the epoch ms at which the day began."""

    @abstractmethod
    def encode(self, stream: Stream, count: int, now_ns: int) -> Encoded:
        """Let `count` events happen in a stream and return their messages, for each way that a subscriber wants them."""

    @abstractmethod
    def map_captured(self, frame: Captured, subscribed: dict[str, list[str]], symbols: SymbolMap) -> Message:
        """Return a captured frame as a message for a client with these codes by channel."""

    @abstractmethod
    def refuse_upgrade(self, request: web.BaseRequest) -> web.Response | None:
        """Return the answer to a handshake that is not accepted."""

    @abstractmethod
    def upgrade_headers(self) -> dict[str, str]: ...

    @abstractmethod
    async def rest(self, request: web.BaseRequest) -> web.Response: ...

    @abstractmethod
    def opened(self, conn: Connection) -> None: ...

    @abstractmethod
    def received(self, conn: Connection, data: bytes) -> None:
        """A text or binary message came."""

    @abstractmethod
    def received_pong(self, conn: Connection, data: bytes) -> None:
        """A protocol pong came."""

    @abstractmethod
    def ended(self, conn: Connection) -> None: ...

    @abstractmethod
    def housekeeping(self, conn: Connection, now_s: float) -> None:
        """Called for each connection every 100 ms; `now_s`: host time."""

    def act(self, action: Action) -> bool:
        """Do an action that only this venue knows; False if it is none."""
        return False

    # Symbols and streams

    def symbol(self, group: str, code: str, name: str = "") -> Symbol:
        """Return the symbol, begun if it is new."""
        known = self.symbols.get((group, code))
        if known is None:
            known = self.symbols[group, code] = Symbol(group, code, name)
            now_ns = wall_ns()
            day, hms, known.day_ms = self.set_clock(now_ns)
            self.source.begin(known, now_ns)
            known.trade_ns = now_ns
            known.begin_day(day, hms)
        if self.live is not None:
            self.live.show(known)
        return known

    def subscribe(self, conn: Connection, key: tuple[str, str], kind: str, symbol: Symbol, way: Any = None) -> Stream:
        """Add a subscriber to a stream; the stream begins to run if it is new."""
        stream = self.streams.get(key)
        if stream is None:
            stream = self.streams[key] = Stream(key, kind, symbol)
            if kind == TRADE:
                symbol.has_trades = True
            if self.live is not None:
                self.live.add(stream)
            else:
                self.source.add(stream)
        stream.subs[conn] = way
        self._last_subscription_s = mono_s()
        self._first_subscription_s = self._first_subscription_s or self._last_subscription_s
        poison = self.faults.find("poison", conn.no, symbol.code)
        if poison:
            get_running_loop().call_later(0.02, self._poison, conn, stream, poison)
        return stream

    def unsubscribe(self, conn: Connection, key: tuple[str, str]) -> None:
        stream = self.streams.get(key)
        if stream is not None:
            stream.subs.pop(conn, None)

    def advance(self, stream: Stream, now_ns: int) -> None:
        """Let one event happen in a stream's symbol."""
        symbol = stream.symbol
        if self.live is not None:
            at_ns = self.live.happen(stream) + self.faults.skew_ns()
            symbol.trade_ns = at_ns if stream.kind != BOOK else symbol.trade_ns
            symbol.day, _, symbol.day_ms = self.set_clock(at_ns)
            return
        day, hms, day_ms = self.set_clock(now_ns)
        if day > symbol.day:  # Why not !=: a skew into yesterday must not start the numbers anew, and again when it ends
            self.source.new_day(symbol)
            symbol.begin_day(day, hms)
            symbol.day_ms = day_ms
        if stream.kind == TRADE or (stream.kind == TICKER and not symbol.has_trades):
            self.source.trade(symbol, now_ns)
            symbol.traded(now_ns, hms)
        elif stream.kind != TICKER:
            self.source.book(symbol)

    # Pace

    def start(self, loop: AbstractEventLoop) -> None:
        """Begin to run; script times count from here, or from the start of a venue clock that was given one."""
        self._loop = loop
        self._started_s, self._paced_s = started_s(), host_s()
        if self.universe is not None:
            self.live = Live(self.universe, wall_ns())
            for action in self.script:
                if action.do in SCENARIO and not action.from_subscription and not action.every_s:
                    # Told ahead, so that it begins at its time whatever the script's pace is.
                    self._play(action, wall_ns() - int((mono_s() - self._started_s - action.at_s) * 1e9))
                    self._planned.append(action)
        self._timer = loop.call_later(STEP_S, self._tick)

    def _play(self, action: Action, at_ns: int) -> Effect | None:
        """Hand a line of the scenario to the universe; None if there is no universe, or the symbol is not in it."""
        if self.universe is None or action.symbol is None:
            return None
        for_s = action.number("for_s", float("inf"))
        return self.universe.play(action.do, action.symbol, at_ns, factor=action.number("factor", 5.0), for_s=for_s)

    def stop(self) -> None:
        """Stop the market and close every connection as a server that goes away does."""
        if self._timer is not None:
            self._timer.cancel()
        for conn in list(self.connections.values()):
            conn.close(1001, "going away", why="stop")
        self.log.do("stop", inputs=self.inputs_total)

    def _tick(self) -> None:
        assert self._loop is not None
        now_s, paced_s = mono_s(), host_s() - self._paced_s
        self._timer = self._loop.call_at(self._loop.time() + STEP_S - paced_s % STEP_S, self._tick)
        due = int(paced_s / STEP_S)
        steps = min(due - self._steps, _MAX_CATCH_UP_STEPS)
        housekeeping = due // _HOUSEKEEPING_STEPS > self._steps // _HOUSEKEEPING_STEPS
        self._steps = due
        if housekeeping:
            self._run_script(now_s)
            self.faults.expire(now_s)
            for conn in list(self.connections.values()):
                self.housekeeping(conn, host_s())
        if steps > 0:
            self._move(steps)
        self._play_captured(now_s)
        self.flush(now_s)

    def _move(self, steps: int) -> None:
        """Let the market move and queue the messages."""
        now_ns = wall_ns()
        faulty = not self.faults.quiet
        if faulty:
            now_ns += self.faults.skew_ns()
        events = (
            self.live.due(wall_ns()) if self.live is not None else self.source.due(steps, self.faults.factor() if faulty else 1.0)
        )
        for stream, count in events:
            if faulty and self.faults.find("quiet_symbol", None, stream.symbol.code):
                continue
            if not stream.subs:
                for _ in range(count):
                    self.advance(stream, now_ns)
                continue
            for way, messages in self.encode(stream, count, now_ns):
                for conn, wanted in stream.subs.items():
                    if wanted == way:
                        conn.pending.extend(messages)

    def flush(self, now_s: float) -> None:
        """Log and write what is queued. Order: every line is in the file before the first byte is handed over."""
        lines: list[str] = []
        writes: list[tuple[Connection, list[bytes]]] = []
        opcode = self.opcode
        for conn in self.connections.values():
            if not conn.pending and not conn.held:
                continue
            messages, conn.pending = conn.pending, []
            if not conn.alive:
                continue
            out: list[bytes] = []
            if self.faults.quiet and not conn.held:
                for message in messages:
                    out.append(head(opcode, len(message.payload)))
                    out.append(message.payload)
                    self._account(conn, message.tails, message.count, lines)
            else:
                ready = self.faults.release(conn, now_s)
                for message in messages:
                    ready.extend(self.faults.pass_on(conn, message, now_s))
                for data, tails, count in ready:
                    out.append(data)
                    self._account(conn, tails, count, lines)
            if out:
                writes.append((conn, out))
        self.log.write(lines)
        for conn, out in writes:
            conn.write(b"".join(out))
            if conn.transport.get_write_buffer_size() > self.options.buffer_bytes:
                self.log.do("overrun", conn=conn.no, bytes=conn.transport.get_write_buffer_size())
                conn.drop()

    def _account(self, conn: Connection, tails: list[str], count: int, lines: list[str]) -> None:
        """Count the inputs of a message and append its log lines."""
        self.inputs_total += count
        if self.log.on:
            start = f'{{"t_ns":{wall_ns()},"conn":{conn.no},"n":'
            for place, tail in enumerate(tails, conn.n + 1):
                lines.append(f"{start}{place},{tail}}}")
        conn.n += count

    def send_now(self, conn: Connection, messages: list[Message]) -> None:
        """Queue messages that do not come from the market's pace (snapshots) and send them."""
        if conn.alive:
            conn.pending.extend(messages)
            self.flush(mono_s())

    # Recordings

    def _play_captured(self, now_s: float) -> None:
        """Send the next captured frames to the first connection that has subscriptions."""
        if not self._captured or not self._first_subscription_s:
            return
        if now_s - self._last_subscription_s < _CAPTURED_SETTLE_S and now_s - self._first_subscription_s < _CAPTURED_WAIT_S:
            return
        for conn in self.connections.values():
            keys = [key for key, stream in self.streams.items() if conn in stream.subs]
            if not keys or not conn.alive or self.faults.find("mute", conn.no):
                continue
            subscribed: dict[str, list[str]] = {}
            for channel, code in keys:
                subscribed.setdefault(channel, []).append(code)
            for _ in range(min(_CAPTURED_PER_TICK, len(self._captured))):
                captured = self._captured.popleft()
                conn.pending.append(self.map_captured(captured, subscribed, self._symbol_map))
                if captured.control or not self._captured:
                    self.log.do("captured", conn=conn.no, origin=captured.origin, left=len(self._captured))
            return

    # Faults

    def _run_script(self, now_s: float) -> None:
        later: list[Action] = []
        for action in self.script:
            base = self._first_subscription_s if action.from_subscription else self._started_s
            if not base or base + action.at_s > now_s:
                later.append(action)
                continue
            self.perform(action)
            if action.every_s:
                at_s = action.at_s + action.every_s
                later.append(
                    Action(action.do, at_s, action.from_subscription, action.every_s, action.conn, action.symbol, action.parameters)
                )
        self.script = later

    def perform(self, action: Action) -> int:
        """Do one action now; return how many connections it met."""
        met = [conn for conn in self.connections.values() if self._meant(action, conn)]
        facts = dict(action.parameters) | ({"symbol": action.symbol} if action.symbol else {})
        self.log.do(action.do, conn=action.conn, met=[conn.no for conn in met], **facts)
        match action.do:
            case "drop":
                for conn in met:
                    conn.drop()
            case "close":
                for conn in met:
                    conn.close(int(action.number("code", 1000)), str(action.parameters.get("reason", "")))
            case "rst":
                for conn in met:
                    conn.reset_in_frame(self._any_payload(conn), self.opcode)
            case "calm":
                self.faults.calm()
                if self.universe is not None:
                    self.universe.calm()
            case _ if action.do in SCENARIO:
                if not any(action is planned for planned in self._planned):
                    self._play(action, wall_ns())
            case "half_open":
                for conn in met:
                    conn.half_open_until_s = mono_s() + action.number("s", float("inf"))
            case _:
                if not self.act(action):
                    self.faults.open(action, mono_s())
        return len(met)

    def _meant(self, action: Action, conn: Connection) -> bool:
        if action.conn is not None and action.conn != conn.no:
            return False
        if action.symbol is None:
            return True
        return any(conn in stream.subs and stream.symbol.code == action.symbol for stream in self.streams.values())

    @abstractmethod
    def peek(self, stream: Stream) -> Message:
        """Return a message of the symbol as it stands, without an event."""

    def _any_payload(self, conn: Connection) -> bytes:
        stream = next((stream for stream in self.streams.values() if conn in stream.subs), None)
        return self.peek(stream).payload if stream is not None else b"{}" * 20

    def _poison(self, conn: Connection, stream: Stream, action: Action) -> None:
        if conn.alive:
            data, tails, count = self.faults.unreadable(str(action.parameters.get("variant", "cut")), self.peek(stream))
            lines: list[str] = []
            self._account(conn, tails, count, lines)
            self.log.write(lines)
            conn.write(data)

    # Connections

    def accept(self, ip: str, transport: Any) -> Connection:
        """Take a connection whose handshake is done."""
        self.conn_total += 1
        conn = Connection(self.conn_total, ip, transport, get_running_loop())
        self.connections[conn.no] = conn
        self.log.do("connect", conn=conn.no)
        self.opened(conn)
        return conn

    def gone(self, conn: Connection) -> None:
        """Forget a connection that has ended."""
        self.connections.pop(conn.no, None)
        for stream in self.streams.values():
            stream.subs.pop(conn, None)
        self.ended(conn)
        self.log.do("end", conn=conn.no, why=conn.closing or ("client closed" if conn.said_close else "client gone"), inputs=conn.n)

    def ping(self, conn: Connection, data: bytes) -> None:
        conn.say(data, PONG)
