"""Prometheus families of one look. Imported by the monitor role alone: the library costs megabytes.

Names follow the conventions: base units (seconds, bytes), `_total` for counters, one label per question, every label a closed list
or a name of the configuration. A counter of a process begins anew when the process does, one of system/events when the day
does (obs/monitor/tallies.py); both are what Prometheus expects. What ops/prometheus/alerts.yml and ops/grafana ask for is here,
and a test holds them together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from obs import __version__
from obs.monitor.gaps import SEVERITIES
from obs.monitor.health import REASONS, Verdict
from obs.monitor.host import HostFigures
from obs.monitor.tallies import DECISIONS, SLOT_STEPS, WARNINGS, Tallies, Tally
from obs.monitor.view import HostView, ProviderView, RingView, RoleView
from obs.record.events import GAP_REASONS
from obs.segment.disk import FLOOR_BYTES, FLOOR_SHARE

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
_HOST: Final[tuple[tuple[str, str, Callable[[HostFigures], float]], ...]] = (
    ("obs_host_cores", "Cores of the host", lambda host: host.cores),
    ("obs_host_memory_bytes", "Memory of the host", lambda host: host.memory_bytes),
    ("obs_host_memory_available_bytes", "Memory that is available", lambda host: host.memory_free_bytes),
    ("obs_disk_bytes", "Size of the data disk", lambda host: host.disk_bytes),
    ("obs_disk_free_bytes", "Free space of the data disk", lambda host: host.disk_free_bytes),
    ("obs_disk_floor_bytes", "Free space below which archive writers stop", lambda host: min(FLOOR_BYTES, host.disk_bytes // FLOOR_SHARE)),
)
_ROLES: Final[tuple[tuple[str, str, Callable[[RoleView], float | None]], ...]] = (
    ("obs_process_up", "Whether the process lives and has recovered", lambda role: float(role.alive and role.ready)),
    ("obs_process_heartbeat_age_seconds", "Seconds since the process stamped its heartbeat", lambda role: role.beat_age_s),
    ("obs_process_waiting_seconds", "Seconds it has waited for a disk or database", lambda role: role.waiting_s),
    ("obs_process_resident_memory_bytes", "Resident memory, shared rings included", lambda role: role.figures.resident_bytes),
    ("obs_process_open_fds", "Open descriptors", lambda role: role.figures.descriptors),
    ("obs_process_threads", "Threads", lambda role: role.figures.threads),
    ("obs_process_start_time_seconds", "When the process started, UTC epoch", lambda role: role.counters["started_ns"] / NS or None),
)
COUNTED_NS: Final = 180_000_000_000  # so long after its beginning a minute is the last one
HOST: Final = "host"  # the provider of what concerns all of them
# What system/events tells: name, help, name of the label, its values that are always shown, which counts, divisor.
_Counts = Callable[[Tally], dict[str, int]]
_TALLIES: Final[tuple[tuple[str, str, str, tuple[str, ...], _Counts, float], ...]] = (
    ("obs_gap_seconds", "Seconds of the gap lines of today", "reason", GAP_REASONS, lambda tally: tally.gap_milliseconds, 1000),
    ("obs_slot_steps", "Steps of slots today", "step", SLOT_STEPS, lambda tally: tally.slot_steps, 1),
    ("obs_overflow_lines", "Lines of the overflow ledger of today", "decision", DECISIONS, lambda tally: tally.overflow, 1),
    ("obs_reconnections", "Attempts to connect again today", "result", ("success", "fail"), lambda tally: tally.reconnections, 1),
    ("obs_sweep_symbols", "Symbols of the sweeps of today", "result", ("quoted", "failed", "candle"), lambda tally: tally.symbols, 1),
    ("obs_warnings", "Warning events of today", "warning", WARNINGS, lambda tally: tally.warnings, 1),
    ("obs_anomaly_marks", "Marks as an anomaly day that were made today", "reason", (), lambda tally: tally.marks, 1),
)
_TALLY_GAUGES: Final[tuple[tuple[str, str, Callable[[Tally], float | None]], ...]] = (
    ("obs_sweep_seconds", "Duration of the last sweep", lambda tally: _of_sweep(tally, "seconds")),
    ("obs_sweep_quotes_seconds", "Time until the last sweep had its quotes", lambda tally: _of_sweep(tally, "quotes_s")),
    ("obs_sweep_expected_symbols", "Symbols that the last sweep was to quote", lambda tally: _of_sweep(tally, "expected")),
    ("obs_sweep_received_symbols", "Symbols that the last sweep has quoted", lambda tally: _of_sweep(tally, "received")),
    ("obs_sweep_bar_end_timestamp_seconds", "End of the bar of the last sweep, UTC epoch", lambda tally: _of_sweep(tally, "end_s")),
)


def _of_sweep(tally: Tally, name: str) -> float | None:
    return None if tally.sweep is None else float(getattr(tally.sweep, name))


class _Look(Collector):
    def __init__(self, view: HostView, verdict: Verdict, tallies: Tallies | None) -> None:
        self._view, self._verdict, self._tallies = view, verdict, tallies

    def collect(self) -> Iterator[Metric]:
        yield from self._health()
        yield from self._host()
        yield from _processes(self._view)
        yield from _feeds(self._view.providers)
        yield from _rings(self._view.providers)
        yield from _providers(self._view.providers)
        if self._tallies is not None:
            known = {provider.name: tally for provider in self._view.providers if (tally := self._tallies.of(provider.name)) is not None}
            yield from _today(known, self._view.now_ns)

    def _health(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("obs_healthy", "1 if GET /health answers 200", float(self._verdict.ok))
        family = GaugeMetricFamily("obs_health_reason", "1 while this reason keeps health red", labels=["reason"])
        present = {one.reason for one in self._verdict.reasons}
        for reason in REASONS:
            family.add_metric([reason], float(reason in present))
        yield family
        yield self._alarms()
        info = GaugeMetricFamily("obs_build_info", "Version of the code", labels=["version"])
        info.add_metric([__version__], 1)
        yield info

    def _alarms(self) -> Metric:
        """Show every reason of every provider, so that an alert sees it come and go, but for what an ordered start or stop explains."""
        family = GaugeMetricFamily("obs_health_alarm", "1 while this reason calls for a person", labels=["reason", "provider"])
        alarms = {(one.reason, one.provider or HOST) for one in self._verdict.reasons if not one.expected}
        shown = [(reason, owner) for owner in (HOST, *(one.name for one in self._view.providers)) for reason in REASONS]
        for reason, owner in [*shown, *sorted(alarms.difference(shown))]:
            family.add_metric([reason, owner], float((reason, owner) in alarms))
        return family

    def _host(self) -> Iterator[Metric]:
        host = self._view.host
        cpu = CounterMetricFamily("obs_host_cpu_seconds", "Seconds of all cores since boot", labels=["state"])
        cpu.add_metric(["busy"], host.cpu_s)
        cpu.add_metric(["idle"], host.idle_s)
        yield cpu
        for name, text, value_of in _HOST:
            yield GaugeMetricFamily(name, text, value_of(host))


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
    errors = CounterMetricFamily("obs_process_errors", "Failures that the process has got over, each in its log", labels=labels)
    for role in roles:
        errors.add_metric([role.role, role.owner], role.counters["errors"])
        cpu.add_metric([role.role, role.owner], role.figures.cpu_s)
        dropped.add_metric([role.role, role.owner], role.counters["log_dropped"])
    yield cpu
    yield dropped
    yield errors


def _feeds(providers: list[ProviderView]) -> Iterator[Metric]:
    for name, text, role, field, divisor in _COUNTERS:
        family = CounterMetricFamily(name, text, labels=["provider"])
        for provider in providers:
            if role in provider.roles:
                family.add_metric([provider.name], provider.roles[role].counters[field] / divisor)
        yield family
    longest = GaugeMetricFamily("obs_sink_flush_seconds_max", "Longest flush of the archive writer", labels=["provider"])
    text = "Records that a sink could not store, each in a gap row"
    lost = CounterMetricFamily("obs_records_lost", text, labels=["provider", "sink"])
    for provider in providers:
        if (archive := provider.roles.get("archive")) is not None:
            longest.add_metric([provider.name], archive.counters["flush_ns_max"] / NS)
            lost.add_metric([provider.name, "archive"], archive.counters["lost"])
        if (load := provider.roles.get("load")) is not None:
            lost.add_metric([provider.name, "database"], load.counters["lost"])
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


def _away_s(provider: ProviderView) -> float:
    """Also of a database that takes connections and does not answer."""
    load = provider.roles.get("load")
    return max(provider.away_s, load.waiting_s if load is not None and load.waiting == "database" else 0.0)


def _providers(providers: list[ProviderView]) -> Iterator[Metric]:
    connected = GaugeMetricFamily("obs_connected", "1 while a connection to the venue is open", labels=["provider", "link"])
    subscribed = GaugeMetricFamily("obs_subscriptions", "Subscriptions of a link", labels=["provider", "link", "state"])
    slots = GaugeMetricFamily("obs_slots", "Symbols by the state of their subscription", labels=["provider", "state"])
    single: dict[str, tuple[str, Callable[[ProviderView], float]]] = {
        "obs_market_open": ("1 while trades may come", lambda one: float(one.open_now)),
        "obs_market_regular": ("1 in the regular session, when trades are sure to come", lambda one: float(one.regular_now)),
        "obs_symbols": ("Symbols that are to be recorded", lambda one: one.symbols),
        "obs_mitigation_level": ("Mitigation level", lambda one: one.level),
        "obs_sessions_undrained": ("Older sessions whose rings are not archived yet", lambda one: one.old_sessions),
        "obs_ledger_broken": ("Identities of the ledger that do not hold", lambda one: len(one.broken)),
        "obs_quiet_seconds": ("Seconds since the last message", lambda one: one.quiet_s),
        "obs_database_away_seconds": ("Seconds since the loader last had a database, 0 while it has", _away_s),
    }  # fmt: skip
    gauges = {name: GaugeMetricFamily(name, text, labels=["provider"]) for name, (text, _) in single.items()}
    for provider in providers:
        feed = provider.roles.get("feed")
        lives = feed is not None and feed.alive  # the board keeps the words of a feed that has died
        for link in provider.links:
            name = str(link.get("name", ""))
            connected.add_metric([provider.name, name], float(lives and bool(link.get("connected"))))
            subscribed.add_metric([provider.name, name, "confirmed"], link.get("subscribed", 0))
            subscribed.add_metric([provider.name, name, "wanted"], link.get("wanted", 0))
        states = list(provider.slots.values())
        for state in sorted(set(states)):
            slots.add_metric([provider.name, state], states.count(state))
        for family, (_, value_of) in single.items():
            gauges[family].add_metric([provider.name], value_of(provider))
    yield from (connected, subscribed, slots, *gauges.values())


def _today(tallies: dict[str, Tally], now_ns: int) -> Iterator[Metric]:
    gaps = CounterMetricFamily("obs_gap_markers", "Gap lines of today", labels=["provider", "reason", "severity"])
    for provider, tally in tallies.items():
        shown = {**dict.fromkeys(product(GAP_REASONS, SEVERITIES), 0), **tally.gaps}
        for (reason, severity), count in sorted(shown.items()):
            gaps.add_metric([provider, reason, severity], count)
    yield gaps
    for name, text, label, known, counts_of, divisor in _TALLIES:
        family = CounterMetricFamily(name, text, labels=["provider", label])
        for provider, tally in tallies.items():
            for word, count in sorted({**dict.fromkeys(known, 0), **counts_of(tally)}.items()):
                family.add_metric([provider, word], count / divisor)
        yield family
    for name, text, value_of in _TALLY_GAUGES:
        gauge = GaugeMetricFamily(name, text, labels=["provider"])
        for provider, tally in tallies.items():
            if (value := value_of(tally)) is not None:
                gauge.add_metric([provider], value)
        yield gauge
    coverage = GaugeMetricFamily("obs_coverage_ratio", "Part of the last minute that records of the slots cover", labels=["provider"])
    for provider, tally in tallies.items():
        # An old minute says nothing of now: its events wait for the disk, or nothing is counted any more.
        if tally.coverage is not None and now_ns - tally.minute_ns <= COUNTED_NS:
            coverage.add_metric([provider], tally.coverage)
    yield coverage
    changes = CounterMetricFamily("obs_mitigation_changes", "Changes of the mitigation level today", labels=["provider"])
    unreadable = CounterMetricFamily("obs_event_lines_unreadable", "Lines of system/events of today that do not read", labels=["provider"])
    for provider, tally in tallies.items():
        changes.add_metric([provider], tally.mitigations)
        unreadable.add_metric([provider], tally.bad_lines)
    yield changes
    yield unreadable


def render(view: HostView, verdict: Verdict, tallies: Tallies | None = None) -> tuple[bytes, str]:
    """Return the text of /metrics and its content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Look(view, verdict, tallies))
    return generate_latest(registry), CONTENT_TYPE_LATEST
