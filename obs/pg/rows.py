"""TICK and SWING rows to binary COPY blocks, column-wise.

A block is a whole COPY stream: signature, tuples, trailer. A tuple of the binary format has a length before every value,
so rows differ in layout only where a value is null or a text has another length. Rows are therefore sorted by *shape*
(which values are null, which code each text has, how long the symbol is): all rows of a shape are one fixed layout, a
template that holds every constant byte, into which the varying columns are stored as strided arrays; then the tuples are put
back into the order of the rows, which the indexes like best. Rows have few shapes, tens at most.

Work goes by chunks of rows: their arrays stay in a core's cache and below the size from which malloc asks the kernel for new
pages each time, which would take longer than all the rest; and the server stores one chunk while the next is made.

NUMERIC: a float64 leaves as the decimal that its shortest spelling (`repr`) says, rounded half up to the 8 decimals of
the column. For |v| < 1e15 / 10^d, n = rint(v * 10^d) is checked by n / 10^d == v: n and 10^d are exact and the division
rounds correctly, so equality proves that n / 10^d is the one decimal of up to 15 digits that reads as v. d = 8 settles
nearly all values at once, d = 15 - digits the large ones, and `decimal` what is left (17 digits; tiny values). Every number
goes out with 7 base-10000 digits, the most that NUMERIC(28,8) takes; the server strips the zeros. Larger values go out
as infinity, which those columns refuse as they refuse any number too large.

Source: PostgreSQL manual, COPY, "Binary Format"; numeric_recv and make_result in src/backend/utils/adt/numeric.c.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Final

import numpy as np

from obs.record.schema import (
    BAR_SOURCES,
    FLAGS,
    KINDS,
    MARKETS,
    NO_SEQ,
    NO_TIME,
    PHASES,
    QUALITIES,
    SCHEMA_VERSION,
    SIDES,
    SWING,
    SYMBOL_BYTES,
    TICK,
    VENUES,
)

SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
TRAILER: Final = struct.pack(">h", -1)
PG_EPOCH_US: Final = 946_684_800_000_000  # 2000-01-01, from which timestamps count
SCALE: Final = 8  # decimals of all prices and sizes
CHUNK: Final = 1024  # rows; about half a megabyte
TEXT_OID: Final = 25

# Column, kind, TICK field. Invariant: the columns of the statement copy_scalp_ticks, in its order.
COLUMNS: Final = (
    ("ts", "time", "ts_ns"),
    ("event_time", "time", "event_ns"),
    ("symbol", "symbol", "symbol"),
    ("bid_price", "numeric", "bid_price"),
    ("ask_price", "numeric", "ask_price"),
    ("bid_size", "numeric", "bid_size"),
    ("ask_size", "numeric", "ask_size"),
    ("last_price", "numeric", "last_price"),
    ("volume", "numeric", "volume"),
    ("session_id", "session_id", ""),
    ("mitigation_level", "int2", "mitigation_level"),
    ("quality_flag", "code", "quality"),
    ("seq", "int8", "seq"),
    ("kind", "code", "kind"),
    ("provider", "provider", ""),
    ("market", "code", "market"),
    ("venue", "code", "venue"),
    ("side", "code", "side"),
    ("open", "numeric", "open"),
    ("high", "numeric", "high"),
    ("low", "numeric", "low"),
    ("trades", "int8", "trades"),
    ("quotes", "int8", "quotes"),
    ("acc_volume", "numeric", "acc_volume"),
    ("venue_seq", "int8", "venue_seq"),
    ("phase", "code", "phase"),
    ("flags", "flags", "flags"),
    ("ts_ns", "int8", "ts_ns"),
    ("event_ns", "int8", "event_ns"),
    ("recv_ns", "int8", "recv_ns"),
    ("schema_version", "version", ""),
    ("receive_time", "time", "recv_ns"),
)
CODES: Final = {"side": SIDES, "kind": KINDS, "quality": QUALITIES, "market": MARKETS, "venue": VENUES, "phase": PHASES}
NULLS: Final = {"event_ns": NO_TIME, "recv_ns": NO_TIME, "venue_seq": NO_SEQ}  # a field and its value for null
NUMERICS: Final = tuple(field for _, kind, field in COLUMNS if kind == "numeric")

# The same of SWING rows and the statement copy_swing_bars_10m.
SWING_COLUMNS: Final = (
    ("ts", "time", "ts_ns"),
    ("bar_time", "time", "bar_ns"),
    ("symbol", "symbol", "symbol"),
    ("open", "numeric", "open"),
    ("high", "numeric", "high"),
    ("low", "numeric", "low"),
    ("close", "numeric", "close"),
    ("volume", "numeric", "volume"),
    ("bid_price", "numeric", "bid_price"),
    ("ask_price", "numeric", "ask_price"),
    ("bar_source", "code", "bar_source"),
    ("day_open", "numeric", "day_open"),
    ("day_high", "numeric", "day_high"),
    ("day_low", "numeric", "day_low"),
    ("acc_volume", "numeric", "acc_volume"),
    ("session_id", "session_id", ""),
    ("mitigation_level", "int2", "mitigation_level"),
    ("quality_flag", "code", "quality"),
    ("seq", "int8", "seq"),
    ("provider", "provider", ""),
    ("market", "code", "market"),
    ("venue", "code", "venue"),
    ("ts_ns", "int8", "ts_ns"),
    ("bar_ns", "int8", "bar_ns"),
    ("recv_ns", "int8", "recv_ns"),
    ("schema_version", "version", ""),
    ("receive_time", "time", "recv_ns"),
)

# What a number's place in its row looks like; two bits each in a row's shape.
PLAIN, NULL, NEGATIVE, BEYOND = range(4)
_SIGNS: Final = {PLAIN: 0x0000, NEGATIVE: 0x4000, BEYOND: 0xD000}
_DIGITS: Final = 7  # base 10000: five before the point, two after it
_DIGIT_BYTES: Final = 2 * _DIGITS
_POINT: Final = 10.0**SCALE
_EXACT: Final = 1e15  # any decimal with fewer units than this has at most 15 digits
_POWERS: Final = 10.0 ** np.arange(SCALE)
_BOUNDS: Final = 10.0 ** np.arange(8, 16)  # at 10^k an integer part has k + 1 digits
_SPACIOUS: Final = Context(prec=400)


@dataclass(frozen=True, eq=False)
class Table:
    """How the rows of one ring become tuples of one table. `name` stands in the names of its statements (copy_<name>, …)."""

    name: str
    dtype: np.dtype
    columns: tuple[tuple[str, str, str], ...]
    codes: Mapping[str, Sequence[str]]  # field -> its texts
    nulls: Mapping[str, int]  # field -> its value for null
    by_day: bool  # partitioned by the day of ts

    @cached_property
    def numerics(self) -> tuple[str, ...]:
        return tuple(field for _, kind, field in self.columns if kind == "numeric")

    @cached_property
    def has_flags(self) -> bool:
        return any(kind == "flags" for _, kind, _ in self.columns)

    @cached_property
    def shape_bits(self) -> dict[str, int]:
        """A row's shape as one integer: bit widths of its parts, lowest first."""
        bits = dict.fromkeys(self.numerics, 2) | dict.fromkeys(self.nulls, 1)
        bits |= {field: len(texts).bit_length() for field, texts in self.codes.items()}
        bits |= {"symbol": SYMBOL_BYTES.bit_length()} | ({"flags": len(FLAGS)} if self.has_flags else {})
        assert sum(bits.values()) <= 63, bits
        return bits

    @cached_property
    def plain(self) -> tuple[str, ...]:
        """The fields that leave as they are, numbers and the symbol."""
        return tuple(dict.fromkeys(field for _, kind, field in self.columns if kind in ("symbol", "int2", "int8")))

    @cached_property
    def times(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(field for _, kind, field in self.columns if kind == "time"))


