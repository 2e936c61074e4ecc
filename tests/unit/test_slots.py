"""Records from inputs: equal, to the last bit, to a plain row-by-row model; sums exact; bars from records = bars from trades."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_sampler import QUOTED, PlainSampler, plain, same

from obs.record.schema import HAS_QUOTE, INPUT, INPUT_QUOTE, INPUT_TICKER, INPUT_TRADE, NO_SEQ, PHASES, QUALITIES, TICK
from obs.sample import Slots

SYMBOLS = ["005930", "KRW-BTC", "Q500001"]
NS = 10**9
T0 = 1_784_000_000 * NS
REGULAR = PHASES.index("regular")
NAN = math.nan


def inputs_of(*rows: dict[str, Any]) -> np.ndarray:
    """INPUT rows; what is not named is unknown."""
    out = np.zeros(len(rows), INPUT)
    for name in INPUT.names or ():
        if INPUT[name].kind == "f":
            out[name] = NAN
    out["venue_seq"] = NO_SEQ
    for place, row in enumerate(rows):
        for name, value in row.items():
            out[name][place] = value
    known = np.flatnonzero(out["row"] > 0)
    out["symbol"][known] = np.array(["", *SYMBOLS], "S20")[out["row"][known]]
    return out


def trade(price: float, size: float, row: int = 1, **more: Any) -> dict[str, Any]:
    return {"row": row, "kind": INPUT_TRADE, "price": price, "size": size, "recv_ns": T0, "event_ns": T0, "phase": REGULAR} | more


def quote(bid: float, ask: float, row: int = 1, **more: Any) -> dict[str, Any]:
    known = {"row": row, "kind": INPUT_QUOTE, "bid_price": bid, "ask_price": ask, "bid_size": 1.0, "ask_size": 2.0}
    return known | {"recv_ns": T0, "event_ns": T0} | more


def slots_of(market: str = "crypto") -> Slots:
    return Slots(SYMBOLS, market, MARKETS[market])


MARKETS = {"crypto": "kr", "kr_stocks": "krx", "us_stocks": "us"}


def one(slots: Slots, *rows: dict[str, Any], ts_ns: int = T0 + NS) -> dict[str, Any]:
    slots.fold(inputs_of(*rows))
    return plain(slots.emit(ts_ns, 0, np.array([1])))[0]


# --- against the model


def decimal(rng: random.Random, highest: int, places: int) -> float:
    return float(f"{rng.randrange(highest * 10**places)}e-{places}")


def random_row(rng: random.Random, clock: int) -> dict[str, Any]:
    kind = rng.choice([INPUT_TRADE, INPUT_TRADE, INPUT_QUOTE, INPUT_TICKER])
    price = rng.choice([NAN, 0.0, -1.0, 100.0, 100.0, 104.0, 106.0, 131.0, decimal(rng, 3, 4)])
    row = {
        "row": rng.randint(1, len(SYMBOLS)), "kind": kind, "recv_ns": clock, "side": rng.randrange(3), "phase": rng.randrange(5),
        "event_ns": rng.choice([0, clock, clock, clock - 7, clock + 6 * NS, clock - 90_000 * NS]),
        "flags": rng.choice([0, HAS_QUOTE]) if kind == INPUT_TRADE else 0, "price": NAN if kind == INPUT_QUOTE else price,
        "size": rng.choice([NAN, 37.0, 0.1, decimal(rng, 20, 8), decimal(rng, 10**6, 3)]), "base_price": rng.choice([NAN, 100.0, 2.0]),
        "acc_volume": rng.choice([NAN, decimal(rng, 1000, 8)]), "venue_seq": rng.choice([NO_SEQ, 5, 2**60]),
    }  # fmt: skip
    return row | {name: rng.choice([NAN, 0.0, -1.0, decimal(rng, 200, 2)]) for name in QUOTED}


@st.composite
def batches(draw: st.DrawFn) -> list[np.ndarray]:
    """Some batches of inputs in order of arrival, of few symbols, so that one batch holds several of each."""
    sizes = draw(st.lists(st.integers(0, 30), min_size=1, max_size=5))
    rng, clock = random.Random(draw(st.integers(0, 2**32))), T0
    found = []
    for size in sizes:
        rows = []
        for _ in range(size):
            clock += rng.choice([0, 1, 1000, NS])
            rows.append(random_row(rng, clock))
        found.append(inputs_of(*rows))
    return found


steps = st.lists(st.sampled_from(["emit", "emit", "flush", "drop", "none"]), min_size=5, max_size=5)


@settings(max_examples=60, deadline=None)
@given(batches(), steps, st.sampled_from(["crypto", "kr_stocks", "us_stocks"]))
def test_sampling_equals_the_model(some: list[np.ndarray], then: list[str], market: str) -> None:
    slots = slots_of(market)
    model = PlainSampler(SYMBOLS, market, MARKETS[market])
    for number, (batch, what) in enumerate(zip(some, then, strict=False)):
        slots.fold(batch)
        model.fold(batch)
        assert slots.occupied().tolist() == model.occupied()
        assert slots.pending().tolist() == model.pending()
        if what == "none":
            continue
        rows = model.occupied() if what == "emit" else model.pending()
        ts_ns = T0 + (number + 1) * NS
        same(plain(slots.emit(ts_ns, number % 3, np.array(rows, np.int64))), model.emit(ts_ns, number % 3, rows))
        if what == "drop":
            slots.disconnected(np.array([1, 3]))
            model.disconnected([1, 3])
    rows = model.occupied()
    same(plain(slots.emit(T0 + 60 * NS, 0, np.array(rows, np.int64))), model.emit(T0 + 60 * NS, 0, rows))


@settings(max_examples=60, deadline=None)
@given(batches(), steps)
def test_the_tape_equals_the_model(some: list[np.ndarray], then: list[str]) -> None:
    slots, model = slots_of(), PlainSampler(SYMBOLS, "crypto", "kr")
    for batch, what in zip(some, then, strict=False):
        same(plain(slots.tape(batch, 1)), model.tape(batch, 1))
        assert slots.occupied().tolist() == model.occupied()
        assert len(slots.pending()) == 0
        if what == "drop":
            slots.disconnected(np.array([2]))
            model.disconnected([2])


@settings(max_examples=60, deadline=None)
@given(batches(), st.integers(1, 7))
def test_the_tape_does_not_depend_on_how_inputs_were_batched(some: list[np.ndarray], size: int) -> None:
    """When a batch ends is an accident of timing; what is recorded must not be."""
    everything = np.concatenate(some)
    cut = [everything[at : at + size] for at in range(0, len(everything), size)]
    whole, parts = slots_of(), slots_of()
    expected = plain(whole.tape(everything, 0)) if len(everything) else []
    same([record for batch in cut for record in plain(parts.tape(batch, 0))], expected)


@settings(max_examples=60, deadline=None)
@given(batches())
def test_the_inputs_are_left_as_they_were(some: list[np.ndarray]) -> None:
    slots = slots_of()
    for batch in some:
        before = batch.tobytes()
        slots.fold(batch)
        slots.tape(batch, 0)
        assert batch.tobytes() == before


# --- what both ways must agree on


def bars(records: list[dict[str, Any]], row_bytes: bytes) -> list[Any]:
    """open, high, low, close of the trades, volume, trades, quotes of one symbol's records."""
    mine = [record for record in records if record["symbol"] == row_bytes]
    opens = [record["open"] for record in mine if record["open"] == record["open"]]
    highs = [record["high"] for record in mine if record["high"] == record["high"]]
    lows = [record["low"] for record in mine if record["low"] == record["low"]]
    volume = round(sum(record["volume"] for record in mine), 8)
    counts = [sum(record[name] for record in mine) for name in ("trades", "quotes")]
    return [opens[0] if opens else None, max(highs, default=None), min(lows, default=None), volume, *counts]


