"""`data/state/<provider>.json`: the reconnect budget and the tokens of the board, kept over the end of a host.

Mode 0600 and never in a backup: it holds tokens. Written whole under a temporary name and renamed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import orjson

from obs.shm import Board

CELLS: Final = ("budget", "tokens")


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
        for name in CELLS:
            if board[name].read_json() is None and isinstance(stored, dict) and stored.get(name) is not None:
                board[name].write_json(stored[name])
