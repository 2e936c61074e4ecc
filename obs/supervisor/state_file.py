"""`data/state/<provider>.json`: the reconnect budget and the tokens of the board, kept over the end of a host.

Mode 0600 and never in a backup: it holds tokens. Written whole under a temporary name and renamed.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Final

import orjson

from obs.shm import Board

# What is kept of each entry (one per link or credential), by its owner in obs.roles: field -> type.
CELLS: Final[dict[str, dict[str, Any]]] = {
    "budget": {"tokens": int | float, "last_ns": int},
    "tokens": {"value": str, "expires_ns": int},
}


class StateFile:
    def __init__(self, data_dir: Path, provider: str) -> None:
        self.path = data_dir / "state" / f"{provider}.json"
        self._saved = b""

    def collect(self, board: Board) -> bytes:
        return orjson.dumps({name: board[name].read_json() for name in CELLS}, option=orjson.OPT_INDENT_2)

    def save(self, value: bytes) -> None:
        """Replace the file if the value changed. Raises OSError."""
        if value == self._saved:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = self.path.with_suffix(".tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, value)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, self.path)
        self._saved = value

    def fill(self, board: Board) -> None:
        """Give a new board what the file remembers; a board that outlived its supervisor knows better."""
        try:
            stored: Any = orjson.loads(self.path.read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return
        for name, kinds in CELLS.items():
            kept = _entries(stored, name, kinds)
            if kept and board[name].read_json() is None:
                with contextlib.suppress(ValueError):  # longer than a cell: none that we wrote
                    board[name].write_json(kept)


def _entries(stored: Any, name: str, kinds: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of one cell that are as its owners write them; the others never stop a start."""
    found = stored.get(name) if isinstance(stored, dict) else None
    if not isinstance(found, dict):
        return {}
    return {
        key: entry for key, entry in found.items()
        if isinstance(entry, dict) and all(isinstance(entry.get(field), kind) for field, kind in kinds.items())
    }  # fmt: skip
