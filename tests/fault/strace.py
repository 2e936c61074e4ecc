"""strace on a process that runs, with something injected into its system calls; it says what they were."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest


class Strace:
    """Attached when it is made. `calls`: their names, by commas; `inject`: as strace has it, into `into`, or into all of them."""

    def __init__(self, pid: int, out: Path, calls: str, inject: str, *, into: str = "", threads: bool = True) -> None:
        if shutil.which("strace") is None:
            pytest.skip("no strace (Debian: strace)")
        self._out = out
        command = ["strace", *(["-f"] if threads else []), "-y", "-p", str(pid), "-o", str(out), "-e", f"trace={calls}"]
        self._process = subprocess.Popen([*command, "-e", f"inject={into or calls}:{inject}"], stderr=subprocess.PIPE)
        assert self._process.stderr is not None
        first = self._process.stderr.readline().decode()
        if "attached" not in first:
            self.close()
            pytest.skip(f"strace may not be used here: {first.strip()}")

    def calls(self) -> list[dict[str, str]]:
        """Return the calls that have returned and whose argument is a descriptor: name, fd, path, result."""
        begun: dict[str, str] = {}  # thread -> a call that another thread's line interrupted
        found = []
        for line in self._out.read_text(errors="replace").splitlines():
            # With -f each line begins with the thread.
            thread, _, rest = line.partition(" ") if line[:1].isdigit() else ("", "", line)
            rest = rest.strip()
            if rest.endswith("<unfinished ...>"):
                begun[thread] = rest.removesuffix("<unfinished ...>")
                continue
            resumed = re.match(r"<\.\.\. \w+ resumed>(.*)", rest)
            if resumed is not None:
                rest = begun.pop(thread, "") + resumed[1]
            call = re.match(r"(?P<name>\w+)\((?P<fd>\d+)<(?P<path>[^>]*)>\)\s+= (?P<result>.*)", rest)
            if call is not None:
                found.append(call.groupdict())
        return found

    def close(self) -> None:
        """Let the process go on alone, if it lives."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(10)
        assert self._process.stderr is not None
        self._process.stderr.close()
