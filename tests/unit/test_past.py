"""The figures of the last minutes: in order, bounded, and small."""

from __future__ import annotations

import tracemalloc

import orjson

from obs.monitor.past import KEPT, Past


def test_the_newest_are_kept_in_order() -> None:
    past = Past(3)
    assert past.to_json() == {"ms": [], "cpu": [], "memory": [], "providers": {}}
    for number in range(5):
        past.add(1000 * number, number / 10, 0.5, {"kis": (float(number), 2.0), "upbit": (None, None)})
    found = orjson.loads(orjson.dumps(past.to_json()))
    assert found == {
        "ms": [2000, 3000, 4000], "cpu": [0.2, 0.3, 0.4], "memory": [0.5] * 3,
        "providers": {"kis": {"messages": [2.0, 3.0, 4.0], "records": [2.0] * 3}, "upbit": {"messages": [None] * 3, "records": [None] * 3}},
    }  # fmt: skip


def test_a_provider_that_comes_has_no_past_and_one_that_goes_leaves_none() -> None:
    past = Past(3)
    past.add(1, None, None, {"kis": (1.0, 1.0)})
    past.add(2, 0.1, 0.1, {"upbit": (2.0, 2.0)})
    found = orjson.loads(orjson.dumps(past.to_json()))
    assert (found["ms"], found["cpu"]) == ([1, 2], [None, 0.1])
    assert found["providers"] == {"upbit": {"messages": [None, 2.0], "records": [None, 2.0]}}


def test_it_is_small_and_does_not_grow() -> None:
    past, rates = Past(), dict.fromkeys(("kis", "upbit"), (123.4, 82.0))
    past.add(0, 0.5, 0.5, rates)
    began = past.nbytes
    assert began == 8 * KEPT * (3 + 2 * len(rates))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for second in range(1, 3 * KEPT):
            past.add(1_795_300_000_000 + 1000 * second, 0.5123, 0.1234, rates)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    sent = len(orjson.dumps(past.to_json()))
    print(f"  {began} bytes kept, {grown} more after {3 * KEPT} looks, {sent} bytes sent to a page")
    assert past.nbytes == began
    assert grown < 4096
    assert sent < 40_000
