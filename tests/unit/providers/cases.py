"""The providers under test, each with its synthetic frames: what one shared suite needs to know of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import recorded
import synthetic_kis
import synthetic_upbit

from obs.providers.base import Context, Provider, ProviderOptions
from obs.providers.registry import make_provider


def kis(market: str = "kr_stocks", venue: str = "krx", channels: tuple[str, ...] = ("trade", "book"), **options: Any) -> Provider:
    urls = "http://127.0.0.1:9443", "ws://127.0.0.1:21000"
    return make_provider("kis", ProviderOptions("kis", market, venue, channels, 41, *urls, options))


def upbit(venue: str = "kr", channels: tuple[str, ...] = ("trade", "book", "ticker"), **options: Any) -> Provider:
    urls = "http://127.0.0.1:80", "ws://127.0.0.1:81"
    return make_provider("upbit", ProviderOptions("upbit", "crypto", venue, channels, 41, *urls, options))


@dataclass(frozen=True)
class Case:
    """One provider as one section configures it. `recorded_symbols`: slot symbols, in the order of their rows."""

    name: str
    provider: Provider
    symbols: list[str]
    frames: Mapping[str, tuple[bytes, list[dict[str, Any]]]]
    control: Mapping[str, bytes]
    folder: str
    recorded_symbols: list[str]
    oracle: Callable[[bytes, dict[str, int], int], list[dict[str, Any]]]

    def context(self) -> Context:
        return self.provider.context(self.symbols)

    def owns(self, payload: bytes) -> bool:
        """Say whether a recorded data message belongs to this section (KIS: its market)."""
        return self.folder != "kis" or (b"|HDFS" in payload[:12]) == (self.provider.options.market == "us_stocks")


_CODES = ["KRW-BTC", "KRW-ETH", "BTC-ARK", "BTC-FCT2", "BTC-STPT", "BTC-ITAM", "BTC-MARO", "KRW-WAVES", "BTC-AQT", "BTC-XTZ", "KRW-LAMB",
          "BTC-PAX"]  # fmt: skip
CASES = [
    Case(
        "kis-kr",
        kis(),
        synthetic_kis.SYMBOLS,
        synthetic_kis.FRAMES,
        synthetic_kis.CONTROL_FRAMES,
        "kis",
        ["005930", "000660"],
        recorded.kis_rows,
    ),
    Case(
        "kis-us",
        kis("us_stocks", "us", ("trade",)),
        synthetic_kis.US_SYMBOLS,
        synthetic_kis.US_FRAMES,
        synthetic_kis.CONTROL_FRAMES,
        "kis",
        ["NAS:AAPL", "NAS:GOOGL"],
        recorded.kis_rows,
    ),
    Case(
        "upbit",
        upbit(),
        synthetic_upbit.SYMBOLS,
        synthetic_upbit.FRAMES,
        synthetic_upbit.CONTROL_FRAMES,
        "upbit",
        _CODES,
        recorded.upbit_rows,
    ),
]
