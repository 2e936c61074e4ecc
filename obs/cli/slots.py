"""`obs slots`: who has a slot, since when and why; and the operator's say: pin, unpin, exclude, include."""

from __future__ import annotations

import argparse
import re
from typing import Any, Final

from obs.cli import archive
from obs.cli.terminal import columns, complain, fitted, paint, plain, print_json
from obs.clock import NS, SYSTEM
from obs.config import Config, ProviderConfig
from obs.config.process import lock_path
from obs.config.venues import SYMBOLS
from obs.errors import EXIT_FOUND, EXIT_GOOD, EXIT_UNKNOWN, ConfigError, SchemaMismatch
from obs.market import universe as universes
from obs.market.pins import Pins, change_pins, pins_path, read_pins
from obs.record.events import iso_ms

HELP: Final = "show who has a slot and why; pin or exclude a symbol"
EXAMPLES: Final = """\
  obs slots
  obs slots --json --provider kis | jq -r '.slots[] | select(.trigger == "volume_surge") | .symbol'
  obs slots pin 005930                   # it has a slot from now on, whatever its score
  obs slots unpin 005930                 # it may stay, but by its score
  obs slots exclude 000660 --provider kis
  obs slots include 000660
  tail -f data/system/overflow/kis/*_overflow.jsonl | jq -c '[.rank, .symbol, .candidate_score, .decision_reason]'"""