TICKS: Final = Table("scalp_ticks", TICK, COLUMNS, CODES, NULLS, by_day=True)
SWINGS: Final = Table(
    "swing_bars_10m", SWING, SWING_COLUMNS, {"bar_source": BAR_SOURCES, "quality": QUALITIES, "market": MARKETS, "venue": VENUES},
    {"bar_ns": NO_TIME, "recv_ns": NO_TIME}, by_day=False,
)  # fmt: skip
TABLES: Final = {"tick": TICKS, "swing": SWINGS}  # by ring


@dataclass(frozen=True)
class _Layout:
    """One shape: the bytes that all its rows share, and where the varying columns go."""

    template: np.ndarray
    fields: np.dtype
    sources: tuple[tuple[str, str], ...]  # (name in `fields`, name of the column array)


def copy_block(rows: np.ndarray, session_id: str, provider: str, table: Table = TICKS) -> bytes:
    """Encode rows as one whole binary COPY stream for the table's copy statement; see copy_chunks."""
    return b"".join(copy_chunks(rows, session_id, provider, table))


def copy_chunks(rows: np.ndarray, session_id: str, provider: str, table: Table = TICKS) -> Iterator[bytes]:
    """Yield the pieces of one whole binary COPY stream for the statement copy_<table>, rows in the order given.

    `rows`: (n,), of the table's dtype, n >= 0, borrowed until the last piece; any order. A code that has no name leaves as null.
    Nothing is refused here: a value that the table cannot hold is refused by the database.
    """
    assert rows.dtype == table.dtype, rows.dtype
    yield SIGNATURE
    for start in range(0, len(rows), CHUNK):
        yield b"".join(_tuples(table, rows[start : start + CHUNK], session_id, provider))
    yield TRAILER


