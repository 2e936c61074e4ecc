"""Turns the bytes of a fuzzer into decisions: numbers, pieces, and edits of something valid."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

SCRATCH = "OBS_FUZZ_SCRATCH"
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


class Take:
    """Reads decisions from the front of `data`; past its end all are 0 or empty."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> bool:
        return self._at < len(self._data)

    def bytes(self, count: int) -> bytes:
        found = self._data[self._at : self._at + count]
        self._at += count
        return found

    def number(self, below: int) -> int:
        """Return 0 <= n < below, from as many bytes as `below` needs."""
        return int.from_bytes(self.bytes((max(1, (below - 1).bit_length()) + 7) // 8), "little") % max(1, below)

    def rest(self) -> bytes:
        return self.bytes(len(self._data))


def edited(data: bytes, edits: bytes) -> bytes:
    """Return `data` after what `edits` says: bits flipped, bytes set, taken out and put in, the end cut off."""
    take, out = Take(edits), bytearray(data)
    while take.left and out:
        way, at = take.number(5), take.number(len(out))
        match way:
            case 0:
                out[at] ^= 1 << take.number(8)
            case 1:
                new = take.bytes(1 + take.number(16))
                out[at : at + len(new)] = new
            case 2:
                del out[at : at + 1 + take.number(256)]
            case 3:
                out[at:at] = take.bytes(1 + take.number(16))
            case 4:
                del out[at:]
    return bytes(out)


@cache
def scratch() -> Path:
    """Return a folder in memory for this process, so that an fsync costs nothing; it goes with the process, or whoever named it."""
    if named := os.environ.get(SCRATCH):
        return Path(named)
    folder = Path(tempfile.mkdtemp(prefix="obs-fuzz-", dir=MEMORY))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def fresh(name: str) -> Path:
    """Return an empty folder below `scratch`, the same one at each call."""
    folder = scratch() / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder
