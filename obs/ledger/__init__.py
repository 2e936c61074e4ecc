"""DO THE FATES ADD UP: the counts of what came in, kept in shared memory that outlives the feed, and their identities.

Input: INPUT rows before sampling. Output: counts events, and what a dead feed owes. Invariants: the counts are read whole
and consistent, whenever their writer dies. May import obs.record, obs.shm.
"""

from obs.ledger.intake import Intake, Snapshot, broken_identity, counts_payloads, read

__all__ = ["Intake", "Snapshot", "broken_identity", "counts_payloads", "read"]
