"""Gap lines against gap rows; what restart gaps and quarantine lines say against what the counts say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from obs.clock import MINUTE_NS, minute_of
from obs.monitor.audit.counts import Counted
from obs.monitor.audit.database import Stored
from obs.monitor.audit.events import Book, Gap
from obs.monitor.audit.findings import Findings
from obs.monitor.audit.quarantine import Quarantined
from obs.monitor.audit.scope import Scope
from obs.record.events import gap_key

_COMPARED: Final = (
    "reason", "scope", "symbol", "ring", "sink", "first_seq", "last_seq", "lost", "severity", "gap_start_ns", "gap_end_ns",
    "event_ring", "event_seq", "session_id",
)  # fmt: skip
_SPANNED: Final = 3000  # minutes of a counted row that are looked at one by one


def judge_gap_rows(book: Book, stored: Stored, scope: Scope, runs: bool, findings: Findings) -> int:
    """Prove that each gap line is one row and each row a line; return how many lines are not copied yet.

    Rows of sink "database" have no line; they are judged with the ring. `runs`: a loader may still be copying.
    """
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in stored.gaps:
        if row["sink"] != "database" and scope.holds(row["gap_end_ns"] or 1):
            key = gap_key(row)
            if key in rows:
                _wrong(findings, scope, row, 1, 2, "one gap marker is two rows")
            rows[key] = row
    waiting = 0
    for key, gap in book.gaps.items():
        if not scope.holds_file(gap.file):
            rows.pop(key, None)
            continue
        row_of = rows.pop(key, None)
        if row_of is None:
            if (gap.file, gap.end) > (stored.gaps_file, stored.gaps_offset):
                waiting += 1
            else:
                _wrong(findings, scope, gap.line, 1, 0, "a gap marker that is no row of scalp_gaps")
            continue
        for name in _COMPARED:
            if row_of[name] != gap.line.get(name):
                _wrong(findings, scope, gap.line, gap.line.get(name), row_of[name], f"{name} of a gap row differs from its line")
    for row in rows.values():
        _wrong(findings, scope, row, 0, 1, "a row of scalp_gaps without a gap marker in system/events")
    if waiting and not runs:
        findings.unknown.append(f"{scope.provider}: {waiting} gap markers are not in the database yet")
    return waiting


def _wrong(findings: Findings, scope: Scope, gap: dict[str, Any], expected: Any, found: Any, what: str) -> None:
    minute = minute_of(gap["gap_start_ns"]) if gap.get("gap_start_ns") else None
    place = {name: gap.get(name) for name in ("session_id", "ring", "sink", "first_seq", "event_ring", "event_seq", "reason")}
    findings.mismatch(scope.provider, "gap_rows", expected, found, minute_ns=minute, symbol=gap.get("symbol"), what=what, **place)


def judge_restarts(book: Book, counted: Counted, order: dict[int, int], newest_runs: bool, scope: Scope, findings: Findings) -> int:
    """Prove that what restart gaps say was lost is what the counts of dead feeds say; return the inputs lost.

    Gaps with the same start are one, the longest. A feed that died before it could publish its gap left it to the next, which
    may be in a later session: what one session owes, a later gap may pay.
    """
    longest: dict[int, Gap] = {}
    for gap in book.gaps.values():
        if gap.reason == "restart" and gap.sink is None:
            known = longest.get(gap.gap_start_ns)
            if known is None or (gap.gap_end_ns, gap.lost or 0) > (known.gap_end_ns, known.lost or 0):
                longest[gap.gap_start_ns] = gap
    told: Counter[int] = Counter()
    uncertain = False
    for gap in longest.values():
        uncertain |= gap.lost is None
        told[order.get(book.place(gap.of_session or gap.session_id), len(order))] += gap.lost or 0
    counted_lost: Counter[int] = Counter()
    names: dict[int, str] = {}
    everything = counted.every_symbol
    for of in np.unique(everything["of"]).tolist():
        mine = everything[everything["of"] == of]
        counted_lost[order[of]] = int(mine["lost_trades"].sum() + mine["lost_quotes"].sum())
        names[order[of]] = counted.name(of)
    owed = 0
    ranks = sorted({*told, *counted_lost})
    for rank in ranks:
        owed += counted_lost[rank] - told[rank]
        if owed < 0:
            _restart_wrong(findings, scope, counted_lost[rank], told[rank], names.get(rank), book, uncertain)
            owed = 0
    if owed and not newest_runs:
        last = ranks[-1]
        _restart_wrong(findings, scope, sum(counted_lost.values()), sum(told.values()), names.get(last), book, uncertain)
    return sum(gap.lost or 0 for gap in longest.values())


def _restart_wrong(
    findings: Findings, scope: Scope, expected: int, found: int, session_id: str | None, book: Book, uncertain: bool
) -> None:
    lost_events = any(gap.sink == "archive" and gap.ring == "event" for gap in book.gaps.values())
    if uncertain or lost_events:
        findings.cannot_prove(scope.provider, "lost", "restart gaps or counts lie in a gap of the event ring", session_id=session_id)
    else:
        what = "lost of restart gaps, and lost_trades + lost_quotes of the counts"
        findings.mismatch(scope.provider, "lost", expected, found, session_id=session_id, what=what)


def judge_quarantined(
    session_id: str, of: int, kept: Quarantined, gaps: Iterable[Gap], counted: Counted, ended: bool, scope: Scope, findings: Findings
) -> None:
    """Prove, by minute, that each message counted as quarantined is a line, a part of a counted row, or lost with a feed.

    Minutes that a counted row may speak of are added up; those in which chunks were lapped are unproven.
    """
    buckets = counted.buckets[counted.buckets["of"] == of]
    expected: Counter[int] = Counter()
    for bucket in buckets:
        expected[int(bucket["minute"])] += int(bucket["quarantined"] - bucket["lost_quarantined"])
    blind = [(minute_of(gap.gap_start_ns), minute_of(gap.gap_end_ns)) for gap in gaps]
    last = max(expected, default=-1)
    for group, messages in _groups(set(expected) | {minute for minute in kept.whole if _judged(scope, minute)}, kept):
        found = sum(kept.whole[minute] for minute in group) + messages
        wanted = sum(expected[minute] for minute in group)
        if found == wanted:
            continue
        minute = min(group)
        without = [one for one in range(minute, max(group) + 1, MINUTE_NS)[:_SPANNED] if one not in expected]
        if not (_judged(scope, minute) and _judged(scope, max(group))):
            continue  # a counted row that reaches into another day
        if any(first <= max(group) and minute <= end for first, end in blind):
            why = "chunks of this minute were lapped"
            findings.cannot_prove(scope.provider, "quarantined", why, minute_ns=minute, session_id=session_id)
        elif any(counted.why_missing(of, one) for one in without) or (not ended and max(group) > last):
            continue  # its counts are missing, which is told elsewhere, or not published yet
        else:
            findings.mismatch(
                scope.provider, "quarantined", wanted, found, minute_ns=minute, session_id=session_id,
                what="messages counted as quarantined (without those a dead feed lost), and those in quarantine files",
            )  # fmt: skip


def _judged(scope: Scope, minute: int) -> bool:
    return bool(scope.holds_minutes(np.array([minute], np.int64))[0])


def _groups(minutes: set[int], kept: Quarantined) -> list[tuple[list[int], int]]:
    """Join the minutes that a counted row spans; return each group with the messages of its counted rows."""
    groups: list[tuple[set[int], int]] = []
    for first, last, messages in kept.counted:
        mine = {minute for minute in minutes if first <= minute <= last} | {last}
        number = messages
        for group, more in [one for one in groups if one[0] & mine]:
            groups.remove((group, more))
            mine |= group
            number += more
        groups.append((mine, number))
    spanned = {minute for group, _ in groups for minute in group}
    return [(sorted(group), number) for group, number in groups] + [([minute], 0) for minute in sorted(minutes - spanned)]
