"""A day in twenty-four minutes: sixty times the mission's rate, and random faults by seed all the while; I1 to I7 in the end.

The mission is 41 symbols at 2 Hz of two providers, 164 records a second. What is injected, and when, is `soak_plan.plan`, a pure
function of the seed; faults overlap as they fall. Memory is measured in every life of every process: what it holds when it is warm,
and what it holds in the end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median

import harness
import pytest
from figures import spread
from harness import LONG, SEED, Demo, gauge, look, until
from soak_plan import KINDS, Fault, plan

from obs.pg import postmaster

MISSION = 2 * 41 * 2  # records/s
RATE = 60 * MISSION if LONG else 2000
SECONDS = 24 * 60.0 if LONG else 75.0
EVERY_S = 6.0 if LONG else 2.5  # between two faults, on average
SAMPLED_S = 5.0 if LONG else 1.0  # between two looks at the memory
WARM_S = 120.0 if LONG else 20.0  # buffers have been as full as they get
JUDGED_S = 120.0 if LONG else 20.0  # a life is judged if it goes on for so long after that
GROWN = 1.05
# Blocks of an allocator come whole; in the short form a life has not seen the longest batch when it counts as warm.
GRAIN = (1 if LONG else 8) << 20
RECOVERED_S = 120.0  # until the first record after any death, whatever else is broken at that moment

Make = Callable[..., Demo]
pytestmark = pytest.mark.timeout(9000 if LONG else 400)


def test_the_same_seed_injects_the_same_faults() -> None:
    """I5: kind, provider, moment and every parameter; another seed gives another run. Every kind comes up."""
    assert plan(SEED, 1440, 6.0) == plan(SEED, 1440, 6.0)
    assert plan(SEED, 1440, 6.0) != plan(SEED + 1, 1440, 6.0)
    assert {fault.kind for seed in range(20) for fault in plan(seed, 1440, 6.0)} == set(KINDS)


def can_slow_fsync() -> bool:
    """Whether strace is there and may trace another process."""
    if not shutil.which("strace"):
        return False
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        command = ["strace", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:delay_enter=1", "-p", str(child.pid)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as tracer:
            try:
                until("strace traces", lambda: tracer.poll() is not None or _traced(child.pid), 10.0)
                return tracer.poll() is None
            finally:
                tracer.terminate()
                child.kill()


def _traced(pid: int) -> bool:
    return "TracerPid:\t0" not in Path(f"/proc/{pid}/status").read_text()


class Soak:
    """Injects the faults of a plan and ends those that last."""

    def __init__(self, one: Demo) -> None:
        self.one = one
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.tracers: list[subprocess.Popen[bytes]] = []
        self.injected: list[Fault] = []
        self.begun = time.monotonic()
        self.sampled = 0.0
        self.held: dict[tuple[str, str, int], list[tuple[float, int]]] = defaultdict(list)  # role, owner, pid -> (age, bytes)
        self.born: dict[int, float] = {}

    def run(self, faults: list[Fault], seconds: float) -> None:
        for fault in faults:
            self.pass_time(fault.at_s)
            self.inject(fault)
            self.injected.append(fault)
        self.pass_time(seconds)
        while self.later:  # what was stopped goes on
            self.pass_time(time.monotonic() - self.begun + 0.1)

    def pass_time(self, until_s: float) -> None:
        """Let the plan's time pass; end what lasts no longer, and measure."""
        while True:
            now = time.monotonic()
            for entry in [entry for entry in self.later if entry[0] <= now]:
                self.later.remove(entry)
                entry[1]()
            if now - self.sampled > SAMPLED_S:
                self.sampled = now
                self.sample()
            look()
            if now - self.begun >= until_s:
                return
            time.sleep(0.02)

    def sample(self) -> None:
        now = time.monotonic()
        for (role, owner), pid in self.one.running().items():
            held = gauge(pid) if role != "sim" else None
            if held is not None:
                self.born.setdefault(pid, now)
                self.held[role, owner, pid].append((now - self.born[pid], held.resident))

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        self.later.append((time.monotonic() + seconds, what))

    def inject(self, fault: Fault) -> None:
        one, facts = self.one, dict(fault.facts)
        what, _, who = fault.kind.partition(" ")
        if what == "venue":
            if who == "refuse":
                one.venues[fault.provider].do("refuse", **facts)
                one.venues[fault.provider].do("drop")
            else:
                one.venues[fault.provider].do(who, **facts)
        elif fault.kind == "kill supervisor":
            self.wake()
            one.kill_supervisor()
            one.start()
        elif fault.kind == "kill everything":
            self.wake()
            one.kill_everything(postgres=bool(facts["postgres"]))
            one.start()
        elif fault.kind == "kill database":
            pids = one.postgres()
            one.count(fault.kind)
            postmaster.send(pids if facts["whole"] else pids[:1], signal.SIGKILL)
        elif fault.kind == "stop database":
            self.stop_all(one.postgres(), facts["s"], fault.kind)
        elif what == "stop":
            pid = one.kill(who, fault.provider, signal.SIGSTOP)
            self.after(facts["s"], lambda: _continue([pid]))
        elif what == "kill":
            one.kill(who, fault.provider or "services")
        else:
            self.slow_fsync(one.pid("archive", fault.provider), facts["s"], facts["delay_us"])

    def stop_all(self, pids: list[int], seconds: float, kind: str) -> None:
        self.one.count(kind)
        postmaster.send(pids, signal.SIGSTOP)
        self.after(seconds, lambda: _continue(pids))

    def slow_fsync(self, pid: int, seconds: float, delay_us: int) -> None:
        self.one.count("slow fsync")
        command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "-e", f"inject=fsync:delay_enter={delay_us}"]
        tracer = subprocess.Popen([*command, "-p", str(pid)], stderr=subprocess.DEVNULL, preexec_fn=harness.die_with_parent)  # noqa: PLW1509
        self.tracers.append(tracer)
        self.after(seconds, lambda: self.end_tracer(tracer))

    def end_tracer(self, tracer: subprocess.Popen[bytes]) -> None:
        tracer.terminate()
        tracer.wait(30)
        self.tracers.remove(tracer)

    def wake(self) -> None:
        """Before a start: the database goes on, and nobody is traced."""
        for _, what in self.later:
            what()
        self.later.clear()

    def grown(self) -> list[str]:
        """Say which life of which process holds more in the end than when it was warm; print all that were long enough."""
        found = []
        for (role, owner, pid), samples in sorted(self.held.items()):
            warm = [held for age, held in samples if WARM_S <= age < WARM_S + JUDGED_S / 2]
            if not warm or samples[-1][0] < WARM_S + JUDGED_S:
                continue
            last = [held for age, held in samples if age > samples[-1][0] - JUDGED_S / 4]
            before, after = median(warm), median(last)
            fact = f"{role} {owner} {pid}: {samples[-1][0]:.0f} s, resident {before / 1024:.0f} -> {after / 1024:.0f} KiB"
            print(f"  {fact} ({after / before - 1:+.1%})")
            if after > before * GROWN + GRAIN:
                found.append(fact)
        return found