def _tuples(table: Table, rows: np.ndarray, session_id: str, provider: str) -> list[bytes]:
    """Return the binary tuple of each row."""
    statuses, digits = encode_numerics(np.stack([rows[field] for field in table.numerics]))
    shapes = _shapes(table, rows, statuses)
    order = np.argsort(shapes, kind="stable")
    shapes = shapes[order]
    # As void items: a structured copy goes field by field.
    columns = _columns(table, rows.view(f"V{table.dtype.itemsize}").take(order).view(table.dtype), digits.take(order, axis=1))
    changes = np.flatnonzero(np.diff(shapes, prepend=-1))
    tuples = np.empty(len(rows), object)
    for start, stop in pairwise([*changes.tolist(), len(rows)]):
        layout = _layout(table, int(shapes[start]), session_id, provider)
        size = len(layout.template)
        block = np.empty((stop - start, size), np.uint8)
        block[:] = layout.template
        view = block.view(layout.fields)[:, 0]
        for name, source in layout.sources:
            view[name] = columns[source][start:stop]
        tuples[order[start:stop]] = block.view(f"V{size}")[:, 0].tolist()
    made: list[bytes] = tuples.tolist()
    return made


def _columns(table: Table, rows: np.ndarray, digits: np.ndarray) -> dict[str, np.ndarray]:
    columns = {field: rows[field] for field in table.plain}
    for field in table.times:
        columns[f"time {field}"] = rows[field] // 1000 - PG_EPOCH_US
    columns |= zip(table.numerics, digits, strict=True)
    return columns


def _shapes(table: Table, rows: np.ndarray, statuses: np.ndarray) -> np.ndarray:
    """Return the shape of each row, (n,), int64."""
    parts: dict[str, np.ndarray] = dict(zip(table.numerics, statuses, strict=True))
    for field, null in table.nulls.items():
        parts[field] = rows[field] == null
    for field, texts in table.codes.items():
        parts[field] = np.minimum(rows[field], len(texts))
    parts["symbol"] = np.char.str_len(rows["symbol"])
    if table.has_flags:
        parts["flags"] = rows["flags"] & ((1 << len(FLAGS)) - 1)
    shapes = np.zeros(len(rows), np.int64)
    at = 0
    for name, bits in table.shape_bits.items():
        shapes |= parts[name].astype(np.int64) << at
        at += bits
    return shapes


@lru_cache(maxsize=4096)
def _layout(table: Table, shape: int, session_id: str, provider: str) -> _Layout:
    parts = {}
    for name, bits in table.shape_bits.items():
        parts[name] = shape & ((1 << bits) - 1)
        shape >>= bits
    constants = {"session_id": session_id, "provider": provider, "version": SCHEMA_VERSION}
    template = bytearray(struct.pack(">h", len(table.columns)))
    names, formats, offsets, sources = [], [], [], []
    for column, kind, field in table.columns:
        value: str | None = constants.get(kind)
        if kind == "code":
            code, texts = parts[field], table.codes[field]
            value = (texts[code] or None) if code < len(texts) else None
        if kind == "flags":
            template += _text_array([name for bit, name in enumerate(FLAGS) if parts["flags"] >> bit & 1])
        elif value is not None:
            template += _counted(value.encode())
        elif kind == "code" or (kind in ("time", "int8") and parts.get(field)) or (kind == "numeric" and parts[field] == NULL):
            template += _counted(None)
        else:
            head, numpy_format, size = _varying(kind, parts.get(field, 0))
            template += head
            names.append(column)
            formats.append(numpy_format)
            offsets.append(len(template))
            sources.append((column, f"time {field}" if kind == "time" else field))
            template += bytes(size)
    fields = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": len(template)})
    return _Layout(np.frombuffer(bytes(template), np.uint8), fields, tuple(sources))


