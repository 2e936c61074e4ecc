"""Upbit data messages to INPUT rows: trade, orderbook and ticker, in DEFAULT, SIMPLE, JSON_LIST and SIMPLE_LIST format.

The first bytes tell the format, and one typed parse gives the row. Whatever that parse refuses goes the careful way: each
element of a list for itself, other orders of keys, quoted numbers; what is left is a fault of that element alone.

A SNAPSHOT trade is the last old one and is ignored; a SNAPSHOT book or ticker is the present state and is not. A price of 0 is
a padded level, no value. Previous closes are left out: crypto has no daily price limit to guard.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from datetime import date
from functools import lru_cache
from typing import Any, Final

import msgspec
import numpy as np
import orjson

from obs.errors import DecodeError
from obs.providers.base import (
    IGNORE_SNAPSHOT,
    IGNORE_UNKNOWN_SYMBOL,
    INPUT_BYTES,
    INPUT_STRUCT,
    MAX_INPUTS_PER_MESSAGE,
    MAX_MESSAGE_BYTES,
    NAN,
    UNKNOWN_ROW,
    Context,
    Fault,
)
from obs.providers.upbit import protocol as p
from obs.providers.upbit.messages import DEFAULT, SIMPLE, Names
from obs.providers.upbit.symbols import SYMBOL, without_depth
from obs.record.schema import HAS_QUOTE, INPUT_QUOTE, INPUT_TICKER, INPUT_TRADE, NO_SEQ, NO_TIME, PHASES, SIDES, SYMBOL_BYTES

_pack = INPUT_STRUCT.pack_into
_MILLI_NS: Final = 1_000_000
_DAY_MS: Final = 86_400_000
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_SIDES: Final = {p.BID: SIDES.index("buy"), p.ASK: SIDES.index("sell")}
# Source: documentation, market_state of a ticker. Trades and books do not tell a phase.
_PHASES: Final = {"PREVIEW": PHASES.index("pre_open"), "ACTIVE": PHASES.index("regular"), "DELISTED": PHASES.index("halted")}
_REFUSED: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

# A comma between two messages of a list.
_ELEMENT: Final = re.compile(rb",(?=\{\"ty(?:pe)?\":)")

# message struct, row, symbol, ignore, recv_ns, buffer, offset: packs one row at offset
_Write = Callable[[Any, int, bytes, int, int, memoryview, int], None]


class UpbitContext(Context):
    """Adds what the code of a message leads to: (row, symbol), with and without a number of levels."""

    __slots__ = ("table",)

    def __init__(self, rows: dict[bytes, int]) -> None:
        super().__init__(rows)
        self.table = {code.decode(): (row, code) for code, row in rows.items()}
        self.table |= {f"{code.decode()}.{depth}": (row, code) for code, row in rows.items() for depth in p.DEPTHS}


def decode(payload: bytes | memoryview, recv_ns: int, ctx: Any, out: np.ndarray, at: int) -> tuple[int, list[Fault]]:
    """Write the inputs of a data message to out[at:]; see Provider.decode. `ctx`: an UpbitContext."""
    if type(payload) is not bytes:
        payload = bytes(payload)
    if len(payload) > MAX_MESSAGE_BYTES:
        raise DecodeError("oversize", length=len(payload), allowed=MAX_MESSAGE_BYTES)
    buffer = ctx.buffer if ctx.out is out else ctx.bind(out)
    offset = at * INPUT_BYTES
    parse = _PARSERS.get(payload[:6])
    if parse is not None:
        try:
            found = parse(payload)
        except _REFUSED:
            return _decode_parts(payload, recv_ns, ctx, buffer, offset)
        if type(found) is not list:
            known = ctx.table.get(found.code)
            if known is not None:
                row, symbol = known
                _WRITERS[type(found)](found, row, symbol, 0, recv_ns, buffer, offset)
                return 1, []
    return _decode_parts(payload, recv_ns, ctx, buffer, offset)


def _decode_parts(payload: bytes, recv_ns: int, ctx: UpbitContext, buffer: memoryview, offset: int) -> tuple[int, list[Fault]]:
    """Read each element of a list for itself, a lone object as a list of one."""
    parts = _parts(payload)
    written, faults = 0, []
    for start, part in parts:
        try:
            message = _read(part)
            row, symbol = ctx.table.get(message.code) or _stranger(message.code)
            _WRITERS[type(message)](message, row, symbol, 0 if row else IGNORE_UNKNOWN_SYMBOL, recv_ns, buffer, offset)
        except ValueError as error:
            faults.append(Fault(start, start + len(part), str(error)))
        except struct.error:
            faults.append(Fault(start, start + len(part), "range"))
        else:
            written += 1
            offset += INPUT_BYTES
    if not written:
        raise DecodeError(faults[0].reason if faults else "empty", length=len(payload), elements=len(parts))
    return written, faults


def _parts(payload: bytes) -> list[tuple[int, bytes]]:
    """Return (offset, bytes) of every element of a JSON list, or of the whole payload. Raises DecodeError."""
    if not payload.lstrip().startswith(b"["):
        return [(0, payload)]
    try:
        raws = [bytes(raw) for raw in msgspec.json.decode(payload, type=list[msgspec.Raw])]
    except _REFUSED:
        # Not JSON as a whole: its elements are looked for by how they begin, so that one bad one costs no other.
        raws = _ELEMENT.split(payload.strip()[1:].removesuffix(b"]"))
    if len(raws) > MAX_INPUTS_PER_MESSAGE:
        raise DecodeError("count", elements=len(raws), allowed=MAX_INPUTS_PER_MESSAGE)
    parts, at = [], 0
    for part in raws:
        at = payload.index(part, at)
        parts.append((at, part))
        at += len(part)
    return parts


def _read(part: bytes) -> Any:
    """Return the struct of one object, in any order of keys. Raises ValueError with a short reason."""
    try:
        message = orjson.loads(part)
    except orjson.JSONDecodeError:
        raise ValueError("json") from None
    if not isinstance(message, dict) or not (DEFAULT.tag in message or SIMPLE.tag in message):
        raise ValueError("no_type")
    names: Names = DEFAULT if DEFAULT.tag in message else SIMPLE
    kind = message[names.tag]
    if kind not in p.TYPES.values():
        raise ValueError("unknown_type")
    try:
        return names.tolerant(message)
    except _REFUSED:
        raise ValueError("field") from None


def _stranger(code: str) -> tuple[int, bytes]:
    """Return (row 0, symbol) of a code that is not subscribed. Raises ValueError("symbol") if it is no code."""
    symbol = without_depth(code)
    if not SYMBOL.fullmatch(symbol) or len(symbol) > SYMBOL_BYTES:
        raise ValueError("symbol")
    return UNKNOWN_ROW, symbol.encode()


def _write_trade(m: Any, row: int, symbol: bytes, ignore: int, recv_ns: int, buffer: memoryview, offset: int) -> None:
    """Pack a trade. Its best bid and ask, if sent, are the top of the book at that trade."""
    ask, bid = m.best_ask_price, m.best_bid_price
    if m.stream_type == "SNAPSHOT" and not ignore:
        ignore = IGNORE_SNAPSHOT
    ms, seq = m.trade_timestamp, m.sequential_id
    _pack(
        buffer, offset, recv_ns, NO_TIME if ms is None else ms * _MILLI_NS, symbol, row, INPUT_TRADE, ignore, _SIDES.get(m.ask_bid, 0), 0,
        0 if ask is None and bid is None else HAS_QUOTE, m.trade_price or NAN, m.trade_volume,
        bid or NAN, ask or NAN, _size(m.best_bid_size) if bid else NAN, _size(m.best_ask_size) if ask else NAN,
        NAN, NAN, NO_SEQ if seq is None else seq, 0,
    )  # fmt: skip


def _write_book(m: Any, row: int, symbol: bytes, ignore: int, recv_ns: int, buffer: memoryview, offset: int) -> None:
    """Pack the best level of a whole book; no level at all is a book without sides."""
    ask = bid = ask_size = bid_size = NAN
    if m.orderbook_units:
        best = m.orderbook_units[0]
        if best.ask_price:
            ask, ask_size = best.ask_price, best.ask_size
        if best.bid_price:
            bid, bid_size = best.bid_price, best.bid_size
    ms = m.timestamp
    _pack(
        buffer, offset, recv_ns, NO_TIME if ms is None else ms * _MILLI_NS, symbol, row, INPUT_QUOTE, ignore, 0, 0, 0,
        NAN, NAN, bid, ask, bid_size, ask_size, NAN, NAN, NO_SEQ, 0,
    )  # fmt: skip


def _write_ticker(m: Any, row: int, symbol: bytes, ignore: int, recv_ns: int, buffer: memoryview, offset: int) -> None:
    """Pack a ticker: last price and the volume since 00:00 UTC; it has no bid, no ask and no trade of its own.

    The day of that volume is the day on which the message was made.
    """
    ms, made = m.trade_timestamp, m.timestamp
    _pack(
        buffer, offset, recv_ns, NO_TIME if ms is None else ms * _MILLI_NS, symbol, row, INPUT_TICKER, ignore, 0,
        _PHASES.get(m.market_state, 0), 0, m.trade_price or NAN, NAN, NAN, NAN, NAN, NAN, _size(m.acc_trade_volume), NAN, NO_SEQ,
        0 if made is None else _utc_day(made // _DAY_MS),
    )  # fmt: skip


def _size(value: float | None) -> float:
    return NAN if value is None else value


@lru_cache(64)
def _utc_day(epoch_day: int) -> int:
    day = date.fromordinal(epoch_day + _EPOCH_DAY)
    return day.year * 10_000 + day.month * 100 + day.day


_WRITERS: Final[dict[type, _Write]] = {
    DEFAULT.trade: _write_trade, DEFAULT.book: _write_book, DEFAULT.ticker: _write_ticker,
    SIMPLE.trade: _write_trade, SIMPLE.book: _write_book, SIMPLE.ticker: _write_ticker,
}  # fmt: skip
_PARSERS: Final[dict[bytes, Callable[[bytes], Any]]] = {
    b'{"type': DEFAULT.decode,
    b'{"ty":': SIMPLE.decode,
    b'[{"typ': DEFAULT.decode_list,
    b'[{"ty"': SIMPLE.decode_list,
}
