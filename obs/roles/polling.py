"""What those parts of poll have in common that ask a venue by REST and tell what came of it: universe, sweeps, holidays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from obs.clock import Pace
from obs.config import ProviderConfig
from obs.log import Log
from obs.market.calendar import Calendar
from obs.roles.asking import Asking


class Emit(Protocol):
    """Publish an event of poll's: obs.record.events.make_event with its arguments, `ts` = now."""

    def __call__(self, kind: str, payload: dict[str, object], *, symbol: str = "", start_ns: int = 0, end_ns: int = 0) -> None: ...


@dataclass(frozen=True)
class Polling:
    """Of one provider. `calendar`: the one that holds now. Safety: one event loop."""

    asking: Asking
    config: ProviderConfig
    calendar: Callable[[], Calendar]
    pace: Pace
    emit: Emit
    log: Log
