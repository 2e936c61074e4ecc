"""Columns of a simulated market: trades of many symbols and minutes in flat arrays, and what the day so far is after each.

Everything is numpy over whole columns, because a venue's minute has some ten thousand trades and a snapshot asks for thousands of symbols.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from obs.sim.hours import MINUTE_MS


@dataclass(slots=True)
class Trades:
    """Trades of (symbol, minute) pairs, flat, ordered by pair and time. Pair p has those from `start[p]` on, `count[p]` of them."""

    start: np.ndarray
    count: np.ndarray
    pair: np.ndarray
    ms: np.ndarray  # UTC epoch
    price: np.ndarray
    size: np.ndarray
    side: np.ndarray
    value: np.ndarray
    bid: np.ndarray
    ask: np.ndarray


@dataclass(slots=True)
class State:
    """The day so far of some symbols, one array per figure. A price, open, high or low of 0: nothing was traded yet."""

    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    price: np.ndarray
    volume: np.ndarray
    value: np.ndarray
    trades: np.ndarray

    def pick(self, rows: np.ndarray) -> State:
        return State(*(getattr(self, one.name)[rows] for one in fields(self)))


class Minute:
    """All trades of one minute, and the day so far after each of them."""

    def __init__(self, minute: int, before: State, trades: Trades) -> None:
        self.minute, self.before, self.trades = minute, before, trades
        pair, start, some = trades.pair, trades.start, trades.count > 0
        self.order = pair * MINUTE_MS + (trades.ms - minute * MINUTE_MS)
        first = trades.price[start[pair]] if len(pair) else trades.price
        so_far = before.pick(pair)
        high, low = np.zeros(len(pair), np.int64), np.zeros(len(pair), np.int64)
        if len(pair):
            high, low = _running(trades.price, start[some], pair, some), -_running(-trades.price, start[some], pair, some)
        none = so_far.trades == 0
        self.after = State(
            np.where(none, first, so_far.open),
            np.maximum(high, so_far.high),
            np.where(none, low, np.minimum(low, so_far.low)),
            trades.price,
            so_far.volume + _sums(trades.size, start, pair),
            so_far.value + _sums(trades.value, start, pair),
            so_far.trades + 1 + np.arange(len(pair)) - start[pair],
        )

    def last(self, rows: np.ndarray, ms: int) -> np.ndarray:
        """Return the index of the last trade of each symbol until `ms` (included), -1 if it has none in this minute."""
        at = np.searchsorted(self.order, rows * MINUTE_MS + min(ms - self.minute * MINUTE_MS, MINUTE_MS - 1), side="right") - 1
        return np.where(at >= self.trades.start[rows], at, -1)


class Day:
    """The venue's day, minute by minute: each column holds the day so far at the end of a minute, for every symbol."""

    def __init__(self, day: int, first: int, minutes: int, rows: int) -> None:
        self.day, self.first, self.done = day, first, 0
        self.columns = {one.name: np.zeros((minutes, rows), np.int64) for one in fields(State)}
        self.minute_high = np.zeros((minutes, rows), np.int64)
        self.minute_low = np.zeros((minutes, rows), np.int64)
        self.minute_open = np.zeros((minutes, rows), np.int64)

    @property
    def minutes(self) -> int:
        return len(self.minute_open)

    def so_far(self, minutes: int) -> State:
        """Return the day so far after its first `minutes`; these must be done."""
        if not minutes:
            rows = self.minute_open.shape[1]
            return State(*(np.zeros(rows, np.int64) for _ in fields(State)))
        return State(*(self.columns[one.name][minutes - 1] for one in fields(State)))

    def add(self, trades: Trades, minutes: int) -> None:
        """Append `minutes` more, whose trades these are: ordered by minute, then by symbol, every symbol in each."""
        first, shape = self.done, (minutes, self.minute_open.shape[1])
        last = first + minutes
        figures = by_pair(trades)
        self.minute_open[first:last] = figures.open.reshape(shape)
        self.minute_high[first:last] = figures.high.reshape(shape)
        self.minute_low[first:last] = figures.low.reshape(shape)
        before, closes = self.so_far(first), figures.price.reshape(shape)
        for name in ("volume", "value", "trades"):
            self.columns[name][first:last] = getattr(before, name) + np.cumsum(getattr(figures, name).reshape(shape), axis=0)
        for place in range(first, last):
            none, now = before.trades == 0, self.columns["trades"][place] > before.trades
            low = self.minute_low[place]
            self.columns["open"][place] = np.where(none, self.minute_open[place], before.open)
            self.columns["high"][place] = np.maximum(before.high, self.minute_high[place])
            self.columns["low"][place] = np.where(now, np.where(none, low, np.minimum(before.low, low)), before.low)
            self.columns["price"][place] = np.where(now, closes[place - first], before.price)
            before = self.so_far(place + 1)
        self.done = last


def _sums(values: np.ndarray, start: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """Return the sum of each pair's values up to and with each."""
    if not len(values):
        return values
    sums = np.cumsum(values)
    within: np.ndarray = sums - (sums - values)[start[pair]]
    return within


def _running(values: np.ndarray, starts: np.ndarray, pair: np.ndarray, some: np.ndarray) -> np.ndarray:
    """Return the largest of each pair's values up to and with each. `starts`: of the pairs that have any; `some`: which these are."""
    low = np.minimum.reduceat(values, starts)
    span = np.maximum.reduceat(values, starts) - low + 1
    lift = np.zeros(len(some), np.int64)
    lift[some] = np.cumsum(span) - span - low  # each pair above the one before it, so that one pass does for all
    most: np.ndarray = np.maximum.accumulate(values + lift[pair]) - lift[pair]
    return most


def by_pair(trades: Trades) -> State:
    """Return open, high, low, close, volume, value and number of trades of each pair; 0 where it has none."""
    some = trades.count > 0
    starts = trades.start[some]
    out = State(*(np.zeros(len(some), np.int64) for _ in fields(State)))
    if len(starts):
        out.open[some] = trades.price[starts]
        out.price[some] = trades.price[starts + trades.count[some] - 1]
        out.high[some], out.low[some] = np.maximum.reduceat(trades.price, starts), np.minimum.reduceat(trades.price, starts)
        out.volume[some], out.value[some] = np.add.reduceat(trades.size, starts), np.add.reduceat(trades.value, starts)
    out.trades[:] = trades.count
    return out
