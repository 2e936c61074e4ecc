"""The stock master files of KIS: every listed issue of KOSPI or KOSDAQ, one record of fixed width a line, in cp949.

Source: kis.md 10, verified on real rows of May 2026. Bytes are cut first and decoded after: the name has 40 bytes, not 40 letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from obs.errors import DecodeError
from obs.providers.kis.symbols import KR_SYMBOL
from obs.record.instruments import Instrument


@dataclass(frozen=True, slots=True)
class Layout:
    """Where one board's record has what: its length, and the first byte of each field."""

    record_bytes: int
    kind: int  # 2: ST = share
    spac: int  # 1
    base_price: int  # 9
    halted: int  # 1, and after it liquidation and administrative issue
    previous_volume: int  # 12
    preferred: int  # 1: 0 = common


BOARDS: Final = {
    "kospi": Layout(288, 61, 90, 102, 121, 142, 219),
    "kosdaq": Layout(282, 61, 85, 97, 116, 137, 214),
}
_SYMBOL: Final = slice(0, 9)
_NAME: Final = slice(21, 61)


def parse_master(data: bytes, board: str) -> list[Instrument]:
    """Return every issue of one master file, also those that are not to be watched. `data`: the unpacked .mst file.

    Raises DecodeError if any record does not have the board's length, or states no plain yes or no where one stands: a file whose layout
    has changed must not be read as a short or a wrong list.
    """
    layout = BOARDS[board]
    records = data.split(b"\n")
    if records.pop():
        raise DecodeError("master file is cut off", board=board, bytes=len(data))
    if not records:
        raise DecodeError("master file is empty", board=board)
    return [_instrument(record.removesuffix(b"\r"), layout, board, number) for number, record in enumerate(records, 1)]


def _instrument(record: bytes, layout: Layout, board: str, line: int) -> Instrument:
    if len(record) != layout.record_bytes:
        raise DecodeError("master record has another length", board=board, line=line, length=len(record), expected=layout.record_bytes)
    symbol = record[_SYMBOL].strip()
    flags = record[layout.halted : layout.halted + 3]
    if set(flags) - set(b"YN"):
        raise DecodeError("master record has no flags where they belong", board=board, line=line, found=flags.decode("ascii", "replace"))
    try:
        price = _number(record[layout.base_price : layout.base_price + 9])
        volume = _number(record[layout.previous_volume : layout.previous_volume + 12])
        name = record[_NAME].rstrip().decode("cp949")
        text = symbol.decode("ascii")
    except ValueError as error:
        raise DecodeError("master record does not read", board=board, line=line, cause=type(error).__name__) from None
    return Instrument(text, name, price, price * volume, _refused(record, layout, symbol, flags))


def _refused(record: bytes, layout: Layout, symbol: bytes, flags: bytes) -> str:
    """Source: kis.md 10, the universe rule: ordinary shares alone, and none that is halted, in liquidation, or administrative."""
    kind = record[layout.kind : layout.kind + 2].decode("ascii", "replace").strip()
    reasons: Sequence[tuple[bool, str]] = (
        (kind != "ST", f"kind {kind}"),
        (not KR_SYMBOL.fullmatch(symbol), "symbol"),
        (record[layout.preferred : layout.preferred + 1] != b"0", "preferred"),
        (record[layout.spac : layout.spac + 1] == b"Y", "spac"),
        (flags[0:1] == b"Y", "halted"),
        (flags[1:2] == b"Y", "liquidation"),
        (flags[2:3] == b"Y", "administrative"),
    )
    return next((reason for holds, reason in reasons if holds), "")


def _number(text: bytes) -> float:
    """Return a zero-padded number; blank means that it is not known."""
    return float(int(text)) if text.strip() else float("nan")
