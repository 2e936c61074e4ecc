"""A machine that gives little: descriptors and memory of each process. Too little shared memory is in test_memory.py.

What is limited here: RLIMIT_NOFILE, and RLIMIT_DATA, which since Linux 4.7 counts all private writable memory of a process, also
what it has mapped and not touched (stacks of threads, arenas of malloc), and not the rings, which are shared. So it is stricter
than a limit of 256 MB on what a process keeps resident (PSS). Why not RLIMIT_AS: it also counts libraries and rings, which take no
memory of the process. Why not a control group: it counts all processes together, the embedded database too, and few test machines
let one be made.
"""

from __future__ import annotations

import resource
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from harness import LONG, PROVIDERS, Demo, steady_for, until

Make = Callable[..., Demo]
DESCRIPTORS, MEGABYTES = 64, 256
TURNS = 5 if LONG else 1
pytestmark = pytest.mark.timeout(900 if LONG else 300)


def limit(one: Demo, descriptors: int = DESCRIPTORS, megabytes: int = MEGABYTES) -> None:
    """Give the supervisor, and all it starts, these limits."""
    one.prefix = ["sh", "-c", f'ulimit -n {descriptors} && ulimit -d {megabytes * 1_000_000 // 1024} && exec "$@"', "sh"]


def use(one: Demo) -> dict[str, tuple[int, int, int]]:
    """Return role and owner -> descriptors, MB that RLIMIT_DATA counts, MB resident and its own."""
    assert one.process is not None
    found = {}
    for process in [psutil.Process(one.process.pid), *psutil.Process(one.process.pid).children()]:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            status = dict(line.split(":", 1) for line in lines if ":" in line)
            name = " ".join(process.cmdline())
            soft = [process.rlimit(number)[0] for number in (resource.RLIMIT_NOFILE, resource.RLIMIT_DATA)]
            assert soft == [DESCRIPTORS, MEGABYTES * 1_000_000], "a child has other limits than were set"
            used = [int(status[key].split()[0]) // 1000 for key in ("VmData", "RssAnon")]
            found[name if name.startswith("obs ") else "supervisor or exchange"] = (process.num_fds(), used[0], used[1])
        except (psutil.NoSuchProcess, FileNotFoundError, KeyError):
            continue
    return found


def test_it_works_within_64_descriptors_and_256_megabytes(demo: Make, dsn: str) -> None:
    """Backlogs of full rings, a sink that catches up, undrained sessions as many as may be, and every record accounted for."""
    one = demo(dsn=dsn)
    limit(one)
    one.start()
    one.more("kis", 500)
    sessions = {one.session("kis")}
    most: dict[str, tuple[int, int, int]] = {}
    for _ in range(TURNS):
        for provider in PROVIDERS:
            for sink in ("archive", "load"):
                one.kill(sink, provider, signal.SIGSTOP)
        for provider in PROVIDERS:
            one.more(provider, one.rate * 2)
        one.kill_everything()  # what the sinks had not stored waits in the rings
        one.start()
        sessions.add(one.session("kis"))
    for provider in PROVIDERS:
        for sink in ("archive", "load"):
            one.kill(sink, provider, signal.SIGSTOP)
    for provider in PROVIDERS:
        one.more(provider, one.rate * 2)
    for provider in PROVIDERS:
        for sink in ("archive", "load"):
            one.kill(sink, provider, signal.SIGCONT)

    def measured() -> bool:
        for name, now in use(one).items():
            most[name] = max(most.get(name, now), now)
        return True

    steady_for("it runs while the sinks catch up", 3.0, measured)
    until("everything is stored", lambda: measured() and one.archives_keep_up())
    assert len(sessions) == 1 + TURNS
    one.figures["descriptors"] = max(descriptors for descriptors, _, _ in most.values())
    one.figures["data_mb"] = max(megabytes for _, megabytes, _ in most.values())
    one.figures["own_mb"] = max(megabytes for _, _, megabytes in most.values())
    assert not one.logged("process_died"), one.logged("process_died")
    assert not one.logged("role_crashed"), one.logged("role_crashed")
    one.finish()


@pytest.mark.parametrize(
    ("descriptors", "megabytes", "words"),
    [(40, MEGABYTES, ["open files: limit=40 need=", "ulimit -n"]), (DESCRIPTORS, 160, ["memory of a process: limit=", "ulimit -d"]),
     (40, 160, ["open files", "memory of a process"])],
)  # fmt: skip
def test_too_little_is_refused_at_the_start(demo: Make, dsn: str, descriptors: int, megabytes: int, words: list[str]) -> None:
    """How much is needed, how much there is, what to do, exit code 2; nothing is left and nothing recorded."""
    one = demo(dsn=dsn)
    limit(one, descriptors, megabytes)
    done = subprocess.run(one.command(), capture_output=True, timeout=60, check=False, env=one.environ(), cwd=Path(__file__).parents[2])
    said = done.stderr.decode()
    assert done.returncode == 2, said
    assert all(word in said for word in words), said
    assert "Traceback" not in said
    assert not list(one.view.iterdir())
    assert not list(one.data.glob("scalp/**/*"))


def test_too_little_to_load_the_libraries(demo: Make, dsn: str) -> None:
    """It ends at once, with a word, and starts nothing."""
    one = demo(dsn=dsn)
    limit(one, megabytes=48)
    done = subprocess.run(one.command(), capture_output=True, timeout=60, check=False, env=one.environ(), cwd=Path(__file__).parents[2])
    assert done.returncode != 0
    assert b"emory" in done.stderr, done.stderr
    assert not list(one.view.iterdir())
