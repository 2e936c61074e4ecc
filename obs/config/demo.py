"""The configuration of `--demo`: two simulated exchanges on loopback in place of the real ones.

The accounts are made up here, so a real key in the environment is neither needed nor touched: the prefixes are DEMO_…
"""

from __future__ import annotations

import dataclasses
import random
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from obs.config.options import Config, DemoOptions, ProviderConfig
from obs.config.venues import TYPES

# Ordinary shares, preferred shares, funds with letters in their code, and a note (ETN, with a leading Q).
KIS_SYMBOLS: Final = (
    "005930", "000660", "373220", "207940", "005380", "000270", "068270", "105560", "055550", "035420", "012330",
    "028260", "005490", "051910", "006400", "035720", "012450", "329180", "086790", "138040", "000810", "032830",
    "015760", "033780", "009540", "010130", "066570", "034020", "011200", "096770", "003550", "017670", "030200",
    "247540", "086520", "196170", "005935", "069500", "0193T0", "33637K", "Q500001",
)  # fmt: skip
UPBIT_SYMBOLS: Final = (
    "KRW-BTC", "KRW-ETH", "KRW-XRP", "KRW-SOL", "KRW-DOGE", "KRW-ADA", "KRW-TRX", "KRW-AVAX", "KRW-LINK", "KRW-DOT",
    "KRW-BCH", "KRW-NEAR", "KRW-APT", "KRW-ATOM", "KRW-ETC", "KRW-XLM", "KRW-HBAR", "KRW-ALGO", "KRW-SAND", "KRW-MANA",
    "KRW-AXS", "KRW-FLOW", "KRW-CHZ", "KRW-NEO", "KRW-QTUM", "KRW-STX", "KRW-IMX", "KRW-AAVE", "KRW-SUI", "KRW-SEI",
    "KRW-ARB", "KRW-BLUR", "KRW-MINA", "KRW-GRT", "KRW-ZRX", "KRW-BAT", "KRW-KNC", "KRW-ICX", "KRW-IOTA", "KRW-WAVES",
    "KRW-1INCH",
)  # fmt: skip


def demo_config(base: Config, ports: Mapping[str, int], *, recordings: Path | None = None, script: Path | None = None) -> Config:
    """Return `base` with its providers replaced by the simulated `kis` and `upbit`, each on its loopback port.

    `ports`: by provider name, "kis" and "upbit". `base` gives everything else; load it with
    `default_data=DEFAULT_DEMO_DATA_DIR`. With `recordings`, they are the source; `script`: instead of that of [demo].
    """
    demo: DemoOptions = base.demo
    if recordings is not None:
        demo = dataclasses.replace(demo, source="recordings", recordings=recordings)
    if script is not None:
        demo = dataclasses.replace(demo, script=script)
    kis = f"127.0.0.1:{ports['kis']}"
    upbit = f"127.0.0.1:{ports['upbit']}"
    providers = (
        _provider("kis", f"http://{kis}", f"ws://{kis}", ("DEMO_KIS",), KIS_SYMBOLS, demo),
        _provider("upbit", f"http://{upbit}", f"ws://{upbit}", (), UPBIT_SYMBOLS, demo),
    )
    return dataclasses.replace(base, demo=demo, providers=providers, is_demo=True)


def demo_environ(seed: int = 1) -> dict[str, str]:
    """Return the made-up account of the simulated KIS, of the real lengths: put it into the environment of the children."""
    letters = random.Random(seed)
    text = "".join(letters.choices(string.ascii_letters + string.digits, k=36 + 180))
    return {"DEMO_KIS_APP_KEY": text[:36], "DEMO_KIS_APP_SECRET": text[36:]}


def _provider(
    name: str, rest_url: str, ws_url: str, credentials: tuple[str, ...], symbols: tuple[str, ...], demo: DemoOptions
) -> ProviderConfig:
    kind = TYPES[name]
    place = kind.places[0]
    return ProviderConfig(
        name=name,
        type=name,
        enabled=True,
        market=place.market,
        venue=place.venue,
        rest_url=rest_url,
        ws_url=ws_url,
        credentials=credentials,
        secrets_file=None,
        symbols=symbols,
        channels=kind.channels,
        slots=kind.slots,
        mode=demo.mode,
        hours="always",
    )
