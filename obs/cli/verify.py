"""`obs verify`: read whole files, every frame with its checksum, and name the exact place of what does not read."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from obs.cli import archive
from obs.cli.progress import through
from obs.cli.terminal import paint, plain, print_json
from obs.config import Config
from obs.errors import EXIT_FOUND, EXIT_GOOD, EXIT_UNKNOWN
from obs.segment.format import MANIFEST, RINGS
from obs.segment.manifest import read_manifest
from obs.segment.reader import verify

HELP: Final = "check recorded files byte by byte"
EXAMPLES: Final = """\
  obs verify                                  the whole archive
  obs verify data/scalp/kis data/system/events
  obs verify --json PATH | jq '.files[] | select(.ok | not)'"""
EXITS: Final = {
    EXIT_GOOD: "every file is whole",
    EXIT_FOUND: "damage, a hole, another hash, or files and manifest differ",
    EXIT_UNKNOWN: "there is no such archive",
}
_SEALING_S: Final = 1.0  # a file has its sealed name this long before its manifest line, at most
_SHOWN: Final = 20  # files that are all listed, good ones too


@dataclass(frozen=True)
class Finding:
    """What one file amounts to; `problems` are texts, each with its place."""

    path: Path
    facts: dict[str, Any]
    problems: list[str]

    @property
    def ok(self) -> bool:
        return not self.problems


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="*", help="segments, .jsonl files, or folders of them (default: the archive)")


def run(args: argparse.Namespace, config: Config) -> int:
    """Judge every file; return 1 if any has damage, a hole or another hash, or if files and manifests of a folder differ."""
    if args.paths:
        files = list(archive.named_files(args.paths))
        folders = [folder for text in args.paths if (folder := Path(text)).is_dir()]
    else:
        archive.require(config.data_dir)
        files = list(archive.archive_files(config.data_dir, None, None))
        folders = [config.data_dir / dataset for dataset in RINGS]
        events = config.data_dir / "system" / "events"
        files += archive.named_files([str(events)]) if events.is_dir() else []
    with through("verify", files) as shown:
        found = [finding for path in shown if (finding := judge(path)) is not None]
    _name_unlisted(found, folders)
    found += _gone(folders)
    totals = {
        "files": len(found),
        "wrong": sum(not finding.ok for finding in found),
        "records": sum(finding.facts["records"] for finding in found),
        "gap_lines": sum(finding.facts["gap_lines"] for finding in found),
        "bytes": sum(finding.facts["bytes"] for finding in found),
    }
    if args.json:
        rows = [{"path": str(item.path), "ok": item.ok, **item.facts, "problems": item.problems} for item in found]
        print_json({"ok": not totals["wrong"], "totals": totals, "files": rows})
    else:
        _show(found, totals)
    return EXIT_FOUND if totals["wrong"] else EXIT_GOOD


def judge(path: Path) -> Finding | None:
    """Read one file; None if it has gone, as a file does that is being sealed or removed."""
    for _ in range(3):
        now = archive.present(path)
        if now is None:
            return None
        try:
            return _judge_text(now) if archive.is_text(now) else _judge_segment(now)
        except FileNotFoundError:  # sealed between the look and the reading
            continue
    return None


def _name_unlisted(found: list[Finding], folders: list[Path]) -> None:
    """Add a problem to sealed files in these folders that have no manifest line. One that was just sealed gets it in a moment."""

    def unlisted() -> list[Finding]:
        missing = (one for one in found if one.facts.get("sealed") and one.facts["manifest"] == "missing")
        inside = (one for one in missing if any(folder in one.path.parents for folder in folders))
        return [one for one in inside if one.path.name not in read_manifest(one.path.parent) and one.path.exists()]

    if unlisted():
        time.sleep(_SEALING_S)
        for one in unlisted():
            one.problems.append("a sealed file without a line in manifest.jsonl")


def _gone(folders: list[Path]) -> Iterator[Finding]:
    """Yield the files that manifests in these folders name and that are not there."""
    for manifest in sorted({path for folder in folders for path in folder.rglob(MANIFEST)}):
        for name in read_manifest(manifest.parent):
            path = manifest.with_name(name)
            if not path.exists():
                facts = {"kind": "missing", "bytes": 0, "records": 0, "gap_lines": 0, "torn_bytes": 0, "damages": []}
                yield Finding(path, facts, ["manifest.jsonl names it, but there is no such file"])


def _judge_segment(path: Path) -> Finding:
    verdict = verify(path)
    problems = [f"offset {piece.offset}, {piece.end - piece.offset} bytes: {piece.reason}" for piece in verdict.damages]
    problems += [f"sequences {first} to {last} are neither recorded nor in a gap line" for first, last in verdict.holes]
    if verdict.manifest == "differs":
        problems.append("the sha256 differs from that in manifest.jsonl")
    facts = {
        "kind": "segment", "sealed": verdict.sealed, "bytes": verdict.bytes, "frames": verdict.frames, "records": verdict.records,
        "gap_lines": verdict.gap_lines, "session_id": verdict.session_id, "first_seq": verdict.first_seq,
        "last_seq": verdict.last_seq, "torn_bytes": verdict.torn_bytes, "manifest": verdict.manifest,
        "damages": [{"offset": item.offset, "bytes": item.end - item.offset, "reason": item.reason} for item in verdict.damages],
        "holes": [list(hole) for hole in verdict.holes],
    }  # fmt: skip
    return Finding(path, facts, problems)


def _judge_text(path: Path) -> Finding:
    lines, rest = archive.text_lines(path)
    problems, offset, damages = [], 0, []
    gap_lines = 0
    for number, line in enumerate(lines, 1):
        try:
            gap_lines += orjson.loads(line).get("event_type") == "gap_marker"
        except (ValueError, AttributeError) as error:
            problems.append(f"line {number} at offset {offset}: {error}")
            damages.append({"offset": offset, "bytes": len(line) + 1, "reason": "not a JSON object"})
        offset += len(line) + 1
    records = len(lines) - len(problems) - gap_lines
    facts = {
        "kind": "text", "bytes": offset + len(rest), "records": records, "gap_lines": gap_lines, "torn_bytes": len(rest),
        "damages": damages,
    }  # fmt: skip
    return Finding(path, facts, problems)


def _show(found: list[Finding], totals: dict[str, int]) -> None:
    for finding in found:
        if finding.problems:
            print(f"{paint('WRONG', 'wrong')}  {plain(str(finding.path))}")
            for problem in finding.problems:
                print(f"       {plain(problem)}")
        elif len(found) <= _SHOWN:
            facts = finding.facts
            rest = f", {facts['torn_bytes']} bytes behind the last whole frame (not archived yet)" if facts["torn_bytes"] else ""
            print(f"{paint('good', 'good')}   {plain(str(finding.path))}: {facts['records']} records, {facts['gap_lines']} gap lines{rest}")
    counts = f"{totals['files']} files, {totals['records']} records, {totals['gap_lines']} gap lines, {totals['bytes']} bytes"
    print(f"{counts}: {paint(str(totals['wrong']) + ' wrong', 'wrong') if totals['wrong'] else paint('all good', 'good')}")
