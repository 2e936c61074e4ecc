"""The selection in a real poll against a simulated venue whose named symbols surge, in compressed time: the right answer is known."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import groupby

import pytest
from poll_rig import Rig

from obs.market import universe as u
from obs.market.pins import change_pins, pins_path

FRIDAY = "2026-11-20"
DAY = 20261120
SLOTS = 8


def held(rig: Rig) -> list[str]:
    return list((rig.board["wanted"].read_json() or {}).get("symbols", []))


@pytest.mark.parametrize(("venue", "before", "day"), [("kis", "T09:08:00+09:00", DAY), ("upbit", "T01:08:00+00:00", DAY)])
def test_named_surges_hold_slots_within_one_evaluation(rig: Callable[..., Rig], venue: str, before: str, day: int) -> None:
    one = rig(venue, 120, FRIDAY + before, 120.0, section=f"slots = {SLOTS}\n")
    chosen: list[str] = []
    pinned: list[str] = []

    async def surge() -> None:
        await one.until("the bootstrap", lambda: len(held(one)) == SLOTS)
        market = one.spec.provider.market if one.spec.provider else ""
        listed = u.load(one.data, market, day)
        assert listed is not None
        assert held(one) == listed.symbols[:SLOTS], "the largest by traded value"
        await one.until("three sweeps", lambda: len(one.sweeps()) == 3)
        quiet = [symbol for symbol in listed.symbols[SLOTS : 5 * SLOTS] if symbol not in held(one)]
        chosen[:] = quiet[:5]
        pinned[:] = quiet[10:11]
        for symbol in chosen:
            await asyncio.to_thread(one.do, {"do": "surge", "symbol": symbol, "factor": 30, "for_s": 1800})
        change_pins(pins_path(one.data, venue), lambda pins: pins._replace(pinned=tuple(pinned)))
        await one.until("the pin", lambda: pinned[0] in held(one))
        await one.until("the next sweep but one", lambda: len(one.sweeps()) == 5)

    one.run(surge)
    slots = one.events("slot")
    sweeps = one.sweeps()
    first = {event["symbol"]: event for event in slots if event["what"] in ("swap", "allocate") and event["ts_ns"] > sweeps[2]["ts_ns"]}
    for symbol in chosen:
        assert symbol in first, (symbol, slots, [entry for entry in one.events("overflow") if entry["symbol"] == symbol])
        event = first[symbol]
        assert event["score"] > 0
        assert event["ts_ns"] <= sweeps[4]["ts_ns"], "with the first sweep that can see it, or the one after if it begins within one"
    assert sum(first[symbol]["trigger"] == "volume_surge" for symbol in chosen) >= 4, "one may have moved before its surge"
    for symbol in chosen:
        assert symbol in held(one) or any(event.get("out") == symbol for event in slots)
    assert [event["symbol"] for event in slots if event["what"] == "pin"] == pinned
    assert first[pinned[0]]["trigger"] == "manual"

    # slots: never more than there are, each step follows from the one before
    now: set[str] = set()
    for event in slots:
        if event["what"] in ("bootstrap", "allocate", "swap"):
            assert event["symbol"] not in now
            now = (now - {event.get("out", "")}) | {event["symbol"]}
        elif event["what"] == "release":
            now.remove(event["symbol"])
        assert len(now) <= SLOTS
    assert now == set(held(one))
    assert len(held(one)) == SLOTS

    # the ledger: each evaluation's entries in the order of their ranks, scores falling with them, nobody twice
    ledger = one.events("overflow")
    for _, entries in groupby(ledger, key=lambda entry: entry["ts_ns"]):
        batch = list(entries)
        assert len({entry["symbol"] for entry in batch}) == len(batch)
        ranks, scores = [entry["rank"] for entry in batch], [entry["candidate_score"] for entry in batch]
        assert ranks == sorted(set(ranks))
        assert scores == sorted(scores, reverse=True)
        assert {entry["cutoff_rank"] for entry in batch} == {SLOTS}
    assert one.events("warning") == []
    assert json.loads(pins_path(one.data, venue).read_text())["pinned"] == pinned

    # nobody archives here: the oldest record grows old, which is strain, and is told
    climbs = one.events("mitigation")
    assert [(climb["level_before"], climb["level_after"]) for climb in climbs] in ([(0, 1), (1, 2)], [(0, 2)])
    assert "queue_s" in climbs[-1]["causes"]
    assert one.board["level"].read_json()["level"] == 2
