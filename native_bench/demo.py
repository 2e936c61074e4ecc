"""The whole system for a benchmark: the real processes in folders of their own, and what the kernel and the rings say of them."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson
import psutil

from obs.pg import postmaster
from obs.pg.cluster import locate
from obs.record.schema import DTYPES
from obs.ring import Ring, attach_ring
from obs.shm import block_path

PROVIDERS: Final = ("kis", "upbit")
_RINGS: Final = tuple(f"-{name}" for name in DTYPES)
_REPOSITORY: Final = Path(__file__).parents[1]
_PR_SET_PDEATHSIG: Final = 1
_libc = ctypes.CDLL(None, use_errno=True)


def until(what: str, condition: Callable[[], Any], deadline_s: float = 60.0) -> Any:
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {deadline_s} s: {what}")
        time.sleep(0.02)
    return value


class Demo:
    """One life of the supervisor with its simulated exchanges. `tables`: of the configuration file."""

    def __init__(self, folder: Path, shm: Path, tables: Mapping[str, Mapping[str, Any]], words: list[str]) -> None:
        self.data, self.shm = folder / "data", shm
        config = folder / "obs.toml"
        whole: dict[str, dict[str, Any]] = {"http": {"port": 0}, "ring": {"dir": str(shm)}}
        for name, table in tables.items():
            whole[name] = {**whole.get(name, {}), **table}
        text = ""
        for name, table in whole.items():
            text += f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        config.write_text(text)
        command = [sys.executable, "-m", "obs.supervisor", "--data", str(self.data), "--config", str(config), *words]
        environ = {key: value for key, value in os.environ.items() if key not in ("OBS_DSN", "OBS_CONFIG", "NOTIFY_SOCKET")}
        self.log = folder / "supervisor.log"
        with self.log.open("wb") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, cwd=_REPOSITORY, env=environ,
                preexec_fn=_die_with_parent,  # noqa: PLW1509, this process has no thread that holds a lock
            )  # fmt: skip

    def session(self, provider: str) -> str:
        path = self.data / "system" / "sessions" / f"{provider}.jsonl"
        starts = [line for line in path.read_bytes().splitlines() if b'"start"' in line] if path.exists() else []
        return str(orjson.loads(starts[-1])["session_id"]) if starts else ""

    def ring(self, provider: str, name: str = "tick") -> Ring:
        """Map a ring of the running session; it must have been made."""
        session = until(f"session of {provider}", lambda: self.session(provider))
        path = block_path(self.shm, self.data, session, name)
        until(f"ring {name} of {provider}", path.exists)
        return attach_ring(path, DTYPES[name], session)

    def started(self, providers: tuple[str, ...] = PROVIDERS) -> dict[str, Ring]:
        """Return the tick rings once each has records of most symbols."""
        rings = {provider: self.ring(provider) for provider in providers}
        for provider, ring in rings.items():
            until(f"records of {provider}", partial(self._has_begun, ring))
        return rings

    def _has_begun(self, ring: Ring) -> bool:
        return self.alive() and ring.published > 100

    def alive(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"the supervisor ended with {self.process.returncode}:\n{self.log.read_text(errors='replace')[-2000:]}")
        return True

    def processes(self) -> dict[int, str]:
        """Return the processes of obs: pid -> title, without the simulated exchanges and the database server."""
        top = psutil.Process(self.process.pid)
        found = {top.pid: "obs supervisor"}
        for child in top.children(recursive=True):
            try:
                title = " ".join(child.cmdline()).strip()
            except psutil.Error:
                continue
            if title.startswith("obs ") and not title.startswith("obs sim"):
                found[child.pid] = title
        return found

    def pids(self, role: str) -> list[int]:
        return [pid for pid, title in self.processes().items() if title.split()[1] == role]

    def postgres(self) -> list[int]:
        """Return all processes of the embedded server."""
        return postmaster.processes(locate(self.data / "pg") / "cluster")

    def cpu_s(self) -> dict[int, float]:
        """Return the CPU seconds of the processes of obs so far."""
        found = {}
        for pid in self.processes():
            try:
                spent = psutil.Process(pid).cpu_times()
            except psutil.Error:
                continue
            found[pid] = spent.user + spent.system
        return found

    def cpu_by_kind(self) -> dict[str, float]:
        """Return the CPU seconds so far of each kind of process: roles, simulated exchanges, the database server, this benchmark."""
        found = {"benchmark": time.process_time()}
        try:
            family = psutil.Process(self.process.pid).children(recursive=True)
            family += [psutil.Process(pid) for pid in {self.process.pid, *self.postgres()} - {child.pid for child in family}]
        except psutil.Error:
            family = []
        for process in family:
            try:
                title, spent = " ".join(process.cmdline()).split(), process.cpu_times()
            except psutil.Error:
                continue
            kind = title[1] if title[:1] == ["obs"] else "PostgreSQL" if title[:1] == ["postgres:"] else "supervisor"
            found[kind] = found.get(kind, 0.0) + spent.user + spent.system
        return found

    def pss_mb(self) -> float:
        """Return the proportional memory of the processes of obs, pages of rings left out."""
        total_kb = 0
        for pid in self.processes():
            is_ring = False
            try:
                text = Path(f"/proc/{pid}/smaps").read_text()
            except OSError:
                continue
            for line in text.splitlines():
                if line.startswith("Pss:"):
                    total_kb += 0 if is_ring else int(line.split()[1])
                elif line[:1] in "0123456789abcdef" and "-" in line.split(" ", 1)[0]:
                    is_ring = line.endswith(_RINGS)
        return total_kb / 1024

    def lines(self, provider: str) -> list[dict[str, Any]]:
        """Return all events of a provider."""
        folder = self.data / "system" / "events" / provider
        return [orjson.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_bytes().splitlines()]

    def stop(self) -> int:
        """Stop in order; return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)


@contextmanager
def demo(tables: Mapping[str, Mapping[str, Any]] | None = None, words: tuple[str, ...] = ("--demo",)) -> Iterator[Demo]:
    """Run the system; whatever happens, its processes and its shared memory go in the end."""
    folder = Path(tempfile.mkdtemp(prefix="obs-bench-"))
    shm = Path(tempfile.mkdtemp(prefix="obs-bench-", dir="/dev/shm"))
    one = Demo(folder, shm, tables or {}, list(words))
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.process.terminate()
            try:
                one.process.wait(20)
            except subprocess.TimeoutExpired:
                left = psutil.Process(one.process.pid).children(recursive=True)
                one.process.kill()
                one.process.wait()
                postmaster.send([child.pid for child in left], signal.SIGKILL)
        postmaster.send(one.postgres() if (one.data / "pg").exists() else [], signal.SIGKILL)
        shutil.rmtree(shm, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
