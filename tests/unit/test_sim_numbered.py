"""The numbered market: every figure a function of k, and k to be had back from what a record stores."""

from __future__ import annotations

from collections import Counter

import pytest

from obs.sim.market import GROUPS, TRADE, Stream, Symbol
from obs.sim.numbered import (
    NumberedSource,
    acc_steps,
    k_of_acc_volume,
    k_of_sequential_id,
    sequential_id,
    trade,
)

DAY_NS = 1_795_219_200 * 10**9  # 2026-11-21 00:00:00 UTC


def begun(source: NumberedSource, group: str, code: str, now_ns: int = DAY_NS) -> Symbol:
    symbol = Symbol(group, code)
    symbol.day_ms = DAY_NS // 10**6
    source.begin(symbol, now_ns)
    symbol.begin_day("20261121", "090000")
    return symbol


@pytest.mark.parametrize("group", GROUPS)
def test_a_trade_is_the_function_of_its_number(group: str) -> None:
    source = NumberedSource(100, start_k=0)
    symbol = begun(source, group, "005930")
    volume = 0
    for k in range(1, 2500):
        source.trade(symbol, DAY_NS)
        symbol.traded(DAY_NS, "090000")
        want = trade(group, "005930", k)
        volume += symbol.size
        assert symbol.k == k
        assert symbol.price / symbol.group.price_unit == want.price
        assert symbol.size / symbol.group.size_unit == want.size
        assert symbol.acc == volume
        assert symbol.acc / symbol.group.size_unit == want.acc_volume
        assert k_of_acc_volume(group, want.acc_volume) == k
        assert symbol.bid < symbol.ask
        assert symbol.price == (symbol.ask if want.side == "buy" else symbol.bid)
        assert k_of_sequential_id(symbol.venue_seq) == k


def test_closed_form_of_the_accumulated_volume() -> None:
    total = 0
    for k in range(1, 200):
        total += 1 + k % 7
        assert acc_steps(k) == total


def test_an_accumulated_volume_between_two_numbers_has_no_k() -> None:
    with pytest.raises(ValueError, match="no sum"):
        k_of_acc_volume("krx", 3.0)


def test_ids_pass_2_to_the_53_and_stay_unique_over_days() -> None:
    first, next_day = sequential_id(DAY_NS // 10**6, 1), sequential_id(DAY_NS // 10**6 + 86_400_000, 1)
    assert first > 2**53
    assert k_of_sequential_id(first) == k_of_sequential_id(next_day) == 1
    assert k_of_sequential_id(sequential_id(DAY_NS // 10**6, 1_728_000_000)) == 1_728_000_000


def test_a_later_start_on_the_same_day_repeats_no_number() -> None:
    source = NumberedSource(10_000)
    early = begun(source, "krx", "005930", DAY_NS + 3600 * 10**9)
    late = begun(source, "krx", "005930", DAY_NS + 3601 * 10**9)
    assert late.k - early.k >= 10_000
    assert late.acc > early.acc


def test_a_new_day_starts_from_nothing() -> None:
    source = NumberedSource(100)
    symbol = begun(source, "krx", "005930", DAY_NS + 10**9)
    source.trade(symbol, DAY_NS)
    symbol.traded(DAY_NS, "090000")
    source.new_day(symbol)
    symbol.begin_day("20261122", "000000")
    source.trade(symbol, DAY_NS)
    symbol.traded(DAY_NS, "000000")
    assert symbol.k == 1
    assert symbol.acc == trade("krx", "005930", 1).acc_volume


def test_the_rate_is_exact_and_every_stream_has_its_share() -> None:
    source = NumberedSource(1000, start_k=0)
    streams = [Stream(("t", str(n)), TRADE, begun(source, "krx", str(n))) for n in range(7)]
    for stream in streams:
        source.add(stream)
    counts: Counter[str] = Counter()
    runs = set()
    for _ in range(1000):
        for stream, count in source.due(1, 1.0):
            counts[stream.key[1]] += count
            runs.add(count)
    assert sum(counts.values()) == 10_000
    assert max(counts.values()) - min(counts.values()) < 20
    assert runs == {1, 2, 3, 4}


def test_nothing_happens_without_streams_and_the_factor_multiplies() -> None:
    source = NumberedSource(1000, start_k=0)
    assert source.due(100, 1.0) == []
    source.add(Stream(("t", "a"), TRADE, begun(source, "krx", "a")))
    assert sum(count for _, count in source.due(10, 5.0)) == 500
