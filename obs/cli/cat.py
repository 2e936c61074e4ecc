"""`obs cat`: the lines of the archive, as they are, to stdout."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from obs.cli import archive
from obs.cli.progress import goes_to_file, through
from obs.cli.terminal import complain
from obs.config import Config
from obs.errors import EXIT_FOUND, EXIT_GOOD, EXIT_UNKNOWN

HELP: Final = "print recorded lines as JSONL"
EXAMPLES: Final = """\
  obs cat --provider kis --date 20260122 --symbol 005930 | jq .last_price
  obs cat data/scalp/kis/kr_stocks/20260122/09_30_00.jsonl.zst"""
EXITS: Final = {
    EXIT_GOOD: "every line was printed",
    EXIT_FOUND: "something did not read; stderr names the place",
    EXIT_UNKNOWN: "there is no such archive, or nothing at all of that date",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    archive.add_filters(parser)
    parser.add_argument("--dataset", choices=("scalp", "swing"), default="scalp", help="which records, without PATH (default: scalp)")
    parser.add_argument("paths", metavar="PATH", nargs="*", help="segments, open or sealed, .jsonl files, or folders of them")


def run(args: argparse.Namespace, config: Config) -> int:
    """Print every line that reads; say on stderr what does not, and return 1 then; 4 of a day of which there is nothing."""
    if args.paths:
        files = archive.named_files(args.paths)
    else:
        archive.require(config.data_dir, args.provider)
        files = archive.archive_files(config.data_dir, args.provider, args.date, (args.dataset,))
    damaged = read = printed = 0
    with through("cat", files, wanted=goes_to_file()) as shown:
        for path in shown:
            read += 1
            for block in _blocks(path, args.symbol):
                if isinstance(block, str):
                    damaged += 1
                    complain("cat", f"{path}: {block}")
                else:
                    printed += sys.stdout.buffer.write(block)
    if not read and not args.paths and (hint := archive.other_dates(config, args.provider, args.date)):
        complain("cat", hint)
        return EXIT_UNKNOWN
    if args.symbol is not None and not printed and not damaged:
        complain("cat", f"nothing was recorded of {args.symbol}; files read: {read}")
    return EXIT_FOUND if damaged else EXIT_GOOD


def _blocks(path: Path, symbol: str | None) -> Iterator[bytes | str]:
    """Yield the lines of a file in blocks, and as text what could not be read of it."""
    from obs.segment.format import OPEN_SUFFIX, Damage
    from obs.segment.reader import frames

    found = archive.present(path)
    if found is None:
        yield "has gone while it was to be read"
        return
    if archive.is_text(found):
        lines, _ = archive.text_lines(found)
        yield _join(lines, symbol)
        return
    for piece in frames(found):
        if isinstance(piece, Damage):
            if not (piece.torn and found.name.endswith(OPEN_SUFFIX)):
                yield f"{piece.end - piece.offset} bytes at offset {piece.offset} do not read: {piece.reason}"
        else:
            yield _join(piece.lines, symbol)


def _join(lines: list[bytes], symbol: str | None) -> bytes:
    kept = lines if symbol is None else [line for line in lines if archive.about(line, symbol)]
    return b"\n".join(kept) + b"\n" if kept else b""
