"""What one child process is told: its role, its provider, where its shared memory lies. Frozen and picklable."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from obs.config.options import Config, ProviderConfig

SERVICES: Final = "services"  # the owner name of the host's own processes


@dataclass(frozen=True, slots=True)
class OldSession:
    """A session that the archive writer has yet to finish. A ring without a path is gone: lost with its host, or set aside."""

    session_id: str
    rings: dict[str, Path]
    lost: dict[str, str] = field(default_factory=dict)  # ring name -> gap reason: host_death or ring_foreign
    ended_ns: int = 0  # start of the session after it
    started_ns: int = 0


@dataclass(frozen=True, slots=True)
class SessionSpec:
    """The rings of a provider's present session, and the sessions before it that are not drained."""

    session_id: str
    started_ns: int
    rings: dict[str, Path]
    old: tuple[OldSession, ...] = ()


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One child process."""

    role: str
    owner: str  # the provider's name, or SERVICES
    config: Config
    counters: Path
    parent_pid: int
    provider: ProviderConfig | None = None
    session: SessionSpec | None = None
    board: Path | None = None
    dsn: str = field(default="", repr=False)
    peers: dict[str, tuple[Path, Path]] = field(default_factory=dict)  # monitor: provider -> (counters, board)

    @property
    def title(self) -> str:
        """As `ps` shows it."""
        return f"obs {self.role} {self.owner}"


def lock_path(data_dir: Path, owner: str) -> Path:
    return data_dir / ".lock" / owner


def children_lock_path(data_dir: Path, owner: str) -> Path:
    return data_dir / ".lock" / f"{owner}.children"
