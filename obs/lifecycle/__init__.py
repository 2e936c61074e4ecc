"""WHAT BECOMES OF A DAY: whether it was out of the ordinary, and with that how long it is kept.

Input: the lines of system/events, figures of the host, what a person says. Output: marks, kept in a log of their own. Invariant: a
mark is evidence: what the program has marked is never taken back, what a person has marked only by a person.
    days     evidence to reasons: pure
    marks    the log of marks of one provider
May import: errors, clock, record, market, segment, config, log.
"""

from __future__ import annotations

__all__: list[str] = []
