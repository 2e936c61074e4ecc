"""What is seen of a host that is well, as the monitor sees it; tests change what they are about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from obs.config.options import SupervisorOptions
from obs.monitor.health import judge
from obs.monitor.host import HostFigures, ProcessFigures
from obs.monitor.status import status_of
from obs.monitor.view import HostView, ProviderView, RingView, RoleView
from obs.shm import ROLE_CELL

NOW_NS = 1_769_041_800 * 10**9  # 2026-01-22 00:30:00 UTC
SYMBOLS = [f"{number:06d}" for number in range(5930, 5930 + 41)]
COUNTERS = {name: 0 for name in ROLE_CELL.names or () if name != "pid"}
LINK = {
    "name": "KIS", "pid": 42, "connection_no": 1, "connected": True, "closed_market": False,
    "last_reason": "", "attempt": 0, "subscribed": 41, "wanted": 41,
}  # fmt: skip


def role(name: str, **changes: Any) -> RoleView:
    counters = COUNTERS | changes.pop("counters", {})
    good = RoleView(name, "kis", 42, True, True, 0.4, "", 0.0, counters, ProcessFigures(1.5, 40 << 20, 9, 2))
    return replace(good, **changes)


def ring(name: str, **changes: Any) -> RingView:
    loads = {"loaded": 100, "load_lag_s": 0.0} if name == "tick" else {}
    return replace(RingView("sess_1", name, 1024, 100, 100, 0.0, **loads), **changes)


def provider(name: str = "kis", **changes: Any) -> ProviderView:
    roles = {one: role(one, owner=name) for one in ("archive", "load", "poll", "feed")}
    rings = [ring("tick"), ring("event"), ring("quarantine")]
    good = ProviderView(
        name, "kr_stocks", "krx", "sample", True, True, True, True, 41, "sess_1", roles, [LINK],
        dict.fromkeys(SYMBOLS, "confirmed"), 0, rings,
    )  # fmt: skip
    return replace(good, **changes)


def host(*providers: ProviderView, free: int = 100 << 30) -> HostView:
    services = {"monitor": role("monitor", owner="services")}
    return HostView(NOW_NS, list(providers), services, {"kis": 7}, HostFigures(disk_bytes=200 << 30, disk_free_bytes=free))


def status(*providers: ProviderView, **changes: Any) -> dict[str, Any]:
    """What `obs status` has of them."""
    view = host(*providers, **changes)
    return status_of(view, judge(view, SupervisorOptions()))
