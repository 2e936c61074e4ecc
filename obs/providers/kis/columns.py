"""Domestic trade records of many messages at once, column by column: what a flood is decoded by.

The payloads are joined, the places of all `^` found by one search, and each wanted field of all records is read by one array
operation, eight characters at a time. Only records are read whose every field has its plain form: whole numbers, texts of the
usual length, a registered symbol. A message with anything else, a decimal point or an empty field is enough, is left to
obs.providers.kis.decode, which is slower and knows everything; both give the same row for the same record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from obs.providers.base import MAX_MESSAGE_BYTES, NAN
from obs.providers.kis import protocol as p
from obs.providers.kis.fields import SIDE_CODES, SIGN_FACTORS, instant, trade_phase
from obs.record.schema import HAS_QUOTE, INPUT, INPUT_TRADE, NO_SEQ, NO_TIME, SYMBOL_BYTES

_CARET: Final = ord("^")
_TAIL: Final = bytes(16)  # behind the last `^`: a word may be loaded from any place of the text
_SYMBOL_AT: Final = len(b"0|H0STCNT0|001|")
_COUNT_AT: Final = len(b"0|H0STCNT0|")
_BEYOND: Final = p.MIN_TRADE * 3 // 2

# Number fields, by their last eight digits. The accumulated volume has up to eight more, which are the last column.
_NUMBERS: Final = (p.T_PRICE, p.T_ASK, p.T_BID, p.T_SIZE, p.T_ASK_SIZE, p.T_BID_SIZE, p.T_CHANGE, p.T_TIME, p.T_DATE, p.T_ACC_VOLUME)
_PRICES: Final = 3  # so many of them are prices
_CHANGE, _TIME, _DATE, _ACC, _ACC_HIGH = range(6, 11)
_NUMBER_AT: Final = np.array([*_NUMBERS, p.T_ACC_VOLUME])[:, None]
_LEAST: Final = np.array([1, 1, 1, 1, 1, 1, 1, 6, 8, 1, 1])[:, None]  # characters of each, without the sign of a change
_MOST: Final = np.array([8, 8, 8, 8, 8, 8, 8, 6, 8, 16, 16])[:, None]
# Fields of one character, then the phase, of two; the last character of each is loaded.
_LETTER_AT: Final = np.array([p.T_SIGN, p.T_SIDE, p.T_HALT, p.T_HOUR, p.T_PHASE])[:, None]
_LETTERS: Final = np.array([1, 1, 1, 1, 2])[:, None]

_U8: Final = np.uint64
_ZERO: Final = np.uint8(ord("0"))
_ZEROS: Final = _U8(0x3030303030303030)
_ABOVE_NINE: Final = _U8(0x7676767676767676)  # added to a digit, it sets the highest bit of what is none
_HIGH_BITS: Final = _U8(0x8080808080808080)
_LAST: Final = np.array([(1 << 64) - (1 << 8 * (8 - size)) for size in range(9)], _U8)  # masks: the last `size` characters of a word
_FIRST: Final = np.array([(1 << 8 * size) - 1 for size in range(9)], _U8)
_JOINS: Final = tuple(
    (_U8(1 + (10**places << 8 * places)), _U8(8 * places), _U8(mask))
    for places, mask in ((1, 0x00FF00FF00FF00FF), (2, 0x0000FFFF0000FFFF), (4, 0xFFFFFFFF))
)
_SIGN_OF: Final = np.array([SIGN_FACTORS.get(bytes((code,)), NAN) for code in range(256)])
_SIDE_OF: Final = np.array([SIDE_CODES.get(bytes((code,)), 0) for code in range(256)], np.uint8)


def _word(text: bytes) -> int:
    return int.from_bytes(text, "little")


class TradeTable:
    """The registered symbols of one connection as words, and how its trade messages begin. Symbols have up to 8 characters."""

    def __init__(self, tr_id: str, rows: dict[bytes, int]) -> None:
        keys = sorted((_word(key), key) for key in rows if len(key) <= 8)
        head = f"0|{tr_id}|".encode()
        self.head = _word(head[:8]), _word(head[-8:])
        self.words = np.array([word for word, _ in keys] or [0], _U8)
        self.sizes = np.array([len(key) for _, key in keys] or [-1])
        self.rows = np.array([rows[key] for _, key in keys] or [0])
        self.symbols = np.array([key for _, key in keys] or [b""], f"S{SYMBOL_BYTES}")


def decode_trades(payloads: Sequence[bytes], recv_ns: Sequence[int], table: TradeTable) -> tuple[np.ndarray, np.ndarray]:
    """Return (inputs (n,) of dtype INPUT, how many of them each message has, (len(payloads),)): 0 for a message not read."""
    sizes = np.fromiter(map(len, payloads), np.int64, len(payloads))
    text = b"^".join([*payloads, _TAIL])
    letters = np.frombuffer(text, np.uint8)
    words = np.ndarray((len(text) - 7,), "<u8", text, strides=(1,))  # words[at]: the eight characters from there on
    marks = np.flatnonzero(letters == _CARET)

    # Messages: their first field is fields[first], counted over the whole text; records: their first field, and its begin.
    stops = np.cumsum(sizes + 1)
    after = np.searchsorted(marks, stops - 1) + 1
    first = np.concatenate(([0], after[:-1]))
    begins = np.concatenate(([0], stops[:-1]))
    plain = (words[begins] == table.head[0]) & (words[begins + _COUNT_AT - 8] == table.head[1])
    plain &= (sizes > _SYMBOL_AT) & (sizes <= MAX_MESSAGE_BYTES)
    count = _counts(letters, np.where(plain, begins, 0))
    width, rest = np.divmod(after - first, np.maximum(count, 1))
    plain &= (count > 0) & (rest == 0) & (width >= p.MIN_TRADE) & (width < _BEYOND)
    counts = np.where(plain, count, 0)
    message = np.repeat(np.arange(len(payloads)), counts)
    within = np.arange(len(message)) - np.repeat(np.cumsum(counts) - counts, counts)
    field = first[message] + within * width[message]
    begin = np.where(within == 0, begins[message] + _SYMBOL_AT, marks[field - 1] + 1)

    inputs, good = _records(letters, words, marks, field, begin, width[message], table)
    inputs["recv_ns"] = np.asarray(recv_ns)[message]
    if not good.all():
        counts[message[~good]] = 0
        inputs = inputs[counts[message] > 0]
    return inputs, counts


def _counts(letters: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Return the number between the second and the third `|` of each message, 0 where it has not three digits."""
    count = np.zeros(len(begins), np.int64)
    good = letters[begins + (_SYMBOL_AT - 1)] == ord("|")
    for at in range(_COUNT_AT, _SYMBOL_AT - 1):
        digit = letters[begins + at] - _ZERO  # unsigned: what is below "0" is far above 9
        good &= digit <= 9
        count = count * 10 + digit
    return np.where(good, count, 0)


