"""The verdict of an audit, as JSON and as a ledger that a person reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from obs.monitor.audit.counts import Totals
from obs.monitor.audit.findings import Findings, minute_text
from obs.monitor.audit.rings import RingLedger

_SHOWN: Final = 20  # differences spelled out on a terminal


@dataclass
class ProviderLedger:
    """The figures of one provider. `waiting`: gap markers that are not in the database yet."""

    provider: str
    sessions: int = 0
    totals: Totals = field(default_factory=Totals)
    rings: dict[str, RingLedger] = field(default_factory=dict)
    gaps: Counter[str] = field(default_factory=Counter)
    segments: int = 0
    waiting: int = 0
    restart_lost: int = 0

    @property
    def holds_anything(self) -> bool:
        """Whether anything of this provider is recorded in what was judged."""
        rings = any(ring.published or ring.archived for ring in self.rings.values())
        return bool(self.totals.minutes or self.segments or self.gaps or rings)

    def to_json(self) -> dict[str, Any]:
        total = self.totals
        return {
            "sessions": self.sessions, "minutes": total.minutes, "messages": total.messages, "data": total.data,
            "control": total.control, "quarantined": total.quarantined, "inputs": total.inputs,
            "folded": total.trades + total.quotes, "ignored": total.ignored, "lost": total.lost, "restart_lost": self.restart_lost,
            "rings": {name: dict(vars(ring)) for name, ring in self.rings.items()}, "gaps": dict(self.gaps),
            "gap_markers_waiting": self.waiting, "segments": self.segments,
        }  # fmt: skip


@dataclass
class Report:
    """A finished audit. `ok` None: nothing wrong was found, but not everything could be judged; `unknown` says why."""

    findings: Findings
    providers: list[ProviderLedger]
    day: str | None
    seconds: float = 0.0
    ok: bool | None = field(init=False)

    def __post_init__(self) -> None:
        self.ok = self.findings.ok

    def _span(self) -> tuple[str | None, str | None]:
        judged = [ledger.totals for ledger in self.providers if ledger.totals.minutes]
        if not judged:
            return None, None
        first = min(total.first_minute_ns for total in judged)
        return minute_text(first), minute_text(max(total.last_minute_ns for total in judged) + 60 * 10**9)

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as other programs read it. Minutes are named by their start M and cover (M, M + 60 s]."""
        first, last = self._span()
        ledgers = {ledger.provider: ledger.to_json() for ledger in self.providers}
        names = ("messages", "data", "control", "quarantined", "inputs", "folded", "lost")
        rings = ("published", "archived", "archive_gaps", "in_flight", "loaded", "database_gaps", "not_loaded")
        totals: dict[str, Any] = {name: sum(one[name] for one in ledgers.values()) for name in names}
        totals["ignored"] = sum(sum(one["ignored"].values()) for one in ledgers.values())
        totals |= {name: sum(ring[name] for one in ledgers.values() for ring in one["rings"].values()) for name in rings}
        return {
            "ok": self.ok, "from": first, "to": last, "date": self.day, "totals": {**totals, "providers": ledgers},
            "mismatches": self.findings.mismatches, "mismatch_count": self.findings.total("mismatch"),
            "unproven": self.findings.unproven, "unproven_count": self.findings.total("unproven"),
            "unknown": self.findings.unknown, "notes": self.findings.notes, "seconds": round(self.seconds, 2),
        }  # fmt: skip

    def lines(self) -> list[str]:
        """Return the ledger as a table, the verdict as its last line."""
        first, last = self._span()
        span = f"{first} to {last}" if first else "no minute is judged"
        lines = [f"LEDGER  {span}" + (f"  (path date {self.day})" if self.day else "")]
        for ledger in self.providers:
            lines += ["", *_provider_lines(ledger)]
        lines += ["", *self._finding_lines()]
        return [*lines, self.verdict()]

    def _finding_lines(self) -> list[str]:
        found, lines = self.findings, []
        lines += [f"note      {note}" for note in found.notes]
        groups = Counter((one["provider"], one["minute"] or "", one["stage"], one["why"]) for one in found.unproven)
        for (provider, minute, stage, why), number in groups.most_common(_SHOWN):
            lines.append(f"unproven  {provider} {minute} {stage}: {why}" + (f" ({number} symbols)" if number > 1 else ""))
        if (rest := len(groups) - _SHOWN) > 0 or found.total("unproven") > len(found.unproven):
            lines.append(f"unproven  … {max(rest, 0)} more kinds, {found.total('unproven')} items in all (obs audit --json)")
        for one in found.mismatches[:_SHOWN]:
            lines.append(f"MISMATCH  {_mismatch_text(one)}")
        if found.total("mismatch") > _SHOWN:
            lines.append(f"MISMATCH  … {found.total('mismatch') - _SHOWN} more (obs audit --json lists them)")
        lines += [f"UNKNOWN   {why}" for why in found.unknown]
        return lines

    def verdict(self) -> str:
        """Return one line: closes, does not close, or could not be judged."""
        count, unproven = self.findings.total("mismatch"), self.findings.total("unproven")
        rest = f", {unproven} unproven (in gaps)" if unproven else ""
        if self.ok:
            return f"LEDGER CLOSES{rest} ({self.seconds:.1f} s)"
        if self.ok is None:
            return f"LEDGER COULD NOT BE JUDGED WHOLLY: no mismatch found{rest} ({self.seconds:.1f} s)"
        return f"LEDGER DOES NOT CLOSE: {count} mismatches{rest} ({self.seconds:.1f} s)"


