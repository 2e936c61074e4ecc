"""Gap lines of system/events that are valid JSON and not gap lines: every reader passes over them, and over the same ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from obs.cli.gaps import _show
from obs.clock import MINUTE_NS, NS
from obs.monitor.audit.events import read_events
from obs.monitor.audit.scope import Scope
from obs.monitor.day import Span, SymbolRow, end_of, gaps_of, heat_of, symbols_of, totals_of
from obs.monitor.gaps import SEVERITIES, inside, read_gap, read_gaps
from obs.monitor.notices import Digests, Notices, events_folder
from obs.monitor.tallies import OTHER, Tallies
from obs.record.events import GAP_KEYS, GAP_REASONS, gap_line, gap_payload

START = 1_795_219_200 * NS
DAY = "20261121"
TYPED = sorted({*GAP_KEYS, "gap_start_ns", "gap_end_ns"} - {"event_type", "inside", "acc_volume_before", "acc_volume_after"})


def gap(number: int, symbol: str | None = "A", sink: str | None = None) -> dict[str, Any]:
    payload = gap_payload(
        start_ns=START + number * MINUTE_NS, end_ns=START + (number + 2) * MINUTE_NS, scope="scalp", reason="mute", provider="kis",
        session_id="sess_20261121_000000_kis_0001", symbol=symbol, sink=sink, first_seq=number if sink else None, last_seq=number,
    )  # fmt: skip
    value: dict[str, Any] = orjson.loads(gap_line(payload, None if sink else "event", None if sink else number))
    return value


def everything(folder: Path, lines: list[bytes]) -> tuple[int, int]:
    """Ask every reader of a day with these lines; return how many gaps and how many bad lines all of them found."""
    path = events_folder(folder, "kis") / f"{DAY}.jsonl"
    path.parent.mkdir(parents=True)
    path.touch()
    follower, tallies, digests = Notices(folder), Tallies(folder), Digests(folder)
    follower.begin(5)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    unreadable: list[str] = []
    found = list(read_gaps(folder, None, None, unreadable))
    _show(found)
    inside([(one["provider"], one["symbol"], one["gap_start_ns"], one["gap_end_ns"]) for one in found])
    of_one: list[str] = []
    assert all(one["symbol"] in (None, "A") for one in read_gaps(folder, "kis", "A", of_one, (DAY, lambda _: START)))
    assert of_one == unreadable, "a damaged line is named whatever symbol is asked for"
    assert len(follower.read()) == len(follower.newest(100)) == len(lines) - len(unreadable)
    digest = digests.of("kis", DAY)
    span = Span(START, 60)
    gaps = gaps_of(digests, "kis", DAY, span)
    orjson.dumps([heat_of(gaps, span).to_json(), list(digest.lines(digest.gaps))])
    rows = symbols_of([SymbolRow("A", 240, {0: 1.0, 50: 1.0})], digest.heard, gaps, span, {})
    orjson.dumps([rows, totals_of(rows, gaps, span)])
    tallies.look(["kis"])
    tally = tallies.of("kis")
    assert tally is not None
    assert digest.unreadable == tally.bad_lines == len(unreadable)
    assert len(digest.gaps) == len(found)
    book = read_events(Scope(folder, "kis", ZoneInfo("UTC")))
    assert len(book.unreadable) >= len(unreadable), "the audit wants more of a line: its place in the ring"
    assert len(book.gaps) <= len(found)
    words = {word for pair in tally.gaps for word in pair}
    assert words <= {*GAP_REASONS, *SEVERITIES, OTHER}
    return len(found), len(unreadable)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)
GONE = object()
CHANGES = st.dictionaries(st.sampled_from([*TYPED, "inside", "acc_volume_before"]), st.just(GONE) | ANY, min_size=1, max_size=3)


def changed(value: dict[str, Any], changes: dict[str, Any]) -> bytes:
    return orjson.dumps({key: one for key, one in {**value, **changes}.items() if one is not GONE})


@settings(max_examples=150, deadline=None)
@given(CHANGES, st.sampled_from([None, "archive"]))
@example({"symbol": ["A"]}, None)
@example({"symbol": {"a": 1}}, "archive")
@example({"gap_start_ns": "x"}, None)
@example({"gap_seconds": None}, None)
@example({"gap_seconds": 1e308}, None)
@example({"provider": 5}, None)
@example({"event_seq": [1]}, None)
@example({"event_seq": GONE}, None)
@example({"gap_end_ns": 2**64 - 1}, None)
@example({"severity": 7, "reason": None}, "archive")
def test_no_reader_fails_and_all_agree(changes: dict[str, Any], sink: str | None) -> None:
    with TemporaryDirectory() as folder:
        lines = [orjson.dumps(gap(1, None)), changed(gap(9, sink=sink), changes), orjson.dumps(gap(20))]
        found, bad = everything(Path(folder), lines)
        # With the event_seq of another it would be the same gap, told twice.
        assert (found, bad) in ((2, 1), (3, 0)) or (bad == 0 and "event_seq" in changes)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=3))
def test_bytes_that_were_overwritten(at: int, garbage: bytes) -> None:
    line = bytearray(orjson.dumps(gap(9)))
    at = len(b'{"event_type":"gap_marker"') + at % (len(line) - 40)
    line[at : at + len(garbage)] = garbage.replace(b"\n", b" ")
    with TemporaryDirectory() as folder:
        found, bad = everything(Path(folder), [orjson.dumps(gap(1, None)), bytes(line), orjson.dumps(gap(20))])
        assert (found, bad) in ((2, 1), (3, 0), (2, 0))  # (2, 0): it took the identity of another


@pytest.mark.parametrize("key", TYPED)
@pytest.mark.parametrize("wrong", [[], {}, True, GONE])
def test_what_readers_rely_on_is_checked(key: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=key):
        read_gap(changed(gap(1), {key: wrong}))


@pytest.mark.parametrize("make", [lambda: gap(1), lambda: gap(1, None), lambda: gap(1, sink="archive"), lambda: gap(1, sink="database")])
def test_lines_of_the_program_are_read_as_they_are(make: Callable[[], dict[str, Any]]) -> None:
    newer = {"reason": "of a newer version", "severity": "worse", "inside": {"session": "x"}, "gap_end_ns": START, "gap_seconds": 0.5}
    for value in (make(), make() | newer):
        assert read_gap(orjson.dumps(value)) == value


def test_a_gap_over_midnight_is_of_both_days(tmp_path: Path) -> None:
    """Its line stands in the file of the day in which it ended, which need not be the next day."""
    folder = events_folder(tmp_path, "kis")
    folder.mkdir(parents=True)
    hour = 60 * MINUTE_NS
    spans = {"20261120": [(-30, -29)], DAY: [(-25, 1), (3, 4)], "20261124": [(23, 60), (61, 62)]}  # hours around the start of DAY, UTC
    for date, of_date in spans.items():
        lines = [
            gap(at, None) | {"gap_start_ns": START + begin * hour, "gap_end_ns": START + end * hour}
            for at, (begin, end) in enumerate(of_date)
        ]
        (folder / f"{date}.jsonl").write_bytes(b"".join(orjson.dumps(line | {"session_id": f"sess_{date}"}) + b"\n" for line in lines))

    def begun(date: str) -> list[int]:
        gaps = read_gaps(tmp_path, "kis", None, [], (date, lambda _: end_of("crypto", date)))
        return [(one["gap_start_ns"] - START) // hour for one in gaps]

    assert begun("20261119") == [-30], "of the next file there is"
    assert begun("20261120") == [-30, -25]
    assert begun(DAY) == [-25, 3, 23]
    assert begun("20261122") == [23]
    assert begun("20261124") == [23, 61]
    assert begun("20261125") == []
