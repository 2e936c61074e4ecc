"""`obs gaps`: what could not be recorded, and why: the gap lines of system/events, which holds those of all rings and sinks."""

from __future__ import annotations

import argparse
from typing import Any, Final

from obs.cli import archive
from obs.cli.glance import going_on
from obs.cli.running_monitor import ask
from obs.cli.terminal import columns, complain, fitted, paint, plain, print_json
from obs.config import Config
from obs.errors import EXIT_FOUND, EXIT_GOOD, EXIT_UNKNOWN
from obs.monitor.gaps import GapSum, gap_of, gaps_inside, read_gaps, sum_of

HELP: Final = "list what could not be recorded, and why; at the end how often, and how long together (what overlaps counts once)"
EXAMPLES: Final = """\
  obs gaps --date 20260122                    as many as `obs status` and the dashboard say on that day
  obs gaps --json --provider kis | jq -r 'select(.within | not) | .reason' | sort | uniq -c"""
EXITS: Final = {
    EXIT_GOOD: "listed; gaps are evidence, and no reason for another code",
    EXIT_FOUND: "a line does not read; stderr names the place",
    EXIT_UNKNOWN: "there is no such archive, no such provider, or nothing at all of that date",
}
_COLOUR: Final = {"brief": "faint", "minor": "warning", "major": "wrong", "critical": "wrong"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    archive.add_filters(parser)


def run(args: argparse.Namespace, config: Config) -> int:
    """Print each gap once. Gaps are evidence, so they are no reason for exit code 1; a line that does not read is. A day of
    which there is nothing has no gaps, and that is no all-clear: 4.
    """
    archive.require(config.data_dir)
    archive.require_provider(config, args.provider)
    unreadable: list[str] = []
    day = None if args.date is None else (args.date, archive.ends_of(config, args.date))
    gaps = list(read_gaps(config.data_dir, args.provider, args.symbol, unreadable, day))
    gaps.sort(key=lambda gap: str(gap["gap_start_ts"]))
    for text in unreadable:
        complain("gaps", text)
    hint = "" if gaps else archive.other_dates(config, args.provider, args.date)
    if hint:
        complain("gaps", hint)
    if gaps and args.symbol is not None and all(gap["symbol"] is None for gap in gaps):
        complain("gaps", f"no line names {args.symbol}: these are of all symbols")
    if args.json:
        within = _inside(gaps)
        for at, gap in enumerate(gaps):
            print_json(gap | {"within": at in within})
    else:
        if not hint:
            _show(gaps)
        _show_open(config, args.provider, args.date)
    return EXIT_FOUND if unreadable else EXIT_UNKNOWN if hint else EXIT_GOOD


def _by_provider(gaps: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Return provider -> the places of its gaps."""
    found: dict[str, list[int]] = {}
    for at, gap in enumerate(gaps):
        found.setdefault(gap["provider"], []).append(at)
    return found


def _inside(gaps: list[dict[str, Any]]) -> set[int]:
    return {places[at] for places in _by_provider(gaps).values() for at in gaps_inside([gap_of(gaps[place]) for place in places])}


def _show(gaps: list[dict[str, Any]]) -> None:
    head = ("from (UTC)", "seconds", "provider", "scope", "reason", "symbol", "lost", "by", "severity")
    within = _inside(gaps)
    rows = [
        (
            gap["gap_start_ts"], f"{gap['gap_seconds']:.1f}", gap["provider"], gap["scope"], gap["reason"], gap["symbol"] or "all",
            gap["lost"], gap["sink"] or "before the rings", f"{gap['severity']} (inside)" if at in within else gap["severity"],
        )
        for at, gap in enumerate(gaps)
    ]  # fmt: skip
    lines = fitted(head, rows, ("seconds", "lost"), columns(), ("scope", "by", "lost", "provider", "severity"))
    print(lines[0] if rows else "no gaps")
    for line, gap in zip(lines[1:], gaps, strict=True):
        print(paint(line, _COLOUR.get(gap["severity"], "wrong")))
    for provider, places in sorted(_by_provider(gaps).items()):
        print(plain(f"{provider}: {told(sum_of([gap_of(gaps[place]) for place in places]))}"))


def _show_open(config: Config, provider: str | None, date: str | None) -> None:
    """Tell the losses that go on, which are no lines yet, if a monitor runs that sees them, and `date` is no other day."""
    answer = ask(config)
    for name, losses in sorted(answer.losing.items()) if answer is not None else ():
        for loss in losses if provider in (None, name) and (date is None or archive.is_today(config, name, date)) else ():
            print(paint(plain(f"{name}: {going_on(loss)}; a gap when it has ended"), "warning"))


def told(gaps: GapSum) -> str:
    """Return a sum in words: how many, how long together, and of whom."""
    text = _number(gaps.number, "gap") + (f" ({gaps.inside:,} more inside)" if gaps.inside else "")
    if gaps.number > gaps.sweeps:
        alone = f"of {_number(gaps.symbols, 'symbol')} alone"
        whom = "of all symbols" if not gaps.symbols else alone
        if gaps.symbols and gaps.of_all_s:
            whom = f"{gaps.of_all_s:.1f} s of it of all symbols, the rest {alone}"
        text += f": {gaps.seconds:.1f} s together, {whom}"
    return text + (f"; {gaps.sweeps:,} of sweeps: {gaps.sweeps_s:.1f} s" if gaps.sweeps else "")


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