def _provider_lines(ledger: ProviderLedger) -> list[str]:
    total = ledger.totals
    ignored, gaps = _causes(total.ignored), _causes(ledger.gaps)
    head = ("ring", "published", "archived", "archive gaps", "in flight", "loaded", "database gaps", "not loaded yet")
    rows = []
    for name, ring in ledger.rings.items():
        both = (ring.loaded, ring.database_gaps, ring.not_loaded) if name in ("tick", "swing") else (None, None, None)
        rows.append((name, ring.published, ring.archived, ring.archive_gaps, ring.in_flight, *both))
    return [
        f"{ledger.provider}: {ledger.sessions} sessions, {total.minutes} minutes judged, {ledger.segments} segments",
        f"  messages {total.messages:,} = data {total.data:,} + control {total.control:,} + quarantined {total.quarantined:,}",
        f"  inputs {total.inputs:,} = folded {total.trades + total.quotes:,} (trades {total.trades:,}, quotes {total.quotes:,}; "
        f"lost with a dead feed {total.lost:,}) + ignored {sum(total.ignored.values()):,} ({ignored})",
        *(f"  {line}" for line in _table(head, rows)),
        f"  gap rows: {gaps}",
    ]


def _causes(counts: Mapping[str, int]) -> str:
    """Return causes and how often each, the largest first."""
    return ", ".join(f"{name} {number:,}" for name, number in sorted(counts.items(), key=lambda one: (-one[1], one[0]))) or "none"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    cells = [list(head), *[[_cell(value) for value in row] for row in rows]]
    widths = [max(len(row[at]) for row in cells) for at in range(len(head))]
    padded = [[row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))] for row in cells]
    return ["  ".join(row) for row in padded]


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _mismatch_text(one: dict[str, Any]) -> str:
    place = " ".join(str(one[name]) for name in ("provider", "minute", "symbol", "ring", "session_id") if one.get(name))
    if "first_seq" in one and "last_seq" in one:
        where = f"seq {one['first_seq']}..{one['last_seq']}"
    else:
        where = " ".join(f"{name} {one[name]}" for name in ("seq", "field", "path", "bucket") if name in one)
    expected, found = (str(one[name])[:120] for name in ("expected", "found"))
    return f"{one['stage']}: {place} {where}: {one.get('what', '')}: expected {expected}, found {found}"
