"""`obs universe`: who is watched at all on a day, in the order of traded value, and how many were not taken and why."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any, Final

from obs.cli import archive
from obs.cli.terminal import columns, complain, fitted, paint, plain, print_json
from obs.config import Config
from obs.errors import EXIT_FOUND, EXIT_GOOD, EXIT_UNKNOWN, ConfigError
from obs.market import universe as universes
from obs.market.universe import Universe
from obs.record.events import iso_ms

HELP: Final = "list the symbols that are watched on a day"
EXAMPLES: Final = """\
  obs universe --provider kis | head
  obs universe --date 20260122 --json | jq '.listed, .refused, (.symbols | length)'"""
EXITS: Final = {
    EXIT_GOOD: "listed",
    EXIT_FOUND: "one is older than its day, or does not read",
    EXIT_UNKNOWN: "there is none, or no such provider",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    archive.add_filters(parser, symbol=False)


def run(args: argparse.Namespace, config: Config) -> int:
    """Print each market's universe of the day, by default the newest; 1 if one is stale or does not read, 4 if there is none."""
    archive.require(config.data_dir)
    archive.require_provider(config, args.provider)
    found, unreadable = [], False
    for market in _markets(config, args.provider):
        try:
            one = _of(config.data_dir, market, args.date)
        except ConfigError as error:
            complain("universe", str(error))
            unreadable = True
            continue
        if one is not None:
            found.append(one)
    for one in found:
        if args.json:
            print_json(_document(one))
        else:
            _print(one)
    if not found and not unreadable:
        complain("universe", f"none {f'of {args.date}' if args.date else 'yet'} in {config.data_dir / 'universe'}")
        if hint := archive.other_dates(config, args.provider, args.date):
            complain("universe", hint)
        return EXIT_UNKNOWN
    return EXIT_FOUND if unreadable or any(one.stale_since is not None for one in found) else EXIT_GOOD


def _markets(config: Config, provider: str | None) -> list[str]:
    """Return the markets to show: of one provider, else all that have a universe."""
    if provider is not None:
        from obs.monitor.slots import foreign

        section = config.provider(provider) or foreign(config.data_dir, provider)
        return [section.market] if section.market else []
    return sorted(path.name for path in (config.data_dir / "universe").glob("*") if path.is_dir())


def _of(data_dir: Path, market: str, date: str | None) -> Universe | None:
    if date is not None:
        return universes.load(data_dir, market, int(date))
    folder = universes.path_of(data_dir, market, 0).parent
    days = [int(path.stem) for path in folder.glob("[0-9]*.json") if path.stem.isdigit()]
    return universes.load(data_dir, market, max(days)) if days else None


def _document(one: Universe) -> dict[str, Any]:
    """Return the keys of the universe's file."""
    return {
        "market": one.market, "day": one.day, "made_ns": one.made_ns, "stale_since": one.stale_since, "source": one.source,
        "listed": one.listed, "refused": one.refused,
        "symbols": [
            {"symbol": item.symbol, "name": item.name, "previous_close": _known(item.previous_close),
             "traded_value": _known(item.traded_value)}
            for item in one.instruments
        ],
    }  # fmt: skip


def _print(one: Universe) -> None:
    refused = ", ".join(f"{count} {reason}" for reason, count in sorted(one.refused.items(), key=lambda item: -item[1])) or "none"
    listed = f"{len(one.instruments)} of {one.listed} listed by {one.source}"
    print(plain(f"{one.market} {one.day}: {listed}, made {iso_ms(one.made_ns)}"))
    print(plain(f"not taken: {refused}"))
    if one.stale_since is not None:
        print(paint(f"STALE: this is the list of {one.stale_since}; that of {one.day} could not be built", "wrong"))
    head = ("rank", "symbol", "name", "previous close", "traded value")
    rows = [
        (rank, item.symbol, item.name, _figure(item.previous_close), _figure(item.traded_value))
        for rank, item in enumerate(one.instruments, 1)
    ]
    right = ("rank", "previous close", "traded value")
    print("\n".join(fitted(head, rows, right, columns(), ("previous close", "traded value", "name"))))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _figure(value: float) -> str | None:
    return None if math.isnan(value) else f"{value:,.10g}" if value < 1e6 else f"{value:,.0f}"
