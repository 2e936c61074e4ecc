"""Orphans of a container: with a real process 1 of a process namespace."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Process 1: an orphan that ends, and a child of its own that ends and is asked for later. Prints who was in the process table when.
_INIT = """
import json, os, subprocess, sys, time
from obs.clock import NS
from obs.supervisor.adopted import PATIENCE_S, Adopted

class Hands:
    ns = 0
    def mono_ns(self): return self.ns
    def wall_ns(self): return self.ns

def dead():
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                text = open(f"/proc/{name}/stat").read()
            except OSError:
                continue
            if text.rpartition(")")[2].split()[0] == "Z":
                found.append(int(name))
    return found

def until(condition):
    end = time.monotonic() + 20
    while not condition():
        if time.monotonic() > end:
            sys.exit("too late")
        time.sleep(0.005)

clock, report = Hands(), {"pid": os.getpid()}
adopted = Adopted(clock)
adopted.turn()
reads, writes = os.pipe()  # it lives until its parent is dead
words = ["sh", "-c", f"sh -c 'read line; exit 7' <&{reads} >/dev/null & echo $!"]
orphan = int(subprocess.run(words, stdout=subprocess.PIPE, pass_fds=[reads]).stdout)
os.close(writes)
until(lambda: orphan in dead())
adopted.turn()
clock.ns += int(PATIENCE_S * NS)
adopted.turn()
report["too_soon"] = orphan in dead()
clock.ns += 1
adopted.turn()
report["reaped"] = orphan not in dead()
own = subprocess.Popen(["sh", "-c", "exit 3"])
until(lambda: own.pid in dead())
for _ in range(50):
    adopted.turn()
    clock.ns += int(PATIENCE_S * NS / 60)
report["own"] = own.wait()
report["left"] = dead()
print(json.dumps(report))
"""


def test_process_1_reaps_what_it_was_given_and_leaves_its_own_children_alone() -> None:
    if shutil.which("unshare") is None:
        pytest.skip("no unshare(1) to become process 1 with")
    namespace = ["unshare", *(["-r"] if os.geteuid() else []), "--pid", "--mount-proc", "--fork"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no process namespace may be made here")
    done = subprocess.run([*namespace, sys.executable, "-c", _INIT], capture_output=True, text=True, cwd=ROOT, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"pid": 1, "too_soon": True, "reaped": True, "own": 3, "left": []}
