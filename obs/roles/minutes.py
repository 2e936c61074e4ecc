"""Which minutes are complete in the database, so that their bars can be filled: pure but for the look back at a start.

Minute M is complete when a counts event of it has been read, which carries how many records the tick ring had published by
then, and all of those are stored. A minute may be told of several times (a restart, a clock that stepped back): its bars
are filled again, which changes nothing or adds what came late.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from obs.clock import MINUTE_NS, NS, minute_of
from obs.pg.bars import last_bar_ns
from obs.pg.connect import Connection
from obs.pg.proof import watermarks
from obs.segment.textlog import day_files, json_object, text_lines

_LOOK_BACK_FILES: Final = 2
_LOOK_BACK_NS: Final = 2 * 86_400 * NS
_AGAIN_MINUTES: Final = 5  # before the last bar: they may have been filled before their last row came


class Minutes:
    def __init__(self) -> None:
        self._waiting: dict[int, dict[str, int]] = {}  # minute -> session -> records that must be stored
        self._stored: dict[str, int] = {}  # session -> records stored

    def start(self, conn: Connection, provider: str, events: Path, now_ns: int) -> None:
        """Look back for minutes that an earlier loader read of and did not fill."""
        for mark in watermarks(conn, provider):
            if mark.source_type == "ring" and mark.ring == "tick":
                self.note(mark.session_id, mark.last_seq)
        last_ns = last_bar_ns(conn, provider, now_ns - _LOOK_BACK_NS)
        for path in day_files(events)[-_LOOK_BACK_FILES:]:
            for _, line in text_lines(path):
                if b'"counts"' in line[:64]:
                    self.counts(line, last_ns - _AGAIN_MINUTES * MINUTE_NS)

    def counts(self, line: bytes, from_ns: int = 0) -> None:
        """Take a counts line of system/events; only those of the provider as a whole matter here."""
        value = json_object(line)
        minute_ns, session, tick_seq = value.get("minute_ns"), value.get("of_session"), value.get("tick_seq")
        if not isinstance(minute_ns, int) or not isinstance(session, str) or not isinstance(tick_seq, int):
            return
        if value.get("symbol") or minute_ns < from_ns:
            return
        needs = self._waiting.setdefault(minute_ns, {})
        needs[session] = max(needs.get(session, 0), tick_seq)

    def note(self, session_id: str, watermark: int) -> None:
        """Say how far a session is stored."""
        self._stored[session_id] = watermark + 1

    def uncounted(self, session_id: str, watermark: int, last_ns: int) -> None:
        """Take the last minutes of a session whose host died before it could tell their counts.

        `last_ns`: of its last record that is archived, 0 for none; the loader may have been a moment ahead of that.
        """
        last = minute_of(last_ns)
        for minute in (last - MINUTE_NS, last, last + MINUTE_NS) if last_ns else ():
            needs = self._waiting.setdefault(minute, {})
            needs[session_id] = max(needs.get(session_id, 0), watermark + 1)

    def take(self) -> dict[int, dict[str, int]]:
        """Return the minutes whose records are all stored, with what they needed; what is told of them later stands anew."""
        complete = {
            minute: needs
            for minute, needs in self._waiting.items()
            if all(self._stored.get(session, 0) >= seq for session, seq in needs.items())
        }
        for minute in complete:
            del self._waiting[minute]
        return complete

    def put_back(self, taken: dict[int, dict[str, int]]) -> None:
        """Wait again for minutes that were taken and not filled."""
        for minute, needs in taken.items():
            waiting = self._waiting.setdefault(minute, {})
            for session, seq in needs.items():
                waiting[session] = max(waiting.get(session, 0), seq)