def _continue(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def pss_kib(pids: list[int]) -> int:
    """Return the sum of the proportional set sizes, without shared memory, which the configuration sizes."""
    found = 0
    for pid in pids:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
        found += int(lines["Pss"].split()[0]) - int(lines["Pss_Shmem"].split()[0])
    return found


def test_soak(demo: Make) -> None:
    """Everything at once and for long: nothing is lost without a gap row, nothing invented, nothing piles up."""
    one = demo(
        venues={"kis": ["--zombie-s", "0.3"], "upbit": []}, demo={"rate": RATE}, ring={"capacity": 131072},
        archive={"flush_s": 1.0, "segment_s": 60 if LONG else 10}, loader={"flush_s": 1.0},
    )  # fmt: skip
    one.start()
    faults = plan(SEED, SECONDS, EVERY_S, frozenset() if can_slow_fsync() else frozenset({"slow fsync"}))
    soak = Soak(one)
    try:
        soak.run(faults, SECONDS)
    finally:
        for tracer in soak.tracers[:]:
            soak.end_tracer(tracer)
    assert soak.injected == faults
    harness.until("both feeds record again", lambda: not harness.pending(one), RECOVERED_S)
    one.caught_up(1800.0 if LONG else 120.0)
    soak.sample()
    one.figures |= {"faults": len(faults), "pss_kib": pss_kib([pid for (role, _), pid in one.running().items() if role != "sim"])}
    verdicts = one.finish()
    assert not (grown := soak.grown()), grown
    slow = {kind: spread(values) for kind, values in one.recovery_s.items() if max(values) > RECOVERED_S}
    assert not slow, slow
    for verdict in verdicts.values():
        assert verdict.invented == 0
        assert verdict.archived == verdict.database or verdict.archive_lost or verdict.database_lost
