"""`obs check`: the preflight. Would a collector with this configuration start here, and hold?

Each look gives a Finding: good, warning (it will run; an operator should know), wrong (it will not, or will lose data), or
unknown (could not look). Nothing is changed but a scratch file, or folder, that is removed again; an embedded database that is down is
started for its look and stopped again.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from obs.cli.terminal import paint, print_json, table
from obs.config import Config, start_problems
from obs.config.process import SERVICES, lock_path
from obs.errors import EXIT_FOUND, EXIT_GOOD, EXIT_UNKNOWN, ConfigError, ObsError

HELP: Final = "test this host and configuration before a start"
EXAMPLES: Final = """\
  obs check --config /etc/obs/obs.toml
  obs check --json | jq '.findings[] | select(.state != "good")'"""
EXITS: Final = {
    EXIT_GOOD: "a collector would start here and hold",
    EXIT_FOUND: "something is wrong: it would not start, or would lose data",
    EXIT_UNKNOWN: "something could not be looked at",
}

GOOD, WARNING, WRONG, UNKNOWN = "good", "warning", "wrong", "unknown"
FREE_WRONG_BYTES: Final = 256 << 20
FREE_WARNING_SHARE: Final = 0.2  # an anomaly day begins at 80 % of the disk
FSYNC_WARNING_MS: Final = 100.0
FSYNC_WRONG_MS: Final = 1000.0  # [archive] flush_s: every second flush would already be late
FSYNC_ROUNDS: Final = 9
FSYNC_BYTES: Final = 64 << 10
CLOCK_WARNING_MS: Final = 500.0
DESCRIPTORS: Final = 256
MEMORY_FILE_SYSTEMS: Final = ("tmpfs", "ramfs", "devtmpfs")
LAYERED_FILE_SYSTEMS: Final = ("overlay", "aufs")


@dataclass(frozen=True, slots=True)
class Finding:
    name: str
    state: str
    found: str
    advice: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing of its own."""


def run(args: argparse.Namespace, config: Config) -> int:
    """Look at everything; 1 if anything is wrong, else 4 if anything could not be looked at, else 0."""
    found = list(findings(config))
    states = {finding.state for finding in found}
    if args.json:
        print_json({"ok": WRONG not in states, "findings": [asdict(finding) for finding in found]})
    else:
        colours = {GOOD: "good", WARNING: "warning", WRONG: "wrong", UNKNOWN: "warning"}
        lines = table(("check", "state", "found"), [(item.name, item.state, item.found) for item in found])
        print(lines[0])
        for line, finding in zip(lines[1:], found, strict=True):
            print(line if finding.state == GOOD else paint(line, colours[finding.state]))
            if finding.advice:
                print(f"    {finding.advice}")
    return EXIT_FOUND if WRONG in states else EXIT_UNKNOWN if UNKNOWN in states else EXIT_GOOD


def findings(config: Config) -> Iterator[Finding]:
    """Look at everything that a start needs, in the order in which a start needs it."""
    yield from configuration(config)
    yield from data_directory(config.data_dir)
    yield shared_memory(config)
    yield port(config)
    yield clock_offset()
    yield descriptors()
    yield database_state(config)


def configuration(config: Config) -> Iterator[Finding]:
    yield Finding("configuration", GOOD, config.source)
    for problem in start_problems(config, os.environ):
        yield Finding("start", WRONG, problem)
    for provider in config.planned():
        symbols = "selected" if provider.selects else len(provider.symbols)
        where = f"{symbols} symbols of {provider.market}/{provider.venue} from {provider.ws_url}"
        yield Finding(f"provider {provider.name}", GOOD, where)


