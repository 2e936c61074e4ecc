"""The archive on disk: zstd JSONL segments, plain-text logs, session and quarantine files; knows no rings.

Input: lines with their sequences and times, from a role. Output: files that stock tools read, an index of them, and lines again.
Invariants: a sequence counts as archived only when its bytes and every name above them are fsynced; any prefix of a segment
that ends with a whole frame reads alone; a sealed file never changes; nothing is written over; nothing damaged is deleted.
    format      the file format, frame functions, names         writer    lines to segments
    reader      frames, lines, verify, index                    cursor    follow one session's segments
    recover     what a crash left                               manifest  one line per sealed segment
    textlog     day files of plain lines                        sessions  starts and ends
    quarantine  unreadable bytes                                disk      every disk call
May import: errors, clock, record.
"""

from __future__ import annotations

__all__: list[str] = []
