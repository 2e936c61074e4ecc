"""DO ALL FATES ADD UP: the proof of P1 and P4, from the files and the database alone.

Input: a configuration (where the data lies) and a DSN. Output: a Report that names every difference with minute, provider,
symbol, stage, what was expected and what was found. Shared memory is asked one thing only: how far a running session is.
    events    system/events: what the event rings say, counts and gaps among it        quarantine  its files
    archive   segments: files judged, their records streamed                           database    its rows, compared
    counts    inputs and messages against their fates, by minute                       rings       sequences against their fates
    spans     sets of sequences                                                        report      the verdict, shown
Memory: segments and rows are streamed; what is kept is one line of numbers per symbol and minute, the gap rows, and runs
of sequences.
"""

from __future__ import annotations

from obs.monitor.audit.main import run
from obs.monitor.audit.report import Report

__all__ = ["Report", "run"]
