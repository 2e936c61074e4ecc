"""`obs gaps`: what could not be recorded, and why: the gap lines of system/events, which holds those of all rings and sinks."""

from __future__ import annotations

import argparse
from typing import Any, Final

from obs.cli import archive
from obs.cli.terminal import columns, complain, fitted, paint, print_json
from obs.config import Config
from obs.errors import EXIT_FOUND, EXIT_GOOD, EXIT_UNKNOWN
from obs.monitor.gaps import inside, read_gaps

HELP: Final = "list what could not be recorded, and why"
EXAMPLES: Final = """\
  obs gaps --date 20260122
  obs gaps --json --provider kis | jq -r .reason | sort | uniq -c"""
EXITS: Final = {
    EXIT_GOOD: "listed; gaps are evidence, and no reason for another code",
    EXIT_FOUND: "a line does not read; stderr names the place",
    EXIT_UNKNOWN: "there is no such archive, or no such provider",
}
_COLOUR: Final = {"brief": "faint", "minor": "warning", "major": "wrong", "critical": "wrong"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    archive.add_filters(parser)


def run(args: argparse.Namespace, config: Config) -> int:
    """Print each gap once. Gaps are evidence, so they are no reason for exit code 1; a line that does not read is."""
    archive.require(config.data_dir)
    archive.require_provider(config, args.provider)
    unreadable: list[str] = []
    gaps = list(read_gaps(config.data_dir, args.provider, args.date, args.symbol, unreadable))
    gaps.sort(key=lambda gap: str(gap["gap_start_ts"]))
    for text in unreadable:
        complain("gaps", text)
    if args.json:
        for gap in gaps:
            print_json(gap)
    else:
        _show(gaps)
    return EXIT_FOUND if unreadable else EXIT_GOOD


def _show(gaps: list[dict[str, Any]]) -> None:
    head = ("from (UTC)", "seconds", "provider", "scope", "reason", "symbol", "lost", "by", "severity")
    within = inside([(gap["provider"], gap["symbol"], str(gap["gap_start_ts"]), str(gap["gap_end_ts"])) for gap in gaps])
    within |= {at for at, gap in enumerate(gaps) if gap.get("inside") is not None}  # it says so itself
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
    if rows:
        print(f"{len(rows)} gaps, {sum(gap['gap_seconds'] for gap in gaps):.1f} s in all")
