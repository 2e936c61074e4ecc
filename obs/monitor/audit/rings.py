"""Every sequence of a ring has exactly one fate: in the archive or in an archive gap; in the database or in a database gap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from obs.monitor.audit.findings import Findings
from obs.monitor.audit.spans import END, Runs, Span, count, intersect, merge, overlaps, shown, subtract, within


@dataclass
class RingLedger:
    """The fates of one ring's records, added up over sessions. loaded and database_gaps: of tick and swing alone."""

    published: int = 0
    archived: int = 0
    archive_gaps: int = 0
    in_flight: int = 0
    loaded: int = 0
    database_gaps: int = 0
    not_loaded: int = 0

    def add(self, other: RingLedger) -> None:
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class Place:
    """Which ring a finding speaks of."""

    findings: Findings
    provider: str
    session_id: str
    ring: str

    def wrong(self, stage: str, expected: Any, found: Any, what: str, **facts: Any) -> None:
        self.findings.mismatch(self.provider, stage, expected, found, session_id=self.session_id, ring=self.ring, what=what, **facts)


@dataclass
class Known:
    """What is known of one ring of one session. `gaps`: its archive gap lines. `final`: last sequence published.

    final None: the ring has no end line; it runs, or died with its host, which a gap line without an end tells.
    """

    archived: Runs
    gaps: list[Mapping[str, Any]]
    final: int | None
    ended: bool
    published: int = 0  # of a running one, from its header
    durable: int = 0  # of it: so many are archived, by the word of the archive writer before its segments were read
    first: int = 0  # sequences before it are not judged
    last: int | None = None  # sequences behind it are not judged
    holes: list[Span] = field(default_factory=list)


def gap_spans(gaps: Iterable[Mapping[str, Any]]) -> list[Span]:
    """Return the spans of gap lines as they stand; one without an end reaches to END."""
    return [(int(gap["first_seq"]), END if gap["last_seq"] is None else int(gap["last_seq"])) for gap in gaps]


def judge_archived(place: Place, known: Known) -> RingLedger:
    """Prove that every sequence is archived or in an archive gap, once; leave those that are neither in `known.holes`."""
    archived, spans = known.archived.spans(), gap_spans(known.gaps)
    gaps = merge(spans)
    for span in known.archived.twice():
        place.wrong("archived", 1, 2, "archived more than once", first_seq=span[0], last_seq=span[1])
    for span in overlaps(spans):
        place.wrong("archived", 1, 2, "in more than one archive gap", first_seq=span[0], last_seq=span[1])
    for span in intersect(archived, gaps):
        place.wrong("archived", 1, 2, "archived, and in an archive gap", first_seq=span[0], last_seq=span[1])
    final = _final(place, known, archived, gaps)
    covered = merge([*archived, *gaps])
    last = final if known.last is None else min(final, known.last)
    known.holes = subtract([(known.first, last)] if last >= known.first else [], covered)
    for low, high in known.holes:
        place.wrong(
            "archived", high - low + 1, 0, "neither archived nor in an archive gap", first_seq=low, last_seq=high
        )
    if known.ended:
        for low, high in within(subtract(archived, gaps), final + 1, END):
            place.wrong(
                "archived", 0, high - low + 1, "behind the final sequence", first_seq=low, last_seq=high
            )
    if known.last is None and not known.ended and known.durable > final + 1:
        known.holes.append((final + 1, known.durable - 1))
        place.wrong(
            "archived", known.durable - final - 1, 0, "archived by the word of the archive writer, and not there",
            first_seq=final + 1, last_seq=known.durable - 1,
        )  # fmt: skip
    inside, lost = count(within(archived, known.first, last)), count(within(gaps, known.first, last))
    published = max(0, last - known.first + 1)
    if not known.ended and known.last is None:
        published += max(0, known.published - final - 1)
    return RingLedger(published, inside, lost, in_flight=published - inside - lost - count(known.holes))


