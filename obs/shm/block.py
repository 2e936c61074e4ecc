"""Create, attach and remove one block of shared memory: a plain file in a memory file system, mapped.

A block is allocated whole (posix_fallocate) under a temporary name and gets its own name when its header is complete,
so a full file system is an error here and never a SIGBUS later, and a half-made block is never seen. What a creator that
was killed leaves under a temporary name is removed by a later one.

Why not multiprocessing.shared_memory: before Python 3.13 its tracker unlinks blocks that are still in use
(CPython issue 82300), and a block must outlive every process.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from obs.errors import ShmFull

_LEFTOVER_NS: Final = 60_000_000_000


def block_path(folder: Path, data_dir: Path, *parts: str) -> Path:
    """Return the path of a block: its name is a hash of the data directory and `parts`, readable by its last part."""
    text = "\0".join([os.path.realpath(data_dir), *parts])
    return folder / f"obs-{hashlib.sha256(text.encode()).hexdigest()[:20]}-{parts[-1]}"


class Block:
    """A mapped block. `data` is its memory, writable; `words` the same as 8-byte unsigned integers; `mapped` the same
    once more, for copies: a slice of it is owned bytes, and it takes any contiguous buffer of exactly the slice's size.

    An aligned store or load of one item of `words` is one machine access: CPython copies 8 bytes with memcpy, which
    compilers turn into a single move on 64-bit machines.
    """

    def __init__(self, path: Path, mapped: mmap.mmap) -> None:
        self.path = path
        self.mapped = mapped
        self.data = memoryview(mapped)
        self.words = self.data.cast("Q") if len(self.data) % 8 == 0 else self.data[: len(self.data) // 8 * 8].cast("Q")

    @property
    def size(self) -> int:
        return len(self.data)

    def close(self) -> None:
        """Unmap, unless numpy views of the memory are still alive: then it is unmapped with the last of them."""
        with contextlib.suppress(BufferError):
            self.words.release()
            self.data.release()
            self.mapped.close()


def create(path: Path, size: int, fill: Callable[[memoryview], None]) -> Block:
    """Make a block of `size` bytes, let `fill` write its header, then give it its name (replacing an older one).

    Raises ShmFull if the file system has no room for all of it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _remove_leftovers(path.parent, os.fstat(descriptor).st_mtime_ns)
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM):
                raise
            free = os.statvfs(path.parent).f_bavail * os.statvfs(path.parent).f_frsize
            raise ShmFull(
                "no room in shared memory: enlarge it or lower [ring] capacity", path=str(path), need=size, free=free
            ) from error
        mapped = mmap.mmap(descriptor, size)
        block = Block(path, mapped)
        fill(block.data)
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return block


def _remove_leftovers(folder: Path, now_ns: int) -> None:
    # now_ns: by the clock of the file system. A living creator holds a temporary name for milliseconds.
    for leftover in folder.glob(".obs-*.tmp"):
        with contextlib.suppress(OSError):
            if now_ns - leftover.stat().st_mtime_ns > _LEFTOVER_NS:
                leftover.unlink()


def attach(path: Path) -> Block:
    """Map an existing block, writable. Raises FileNotFoundError; the caller judges the header."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        if size == 0:
            raise ValueError(f"empty block: path={path}")
        return Block(path, mmap.mmap(descriptor, size))
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Unlink a block if it is there; those who mapped it keep their mapping."""
    path.unlink(missing_ok=True)
