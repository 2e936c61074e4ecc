"""What one look cannot tell: how fast, and since when. Remembers a few figures of the last looks; costs next to nothing."""

from __future__ import annotations

from collections import deque
from typing import Any, Final, NamedTuple

from obs.clock import NS
from obs.monitor.health import Verdict
from obs.monitor.host import HostFigures
from obs.monitor.losing import Loss, Losses
from obs.monitor.past import Past
from obs.monitor.view import HostView

_LOOKS: Final = 11  # a look a second: rates are over ten
RATES: Final = ("messages", "inputs", "records")
_MS: Final = 1_000_000

Figures = tuple[int, ...]


class _Look(NamedTuple):
    mono_ns: int
    busy_s: float
    idle_s: float
    feeds: dict[str, tuple[int, Figures]]  # provider -> when its feed started, its counters


def memory_used(host: HostFigures) -> float:
    """Return how much of the memory is in use, 0..1."""
    return round((host.memory_bytes - host.memory_free_bytes) / host.memory_bytes, 4) if host.memory_bytes else 0.0


class Trend:
    """`add` takes each look in turn; everything else speaks of the last one. Safety: one thread."""

    def __init__(self) -> None:
        self._looks: deque[_Look] = deque(maxlen=_LOOKS)
        self._since: dict[tuple[str, str], int] = {}
        self._ok: bool | None = None
        self.since_ms = 0  # health has been what it is since then
        self._losses = Losses()
        self.past = Past()

    def add(self, view: HostView, verdict: Verdict, mono_ns: int) -> None:
        """Take a look and its verdict; `mono_ns`: when it was made."""
        feeds = {
            provider.name: (feed.counters["started_ns"], tuple(feed.counters[name] for name in RATES))
            for provider in view.providers
            if (feed := provider.roles.get("feed")) is not None
        }
        self._looks.append(_Look(mono_ns, view.host.cpu_s, view.host.idle_s, feeds))
        now_ms = view.now_ns // _MS
        if verdict.ok != self._ok:
            self._ok, self.since_ms = verdict.ok, now_ms
        present = {(one.reason, one.provider) for one in verdict.reasons}
        self._since = {key: self._since.get(key, now_ms) for key in present}
        self._losses.add(view, mono_ns)
        rates = {provider.name: self.rates(provider.name) for provider in view.providers}
        self.past.add(
            now_ms, self.cpu_used(), memory_used(view.host), {name: (one["messages"], one["records"]) for name, one in rates.items()}
        )

    def losing(self, provider: str) -> list[Loss]:
        """Return what is being lost since the last look or before, no gap line telling of it yet."""
        return self._losses.of(provider)

    def reason_since_ms(self, reason: str, provider: str) -> int | None:
        """Return since when a reason has kept health red, None if it does not, or is newer than the last look."""
        return self._since.get((reason, provider))

    def cpu_used(self) -> float | None:
        """Return how much of all cores was busy between the last two looks, 0..1; None before the second."""
        if len(self._looks) < 2:
            return None
        before, now = self._looks[-2], self._looks[-1]
        busy, idle = now.busy_s - before.busy_s, now.idle_s - before.idle_s
        return round(min(1.0, max(0.0, busy / (busy + idle))), 4) if busy + idle > 0 else None

    def rates(self, provider: str) -> dict[str, Any]:
        """Return what a feed received, decoded and published per second, over up to ten of them; None: its life is too short to say."""
        last = self._looks[-1].feeds.get(provider) if self._looks else None
        first = next((look for look in self._looks if last is not None and look.feeds.get(provider, (None,))[0] == last[0]), None)
        if last is None or first is None or first is self._looks[-1]:
            return dict.fromkeys(RATES)
        seconds = (self._looks[-1].mono_ns - first.mono_ns) / NS
        grown = (now - then for now, then in zip(last[1], first.feeds[provider][1], strict=True))
        return {name: round(max(0.0, count / seconds), 1) for name, count in zip(RATES, grown, strict=True)}
