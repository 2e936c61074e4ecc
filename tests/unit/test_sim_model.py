"""The seeded market: the same seed gives the same market; prices lie on the grid; arrivals come in bursts."""

from __future__ import annotations

import numpy as np
import pytest

from obs.sim.market import BOOK, TRADE, Stream, Symbol
from obs.sim.model import ModelSource, crypto_tick, krx_tick, tick_of

NOW_NS = 1_795_219_200 * 10**9


def begun(source: ModelSource, group: str, code: str) -> Symbol:
    symbol = Symbol(group, code)
    symbol.day_ms = NOW_NS // 10**6
    source.begin(symbol, NOW_NS)
    symbol.begin_day("20261121", "090000")
    return symbol


def run(seed: int, group: str, code: str, events: int) -> list[tuple[int, int, int, int, int]]:
    source = ModelSource(100, seed)
    symbol = begun(source, group, code)
    out = []
    for event in range(events):
        if event % 3 == 2:
            source.book(symbol)
        else:
            source.trade(symbol, NOW_NS)
            symbol.traded(NOW_NS, "090000")
        out.append((symbol.price, symbol.size, symbol.side, symbol.bid, symbol.ask))
    return out


@pytest.mark.parametrize(("group", "code"), [("krx", "005930"), ("krx", "0193T0"), ("us", "DNASAAPL"), ("crypto", "KRW-BTC")])
def test_the_same_seed_gives_the_same_market(group: str, code: str) -> None:
    assert run(3, group, code, 2000) == run(3, group, code, 2000)
    assert run(3, group, code, 2000) != run(4, group, code, 2000)


@pytest.mark.parametrize(
    ("group", "code"),
    [("krx", "005930"), ("krx", "114800"), ("krx", "999999"), ("us", "DNASIBM"), ("crypto", "KRW-XRP"), ("crypto", "KRW-PEPE"),
     ("crypto", "BTC-ETH"), ("crypto", "USDT-BTC")],
)  # fmt: skip
def test_prices_are_on_the_grid_and_quotes_are_not_crossed(group: str, code: str) -> None:
    symbol = Symbol(group, code)
    for price, size, _, bid, ask in run(1, group, code, 5000):
        assert 0 < bid < ask
        assert size > 0
        assert bid % tick_of(symbol, bid) == 0
        assert price > 0


@pytest.mark.parametrize(
    ("price", "tick"), [(1_999, 1), (2_000, 5), (4_995, 5), (5_000, 10), (19_990, 10), (20_000, 50), (50_000, 100), (199_900, 100),
                        (200_000, 500), (499_500, 500), (500_000, 1_000), (1_996_000, 1_000)],
)  # fmt: skip
def test_krx_ticks(price: int, tick: int) -> None:
    assert krx_tick(price) == tick


@pytest.mark.parametrize(
    ("code", "price", "tick"), [("KRW-BTC", 106_691_000.0, 1000.0), ("KRW-XRP", 2_045.0, 1.0), ("KRW-DOGE", 214.3, 0.1),
                                ("BTC-ETH", 0.035, 1e-8), ("USDT-XRP", 1.46, 0.001)],
)  # fmt: skip
def test_crypto_ticks(code: str, price: float, tick: float) -> None:
    assert crypto_tick(code, round(price * 1e8)) == round(tick * 1e8)


def counts_per_100ms(seed: int, seconds: int) -> np.ndarray:
    source = ModelSource(500, seed)
    for number in range(20):
        source.add(Stream(("t", str(number)), TRADE if number % 2 else BOOK, begun(source, "krx", f"{number:06d}")))
    return np.array([sum(count for _, count in source.due(10, 1.0)) for _ in range(seconds * 10)])


def test_arrivals_are_the_rate_in_the_mean_and_come_in_bursts() -> None:
    counts = counts_per_100ms(1, 400)
    after_the_rush = counts[600:]
    assert 0.8 * 50 < after_the_rush.mean() < 1.2 * 50
    assert after_the_rush.var() / after_the_rush.mean() > 5  # a Poisson process has 1
    rush = np.mean([counts_per_100ms(seed, 4).mean() for seed in range(12)])
    assert rush > 1.4 * 50
    assert (counts == counts_per_100ms(1, 400)).all()
    assert not (counts == counts_per_100ms(2, 400)).all()
