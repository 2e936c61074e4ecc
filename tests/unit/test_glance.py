"""`obs status` at one glance: the first line tells how it is, why, and what to do; tables fit the terminal, or are whole in a pipe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from views import LINK, SYMBOLS, host, provider, ring, role, status

from obs.cli.glance import ADVICE, BEGINNING, LOSING, START, WAIT, lines, span, verdict
from obs.cli.terminal import fitted, plain, table, width
from obs.config.options import SupervisorOptions
from obs.monitor.health import REASONS, judge
from obs.monitor.status import status_of

REFUSED = provider(links=[LINK | {"connected": False, "last_reason": "refused", "attempt": 3}])
STARTING = provider(session_age_s=5.0, links=[LINK | {"connected": False, "connection_no": 0}])
SILENT = provider(slots={})
PARTLY = provider("upbit", slots=dict.fromkeys(SYMBOLS[:40], "confirmed") | {SYMBOLS[40]: "pending"})
DOUBT = "; health is green, but not every symbol is confirmed. Do: see which with `obs slots`"
CLOSED = provider(open_now=False, regular_now=False, next_open_ns=1_769_124_600 * 10**9)


def losing(sure: bool, reason: str = "mute") -> dict[str, Any]:
    seen: dict[str, Any] = status(provider())
    seen["providers"][0]["losing"] = [{"link": None, "reason": reason, "since": "2026-01-22T00:29:00.000Z", "sure": sure}]
    return seen


def test_every_reason_has_an_advice() -> None:
    assert set(ADVICE) == set(REASONS)


@pytest.mark.parametrize(
    ("seen", "first", "colour"),
    [
        (status(provider()), "GREEN  kis records 41 symbols; nothing is wrong", "good"),
        (status(SILENT), f"YELLOW  kis: 0 of 41 confirmed{DOUBT}", "warning"),
        (status(provider(), PARTLY), f"YELLOW  kis records 41 symbols; upbit: 40 of 41 confirmed{DOUBT}", "warning"),
        (losing(sure=True), f"YELLOW  kis: loses since 00:29:00 UTC (mute); health is green as yet. {LOSING}", "warning"),
        (losing(True, "restart"), f"YELLOW  kis: loses since 00:29:00 UTC (restart); health is green as yet. {BEGINNING}", "warning"),
        (losing(sure=False), "YELLOW  kis: loses since 00:29:00 UTC (mute), if the market is not quiet; health is green as yet. "
            f"{LOSING}", "warning"),
        (status(replace(CLOSED, slots={})), "GREEN  kis is closed until 2026-01-22 23:30 UTC; nothing is wrong", "good"),
        (status(CLOSED), "GREEN  kis is closed until 2026-01-22 23:30 UTC; nothing is wrong", "good"),
        (status(REFUSED), f"RED  kis not_connected: KIS: refused, attempt 3. Do: {ADVICE['not_connected']} "
            "(ops/RUNBOOK.md#not_connected)", "wrong"),
        (status(STARTING), f"RED  kis not_connected: KIS: connecting, attempt 0. Do: {WAIT}", "warning"),
        (status(provider(), free=1 << 20), "RED  host disk: 1 MiB free, below the floor at which archive writers stop. "
            f"Do: {ADVICE['disk']} (ops/RUNBOOK.md#disk)", "wrong"),
        (status(provider()) | {"running": False}, f"DOWN  nothing runs here. Do: {START}", "wrong"),
    ],
    ids=[
        "green", "none confirmed", "one not confirmed", "losing", "restarted", "perhaps losing", "closed and none confirmed", "closed",
        "red", "starting", "disk", "down",
    ],
)  # fmt: skip
def test_the_first_line_tells_all(seen: dict[str, Any], first: str, colour: str) -> None:
    shown = lines(seen, None)
    assert (shown[0].text, shown[0].colour) == (first, colour)
    assert shown[0] == verdict(seen)
    if not seen["running"]:
        assert len(shown) == 1


def test_an_alarm_comes_before_what_was_ordered() -> None:
    """Nobody is called for a start; the broken ledger behind it must not be overlooked."""
    seen = status(replace(STARTING, broken=["archive says so"]))
    assert [one["reason"] for one in seen["health"]["details"]] == ["not_connected", "ledger"]
    first, *rest = lines(seen, None)
    assert first.text.startswith("RED  kis ledger: ")
    assert " (1 more below). Do: " in first.text
    assert [line.text.split(":")[0] for line in rest[:2]] == ["  kis ledger", "  kis not_connected"]
    assert [line.colour for line in rest[:2]] == ["wrong", "warning"]


def test_a_full_disk_comes_first_for_others_may_follow_from_it() -> None:
    seen = status(REFUSED, free=1 << 20)
    assert [one["reason"] for one in seen["health"]["details"]] == ["disk", "not_connected"]
    assert verdict(seen).text.startswith("RED  host disk: ")


def test_how_long_it_has_been_so_is_told_where_it_is_known() -> None:
    seen = status(REFUSED)
    assert "(for" not in verdict(seen).text
    seen["health"]["details"][0]["since_ms"] = 1_769_041_800_000 - 200_000
    assert verdict(seen).text.startswith("RED  kis not_connected: KIS: refused, attempt 3 (for 3 min). Do: ")


def test_there_is_a_row_for_each_provider_and_process() -> None:
    upbit = replace(provider("upbit", level=1), rings=[ring("tick", archived=40, archive_lag_s=2.5)])
    shown = lines(status(provider(), upbit), None)
    rows = {line.text.split()[0]: line for line in shown if line.text[:1].isalpha()}
    assert rows["provider"].text.split("  ")[0] == "provider"
    figures = "1 of 1 41 0 0 0 0 0 0 2.5 s 0.0 s 1"
    assert rows["upbit"].text.split() == ["upbit", "kr_stocks", "open", *figures.split()]
    assert (rows["kis"].colour, rows["upbit"].colour) == (None, "warning")
    processes = [line.text.split()[:2] for line in shown[[line.text.split()[:1] for line in shown].index(["process"]) + 1 :]]
    roles = [[name, of] for of in ("kis", "upbit") for name in ("archive", "load", "poll", "feed")]
    assert processes == [["supervisor", "kis"], *roles, ["monitor", "services"], [], ["host:", "1"]]


def test_what_is_dead_or_waits_is_marked() -> None:
    roles = provider().roles | {"load": role("load", waiting="database", waiting_s=11.0), "feed": role("feed", alive=False)}
    shown = {line.text.split()[0]: line for line in lines(status(provider(roles=roles)), None) if line.text.strip()}
    assert (shown["load"].colour, "waits for database" in shown["load"].text) == ("warning", True)
    assert (shown["feed"].colour, " dead " in shown["feed"].text) == ("wrong", True)


@pytest.mark.parametrize("room", [30, 40, 60, 80, 100, 200])
@pytest.mark.parametrize("seen", [status(provider(), provider("upbit")), status(REFUSED, free=1 << 20)], ids=["green", "red"])
def test_nothing_is_wider_than_the_terminal(seen: dict[str, Any], room: int) -> None:
    shown = lines(seen, room)
    assert max(width(line.text) for line in shown) <= room, [line.text for line in shown if width(line.text) > room]
    words = " ".join(line.text for line in shown)
    for name in ("kis", "archive", "load", "poll", "feed", "monitor"):
        assert name in words


def test_a_pipe_gets_whole_lines() -> None:
    view = host(REFUSED, free=1 << 20)
    text = [line.text for line in lines(status_of(view, judge(view, SupervisorOptions())), None)]
    assert max(map(len, text)) > 140
    assert not any(line.startswith("    ") for line in text)  # nothing is continued


def test_what_says_0_goes_first_and_what_does_not_stays() -> None:
    """On a terminal of 80 columns: how much was quarantined, and the level, if there is any; else what is always worth a look."""

    def head(**changes: Any) -> list[str]:
        shown = [line.text for line in lines(status(provider(**changes)), 80)]
        return next(text for text in shown if text.startswith("provider")).split()

    assert not {"quarantined", "level", "reconnects"} & set(head())
    assert "level" in head(level=1)
    hurt = head(level=1, gaps=3, roles={"feed": role("feed", counters={"quarantined": 7, "reconnects": 2})})
    assert {"quarantined", "level", "reconnects", "gaps"} <= set(hurt)


def test_a_table_leaves_out_what_is_spared_first() -> None:
    head, rows = ("a", "bbbb", "cc"), [(1, 2, 3)]
    assert fitted(head, rows, (), None, ("bbbb", "cc")) == ["a  bbbb  cc", "1  2     3"]
    assert fitted(head, rows, (), 10, ("bbbb", "cc")) == ["a  cc", "1  3"]
    assert fitted(head, rows, (), 3, ("bbbb", "cc")) == ["a", "1"]
    assert fitted(("name",), [("삼성전자",), (None,)], ("name",), 8, ()) == ["    name", "삼성전자", "       -"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2J\x07b", r"a\x1b[2J\x07b"), ("x\r\ny\t\x00", r"x\r\ny\t\x00"), ("\x7f\x85\x9b1m", r"\x7f\x85\x9b1m"),
        ("ab\u202ecd\u2066\u200f", r"ab\u202ecd\u2066\u200f"), ("\u2028\ud800", r"\u2028\ud800"),
        ("삼성전자 é\xa0\u3000", "삼성전자 é\xa0\u3000"),
    ],
)  # fmt: skip
def test_what_a_terminal_would_obey_is_shown_instead(text: str, shown: str) -> None:
    assert plain(text) == shown
    assert table(("a", "b"), [(text, 1)])[1] == f"{shown}  1"


def test_a_reason_and_a_name_cannot_steer_the_terminal() -> None:
    """Why a venue closed a connection is its own text."""
    seen = provider("k\x1b]0;", links=[LINK | {"connected": False, "last_reason": "\x1b[2J\u202egone", "name": "\x9b"}])
    for room in (None, 60):
        for one in (status(seen), status(seen, free=1 << 20), status(provider("k\x1b]0;", slots={}))):
            assert not [line.text for line in lines(one, room) if not line.text.isprintable()]
            assert r"k\x1b]0;" in "".join(line.text for line in lines(one, room))


def test_durations() -> None:
    spans = {None: "-", 0.4: "0 s", 59.9: "59 s", 60: "1 min", 3599: "59 min", 3600: "1 h 0 min", 90_000: "1 d 1 h"}
    assert {one: span(one) for one in spans} == spans
