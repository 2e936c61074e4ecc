"""A terminal as a full-screen program has it: the alternate screen, keys one by one, its size, and all of it given back.

Whatever ends the program (a key, Ctrl-C, SIGTERM, an exception) the terminal is as it was; SIGTSTP (Ctrl-Z) gives it back for as long
as the program is stopped. Only a SIGKILL cannot be cleaned up after: `reset` does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console, Group
from rich.control import Control
from rich.live import Live
from rich.text import Text

from obs.cli.frame import STYLES, Row

_WAKING: Final = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)


def drawn(rows: Sequence[Row]) -> Group:
    """Return the lines of a frame as rich draws them."""
    return Group(*(Text.assemble(*((text, STYLES[style]) for text, style in row), no_wrap=True, overflow="crop") for row in rows))


class Screen:
    """The terminal on stdin and stdout while it is ours; made by `opened`."""

    def __init__(self, console: Console, wakes: int) -> None:
        self._console, self._wakes = console, wakes
        self._input = sys.stdin.fileno()
        self._before: list[Any] = []
        self._live: Live | None = None
        self.stop_asked = False

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, as they are now."""
        columns, lines = os.get_terminal_size(sys.stdout.fileno())
        return columns, lines

    def take(self) -> None:
        self._before = termios.tcgetattr(self._input)
        tty.setcbreak(self._input)  # keys one by one, unseen; Ctrl-C and Ctrl-Z remain signals
        self._live = Live(console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._live.start()

    def give_back(self) -> None:
        if self._live is not None:
            live, self._live = self._live, None
            # tmux, resized meanwhile, would otherwise leave lines of ours behind on the ordinary screen.
            self._console.control(Control.clear(), Control.home())
            live.stop()
        if self._before:
            termios.tcsetattr(self._input, termios.TCSADRAIN, self._before)
            self._before = []

    def show(self, rows: Sequence[Row]) -> None:
        """Draw a frame in place of the one before."""
        assert self._live is not None
        self._console.size = self.size
        self._live.update(drawn(rows), refresh=True)

    def keys(self, seconds: float) -> list[str]:
        """Return the keys that were pressed: none within `seconds`, or because the terminal changed."""
        ready, _, _ = select.select([self._input, self._wakes], [], [], max(0.0, seconds))
        if self._wakes in ready:
            with contextlib.suppress(BlockingIOError):
                while os.read(self._wakes, 512):
                    pass
            if self.stop_asked:
                self._sleep()
        if self._input not in ready:
            return []
        typed = os.read(self._input, 64).decode("utf-8", "replace")
        if not typed:
            return ["q"]  # the terminal has gone
        return [typed] if typed.startswith("\x1b") else list(typed)

    def _sleep(self) -> None:
        """Do what Ctrl-Z means, with the terminal in order meanwhile."""
        self.stop_asked = False
        self.give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self.take()


@contextmanager
def opened() -> Iterator[Screen]:
    """Give the screen, and give the terminal back at the end, whatever ends it."""
    reads, writes = os.pipe()
    for end in (reads, writes):
        os.set_blocking(end, False)
        fcntl.fcntl(end, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    screen = Screen(Console(highlight=False), reads)

    def woken(number: int, _: object) -> None:
        screen.stop_asked = screen.stop_asked or number == signal.SIGTSTP

    waker = signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    before = {number: signal.signal(number, woken) for number in _WAKING}
    quits = signal.signal(signal.SIGQUIT, signal.getsignal(signal.SIGTERM))
    try:
        screen.take()
        yield screen
    finally:
        # A second signal must not cut the restoring short.
        ends = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP})
        screen.give_back()
        signal.pthread_sigmask(signal.SIG_SETMASK, ends)
        signal.set_wakeup_fd(waker)
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.signal(signal.SIGQUIT, quits)
        os.close(reads)
        os.close(writes)
