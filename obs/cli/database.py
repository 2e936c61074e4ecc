"""The database of a configuration, for as long as a command needs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from obs.config import Config
from obs.errors import ObsError


def folder(config: Config) -> Path:
    """Return where the embedded database of this data directory lies."""
    return config.data_dir / "pg"


def is_made(config: Config) -> bool:
    """Tell whether the embedded database has ever been started."""
    return folder(config).is_dir()


def last_error(config: Config) -> str:
    """Return the last FATAL, PANIC or ERROR line of the embedded database's newest log that has one, "" if there is none."""
    if config.database.dsn is not None or not is_made(config):
        return ""
    from obs.pg.cluster import locate

    try:
        logs = sorted((locate(folder(config)) / "log").glob("*.log"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in logs:
            lines = path.read_text(errors="replace").splitlines()
            found = next((line for line in reversed(lines) if any(f"{word}:" in line for word in ("FATAL", "PANIC", "ERROR"))), "")
            if found:
                return found.strip()
    except (OSError, ObsError):
        pass
    return ""


@contextmanager
def database(config: Config, *, make: bool = False) -> Iterator[str]:
    """Give the DSN of a database that answers: the configured one, or the embedded one, started if it is down.

    An embedded server that ran before is left running, one that was down is stopped at the end (unless somebody else has
    begun to use it meanwhile). Raises LoadRetryable if it does not come up, ObsError if it was never made, unless `make`.
    """
    if config.database.dsn is not None:
        yield config.database.dsn
        return
    if not make and not is_made(config):
        raise ObsError(f"no database yet below {config.data_dir}: a collector or `obs migrate` makes it")
    from obs.pg.embedded import EmbeddedPostgres

    server = EmbeddedPostgres(folder(config))
    was_running = server.pid() is not None
    dsn = server.start()
    try:
        yield dsn
    finally:
        # Our hold on a server that was running before ends with this process: its owner may stop it then.
        if not was_running:
            server.stop()
