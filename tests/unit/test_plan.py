"""Which processes a start consists of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from obs.config import Config, ProviderConfig
from obs.config.options import SupervisorOptions
from obs.config.process import SERVICES, ProcessSpec, children_lock_path, lock_path
from obs.supervisor.plan import PROVIDER_ROLES, SERVICE_ROLES, SINKS, heartbeat_limit_s, plan

KIS = ProviderConfig(
    "kis", "kis", True, "kr_stocks", "krx", "http://127.0.0.1:1", "ws://127.0.0.1:1", ("KIS",), None, ("005930",), ("trade",), 41, "sample",
    "calendar",
)  # fmt: skip
UPBIT = replace(KIS, name="upbit", type="upbit", market="crypto", venue="kr", credentials=(), symbols=("KRW-BTC",))
OFF = replace(UPBIT, name="spare", enabled=False)
CONFIG = Config(Path("/data"), providers=(KIS, UPBIT, OFF), supervisor=SupervisorOptions(heartbeat_s=7, sink_heartbeat_s=70))


@pytest.mark.parametrize(
    ("provider", "services", "owners"),
    [(None, False, ("kis", "upbit", SERVICES)), ("upbit", False, ("upbit",)), (None, True, (SERVICES,))],
)
def test_owners(provider: str | None, services: bool, owners: tuple[str, ...]) -> None:
    chosen = plan(CONFIG, provider, services)
    assert chosen.owners == owners
    assert [one.name for one in chosen.providers] == [name for name in owners if name != SERVICES]
    assert chosen.services is (SERVICES in owners)


def test_a_provider_and_the_services_add_up_to_the_whole() -> None:
    parts = [*(plan(CONFIG, one.name, False).owners for one in CONFIG.planned()), plan(CONFIG, None, True).owners]
    assert sorted(sum(parts, ())) == sorted(plan(CONFIG, None, False).owners)


def test_sinks_start_before_sources_and_what_waits_may_be_silent_longer() -> None:
    """What a source publishes is taken from its first record on."""
    assert max(map(PROVIDER_ROLES.index, SINKS)) < min(PROVIDER_ROLES.index(role) for role in PROVIDER_ROLES if role not in SINKS)
    for role in (*PROVIDER_ROLES, *SERVICE_ROLES):
        assert heartbeat_limit_s(CONFIG, role) == (70 if role in (*SINKS, "keeper") else 7)


def test_names_that_ps_and_the_locks_show() -> None:
    spec = ProcessSpec("feed", "kis", CONFIG, Path("/dev/shm/x"), 1, dsn="postgresql://u:secret@h/d")
    assert spec.title == "obs feed kis"
    assert "u:secret" not in repr(spec)
    assert (lock_path(Path("/d"), "kis"), children_lock_path(Path("/d"), "kis")) == (Path("/d/.lock/kis"), Path("/d/.lock/kis.children"))
