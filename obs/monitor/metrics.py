"""Prometheus families of one look. Imported by the monitor role alone: the library costs megabytes.

Names follow the conventions: base units (seconds, bytes), `_total` for counters, one label per question. A counter of a
process begins anew when the process does, which is what Prometheus expects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from obs import __version__
from obs.monitor.health import REASONS, Verdict
from obs.monitor.view import HostView, ProviderView, RingView, RoleView

NS: Final = 1e9
# name, help, role, field, divisor
_COUNTERS: Final = (
    ("obs_messages", "Messages received from the venue", "feed", "messages", 1),
    ("obs_inputs", "Trades, quotes and tickers decoded", "feed", "inputs", 1),
    ("obs_inputs_ignored", "Inputs that were counted and not folded", "feed", "ignored", 1),
    ("obs_messages_quarantined", "Messages with nothing readable in them", "feed", "quarantined", 1),
    ("obs_records_published", "Tick records published", "feed", "records", 1),
    ("obs_gaps", "Gap markers published by the feed", "feed", "gaps", 1),
    ("obs_reconnects", "Connections that ended", "feed", "reconnects", 1),
    ("obs_disconnected_seconds", "Seconds without a connection, over all links", "feed", "disconnected_ns", NS),
    ("obs_rows_rejected", "Rows that the database refused", "load", "rejected", 1),
    ("obs_sink_flushes", "Flushes of the archive writer", "archive", "flushes", 1),
    ("obs_sink_flush_seconds", "Seconds spent in flushes of the archive writer", "archive", "flush_ns_sum", NS),
)
_RINGS: Final[tuple[tuple[str, str, Callable[[RingView], float | None]], ...]] = (
    ("obs_ring_published", "Records published to a ring", lambda ring: ring.published),
    ("obs_ring_archived", "Records of a ring stored or gap-covered by the archive writer", lambda ring: ring.archived),
    ("obs_ring_loaded", "Records of a ring stored or gap-covered by the loader", lambda ring: ring.loaded),
)
_RING_GAUGES: Final[tuple[tuple[str, str, Callable[[RingView], float | None]], ...]] = (
    ("obs_ring_capacity_records", "Records that a ring holds", lambda ring: ring.capacity),
    ("obs_ring_used_ratio", "Part of a ring that is not archived yet", lambda ring: ring.used),
    ("obs_archive_lag_seconds", "Age of the oldest record that is not archived", lambda ring: ring.archive_lag_s),
    ("obs_loader_lag_seconds", "Age of the oldest record that is not in the database", lambda ring: ring.load_lag_s),
)
_HOST: Final = (
    ("obs_host_memory_bytes", "Memory of the host", "memory_bytes"),
    ("obs_host_memory_available_bytes", "Memory that is available", "memory_free_bytes"),
    ("obs_disk_bytes", "Size of the data disk", "disk_bytes"),
    ("obs_disk_free_bytes", "Free space of the data disk", "disk_free_bytes"),
)
_ROLES: Final[tuple[tuple[str, str, Callable[[RoleView], float | None]], ...]] = (
    ("obs_process_up", "Whether the process lives and has recovered", lambda role: float(role.alive and role.ready)),
    ("obs_process_heartbeat_age_seconds", "Seconds since the process stamped its heartbeat", lambda role: role.beat_age_s),
    ("obs_process_waiting_seconds", "Seconds it has waited for a disk or database", lambda role: role.waiting_s),
    ("obs_process_resident_memory_bytes", "Resident memory, shared rings included", lambda role: role.figures.resident_bytes),
    ("obs_process_open_fds", "Open descriptors", lambda role: role.figures.descriptors),
    ("obs_process_threads", "Threads", lambda role: role.figures.threads),
)


class _Look(Collector):
    def __init__(self, view: HostView, verdict: Verdict) -> None:
        self._view, self._verdict = view, verdict

    def collect(self) -> Iterator[Metric]:
        yield from self._health()
        yield from self._host()
        yield from _processes(self._view)
        yield from _feeds(self._view.providers)
        yield from _rings(self._view.providers)
        yield from _providers(self._view.providers)

    def _health(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("obs_healthy", "1 if GET /health answers 200", float(self._verdict.ok))
        family = GaugeMetricFamily("obs_health_reason", "1 while this reason keeps health red", labels=["reason"])
        present = {one.reason for one in self._verdict.reasons}
        for reason in REASONS:
            family.add_metric([reason], float(reason in present))
        yield family
        info = GaugeMetricFamily("obs_build_info", "Version of the code", labels=["version"])
        info.add_metric([__version__], 1)
        yield info

    def _host(self) -> Iterator[Metric]:
        host = self._view.host
        cpu = CounterMetricFamily("obs_host_cpu_seconds", "Seconds of all cores since boot", labels=["state"])
        cpu.add_metric(["busy"], host.cpu_s)
        cpu.add_metric(["idle"], host.idle_s)
        yield cpu
        for name, text, field in _HOST:
            yield GaugeMetricFamily(name, text, getattr(host, field))


def _processes(view: HostView) -> Iterator[Metric]:
    roles = [*(role for provider in view.providers for role in provider.roles.values()), *view.services.values()]
    labels = ["role", "provider"]
    for name, text, value_of in _ROLES:
        family = GaugeMetricFamily(name, text, labels=labels)
        for role in roles:
            if (value := value_of(role)) is not None:
                family.add_metric([role.role, role.owner], value)
        yield family
    cpu = CounterMetricFamily("obs_process_cpu_seconds", "CPU seconds of the process", labels=labels)
    dropped = CounterMetricFamily("obs_log_lines_dropped", "Log lines dropped because nobody read them", labels=labels)
    for role in roles:
        cpu.add_metric([role.role, role.owner], role.figures.cpu_s)
        dropped.add_metric([role.role, role.owner], role.counters["log_dropped"])
    yield cpu
    yield dropped


def _feeds(providers: list[ProviderView]) -> Iterator[Metric]:
    for name, text, role, field, divisor in _COUNTERS:
        family = CounterMetricFamily(name, text, labels=["provider"])
        for provider in providers:
            if role in provider.roles:
                family.add_metric([provider.name], provider.roles[role].counters[field] / divisor)
        yield family
    longest = GaugeMetricFamily("obs_sink_flush_seconds_max", "Longest flush of the archive writer", labels=["provider"])
    text = "Records that a sink could not store, each in a gap row"
    lost = CounterMetricFamily("obs_records_lost", text, labels=["provider", "ring", "sink"])
    for provider in providers:
        if (archive := provider.roles.get("archive")) is not None:
            longest.add_metric([provider.name], archive.counters["flush_ns_max"] / NS)
        if (load := provider.roles.get("load")) is not None:
            lost.add_metric([provider.name, "tick", "database"], load.counters["lost"])
    yield longest
    yield lost


def _rings(providers: list[ProviderView]) -> Iterator[Metric]:
    labels = ["provider", "ring"]
    for name, text, value_of in _RINGS:
        counter = CounterMetricFamily(name, text, labels=labels)
        for provider in providers:
            for ring in provider.ring.values():
                if (value := value_of(ring)) is not None:
                    counter.add_metric([provider.name, ring.name], value)
        yield counter
    for name, text, value_of in _RING_GAUGES:
        gauge = GaugeMetricFamily(name, text, labels=labels)
        for provider in providers:
            for ring in provider.ring.values():
                if (value := value_of(ring)) is not None:
                    gauge.add_metric([provider.name, ring.name], value)
        yield gauge


def _providers(providers: list[ProviderView]) -> Iterator[Metric]:
    connected = GaugeMetricFamily("obs_connected", "1 while a connection to the venue is open", labels=["provider", "link"])
    subscribed = GaugeMetricFamily("obs_subscriptions", "Subscriptions of a link", labels=["provider", "link", "state"])
    slots = GaugeMetricFamily("obs_slots", "Symbols by the state of their subscription", labels=["provider", "state"])
    single: dict[str, tuple[str, Callable[[ProviderView], float]]] = {
        "obs_market_open": ("1 while trades may come", lambda one: float(one.open_now)),
        "obs_mitigation_level": ("Mitigation level", lambda one: one.level),
        "obs_sessions_undrained": ("Older sessions whose rings are not archived yet", lambda one: one.old_sessions),
        "obs_ledger_broken": ("Identities of the ledger that do not hold", lambda one: len(one.broken)),
        "obs_quiet_seconds": ("Seconds since the last message", lambda one: one.quiet_s),
    }  # fmt: skip
    gauges = {name: GaugeMetricFamily(name, text, labels=["provider"]) for name, (text, _) in single.items()}
    for provider in providers:
        for link in provider.links:
            name = str(link.get("name", ""))
            connected.add_metric([provider.name, name], float(link.get("connected", False)))
            subscribed.add_metric([provider.name, name, "confirmed"], link.get("subscribed", 0))
            subscribed.add_metric([provider.name, name, "wanted"], link.get("wanted", 0))
        states = list(provider.slots.values())
        for state in sorted(set(states)):
            slots.add_metric([provider.name, state], states.count(state))
        for family, (_, value_of) in single.items():
            gauges[family].add_metric([provider.name], value_of(provider))
    yield from (connected, subscribed, slots, *gauges.values())


def render(view: HostView, verdict: Verdict) -> tuple[bytes, str]:
    """Return the text of /metrics and its content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Look(view, verdict))
    return generate_latest(registry), CONTENT_TYPE_LATEST
