"""How KIS writes a field: numbers, KST times, market phases. Texts that recur are read once and remembered.

Prices, sizes, seconds and phase codes repeat from record to record, so each reader keeps a bounded memory from text to value;
only texts that were read without error get into it. A number is digits with at most one point and a leading minus,
nothing else: float() alone would take b'nan', b' 1', b'1_0' and b'1e5'. An empty field is "no value".
"""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache
from typing import Final

from obs.providers.base import IGNORE_EXPECTED, NAN
from obs.record.schema import NO_TIME, PHASES, SIDES

# Digits before and after the point: far beyond any price or volume, and never infinite.
_NUMBER: Final = re.compile(rb"-?[0-9]{1,20}(?:\.[0-9]{1,20})?")
_SHORT: Final = 16  # so many digits are a number without a closer look
_REMEMBERED: Final = 16_384
_KST_NS: Final = 9 * 3600 * 10**9
_DAY_NS: Final = 86_400 * 10**9
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_LAST_YEAR: Final = 2261  # int64 nanoseconds end in 2262

# Source: portal, CCLD_DVSN.
SIDE_CODES: Final = {b"1": SIDES.index("buy"), b"5": SIDES.index("sell")}
# previous close = price + this x |change|; the change itself may carry a sign or not. Source: portal, PRDY_VRSS_SIGN.
SIGN_FACTORS: Final = {b"1": -1.0, b"2": -1.0, b"3": 0.0, b"4": 1.0, b"5": 1.0}

_REGULAR, _CLOSING, _EXPECTED = PHASES.index("regular"), PHASES.index("closing"), PHASES.index("expected")
_PRE_OPEN, _PRE_MARKET, _AFTER_MARKET = PHASES.index("pre_open"), PHASES.index("pre_market"), PHASES.index("after_market")
_AFTER_HOURS, _OFF_BOARD, _HALTED = PHASES.index("after_hours"), PHASES.index("off_board"), PHASES.index("halted")

# Source: portal, HOUR_CLS_CODE: A after the close, B before the open, C after 9:00 (VI), D after-hours single price.
_HOUR_PHASES: Final = {b"0": _REGULAR, b"A": _CLOSING, b"B": _PRE_OPEN, b"C": _EXPECTED, b"D": _AFTER_HOURS}
# Source: portal notice for 2026-09-14, MARKET_CLS_CODE; 2 (regular) leaves the word to NEW_MKOP_CLS_CODE.
_MARKET_PHASES: Final = {b"1": _PRE_MARKET, b"3": _AFTER_MARKET, b"5": _CLOSING}
# Source: portal, NEW_MKOP_CLS_CODE, first character; 7 and 8 are buy-in.
_OPEN_PHASES: Final = {ord("1"): _PRE_OPEN, ord("2"): _REGULAR, ord("3"): _CLOSING, ord("4"): _AFTER_HOURS, ord("7"): _OFF_BOARD,
                       ord("8"): _OFF_BOARD}  # fmt: skip
_OFF_BOARD_DEALS: Final = b"2378"  # second character: block, basket, liquidation trading, buy-in
_US_PHASES: Final = {b"1": _PRE_MARKET, b"2": _REGULAR, b"3": _AFTER_MARKET}


def number(text: bytes) -> float:
    """Return the value of a number field, NaN for an empty one. Raises ValueError("number")."""
    if (len(text) <= _SHORT and text.isdigit()) or _NUMBER.fullmatch(text):
        return float(text)
    if not text:
        return NAN
    raise ValueError("number")


class Numbers(dict[bytes, float]):
    """Texts read so far -> values; `zero` stands for 0. Reading an unknown text with [] reads and remembers it."""

    def __init__(self, zero: float) -> None:
        self._zero = zero

    def __missing__(self, text: bytes) -> float:
        value = number(text)
        if len(self) >= _REMEMBERED:
            self.clear()
        self[text] = value = value if value else self._zero
        return value


@lru_cache(4096)
def day_of(day: bytes) -> int:
    """Return YYYYMMDD of a date field, 0 for an empty one. Raises ValueError("date")."""
    return _ordinal(day)[1] if day else 0


