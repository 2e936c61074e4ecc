"""Which link carries which symbol, and in which row of the slots' table: follows what is wanted while the feed runs.

A symbol keeps its link while it is wanted; a new one goes to the link with the most places free, and waits until the venue has
confirmed that it sends it no longer, if it was released a moment ago. Where more are wanted than fit, the first ones in order
are in.

Rows are a pool of all links. There are more of them than places, so that a released symbol can keep its row until that confirmation.
Invariant: no two rows bear the same name; a row changes its name only while it has counted nothing in the present bucket of the
intake. So each bucket has one row of a symbol.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

from obs.errors import ConfigError
from obs.log import Log
from obs.providers.base import Provider
from obs.roles.link import Link
from obs.roles.recorder import Recorder

MOST_ROWS: Final = 3900  # that the intake's cell on the board has room for


class Share(NamedTuple):
    """What one link has: the symbols that it holds, and how many it may hold."""

    holds: Collection[str]
    room: int


class Moves(NamedTuple):
    """(place of the link, symbol) each, in order."""

    releases: list[tuple[int, str]]
    allocations: list[tuple[int, str]]


def plan(wanted: Sequence[str], shares: Sequence[Share], leaving: Collection[str]) -> Moves:
    """Return what is to change. `wanted`: each once. `leaving`: symbols that some link is still rid of; they wait."""
    fit = wanted[: sum(share.room for share in shares)]
    order = {symbol: place for place, symbol in enumerate(fit)}
    releases, allocations, free, kept = [], [], [], set()
    for link, share in enumerate(shares):
        keep = sorted((symbol for symbol in share.holds if symbol in order), key=order.__getitem__)[: share.room]
        releases += [(link, symbol) for symbol in share.holds if symbol not in keep]
        kept.update(keep)
        free.append(share.room - len(keep))
    released = {symbol for _, symbol in releases}
    for symbol in fit:
        if symbol not in kept and symbol not in released and symbol not in leaving:
            link = max(range(len(free)), key=free.__getitem__)
            if free[link] <= 0:
                break
            free[link] -= 1
            allocations.append((link, symbol))
    return Moves(releases, allocations)


def rows_for(places: int) -> int:
    """Return how many rows a feed with so many places has, without row 0."""
    return max(places, min(2 * places, MOST_ROWS))


class Placing:
    """Moves the symbols of one feed. Safety: one thread; called by the feed and, when a symbol has left, by its links."""

    def __init__(self, provider: Provider, recorder: Recorder, links: Sequence[Link], log: Log) -> None:
        self._provider, self._recorder, self._links, self._log = provider, recorder, links, log
        self._wanted: list[str] = []
        self.version = 0  # of what was wanted last
        self._free = [row for row in range(1, recorder.slots.rows) if not recorder.watched[row]]  # the one free for longest first
        self._busy = self._again = False
        for link in links:
            link.freed = self._freed

    def want(self, symbols: Iterable[str], version: int) -> None:
        """Obey a new list: symbols as configured, the most wanted first."""
        found: dict[str, str] = {}  # as records carry it -> slot symbol
        for text in symbols:
            try:
                symbol = self._provider.slot_symbol(text)
            except ConfigError as error:
                self._log.error("wanted_symbol_unknown", symbol=text, text=str(error))
                continue
            found.setdefault(self._provider.record_symbol(symbol), symbol)
        self._wanted, self.version = list(found.values()), version
        self.arrange()

    def arrange(self) -> None:
        """Bring the links to what is wanted, as far as it is possible now; the rest follows when a symbol has left."""
        self._again = True
        if self._busy:
            return  # a link freed a row in the middle of it
        self._busy = True
        try:
            while self._again:
                self._again = False
                self._arrange()
        finally:
            self._busy = False

    def _arrange(self) -> None:
        record = self._provider.record_symbol
        names = {record(symbol) for link in self._links for symbol in link.leaving}
        leaving = {symbol for symbol in self._wanted if record(symbol) in names}
        moves = plan(self._wanted, [Share(link.rows, link.room) for link in self._links], leaving)
        touched = set()
        for place, symbol in moves.releases:
            self._links[place].release(symbol)
            touched.add(place)
            self._again = True
        for place, symbol in () if moves.releases else moves.allocations:
            name = record(symbol)
            row = self._row(name.encode())
            if row is None:
                break
            self._free.remove(row)
            self._recorder.assign(row, name)
            self._links[place].add(symbol, row)
            touched.add(place)
        for place in touched:
            self._links[place].rearranged()

    def _row(self, name: bytes) -> int | None:
        """Return a free row for a symbol: the one that had it before, else a clean one; None: later, there will be one."""
        names, clean = self._recorder.slots.symbol, self._recorder.clean
        for row in self._free:
            if names[row] == name:
                return row
        for row in self._free:
            if clean(row):
                return row
        if self._free:
            self._recorder.clean_up()
            return next((row for row in self._free if clean(row)), None)
        return None

    def _freed(self, row: int) -> None:
        self._recorder.free(row)
        self._free.append(row)
        self.arrange()
