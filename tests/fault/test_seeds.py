"""I5, the same seed gives the same result: through the whole system, from the exchanges' market to the records of the archive.

What must be equal, without faults: the records of each symbol in their order, in every column that no clock has a part in. What
need not be: how the symbols lie between each other, and how far a run comes. Of the faults of a run, their sequence with every
parameter (`test_soak.py`); what they hit is a matter of microseconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import pytest
from evidence import MARKETS, segment_lines
from harness import PROVIDERS, Demo

# Times and identity; the venues' own counts begin at the clock.
CLOCKED = ("ts", "event_time", "ts_ns", "event_ns", "recv_ns", "session_id", "seq", "acc_volume", "venue_seq", "flags", "phase")
RECORDS = 4000  # of each provider
ENOUGH = 20  # records of a symbol that both runs hold: of so many symbols
SYMBOLS = 30

Make = Callable[..., Demo]
Records = dict[str, list[tuple[object, ...]]]
pytestmark = pytest.mark.timeout(300)


def records_of(one: Demo, provider: str) -> Records:
    """Return the archived records of each symbol in order, without what a clock has a part in."""
    problems: list[str] = []
    found: Records = defaultdict(list)
    acc: dict[str, float] = {}
    for path in sorted((one.data / "scalp" / provider / MARKETS[provider]).glob("*/*.jsonl.zst")):
        for line in segment_lines(path, problems):
            assert "event_type" not in line, "a gap in a run without faults"
            symbol, total = line["symbol"], line["acc_volume"]
            step = None if total is None or symbol not in acc else round(total - acc[symbol], 8)
            acc[symbol] = total
            found[symbol].append((step, *(value if value != [] else None for key, value in line.items() if key not in CLOCKED)))
    assert not problems, problems
    return found


def run(demo: Make, dsn: str, seed: int) -> dict[str, Records]:
    one = demo(dsn=dsn, demo={"source": "model", "seed": seed, "rate": 2000, "mode": "tape"})
    one.start()
    for provider in PROVIDERS:
        one.more(provider, RECORDS)
    one.caught_up()
    one.stop()
    return {provider: records_of(one, provider) for provider in PROVIDERS}


def test_the_same_seed_gives_the_same_records(demo: Make, dsn: str) -> None:
    first, again, other = (run(demo, dsn, seed) for seed in (7, 7, 8))
    for provider in PROVIDERS:
        long_enough = differing = 0
        for symbol, records in first[provider].items():
            both = min(len(records), len(again[provider][symbol]))
            assert records[:both] == again[provider][symbol][:both], f"{provider} {symbol}"
            long_enough += both >= ENOUGH
            differing += records[:ENOUGH] != other[provider][symbol][:ENOUGH]
        assert long_enough >= SYMBOLS, long_enough
        assert differing >= SYMBOLS, "another seed gives the same market"
