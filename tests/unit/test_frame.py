"""The frames of `obs top`: whatever is seen and however large the terminal is, they fit it and the worst stands first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from views import LINK, NOW_NS, provider, ring, role, status

from obs.cli.frame import MIN_COLUMNS, MIN_ROWS, STYLES, Look, Price, Row, bar, cut, frame, spark
from obs.cli.terminal import width
from obs.cli.top import _painted as painted

SYMBOLS = [f"{number:06d}" for number in range(5930, 5930 + 41)]
REFUSED = provider(links=[LINK | {"connected": False, "last_reason": "refused", "attempt": 3}])
RINGS = ("event", "swing", "poll_event", "quarantine")
SIZES = [(40, 10), (60, 15), (80, 24), (100, 30), (120, 40), (250, 80)]


def slots(name: str, **changes: Any) -> dict[str, Any]:
    rows = [
        {"slot": place, "symbol": symbol, "name": "삼성전자" if place == 1 else "", "since": None, "since_ns": None, "how": "listed",
         "score": None, "trigger": None, "standing": "confirmed"}
        for place, symbol in enumerate(SYMBOLS, 1)
    ]  # fmt: skip
    rows[2] |= {"trigger": "volume_surge"}
    rows[3] |= {"standing": "refused"}
    rows[4] |= {"standing": "pending"}
    return {"provider": name, "market": "kr_stocks", "slots": rows, "pinned": [SYMBOLS[5]], "excluded": []} | changes


def look(*providers: Any, **changes: Any) -> Look:
    seen = status(*(providers or (provider(), provider("upbit"))))
    prices = {symbol: Price(NOW_NS // 10**6 - 500, 72_300.0, "normal", 1, (1.0, 2.0, 3.0)) for symbol in SYMBOLS[:40]}
    prices[SYMBOLS[6]] = Price(NOW_NS // 10**6 - 300_000, 152_345_000.0, "degraded")
    prices[SYMBOLS[7]] = Price(NOW_NS // 10**6 - 2_000_000, 0.00123, "gap", -1)
    names = [one["name"] for one in seen["providers"]]
    made = Look(NOW_NS, seen, {name: slots(name) for name in names}, dict.fromkeys(names, prices), {42: 0.031})
    return replace(made, **changes)


def text(rows: list[Row]) -> list[str]:
    return ["".join(piece for piece, _ in row) for row in rows]


LOOKS = {
    "green": look(),
    "red": look(REFUSED, provider("upbit")),
    "everything red": look(*(replace(REFUSED, name=name, broken=["messages=7, expected 8"] * 3) for name in ("kis", "upbit"))),
    "nothing runs": look(status=status(provider()) | {"running": False}),
    "no provider": look(status=status() | {"running": True}),
    "no slots yet": look(slots={}, prices={}),
    "first look": look(cpu={}, prices={}),
    "a ring is full": look(provider(rings=[ring("tick", archived=0, archive_lag_s=99.0), ring("event")])),
    "nine providers": look(*(provider(f"number{place}") for place in range(12))),
}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", LOOKS)
def test_a_frame_fits_the_terminal(name: str, size: tuple[int, int]) -> None:
    for chosen, paused in ((0, False), (1, True), (11, False)):
        rows = frame(LOOKS[name], *size, chosen=chosen, paused=paused)
        assert len(rows) == size[1]
        assert max(map(width, text(rows))) <= size[0]
        assert {style for row in rows for _, style in row} <= set(STYLES)
        assert text(rows)[-1].startswith(" q quit  p ")


def test_a_terminal_that_is_too_small_gets_the_least_frame() -> None:
    assert text(frame(look(), 3, 2)) == text(frame(look(), MIN_COLUMNS, MIN_ROWS))


def test_all_slots_of_the_chosen_provider_are_shown_where_there_is_room() -> None:
    shown = "\n".join(text(frame(look(), 120, 40, chosen=1)))
    assert "slots of upbit" in shown
    assert all(symbol in shown for symbol in SYMBOLS)
    assert "do not fit" not in shown
    small = text(frame(look(), 80, 24))
    fit = sum(symbol in "\n".join(small) for symbol in SYMBOLS)
    assert 20 < fit < 41
    assert f"; {41 - fit} more do not fit here" in "\n".join(small)


def test_more_room_shows_more_of_each_slot() -> None:
    assert "삼성전자" in "\n".join(text(frame(look(), 160, 60)))
    middle = "\n".join(text(frame(look(), 150, 28)))
    assert "▁▅█" in middle
    assert "삼성전자" not in middle
    assert "▁▅█" not in "\n".join(text(frame(look(), 80, 24)))


def test_a_slot_tells_its_state() -> None:
    styles = {piece.strip(): style for row in frame(look(), 200, 60) for piece, style in row if piece.strip()}
    assert styles[SYMBOLS[0]] == ""
    assert (styles[SYMBOLS[3]], styles[SYMBOLS[4]]) == ("wrong", "warning")
    assert styles["volume"] == styles["pin"] == "bold"
    assert styles["152,345,000"] == "warning"
    assert styles["0.00123▾"] == "wrong"
    assert (styles["0.5"], styles["300"], styles["33m"]) == ("faint", "warning", "warning")  # an old price is no good price
    assert styles["confirmed"] == "faint"  # no record yet


def test_the_verdict_and_what_to_do_stand_first() -> None:
    rows = frame(LOOKS["red"], 80, 24)
    assert rows[0][0][0].startswith(" obs  RED ")
    assert rows[0][0][1] == "title wrong"
    assert text(rows)[1] == "kis not_connected: KIS: refused, attempt 3"
    assert text(rows)[2].startswith("    do: it reconnects by itself")
    many = text(frame(LOOKS["everything red"], 80, 24))
    assert "… 5 reasons more: obs status" in many
    assert text(frame(LOOKS["nothing runs"], 80, 24))[:2][0].startswith(" obs  DOWN")
    assert frame(LOOKS["green"], 120, 24)[0][0][0].startswith(" obs  GREEN  kis records 41 symbols")


def joined(rows: list[Row]) -> str:
    """What a person reads, without the ends of lines."""
    return " ".join(" ".join(text(rows)).split())


def test_nothing_that_matters_is_cut_on_a_small_terminal() -> None:
    """Reasons, what to do, counts of what was not recorded, the level, rings and slots in trouble; at 80 x 24."""
    loud = f"sess_20260122_003000_kis_0a1b {'x' * 30}"
    seen = provider(
        level=2, broken=[f"ring=tick session={loud} archived=12345, more than published=12344"],
        rings=[ring("tick", published=12_345_678, archived=12_345_000, loaded=12_000_000), *(ring(name) for name in RINGS)],
        links=[LINK | {"connected": False, "last_reason": "OPSP8996 another session holds this appkey, and it is not ours", "attempt": 3}],
        roles={"feed": role("feed", counters={"messages": 98_765_432, "inputs": 98_765_432, "quarantined": 1_234_567})},
    )  # fmt: skip
    small = frame(look(seen), 80, 24)
    for words in (
        "another session holds this appkey, and it is not ours, attempt 3", "RUNBOOK.md#not_connected)", "1,234,567 quarantined",
        "98,765,432 messages → 98,765,432 inputs → 12,345,678 records → archived (678 wait) → loaded (345,678 wait)",
        "archived=12345, more than published=12344",
    ):  # fmt: skip
        assert words in joined(small), "\n".join(text(small))
    head, row = next((one, two) for one, two in zip(text(small), text(small)[1:], strict=False) if one.startswith("#  provider"))
    assert (head.split()[-1], row.split()[-1]) == ("level", "2")
    rings = joined(frame(look(provider(rings=[ring(name) for name in ("tick", *RINGS)])), 80, 24))
    assert all(f"{name} 0.0%" in rings for name in ("tick", *RINGS))
    down = frame(LOOKS["nothing runs"], 80, 24)
    assert "ops/run for the demo" in joined(down)
    yellow = joined(frame(look(provider(slots={}), provider("upbit")), 80, 24))
    assert "kis: 0 of 41 confirmed" in yellow
    assert "see which with `obs slots`" in yellow


def test_slots_in_trouble_are_among_those_that_fit() -> None:
    """The last of all is refused, the one before has no record yet, and one is old."""
    one = slots("kis")
    for row in one["slots"]:
        row["standing"] = "confirmed"
    one["slots"][40]["standing"] = "refused"
    prices = {symbol: Price(NOW_NS // 10**6 - 500, 72_300.0, "normal") for symbol in SYMBOLS}
    prices[SYMBOLS[39]] = Price(NOW_NS // 10**6 - 90_000, 72_300.0, "normal")
    del prices[SYMBOLS[38]]
    small = joined(frame(look(provider(), slots={"kis": one}, prices={"kis": prices}), 80, 24))
    assert "more do not fit here, all well" in small
    assert all(symbol in small for symbol in SYMBOLS[38:])
    at = [small.index(symbol) for symbol in (SYMBOLS[38], SYMBOLS[39], SYMBOLS[40], SYMBOLS[0], SYMBOLS[1])]
    assert at == sorted(at)
    for row in one["slots"]:
        row["standing"] = "refused"
    tiny = text(frame(look(provider(), slots={"kis": one}, prices={"kis": prices}), 80, 14))
    fit = sum(symbol in "\n".join(tiny) for symbol in SYMBOLS)
    assert f"; {41 - fit} more do not fit here, {41 - fit} of them not well: obs slots" in "\n".join(tiny)


def test_green_without_confirmed_slots_is_a_warning() -> None:
    title = frame(look(provider(slots={})), 160, 24)[0][0]
    assert title[0].startswith(" obs  YELLOW  kis: 0 of 41 confirmed;")
    assert title[1] == "title warning"


def test_nothing_from_files_steers_the_terminal() -> None:
    evil = "\x1b[2J\u202e"
    seen = provider("k\x07", links=[LINK | {"connected": False, "last_reason": evil}], broken=[evil])
    one = slots("k\x07")
    one["slots"][0] |= {"symbol": evil, "name": evil, "trigger": evil, "standing": evil}
    for size in SIZES:
        for rows in (frame(look(seen, slots={"k\x07": one}), *size), frame(look(seen, slots={"k\x07": one}, prices={}), *size)):
            assert not [piece for piece in text(rows) if not piece.isprintable()]
            assert max(map(width, text(rows))) <= size[0]
            assert r"k\x07" in "".join(text(rows))


def test_paused_says_so_and_how_to_go_on() -> None:
    rows = text(frame(look(), 80, 24, paused=True))
    assert "PAUSED" in rows[0]
    assert "p go on" in rows[-1]


def test_one_frame_without_a_terminal_is_as_long_as_it_gets() -> None:
    rows = text(frame(look(), 80, 10_000, keys=False))
    assert 20 < len(rows) < 60
    assert all(any(symbol in row for row in rows) for symbol in SYMBOLS)
    assert "q quit" not in rows[-1]


def test_every_style_can_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one frame on a terminal without a keyboard, which rich does not draw."""
    monkeypatch.setattr("obs.cli.terminal.is_terminal", lambda *_: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    for style in STYLES:
        assert painted("x", style).replace("\x1b[0m", "").endswith("x")
        assert (painted("x", style) != "x") == bool(style)


def test_what_only_lags_is_told_and_what_has_no_fate_is_red() -> None:
    seen = provider(rings=[ring("tick", published=1000, archived=990, loaded=900)], broken=["messages=7, expected 8"])
    (row,) = [row for row in frame(look(seen), 200, 24) if row[:1] == [("kis  ", "bold")]]
    assert [piece for piece, _ in row][2:7] == [" → 1,000 records", " → archived", " (10 wait)", " → loaded", " (100 wait)"]
    assert [("LEDGER of kis: messages=7, expected 8", "wrong")] in frame(look(seen), 200, 24)
    full = next(row for row in frame(LOOKS["a ring is full"], 80, 24) if row and row[0][0].startswith("rings"))
    assert full[2][1] == "good"  # 100 of 1024 records wait: not yet


@pytest.mark.parametrize(
    ("share", "shown"),
    [(-1.0, "░░░░░░░░"), (0.0, "░░░░░░░░"), (0.01, "▏░░░░░░░"), (0.5, "████░░░░"), (0.999, "████████"), (1.0, "████████"), (7, "████████")],
)
def test_bars(share: float, shown: str) -> None:
    assert text([bar(share, "good")]) == [shown]


@pytest.mark.parametrize(
    ("line", "shown"), [((), ""), ((5.0,), "▄"), ((5.0, 5.0), "▄▄"), ((1.0, 2.0, 3.0), "▁▅█"), (tuple(range(9)), "▁▂▃▄▅▆▇█")]
)
def test_lines_of_prices(line: tuple[float, ...], shown: str) -> None:
    assert spark(line, 8) == shown


def test_a_wide_letter_is_not_cut_in_half() -> None:
    assert cut([("삼성전자", "bold"), ("x", "")], 5) == [("삼성", "bold"), ("x", "")]
    assert cut([("삼성", ""), ("전자", "")], 5) == [("삼성", "")]
