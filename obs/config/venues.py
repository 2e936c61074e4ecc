"""What a provider section may leave out, by type: market, venue, addresses, channels, slots, and what it must not ask for.

Only the types of this build are listed. A type is data here, never a branch: the code that reads a section knows no venue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Symbols by market, as they are written in the file and in records (at most 20 bytes).
# KRX short codes have six characters and may hold letters; an ETN has a leading Q and six digits.
SYMBOLS: Final = {
    "kr_stocks": (r"[0-9][0-9A-Z]{5}|Q[0-9]{6}", "a KRX short code such as 005930, 0193T0 or Q500001"),
    "us_stocks": (
        r"(?:(?:NAS|NYS|AMS|BAQ|BAY|BAA):)?[A-Z]{1,6}(?:[./-][A-Z]{1,3})?",
        "a US symbol such as AAPL (Nasdaq), NYS:IBM or AMS:SPY",
    ),
    "crypto": (r"[A-Z]{3,5}-[A-Z0-9]{1,14}", "QUOTE-BASE in upper case such as KRW-BTC"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """One market and venue that a type serves, with its public addresses and the channels it has there.

    A WebSocket address without a path is opened at the path of the venue's protocol. `unselected`: why no symbols can be selected
    here, so that the section must list them; "" where they can.
    """

    market: str
    venue: str
    rest_url: str
    ws_url: str
    channels: tuple[str, ...]
    unselected: str = ""


@dataclass(frozen=True, slots=True)
class ProviderType:
    """The defaults of a type: the first place, `channels`, and as many slots as its registrations allow."""

    places: tuple[Place, ...]
    channels: tuple[str, ...]
    slots: int
    registrations: int | None  # per credential, one for each symbol and channel; None: the venue has no such limit
    secret_names: tuple[str, str] | None  # suffixes of the environment names of key and secret; None: needs no credentials
    paper_ports: tuple[int, ...] = ()  # of REST addresses that lack the calls which a selection needs

    @property
    def markets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(place.market for place in self.places))

    def venues(self, market: str) -> tuple[str, ...]:
        return tuple(place.venue for place in self.places if place.market == market)

    def place(self, market: str, venue: str) -> Place | None:
        return next((place for place in self.places if (place.market, place.venue) == (market, venue)), None)


# Source: KIS Open API portal, hosts of the real account and the registration limit (notices to 2026-04); the WebSocket is
# plain ws. Upbit developer documentation v1.6.4: one host per region, each an exchange of its own.
_KIS = ("https://openapi.koreainvestment.com:9443", "ws://ops.koreainvestment.com:21000")


def _upbit(venue: str, host: str, unselected: str = "its universe rule is in KRW, which this venue does not trade in") -> Place:
    return Place("crypto", venue, f"https://{host}", f"wss://{host}", ("trade", "book", "ticker"), unselected)


TYPES: Final = {
    "kis": ProviderType(
        places=(
            Place("kr_stocks", "krx", *_KIS, ("trade", "book")),
            Place("kr_stocks", "nxt", *_KIS, ("trade", "book"), "no file tells which issues NXT trades; unified has them all"),
            Place("kr_stocks", "unified", *_KIS, ("trade", "book")),
            Place("us_stocks", "us", *_KIS, ("trade",), "there is no call that quotes many US issues"),
        ),
        channels=("trade",),
        slots=41,
        registrations=41,
        secret_names=("APP_KEY", "APP_SECRET"),
        paper_ports=(29443,),  # Source: portal: the quotes of many issues are for real accounts alone
    ),
    "upbit": ProviderType(
        places=(
            _upbit("kr", "api.upbit.com", ""),
            _upbit("sg", "sg-api.upbit.com"),
            _upbit("id", "id-api.upbit.com"),
            _upbit("th", "th-api.upbit.com"),
        ),
        channels=("trade",),
        slots=41,
        registrations=None,
        secret_names=None,
    ),
}
