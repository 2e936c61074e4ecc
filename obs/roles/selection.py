"""Which symbols have the slots: keeps what is known of the day's universe, and judges it each minute and after each sweep.

Sweeps (`swept`) tell of the whole universe each ten minutes, live records (`live`) of those that have a slot. Both go through the
triggers of obs.select; `evaluate` puts the slots that follow on the board, cell "wanted", and says each step and each loser as events:

    slot      {"what": "bootstrap|allocate|swap|release|pin|unpin|exclude|include", "score", "rank", "trigger", "out", "reason", …}
    overflow  {"candidate_score", "cutoff_rank", "rank", "mitigation_level", "decision_reason"}, one per symbol

Every loser is in the overflow ledger at least once per sweep; between sweeps one is written again only when its rank or its reason has
changed, or ten minutes later. Outside Track B's hours nothing is scored: free slots go by traded value, holders stay, pins hold.

A new poll goes on where the dead one was. The board says who has a slot, since when and why, and what the operator had said; what is
known of the symbols has a file of its own (obs/roles/watched.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from obs.clock import NS, Clock, Pace
from obs.config import ProviderConfig
from obs.errors import ConfigError
from obs.log import Log
from obs.market import calendar as calendars
from obs.market.calendar import ALWAYS
from obs.market.pins import Pins, pins_path, read_pins
from obs.market.tracks import in_track_b
from obs.market.universe import Universe
from obs.providers.base import Provider
from obs.record.events import make_event
from obs.ring import Producer, Ring, copy_rows, fence
from obs.roles.watched import Watched
from obs.select import SlotOptions, TriggerOptions, decide, overflow, scores
from obs.select.overflow import DECISION_REASONS
from obs.select.slots import Decision
from obs.select.triggers import TRIGGERS
from obs.shm import Board

EVALUATE_NS: Final = 60 * NS
TELL_AGAIN_NS: Final = 600 * NS  # the same loser, unchanged
REFUSED_NS: Final = 120 * NS  # a slot that the venue has refused for so long goes to another symbol
BARRED_NS: Final = 1800 * NS  # and this one gets none for so long
STEP_NS: Final = 60 * NS  # a time this much before the last one is a clock that has stepped, not a sweep that is told late
MOST_PINS: Final = 1000  # of each kind: they stand on the board
_REFUSED: Final = ("refused", "failed")
_CALENDAR_NS: Final = 600 * NS


class Holder(NamedTuple):
    """Why a symbol has its slot: since when, by which step, with which score and trigger."""

    since_ns: int
    what: str
    score: float
    trigger: str


class Tail:
    """Reads a ring of another process from now on. Its place is its own: it frees nothing, and what it misses it does not need."""

    def __init__(self, ring: Ring) -> None:
        self._ring, self._next = ring, ring.published

    def take(self, max_rows: int = 4096) -> np.ndarray:
        """Return the rows that were published since, at most `max_rows`, owned; after a lap those that are still there."""
        ring = self._ring
        published = ring.published
        fence()  # Order: published before the cells
        start = max(self._next, ring.oldest)
        count = min(published - start, max_rows)
        if count <= 0:
            return np.empty(0, ring.dtype)
        rows = copy_rows(ring, start, count)
        fence()  # Order: the cells before claimed
        self._next = start + count
        return rows[min(max(ring.oldest - start, 0), count) :]


class Selection:
    """The slots of one provider. Safety: one thread, poll's."""

    def __init__(
        self, provider: Provider, config: ProviderConfig, board: Board, events: Producer, data_dir: Path, universe: Universe | None,
        clock: Clock, log: Log,
    ) -> None:  # fmt: skip
        """`universe` None: not built yet; the slots that are on the board stay until `renew` brings it."""
        self._provider, self._config, self._board, self._events, self._clock, self._log = provider, config, board, events, clock, log
        self._data_dir = data_dir
        self._triggers, self._slots = TriggerOptions(), SlotOptions()
        self.calendar_path = data_dir / "state" / "calendar.json"
        self.calendar = calendars.load(self.calendar_path)
        self.pins = self._pins_said = Pins()
        self._warned: dict[str, str] = {}

        self._universe: Universe | None = None
        self.watched = Watched(data_dir / "state" / f"{config.name}.select.npy", self._triggers, log)
        self._last_ns = 0

        self._held: dict[str, Holder] = {}  # in the order of the slots
        self._held_day = 0
        self._version = 0
        self._anew = False  # the next evaluation begins with no holders
        self._told: dict[str, tuple[int, int, int]] = {}  # loser -> rank, reason, when it was written
        self._refused_ns: dict[str, int] = {}
        self._barred: dict[str, int] = {}  # symbol -> until when
        self._restore()
        self.take_pins(self.read_pins())
        if universe is not None:
            self.renew(universe)

    # --- what is known

    def renew(self, universe: Universe) -> None:
        """Take the universe of a day. A new day of a market with sessions begins anew: no averages, slots by traded value."""
        market, watched = self._config.market, self.watched
        first = self._universe is None
        same_day = universe.day == (self._universe.day if self._universe is not None else self._held_day)
        self._universe = universe
        fresh = not same_day and market not in ALWAYS
        self._anew = self._anew or fresh
        if fresh:
            watched.forget()
        watched.lay(universe, self.pins.pinned)
        if not same_day:
            watched.begin_day(universe)
        watched.size_by(universe)
        if first and (problem := watched.load(universe.day, other_days=market in ALWAYS)):
            self._warn("state_unreadable", f"{problem}; averages form anew")

    def swept(self, quotes: np.ndarray, started_ns: int, ended_ns: int) -> None:
        """Take a snapshot sweep: `quotes` (n,) QUOTE in the order of the universe, NaN price where it failed; then evaluate.

        Rows of a universe that has been renewed meanwhile find their place by symbol.
        """
        if self._universe is None:
            return
        self._steady(ended_ns)
        known = self.watched.sweep(quotes, ended_ns)
        self._log.debug("swept", symbols=len(quotes), known=known, seconds=round((ended_ns - started_ns) / NS, 1))
        self.evaluate(ended_ns, after_sweep=known)
        if known:
            self.watched.save(self._universe.day)

    def live(self, records: np.ndarray) -> None:
        """Take records of the tick ring, in their order; other symbols than ours are passed over."""
        self.watched.live(records)

    # --- evaluation

    def deciding(self, now_ns: int) -> bool:
        """Return whether triggers decide now: in Track B's hours, and always where hours are "always"."""
        config = self._config
        return config.hours == "always" or in_track_b(self.calendar, config.market, config.venue, now_ns)

    def evaluate(self, now_ns: int, *, after_sweep: bool = False) -> None:
        """Decide who has a slot from now on; put it on the board and into events. `now_ns`: wall clock."""
        if self._universe is None:
            return
        self._steady(now_ns)
        self.watched.fold_live(now_ns)
        self._watch_refused(now_ns)
        deciding = self.deciding(now_ns)
        pinned, excluded, barred = (self.watched.mask(names) for names in (self.pins.pinned, self.pins.excluded, self._barred))
        if deciding:
            score, strength = scores(self.watched.state, pinned, now_ns, self._triggers)
        else:
            score, strength = np.zeros(len(self.watched.symbols)), np.zeros((len(TRIGGERS), len(self.watched.symbols)))
        capacity = self._capacity()
        rows = {self.watched.row.get(symbol, -1 - place): holder.since_ns for place, (symbol, holder) in enumerate(self._held.items())}
        decision = decide(
            score, self.watched.size, {} if self._anew else rows, pinned, excluded | barred, capacity, now_ns, self._slots
        )
        self._obey(decision, score, strength, now_ns)
        if deciding:
            self._tell_losers(score, excluded, capacity, now_ns, after_sweep)
        if (many := np.count_nonzero(pinned)) > capacity:
            self._warn("too_many_pins", f"{many} symbols are pinned, {capacity} have room")
        else:
            self._warned.pop("too_many_pins", None)
        self.watched.save_on()

    def _obey(self, decision: Decision, score: np.ndarray, strength: np.ndarray, now_ns: int) -> None:
        """Make the holders those of `decision`, each in the place that it had, and tell every step."""
        names = self.watched.symbols
        keep = {names[row] for row in decision.held}
        swaps = {names[out]: into for out, into in decision.swaps}
        told: list[np.ndarray] = []
        held: dict[str, Holder] = {}
        for symbol, holder in self._held.items():
            if symbol in keep:
                held[symbol] = holder
            elif symbol in swaps:
                row = swaps[symbol]
                held[names[row]] = self._holder("swap", row, score, strength, now_ns)
                facts = self._facts(held[names[row]], score, row) | {"out": symbol, "out_score": self._score_of(symbol, score)}
                told.append(make_event("slot", now_ns, facts | {"out_held_s": (now_ns - holder.since_ns) // NS}, symbol=names[row]))
            else:
                facts = {"what": "release", "reason": self._why_released(symbol), "held_s": (now_ns - holder.since_ns) // NS}
                told.append(make_event("slot", now_ns, facts | {"score": self._score_of(symbol, score)}, symbol=symbol))
        for row in decision.held:
            if names[row] not in held:
                what = "allocate" if score[row] > 0 or names[row] in self.pins.pinned else "bootstrap"
                held[names[row]] = self._holder(what, row, score, strength, now_ns)
                told.append(make_event("slot", now_ns, self._facts(held[names[row]], score, row), symbol=names[row]))
        day = self._universe.day if self._universe is not None else 0
        self._anew = False
        changed = list(held) != list(self._held) or self._version == 0
        self._held = held
        if changed or day != self._held_day or self._pins_said != self.pins:
            self._version += changed
            self._held_day, self._pins_said = day, self.pins
            self._publish(now_ns)
        if told:
            self._events.publish(np.concatenate(told))
            self._log.info("slots_changed", steps=len(told), held=len(held), version=self._version)

    def _publish(self, now_ns: int) -> None:
        """Put the slots on the board. Order: before the events, which nobody waits for."""
        self._board["wanted"].write_json(
            {
                "symbols": [self._provider.slot_symbol(symbol) for symbol in self._held], "ns": now_ns, "version": self._version,
                "day": self._held_day, "why": {symbol: list(holder) for symbol, holder in self._held.items()},
                "pinned": self.pins.pinned, "excluded": self.pins.excluded,
            }
        )  # fmt: skip

    def _tell_losers(self, score: np.ndarray, excluded: np.ndarray, capacity: int, now_ns: int, after_sweep: bool) -> None:
        held = self.watched.mask(self._held)
        losers = overflow(score, self.watched.size, held, excluded, self._slots.least_score)
        level = int((self._board["level"].read_json() or {}).get("level", 0))
        told: dict[str, tuple[int, int, int]] = {}
        rows = []
        for row, value, rank, reason in zip(*(column.tolist() for column in losers), strict=True):
            symbol = self.watched.symbols[row]
            before = self._told.get(symbol)
            if not after_sweep and before is not None and before[:2] == (rank, reason) and now_ns - before[2] < TELL_AGAIN_NS:
                told[symbol] = before
                continue
            told[symbol] = (rank, reason, now_ns)
            payload = {
                "candidate_score": round(value, 6), "cutoff_rank": capacity, "mitigation_level": level,
                "decision_reason": DECISION_REASONS[reason], "rank": rank,
            }  # fmt: skip
            if symbol in self._barred:
                payload["note"] = "refused by the venue a while ago"
            rows.append(make_event("overflow", now_ns, payload, symbol=symbol))
        self._told = told
        if rows:
            self._events.publish(np.concatenate(rows))

    def _holder(self, what: str, row: int, score: np.ndarray, strength: np.ndarray, now_ns: int) -> Holder:
        pulled = strength[:, row] * self._triggers.weights
        trigger = TRIGGERS[int(pulled.argmax())] if pulled.any() else "manual" if self.watched.symbols[row] in self.pins.pinned else ""
        return Holder(now_ns, what, round(float(score[row]), 6), trigger)

    def _facts(self, holder: Holder, score: np.ndarray, row: int) -> dict[str, Any]:
        size = self.watched.size
        better = (score > score[row]) | ((score == score[row]) & (size > size[row]))
        return {"what": holder.what, "score": holder.score, "rank": int(np.count_nonzero(better)) + 1, "trigger": holder.trigger or None}

    def _score_of(self, symbol: str, score: np.ndarray) -> float | None:
        row = self.watched.row.get(symbol)
        return None if row is None else round(float(score[row]), 6)

    def _why_released(self, symbol: str) -> str:
        if symbol in self.pins.excluded:
            return "excluded"
        if symbol in self._barred:
            return "refused"
        if symbol not in self.watched.row:
            return "left_universe"
        return "new_day" if self._anew else "capacity"

    def _capacity(self) -> int:
        """Return how many symbols the links can hold: what the feed has learned, as far as it has said anything."""
        most = self._config.slots * max(1, len(self._config.credentials))
        said = (self._board["actual"].read_json() or {}).get("capacity")
        return min(said, most) if isinstance(said, int) and said > 0 else most

    def _watch_refused(self, now_ns: int) -> None:
        """Bar a holder that the venue has refused for a while, unless it refuses so many that the symbols are not to blame."""
        self._barred = {symbol: until for symbol, until in self._barred.items() if until > now_ns}
        actual = self._board["actual"].read_json() or {}
        if actual.get("version", self._version) != self._version:
            return
        standings = actual.get("slots") or {}
        refused = [symbol for symbol in self._held if standings.get(self._provider.slot_symbol(symbol)) in _REFUSED]
        self._refused_ns = {symbol: self._refused_ns.get(symbol, now_ns) for symbol in refused}
        if len(refused) > max(1, len(self._held) // 4):
            return
        for symbol, since_ns in self._refused_ns.items():
            if now_ns - since_ns >= REFUSED_NS:
                self._barred[symbol] = now_ns + BARRED_NS
                facts = {"what": "slot_refused", "for_s": (now_ns - since_ns) // NS, "again_s": BARRED_NS // NS}
                self._events.publish(make_event("warning", now_ns, facts, symbol=symbol))

    # --- pins

    def read_pins(self) -> Pins | ConfigError:
        """Read the operator's file. Safety: any thread, since a disk may hang; what it returns goes to `take_pins`."""
        try:
            return read_pins(pins_path(self._data_dir, self._config.name))
        except ConfigError as error:
            return error

    def take_pins(self, read: Pins | ConfigError) -> bool:
        """Obey what was read, and return whether it says something new. What did not read changes nothing, and is told once."""
        if isinstance(read, ConfigError):
            self._warn("pins_unreadable", str(read))
            return False
        self._warned.pop("pins_unreadable", None)
        before, self.pins = self.pins, Pins(*map(self._spelled, read))
        if before == self.pins:
            return False
        steps = {
            "pin": (before.pinned, self.pins.pinned), "unpin": (self.pins.pinned, before.pinned),
            "exclude": (before.excluded, self.pins.excluded), "include": (self.pins.excluded, before.excluded),
        }  # fmt: skip
        now = self._clock.wall_ns()
        for what, (without, within) in steps.items():
            for symbol in within:
                if symbol not in without:
                    self._events.publish(make_event("slot", now, {"what": what}, symbol=symbol))
        if self._universe is not None:
            self.watched.lay(self._universe, self.pins.pinned)
        return True

    def _spelled(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the names that can be symbols of this market, as records spell them; the first MOST_PINS of them."""
        good = []
        if len(names) > MOST_PINS:
            self._warn("pins_cut", f"{len(names)} names in a list of the pins file, the first {MOST_PINS} are obeyed")
        for name in names[:MOST_PINS]:
            try:
                good.append(self._provider.record_symbol(self._provider.slot_symbol(name)))
            except ConfigError as error:
                self._warn(f"pin {name}", str(error))
        return tuple(dict.fromkeys(good))

    # --- the rest

    def _steady(self, now_ns: int) -> None:
        """When the wall clock has stepped back, move every time that is known with it: as if no time had passed."""
        back = self._last_ns - now_ns
        if back <= STEP_NS:
            self._last_ns = max(self._last_ns, now_ns)
            return
        self._last_ns = now_ns
        self.watched.step_back(back)
        self._held = {symbol: holder._replace(since_ns=holder.since_ns - back) for symbol, holder in self._held.items()}
        self._told = {symbol: (rank, reason, ns - back) for symbol, (rank, reason, ns) in self._told.items()}
        self._refused_ns = {symbol: ns - back for symbol, ns in self._refused_ns.items()}
        self._barred = {symbol: ns - back for symbol, ns in self._barred.items()}

    def _warn(self, what: str, text: str) -> None:
        """Tell something once, until it is over or different."""
        if self._warned.get(what) != text:
            self._warned[what] = text
            self._log.warning("selection", what=what, text=text)
            self._events.publish(make_event("warning", self._clock.wall_ns(), {"what": what, "text": text}))

    def _restore(self) -> None:
        """Take the holders from the board. Slots of a list of the configuration are not ours: they have no reason."""
        wanted = self._board["wanted"].read_json() or {}
        self._version = int(wanted.get("version") or 0)
        try:
            self._held = {symbol: Holder(int(since), str(what), float(score), str(trigger))
                          for symbol, (since, what, score, trigger) in wanted["why"].items()}  # fmt: skip
            self._held_day = int(wanted["day"])
        except (KeyError, TypeError, ValueError, AttributeError):
            self._held, self._held_day = {}, 0
            return
        self.pins = self._pins_said = Pins(tuple(wanted.get("pinned") or ()), tuple(wanted.get("excluded") or ()))


async def keep_selecting(selection: Selection, ticks: Tail, pace: Pace) -> None:
    """Give `selection` the live records and the operator's pins each second, and evaluate each minute; ends by being cancelled."""
    next_ns = calendar_ns = pace.mono_ns()
    while True:
        while len(rows := ticks.take()):
            selection.live(rows)
        pinned = selection.take_pins(await asyncio.to_thread(selection.read_pins))
        if pace.mono_ns() >= calendar_ns:
            calendar_ns = pace.mono_ns() + _CALENDAR_NS
            selection.calendar = await asyncio.to_thread(calendars.load, selection.calendar_path)
        if pinned or pace.mono_ns() >= next_ns:
            next_ns = pace.mono_ns() + EVALUATE_NS
            selection.evaluate(pace.wall_ns())
        await pace.sleep(1.0)
