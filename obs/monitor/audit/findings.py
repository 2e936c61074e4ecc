"""What an audit finds: differences, what cannot be proven, and what an operator should read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from obs.record.events import iso_ms

NAMED: Final = 200  # differences listed of one provider and stage; the rest is counted


def minute_text(minute_ns: int | None) -> str | None:
    return None if minute_ns is None else iso_ms(minute_ns)


@dataclass
class Findings:
    """Of all providers. Stages: segment, archived, loaded, value, gap_rows, counts, messages, inputs, folded, lost, quarantined."""

    mismatches: list[dict[str, Any]] = field(default_factory=list)
    unproven: list[dict[str, Any]] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)  # why no verdict can be given although nothing wrong was found
    notes: list[str] = field(default_factory=list)
    counted: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # (kind, provider, stage)

    def mismatch(
        self, provider: str, stage: str, expected: Any, found: Any, *, minute_ns: int | None = None, symbol: str | None = None, **facts: Any
    ) -> None:
        """Note one difference. `facts`: what else names it (session_id, ring, seq, path, …)."""
        self.counted["mismatch", provider, stage] += 1
        if self.counted["mismatch", provider, stage] <= NAMED:
            self.mismatches.append({
                "minute": minute_text(minute_ns), "provider": provider, "symbol": symbol, "stage": stage, "expected": expected,
                "found": found, **facts,
            })  # fmt: skip

    def cannot_prove(
        self, provider: str, stage: str, why: str, *, minute_ns: int | None = None, symbol: str | None = None, **facts: Any
    ) -> None:
        """Note what lies in a gap and can therefore be neither proven nor called wrong."""
        self.counted["unproven", provider, stage] += 1
        if self.counted["unproven", provider, stage] <= NAMED:
            self.unproven.append(
                {"minute": minute_text(minute_ns), "provider": provider, "symbol": symbol, "stage": stage, "why": why, **facts}
            )

    def total(self, kind: str) -> int:
        """Return how many mismatches ("mismatch") or unproven items ("unproven") there are, listed or not."""
        return sum(number for (one, _, _), number in self.counted.items() if one == kind)

    @property
    def ok(self) -> bool | None:
        """False: something is wrong. None: nothing is, as far as could be judged. True: everything adds up."""
        if self.total("mismatch"):
            return False
        return None if self.unknown else True
