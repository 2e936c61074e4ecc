"""Rows to JSONL lines and back: the TICK lines of scalp segments, the SWING lines of swing segments.

Lines are made column by column: one orjson call per numeric column gives the shortest text that reads back as the same
float64 (and null for NaN), one bytes template per line puts the texts between their keys. Codes that change rarely are
rendered once per distinct combination. The exact integers (ts_ns, event_ns, recv_ns) stand beside the ISO texts, and
decoding reads only them. Unknown values are null: NaN, event_ns 0, venue_seq -1, and every code 0 whose name is "".

Why not one dict and one orjson call per row: three times slower, and it makes 31 Python objects per record.
Why not integers where a price is whole: readers compare numbers, and the round trip is what is promised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import orjson

from obs.errors import DecodeError
from obs.record.schema import (
    BAR_SOURCES,
    FLAGS,
    KINDS,
    MARKETS,
    NO_SEQ,
    NO_TIME,
    PHASES,
    QUALITIES,
    SIDES,
    SWING,
    SYMBOL_BYTES,
    TICK,
    VENUES,
)

GAP_PREFIX: Final = b'{"event_type"'
SWING_DATASET: Final = "track_a_swing"

_NUMPY: Final = orjson.OPT_SERIALIZE_NUMPY
_BLOCK: Final = 1000  # lines made or parsed at once: ten times as many spend up to half of the time in cache misses and the collector
_NS: Final = 1_000_000_000
_MS: Final = 1_000_000


def is_gap(line: bytes) -> bool:
    """Tell whether a line of a segment is a gap marker; every other line is a record."""
    return line.startswith(GAP_PREFIX)


def _json(value: Any) -> bytes:
    return orjson.dumps(value)


def _named(names: Sequence[str], code: int) -> bytes:
    """Render a code; "" is null. A code of a newer table leaves as its number, so nothing is lost or invented."""
    if code >= len(names):
        return str(code).encode()
    return _json(names[code] or None)


def _numbers(column: np.ndarray) -> list[bytes]:
    """Render a numeric column; NaN and infinities are null."""
    return orjson.dumps(np.ascontiguousarray(column), option=_NUMPY)[1:-1].split(b",")


def _nullable(column: np.ndarray, null: int) -> list[bytes]:
    texts = _numbers(column)
    for at in np.flatnonzero(column == null).tolist():
        texts[at] = b"null"
    return texts


def _iso(column: np.ndarray, null: int | None) -> list[bytes]:
    """Render UTC nanoseconds as quoted ISO texts with milliseconds, truncated; `null` leaves as null."""
    seconds, rest = np.divmod(column, _NS)
    stems: dict[int, bytes] = {}
    for second in np.unique(seconds).tolist():  # records of one batch share few seconds
        stems[second] = b'"' + str(np.datetime64(second, "s")).encode() + b'.%03dZ"'
    texts = [stems[second] % milli for second, milli in zip(seconds.tolist(), (rest // _MS).tolist(), strict=True)]
    if null is not None:
        for at in np.flatnonzero(column == null).tolist():
            texts[at] = b"null"
    return texts


def _rendered(codes: np.ndarray, render: Callable[[int], bytes]) -> list[bytes]:
    """Render each distinct code once."""
    values = codes.tolist()
    texts = {code: render(code) for code in set(values)}
    return [texts[code] for code in values]


def _symbols(column: np.ndarray) -> list[bytes]:
    values = column.tolist()
    texts = {value: _json(value.decode("ascii", "replace")) for value in set(values)}
    return [texts[value] for value in values]


def _flags(bits: int) -> bytes:
    """Render flag bits as a list of names; a bit of a newer table leaves as "bit_<n>"."""
    names = [FLAGS[bit] if bit < len(FLAGS) else f"bit_{bit}" for bit in range(32) if bits >> bit & 1]
    return _json(names)


def _pack(*columns: np.ndarray) -> np.ndarray:
    """Join u1 columns into one integer per row, first column lowest."""
    packed = columns[0].astype(np.int64)
    for place, column in enumerate(columns[1:], 1):
        packed |= column.astype(np.int64) << (8 * place)
    return packed


def _quality(code: int) -> bytes:
    return b'%d,"quality_flag":%b' % (code & 255, _named(QUALITIES, code >> 8))


class TickLines:
    """Encodes TICK rows of one session as scalp lines."""

    def __init__(self, provider: str, session_id: str) -> None:
        self._provider = _json(provider)
        session = _json(session_id).replace(b"%", b"%%")
        self._template = (
            b'{"ts":%b,"event_time":%b,"symbol":%b,"bid_price":%b,"ask_price":%b,"bid_size":%b,"ask_size":%b,"last_price":%b,"volume":%b,'
            b'"session_id":' + session + b',"mitigation_level":%b,"seq":%b,"kind":%b,"open":%b,"high":%b,"low":%b,"trades":%b,"quotes":%b,'
            b'"acc_volume":%b,"venue_seq":%b,"phase":%b,"ts_ns":%b,"event_ns":%b,"recv_ns":%b}'
        )

    def encode(self, rows: np.ndarray) -> list[bytes]:
        """Return one line per row, without newline.

        `rows`: (n,), dtype TICK, borrowed. `symbol` should be ASCII (others leave as U+FFFD).
        """
        lines: list[bytes] = []
        for start in range(0, len(rows), _BLOCK):
            lines += self._encode(rows[start : start + _BLOCK])
        return lines

    def _encode(self, rows: np.ndarray) -> list[bytes]:
        codes = _pack(rows["kind"], rows["market"], rows["venue"], rows["side"])
        phases = rows["phase"].astype(np.int64) | rows["flags"].astype(np.int64) << 8
        columns = (
            _iso(rows["ts_ns"], None), _iso(rows["event_ns"], NO_TIME), _symbols(rows["symbol"]),
            _numbers(rows["bid_price"]), _numbers(rows["ask_price"]), _numbers(rows["bid_size"]), _numbers(rows["ask_size"]),
            _numbers(rows["last_price"]), _numbers(rows["volume"]),
            _rendered(_pack(rows["mitigation_level"], rows["quality"]), _quality),
            _numbers(rows["seq"]), _rendered(codes, self._codes),
            _numbers(rows["open"]), _numbers(rows["high"]), _numbers(rows["low"]), _numbers(rows["trades"]), _numbers(rows["quotes"]),
            _numbers(rows["acc_volume"]), _nullable(rows["venue_seq"], NO_SEQ), _rendered(phases, _phase),
            _numbers(rows["ts_ns"]), _nullable(rows["event_ns"], NO_TIME), _numbers(rows["recv_ns"]),
        )  # fmt: skip
        template = self._template
        return [template % texts for texts in zip(*columns, strict=True)]

    def _codes(self, code: int) -> bytes:
        return b'%b,"provider":%b,"market":%b,"venue":%b,"side":%b' % (
            _named(KINDS, code & 255),
            self._provider,
            _named(MARKETS, code >> 8 & 255),
            _named(VENUES, code >> 16 & 255),
            _named(SIDES, code >> 24),
        )


def _phase(code: int) -> bytes:
    return b'%b,"flags":%b' % (_named(PHASES, code & 255), _flags(code >> 8))


class SwingLines:
    """Encodes SWING rows of one session as swing lines."""

    def __init__(self, provider: str, session_id: str) -> None:
        session, source = (_json(name).replace(b"%", b"%%") for name in (session_id, provider))
        self._template = (
            b'{"ts":%b,"session":' + session + b',"dataset":"' + SWING_DATASET.encode() + b'","market":%b,"symbol":%b,'
            b'"price":{"open":%b,"high":%b,"low":%b,"close":%b},"volume":%b,"bid_price":%b,"ask_price":%b,"source":' + source + b","
            b'"bar_source":%b,"day":{"open":%b,"high":%b,"low":%b,"acc_volume":%b},"seq":%b,"bar_time":%b,"venue":%b,'
            b'"mitigation_level":%b,"ts_ns":%b,"bar_ns":%b,"recv_ns":%b}'
        )

    def encode(self, rows: np.ndarray) -> list[bytes]:
        """Return one line per row, without newline. `rows`: (n,), dtype SWING, borrowed."""
        if not len(rows):
            return []
        columns = (
            _iso(rows["ts_ns"], None), _rendered(rows["market"], lambda code: _named(MARKETS, code)), _symbols(rows["symbol"]),
            *(_numbers(rows[name]) for name in ("open", "high", "low", "close", "volume", "bid_price", "ask_price")),
            _rendered(rows["bar_source"], lambda code: _named(BAR_SOURCES, code)),
            *(_numbers(rows[name]) for name in ("day_open", "day_high", "day_low", "acc_volume", "seq")),
            _iso(rows["bar_ns"], NO_TIME), _rendered(rows["venue"], lambda code: _named(VENUES, code)),
            _rendered(_pack(rows["mitigation_level"], rows["quality"]), _quality),
            _numbers(rows["ts_ns"]), _nullable(rows["bar_ns"], NO_TIME), _numbers(rows["recv_ns"]),
        )  # fmt: skip
        template = self._template
        return [template % texts for texts in zip(*columns, strict=True)]


def _parse(lines: Sequence[bytes]) -> list[dict[str, Any]]:
    try:
        parsed: list[dict[str, Any]] = orjson.loads(b"[" + b",".join(lines) + b"]")
    except orjson.JSONDecodeError as error:
        raise DecodeError("line is not JSON", first=lines[0][:80], lines=len(lines)) from error
    if len(parsed) != len(lines):
        raise DecodeError("a line is not one JSON object", first=lines[0][:80], lines=len(lines), objects=len(parsed))
    return parsed


def _code_column(values: list[Any], names: Sequence[str]) -> list[int]:
    codes: dict[Any, int] = {name: code for code, name in enumerate(names)}
    codes[None] = 0
    return [value if type(value) is int else codes[value] for value in values]


def _flag_bits(names: list[str]) -> int:
    bits = 0
    for name in names:
        bits |= 1 << (FLAGS.index(name) if name in FLAGS else int(name.removeprefix("bit_")))
    return bits


def _symbol_column(parsed: list[dict[str, Any]]) -> list[bytes]:
    symbols = [line["symbol"].encode() for line in parsed]
    if max(map(len, symbols)) > SYMBOL_BYTES:  # numpy would cut it: another instrument
        raise ValueError(f"symbol over {SYMBOL_BYTES} bytes: {max(symbols, key=len)!r}")
    return symbols


_TICK_NUMBERS: Final = (
    "bid_price", "ask_price", "bid_size", "ask_size", "last_price", "volume", "open", "high", "low", "acc_volume", "seq",
    "trades", "quotes", "ts_ns", "recv_ns", "mitigation_level",
)  # fmt: skip
_TICK_CODES: Final = (("side", "side", SIDES), ("kind", "kind", KINDS), ("quality", "quality_flag", QUALITIES),
                      ("market", "market", MARKETS), ("venue", "venue", VENUES), ("phase", "phase", PHASES))  # fmt: skip


def decode_ticks(lines: Sequence[bytes]) -> np.ndarray:
    """Return the TICK rows, shape (n,), of scalp lines; the inverse of TickLines.encode.

    `lines`: record lines only, without gap lines. Raises DecodeError if any line is not a scalp record.
    """
    rows = np.zeros(len(lines), TICK)
    for start in range(0, len(lines), _BLOCK):
        _fill_ticks(rows[start : start + _BLOCK], lines[start : start + _BLOCK])
    return rows


def _fill_ticks(rows: np.ndarray, lines: Sequence[bytes]) -> None:
    parsed = _parse(lines)
    try:
        for name in _TICK_NUMBERS:  # None becomes NaN in a float column and an error in an integer one
            rows[name] = [line[name] for line in parsed]
        rows["symbol"] = _symbol_column(parsed)
        rows["event_ns"] = [line["event_ns"] or NO_TIME for line in parsed]
        rows["venue_seq"] = [NO_SEQ if line["venue_seq"] is None else line["venue_seq"] for line in parsed]
        for field, key, names in _TICK_CODES:
            rows[field] = _code_column([line[key] for line in parsed], names)
        rows["flags"] = [_flag_bits(line["flags"]) if line["flags"] else 0 for line in parsed]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DecodeError("line is not a scalp record", error=repr(error), first=lines[0][:80], lines=len(lines)) from error


def decode_swings(lines: Sequence[bytes]) -> np.ndarray:
    """Return the SWING rows, shape (n,), of swing lines; the inverse of SwingLines.encode. Raises DecodeError."""
    rows = np.zeros(len(lines), SWING)
    if not lines:
        return rows
    parsed = _parse(lines)
    try:
        for name in ("volume", "bid_price", "ask_price", "seq", "ts_ns", "recv_ns", "mitigation_level"):
            rows[name] = [line[name] for line in parsed]
        for name in ("open", "high", "low", "close"):
            rows[name] = [line["price"][name] for line in parsed]
        for name in ("open", "high", "low"):
            rows[f"day_{name}"] = [line["day"][name] for line in parsed]
        rows["acc_volume"] = [line["day"]["acc_volume"] for line in parsed]
        rows["symbol"] = _symbol_column(parsed)
        rows["bar_ns"] = [line["bar_ns"] or NO_TIME for line in parsed]
        for field, key, names in (
            ("market", "market", MARKETS), ("venue", "venue", VENUES), ("quality", "quality_flag", QUALITIES),
            ("bar_source", "bar_source", BAR_SOURCES),
        ):  # fmt: skip
            rows[field] = _code_column([line[key] for line in parsed], names)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DecodeError("line is not a swing record", error=repr(error), first=lines[0][:80], lines=len(lines)) from error
    return rows