EXITS: Final = {
    EXIT_GOOD: "shown, or changed",
    EXIT_FOUND: "there was nothing to take back",
    EXIT_UNKNOWN: "it does not run here: no slot is known, or only those of the last life",
}
_TAKEN_BACK: Final = {"unpin": "pinned", "include": "excluded"}
ACTIONS: Final = ("pin", "unpin", "exclude", "include")
_COLOUR: Final = {"confirmed": "good", "refused": "wrong", "failed": "wrong"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", metavar="pin|unpin|exclude|include", nargs="?", choices=ACTIONS, help="what to do with SYMBOL")
    parser.add_argument("symbol", metavar="SYMBOL", nargs="?", help="as records carry it")
    archive.add_filters(parser, symbol=False, date=False)


def run(args: argparse.Namespace, config: Config) -> int:
    """Show the slots; 0, or 4 if nothing is known of any. Or change the operator's file; 0, or 1 if nothing was to be taken back."""
    archive.require(config.data_dir)
    if args.action is None:
        return _show(config, args.provider, args.json)
    if args.symbol is None:
        raise ConfigError(f"{args.action} which SYMBOL?")
    return _act(args, config)


# --- the operator's say


def _act(args: argparse.Namespace, config: Config) -> int:
    back = _TAKEN_BACK.get(args.action)
    provider = _holder(config, args.provider, args.symbol, back) if back else _chosen(config, args.provider, args.symbol)
    if provider is None:
        complain("slots", f"{args.symbol} is not {back}{f' of {args.provider}' if args.provider else ''}")
        return EXIT_FOUND
    pins = change_pins(pins_path(config.data_dir, provider.name), lambda pins: change(pins, args.action, args.symbol))
    if args.json:
        print_json({"provider": provider.name, "pinned": pins.pinned, "excluded": pins.excluded})
        return EXIT_GOOD
    said = f"{provider.name}: pinned {', '.join(pins.pinned) or 'none'}; excluded {', '.join(pins.excluded) or 'none'}"
    print(said)
    known = universes.newest_before(config.data_dir, provider.market, 99_999_999) if args.action == "pin" else None
    if known is not None and args.symbol not in known.symbols:
        complain("slots", f"{args.symbol} is not in the universe of {known.day}: it gets its slot, but no sweep tells of it")
    if not _runs(config, provider.name):
        complain("slots", f"{provider.name} does not run here: obeyed from its next start on")
    return EXIT_GOOD


def change(pins: Pins, action: str, symbol: str) -> Pins:
    """Return `pins` after one action; a pin ends an exclusion and the other way round."""
    pinned = tuple(name for name in pins.pinned if name != symbol)
    excluded = tuple(name for name in pins.excluded if name != symbol)
    if action == "pin":
        return Pins((*pinned, symbol), excluded)
    if action == "exclude":
        return Pins(pinned, (*excluded, symbol))
    return Pins(pinned, pins.excluded) if action == "unpin" else Pins(pins.pinned, excluded)


def _holder(config: Config, name: str | None, symbol: str, back: str) -> ProviderConfig | None:
    """Return the provider in whose `pinned` or `excluded` a symbol stands, also one that selects nothing any more; None if in none."""
    from obs.monitor.slots import foreign

    suffix = pins_path(config.data_dir, "").name
    names = sorted(path.name.removesuffix(suffix) for path in (config.data_dir / "state").glob(f"*{suffix}"))
    if name is not None and name not in names:
        _section(config, name)
    found = [one for one in names if name in (None, one) and symbol in getattr(read_pins(pins_path(config.data_dir, one)), back)]
    if len(found) > 1:
        raise ConfigError(f"{symbol} is {back} of {', '.join(found)}: name one with --provider")
    return config.provider(found[0]) or foreign(config.data_dir, found[0]) if found else None


def _section(config: Config, name: str) -> ProviderConfig:
    if (found := config.provider(name)) is None:
        raise ConfigError(f"no section providers.{name}; there are: {_names(config.providers)}")
    return found


def _chosen(config: Config, name: str | None, symbol: str) -> ProviderConfig:
    """Return the provider that a symbol is meant for. Raises ConfigError where that is not plain, or where nothing selects."""
    candidates = config.planned() if name is None else (_section(config, name),)
    selecting = [one for one in candidates if one.selects]
    if not selecting:
        listed = f"; {_names(candidates)} list their symbols themselves" if candidates else ""
        raise ConfigError(f"no provider selects its symbols, so none can be pinned or excluded{listed}")
    fitting = [one for one in selecting if re.fullmatch(SYMBOLS[one.market][0], symbol)]
    if not fitting:
        allowed = " or ".join(dict.fromkeys(SYMBOLS[one.market][1] for one in selecting))
        raise ConfigError(f"symbol = {symbol!r}: {allowed}")
    if len(fitting) > 1:
        raise ConfigError(f"{symbol} may be of {_names(fitting)}: name one with --provider")
    return fitting[0]


def _runs(config: Config, provider: str) -> bool:
    """Tell whether a supervisor of this provider lives."""
    from obs.monitor.host import is_alive

    try:
        return is_alive(int(lock_path(config.data_dir, provider).read_text()))
    except (OSError, ValueError):
        return False


def _names(providers: Any) -> str:
    return ", ".join(one.name for one in providers) or "none"


# --- the slots


def _show(config: Config, name: str | None, as_json: bool) -> int:
    from obs.monitor.slots import read_board, slots_of, unconfigured

    archive.require_provider(config, name)
    providers = [one for one in (*config.planned(), *unconfigured(config)) if name in (None, one.name)]
    found = [one for provider in providers if (one := slots_of(config, provider, _complain))]
    if not found:
        waiting = [provider.name for provider in providers if read_board(config, provider.name) is not None]
        if waiting:
            complain("slots", f"no slot is wanted yet of {', '.join(waiting)}; `obs status` tells what it waits for")
        else:
            complain("slots", f"nothing is known of {name or 'any provider'}: it does not run here, and has not since the host started")
        return EXIT_UNKNOWN
    for one in found:
        one.update(_life(config, one["provider"]))
        if not one["running"]:
            for row in one["slots"]:
                row["standing"] = None  # nobody holds it: the board has outlived who wrote that
        if as_json:
            print_json(one)
        else:
            _print(one)
    return EXIT_GOOD if any(one["running"] for one in found) else EXIT_UNKNOWN


def _life(config: Config, provider: str) -> dict[str, Any]:
    """Return whether a provider runs, by its supervisor or its feed, and if not, since when it is stopped, None if nobody wrote that."""
    from obs.segment.sessions import read_sessions

    if _runs(config, provider) or _feeds(config, provider):
        return {"running": True, "stopped_ns": None}
    sessions = read_sessions(config.data_dir, provider)
    ended = bool(sessions) and sessions[-1].ended is not None and not sessions[-1].host_death
    return {"running": False, "stopped_ns": sessions[-1].ended_ns if ended else None}


def _feeds(config: Config, provider: str) -> bool:
    """Tell whether the feed of this provider lives, though its supervisor may not."""
    from obs.monitor.host import is_alive
    from obs.shm import Counters

    try:
        counters = Counters(Counters.path(config.ring.dir, config.data_dir, provider))
    except (OSError, ValueError, SchemaMismatch):
        return False
    try:
        return "feed" in counters.roles() and is_alive(int(counters.cell("feed")["pid"]))
    finally:
        counters.close()


def _complain(text: str) -> None:
    complain("slots", text)


def _print(one: dict[str, Any]) -> None:
    now = SYSTEM.wall_ns() if one["running"] else one["stopped_ns"]
    if one["running"]:
        confirmed = sum(row["standing"] == "confirmed" for row in one["slots"])
        room = "" if one["capacity"] is None else f" of {one['capacity']}"
        said = f"{len(one['slots'])}{room} slots, {confirmed} confirmed, mitigation level {one['level']}"
    else:
        since = f" since {iso_ms(now)[:19].replace('T', ' ')} UTC" if now else ""
        said = f"stopped{since}; these are the {len(one['slots'])} slots of its last life, none is held now"
    print(plain(f"{one['provider']} ({one['market']}): {said}"))
    head = ("slot", "symbol", "name", "since (UTC)", "held", "how", "score", "trigger", "standing")
    rows = [
        (
            row["slot"], row["symbol"], row["name"], row["since"] and row["since"][:19].replace("T", " "),
            row["since_ns"] and now and _span((now - row["since_ns"]) // NS),
            row["how"] + (" (pinned)" if row["symbol"] in one["pinned"] else ""),
            None if row["score"] is None else f"{row['score']:.3f}", row["trigger"], row["standing"],
        )
        for row in one["slots"]
    ]  # fmt: skip
    lines = fitted(head, rows, ("slot", "held", "score"), columns(), ("since (UTC)", "slot", "how", "name", "score", "trigger"))
    print(lines[0])
    for line, row in zip(lines[1:], one["slots"], strict=True):
        print(paint(line, _COLOUR.get(row["standing"] or "", "warning") if one["running"] else "faint"))
    for what in ("leaving", "pinned", "excluded"):
        if one[what]:
            print(plain(f"{what}: {', '.join(one[what])}"))


def _span(seconds: int) -> str:
    minutes, second = divmod(max(0, seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}"
