"""MEANING: what a venue's bytes say, and which bytes to send it. Pure functions, no I/O, no clock.

In: payloads, receive times, options, tokens as values. Out: INPUT rows, faults, control answers, requests as values.
Invariant: whatever a payload holds, `decode` gives rows, faults or DecodeError and nothing else; a number that was not
written as a plain decimal never reaches a row. Imports only obs.errors, obs.record and libraries without I/O.
"""

from __future__ import annotations

__all__: list[str] = []
