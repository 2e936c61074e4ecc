"""KIS data messages: widths, counts, neighbours of a bad record, garbage in each field, times, phases."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from cases import CASES, kis
from hypothesis import given
from hypothesis import strategies as st
from inputs import RECV_NS, decoded, same
from synthetic_kis import EVENT_NS, NS, SYMBOLS, book_fields, book_row, message, trade_fields, trade_row, us_fields, us_row

from obs.errors import DecodeError
from obs.providers.base import MAX_INPUTS_PER_MESSAGE
from obs.providers.kis import fields
from obs.record.schema import PHASES

KR, US = CASES[0], CASES[1]


def read(payload: bytes, recv_ns: int = RECV_NS) -> tuple[list[dict[str, Any]], list[Any]]:
    case = US if b"HDFS" in payload else KR
    return decoded(case.provider, case.context(), payload, recv_ns)


def refused(payload: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        read(payload)
    return caught.value.reason


FOUR = [trade_fields(f12=str(size)) for size in (1, 2, 3, 4)]
FORMS = [
    pytest.param("H0STCNT0", FOUR, id="trade_46"),
    pytest.param("H0STCNT0", [[*record, "2"] for record in FOUR], id="trade_47"),
    pytest.param("H0STASP0", [book_fields(f23=str(size)) for size in (1, 2, 3, 4)], id="book_62"),
    pytest.param("H0UNASP0", [book_fields(f23=str(size), width=65) for size in (1, 2, 3, 4)], id="book_65"),
    pytest.param("HDFSCNT0", [us_fields(f19=str(size)) for size in (1, 2, 3, 4)], id="us_26"),
]


@pytest.mark.parametrize(("tr_id", "records"), FORMS)
@pytest.mark.parametrize("hurt", range(4))
@pytest.mark.parametrize("how", ["remove", "add", "garbage", "empty_symbol", "foreign_symbol"])
def test_a_bad_record_costs_no_neighbour(tr_id: str, records: list[list[str]], hurt: int, how: str) -> None:
    whole = read(message(tr_id, *records))[0]
    for place in range(how == "add", len(records[0])):  # one added before the symbol belongs to the record before it
        bad = list(records[hurt])
        if how == "remove":
            del bad[place]
        elif how == "add":
            bad.insert(place, "x7")
        elif how == "garbage":
            bad[place] = "1_0"
        elif place > 0:
            break
        else:
            bad[0] = "" if how == "empty_symbol" else "?!"
        payload = message(tr_id, *records[:hurt], bad, *records[hurt + 1 :])
        rows, faults = read(payload)
        kept = [row for number, row in enumerate(whole) if number != hurt]
        for row in kept:
            assert any(repr(row) == repr(found) for found in rows), (place, faults)
        # The bad one itself is a fault; or, hurt where nothing is read from, it is what it was or less, and never anything else.
        assert len(rows) <= 4
        assert len(rows) == 4 or faults
        for row in rows:
            if repr(row) not in map(repr, kept):
                assert all(value in (whole[hurt][name], 0) or value != value for name, value in row.items()), place
        for fault in faults:
            assert fault.reason in ("number", "time", "date", "phase", "sign", "symbol", "width")
            assert payload[fault.start - 1 : fault.start] in (b"^", b"|")
            assert payload[fault.stop : fault.stop + 1] in (b"^", b"")


@pytest.mark.parametrize(("tr_id", "records"), FORMS)
@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 8, 184, 999])
def test_a_wrong_count_costs_nothing(tr_id: str, records: list[list[str]], count: int) -> None:
    whole = read(message(tr_id, *records))
    found, faults = read(message(tr_id, *records, count=count))
    assert faults == []
    assert repr(found) == repr(whole[0])


def test_the_width_is_that_of_the_message() -> None:
    for extra in range(10):
        records = [[*trade_fields(f12=str(size)), *(["2"] + ["9"] * 9)[:extra]] for size in (1, 2, 3)]
        rows, faults = read(message("H0STCNT0", *records))
        assert faults == []
        for size, row in zip((1.0, 2.0, 3.0), rows, strict=True):
            same(row, trade_row(size=size))


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "header"),
        (b"0", "header"),
        (b"0|H0STCNT0|001", "header"),
        (b"0|H0STCNT0|001|", "width"),
        (message("H0STCNT0", trade_fields()[:45]), "width"),
        (message("H0STCNT0", trade_fields()[:45], trade_fields()[:45]), "width"),
        (message("H0STASP0", book_fields(width=59)[:58]), "width"),
        (message("H0STCNT0", trade_fields(), count=0), "count"),
        (message("H0STCNT0", trade_fields(), count=1025), "count"),
        (b"0|H0STCNT0|1_0|005930", "count"),
        (b"0|H0STCNT0||005930", "count"),
        (message("H0STCNT0", trade_fields(), flag="1"), "encrypted"),
        (message("H0STCNT0", trade_fields(), flag="2"), "header"),
        (message("H0STMKO0", trade_fields()), "unknown_tr"),
        (message("h0stcnt0", trade_fields()), "unknown_tr"),
        (message("H0STCNT0", trade_fields("삼성전자")), "symbol"),
        (message("H0STCNT0", trade_fields("")), "symbol"),
        (message("H0STCNT0", trade_fields(f2="nan")), "number"),
        (message("H0STCNT0", trade_fields(f1="246060")), "time"),
        (message("H0STCNT0", trade_fields(f33="20261301")), "date"),
        (message("H0STCNT0", trade_fields(f33="99991231")), "date"),
        (message("H0STCNT0", trade_fields(f34="200")), "phase"),
        (message("H0STASP0", book_fields(f51="-100.00")), "sign"),
        (message("HDFSCNT0", us_fields(f1="MSFT")), "symbol"),
        (message("HDFSCNT0", us_fields(f12="1.05")), "sign"),
        (message("HDFSCNT0", us_fields("XNASAAPL")), "symbol"),
    ],
)
def test_a_message_of_which_nothing_is_readable_is_refused(payload: bytes, reason: str) -> None:
    assert refused(payload) == reason


NUMBER_FIELDS = [pytest.param(trade_fields, "H0STCNT0", place, id=f"trade{place}") for place in (2, 4, 10, 11, 12, 13, 36, 37)]
NUMBER_FIELDS += [pytest.param(book_fields, "H0STASP0", place, id=f"book{place}") for place in (3, 13, 23, 33, 53)]
NUMBER_FIELDS += [pytest.param(us_fields, "HDFSCNT0", place, id=f"us{place}") for place in (11, 15, 16, 17, 18, 19, 20)]
GARBAGE = ["nan", "NaN", "inf", "-inf", "1_0", "1e5", "+1", "0x1", "1.", ".5", "1.2.3", "--1", "-", ".", "١", "１", "1,0"]
GARBAGE += [" 1", "1 ", "9" * 21, "9" * 400]


@pytest.mark.parametrize(("build", "tr_id", "place"), NUMBER_FIELDS)
@pytest.mark.parametrize("text", GARBAGE)
def test_garbage_in_a_number_never_becomes_a_number(build: Any, tr_id: str, place: int, text: str) -> None:
    bad = build(**{f"f{place}": text})
    for _ in range(2):  # a text must not be remembered either
        assert refused(message(tr_id, bad)) == "number"
    rows, faults = read(message(tr_id, build(), bad, build()))
    assert len(rows) == 2
    payload = message(tr_id, build(), bad, build())
    assert [(payload[fault.start : fault.stop], fault.reason) for fault in faults] == [("^".join(bad).encode(), "number")]


@given(st.integers(-(10**15) + 1, 10**15 - 1), st.integers(0, 15))
def test_a_decimal_of_fifteen_digits_keeps_its_value(digits: int, places: int) -> None:
    text = f"{abs(digits):0{places + 1}d}"
    text = ("-" if digits < 0 else "") + (text[:-places] + "." + text[-places:] if places else text)
    assert fields.number(text.encode()) == float(text)
    (row,), _ = read(message("HDFSCNT0", us_fields(f11=text, f19=text)))
    assert row["size"] == float(text)
    assert row["price"] == float(text) or (digits == 0 and math.isnan(row["price"]))


def test_an_accumulated_volume_of_more_than_fifteen_digits_is_the_nearest_number() -> None:
    (row,), _ = read(message("H0STCNT0", trade_fields(f13="12345678901234567890")))
    assert row["acc_volume"] == 12345678901234567890.0


def test_the_memory_of_numbers_is_bounded() -> None:
    numbers = fields.Numbers(zero=math.nan)
    for value in range(60_000):
        assert numbers[b"%d.5" % value] == value + 0.5
    assert len(numbers) <= 16_384
    assert math.isnan(numbers[b"0.00"])


def kst(day: int, hour: int, minute: int, second: int) -> int:
    return int(datetime(2026, 7, day, hour, minute, second, tzinfo=UTC).timestamp() - 9 * 3600) * NS


@pytest.mark.parametrize(
    ("time", "recv_ns", "event_ns", "day"),
    [
        ("120000", kst(14, 12, 0, 1), kst(14, 12, 0, 0), 20260714),
        ("235959", kst(15, 0, 0, 3), kst(14, 23, 59, 59), 20260714),  # sent before midnight, received after it
        ("000001", kst(14, 23, 59, 58), kst(15, 0, 0, 1), 20260715),  # our clock is behind
        ("000000", kst(14, 0, 0, 0), kst(14, 0, 0, 0), 20260714),
        ("153000", kst(15, 0, 30, 0), kst(14, 15, 30, 0), 20260714),  # the last book of a closed day
        ("", kst(14, 12, 0, 1), 0, 0),
    ],
)
def test_a_book_takes_the_day_that_puts_it_nearest_to_its_receipt(time: str, recv_ns: int, event_ns: int, day: int) -> None:
    (row,), _ = read(message("H0STASP0", book_fields(f1=time)), recv_ns)
    assert (row["event_ns"], row["acc_day"], row["recv_ns"]) == (event_ns, day, recv_ns)


@pytest.mark.parametrize(
    ("phase", "halt", "hour", "market", "expected", "ignored"),
    [
        ("20", "N", "0", "", "regular", False),
        ("20", "N", "0", "2", "regular", False),
        ("20", "N", "0", "1", "pre_market", False),
        ("20", "N", "0", "3", "after_market", False),
        ("20", "N", "0", "5", "closing", False),
        ("21", "N", "0", "2", "closing", False),
        ("22", "N", "0", "2", "off_board", False),
        ("33", "N", "0", "3", "off_board", False),
        ("10", "N", "0", "", "pre_open", False),
        ("30", "N", "0", "", "closing", False),
        ("40", "N", "0", "", "after_hours", False),
        ("70", "N", "0", "", "off_board", False),
        ("20", "Y", "0", "2", "halted", False),
        ("20", "N", "A", "2", "closing", True),
        ("10", "N", "B", "2", "pre_open", True),
        ("20", "N", "C", "2", "expected", True),
        ("40", "N", "D", "", "after_hours", True),
        ("20", "Y", "C", "2", "halted", True),
        ("", "", "0", "", "", False),
        ("99", "N", "0", "9", "", False),  # codes that nobody has heard of cost nothing
        ("20", "N", "Z", "2", "", False),
    ],
)
def test_phases(phase: str, halt: str, hour: str, market: str, expected: str, ignored: bool) -> None:
    record = [*trade_fields(f34=phase, f35=halt, f43=hour), *([market] if market else [])]
    (row,), _ = read(message("H0STCNT0", record))
    assert (PHASES[row["phase"]], row["ignore"] != 0) == (expected, ignored)


def test_a_message_may_hold_as_many_records_as_fit_and_no_more() -> None:
    rows, faults = read(message("HDFSCNT0", *[us_fields()] * 999))
    assert (len(rows), faults) == (999, [])
    most = b"0|HDFSCNT0|1024|" + b"^".join(["^".join(us_fields()).encode()] * MAX_INPUTS_PER_MESSAGE)
    assert len(read(most)[0]) == MAX_INPUTS_PER_MESSAGE
    assert refused(most.replace(b"1024", b"0001") + b"^" + "^".join(us_fields()).encode()) == "count"


def test_a_stranger_between_registered_symbols_keeps_the_grid() -> None:
    rows, faults = read(message("H0STCNT0", trade_fields(), trade_fields("000660"), trade_fields("Q500001")))
    assert faults == []
    assert [(row["symbol"], row["row"]) for row in rows] == [(b"005930", 1), (b"000660", 0), (b"Q500001", 3)]


def test_only_strangers_are_read_as_such() -> None:
    rows, _ = decoded(KR.provider, KR.provider.context([]), message("H0STCNT0", trade_fields(), trade_fields()))
    same(rows[1], trade_row(place=0, ignore="unknown_symbol"))


def test_venues_share_the_layout_and_not_the_tr_id() -> None:
    for venue, tr_id in (("krx", "H0STCNT0"), ("nxt", "H0NXCNT0"), ("unified", "H0UNCNT0")):
        provider = kis(venue=venue)
        (row,), _ = decoded(provider, provider.context(SYMBOLS), message(tr_id, trade_fields()))
        same(row, trade_row())
        (outgoing,) = provider.subscribe([("trade", "005930")], "key")
        assert tr_id.encode() in outgoing.payload
    assert book_row()["event_ns"] == EVENT_NS + NS
    assert us_row()["symbol"] == b"AAPL"
