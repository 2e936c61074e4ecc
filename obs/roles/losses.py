"""What is lost before the rings, told as gap_markers: spans that begin and end, and steps of the venue's own count.

A step that is seen while a span is open waits for its end: that gap may hold it, and is then named in `inside`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from obs.record.events import gap_payload, make_event
from obs.ring import Producer
from obs.sample import Missed

_REMEMBERED: Final = 64  # gaps that a step may lie inside


@dataclass(frozen=True)
class RestartGap:
    """What an earlier feed left to say, just before the first record of the next. `lost`: inputs it had received and not published."""

    start_ns: int
    lost: int | None
    of_session: str
    end_ns: int = 0  # as a feed told it that died before it could note so


class Losses:
    """The gaps of one feed. Safety: used by its Recorder alone, which decides when what is told is also counted."""

    def __init__(self, events: Producer, provider: str, symbols: np.ndarray) -> None:
        """`symbols`: (rows,), of the slots' table."""
        self._events, self._session_id, self._provider, self._symbols = events, events.ring.session_id, provider, symbols
        self._open: dict[object, tuple[int, int]] = {}  # whose -> since when, and the monotonic time at which it was opened
        self._told: deque[tuple[int, int, str]] = deque(maxlen=_REMEMBERED)  # start, end, name
        self._waiting: list[tuple[str, Missed]] = []  # with the symbol: its row may have another by the time it is told
        self.count = 0

    @property
    def open_since_ns(self) -> int:
        """Start of the earliest span that is open, 0 if none is."""
        return min((start_ns for start_ns, _ in self._open.values()), default=0)

    def tell(self, start_ns: int, end_ns: int, reason: str, **facts: Any) -> None:
        """Publish a gap_marker; see obs.record.events.gap_payload for `facts`."""
        payload = gap_payload(
            start_ns=start_ns, end_ns=end_ns, scope=facts.pop("scope", "scalp"), reason=reason, session_id=self._session_id,
            provider=self._provider, **facts,
        )  # fmt: skip
        row = make_event("gap_marker", end_ns, payload, symbol=facts.get("symbol") or "", start_ns=start_ns, end_ns=end_ns)
        seq = self._events.publish(row)
        if reason != "venue_count":
            self._told.append((start_ns, end_ns, f"{self._session_id}/event/{seq}"))
        self.count += 1

    def since(self, whose: object) -> int | None:
        """Return the start of an open span, None if it is not open."""
        return self._open[whose][0] if whose in self._open else None

    def begin(self, whose: object, start_ns: int, mono_ns: int) -> None:
        """Open a span; one that is open already goes on."""
        self._open.setdefault(whose, (start_ns, mono_ns))

    def end(self, whose: object, end_ns: int, mono_ns: int, reason: str, symbols: Sequence[str] | None, **facts: Any) -> None:
        """Close a span, if it is open: one gap_marker, or one for each of `symbols` where not all are concerned.

        It is told as long as it was, also where the wall clock has stepped back meanwhile.
        """
        if whose in self._open:
            start_ns, opened_ns = self._open.pop(whose)
            end_ns = max(end_ns, start_ns + mono_ns - opened_ns)
            for symbol in [None] if symbols is None else symbols:
                self.tell(start_ns, end_ns, reason, symbol=symbol, **facts)

    def forgive(self, whose: object) -> None:
        """Drop a span that is no loss after all."""
        self._open.pop(whose, None)

    def missed(self, steps: list[Missed]) -> None:
        """Take steps of the venue's count that our trades do not explain; `tell_missed` tells them."""
        self._waiting += [(self._symbols[step.row].decode(), step) for step in steps]

    def tell_missed(self, at_last: bool = False) -> None:
        """Tell the steps that nothing is open for any more; `at_last`: all of them."""
        if not self._waiting or (self._open and not at_last):
            return
        waiting, self._waiting = self._waiting, []
        for symbol, step in waiting:
            start_ns = step.start_ns or step.end_ns
            inside = next((name for start, end, name in self._told if start <= step.end_ns and end >= start_ns), None)
            self.tell(
                start_ns, step.end_ns, "venue_count", symbol=symbol, acc_volume_before=step.before, acc_volume_after=step.after,
                inside=inside,
            )  # fmt: skip
