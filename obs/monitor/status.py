"""What `obs status` tells: processes, providers and health, as one JSON value and as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from obs.config import Config
from obs.monitor.health import Verdict, judge
from obs.monitor.host import process_figures
from obs.monitor.view import HostView, ProviderView, RingView, RoleView, Watcher
from obs.record.events import iso_ms

_FEED: Final = ("messages", "inputs", "ignored", "quarantined", "records", "gaps", "reconnects")


def collect(config: Config) -> dict[str, Any]:
    """Look once and return the status; `running` tells whether any process of this data directory lives."""
    watcher = Watcher(config)
    try:
        view = watcher.look()
    finally:
        watcher.close()
    return status_of(view, judge(view, config.supervisor))


def status_of(view: HostView, verdict: Verdict) -> dict[str, Any]:
    """Return `{"ts", "running", "processes": […], "providers": […], "host", "health"}`."""
    return {
        "ts": iso_ms(view.now_ns), "running": view.runs, "processes": list(_processes(view)),
        "providers": [_provider(provider) for provider in view.providers], "host": vars(view.host), "health": verdict.to_json(),
    }  # fmt: skip


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


def _provider(provider: ProviderView) -> dict[str, Any]:
    feed, load = provider.roles.get("feed"), provider.roles.get("load")
    states = list(provider.slots.values())
    return {
        "name": provider.name, "market": provider.market, "venue": provider.venue, "mode": provider.mode,
        "session_id": provider.session_id or None, "open": provider.open_now,
        "next_open": iso_ms(provider.next_open_ns) if provider.next_open_ns else None,
        "connected": sum(bool(link.get("connected")) for link in provider.links) if feed is not None and feed.alive else 0,
        "links": provider.links, "symbols": provider.symbols, "slots": {state: states.count(state) for state in sorted(set(states))},
        "mitigation_level": provider.level, "old_sessions": provider.old_sessions,
        **{name: feed.counters[name] if feed is not None else 0 for name in _FEED},
        "rejected": load.counters["rejected"] if load is not None else 0,
        "rings": {ring.name: _ring(ring) for ring in provider.ring.values()}, "ledger": provider.broken,
    }  # fmt: skip


def _ring(ring: RingView) -> dict[str, Any]:
    value = {
        "published": ring.published, "archived": ring.archived, "archive_lag_s": round(ring.archive_lag_s, 2),
        "capacity": ring.capacity, "used": round(ring.used, 4),
    }  # fmt: skip
    if ring.load_lag_s is not None:
        value |= {"loaded": ring.loaded or 0, "load_lag_s": round(ring.load_lag_s, 2)}
    return value


def lines(status: dict[str, Any]) -> list[str]:
    """Return the status as a person reads it."""
    if not status["running"]:
        return ["nothing runs here"]
    out = [f"{'role':<11} {'provider':<12} {'pid':>7}  {'state':<9} {'heartbeat':>9} {'cpu s':>8} {'memory':>8}"]
    for one in status["processes"]:
        beat = one.get("heartbeat_age_s")
        out.append(
            f"{one['role']:<11} {one['provider']:<12} {one['pid']:>7}  {one['state']:<9} {'-' if beat is None else f'{beat:.1f} s':>9} "
            f"{one.get('cpu_s', 0):>8.1f} {one.get('resident_bytes', 0) >> 20:>4} MiB"
        )
    for one in status["providers"]:
        out += ["", *_provider_lines(one)]
    health = status["health"]
    out += ["", f"health: {health['status']}"]
    out += [f"  {one['reason']:<14} {one['provider'] or 'host':<12} {one['text']}" for one in health["details"]]
    return out


def _provider_lines(one: dict[str, Any]) -> list[str]:
    market = "open" if one["open"] else f"closed until {one['next_open'][:16].replace('T', ' ')} UTC" if one["next_open"] else "closed"
    tick = one["rings"].get("tick")
    out = [
        f"{one['name']} ({one['market']}, {market}): {one['connected']} of {len(one['links'])} connections, {one['symbols']} symbols, "
        f"{one['reconnects']} reconnects",
        f"  {one['messages']:,} messages, {one['inputs']:,} inputs, {one['ignored']:,} ignored, {one['quarantined']:,} quarantined, "
        f"{one['records']:,} records, {one['gaps']:,} gaps",
    ]
    if level := one["mitigation_level"]:
        out.append(f"  mitigation level {level}: {'one record a second' if level == 1 else 'one record in two seconds'} of each symbol")
    if tick is not None:
        out.append(
            f"  tick: published {tick['published']:,}, archived {tick['archived']:,} ({tick['archive_lag_s']:.1f} s behind), "
            f"loaded {tick['loaded']:,} ({tick['load_lag_s']:.1f} s behind)"
        )
    return out
