"""Runs the demo as real processes, finds them, kills, stops and restarts them, and judges what they left.

Everything waits for conditions (`until`), which are read where an operator or the kernel would see them: ring headers and
counters in shared memory, /proc, the session files. The shared memory of a run lies in a folder of its own under
/dev/shm, so that what a test leaves behind is seen, and goes with it. `OBS_FAULT_LONG=1` makes every test repeat its fault as
often, and wait as long, as the long form asks; `OBS_FAULT_SEED` repeats a run's random moments.

Every fault that goes through a Demo is counted, and of every SIGKILL the time is taken until the first record after it (I7):
published for a feed, a supervisor and everything; durable for an archive writer and a loader. `finish` compares descriptors and
threads of the processes that live with what they had before the faults (I6). OBS_FAULT_FIGURES names the file for all of it.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import figures
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
_FIELDS = ("pid", "ready", "reconnects", "progress", "heard_ns")
_STOP_S = 20.0  # a stop that takes longer than 10 s fails; this one is for a hang
_AUDIT_S = 1800.0 if LONG else 120.0
_SETTLED_S = 1.0  # a process that has been at work for so long has opened what it needs
# What may come and go in a healthy process: the next segment of a market, a connection that is being made; a thread of a pool.
MORE_FILES, MORE_THREADS = 4, 2
_BASELINE = ("feed", "archive", "load", "poll", "monitor", "keeper", "supervisor")
_libc = ctypes.CDLL(None, use_errno=True)
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever the machine's proxies are


def until(what: str, condition: Callable[[], Any], deadline_s: float = 60.0) -> Any:
    """Return the first true value of `condition`, asked again and again; AssertionError after `deadline_s`."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        look()
        time.sleep(0.01)
    look()
    return value


