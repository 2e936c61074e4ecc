"""KIS data messages to INPUT rows: `<flag>|<tr_id>|<count>|<records>`, all fields of all records joined with `^`.

Width: the number of fields of a record is computed from each message, because it drifts. It must divide exactly, lie in
[minimum, 1.5 x minimum), and every record must start with a symbol; known fields are read by place from the front and
what follows them is left alone. A record is refused when a field of fixed form (time, date, sign, halt, phase) is not in
its place: one stands behind the last number that is read, so a record with a field too many or too few shows itself.

When the grid fails (wrong count, a field lost in one record), records are looked for by the registered symbols that they
start with; if two of them agree on a width, one of another width is a fault, and so is what belongs to no symbol.
No symbol found: DecodeError.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from obs.errors import DecodeError
from obs.providers.base import (
    IGNORE_UNKNOWN_SYMBOL,
    INPUT_BYTES,
    INPUT_STRUCT,
    MAX_INPUTS_PER_MESSAGE,
    MAX_MESSAGE_BYTES,
    NAN,
    UNKNOWN_ROW,
    Bad,
    Context,
    Fault,
    Taken,
    decode_each,
    is_much,
)
from obs.providers.kis import protocol as p
from obs.providers.kis.columns import TradeTable, decode_trades
from obs.providers.kis.fields import (
    SIDE_CODES,
    SIGN_FACTORS,
    Numbers,
    book_phase,
    day_of,
    instant,
    nearest_instant,
    number,
    time_of_day,
    trade_phase,
    us_phase,
)
from obs.providers.kis.symbols import KR_SYMBOL, US_PREFIXES, US_SYMBOL
from obs.record.schema import HAS_QUOTE, INPUT_QUOTE, INPUT_TRADE, NO_SEQ, SYMBOL_BYTES

_pack = INPUT_STRUCT.pack_into
_MANY: Final = 96  # messages, from which on reading them by columns is faster than one by one
_ROW: Final = np.dtype(f"V{INPUT_BYTES}")  # copied as a whole, not field by field
_prices: Final = Numbers(zero=NAN)  # a price of 0 means no value
_sizes: Final = Numbers(zero=0.0)

# fields, row, ignore, recv_ns, buffer, offset: packs one row at offset; ValueError(reason) if the record is not one
_Write = Callable[[list[bytes], int, int, int, memoryview, int], None]


@dataclass(frozen=True, slots=True)
class _Layout:
    """One form of record: its least width, its writer, where its HHMMSS lies, and whether a first field can be a symbol."""

    minimum: int
    write: _Write
    time: int
    is_key: Callable[[bytes], bool]

    @property
    def beyond(self) -> int:
        """So many fields are more than one record: widths have grown by 4 in years, never by half."""
        return self.minimum * 3 // 2


class KisContext(Context):
    """Adds, for messages of one record, what their text before the first `^` leads to; `trades`: for many messages at once."""

    __slots__ = ("single", "trades")

    def __init__(self, rows: dict[bytes, int], tr_ids: Sequence[str]) -> None:
        super().__init__(rows)
        self.single = {
            b"0|%b|001|%b" % (tr_id, key): (_LAYOUTS[tr_id].write, _LAYOUTS[tr_id].minimum, _LAYOUTS[tr_id].beyond, row, key)
            for tr_id in map(str.encode, tr_ids)
            for key, row in rows.items()
        }
        domestic = [tr_id for tr_id in tr_ids if _LAYOUTS[tr_id.encode()] is _TRADE]
        self.trades = TradeTable(domestic[0], rows) if domestic else None


def decode_many(payloads: Sequence[bytes], recv_ns: Sequence[int], ctx: Any, out: np.ndarray, at: int) -> Taken:
    """Write the records of data messages to out[at:]; see Provider.decode_many. `ctx`: a KisContext."""
    if ctx.trades is None or len(payloads) < _MANY:
        return decode_each(decode, payloads, recv_ns, ctx, out, at)
    inputs, counts = decode_trades(payloads, recv_ns, ctx.trades)
    rows, ready = inputs.view(_ROW), counts > 0
    places = np.concatenate(([0], np.cumsum(counts)))  # of the rows of each message
    edges = (np.flatnonzero(ready[1:] != ready[:-1]) + 1).tolist()
    messages, written = 0, 0
    bad: list[Bad] = []
    for start, stop in itertools.pairwise([0, *edges, len(payloads)]):
        to = at + written
        if ready[start]:
            fits = min(stop, int(np.searchsorted(places, places[start] + len(out) - to, "right")) - 1)
            read = rows[places[start] : places[fits]]
            out.view(_ROW)[to : to + len(read)] = read
            messages, written = fits, written + len(read)
        else:
            more = decode_each(decode, payloads[start:stop], recv_ns[start:stop], ctx, out, to)
            messages, written = start + more.messages, written + more.inputs
            bad += [(start + place, what) for place, what in more.bad]
        if messages < stop or is_much(bad):
            break
    return Taken(messages, written, bad)


def decode(payload: bytes | memoryview, recv_ns: int, ctx: Any, out: np.ndarray, at: int) -> tuple[int, list[Fault]]:
    """Write the records of a data message to out[at:]; see Provider.decode. `ctx`: a KisContext."""
    if type(payload) is not bytes:
        payload = bytes(payload)
    if len(payload) > MAX_MESSAGE_BYTES:
        raise DecodeError("oversize", length=len(payload), allowed=MAX_MESSAGE_BYTES)
    fields = payload.split(b"^")
    buffer = ctx.buffer if ctx.out is out else ctx.bind(out)
    single = ctx.single.get(fields[0])
    if single is not None:
        write, minimum, beyond, row, key = single
        if minimum <= len(fields) < beyond:
            fields[0] = key
            try:
                write(fields, row, 0, recv_ns, buffer, at * INPUT_BYTES)
            except (ValueError, struct.error) as error:
                raise DecodeError(_reason(error), length=len(payload)) from None
            return 1, []
    return _decode_any(payload, fields, recv_ns, ctx, at * INPUT_BYTES)


def _decode_any(payload: bytes, fields: list[bytes], recv_ns: int, ctx: KisContext, offset: int) -> tuple[int, list[Fault]]:
    """Read a message of several records, or of a symbol that is not registered."""
    layout, count, fields[0] = _header(fields[0])
    width, rest = divmod(len(fields), count)
    rows, write, buffer = ctx.rows, layout.write, ctx.buffer
    bad: list[tuple[int, int, str]] = []  # first field, last field + 1, reason
    spans: Iterable[tuple[int, int]]
    if rest or not _grid_holds(fields, width, layout, rows):
        spans = _located(fields, layout, rows, bad)
    else:
        spans = zip(range(0, len(fields), width), range(width, len(fields) + 1, width), strict=True)
    written = 0
    for first, last in spans:
        record = fields[first:last]
        row = rows.get(record[0])
        try:
            if row is not None:
                write(record, row, 0, recv_ns, buffer, offset)
            elif layout.is_key(record[0]):
                write(record, UNKNOWN_ROW, IGNORE_UNKNOWN_SYMBOL, recv_ns, buffer, offset)
            else:
                bad.append((first, last, "symbol"))
                continue
        except (ValueError, struct.error) as error:
            bad.append((first, last, _reason(error)))
            continue
        written += 1
        offset += INPUT_BYTES
    if not written:
        raise DecodeError(bad[0][2] if bad else "width", count=count, fields=len(fields), least=layout.minimum)
    return written, _faults(payload, fields, sorted(bad)) if bad else []


def _header(first: bytes) -> tuple[_Layout, int, bytes]:
    """Return (layout, count, symbol) of the text before the first `^`. Raises DecodeError."""
    parts = first.split(b"|")
    if len(parts) != 4:
        raise DecodeError("header", parts=len(parts), expected="flag|tr_id|count|record")
    flag, tr_id, count, symbol = parts
    if flag == p.FLAG_ENCRYPTED:
        raise DecodeError("encrypted", tr_id=repr(tr_id[:16]))
    if flag != p.FLAG_PLAIN:
        raise DecodeError("header", flag=repr(flag[:16]), expected="0")
    layout = _LAYOUTS.get(tr_id)
    if layout is None:
        raise DecodeError("unknown_tr", tr_id=repr(tr_id[:16]))
    if not count.isdigit() or not 1 <= len(count) <= 4 or not 1 <= int(count) <= MAX_INPUTS_PER_MESSAGE:
        raise DecodeError("count", count=repr(count[:16]), allowed=f"1 to {MAX_INPUTS_PER_MESSAGE}")
    return layout, int(count), symbol


def _grid_holds(fields: list[bytes], width: int, layout: _Layout, rows: dict[bytes, int]) -> bool:
    """Say whether records lie at the multiples of `width`: all start with a registered symbol there, or none elsewhere."""
    if not layout.minimum <= width < layout.beyond:
        return False
    if all(map(rows.__contains__, fields[::width])):
        return True
    return all(place % width == 0 for place in _anchors(fields, layout, rows))


def _anchors(fields: list[bytes], layout: _Layout, rows: dict[bytes, int]) -> list[int]:
    """Return the places of registered symbols that are followed, where a record has it, by a time of day."""
    found = []
    for place in range(len(fields) - layout.time):
        if fields[place] in rows:
            try:
                time_of_day(fields[place + layout.time])
            except ValueError:
                continue
            found.append(place)
    return found


def _located(fields: list[bytes], layout: _Layout, rows: dict[bytes, int], bad: list[tuple[int, int, str]]) -> list[tuple[int, int]]:
    """Return the spans of the records that begin with a registered symbol; adds to `bad` what belongs to none of them.

    Raises DecodeError if there are more records than a message may have.
    """
    anchors = _anchors(fields, layout, rows)
    if len(anchors) > MAX_INPUTS_PER_MESSAGE:
        raise DecodeError("count", records=len(anchors), allowed=MAX_INPUTS_PER_MESSAGE)
    stretches = list(itertools.pairwise([*anchors, len(fields)]))
    widths = [stop - start for start, stop in stretches if layout.minimum <= stop - start < layout.beyond]
    width = max(sorted(set(widths)), key=widths.count, default=layout.minimum)
    spans = []
    for start, stop in stretches:
        if stop - start < layout.minimum or (widths.count(width) > 1 and width != stop - start < layout.beyond):
            bad.append((start, stop, "width"))
        elif stop - start < layout.beyond:
            spans.append((start, stop))
        else:
            # Behind this record lies one whose symbol is not to be found.
            spans.append((start, start + width))
            bad.append((start + width, stop, "symbol"))
    if anchors and anchors[0] > 0:
        bad.append((0, anchors[0], "symbol"))
    return spans


def _faults(payload: bytes, fields: list[bytes], bad: list[tuple[int, int, str]]) -> list[Fault]:
    """Turn places of fields into places of bytes: fields[0] lost its header, all else is as in the payload."""
    ends: list[int] = []
    at = len(payload) - sum(map(len, fields)) - len(fields) + 1
    starts = []
    for text in fields:
        starts.append(at)
        at += len(text)
        ends.append(at)
        at += 1
    return [Fault(starts[first], ends[last - 1], reason) for first, last, reason in bad]


def _reason(error: Exception) -> str:
    """Return the short reason of a refused record; what numbers do not fit a row is "range"."""
    return str(error) if type(error) is ValueError else "range"


def _write_trade(f: list[bytes], row: int, ignore: int, recv_ns: int, buffer: memoryview, offset: int) -> None:
    """Pack a record of H0STCNT0, H0UNCNT0 or H0NXCNT0. The quotes are those at that trade."""
    event_ns, day = instant(f[p.T_DATE], f[p.T_TIME])
    phase, expected = trade_phase(f[p.T_PHASE], f[p.T_HALT], f[p.T_HOUR], f[p.T_MARKET] if len(f) > p.T_MARKET else b"")
    price, ask, bid = _prices[f[p.T_PRICE]], _prices[f[p.T_ASK]], _prices[f[p.T_BID]]
    acc = f[p.T_ACC_VOLUME]
    base = price + SIGN_FACTORS.get(f[p.T_SIGN], NAN) * abs(_sizes[f[p.T_CHANGE]])
    _pack(
        buffer, offset, recv_ns, event_ns, f[0], row, INPUT_TRADE, ignore or expected, SIDE_CODES.get(f[p.T_SIDE], 0), phase, HAS_QUOTE,
        price, _sizes[f[p.T_SIZE]], bid, ask, _sizes[f[p.T_BID_SIZE]] if bid > 0 else NAN, _sizes[f[p.T_ASK_SIZE]] if ask > 0 else NAN,
        float(acc) if len(acc) < 16 and acc.isdigit() else number(acc), base if base > 0 else NAN, NO_SEQ, day,
    )  # fmt: skip


def _write_book(f: list[bytes], row: int, ignore: int, recv_ns: int, buffer: memoryview, offset: int) -> None:
    """Pack a record of H0STASP0, H0UNASP0 or H0NXASP0: a whole book, of which the best level is kept.

    Auction books (HOUR_CLS_CODE A to D) are books like any other: crossed or one-sided levels pass, the phase tells why.
    """
    if len(f[p.B_EXPECTED_SIGN]) > 1:
        raise ValueError("sign")
    event_ns, day = nearest_instant(f[p.B_TIME], recv_ns // 1_000_000_000)
    ask, bid = _prices[f[p.B_ASK]], _prices[f[p.B_BID]]
    # A percentage always has its point: without one in front of it, the volume is not in its place.
    acc = f[p.B_ACC_VOLUME] if b"." in f[p.B_EXPECTED_RATE] else b""
    base = -number(f[p.B_EXPECTED_CHANGE]) if _sizes[f[p.B_EXPECTED]] == 0 else NAN
    _pack(
        buffer, offset, recv_ns, event_ns, f[0], row, INPUT_QUOTE, ignore, 0, book_phase(f[p.B_HOUR]), 0, NAN, NAN,
        bid, ask, _sizes[f[p.B_BID_SIZE]] if bid > 0 else NAN, _sizes[f[p.B_ASK_SIZE]] if ask > 0 else NAN,
        float(acc) if len(acc) < 16 and acc.isdigit() else number(acc), base if base > 0 else NAN, NO_SEQ, day,
    )  # fmt: skip


def _write_us_trade(f: list[bytes], row: int, ignore: int, recv_ns: int, buffer: memoryview, offset: int) -> None:
    """Pack a record of HDFSCNT0. No side and no previous close: US prices have no daily limit to guard."""
    symbol = f[p.U_SYMBOL]
    if f[p.U_KEY][4:] != symbol or len(symbol) > SYMBOL_BYTES:
        raise ValueError("symbol")
    if len(f[p.U_SIGN]) > 1:
        raise ValueError("sign")
    acc = f[p.U_ACC_VOLUME]
    event_ns, _ = instant(f[p.U_DATE], f[p.U_TIME])
    ask, bid = _prices[f[p.U_ASK]], _prices[f[p.U_BID]]
    _pack(
        buffer, offset, recv_ns, event_ns, symbol, row, INPUT_TRADE, ignore, 0, us_phase(f[p.U_PHASE]), HAS_QUOTE,
        _prices[f[p.U_LAST]], _sizes[f[p.U_SIZE]], bid, ask,
        _sizes[f[p.U_BID_SIZE]] if bid > 0 else NAN, _sizes[f[p.U_ASK_SIZE]] if ask > 0 else NAN,
        float(acc) if len(acc) < 16 and acc.isdigit() else number(acc), NAN, NO_SEQ, day_of(f[p.U_DAY]),
    )  # fmt: skip


def _is_kr_key(text: bytes) -> bool:
    return KR_SYMBOL.fullmatch(text) is not None


def _is_us_key(text: bytes) -> bool:
    return text[:4].decode("ascii", "replace") in US_PREFIXES.values() and US_SYMBOL.fullmatch(text[4:]) is not None


_TRADE: Final = _Layout(p.MIN_TRADE, _write_trade, p.T_TIME, _is_kr_key)
_BOOK: Final = _Layout(p.MIN_BOOK, _write_book, p.B_TIME, _is_kr_key)
_US_TRADE: Final = _Layout(p.MIN_US_TRADE, _write_us_trade, p.U_TIME, _is_us_key)
_LAYOUTS: Final = {
    b"H0STCNT0": _TRADE, b"H0NXCNT0": _TRADE, b"H0UNCNT0": _TRADE,
    b"H0STASP0": _BOOK, b"H0NXASP0": _BOOK, b"H0UNASP0": _BOOK,
    b"HDFSCNT0": _US_TRADE,
}  # fmt: skip
