"""The only thing that is ever spawned: takes its ProcessSpec from standard input, becomes the role, exits with its code.

Why not multiprocessing: its spawn starts a resource tracker beside us and imports the supervisor's modules into each
child. A plain new interpreter with the spec on a pipe costs less, and nothing secret is on a command line.
"""

from __future__ import annotations

import ctypes
import faulthandler
import fcntl
import importlib
import os
import pickle
import signal
import subprocess
import sys
from typing import Final

from obs.config.process import ProcessSpec, children_lock_path
from obs.errors import EXIT_FOUND, ObsError
from obs.supervisor.stacks import STDERR

_PR_SET_PDEATHSIG: Final = 1
ROLES: Final = ("feed", "poll", "archive", "load", "monitor", "keeper")


def module_command(module: str) -> list[str]:
    """Return the command line of a module of ours, found where we were found ourselves (-P)."""
    return [sys.executable, *(["-P"] if sys.flags.safe_path else []), "-m", module]


def spawn(spec: ProcessSpec, stacks: int = STDERR) -> subprocess.Popen[bytes]:
    """Start a child that writes its stacks to a descriptor when a signal kills it.

    Safety: from the main thread, whose death is what PR_SET_PDEATHSIG watches.
    """
    words = [*module_command("obs.supervisor.child"), str(stacks)]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, pass_fds=() if stacks == STDERR else (stacks,))
    assert child.stdin is not None
    try:
        child.stdin.write(pickle.dumps(spec))
        child.stdin.close()
    except BrokenPipeError:
        pass  # it died before it read: its exit code tells
    return child


def _tie_to_parent(parent_pid: int) -> None:
    """Die with the supervisor: the next tree must not find a second owner of a connection."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    """Run one role to its end; the only broad `except` of the program, giving one log line and one exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the whole group; the supervisor decides
    faulthandler.enable(int(sys.argv[1]) if len(sys.argv) > 1 else STDERR)
    spec: ProcessSpec = pickle.load(sys.stdin.buffer)
    _tie_to_parent(spec.parent_pid)
    # Held until death; a new tree waits for it (see obs.supervisor.locks).
    lock = os.open(children_lock_path(spec.config.data_dir, spec.owner), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    fcntl.flock(lock, fcntl.LOCK_SH)

    import setproctitle

    from obs.log import Log, capture_standard
    from obs.supervisor.notify import journal_stream

    setproctitle.setproctitle(spec.title)
    log = Log(spec.role, spec.owner, journal=journal_stream())
    capture_standard(log)
    try:
        if spec.role not in ROLES:
            raise ObsError("no such role", role=spec.role)
        code: int = importlib.import_module(f"obs.roles.{spec.role}").run(spec, log)
        log.info("role_ended", exit_code=code)
    except ObsError as error:
        log.error("role_failed", error=type(error).__name__, text=str(error))
        code = error.exit_code
    except Exception as error:
        log.exception("role_crashed", error)
        code = EXIT_FOUND
    log.close()
    return code


if __name__ == "__main__":
    sys.exit(main())
