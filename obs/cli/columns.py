"""Recorded lines as a person reads them: one row of columns each, gaps marked; pure.

`change` is against the record of the same symbol before it. Times are UTC. Columns are as wide as the widest value so far; where the
terminal has not got that much room, the least needed are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from obs.cli.terminal import pad, plain, width
from obs.errors import ObsError
from obs.monitor.gaps import is_gap_line
from obs.record.events import provider_of

_HEAD: Final = ("time (UTC)", "symbol", "price", "change", "volume", "bid / ask", "quality")
_RIGHT: Final = ("price", "change", "volume", "bid / ask")
_SPARE: Final = ("bid / ask", "volume", "change", "quality")  # the first is left out first
_COLOUR: Final = {"normal": None, "degraded": "warning"}
_GAP: Final = {"brief": "warning", "minor": "warning"}


def number(value: Any) -> str:
    """Return a price or a size, "-" if it is not known."""
    if not isinstance(value, int | float):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1e10 else f"{value:,.10g}"


@dataclass
class Columns:
    """Remembers how wide its columns are and the last price of each symbol. `room`: of the terminal."""

    room: int
    _widths: dict[str, int] = field(default_factory=lambda: {name: len(name) for name in _HEAD})
    _prices: dict[tuple[str, str], float] = field(default_factory=dict)

    def head(self) -> str:
        """Return the line of names."""
        return self._row(dict(zip(_HEAD, _HEAD, strict=True)))

    def line(self, line: bytes) -> tuple[str, str | None]:
        """Return what is shown of one recorded line, and its colour."""
        try:
            value = orjson.loads(line)
            if is_gap_line(line):
                return plain(self._gap(value)), _GAP.get(value["severity"], "wrong")
            return self._record(value)
        except (ValueError, KeyError, TypeError, AttributeError, ObsError):
            return plain(line.decode("utf-8", "replace")), "wrong"  # as it stands: not for us to hide

    def _record(self, value: dict[str, Any]) -> tuple[str, str | None]:
        key, price = (provider_of(value["session_id"]), value["symbol"]), value["last_price"]
        before = self._prices.get(key)
        change = "-" if before is None or price is None else f"{price - before:+,.10g}" if price != before else "0"
        if price is not None:
            self._prices[key] = price
        quality = str(value["quality_flag"])
        cells = {
            "time (UTC)": value["ts"][11:-1], "symbol": value["symbol"], "price": number(price), "change": change,
            "volume": number(value["volume"]), "bid / ask": f"{number(value['bid_price'])} / {number(value['ask_price'])}",
            "quality": quality,
        }  # fmt: skip
        return self._row(cells), _COLOUR.get(quality, "wrong")

    def _gap(self, value: dict[str, Any]) -> str:
        lost = "" if value["lost"] is None else f", {value['lost']:,} lost"
        by = f" by the {value['sink']}" if value["sink"] else ""
        return (
            f"{value['gap_start_ts'][11:-1]}  GAP {value['gap_seconds']:g} s until {value['gap_end_ts'][11:-1]}: {value['reason']}{by}, "
            f"{value['provider']} {value['symbol'] or 'all symbols'}{lost} ({value['severity']})"
        )

    def _row(self, cells: dict[str, str]) -> str:
        cells = {name: plain(cell) for name, cell in cells.items()}
        for name, cell in cells.items():
            self._widths[name] = max(self._widths[name], width(cell))
        kept = list(_HEAD)
        for name in _SPARE:
            if sum(self._widths[one] + 2 for one in kept) - 2 <= self.room:
                break
            kept.remove(name)
        return "  ".join(pad(cells[name], self._widths[name], right=name in _RIGHT) for name in kept).rstrip()
