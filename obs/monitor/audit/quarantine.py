"""Reads the files of data/quarantine/<provider>: what could not be decoded, and the rows that the database refused.

A line of a quarantine file accounts for its chunks, first_seq to last_seq; a counted row (over the day's budget) for those of
many messages, whose minutes are known only as a span: from the line before it to its own time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from obs.clock import minute_of
from obs.monitor.audit.scope import Scope
from obs.monitor.audit.spans import Runs
from obs.segment.quarantine import FULL
from obs.segment.textlog import day_files, text_lines

_REJECTED: Final = "_rejected.jsonl"


@dataclass
class Quarantined:
    """Of one session. `whole`: messages with nothing readable, by minute; `counted`: (from minute, to minute, messages)."""

    runs: Runs = field(default_factory=Runs)
    whole: Counter[int] = field(default_factory=Counter)
    counted: list[tuple[int, int, int]] = field(default_factory=list)


@dataclass
class QuarantineBook:
    sessions: dict[str, Quarantined] = field(default_factory=dict)
    rejected: set[tuple[str, str, int]] = field(default_factory=set)  # (session, ring, seq)
    unreadable: list[tuple[str, int, str]] = field(default_factory=list)
    judged: dict[str, tuple[int, int]] = field(default_factory=dict)  # session -> first and last seq in judged files


def read_quarantine(scope: Scope) -> QuarantineBook:
    book = QuarantineBook()
    lines: dict[str, list[dict[str, Any]]] = {}
    for path in day_files(scope.quarantine):
        judged = scope.holds_file(path.name)
        for end, line in text_lines(path):
            try:
                value = orjson.loads(line)
                session, first, last = value["session_id"], int(value["first_seq"]), int(value["last_seq"])
                kept = {
                    "first": first, "last": last, "ts_ns": int(value["ts_ns"]),
                    "counted": value["reason"] == FULL and "messages" in value,
                    "whole": int(value["whole_messages"] if "whole_messages" in value else value["whole"]),
                }  # fmt: skip
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
                book.unreadable.append((path.name, end, repr(error)))
                continue
            lines.setdefault(session, []).append(kept)
            if judged:
                low, high = book.judged.get(session, (first, last))
                book.judged[session] = (min(low, first), max(high, last))
    for session, kept_lines in lines.items():
        book.sessions[session] = _session(kept_lines)
    _read_rejected(scope, book)
    return book


def _session(lines: list[dict[str, Any]]) -> Quarantined:
    found = Quarantined()
    before_ns = 0
    for line in sorted(lines, key=lambda line: int(line["first"])):
        found.runs.add(line["first"], line["last"])
        minute = minute_of(line["ts_ns"])
        if line["counted"]:
            found.counted.append((minute_of(before_ns) if before_ns else 0, minute, line["whole"]))
        else:
            found.whole[minute] += line["whole"]
        before_ns = line["ts_ns"]
    return found


def _read_rejected(scope: Scope, book: QuarantineBook) -> None:
    """Duplicates are allowed here: a row is kept before the transaction that says so."""
    if not scope.quarantine.is_dir():
        return
    for path in sorted(scope.quarantine.glob(f"*{_REJECTED}")):
        for end, line in text_lines(path):
            try:
                value = orjson.loads(line)
                book.rejected.add((value["session_id"], value.get("ring", "tick"), int(value["seq"])))
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
                book.unreadable.append((path.name, end, repr(error)))