def _varying(kind: str, part: int) -> tuple[bytes, str, int]:
    """Return the constant bytes before a varying value, its numpy format, and its size."""
    if kind == "numeric":
        return struct.pack(">ihhHH", 8 + _DIGIT_BYTES, _DIGITS, 4, _SIGNS[part], SCALE), f"V{_DIGIT_BYTES}", _DIGIT_BYTES
    if kind == "symbol":
        return struct.pack(">i", part), f"S{part}" if part else "V0", part
    if kind == "int2":
        return struct.pack(">i", 2), ">i2", 2
    return struct.pack(">i", 8), ">i8", 8


def _counted(data: bytes | None) -> bytes:
    return struct.pack(">i", -1) if data is None else struct.pack(">i", len(data)) + data


def _text_array(texts: Sequence[str]) -> bytes:
    """Return a text[] with its length: dimensions, has-nulls, element type, then length and lower bound, then the elements."""
    if not texts:
        return _counted(struct.pack(">iii", 0, 0, TEXT_OID))
    head = struct.pack(">iiiii", 1, 0, TEXT_OID, len(texts), 1)
    return _counted(head + b"".join(_counted(text.encode()) for text in texts))


def encode_numerics(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split numbers into their NUMERIC digits.

    `values`: any shape, float64. Returns (statuses uint8, digits V14), both of that shape: PLAIN, NULL (NaN), NEGATIVE or BEYOND
    (infinite, or 1e20 and more), and seven big-endian base-10000 digits of the absolute value, five of them before the point.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        size = np.abs(values)
        scaled = np.rint(size * _POINT)
        settled = (scaled / _POINT == size) & (scaled < _EXACT)
        unknown = np.isnan(values)
        statuses = np.where(unknown, np.uint8(NULL), np.where(values < 0, np.uint8(NEGATIVE), np.uint8(PLAIN)))
        units = np.where(settled, scaled, 0.0).astype(np.int64)
    digits = np.zeros((*values.shape, _DIGITS), ">u2")
    for place in (6, 5, 4):
        higher = units // 10_000
        digits[..., place] = units - higher * 10_000
        units = higher
    digits[..., 3] = units
    open_ = np.flatnonzero(~(settled | unknown))
    if open_.size:
        flat = digits.reshape(-1, _DIGITS)
        flat[open_], beyond = _hard_digits(size.reshape(-1)[open_])
        statuses.reshape(-1)[open_[beyond]] = BEYOND
    return statuses, digits.view(f"V{_DIGIT_BYTES}")[..., 0]


def _hard_digits(size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return digits (n, 7) and who is beyond (n,) of absolute values, (n,), that 8 decimals did not settle."""
    digits = np.zeros((len(size), _DIGITS), ">u2")
    large = np.flatnonzero((size >= 1e7) & (size < _EXACT))
    decimals = SCALE - 1 - np.searchsorted(_BOUNDS, size[large], side="right")
    power = _POWERS[np.maximum(decimals, 0)]
    scaled = np.rint(size[large] * power)
    settled = scaled / power == size[large]
    large, power, scaled = large[settled], power[settled].astype(np.int64), scaled[settled].astype(np.int64)
    whole = scaled // power
    units = (scaled - whole * power) * (10**SCALE // power)
    for place in (4, 3, 2, 1):
        digits[large, place] = whole % 10_000
        whole //= 10_000
    digits[large, 5], digits[large, 6] = units // 10_000, units % 10_000
    beyond = np.zeros(len(size), bool)
    for at in sorted(set(range(len(size))).difference(large.tolist())):
        spelled = _spelled_digits(float(size[at]))
        if spelled is None:
            beyond[at] = True
        else:
            digits[at] = spelled
    return digits, beyond


def _spelled_digits(size: float) -> list[int] | None:
    """Return the digits of the decimal that `repr` spells, None if there is no room for them."""
    if size >= 1e20:
        return None
    units = int(Decimal(repr(size)).scaleb(SCALE, _SPACIOUS).to_integral_value(ROUND_HALF_UP, _SPACIOUS))
    digits = []
    for _ in range(_DIGITS):
        units, digit = divmod(units, 10_000)
        digits.append(digit)
    return None if units else digits[::-1]
