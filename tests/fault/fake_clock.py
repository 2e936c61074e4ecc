"""A wall clock of a run's own, that can be stepped while the run goes on: libfaketime (Debian: faketime), preloaded.

What is faked is the wall clock of the processes that are started with `environ`, all of them at the same moment: the offset is
read from a file at each look (no cache). Monotonic clocks stay true (FAKETIME_DONT_FAKE_MONOTONIC), so that what should be timed
by them and is not shows itself. The times of files stay true too.
"""

from __future__ import annotations

import glob
import os
import time
from pathlib import Path

import pytest

# Of Debian, by architecture.
_LIBRARIES = "/usr/lib/*/faketime/libfaketimeMT.so.1"  # the variant for processes with threads


class FakeClock:
    """Offset 0 until `step`."""

    def __init__(self, folder: Path) -> None:
        found = glob.glob(_LIBRARIES)
        if not found:
            pytest.skip(f"libfaketime is missing ({_LIBRARIES}); Debian: faketime")
        self._path = folder / "clock-offset"
        self.offset_s = 0.0
        self.step_to(0.0)
        folders = (str(Path(__file__).parent / "faked"), os.environ.get("PYTHONPATH"))
        self.environ = {
            "LD_PRELOAD": found[0], "FAKETIME_TIMESTAMP_FILE": str(self._path), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1", "PYTHONPATH": os.pathsep.join(filter(None, folders)),
        }  # fmt: skip

    def step_to(self, offset_s: float) -> None:
        """Let the clock be so many seconds ahead of the true time."""
        fresh = self._path.with_suffix(".new")
        fresh.write_text(f"{offset_s:+.6f}\n")
        fresh.replace(self._path)  # never half written
        self.offset_s = offset_s

    def set(self, wall_s: float) -> None:
        """Let it be this time of the epoch now."""
        self.step_to(wall_s - time.time())

    def now_s(self) -> float:
        return time.time() + self.offset_s