@settings(max_examples=60, deadline=None)
@given(batches(), st.data())
def test_bars_from_records_equal_bars_from_trades(some: list[np.ndarray], data: st.DataObject) -> None:
    """Whatever the intervals, and whether sampled or taped: a bar made of records is the bar made of the trades."""
    slots, taped = slots_of(), slots_of()
    sampled: list[dict[str, Any]] = []
    tape: list[dict[str, Any]] = []
    for batch in some:
        slots.fold(batch)
        tape += plain(taped.tape(batch, 0))
        if data.draw(st.booleans()):
            sampled += plain(slots.emit(T0, 0, slots.occupied()))
    sampled += plain(slots.emit(T0, 0, slots.pending()))
    everything = np.concatenate(some)
    for row, symbol in enumerate(SYMBOLS, 1):
        mine = everything[everything["row"] == row]
        trades = mine[mine["kind"] == INPUT_TRADE]
        prices = trades["price"][~np.isnan(trades["price"])].tolist()
        expected = [
            prices[0] if prices else None, max(prices, default=None), min(prices, default=None),
            round(math.fsum(np.nan_to_num(trades["size"])), 8), len(trades), len(mine) - len(trades),
        ]  # fmt: skip
        assert bars(sampled, symbol.encode()) == expected
        assert bars(tape, symbol.encode()) == expected


