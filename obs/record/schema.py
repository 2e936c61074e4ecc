"""The fixed-size records: numpy structured dtypes, their codes, and the struct format that writes one row.

All are little-endian and a multiple of 64 bytes. Times are UTC epoch nanoseconds (int64), 0 for "not known". Prices
and sizes are float64, NaN for "not known", and a decimal of up to 15 significant digits leaves with the value it came
with. `seq` is the record's place in its ring: 0, 1, 2, … within a session.

A change of any dtype changes its `fingerprint`, by which an old ring is refused and never misread.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

import numpy as np

SCHEMA_VERSION: Final = "1.0"
NO_TIME: Final = 0
NO_SEQ: Final = -1  # a venue sequence that the venue did not send
SYMBOL_BYTES: Final = 20

# Codes. Index = the stored number; "" leaves as null. Append only: the numbers are in rings and in tests.
SIDES: Final = ("", "buy", "sell")
KINDS: Final = ("sample", "trade", "quote", "cancel", "correct")
QUALITIES: Final = ("normal", "degraded", "gap")
MARKETS: Final = ("", "kr_stocks", "us_stocks", "global_stocks", "crypto")
VENUES: Final = ("", "krx", "nxt", "unified", "us", "kr", "sg", "id", "th")
PHASES: Final = (
    "", "pre_market", "pre_open", "regular", "closing", "after_market", "after_hours", "off_board", "expected", "halted",
)  # fmt: skip

# Inputs: what a decoder writes. `ignore` says why an input will not be folded into a record.
INPUT_TRADE: Final = 0
INPUT_QUOTE: Final = 1  # a book or best quote: replaces both sides, NaN = side absent
INPUT_TICKER: Final = 2  # a summary: last price and accumulated volume, no trade of its own
IGNORED: Final = ("", "snapshot", "expected", "duplicate", "unknown_symbol", "malformed", "unsubscribed")
HAS_QUOTE: Final = 1  # INPUT.flags: this trade carries the best bid and ask, which replace the known ones

INPUT: Final = np.dtype(
    [
        ("recv_ns", "<i8"),  # our receive time of the message
        ("event_ns", "<i8"),  # the venue's time, NO_TIME if it sent none
        ("symbol", f"S{SYMBOL_BYTES}"),
        ("row", "<i4"),  # place of the symbol in the context's table; 0 = unknown
        ("kind", "u1"),  # INPUT_*
        ("ignore", "u1"),  # index into IGNORED; 0 = fold it
        ("side", "u1"),  # taker side of a trade, index into SIDES
        ("phase", "u1"),  # index into PHASES
        ("flags", "<u4"),
        ("price", "<f8"),  # trade or last price
        ("size", "<f8"),  # size of this trade
        ("bid_price", "<f8"),
        ("ask_price", "<f8"),
        ("bid_size", "<f8"),
        ("ask_size", "<f8"),
        ("acc_volume", "<f8"),  # the venue's accumulated volume
        ("base_price", "<f8"),  # previous close, for the price limit guard
        ("venue_seq", "<i8"),  # the venue's own id or sequence, NO_SEQ if none
        ("acc_day", "<i4"),  # YYYYMMDD of the venue's day that acc_volume counts; 0 unknown
        ("pad", "V4"),
    ]
)

# One bit per guard that fired; names as they leave in JSONL and in the database.
FLAGS: Final = (
    "price_limit", "price_jump", "volume_spike", "time_backwards", "time_ahead", "time_behind", "crossed", "bad_range",
    "ohlc_order", "symbol_pattern",
)  # fmt: skip

TICK: Final = np.dtype(
    [
        ("seq", "<i8"),
        ("ts_ns", "<i8"),  # end of this record's interval
        ("event_ns", "<i8"),  # the venue's time of its newest input
        ("recv_ns", "<i8"),  # our receive time of that
        ("symbol", f"S{SYMBOL_BYTES}"),
        ("market", "u1"),
        ("venue", "u1"),
        ("side", "u1"),
        ("phase", "u1"),
        ("flags", "<u4"),
        ("mitigation_level", "u1"),
        ("quality", "u1"),
        ("kind", "u1"),
        ("pad0", "V1"),
        ("bid_price", "<f8"),
        ("ask_price", "<f8"),
        ("bid_size", "<f8"),
        ("ask_size", "<f8"),
        ("last_price", "<f8"),
        ("volume", "<f8"),  # size traded since the previous record of this symbol
        ("open", "<f8"),
        ("high", "<f8"),
        ("low", "<f8"),
        ("acc_volume", "<f8"),
        ("venue_seq", "<i8"),
        ("trades", "<u4"),  # inputs with a trade since the previous record
        ("quotes", "<u4"),  # all other inputs since the previous record
        ("pad1", "V32"),
    ]
)

BAR_SOURCES: Final = ("snapshot", "candle")
SWING: Final = np.dtype(
    [
        ("seq", "<i8"),
        ("ts_ns", "<i8"),
        ("bar_ns", "<i8"),  # start of the 10-minute bar
        ("recv_ns", "<i8"),
        ("symbol", f"S{SYMBOL_BYTES}"),
        ("market", "u1"),
        ("venue", "u1"),
        ("bar_source", "u1"),
        ("mitigation_level", "u1"),
        ("quality", "u1"),
        ("pad0", "V7"),
        ("open", "<f8"),
        ("high", "<f8"),
        ("low", "<f8"),
        ("close", "<f8"),
        ("volume", "<f8"),
        ("day_open", "<f8"),
        ("day_high", "<f8"),
        ("day_low", "<f8"),
        ("acc_volume", "<f8"),
        ("bid_price", "<f8"),
        ("ask_price", "<f8"),
        ("pad1", "V40"),
    ]
)

EVENT_KINDS: Final = ("gap_marker", "reconnection_event", "counts", "mitigation", "overflow", "slot", "lifecycle", "warning")
EVENT_PAYLOAD_BYTES: Final = 960
EVENT: Final = np.dtype(
    [
        ("seq", "<i8"),
        ("ts_ns", "<i8"),
        ("start_ns", "<i8"),
        ("end_ns", "<i8"),
        ("symbol", f"S{SYMBOL_BYTES}"),
        ("kind", "<u2"),
        ("payload_bytes", "<u2"),
        ("pad0", "V8"),
        ("payload", f"V{EVENT_PAYLOAD_BYTES}"),  # a JSON object, UTF-8, the first payload_bytes of it
    ]
)

# A message that could not be read, cut into chunks of one message each; at most 64 KiB of it are kept.
CHUNK_DATA_BYTES: Final = 3968
CHUNK_KEEP_BYTES: Final = 64 * 1024
CHUNK: Final = np.dtype(
    [
        ("seq", "<i8"),
        ("recv_ns", "<i8"),
        ("part", "<u2"),  # 0 .. parts - 1
        ("parts", "<u2"),
        ("data_bytes", "<u4"),  # of this part
        ("total_bytes", "<i8"),  # of the whole message, kept or not
        ("whole", "u1"),  # 1: a message with nothing readable in it; 0: a bad span inside a data message
        ("pad0", "V7"),
        ("reason", "S32"),
        ("sha256", "V32"),  # of the whole message or span
        ("pad1", "V24"),
        ("data", f"V{CHUNK_DATA_BYTES}"),
    ]
)

DTYPES: Final = {"tick": TICK, "event": EVENT, "swing": SWING, "poll_event": EVENT, "quarantine": CHUNK}

_STRUCT_CODES: Final = {"i": {1: "b", 2: "h", 4: "i", 8: "q"}, "u": {1: "B", 2: "H", 4: "I", 8: "Q"}, "f": {8: "d"}}


def struct_format(dtype: np.dtype) -> str:
    """Return the struct format that packs one row of `dtype`, fields in order, padding skipped."""
    codes = ["="]
    for name in dtype.names or ():
        field = dtype[name]
        if name.startswith("pad"):
            codes.append(f"{field.itemsize}x")
        elif field.kind in "SV":
            codes.append(f"{field.itemsize}s")
        else:
            codes.append(_STRUCT_CODES[field.kind][field.itemsize])
    text = "".join(codes)
    assert struct.calcsize(text) == dtype.itemsize, (text, dtype.itemsize)
    return text


def fingerprint(dtype: np.dtype) -> bytes:
    """Return 16 bytes that change with any name, type or offset of `dtype`."""
    text = repr(np.lib.format.dtype_to_descr(dtype)) + SCHEMA_VERSION
    return hashlib.sha256(text.encode()).digest()[:16]


for _dtype in (INPUT, TICK, SWING, EVENT, CHUNK):
    assert _dtype.itemsize % 64 == 0, _dtype.itemsize
