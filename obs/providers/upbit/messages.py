"""The JSON of Upbit's stream messages as typed structs: only the fields that are read, checked while they are parsed.

The same fields come under long (DEFAULT) and short (SIMPLE) keys; both give structs with the same attributes, whose names are the
DEFAULT keys. Unknown fields are skipped, optional ones may be missing or null. JSON has no NaN and no infinity, so
every float here is finite. Times and sequential_id stay integers: the latter exceeds 2^53.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec

from obs.providers.upbit import protocol as p

_Millis = Annotated[int, msgspec.Meta(ge=0, le=(2**63 - 1) // 1_000_000)]
_Sequence = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Stream = Literal["SNAPSHOT", "REALTIME"]

_NUMBERS: Final = frozenset(
    {
        "trade_price", "trade_volume", "trade_timestamp", "sequential_id", "best_ask_price", "best_ask_size", "best_bid_price",
        "best_bid_size", "timestamp", "ask_price", "bid_price", "ask_size", "bid_size", "acc_trade_volume",
    }
)  # fmt: skip
_QUOTED: Final = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?")


class Names:
    """The struct classes and decoders of one spelling of the keys."""

    def __init__(self, simple: bool) -> None:
        self.tag = "ty" if simple else "type"
        self.units = "obu" if simple else "orderbook_units"
        keys = p.TRADE_KEYS | p.BOOK_KEYS | p.UNIT_KEYS | p.TICKER_KEYS
        self.numbers = frozenset(keys[name] if simple else name for name in _NUMBERS)
        self.unit = _struct("Unit", simple, p.UNIT_KEYS, _UNIT)
        book = [*_BOOK, ("orderbook_units", tuple[self.unit, ...])]  # type: ignore[name-defined]
        self.trade = _struct("Trade", simple, p.TRADE_KEYS, _TRADE, "trade")
        self.book = _struct("Book", simple, p.BOOK_KEYS, book, "orderbook")
        self.ticker = _struct("Ticker", simple, p.TICKER_KEYS, _TICKER, "ticker")
        self.any = self.trade | self.book | self.ticker
        self.decode = msgspec.json.Decoder(self.any).decode
        self.decode_list = msgspec.json.Decoder(list[self.any]).decode  # type: ignore[name-defined]

    def tolerant(self, message: dict[str, Any]) -> Any:
        """Return the struct of a parsed object in which numbers may be quoted. Raises msgspec.ValidationError."""
        plain = self._unquoted(message)
        units = plain.get(self.units)
        if isinstance(units, list):
            plain[self.units] = [self._unquoted(unit) if isinstance(unit, dict) else unit for unit in units]
        return msgspec.convert(plain, self.any)

    def _unquoted(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return {name: _number(value) if name in self.numbers and isinstance(value, str) else value for name, value in message.items()}


def _number(text: str) -> int | float | str:
    found = _QUOTED.fullmatch(text)
    if found is None:
        return text
    return float(text) if found[1] or found[2] else int(text)


# (attribute, type[, default]). Required: what makes the message worth a row.
_TRADE: Final[list[Any]] = [
    ("code", str),
    ("trade_price", float),
    ("trade_volume", float),
    ("ask_bid", Literal["ASK", "BID"] | None, None),
    ("trade_timestamp", _Millis | None, None),
    ("sequential_id", _Sequence | None, None),
    ("best_ask_price", float | None, None),
    ("best_ask_size", float | None, None),
    ("best_bid_price", float | None, None),
    ("best_bid_size", float | None, None),
    ("stream_type", _Stream | None, None),
]
_BOOK: Final[list[Any]] = [
    ("code", str),
    ("timestamp", _Millis | None, None),
    ("stream_type", _Stream | None, None),
]
_UNIT: Final[list[Any]] = [("ask_price", float), ("bid_price", float), ("ask_size", float), ("bid_size", float)]
_TICKER: Final[list[Any]] = [
    ("code", str),
    ("trade_price", float),
    ("acc_trade_volume", float | None, None),
    ("trade_timestamp", _Millis | None, None),
    ("timestamp", _Millis | None, None),
    ("market_state", str | None, None),
    ("stream_type", _Stream | None, None),
]


def _struct(name: str, simple: bool, keys: Mapping[str, str], fields: list[Any], tag: str | None = None) -> Any:
    return msgspec.defstruct(
        f"{'Simple' if simple else 'Default'}{name}",
        fields,
        rename=keys if simple else None,
        tag_field=None if tag is None else "ty" if simple else "type",
        tag=tag,
        kw_only=True,
        gc=False,
    )


DEFAULT: Final = Names(simple=False)
SIMPLE: Final = Names(simple=True)
