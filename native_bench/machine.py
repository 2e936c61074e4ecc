"""What a figure belongs to: the machine, its load, the versions, the date."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import psutil

_PACKAGES: Final = ("numpy", "orjson", "msgspec", "picows", "uvloop", "psycopg", "zstandard", "polars", "cryptofeed", "pyperf")


def description() -> dict[str, Any]:
    """Return facts by name; packages that are not installed are left out."""
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "load_1_5_15": [round(load, 2) for load in os.getloadavg()],
        "commit": _commit(),
        "packages": packages,
    }


def sentence(machine: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {text}" for name, text in machine["packages"].items())
    return (
        f"{machine['date']}, commit {machine['commit']}. {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"{machine['architecture']}, Linux {machine['kernel']}, Python {machine['python']}; {packages}. "
        f"Load average (1, 5, 15 minutes) at the start {machine['load_1_5_15']}, at the end {machine.get('load_at_end', '?')}; "
        f"the run took {machine.get('minutes', '?')} minutes."
    )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown CPU"


def _commit() -> str:
    words = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return done.stdout.strip() or "unknown"
