"""Who has a slot, since when and why: what the board of a provider says, with the names of the day's universe and the operator's pins.

Nothing is told of a provider without a board, or of one whose board holds no wish yet.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from obs.config import Config, ProviderConfig
from obs.errors import ConfigError, SchemaMismatch
from obs.market import universe as universes
from obs.market.pins import Pins, pins_path, read_pins
from obs.record.events import iso_ms
from obs.ring import fence
from obs.segment.format import Series
from obs.shm import Board

Say = Callable[[str], None]


class Names:
    """Names of symbols from the stored universes, each file read once. Safety: one thread."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._known: dict[tuple[str, int], dict[str, str]] = {}

    def of(self, market: str, day: int, say: Say) -> dict[str, str]:
        """Return symbol -> name of a day, empty if there is no universe of it; tell `say` if it does not read."""
        key = (market, day)
        if key not in self._known:
            try:
                universe = universes.load(self._data_dir, market, day)
            except ConfigError as error:
                say(str(error))
                return {}
            if universe is None:
                return {}
            for other in [one for one in self._known if one[0] == market]:
                del self._known[other]
            self._known[key] = {one.symbol: one.name for one in universe.instruments}
        return self._known[key]


def unconfigured(config: Config) -> list[ProviderConfig]:
    """Return the providers that this data directory knows from another configuration, as those of a demo."""
    names = sorted(path.stem for path in (config.data_dir / "system" / "sessions").glob("*.jsonl"))
    return [foreign(config.data_dir, name) for name in names if config.provider(name) is None]


def foreign(data_dir: Path, name: str) -> ProviderConfig:
    """Return what can be said of a provider without its section: its market is that of its archive."""
    market = next((path.name for path in sorted(Series(data_dir, "scalp", name, "").folder.glob("*")) if path.is_dir()), "")
    return ProviderConfig(name, name, True, market, "", "", "", (), None, (), (), 0, "", "always")


def read_board(config: Config, provider: str) -> dict[str, Any] | None:
    """Return the cells of a provider's board that speak of slots, None if there is none."""
    try:
        board = Board.attach(Board.path(Path(config.ring.dir), config.data_dir, provider), fence)
    except (OSError, SchemaMismatch):
        return None
    try:
        return {name: board[name].read_json() or {} for name in ("wanted", "actual", "level")}
    finally:
        board.close()


def slots_of(config: Config, provider: ProviderConfig, say: Say, names: Names | None = None) -> dict[str, Any] | None:
    """Return what the board of a provider says of its slots, None if there is no board, or nothing on it.

    `say`: told of files beside it that do not read; `names`: kept by who asks again and again.
    """
    cells = read_board(config, provider.name)
    if cells is None or not cells["wanted"]:
        return None
    day = cells["wanted"].get("day")
    named = (names or Names(config.data_dir)).of(provider.market, int(day), say) if day else {}
    try:
        pins = read_pins(pins_path(config.data_dir, provider.name))
    except ConfigError as error:
        say(str(error))
        pins = Pins()
    return {"provider": provider.name, "market": provider.market, "day": day, **_slots(cells, named), **pins._asdict()}


def _slots(cells: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    wanted, actual, level = cells["wanted"], cells["actual"], cells["level"]
    why, standings = wanted.get("why") or {}, actual.get("slots") or {}
    by_slot = dict(zip(wanted["symbols"], why, strict=False)) if len(why) == len(wanted["symbols"]) else {}
    rows = []
    for place, slot in enumerate(wanted["symbols"], 1):
        symbol = by_slot.get(slot, slot)
        since_ns, how, score, trigger = why.get(symbol, (None, "listed", None, ""))
        rows.append(
            {
                "slot": place, "symbol": symbol, "name": names.get(symbol, ""), "since": since_ns and iso_ms(since_ns),
                "since_ns": since_ns, "how": how, "score": score, "trigger": trigger or None, "standing": standings.get(slot),
            }
        )  # fmt: skip
    return {
        "version": wanted.get("version"), "obeyed": actual.get("version"), "capacity": actual.get("capacity"),
        "level": int(level.get("level", 0)), "slots": rows, "leaving": sorted(set(standings) - set(wanted["symbols"])),
    }  # fmt: skip
