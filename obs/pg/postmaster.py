"""Who serves a data directory: postmaster.pid, and the processes of the kernel that it may or may not speak of.

A pid in a file proves nothing: after a SIGKILL or a power loss the number may belong to anybody. A process counts as the
server of a data directory only if it is named postgres and works inside that directory (a postmaster changes into it).
Where the kernel does not say where it works (root without CAP_SYS_PTRACE, as in most containers, and a server of another
user), its command line must name the directory, as a postmaster's does, or carry its tag, as all others do.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

POLL_S: Final = 0.02


@dataclass(frozen=True)
class Postmaster:
    """A running server: its process and the folder of its socket ("" until it listens)."""

    pid: int
    socket_folder: str


def find(cluster: Path) -> Postmaster | None:
    """Return the running server of a data directory, None if there is none, whatever postmaster.pid says."""
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
        pid = abs(int(lines[0]))
    except (OSError, ValueError, IndexError):
        return None
    if not serves(pid, cluster):
        return None
    return Postmaster(pid, lines[4].strip() if len(lines) > 4 else "")


def serves(pid: int, cluster: Path) -> bool:
    """Say whether a process is a live postgres process of this data directory."""
    proc = f"/proc/{pid}"
    try:
        with open(f"{proc}/stat", "rb") as file:
            stat = file.read()
        name, state = stat[stat.index(b"(") + 1 : stat.rindex(b")")], stat[stat.rindex(b")") + 2 : stat.rindex(b")") + 3]
        if name != b"postgres" or state in b"ZX":
            return False
        try:
            return os.path.samefile(f"{proc}/cwd", cluster)
        except PermissionError:
            with open(f"{proc}/cmdline", "rb") as file:
                command = file.read()
            return os.fsencode(cluster) in command.split(b"\0") or tag(cluster).encode() in command
    except (OSError, ValueError):
        return False


def tag(cluster: Path) -> str:
    """Return the cluster_name of a data directory, which its processes show in their titles."""
    return f"obs-{hashlib.sha256(os.fsencode(cluster)).hexdigest()[:12]}"


def processes(cluster: Path) -> list[int]:
    """Return all live postgres processes of this data directory, orphans of a killed postmaster included."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and serves(int(entry), cluster)]


def wait_gone(pids: list[int], cluster: Path, deadline_s: float) -> bool:
    """Wait until none of these processes serves the data directory; False if some still do after `deadline_s`."""
    end = time.monotonic() + deadline_s
    while any(serves(pid, cluster) for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(POLL_S)
    return True


def end_orphans(cluster: Path, deadline_s: float) -> None:
    """Wait for processes whose postmaster is dead, then kill them.

    They notice its death and leave by themselves, unless stuck; while one lives, no new server can start. A killed one costs
    nothing: without a postmaster its transaction cannot commit safely anyway, and the next start recovers.
    """
    left = processes(cluster)
    if not wait_gone(left, cluster, deadline_s):
        send(processes(cluster), signal.SIGKILL)
        wait_gone(left, cluster, deadline_s)


def send(pids: list[int], number: signal.Signals) -> None:
    """Signal processes that may be gone already."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
