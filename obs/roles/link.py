"""One connection of a feed, kept alive for ever: budget, approval key, connect, subscribe, confirm, and the gap when it ends.

It joins a provider (what to say) with a wire connection (how) and tells the recorder what was lost. One Link per
credential; each has its own symbols, which may change while it runs (`add`, `release`, then `rearranged`): a link that has
none waits without a connection. A symbol that is released has left once the venue has confirmed it; only then is its row free.

Invariant: a loss is open (Recorder.open_gap) from the last message of the connection that ended until every subscription
of the next has been answered, whatever happens between. A symbol has no part in what was lost before it got its slot, or is
after it was released.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import numpy as np

from obs.clock import NS, Clock
from obs.errors import AuthRejected, ConnectionLost
from obs.log import Log
from obs.market.calendar import Calendar
from obs.providers.base import CHANNELS, Approval, Context, Control, Credential, Outgoing, Provider
from obs.record.events import reason_of_end
from obs.roles.recorder import Recorder
from obs.roles.silence import Silence
from obs.roles.subscriptions import Standing, Subscriptions
from obs.shm import Board
from obs.wire import Budget, Connection, ConnectOptions, Excerpt, RestClient, attempt_after, delay

_LEAD_S: Final = 900  # connected this long before the market opens: registering at the opening is too late
_PAUSED_S: Final = 300  # of failure: recording is paused, loudly
_RETRY_REFUSED_S: Final = 60
_AUTH_WAIT_S: Final = 600  # rejected credentials: asked for again this rarely, a block of the app key is worse
_REST_TIMEOUT_S: Final = 10
_LEARNED_S: Final = 600  # a limit that the venue has shown is believed for so long
_NEVER_NS: Final = 2**62


@dataclass
class LinkState:
    """What health and status show of a link."""

    connected: bool = False
    since_ns: int = 0  # monotonic, of the present state
    connection_no: int = 0
    attempt: int = 0
    reconnects: int = 0
    disconnected_ns: int = 0  # in all, without the present stretch
    last_reason: str = ""
    closed_market: bool = False


@dataclass(frozen=True)
class Linking:
    """What the links of one feed have in common. `calendar`: the one that holds now; `staged`: called after each message."""

    provider: Provider
    recorder: Recorder
    calendar: Callable[[], Calendar]
    board: Board
    clock: Clock
    log: Log
    hours: str
    rng: Random
    staged: Callable[[], None]


class Link:
    """The connection of one credential. `rows`: symbol -> row of the slots' table.

    `slots`: how many symbols it may get, where they move; None: those of `rows` are all, and known to fit.
    """

    def __init__(self, linking: Linking, credential: Credential | None, rows: dict[str, int], slots: int | None = None) -> None:
        provider, clock = self._provider, self._clock = linking.provider, linking.clock
        self._recorder, self._calendar, self._board, self._log = linking.recorder, linking.calendar, linking.board, linking.log
        self._hours, self._rng, self._staged = linking.hours, linking.rng, linking.staged
        self._credential, self.rows = credential, dict(rows)
        self.name = credential.name if credential is not None else provider.options.name
        self.state = LinkState(since_ns=clock.mono_ns())
        self.subscriptions = Subscriptions()
        self.subscriptions.want((channel, symbol) for channel in provider.options.channels for symbol in rows)
        self._context: Context | None = None
        self._connection: Connection | None = None
        self._last_ns = 0  # wall clock of the last message, or since when one is due
        self._messages = 0  # of this connection
        self._silence = Silence(0)  # of this connection
        self._closing = ""  # why we close it ourselves
        self._doubt = object()  # whose loss is open while a connection is so silent that it may be mute
        self._wait_s = 0.0  # asked for by the venue
        self._in_use = 0  # so often in a row somebody else held our place; other failures do not make that wait longer
        self._slots, self._cost = slots, provider.registrations(1)
        self.leaving: dict[str, int] = {}  # symbol -> its row, until the venue has confirmed that it has left
        self.freed: Callable[[int], None] = lambda row: None  # called with the row of a symbol that has left
        self._moved_ns: dict[str, int] = {}  # symbol -> monotonic time of a wish that the venue has not confirmed yet
        self._since: dict[str, int] = {}  # symbol -> when it got its slot, if that was after the last gap ended
        self._row_array = np.zeros(0, np.int64)
        self._named: dict[int, str] = {}
        self._first_frames = provider.confirmation == "first_frame"
        self._listening = False  # for first frames
        self._nudge = asyncio.Event()
        self._refused_since: dict[str, int] = {}
        self._recovered = False
        self._paused = False
        self._backoff_s = 0.0
        self.rearranged()

    # --- the symbols, which may move

    @property
    def room(self) -> int:
        """How many symbols it can hold, as far as is known."""
        most = len(self.rows) if self._slots is None else self._slots
        learned = self.subscriptions.learned
        return most if learned is None else min(most, learned // self._cost)

    def add(self, symbol: str, row: int) -> None:
        """Take over a symbol, in a row that the recorder has assigned to it."""
        now = self._clock.wall_ns()
        connected = self.state.connected
        if not connected and self._recorder.lost_since(self) is not None:
            self._recorder.disconnected(np.array([row]), now)  # its first record follows a gap
        self._since[symbol] = _NEVER_NS if connected else now
        self.rows[symbol] = row
        self._moved_ns[symbol] = self._clock.mono_ns()
        self.subscriptions.want((channel, symbol) for channel in self._provider.options.channels)

    def release(self, symbol: str) -> None:
        """Give a symbol up: at once if the venue does not send it, else when it has confirmed that it has left."""
        now = self._clock.wall_ns()
        row = self.rows.pop(symbol)
        lost_ns = self._recorder.lost_since(self)
        since = self._since.pop(symbol, 0)
        if lost_ns is not None and max(lost_ns, since) < now:
            self._recorder.gap(max(lost_ns, since), now, self._gap_reason(), symbol=self._provider.record_symbol(symbol))
        if symbol in self._refused_since:
            self._refused_gap(symbol, now, "released")
            del self._refused_since[symbol]
        self._recorder.release(row)
        self._moved_ns[symbol] = self._clock.mono_ns()
        self.leaving[symbol] = row
        told = self.subscriptions.release(symbol)
        if not self.state.connected:
            self.subscriptions.leaving.clear()  # of a connection that has ended
        if not told or not self.state.connected:
            self._gone(symbol, "was not subscribed")

    def rearranged(self) -> None:
        """Take note of other rows: call it once after some symbols have moved, before anything else can happen."""
        self._row_array = np.array(sorted(self.rows.values()), np.int64)
        self._named = {row: symbol for symbol, row in (*self.rows.items(), *self.leaving.items())}
        if self._context is not None:
            self._context = self._make_context()
        self._nudge.set()

    def standings(self) -> dict[str, str]:
        """Return symbol -> how it stands; of several channels the one that stands worst."""
        found = {symbol: standing.value for standing in Standing for _, symbol in self.subscriptions.of(standing)}
        return found | dict.fromkeys(self.leaving, "leaving")

    def _make_context(self) -> Context:
        # Row i + 1 of the context is row i + 1 of the slots; those of other links stay unused.
        symbols = [""] * max(self._named, default=0)
        for row, symbol in self._named.items():
            symbols[row - 1] = symbol
        return self._provider.context(symbols)

    def _confirmed(self, pair: tuple[str, str]) -> None:
        """The venue has confirmed a pair that it had not before."""
        symbol, channels = pair[1], self._provider.options.channels
        if symbol in self._moved_ns and all(self.subscriptions.is_confirmed((channel, symbol)) for channel in channels):
            self._tell_move("allocate_confirmed", symbol)
        if self.subscriptions.of(Standing.CONFIRMED) == [pair]:
            self.subscriptions.ask_anew()
        for gone in self.subscriptions.proved_gone(pair) if self._provider.replaces else ():
            self._left(gone, "first frame of another")

    def _left(self, pair: tuple[str, str], by: str) -> None:
        """The venue has confirmed that it sends a pair no longer."""
        if self.subscriptions.left(pair) and not self.subscriptions.leaves(pair[1]):
            self._gone(pair[1], by)

    def _gone(self, symbol: str, by: str) -> None:
        row = self.leaving.pop(symbol)
        self._tell_move("release_confirmed", symbol, by=by)
        self.rearranged()
        self.freed(row)

    def _tell_move(self, what: str, symbol: str, **facts: str) -> None:
        took_ns = self._clock.mono_ns() - self._moved_ns.pop(symbol)
        self._recorder.event("slot", {"what": what, "link": self.name, "seconds": round(took_ns / NS, 3), **facts}, symbol)

    # --- MessageSink: called by the wire, must not wait

    def on_open(self) -> None:
        state = self.state
        state.disconnected_ns += self._clock.mono_ns() - state.since_ns
        state.connected, state.since_ns = True, self._clock.mono_ns()
        state.connection_no += 1
        self._silence = Silence(state.since_ns)
        self._messages = 0
        self._recovered = False
        self._listening = self._first_frames
        self._closing = ""

    def on_message(self, payload: bytes | memoryview, recv_ns: int) -> None:
        assert self._context is not None
        controls = self._recorder.message(payload, recv_ns, self._context)
        self._last_ns = recv_ns
        self._messages += 1
        for control in controls:
            self._obey(control)
        if self._listening:
            self._confirm_by_data()
        self._staged()

    def on_broken(self, data: Excerpt, reason: str) -> None:
        self._recorder.broken(bytes(data), reason, data.total_bytes, data.sha256)

    def on_close(self, reason: str, code: int) -> None:
        now = self._clock.wall_ns()
        self.state.connected, self.state.since_ns = False, self._clock.mono_ns()
        self.state.last_reason = self._closing or reason
        self._recorder.disconnected(self._row_array, now)
        if self._recorder.lost_since(self) is None:
            self._since.clear()
        else:  # of an earlier connection: who came since has lost nothing before now
            self._since = {symbol: min(since, now) for symbol, since in self._since.items()}
        self._recorder.open_gap(self, self._last_ns)
        self._recorder.forgive(self._doubt)
        self.subscriptions.leaving.clear()
        for symbol in list(self.leaving):
            self._gone(symbol, "disconnect")

    # --- the life of the link

    async def run(self) -> None:
        """Keep the connection until it is stopped."""
        state = self.state
        self._last_ns = self._clock.wall_ns()
        while True:
            await self._until_open()
            if await self._until_wanted() or await self._spend_budget():
                continue
            lived_s = 0.0
            try:
                lived_s = await self._live()
                reason = state.last_reason
            except (ConnectionLost, AuthRejected) as error:
                reason = str(error.facts.get("reason", "")) or type(error).__name__
                state.last_reason = reason
                self._recorder.open_gap(self, self._last_ns)
                asked_s = _AUTH_WAIT_S if isinstance(error, AuthRejected) else float(error.facts.get("retry_after_s", 0))
                self._wait_s = max(self._wait_s, min(asked_s, _AUTH_WAIT_S))
                self._log.warning("connect_failed", link=self.name, reason=reason, text=str(error))
            if reason == "stopped":
                return
            if reason == "nothing_wanted":
                self._forgive()
                continue
            if self._market_closed():
                if reason == "market_closed":
                    self._forgive()
                continue
            state.attempt = attempt_after(state.attempt, lived_s)
            state.reconnects += 1
            self._backoff_s = max(delay(state.attempt, self._rng), self._wait_s)
            self._wait_s = 0.0
            self._tell_reconnection("FAIL", reason)
            self._pause_if_long()
            await asyncio.sleep(self._backoff_s)

    async def _until_open(self) -> None:
        """Wait for the market; what is missed while it is closed is not a loss."""
        while self._market_closed():
            if not self.state.closed_market:
                self.state.closed_market = True
                self.end_gap(self._clock.wall_ns())
                self._recorder.settle_restart(self._clock.wall_ns())
                self._log.info("market_closed", link=self.name)
            await asyncio.sleep(1)
        if self.state.closed_market:
            self.state.closed_market = False
            self._last_ns = self._clock.wall_ns()  # a loss begins now at the earliest, not when the market closed

    async def _until_wanted(self) -> bool:
        """Wait for symbols, without a connection; return whether there were none."""
        if self.rows:
            return False
        self._forgive()  # each symbol's own loss was told when it was released
        while not self.rows:
            self._nudge.clear()
            await self._nudge.wait()
        self._last_ns = self._clock.wall_ns()
        return True

    def _forgive(self) -> None:
        self._since.clear()
        self._recorder.forgive(self)

    def _market_closed(self) -> bool:
        if self._hours == "always":
            return False
        options = self._provider.options
        return not self._calendar().is_open(options.market, options.venue, self._clock.wall_ns(), lead_s=_LEAD_S)

    async def _spend_budget(self) -> bool:
        """Take one attempt from the reconnect budget, stored before the attempt; return whether it was empty and we waited.

        The attempt before this one may have been another process's, killed a moment ago: the venue's spacing holds for it too.
        """
        cell = self._board["budget"]
        spacing_s = self._provider.limits.connect_spacing_s
        stored: dict[str, Any] = cell.read_json() or {}
        kept = stored.get(self.name)
        if kept:
            early_s = spacing_s - (self._clock.wall_ns() - int(kept["last_ns"])) / NS
            await asyncio.sleep(min(max(early_s, 0.0), spacing_s))  # a clock that stepped back asks for no more than the spacing
        now = self._clock.wall_ns()
        budget = Budget(float(kept["tokens"]), int(kept["last_ns"])) if kept else Budget.full(now)
        wait_s = budget.take(now)
        stored[self.name] = {"tokens": budget.tokens, "last_ns": budget.last_ns}
        cell.write_json(stored)
        if not wait_s:
            return False
        self._log.warning("reconnect_budget_empty", link=self.name, wait_s=round(wait_s, 1))
        self._recorder.open_gap(self, self._last_ns)
        self._pause_if_long()
        await asyncio.sleep(min(wait_s, 60.0))
        return True

    async def _live(self) -> float:
        """One connection from handshake to close; return how long it was open. Raises ConnectionLost, AuthRejected."""
        provider, limits = self._provider, self._provider.limits
        token = await self._approval()
        self._context = self._make_context()
        self.subscriptions.reconnected()
        if self._connection is None:  # one object for all lives: it keeps the TLS context
            options = ConnectOptions(
                provider.connect_url(), ping_every_s=limits.ping_every_s, pong_timeout_s=limits.pong_timeout_s, idle_s=limits.mute_s
            )
            self._connection = Connection(options, self, self._clock)
        connection = self._connection
        await connection.connect()
        tending = asyncio.create_task(self._tend(connection, token))
        closing = asyncio.create_task(connection.wait_closed())
        try:
            await asyncio.wait((tending, closing), return_when=asyncio.FIRST_COMPLETED)
            if tending.done():
                tending.result()  # an error in it must not leave a connection that nobody tends
            closed = await closing
        finally:
            tending.cancel()
            closing.cancel()
            await asyncio.gather(tending, closing, return_exceptions=True)
        quiet = self.state.last_reason in ("stopped", "market_closed", "nothing_wanted")
        tell = self._log.info if quiet else self._log.warning
        facts = {"reason": self.state.last_reason, "code": closed.code, "text": closed.detail, "messages": self._messages}
        tell("disconnected", link=self.name, **facts)
        return (self._clock.mono_ns() - self._silence.opened_ns) / NS

    async def _approval(self) -> str:
        """Fetch the key that this connection authenticates with; a unique ticket where the venue wants only that."""
        if self._credential is None or not self._provider.needs_credential:
            return f"obs-{self._clock.wall_ns():x}"
        request = self._provider.approval_request(self._credential)
        if request is None:
            return f"obs-{self._clock.wall_ns():x}"
        client = RestClient(timeout_s=_REST_TIMEOUT_S)
        try:
            answer = await client.request(request.method, request.url, headers=dict(request.headers), body=request.body)
        finally:
            await client.close()
        approval: Approval = self._provider.parse_approval(answer.status, answer.body)
        self._log.mask(approval.key)
        return approval.key

    async def _tend(self, connection: Connection, token: str) -> None:
        """Say what is to be said, one message at a time, and watch for a venue that has gone silent."""
        try:
            while True:
                said = self._next_message(token)
                if said is not None:
                    connection.send(said.payload, said.text)
                    self._listening = self._first_frames
                    await connection.drain()
                    await asyncio.sleep(said.spacing_s)
                else:
                    await self._until_nudged(0.25)
                self._settle()
                self._note_refused()
                self._note_silence()
                if self._silence.is_mute(self._provider.limits.mute_s):
                    self._closing = "mute"
                    connection.close("mute")
                elif self._market_closed():
                    self.end_gap(self._clock.wall_ns())  # of an earlier connection; the time from now on is no loss
                    self._closing = "market_closed"
                    connection.close("market_closed")
                elif not self.subscriptions.pairs and (self._provider.replaces or not self.leaving):
                    self.end_gap(self._clock.wall_ns())
                    self._closing = "nothing_wanted"
                    connection.close("nothing_wanted")
        except ConnectionLost:
            return  # wait_closed tells why

    async def _until_nudged(self, seconds: float) -> None:
        """Wait, but no longer than until something moves."""
        self._nudge.clear()
        waiting = asyncio.create_task(self._nudge.wait())
        try:
            await asyncio.wait((waiting,), timeout=seconds)
        finally:
            waiting.cancel()

    def _next_message(self, token: str) -> Outgoing | None:
        """Return the message to send now, noted as sent; None: there is nothing to say. Who leaves makes room before others ask."""
        provider, subscriptions, now = self._provider, self.subscriptions, self._clock.mono_ns()
        confirm_ns, retry_ns = int(provider.limits.confirm_s * NS), _RETRY_REFUSED_S * NS
        subscriptions.forget_limit(now, _LEARNED_S * NS)
        if provider.replaces:
            return self._next_request(token, now, confirm_ns, retry_ns)
        pair = subscriptions.next_leave(now, confirm_ns, retry_ns)
        if pair is not None:
            (outgoing,) = provider.unsubscribe([pair], token)
            subscriptions.told_to_leave(pair, now)
            return outgoing
        pair = subscriptions.next_ask(now, confirm_ns, retry_ns, None if self._slots is None else provider.limits.registrations)
        if pair is None:
            return None
        (outgoing,) = provider.subscribe([pair], token)
        subscriptions.asked([pair], now)
        return outgoing

    def _next_request(self, token: str, now: int, confirm_ns: int, retry_ns: int) -> Outgoing | None:
        """The same where each request replaces the whole set."""
        subscriptions = self.subscriptions
        for pair in subscriptions.silent_leavers(now, confirm_ns):
            self._left(pair, "silence")
        whole = subscriptions.settled() and not subscriptions.of(Standing.FAILED) and not subscriptions.leaving
        self._listening = self._first_frames and not (self._recovered and whole)
        due = subscriptions.due(now, confirm_ns, retry_ns)
        if not subscriptions.pairs or not (due or subscriptions.untold()):
            return None
        (outgoing,) = self._provider.subscribe(list(subscriptions.pairs), token)
        subscriptions.requests += 1
        subscriptions.asked(due, now)
        subscriptions.left_out(now)
        return outgoing

    def _obey(self, control: Control) -> None:
        connection = self._connection
        if control.reply is not None and connection is not None:
            try:
                connection.send(control.reply, True)
            except ConnectionLost:
                return
        pair = (control.channel, control.symbol)
        if control.kind == "ack" and control.registered:
            if self.subscriptions.confirmed(pair):
                self._confirmed(pair)
        elif control.kind == "ack":
            self._left(pair, "answer")
        elif control.kind in ("refused", "limit"):
            self.subscriptions.refused(pair, control.code, control.retry)
            if control.kind == "limit":
                self.subscriptions.limit(self._clock.mono_ns())
                if self._slots is not None:
                    self.subscriptions.want_again(pair)  # when there is room: one of those that do not fit is released
            payload = {"what": control.kind, "channel": control.channel, "code": control.code, "text": control.text}
            self._recorder.event("slot", payload, control.symbol)
        elif control.kind == "in_use":
            waits = self._provider.limits.in_use_backoff_s
            self._wait_s = waits[min(self._in_use, len(waits) - 1)] * (1 + 0.25 * self._rng.random())
            self._in_use += 1
        if control.kind not in ("ack", "ping", "status"):
            self._log.warning("venue_says", link=self.name, kind=control.kind, code=control.code, text=control.text, symbol=control.symbol)
        if control.fatal and connection is not None:
            self._closing = control.kind
            connection.close(control.kind)

    def _confirm_by_data(self) -> None:
        latest, named, now = self._recorder.latest, self._named, self._clock.mono_ns()
        places = zip(latest["kind"].tolist(), latest["row"].tolist(), strict=True)
        # A list, by the names of now: what is confirmed may free rows, and others get them.
        for pair in [(CHANNELS[kind], named[row]) for kind, row in places if row in named]:
            if pair in self.subscriptions.leaving:
                self.subscriptions.leaving[pair].heard_ns = now
            elif self.subscriptions.confirmed(pair):
                self._confirmed(pair)

    def _settle(self) -> None:
        """Once every subscription has been answered: the loss is over. None of them answered is no recovery, but a venue that is mute."""
        subscriptions = self.subscriptions
        if self._recovered or not subscriptions.settled() or not subscriptions.of(Standing.CONFIRMED, Standing.REFUSED):
            return
        self._recovered = True
        self._paused = False
        self._in_use = 0
        self.end_gap(self._clock.wall_ns())
        self._tell_reconnection("SUCCESS", "")
        self._log.info(
            "subscribed", link=self.name, confirmed=len(self.subscriptions.of(Standing.CONFIRMED)),
            refused=self.subscriptions.silent_symbols(), connection_no=self.state.connection_no,
        )  # fmt: skip

    def _gap_reason(self) -> str:
        return reason_of_end(self.state.last_reason)

    def _symbols_concerned(self) -> list[str] | None:
        """The symbols of this link that have lost all of an open gap, None (all) if it has all there are."""
        late = {symbol for symbol, since in self._since.items() if since > (self._recorder.lost_since(self) or 0)}
        return self._named_unless_all([symbol for symbol in self.rows if symbol not in late])

    def _named_unless_all(self, symbols: Collection[str]) -> list[str] | None:
        """Return symbols of this link as records carry them, None if they are all that anybody watches."""
        return None if len(symbols) == self._recorder.watched.sum() else list(map(self._provider.record_symbol, symbols))

    def _note_refused(self) -> None:
        """A symbol that the venue does not send is a loss each minute that it lasts, unless the whole connection is one already."""
        if not self._recovered and self._recorder.lost_since(self) is not None:
            return
        now = self._clock.wall_ns()
        silent = self.subscriptions.silent_symbols()
        for symbol in [symbol for symbol in self._refused_since if symbol not in silent]:
            self._refused_gap(symbol, now, "answered")
            del self._refused_since[symbol]
        for symbol, why in silent.items():
            since = self._refused_since.setdefault(symbol, now)
            if now - since >= 60 * NS:
                self._refused_gap(symbol, now, why)
                self._refused_since[symbol] = now

    def _refused_gap(self, symbol: str, now: int, why: str) -> None:
        self._recorder.gap(self._refused_since[symbol], now, "refused", symbol=self._provider.record_symbol(symbol), why=why)

    def _note_silence(self) -> None:
        """Have a loss open, from the last message on, while nothing comes for longer than a quiet market explains.

        A message ends it untold. Who is stopped or killed before one comes will not see the silence end: it is told then.
        """
        self._silence.look(self._clock.mono_ns(), self._messages)
        if self._silence.in_doubt():
            self._recorder.open_gap(self._doubt, self._last_ns)
        else:
            self._recorder.forgive(self._doubt)

    def _pause_if_long(self) -> None:
        silence = self._clock.mono_ns() - self.state.since_ns
        if not self.state.connected and silence > _PAUSED_S * NS and not self._paused:
            self._paused = True
            facts = {"what": "recording_paused", "link": self.name, "seconds": silence // NS, "anomaly_day": True}
            self._recorder.event("lifecycle", facts)
            self._log.error("recording_paused", link=self.name, seconds=silence // NS, reason=self.state.last_reason)

    def _tell_reconnection(self, result: str, reason: str) -> None:
        if self.state.connection_no <= 1 and result == "SUCCESS" and not self.state.reconnects:
            return  # the first connection of a life
        recovered = sorted({symbol for _, symbol in self.subscriptions.of(Standing.CONFIRMED)}) if result == "SUCCESS" else []
        payload = {
            "attempt_no": self.state.attempt, "backoff_seconds": round(self._backoff_s, 3), "result": result,
            "recovered_slot_list": recovered, "mitigation_level_after": self._recorder.level, "reason": reason, "link": self.name,
            "lost_since_ns": self._recorder.lost_since(self),
        }  # fmt: skip
        self._recorder.event("reconnection_event", payload)

    def end_gap(self, now_ns: int) -> None:
        """Publish the loss that is still open, if one is; that of a symbol which came meanwhile begins with its slot."""
        lost_ns = self._recorder.lost_since(self)
        late = [(symbol, since) for symbol, since in self._since.items() if lost_ns is not None and lost_ns < since < now_ns]
        self._recorder.close_gap(self, now_ns, self._gap_reason(), self._symbols_concerned())
        for symbol, since in late:
            self._recorder.gap(since, now_ns, self._gap_reason(), symbol=self._provider.record_symbol(symbol))
        self._since.clear()

    def stop(self) -> None:
        """Close the socket, at an ordered stop; a loss that is open ends here."""
        now = self._clock.wall_ns()
        for symbol in self._refused_since:
            self._refused_gap(symbol, now, "stopped")
        if self._connection is not None and self.state.connected:
            self.end_gap(now)  # of an earlier connection; of the stop itself the next start tells
            self._recorder.close_gap(self._doubt, now, "mute", self._named_unless_all(self.rows))
            self._closing = "stopped"
            self._connection.close("stopped")
