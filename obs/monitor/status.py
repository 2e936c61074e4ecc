"""What `obs status` tells: processes, providers and health, as one JSON value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from obs.clock import SYSTEM, Clock
from obs.config import Config
from obs.monitor.health import Verdict, judge
from obs.monitor.host import HostFigures, process_figures
from obs.monitor.trend import Trend, memory_used
from obs.monitor.view import HostView, ProviderView, RingView, RoleView, Watcher
from obs.record.events import iso_ms

_FEED: Final = ("messages", "inputs", "ignored", "quarantined", "records", "reconnects")


def _never(_: str) -> None:
    """Nobody measures."""


class Looks:
    """Look after look, with what they tell together. Safety: one thread."""

    def __init__(self, config: Config, clock: Clock = SYSTEM) -> None:
        self._config, self._clock = config, clock
        self._watcher = Watcher(config, clock)
        self.trend = Trend()

    def look(self) -> tuple[HostView, Verdict]:
        """Look now, and remember it."""
        view = self._watcher.look()
        verdict = judge(view, self._config.supervisor)
        self.trend.add(view, verdict, self._clock.mono_ns())
        return view, verdict

    def status(self) -> dict[str, Any]:
        """Look now and return the status; rates and since when are those of the looks so far."""
        return status_of(*self.look(), self.trend)

    def close(self) -> None:
        self._watcher.close()


def collect(config: Config) -> dict[str, Any]:
    """Look once and return the status; `running` tells whether any process of this data directory lives."""
    looks = Looks(config)
    try:
        return looks.status()
    finally:
        looks.close()


def status_of(
    view: HostView, verdict: Verdict, trend: Trend | None = None, venue_ms: Callable[[str], float | None] = _never
) -> dict[str, Any]:
    """Return `{"ts", "running", "processes": […], "providers": […], "host", "health"}`.

    `trend`: what the looks before this one tell (rates, since when); without it those are null. `venue_ms`: provider -> how far its
    records are behind the venue.
    """
    trend = trend or Trend()
    return {
        "ts": iso_ms(view.now_ns), "running": view.runs, "processes": list(_processes(view)),
        "providers": [_provider(provider, trend, venue_ms) for provider in view.providers], "host": _host(view.host, trend),
        "health": _health(verdict, trend),
    }  # fmt: skip


def _host(host: HostFigures, trend: Trend) -> dict[str, Any]:
    return vars(host) | {
        "cpu_used": trend.cpu_used(), "memory_used": memory_used(host),
        "disk_used": _share(host.disk_bytes - host.disk_free_bytes, host.disk_bytes),
    }  # fmt: skip


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _health(verdict: Verdict, trend: Trend) -> dict[str, Any]:
    """Add to a verdict since when, and where the runbook tells what to do."""
    value = verdict.to_json()
    for one in value["details"]:
        one["since_ms"] = trend.reason_since_ms(one["reason"], one["provider"])
        one["help"] = f"RUNBOOK.md#{one['reason']}"
    return value | {"since_ms": trend.since_ms or None}


def _processes(view: HostView) -> Iterator[dict[str, Any]]:
    """Supervisors first; `provider` of a host's own process is "services"."""
    for pid in dict.fromkeys(view.supervisors.values()):
        owners = [owner for owner, holder in view.supervisors.items() if holder == pid]
        used = process_figures(pid)
        yield {
            "role": "supervisor", "provider": owners[0] if len(owners) == 1 else "", "owners": owners, "pid": pid, "state": "running",
            "cpu_s": used.cpu_s, "resident_bytes": used.resident_bytes,
        }  # fmt: skip
    for provider in view.providers:
        for role in provider.roles.values():
            yield _process(role, view.now_ns)
    for role in view.services.values():
        yield _process(role, view.now_ns)


def state_of(role: RoleView) -> str:
    """Return running, starting, waiting (for a disk or database, over a second), or dead."""
    if not role.alive:
        return "dead"
    if not role.ready or role.beat_age_s is None:
        return "starting"
    return "waiting" if role.waiting_s > 1 else "running"


def _process(role: RoleView, now_ns: int) -> dict[str, Any]:
    started = role.counters["started_ns"]
    return {
        "role": role.role, "provider": role.owner, "pid": role.pid, "state": state_of(role),
        "heartbeat_age_s": None if role.beat_age_s is None else round(role.beat_age_s, 2), "waiting": role.waiting,
        "waiting_s": round(role.waiting_s, 2), "uptime_s": round((now_ns - started) / 1e9, 1) if started and role.alive else None,
        "cpu_s": role.figures.cpu_s, "resident_bytes": role.figures.resident_bytes,
    }  # fmt: skip


def _provider(provider: ProviderView, trend: Trend, venue_ms: Callable[[str], float | None]) -> dict[str, Any]:
    feed, load, archive = (provider.roles.get(role) for role in ("feed", "load", "archive"))
    tick = provider.ring.get("tick")
    states = list(provider.slots.values())
    return {
        "name": provider.name, "market": provider.market, "venue": provider.venue, "mode": provider.mode,
        "session_id": provider.session_id or None, "open": provider.open_now,
        "next_open": iso_ms(provider.next_open_ns) if provider.next_open_ns else None,
        "connected": sum(bool(link.get("connected")) for link in provider.links) if feed is not None and feed.alive else 0,
        "links": provider.links, "symbols": provider.symbols, "slots": {state: states.count(state) for state in sorted(set(states))},
        "mitigation_level": provider.level, "old_sessions": provider.old_sessions,
        **{name: feed.counters[name] if feed is not None else 0 for name in _FEED},
        "gaps": provider.gaps, "rejected": load.counters["rejected"] if load is not None else 0,
        "rings": {ring.name: _ring(ring) for ring in provider.ring.values()}, "ledger": provider.broken,
        "rates": trend.rates(provider.name), "losing": [one.to_json() for one in trend.losing(provider.name)],
        "latency": {
            "venue_ms": venue_ms(provider.name), "archive_s": round(tick.archive_lag_s, 2) if tick is not None else None,
            "database_s": round(tick.load_lag_s, 2) if tick is not None and tick.load_lag_s is not None else None,
        },
        "ledger_sums": {
            "received": feed.counters["messages"] if feed is not None else 0, "inputs": feed.counters["inputs"] if feed is not None else 0,
            "published": tick.published if tick is not None else 0, "archived": tick.archived if tick is not None else 0,
            "loaded": (tick.loaded or 0) if tick is not None else 0,
            "archive_gaps": archive.counters["lost"] if archive is not None else 0,
            "quarantined": feed.counters["quarantined"] if feed is not None else 0,
        },
    }  # fmt: skip


def _ring(ring: RingView) -> dict[str, Any]:
    value = {
        "published": ring.published, "archived": ring.archived, "archive_lag_s": round(ring.archive_lag_s, 2),
        "capacity": ring.capacity, "used": round(ring.used, 4),
    }  # fmt: skip
    if ring.load_lag_s is not None:
        value |= {"loaded": ring.loaded or 0, "load_lag_s": round(ring.load_lag_s, 2)}
    return value
