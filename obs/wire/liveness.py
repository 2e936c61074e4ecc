"""Is the other side still there? A pure decision from times; the doing is in connection.py.

Two ways of death, judged on what came in, whatever its kind:
- `pong_timeout`: we asked with a ping, and for pong_timeout_s nothing at all came. Why not the pong alone: behind a backlog
  of data (an opening rush, a feed that was stopped) it may come late, and a connection that delivers is not to be cut. A dead
  way out is found by the kernel (TCP_USER_TIMEOUT), or by the venue, which then cuts us.
- `mute`: for idle_s no frame of any kind came. Whether silent *data* on a living connection is a fault is the role's
  question to the calendar, not asked here.

Invariant: a timer that fires late (the process was stopped, the loop was busy) never condemns at once: what came meanwhile
is still unread in the socket. It gives the loop GRACE_NS to read first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from obs.clock import NS

GRACE_NS: Final = NS // 2
_LATE_NS: Final = NS // 2
_FAR_NS: Final = 3600 * NS


class Verdict(NamedTuple):
    """What to do now ("" nothing, "ping", "pong_timeout", "mute") and when to judge again (monotonic ns)."""

    action: str
    next_ns: int


@dataclass(slots=True)
class Liveness:
    """The times of one connection, monotonic ns. Limits of 0 are off; `due_ns` is when the next judgement was asked for."""

    opened_ns: int
    ping_every_ns: int
    pong_timeout_ns: int
    idle_ns: int
    due_ns: int = 0
    last_ping_ns: int = 0
    asked_ns: int = 0  # a ping that nothing has answered yet; 0 = none

    def first(self) -> int:
        """Return when to judge for the first time."""
        self.last_ping_ns = self.opened_ns
        self.due_ns = self._next(self.opened_ns, self.opened_ns)
        return self.due_ns

    def judge(self, now_ns: int, last_frame_ns: int) -> Verdict:
        """Judge at `now_ns`; `last_frame_ns`: when the last frame of any kind was read, 0 if none was."""
        last_ns = max(last_frame_ns, self.opened_ns)
        late = now_ns - self.due_ns > _LATE_NS
        if self.asked_ns and last_ns > self.asked_ns:
            self.asked_ns = 0
        dead = self._dead(now_ns, last_ns)
        if dead and late:
            self.due_ns = now_ns + GRACE_NS
            return Verdict("", self.due_ns)
        if dead:
            return Verdict(dead, now_ns)
        action = ""
        if self.ping_every_ns and now_ns - self.last_ping_ns >= self.ping_every_ns:
            action, self.last_ping_ns = "ping", now_ns
            self.asked_ns = self.asked_ns or now_ns
        self.due_ns = self._next(now_ns, last_ns)
        return Verdict(action, self.due_ns)

    def _dead(self, now_ns: int, last_ns: int) -> str:
        if self.asked_ns and now_ns - self.asked_ns >= self.pong_timeout_ns:
            return "pong_timeout"
        if self.idle_ns and now_ns - last_ns >= self.idle_ns:
            return "mute"
        return ""

    def _next(self, now_ns: int, last_ns: int) -> int:
        times = [now_ns + _FAR_NS]
        if self.ping_every_ns:
            times.append(self.last_ping_ns + self.ping_every_ns)
        if self.asked_ns:
            times.append(self.asked_ns + self.pong_timeout_ns)
        if self.idle_ns:
            times.append(last_ns + self.idle_ns)
        return max(min(times), now_ns + NS // 1000)
