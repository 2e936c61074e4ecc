"""Which processes a start consists of: pure.

| start | owners |
|---|---|
| `obs` | every enabled provider, and the services |
| `obs --provider NAME` | that provider |
| `obs --services` | the services alone |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from obs.config import Config, ProviderConfig
from obs.config.process import SERVICES

PROVIDER_ROLES: Final = ("archive", "load", "poll", "feed")  # in the order of their start
SERVICE_ROLES: Final = ("monitor", "keeper")
SINKS: Final = ("archive", "load")
_BEATING: Final = ("feed", "poll", "monitor")


@dataclass(frozen=True)
class Plan:
    """What one supervisor runs."""

    providers: tuple[ProviderConfig, ...]
    services: bool

    @property
    def owners(self) -> tuple[str, ...]:
        return tuple(provider.name for provider in self.providers) + ((SERVICES,) if self.services else ())


def plan(config: Config, provider: str | None, services: bool) -> Plan:
    """Return the plan of a start; `provider` is one that config.require_start has accepted."""
    if services:
        return Plan((), True)
    if provider is not None:
        chosen = config.provider(provider)
        assert chosen is not None
        return Plan((chosen,), False)
    return Plan(config.planned(), True)


def heartbeat_limit_s(config: Config, role: str) -> float:
    """Return how long a role may be silent: sinks and keeper wait for disks and databases, the others wait for nothing."""
    return config.supervisor.heartbeat_s if role in _BEATING else config.supervisor.sink_heartbeat_s
