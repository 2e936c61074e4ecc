"""What the feeds publish, as it comes: the newest record of each symbol, a line of its prices, and how far behind the venue it is.

Read from the tick rings themselves, with a cursor of our own that frees nothing: the feed does not know of it. What is overwritten
before it is read is passed over; this is a picture, not an archive. Costs nothing until `begin`, and nothing after `end`.

A line of prices is the last price of each SPARK_S, over the last SPARK_POINTS of them.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Final

import numpy as np

from obs.clock import NS, SYSTEM, Clock
from obs.errors import SchemaMismatch
from obs.record.schema import QUALITIES, TICK
from obs.ring import Ring, attach_ring, copy_rows, fence
from obs.shm import block_path

SPARK_S: Final = 5
SPARK_POINTS: Final = 60
_ROWS: Final = 8192  # in one copy
_ROWS_AT_ONCE: Final = 65_536  # of one look: of more, the newest
_LATENCY_NS: Final = 10 * NS
_LATENCIES: Final = 512  # of one look
_SPARK_NS: Final = SPARK_S * NS
_MS: Final = 1_000_000

Tick = tuple[int, float, float, str]  # ts_ms, price, volume, quality


class Live:
    """All providers. Safety: one thread at a time."""

    def __init__(self, data_dir: Path, folder: Path, clock: Clock = SYSTEM) -> None:
        self._data_dir, self._folder, self._clock = data_dir, folder, clock
        self._tapes: dict[str, Tape] = {}

    def follow(self, sessions: dict[str, str]) -> None:
        """Read these from now on: provider -> session id. A new one's past is read for its lines of prices."""
        for name in [name for name, tape in self._tapes.items() if sessions.get(name) != tape.session_id]:
            self._tapes.pop(name).close()
        for name, session_id in sessions.items():
            if session_id and name not in self._tapes:
                try:
                    ring = attach_ring(block_path(self._folder, self._data_dir, session_id, "tick"), TICK, session_id)
                except (OSError, SchemaMismatch):
                    continue  # not there yet, or not ours: the next call asks again
                self._tapes[name] = Tape(ring, self._clock)

    def ticks(self) -> dict[str, dict[str, Tick]]:
        """Return the newest record of each symbol that has one since the last call, by provider."""
        return {name: new for name, tape in self._tapes.items() if (new := tape.read())}

    def latest(self) -> dict[str, dict[str, Tick]]:
        """Return the newest record of every symbol."""
        return {name: dict(tape.latest) for name, tape in self._tapes.items()}

    def sparks(self) -> dict[str, dict[str, list[list[float]]]]:
        """Return the lines of prices: provider -> symbol -> [[ts_ms, price], …]."""
        return {name: {symbol: list(line) for symbol, line in tape.sparks.items()} for name, tape in self._tapes.items()}

    def venue_ms(self, provider: str) -> float | None:
        """Return the median of our receive time minus the venue's time over the last seconds, None if nothing came."""
        tape = self._tapes.get(provider)
        return tape.venue_ms() if tape is not None else None

    def end(self) -> None:
        """Let go of everything."""
        for tape in self._tapes.values():
            tape.close()
        self._tapes.clear()


class Tape:
    """One ring, from its last minutes on."""

    def __init__(self, ring: Ring, clock: Clock) -> None:
        self._ring, self._clock = ring, clock
        self.session_id = ring.session_id
        self.latest: dict[str, Tick] = {}
        self.sparks: dict[str, deque[list[float]]] = {}
        self._latency: deque[tuple[int, np.ndarray]] = deque()
        self._next = self._first()
        self.read(whole=True)

    def close(self) -> None:
        self._ring.close()

    def _first(self) -> int:
        """Return the first sequence of the last SPARK_POINTS x SPARK_S, found by halving: records are in the order of their time."""
        since_ns = self._clock.wall_ns() - SPARK_POINTS * _SPARK_NS
        low, high = self._ring.oldest, self._ring.published
        while low < high:
            middle = (low + high) // 2
            if int(copy_rows(self._ring, middle, 1)["ts_ns"][0]) < since_ns:
                low = middle + 1
            else:
                high = middle
        return low

    def read(self, *, whole: bool = False) -> dict[str, Tick]:
        """Take what is new; return the newest record of each symbol in it. `whole`: all that the ring holds, however much."""
        new: dict[str, Tick] = {}
        published = self._ring.published
        fence()  # Order: published before the cells
        if not whole:
            self._next = max(self._next, published - _ROWS_AT_ONCE)
        while self._next < published:
            start = max(self._next, self._ring.oldest)
            rows = copy_rows(self._ring, start, min(_ROWS, published - start))
            fence()  # Order: the cells before claimed
            self._next = start + len(rows)
            rows = rows[max(0, self._ring.oldest - start) :]  # what cannot have been overwritten meanwhile
            if len(rows):
                new |= self._take(rows)
        self.latest |= new
        return new

    def _take(self, rows: np.ndarray) -> dict[str, Tick]:
        symbols = [symbol.decode("ascii", "replace") for symbol in rows["symbol"].tolist()]
        prices = rows["last_price"].tolist()
        times = rows["ts_ns"]
        ends = ((times - 1) // _SPARK_NS + 1).tolist()  # a span holds its end, as a minute does
        # Of equal keys the last one stays: records are in the order of their time.
        for (symbol, end), at in dict(zip(zip(symbols, ends, strict=True), range(len(rows)), strict=True)).items():
            if prices[at] == prices[at]:  # known
                self._point(symbol, end * SPARK_S * 1000, prices[at])
        self._measure(rows)
        volumes, qualities = rows["volume"], rows["quality"]
        return {
            symbol: (int(times[at]) // _MS, prices[at], float(volumes[at]), _quality(int(qualities[at])))
            for symbol, at in dict(zip(symbols, range(len(rows)), strict=True)).items()
        }

    def _point(self, symbol: str, ts_ms: int, price: float) -> None:
        line = self.sparks.setdefault(symbol, deque(maxlen=SPARK_POINTS))
        if line and line[-1][0] == ts_ms:
            line[-1][1] = price
        else:
            line.append([ts_ms, price])

    def _measure(self, rows: np.ndarray) -> None:
        known = rows[(rows["event_ns"] > 0) & (rows["recv_ns"] > self._clock.wall_ns() - _LATENCY_NS)]
        if len(known):
            some = known[:: max(1, len(known) // _LATENCIES)]
            self._latency.append((self._clock.mono_ns(), (some["recv_ns"] - some["event_ns"]) / _MS))

    def venue_ms(self) -> float | None:
        """Return the median of what came within the last seconds."""
        since_ns = self._clock.mono_ns() - _LATENCY_NS
        while self._latency and self._latency[0][0] < since_ns:
            self._latency.popleft()
        if not self._latency:
            return None
        return round(float(np.median(np.concatenate([one for _, one in self._latency]))), 1)


def _quality(code: int) -> str:
    return QUALITIES[code] if code < len(QUALITIES) else str(code)
