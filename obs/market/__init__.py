"""When markets are open: dated sessions, as data.

Input: a market, a venue and an instant in UTC nanoseconds. Output: whether it is open, its next opening, its trading day.
calendar.py answers from sessions that were computed beforehand (a small JSON file, or the standing hours where that file does
not reach); compute.py makes them, and it alone loads exchange_calendars with pandas.
May import errors, clock and record; does no I/O but that one file.
"""

from __future__ import annotations

from obs.market.calendar import Calendar, Session, load

__all__ = ["Calendar", "Session", "load"]
