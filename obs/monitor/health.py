"""From what is seen to a verdict: pure. Red has reasons, from a closed list; each names a provider and a figure.

A reason that an ordered start or stop explains is `expected`: health is red, for nothing is recorded, but nobody is called.

Lag is not loss: `archive_lag` and `loader_lag` speak of records that are still in flight, `ledger` of an identity that broke.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from obs.clock import NS
from obs.config.options import SupervisorOptions
from obs.market.calendar import ALWAYS
from obs.monitor.view import HostView, ProviderView, RingView, RoleView
from obs.record.events import reason_of_end
from obs.segment.disk import FLOOR_BYTES, FLOOR_SHARE

REASONS: Final = (
    "not_connected", "mute", "heartbeat", "archive_lag", "loader_lag", "database_away", "restarting", "disk", "ledger", "universe",
    "calendar",
)  # fmt: skip
ARCHIVE_LAG_S: Final = 10.0
LOADER_LAG_S: Final = 60.0
AWAY_S: Final = 10.0  # a database, or a disk that a call waits for
QUIET_S: Final = 120.0  # no message at all on an open connection, in regular hours
QUIET_ALWAYS_S: Final = 60.0  # the same in a market that never closes
STARTING_S: Final = 60.0  # of a session: for so long it may take to connect for the first time
# What a reason says, by the name of the sentence: pages say the same in other languages.
TEXTS: Final[Mapping[str, str]] = {
    "no_provider": "no provider is known here: nothing is watched",
    "disk_low": "{mib} MiB free, below the floor at which archive writers stop",
    "nothing_runs": "no process of this provider runs",
    "ledger": "{text}",
    "no_symbols": "there are no symbols to record",
    "old_universe": "today's cannot be built, an older one is used",
    "no_universe": "today's cannot be built, there is no older one",
    "no_days": "no dated trading days for today: standing hours are used",
    "dead": "{role} does not run (last pid {pid})",
    "starts": "{role} is starting",
    "no_beat": "{role} has been silent for {seconds} s",
    "no_feed": "the feed does not run",
    "no_slot": "no slot is wanted yet: the feed waits",
    "link_away": "{link}: {why}, attempt {attempt}",
    "link_mute": "{link}: the connection went silent",
    "quiet": "connected, but no message for {seconds} s",
    "lag": "{ring} of {session}: {records} records, {seconds} s",
    "disk_refuses": "the archive writer cannot write",
    "disk_hangs": "{role} has waited for the disk for {seconds} s",
    "database_away": "for {seconds} s",
    "not_looked": "the monitor has not looked yet",
    "look_hangs": "the monitor has waited for {seconds} s",
}
_SINKS: Final = ("archive", "load")
_KEEPER: Final = "keeper"  # waits for disks as sinks do


@dataclass(frozen=True)
class Reason:
    reason: str
    provider: str  # "" for the host
    text: str
    expected: bool = False  # part of an ordered start or stop: no alarm
    says: str = ""  # the name of its text in TEXTS
    facts: Mapping[str, str | int] = field(default_factory=dict, compare=False)  # what the text is filled with


def because(reason: str, provider: str, says: str, expected: bool = False, **facts: str | int) -> Reason:
    """Return a reason whose text is that of TEXTS, filled in."""
    return Reason(reason, provider, TEXTS[says].format(**facts), expected, says, facts)


@dataclass(frozen=True)
class Verdict:
    """`ok` and, if not, why. `status` is that of HTTP."""

    reasons: tuple[Reason, ...]

    @property
    def ok(self) -> bool:
        return not self.reasons

    @property
    def status(self) -> int:
        return 200 if self.ok else 503

    def to_json(self) -> dict[str, Any]:
        names = list(dict.fromkeys(one.reason for one in self.reasons))
        details = [
            {
                "reason": one.reason, "provider": one.provider, "text": one.text, "expected": one.expected, "says": one.says,
                "facts": one.facts,
            }
            for one in self.reasons
        ]  # fmt: skip
        return {"ok": self.ok, "status": "green" if self.ok else "red", "reasons": names, "details": details}


def judge(view: HostView, limits: SupervisorOptions) -> Verdict:
    """Return the verdict of one look."""
    reasons = list(_host(view))
    if not view.providers:
        reasons.append(because("universe", "", "no_provider"))
    for provider in view.providers:
        reasons += _provider(provider, limits)
    # What looks has just begun itself, so the services are being started: one that has not run yet is no alarm.
    monitor = view.services.get("monitor")
    begins = monitor is not None and view.now_ns - monitor.counters["started_ns"] < STARTING_S * NS
    for role in view.services.values():
        reasons += _process(role, limits.sink_heartbeat_s if role.role == _KEEPER else limits.heartbeat_s, "", begins)
    order = {name: place for place, name in enumerate(REASONS)} | {"disk": -1}  # first: others may follow from it
    return Verdict(tuple(sorted(reasons, key=lambda one: (order[one.reason], one.provider))))


def _host(view: HostView) -> Iterator[Reason]:
    free, whole = view.host.disk_free_bytes, view.host.disk_bytes
    if free < min(FLOOR_BYTES, whole // FLOOR_SHARE):
        yield because("disk", "", "disk_low", mib=free >> 20)


def _provider(provider: ProviderView, limits: SupervisorOptions) -> Iterator[Reason]:
    name = provider.name
    if not provider.seen:
        yield because("heartbeat", name, "nothing_runs")
        return
    starting = provider.session_age_s < STARTING_S
    for role in provider.roles.values():
        yield from _process(role, limits.sink_heartbeat_s if role.role in _SINKS else limits.heartbeat_s, name, starting)
    yield from _connection(provider, starting)
    yield from _lags(provider)
    yield from _waits(provider)
    for text in provider.broken:
        yield because("ledger", name, "ledger", text=text)
    if not provider.symbols:
        yield because("universe", name, "no_symbols", starting)
    poll = provider.roles.get("poll")
    if poll is not None and poll.counters["universe"]:
        yield because("universe", name, "old_universe" if poll.counters["universe"] == 1 else "no_universe")
    if not provider.calendar_dated:
        yield because("calendar", name, "no_days")


def _process(role: RoleView, limit_s: float, provider: str, starting: bool = False) -> Iterator[Reason]:
    stopping = bool(role.counters["stopping"])
    if not role.alive:
        yield because("restarting", provider, "dead", stopping or (starting and not role.pid), role=role.role, pid=role.pid)
    elif role.beat_age_s is None or not role.ready:
        yield because("restarting", provider, "starts", stopping or starting, role=role.role)
    elif role.beat_age_s > limit_s:
        yield because("heartbeat", provider, "no_beat", role=role.role, seconds=round(role.beat_age_s))


def _connection(provider: ProviderView, starting: bool) -> Iterator[Reason]:
    """A provider whose market is closed need not be connected; one that starts, not yet. A feed that has died is no start."""
    feed = provider.roles.get("feed")
    if not provider.open_now:
        return
    stopping = feed is not None and bool(feed.counters["stopping"])
    if feed is None or not feed.alive or not provider.links:
        died = feed is not None and bool(feed.pid) and not feed.alive
        yield because("not_connected", provider.name, "no_feed", stopping or (starting and not died))
        return
    if all(link.get("waiting") for link in provider.links):
        yield because("not_connected", provider.name, "no_slot", True)
    for link in provider.links:
        if not link.get("connected") and not link.get("closed_market") and not link.get("waiting"):
            why = link.get("last_reason") or "connecting"
            # The board may still hold the words of the feed before this one.
            never = link.get("pid") != feed.pid or not link.get("connection_no")
            expected = stopping or (starting and never)
            said, attempt = str(link.get("name")), int(link.get("attempt", 0))
            yield because("not_connected", provider.name, "link_away", expected, link=said, why=str(why), attempt=attempt)
            if reason_of_end(str(link.get("last_reason"))) == "mute":
                yield because("mute", provider.name, "link_mute", link=said)
    limit_s = QUIET_ALWAYS_S if provider.market in ALWAYS else QUIET_S
    connected = any(link.get("connected") for link in provider.links)
    if connected and provider.regular_now and provider.quiet_s > limit_s:
        yield because("mute", provider.name, "quiet", seconds=round(provider.quiet_s))


def _lags(provider: ProviderView) -> Iterator[Reason]:
    for ring in provider.rings:
        if ring.archive_lag_s > ARCHIVE_LAG_S:
            yield _lag("archive_lag", provider, ring, ring.archived, ring.archive_lag_s)
        if ring.load_lag_s is not None and ring.load_lag_s > LOADER_LAG_S:
            yield _lag("loader_lag", provider, ring, ring.loaded or 0, ring.load_lag_s)


def _lag(reason: str, provider: ProviderView, ring: RingView, durable: int, lag_s: float) -> Reason:
    waiting = ring.published - durable
    return because(reason, provider.name, "lag", ring=ring.name, session=ring.session_id, records=waiting, seconds=round(lag_s))


def _waits(provider: ProviderView) -> Iterator[Reason]:
    archive, load = provider.roles.get("archive"), provider.roles.get("load")
    if archive is not None and archive.counters["disk_trouble"]:
        yield because("disk", provider.name, "disk_refuses")
    for role in (archive, load):
        if role is not None and role.waiting == "disk" and role.waiting_s > AWAY_S:
            yield because("disk", provider.name, "disk_hangs", role=role.role, seconds=round(role.waiting_s))
    away_s = max(provider.away_s, load.waiting_s if load is not None and load.waiting == "database" else 0.0)
    if away_s > AWAY_S:
        yield because("database_away", provider.name, "database_away", seconds=round(away_s))
