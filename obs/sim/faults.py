"""Which faults are on, and what they do to the messages on their way out.

A fault that lasts is a window: until a time, or for a number of messages. The exchange takes its fast path while no
window is open and nothing is held back. Times here are monotonic seconds.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import Final

from obs.sim.connection import Connection
from obs.sim.frames import fragments, frame
from obs.sim.malform import FRAMING, SPOILED, inject, spoil
from obs.sim.market import Message
from obs.sim.script import Action

# Lengths of windows that are not given in seconds or messages. Keep in step with the table in script.py.
_DEFAULT_S: Final = {
    "mute": 10.0, "half_open": math.inf, "slow": 10.0, "late": 1.0, "duplicate": 1.0, "fragment": 1.0, "poison": 60.0, "burst": 1.0,
    "quiet_symbol": 60.0, "skew": 10.0, "rate_limit": 5.0, "refuse": 5.0, "refuse_symbol": 60.0, "take_appkey": 10.0,
    "refuse_approval": 10.0, "answer": 60.0,
}  # fmt: skip
_ONE_MESSAGE: Final = ("malformed",)

Leaving = tuple[bytes, list[str], int]  # bytes for the transport, log line ends, inputs


@dataclass(slots=True)
class Window:
    """A fault that is on until `until_s`, or for `left` more messages."""

    action: Action
    until_s: float
    left: int | None


class Faults:
    """The windows of one exchange."""

    def __init__(self, venue: str, opcode: int) -> None:
        self._venue = venue
        self._opcode = opcode
        self._windows: list[Window] = []
        self._order = 0

    @property
    def quiet(self) -> bool:
        return not self._windows

    def open(self, action: Action, now_s: float) -> None:
        """Switch a lasting fault on."""
        left = action.count()
        if action.do in _ONE_MESSAGE:
            left = left or 1
        until = math.inf if left is not None else now_s + action.number("for_s", action.number("s", _DEFAULT_S.get(action.do, 0.0)))
        self._windows.append(Window(action, until, left))

    def calm(self) -> None:
        """End every window; what is held back still leaves at its time."""
        self._windows = []

    def expire(self, now_s: float) -> None:
        """Forget windows that are over."""
        if self._windows:
            self._windows = [w for w in self._windows if w.until_s > now_s and (w.left is None or w.left > 0)]

    def find(self, do: str, conn: int | None = None, symbol: str | None = None) -> Action | None:
        """Return the first open fault `do` that is meant for this connection and symbol."""
        window = self._find(do, conn, symbol)
        return window.action if window else None

    def _find(self, do: str, conn: int | None, symbol: str | None) -> Window | None:
        for window in self._windows:
            action = window.action
            if action.do != do or (window.left is not None and window.left <= 0):
                continue
            if (action.conn is None or action.conn == conn) and (action.symbol is None or action.symbol == symbol):
                return window
        return None

    def answer(self, path: str) -> Action | None:
        """Return the open fault that spoils the answers of a REST path."""
        for window in self._windows:
            if window.action.do == "answer" and str(window.action.parameters.get("path", "")) in path:
                return window.action
        return None

    def _take(self, do: str, conn: int, symbol: str) -> Action | None:
        """Return the fault and count this message against it."""
        window = self._find(do, conn, symbol)
        if window is None:
            return None
        if window.left is not None:
            window.left -= 1
        return window.action

    def factor(self) -> float:
        """Return what the rate is multiplied by."""
        return math.prod(w.action.number("x", 10.0) for w in self._windows if w.action.do == "burst")

    def skew_ns(self) -> int:
        """Return what is added to event times."""
        return sum(int(w.action.number("offset_s", -5.0) * 1e9) for w in self._windows if w.action.do == "skew")

    def pass_on(self, conn: Connection, message: Message, now_s: float) -> list[Leaving]:
        """Return what leaves now for this message: in order; may hold it back."""
        if self.find("mute", conn.no, message.symbol):
            return []
        slow = self.find("slow", conn.no, message.symbol)
        if slow or conn.slow_until_s > now_s:
            # Invariant: a slow connection keeps its order, also when the fault ends.
            delay = slow.number("delay_s", 0.5) if slow else 0.0
            conn.slow_until_s = max(conn.slow_until_s, now_s + delay)
            self._hold(conn, conn.slow_until_s, message)
            return []
        late = self._take("late", conn.no, message.symbol)
        if late:
            tails = [tail + ',"late":true' for tail in message.tails]
            self._hold(conn, now_s + late.number("delay_s", 1.0), Message(message.payload, message.count, tails, message.symbol))
            return []
        return self._dress(conn, message)

    def _hold(self, conn: Connection, due_s: float, message: Message) -> None:
        self._order += 1
        heapq.heappush(conn.held, (due_s, self._order, message))

    def release(self, conn: Connection, now_s: float) -> list[Leaving]:
        """Return what was held back until now."""
        out: list[Leaving] = []
        while conn.held and conn.held[0][0] <= now_s:
            message = heapq.heappop(conn.held)[2]
            if not self.find("mute", conn.no, message.symbol):
                out.extend(self._dress(conn, message))
        return out

    def _dress(self, conn: Connection, message: Message) -> list[Leaving]:
        """Return the frames of a message: spoiled, fragmented, doubled, with an unreadable one behind it."""
        spoiled = self._find("malformed", conn.no, message.symbol)
        after: list[Leaving] = []
        if spoiled is not None and message.count:
            variant = spoiled.action.parameters.get("variant", "cut")
            # A message of one input has no neighbours to prove anything with: wait for one that has.
            if variant != "neighbour" or message.count > 1 or self._venue != "kis":
                if spoiled.left is not None:
                    spoiled.left -= 1
                if variant in SPOILED:
                    message = self.spoiled(variant, message)
                else:
                    after = [self.unreadable(variant, message)]
        parts = self._take("fragment", conn.no, message.symbol)
        data = fragments(message.payload, self._opcode, int(parts.number("parts", 3))) if parts else frame(message.payload, self._opcode)
        out: list[Leaving] = [(data, message.tails, message.count)]
        if self._take("duplicate", conn.no, message.symbol):
            out.append((data, [tail + ',"repeat":true' for tail in message.tails], message.count))
        return out + after

    def spoiled(self, variant: str, message: Message) -> Message:
        """Return the message with one input hurt, and the log saying so."""
        hurt, place = spoil(self._venue, variant, message)
        tails = list(hurt.tails)
        if tails:
            tails[place] = tails[place].replace('"kind":"', f'"kind":"malformed","variant":"{variant}","was":"', 1)
        return Message(hurt.payload, hurt.count, tails, hurt.symbol)

    def unreadable(self, variant: str, good: Message) -> Leaving:
        """Return an extra unreadable message, framed, and its log line end."""
        payload = FRAMING if variant == "framing" else inject(self._venue, variant, good)
        data = payload if variant == "framing" else frame(payload, self._opcode)
        tail = f'"symbol":"{good.symbol}","kind":"malformed","variant":"{variant}","bytes":{len(payload)},"whole":true'
        return data, [tail], 1
