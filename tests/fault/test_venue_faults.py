"""What a venue may do: unreadable messages, every kind of end, refused handshakes, one registration too many."""

from __future__ import annotations

import base64
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from checker import Verdict
from harness import LONG, PROVIDERS, Demo, health, steady_for, until

from obs.clock import NS
from obs.config.demo import KIS_SYMBOLS
from obs.providers.kis.protocol import MUTE_S as KIS_MUTE_S
from obs.providers.upbit.protocol import MUTE_S as UPBIT_MUTE_S
from obs.sim.malform import SPOILED
from obs.sim.script import VARIANTS

Make = Callable[..., Demo]
pytestmark = pytest.mark.timeout(600 if LONG else 300)

CUTTING = ("framing",)  # after these bytes no client can know where the next frame begins
VENUES = {"kis": ["--zombie-s", "0"], "upbit": []}  # no ghost of a broken connection holds the app key
TIMES = {"huge": 1}  # 10 MB each: more at once, and the exchange cuts us for not reading
BACK_S = 90.0
SETTLED = 41


def subscribed(one: Demo, provider: str) -> int:
    return sum(line["provider"] == provider for line in one.logged("subscribed"))


def all_subscribed(one: Demo, times: int = 1) -> None:
    for provider in PROVIDERS:
        until(f"{provider} has confirmed everything {times} times", lambda: subscribed(one, provider) >= times, BACK_S)  # noqa: B023


def sent_malformed(one: Demo, provider: str) -> int:
    return (one.data / "sim" / f"{provider}.jsonl").read_bytes().count(b'"kind":"malformed"')


def test_unreadable_messages(demo: Make, dsn: str) -> None:
    """Each kind, one after the other: quarantined with its bytes, its neighbours kept, the connection kept."""
    one = demo(dsn=dsn, venues=VENUES)
    one.start()
    all_subscribed(one)
    variants = [variant for variant in VARIANTS if variant not in CUTTING]
    for variant in variants:
        for provider in PROVIDERS:
            before = sent_malformed(one, provider)
            one.venues[provider].do("malformed", variant=variant, n=TIMES.get(variant, 3))
            until(f"{variant} was sent", lambda: sent_malformed(one, provider) >= before + TIMES.get(variant, 3))  # noqa: B023
    for provider in PROVIDERS:
        one.more(provider, 500)
        assert one.counter("feed", provider, "reconnects") == 0
    verdicts = one.finish()
    for verdict in verdicts.values():
        # What an unreadable trade was, the venue's own count tells afterwards.
        assert set(verdict.gaps) <= {"venue_count/None"}, verdict.gaps
        assert verdict.unreceived == 0
        sent = Counter(line["variant"] for line in verdict.malformed)
        assert sent == {variant: TIMES.get(variant, 3) for variant in variants}, sent
        assert_set_aside(verdict)


def assert_set_aside(verdict: Verdict) -> None:
    """Every unreadable message or span that was sent lies in quarantine, with its bytes up to 64 KiB and its full length."""
    whole = [line for line in verdict.malformed if line.get("whole")]
    lengths = Counter(line["length"] for line in verdict.quarantine)
    for line in whole:
        assert lengths[line["bytes"]] > 0, f"not in quarantine: {line}"
        lengths[line["bytes"]] -= 1
    spoiled = [line for line in verdict.malformed if line["variant"] in SPOILED]
    assert len(verdict.quarantine) == len(whole) + len(spoiled)
    for line in verdict.quarantine:
        kept = base64.b64decode(line["data"])
        assert len(kept) == min(line["length"], 65536)
        assert line["reason"]


def test_broken_framing(demo: Make, dsn: str) -> None:
    """The bytes are kept, the connection is closed and made anew; once per time, and no loop."""
    one = demo(dsn=dsn, venues=VENUES)
    one.start()
    all_subscribed(one)
    for provider in PROVIDERS:
        one.venues[provider].do("malformed", variant="framing", n=1)
    all_subscribed(one, 2)
    for provider in PROVIDERS:
        one.more(provider, 500)
        assert one.counter("feed", provider, "reconnects") <= 2  # KIS may say once that its key is still in use
    for verdict in one.finish().values():
        assert verdict.gaps["ws_disconnect/None"] + verdict.gaps["refused/None"] == 1, verdict.gaps
        assert len(verdict.quarantine) == 1, verdict.quarantine
        assert b"junk" in base64.b64decode(verdict.quarantine[0]["data"])


