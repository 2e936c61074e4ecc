"""Runs the demo as real processes, finds them, kills, stops and restarts them, and judges what they left.

Everything waits for conditions (`until`), which are read where an operator or the kernel would see them: ring headers and
counters in shared memory, /proc, the session files. The shared memory of a run lies in a folder of its own under
/dev/shm, so that what a test leaves behind is seen, and goes with it. `OBS_FAULT_LONG=1` makes every test repeat its fault as
often, and wait as long, as the long form asks; `OBS_FAULT_SEED` repeats a run's random moments.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import psutil
from checker import Verdict, check

from obs.config import demo_environ
from obs.config.demo import KIS_SYMBOLS, UPBIT_SYMBOLS
from obs.pg import postmaster
from obs.pg.cluster import locate
from obs.pg.embedded import EmbeddedPostgres
from obs.shm import Counters, block_path

LONG = bool(os.environ.get("OBS_FAULT_LONG"))
SEED = int(os.environ.get("OBS_FAULT_SEED") or random.SystemRandom().randrange(1 << 32))
PROVIDERS = ("kis", "upbit")
ROLES = ("archive", "load", "poll", "feed")
# Many starts in a row use up the reconnect budget (10 at once, then one a minute): the wait for it is part of the promise.
BACK_S = 240.0 if LONG else 120.0
RATE = 5000 if LONG else 2000  # inputs/s, both exchanges together

_REPOSITORY = Path(__file__).parents[2]
_PUBLISHED = 320  # offsets in a ring's header; obs/ring/layout.py
_DURABLE = {"archive": 512 + 8, "load": 512 + 128 + 8}
_PR_SET_PDEATHSIG = 1
_FIELDS = ("pid", "ready", "reconnects", "progress")
_STOP_S = 20.0  # a stop that takes longer than 10 s fails; this one is for a hang
_libc = ctypes.CDLL(None, use_errno=True)


def until(what: str, condition: Callable[[], Any], deadline_s: float = 60.0) -> Any:
    """Return the first true value of `condition`, asked again and again; AssertionError after `deadline_s`."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.01)
    return value


