"""Orphans of a container: where the supervisor is process 1, the kernel gives it every process whose parent has died.

One that ends stays in the process table until somebody waits for it. They are told from children of our own by time: whoever starts
a child here asks for its end within a second or two.
"""

from __future__ import annotations

import os
from typing import Final

from obs.clock import NS, Clock

PATIENCE_S: Final = 5.0


class Adopted:
    def __init__(self, clock: Clock, is_init: bool | None = None) -> None:
        self._clock = clock
        self._is_init = os.getpid() == 1 if is_init is None else is_init
        self._dead = (0, 0)  # pid, and since when (monotonic) it has been seen dead

    def turn(self) -> None:
        """Take a dead process that nobody has waited for out of the process table; call it each turn."""
        if not self._is_init:
            return
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        now = self._clock.mono_ns()
        if found is None or found.si_pid != self._dead[0]:
            self._dead = (found.si_pid if found is not None else 0, now)
        elif now - self._dead[1] > PATIENCE_S * NS:
            os.waitpid(found.si_pid, os.WNOHANG)
