"""App keys, approval keys, tokens: one holder of a key, one spaced refresh, and never a loop that gets the key blocked."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
from checker import Verdict
from fake_clock import FakeClock
from harness import LONG, Demo, World, health, steady_for, until

from obs.clock import NS
from obs.providers.kis.protocol import APPROVAL_SPACING_S, IN_USE_BACKOFF_S, TOKEN_SPACING_S
from obs.wire.backoff import BACKOFF_S, JITTER

Make = Callable[..., Demo]
pytestmark = pytest.mark.timeout(600 if LONG else 300)

KIS = {"kis": ["--zombie-s", "0"]}
TOKEN, APPROVAL = "/oauth2/tokenP", "/oauth2/Approval"
BACK_S = 90.0
SETTLED = 41
ATTEMPTS = 5 if LONG else 2  # that a second collector makes before the first one stops


def subscribed(one: Demo, times: int = 1) -> None:
    until(f"everything is confirmed {times} times", lambda: len(one.logged("subscribed")) >= times, BACK_S)


def asked(one: Demo, path: str) -> list[float]:
    """Return when the venue was asked for a token or a key, in seconds, whatever it answered."""
    venue = one.venues["kis"]
    lines = venue.done("issue") + venue.done("issue too early")
    return sorted(line["t_ns"] / NS for line in lines if line["path"] == path)


def replies(one: Demo, code: str) -> list[dict[str, Any]]:
    return [line for line in one.venues["kis"].done("reply") if line["code"] == code]


def failures(verdict: Verdict) -> list[dict[str, Any]]:
    return [event for event in verdict.events if event["event_type"] == "reconnection_event" and event["result"] == "FAIL"]


def restored(verdict: Verdict) -> None:
    events = [event for event in verdict.events if event["event_type"] == "reconnection_event" and event["result"] == "SUCCESS"]
    assert [len(event["recovered_slot_list"]) for event in events] == [SETTLED]


def part_the_log(first: Demo, second: Demo, until_ns: int) -> None:
    """Give each collector its own part of the shared exchange's log: the second one's is all after `until_ns`."""
    log = first.venues["kis"].log
    lines = [(orjson.loads(line), line) for line in log.read_bytes().splitlines()]
    parts: dict[Path, list[bytes]] = {log: [], second.data / "sim" / "kis.jsonl": []}
    holder = next(value["conn"] for value, _ in lines if value.get("kind") == "trade")
    for value, line in lines:
        parts[log if value["conn"] == holder else second.data / "sim" / "kis.jsonl"].append(line)
        if value.get("kind") == "trade":
            assert (value["conn"] == holder) == (value["t_ns"] <= until_ns), "two held the key at once"
    for path, own in parts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(line + b"\n" for line in own))


def test_a_place_still_taken_after_other_failures(demo: Make, dsn: str) -> None:
    """After a cut path the venue holds the place of the dead connection for a while: the wait for that begins with its own first step."""
    one = demo(dsn=dsn, venues=KIS)
    one.start()
    subscribed(one)
    venue = one.venues["kis"]
    venue.do("refuse", status=503, s=4.0)
    venue.do("take_appkey", s=20.0)
    venue.do("drop")
    one.count("app key in use")
    subscribed(one, 2)
    one.more("kis", 500)
    verdict = one.finish()["kis"]
    told = failures(verdict)
    before = [event["reason"] for event in told].index("in_use")
    assert before >= 2, "only what comes after several failures shows it"
    assert {event["reason"] for event in told[before:]} == {"in_use"}
    for again, event in enumerate(told[before:]):
        own_s = BACKOFF_S[min(before + again, len(BACKOFF_S) - 1)]
        assert IN_USE_BACKOFF_S[again] <= event["backoff_seconds"] <= max(IN_USE_BACKOFF_S[again] * 1.25, own_s), told
    restored(verdict)


def test_two_collectors_with_one_app_key(demo: Make, dsn: str, second_dsn: str) -> None:
    """One holds it and notices nothing; the other says why it waits, ever longer, and takes over when the first one stops."""
    first = demo(dsn=dsn, venues=KIS)
    first.start()
    subscribed(first)
    second = demo(dsn=second_dsn, venues=dict(first.venues))
    second.start(records=False)
    second.count("app key in use")
    until("the second one has been refused", lambda: len(second.logged("disconnected")) >= ATTEMPTS, 300.0)

    def says_why() -> bool:
        return any(one["reason"] == "not_connected" and "in_use" in one["text"] for one in health(second)["details"])

    until("health says why", says_why)
    assert {(line["kind"], line["code"]) for line in second.logged("venue_says")} == {("in_use", "OPSP8996")}
    assert second.published("kis") == 0
    assert first.counter("feed", "kis", "reconnects") == 0
    first.more("kis", 500)
    first.caught_up()
    first.stop()
    stopped_ns = max(line["t_ns"] for line in first.venues["kis"].done("end") if line["inputs"])
    subscribed(second)
    second.more("kis", 500)
    second.caught_up()
    second.stop()
    second.figures["attempts"] = len(second.logged("disconnected"))
    part_the_log(first, second, stopped_ns)
    one = first.judge()["kis"]
    assert not one.gaps, one.gaps
    assert one.sent == one.archived + one.unread_at_stop
    other = second.judge()["kis"]
    assert other.gaps == {"refused/None": 1}, other.gaps
    assert other.sent == other.archived + other.unread_at_stop
    waits = [event["backoff_seconds"] for event in failures(other)]
    assert {event["reason"] for event in failures(other)} == {"in_use"}
    # By attempts: never sooner than the venue's list says, up to a quarter later.
    for attempt, wait_s in enumerate(waits):
        assert IN_USE_BACKOFF_S[attempt] <= wait_s <= IN_USE_BACKOFF_S[attempt] * 1.25, waits
    gap = other.gap_lines[0]
    assert gap["gap_end_ns"] >= stopped_ns
    print("  figures", waits, second.figures)


def test_approval_key_is_refused(demo: Make, dsn: str) -> None:
    """OPSP0011 to every registration for a while: a fresh key for each attempt, ever more seldom, and then everything is back."""
    one = demo(dsn=dsn, venues=KIS)
    one.start()
    subscribed(one)
    venue = one.venues["kis"]
    begun = len(asked(one, APPROVAL))
    venue.do("refuse_approval", s=600.0)
    venue.do("drop")
    one.count("approval key refused")
    until("it was refused twice", lambda: len(one.logged("disconnected")) >= 3, BACK_S)
    venue.do("calm")
    subscribed(one, 2)
    one.more("kis", 500)
    verdict = one.finish()["kis"]
    assert verdict.gaps["refused/None"] == 1, verdict.gaps
    assert set(verdict.gaps) <= {"refused/None", "venue_count/None"}
    restored(verdict)
    told = failures(verdict)
    assert [event["reason"] for event in told[1:]] == ["auth"] * (len(told) - 1)
    assert len(told) >= 3
    times = asked(one, APPROVAL)
    assert len(times) - begun == len(told), "one key for each attempt"
    for event, (before, after) in zip(told, pairwise(times), strict=True):
        assert after - before >= event["backoff_seconds"] >= BACKOFF_S[event["attempt_no"] - 1] * (1 - JITTER)
    assert len(replies(one, "OPSP0011")) <= SETTLED * len(told)


def test_registered_twice(demo: Make, dsn: str) -> None:
    """Answers that never came are asked for again after a while, once: ALREADY IN SUBSCRIBE (OPSP0002) is as good as yes."""
    one = demo(dsn=dsn, venues=KIS)
    venue = one.venues["kis"]
    venue.do("mute", s=600.0)
    one.count("answers lost")
    one.start(records=False)
    until("the venue has taken all registrations", lambda: venue.stats()["subscribed"] == SETTLED, BACK_S)
    venue.do("calm")
    subscribed(one)
    one.more("kis", 500)
    assert one.counter("feed", "kis", "reconnects") == 0
    verdict = one.finish()["kis"]
    assert not verdict.gaps, verdict.gaps
    symbols = [line["symbol"] for line in replies(one, "OPSP0002")]
    assert len(symbols) == len(set(symbols)) == SETTLED, "each was asked for once more, and no oftener"
    assert verdict.sent == verdict.archived + verdict.unread_at_stop


def token(one: Demo) -> dict[str, Any]:
    return orjson.loads((one.data / "state" / "kis.json").read_bytes())["tokens"]["DEMO_KIS"]


def test_token_has_expired(demo: Make, dsn: str) -> None:
    """One that ends soon, or has ended, is replaced once at a start; a good one is kept, also over the end of a host: by its file."""
    one = demo(dsn=dsn, venues={"kis": [*KIS["kis"], "--token-spacing-s", "1"]})
    state = one.data / "state" / "kis.json"
    for start, left_s in enumerate((None, 600, -3600, 80_000), 1):
        if left_s is not None:
            kept = orjson.loads(state.read_bytes())
            kept["tokens"]["DEMO_KIS"]["expires_ns"] = one.venues["kis"].done("issue")[-1]["t_ns"] + left_s * NS
            state.write_bytes(orjson.dumps(kept))
            for board in one.view.glob("*-board"):
                board.unlink()  # memory of a host that has gone; the file is what is left
            one.venues["kis"].do("expire_token")
            one.count("token expired", int(left_s < 80_000))
        one.start(records=False)
        wanted = min(start, 3)
        until(f"a token in start {start}", lambda: len(one.logged("token_refreshed")) >= wanted, BACK_S)  # noqa: B023
        one.more("kis", 200)
        one.caught_up()
        one.stop()
        assert len(asked(one, TOKEN)) == wanted, f"start {start}: asked for {len(asked(one, TOKEN))} tokens"
    values = {line["expires_ns"] for line in one.logged("token_refreshed")}
    assert len(values) == 3
    assert token(one)["value"] not in one.log()
    assert one.judge()["kis"].sessions == 4


def test_asked_too_often(demo: Make, dsn: str, tmp_path: Path) -> None:
    """EGW00133 to token and approval key: each is asked for again after the spacing of its own, once, also when the clock has
    been put back by an hour meanwhile.
    """
    clock = FakeClock(tmp_path)
    clock.step_to(3600.0)
    one = demo(dsn=dsn, venues=KIS, world=World(environ=clock.environ))
    venue = one.venues["kis"]
    venue.do("rate_limit", s=600.0)
    one.count("asked too often")
    one.start(records=False)
    until("token and key have been refused", lambda: one.logged("token_failed") and one.logged("connect_failed"), BACK_S)
    venue.do("calm")
    clock.step_to(0.0)
    until("a token", lambda: one.logged("token_refreshed"), BACK_S)
    subscribed(one)
    steady_for("no further token", 3.0, lambda: len(asked(one, TOKEN)) == 2)
    one.more("kis", 500)
    verdict = one.finish()["kis"]
    assert verdict.gaps == {"ws_disconnect/None": 1}, verdict.gaps
    first, second = asked(one, TOKEN)
    one.figures["token_again_s"] = round(second - first, 1)
    assert TOKEN_SPACING_S <= second - first <= TOKEN_SPACING_S + 30
    keys = asked(one, APPROVAL)
    assert 2 <= len(keys) <= 4
    assert all(after - before >= APPROVAL_SPACING_S for before, after in pairwise(keys))
    print("  figures", one.figures)
