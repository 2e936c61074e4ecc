"""What happens in the subscribed symbols of a universe, in the order of its time: the WebSocket side of obs/sim/universe.py.

The exchange asks what has happened until now; each event then sets the state of its symbol to that of its own time.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np

from obs.sim.hours import MINUTE_MS
from obs.sim.market import BOOK, Stream, Symbol
from obs.sim.universe import Universe

_MS: Final = 10**6
_MOST_MINUTES: Final = 30  # after a longer stall the market skips the rest, as a client of the real one would miss it


class Live:
    """The streams that clients have subscribed to, of symbols that the universe lists. `seen_ms`: what has happened until then is sent."""

    def __init__(self, universe: Universe, now_ns: int) -> None:
        self.universe = universe
        self.seen_ms = now_ns // _MS
        self._streams: list[tuple[Stream, int]] = []
        self._minute = -1
        self._events: deque[tuple[int, int, int]] = deque()  # of the minute: (ms, stream, place in the minute's table or -1)
        self._queues: dict[int, deque[tuple[int, int, int]]] = {}  # what due() has told and nobody has taken yet, by id of the stream

    def add(self, stream: Stream) -> None:
        """From now on this stream is live; one of a symbol that is not listed stays silent."""
        row = self.universe.row_of.get(stream.symbol.code)
        if row is not None:
            self._streams.append((stream, row))
            self._minute = -1

    def due(self, now_ns: int) -> list[tuple[Stream, int]]:
        """Return how many events have happened in which streams since the last call, in order."""
        now_ms = now_ns // _MS
        self.seen_ms = max(self.seen_ms, now_ms - _MOST_MINUTES * MINUTE_MS)
        self._queues = {}
        out: list[tuple[Stream, int]] = []
        while self._streams and self.seen_ms < now_ms:
            minute = (self.seen_ms + 1) // MINUTE_MS
            if minute != self._minute:
                self._begin(minute)
            end_ms = min(now_ms, (minute + 1) * MINUTE_MS - 1)
            while self._events and self._events[0][0] <= end_ms:
                event = self._events.popleft()
                stream = self._streams[event[1]][0]
                if not stream.subs:
                    continue
                self._queues.setdefault(id(stream), deque()).append(event)
                if out and out[-1][0] is stream:
                    out[-1] = (stream, out[-1][1] + 1)
                else:
                    out.append((stream, 1))
            self.seen_ms = end_ms
        self.seen_ms = max(self.seen_ms, now_ms)
        return out

    def _begin(self, minute: int) -> None:
        """Collect the events of a minute that nobody has seen yet."""
        self._minute = minute
        table = self.universe.minute(minute)
        events: list[tuple[int, int, int]] = []
        for place, (stream, row) in enumerate(self._streams):
            if table is None:
                break
            first, count = int(table.trades.start[row]), int(table.trades.count[row])
            times = table.trades.ms[first : first + count].tolist()
            if stream.kind == BOOK:
                events += [(ms, place, -1) for ms in self.universe.books(row, minute).tolist() + times]
            else:
                events += [(ms, place, at) for at, ms in enumerate(times, first)]
        self._events = deque(sorted(event for event in events if event[0] > self.seen_ms))

    def happen(self, stream: Stream) -> int:
        """Let the next event of a stream happen: set its symbol to the state at that time; return the time (UTC ns)."""
        queue = self._queues.get(id(stream))
        if not queue:  # asked for more than was told: what stands, once more
            return self.show(stream.symbol)
        ms, place, at = queue.popleft()
        symbol, row = stream.symbol, self._streams[place][1]
        if symbol.texts.get("venue day") != self.universe.hours.day_of(ms):
            self.show(symbol)
        table = self.universe.minute(ms // MINUTE_MS)
        if at < 0 or table is None:
            symbol.q += 1
            self._book(symbol, row, ms)
            return ms * _MS
        trades, after = table.trades, table.after
        symbol.price, symbol.size, symbol.side = int(trades.price[at]), int(trades.size[at]), int(trades.side[at])
        symbol.bid, symbol.ask = int(trades.bid[at]), int(trades.ask[at])
        self._day(symbol, row, int(after.volume[at]), int(after.value[at]), int(after.trades[at]))
        symbol.open, symbol.high, symbol.low = int(after.open[at]), int(after.high[at]), int(after.low[at])
        symbol.trade_ns = ms * _MS
        symbol.venue_seq = ms * 10_000 + symbol.k % 10_000
        return ms * _MS

    def show(self, symbol: Symbol) -> int:
        """Set a symbol to what stands at `seen_ms`; return that time (UTC ns). A symbol that is not listed stays as it is."""
        row = self.universe.row_of.get(symbol.code)
        if row is None:
            return self.seen_ms * _MS
        rows, day = np.array([row]), self.universe.hours.day_of(self.seen_ms)
        symbol.texts["venue day"] = day
        state = self.universe.state(rows, self.seen_ms)
        ms, size, side = self.universe.last_trades(rows, self.seen_ms)
        symbol.prev_close = int(self.universe.previous_close(day)[row])
        symbol.prev_volume = max(1, int(self.universe.previous_day(day)[0][row]))
        symbol.price = int(state.price[0]) or symbol.prev_close
        symbol.size, symbol.side, symbol.trade_ns = int(size[0]), int(side[0]), int(ms[0]) * _MS or symbol.trade_ns
        self._day(symbol, row, int(state.volume[0]), int(state.value[0]), int(state.trades[0]))
        symbol.open, symbol.high, symbol.low = (int(figure[0]) or symbol.price for figure in (state.open, state.high, state.low))
        symbol.venue_seq = int(ms[0]) * 10_000 + symbol.k % 10_000
        self._book(symbol, row, self.seen_ms)
        return self.seen_ms * _MS

    def _day(self, symbol: Symbol, row: int, volume: int, value: int, trades: int) -> None:
        symbol.acc, symbol.k = volume, trades
        group = symbol.group
        symbol.value = value * group.price_unit * group.size_unit // int(self.universe.value_unit[row])
        symbol.buys, symbol.buy_volume = trades // 2, volume // 2
        symbol.sells, symbol.sell_volume = trades - trades // 2, volume - volume // 2

    def _book(self, symbol: Symbol, row: int, ms: int) -> None:
        rows, at = np.array([row]), np.array([ms])
        bid, ask = self.universe.quote(rows, at)
        sizes = self.universe.depth(rows, at)
        symbol.bid, symbol.ask, symbol.bid_size, symbol.ask_size = int(bid[0]), int(ask[0]), int(sizes[0][0]), int(sizes[1][0])