def _records(
    letters: np.ndarray, words: np.ndarray, marks: np.ndarray, field: np.ndarray, begin: np.ndarray, width: np.ndarray, table: TradeTable
) -> tuple[np.ndarray, np.ndarray]:
    """Return the inputs of the records whose first fields are `field` (n,) and begin at `begin`, and which of them are good."""
    inputs = np.zeros(len(field), INPUT)
    if not len(field):
        return inputs, np.zeros(0, bool)
    size = marks[field] - begin
    symbol = words[begin] & _FIRST[np.clip(size, 0, 8)]
    place = np.minimum(np.searchsorted(table.words, symbol), len(table.words) - 1)
    good = (table.words[place] == symbol) & (table.sizes[place] == size)

    # From here on arrays are (fields, n)
    at = _NUMBER_AT + field
    ends = marks[at]
    sizes = marks[at - 1]
    np.subtract(ends, sizes, out=sizes)
    sizes -= 1
    sizes[_CHANGE] -= letters[ends[_CHANGE] - sizes[_CHANGE]] == ord("-")
    good &= ((sizes >= _LEAST) & (sizes <= _MOST)).all(axis=0)
    ends[_ACC_HIGH] -= 8
    sizes[_ACC_HIGH] -= 8
    ends -= 8
    numbers, digits = _numbers(words[ends], sizes)
    good &= digits
    event_ns, day, real = _instants(numbers[_DATE], numbers[_TIME])
    good &= real

    at = _LETTER_AT + field
    ends = marks[at]
    good &= (ends - marks[at - 1] - 1 == _LETTERS).all(axis=0)
    sign, side, halt, hour, phase_low = letters[ends - 1]
    phase, ignore = _phases(letters[ends[-1] - 2], phase_low, halt, hour, _markets(letters, marks, field, width))
    good &= phase >= 0

    values = numbers.astype(np.float64)
    values[:_PRICES][values[:_PRICES] == 0] = NAN  # a price of 0 means no value
    price, ask, bid, size, ask_size, bid_size, change = values[:_TIME]
    inputs["event_ns"], inputs["acc_day"] = event_ns, day
    inputs["symbol"], inputs["row"] = table.symbols[place], table.rows[place]
    inputs["kind"], inputs["flags"], inputs["venue_seq"] = INPUT_TRADE, HAS_QUOTE, NO_SEQ
    inputs["ignore"], inputs["side"], inputs["phase"] = ignore, _SIDE_OF[side], phase
    inputs["price"], inputs["size"], inputs["ask_price"], inputs["bid_price"] = price, size, ask, bid
    inputs["ask_size"], inputs["bid_size"] = np.where(ask > 0, ask_size, NAN), np.where(bid > 0, bid_size, NAN)
    inputs["acc_volume"] = numbers[_ACC_HIGH] * 10**8 + numbers[_ACC]
    base = price + _SIGN_OF[sign] * change
    inputs["base_price"] = np.where(base > 0, base, NAN)
    return inputs, good


