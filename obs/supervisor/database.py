"""The embedded PostgreSQL, as the supervisor of the host's services keeps it: started, adopted, restarted, stopped.

All of it happens in a thread: a database takes seconds, and collecting does not wait for it. The server outlives a killed
supervisor; the next one adopts it.
"""

from __future__ import annotations

import threading
from typing import Final

from obs.clock import NS, SYSTEM
from obs.config import Config
from obs.errors import LoadRetryable, ObsError
from obs.log import Log
from obs.pg.embedded import EmbeddedPostgres

_WATCH_NS: Final = NS
_PATIENCE: Final = 30  # so many times that, at most, between starts that fail: a full disk is not helped by more
_STOP_S: Final = 30


class Database:
    def __init__(self, config: Config, log: Log) -> None:
        self._server = EmbeddedPostgres(config.data_dir / "pg")
        self._log = log
        self._thread: threading.Thread | None = None
        self._watched_ns = 0
        self._failures = 0

    def start(self) -> None:
        """Begin to start it; return at once."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._start, name="database", daemon=True)
            self._thread.start()

    def _start(self) -> None:
        try:
            self._server.start()
            self._failures = 0
            self._log.info("database_ready", database_pid=self._server.pid())
        except (LoadRetryable, OSError) as error:  # OSError: a full disk takes not even its configuration
            self._failures += 1
            self._log.warning("database_slow", text=str(error))  # `watch` tries again
        except ObsError as error:
            self._log.error("database_failed", text=str(error))

    def watch(self) -> None:
        """Start it again if it is gone; call it every turn."""
        now = SYSTEM.mono_ns()
        if now - self._watched_ns < _WATCH_NS * min(2**self._failures, _PATIENCE) or (self._thread is not None and self._thread.is_alive()):
            return
        self._watched_ns = now
        if not self._server.is_alive():
            self._log.warning("database_gone")
            self.start()

    def join(self) -> None:
        """Wait until a start that is under way has ended."""
        if self._thread is not None:
            self._thread.join(_STOP_S)

    def stop(self) -> None:
        """Shut it down, unless another supervisor of this host still uses it."""
        self.join()
        if not self._server.stop():
            self._log.info("database_left", why="another process uses it")