def test_poison_at_each_connect(demo: Make, dsn: str) -> None:
    """A message that no client can stand, after each subscription: the backoff grows, the budget holds, nothing loops."""
    one = demo(dsn=dsn, venues=VENUES)
    for venue in one.venues.values():
        venue.do("poison", variant="framing", s=8.0)
    one.start(records=False)
    for provider in PROVIDERS:
        until(f"{provider} was poisoned", lambda: one.counter("feed", provider, "reconnects") >= 2, BACK_S)  # noqa: B023
    all_subscribed(one)
    for provider in PROVIDERS:
        assert one.counter("feed", provider, "reconnects") <= 6
        one.more(provider, 200)
    for verdict in one.finish().values():
        assert verdict.quarantine


ENDS: dict[str, dict[str, Any]] = {
    "close-1000": {"do": "close", "code": 1000},
    "close-1001": {"do": "close", "code": 1001},
    "close-1006": {"do": "close", "code": 1006},
    "close-1011": {"do": "close", "code": 1011},
    "reset-in-frame": {"do": "rst"},
    "drop": {"do": "drop"},
}


@pytest.mark.parametrize("ends", [list(ENDS)] if LONG else [list(ENDS)[at : at + 2] for at in (0, 2, 4)], ids="-".join)
def test_every_end_reconnects(demo: Make, dsn: str, ends: list[str]) -> None:
    """Each kind of end: a gap row, everything restored."""
    one = demo(dsn=dsn, venues=VENUES)
    one.start()
    all_subscribed(one)
    for times, end in enumerate(ends, 2):
        parameters = dict(ENDS[end])
        what = parameters.pop("do")
        for venue in one.venues.values():
            venue.do(what, **parameters)
        all_subscribed(one, times)
    for provider in PROVIDERS:
        one.more(provider, 200)
    for verdict in one.finish().values():
        assert_restored(verdict, len(ends))


def assert_restored(verdict: Verdict, times: int) -> None:
    """One gap row for each time, and every subscription confirmed again."""
    assert verdict.gaps["ws_disconnect/None"] + verdict.gaps["refused/None"] == times, verdict.gaps
    restored = [event for event in verdict.events if event["event_type"] == "reconnection_event" and event["result"] == "SUCCESS"]
    assert [len(event["recovered_slot_list"]) for event in restored] == [SETTLED] * times


def test_refused_handshake(demo: Make, dsn: str) -> None:
    """A venue that cuts us and then answers 503 for a while: one gap row over all of it."""
    one = demo(dsn=dsn, venues=VENUES)
    one.start()
    all_subscribed(one)
    for venue in one.venues.values():
        venue.do("refuse", status=503, s=4.0)  # longer than noticing the cut and the first backoff take together
        venue.do("drop")
    all_subscribed(one, 2)
    for verdict in one.finish().values():
        assert any(line["do"] == "refused" for line in verdict.done), "no handshake met the 503"
        assert_restored(verdict, 1)


def test_one_registration_too_many(demo: Make, dsn: str) -> None:
    """The venue takes 40, we ask for 41: an event and a gap row for the one symbol, the others go on, no loop."""
    one = demo(dsn=dsn, venues={"kis": ["--slots", "40"], "upbit": []})
    one.start()
    all_subscribed(one)
    one.more("kis", 1000)
    assert one.counter("feed", "kis", "reconnects") == 0
    verdict = one.finish()["kis"]
    refused = [gap for gap in verdict.gap_lines if gap["reason"] == "refused"]
    assert len(refused) == 1
    assert refused[0]["symbol"]
    assert [event["what"] for event in verdict.events if event["event_type"] == "slot"] == ["limit"]
    asked = [line for line in verdict.done if line["do"] == "reply" and line["code"] == "OPSP0008"]
    assert len(asked) == 1, "asked again and again"