@lru_cache(4096)
def instant(day: bytes, time: bytes) -> tuple[int, int]:
    """Return (UTC epoch nanoseconds, YYYYMMDD) of a KST date and time; (NO_TIME, …) if one of them is empty."""
    if not day or not time:
        return NO_TIME, day_of(day)
    ordinal, yyyymmdd = _ordinal(day)
    return (ordinal - _EPOCH_DAY) * _DAY_NS + time_of_day(time) - _KST_NS, yyyymmdd


@lru_cache(4096)
def time_of_day(time: bytes) -> int:
    """Return the nanoseconds since midnight of HHMMSS. Raises ValueError("time")."""
    if len(time) != 6 or not time.isdigit():
        raise ValueError("time")
    hours, minutes, seconds = int(time[:2]), int(time[2:4]), int(time[4:])
    if hours > 23 or minutes > 59 or seconds > 59:
        raise ValueError("time")
    return ((hours * 60 + minutes) * 60 + seconds) * 10**9


@lru_cache(4096)
def nearest_instant(time: bytes, recv_s: int) -> tuple[int, int]:
    """Return (UTC epoch nanoseconds, YYYYMMDD in KST) of a KST time without a date: of the day that puts it nearest to receipt.

    So a record from before midnight that arrives after it keeps its day. `recv_s`: UTC epoch, whole seconds. (NO_TIME, 0) for an
    empty time.
    """
    if not time:
        return NO_TIME, 0
    recv_ns = recv_s * 10**9
    midnight = (recv_ns + _KST_NS) // _DAY_NS * _DAY_NS - _KST_NS
    event_ns = midnight + time_of_day(time)
    if event_ns - recv_ns > _DAY_NS // 2:
        event_ns -= _DAY_NS
    elif recv_ns - event_ns > _DAY_NS // 2:
        event_ns += _DAY_NS
    return event_ns, _yyyymmdd((event_ns + _KST_NS) // _DAY_NS)


@lru_cache(64)
def _yyyymmdd(epoch_day: int) -> int:
    day = date.fromordinal(epoch_day + _EPOCH_DAY)
    return day.year * 10_000 + day.month * 100 + day.day


def _ordinal(day: bytes) -> tuple[int, int]:
    if len(day) != 8 or not day.isdigit():
        raise ValueError("date")
    year = int(day[:4])
    try:
        ordinal = date(year, int(day[4:6]), int(day[6:])).toordinal()
    except ValueError:
        raise ValueError("date") from None
    if not 1970 <= year <= _LAST_YEAR:
        raise ValueError("date")
    return ordinal, int(day)


@lru_cache(1024)
def trade_phase(phase: bytes, halt: bytes, hour: bytes, market: bytes) -> tuple[int, int]:
    """Return (index into PHASES, index into IGNORED) of a domestic trade record. Raises ValueError("phase").

    A code of the right form that is not known yet is phase "": a new code must not cost the record. A text of another form
    is no code: the fields have moved. `market`: empty where the record does not have the field, of which nothing is required,
    because another venue or year may put another one there.
    """
    if len(phase) not in (0, 2) or halt not in (b"Y", b"N", b"") or len(hour) != 1:
        raise ValueError("phase")
    ignore = 0
    if hour != b"0":
        found = _HOUR_PHASES.get(hour, 0)
        ignore = IGNORE_EXPECTED if found else 0
    elif len(phase) == 2 and phase[1] in _OFF_BOARD_DEALS:
        found = _OFF_BOARD
    elif market in _MARKET_PHASES:
        found = _MARKET_PHASES[market]
    elif phase == b"21":
        found = _CLOSING
    else:
        found = _OPEN_PHASES.get(phase[0], 0) if phase else 0
    if halt == b"Y":
        found = _HALTED
    return found, ignore


def book_phase(hour: bytes) -> int:
    """Return the index into PHASES of a book record. Raises ValueError("phase")."""
    if len(hour) != 1:
        raise ValueError("phase")
    return _HOUR_PHASES.get(hour, 0)


def us_phase(code: bytes) -> int:
    """Return the index into PHASES of MTYP. Raises ValueError("phase")."""
    if len(code) > 1:
        raise ValueError("phase")
    return _US_PHASES.get(code, 0)
