"""`obs days`: which days were out of the ordinary, and why; a person may add one, and take back what a person has added.

The log of marks is read and written itself, so it works whether or not anything runs; what runs follows within seconds.
"""

from __future__ import annotations

import argparse
from typing import Any, Final

from obs.cli import archive
from obs.cli.terminal import complain, print_json, table
from obs.clock import SYSTEM
from obs.config import Config
from obs.errors import EXIT_FOUND, EXIT_GOOD, EXIT_UNKNOWN, ConfigError
from obs.lifecycle.days import BY_HAND
from obs.lifecycle.marks import MARKED, UNMARKED, Mark, append, marked, path_of

HELP: Final = "list the anomaly days, mark one by hand, or take such a mark back"
EXAMPLES: Final = """\
  obs days
  obs days --json --date 20260122
  obs days mark 20260122 --reason "power cut at the office"
  obs days unmark 20260122 --provider kis"""
EXITS: Final = {
    EXIT_GOOD: "listed, marked or unmarked",
    EXIT_FOUND: "there was nothing to take back, or it was marked by hand before",
    EXIT_UNKNOWN: "there is no such archive, or no such provider",
}
_ACTIONS: Final = ("list", "mark", "unmark")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=_ACTIONS, default="list", help="what to do (default: list)")
    parser.add_argument("day", nargs="?", metavar="DATE", type=archive.day, help="the day to mark or unmark: YYYYMMDD")
    parser.add_argument("--reason", metavar="TEXT", help="why it is marked; kept with the mark")
    archive.add_filters(parser, symbol=False)


def run(args: argparse.Namespace, config: Config) -> int:
    """List, mark or unmark. Exit code 1: there was nothing to take back, or it was marked by hand before."""
    if args.action == "list":
        return _list(args, config)
    if args.day is None:
        raise ConfigError(f"obs days {args.action} needs a date: obs days {args.action} 20260122")
    if args.action == "mark" and not (args.reason or "").strip():
        raise ConfigError("a mark needs its reason: obs days mark DATE --reason TEXT")
    markets = {provider.name: provider.market for provider in config.planned() if args.provider in (None, provider.name)}
    if not markets:
        raise ConfigError(f"no such provider is configured: {args.provider!r}" if args.provider else "no provider is configured")
    what = MARKED if args.action == "mark" else UNMARKED
    detail = {"text": args.reason.strip()} if args.reason else {}
    changed = 0
    for name, market in markets.items():
        mark = Mark(name, market, int(args.day), BY_HAND, detail, "hand", SYSTEM.wall_ns())
        if append(path_of(config.data_dir, name), what, mark):
            changed += 1
            if args.json:
                print_json({"what": what, **_shown(mark)})
            else:
                print(f"{name} {args.day}: {what}")
        else:
            complain("days", f"{name} {args.day}: {'is marked by hand already' if what == MARKED else 'nobody has marked it by hand'}")
    return EXIT_GOOD if changed == len(markets) else EXIT_FOUND


def _list(args: argparse.Namespace, config: Config) -> int:
    archive.require(config.data_dir)
    archive.require_provider(config, args.provider)
    marks: list[Mark] = []
    for path in sorted((config.data_dir / "system" / "days").glob("*.jsonl")):
        if args.provider in (None, path.stem):
            marks += marked(path).values()
    wanted = int(args.date or args.day or 0)
    marks = sorted((mark for mark in marks if wanted in (0, mark.day)), key=lambda mark: (mark.day, mark.provider, mark.ts_ns))
    if args.json:
        for mark in marks:
            print_json(_shown(mark))
        return EXIT_GOOD
    rows = [(str(mark.day), mark.provider, mark.market, mark.reason, _detail(mark.detail)) for mark in marks]
    lines = table(("day", "provider", "market", "reason", "what"), rows)
    for line in lines if rows else ["no anomaly days"]:
        print(line)
    return EXIT_GOOD


def _shown(mark: Mark) -> dict[str, Any]:
    return {
        "provider": mark.provider, "market": mark.market, "day": str(mark.day), "reason": mark.reason, "detail": mark.detail,
        "by": mark.by, "ts_ns": mark.ts_ns,
    }  # fmt: skip


def _detail(detail: dict[str, Any]) -> str:
    return str(detail["text"]) if set(detail) == {"text"} else ", ".join(f"{name} {value}" for name, value in detail.items())
