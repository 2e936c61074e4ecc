"""Runs the audit: provider by provider, first what the database says, then the files, then each identity.

A session with an end line is judged whole. One without runs, or waits for the next start: it is judged up to the last bucket
of counts whose records every sink has passed. Order: the database's watermarks and gap rows are read before the files, so
that everything they speak of is on disk by then; what is written meanwhile lies behind the cut.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np

from obs.clock import NS, SYSTEM, minute_of
from obs.config import Config
from obs.errors import LoadRetryable, ObsError, SchemaMismatch
from obs.market.calendar import ZONES
from obs.monitor.audit.archive import SessionSegments, Told, missing_files
from obs.monitor.audit.counts import Counted, Cut
from obs.monitor.audit.database import StoredRows, read_stored
from obs.monitor.audit.events import Book, read_events
from obs.monitor.audit.findings import Findings
from obs.monitor.audit.gaps import judge_gap_rows, judge_quarantined, judge_restarts
from obs.monitor.audit.quarantine import QuarantineBook, Quarantined, read_quarantine
from obs.monitor.audit.report import ProviderLedger, Report
from obs.monitor.audit.rings import Known, LoadKnown, Place, RingLedger, gap_spans, judge_archived, judge_loaded
from obs.monitor.audit.scope import Scope
from obs.monitor.audit.spans import END, Runs, merge, subtract
from obs.monitor.audit.ticks import Compared, Sums, compare, name_extra
from obs.pg.connect import Connection, connect
from obs.pg.embedded import EmbeddedPostgres
from obs.record.schema import DTYPES
from obs.ring import attach_ring
from obs.segment.format import DATASETS, Series
from obs.segment.reader import find, last_archived
from obs.segment.sessions import SessionInfo, read_sessions
from obs.shm import block_path

_FAR_BEHIND_NS: Final = 120 * NS  # a loader whose next record is older than this, seen from the newest archived one
_EVENT_RINGS: Final = ("event", "poll_event")


def run(
    config: Config, *, date: str | None = None, dsn: str | None = None, away: str | None = None, told: Told | None = None
) -> Report:
    """Judge the archive of `config.data_dir` against itself and the database.

    `date`: YYYYMMDD, this path date alone. `dsn`: of the database; default the configured one, else the embedded one, which
    must be running. `away`: why there is no database to ask. A database that does not answer makes the report's `ok` None; the
    files are judged all the same. `told`: of each segment that has been read.
    """
    started = SYSTEM.mono_ns()
    findings = Findings()
    if away is not None:
        findings.unknown.append(f"the database does not answer: {away}")
    conn = _connect(config, dsn, findings) if away is None else None
    ledgers = []
    try:
        for name in _providers(config):
            ledgers.append(_Provider(config, name, date, conn, findings, told).judge())
    except LoadRetryable as error:
        findings.unknown.append(f"the database went away during the audit: {error}")
    finally:
        if conn is not None:
            conn.close()
    if not any(ledger.sessions for ledger in ledgers):
        findings.unknown.append(f"nothing is recorded below {config.data_dir}")
    elif not any(ledger.totals.minutes for ledger in ledgers) and not date:
        findings.unknown.append("no whole minute has passed every sink yet")
    elif date and not any(ledger.holds_anything for ledger in ledgers):
        findings.unknown.append(f"nothing is recorded for that date: {date}")
    return Report(findings, ledgers, date, (SYSTEM.mono_ns() - started) / NS)


def _connect(config: Config, dsn: str | None, findings: Findings) -> Connection | None:
    try:
        return connect(dsn or config.database.dsn or EmbeddedPostgres(config.data_dir / "pg").dsn, "obs audit")
    except ObsError as error:
        findings.unknown.append(f"the database does not answer: {error}")
        return None


def _providers(config: Config) -> list[str]:
    """Return the providers that have recorded anything, configured or not."""
    root: Path = config.data_dir
    names = {path.stem for path in (root / "system" / "sessions").glob("*.jsonl")}
    for folder in (root / "scalp", root / "system" / "events"):
        if folder.is_dir():
            names |= {path.name for path in folder.iterdir() if path.is_dir()}
    return sorted(names)


@dataclass
class _Session:
    """One session under judgement. `info` None: it has no start line."""

    session_id: str
    place: int
    info: SessionInfo | None
    marks: dict[str, int]  # ring -> last sequence that the database has, -1 none
    cut: Cut
    limits: dict[str, int]  # ring -> the last sequence that both sinks have passed
    published: dict[str, int]  # of rings that are there
    durable: dict[str, int]  # of them: so many are archived, by the word of the archive writer

    @property
    def ended(self) -> bool:
        return self.info is None or self.info.ended is not None

    def final(self, ring: str) -> int | None:
        """Return the last sequence of a ring if an end line names it, -1 for a ring that the session never had."""
        if self.info is None or (self.info.start.rings and ring not in self.info.start.rings):
            return None if self.info is None else -1
        return None if self.info.ended is None else self.info.ended.get(ring)


class _Provider:
    """The audit of one provider."""

    def __init__(
        self, config: Config, name: str, day: str | None, conn: Connection | None, findings: Findings, told: Told | None
    ) -> None:
        self._config, self._name, self._conn, self._findings, self._told = config, name, conn, findings, told
        root: Path = config.data_dir
        self._scope = Scope(root, name, _zone(config, name), day)
        self._ledger = ProviderLedger(name)
        self._stored = read_stored(conn, name, with_sessions=day is None) if conn is not None else None
        infos = read_sessions(root, name)
        self._runs = bool(infos) and infos[-1].ended is None
        self._book: Book = read_events(self._scope)
        self._quarantine: QuarantineBook = read_quarantine(self._scope)
        self._sums = Sums(self._book.symbols)
        self._blind: dict[int, list[tuple[int, int]]] = {}
        self._newest_ns = 0
        self._behind: list[tuple[str, int, int]] = []  # session, records that the database lacks, time of the first
        self._series = {
            dataset: [Series(root, dataset, name, market) for market in _markets(root, dataset, name)] for dataset in DATASETS.values()
        }
        self._sessions = self._find_sessions(infos)

    # --- what there is

    def _find_sessions(self, infos: list[SessionInfo]) -> list[_Session]:
        """Return all sessions that any file speaks of, oldest first; their ids sort by time.

        Order: the session file was read before the other files, so that an end line speaks of files that are complete. One that
        has begun since is taken for running, whatever it says by now.
        """
        by_id = {info.session_id: info for info in infos}
        for info in read_sessions(self._config.data_dir, self._name):
            by_id.setdefault(info.session_id, replace(info, ended=None))
        names = {*by_id, *self._book.sessions, *(session for session, _ in self._book.seqs), *self._quarantine.sessions}
        for series in (*self._series["scalp"], *self._series["swing"]):
            names |= {segment.session_id for segment in find(series)}
        ordered = [*by_id, *sorted(names - set(by_id))]
        return [self._session(name, by_id.get(name)) for name in ordered]

    def _session(self, session_id: str, info: SessionInfo | None) -> _Session:
        place = self._book.place(session_id)
        marks = {ring: self._stored.marks.get((session_id, ring), -1) if self._stored is not None else END for ring in DATASETS}
        one = _Session(session_id, place, info, marks, Cut(), dict.fromkeys(DATASETS, END), {}, {})
        if info is None:
            self._findings.mismatch(
                self._name, "archived", "a start line", None, session_id=session_id, what="a session without its start line"
            )
        if not one.ended:
            self._ask_rings(one)
            for ring, dataset in DATASETS.items():
                archived = max((last_archived(series, session_id) for series in self._series[dataset]), default=-1)
                one.limits[ring] = min(marks[ring], archived)
            one.cut = self._cut(place, one.limits["tick"])
        return one

    def _ask_rings(self, session: _Session) -> None:
        """Ask shared memory how far a session is that has not ended; nothing else is read there. Order: before its segments are read."""
        for ring, dtype in DTYPES.items():
            try:
                path = block_path(self._config.ring.dir, self._config.data_dir, session.session_id, ring)
                header = attach_ring(path, dtype, session.session_id)
            except (OSError, SchemaMismatch):
                continue
            session.durable[ring], session.published[ring] = header.durable("archive"), header.published
            header.close()

    def _cut(self, place: int, limit: int) -> Cut:
        rows = self._book.counts.rows()
        rows = rows[(rows["of"] == place) & (rows["tick_seq"] <= limit + 1)]
        if not len(rows):
            return Cut(-1, 0)
        last = rows[np.argmax(rows["n"])]
        return Cut(int(last["n"]), int(last["tick_seq"]))

    # --- the judgement

    def judge(self) -> ProviderLedger:
        self._judge_files()
        for session in self._sessions:
            for ring in DATASETS:
                self._judge_ring(session, ring)
            for ring in _EVENT_RINGS:
                self._judge_text_ring(session, ring, self._book.seqs.get((session.session_id, ring), Runs()), self._book.judged)
            kept = self._quarantine.sessions.get(session.session_id, Quarantined())
            judged = {(one, "quarantine"): span for one, span in self._quarantine.judged.items()}
            self._judge_text_ring(session, "quarantine", kept.runs, judged)
        self._judge_counts()
        self._judge_database()
        self._tell_progress()
        return self._figures()

    def _judge_files(self) -> None:
        for file, offset, why in [*self._book.unreadable, *self._quarantine.unreadable]:
            if self._scope.holds_file(file):
                self._findings.mismatch(
                    self._name, "segment", "a line that reads", why, path=file, offset=offset, what="a line does not read"
                )
        for series in (*self._series["scalp"], *self._series["swing"]):
            for path, line in missing_files(series, self._scope.day):
                self._findings.mismatch(
                    self._name, "segment", "a file", None, session_id=line.session_id, path=series.relative(path),
                    what="a sealed segment of the manifest is gone",
                )  # fmt: skip

    def _judge_ring(self, session: _Session, ring: str) -> None:
        """A ring whose archive are segments and whose rows go to a table."""
        place = Place(self._findings, self._name, session.session_id, ring)
        lines = {key: gap.line for key, gap in self._book.gaps.items() if _is_gap(gap.line, "archive", session.session_id, ring)}
        database = [gap for gap in self._stored.gaps if _is_gap(gap, "database", session.session_id, ring)] if self._stored else []
        ledger, read = RingLedger(), False
        for series in self._series[DATASETS[ring]]:
            segments = SessionSegments(
                series, session.session_id, self._scope.day, self._findings, running=not session.ended, told=self._told
            )
            if segments.segments:
                self._ledger.segments += len(segments.segments)
                ledger.add(self._judge_segments(session, place, segments, lines, database))
                read = True
        if not read and self._scope.day is None:
            series = Series(self._config.data_dir, DATASETS[ring], self._name, "")
            none = SessionSegments(series, session.session_id, None, self._findings, running=not session.ended)
            ledger.add(self._judge_segments(session, place, none, lines, database))
        self._rings(ring).add(ledger)

    def _judge_segments(
        self, session: _Session, place: Place, segments: SessionSegments, lines: dict[Any, Any], database: list[dict[str, Any]]
    ) -> RingLedger:
        ring = place.ring
        limit = min(session.limits[ring], session.marks[ring])
        if self._stored is not None and session.session_id in self._stored.finished:
            limit = END
        stored = None
        if self._conn is not None:
            first, last = -END, END if session.ended else limit
            if self._scope.day is not None:
                first, last = segments.first_expected, min(limit, segments.last_known)
            stored = StoredRows(self._conn, ring, session.session_id, first, last)
        sums = self._sums if ring == "tick" else None
        done = compare(place, segments, stored, limit, gap_spans(database), sums, session.place, session.cut.seq)
        found = segments.found
        self._newest_ns = max(self._newest_ns, found.last_ts_ns)
        known = Known(
            found.runs, list({**found.gaps, **lines}.values()), session.final(ring), session.ended, session.published.get(ring, 0),
            session.durable.get(ring, 0),
        )  # fmt: skip
        if self._scope.day is not None:
            known.first, known.last = segments.first_expected, found.last_seq
            limit = min(limit, found.last_seq)
        self._judge_copies(place, session, found.gaps, lines)
        ledger = judge_archived(place, known)
        if ring == "tick":
            self._blind[session.place] = [
                (minute_of(gap["gap_start_ns"]), minute_of(gap["gap_end_ns"])) for gap in known.gaps if gap.get("gap_end_ns")
            ]
        if stored is not None and self._stored is not None:
            ledger.add(self._judge_rows(session, place, known, stored, limit, database, done))
        return ledger

    def _judge_rows(
        self, session: _Session, place: Place, known: Known, stored: StoredRows, limit: int, database: list[dict[str, Any]], done: Compared
    ) -> RingLedger:
        assert self._stored is not None
        finished = session.session_id in self._stored.finished
        closed = [span for span in gap_spans(known.gaps) if span[1] < END]
        final = session.final(place.ring)
        last = max((span[1] for span in [*known.archived.spans(), *closed]), default=-1) if final is None else final
        limit = min(limit, last)
        explained = merge([*known.archived.spans(), *gap_spans(known.gaps)])
        name_extra(place, subtract(stored.runs.spans(), explained), done)
        load = LoadKnown(stored.runs, database, known.first, limit, finished, self._quarantine.rejected)
        ledger = judge_loaded(place, known, load, done.missing)
        behind = last - max(limit, known.first - 1)
        if behind > 0:
            ledger.not_loaded = behind
            self._behind.append((session.session_id, behind, done.first_missing_ns))
        return ledger

    def _judge_copies(self, place: Place, session: _Session, inside: dict[Any, Any], lines: dict[Any, Any]) -> None:
        """A gap line of a segment is copied to system/events."""
        for key, gap in inside.items():
            if key not in lines and session.ended:
                place.wrong(
                    "archived", "a copy in system/events", None, "a gap line of a segment that system/events lacks",
                    first_seq=gap["first_seq"], last_seq=gap["last_seq"],
                )  # fmt: skip

    def _judge_text_ring(self, session: _Session, ring: str, runs: Runs, judged: dict[tuple[str, str], tuple[int, int]]) -> None:
        """A ring whose archive is a text file."""
        place = Place(self._findings, self._name, session.session_id, ring)
        gaps = [gap.line for gap in self._book.archive_gaps(session.session_id, ring)]
        known = Known(runs, [dict(gap) for gap in gaps], session.final(ring), session.ended, session.published.get(ring, 0))
        if self._scope.day is not None:
            known.first, known.last = judged.get((session.session_id, ring), (0, -1))
        self._rings(ring).add(judge_archived(place, known))

    def _rings(self, ring: str) -> RingLedger:
        return self._ledger.rings.setdefault(ring, RingLedger())

    def _judge_counts(self) -> None:
        order = {session.place: rank for rank, session in enumerate(self._sessions)}
        cuts = {session.place: session.cut for session in self._sessions if not session.ended}
        counted = Counted(self._book, self._scope, order, cuts, self._runs, self._findings)
        counted.judge(self._sums.table(), self._blind)
        if self._scope.day is None:
            self._ledger.restart_lost = judge_restarts(self._book, counted, order, self._runs, self._scope, self._findings)
        for session in self._sessions:
            kept = self._quarantine.sessions.get(session.session_id, Quarantined())
            gaps = self._book.archive_gaps(session.session_id, "quarantine")
            judge_quarantined(session.session_id, session.place, kept, gaps, counted, session.ended, self._scope, self._findings)
        self._ledger.totals = counted.totals()

    def _judge_database(self) -> None:
        if self._stored is None:
            return
        self._ledger.waiting = judge_gap_rows(self._book, self._stored, self._scope, self._runs, self._findings)
        known = {session.session_id for session in self._sessions}
        for session_id in sorted(self._stored.sessions - known):
            self._findings.mismatch(
                self._name, "loaded", 0, "rows", session_id=session_id, what="the database has rows of a session that no file speaks of"
            )

    def _tell_progress(self) -> None:
        """Say how far what runs is judged, and whether a loader is too far behind for a verdict."""
        for session_id, records, since_ns in self._behind:
            seconds = max(0, self._newest_ns - since_ns) / NS if since_ns else 0.0
            behind = f"the oldest {seconds:.0f} s behind the archive"
            text = f"{self._name}: {records} records of {session_id} are not in the database yet, {behind}"
            if not self._runs or seconds * NS > _FAR_BEHIND_NS:
                self._findings.unknown.append(text)
            else:
                self._findings.notes.append(text)
        tick = self._rings("tick")
        if self._runs and (tick.published or tick.archived) and not self._ledger.totals.minutes:
            self._findings.unknown.append(f"{self._name}: no whole minute has passed every sink yet, none is judged")
        for session in self._sessions:
            if not session.ended:
                state = "has not ended" if session.published else "has not ended and its rings are gone: the next start writes its gap rows"
                self._findings.notes.append(f"{self._name}: {session.session_id} {state}; judged up to sequence {session.cut.seq - 1}")

    def _figures(self) -> ProviderLedger:
        ledger = self._ledger
        ledger.sessions = len(self._sessions)
        ledger.gaps = Counter(gap.line["reason"] for gap in self._book.gaps.values() if self._scope.holds_file(gap.file))
        return ledger


def _is_gap(gap: dict[str, Any], sink: str, session_id: str, ring: str) -> bool:
    return bool(gap["sink"] == sink and gap["session_id"] == session_id and gap["ring"] == ring)


def _markets(root: Path, dataset: str, provider: str) -> list[str]:
    folder = root / dataset / provider
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _zone(config: Config, name: str) -> ZoneInfo:
    """Return the zone of the provider's market: as configured, else as its folders say."""
    provider = config.provider(name)
    markets = [provider.market] if provider is not None else _markets(config.data_dir, "scalp", name)
    return next((ZONES[market] for market in markets if market in ZONES), ZoneInfo("UTC"))
