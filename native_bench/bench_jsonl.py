"""Against a rival: records to JSONL lines, beside a dict and orjson.dumps for each record; both give the same when parsed."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import numpy as np
import orjson

from native_bench.inputs import SESSION, tick_rows
from native_bench.rows import Row, Target, pyperf_main
from obs.record.jsonl import TickLines
from obs.record.schema import FLAGS, KINDS, MARKETS, NO_SEQ, NO_TIME, PHASES, QUALITIES, SIDES, VENUES

ROW: Final = Row(
    "jsonl", "records to JSONL", "a dict and orjson.dumps per record", (Target("rate", 5, "dicts"),), "4,096 records",
)  # fmt: skip
SIZES: Final = (41, 410, 4096)


def iso(ns: int) -> str:
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ns // 1_000_000 % 1000:03d}Z"


def as_dict(row: tuple[Any, ...], provider: str) -> dict[str, Any]:
    """Return the object that a scalp line is, from a row as numpy's tolist gives it."""
    (seq, ts_ns, event_ns, recv_ns, symbol, market, venue, side, phase, flags, level, quality, kind, _, bid_price, ask_price, bid_size,
     ask_size, last_price, volume, open_, high, low, acc_volume, venue_seq, trades, quotes, _) = row  # fmt: skip
    return {
        "ts": iso(ts_ns), "event_time": None if event_ns == NO_TIME else iso(event_ns), "symbol": symbol.decode(),
        "bid_price": bid_price, "ask_price": ask_price, "bid_size": bid_size, "ask_size": ask_size, "last_price": last_price,
        "volume": volume, "session_id": SESSION, "mitigation_level": level, "quality_flag": QUALITIES[quality], "seq": seq,
        "kind": KINDS[kind], "provider": provider, "market": MARKETS[market] or None, "venue": VENUES[venue] or None,
        "side": SIDES[side] or None, "open": open_, "high": high, "low": low, "trades": trades, "quotes": quotes,
        "acc_volume": acc_volume, "venue_seq": None if venue_seq == NO_SEQ else venue_seq, "phase": PHASES[phase] or None,
        "flags": [name for bit, name in enumerate(FLAGS) if flags >> bit & 1] if flags else [], "ts_ns": ts_ns,
        "event_ns": None if event_ns == NO_TIME else event_ns, "recv_ns": recv_ns,
    }  # fmt: skip


def dict_lines(rows: np.ndarray) -> list[bytes]:
    return [orjson.dumps(as_dict(row, "kis")) for row in rows.tolist()]


def columns(loops: int, count: int) -> float:
    rows, encode = tick_rows(count), TickLines("kis", SESSION).encode
    assert [orjson.loads(line) for line in encode(rows)] == [orjson.loads(line) for line in dict_lines(rows)], "same when parsed"
    start = time.process_time()
    for _ in range(loops):
        encode(rows)
    return time.process_time() - start


def dicts(loops: int, count: int) -> float:
    rows = tick_rows(count)
    start = time.process_time()
    for _ in range(loops):
        dict_lines(rows)
    return time.process_time() - start


def main() -> None:
    pyperf_main(ROW, {"obs": columns, "dicts": dicts}, {f"{count:,} records": (partial(int, count), count) for count in SIZES})


if __name__ == "__main__":
    main()
