"""HOW IT IS: what runs now, whether it is healthy, and the proof of what was recorded.

Input: the configuration, files below the data directory, the database, and (of what runs now) counters, boards and ring
headers in shared memory. Output: plain values, a verdict with reasons, metrics, a ledger. Invariants: nothing here writes
where others read, and nothing that is watched waits for the watcher.
    view     shared memory to plain values          health   values to a verdict: pure
    metrics  values to Prometheus families          status   values and verdict for `obs status`
    audit    the proof, from files and database alone
May import: errors, clock, record, shm, ring, market, segment, pg, config, log, ledger.
"""

from __future__ import annotations

__all__: list[str] = []
