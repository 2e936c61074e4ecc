"""The shared checker of all fault tests: files, database and the exchange's log agree, or it says exactly where they do not.

It reads only files and the database, never a counter of the program, and never through obs.segment or obs.pg. For a run of
numbered exchanges in tape mode (one record per input) that ended with an ordered stop:

I1  each sequence from 0 to the session's last is in the archive once, or in exactly one archive gap row; the same for the database
I2  segments decode whole, follow each other, match their manifest; each record is what its number says
I3  a row of the database equals the archive's record in every column; rows that one of both lacks lie in a gap row of that one
I4  what the exchange sent = what is archived + what gap rows name: per stretch between two archived records, in order
    (a stretch without a time gap must be missing exactly what archive gap rows count)
and the counts: messages = data + control + quarantined; inputs = trades + quotes + ignored; per symbol and minute, trades =
archived + lost; each gap line is one scalp_gaps row; quarantine lines account for every sequence of their ring.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psycopg
from evidence import GROUPS, RINGS, Files, Problems, Sent, number_of, read_sent

from obs.sim.numbered import k_of_acc_volume

MINUTE_NS = 60_000_000_000
_STOP_NS = 4_000_000_000  # from the wish to stop to the feed's last words: what was sent meanwhile may be unread
_SHOWN = 20
_COLUMNS = """
    bid_price::float8, ask_price::float8, bid_size::float8, ask_size::float8, last_price::float8, volume::float8, open::float8,
    high::float8, low::float8, acc_volume::float8, symbol, mitigation_level, quality_flag, kind, provider, market, venue, side,
    trades, quotes, venue_seq, phase, ts_ns, event_ns, recv_ns, flags, (extract(epoch FROM ts) * 1000000)::int8,
    (extract(epoch FROM event_time) * 1000000)::int8, (extract(epoch FROM receive_time) * 1000000)::int8, seq
"""


@dataclass
class Verdict:
    """What was found of one provider, for the test and for its report."""

    provider: str
    problems: Problems
    sessions: int = 0
    sent: int = 0
    archived: int = 0
    database: int = 0
    archive_lost: int = 0  # sequences in archive gap rows
    database_lost: int = 0
    invented: int = 0  # never sent, or stored twice
    unreceived: int = 0  # sent, and neither archived nor in a gap row of sequences: all inside time gaps
    unread_at_stop: int = 0
    inputs_lost: int = 0  # counted by a feed that died before it had published them
    unproven: list[str] = field(default_factory=list)
    gaps: Counter[str] = field(default_factory=Counter)  # reason/sink -> rows
    gap_lines: list[dict[str, Any]] = field(default_factory=list)
    quarantine: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    malformed: list[dict[str, Any]] = field(default_factory=list)  # as the exchange's log names them
    done: list[dict[str, Any]] = field(default_factory=list)  # what else the exchange's log says that it did
    unexplained: list[dict[str, Any]] = field(default_factory=list)  # steps of the venue's count that no other gap explains
    latency: list[tuple[int, int]] = field(default_factory=list)  # receive time, and how long after the exchange's own note of it

    def latency_ms(self, begun_ns: int, ended_ns: int) -> tuple[float, float]:
        """Return the median time from the exchange's log to our receive time, within a span and outside of it, in ms."""
        inside = [took for recv_ns, took in self.latency if begun_ns < recv_ns < ended_ns]
        outside = [took for recv_ns, took in self.latency if not begun_ns < recv_ns < ended_ns]
        return median(inside) / 1e6, median(outside) / 1e6

    def __str__(self) -> str:
        lost = f"archive_lost={self.archive_lost} database_lost={self.database_lost} unreceived={self.unreceived}"
        rest = f"{lost} at_stop={self.unread_at_stop} inputs_lost={self.inputs_lost} gaps={dict(self.gaps)}"
        return f"{self.provider}: sessions={self.sessions} sent={self.sent} archived={self.archived} database={self.database} {rest}"


