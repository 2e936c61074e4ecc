"""Against a rival: records to a sealed segment, beside polars' write_ndjson and zstandard on the same rows, one after the other.

Ours: lines, frames with checksums, sha256, write, fsync, seal, manifest; a flush for each 20,480 records, as a busy writer has.
The rival: a DataFrame of the same columns, with the same texts and codes, written as NDJSON into memory, compressed with the
same level, written and synced once. Its lines say the same when parsed. polars works on as many threads as it likes: the CPU
seconds of all of them count.
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import orjson
import zstandard

from native_bench.bench_jsonl import as_dict
from native_bench.inputs import SESSION, tick_rows
from native_bench.rows import Row, Target, pyperf_main
from obs.record.jsonl import TickLines
from obs.record.schema import FLAGS, KINDS, MARKETS, NO_SEQ, NO_TIME, PHASES, QUALITIES, SIDES, VENUES
from obs.segment.format import Frame, Series, pieces
from obs.segment.writer import SegmentOptions, SegmentWriter

ROW: Final = Row(
    "segment", "records to sealed segment", "polars write_ndjson and zstandard on the same rows, one after the other",
    (Target("rate", 0.8, "polars"),), "81,920 records",
)  # fmt: skip
SIZES: Final = (4096, 20_480, 81_920)
_BATCH: Final = 4096
_FLUSH: Final = 5  # batches
_LEVEL: Final = 1


def _seal(folder: Path, rows: np.ndarray) -> Path:
    writer = SegmentWriter(Series(folder, "scalp", "kis", "kr_stocks"), SegmentOptions(ZoneInfo("Asia/Seoul"), 86_400, 1 << 30), SESSION)
    encode = TickLines("kis", SESSION).encode
    for number, at in enumerate(range(0, len(rows), _BATCH), 1):
        batch = rows[at : at + _BATCH]
        writer.append(encode(batch), at, batch["ts_ns"])
        if number % _FLUSH == 0:
            writer.flush()
    writer.seal()
    return next(folder.rglob("*.zst"))


def sealed(loops: int, count: int) -> float:
    rows = tick_rows(count)
    spent = 0.0
    for _ in range(loops):
        with tempfile.TemporaryDirectory() as name:
            start = time.process_time()
            path = _seal(Path(name), rows)
            spent += time.process_time() - start
            last = [piece.lines for piece in pieces(path.read_bytes()) if isinstance(piece, Frame)][-1][-1]
            assert orjson.loads(last)["seq"] == count - 1, last
    return spent


def _frame(rows: np.ndarray) -> Any:
    """Return a DataFrame with the keys and the values of scalp lines."""
    import polars as pl

    def text(names: tuple[str, ...], field: str) -> Any:
        return pl.Series([name or None for name in names], dtype=pl.String).gather(np.ascontiguousarray(rows[field]))

    def number(field: str) -> Any:
        return pl.Series(np.ascontiguousarray(rows[field]), nan_to_null=True)

    def when(field: str) -> Any:
        moments = pl.Series(np.ascontiguousarray(rows[field])).cast(pl.Datetime("ns", "UTC"))
        return moments.dt.strftime("%Y-%m-%dT%H:%M:%S.%3fZ")

    def distinct(field: str, told: Callable[[Any], Any]) -> Any:
        """Each distinct value is told once, as ours does."""
        found, places = np.unique(rows[field], return_inverse=True)
        return pl.Series([told(value) for value in found.tolist()]).gather(places)

    event_ns, venue_seq = pl.Series(np.ascontiguousarray(rows["event_ns"])), pl.Series(np.ascontiguousarray(rows["venue_seq"]))
    constant = len(rows)
    data = {
        "ts": when("ts_ns"), "event_time": when("event_ns"), "symbol": distinct("symbol", bytes.decode),
        **{name: number(name) for name in ("bid_price", "ask_price", "bid_size", "ask_size", "last_price", "volume")},
        "session_id": pl.repeat(SESSION, constant, eager=True), "mitigation_level": number("mitigation_level"),
        "quality_flag": text(QUALITIES, "quality"), "seq": number("seq"), "kind": text(KINDS, "kind"),
        "provider": pl.repeat("kis", constant, eager=True), "market": text(MARKETS, "market"), "venue": text(VENUES, "venue"),
        "side": text(SIDES, "side"), **{name: number(name) for name in ("open", "high", "low", "trades", "quotes", "acc_volume")},
        "venue_seq": venue_seq.set(venue_seq == NO_SEQ, None), "phase": text(PHASES, "phase"),
        "flags": distinct("flags", flag_names), "ts_ns": number("ts_ns"), "event_ns": event_ns.set(event_ns == NO_TIME, None),
        "recv_ns": number("recv_ns"),
    }  # fmt: skip
    return pl.DataFrame(data)


def flag_names(bits: int) -> list[str]:
    return [name for bit, name in enumerate(FLAGS) if bits >> bit & 1]


def _polars(path: Path, rows: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    _frame(rows).write_ndjson(buffer)
    lines = buffer.getvalue()
    packed = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(lines)
    with path.open("wb") as file:
        file.write(packed)
        file.flush()
        os.fsync(file.fileno())
    return lines


def rival(loops: int, count: int) -> float:
    rows = tick_rows(count)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "rows.zst")
        lines = _polars(path, rows[:500]).splitlines()
        assert [orjson.loads(line) for line in lines] == [orjson.loads(orjson.dumps(as_dict(row, "kis"))) for row in rows[:500].tolist()]
        start = time.process_time()
        for _ in range(loops):
            _polars(path, rows)
        return time.process_time() - start


def main() -> None:
    sides, missing = {"obs": sealed, "polars": rival}, {}
    try:
        import polars  # noqa: F401
    except ImportError as error:
        del sides["polars"]
        missing["polars"] = f"not installed: {error}"
    pyperf_main(ROW, sides, {f"{count:,} records": (partial(int, count), count) for count in SIZES}, missing)


if __name__ == "__main__":
    main()
