"""What is being lost while it is: looks in turn, and what is told after each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from views import LINK, host, provider, role

from obs.clock import NS
from obs.monitor.losing import SILENT_S, Loss, Losses
from obs.monitor.view import ProviderView

T0 = 1_795_300_000 * NS  # wall clock of second 0, whose monotonic time is 100 s


class Watched:
    """Looks at one provider; seconds count from T0 on."""

    def __init__(self) -> None:
        self.losses = Losses()

    def at(self, second: float, **changes: Any) -> list[tuple[str | None, str, float, bool]]:
        one: ProviderView = provider(**changes)
        self.losses.add(replace(host(one), now_ns=T0 + int(second * NS)), int((100 + second) * NS))
        return [(loss.link, loss.reason, (loss.since_ns - T0) / NS, loss.sure) for loss in self.losses.of("kis")]


def link(since_s: float = 0, **changes: Any) -> dict[str, Any]:
    return LINK | {"since_mono_ns": int((100 + since_s) * NS)} | changes


def cut(since_s: float, why: str = "mute", **changes: Any) -> dict[str, Any]:
    return link(since_s, connected=False, last_reason=why, **changes)


def dead(**changes: Any) -> dict[str, Any]:
    return {"roles": provider().roles | {"feed": role("feed", alive=False, **changes)}}


def test_a_silence_is_told_from_its_last_message_to_the_new_subscription() -> None:
    """As in a market that is mute for 100 s: not sure at first, then cut, then connected again and again without an answer."""
    one = Watched()
    assert one.at(0) == []
    assert one.at(SILENT_S, quiet_s=SILENT_S) == []
    assert one.at(11, quiet_s=11.0) == [(None, "mute", 0, False)]
    assert one.at(12, quiet_s=11.9) == [(None, "mute", 0, False)], "of a silence there is one beginning"
    assert one.at(30, quiet_s=30.0, links=[cut(29)]) == [(None, "mute", 0, True)]
    again = link(31, subscribed=0, last_reason="mute")
    assert one.at(31, quiet_s=31.0, links=[again]) == [(None, "mute", 0, True)], "who is connected without an answer has not recovered"
    assert one.at(62, quiet_s=62.0, links=[cut(61, "eof")]) == [(None, "ws_disconnect", 0, True)], "as its gap line would now say"
    assert one.at(90, quiet_s=0.5, links=[again | {"subscribed": 1}]) == []
    assert one.at(100, links=[cut(99.5, "reset")]) == [(None, "ws_disconnect", 99.5, True)], "another loss, with its own beginning"


def test_reasons_are_those_of_gaps() -> None:
    for why, reason in {"mute": "mute", "pong_timeout": "mute", "auth": "refused", "in_use": "refused", "tls": "ws_disconnect"}.items():
        assert Watched().at(5, links=[cut(4, why)])[0][1] == reason


def test_what_is_no_loss() -> None:
    first = link(connected=False, connection_no=0, last_reason="")
    assert Watched().at(1, links=[first]) == [], "it connects for the first time"
    assert Watched().at(1, links=[cut(0, "market_closed")]) == []
    assert Watched().at(50, links=[cut(0, closed_market=True)]) == []
    assert Watched().at(50, links=[cut(0, waiting=True)]) == []
    assert Watched().at(50, open_now=False, regular_now=False, quiet_s=50.0) == []
    assert Watched().at(50, regular_now=False, quiet_s=50.0) == [], "quiet outside regular hours says nothing"
    assert Watched().at(50, links=[link(connected=False)], quiet_s=50.0) == []
    stopping = {"roles": provider().roles | {"feed": role("feed", counters={"stopping": 1})}}
    one = Watched()
    assert one.at(49, links=[cut(40)]) != []
    assert one.at(50, links=[cut(40)], **stopping) == [], "an ordered stop"
    assert Watched().at(50, **dead(counters={"stopping": 1})) == []
    assert Watched().at(50, **dead(pid=0)) == [], "it has never run"
    assert one.losses.of("another") == []


def test_a_closed_market_ends_a_loss_and_another_begins_with_its_opening() -> None:
    one = Watched()
    assert one.at(10, links=[cut(5)]) == [(None, "mute", 5, True)]
    assert one.at(20, links=[cut(5, closed_market=True)]) == []
    assert one.at(30, links=[cut(5, "dns", attempt=1)]) == [(None, "ws_disconnect", 20, True)]


def test_a_restart_is_a_loss_until_its_first_record_whoever_saw_it_begin() -> None:
    """As after the death of everything, in a quiet market: the new monitor has seen nothing, the feed says since when."""
    one, owed = Watched(), {"restart_ns": T0 - 15 * NS}
    assert one.at(0, links=[link(connected=False, connection_no=0, **owed)]) == [(None, "restart", -15, True)]
    assert one.at(1, links=[link(**owed), link(**owed)]) == [(None, "restart", -15, True)], "subscribed, and no record yet"
    assert one.at(2, links=[cut(1, "mute", **owed)]) == [(None, "restart", -15, True)]
    assert one.at(3, open_now=False, links=[link(**owed)]) == []
    assert one.at(4, links=[link(restart_ns=None)]) == []


def test_a_dead_feed_loses_until_the_next_one_has_subscribed() -> None:
    one = Watched()
    assert one.at(0, quiet_s=0.5) == []
    assert one.at(3, **dead(beat_age_s=2.0)) == [(None, "restart", -0.5, True)]
    young = {"roles": provider().roles | {"feed": role("feed", pid=43)}}
    assert one.at(5, links=[link(pid=42)], **young) == [(None, "restart", -0.5, True)], "the board still has the words of the dead one"
    assert one.at(6, links=[link(pid=43, connected=False, connection_no=0)], **young) == [(None, "restart", -0.5, True)]
    assert one.at(7, links=[link(7, pid=43, subscribed=41)], **young) == []
    assert Watched().at(9, **dead(beat_age_s=2.0)) == [(None, "restart", 7, True)], "its last sign of life"


def test_one_connection_of_several_is_named() -> None:
    one = Watched()
    two = [link(name="A"), cut(4, name="B")]
    assert one.at(5, links=two) == [("B", "mute", 4, True)]
    assert one.at(6, links=[link(name="A"), link(6, name="B", subscribed=3)]) == []
    both = [cut(8, name="B"), cut(7, "dns", name="A")]
    assert one.at(9, links=both, quiet_s=1.0) == [("A", "ws_disconnect", 7, True), ("B", "mute", 8, True)]
    assert one.at(10, links=[link(name="A"), cut(0, name="B", waiting=True)]) == []
    assert one.at(11, links=[cut(10.5, name="A"), cut(0, name="B", waiting=True)]) == [(None, "mute", 10.5, True)], "B has no symbol"


def test_as_json() -> None:
    assert Loss(None, "mute", T0 + 1_500_000).to_json() == {
        "link": None, "reason": "mute", "since": "2026-11-21T22:26:40.001Z", "since_ms": T0 // 1_000_000 + 1, "sure": True,
    }  # fmt: skip


def test_a_provider_that_has_gone_is_forgotten() -> None:
    one = Watched()
    one.at(5, links=[cut(4)])
    one.losses.add(host(), 200 * NS)
    assert one.losses.of("kis") == []
    assert one.at(300) == []