def check(root: Path, dsn: str, providers: tuple[str, ...] = ("kis", "upbit")) -> dict[str, Verdict]:
    """Check everything; return a Verdict per provider. Raises AssertionError with the first problems of all."""
    verdicts = {}
    with psycopg.connect(dsn, autocommit=True) as conn:
        for provider in providers:
            verdicts[provider] = _Provider(root, provider, conn).judge()
    problems = [f"{name}: {problem}" for name, verdict in verdicts.items() for problem in verdict.problems]
    shown = "\n  ".join(problems[:_SHOWN])
    assert not problems, f"{len(problems)} problems:\n  {shown}\n" + "\n".join(map(str, verdicts.values()))
    return verdicts


class _Provider:
    """One provider of one data directory."""

    def __init__(self, root: Path, provider: str, conn: psycopg.Connection[Any]) -> None:
        self.files = Files(root, provider)
        self.sent = read_sent(root / "sim" / f"{provider}.jsonl", self.files)
        self.conn = conn
        self.say = self.files.problems.append
        self.verdict = Verdict(provider, self.files.problems, gap_lines=self.files.gaps, quarantine=self.files.quarantine)
        self.verdict.events, self.verdict.malformed, self.verdict.done = self.files.events, self.sent.malformed, self.sent.dos
        self.archive_gaps: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for gap in self.files.gaps:
            if gap["sink"] == "archive":
                self.archive_gaps[gap["session_id"], gap["ring"]].append(gap)

    def judge(self) -> Verdict:
        verdict = self.verdict
        verdict.sessions = len(self.files.sessions)
        verdict.gaps = Counter(f"{gap['reason']}/{gap['sink']}" for gap in self.files.gaps)
        for session_id, session in self.files.sessions.items():
            if session["ended"] is None:
                self.say(f"{session_id}: no end line after an ordered stop")
                continue
            for ring in RINGS:
                self._check_ring(session_id, ring, session["ended"].get(ring))
        for session_id in set(self.files.ticks) - set(self.files.sessions):
            self.say(f"{session_id}: records of a session that never began")
        self._check_copied_gaps()
        rows = self._check_database()
        self._check_sent(rows)
        self._check_counts()
        return verdict

    # --- I1, I2: the archive of each ring

    def _check_ring(self, session_id: str, ring: str, final: int | None) -> None:
        gaps = self.archive_gaps[session_id, ring]
        spans: list[tuple[int, int]] = []
        if ring == "tick":
            ticks = self.files.ticks[session_id]
            spans = runs(np.array(ticks.seq))
            self.verdict.archived += len(ticks.seq)
        elif ring in ("event", "poll_event"):
            of_ring = [event for event in self.files.events if event["session_id"] == session_id and event.get("event_ring") == ring]
            spans = runs(np.array([event["event_seq"] for event in of_ring], np.int64))
        elif ring == "quarantine":
            spans = [(line["first_seq"], line["last_seq"]) for line in self.files.quarantine if line["session_id"] == session_id]
        closed = [gap for gap in gaps if gap["last_seq"] is not None]
        for gap in closed:
            if gap["lost"] != gap["last_seq"] - gap["first_seq"] + 1:
                self.say(f"{session_id}/{ring}: lost differs from the sequences of {gap}")
            if ring == "tick":
                self.verdict.archive_lost += gap["lost"]
        spans += [(gap["first_seq"], gap["last_seq"]) for gap in closed]
        endless = [gap for gap in gaps if gap["last_seq"] is None]
        if final is None and len(endless) != 1:
            self.say(f"{session_id}/{ring}: neither a final sequence nor one gap row without an end: {endless}")
            return
        if final is None:
            if endless[0]["reason"] not in ("host_death", "ring_foreign") or endless[0]["lost"] is not None:
                self.say(f"{session_id}/{ring}: a gap without an end is host_death or ring_foreign, lost null: {endless[0]}")
            final = endless[0]["first_seq"] - 1
        for problem in coverage(spans, final):
            self.say(f"{session_id}/{ring} archive: {problem}")

    def _check_copied_gaps(self) -> None:
        """A gap line of a segment is in system/events once, and the other way round; every gap line is there once."""
        keys = Counter(gap_key(gap) for gap in self.files.gaps)
        for key, count in keys.items():
            if count > 1:
                self.say(f"gap line {key} is in system/events {count} times")
        in_segments = {gap_key(gap) for ticks in self.files.ticks.values() for gap in ticks.gaps}
        of_ticks = [gap for (_, ring), gaps in self.archive_gaps.items() if ring == "tick" for gap in gaps]
        closed = {gap_key(gap) for gap in of_ticks if gap["last_seq"] is not None}
        if in_segments != closed:
            self.say(f"archive gap lines of segments and of system/events differ: {in_segments ^ closed}")

    # --- I3: the database

    def _check_database(self) -> dict[str, np.ndarray]:
        """Compare rows with records; return the rows that the archive lacks, as (seq, symbol, k), by session."""
        stored = {gap_key(row): row for row in self._gap_rows()}
        told = {gap_key(gap): gap for gap in self.files.gaps}
        for key in set(told) ^ {key for key, row in stored.items() if row["sink"] != "database"}:
            self.say(f"gap {key} is only in {'system/events' if key in told else 'scalp_gaps'}")
        for key in set(told) & set(stored):
            if different := {name: (told[key][name], value) for name, value in stored[key].items() if told[key].get(name) != value}:
                self.say(f"gap {key} differs in scalp_gaps: {different}")
        extra = {}
        for session_id, session in self.files.sessions.items():
            own = [row for row in stored.values() if row["session_id"] == session_id and row["sink"] == "database"]
            extra[session_id] = self._check_rows(session_id, (session["ended"] or {}).get("tick"), own)
            row = self.conn.execute("SELECT ended_ns IS NOT NULL FROM sessions WHERE session_id = %s", [session_id]).fetchone()
            newest = session_id == list(self.files.sessions)[-1]  # its end line is written after the loader has gone
            if row is None or not (row[0] or newest):
                self.say(f"{session_id}: not ended in the table sessions: {row}")
        unknown = self.conn.execute(
            "SELECT DISTINCT session_id FROM scalp_ticks WHERE provider = %s AND session_id <> ALL(%s)",
            [self.files.provider, list(self.files.sessions)],
        ).fetchall()
        if unknown:
            self.say(f"rows of sessions that never began: {unknown}")
        return extra

    def _gap_rows(self) -> list[dict[str, Any]]:
        names = (
            "session_id", "provider", "ring", "sink", "first_seq", "last_seq", "lost", "reason", "scope", "symbol", "event_ring",
            "event_seq", "gap_start_ns", "gap_end_ns",
        )  # fmt: skip
        found = self.conn.execute(f"SELECT {', '.join(names)} FROM scalp_gaps WHERE provider = %s", [self.files.provider])
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def _check_rows(self, session_id: str, final: int | None, gaps: list[dict[str, Any]]) -> np.ndarray:
        ticks = self.files.ticks[session_id]
        archived = dict(zip(ticks.seq, ticks.value, strict=True))
        seqs, extra = array("q"), []
        with self.conn.transaction(), self.conn.cursor("rows") as cur:
            cur.itersize = 20_000
            cur.execute(f"SELECT {_COLUMNS} FROM scalp_ticks WHERE session_id = %s ORDER BY seq", [session_id])
            for row in cur:
                seqs.append(row[-1])
                expected = archived.get(row[-1])
                if expected is None:
                    extra.append(row)
                elif expected != hash((*row[:25], tuple(row[25]), *row[26:29])):
                    self.say(f"{session_id} seq {row[-1]}: the row differs from the archive: {row}")
        self.verdict.database += len(seqs)
        closed = [gap for gap in gaps if gap["last_seq"] is not None]
        self.verdict.database_lost += sum(gap["last_seq"] - gap["first_seq"] + 1 for gap in closed)
        spans = runs(np.array(seqs)) + [(gap["first_seq"], gap["last_seq"]) for gap in closed]
        if final is None:
            endless = [gap for gap in gaps if gap["last_seq"] is None]
            archive = [gap for gap in self.archive_gaps[session_id, "tick"] if gap["last_seq"] is None]
            if len(endless) != 1 or len(archive) != 1:
                self.say(f"{session_id}: expected one gap row without end, found {endless} in the database, {archive} in the archive")
                return np.empty((0, 3), np.int64)
            final = max(endless[0]["first_seq"], archive[0]["first_seq"]) - 1
        for problem in coverage(spans, final):
            self.say(f"{session_id} database: {problem}")
        self._check_database_gaps(session_id, closed)
        return self._extra_rows(session_id, extra)

    def _check_database_gaps(self, session_id: str, gaps: list[dict[str, Any]]) -> None:
        """A gap row of the database repeats an archive gap row, or names a row that lies in the rejected file."""
        archive = [gap for gap in self.archive_gaps[session_id, "tick"] if gap["last_seq"] is not None]
        rejected = {line["seq"] for line in self.files.rejected if line["session_id"] == session_id}
        for gap in gaps:
            if gap["reason"] == "db_rejected":
                if gap["first_seq"] not in rejected:
                    self.say(f"{session_id}: rejected row {gap['first_seq']} is not in the rejected file")
            elif not any(one["first_seq"] <= gap["first_seq"] and gap["last_seq"] <= one["last_seq"] for one in archive):
                self.say(f"{session_id}: a database gap that is no archive gap: {gap}")

    def _extra_rows(self, session_id: str, extra: list[tuple[Any, ...]]) -> np.ndarray:
        """Judge rows that the archive lacks: each in an archive gap, and each what its number says."""
        names = ("bid_price", "ask_price", "bid_size", "ask_size", "last_price", "volume", "open", "high", "low", "acc_volume", "symbol")
        later = ("mitigation_level", "quality_flag", "kind", "provider", "market", "venue", "side", "trades", "quotes", "venue_seq")
        found = []
        for row in extra:
            where = f"{session_id} seq {row[-1]} (only in the database)"
            gaps = self.archive_gaps[session_id, "tick"]
            if not any(gap["first_seq"] <= row[-1] and (gap["last_seq"] is None or row[-1] <= gap["last_seq"]) for gap in gaps):
                self.say(f"{where}: in no archive gap row")
            line = dict(zip((*names, *later), row, strict=False))
            found.append((row[-1], self.files.symbol(line["symbol"]), number_of(self.files.provider, line, self.files.problems, where)))
        return np.array(found, np.int64).reshape(-1, 3)

    # --- I4: the exchange's log

    def _check_sent(self, extra: dict[str, np.ndarray]) -> None:
        """Walk through the archive in order and explain every stretch of sent inputs that it does not hold."""
        sent = self.sent
        self.verdict.sent = len(sent.k)
        place = {pair: number for number, pair in enumerate(zip(sent.symbol, sent.k, strict=True))}
        if len(place) != len(sent.k):
            self.say("the exchange sent a number twice")
        seen: set[tuple[int, int]] = set()
        walk = _Walk(self, sent)
        for session_id in self.files.sessions:
            ticks = self.files.ticks[session_id]
            for index in np.argsort(np.array(ticks.seq, np.int64), kind="stable").tolist():
                pair = (ticks.symbol[index], ticks.k[index])
                at = place.get(pair)
                if at is None or pair in seen:
                    self.verdict.invented += 1
                    self.say(f"{session_id} seq {ticks.seq[index]}: {'stored twice' if pair in seen else 'never sent'}: k={pair[1]}")
                    continue
                seen.add(pair)
                walk.to(at, session_id, ticks.seq[index], ticks.recv_ns[index])
                self.verdict.latency.append((ticks.recv_ns[index], ticks.recv_ns[index] - sent.t_ns[at]))
            for seq, symbol, k in extra.get(session_id, []):
                if (symbol, k) in seen or (symbol, k) not in place:
                    self.verdict.invented += 1
                    self.say(f"{session_id} seq {seq} (only in the database): never sent, or stored twice: k={k}")
                seen.add((int(symbol), int(k)))
        walk.end()
        self._check_venue_counts()

    def _check_venue_counts(self) -> None:
        """A step of the venue's count lies between two archived trades that follow each other; what explains it is named."""
        places: dict[tuple[int, int], set[int]] = defaultdict(set)  # (session, symbol) -> numbers that the archive holds
        sessions = {session_id: number for number, session_id in enumerate(self.files.sessions)}
        steps = [gap for gap in self.files.gaps if gap["reason"] == "venue_count"]
        if steps:
            for session_id, ticks in self.files.ticks.items():
                for symbol, k in zip(ticks.symbol, ticks.k, strict=True):
                    places[sessions[session_id], symbol].add(k)
        for gap in steps:
            numbers = places[sessions[gap["session_id"]], self.files.symbol(gap["symbol"])]
            group = GROUPS[self.files.provider]
            before, after = (k_of_acc_volume(group, gap[f"acc_volume_{name}"]) for name in ("before", "after"))
            if after <= before + 1 or any(k in numbers for k in range(before + 1, after)):
                self.say(f"a step of the venue's count that is none: {gap}")
            if gap["inside"] is None:
                self.verdict.unexplained.append(gap)

    # --- the counts

    def _check_counts(self) -> None:
        counts = {}
        for event in self.files.events:
            if event["event_type"] == "counts":
                facts = {key: value for key, value in event.items() if key not in _EVENT_KEYS}
                key = (event["of_session"], event["n"], facts.get("symbol"))
                if counts.setdefault(key, facts) != facts and not self._repeated(counts[key], facts):
                    self.say(f"two counts of {key} that differ: {counts[key]} and {facts}")
        for key, facts in counts.items():
            if "messages" in facts:
                if facts["messages"] != facts["data"] + facts["control"] + facts["quarantined"]:
                    self.say(f"messages are not data + control + quarantined: {facts}")
                named = [other for other in counts if other[:2] == key[:2] and other[2] is not None]
                if len(named) != facts["symbols"] and not self._events_lost():
                    self.say(f"counts of {len(named)} symbols, told {facts['symbols']}: {key}")
            elif facts["inputs"] != facts["trades"] + facts["quotes"] + sum(facts["ignored"].values()):
                self.say(f"inputs are not trades + quotes + ignored: {facts}")
        if self._events_lost():
            self.verdict.unproven.append("counts: some lie in a gap of the event ring")
            return
        named = [facts for facts in counts.values() if "messages" not in facts]
        self.verdict.inputs_lost = sum(facts.get("lost_trades", 0) + facts.get("lost_quotes", 0) for facts in named)
        self._check_folded(named)
        self._check_quarantined([facts for facts in counts.values() if "messages" in facts])
        self._check_restart_lost()

    def _repeated(self, one: dict[str, Any], other: dict[str, Any]) -> bool:
        """The same bucket told twice, by two feeds that took over the same debt."""
        return {**one, **dict.fromkeys(_DEBT)} == {**other, **dict.fromkeys(_DEBT)}

    def _events_lost(self) -> bool:
        return any(gaps and ring == "event" for (_, ring), gaps in self.archive_gaps.items())

    def _check_folded(self, counts: list[dict[str, Any]]) -> None:
        """Per symbol and minute: folded inputs = trades of the archived records + what a dead feed never published."""
        told: Counter[tuple[str, int]] = Counter()
        for facts in counts:
            lost = facts.get("lost_trades", 0) + facts.get("lost_quotes", 0)
            told[facts["symbol"], facts["minute_ns"]] += facts["trades"] + facts["quotes"] - lost
        if any(gaps and ring == "tick" for (_, ring), gaps in self.archive_gaps.items()):
            # Which symbols the lost records were of, nobody knows: the sum must do; without an end not even that.
            endless = any(gap["last_seq"] is None for (_, ring), gaps in self.archive_gaps.items() if ring == "tick" for gap in gaps)
            total, found = sum(told.values()), self.verdict.archived + self.verdict.archive_lost
            if endless:
                self.verdict.unproven.append("counts: a ring was lost whole")
            elif total != found:
                self.say(f"folded inputs {total}, archived + archive gaps {found}")
            return
        found = Counter()
        names = {number: name for name, number in self.files.symbols.items()}
        for ticks in self.files.ticks.values():
            minutes = (np.array(ticks.ts_ns, np.int64) - 1) // MINUTE_NS * MINUTE_NS
            pairs, numbers = np.unique(np.stack([np.array(ticks.symbol, np.int64), minutes]), axis=1, return_counts=True)
            for (symbol, minute), number in zip(pairs.T.tolist(), numbers.tolist(), strict=True):
                found[names[symbol], minute] += number
        for key in sorted(set(told) | set(found)):
            if told[key] != found[key]:
                self.say(f"{key}: folded inputs {told[key]}, archived {found[key]}")

    def _check_quarantined(self, counts: list[dict[str, Any]]) -> None:
        told = sum(facts["quarantined"] - facts["lost_quarantined"] for facts in counts)
        found = sum(line["whole"] if "whole" in line else line["whole_messages"] for line in self.files.quarantine)
        if told != found and not any(gaps and ring == "quarantine" for (_, ring), gaps in self.archive_gaps.items()):
            self.say(f"messages quarantined: counted {told}, stored {found}")

    def _check_restart_lost(self) -> None:
        """Restart gaps name what dead feeds lost; those with the same start are one, the longest."""
        lost: dict[int, int] = {}
        for gap in self.files.gaps:
            if gap["reason"] == "restart":
                lost[gap["gap_start_ns"]] = max(lost.get(gap["gap_start_ns"], 0), gap["lost"])
        if sum(lost.values()) != self.verdict.inputs_lost:
            self.say(f"restart gaps have lost {sum(lost.values())} inputs, counts tell {self.verdict.inputs_lost}")


