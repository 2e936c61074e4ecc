"""What a feed takes over from the feed before it: the counts that one never published, and the gap it left.

Read from the intake cell, which outlives every process, and from the rings the dead feed published to; where the host has been started
anew, from the file of the sessions. A feed that was stopped in order owes no counts, but its gap all the same. Nothing here is
changed by doing it twice: a feed that dies in the middle of its takeover leaves it to the next, which repeats the same
events under the same names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import orjson

from obs.errors import SchemaMismatch
from obs.ledger import Snapshot, counts_payloads
from obs.ledger import read as read_intake
from obs.record.events import provider_of
from obs.record.jsonl import decode_ticks
from obs.record.schema import CHUNK, TICK
from obs.ring import Ring, attach_ring, copy_rows
from obs.roles.losses import RestartGap
from obs.roles.recorder import Recorder
from obs.segment.cursor import SegmentCursor
from obs.segment.format import Series
from obs.segment.sessions import read_sessions
from obs.segment.textlog import day_files, text_lines
from obs.shm import block_path

_READ_ROWS: Final = 10_000

OpenSpans = Callable[[int, int], list[tuple[int, int]]]


class Debt(NamedTuple):
    """What a dead feed owes. `lost_trades`, `lost_quotes`: (rows,), inputs it counted that no record holds."""

    snapshot: Snapshot
    tick_seq: int
    lost_trades: np.ndarray
    lost_quotes: np.ndarray
    lost_quarantined: int
    restart: RestartGap


def take_over(recorder: Recorder, ring_dir: Path, data_dir: Path, open_spans: OpenSpans) -> Debt | None:
    """Publish what a dead feed counted and never told, and begin; return what it owed.

    The gap that it left is told with the recorder's first record. Order: the counts first. Should we die before `begin`, the
    next feed finds the intake of the dead one and tells the same again. `open_spans` returns the parts of a span (UTC ns, start and end)
    in which the venue was open.
    """
    dead, now_ns = read_intake(recorder.board["intake"]), recorder.clock.wall_ns()
    debt = debt_of(dead, ring_dir, data_dir, now_ns)
    restart = debt.restart if debt is not None else absence_of(dead, data_dir, recorder.session_id, now_ns)
    if debt is not None:
        told = counts_payloads(debt.snapshot, debt.tick_seq, debt.lost_trades, debt.lost_quotes, debt.lost_quarantined)
        for symbol, payload in told:
            recorder.event("counts", payload, symbol=symbol or "")
    if restart is not None and not restart.lost and not (debt and debt.snapshot.head["restart_start_ns"]):
        restart = _within_hours(recorder, restart, now_ns, open_spans)
    recorder.begin(dead, restart)
    return debt


def _within_hours(recorder: Recorder, restart: RestartGap, now_ns: int, open_spans: OpenSpans) -> RestartGap | None:
    """Tell of a gap in which nothing that was received is lost the parts that have ended with a close; return what goes on, if anything."""
    goes_on = None
    for start_ns, end_ns in open_spans(min(restart.start_ns, now_ns), now_ns):
        if end_ns < now_ns:
            recorder.gap(start_ns, end_ns, "restart", lost=restart.lost, of_session=restart.of_session)
        else:
            goes_on = replace(restart, start_ns=start_ns)
    return goes_on


def absence_of(snapshot: Snapshot | None, data_dir: Path, session_id: str, now_ns: int) -> RestartGap | None:
    """Return the gap that an ordered stop left; None if nothing came before us.

    `snapshot`: of a feed that owes nothing. `session_id`: ours. Of what has no end line, or died with its host, the archive writer tells up
    to the start of ours.
    """
    sessions = read_sessions(data_dir, provider_of(session_id))
    if snapshot is not None:
        if sessions and snapshot.session_id not in (session.session_id for session in sessions):
            return None  # of a data directory that was removed since
        start_ns = min(int(snapshot.head["last_recv_ns"]), now_ns)
        return RestartGap(_known_apart(start_ns, int(snapshot.head["restart_told_ns"])), 0, snapshot.session_id)
    before = [session for session in sessions if session.session_id != session_id]
    while before and before[-1].ended and before[-1].ended.get("event", 0) < 0:
        before.pop()  # its feed never began: a feed that begins tells of it
    if not before:
        return None
    last = before[-1]
    lost_with_host = last.ended is None or last.host_death
    start_ns = last.next_started_ns if lost_with_host else last.heard_ns or last.ended_ns
    return RestartGap(min(start_ns or now_ns, now_ns), 0, last.session_id)


def debt_of(snapshot: Snapshot | None, ring_dir: Path, data_dir: Path, now_ns: int) -> Debt | None:
    """Return what the feed that wrote `snapshot` owes, None if it ended cleanly or there was none."""
    if snapshot is None or snapshot.head["clean"]:
        return None
    head, table = snapshot
    tick = _ring(ring_dir, data_dir, snapshot.session_id, "tick")
    quarantine = _ring(ring_dir, data_dir, snapshot.session_id, "quarantine")
    lost_trades, lost_quotes = table["pending_trades"].copy(), table["pending_quotes"].copy()
    tick_seq, last_record_ns = int(head["tick_as_of"]), 0
    if tick is not None:
        records = _from(tick, tick_seq)
        tick_seq = tick.published
        last_record_ns = int(copy_rows(tick, tick_seq - 1, 1)["ts_ns"][0]) if tick_seq else tick.created_ns
    else:  # its ring is gone: what the archive writer had taken from it is not lost
        records = _archived(data_dir, snapshot.session_id, tick_seq)
        if len(records):
            tick_seq, last_record_ns = int(records["seq"][-1]) + 1, int(records["ts_ns"][-1])
    _subtract(lost_trades, lost_quotes, table["symbol"], records)
    lost_quarantined = int(head["pending_quarantined"])
    if quarantine is not None:
        chunks = _from(quarantine, int(head["quarantine_as_of"]))
        lost_quarantined = max(0, lost_quarantined - int(((chunks["part"] == 0) & (chunks["whole"] == 1)).sum()))
    else:
        lost_quarantined = max(0, lost_quarantined - _set_aside(data_dir, snapshot.session_id, int(head["quarantine_as_of"])))
    for ring in (tick, quarantine):
        if ring is not None:
            ring.close()
    lost = int(lost_trades.sum() + lost_quotes.sum())
    restart = _restart(snapshot, lost, last_record_ns, now_ns)
    return Debt(snapshot, tick_seq, lost_trades, lost_quotes, lost_quarantined, restart)


def _restart(snapshot: Snapshot, lost: int, last_record_ns: int, now_ns: int) -> RestartGap:
    """The gap to the next record, from the last message, or from the last record if inputs came behind it that none holds.

    One that a dead feed already owed goes on from its start.
    """
    head = snapshot.head
    if head["restart_start_ns"]:
        # The very same start, whatever the clock has done: by it the two are known to be one gap.
        lost += max(0, int(head["restart_lost"]))
        return RestartGap(int(head["restart_start_ns"]), lost, snapshot.session_id, int(head["restart_end_ns"]))
    starts = [int(head[name]) for name in ("gap_start_ns", "last_recv_ns") if head[name]]
    if lost and last_record_ns:
        starts.append(last_record_ns)
    return RestartGap(_known_apart(min(starts, default=now_ns), int(head["restart_told_ns"])), lost, snapshot.session_id)


def _known_apart(start_ns: int, told_ns: int) -> int:
    """By its start a gap is known: a clock that stepped back must not make two of them one."""
    return start_ns - int(start_ns == told_ns)


def _ring(ring_dir: Path, data_dir: Path, session_id: str, name: str) -> Ring | None:
    try:
        return attach_ring(block_path(ring_dir, data_dir, session_id, name), TICK if name == "tick" else CHUNK, session_id)
    except (FileNotFoundError, SchemaMismatch):
        return None


def _from(ring: Ring, seq: int) -> np.ndarray:
    """Copy what was published from `seq` on. Safety: its producer is dead, so nothing is overwritten meanwhile."""
    start = max(seq, ring.oldest)
    return copy_rows(ring, start, max(0, ring.published - start))


def _archived(data_dir: Path, session_id: str, seq: int) -> np.ndarray:
    """Read the records of a session from `seq` on that are on disk in whole frames, which is what its recovery will keep."""
    provider = provider_of(session_id)
    found = [np.empty(0, TICK)]
    for folder in sorted((data_dir / "scalp" / provider).glob("*")):
        cursor = SegmentCursor(Series(data_dir, "scalp", provider, folder.name), session_id)
        at = seq
        while True:
            lines, gaps = cursor.read(at, _READ_ROWS)
            if not lines and not gaps:
                break
            if lines:
                found.append(decode_ticks(lines))
            at = max([int(found[-1]["seq"][-1]) if lines else -1, *(int(gap["last_seq"]) for gap in gaps)]) + 1
        cursor.close()
    return np.concatenate(found)


def _set_aside(data_dir: Path, session_id: str, seq: int) -> int:
    """Count the whole messages of a session that the quarantine file holds from chunk `seq` on."""
    count = 0
    for path in day_files(data_dir / "quarantine" / provider_of(session_id)):
        for _, line in text_lines(path):
            try:
                value = orjson.loads(line)
                if value["session_id"] == session_id and value["first_seq"] >= seq:
                    count += int(value.get("whole_messages", value.get("whole", 0)))
            except (ValueError, KeyError, TypeError):  # damaged: `obs verify` names it
                continue
    return count


def _subtract(lost_trades: np.ndarray, lost_quotes: np.ndarray, symbols: np.ndarray, records: np.ndarray) -> None:
    for row in np.flatnonzero(lost_trades + lost_quotes).tolist():
        of_row = records["symbol"] == symbols[row]
        lost_trades[row] = max(0, int(lost_trades[row]) - int(records["trades"][of_row].sum()))
        lost_quotes[row] = max(0, int(lost_quotes[row]) - int(records["quotes"][of_row].sum()))
