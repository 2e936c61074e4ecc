"""Real terminals for tests: a pseudo-terminal that a command runs on, and tmux, which also tells what a person would see."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PROMPT = "ready$ "


def command(*words: str | Path) -> list[str]:
    """The obs command of this checkout."""
    return [sys.executable, "-W", "error", "-m", "obs.cli", *map(str, words)]


def environ(**changes: str | None) -> dict[str, str]:
    """Return an environment in which nothing speaks of a terminal, or of obs, but `changes`; None: without it."""
    unwanted = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "TERM", "TMUX")
    kept = {name: value for name, value in os.environ.items() if name not in unwanted and not name.startswith(("OBS_", "KIS_"))}
    given = {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **changes}
    return kept | {name: value for name, value in given.items() if value is not None}


def until(what: str, condition: Callable[[], Any], deadline_s: float = 20.0) -> Any:
    """Return the first true value of `condition`; AssertionError after `deadline_s`."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.02)
    return value


class OnTerminal:
    """A command of obs, or a line for the shell, with some streams on a pseudo-terminal; `screen` is all that it wrote there."""

    def __init__(
        self, *words: str | Path, shell: str = "", streams: str = "0 1 2", size: tuple[int, int] = (100, 30), **environment: str | None
    ) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        on = [theirs if name in streams.split() else None for name in "012"]
        self.process = subprocess.Popen(
            ["sh", "-c", shell] if shell else command(*words), stdin=on[0] or subprocess.DEVNULL, stdout=on[1] or subprocess.PIPE,
            stderr=on[2] or subprocess.PIPE, cwd=ROOT, env=environ(**environment), start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        os.set_blocking(self._ours, False)
        self.screen = b""

    def read(self) -> bytes:
        with contextlib.suppress(BlockingIOError, OSError):  # OSError: the other end has gone
            while data := os.read(self._ours, 1 << 16):
                self.screen += data
        return self.screen

    def types(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def sees(self, text: bytes, deadline_s: float = 20.0) -> None:
        until(f"{text!r} on the terminal", lambda: text in self.read(), deadline_s)

    def end(self, deadline_s: float = 30.0) -> tuple[int, bytes, bytes]:
        """Wait for its end; return the exit code, and what it wrote to stdout and stderr where these are pipes."""
        until("its end", lambda: (self.read(), self.process.poll() is not None)[1], deadline_s)
        out, err = self.process.communicate()
        self.read()
        return self.process.returncode, out or b"", err or b""

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        os.close(self._ours)


class Tmux:
    """A shell on a terminal of its own, in a tmux server of its own."""

    def __init__(self, size: tuple[int, int] = (80, 24), shell: str = "sh", **environment: str | None) -> None:
        self._folder = tempfile.mkdtemp(prefix="obs-tmux-")
        self._environ = environ(TMUX_TMPDIR=self._folder, **environment)
        # -f: nobody's configuration; a session ends with its server in `close`.
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", str(size[0]), "-y", str(size[1]), "-c", str(ROOT), shell)
        self.keys("-l", f"PS1='{PROMPT[:3]}''{PROMPT[3:]}'; clear")  # what is typed must not look like the prompt
        self.keys("Enter")
        self.shows(PROMPT.strip())

    def _tmux(self, *words: str) -> str:
        done = subprocess.run(["tmux", *words], capture_output=True, text=True, env=self._environ, check=False, timeout=20)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def keys(self, *keys: str) -> None:
        """Press keys: names of tmux (Enter, C-c, Tab, Right), or letters."""
        self._tmux("send-keys", *keys)

    def run(self, *words: str | Path) -> None:
        """Type a command and Enter."""
        self._tmux("send-keys", "-l", shlex.join(map(str, words)))
        self.keys("Enter")

    def resize(self, columns: int, lines: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def lines(self, *, colours: bool = False) -> list[str]:
        """What is on the screen now."""
        return self._tmux("capture-pane", "-p", *(["-e"] if colours else [])).rstrip("\n").split("\n")

    def screen(self) -> str:
        return "\n".join(self.lines())

    def shows(self, text: str, deadline_s: float = 20.0) -> str:
        """Wait until `text` is on the screen; return the screen."""
        try:
            until("", lambda: text in self.screen(), deadline_s)
        except AssertionError:
            raise AssertionError(f"not on the screen within {deadline_s} s: {text!r}\n{self.screen()}") from None
        return self.screen()

    def state(self) -> dict[str, str]:
        """Whether the alternate screen is on, whether the cursor shows, and what runs."""
        names = ("alternate_on", "cursor_flag", "pane_current_command", "pane_pid")
        return dict(zip(names, self._tmux("display-message", "-p", " ".join(f"#{{{name}}}" for name in names)).split(), strict=True))

    def child(self) -> int:
        """The process that the shell runs."""
        shell = self.state()["pane_pid"]
        return int(until("a child of the shell", lambda: Path(f"/proc/{shell}/task/{shell}/children").read_text().split())[0])

    def close(self) -> None:
        subprocess.run(["tmux", "kill-server"], capture_output=True, env=self._environ, check=False, timeout=20)
        for path in sorted(Path(self._folder).rglob("*"), reverse=True):
            path.unlink() if not path.is_dir() else path.rmdir()
        os.rmdir(self._folder)


@contextmanager
def terminal(*words: str | Path, **how: Any) -> Iterator[OnTerminal]:
    one = OnTerminal(*words, **how)
    try:
        yield one
    finally:
        one.close()


@contextmanager
def tmux(**how: Any) -> Iterator[Tmux]:
    one = Tmux(**how)
    try:
        yield one
    finally:
        one.close()
