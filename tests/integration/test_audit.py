"""The audit against a real archive and a real database: it closes as written, and every kind of corruption is found and named."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psycopg
import pytest

from obs.clock import MINUTE_NS, NS
from obs.monitor.audit import Report, run
from obs.record.schema import TICK
from obs.ring import Consumer, Producer, create_ring
from obs.segment.sessions import sessions_path
from obs.shm import block_path
from tests.integration.audit_archive import (
    GAP,
    LOST,
    MINUTES,
    PROVIDER,
    RECORDS,
    REFUSED,
    SESSION,
    START_NS,
    SYMBOLS,
    Archive,
    records,
    rewrite,
    segment_of,
    segments,
)

MINUTE = [f"2026-01-22T00:{30 + minute}:00.000Z" for minute in range(MINUTES)]


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """The archive as written; a test works on a copy."""
    return Archive(tmp_path_factory.mktemp("audit") / "data").write()


@dataclass
class Place:
    """What a corruption works on."""

    root: Path
    dsn: str
    archive: Archive

    def sql(self, statement: str, *values: Any) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            assert conn.execute(statement, values).rowcount > 0, statement

    def events(self, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
        """Replace the lines of system/events."""
        path = self.archive.events_path
        lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        changed = change([dict(line) for line in lines])
        assert changed != lines
        path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in changed))

    def change_event(self, chosen: Callable[[dict[str, Any]], bool], **changes: Any) -> None:
        self.events(lambda lines: [line | changes if chosen(line) else line for line in lines])

    def segment(self, seq: int, change: Callable[[list[bytes]], list[bytes]], *, honest: bool = True) -> None:
        rewrite(segment_of(self.root, seq), change, honest=honest)

    def text(self, pattern: str, change: Callable[[list[bytes]], list[bytes]]) -> None:
        (path,) = self.root.glob(pattern)
        lines = path.read_bytes().splitlines()
        changed = change(lines)
        assert changed != lines
        path.write_bytes(b"".join(line + b"\n" for line in changed))


@pytest.fixture
def place(written: Archive, tmp_path: Path, pg_dsn: str) -> Place:
    root = tmp_path / "data"
    shutil.copytree(written.root, root)
    archive = dataclasses.replace(written, root=root)
    archive.load(pg_dsn)
    return Place(root, pg_dsn, archive)


def audit(place: Place, **options: Any) -> Report:
    report = run(place.archive.config, dsn=place.dsn, **options)
    json.dumps(report.to_json())
    lines = report.lines()
    verdict = {True: "CLOSES", False: "DOES NOT CLOSE", None: "COULD NOT BE JUDGED"}[report.ok]
    assert verdict in lines[-1]
    return report


def has_seq(seq: int) -> Callable[[bytes], bool]:
    return lambda line: orjson.loads(line).get("seq") == seq


def counts_of(minute: int, symbol: str | None) -> Callable[[dict[str, Any]], bool]:
    return lambda line: line["event_type"] == "counts" and line["symbol"] == symbol and line["n"] == minute + 1


def without(chosen: Callable[[Any], bool]) -> Callable[[list[Any]], list[Any]]:
    return lambda lines: [line for line in lines if not chosen(line)]


def swapped(chosen: Callable[[bytes], bool], **changes: Any) -> Callable[[list[bytes]], list[bytes]]:
    return lambda lines: [orjson.dumps(orjson.loads(line) | changes) if chosen(line) else line for line in lines]


def silenced(minute: int, symbol: str | None) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    """A counts event becomes another event of the same place: the ring is whole, the count is missing."""
    chosen = counts_of(minute, symbol)
    return lambda lines: [
        {name: line[name] for name in ("timestamp", "session_id", "provider", "event_ring", "event_seq", "ts_ns")}
        | {"event_type": "lifecycle", "what": "nothing"} if chosen(line) else line
        for line in lines
    ]  # fmt: skip


def test_it_closes_as_written(place: Place) -> None:
    report = audit(place)
    found = report.to_json()
    assert report.ok is True, report.lines()
    assert found["mismatches"] == []
    assert (found["from"], found["to"]) == (MINUTE[0], "2026-01-22T00:34:00.000Z")
    # The minute in which records were lapped cannot be proven, and nothing else.
    assert {(one["minute"], one["stage"]) for one in found["unproven"]} == {(MINUTE[1], "folded")}
    ledger = found["totals"]["providers"][PROVIDER]
    rows = records()
    folded = int(rows["trades"].sum() + rows["quotes"].sum()) + sum(map(sum, LOST.values()))
    assert ledger["inputs"] == folded + sum(ledger["ignored"].values())
    assert ledger["folded"] == folded
    assert ledger["lost"] == ledger["restart_lost"] == sum(map(sum, LOST.values()))
    assert ledger["messages"] == ledger["data"] + ledger["control"] + ledger["quarantined"]
    lost = GAP[1] - GAP[0] + 1
    assert ledger["rings"]["tick"] == {
        "published": RECORDS, "archived": RECORDS - lost, "archive_gaps": lost, "in_flight": 0, "loaded": RECORDS - lost + 5 - 1,
        "database_gaps": lost - 5 + 1, "not_loaded": 0,
    }  # fmt: skip
    assert ledger["gaps"] == {"restart": 2, "ring_lap": 1, "ws_disconnect": 1}


CORRUPTIONS: dict[str, tuple[Callable[[Place], None], str, dict[str, Any]]] = {
    # what was done, the stage that must name it, and what the mismatch must say
    "a line is missing": (
        lambda place: place.segment(100, without(has_seq(100))), "archived", {"first_seq": 100, "last_seq": 100, "ring": "tick"},
    ),
    "the row of a missing line is there": (
        lambda place: place.segment(100, without(has_seq(100))), "loaded",
        {"first_seq": 100, "expected": 0, "found": 1, "minute": MINUTE[0], "symbol": SYMBOLS[1]},
    ),
    "a minute lacks a line": (
        lambda place: place.segment(103, without(has_seq(103))), "folded", {"minute": MINUTE[0], "symbol": SYMBOLS[1]},
    ),
    "a line is there twice": (
        lambda place: place.segment(100, lambda lines: [line for line in lines for _ in range(2 if has_seq(100)(line) else 1)]),
        "archived", {"first_seq": 100, "last_seq": 100, "expected": 1, "found": 2},
    ),
    "a value of a line changed": (
        lambda place: place.segment(100, swapped(has_seq(100), ask_price=1.5)), "value",
        {"seq": 100, "field": "ask_price", "expected": 1.5, "found": (100 * 7919 % 100_003 + 1) / 100, "symbol": SYMBOLS[1]},
    ),
    "the last digit of an accumulated volume changed": (
        lambda place: place.sql("UPDATE scalp_ticks SET acc_volume = acc_volume + 0.00000001 WHERE seq = 100"), "value",
        {"seq": 100, "field": "acc_volume"},
    ),
    "a time of a row changed": (
        lambda place: place.sql("UPDATE scalp_ticks SET recv_ns = recv_ns + 1 WHERE seq = 700"), "value",
        {"seq": 700, "field": "recv_ns", "minute": MINUTE[1]},
    ),
    "a price of a row vanished": (
        lambda place: place.sql("UPDATE scalp_ticks SET last_price = NULL WHERE seq = 1000"), "value",
        {"seq": 1000, "field": "last_price", "found": None},
    ),
    "the side of a row is a text that nobody knows": (
        lambda place: place.sql("UPDATE scalp_ticks SET side = 'sideways' WHERE seq = 100"), "value",
        {"seq": 100, "field": "side", "expected": 0, "found": 255},
    ),
    "a row has a flag that nobody knows": (
        lambda place: place.sql("UPDATE scalp_ticks SET flags = '{nonsense}' WHERE seq = 100"), "value",
        {"seq": 100, "field": "flags", "expected": 0},
    ),
    "the kind of a row changed": (
        lambda place: place.sql("UPDATE scalp_ticks SET kind = 'trade' WHERE seq = 9"), "value",
        {"seq": 9, "field": "kind", "expected": 0, "found": 1},
    ),
    "rows are missing": (
        lambda place: place.sql("DELETE FROM scalp_ticks WHERE seq BETWEEN 900 AND 949"), "loaded",
        {"first_seq": 900, "last_seq": 949, "expected": 50, "found": 0, "minute": MINUTE[2]},
    ),
    "the last row is missing": (
        lambda place: place.sql("DELETE FROM scalp_ticks WHERE seq = %s", RECORDS - 1), "loaded",
        {"first_seq": RECORDS - 1, "symbol": SYMBOLS[2], "minute": MINUTE[3]},
    ),
    "a row that had left the archive's ring is missing": (
        lambda place: place.sql("DELETE FROM scalp_ticks WHERE seq = %s", GAP[0]), "loaded", {"first_seq": GAP[0], "expected": 1},
    ),
    "a row is there twice": (
        lambda place: _copy_row(place, 100, 100, 1), "loaded", {"first_seq": 100, "expected": 1, "found": 2},
    ),
    "a row of nowhere": (
        lambda place: _copy_row(place, 100, RECORDS + 5, 0), "loaded", {"first_seq": RECORDS + 5, "expected": 0, "found": 1},
    ),
    "rows of an unknown session": (
        lambda place: place.sql("UPDATE scalp_ticks SET session_id = 'sess_20260101_000000_kis_ffff' WHERE seq = 100"), "loaded",
        {"session_id": "sess_20260101_000000_kis_ffff"},
    ),
    "a database gap row is missing": (
        lambda place: place.sql("DELETE FROM scalp_gaps WHERE sink = 'database' AND reason = 'ring_lap'"), "loaded",
        {"first_seq": GAP[0] + 5, "last_seq": GAP[1]},
    ),
    "a database gap row tells another reason": (
        lambda place: place.sql("UPDATE scalp_gaps SET reason = 'disk_full' WHERE sink = 'database' AND reason = 'ring_lap'"), "loaded",
        {"first_seq": GAP[0] + 5, "found": "disk_full"},
    ),
    "a database gap row covers rows that are there": (
        lambda place: place.sql("UPDATE scalp_gaps SET last_seq = last_seq + 3 WHERE sink = 'database' AND reason = 'ring_lap'"), "loaded",
        {"first_seq": GAP[1] + 1, "last_seq": GAP[1] + 3, "expected": 1, "found": 2},
    ),
    "a refused row is not kept": (
        lambda place: place.text("quarantine/kis/*_rejected.jsonl", lambda lines: []), "loaded", {"first_seq": REFUSED},
    ),
    "a gap marker is no row": (
        lambda place: place.sql("DELETE FROM scalp_gaps WHERE reason = 'ws_disconnect'"), "gap_rows",
        {"reason": "ws_disconnect", "expected": 1, "found": 0, "minute": MINUTE[1]},
    ),
    "an archive gap is no row": (
        lambda place: place.sql("DELETE FROM scalp_gaps WHERE sink = 'archive'"), "gap_rows", {"first_seq": GAP[0], "found": 0},
    ),
    "a gap row without a marker": (
        lambda place: place.sql("INSERT INTO scalp_gaps (session_id, provider, event_ring, event_seq, reason, gap_start_ns, gap_end_ns)"
                                " VALUES (%s, 'kis', 'event', 4, 'mute', %s, %s)", SESSION, START_NS, START_NS + 1), "gap_rows",
        {"reason": "mute", "expected": 0, "found": 1},
    ),
    "a gap row tells another loss": (
        lambda place: place.sql("UPDATE scalp_gaps SET lost = 4 WHERE reason = 'restart' AND lost = 5"), "gap_rows",
        {"reason": "restart", "expected": 5, "found": 4},
    ),
    "a gap marker is missing": (
        lambda place: place.events(without(lambda line: line.get("reason") == "ws_disconnect")), "archived", {"ring": "event"},
    ),
    "the row of a missing gap marker": (
        lambda place: place.events(without(lambda line: line.get("reason") == "ws_disconnect")), "gap_rows", {"expected": 0, "found": 1},
    ),
    "the copy of an archive gap is missing": (
        lambda place: place.events(without(lambda line: line.get("sink") == "archive")), "archived",
        {"first_seq": GAP[0], "what": "a gap line of a segment that system/events lacks"},
    ),
    "a counts event is missing": (
        lambda place: place.events(without(counts_of(2, SYMBOLS[0]))), "archived", {"ring": "event", "expected": 1, "found": 0},
    ),
    "a counts event of a symbol is silent": (
        lambda place: place.events(silenced(2, SYMBOLS[0])), "counts", {"minute": MINUTE[2], "expected": 3, "found": 2},
    ),
    "records of a symbol without a count": (
        lambda place: place.events(silenced(2, SYMBOLS[0])), "folded", {"minute": MINUTE[2], "symbol": SYMBOLS[0], "expected": 0},
    ),
    "the provider's own counts are silent": (
        lambda place: place.events(silenced(2, None)), "counts", {"minute": MINUTE[2], "expected": 1, "found": 0},
    ),
    "all counts of a minute are silent": (
        lambda place: [place.events(silenced(2, symbol)) for symbol in (*SYMBOLS, None)], "counts", {"expected": 3, "found": 4},
    ),
    "inputs do not add up": (
        lambda place: _change_counts(place, 0, SYMBOLS[1], inputs=1), "inputs", {"minute": MINUTE[0], "symbol": SYMBOLS[1]},
    ),
    "inputs that no record holds": (
        lambda place: _change_counts(place, 3, SYMBOLS[2], inputs=3, trades=3), "folded",
        {"minute": MINUTE[3], "symbol": SYMBOLS[2]},
    ),
    "an ignored input too many": (
        lambda place: place.change_event(counts_of(0, SYMBOLS[0]), ignored={"snapshot": 2, "duplicate": 2}), "inputs",
        {"minute": MINUTE[0], "symbol": SYMBOLS[0]},
    ),
    "messages do not add up": (
        lambda place: _change_counts(place, 2, None, messages=-1), "messages", {"minute": MINUTE[2]},
    ),
    "a quarantined message that is no line": (
        lambda place: _change_counts(place, 0, None, messages=1, quarantined=1), "quarantined",
        {"minute": MINUTE[0], "expected": 2, "found": 1},
    ),
    "a quarantined message in minutes over the budget": (
        lambda place: _change_counts(place, 2, None, messages=1, quarantined=1), "quarantined",
        {"minute": MINUTE[1], "expected": 4, "found": 3},  # what a counted row spans is judged as one
    ),
    "a message over the budget is not counted": (
        lambda place: place.text("quarantine/kis/20260122.jsonl", swapped(lambda line: b"quarantine_full" in line, whole_messages=1)),
        "quarantined", {},
    ),
    "a quarantine line is missing": (
        lambda place: place.text("quarantine/kis/20260122.jsonl", lambda lines: lines[1:]), "archived",
        {"ring": "quarantine", "first_seq": 0},
    ),
    "copies of a counts event differ": (
        lambda place: place.events(_second_differs), "counts", {"minute": MINUTE[1], "symbol": SYMBOLS[0]},
    ),
    "a restart gap tells another loss": (
        lambda place: place.change_event(lambda line: line.get("reason") == "restart" and line["lost"] == 5, lost=6), "lost",
        {"expected": 5, "found": 6},
    ),
    "no restart gap for what was lost": (
        lambda place: place.change_event(lambda line: line.get("reason") == "restart", reason="mute"), "lost", {"expected": 5, "found": 0},
    ),
    "the session ends later": (
        lambda place: place.text("system/sessions/kis.jsonl", _later_end), "archived",
        {"first_seq": RECORDS, "last_seq": RECORDS + 2, "expected": 3, "found": 0, "ring": "tick"},
    ),
    "the session ends earlier": (
        lambda place: place.text("system/sessions/kis.jsonl", _earlier_end), "archived", {"first_seq": RECORDS - 3, "expected": 0},
    ),
    "a session without a start": (
        lambda place: sessions_path(place.root, PROVIDER).unlink(), "archived", {"session_id": SESSION, "expected": "a start line"},
    ),
    "a bit flipped": (
        lambda place: _flip(segments(place.root)[1]), "segment", {"what": "damage"},
    ),
    "a segment is another than its manifest says": (
        lambda place: place.segment(100, swapped(has_seq(100), ask_price=1.5), honest=False), "segment",
        {"what": "sha256 differs from the manifest"},
    ),
    "a segment is gone": (
        lambda place: segments(place.root)[2].unlink(), "segment", {"what": "a sealed segment of the manifest is gone"},
    ),
    "a manifest line is missing": (
        lambda place: place.text("scalp/kis/*/*/manifest.jsonl", lambda lines: lines[1:]), "segment",
        {"what": "a sealed file without its manifest line"},
    ),
    "a record that does not read": (
        lambda place: place.segment(100, swapped(has_seq(100), symbol=7)), "segment",
        {"what": "a line does not read: line is not a scalp record"},
    ),
    "an event that does not read": (
        lambda place: place.text("system/events/kis/*.jsonl", lambda lines: [b"{", *lines[1:]]), "segment",
        {"what": "a line does not read"},
    ),
}  # fmt: skip


def _copy_row(place: Place, seq: int, as_seq: int, later_us: int) -> None:
    names = [name for name in TICK.names or () if not name.startswith("pad") and name not in ("seq", "quality")]
    columns = ", ".join([*names, "quality_flag", "session_id", "provider", "schema_version"])
    place.sql(
        f"INSERT INTO scalp_ticks (ts, seq, {columns}) SELECT ts + %s * interval '1 microsecond', %s, {columns} FROM scalp_ticks"
        " WHERE seq = %s AND session_id = %s", later_us, as_seq, seq, SESSION,
    )  # fmt: skip


def _change_counts(place: Place, minute: int, symbol: str | None, **by: int) -> None:
    chosen = counts_of(minute, symbol)

    def change(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [line | {name: line[name] + more for name, more in by.items()} if chosen(line) else line for line in lines]

    place.events(change)


def _second_differs(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    second = [line for line in lines if counts_of(1, SYMBOLS[0])(line)][1]
    return [line | {"inputs": 1} if line is second else line for line in lines]


def _with_end(lines: list[bytes], more: int) -> list[bytes]:
    start, end = (orjson.loads(line) for line in lines)
    end["rings"]["tick"] += more
    return [orjson.dumps(start), orjson.dumps(end)]


def _later_end(lines: list[bytes]) -> list[bytes]:
    return _with_end(lines, 3)


def _earlier_end(lines: list[bytes]) -> list[bytes]:
    return _with_end(lines, -3)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_corruption_is_found_and_named(name: str, place: Place) -> None:
    corrupt, stage, says = CORRUPTIONS[name]
    corrupt(place)
    report = audit(place)
    found = report.to_json()["mismatches"]
    assert report.ok is False, report.lines()
    named = [one for one in found if one["stage"] == stage and all(one[key] == value for key, value in says.items() if key in one)]
    assert named, report.lines()
    assert all(says.items() <= one.items() for one in named[:1]), (named[0], says)
    assert all(set(one) >= {"minute", "provider", "symbol", "stage", "expected", "found"} for one in found)


def test_what_lies_in_a_gap_of_the_event_ring_is_unproven(tmp_path: Path, pg_dsn: str) -> None:
    # The counts of minute 2: three symbols and the provider.
    whole = Archive(tmp_path / "whole").write()
    lost = [orjson.loads(line)["event_seq"] for line, _ in whole.event_lines if b'"n":3' in line]
    archive = Archive(tmp_path / "data", hidden=frozenset(lost))
    archive.archive_gap("event", lost[0], lost[-1], START_NS + 4 * MINUTE_NS)
    archive.write()
    archive.load(pg_dsn)
    report = run(archive.config, dsn=pg_dsn)
    assert report.ok is True, report.lines()
    minutes = {(one["minute"], one["stage"]) for one in report.to_json()["unproven"]}
    assert minutes >= {(MINUTE[2], "folded")}
    assert report.to_json()["totals"]["providers"][PROVIDER]["minutes"] == MINUTES - 1


@pytest.fixture
def running(tmp_path: Path) -> Archive:
    """A session without an end line: it runs, or everything was killed."""
    return Archive(tmp_path / "data", ended=False).write()


def test_a_running_session_is_judged_up_to_where_every_sink_is(running: Archive, pg_dsn: str) -> None:
    running.load(pg_dsn, upto=1250)  # 70 s before the end of what is archived
    report = run(running.config, dsn=pg_dsn)
    assert report.ok is True, report.lines()
    found = report.to_json()
    assert found["to"] == "2026-01-22T00:33:00.000Z"
    ledger = found["totals"]["providers"][PROVIDER]["rings"]["tick"]
    assert (ledger["loaded"], ledger["not_loaded"]) == (1250 - 15 - 1, RECORDS - 1250)
    of_day = run(running.config, date="20260122", dsn=pg_dsn).to_json()["totals"]["providers"][PROVIDER]["rings"]["tick"]
    assert (of_day["loaded"], of_day["not_loaded"]) == (ledger["loaded"], ledger["not_loaded"])
    with psycopg.connect(pg_dsn, autocommit=True) as conn:
        conn.execute("DELETE FROM scalp_ticks WHERE seq = 1249")
    assert run(running.config, dsn=pg_dsn).ok is False


@pytest.mark.parametrize(("durable", "ok"), [(RECORDS, True), (RECORDS + 30, False)])
def test_what_the_writer_has_archived_must_be_there(running: Archive, pg_dsn: str, tmp_path: Path, durable: int, ok: bool) -> None:
    """A file that was taken away while it grew is no record that is on its way."""
    running.load(pg_dsn)
    config = dataclasses.replace(running.config, ring=dataclasses.replace(running.config.ring, dir=tmp_path))
    path = block_path(config.ring.dir, config.data_dir, SESSION, "tick")
    path.parent.mkdir(parents=True, exist_ok=True)
    ring = create_ring(path, TICK, 4096, SESSION, "tick", 1)
    Producer(ring).publish(np.zeros(RECORDS + 50, TICK))
    Consumer(ring, "archive").seek(durable)
    report = run(config, dsn=pg_dsn)
    ring.close()
    assert report.ok is ok, report.lines()
    named = [(one["first_seq"], one["last_seq"]) for one in report.to_json()["mismatches"]]
    assert named == ([] if ok else [(RECORDS, durable - 1)])
    ledger = report.to_json()["totals"]["providers"][PROVIDER]["rings"]["tick"]
    assert (ledger["published"], ledger["in_flight"]) == (RECORDS + 50, RECORDS + 50 - durable)


def test_a_loader_far_behind_is_said_and_not_judged(running: Archive, pg_dsn: str) -> None:
    running.load(pg_dsn, upto=600)
    report = run(running.config, dsn=pg_dsn)
    assert report.ok is None, report.lines()
    assert "not in the database yet" in report.to_json()["unknown"][0]


def test_a_running_provider_without_a_judged_minute_is_unknown(running: Archive, pg_dsn: str) -> None:
    running.load(pg_dsn, upto=100)
    report = run(running.config, date="20260122", dsn=pg_dsn)
    assert report.to_json()["totals"]["providers"][PROVIDER]["minutes"] == 0
    assert report.ok is None, report.lines()
    assert any("kis: no whole minute" in why for why in report.to_json()["unknown"])


def test_what_an_ended_session_has_not_loaded_is_not_judged(written: Archive, pg_dsn: str) -> None:
    written.load(pg_dsn, upto=1400)
    report = run(written.config, dsn=pg_dsn)
    assert report.ok is None, report.lines()


def test_without_a_database_the_files_are_judged(place: Place) -> None:
    config = place.archive.config
    assert run(config, dsn="host=/nonexistent").ok is None
    place.segment(100, without(has_seq(100)))
    report = run(config, dsn="host=/nonexistent")
    assert report.ok is False
    assert [one["stage"] for one in report.to_json()["mismatches"]].count("loaded") == 0


def test_one_path_date(place: Place) -> None:
    report = audit(place, date="20260122")
    assert report.ok is True, report.lines()
    assert report.to_json()["totals"]["providers"][PROVIDER]["minutes"] == MINUTES
    other = audit(place, date="20260121")
    assert other.to_json()["mismatches"] == []
    assert other.to_json()["totals"]["archived"] == 0
    assert other.ok is None
    assert "nothing is recorded for that date" in other.to_json()["unknown"][0]
    assert other.lines()[0].startswith("LEDGER  no minute is judged")
    place.sql("UPDATE scalp_ticks SET volume = 1 WHERE seq = 100")
    assert audit(place, date="20260122").ok is False
    assert audit(place, date="20260121").ok is not False


def test_an_empty_data_directory_cannot_be_judged(tmp_path: Path, pg_dsn: str) -> None:
    report = run(Archive(tmp_path / "data").config, dsn=pg_dsn)
    assert report.ok is None
    assert "nothing is recorded" in report.to_json()["unknown"][0]


def test_records_are_what_the_counts_say() -> None:
    rows = records()
    assert len(np.unique(rows["seq"])) == RECORDS
    assert int(rows["ts_ns"][-1]) == START_NS + MINUTES * 60 * NS
