"""When a simulated venue trades: its day, its hours, its holidays.

KIS: 09:00-15:30 KST on days that are neither weekend nor holiday; `--hours` and `--holiday` change that (a late opening, a half day),
`--hours always` lets it trade all day every day. Upbit always trades; its day is that of UTC.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

import numpy as np

from obs.errors import ConfigError

MINUTE_MS: Final = 60_000
DAY_S: Final = 86_400
DAY_MINUTES: Final = 1_440
KST_S: Final = 9 * 3600
# Days without trading at KRX that are no weekend. Source: the public holidays of 2026 and 2027, Labour Day, the last trading day.
HOLIDAYS: Final = frozenset(
    (
        20260101, 20260216, 20260217, 20260218, 20260302, 20260501, 20260505, 20260525, 20260603, 20260717, 20260817, 20260924, 20260925,
        20261005, 20261009, 20261225, 20261231, 20270101, 20270208, 20270209, 20270301, 20270503, 20270505, 20270513, 20270719, 20270816,
        20270914, 20270915, 20270916, 20271004, 20271011, 20271227, 20271231,
    )
)  # fmt: skip
_HOURS: Final = re.compile(r"([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})")


@dataclass(frozen=True, slots=True)
class Hours:
    """`offset_s`: the venue's day starts at UTC midnight minus this. `first`, `last`: minutes of the venue's day, first <= m < last."""

    offset_s: int
    first: int
    last: int
    always: bool
    holidays: frozenset[int] = HOLIDAYS

    def day_of(self, ms: int) -> int:
        """Return the number of the venue's day: days since 1970, local."""
        return (ms // 1000 + self.offset_s) // DAY_S

    def start_minute(self, day: int) -> int:
        """Return the epoch minute at which trading begins on a day."""
        return day * DAY_MINUTES - self.offset_s // 60 + self.first

    def is_open(self, day: int) -> bool:
        """Return whether the venue trades on a day at all."""
        return self.always or (date_of(day).weekday() < 5 and number_of(day) not in self.holidays)

    def open_before(self, day: int) -> int:
        """Return the last trading day before `day`."""
        day -= 1
        while not self.is_open(day):
            day -= 1
        return day

    def trading(self, minutes: np.ndarray) -> np.ndarray:
        """Return which epoch minutes are within hours; `minutes`: int64."""
        days, places = np.divmod(minutes + self.offset_s // 60, DAY_MINUTES)
        inside = (places >= self.first) & (places < self.last)
        if not self.always:
            for day in np.unique(days).tolist():
                if not self.is_open(day):
                    inside &= days != day
        return inside

    def place(self, minutes: np.ndarray) -> np.ndarray:
        """Return how much of the hours has passed at each epoch minute: 0 at the beginning, 1 at the end."""
        return ((minutes + self.offset_s // 60) % DAY_MINUTES - self.first) / (self.last - self.first)


def date_of(day: int) -> date:
    return datetime.fromtimestamp(0, UTC).date() + timedelta(days=day)


def number_of(day: int) -> int:
    """Return YYYYMMDD of a day."""
    on = date_of(day)
    return on.year * 10_000 + on.month * 100 + on.day


def day_number(text: str) -> int | None:
    """Return the day of a YYYYMMDD text, None if it is none."""
    try:
        return (datetime.strptime(text, "%Y%m%d").date() - date_of(0)).days
    except ValueError:
        return None


def hours_of(venue: str, text: str = "", holidays: tuple[int, ...] = ()) -> Hours:
    """Return a venue's hours. `text`: "HH:MM-HH:MM" KST, "always", "" for the venue's own. Raises ConfigError."""
    if venue == "upbit":
        return Hours(0, 0, DAY_MINUTES, True)
    if text == "always":
        return Hours(KST_S, 0, DAY_MINUTES, True)
    match = _HOURS.fullmatch(text or "09:00-15:30")
    first, last = (int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])) if match else (0, 0)
    if not 0 <= first < last <= DAY_MINUTES:
        raise ConfigError("the options are wrong", problems=[f"hours = {text!r}: allowed is HH:MM-HH:MM (KST), or always"])
    return Hours(KST_S, first, last, False, HOLIDAYS | frozenset(holidays))
