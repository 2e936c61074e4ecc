"""HOW records cross processes: a ring of fixed-size records in shared memory, one producer, several consumers.

Input: rows of one dtype of obs.record. Output: the same rows in another process, and the exact number of those that
were overwritten before they were read. Invariants: the producer never waits; `claimed` never goes down; a consumer
returns only rows that cannot have been overwritten meanwhile. May import obs.errors, obs.clock, obs.record, obs.shm.
"""

from obs.ring.consumer import Batch, Consumer, copy_rows
from obs.ring.layout import CONSUMERS, Ring, attach_ring, create_ring
from obs.ring.order import fence
from obs.ring.producer import Producer

__all__ = ["CONSUMERS", "Batch", "Consumer", "Producer", "Ring", "attach_ring", "copy_rows", "create_ring", "fence"]
