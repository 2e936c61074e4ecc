"""What a venue tells of one thing that it trades, on one day."""

from __future__ import annotations

from typing import NamedTuple


class Instrument(NamedTuple):
    """`symbol`: as records carry it. `previous_close`: in the market's currency, NaN = not known. `traded_value`: what was traded of it in
    that currency on the day before (crypto: in the last 24 hours), NaN = not known. `refused`: why it is not to be watched at all
    ("halted", "administrative", …), "" = nothing speaks against it.
    """

    symbol: str
    name: str
    previous_close: float
    traded_value: float
    refused: str = ""
