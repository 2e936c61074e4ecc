"""Keeps data/state/calendar.json fresh: a short child computes it at the start and once a day.

Why a child: the exchange calendars pull pandas, 80 MB, which would stay in this process for ever. Until the file is there,
and if it cannot be made, feeds go by the standing hours of every weekday.
"""

from __future__ import annotations

import subprocess
from typing import Final

from obs.clock import NS, SYSTEM
from obs.config import Config, ProviderConfig
from obs.log import Log
from obs.market.calendar import ALWAYS
from obs.supervisor.child import module_command

_EVERY_NS: Final = 24 * 3600 * NS
_AGAIN_NS: Final = 600 * NS  # after a failure


class CalendarRenewal:
    """Call `turn` often; it never waits."""

    def __init__(self, config: Config, providers: tuple[ProviderConfig, ...], log: Log) -> None:
        self._path = config.data_dir / "state" / "calendar.json"
        self._needed = any(provider.hours == "calendar" and provider.market not in ALWAYS for provider in providers)
        self._log = log
        self._due_ns = 0
        self._child: subprocess.Popen[bytes] | None = None

    def turn(self) -> None:
        """Start the child when it is due, and take its result."""
        now = SYSTEM.mono_ns()
        if self._child is not None:
            code = self._child.poll()
            if code is None:
                return
            self._child = None
            self._due_ns = now + (_EVERY_NS if code == 0 else _AGAIN_NS)
            if code:
                self._log.warning("calendar_not_renewed", exit_code=code, path=str(self._path))
        elif self._needed and now >= self._due_ns:
            words = [*module_command("obs.market.compute"), str(self._path)]
            self._child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
