"""What is judged: one provider's files, all of them or those of one path date."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from obs.clock import NS
from obs.segment.writer import LocalClock

_DAY_S = 86_400


@dataclass(frozen=True)
class Scope:
    """`day`: YYYYMMDD, the local date of the provider's market as in paths; None: everything."""

    root: Path
    provider: str
    tz: ZoneInfo
    day: str | None = None

    @property
    def events(self) -> Path:
        return self.root / "system" / "events" / self.provider

    @property
    def quarantine(self) -> Path:
        return self.root / "quarantine" / self.provider

    def holds_file(self, name: str) -> bool:
        """Tell whether a day file or day folder is judged."""
        return self.day is None or name.startswith(self.day)

    def holds(self, ts_ns: int) -> bool:
        """Tell whether what happened at `ts_ns` is judged (its path date is that of ts_ns - 1 ns)."""
        return self.day is None or f"{LocalClock(self.tz).moment(ts_ns):%Y%m%d}" == self.day

    def holds_minutes(self, minutes: np.ndarray) -> np.ndarray:
        """Tell it of minutes (n,), int64, start ns; a minute ends with its last record, so its date is that of its start."""
        if self.day is None or not len(minutes):
            return np.ones(len(minutes), bool)
        days = LocalClock(self.tz).seconds(minutes + NS) // _DAY_S
        wanted = date(int(self.day[:4]), int(self.day[4:6]), int(self.day[6:8]))
        return np.asarray(days == (wanted - date(1970, 1, 1)).days)
