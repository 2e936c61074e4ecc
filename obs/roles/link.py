"""One connection of a feed, kept alive for ever: budget, approval key, connect, subscribe, confirm, and the gap when it ends.

It joins a provider (what to say) with a wire connection (how) and tells the recorder what was lost. One Link per
credential; each has its own symbols.

Invariant: a loss is open (Recorder.open_gap) from the last message of the connection that ended until every subscription
of the next has been answered, whatever happens between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import numpy as np

from obs.clock import NS, Clock
from obs.errors import AuthRejected, ConnectionLost
from obs.log import Log
from obs.market.calendar import Calendar
from obs.providers.base import CHANNELS, Approval, Context, Control, Credential, Provider
from obs.roles.recorder import Recorder
from obs.roles.subscriptions import Standing, Subscriptions
from obs.shm import Board
from obs.wire import Budget, Connection, ConnectOptions, Excerpt, RestClient, attempt_after, delay

_LEAD_S: Final = 900  # connected this long before the market opens: registering at the opening is too late
_PAUSED_S: Final = 300  # of failure: recording is paused, loudly
_RETRY_REFUSED_S: Final = 60
_AUTH_WAIT_S: Final = 600  # rejected credentials: asked for again this rarely, a block of the app key is worse
_QUIET_RATE: Final = 50  # silence of so many mean intervals between messages is no quiet market
_REST_TIMEOUT_S: Final = 10


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


class Link:
    """The connection of one credential. `rows`: symbol -> row of the slots' table."""

    def __init__(
        self, provider: Provider, recorder: Recorder, credential: Credential | None, rows: dict[str, int], calendar: Callable[[], Calendar],
        board: Board, clock: Clock, log: Log, hours: str, rng: Random, staged: Callable[[], None],
    ) -> None:  # fmt: skip
        self._provider, self._recorder, self._credential, self._rows = provider, recorder, credential, rows
        self._calendar, self._board, self._clock, self._log, self._hours, self._rng = calendar, board, clock, log, hours, rng
        self._staged = staged  # called after each message
        self.name = credential.name if credential is not None else provider.options.name
        self.state = LinkState(since_ns=clock.mono_ns())
        self.subscriptions = Subscriptions()
        self.subscriptions.want((channel, symbol) for channel in provider.options.channels for symbol in rows)
        self._context: Context | None = None
        self._connection: Connection | None = None
        self._last_ns = 0  # wall clock of the last message, or since when one is due
        self._last_mono = self._opened_mono = 0
        self._messages = 0  # of this connection
        self._heard = 0  # of them, at the last look; _last_mono: of the last look that found more
        self._closing = ""  # why we close it ourselves
        self._wait_s = 0.0  # asked for by the venue
        self._row_array = np.array(sorted(rows.values()), np.int64)
        self._refused_since: dict[str, int] = {}
        self._recovered = False
        self._paused = False
        self._backoff_s = 0.0

    # --- MessageSink: called by the wire, must not wait

    def on_open(self) -> None:
        state = self.state
        state.disconnected_ns += self._clock.mono_ns() - state.since_ns
        state.connected, state.since_ns = True, self._clock.mono_ns()
        state.connection_no += 1
        self._opened_mono = self._last_mono = self._clock.mono_ns()
        self._messages = self._heard = 0
        self._recovered = False
        self._closing = ""

    def on_message(self, payload: bytes | memoryview, recv_ns: int) -> None:
        assert self._context is not None
        controls = self._recorder.message(payload, recv_ns, self._context)
        self._last_ns = recv_ns
        self._messages += 1
        for control in controls:
            self._obey(control)
        if not self._recovered and self._provider.confirmation == "first_frame":
            self._confirm_by_data()
        self._staged()

    def on_broken(self, data: Excerpt, reason: str) -> None:
        self._recorder.broken(bytes(data), reason, data.total_bytes, data.sha256)

    def on_close(self, reason: str, code: int) -> None:
        now = self._clock.wall_ns()
        self.state.connected, self.state.since_ns = False, self._clock.mono_ns()
        self.state.last_reason = self._closing or reason
        self._recorder.disconnected(self._row_array, now)
        self._recorder.open_gap(self, self._last_ns)

    # --- the life of the link

    async def run(self) -> None:
        """Keep the connection until it is stopped."""
        state = self.state
        self._last_ns = self._clock.wall_ns()
        while True:
            await self._until_open()
            if await self._spend_budget():
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
            if self._market_closed():
                if reason == "market_closed":
                    self._recorder.forgive(self)
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
                self._log.info("market_closed", link=self.name)
            await asyncio.sleep(1)
        if self.state.closed_market:
            self.state.closed_market = False
            self._last_ns = self._clock.wall_ns()  # a loss begins now at the earliest, not when the market closed

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
        # Row i + 1 of the context is row i + 1 of the slots; those of other links stay unused.
        symbols = [""] * (int(self._row_array.max()) if len(self._row_array) else 0)
        for symbol, row in self._rows.items():
            symbols[row - 1] = symbol
        self._context = provider.context(symbols)
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
        tell = self._log.info if self.state.last_reason in ("stopped", "market_closed") else self._log.warning
        facts = {"reason": self.state.last_reason, "code": closed.code, "text": closed.detail, "messages": self._messages}
        tell("disconnected", link=self.name, **facts)
        return (self._clock.mono_ns() - self._opened_mono) / NS

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
        """Subscribe, ask again for what is not answered, and watch for a venue that has gone silent."""
        try:
            await self._ask(connection, self.subscriptions.of(Standing.WANTED), token)
            confirm_ns = int(self._provider.limits.confirm_s * NS)
            while True:
                await asyncio.sleep(0.25)
                now = self._clock.mono_ns()
                late = self.subscriptions.overdue(now, confirm_ns)
                again = self.subscriptions.to_retry(now, _RETRY_REFUSED_S * NS)
                if late or again:
                    everything = list(self.subscriptions.pairs) if self._provider.replaces else [*late, *again]
                    await self._ask(connection, everything, token)
                self._settle()
                self._note_refused()
                if self._silent(now):
                    self._closing = "mute"
                    connection.close("mute")
                elif self._market_closed():
                    self.end_gap(self._clock.wall_ns())  # of an earlier connection; the time from now on is no loss
                    self._closing = "market_closed"
                    connection.close("market_closed")
        except ConnectionLost:
            return  # wait_closed tells why

    async def _ask(self, connection: Connection, pairs: list[tuple[str, str]], token: str) -> None:
        for outgoing in self._provider.subscribe(pairs, token):
            connection.send(outgoing.payload, outgoing.text)
            self.subscriptions.asked(outgoing.covers, self._clock.mono_ns())
            await connection.drain()
            await asyncio.sleep(outgoing.spacing_s)

    def _obey(self, control: Control) -> None:
        connection = self._connection
        if control.reply is not None and connection is not None:
            try:
                connection.send(control.reply, True)
            except ConnectionLost:
                return
        pair = (control.channel, control.symbol)
        if control.kind == "ack" and control.registered:
            self.subscriptions.confirmed(pair)
        elif control.kind in ("refused", "limit"):
            self.subscriptions.refused(pair, control.code, control.retry)
            payload = {"what": control.kind, "channel": control.channel, "code": control.code, "text": control.text}
            self._recorder.event("slot", payload, control.symbol)
        elif control.kind == "in_use":
            waits = self._provider.limits.in_use_backoff_s
            self._wait_s = waits[min(self.state.attempt, len(waits) - 1)] * (1 + 0.25 * self._rng.random())
        if control.kind not in ("ack", "ping", "status"):
            self._log.warning("venue_says", link=self.name, kind=control.kind, code=control.code, text=control.text, symbol=control.symbol)
        if control.fatal and connection is not None:
            self._closing = control.kind
            connection.close(control.kind)

    def _confirm_by_data(self) -> None:
        latest = self._recorder.latest
        for kind, row in zip(latest["kind"].tolist(), latest["row"].tolist(), strict=True):
            symbol = next((name for name, place in self._rows.items() if place == row), None)
            if symbol is not None:
                self.subscriptions.confirmed((CHANNELS[kind], symbol))

    def _settle(self) -> None:
        """Once every subscription has been answered: the loss is over."""
        if self._recovered or not self.subscriptions.settled():
            return
        self._recovered = True
        self._paused = False
        self.end_gap(self._clock.wall_ns())
        self._tell_reconnection("SUCCESS", "")
        self._log.info(
            "subscribed", link=self.name, confirmed=len(self.subscriptions.of(Standing.CONFIRMED)),
            refused=self.subscriptions.silent_symbols(), connection_no=self.state.connection_no,
        )  # fmt: skip

    def _gap_reason(self) -> str:
        reason = self.state.last_reason
        if reason in ("mute", "pong_timeout", "timeout"):
            return "mute"
        if reason in ("auth", "in_use", "AuthRejected"):
            return "refused"
        return "ws_disconnect"

    def _symbols_concerned(self) -> list[str] | None:
        """The symbols of this link, None (all) if it is the only one."""
        if len(self._row_array) + 1 == self._recorder.slots.rows:
            return None
        return [self._provider.record_symbol(symbol) for symbol in self._rows]

    def _note_refused(self) -> None:
        """A symbol that the venue does not send is a loss each minute that it lasts."""
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

    def _silent(self, now: int) -> bool:
        """Whether a venue that only ever answers pings has stopped sending: judged by this connection's own pace.

        A quiet market slows down before it is silent; a single quiet symbol among others does not show here at all.
        """
        if self._messages != self._heard:
            self._heard, self._last_mono = self._messages, now
        lived, silence = now - self._opened_mono, now - self._last_mono
        if self._messages < 100 or silence < self._provider.limits.mute_s * NS:
            return False
        return silence > _QUIET_RATE * (lived - silence) / self._messages

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
        }  # fmt: skip
        self._recorder.event("reconnection_event", payload)

    def end_gap(self, now_ns: int) -> None:
        """Publish the loss that is still open, if one is."""
        self._recorder.close_gap(self, now_ns, self._gap_reason(), self._symbols_concerned())

    def stop(self) -> None:
        """Close the socket, at an ordered stop; a loss that is open ends here."""
        now = self._clock.wall_ns()
        for symbol in self._refused_since:
            self._refused_gap(symbol, now, "stopped")
        if self._connection is not None and self.state.connected:
            self.end_gap(now)  # of an earlier connection; the stop itself is no loss
            self._closing = "stopped"
            self._connection.close("stopped")
