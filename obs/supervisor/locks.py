"""One owner: who may run a provider of a data directory.

The supervisor holds `.lock/<owner>` exclusively for life. Its children hold `.lock/<owner>.children` shared. A start that
got the first waits until it can take the second exclusively, that is until the last child of a dead tree is gone, then
lets it go before it spawns its own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from obs.config.process import children_lock_path, lock_path
from obs.errors import ConfigError, DiskTrouble, ObsError, OwnedElsewhere

_ASK_AGAIN_S: Final = 0.05
# What another start would meet again; all else (a full disk, an I/O error) may pass.
_LASTING: Final = (
    errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.ENAMETOOLONG,
)  # fmt: skip


@contextmanager
def writing(data_dir: Path) -> Iterator[None]:
    """Turn an OSError into what to do about the data directory: ConfigError, or DiskTrouble if it may pass."""
    try:
        yield
    except OSError as error:
        why = f"{error.filename or data_dir}: {error.strerror}"
        if error.errno not in _LASTING:
            raise DiskTrouble(f"the data directory cannot be written: {why}", errno=error.errno, data_dir=str(data_dir)) from None
        asked = f"a folder that uid {os.getuid()} can make and write, but {why}; mend that, or name another with --data or data_dir"
        raise ConfigError("the data directory cannot be used", problems=[f"data_dir = {data_dir}: {asked}"]) from None


class Ownership:
    """The exclusive lock of one owner, held until `release` or death."""

    def __init__(self, data_dir: Path, owner: str) -> None:
        """Take the lock, and make its folder. Raises OwnedElsewhere, naming the process that has it, and what `writing` does."""
        self._data_dir, self._owner = data_dir, owner
        path = lock_path(data_dir, owner)
        with writing(data_dir):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 64, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise OwnedElsewhere(
                "another supervisor runs this already: stop it first, or use another data directory",
                owner=owner, data_dir=str(data_dir), pid=holder or "unknown",
            ) from None  # fmt: skip
        with writing(data_dir):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def wait_for_children(self, deadline_s: float, waiting: Callable[[], None]) -> None:
        """Return when no child of an earlier tree lives; `waiting` is called once if that takes a while.

        Raises ObsError after `deadline_s`: a child that survives its supervisor's death is stuck in the kernel. That passes (a disk
        answers again), so it is an error after which a start is tried again, unlike that of another supervisor.
        """
        with writing(self._data_dir):
            descriptor = os.open(children_lock_path(self._data_dir, self._owner), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            end, told = time.monotonic() + deadline_s, False
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    if not told:
                        waiting()
                        told = True
                    if time.monotonic() > end:
                        raise ObsError(
                            "children of an earlier start are still alive: end them", owner=self._owner, data_dir=str(self._data_dir)
                        ) from None
                    time.sleep(_ASK_AGAIN_S)
        finally:
            os.close(descriptor)

    def release(self) -> None:
        os.close(self._descriptor)