def steady_for(what: str, seconds: float, condition: Callable[[], bool]) -> None:
    """Assert that `condition` holds at every look for so long: for a fault that has to last."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert condition(), f"did not last {seconds} s: {what}"
        look()
        time.sleep(0.02)


@dataclass
class Recovery:
    """A SIGKILL whose first record afterwards is waited for, in passing: whenever a test waits for anything."""

    demo: Demo
    kind: str
    begun: float | None  # None: from the next start of the supervisor
    recorded: Callable[[], bool]


_recoveries: list[Recovery] = []


def look() -> None:
    """Take the time of the recoveries that have come about."""
    for one in _recoveries[:]:
        if one.begun is not None and one.recorded():
            one.demo.recovery_s[one.kind].append(round(time.monotonic() - one.begun, 3))
            _recoveries.remove(one)


def pending(demo: Demo) -> list[str]:
    """Return the kinds of the deaths after which no record has come yet."""
    look()
    return [one.kind for one in _recoveries if one.demo is demo]


@dataclass(frozen=True)
class Gauge:
    """What one process holds."""

    pid: int
    files: int
    threads: int
    resident: int  # bytes, without the pages of rings, which are as large as the configuration says


def gauge(pid: int) -> Gauge | None:
    """Return what a process holds now; None if it has gone."""
    try:
        files = len(os.listdir(f"/proc/{pid}/fd"))
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
        resident = sum(int(status[key].split()[0]) for key in ("RssAnon", "RssFile")) * 1024
        return Gauge(pid, files, int(status["Threads"]), resident)
    except (OSError, KeyError):  # a zombie has no memory
        return None


@dataclass(frozen=True)
class World:
    """What is different around a run: more environment for the supervisor and all that it starts, and for the exchanges; and
    where the exchanges run: words before their command (`ip netns exec …`), and the address that they listen at.
    """

    environ: Mapping[str, str] = field(default_factory=dict)
    venue_environ: Mapping[str, str] = field(default_factory=dict)
    venue_prefix: tuple[str, ...] = ()
    host: str = "127.0.0.1"


class Demo:
    """One data directory with its supervisor. `tables`: of the configuration file, by name; `dsn`: None = embedded database.

    `venues`: run the exchanges here, with these further words on their command lines, and the collector as for real ones: they
    outlive the supervisor, and can be told to misbehave. An exchange that runs already (a Venue) is shared, and left to its owner.
    """

    def __init__(
        self, folder: Path, test: str, *, dsn: str | None = None, venues: dict[str, list[str] | Venue] | None = None,
        world: World | None = None, **tables: dict[str, Any],
    ) -> None:  # fmt: skip
        self.folder, self.data, self.dsn = folder, folder / "data", dsn
        self.random = random.Random(f"{SEED} {test}")
        self.shm = Path(tempfile.mkdtemp(prefix="obs-fault-", dir="/dev/shm"))
        self.view = self.shm  # the same folder, as this process can see it
        self.prefix: list[str] = []  # of the supervisor's command
        self.world = world or World()
        self.providers = tuple(venues) if venues else PROVIDERS
        self.rate = float(tables.get("demo", {}).get("rate", RATE))
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.seen: dict[int, float] = {}  # every process of this run: pid -> time of its creation
        self.figures: dict[str, Any] = {}
        self.faults: Counter[str] = Counter()  # kind -> times
        self.recovery_s: dict[str, list[float]] = defaultdict(list)  # kind -> from each death to the first record after it
        self.before: dict[tuple[int, float], Gauge] = {}  # pid, creation -> what it held before the faults
        self._at_work: dict[tuple[int, float], float] = {}  # pid, creation -> since when
        self._postgres = EmbeddedPostgres(self.data / "pg")
        self.config = folder / "obs.toml"
        self.venues: dict[str, Venue] = {}
        self._own: list[Venue] = []
        for provider, words in (venues or {}).items():
            if isinstance(words, Venue):
                self.venues[provider] = words
                continue
            self.venues[provider] = Venue(provider, self.rate / 2, self.data / "sim" / f"{provider}.jsonl", words, self.world)
            self._own.append(self.venues[provider])
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
            symbols = {"kis": KIS_SYMBOLS, "upbit": UPBIT_SYMBOLS}.get(provider, ())  # of another section: by its table
            wanted[f"providers.{provider}"] = {
                "rest_url": f"http://{venue.host}:{venue.port}", "ws_url": f"ws://{venue.host}:{venue.port}", "symbols": symbols,
                "credentials": ["DEMO_KIS"] if venue.kind == "kis" else [], "mode": "tape", "hours": "always",
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
        before = {provider: self.session(provider) for provider in self.providers} if records else {}
        self.starts += 1
        begun = time.monotonic()
        for one in _recoveries:
            if one.demo is self and one.begun is None:
                one.begun = begun
        with open(self.folder / f"supervisor.{self.starts}.log", "wb") as errors, open(self.folder / "stdout", "ab") as out:
            self.process = subprocess.Popen(
                self.command(*more), stdin=subprocess.DEVNULL, stdout=out, stderr=errors, cwd=_REPOSITORY,
                env=self.environ() | dict(self.world.environ), preexec_fn=die_with_parent,  # noqa: PLW1509, no thread of a test holds a lock that a child needs
            )  # fmt: skip
        for provider, session in before.items():
            published = self.published(provider, session) if session else 0

            def recorded(name: str = provider, old: str | None = session, count: int = published) -> bool:
                new = self.session(name)
                return self._alive() and new is not None and self.published(name, new) > (count if new == old else 0)

            until(f"first record of {provider}", recorded, BACK_S)
        if records:
            self.figures["first_record_s"] = round(max(self.figures.get("first_record_s", 0.0), time.monotonic() - begun), 2)
            self.settle()
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
        self.settle()
        os.kill(pid, number)
        if number == signal.SIGKILL:
            self.count(f"kill {role}")
            if role in ("feed", "archive", "load"):
                self._time(f"kill {role}", provider, time.monotonic(), None if role == "feed" else role)
        elif number == signal.SIGSTOP:
            self.count(f"stop {role}")
        return pid

    def count(self, kind: str, times: int = 1) -> None:
        """Count a fault that was injected."""
        self.faults[kind] += times

    def _time(self, kind: str, provider: str, begun: float | None, sink: str | None = None) -> None:
        """Take the time from now, or from the next start, to the first record that a feed publishes or a sink makes durable."""

        def records() -> int:
            return self.durable(sink, provider) if sink else self.published(provider)

        session, count = self.session(provider), records()
        if session is not None:
            _recoveries.append(Recovery(self, kind, begun, lambda: records() > (count if self.session(provider) == session else 0)))

    def kill_supervisor(self) -> None:
        """SIGKILL the supervisor; its children go with it."""
        assert self.process is not None
        self.note()
        self.process.kill()
        self.wait()
        self.count("kill supervisor")
        for provider in self.providers:
            self._time("kill supervisor", provider, None)

    def forget_budget(self) -> None:
        """After an ordered stop: remove the board and the budget on disk, as if the app keys had never been used.

        Ten connects at once, then one a minute: without this two hundred deaths of a feed would take three hours.
        """
        assert self.process is None
        for path in self.view.glob("*-board"):
            path.unlink()
        for path in (self.data / "state").glob("*.json"):
            state = orjson.loads(path.read_bytes())
            if state.pop("budget", None):
                path.write_bytes(orjson.dumps(state))

    # --- what they hold (I6)

    def running(self) -> dict[tuple[str, str], int]:
        """Return the living children and the supervisor itself: (role, owner) -> pid."""
        if self.process is None or self.process.poll() is not None:
            return {}
        return {("supervisor", ""): self.process.pid, **self.children()}

    def settle(self) -> None:
        """Remember the least that each process at work has held: the measure for `flat`."""
        now = time.monotonic()
        for (role, owner), pid in self.running().items():
            try:
                who = pid, psutil.Process(pid).create_time()
                if role not in _BASELINE:
                    continue
                at_work = _listens(pid) if role == "monitor" else role == "supervisor" or self.counter(role, owner, "ready")
            except psutil.NoSuchProcess:
                continue
            if at_work and now - self._at_work.setdefault(who, now) >= (0.0 if role == "supervisor" else _SETTLED_S):
                held = gauge(pid)
                if held is not None:
                    then = self.before.setdefault(who, held)
                    self.before[who] = Gauge(pid, min(held.files, then.files), min(held.threads, then.threads), then.resident)

    def flat(self) -> None:
        """I6: assert that nothing has piled up in any process that was remembered and lives; print it."""
        born = {pid: held for (pid, created), held in self.before.items() if _is(pid, created)}
        held: dict[tuple[str, str], tuple[Gauge, Gauge]] = {}

        def is_flat() -> bool:
            held.clear()
            held.update({who: (born[pid], now) for who, pid in self.running().items() if pid in born and (now := gauge(pid)) is not None})
            return all(now.files <= was.files + MORE_FILES and now.threads <= was.threads + MORE_THREADS for was, now in held.values())

        try:
            until("descriptors and threads are what they were", is_flat, 15.0)
        except AssertionError as error:
            raise AssertionError(f"{error}: {held}") from None
        for (role, owner), (was, now) in sorted(held.items()):
            facts = f"descriptors {was.files} -> {now.files}, threads {was.threads} -> {now.threads}"
            print(f"  {role} {owner}: {facts}, resident {was.resident >> 10} -> {now.resident >> 10} KiB")

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
        self.count("kill everything")
        for provider in self.providers:
            self._time("kill everything", provider, None)
        until("all processes of the run have gone", lambda: not self.left(), 5.0)

    def postgres_stopped(self, seconds: float) -> None:
        """SIGSTOP all processes of the embedded server for so long: it does not answer, and nobody is told that it has gone."""
        pids = self.postgres()
        self.count("stop database")
        postmaster.send(pids, signal.SIGSTOP)
        try:
            steady_for("the archive writers keep up", seconds, self.archives_keep_up)
        finally:
            postmaster.send(pids, signal.SIGCONT)

    def archives_keep_up(self) -> bool:
        """Whether the archive writers are less than two seconds behind."""
        return self._alive() and all(self.published(name) - self.durable("archive", name) < self.rate for name in self.providers)

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
                return int.from_bytes(file.read(8), "little")  # of a file that a test has cut: 0
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
        self.settle()
        goal = self.published(provider) + int(count)
        until(f"{count:.0f} more records of {provider}", lambda: self._alive() and self.published(provider) >= goal, deadline_s)

    def random_moment(self, provider: str, seconds: float = 1.5) -> None:
        """Wait for a random number of records, and then for a random part of a flush: anything may be under way."""
        self.more(provider, self.random.random() * seconds * self.rate / 2)
        time.sleep(self.random.random() * 0.02)  # the moment of the fault is what is random here; no condition is waited for

    def caught_up(self, deadline_s: float = 60.0) -> None:
        """Wait until both sinks of both providers have all that was published at some moment, and old sessions are drained."""
        for provider in self.providers:
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

    def judge(self, *, last: bool = True) -> dict[str, Verdict]:
        """After an ordered stop: run the checker and `obs audit`; return the verdicts. `last`: the exchanges end, figures are noted."""
        assert self.process is None
        if last:
            for venue in self._own:
                venue.close()
        dsn = self.dsn or self._postgres.start()
        try:
            verdicts = check(self.data, dsn, self.providers)
        finally:
            if self.dsn is None:
                self._postgres.stop()
        print(f"\nseed {SEED}  {self.folder.name}  {self.figures}")
        for verdict in verdicts.values():
            print(f"  {verdict} {verdict.unproven or ''}")
        for kind, values in sorted(self.recovery_s.items()):
            print(f"  {kind}: {self.faults[kind]} times, first record after p50 / p99 {figures.spread(values)}, max {max(values):.1f} s")
        self.audit()
        if last:
            self._note_figures(verdicts)
        return verdicts

    def _note_figures(self, verdicts: dict[str, Verdict]) -> None:
        faults = sum((venue.faults for venue in self._own), self.faults)
        figures.note(
            figures.this_test(), SEED, long=LONG, demo=self.folder.name, faults=dict(faults),
            moved=sum(verdict.archived for verdict in verdicts.values()),
            lost=sum(verdict.archive_lost + verdict.unreceived for verdict in verdicts.values()),
            invented=sum(verdict.invented for verdict in verdicts.values()),
            recovery_s=dict(self.recovery_s), figures=self.figures,
        )  # fmt: skip

    def audit(self) -> dict[str, Any]:
        """Assert that `obs audit` finds nothing wrong; return what it says."""
        command = [sys.executable, "-m", "obs.cli", "audit", "--data", str(self.data), "--config", str(self.config), "--json"]
        done = subprocess.run(command, capture_output=True, timeout=_AUDIT_S, check=False, cwd=_REPOSITORY, env=self.environ())
        said = f"{done.stdout.decode()[-3000:]}\n{done.stderr.decode()[-2000:]}"
        assert done.returncode == 0, f"obs audit: exit code {done.returncode}\n{said}"
        report: dict[str, Any] = orjson.loads(done.stdout)
        return report

    def finish(self) -> dict[str, Verdict]:
        """Wait for the sinks, stop in order, judge."""
        self.caught_up()
        self.flat()
        self.figures["stop_s"] = round(self.stop(), 2)
        return self.judge()

    def close(self) -> None:
        """End whatever is left, and assert that shared memory holds no more than the boards, which outlive sessions."""
        stopped_well = self.process is None
        _recoveries[:] = [one for one in _recoveries if one.demo is not self]
        for venue in self._own:
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


def listening(one: Demo) -> dict[str, Any]:
    """Return where the monitor listens: host, port, url, pid."""
    path = one.data / "state" / "http.json"
    return dict(until("the monitor listens", lambda: path.exists() and orjson.loads(path.read_bytes())))


def health(one: Demo) -> dict[str, Any]:
    """Return what GET /health answers."""
    try:
        with _direct.open(f"{listening(one)['url']}/health", timeout=15) as answer:
            return dict(orjson.loads(answer.read()))
    except urllib.error.HTTPError as error:
        with error:
            return dict(orjson.loads(error.read()))


class Venue:
    """One simulated exchange, run by the test itself."""

    def __init__(self, provider: str, rate: float, log: Path, words: list[str], world: World) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.kind = provider.partition("_")[0]  # a section is named for its type, and what follows
        self.host, self.log = world.host, log
        self.faults: Counter[str] = Counter()  # what it was told to do: kind -> times
        command = [
            *world.venue_prefix, sys.executable, "-m", "obs.sim", self.kind, "--host", world.host, "--port", "0", "--source", "numbered",
            "--rate", str(rate), "--log", str(log), "--die-with-parent", *words,
        ]  # fmt: skip
        environ = os.environ | dict(world.venue_environ)
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=_REPOSITORY, env=environ)
        assert self.process.stdout is not None
        self.port = int(orjson.loads(self.process.stdout.readline())["port"])

    def do(self, what: str, **parameters: Any) -> None:
        """Let it misbehave now, in the words of its scripts."""
        self.faults[f"venue {what}"] += 1
        body = orjson.dumps({"do": what, **parameters})
        request = urllib.request.Request(f"http://{self.host}:{self.port}/sim/do", body, {"Content-Type": "application/json"})
        with _direct.open(request, timeout=5) as answer:
            assert answer.status == 200, answer.read()

    def stats(self) -> dict[str, Any]:
        """Return what it has sent, and to how many subscriptions."""
        with _direct.open(f"http://{self.host}:{self.port}/sim/stats", timeout=5) as answer:
            return dict(orjson.loads(answer.read()))

    def done(self, what: str) -> list[dict[str, Any]]:
        """Return the lines of its log of one thing that it did."""
        found = self.log.read_bytes() if self.log.exists() else b""
        mark = f'"do":"{what}"'.encode()
        return [orjson.loads(line) for line in found[: found.rfind(b"\n") + 1].splitlines() if mark in line]

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        if self.process.stdout is not None:
            self.process.stdout.close()


def _listens(pid: int) -> bool:
    return any(one.status == psutil.CONN_LISTEN for one in psutil.Process(pid).net_connections("tcp"))


def _is(pid: int, created: float) -> bool:
    try:
        process = psutil.Process(pid)
        return process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def die_with_parent() -> None:
    """A test run that is killed leaves nothing behind; its own threads do not matter, tests run in the main one."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