# --- cases


@pytest.mark.parametrize(
    ("market", "sizes", "volume"),
    [
        ("crypto", [0.1, 0.2], 0.3),
        ("crypto", [0.1] * 10, 1.0),
        ("crypto", [0.00012345] * 3, 0.00037035),
        ("crypto", [1e-8] * 7, 7e-8),
        ("crypto", [12345678.12345678], 12345678.12345678),
        ("crypto", [100000000.1, 0.2], 100000000.3),  # times 10^8 no longer an exact float64: still 15 digits
        ("crypto", [1234567890123.1, 0.2], 1234567890123.3),
        ("crypto", [100000000.7, *[0.1] * 12], 100000001.9),
        ("crypto", [1234567890.7, *[0.1] * 30], 1234567893.7),
        ("crypto", [1e15, 1.0], 1e15 + 1),
        ("crypto", [2.0**60], 2.0**60),
        ("crypto", [0.3, NAN], 0.3),  # a size that is not known adds nothing
        ("crypto", [], 0.0),
        ("crypto", [50000000.1, *[0.1] * 9], 50000001.0),
        ("us_stocks", [0.5, 0.25], 0.75),
        ("kr_stocks", [37.0, 5.0], 42.0),
        ("kr_stocks", [2.0**53 - 1], 2.0**53 - 1),
    ],
)
def test_sums_leave_as_the_decimals_they_are(market: str, sizes: list[float], volume: float) -> None:
    slots = slots_of(market)
    record = one(slots, quote(1, 2), *[trade(100.0, size) for size in sizes])
    assert repr(record["volume"]) == repr(volume)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 50 * 10**8), max_size=60), st.integers(0, 8))
def test_any_sum_of_sizes_is_exact(numbers: list[int], places: int) -> None:
    sizes = [float(f"{number}e-{places}") for number in numbers]
    record = one(slots_of(), quote(1, 2), *[trade(1.0, size) for size in sizes])
    assert record["volume"] == PlainSampler.total(sizes)


@pytest.mark.parametrize("order", list(itertools.permutations([101.0, 103.0, 99.0])))
def test_first_and_last_of_an_interval_are_those_that_came_first_and_last(order: tuple[float, ...]) -> None:
    slots = slots_of()
    rows = [trade(price, 1.0, side=1 + (price > 100)) for price in order]
    others = [trade(7.0, 1.0, row=2)] * 3
    record = one(slots, *[row for pair in zip(rows, others, strict=True) for row in pair])
    assert (record["open"], record["high"], record["low"], record["last_price"]) == (order[0], 103.0, 99.0, order[-1])
    assert record["side"] == 1 + (order[-1] > 100)
    assert record["trades"] == 3
    assert plain(slots.emit(T0, 0, np.array([2])))[0]["trades"] == 3