def test_quiet_is_no_fault(demo: Make, dsn: str) -> None:
    """One symbol that nobody trades while others flow (KIS), and a lunch lull of the whole market (Upbit: a message in five seconds),
    for longer than the silence that ends a connection there: no gap, no reconnect, no alarm.

    Long form: also KIS with all trading halted for longer than its own limit, so that its pings alone are heard.
    """
    one = demo(dsn=dsn, venues=VENUES)
    one.start()
    all_subscribed(one)
    for provider in PROVIDERS:
        one.more(provider, 1000)  # a pace to compare with
    until("health is green", lambda: health(one)["ok"])
    one.venues["kis"].do("quiet_symbol", symbol=KIS_SYMBOLS[0], s=600.0)
    one.venues["upbit"].do("burst", x=0.2 / (one.rate / 2), s=600.0)

    def calm() -> bool:
        said = health(one)
        assert not {"mute", "not_connected", "ledger"} & set(said["reasons"]), said
        return not any(one.counter("feed", provider, "reconnects") for provider in PROVIDERS)

    seen, since = one.published("upbit"), time.monotonic()

    def slowed() -> bool:
        """What was on its way when the lull began has come: on a busy machine that takes a while."""
        nonlocal seen, since
        if (now := one.published("upbit")) != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > 2.0

    until("the lull has begun", slowed)
    before = {provider: one.published(provider) for provider in PROVIDERS}
    steady_for("quiet, and connected", UPBIT_MUTE_S + 5, calm)
    assert one.published("kis") - before["kis"] > UPBIT_MUTE_S * one.rate / 4, "the other symbols flow"
    assert 2 <= one.published("upbit") - before["upbit"] <= 20
    if LONG:
        one.venues["kis"].do("burst", x=1e-9, s=600.0)
        steady_for("halted, and connected", KIS_MUTE_S + 10, calm)
    for provider in PROVIDERS:
        one.venues[provider].do("calm")
        one.more(provider, 500)
    for verdict in one.finish().values():
        assert not verdict.gaps, verdict.gaps
        assert verdict.sent == verdict.archived + verdict.unread_at_stop == verdict.database + verdict.unread_at_stop
        warnings = [event for event in verdict.events if event["event_type"] in ("warning", "reconnection_event")]
        assert not warnings, warnings


def test_silent_venue(demo: Make, dsn: str) -> None:
    """Mute for a while, yet answering pings: shorter than any limit, so nothing is reconnected; what KIS counts is told."""
    one = demo(dsn=dsn, venues=VENUES)
    one.start()
    all_subscribed(one)
    one.more("kis", 2000)  # each symbol has traded: from there on its count is known
    for venue in one.venues.values():
        venue.do("mute", s=2.0)
    for provider in PROVIDERS:
        before = one.published(provider)
        until("it speaks again", lambda: one.published(provider) > before + 1500)  # noqa: B023
        assert one.counter("feed", provider, "reconnects") == 0
    for verdict in one.finish().values():
        assert verdict.sent == verdict.archived == verdict.database
        # KIS counts what it did not send: that is a loss, told per symbol, and no other gap explains it.
        assert verdict.gaps == ({"venue_count/None": SETTLED} if verdict.provider == "kis" else {})
        assert len(verdict.unexplained) == verdict.gaps["venue_count/None"]


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_ended_in_a_silence(demo: Make, dsn: str, how: str) -> None:
    """Whoever is stopped or killed before it can tell whether a venue is mute leaves no part of that silence in no gap."""
    one = demo(dsn=dsn, venues=VENUES)
    one.start()
    all_subscribed(one)
    for provider in PROVIDERS:
        one.more(provider, 1000)  # a pace to compare with
    muted_ns = {}
    for provider, venue in one.venues.items():
        venue.do("mute", s=600.0)
        muted_ns[provider] = time.time_ns()
    for provider in PROVIDERS:
        until(f"{provider} is silent", lambda: time.monotonic_ns() - one.counter("feed", provider, "heard_ns") > 8 * NS)  # noqa: B023
    ended_ns = time.time_ns()
    if how == "stopped":
        one.stop()
    for provider in PROVIDERS if how == "killed" else ():
        one.kill("feed", provider)
    for venue in one.venues.values():
        venue.do("calm")
    if how == "stopped":
        one.start()
    for provider in PROVIDERS:
        one.more(provider, 500, BACK_S)
    for provider, verdict in one.finish().items():
        gaps = sorted((gap for gap in verdict.gap_lines if gap["symbol"] is None), key=lambda gap: gap["gap_start_ns"])
        assert [gap["reason"] for gap in gaps] == (["mute", "restart"] if how == "stopped" else ["restart"])
        assert abs(gaps[0]["gap_start_ns"] - muted_ns[provider]) < 2 * NS
        assert all(after["gap_start_ns"] <= before["gap_end_ns"] + NS for before, after in pairwise(gaps))
        assert gaps[-1]["gap_end_ns"] > ended_ns