def steady_for(what: str, seconds: float, condition: Callable[[], bool]) -> None:
    """Assert that `condition` holds at every look for so long: for a fault that has to last."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert condition(), f"did not last {seconds} s: {what}"
        time.sleep(0.02)


class Demo:
    """One data directory with its supervisor. `tables`: of the configuration file, by name; `dsn`: None = embedded database.

    `venues`: run the exchanges here, with these further words on their command lines, and the collector as for real ones: they
    outlive the supervisor, and can be told to misbehave.
    """

    def __init__(
        self, folder: Path, test: str, *, dsn: str | None = None, venues: dict[str, list[str]] | None = None, **tables: dict[str, Any]
    ) -> None:
        self.folder, self.data, self.dsn = folder, folder / "data", dsn
        self.random = random.Random(f"{SEED} {test}")
        self.shm = Path(tempfile.mkdtemp(prefix="obs-fault-", dir="/dev/shm"))
        self.view = self.shm  # the same folder, as this process can see it
        self.prefix: list[str] = []  # of the supervisor's command
        self.rate = float(tables.get("demo", {}).get("rate", RATE))
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.seen: dict[int, float] = {}  # every process of this run: pid -> time of its creation
        self.figures: dict[str, Any] = {}
        self._postgres = EmbeddedPostgres(self.data / "pg")
        self.config = folder / "obs.toml"
        self.venues: dict[str, Venue] = {}
        for provider, words in (venues or {}).items():
            self.venues[provider] = Venue(provider, self.rate / 2, self.data / "sim" / f"{provider}.jsonl", words)
        self.configure(**tables)

    def configure(self, **tables: dict[str, Any]) -> None:
        """Write the configuration; what a table does not say is as the fault tests want it: small files, quick sinks."""
        wanted: dict[str, dict[str, Any]] = {
            "demo": {"source": "numbered", "mode": "tape", "rate": self.rate},
            "http": {"port": 0},
            "ring": {"dir": str(self.shm), "capacity": 65536},
            "archive": {"flush_s": 0.2, "segment_s": 5},
            "loader": {"flush_s": 0.2},
        }
        for provider, venue in self.venues.items():
            symbols = {"kis": KIS_SYMBOLS, "upbit": UPBIT_SYMBOLS}[provider]
            wanted[f"providers.{provider}"] = {
                "rest_url": f"http://127.0.0.1:{venue.port}", "ws_url": f"ws://127.0.0.1:{venue.port}", "symbols": symbols,
                "credentials": ["DEMO_KIS"] if provider == "kis" else [], "mode": "tape", "hours": "always",
            }  # fmt: skip
        for name, table in tables.items():
            wanted.setdefault(name, {}).update(table)
        text = ""
        for name, table in wanted.items():
            text += f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        self.config.write_text(text)

    # --- start and stop

    def command(self, *more: str) -> list[str]:
        kind = [] if self.venues else ["--demo"]
        return [*self.prefix, sys.executable, "-m", "obs.supervisor", *kind, "--data", str(self.data), "--config", str(self.config), *more]

    def start(self, *more: str, records: bool = True) -> None:
        """Start the supervisor; with `records`, return when every provider has published its first record of this start."""
        assert self.process is None
        before = {provider: self.session(provider) for provider in PROVIDERS} if records else {}
        self.starts += 1
        begun = time.monotonic()
        with open(self.folder / f"supervisor.{self.starts}.log", "wb") as errors, open(self.folder / "stdout", "ab") as out:
            self.process = subprocess.Popen(
                self.command(*more), stdin=subprocess.DEVNULL, stdout=out, stderr=errors, cwd=_REPOSITORY, env=self.environ(),
                preexec_fn=_die_with_parent,  # noqa: PLW1509, no thread of a test holds a lock that a child needs
            )  # fmt: skip
        for provider, session in before.items():
            published = self.published(provider, session) if session else 0

            def recorded(name: str = provider, old: str | None = session, count: int = published) -> bool:
                new = self.session(name)
                return self._alive() and new is not None and self.published(name, new) > (count if new == old else 0)

            until(f"first record of {provider}", recorded, BACK_S)
        if records:
            self.figures["first_record_s"] = round(max(self.figures.get("first_record_s", 0.0), time.monotonic() - begun), 2)
        self.note()

    def environ(self) -> dict[str, str]:
        environ = {key: value for key, value in os.environ.items() if key not in ("OBS_DSN", "OBS_CONFIG", "NOTIFY_SOCKET")}
        return environ | ({"OBS_DSN": self.dsn} if self.dsn else {}) | (demo_environ() if self.venues else {})

    def _alive(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the supervisor ended with {self.process.returncode}:\n{self.log()[-3000:]}"
        return True

    def wait(self, deadline_s: float = _STOP_S) -> int:
        """Wait for the supervisor's end; return its exit code."""
        assert self.process is not None
        code = self.process.wait(deadline_s)
        self.process = None
        return code

    def stop(self, within_s: float = 10.0) -> float:
        """SIGTERM; assert exit code 0 within the time that is promised, and return how long it took."""
        self.note()
        assert self.process is not None
        self._alive()
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.wait()
        seconds = time.monotonic() - begun
        assert code == 0, f"exit code {code}:\n{self.log()[-3000:]}"
        assert seconds < within_s, f"the stop took {seconds:.1f} s"
        until("all processes of the run have gone", lambda: not self.left(), 2.0)
        return seconds

    # --- what runs

    def children(self) -> dict[tuple[str, str], int]:
        """Return the living children of the supervisor: (role, owner) -> pid, by the title that `ps` shows."""
        found = {}
        if self.process is None or self.process.poll() is not None:
            return found
        for child in psutil.Process(self.process.pid).children():
            try:
                words = " ".join(child.cmdline()).split()
                if len(words) == 3 and words[0] == "obs" and child.status() != psutil.STATUS_ZOMBIE:
                    found[words[1], words[2]] = child.pid
                    self.seen.setdefault(child.pid, child.create_time())
            except psutil.NoSuchProcess:
                continue
        return found

    def note(self) -> None:
        """Remember all processes that run now, so that none of them is left in the end."""
        if self.process is not None and self.process.poll() is None:
            own = psutil.Process(self.process.pid)
            for process in [own, *own.children(recursive=True)]:
                try:
                    self.seen.setdefault(process.pid, process.create_time())
                except psutil.NoSuchProcess:
                    continue

    def left(self) -> list[int]:
        """Return the processes of this run that still live (the database server is not one of them)."""
        return [pid for pid, created in self.seen.items() if _is(pid, created)]

    def pid(self, role: str, provider: str) -> int:
        return int(until(f"{role} of {provider} runs", lambda: self.children().get((role, provider))))

    def kill(self, role: str, provider: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a role; return the pid it had."""
        pid = self.pid(role, provider)
        os.kill(pid, number)
        return pid

    def restarted(self, role: str, provider: str, old_pid: int, deadline_s: float = 10.0) -> float:
        """Wait until another process is ready in its place; return after how many seconds."""
        begun = time.monotonic()

        def ready() -> bool:
            cell = self._cell(role, provider)
            return cell is not None and int(cell["pid"]) != old_pid and bool(cell["ready"]) and int(cell["pid"]) != 0

        until(f"{role} of {provider} is ready again", lambda: self._alive() and ready(), deadline_s)
        return time.monotonic() - begun

    def kill_everything(self, *, postgres: bool = False) -> None:
        """SIGKILL the supervisor and all its children at once, and the database server if asked."""
        assert self.process is not None
        self.note()
        pids = [self.process.pid, *self.left()]
        if postgres:
            pids += self.postgres()
        self.random.shuffle(pids)
        postmaster.send(pids, signal.SIGKILL)
        self.wait()
        until("all processes of the run have gone", lambda: not self.left(), 5.0)

    def postgres_stopped(self, seconds: float) -> None:
        """SIGSTOP all processes of the embedded server for so long: it does not answer, and nobody is told that it has gone."""
        pids = self.postgres()
        postmaster.send(pids, signal.SIGSTOP)
        try:
            steady_for("the archive writers keep up", seconds, self.archives_keep_up)
        finally:
            postmaster.send(pids, signal.SIGCONT)

    def archives_keep_up(self) -> bool:
        """Whether the archive writers are less than two seconds behind."""
        return self._alive() and all(self.published(name) - self.durable("archive", name) < self.rate for name in PROVIDERS)

    def postgres(self) -> list[int]:
        """Return all processes of the embedded database server, the postmaster first."""
        path = locate(self.data / "pg") / "cluster"
        server = postmaster.find(path)
        pids = postmaster.processes(path)
        return sorted(pids, key=lambda pid: server is None or pid != server.pid)

    # --- shared memory

    def session(self, provider: str) -> str | None:
        """Return the newest session of the session file."""
        starts = [line for line in self.session_lines(provider) if line["event"] == "start"]
        return str(starts[-1]["session_id"]) if starts else None

    def session_lines(self, provider: str) -> list[dict[str, Any]]:
        path = self.data / "system" / "sessions" / f"{provider}.jsonl"
        return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    def undrained(self, provider: str) -> list[str]:
        """Return the sessions without an end line."""
        ended = {line["session_id"] for line in self.session_lines(provider) if line["event"] == "end"}
        return [line["session_id"] for line in self.session_lines(provider) if line["session_id"] not in ended]

    def ring(self, provider: str, session: str, ring: str = "tick") -> Path:
        return block_path(self.view, self.data, session, ring)

    def published(self, provider: str, session: str | None = None) -> int:
        return self._word(provider, _PUBLISHED, session)

    def durable(self, sink: str, provider: str) -> int:
        """Return how many records of the present session a sink has made durable, by its own word."""
        return self._word(provider, _DURABLE[sink])

    def _word(self, provider: str, offset: int, session: str | None = None) -> int:
        session = session or self.session(provider)
        if session is None:
            return 0
        try:
            with self.ring(provider, session).open("rb") as file:
                file.seek(offset)
                return int(struct.unpack("<Q", file.read(8))[0])
        except FileNotFoundError:
            return 0

    def counter(self, role: str, provider: str, name: str) -> int:
        cell = self._cell(role, provider)
        return 0 if cell is None else int(cell[name])

    def _cell(self, role: str, provider: str) -> dict[str, int] | None:
        try:
            counters = Counters(Counters.path(self.view, self.data, provider))
        except (FileNotFoundError, ValueError):
            return None
        try:
            cell = counters.cell(role)
            return {name: int(cell[name]) for name in _FIELDS}
        except KeyError:
            return None
        finally:
            cell = None
            counters.close()

    # --- moments

    def more(self, provider: str, count: float, deadline_s: float = 60.0) -> None:
        """Wait until so many more records have been published."""
        goal = self.published(provider) + int(count)
        until(f"{count:.0f} more records of {provider}", lambda: self._alive() and self.published(provider) >= goal, deadline_s)

    def random_moment(self, provider: str, seconds: float = 1.5) -> None:
        """Wait for a random number of records, and then for a random part of a flush: anything may be under way."""
        self.more(provider, self.random.random() * seconds * self.rate / 2)
        time.sleep(self.random.random() * 0.02)  # the moment of the fault is what is random here; no condition is waited for

    def caught_up(self, deadline_s: float = 60.0) -> None:
        """Wait until both sinks of both providers have all that was published at some moment, and old sessions are drained."""
        for provider in PROVIDERS:
            goal = self.published(provider)
            for sink in ("archive", "load"):

                def has_all(sink: str = sink, provider: str = provider, goal: int = goal) -> bool:
                    return self._alive() and self.durable(sink, provider) >= goal

                until(f"{sink} of {provider} has {goal} records", has_all, deadline_s)
            until(f"{provider} has drained its old sessions", lambda: len(self.undrained(provider)) <= 1, deadline_s)  # noqa: B023

    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("supervisor.*.log")))

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of one event, of all starts."""
        lines = [orjson.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == event]

    # --- the end

    def judge(self) -> dict[str, Verdict]:
        """After an ordered stop: run the checker and `obs audit`; return the verdicts."""
        assert self.process is None
        for venue in self.venues.values():
            venue.close()
        dsn = self.dsn or self._postgres.start()
        try:
            verdicts = check(self.data, dsn)
        finally:
            if self.dsn is None:
                self._postgres.stop()
        print(f"\nseed {SEED}  {self.folder.name}  {self.figures}")
        for verdict in verdicts.values():
            print(f"  {verdict} {verdict.unproven or ''}")
        self.audit()
        return verdicts

    def audit(self) -> dict[str, Any]:
        """Assert that `obs audit` finds nothing wrong; return what it says."""
        command = [sys.executable, "-m", "obs.cli", "audit", "--data", str(self.data), "--config", str(self.config), "--json"]
        done = subprocess.run(command, capture_output=True, timeout=120, check=False, cwd=_REPOSITORY, env=self.environ())
        said = f"{done.stdout.decode()[-3000:]}\n{done.stderr.decode()[-2000:]}"
        assert done.returncode == 0, f"obs audit: exit code {done.returncode}\n{said}"
        report: dict[str, Any] = orjson.loads(done.stdout)
        return report

    def finish(self) -> dict[str, Verdict]:
        """Wait for the sinks, stop in order, judge."""
        self.caught_up()
        self.figures["stop_s"] = round(self.stop(), 2)
        return self.judge()

    def close(self) -> None:
        """End whatever is left, and assert that shared memory holds no more than the boards, which outlive sessions."""
        stopped_well = self.process is None
        for venue in self.venues.values():
            venue.close()
        self.note()
        if self.process is not None:
            self.process.kill()
            self.wait()
        postmaster.send(self.left(), signal.SIGKILL)
        postmaster.send(self.postgres(), signal.SIGKILL)
        names = sorted(path.name for path in self.view.iterdir())
        shutil.rmtree(self.shm)
        shutil.rmtree(self.data / "pg", ignore_errors=True)
        assert not stopped_well or all(name.endswith("-board") for name in names), f"left in shared memory: {names}"


class Venue:
    """One simulated exchange, run by the test itself."""

    def __init__(self, provider: str, rate: float, log: Path, words: list[str]) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable, "-m", "obs.sim", provider, "--port", "0", "--source", "numbered", "--rate", str(rate), "--log", str(log),
            "--die-with-parent", *words,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=_REPOSITORY)
        assert self.process.stdout is not None
        self.port = int(orjson.loads(self.process.stdout.readline())["port"])

    def do(self, what: str, **parameters: Any) -> None:
        """Let it misbehave now, in the words of its scripts."""
        body = orjson.dumps({"do": what, **parameters})
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/sim/do", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert answer.status == 200, answer.read()

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        if self.process.stdout is not None:
            self.process.stdout.close()


def _is(pid: int, created: float) -> bool:
    try:
        process = psutil.Process(pid)
        return process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _die_with_parent() -> None:
    """A test run that is killed leaves nothing behind; its own threads do not matter, tests run in the main one."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
