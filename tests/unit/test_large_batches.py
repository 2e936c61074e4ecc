"""A batch of thousands gives what the same inputs give in small ones: from some size on other code does the work."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest

from obs.record.schema import HAS_QUOTE, IGNORED, INPUT, INPUT_QUOTE, INPUT_TICKER, INPUT_TRADE, NO_SEQ, TICK
from obs.sample import Completeness, Missed, Slots
from obs.sample.guards import Before, History

ROWS = 9
DAY = 20260714
NS = 10**9


def inputs_of(rng: random.Random, count: int, odd: float) -> np.ndarray:
    """Inputs of some symbols, most of them trades whose volumes add up; a share `odd` is repeated, late, of another day, unknown."""
    out = np.zeros(count, INPUT)
    acc = dict.fromkeys(range(1, ROWS), 1000)
    out["row"] = [rng.choice([1, 1, 1, 2, 3, rng.randrange(1, ROWS)]) for _ in range(count)]
    out["recv_ns"] = np.cumsum([rng.randrange(10**6) for _ in range(count)]) + 1_784_000_000 * NS
    out["event_ns"] = out["recv_ns"] // NS * NS
    out["venue_seq"], out["acc_day"] = NO_SEQ, DAY
    for place in range(count):
        row, size = int(out["row"][place]), rng.randrange(1, 100)
        strange = rng.random() < odd
        acc[row] += size + (rng.randrange(1, 9) if strange and rng.random() < 0.2 else 0)
        told: dict[str, Any] = {"kind": INPUT_TRADE, "flags": HAS_QUOTE, "price": 100 + rng.randrange(-3, 4), "size": size, "phase": 3}
        told |= {"side": rng.randrange(3), "acc_volume": acc[row], "bid_price": 99, "ask_price": 101, "bid_size": 5, "ask_size": 6}
        told["base_price"] = rng.choice([100, 60]) if strange else 100
        if strange:
            told |= rng.choice([
                {"acc_volume": acc[row] - size - rng.randrange(200)}, {"acc_volume": np.nan}, {"size": np.nan}, {"acc_day": DAY + 1},
                {"venue_seq": rng.randrange(5)}, {"event_ns": out["event_ns"][place] - rng.randrange(9 * NS)}, {"event_ns": 0},
                {"kind": INPUT_QUOTE, "price": np.nan, "size": np.nan, "acc_volume": np.nan, "phase": 0, "base_price": np.nan},
                {"kind": INPUT_TICKER, "flags": 0, "size": np.nan, "bid_price": np.nan, "ask_price": np.nan}, {"flags": 0, "phase": 0},
                {"price": np.nan}, {"price": 130.0}, {"bid_price": np.nan, "bid_size": np.nan}, {"size": 100_000},
                {"ignore": IGNORED.index("snapshot")},
            ])  # fmt: skip
        for name, value in told.items():
            out[name][place] = value
    return out


def pieces(inputs: np.ndarray, size: int) -> list[np.ndarray]:
    return [inputs[at : at + size].copy() for at in range(0, len(inputs), size)]


@pytest.mark.parametrize("odd", [0.0, 0.001, 0.02, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_the_same_trades_are_missed_and_repeated(seed: int, odd: float) -> None:
    inputs = inputs_of(random.Random(seed), 3000, odd)
    found: list[tuple[list[Missed], list[int]]] = []
    for size in (7, 3000, 1000):
        judge, batches = Completeness(ROWS), pieces(inputs, size)
        missed = list(itertools.chain.from_iterable(map(judge.judge, batches)))
        found.append((missed, np.concatenate(batches)["ignore"].tolist()))
    assert repr(found[0]) == repr(found[1]) == repr(found[2])
    if odd:
        assert found[0][0] or odd < 0.01


@pytest.mark.parametrize("odd", [0.0, 0.001, 0.02, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_the_same_records_come_of_the_tape(seed: int, odd: float) -> None:
    inputs = inputs_of(random.Random(seed), 3000, odd)
    inputs = inputs[inputs["ignore"] == 0]
    found = []
    for size in (7, 3000, 1000):
        slots = Slots([f"00{row:04d}" for row in range(1, ROWS)], "kr_stocks", "krx")
        slots.disconnected(np.array([2, 3]))
        found.append(np.concatenate([slots.tape(batch, 1) for batch in pieces(inputs, size)]).tobytes())
    assert found[0] == found[1] == found[2]
    if odd > 0.01:
        assert len(np.unique(np.frombuffer(found[0], TICK)["flags"])) > 3, "guards fired"


@pytest.mark.parametrize("seed", range(5))
def test_what_was_known_before_does_not_depend_on_batches(seed: int) -> None:
    """Also where there was nothing: the first records of a row, rows without trades, times that go backwards."""
    rng = random.Random(seed)
    rows = np.array([rng.choice([1, 1, 2, rng.randrange(1, ROWS)]) for _ in range(2000)])
    records = np.zeros(len(rows), TICK)
    records["last_price"] = [rng.choice([np.nan, 100.0, 101.5]) for _ in rows]
    records["event_ns"] = [rng.choice([0, 5, 9, place]) for place in range(len(rows))]
    records["trades"] = [row != 3 and rng.choice([0, 1, 1, 2]) for row in rows]
    records["volume"] = np.where(records["trades"], [rng.random() * 10 for _ in rows], 0.0)
    found = []
    for size in (9, 2000, 500):
        history = History(ROWS)
        parts = [history.before(rows[at : at + size], records[at : at + size]) for at in range(0, len(rows), size)]
        found.append(Before(*map(np.concatenate, zip(*parts, strict=True))))
    traded = records["trades"] > 0
    for other in found[1:]:
        np.testing.assert_array_equal(other.price, found[0].price)
        np.testing.assert_array_equal(other.event_ns, found[0].event_ns)
        np.testing.assert_array_equal(other.volume[traded], found[0].volume[traded])
