"""The archive writer of one provider: drains all its rings to segments and text logs. It never talks to the database.

At its start it recovers what an earlier writer left, tells of rings that are gone, and drains old sessions before the
present one. A record is durable at most [archive] flush_s after it was published. When the disk takes nothing it stops at its
last durable point, says so, and tries again by itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from obs.clock import NS, SYSTEM, Clock
from obs.config.process import OldSession, ProcessSpec
from obs.errors import DiskTrouble
from obs.log import Log
from obs.market.calendar import ZONES
from obs.record.schema import DTYPES
from obs.ring import Ring, attach_ring
from obs.roles.drains import (
    BATCH_ROWS,
    Drain,
    EventDrain,
    Events,
    QuarantineDrain,
    SegmentDrain,
    lost_ring_gap,
)
from obs.roles.sink import Progress, Stop, begin, run_sink
from obs.segment.disk import gap_reason, require_floor
from obs.segment.format import DATASETS, Series
from obs.segment.quarantine import QuarantineFile, QuarantineOptions, last_quarantined
from obs.segment.reader import last_archived, last_archived_ns
from obs.segment.recover import Recovered, recover_open
from obs.segment.textlog import last_event_seqs
from obs.segment.writer import SegmentOptions
from obs.shm import Counters

_TURN_S: Final = 0.2
_TROUBLE_S: Final = 1.0  # between tries while the disk takes nothing
_FLOOR_EVERY_NS: Final = 2 * NS
_SWING_SEGMENT_S: Final = 3600
_FLUSHED_S: Final = 10.0  # that one flush of all rings may take, on a slow disk


def run(spec: ProcessSpec, log: Log) -> int:
    """Run until SIGTERM, then drain to the last published record and seal; return the exit code."""
    cell = Counters(spec.counters).cell("archive")
    begin(cell, SYSTEM)
    progress = Progress(cell, SYSTEM)
    stop = Stop()
    return run_sink(_Archive(spec, log, cell, progress, SYSTEM), cell, progress, log, SYSTEM, stop)


class _Archive:
    """The work of the thread; everything here runs in it."""

    def __init__(self, spec: ProcessSpec, log: Log, cell: object, progress: Progress, clock: Clock) -> None:
        assert spec.provider is not None and spec.session is not None
        self._spec, self._log, self._progress, self._clock = spec, log, progress, clock
        self._cell: dict[str, int] = cell  # type: ignore[assignment]  # a numpy scalar view: reads and writes by field name
        config, provider = spec.config, spec.provider
        self._root: Path = config.data_dir
        self._tz = ZONES[provider.market]
        self._flush_ns = int(config.archive.flush_s * NS / 2)
        self._events = Events(self._root, provider.name, self._tz, progress.waiting)
        quarantine = QuarantineOptions(self._root, provider.name, self._tz, config.quarantine.bytes_per_day)
        self._quarantine = QuarantineFile(quarantine, progress.waiting)
        self._old: list[list[Drain]] | None = None
        self._drains: list[Drain] = []
        self._trouble: DiskTrouble | None = None
        self._floor_ns = self._flushed_ns = 0

    def step(self) -> float:
        """One round: take, flush what is due, rotate; return how long to rest."""
        try:
            if self._old is None:
                self._recover()
            now = self._clock.wall_ns()
            self._check_floor()
            taken = self._drain_old(now)
            mono = self._clock.mono_ns()
            due = mono - self._flushed_ns >= self._flush_ns
            for drain in self._drains:
                taken += _take(drain, now) if due else drain.pump(now)
            if due:
                self._flushed_ns = mono
                self._flush(now)
            self._over_trouble()
        except DiskTrouble as trouble:
            self._note(trouble)
            for drain in self._drains:  # the ring stays the buffer; take what fits into memory
                drain.pump(self._clock.wall_ns())
                drain.reason = gap_reason(trouble)  # also of what one that has caught up loses before the next try
            return _TROUBLE_S
        self._count()
        return 0.0 if taken >= BATCH_ROWS else _TURN_S

    def finish(self) -> None:
        """Drain to the last published record, seal, and return; the supervisor's deadline bounds a disk that takes nothing."""
        while True:
            try:
                if self._old is None:
                    self._recover()
                now = self._clock.wall_ns()
                taken = self._drain_old(now) + sum(_take(drain, now) for drain in self._drains)
                _flush_all(self._drains)
                if taken or self._old or any(map(_behind, self._drains)):
                    continue
                for drain in self._drains:
                    drain.finish()
                self._events.flush()
                self._events.close()
                self._count()
                return
            except DiskTrouble as trouble:
                self._note(trouble)
                Stop().rest(_TROUBLE_S)

    # --- start

    def _recover(self) -> None:
        """Bring the disk to a whole-line end, tell of lost rings, and open a drain for every ring that is there."""
        assert self._spec.session is not None
        session = self._spec.session
        # Durable: lines that a killed writer left in the page cache alone must not count before they are fsynced.
        self._events.recover()
        self._quarantine.log.recover()
        old = []
        for one in session.old:
            rings = [attach_ring(path, DTYPES[name], one.session_id) for name, path in one.rings.items()]
            self._tell_lost(one)
            old.append(self._drains_of(rings))
        rings = [attach_ring(path, DTYPES[name], session.session_id) for name, path in session.rings.items()]
        self._drains = self._drains_of(rings)
        if self._trouble is not None:  # what the rings have lost while it could not even begin
            for drain in self._drains:
                drain.reason = gap_reason(self._trouble)
        for ring in DATASETS:
            # Open files without one whole frame, whose session nobody can tell, and those of sessions nobody named.
            self._tell_recovered(recover_open(self._series(ring), progress=self._progress.waiting))
        self._events.flush()
        self._old = old
        self._cell["ready"] = 1
        self._log.info("archive_ready", session=session.session_id, old=[one.session_id for one in session.old])

    def _drains_of(self, rings: list[Ring]) -> list[Drain]:
        """Open a drain for each ring, in the order in which they are taken: ticks first, events last, see `_flush_all`."""
        return sorted(map(self._drain_of, rings), key=lambda drain: (drain.name != "tick", isinstance(drain, EventDrain)))

    def _drain_of(self, ring: Ring) -> Drain:
        if ring.name in DATASETS:
            drain = SegmentDrain(ring, self._series(ring.name), self._segments(ring.name), self._events, self._progress.waiting)
            self._tell_recovered(drain.recovered)
            return drain
        if ring.name == "quarantine":
            return QuarantineDrain(ring, self._quarantine, self._events)
        return EventDrain(ring, self._events)

    def _series(self, ring: str) -> Series:
        assert self._spec.provider is not None
        return Series(self._root, DATASETS[ring], self._spec.provider.name, self._spec.provider.market)

    def _segments(self, ring: str) -> SegmentOptions:
        options = self._spec.config.archive
        seconds = options.segment_s if ring == "tick" else _SWING_SEGMENT_S
        return SegmentOptions(self._tz, seconds, options.segment_bytes, options.zstd_level)

    def _tell_lost(self, session: OldSession) -> None:
        """Write the gap line of every ring that went with its host or was not ours, once."""
        if not session.lost:
            return
        known = self._events.known_gaps(session.session_id)
        places = last_event_seqs(self._events.folder, [session.session_id])
        ends = {ring: self._last_of(session.session_id, ring, places) for ring in session.lost}
        # What was published before the last tick that is archived had been flushed before it, see `_flush_all`; before the last record of
        # another ring, with it or before.
        flushed_ns = max(last_ts_ns for _, last_ts_ns in ends.values()) - int((self._spec.config.archive.flush_s + _FLUSHED_S) * NS)
        flushed_ns = max(flushed_ns, ends["tick"][1] if "tick" in ends else 0)
        open_ns = self._events.open_loss_ns(session.session_id)
        for ring, reason in session.lost.items():
            last, last_ts_ns = ends[ring]
            if (ring, last + 1) not in known:
                begun_ns = max(last_ts_ns or session.started_ns, flushed_ns)
                if ring == "tick" and open_ns:  # no feed is left to tell of it
                    begun_ns = min(begun_ns, open_ns if last_ts_ns else session.started_ns)
                line, ts_ns = lost_ring_gap(session, ring, reason, last, begun_ns, self._events.provider, self._clock.wall_ns())
                self._events.add_gap(line, ts_ns)
                self._log.warning("ring_lost", session=session.session_id, ring=ring, reason=reason, first_seq=last + 1)

    def _last_of(self, session_id: str, ring: str, places: dict[tuple[str, str], int]) -> tuple[int, int]:
        """Return the last archived sequence of a ring, and its time if a segment tells."""
        if ring == "quarantine":
            return last_quarantined(self._quarantine.options, self._events.folder, session_id), 0
        if ring not in DATASETS:
            return places.get((session_id, ring), -1), 0
        series = self._series(ring)
        done = recover_open(series, session_id, None, self._progress.waiting)
        self._tell_recovered(done)
        for line in (line for one in done for line in one.gaps):
            self._events.add_gap(line, self._clock.wall_ns())
        return last_archived(series, session_id), last_archived_ns(series, session_id)

    def _tell_recovered(self, done: list[Recovered]) -> None:
        """Log what recovery cut off, and shout where it found damage."""
        for one in done:
            facts = {"path": str(one.path), "session": one.session_id, "torn_bytes": one.torn_bytes}
            if one.quarantined is not None:
                self._cell["errors"] += 1
                self._log.error("segment_damaged", **facts, quarantined=str(one.quarantined), damages=[str(d) for d in one.damages])
            else:
                self._log.info("segment_recovered", **facts)

    # --- rounds

    def _drain_old(self, now: int) -> int:
        """Drain the oldest old session; once it is empty it is sealed and left to the supervisor."""
        if not self._old:
            return 0
        drains = self._old[0]
        taken = sum(_take(drain, now) for drain in drains)
        if taken == 0 and not any(map(_behind, drains)):
            for drain in drains:
                drain.finish()
            self._events.flush()
            self._old.pop(0)
        else:
            _flush_all(drains)
        return taken

    def _flush(self, now: int) -> None:
        """Flush what has waited for half of flush_s, so that with the fsync itself it is durable within the whole."""
        begun = self._clock.mono_ns()
        busy = [drain for drain in self._drains if drain.waiting_since()]
        _flush_all(busy)
        self._events.flush()
        for drain in self._drains:
            drain.rotate(now)
        if busy:
            spent = self._clock.mono_ns() - begun
            self._cell["flushes"] += 1
            self._cell["flush_ns_sum"] += spent
            self._cell["flush_ns_max"] = max(int(self._cell["flush_ns_max"]), spent)

    def _check_floor(self) -> None:
        now = self._clock.mono_ns()
        if now - self._floor_ns > _FLOOR_EVERY_NS or self._trouble is not None:
            self._floor_ns = now
            require_floor(self._root)

    def _note(self, trouble: DiskTrouble) -> None:
        """Say what is wrong; what the rings lose from now on has this reason."""
        self._cell["errors"] += 1
        if self._trouble is None or gap_reason(self._trouble) != gap_reason(trouble):
            self._log.error("disk_trouble", text=str(trouble), reason=gap_reason(trouble))
        self._trouble = trouble
        self._cell["disk_trouble"] = 1
        for drain in self._drains:
            drain.reason = gap_reason(trouble)

    def _over_trouble(self) -> None:
        if self._trouble is not None:
            self._log.info("disk_recovered", text=str(self._trouble))
            self._trouble = None
            self._cell["disk_trouble"] = 0

    def _count(self) -> None:
        cell = self._cell
        cell["stored"] = sum(drain.consumer.durable for drain in self._drains)
        cell["lost"] = sum(drain.lost for drain in self._drains)
        oldest = min((since for drain in self._drains if (since := drain.waiting_since())), default=0)
        cell["lag_ns"] = max(0, self._clock.wall_ns() - oldest) if oldest else 0


def _take(drain: Drain, now_ns: int) -> int:
    """Take all that the ring holds, or that memory may: a slow disk is paid for by the flush, not by the record."""
    taken = rows = drain.pump(now_ns)
    while rows >= BATCH_ROWS:
        rows = drain.pump(now_ns)
        taken += rows
    return taken


def _flush_all(drains: list[Drain]) -> None:
    """Make durable what was taken, in the opposite order: events first, ticks last.

    So a record that outlives its host never does so without what was published before it, above all the gap that it ended.
    """
    for drain in reversed(drains):
        drain.flush()


def _behind(drain: Drain) -> bool:
    """Whether the ring holds what the drain has not taken: one that holds much in memory takes nothing for a while."""
    return drain.consumer.cursor < drain.consumer.ring.published