def _numbers(words: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the last `sizes` characters (at most 8) of `words`, both (k, n), as numbers, and where (n,) all k are digits."""
    value = words
    value ^= _ZEROS
    value &= _LAST.take(sizes, mode="clip")
    digits = np.bitwise_or.reduce(value | (value + _ABOVE_NINE), axis=0) & _HIGH_BITS == 0
    # Neighbours are joined: eight digits become four numbers of two digits, two of four, one of eight. The first is the lowest byte.
    for factor, bits, mask in _JOINS:
        value *= factor
        value >>= bits
        value &= mask
    return value.view(np.int64), digits


def _instants(dates: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (event_ns, day, whether they are a date and a time) of YYYYMMDD and HHMMSS as numbers, (n,) each."""
    kinds, place = _distinct(dates)
    midnights = np.array([_midnight(date) for date in kinds.tolist()])[place]
    hours, rest = np.divmod(times, 10_000)
    minutes, seconds = np.divmod(rest, 100)
    good = (midnights != NO_TIME) & (hours < 24) & (minutes < 60) & (seconds < 60)
    return midnights + ((hours * 60 + minutes) * 60 + seconds) * 10**9, dates, good


def _midnight(date: int) -> int:
    """Return UTC epoch nanoseconds of a KST midnight, NO_TIME for what is no date."""
    try:
        return instant(b"%08d" % date, b"000000")[0]
    except ValueError:
        return NO_TIME


def _distinct(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return np.unique(codes, return_inverse=True), at once where all are the same, as most often."""
    if (codes == codes[0]).all():
        return codes[:1], np.zeros(len(codes), np.int64)
    return np.unique(codes, return_inverse=True)


def _markets(letters: np.ndarray, marks: np.ndarray, field: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Return the one letter of MARKET_CLS_CODE, 0 where a record has no such field or another text in it."""
    at = np.minimum(field + p.T_MARKET, len(marks) - 1)
    there = (width > p.T_MARKET) & (marks[at] - marks[at - 1] == 2)
    return np.where(there, letters[marks[at] - 1], 0)


def _phases(*letters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (phase, ignore) of each record, -1 where obs.providers.kis.fields.trade_phase refuses it."""
    codes = np.zeros(len(letters[0]), np.int64)
    for letter in letters:
        codes = codes << 8 | letter
    kinds, place = _distinct(codes)
    found = np.array([_phase(code.to_bytes(5, "big")) for code in kinds.tolist()])
    return found[place, 0], found[place, 1]


def _phase(code: bytes) -> tuple[int, int]:
    try:
        return trade_phase(code[:2], code[2:3], code[3:4], code[4:].strip(b"\0"))
    except ValueError:
        return -1, 0
