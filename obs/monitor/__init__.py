"""HOW IT IS: what runs now, whether it is healthy, and the proof of what was recorded.

Input: the configuration, files below the data directory, the database, and (of what runs now) counters, boards and ring
headers in shared memory. Output: plain values, a verdict with reasons, metrics, a ledger. Invariants: nothing here writes
where others read, and nothing that is watched waits for the watcher.
    view     shared memory to plain values          health   values to a verdict: pure
    metrics  values to Prometheus families          status   values and verdict for `obs status` and the pages
    trend    how fast, and since when               live     what the feeds publish, as it comes
    slots    who has a slot, and why                gaps     what could not be recorded, as lines and as a map
    notices  event files, read on                   day      one day as its page shows it
    access   who may ask: pure                      web      the pages themselves
    tallies  events counted for the metrics             losing   what is being lost right now
    past     figures of the last minutes
    audit    the proof, from files and database alone
May import: errors, clock, record, shm, ring, market, segment, pg, config, log, ledger.
"""

from __future__ import annotations

__all__: list[str] = []
