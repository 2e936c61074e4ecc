"""The checker finds what is wrong: one good run, spoiled in one place at a time."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import psycopg
import pytest
import zstandard
from checker import check
from harness import Demo

from obs.pg.embedded import EmbeddedPostgres

Spoil = Callable[[Path, psycopg.Connection], None]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, server: EmbeddedPostgres) -> Iterator[tuple[Path, str]]:
    """The data directory and the database of a run without a fault, but with a gap row."""
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute("CREATE DATABASE good")
    one = Demo(tmp_path_factory.mktemp("good"), "good", dsn=server.dsn().replace("/obs?", "/good?"), ring={"capacity": 512})
    try:
        one.start()
        one.more("kis", 300)
        one.restarted("feed", "kis", one.kill("feed", "kis"))
        one.more("kis", 300)
        one.finish()
        yield one.data, server.dsn()
    finally:
        one.close()


def segment(root: Path) -> Path:
    return max((root / "scalp" / "kis").glob("*/*/*.zst"), key=lambda path: path.stat().st_size)


def rewrite(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Change the lines of a segment, and its manifest line so that it agrees."""
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(path.read_bytes()), read_across_frames=True) as reader:
        lines = change(reader.read().splitlines())
    path.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(b"\n".join(lines) + b"\n"))
    edit(path.parent / "manifest.jsonl", lambda line: b"" if f"/{path.name}".encode() in line else line)
    records = [orjson.loads(line) for line in lines]
    told = {
        "path": str(path.relative_to(path.parents[4])), "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "records": len(lines),
        "session_id": records[0]["session_id"], "first_seq": records[0]["seq"], "last_seq": records[-1]["seq"],
    }  # fmt: skip
    with (path.parent / "manifest.jsonl").open("ab") as file:
        file.write(orjson.dumps(told) + b"\n")


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change each line of a text file; an empty result drops it."""
    lines = [changed for line in path.read_bytes().splitlines() if (changed := change(line))]
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def only_once(words: bytes, change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Return a change of the first line that holds `words`."""
    done: list[bytes] = []

    def changed(line: bytes) -> bytes:
        if done or words not in line:
            return line
        done.append(line)
        return change(line)

    return changed


def torn(root: Path, conn: psycopg.Connection) -> None:
    path = segment(root)
    path.write_bytes(path.read_bytes()[:-7])


def line_missing(root: Path, conn: psycopg.Connection) -> None:
    rewrite(segment(root), lambda lines: lines[:100] + lines[101:])


def wrong_price(root: Path, conn: psycopg.Connection) -> None:
    def change(lines: list[bytes]) -> list[bytes]:
        return [orjson.dumps(orjson.loads(lines[0]) | {"last_price": 1.0}), *lines[1:]]

    rewrite(segment(root), change)


def twice(root: Path, conn: psycopg.Connection) -> None:
    path = segment(root)
    copy = path.with_name("23_59_59.jsonl.zst")
    shutil.copy(path, copy)
    old, new = path.name.encode(), copy.name.encode()
    edit(path.parent / "manifest.jsonl", only_once(old, lambda line: line + b"\n" + line.replace(old, new)))


def event_missing(root: Path, conn: psycopg.Connection) -> None:
    for path in (root / "system" / "events" / "kis").glob("*.jsonl"):
        edit(path, only_once(b'"counts"', lambda line: b""))


def gap_missing(root: Path, conn: psycopg.Connection) -> None:
    for path in (root / "system" / "events" / "kis").glob("*.jsonl"):
        edit(path, only_once(b'"restart"', lambda line: b""))


def sent_more(root: Path, conn: psycopg.Connection) -> None:
    """One more input than was received, where no gap is."""
    path = root / "sim" / "upbit.jsonl"
    lines = path.read_bytes().splitlines()
    at = next(number for number, line in enumerate(lines) if b'"n":50,' in line)
    invented = orjson.loads(lines[at]) | {"k": 7}
    for number in range(at, len(lines)):
        if b'"n":' in lines[number]:
            value = orjson.loads(lines[number])
            lines[number] = orjson.dumps(value | {"n": value["n"] + 1})
    path.write_bytes(b"\n".join([*lines[:at], orjson.dumps(invented), *lines[at:]]) + b"\n")


def sent_less(root: Path, conn: psycopg.Connection) -> None:
    edit(root / "sim" / "upbit.jsonl", only_once(b'"n":50,', lambda line: line.replace(b'"k":', b'"k":9')))


def counts_wrong(root: Path, conn: psycopg.Connection) -> None:
    def change(line: bytes) -> bytes:
        value = orjson.loads(line)
        return orjson.dumps(value | {"inputs": value["inputs"] + 1, "trades": value["trades"] + 1})

    for path in (root / "system" / "events" / "upbit").glob("*.jsonl"):
        edit(path, only_once(b'"trades":', change))


def row_missing(root: Path, conn: psycopg.Connection) -> None:
    conn.execute("DELETE FROM scalp_ticks WHERE seq = 77 AND provider = 'kis'")


def row_differs(root: Path, conn: psycopg.Connection) -> None:
    conn.execute("UPDATE scalp_ticks SET bid_size = bid_size + 0.00000001 WHERE seq = 77 AND provider = 'upbit'")


def row_invented(root: Path, conn: psycopg.Connection) -> None:
    conn.execute("UPDATE scalp_ticks SET seq = 999999 WHERE seq = 77 AND provider = 'upbit'")


def gap_row_missing(root: Path, conn: psycopg.Connection) -> None:
    conn.execute("DELETE FROM scalp_gaps WHERE reason = 'restart'")


def end_missing(root: Path, conn: psycopg.Connection) -> None:
    edit(root / "system" / "sessions" / "kis.jsonl", only_once(b'"end"', lambda line: b""))


SPOILS: list[tuple[Spoil, str]] = [
    (torn, "torn frame"),
    (line_missing, "sequences do not follow each other"),
    (line_missing, "is missing"),
    (wrong_price, "not what trade"),
    (twice, "is there twice"),
    (twice, "stored twice"),
    (event_missing, "event archive"),
    (gap_missing, "event archive"),
    (gap_missing, "is only in scalp_gaps"),
    (sent_more, "no gap row explains"),
    (sent_less, "never sent"),
    (counts_wrong, "folded inputs"),
    (row_missing, "77..77 is missing"),
    (row_differs, "differs from the archive"),
    (row_invented, "in no archive gap row"),
    (gap_row_missing, "is only in system/events"),
    (end_missing, "no end line"),
]


@pytest.mark.parametrize(("spoil", "found"), SPOILS, ids=[f"{spoil.__name__}-{number}" for number, (spoil, _) in enumerate(SPOILS)])
def test_spoiled_run_is_found(good: tuple[Path, str], tmp_path: Path, spoil: Spoil, found: str) -> None:
    data, dsn = good
    root = tmp_path / "data"
    shutil.copytree(data, root, ignore=shutil.ignore_patterns("pg", "state"))
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("CREATE DATABASE spoiled TEMPLATE good")
    try:
        spoiled = dsn.replace("/obs?", "/spoiled?")
        with psycopg.connect(spoiled, autocommit=True) as conn:
            spoil(root, conn)
        with pytest.raises(AssertionError) as raised:
            check(root, spoiled)
        assert found in str(raised.value)
    finally:
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("DROP DATABASE spoiled WITH (FORCE)")


def test_good_run_is_good(good: tuple[Path, str]) -> None:
    data, dsn = good
    verdicts = check(data, dsn.replace("/obs?", "/good?"))
    assert all(verdict.archived > 200 for verdict in verdicts.values())
