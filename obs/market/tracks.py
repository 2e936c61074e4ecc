"""The hours of the two tracks of one trading day, derived from its session, so that late openings and exam days move them.

| | begins | ends |
|---|---|---|
| Track A, swing | with the regular session | with it |
| Track B, the choice of slots | half an hour later | half an hour before; NXT, whose main market ends at 15:20, 20 minutes before |

On an ordinary Korean day that is 09:00 - 15:30 and 09:30 - 15:00 KST. A market that is always open has both always.
"""

from __future__ import annotations

from datetime import date
from typing import Final

from obs.clock import MINUTE_NS
from obs.market.calendar import ALWAYS, Calendar, Session

_AFTER_OPEN_NS: Final = 30 * MINUTE_NS
_BEFORE_CLOSE_NS: Final = {"nxt": 20 * MINUTE_NS}
_BEFORE_CLOSE_DEFAULT_NS: Final = 30 * MINUTE_NS


def track_b(session: Session, venue: str) -> tuple[int, int]:
    """Return (begin, end) of Track B, UTC ns: begin <= t < end."""
    return session.regular_open_ns + _AFTER_OPEN_NS, session.regular_close_ns - _BEFORE_CLOSE_NS.get(venue, _BEFORE_CLOSE_DEFAULT_NS)


def in_track_b(calendar: Calendar, market: str, venue: str, ts_ns: int) -> bool:
    """Return whether slots are chosen by triggers at `ts_ns`."""
    if market in ALWAYS:
        return True
    day = calendar.trading_day(market, venue, ts_ns)
    session = calendar.session(market, venue, date(day // 10_000, day // 100 % 100, day % 100))
    if session is None:
        return False
    begin, end = track_b(session, venue)
    return begin <= ts_ns < end
