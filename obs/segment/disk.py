"""The only place of this room that makes, writes, syncs, cuts, renames or removes a file.

Every call stamps the owner's progress ("disk" before, "" after), so that a hung disk shows as a wait and not as silence,
and turns OSError into DiskTrouble. Tests see every call through `observe`, before it happens: to record what a power loss
may undo, or to raise in its place.

Durable: a file's bytes are safe after `fsync_file`, its name after `fsync_folder` of its folder, a folder's name after
`fsync_folder` of its parent. After a failed fsync the kernel may have marked lost pages as clean, so a second fsync of the same
descriptor would lie: callers close it, and `cut` works through a new one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from obs.errors import DiskTrouble

FILE_MODE: Final = 0o640
FOLDER_MODE: Final = 0o750
FLOOR_BYTES: Final = 64 << 20  # free space below which an archive stops, on a disk of ordinary size
FLOOR_SHARE: Final = 32  # on a small one: this part of it

Progress = Callable[[str], None]
Observer = Callable[[str, Path, Any], None]

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_observers: list[Observer] = []


@contextmanager
def observe(observer: Observer) -> Iterator[None]:
    """Call `observer(step, path, detail)` before each disk call of this process; what it raises takes the call's place.

    Steps and details: mkdir None, create None, write (offset, bytes), fsync None, fsync_folder None, cut size, rename new
    path, unlink None, append_open None, stat None.
    """
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


def silent(_: str) -> None:
    """Be the progress of a caller that nobody watches."""


def gap_reason(trouble: DiskTrouble) -> str:
    """Return the gap reason of a failure: disk_full or disk_error."""
    return "disk_full" if trouble.facts.get("errno") in _FULL else "disk_error"


def free_bytes(path: Path) -> int:
    """Return the bytes that an ordinary user may still write on the disk of `path` (which exists)."""
    state = os.statvfs(path)
    return state.f_bavail * state.f_frsize


def require_floor(path: Path) -> None:
    """Raise DiskTrouble (disk_full) if the disk of `path` has less free space than the floor."""
    state = os.statvfs(path)
    free = state.f_bavail * state.f_frsize
    floor = min(FLOOR_BYTES, state.f_blocks * state.f_frsize // FLOOR_SHARE)
    if free < floor:
        raise DiskTrouble(
            "free space is below the floor; free some", errno=errno.ENOSPC, path=str(path), step="floor", free=free, floor=floor
        )


class Disk:
    """The disk calls of one owner. `progress` is called on the calling thread, often: it must be cheap and not raise."""

    def __init__(self, progress: Progress = silent) -> None:
        self._progress = progress
        self._known: set[Path] = set()

    @contextmanager
    def _step(self, step: str, path: Path, detail: Any = None) -> Iterator[None]:
        self._progress("disk")
        try:
            for observer in _observers:
                observer(step, path, detail)
            yield
        except OSError as error:
            raise DiskTrouble(
                f"{step} failed: {error.strerror or error}", errno=error.errno, name=errno.errorcode.get(error.errno or 0, "?"),
                path=str(path), step=step,
            ) from error  # fmt: skip
        finally:
            self._progress("")

    def make_folder(self, folder: Path, root: Path) -> None:
        """Make `folder` and what is missing above it, below `root`; each one's name is durable on return.

        Order: parents first. A folder that exists is synced as well, once per life of this object: whoever made it may have
        died before its fsync.
        """
        chain = [folder, *folder.parents]
        below = chain[: chain.index(root)] if root in chain else chain[:1]
        for one in reversed(below):
            there = one.is_dir()
            if there and one in self._known:
                continue
            if not there:
                with self._step("mkdir", one):
                    os.mkdir(one)
                    os.chmod(one, FOLDER_MODE)  # whatever the umask: a backup account reads it by its group
            self.fsync_folder(one.parent)
            self._known.add(one)

    def create(self, path: Path) -> int:
        """Create a file that must not exist; return a descriptor that appends."""
        with self._step("create", path):
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)
            try:
                os.fchmod(fd, FILE_MODE)  # whatever the umask
            except OSError:
                os.close(fd)
                raise
            return fd

    def append_open(self, path: Path) -> int:
        """Open a file that exists; return a descriptor that appends."""
        with self._step("append_open", path):
            return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def write_all(self, fd: int, path: Path, offset: int, data: bytes) -> None:
        """Append `data`; `offset` is where it lands. On failure any part of it may have been written."""
        with self._step("write", path, (offset, data)):
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]

    def fsync_file(self, fd: int, path: Path) -> None:
        """Make the bytes of `fd` durable. After DiskTrouble `fd` must not be used again except to close it."""
        with self._step("fsync", path):
            os.fsync(fd)

    def fsync_folder(self, folder: Path) -> None:
        """Make the names in `folder` durable."""
        with self._step("fsync_folder", folder):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def fsync_path(self, path: Path) -> None:
        """Make the bytes of a file durable through a descriptor of its own."""
        with self._step("fsync", path):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def cut(self, path: Path, size: int) -> None:
        """Cut a file to `size` bytes, durably, through a descriptor of its own."""
        with self._step("cut", path, size):
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.ftruncate(fd, size)
                os.fsync(fd)
            finally:
                os.close(fd)

    def rename_sealed(self, old: Path, new: Path) -> None:
        """Rename within one folder or across two, never over an existing name, and make it durable."""
        with self._step("rename", old, new):
            if new.exists():  # one owner per provider: nobody can make it between this line and the next
                raise FileExistsError(errno.EEXIST, "name is taken", str(new))
            os.rename(old, new)
        for folder in dict.fromkeys((new.parent, old.parent)):
            self.fsync_folder(folder)

    def unlink(self, path: Path) -> None:
        """Remove a file, durably; gone already is fine."""
        with self._step("unlink", path):
            path.unlink(missing_ok=True)
        self.fsync_folder(path.parent)

    def write_new(self, path: Path, data: bytes) -> None:
        """Write a new file whole and durably; its folder exists."""
        fd = self.create(path)
        try:
            self.write_all(fd, path, 0, data)
            self.fsync_file(fd, path)
        finally:
            self.close(fd)
        self.fsync_folder(path.parent)

    def has_name(self, fd: int, path: Path) -> bool:
        """Tell whether `path` still names the file of `fd`: somebody may have removed or moved it, or a folder above it."""
        with self._step("stat", path):
            try:
                return os.path.samestat(os.stat(path), os.fstat(fd))
            except (FileNotFoundError, NotADirectoryError):
                return False

    @staticmethod
    def close(fd: int) -> None:
        """Close a descriptor; what close says is of no use: everything that counts was synced before."""
        try:
            os.close(fd)
        except OSError:
            return
