"""The figures of the last minutes that charts show, so that a page begins with what has been: a ring of fixed size, one place a look.

Memory: KEPT x 8 bytes for each of the time, CPU, memory, and the two rates of each provider: 14.4 kB, and 9.6 kB for each provider.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from threading import Lock
from typing import Any, Final

import numpy as np

KEPT: Final = 600  # looks: ten minutes at one a second
_HOST: Final = ("ms", "cpu", "memory")
Rates = tuple[float | None, float | None]


class Past:
    """Safety: one thread adds, any may ask."""

    def __init__(self, kept: int = KEPT) -> None:
        self._host = np.full((kept, len(_HOST)), math.nan)
        self._rates: dict[str, np.ndarray] = {}
        self._count = 0
        self._lock = Lock()

    @property
    def nbytes(self) -> int:
        return self._host.nbytes + sum(one.nbytes for one in self._rates.values())

    def add(self, now_ms: int, cpu: float | None, memory: float | None, rates: Mapping[str, Rates]) -> None:
        """Take the figures of one look; what is None was not known. Providers that are not in it any more are forgotten."""
        with self._lock:
            place = self._count % len(self._host)
            self._host[place] = (now_ms, _number(cpu), _number(memory))
            self._rates = {name: self._rates.get(name, np.full((len(self._host), 2), math.nan)) for name in rates}
            for name, figures in rates.items():
                self._rates[name][place] = [_number(one) for one in figures]
            self._count += 1

    def to_json(self) -> dict[str, Any]:
        """Return {"ms": […], "cpu": […], "memory": […], "providers": {name: {"messages": […], "records": […]}}}, oldest first."""
        with self._lock:
            kept = min(self._count, len(self._host))
            order = np.arange(self._count - kept, self._count) % len(self._host)
            host, rates = self._host[order], {name: one[order] for name, one in self._rates.items()}
        return {
            "ms": host[:, 0].astype(np.int64).tolist(), "cpu": host[:, 1].tolist(), "memory": host[:, 2].tolist(),
            "providers": {name: {"messages": one[:, 0].tolist(), "records": one[:, 1].tolist()} for name, one in rates.items()},
        }  # fmt: skip


def _number(value: float | None) -> float:
    return math.nan if value is None else value
