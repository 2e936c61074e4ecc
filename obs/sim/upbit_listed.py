"""What the REST side of the simulated Upbit answers from a universe: markets, tickers, candles, order books, last trades.

Source: Upbit sheet, section 4 (documentation v1.6.4, answers recorded on 2026-03-11). Assumed: `count` above 200 (500 for trades)
and a `to` that is no time are refused with 400. What was traded in the last 24 hours is that of the UTC day, and the share of
the day before that lies within them; the latter is a figure of the universe and not a sum of its trades.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from obs.sim.columns import State
from obs.sim.hours import DAY_S, MINUTE_MS
from obs.sim.market import BUY
from obs.sim.universe import Universe
from obs.sim.upbit_encode import BOOK_LEVELS, fixed, short

GROUPS: Final = {
    "/v1/market/all": "market", "/v1/ticker": "ticker", "/v1/ticker/all": "ticker", "/v1/orderbook": "orderbook",
    "/v1/orderbook/instruments": "orderbook", "/v1/trades/ticks": "crix-trades",
}  # fmt: skip
CANDLES: Final = re.compile(r"/v1/candles/minutes/(1|3|5|10|15|30|60|240)")
_MOST_CANDLES: Final = 200
_MOST_TRADES: Final = 500
_LOOK_BACK_MINUTES: Final = 2 * 1440  # how far back empty periods are passed over
_EVENTS: Final = (
    "PRICE_FLUCTUATIONS", "TRADING_VOLUME_SOARING", "DEPOSIT_AMOUNT_SOARING", "GLOBAL_PRICE_DIFFERENCES",
    "CONCENTRATION_OF_SMALL_ACCOUNTS",
)  # fmt: skip


class RestError(Exception):
    """An answer that is an error: HTTP status, and what the body says."""

    def __init__(self, status: int, name: int | str, message: str) -> None:
        super().__init__(status, name, message)
        self.status, self.name, self.message = status, name, message


def group_of(path: str) -> str | None:
    """Return the limiter group of a path, None if there is no such path."""
    return "candles" if CANDLES.fullmatch(path) else GROUPS.get(path)


class UpbitListed:
    """Answers from one universe; times are UTC nanoseconds of the venue's clock."""

    def __init__(self, universe: Universe) -> None:
        self._universe = universe

    def answer(self, path: str, query: Mapping[str, str], now_ns: int) -> list[Any]:
        """Return the rows of an answer, as values or as JSON text. Raises RestError."""
        ms = now_ns // 10**6
        match path:
            case "/v1/market/all":
                return self._markets(query.get("is_details", "false") == "true", ms)
            case "/v1/ticker":
                return self._tickers(self._asked(query.get("markets", ""), ms), ms)
            case "/v1/ticker/all":
                quotes = query.get("quote_currencies", "").upper().split(",")
                listed = [row for code, row in self._universe.row_of.items() if code.split("-")[0] in quotes]
                return self._tickers(self._known(listed, ms), ms)
            case "/v1/orderbook":
                rows = self._asked(query.get("markets", ""), ms)
                levels = _number(query.get("count", str(BOOK_LEVELS)), 1, BOOK_LEVELS)
                level = query.get("level", "0")
                if level not in ("", "0") and any(self._universe.listing.kinds[row] == "BTC" for row in rows.tolist()):
                    return []
                return self._books(rows, levels, ms)
            case "/v1/orderbook/instruments":
                return self._instruments(self._asked(query.get("markets", ""), ms), ms)
            case "/v1/trades/ticks":
                rows = self._asked(query.get("market", ""), ms)[:1]
                return self._ticks(int(rows[0]), _number(query.get("count", "1"), 1, _MOST_TRADES), ms)
            case _:
                rows = self._asked(query.get("market", ""), ms)[:1]
                unit = int(path.rpartition("/")[2])
                return self._candles(int(rows[0]), unit, query.get("to", ""), _number(query.get("count", "1"), 1, _MOST_CANDLES), ms)

    def _known(self, rows: list[int], ms: int) -> np.ndarray:
        places = np.array(rows, np.int64)
        known: np.ndarray = places[self._universe.listed(places, ms)]
        return known

    def _asked(self, text: str, ms: int) -> np.ndarray:
        """Return the rows of a list of markets. Raises RestError: one that is not known fails the whole call."""
        # REST accepts lower-case markets. Source: upbit.md 4.
        rows = [self._universe.row_of.get(code) for code in text.upper().split(",") if code]
        known = self._known([row for row in rows if row is not None], ms)
        if not rows or len(known) != len(rows):
            raise RestError(404, 404, "Code not found")
        return known

    def _markets(self, details: bool, ms: int) -> list[Any]:
        out: list[Any] = []
        listing = self._universe.listing
        for row in self._universe.rows[self._universe.listed(self._universe.rows, ms)].tolist():
            one: dict[str, Any] = {"market": listing.codes[row], "korean_name": listing.names[row], "english_name": listing.names[row]}
            if details:
                one["market_event"] = {"warning": False, "caution": dict.fromkeys(_EVENTS, False)}
            out.append(one)
        return out

    def _tickers(self, rows: np.ndarray, ms: int) -> list[Any]:
        universe = self._universe
        if not len(rows):
            return []
        day = universe.hours.day_of(ms)
        state, last = universe.state(rows, ms), universe.last_trades(rows, ms)
        base = universe.previous_close(day)[rows]
        rest = 1 - (ms / 1000 % DAY_S) / DAY_S
        yesterday = universe.previous_day(day)
        columns = (
            base, state.open, state.high, state.low, state.price, state.volume, state.value, *last,
            np.rint(yesterday[0][rows] * rest).astype(np.int64), np.rint(yesterday[1][rows] * rest).astype(np.int64),
        )  # fmt: skip
        each = zip(rows.tolist(), *(column.tolist() for column in columns), strict=True)
        return [self._ticker(row, ms, *figures) for row, *figures in each]

    def _ticker(
        self, row: int, ms: int, base: int, first: int, high: int, low: int, price: int, volume: int, value: int, at_ms: int, size: int,
        _side: int, before: int, value_before: int,
    ) -> str:  # fmt: skip
        """Return one ticker row as JSON text, exact to the last decimal. Before the day's first trade it shows the previous close."""
        price = price or base
        first, high, low, at_ms = first or base, high or base, low or base, at_ms or ms // (DAY_S * 1000) * DAY_S * 1000
        change, unit = price - base, int(self._universe.value_unit[row])
        rate = change / base
        utc, kst = time.gmtime(at_ms // 1000), time.gmtime(at_ms // 1000 + 9 * 3600)
        word = "RISE" if change > 0 else "FALL" if change < 0 else "EVEN"
        return (
            f'{{"market":"{self._universe.listing.codes[row]}","trade_date":"{time.strftime("%Y%m%d", utc)}",'
            f'"trade_time":"{time.strftime("%H%M%S", utc)}","trade_date_kst":"{time.strftime("%Y%m%d", kst)}",'
            f'"trade_time_kst":"{time.strftime("%H%M%S", kst)}","trade_timestamp":{at_ms},"opening_price":{fixed(first)},'
            f'"high_price":{fixed(high)},"low_price":{fixed(low)},"trade_price":{fixed(price)},"prev_closing_price":{fixed(base)},'
            f'"change":"{word}","change_price":{fixed(abs(change))},"change_rate":{abs(rate):.10f},"signed_change_price":{fixed(change)},'
            f'"signed_change_rate":{rate:.10f},"trade_volume":{fixed(size)},"acc_trade_price":{_value(value, unit)},'
            f'"acc_trade_price_24h":{_value(value + value_before, unit)},"acc_trade_volume":{fixed(volume)},'
            f'"acc_trade_volume_24h":{fixed(volume + before)},"highest_52_week_price":{fixed(base * 17 // 10)},'
            f'"highest_52_week_date":"2025-10-09","lowest_52_week_price":{fixed(base * 6 // 10)},"lowest_52_week_date":"2026-02-06",'
            f'"timestamp":{ms}}}'
        )

    def _books(self, rows: np.ndarray, levels: int, ms: int) -> list[Any]:
        universe = self._universe
        at = np.full(len(rows), ms)
        bids, asks = universe.quote(rows, at)
        bid_sizes, ask_sizes = universe.depth(rows, at)
        ticks = asks - bids
        out: list[Any] = []
        for place, row in enumerate(rows.tolist()):
            bid, ask, tick = int(bids[place]), int(asks[place]), int(ticks[place])
            bid_size, ask_size = int(bid_sizes[place]), int(ask_sizes[place])
            units = []
            for depth in range(levels):
                # A book without another level below is padded with 0. Source: upbit.md 3.3.
                under = max(0, bid - depth * tick)
                units.append(
                    f'{{"ask_price":{short(ask + depth * tick)},"bid_price":{short(under)},"ask_size":{short(ask_size + depth)},'
                    f'"bid_size":{short(bid_size + depth if under else 0)}}}'
                )
            out.append(
                f'{{"market":"{universe.listing.codes[row]}","timestamp":{ms},"total_ask_size":{short(ask_size * levels)},'
                f'"total_bid_size":{short(bid_size * levels)},"orderbook_units":[{",".join(units)}],"level":0}}'
            )
        return out

    def _instruments(self, rows: np.ndarray, ms: int) -> list[Any]:
        bids, asks = self._universe.quote(rows, np.full(len(rows), ms))
        return [
            {
                "market": self._universe.listing.codes[row], "quote_currency": self._universe.listing.kinds[row],
                "tick_size": short(int(ask - bid)), "supported_levels": ["0"],
            }
            for row, bid, ask in zip(rows.tolist(), bids, asks, strict=True)
        ]  # fmt: skip

    def _candles(self, row: int, unit: int, to: str, count: int, ms: int) -> list[Any]:
        """Return minute candles, newest first; a period without a trade has none. `to`: exclusive."""
        until_ms = min(ms, _instant_ms(to) - 1) if to else ms
        period = until_ms // MINUTE_MS // unit
        out: list[Any] = []
        oldest = until_ms // MINUTE_MS - _LOOK_BACK_MINUTES
        self._universe.minute(ms // MINUTE_MS)  # what has been seen until now is not changed any more
        while len(out) < count and period * unit > oldest:
            some = min(count - len(out), _MOST_CANDLES)
            first = (period - some + 1) * unit
            minutes, last_ms = self._universe.candles_until(row, first, some * unit, until_ms)
            for place in range(some - 1, -1, -1):
                one = self._candle(row, unit, first + place * unit, minutes.pick(np.arange(place * unit, (place + 1) * unit)), last_ms)
                if one:
                    out.append(one)
            period -= some
        return out

    def _candle(self, row: int, unit: int, minute: int, figures: State, last_ms: dict[int, int]) -> str:
        some = np.flatnonzero(figures.trades)
        if not len(some):
            return ""
        utc, kst = (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(minute * 60 + offset)) for offset in (0, 9 * 3600))
        return (
            f'{{"market":"{self._universe.listing.codes[row]}","candle_date_time_utc":"{utc}","candle_date_time_kst":"{kst}",'
            f'"opening_price":{fixed(int(figures.open[some[0]]))},"high_price":{fixed(int(figures.high[some].max()))},'
            f'"low_price":{fixed(int(figures.low[some].min()))},"trade_price":{fixed(int(figures.price[some[-1]]))},'
            f'"timestamp":{last_ms[minute + int(some[-1])]},'
            f'"candle_acc_trade_price":{_value(int(figures.value.sum()), int(self._universe.value_unit[row]))},'
            f'"candle_acc_trade_volume":{fixed(int(figures.volume.sum()))},"unit":{unit}}}'
        )

    def _ticks(self, row: int, count: int, ms: int) -> list[Any]:
        """Return the last trades, newest first."""
        universe = self._universe
        out: list[Any] = []
        minute, day = ms // MINUTE_MS, universe.hours.day_of(ms)
        base = int(universe.previous_close(day)[row])
        number = int(universe.state(np.array([row]), ms).trades[0])
        while len(out) < count and number > 0 and minute >= universe.hours.start_minute(day):
            trades = universe.trades(np.array([row]), np.array([minute]))
            for place in range(int((trades.ms <= ms).sum()) - 1, -1, -1):
                at, price = int(trades.ms[place]), int(trades.price[place])
                utc = time.gmtime(at // 1000)
                out.append(
                    f'{{"market":"{universe.listing.codes[row]}","trade_date_utc":"{time.strftime("%Y-%m-%d", utc)}",'
                    f'"trade_time_utc":"{time.strftime("%H:%M:%S", utc)}","timestamp":{at},"trade_price":{fixed(price)},'
                    f'"trade_volume":{fixed(int(trades.size[place]))},"prev_closing_price":{fixed(base)},'
                    f'"change_price":{fixed(price - base)},"ask_bid":"{"BID" if trades.side[place] == BUY else "ASK"}",'
                    f'"sequential_id":{at * 10_000 + number % 10_000}}}'
                )
                number -= 1
            minute -= 1
        return out[:count]


def _value(value: int, unit: int) -> str:
    """Return a traded value as a JSON number with eight decimals."""
    return fixed(value * (10**8 // unit))


def _number(text: str, least: int, most: int) -> int:
    if not text.isdigit() or not least <= int(text) <= most:
        raise RestError(400, 400, f"count: allowed is {least} to {most}")
    return int(text)


def _instant_ms(text: str) -> int:
    """Return the epoch ms of an ISO 8601 time; without an offset it is UTC. A + that a URL has turned into a space is one again."""
    try:
        at = datetime.fromisoformat(re.sub(r" (\d{2}:\d{2})$", r"+\1", text) if len(text) > 19 else text)
    except ValueError:
        raise RestError(400, 400, "to: allowed is ISO 8601") from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def encoded(rows: list[Any]) -> str:
    """Return rows, which are values or JSON text already, as one JSON array."""
    return "[" + ",".join(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows) + "]"
