"""Event files, read on: digests of a day, and the newest events; bounded, and true after a recovery cut a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from obs.clock import MINUTE_NS, NS
from obs.monitor import gaps, notices
from obs.monitor.day import Span, gaps_of
from obs.monitor.notices import Digest, Digests, Heard, Notices
from obs.record.events import gap_line, gap_payload, iso_ms

START = 1_795_219_200 * NS
SESSION = "sess_20261121_000000_kis_0001"


def gap(number: int, symbol: str | None = None, sink: str | None = None) -> bytes:
    payload = gap_payload(
        start_ns=START + number * NS, end_ns=START + (number + 5) * NS, scope="scalp", reason="mute", session_id=SESSION, provider="kis",
        symbol=symbol, sink=sink, first_seq=number if sink else None, last_seq=number if sink else None,
    )  # fmt: skip
    return gap_line(payload, None if sink else "event", None if sink else number)


def counts(symbol: str | None, minute: int, inputs: int) -> bytes:
    named = {"symbol": symbol} if symbol else {}
    value = {"event_type": "counts", "timestamp": iso_ms(START + minute * MINUTE_NS), **named, "minute_ns": START + minute * MINUTE_NS}
    return orjson.dumps(value | {"inputs": inputs})


def event(number: int, kind: str = "warning") -> bytes:
    return orjson.dumps({"event_type": kind, "timestamp": iso_ms(START + number * NS), "number": number})


def write(folder: Path, provider: str, day: str, lines: list[bytes], end: bytes = b"") -> Path:
    path = notices.events_folder(folder, provider) / f"{day}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(b"".join(line + b"\n" for line in lines) + end)
    return path


def numbers(lines: list[dict[str, Any]]) -> list[int]:
    return [line["number"] for line in lines]


def test_a_digest_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = write(tmp_path, "kis", "20261121", [gap(1), counts("A", 3, 7), counts("A", 1, 5), counts(None, 1, 12), gap(1)], gap(2)[:20])
    digest = Digest(path).read()
    assert [(one.start_ns, one.symbol) for one in digest.gaps] == [(START + NS, None)]
    assert digest.heard == {"A": Heard(START + MINUTE_NS, START + 3 * MINUTE_NS, 12)}
    with path.open("ab") as file:
        file.write(gap(2)[20:] + b"\n" + gap(3, "A", "archive") + b"\n" + gap(3, "A", "archive") + b"\n")
    assert [one.at > 0 for one in digest.read().gaps] == [False, True, True]
    assert [line["gap_start_ns"] for line in digest.lines(digest.gaps)] == [START + number * NS for number in (1, 2, 3)]
    assert len(digest.read().gaps) == 3, "nothing new"


def test_a_file_that_was_cut_or_replaced_is_read_anew(tmp_path: Path) -> None:
    path = write(tmp_path, "kis", "20261121", [gap(1), gap(2), counts("A", 1, 5)])
    digest = Digest(path).read()
    os.truncate(path, len(gap(1)) + 1)
    assert (len(digest.read().gaps), digest.heard) == (1, {})
    path.unlink()
    assert digest.read().gaps == []
    write(tmp_path, "kis", "20261121", [gap(7), gap(8)])
    assert len(digest.read().gaps) == 2


@pytest.mark.parametrize("line", [b"{", b'{"event_type":"gap_marker"}', b'{"event_type":"gap_marker","gap_start_ns":"x"}', b"\0\0", b"[]"])
def test_damage_is_passed_over_and_counted_where_it_was_a_gap(line: bytes, tmp_path: Path) -> None:
    path = write(tmp_path, "kis", "20261121", [gap(1), line, b'{"event_type":"counts","symbol":5}', gap(2)])
    digest = Digest(path).read()
    assert len(digest.gaps) == 2
    assert digest.unreadable == line.startswith(b'{"event_type":"gap')


def test_what_is_kept_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps, "GAPS", 10)
    digests = Digests(tmp_path)
    for day in range(20261101, 20261121):
        write(tmp_path, "kis", str(day), [gap(number) for number in range(25)])
        digest = digests.of("kis", str(day))
        assert (len(digest.gaps), digest.more_gaps) == (10, 15)
    assert len(digests._known) == notices.KEPT
    assert digests.of("kis", "20261120") is digest
    assert digests.of("kis", "19990101").gaps == []


def test_the_newest_events_of_all_providers(tmp_path: Path) -> None:
    assert Notices(tmp_path).newest(5) == []
    write(tmp_path, "kis", "20261120", [event(number) for number in range(0, 10)])
    today = [line for number in range(10, 20) for line in (event(number), counts("A", 1, 1))]
    write(tmp_path, "kis", "20261121", today, b'{"event_type":"warn')
    write(tmp_path, "upbit", "20261121", [event(15), event(16), event(17)])
    assert numbers(Notices(tmp_path).newest(6)) == [19, 18, 17, 17, 16, 16]
    assert sorted(numbers(Notices(tmp_path).newest(100))) == sorted([*range(20), 15, 16, 17])
    assert numbers(Notices(tmp_path).newest(1)) == [19]


def test_the_newest_events_of_a_file_of_many_blocks(tmp_path: Path) -> None:
    """Blocks end anywhere in a line; no line is lost, doubled or joined with another."""
    write(tmp_path, "kis", "20261121", [event(number)[:-1] + b',"pad":"%s"}' % (b"x" * (number % 997)) for number in range(6000)])
    assert notices.events_folder(tmp_path, "kis").joinpath("20261121.jsonl").stat().st_size > 3 << 20
    assert numbers(Notices(tmp_path).newest(6000)) == list(reversed(range(6000)))


def test_what_is_added_is_told_once_across_midnight(tmp_path: Path) -> None:
    write(tmp_path, "kis", "20261121", [event(1)], b'{"event_type":"war')
    one = Notices(tmp_path)
    assert numbers(one.begin(5)) == [1]
    assert one.read() == []
    path = notices.events_folder(tmp_path, "kis") / "20261121.jsonl"
    with path.open("ab") as file:
        file.write(b'ning","timestamp":"2026","number":2}\n')
    write(tmp_path, "kis", "20261121", [counts("A", 1, 1)])
    write(tmp_path, "upbit", "20261121", [event(3)])
    assert numbers(one.read()) == [2, 3]
    write(tmp_path, "kis", "20261122", [event(5)])
    write(tmp_path, "kis", "20261121", [event(4)])  # of the day before, archived later
    assert numbers(one.read()) == [4, 5]
    write(tmp_path, "kis", "20261122", [event(7)])
    write(tmp_path, "kis", "20261121", [event(6)])
    assert numbers(one.read()) == [6, 7]
    assert one.read() == []


def test_a_gap_of_days_is_found_from_each_of_them_in_the_next_file_that_there_is(tmp_path: Path) -> None:
    """Stopped on Friday, started on Monday: the line stands in Monday's file, and no file lies between."""
    write(tmp_path, "kis", "20261120", [])
    write(tmp_path, "kis", "20261123", [gap(0)])
    digests = Digests(tmp_path)
    days = {"20261119": "20261120", "20261120": "20261123", "20261121": "20261123", "20261123": ""}
    assert {day: digests.after("kis", day) for day in days} == days
    span = Span(START - 60 * NS, 2)
    assert [one.start_ns for one in gaps_of(digests, "kis", "20261120", span)] == [START]
    assert gaps_of(digests, "kis", "20261120", Span(START + 60 * NS, 2)) == []
    assert gaps_of(digests, "kis", "20261123", span) == gaps_of(digests, "kis", "20261121", span)
