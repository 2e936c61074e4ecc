"""What a process that is killed by a signal says last: the stacks of its threads, kept for its parent's log.

`faulthandler` writes them in many small pieces, from a signal handler. On the standard error that all processes of a collector share,
a log line of another one lands between two of them, and neither is whole. Memory that only the two share is never full and leaves no file.
"""

from __future__ import annotations

import os
import weakref
from typing import Final

STDERR: Final = 2
_MOST_BYTES: Final = 32 * 1024  # of some hundred frames; the last thread that is printed is the main one


class Stacks:
    """Anonymous memory for the stacks of one process, which is given `fd`. Ours is not inherited by anything else, and ends with us."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("obs-stacks", os.MFD_CLOEXEC)
        self.close = weakref.finalize(self, os.close, self.fd)  # at last with us; a second call does nothing

    def take(self) -> list[str]:
        """Return the lines that the dead process has written, without blank ones and the list of modules; and be empty."""
        size = os.fstat(self.fd).st_size
        text = os.pread(self.fd, _MOST_BYTES, max(0, size - _MOST_BYTES)).decode(errors="replace")
        # The offset is shared with the process that has written, and with the next one.
        os.ftruncate(self.fd, 0)
        os.lseek(self.fd, 0, os.SEEK_SET)
        return [line.rstrip() for line in text.splitlines() if line.strip() and not line.startswith("Extension modules:")]
