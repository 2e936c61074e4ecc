"""Sets of sequences as sorted, disjoint, inclusive (first, last) spans: pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

Span = tuple[int, int]
END: Final = 2**62  # the last sequence of a span whose end is not known


class Runs:
    """Collects sequences as they come, mostly ascending, and remembers those that came twice."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._sorted = True

    def add(self, first: int, last: int) -> None:
        """Take the sequences first .. last."""
        spans = self._spans
        if spans:
            low, high = spans[-1]
            if first == high + 1:
                spans[-1] = (low, last)
                return
            self._sorted = self._sorted and first > high
        spans.append((first, last))

    def spans(self) -> list[Span]:
        """Return what came, each sequence once."""
        return list(self._spans) if self._sorted else merge(self._spans)

    def twice(self) -> list[Span]:
        """Return what came more than once."""
        return [] if self._sorted else overlaps(self._spans)


def merge(spans: Iterable[Span]) -> list[Span]:
    """Return any spans sorted, joined where they touch or overlap."""
    out: list[Span] = []
    for first, last in sorted(spans):
        if out and first <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(out[-1][1], last))
        else:
            out.append((first, last))
    return out


def overlaps(spans: Iterable[Span]) -> list[Span]:
    """Return the sequences that lie in more than one of the spans given."""
    out: list[Span] = []
    end = -END
    for first, last in sorted(spans):
        if first <= end:
            out.append((first, min(last, end)))
        end = max(end, last)
    return merge(out)


def subtract(spans: Iterable[Span], others: Iterable[Span]) -> list[Span]:
    """Return what is in `spans` and not in `others`; both sorted and disjoint."""
    out: list[Span] = []
    taken = list(others)
    at = 0
    for low, last in spans:
        first = low
        while at < len(taken) and taken[at][1] < first:
            at += 1
        place = at
        while first <= last and place < len(taken) and taken[place][0] <= last:
            if taken[place][0] > first:
                out.append((first, taken[place][0] - 1))
            first = taken[place][1] + 1
            place += 1
        if first <= last:
            out.append((first, last))
    return out


def intersect(spans: Iterable[Span], others: Iterable[Span]) -> list[Span]:
    """Return what is in both; both sorted and disjoint."""
    kept = list(spans)
    return subtract(kept, subtract(kept, others))


def within(spans: Iterable[Span], first: int, last: int) -> list[Span]:
    """Return the part of `spans` that lies in first .. last."""
    return [(max(low, first), min(high, last)) for low, high in spans if low <= last and high >= first]


def count(spans: Iterable[Span]) -> int:
    """Return how many sequences `spans` hold; they have ends."""
    return sum(last - first + 1 for first, last in spans)


def shown(spans: Iterable[Span], most: int = 5) -> str:
    """Return "3, 7..9" for a message."""
    listed = list(spans)
    texts = [str(low) if low == high else f"{low}.." if high >= END else f"{low}..{high}" for low, high in listed[:most]]
    if len(listed) > most:
        texts.append(f"and {len(listed) - most} more spans")
    return ", ".join(texts)
