"""Heartbeats and counters of the processes of one provider (or of the host's services): one writer per cell.

A process owns one row of the block. Every field is one aligned 8-byte word that only ever its owner stores, so a
reader sees each field whole, though not all fields of one instant.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from obs.errors import SchemaMismatch
from obs.shm.block import attach, block_path, create

MAGIC: Final = b"OBSCNT01"
ROWS: Final = 16
_HEADER: Final = 64

# What a sink is waiting for, so that a hung disk is an alarm and not a reason to kill.
WAITING: Final = ("", "disk", "database")

ROLE_CELL: Final = np.dtype(
    [
        ("pid", "<u8"),
        ("started_ns", "<u8"),  # wall clock
        ("heartbeat_ns", "<u8"),  # monotonic clock, stamped by the role's own loop together with its progress
        ("waiting", "<u8"),  # index into WAITING
        ("waiting_since_ns", "<u8"),  # monotonic clock; 0 = not waiting
        ("ready", "<u8"),  # 1 once the role has recovered and does its work
        ("progress", "<u8"),  # grows with everything the role does
        ("errors", "<u8"),
        # feed
        ("messages", "<u8"), ("inputs", "<u8"), ("ignored", "<u8"), ("quarantined", "<u8"), ("records", "<u8"),
        ("reconnects", "<u8"), ("disconnected_ns", "<u8"), ("connected", "<u8"), ("gaps", "<u8"), ("ledger_broken", "<u8"),
        # sinks
        ("stored", "<u8"), ("stored_bytes", "<u8"), ("lost", "<u8"), ("rejected", "<u8"), ("flushes", "<u8"),
        ("flush_ns_sum", "<u8"), ("flush_ns_max", "<u8"), ("lag_ns", "<u8"), ("log_dropped", "<u8"),
        ("disk_trouble", "<u8"), ("database_away", "<u8"),
        ("stopping", "<u8"),  # 1 once the supervisor has asked it to stop; the supervisor's own word, as it resets `ready`
        ("universe", "<u8"),  # poll: 0 the day's list is good or not needed yet, 1 it is an older day's, 2 there is none
        ("heard_ns", "<u8"),  # feed: monotonic clock, when it last saw that messages had come; since its start
    ]
)  # fmt: skip
assert ROLE_CELL.itemsize == 256


class Counters:
    """The rows of a block by role name. `cell(role)` is a live numpy scalar view: `cell["messages"] += n`."""

    def __init__(self, path: Path, make: bool = False) -> None:
        """Map the block at `path`; with `make`, replace it by an empty one. Raises FileNotFoundError, SchemaMismatch, ShmFull."""
        size = _HEADER + ROWS * (ROLE_CELL.itemsize + 64)

        def fill(data: memoryview) -> None:
            data[:8] = MAGIC

        try:
            self.block = create(path, size, fill) if make else attach(path)
        except ValueError as error:
            raise SchemaMismatch("counters are empty", path=str(path)) from error
        if self.block.size != size or bytes(self.block.data[:8]) != MAGIC:
            raise SchemaMismatch("counters have another layout", path=str(path), size=self.block.size, expected=size)
        names_end = _HEADER + ROWS * 64
        self._names = np.frombuffer(self.block.data[_HEADER:names_end], dtype="S64")
        self._rows = np.frombuffer(self.block.data[names_end:], dtype=ROLE_CELL)

    @staticmethod
    def path(folder: Path, data_dir: Path, owner: str) -> Path:
        return block_path(folder, data_dir, owner, "counters")

    def roles(self) -> list[str]:
        return [name.decode("ascii", "replace") for name in self._names if name]

    def add(self, role: str) -> None:
        """Name a row; only the supervisor does, before it spawns the role."""
        if role not in self.roles():
            self._names[len(self.roles())] = role.encode()

    def cell(self, role: str) -> np.ndarray:
        """Return the row of `role`, shape (), dtype ROLE_CELL, shared. Raises KeyError."""
        try:
            return self._rows[self.roles().index(role)]  # type: ignore[no-any-return]
        except ValueError:
            raise KeyError(role) from None

    def close(self) -> None:
        del self._names, self._rows
        self.block.close()