def data_directory(data_dir: Path) -> Iterator[Finding]:
    """Judge the place itself, or where it will be made: kind of file system, room, writing and fsync."""
    from obs.monitor.host import host_figures

    place = next(folder for folder in (data_dir, *data_dir.parents) if folder.exists())
    if not place.is_dir():
        yield Finding("data directory", WRONG, f"{place} is not a folder")
        return
    if place != data_dir:
        try:
            Path(tempfile.mkdtemp(dir=place, prefix=".obs-check-")).rmdir()
        except OSError as error:
            found = f"{data_dir} cannot be made in {place}: {error.strerror}"
            yield Finding("data directory", WRONG, found, f"name a folder that uid {os.getuid()} can make, with --data or data_dir")
            return
    kind = file_system(place)
    made = str(data_dir) if place == data_dir else f"{data_dir} (to be made)"
    if kind in MEMORY_FILE_SYSTEMS:
        yield Finding("data directory", WRONG, f"{made} on {kind}", "it loses everything at a restart: use a disk")
    elif kind in LAYERED_FILE_SYSTEMS:
        yield Finding(
            "data directory", WARNING, f"{made} on {kind}", "inside a container image: mount a volume there if it must outlive it"
        )
    else:
        yield Finding("data directory", GOOD, f"{made} on {kind or 'an unnamed file system'}")
    disk = host_figures(place)  # what `obs status` and the alarm go by
    total, free = disk.disk_bytes, disk.disk_free_bytes
    state = WRONG if free < FREE_WRONG_BYTES else WARNING if free < total * FREE_WARNING_SHARE else GOOD
    yield Finding("free space", state, f"{free / 2**30:.1f} GiB of {total / 2**30:.1f} GiB", "" if state == GOOD else "free some")
    try:
        times = sorted(fsync_times_ms(place))
    except OSError as error:
        yield Finding("writing", WRONG, f"{place}: {error.strerror}", f"it must be writable by uid {os.getuid()}")
        return
    middle = times[len(times) // 2]
    state = WRONG if middle > FSYNC_WRONG_MS else WARNING if middle > FSYNC_WARNING_MS else GOOD
    yield Finding("fsync", state, f"{middle:.1f} ms of {FSYNC_BYTES >> 10} KiB, slowest of {len(times)}: {times[-1]:.1f} ms")


def file_system(place: Path) -> str:
    """Return the type of the file system that holds `place`, "" if the kernel does not tell."""
    best, kind = "", ""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    real = str(place.resolve()) + "/"
    for line in lines:
        left, _, right = line.partition(" - ")
        mount = left.split()[4].replace("\\040", " ").rstrip("/") + "/"
        if real.startswith(mount) and len(mount) >= len(best):
            best, kind = mount, right.split()[0]
    return kind


def fsync_times_ms(place: Path) -> list[float]:
    """Return how long a write and fsync of a segment's size takes, several times, in a scratch file of that folder."""
    times = []
    with tempfile.NamedTemporaryFile(dir=place, prefix=".obs-check-") as scratch:
        block = os.urandom(FSYNC_BYTES)
        for _ in range(FSYNC_ROUNDS):
            started = time.perf_counter()
            os.write(scratch.fileno(), block)
            os.fsync(scratch.fileno())
            times.append((time.perf_counter() - started) * 1000)
    return times


def shared_memory(config: Config) -> Finding:
    """Judge whether the rings of the providers that do not run yet fit."""
    from obs.record.schema import DTYPES
    from obs.ring.layout import ring_bytes

    folder = config.ring.dir
    if not folder.is_dir():
        return Finding("shared memory", WRONG, f"{folder} is no folder", "set ring.dir")
    capacities = config.ring.capacities()
    each = sum(ring_bytes(DTYPES[name], capacity) for name, capacity in capacities.items())
    waiting = [provider for provider in config.planned() if not runs(config.data_dir, provider.name)]
    need, free = each * len(waiting), shutil.disk_usage(folder).free
    found = f"{free / 2**20:.0f} MiB free in {folder}, {need / 2**20:.0f} MiB needed"
    if free < need:
        return Finding("shared memory", WRONG, found, "enlarge it (docker: --shm-size), or lower ring.capacity")
    if free < 2 * need:
        return Finding("shared memory", WARNING, found, "no room for a second session beside an undrained one")
    kind = file_system(folder)
    if kind and kind not in MEMORY_FILE_SYSTEMS:
        return Finding("shared memory", WARNING, f"{found}, on {kind}", "rings on a disk are slow: set ring.dir to a memory file system")
    return Finding("shared memory", GOOD, found)


def runs(data_dir: Path, owner: str) -> bool:
    """Tell whether a supervisor holds this owner's lock. Asks the kernel's list: trying the lock could make a start fail."""
    try:
        inode = lock_path(data_dir, owner).stat().st_ino
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return False
    fields = (line.split() for line in lines)
    return any(words[1] == "FLOCK" and words[3] == "WRITE" and words[5].endswith(f":{inode}") for words in fields if len(words) > 5)


def port(config: Config) -> Finding:
    """Judge whether the HTTP port is free, or held by the services of this very data directory."""
    host, number = config.http.host, config.http.port
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, number))
        except OSError as error:
            if runs(config.data_dir, SERVICES):
                return Finding("http port", GOOD, f"{host}:{number}, in use by the running services")
            return Finding("http port", WRONG, f"{host}:{number}: {error.strerror}", "set http.port, or stop what holds it")
    return Finding("http port", GOOD, f"{host}:{number} is free")


class _Timex(ctypes.Structure):
    # The head of struct timex of <sys/timex.h>; the kernel writes more behind it.
    _fields_ = (
        ("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long), ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long), ("status", ctypes.c_int), ("rest", ctypes.c_char * 512),
    )  # fmt: skip


_TIME_ERROR: Final = 5  # adjtimex: the clock is not synchronised
_STA_NANO: Final = 0x2000


def clock_offset() -> Finding:
    """Ask the kernel how far the clock may be off; without a network, so it is the word of the local time service."""
    state = _Timex()
    try:
        answer = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(state))
    except (OSError, AttributeError) as error:
        return Finding("clock", UNKNOWN, str(error))
    if answer < 0:
        return Finding("clock", UNKNOWN, os.strerror(ctypes.get_errno()), "compare `date -u` with a clock that you trust")
    if answer == _TIME_ERROR:
        return Finding("clock", WARNING, "no time service keeps it", "run chrony or systemd-timesyncd: receive times are evidence")
    offset_ms = abs(state.offset) / (1e6 if state.status & _STA_NANO else 1e3)
    found = f"offset {offset_ms:.3f} ms, at most {state.maxerror / 1e3:.1f} ms"
    return Finding("clock", WARNING if offset_ms > CLOCK_WARNING_MS else GOOD, found)


def descriptors() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft == resource.RLIM_INFINITY or soft >= DESCRIPTORS
    found = f"{'unlimited' if soft == resource.RLIM_INFINITY else soft} per process"
    return Finding("open files", GOOD if enough else WARNING, found, "" if enough else f"ulimit -n {DESCRIPTORS}")


def database_state(config: Config) -> Finding:
    """Judge whether the database answers and has the schema of this version."""
    from obs.cli.database import database, is_made
    from obs.pg.migrate import pending

    name = f"database ({config.database})"
    if config.database.dsn is None and not is_made(config):
        return Finding(name, GOOD, "made at the first start")
    try:
        with database(config) as dsn:
            missing = pending(dsn)
    except ConfigError as error:
        return Finding(name, WRONG, "; ".join(error.problems))
    except ObsError as error:
        return Finding(name, WRONG, str(error), "collecting works without it, and catches up once it is back")
    if missing:
        return Finding(name, WARNING, f"lacks {', '.join(missing)}", "obs migrate, or the next start, applies them")
    return Finding(name, GOOD, "answers, schema up to date")
