"""Health: a table of what is seen, and the reasons that it must give."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import orjson
import pytest
from views import LINK, host, provider, ring, role

from obs.config.options import SupervisorOptions
from obs.monitor.health import REASONS, STARTING_S, TEXTS, judge
from obs.monitor.metrics import render
from obs.monitor.status import status_of
from obs.monitor.view import ProviderView


def with_role(name: str, **changes: Any) -> ProviderView:
    one = provider()
    return replace(one, roles=one.roles | {name: role(name, **changes)})


def with_link(**changes: Any) -> dict[str, Any]:
    return {"links": [LINK | changes]}


CASES: dict[str, tuple[ProviderView, list[str]]] = {
    "all is well": (provider(), []),
    "not connected": (provider(**with_link(connected=False, last_reason="refused", attempt=3)), ["not_connected"]),
    "not connected, closed market": (provider(open_now=False, regular_now=False, **with_link(connected=False)), []),
    "the link waits for the opening": (provider(**with_link(connected=False, closed_market=True)), []),
    "nothing is wanted yet": (provider(**with_link(connected=False, connection_no=0, waiting=True)), ["not_connected"]),
    "nothing is wanted of one link": (provider(links=[LINK, LINK | {"connected": False, "waiting": True}]), []),
    "another waits, one is not connected": (provider(links=[LINK | {"connected": False}, LINK | {"waiting": True}]), ["not_connected"]),
    "cut because it was mute": (provider(**with_link(connected=False, last_reason="mute")), ["not_connected", "mute"]),
    "connected but silent": (provider(quiet_s=121.0), ["mute"]),
    "a quiet minute": (provider(quiet_s=60.0), []),
    "silent before the opening": (provider(quiet_s=500.0, regular_now=False), []),
    "crypto is never quiet": (provider(market="crypto", quiet_s=61.0), ["mute"]),
    "the feed is dead": (with_role("feed", alive=False), ["not_connected", "restarting"]),
    "the feed starts": (with_role("feed", ready=False), ["restarting"]),
    "the feed is stuck": (with_role("feed", beat_age_s=15.5), ["heartbeat"]),
    "the archive writer is slow to beat": (with_role("archive", beat_age_s=60.0), []),
    "the archive writer is stuck": (with_role("archive", beat_age_s=121.0), ["heartbeat"]),
    "archive lag": (provider(rings=[ring("tick", archived=3, archive_lag_s=10.5)]), ["archive_lag"]),
    "a record in flight": (provider(rings=[ring("tick", archived=3, archive_lag_s=9.5, loaded=0, load_lag_s=59.0)]), []),
    "events not archived": (provider(rings=[ring("event", archived=3, archive_lag_s=10.5)]), ["archive_lag"]),
    "loader lag": (provider(rings=[ring("tick", loaded=0, load_lag_s=60.5)]), ["loader_lag"]),
    "the database is away": (with_role("load", waiting="database", waiting_s=10.5), ["database_away"]),
    "the database is away, as watched": (provider(away_s=10.5), ["database_away"]),
    "the database is slow": (with_role("load", waiting="database", waiting_s=9.5), []),
    "the disk takes nothing": (with_role("archive", counters={"disk_trouble": 1}), ["disk"]),
    "the disk hangs": (with_role("archive", waiting="disk", waiting_s=10.5), ["disk"]),
    "an identity broke": (provider(broken=["messages=7, expected 8"]), ["ledger"]),
    "no symbols": (provider(symbols=0), ["universe"]),
    "an older day's universe": (with_role("poll", counters={"universe": 1}), ["universe"]),
    "no universe": (with_role("poll", counters={"universe": 2}), ["universe"]),
    "no calendar": (provider(calendar_dated=False), ["calendar"]),
    "nothing runs": (provider(seen=False, roles={}), ["heartbeat"]),
}


@pytest.mark.parametrize("name", CASES)
def test_reasons(name: str) -> None:
    seen, expected = CASES[name]
    verdict = judge(host(seen), SupervisorOptions())
    assert [one.reason for one in verdict.reasons] == expected, verdict
    assert all(one.provider == "kis" and one.text for one in verdict.reasons)
    assert verdict.ok == (not expected)
    assert verdict.status == (503 if expected else 200)
    assert verdict.to_json()["reasons"] == expected


ONLY_STARTED = {"session_age_s": STARTING_S - 1}
NEVER = with_link(connected=False, connection_no=0)
NEW = role("feed", pid=0, alive=False, ready=False, beat_age_s=None)
STOPPED = {"counters": {"stopping": 1}}
# What an ordered start or stop explains is red, and no alarm; nothing else is.
EXPECTED: dict[str, tuple[ProviderView, bool]] = {
    "connects for the first time": (provider(**NEVER, **ONLY_STARTED), True),
    "has never connected for a minute": (provider(**NEVER, session_age_s=STARTING_S), False),
    "has never connected, of an old session": (provider(**NEVER), False),
    "has lost its first connection": (provider(**with_link(connected=False), **ONLY_STARTED), False),
    "shows what an earlier feed has said": (provider(**with_link(connected=False, pid=41), **ONLY_STARTED), True),
    "is not ready": (replace(with_role("load", ready=False), **ONLY_STARTED), True),
    "is not ready for a minute": (with_role("load", ready=False), False),
    "has not been spawned": (replace(provider(links=[]), roles={"feed": NEW}, **ONLY_STARTED), True),
    "has not been spawned for a minute": (replace(provider(links=[]), roles={"feed": NEW}), False),
    "died while it started": (replace(with_role("feed", alive=False), **ONLY_STARTED), False),
    "is silent while it starts": (replace(with_role("feed", beat_age_s=15.5), **ONLY_STARTED), False),
    "waits for slots": (provider(**with_link(connected=False, connection_no=0, waiting=True)), True),
    "waits for its symbols": (provider(symbols=0, **ONLY_STARTED), True),
    "was asked to stop and has gone": (with_role("feed", alive=False, **STOPPED), True),
    "was asked to stop and has disconnected": (replace(with_role("feed", **STOPPED), **with_link(connected=False)), True),
    "was asked to stop and has not begun": (with_role("poll", ready=False, **STOPPED), True),
    "died, while another was asked to stop": (replace(provider(), roles=provider().roles | {
        "feed": role("feed", **STOPPED), "archive": role("archive", alive=False)}), False),
    "was asked to stop, and the disk takes nothing": (with_role("archive", counters={"stopping": 1, "disk_trouble": 1}), False),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_no_alarm(name: str) -> None:
    seen, expected = EXPECTED[name]
    verdict = judge(host(seen), SupervisorOptions())
    assert verdict.reasons
    assert {one.expected for one in verdict.reasons} == {expected}, verdict
    assert verdict.status == 503


def test_every_text_is_that_of_its_name_filled_in() -> None:
    """Pages translate by that name and those figures; what the server says stays English."""
    seen = [one for case, _ in (*CASES.values(), *EXPECTED.values()) for one in judge(host(case), SupervisorOptions()).reasons]
    seen += [*judge(host(), SupervisorOptions()).reasons, *judge(host(provider(), free=1 << 20), SupervisorOptions()).reasons]
    assert all(one.text == TEXTS[one.says].format(**one.facts) for one in seen)
    assert {one.says for one in seen} == TEXTS.keys() - {"not_looked", "look_hangs"}  # those the monitor says of itself
    (mute,) = judge(host(CASES["connected but silent"][0]), SupervisorOptions()).to_json()["details"]
    assert (mute["text"], mute["says"], mute["facts"]) == ("connected, but no message for 121 s", "quiet", {"seconds": 121})


def test_the_list_is_closed() -> None:
    assert {reason for _, reasons in CASES.values() for reason in reasons} == set(REASONS)


def test_a_full_disk_is_the_hosts() -> None:
    (reason,) = judge(host(provider(), free=1 << 20), SupervisorOptions()).reasons
    assert (reason.reason, reason.provider) == ("disk", "")


def test_nothing_watched_is_never_green() -> None:
    verdict = judge(host(), SupervisorOptions())
    assert [(one.reason, one.provider) for one in verdict.reasons] == [("universe", "")]
    assert status_of(host(), verdict)["health"]["status"] == "red"


@pytest.mark.parametrize("name", CASES)
def test_everything_can_be_shown(name: str) -> None:
    view = host(CASES[name][0])
    verdict = judge(view, SupervisorOptions())
    status = json.loads(orjson.dumps(status_of(view, verdict)))
    assert status["health"]["ok"] is verdict.ok
    assert [one["help"] for one in status["health"]["details"]] == [f"RUNBOOK.md#{one.reason}" for one in verdict.reasons]
    text, content_type = render(view, verdict)
    assert content_type.startswith("text/plain")
    assert f"obs_healthy {float(verdict.ok)}".encode() in text


def test_metrics_by_name() -> None:
    seen = with_role("feed", counters={"messages": 1234, "disconnected_ns": 2_500_000_000})
    seen = replace(seen, rings=[ring("tick", published=105, loaded=90, load_lag_s=1.5)])
    text = render(host(seen), judge(host(seen), SupervisorOptions()))[0]
    for line in (
        'obs_messages_total{provider="kis"} 1234.0', 'obs_disconnected_seconds_total{provider="kis"} 2.5',
        'obs_ring_published_total{provider="kis",ring="tick"} 105.0', 'obs_ring_loaded_total{provider="kis",ring="tick"} 90.0',
        'obs_loader_lag_seconds{provider="kis",ring="tick"} 1.5', 'obs_process_up{provider="kis",role="feed"} 1.0',
        'obs_health_reason{reason="ledger"} 0.0', 'obs_connected{link="KIS",provider="kis"} 1.0',
    ):  # fmt: skip
        assert line.encode() in text.splitlines(), line
