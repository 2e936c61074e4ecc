"""The data path of a feed: payload -> inputs -> counts -> records -> rings. Synchronous, and it never waits.

Data messages are held as they come and processed in batches: decoded, counted, judged against the venue's own counts, folded or
taped, committed to the intake cell, published. The wall-clock grid cuts the batches: before a message received after the
grid point is taken, everything before the point has been published. So an input belongs to the minute of the record it
is folded into, which is also the minute of its receive time.

Rows of the table are given to symbols and taken back while all this goes on (obs.roles.placing decides). A row that is released
counts what still comes for it as ignored, until it is free; a row that counted anything in the present bucket gets no other
symbol before the bucket is closed (`clean`), which may be earlier than its minute ends. So a counts event is of one symbol.

Order, the heart of the accounting (obs.ledger.intake): the intake is committed, then the records are published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from obs.clock import MINUTE_NS, NS, Clock, minute_of
from obs.errors import DecodeError
from obs.ledger import Intake, Snapshot, counts_payloads
from obs.providers.base import Context, Control, Fault, Provider
from obs.record.chunks import message_chunks
from obs.record.events import make_event
from obs.record.schema import IGNORED, INPUT, INPUT_TRADE
from obs.ring import Producer, Ring
from obs.roles.losses import Losses, RestartGap
from obs.sample import Completeness, Slots, boundary_after, interval_ns
from obs.shm import Board

MAX_INPUTS: Final = 1024  # per message; see obs.providers.base
_STAGED: Final = 2048  # inputs processed at once
# Messages decoded at once, and their bytes: more would no longer lie in the processor's cache.
_HELD: Final = 2048
_HELD_BYTES: Final = 512 * 1024
_CHUNKED: Final = 16  # messages set aside at once: at most 1 MiB, a quarter of the smallest quarantine ring
_NOTHING: Final[list[Control]] = []  # to answer; nobody writes to it
_SPANS: Final = 16  # bad spans of one message that are kept one by one: more would flood the quarantine ring
_ALL: Final = slice(None)
_COVERAGE: Final = 0.8  # of a minute's records, below which a warning is due
_UNSUBSCRIBED: Final = IGNORED.index("unsubscribed")
_STEP_BACK_NS: Final = NS  # a smaller step of the wall clock backwards is smoothed, a larger one begins a new bucket


@dataclass
class Fates:
    """Of the messages of the present bucket. Plain integers: the hot path adds one at a time."""

    messages: int = 0
    data: int = 0
    control: int = 0
    quarantined: int = 0


@dataclass
class Totals:
    """Since the start of this process, for the counters that the monitor reads."""

    messages: int = 0  # of the buckets that are closed; the present one's are added by the reader
    inputs: int = 0
    ignored: int = 0
    quarantined: int = 0
    records: int = 0


@dataclass(frozen=True)
class Rings:
    """The rings of a feed."""

    tick: Ring
    event: Ring
    quarantine: Ring


@dataclass
class Recorder:
    """Joins a provider, the sampler, the ledger and the rings. One per feed, used from one thread."""

    provider: Provider
    slots: Slots
    rings: Rings
    board: Board
    clock: Clock
    name: str  # of the provider section
    tape: bool
    totals: Totals = field(default_factory=Totals)

    def __post_init__(self) -> None:
        self.session_id = self.rings.tick.session_id
        self.tick = Producer(self.rings.tick)
        self.events = Producer(self.rings.event)
        self.quarantine = Producer(self.rings.quarantine)
        self.intake = Intake(self.board["intake"], self.slots.symbol)
        self.level = 0
        self.restart: RestartGap | None = None
        self._completeness = Completeness(self.slots.rows)
        self._fates = Fates()
        # Messages of one connection that wait to be decoded, when they came, and that connection's context
        self._held: list[bytes] = []
        self._held_ns: list[int] = []
        self._held_bytes = 0
        self._held_of: Context | None = None
        self._staged = np.zeros(_STAGED + MAX_INPUTS, INPUT)
        self._count = 0
        self._malformed = 0
        self._covered_ns = np.zeros(self.slots.rows, np.int64)  # of the bucket's minute, by records of the grid
        self._bucket_ns = 0  # when the bucket began
        self.watched = self.slots.symbol != b""  # rows that hold a symbol: all their inputs are recorded
        self._left = np.zeros(self.slots.rows, bool)  # rows released, of which inputs may still come
        self._any_left = False
        self._fresh = np.zeros(self.slots.rows, bool)  # rows that got their symbol in this bucket, or have not been heard of since
        self._must_close = False
        self._chunks: list[np.ndarray] = []
        self._now_ns = 0  # the newest time we were told: what comes later is not earlier
        self._last_ns = 0  # up to here everything that came has been taken
        self._looked = 0
        self.boundary_ns = 0
        self._begun_ns = 0  # of the interval that ends at the boundary
        self._classify = self.provider.classify
        self._losses = Losses(self.events, self.name, self.slots.symbol)

    def begin(self, dead: Snapshot | None, restart: RestartGap | None) -> None:
        """Take over: the bucket numbers go on after an earlier feed's, and its restart gap is owed."""
        now = self.clock.wall_ns()
        head = self.intake.head
        head["session_id"] = self.session_id.encode()
        if dead is not None:
            head["n"], head["restart_told_ns"] = dead.head["n"], dead.head["restart_told_ns"]
        head["n"] += 1
        head["minute_ns"] = minute_of(now)
        self.restart = restart
        if restart is not None:
            head["restart_start_ns"], head["restart_of"] = restart.start_ns, restart.of_session.encode()
            head["restart_end_ns"] = restart.end_ns
            head["restart_lost"] = -1 if restart.lost is None else restart.lost
        self._now_ns = self._last_ns = self._bucket_ns = now
        head["last_recv_ns"] = now
        self._begin_interval(now, 0)
        self._commit()

    def message(self, payload: memoryview | bytes, recv_ns: int, context: Context) -> list[Control]:
        """Take one message, borrowed; return what it says to the connection (empty for data).

        `context`: of its connection. Data is decoded later, with what else comes until `process`.
        """
        if recv_ns < self._now_ns or recv_ns > self.boundary_ns:
            recv_ns = self._in_order(recv_ns)
            if recv_ns > self.boundary_ns:
                self.turn(recv_ns)
        self._now_ns = recv_ns
        data = payload if type(payload) is bytes else bytes(payload)
        if self._classify(data) == "control":
            return self._control(data, recv_ns)
        if context is not self._held_of:
            self._decode_all()
            self._held_of = context
        held = self._held
        held.append(data)
        self._held_ns.append(recv_ns)
        self._held_bytes += len(data)
        if len(held) >= _HELD or self._held_bytes >= _HELD_BYTES:
            self.process()
        return _NOTHING

    def _control(self, payload: bytes, recv_ns: int) -> list[Control]:
        self._decode_all()  # what is set aside keeps its order
        fates = self._fates
        fates.messages += 1
        self._last_ns = recv_ns
        try:
            control = self.provider.control(payload)
        except DecodeError as error:
            fates.quarantined += 1
            self._set_aside(payload, recv_ns, error.reason, whole=True)
            if len(self._chunks) >= _CHUNKED:
                self.process()
            return []
        fates.control += 1
        return control

    def _decode_all(self) -> None:
        """Decode what is held; what is too much to be staged at once is processed."""
        while self._held:
            self._decode()
            if self._held or self._count >= _STAGED or len(self._chunks) >= _CHUNKED:
                self._process()

    def _decode(self) -> None:
        """Decode what is held, or as much of it as can be staged."""
        assert self._held_of is not None
        held, held_ns, fates = self._held, self._held_ns, self._fates
        taken = self.provider.decode_many(held, held_ns, self._held_of, self._staged, self._count)
        self._count += taken.inputs
        fates.messages += taken.messages
        fates.data += taken.messages
        for place, what in taken.bad:
            if isinstance(what, DecodeError):
                fates.data -= 1
                fates.quarantined += 1
                self._set_aside(held[place], held_ns[place], what.reason, whole=True)
            else:
                self._set_spans_aside(held[place], what, held_ns[place])
        self._last_ns = held_ns[taken.messages - 1]
        del held[: taken.messages], held_ns[: taken.messages]
        self._held_bytes = sum(map(len, held))

    @property
    def latest(self) -> np.ndarray:
        """The inputs of the messages since it was last looked at, as far as they have not been processed."""
        first = self._looked
        self._decode_all()
        self._looked = self._count
        return self._staged[min(first, self._count) : self._count]

    @property
    def staged(self) -> bool:
        """Whether something waits for `process`."""
        return bool(self._held) or self._count > 0 or bool(self._chunks)

    def broken(self, data: bytes, reason: str, total_bytes: int, sha256: bytes) -> None:
        """Keep the head of bytes that are no message at all (broken framing): counted as a message, quarantined."""
        recv_ns = self._in_order(self.clock.wall_ns())
        if recv_ns > self.boundary_ns:
            self.turn(recv_ns)
        self._decode_all()
        self._fates.messages += 1
        self._fates.quarantined += 1
        self._chunks.append(message_chunks(data, recv_ns, reason, whole=True, total_bytes=total_bytes, sha256=sha256))
        self.totals.quarantined += 1
        self._last_ns = recv_ns
        self.process()

    def process(self) -> None:
        """Decode what is held; count, fold and publish all of it."""
        self._decode_all()
        self._process()

    def _process(self) -> None:
        """Count, fold and publish what is staged."""
        batch = self._staged[: self._count]
        if self._any_left:
            batch["ignore"][self._left[batch["row"]] & (batch["ignore"] == 0)] = _UNSUBSCRIBED
        missed = self._completeness.judge(batch) if self._count else []
        if self._count:
            self.intake.count(batch)
        if self._malformed:
            self.intake.count_malformed(self._malformed)
        kept = batch[batch["ignore"] == 0] if (batch["ignore"] != 0).any() else batch
        self.totals.inputs += len(batch) + self._malformed
        self.totals.ignored += len(batch) - len(kept) + self._malformed
        self._count = self._looked = 0
        self._malformed = 0
        if missed:
            self._losses.missed(missed)
        if self.restart is None:
            self._losses.tell_missed()  # Order: before the commit, which a restart gap would begin behind
        if self.tape:
            self._tape(kept)
        else:
            if len(kept):
                self.slots.fold(kept)
            self._commit()
        self._publish_chunks()

    def _tape(self, kept: np.ndarray) -> None:
        table = self.intake.table
        if not len(kept):
            self._commit()
            return
        records = self.slots.tape(kept, self.level)
        held = np.bincount(kept["row"] * 2 + (kept["kind"] != INPUT_TRADE), minlength=2 * self.slots.rows).reshape(-1, 2)
        self.slots.trades[:], self.slots.quotes[:] = held[:, 0], held[:, 1]
        self._commit()
        owed = self.restart is not None
        self._publish(records)
        self.slots.trades[:] = 0
        self.slots.quotes[:] = 0
        table["pending_trades"] = 0
        table["pending_quotes"] = 0
        if owed:
            self._commit()  # no longer owed: else it is told once more, should we die before the next message

    def _commit(self) -> None:
        """Write the intake: counts, what is pending, and as of which sequences."""
        head, table = self.intake.head, self.intake.table
        table["pending_trades"] = self.slots.trades
        table["pending_quotes"] = self.slots.quotes
        head["tick_as_of"] = self.tick.published
        head["quarantine_as_of"] = self.quarantine.published
        head["pending_quarantined"] = sum(int(chunk["whole"][0]) for chunk in self._chunks)
        head["last_recv_ns"] = self._last_ns
        head["gap_start_ns"] = self._losses.open_since_ns
        head["clean"] = 0
        fates = self._fates
        head["messages"], head["data"], head["control"], head["quarantined"] = (
            fates.messages, fates.data, fates.control, fates.quarantined,
        )  # fmt: skip
        self.intake.commit()

    def _publish(self, records: np.ndarray) -> None:
        if not len(records):
            return
        if self.restart is None:
            self.tick.publish(records)
        else:
            self._publish_restart(int(records["ts_ns"][0]), records)
        self.totals.records += len(records)

    def settle_restart(self, end_ns: int) -> None:
        """Tell the gap that an earlier feed left, if it is owed: the venue has closed, so that no record of ours will end it."""
        if self.restart is not None:
            self._publish_restart(end_ns)
            self._commit()

    def _publish_restart(self, end_ns: int, records: np.ndarray | None = None) -> None:
        """Tell the gap that an earlier feed left, and right behind it our first `records`."""
        restart, self.restart = self.restart, None
        assert restart is not None
        head = self.intake.head
        # Order: its end is noted, it is told, the records follow, and with the next commit it is no longer owed. Should we die
        # before that, the next feed tells it again from the same start; the longest counts, so that one must be longer, even
        # if the clock has stepped back.
        end_ns = max(end_ns, restart.start_ns, restart.end_ns + 1)
        head["restart_end_ns"] = end_ns
        self.intake.commit()
        self.gap(restart.start_ns, end_ns, "restart", lost=restart.lost, of_session=restart.of_session)
        if records is not None:
            self.tick.publish(records)
        head["restart_told_ns"] = restart.start_ns
        head["restart_start_ns"] = head["restart_lost"] = head["restart_end_ns"] = 0
        head["restart_of"] = b""

    @property
    def gaps(self) -> int:
        """Gap markers since the start of this process."""
        return self._losses.count

    @property
    def messages(self) -> int:
        """Messages since the start of this process."""
        return self.totals.messages + self._fates.messages + len(self._held)

    def turn(self, now_ns: int) -> None:
        """Publish the interval that ended before now_ns, and the counts of a minute that ended with it.

        Intervals that passed unseen (a stopped process, a clock that jumped) get no record: nothing is known of them.
        """
        now_ns = self._in_order(now_ns)
        if now_ns <= self.boundary_ns:
            return
        self.process()
        rows = self.slots.occupied()
        if not self.tape and len(rows):
            self._publish(self.slots.emit(self.boundary_ns, self.level, rows))
            self._covered_ns[rows] += self.boundary_ns - self._begun_ns
        self._last_ns = max(self._last_ns, self.boundary_ns)
        self.level = self._wanted_level()
        self._begin_interval(now_ns, self.boundary_ns)
        if self._must_close or minute_of(now_ns) != int(self.intake.head["minute_ns"]):
            self._close_bucket(minute_of(now_ns))
        else:
            self._commit()

    def _begin_interval(self, now_ns: int, before_ns: int) -> None:
        """Let the interval that holds now_ns begin; `before_ns`: the end of the one before, if it follows that."""
        self.boundary_ns = boundary_after(now_ns, self.level)
        self._begun_ns = max(before_ns, self.boundary_ns - interval_ns(self.level))

    def _wanted_level(self) -> int:
        level = self.board["level"].read_json()
        return min(2, max(0, int(level["level"]))) if level else 0

    def obey_level(self) -> None:
        """Look at the mitigation level; a new one holds at once. The open interval ends at the next point of either grid."""
        if self._wanted_level() == self.level:
            return
        now_ns = self._in_order(self.clock.wall_ns())
        if now_ns > self.boundary_ns:
            self.turn(now_ns)  # it reads the level
            return
        self.process()  # what came before is of the old level
        self.level = self._wanted_level()
        self.boundary_ns = min(self.boundary_ns, boundary_after(now_ns, self.level))

    def _in_order(self, now_ns: int) -> int:
        """Smooth a small step of the clock backwards; a large one ends the interval and begins a new bucket."""
        if now_ns >= self._now_ns:
            self._now_ns = now_ns
            return now_ns
        if self._now_ns - now_ns < _STEP_BACK_NS:
            return self._now_ns
        behind = self._now_ns
        self.flush(behind, _ALL)
        self.event("warning", {"what": "clock_step", "from_ns": behind, "to_ns": now_ns})
        self._now_ns = self._last_ns = now_ns
        self._close_bucket(minute_of(now_ns))
        self._begin_interval(now_ns, 0)
        return now_ns

    def flush(self, now_ns: int, rows: np.ndarray | slice) -> None:
        """Publish what is pending in `rows`, once, with ts = now_ns: at a disconnect, a release or a stop."""
        self.process()
        if self.tape:
            return
        chosen = np.zeros(self.slots.rows, bool)
        chosen[rows] = True
        pending = self.slots.pending()
        pending = pending[chosen[pending]]
        if len(pending):
            self._publish(self.slots.emit(min(now_ns, self.boundary_ns), self.level, pending))
        self._commit()

    def _close_bucket(self, minute_ns: int) -> None:
        """Publish the counts of the bucket that is over, after its last record, and begin the next."""
        self._commit()
        for symbol, payload in counts_payloads(Snapshot(self.intake.head, self.intake.table), self.tick.published):
            self.event("counts", payload if symbol is not None else payload | self._coverage(), symbol=symbol or "")
        self._warn_of_coverage()
        self.intake.next_bucket(minute_ns)
        self._must_close = False
        self._covered_ns[:] = 0
        self._fresh &= ~self.slots.seen
        self._bucket_ns = self._last_ns
        self.totals.messages += self._fates.messages
        self._fates = Fates()
        self._commit()

    def _coverage(self) -> dict[str, Any]:
        """Say how much of the bucket the records cover, in seconds of all slots that were heard of before it began."""
        if self.tape:
            return {}
        rows = self.watched & ~self._fresh & (self.slots.seen | (self._covered_ns > 0))
        return {"slots": int(np.count_nonzero(rows)), "covered_s": round(float(self._covered_ns[rows].sum()) / NS, 3)}

    def _warn_of_coverage(self) -> None:
        """Warn of slots that have records for less than _COVERAGE of a whole minute, although they have been heard of."""
        minute_ns = int(self.intake.head["minute_ns"])
        if self.tape or self._bucket_ns - minute_ns > NS or self._last_ns < minute_ns + MINUTE_NS:
            return
        whole = self.watched & ~self._fresh
        thin = np.flatnonzero(whole & (self._covered_ns > 0) & (self._covered_ns < _COVERAGE * MINUTE_NS))
        if len(thin):
            worst = float(self._covered_ns[thin].min()) / MINUTE_NS
            symbols = [symbol.decode() for symbol in self.slots.symbol[thin].tolist()]
            self.event("warning", {"what": "low_coverage", "minute_ns": minute_ns, "lowest": round(worst, 3), "symbols": symbols})

    def disconnected(self, rows: np.ndarray, now_ns: int) -> None:
        """Publish what is pending in `rows` and stop recording them until an input comes."""
        now_ns = self._in_order(now_ns)
        if now_ns > self.boundary_ns:
            self.turn(now_ns)
        self.flush(now_ns, rows)
        self.slots.disconnected(rows)

    # --- rows that change their symbols

    def assign(self, row: int, symbol: str) -> None:
        """Record `symbol` in a free row from now on. The row is clean, or had the same symbol before."""
        name = symbol.encode()
        self._on_time()
        self.process()  # what is held is of those that the rows belong to now
        assert not self.watched[row] and not self._left[row], (row, symbol)
        assert self.clean(row) or self.slots.symbol[row] == name, (row, symbol)
        self.slots.assign(row, name)
        self._completeness.forget(row)
        self.intake.table["symbol"][row] = name
        self.watched[row] = self._fresh[row] = True
        self._commit()

    def release(self, row: int) -> None:
        """Publish what is pending in a row and record it no longer; what still comes for it is ignored as `unsubscribed`."""
        now_ns = self._on_time()
        self.flush(now_ns, np.array([row]))
        self.slots.release(np.array([row]))
        self.watched[row], self._left[row], self._any_left = False, True, True

    def free(self, row: int) -> None:
        """Say that nothing comes for a released row any more."""
        self.process()
        self._left[row] = False
        self._any_left = bool(self._left.any())

    def clean(self, row: int) -> bool:
        """Whether a row has counted nothing in this bucket: it may get another symbol."""
        return not self.intake.table["inputs"][row]

    def clean_up(self) -> None:
        """Make all free rows clean: close the bucket before its minute ends, as soon as no interval lies across."""
        self._on_time()
        self.process()
        self._must_close = True
        if self.tape:
            self._close_bucket(int(self.intake.head["minute_ns"]))

    def _on_time(self) -> int:
        now_ns = self._in_order(self.clock.wall_ns())
        if now_ns > self.boundary_ns:
            self.turn(now_ns)
        return now_ns

    def gap(self, start_ns: int, end_ns: int, reason: str, **facts: Any) -> None:
        """Publish a gap_marker; see obs.record.events.gap_payload for `facts`."""
        self._losses.tell(start_ns, end_ns, reason, **facts)

    def event(self, kind: str, payload: dict[str, Any], symbol: str = "") -> None:
        self.events.publish(make_event(kind, self.clock.wall_ns(), payload, symbol=symbol))

    def stop(self) -> None:
        """Publish everything: pending intervals, counts. Afterwards nothing is owed."""
        now = self._in_order(self.clock.wall_ns())
        if now > self.boundary_ns:
            self.turn(now)
        self.flush(now, _ALL)
        if self.restart is not None:
            self._publish_restart(now)
        self._losses.tell_missed(at_last=True)
        self._close_bucket(minute_of(now))
        self.intake.head["clean"] = 1
        self.intake.commit()

    def lost_since(self, whose: object) -> int | None:
        """Return since when a gap is open, None if it is not."""
        return self._losses.since(whose)

    def open_gap(self, whose: object, start_ns: int) -> None:
        """Begin a loss that is not over; should this process die, the restart gap starts no later."""
        self._losses.begin(whose, start_ns, self.clock.mono_ns())
        self.process()  # a commit says that all up to the last message is counted

    def close_gap(self, whose: object, end_ns: int, reason: str, symbols: Sequence[str] | None = None, **facts: Any) -> None:
        """End it: one gap_marker, or one for each of `symbols` where not all are concerned."""
        self._losses.end(whose, end_ns, self.clock.mono_ns(), reason, symbols, **facts)
        self.process()

    def forgive(self, whose: object) -> None:
        """Drop an open gap that is none: the connection was closed because we were asked to stop."""
        self._losses.forgive(whose)

    def _set_spans_aside(self, payload: memoryview | bytes, faults: list[Fault], recv_ns: int) -> None:
        """Stage the bad spans of a message, each an input ignored as malformed; the message once where there are many."""
        self._malformed += len(faults)
        if len(faults) > _SPANS:
            self._set_aside(bytes(payload), recv_ns, faults[0].reason, whole=False)
            return
        for fault in faults:
            self._set_aside(bytes(payload[fault.start : fault.stop]), recv_ns, fault.reason, whole=False)

    def _set_aside(self, data: bytes, recv_ns: int, reason: str, *, whole: bool) -> None:
        """Stage bytes that could not be read."""
        self._chunks.append(message_chunks(data, recv_ns, reason, whole=whole))
        self.totals.quarantined += whole

    def _publish_chunks(self) -> None:
        chunks, self._chunks = self._chunks, []
        for chunk in chunks:
            self.quarantine.publish(chunk)
