"""The exception tree: one class per decision that a caller can make, and the exit codes.

Every error carries its facts as fields, says them in its message, and survives pickling (tests/unit/test_errors.py).
"""

from __future__ import annotations

from typing import Any, Final

EXIT_GOOD: Final = 0  # asked to stop, or nothing wrong was found
EXIT_FOUND: Final = 1  # a check found something wrong; for a process: an unexpected error, restarted
EXIT_CONFIG: Final = 2  # usage or configuration; never restarted
EXIT_STATE: Final = 3  # incompatible state on disk or in shared memory; never restarted
EXIT_UNKNOWN: Final = 4  # could not check


class ObsError(Exception):
    """Root of all errors that obs raises on purpose; `facts` are the values that a repair needs."""

    exit_code: int = EXIT_FOUND

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts

    def __str__(self) -> str:
        if not self.facts:
            return self.message
        return self.message + ": " + " ".join(f"{name}={value!r}" for name, value in self.facts.items())

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.facts))


def _rebuild(kind: type[ObsError], message: str, facts: dict[str, Any]) -> ObsError:
    return kind(message, **facts)


class ConfigError(ObsError):
    """Stop: the configuration is wrong. `problems` lists every one of them, a line each."""

    exit_code = EXIT_CONFIG

    @property
    def problems(self) -> list[str]:
        return list(self.facts.get("problems", [])) or [self.message]

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  {line}" for line in self.facts.get("problems", []))])


class SchemaMismatch(ObsError):
    """Stop, or set the file aside: a block was written by another layout, dtype or schema version."""

    exit_code = EXIT_STATE


class OwnedElsewhere(ObsError):
    """Stop: another process tree owns this provider of this data directory."""

    exit_code = EXIT_STATE


class ShmFull(ObsError):
    """No room in shared memory for a block; continue an older session, or stop."""

    exit_code = EXIT_CONFIG


class AuthRejected(ObsError):
    """Stop this source: the venue refuses these credentials."""


class ConnectionLost(ObsError):
    """Back off and connect again."""


class RateLimited(ObsError):
    """Wait `wait_s`, then repeat the call: the venue counted too many, and did not do what it was asked."""

    @property
    def wait_s(self) -> float:
        return float(self.facts.get("wait_s", 1.0))


class TokenExpired(ObsError):
    """Fetch a new token, then repeat the call once: the venue does not accept this one any more."""


class LoadRetryable(ObsError):
    """Back off and load again: the database is away, full or restarting."""


class DecodeError(ObsError):
    """Count, keep the bytes, go on: nothing in this payload was readable. `reason` is short and stable."""

    def __init__(self, reason: str, **facts: Any) -> None:
        super().__init__(reason, **facts)
        self.reason = reason


class SegmentCorrupt(ObsError):
    """Quarantine: `path` is damaged at `offset`, because `reason`."""

    def __init__(self, message: str = "segment is damaged", **facts: Any) -> None:
        super().__init__(message, **facts)
        self.path: str = str(facts.get("path", ""))
        self.offset: int = int(facts.get("offset", 0))
        self.reason: str = str(facts.get("reason", ""))


class DiskTrouble(ObsError):
    """Wait and alarm: the disk is full, or a write or fsync failed; nothing after the last durable point counts."""


class FileGone(ObsError):
    """Begin anew, from what is on disk and in the rings: a file was removed or moved while it was written, and all in it with it."""
