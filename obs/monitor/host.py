"""CPU, memory and disk of this host and of single processes, from /proc: plain numbers, none where there is no /proc.

Why not psutil: these few figures are one read each, and the monitor looks every second.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class ProcessFigures:
    cpu_s: float = 0.0
    resident_bytes: int = 0
    descriptors: int = 0
    threads: int = 0


@dataclass(frozen=True)
class HostFigures:
    """cpu_s: busy seconds of all cores since boot; idle_s likewise."""

    cpu_s: float = 0.0
    idle_s: float = 0.0
    cores: int = 1
    memory_bytes: int = 0
    memory_free_bytes: int = 0
    disk_bytes: int = 0
    disk_free_bytes: int = 0


def is_alive(pid: int) -> bool:
    """Tell whether a process lives and is not a zombie."""
    if pid <= 0:
        return False
    try:
        return _fields(pid)[0] not in ("Z", "X")
    except (OSError, IndexError):
        return False


def _fields(pid: int) -> list[str]:
    # The name in parentheses may hold spaces and parentheses itself.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def process_figures(pid: int) -> ProcessFigures:
    """Return what a process uses; zeros if it has gone."""
    try:
        fields = _fields(pid)
        return ProcessFigures(
            (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * _PAGE, len(os.listdir(f"/proc/{pid}/fd")), int(fields[17])
        )
    except (OSError, IndexError, ValueError):
        return ProcessFigures()


def host_figures(folder: Path) -> HostFigures:
    """Return what the host has and uses; `folder`: on the disk that is meant (the nearest one above it that exists)."""
    cpu = idle = 0.0
    memory = free = 0
    try:
        numbers = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        idle = (numbers[3] + numbers[4]) / _TICKS
        cpu = sum(numbers) / _TICKS - idle
        sizes = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        memory, free = (int(sizes[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, ValueError, KeyError, IndexError):
        pass
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    disk = os.statvfs(folder)
    size = disk.f_blocks - disk.f_bfree + disk.f_bavail  # as df reckons its share: what only root may use is not ours
    return HostFigures(cpu, idle, os.cpu_count() or 1, memory, free, size * disk.f_frsize, disk.f_bavail * disk.f_frsize)
