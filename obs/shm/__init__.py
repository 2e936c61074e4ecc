"""WHERE shared bytes live: files in a memory file system, allocated whole, mapped, never tracked.

Input: a folder, names, sizes. Output: mappings that outlive every process, and one-writer cells inside them.
Invariants: a block is complete when its name exists; one process writes a cell, any number read it; a writer killed at
any instruction leaves the previous value readable. May import obs.errors and obs.clock.
"""

from obs.shm.block import Block, attach, block_path, create, remove
from obs.shm.board import Board, Cell
from obs.shm.counters import ROLE_CELL, Counters

__all__ = ["ROLE_CELL", "Block", "Board", "Cell", "Counters", "attach", "block_path", "create", "remove"]
