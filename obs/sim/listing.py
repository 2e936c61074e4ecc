"""Who is listed at a simulated venue with `--universe N`: codes, names, boards, flags and size, from a seed.

The first are those of symbols.py, the rest are made up. KIS: N issues, of which some are ETFs, ETNs, preferred shares, SPACs, halted, in
liquidation or administrative, and about a quarter cost less than 4,000 won. Upbit: N markets, of which a tenth each is traded
against BTC and USDT (not more than symbols.py has), and a part of the KRW ones is worth less than 1e9 won a day.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from obs.sim.symbols import BTC_COUNT, CRYPTO, KRX

KOSPI: Final = 0
KOSDAQ: Final = 1
SHARE, PREFERRED, ETF, ETN, SPAC = "share", "preferred", "etf", "etn", "spac"
_OTHER_KINDS: Final = {"005935": PREFERRED, "33637K": PREFERRED, "069500": ETF, "122630": ETF, "114800": ETF, "252670": ETF,
                       "0193T0": ETF, "Q500001": ETN}  # fmt: skip
_KOSDAQ_CODES: Final = ("247540", "086520", "196170", "025560")
# (up to this share of a draw, kind, ending of the code)
_KINDS: Final = ((0.86, SHARE), (0.90, PREFERRED), (0.97, ETF), (0.98, ETN), (1.01, SPAC))
_SYLLABLES: Final = "가나다라마바사아자차카타파하한국대신동서남북우성진미래산업전자화학제약"
_WON_PER_USDT: Final = 1_400.0
_MOST_COINS: Final = 2e10  # of one market a day: in 1e-8 of a coin they must fit into 64 bits
_LARGEST: Final = [4e11, 2.5e11, 2e11, 1e11]  # won a day, of BTC and the three after it


@dataclass(frozen=True, slots=True)
class Listing:
    """What is listed, in columns of equal length. `price`: in whole currency, around which the symbol moves.

    `value`: traded in a usual day, in the quote currency. `shares`: listed, KIS only. `wanted` is what a day's universe is made
    of as far as flags go: ordinary shares that are neither halted nor in liquidation nor administrative (Upbit: KRW markets).
    """

    codes: tuple[str, ...]
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    board: np.ndarray
    price: np.ndarray
    value: np.ndarray
    shares: np.ndarray
    halted: np.ndarray
    liquidation: np.ndarray
    administrative: np.ndarray

    @property
    def wanted(self) -> np.ndarray:
        ordinary: np.ndarray = np.array([kind in (SHARE, "KRW") for kind in self.kinds])
        ordinary &= ~(self.halted | self.liquidation | self.administrative)
        return ordinary


def kis_listing(count: int, seed: int) -> Listing:
    """Return `count` issues of KOSPI and KOSDAQ."""
    draw = np.random.default_rng((seed, 77))
    codes, names, kinds, prices = list(KRX)[:count], [KRX[code][0] for code in list(KRX)[:count]], [], []
    kinds = [_OTHER_KINDS.get(code, SHARE) for code in codes]
    prices = [float(KRX[code][1]) for code in codes]
    listed = set(codes)
    while len(codes) < count:
        place = draw.random()
        kind = next(name for limit, name in _KINDS if place < limit)
        number = int(draw.integers(100, 99_999))
        code = f"Q5{number:05d}" if kind == ETN else f"{number:05d}{'5' if kind == PREFERRED else '0'}"
        if kind == ETF and draw.random() < 0.3:
            code = f"0{number % 1000:03d}{'ABCDEFGHJKLMNPRSTUVWXYZ'[number % 23]}0"
        if code in listed:
            continue
        listed.add(code)
        codes.append(code)
        text = "".join(_SYLLABLES[int(place)] for place in draw.integers(0, len(_SYLLABLES), 4))
        names.append(text + "우" if kind == PREFERRED else text)
        kinds.append(kind)
        prices.append(float(min(900_000.0, max(500.0, np.exp(draw.normal(9.1, 1.1))))))
    known = min(count, len(KRX))
    board = (draw.random(count) < 0.6).astype(np.int8)
    board[:known] = [KOSDAQ if code in _KOSDAQ_CODES else KOSPI for code in codes[:known]]
    board[[place for place, kind in enumerate(kinds) if kind in (ETF, ETN)]] = KOSPI
    value = np.exp(draw.normal(21.8, 1.5, count))  # median 3e9 won
    value[:known] = np.exp(draw.normal(25.5, 0.8, known))
    faulty = draw.random(count)
    faulty[:known] = 1.0
    shares = np.rint(np.exp(draw.normal(17.0, 1.0, count)) / 1000).astype(np.int64) * 1000 + 1_000_000
    return Listing(
        tuple(codes), tuple(names), tuple(kinds), board, np.array(prices), np.clip(value, 2e8, 2e12), shares,
        faulty < 0.02, (faulty >= 0.02) & (faulty < 0.024), (faulty >= 0.024) & (faulty < 0.05),
    )  # fmt: skip


def upbit_listing(count: int, seed: int) -> Listing:
    """Return `count` markets: KRW ones first, then those against BTC and USDT."""
    draw = np.random.default_rng((seed, 78))
    other = min(BTC_COUNT - 1, count // 10)
    bases = list(CRYPTO)
    made = 0
    while len(bases) < count - 2 * other:
        made += 1
        base = "".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[int(place)] for place in draw.integers(0, 26, 4)) + str(made)
        bases.append(base)
    bases = bases[: count - 2 * other]
    prices = {base: CRYPTO[base] if base in CRYPTO else float(np.exp(draw.normal(5.0, 2.0))) for base in bases}
    codes = [f"KRW-{base}" for base in bases]
    kinds = ["KRW"] * len(codes)
    price = [prices[base] for base in bases]
    value = list(np.exp(draw.normal(21.5, 1.3, len(bases))))  # median 2e9 won
    value[: len(_LARGEST)] = _LARGEST[: len(bases)]
    for base in [base for base in bases if base != "BTC"][:other]:
        codes += [f"BTC-{base}", f"USDT-{base}"]
        kinds += ["BTC", "USDT"]
        price += [max(1e-8, prices[base] / prices["BTC"]), prices[base] / _WON_PER_USDT]
        value += [2e7 / prices["BTC"], 1e8 / _WON_PER_USDT]
    none = np.zeros(len(codes), bool)
    return Listing(
        tuple(codes), tuple(code.split("-")[1] for code in codes), tuple(kinds), np.zeros(len(codes), np.int8), np.array(price),
        np.clip(value, None, _MOST_COINS * np.array(price)), np.zeros(len(codes), np.int64), none, none, none,
    )  # fmt: skip