_EVENT_KEYS = ("event_type", "timestamp", "session_id", "provider", "event_ring", "event_seq", "ts_ns")
_LAST_NS = 2 * 10**9  # between the last record and the last message of a feed, and the interval in which it died
_NEVER = 2**62  # when nothing more was received
_DEBT = ("lost_trades", "lost_quotes", "lost_quarantined", "tick_seq")


class _Walk:
    """Goes through what was sent in the order of the archive."""

    def __init__(self, owner: _Provider, sent: Sent) -> None:
        self._owner, self._sent = owner, sent
        self._at, self._session, self._seq, self._recv_ns = -1, "", -1, 0
        gaps = owner.files.gaps
        self._spans = sorted(
            (gap["gap_start_ns"], gap["gap_end_ns"], gap["lost"] or 0, gap["reason"]) for gap in gaps
            if (gap["sink"] is None and gap["reason"] != "venue_count" and gap["symbol"] is None) or gap["last_seq"] is None
        )  # fmt: skip
        events = owner.files.events
        self._stops = [event["ts_ns"] for event in events if event["event_type"] == "lifecycle" and event["what"] == "feed_stopped"]

    def to(self, at: int, session: str, seq: int, recv_ns: int) -> None:
        """The next archived record is input number `at` of those sent."""
        if at <= self._at:
            self._owner.say(f"{session} seq {seq}: out of order, sent before its predecessor")
            return
        if at != self._at + 1:
            skipped = seq - self._seq - 1 if session == self._session else seq + self._rest()
            self._explain(at, skipped, recv_ns)
        self._at, self._session, self._seq, self._recv_ns = at, session, seq, recv_ns

    def _rest(self) -> int:
        """Sequences behind the last archived one of a session that is over."""
        ended = self._owner.files.sessions[self._session]["ended"] if self._session else None
        return (ended or {}).get("tick", self._seq) - self._seq if self._session else 0

    def end(self) -> None:
        if self._at + 1 < len(self._sent.k):
            self._explain(len(self._sent.k), self._rest(), _NEVER)

    def _explain(self, at: int, skipped: int, recv_ns: int) -> None:
        """Explain the inputs behind self._at and before `at`, between two receive times; `skipped`: sequences in gap rows."""
        missing = at - self._at - 1
        verdict = self._owner.verdict
        if missing == skipped:
            return
        if missing < skipped:
            self._owner.say(f"gap rows name {skipped} records behind seq {self._seq}, but only {missing} inputs are missing")
            return
        where = f"{missing} inputs sent behind {self._session} seq {self._seq} ({self._recv_ns}..{recv_ns}), {skipped} in archive gaps"
        if self._in_a_gap(recv_ns):
            verdict.unreceived += missing - skipped
        elif recv_ns == _NEVER and self._at_a_stop(at - (missing - skipped), at):
            verdict.unread_at_stop += missing - skipped
        else:
            self._owner.say(f"no gap row explains {where}")

    def _in_a_gap(self, recv_ns: int) -> bool:
        """Whether a gap lies between the two; one that has lost what was received begins no later than the record before.

        One of an ordered stop begins with the last message, which in a flood of numbered ones is not much later.
        """
        between = [(start, lost, reason) for start, end, lost, reason in self._spans if min(end, recv_ns) > max(start, self._recv_ns)]
        if any(lost for _, lost, _ in between):
            return min(between)[0] <= self._recv_ns
        if between and all(reason == "restart" for *_, reason in between):
            return min(between)[0] <= self._recv_ns + _LAST_NS
        return bool(between)

    def _at_a_stop(self, first: int, after: int) -> bool:
        """Whether these were on their way when the feed was asked to stop for the last time, and closed by it in order."""
        times = self._sent.t_ns[first:after]
        ends = {self._sent.ends.get(conn, {}).get("why") for conn in set(self._sent.conn[first:after])}
        asked = any(stop - _STOP_NS < times[0] and times[-1] <= stop and self._recv_ns <= stop for stop in self._stops)
        return asked and ends <= {"client closed", "client gone"}


