"""How much of each minute of a symbol was recorded, from its bars and the gaps that concern it: one answer for every page.

A bar alone does not know. Records are sampled while the venue is silent, so a mute minute has all its records and nothing was heard
in it; and a minute that was lost as a whole has no bar at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from obs.clock import MINUTE_NS, NS

_WHOLE_NS: Final = MINUTE_NS - NS // 10  # of a minute: nothing can have been recorded in it
_Span = tuple[int, int]  # ns


def coverage_of(bars: Mapping[int, float | None], gaps: Iterable[_Span], start_ns: int) -> dict[int, float]:
    """Return minute -> the part of it that was recorded, 0..1; minutes count from `start_ns` on.

    bars: minute -> its coverage_ratio, None where nothing can be said (tape mode). gaps: the spans (ns) that concern the symbol, its
    own and those of all symbols; they may overlap. A minute with a bar has at most what no gap took of it. A minute without one,
    between the first and the last bar, counts 0 if it lies wholly in gaps; of any other nothing is known: it may have had no slot.
    """
    found = {minute: ratio for minute, ratio in bars.items() if ratio is not None}
    if not found:
        return {}
    for minute, lost_ns in _lost(joined(gaps), start_ns, min(bars), max(bars)).items():
        if minute in found:
            found[minute] = min(found[minute], 1 - lost_ns / MINUTE_NS)
        elif minute not in bars and lost_ns >= _WHOLE_NS:
            found[minute] = 0.0
    return found


def mean_of(covered: Mapping[int, float]) -> float | None:
    """Return the mean over the minutes of which something is known, None if there are none."""
    return round(sum(covered.values()) / len(covered), 4) if covered else None


def worst_of(covered: Mapping[int, float]) -> float | None:
    """Return the coverage of the worst minute, None if there is none."""
    return round(min(covered.values()), 4) if covered else None


def joined(spans: Iterable[_Span]) -> list[_Span]:
    """Return the same time as spans that neither overlap nor touch, in order; those without length are left out."""
    found: list[_Span] = []
    for start, end in sorted(span for span in spans if span[1] > span[0]):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _lost(spans: Iterable[_Span], start_ns: int, first: int, last: int) -> dict[int, int]:
    """Return how many ns of each minute, from the first to the last, lie in joined spans."""
    lost: dict[int, int] = {}
    begin, finish = start_ns + first * MINUTE_NS, start_ns + (last + 1) * MINUTE_NS
    for start, end in spans:
        at, until = max(start, begin), min(end, finish)
        while at < until:
            minute = (at - start_ns) // MINUTE_NS
            edge = min(until, start_ns + (minute + 1) * MINUTE_NS)
            lost[minute] = lost.get(minute, 0) + edge - at
            at = edge
    return lost
