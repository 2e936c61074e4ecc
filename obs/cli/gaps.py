"""`obs gaps`: what could not be recorded, and why: the gap lines of system/events, which holds those of all rings and sinks."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson

from obs.cli import archive
from obs.cli.terminal import complain, paint, print_json, table
from obs.config import Config
from obs.errors import EXIT_FOUND, EXIT_GOOD
from obs.record.events import gap_key

HELP: Final = "list what could not be recorded, and why"
EXAMPLES: Final = """\
  obs gaps --date 20260122
  obs gaps --json --provider kis | jq -r .reason | sort | uniq -c"""
_COLOUR: Final = {"brief": "faint", "minor": "warning", "major": "wrong", "critical": "wrong"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    archive.add_filters(parser)


def run(args: argparse.Namespace, config: Config) -> int:
    """Print each gap once. Gaps are evidence, so they are no reason for exit code 1; a line that does not read is."""
    archive.require(config.data_dir)
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


def read_gaps(
    data_dir: Path, provider: str | None, date: str | None, symbol: str | None, unreadable: list[str]
) -> Iterator[dict[str, Any]]:
    """Yield the gap lines of the event files, each key once, in file order; put into `unreadable` what does not read."""
    seen: set[tuple[Any, ...]] = set()
    for path in sorted((data_dir / "system" / "events").glob("*/*.jsonl")):
        if provider not in (None, path.parent.name) or date not in (None, path.stem):
            continue
        lines, _ = archive.text_lines(path)
        for number, line in enumerate(lines, 1):
            if not archive.is_gap_line(line) or not archive.about(line, symbol):
                continue
            try:
                gap = orjson.loads(line)
                key = gap_key(gap)
            except (ValueError, KeyError) as error:
                unreadable.append(f"{path}:{number}: {error!r}")
                continue
            if key not in seen:
                seen.add(key)
                yield gap


def _inside(gaps: list[dict[str, Any]]) -> set[int]:
    """Return the places of gaps whose time lies within another gap of the same provider, of the same symbol or of all."""
    ends: dict[tuple[str, str | None], str] = {}
    found = set()
    longest_first = sorted(range(len(gaps)), key=lambda at: str(gaps[at]["gap_end_ts"]), reverse=True)
    for at in sorted(longest_first, key=lambda at: str(gaps[at]["gap_start_ts"])):
        provider, symbol, end = gaps[at]["provider"], gaps[at]["symbol"], str(gaps[at]["gap_end_ts"])
        if end <= max(ends.get((provider, None), ""), ends.get((provider, symbol), "")):
            found.add(at)
        ends[provider, symbol] = max(ends.get((provider, symbol), ""), end)
    return found


def _show(gaps: list[dict[str, Any]]) -> None:
    head = ("from (UTC)", "seconds", "provider", "scope", "reason", "symbol", "lost", "by", "severity")
    inside = _inside(gaps)
    rows = [
        (
            gap["gap_start_ts"], f"{gap['gap_seconds']:.1f}", gap["provider"], gap["scope"], gap["reason"], gap["symbol"] or "all",
            gap["lost"], gap["sink"] or "before the rings", f"{gap['severity']} (inside)" if at in inside else gap["severity"],
        )
        for at, gap in enumerate(gaps)
    ]  # fmt: skip
    lines = table(head, rows, right=("seconds", "lost"))
    print(lines[0] if rows else "no gaps")
    for line, gap in zip(lines[1:], gaps, strict=True):
        print(paint(line, _COLOUR.get(gap["severity"], "wrong")))
    if rows:
        print(f"{len(rows)} gaps, {sum(gap['gap_seconds'] for gap in gaps):.1f} s in all")
