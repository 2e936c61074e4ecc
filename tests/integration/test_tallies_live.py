"""What /metrics counts of system/events, against the events of a real poll that sweeps and selects: the keys are those it writes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from poll_rig import SESSION, Rig

from obs.monitor.tallies import OTHER, Tallies
from obs.record.events import event_line

SYMBOLS, SLOTS = 60, 8


def test_a_poll_that_sweeps_and_selects(rig: Callable[..., Rig]) -> None:
    one = rig("kis", SYMBOLS, "2026-11-20T09:28:00+09:00", 200.0, section=f"slots = {SLOTS}\n")
    one.log.count_dropped()

    async def one_sweep() -> None:
        await one.until("a sweep", one.sweeps)
        await one.until("losers", lambda: one.events("overflow"))

    one.run(one_sweep)
    folder = one.data / "system" / "events" / "kis"
    folder.mkdir(parents=True)
    rows: np.ndarray = one.rows("poll_event")
    (folder / "20261120.jsonl").write_bytes(b"".join(event_line(row, SESSION, "kis", "poll_event") + b"\n" for row in rows))
    tallies = Tallies(one.data)
    tallies.look(["kis"])
    tally = tallies.of("kis")
    assert tally is not None
    sweeps = one.sweeps()
    assert tally.symbols["quoted"] == sum(sweep["received"] for sweep in sweeps) > 0
    assert tally.symbols["failed"] == sum(sweep["failed"] for sweep in sweeps)
    assert tally.symbols["candle"] == sum(sweep["candles"] for sweep in sweeps)
    assert tally.sweep is not None
    assert (tally.sweep.expected, tally.sweep.seconds) == (sweeps[-1]["expected"], sweeps[-1]["seconds"])
    assert tally.sweep.end_s * 10**9 == sweeps[-1]["bar_ns"] + 600 * 10**9
    assert sum(tally.overflow.values()) == len(one.events("overflow")) > 0
    assert tally.slot_steps["bootstrap"] == SLOTS
    assert OTHER not in {*tally.overflow, *tally.slot_steps, *tally.warnings}
    assert tally.bad_lines == 0
    assert one.cell["log_dropped"] == one.log.dropped > 0, "and the poll says what of its log was lost"
