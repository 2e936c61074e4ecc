"""Has a venue that only ever answers pings stopped sending? Judged by the pace of one connection; pure, from counts and times.

A quiet market slows down before it is silent; a single quiet symbol among others does not show here at all. A few messages are no
pace, for answers come in one burst. No message at all, not even an answer, is silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from obs.clock import NS

_FEW: Final = 100  # messages, below which their pace says nothing
_FEW_MUTES: Final = 10  # times the venue's limit, for a connection that has brought only a few
_QUIET_RATE: Final = 50  # silence of so many mean intervals between messages is no quiet market
_DOUBT_S: Final = 5


@dataclass(slots=True)
class Silence:
    """Of a connection opened at `opened_ns` (monotonic, as all times here); as exact as looks are frequent."""

    opened_ns: int
    messages: int = 0  # at the last look
    heard_ns: int = 0  # time of the last look that found more of them than the one before, 0: none did
    lasted_ns: int = 0  # how long it is, at the last look

    def look(self, now_ns: int, messages: int) -> None:
        """Take note of how many messages it has brought by now."""
        if messages != self.messages:
            self.messages, self.heard_ns = messages, now_ns
        self.lasted_ns = now_ns - max(self.heard_ns, self.opened_ns)

    def in_doubt(self) -> bool:
        """Whether it has been silent for longer than a quiet market explains, though not for as long as the venue's limit."""
        return self.messages >= _FEW and self.lasted_ns > max(_DOUBT_S * NS, self._usual_ns())

    def is_mute(self, limit_s: float) -> bool:
        """Whether it is to be left; `limit_s`: the shortest silence that the venue's limits call one."""
        limit_ns = limit_s * NS
        if self.messages < _FEW:
            return self.lasted_ns >= (_FEW_MUTES * limit_ns if self.messages else limit_ns)
        return self.lasted_ns >= limit_ns and self.lasted_ns > self._usual_ns()

    def _usual_ns(self) -> float:
        """How long a silence may be at the pace of what came before it."""
        return _QUIET_RATE * (self.heard_ns - self.opened_ns) / self.messages
