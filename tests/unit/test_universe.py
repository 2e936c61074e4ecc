"""The universe of a day: rules, order, doubt, and a file that is written once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from obs.errors import ConfigError
from obs.market import universe as u
from obs.record.instruments import Instrument

NAN = float("nan")
DAY = 20260122


def kr(symbol: str, price: float = 5_000.0, value: float = 1e9, refused: str = "") -> Instrument:
    return Instrument(symbol, f"name of {symbol}", price, value, refused)


LISTED = [
    kr("000001", value=1e9), kr("000002", value=3e9), kr("000003", price=3_999.0), kr("000004", price=4_000.0, value=NAN),
    kr("000005", refused="halted"), kr("000006", price=NAN), kr("000002", value=9e9), kr("000007", refused="halted"),
    kr("000008", value=3e9),
]  # fmt: skip


def test_who_is_watched_in_which_order_and_who_is_not() -> None:
    made = u.build("kr_stocks", DAY, "kis", LISTED, 5)
    assert made.symbols == ["000002", "000008", "000001", "000004"]
    assert made.refused == {"small": 1, "halted": 2, "unknown": 1, "twice": 1}
    assert made.listed == len(made.symbols) + sum(made.refused.values()) == 9


@pytest.mark.parametrize(
    ("market", "instrument", "watched"),
    [
        ("kr_stocks", kr("A", 4_000.0), True), ("kr_stocks", kr("A", 3_999.99), False),
        ("us_stocks", kr("A", 1.0), True), ("us_stocks", kr("A", 0.99), False),
        ("crypto", kr("A", 0.001, 1e9), True), ("crypto", kr("A", 9e9, 999_999_999.0), False),
    ],
)  # fmt: skip
def test_the_rule_of_each_market(market: str, instrument: Instrument, watched: bool) -> None:
    assert bool(u.build(market, DAY, "x", [instrument], 0).symbols) == watched


def test_what_is_no_universe() -> None:
    whole = u.build("kr_stocks", DAY, "kis", [kr(f"{number:06}") for number in range(100)], 0)
    half = u.build("kr_stocks", DAY + 1, "kis", [kr(f"{number:06}") for number in range(49)], 0)
    assert u.doubt(whole, None) == u.doubt(whole, whole) == u.doubt(half, None) == ""
    assert u.doubt(half, whole) == f"49 issues listed, 100 on {DAY}"
    assert u.doubt(u.build("kr_stocks", DAY, "kis", [kr("A", 1.0)], 0), None) == "none of 1 listed issues fits"


def test_it_is_written_once_and_reads_as_it_was(tmp_path: Path) -> None:
    made = u.build("kr_stocks", DAY, "kis", LISTED, 7)
    assert u.load(tmp_path, "kr_stocks", DAY) is None
    assert u.save(made, tmp_path)
    read = u.load(tmp_path, "kr_stocks", DAY)
    assert read is not None
    assert repr(read) == repr(made)  # NaN equals nothing, not even itself
    other = u.build("kr_stocks", DAY, "kis", LISTED[:1], 8)
    assert not u.save(other, tmp_path)
    assert repr(u.load(tmp_path, "kr_stocks", DAY)) == repr(made)
    assert (u.path_of(tmp_path, "kr_stocks", DAY).stat().st_mode & 0o777) == 0o640
    assert [path.name for path in u.path_of(tmp_path, "kr_stocks", DAY).parent.iterdir()] == [f"{DAY}.json"]


def test_a_day_without_its_own_has_the_last_one_marked_stale(tmp_path: Path) -> None:
    made = u.build("kr_stocks", DAY, "kis", LISTED, 7)
    u.save(made, tmp_path)
    u.save(made.stale_on(DAY + 1), tmp_path)
    again = u.newest_before(tmp_path, "kr_stocks", DAY + 2)
    assert again is not None
    assert (again.day, again.stale_since) == (DAY + 1, DAY)
    later = again.stale_on(DAY + 2)
    assert (later.day, later.stale_since, later.symbols) == (DAY + 2, DAY, made.symbols)
    assert u.newest_before(tmp_path, "kr_stocks", DAY) is None
    assert u.newest_before(tmp_path, "crypto", DAY + 2) is None


def test_a_good_list_replaces_a_stale_one_and_nothing_else_does(tmp_path: Path) -> None:
    old = u.build("kr_stocks", DAY - 1, "kis", LISTED, 7)
    good = u.build("kr_stocks", DAY, "kis", LISTED[1:], 8)
    stale = old.stale_on(DAY)
    assert u.save(stale, tmp_path)
    assert not u.save(stale, tmp_path)
    assert u.save(good, tmp_path)
    assert repr(u.load(tmp_path, "kr_stocks", DAY)) == repr(good)
    for other in (stale, old.stale_on(DAY), u.build("kr_stocks", DAY, "kis", LISTED, 9)):
        assert not u.save(other, tmp_path)
    assert repr(u.load(tmp_path, "kr_stocks", DAY)) == repr(good)
    assert [path.name for path in u.path_of(tmp_path, "kr_stocks", DAY).parent.iterdir()] == [f"{DAY}.json"]


@pytest.mark.parametrize("spoil", ["", "{", "[]", '{"format":"obs universe 2"}', '{"format":"obs universe 1"}'])
def test_a_file_that_does_not_read_is_named_and_passed_over(tmp_path: Path, spoil: str) -> None:
    for day in (DAY, DAY + 1):
        u.save(u.build("kr_stocks", day, "kis", LISTED, 7), tmp_path)
    path = u.path_of(tmp_path, "kr_stocks", DAY + 1)
    path.write_text(spoil)
    with pytest.raises(ConfigError, match=path.name):
        u.load(tmp_path, "kr_stocks", DAY + 1)
    before = u.newest_before(tmp_path, "kr_stocks", DAY + 2)
    assert before is not None
    assert before.day == DAY


def test_the_file_is_plain_json_in_the_users_letters(tmp_path: Path) -> None:
    u.save(u.build("kr_stocks", DAY, "kis", [Instrument("005930", "삼성전자", 71_500.0, NAN)], 7), tmp_path)
    text = u.path_of(tmp_path, "kr_stocks", DAY).read_text(encoding="utf-8")
    assert "삼성전자" in text
    assert json.loads(text)["symbols"] == [{"symbol": "005930", "name": "삼성전자", "previous_close": 71_500.0, "traded_value": None}]
