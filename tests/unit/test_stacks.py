"""The stacks of a process that a signal has killed, as its parent gets them."""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys

from obs.supervisor.stacks import Stacks

DIES = """
import faulthandler, os, sys
def it_hangs_here():
    os.abort()
faulthandler.enable(int(sys.argv[1]))
it_hangs_here()
"""


def die(stacks: Stacks) -> None:
    done = subprocess.run([sys.executable, "-c", DIES, str(stacks.fd)], pass_fds=(stacks.fd,), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (-6, b"")


def test_each_process_tells_its_own() -> None:
    stacks = Stacks()
    for _ in range(2):
        die(stacks)
        lines = stacks.take()
        assert lines[0] == "Fatal Python error: Aborted"
        assert sum("it_hangs_here" in line for line in lines) == 1, lines
        assert not any(line.startswith("Extension modules") or not line for line in lines)
    assert stacks.take() == []


def test_of_too_much_the_end_is_kept() -> None:
    """The last thread that is printed is the main one."""
    stacks = Stacks()
    os.write(stacks.fd, b"first\n" + b"in between\n" * 10_000)
    faulthandler.dump_traceback(stacks.fd)
    lines = stacks.take()
    assert len(lines) < 5_000
    assert "test_of_too_much_the_end_is_kept" in "".join(lines)


def test_its_memory_goes_with_it() -> None:
    stacks = Stacks()
    name = os.readlink(f"/proc/self/fd/{stacks.fd}")
    assert "obs-stacks" in name
    fd = stacks.fd
    for _ in range(2):
        stacks.close()
    assert not os.path.exists(f"/proc/self/fd/{fd}") or os.readlink(f"/proc/self/fd/{fd}") != name