def _final(place: Place, known: Known, archived: list[Span], gaps: list[Span]) -> int:
    """Return the last sequence that was published, as far as is known."""
    if known.final is not None:
        return known.final
    if gaps and gaps[-1][1] >= END:
        return gaps[-1][0] - 1  # it died with its host: published is what was archived, and the gap says the rest
    highest = max((span[-1][1] for span in (archived, gaps) if span), default=-1)
    if known.ended:
        place.wrong("archived", "a final sequence or a gap row", None, "the ended session says nothing of this ring")
    return highest


@dataclass
class LoadKnown:
    """What is known of a ring's way into the database. `limit`: the last sequence that must have a fate there."""

    stored: Runs
    gaps: list[dict[str, Any]]  # database gap rows of this session
    first: int
    limit: int
    finished: bool  # the loader has ended this session: nothing more will come
    rejected: set[tuple[str, str, int]]


def judge_loaded(place: Place, archive: Known, load: LoadKnown, named: list[Span]) -> RingLedger:
    """Prove that every sequence up to the limit is a row or in a database gap, once, and that the gaps have their reasons.

    `named`: sequences whose rows are missing, named already.
    """
    stored = load.stored.spans()
    spans = [span for span in gap_spans(load.gaps) if span[0] <= load.limit or span[1] >= END]
    gaps = merge(spans)
    for span in load.stored.twice():
        place.wrong("loaded", 1, 2, "stored more than once", first_seq=span[0], last_seq=span[1])
    for span in [*overlaps(spans), *intersect(stored, gaps)]:
        place.wrong("loaded", 1, 2, "in two places of the database", first_seq=span[0], last_seq=span[1])
    judged = [(load.first, load.limit)] if load.limit >= load.first else []
    for low, high in subtract(subtract(judged, merge([*stored, *gaps])), merge(named)):
        place.wrong(
            "loaded", high - low + 1, 0, "neither a row nor in a database gap row", first_seq=low, last_seq=high
        )
    for gap in load.gaps:
        if gap["last_seq"] is None or gap["first_seq"] <= load.limit:
            _judge_reason(place, gap, archive, load)
    if load.finished and archive.final is None and gap_spans(archive.gaps) and max(gap_spans(archive.gaps))[1] >= END:
        _judge_host_death(place, archive, load, stored)
    rows = count(within(stored, load.first, load.limit))
    missing = count(within(gaps, load.first, load.limit))
    return RingLedger(loaded=rows, database_gaps=missing)


def _judge_reason(place: Place, gap: dict[str, Any], archive: Known, load: LoadKnown) -> None:
    """A database gap repeats the archive's, or is a refused row that is kept beside the archive."""
    (span,) = gap_spans([gap])
    if gap["reason"] == "db_rejected":
        for seq in range(span[0], span[1] + 1):
            if (place.session_id, place.ring, seq) not in load.rejected:
                place.wrong("loaded", "a line in the rejected file", None, "a refused row that is not kept", first_seq=seq, last_seq=seq)
        return
    same = [line for line in archive.gaps if line["reason"] == gap["reason"]]
    free = subtract(subtract([span], merge(gap_spans(same))), archive.holes)
    if free:
        place.wrong(
            "loaded", "an archive gap row with the same reason", gap["reason"], "a database gap that the archive does not have",
            spans=shown(free), first_seq=free[0][0], last_seq=free[-1][1],
        )  # fmt: skip


def _judge_host_death(place: Place, archive: Known, load: LoadKnown, stored: list[Span]) -> None:
    """The database's row begins behind all that is archived or loaded. A swing ring of which nothing is has none: see the loader."""
    expected = max([span[-1][1] for span in (archive.archived.spans(), stored) if span], default=-1) + 1
    if expected == 0 and place.ring != "tick" and not load.gaps:
        return
    found = [gap["first_seq"] for gap in load.gaps if gap["last_seq"] is None]
    if found != [expected]:
        place.wrong("gap_rows", [expected], found, "first_seq of the database gap row of a ring that died with its host")
