"""Symbols of KIS, from the configuration to registration keys and back.

kr_stocks: the KRX short code is everything at once, `005930`, `0193T0`, `Q500001` (ETN).

us_stocks (PROVIDER_SPECIFIC): a registration needs the exchange. The configuration says `NAS:AAPL`, `NYS:IBM`, `AMS:SPY`,
or for the US daytime session `BAQ:AAPL`, `BAY:IBM`, `BAA:SPY`; a bare `AAPL` means `NAS:AAPL`. Records carry `AAPL`, because
tickers are unique over the US exchanges.
"""

from __future__ import annotations

import re
from typing import Final

from obs.errors import ConfigError

# Source: portal, H0STCNT0 field 0: six characters, alphanumeric since 2024; an ETN has seven with a leading Q.
KR_SYMBOL: Final = re.compile(rb"[0-9][0-9A-Z]{5}|Q[0-9]{6}")
US_SYMBOL: Final = re.compile(rb"[A-Z]{1,6}(?:[./-][A-Z]{1,3})?")

# Source: portal, overseas real-time keys: D + market for the regular session, R + market for the US daytime session.
US_PREFIXES: Final = {"NAS": "DNAS", "NYS": "DNYS", "AMS": "DAMS", "BAQ": "RBAQ", "BAY": "RBAY", "BAA": "RBAA"}
_EXCHANGES: Final = {prefix: exchange for exchange, prefix in US_PREFIXES.items()}
_DEFAULT_EXCHANGE: Final = "NAS"


def slot_symbol(market: str, text: str) -> str:
    """Return the one spelling of a configured symbol. Raises ConfigError."""
    exchange, _, ticker = text.rpartition(":")
    if market == "us_stocks":
        exchange = exchange or _DEFAULT_EXCHANGE
        if exchange in US_PREFIXES and US_SYMBOL.fullmatch(ticker.encode()):
            return f"{exchange}:{ticker}"
        raise ConfigError(f"symbol = {text!r}: not a US symbol; TICKER or EXCHANGE:TICKER with {', '.join(US_PREFIXES)}", symbol=text)
    if exchange or not KR_SYMBOL.fullmatch(text.encode()):
        raise ConfigError(f"symbol = {text!r}: not a KRX short code; six characters such as 005930, or Q and six digits", symbol=text)
    return text


def record_symbol(symbol: str) -> str:
    """Return what records of a slot symbol carry: the ticker without its exchange."""
    return symbol.rpartition(":")[2]


def key_of(symbol: str) -> str:
    """Return the registration key (`tr_key`) of a slot symbol."""
    exchange, _, ticker = symbol.rpartition(":")
    return US_PREFIXES[exchange] + ticker if exchange else ticker


def symbol_of(market: str, key: str) -> str:
    """Return the slot symbol of a registration key; a key of no known form comes back as it is."""
    exchange = _EXCHANGES.get(key[:4]) if market == "us_stocks" else None
    return f"{exchange}:{key[4:]}" if exchange else key