def gap_key(gap: dict[str, Any]) -> tuple[Any, ...]:
    """The identity of a gap row, as the format defines it."""
    if gap["sink"] is None:
        return (gap["session_id"], gap["event_ring"], gap["event_seq"])
    return (gap["session_id"], gap["ring"], gap["sink"], gap["first_seq"])


def runs(seqs: np.ndarray) -> list[tuple[int, int]]:
    """Return the runs of consecutive numbers among `seqs` (n,); a number that is there twice makes runs that overlap."""
    if not len(seqs):
        return []
    ordered = np.sort(seqs)
    breaks = np.flatnonzero(np.diff(ordered) != 1)
    starts, stops = [0, *(breaks + 1).tolist()], [*breaks.tolist(), len(ordered) - 1]
    return [(int(ordered[start]), int(ordered[stop])) for start, stop in zip(starts, stops, strict=True)]


def coverage(spans: list[tuple[int, int]], final: int) -> list[str]:
    """Say where `spans` do not cover 0..final exactly once."""
    problems, following = [], 0
    for first, last in sorted(spans):
        if first != following:
            problems.append(f"{following}..{first - 1} is missing" if first > following else f"{first}..{following - 1} is there twice")
        following = max(following, last + 1)
    if following != final + 1:
        problems.append(f"ends at {following - 1}, the last published is {final}")
    return problems[:5]