def test_a_large_batch_keeps_the_order_of_arrival() -> None:
    """numpy promises no order for repeated indices in general; this is the one it has, forwards and backwards."""
    rng = np.random.default_rng(1)
    for count in (100, 3000):
        batch = inputs_of(*[trade(0.0, 1.0) for _ in range(count)])
        batch["row"], batch["price"] = rng.integers(1, 4, count), np.arange(1.0, count + 1)
        slots = slots_of()
        slots.fold(batch)
        for record, row in zip(plain(slots.emit(T0, 0, np.arange(1, 4))), (1, 2, 3), strict=True):
            mine = batch["price"][batch["row"] == row]
            assert (record["open"], record["last_price"], record["trades"]) == (mine[0], mine[-1], len(mine))


def test_an_interval_without_inputs_repeats_what_is_known() -> None:
    slots = slots_of()
    first = one(slots, trade(100.0, 0.5, flags=HAS_QUOTE, bid_price=99.0, ask_price=101.0, bid_size=1.0, ask_size=2.0, side=1))
    again = plain(slots.emit(T0 + 2 * NS, 0, slots.occupied()))
    assert len(again) == 1
    changed = {name: again[0][name] for name in first if repr(again[0][name]) != repr(first[name])}
    empty = {"ts_ns": T0 + 2 * NS, "volume": 0.0, "trades": 0, "open": NAN, "high": NAN, "low": NAN}
    assert repr(sorted(changed.items())) == repr(sorted(empty.items()))


def test_a_book_without_a_side_forgets_it() -> None:
    slots = slots_of()
    one(slots, quote(99.0, 101.0))
    record = one(slots, quote(99.0, NAN, ask_size=NAN))
    assert (record["bid_price"], record["bid_size"]) == (99.0, 1.0)
    assert math.isnan(record["ask_price"])
    assert math.isnan(record["ask_size"])


def test_a_trade_without_quotes_keeps_those_known() -> None:
    slots = slots_of()
    one(slots, quote(99.0, 101.0))
    record = one(slots, trade(100.0, 1.0))
    assert [record[name] for name in QUOTED] == [99.0, 101.0, 1.0, 2.0]


@pytest.mark.parametrize("taped", [False, True])
def test_after_a_gap_only_the_first_record_says_so(taped: bool) -> None:
    slots = slots_of()

    def records(*rows: dict[str, Any]) -> list[str]:
        if taped:
            found = slots.tape(inputs_of(*rows), 0)
        else:
            slots.fold(inputs_of(*rows))
            found = slots.emit(T0, 0, slots.occupied())
        return [QUALITIES[record["quality"]] for record in found]

    both = [trade(1.0, 1.0), trade(1.0, 1.0), trade(1.0, 1.0, row=2)]
    normal = ["normal"] * (3 if taped else 2)
    assert records(*both) == normal
    slots.disconnected(np.array([1]))
    assert slots.occupied().tolist() == [2]
    assert records(*both) == ["gap", *normal[1:]]
    assert records(*both) == normal


def test_no_record_of_a_disconnected_slot_until_its_next_input() -> None:
    slots = slots_of()
    slots.fold(inputs_of(quote(99.0, 101.0), trade(100.0, 1.0, row=2), trade(100.0, 1.0, row=3)))
    slots.emit(T0, 0, slots.occupied())
    slots.disconnected(np.array([1, 3]))
    assert slots.occupied().tolist() == [2]
    slots.fold(inputs_of(trade(100.0, 2.0, row=3)))
    assert slots.occupied().tolist() == [2, 3]
    _, third = plain(slots.emit(T0, 0, slots.occupied()))
    assert math.isnan(third["bid_price"]), "a quote from before the gap is not known to stand"
    assert third["last_price"] == 100.0


def test_an_empty_batch_changes_nothing() -> None:
    slots = slots_of()
    slots.fold(inputs_of())
    assert len(slots.tape(inputs_of(), 0)) == 0
    assert len(slots.emit(T0, 0, slots.occupied())) == 0
    assert slots.emit(T0, 0, np.zeros(0, np.int64)).dtype == TICK


def test_records_can_be_published_as_they_are() -> None:
    slots = slots_of()
    for records in (slots.tape(inputs_of(trade(1.0, 1.0)), 0), slots.emit(T0, 0, np.array([1, 2]))):
        assert records.dtype == TICK
        assert records.flags.c_contiguous
        assert records.flags.writeable
