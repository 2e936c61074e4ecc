"""The tape source, on a synthetic tape: copies, shifts, blank sides, units, the rate."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from obs.errors import ConfigError
from obs.sim.market import BOOK, TRADE, Stream, Symbol
from obs.sim.tape import TapeSource, load_tape

HEADER = "ts_ms,symbol,kind,price1,size1,venue1,price2,size2,venue2,condition\n"
NOW_NS = 1_795_219_200 * 10**9


@pytest.fixture
def tape(tmp_path: Path) -> Path:
    lines = ["1000,AAA,Q,,,,10.02,300,K,1", "1001,AAA,T,10.02,100,P,,,,0", "1500,BBB,T,20.5,7,P,,,,0"]
    for step in range(1, 100):
        lines.append(f"{2000 + 100 * step},AAA,Q,{10 + step / 100:.2f},100,P,{10.01 + step / 100:.2f},200,Q,1")
        lines.append(f"{2050 + 100 * step},AAA,T,{10 + step / 100:.2f},{step},P,,,,0")
    lines.append("12000,AAA,Q,,,,,,,1")
    path = tmp_path / "tape.csv.gz"
    path.write_bytes(gzip.compress((HEADER + "\n".join(lines) + "\n").encode()))
    return path


def begun(source: TapeSource, group: str, code: str) -> Symbol:
    symbol = Symbol(group, code)
    symbol.day_ms = NOW_NS // 10**6
    source.begin(symbol, NOW_NS)
    symbol.begin_day("20261121", "090000")
    return symbol


def test_the_tape_is_read_and_blank_sides_are_absent(tape: Path) -> None:
    first, second = load_tape(tape)
    assert first.trades.shape == (100, 6)
    assert first.quotes.shape == (100, 4)  # the quote with two blank sides is left out
    assert first.quotes[0].tolist() == [0, 100_200, 0, 300]
    assert first.trades[0].tolist() == [100_200, 100, 0, 100_200, 0, 300]
    assert first.trades[1].tolist() == [100_100, 1, 100_100, 100_200, 100, 200]
    assert second.trades.tolist() == [[205_000, 7, 0, 0, 0, 0]]
    assert second.quotes.shape == (0, 4)


@pytest.mark.parametrize(("group", "price", "size"), [("krx", 1, 1), ("us", 1, 1), ("crypto", 10**8, 10**5)])
def test_copies_are_shifted_and_scaled(tape: Path, group: str, price: int, size: int) -> None:
    source = TapeSource(load_tape(tape)[:1], 100, 1)
    one, two = begun(source, group, "X1"), begun(source, group, "X2")
    for symbol in (one, two):
        for _ in range(150):  # more than the tape holds: it begins again
            source.trade(symbol, NOW_NS)
            assert symbol.price % price == 0
            assert symbol.size % size == 0
            assert 100_100 <= symbol.price // price <= 109_900
            assert symbol.bid == 0 or symbol.bid <= symbol.price <= symbol.ask
    assert one.price != two.price


def test_the_rate_holds_over_copies_and_kinds(tape: Path) -> None:
    source = TapeSource(load_tape(tape), 500, 1)
    for number in range(6):
        symbol = begun(source, "krx", str(number))
        source.add(Stream(("t", str(number)), TRADE, symbol))
        source.add(Stream(("b", str(number)), BOOK, symbol))
    total = 0
    for _ in range(2000):
        for stream, count in source.due(1, 1.0):
            total += count
            for _ in range(count):
                (source.book if stream.kind == BOOK else lambda s: source.trade(s, NOW_NS))(stream.symbol)
    assert 0.95 * 500 * 20 < total < 1.05 * 500 * 20


@pytest.mark.parametrize("content", [b"not gzip", gzip.compress(b""), gzip.compress(HEADER.encode()), gzip.compress(b"h\n1,2\n")])
def test_a_bad_tape_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tape.csv.gz"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"tape\.csv\.gz"):
        load_tape(path)
