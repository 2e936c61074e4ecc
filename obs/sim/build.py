"""From options to an exchange: check them, load what they name, put source, log and venue together."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Final

from obs.clock import SYSTEM
from obs.errors import ConfigError
from obs.sim import now
from obs.sim.captured import Captured, load_captured
from obs.sim.exchange import Exchange
from obs.sim.hours import day_number, hours_of
from obs.sim.kis import KisExchange
from obs.sim.log import SimLog
from obs.sim.market import Source
from obs.sim.model import ModelSource
from obs.sim.numbered import NumberedSource
from obs.sim.options import SimOptions
from obs.sim.script import load_script
from obs.sim.tape import TAPE_FILE, TapeSource, load_tape
from obs.sim.universe import SCENARIO, Universe
from obs.sim.upbit import UpbitExchange

_POSITIVE: Final = (
    "rate", "slots", "width", "book_width", "pingpong_s", "pong_timeout_s", "idle_s", "connects_per_s", "buffer_bytes", "clock_rate",
    "jitter_s",
)  # fmt: skip


def build_exchange(options: SimOptions) -> Exchange:
    """Return the exchange that the options describe, not yet running. Raises ConfigError with every problem."""
    problems = [f"{name} = {getattr(options, name)!r}: allowed is a positive number" for name in _POSITIVE if getattr(options, name) <= 0]
    if not 0 <= options.port <= 65535:
        problems.append(f"port = {options.port!r}: allowed is 0 (any free one) to 65535")
    if options.source == "recordings" and options.recordings is None:
        problems.append("recordings is missing: --source recordings needs the folder")
    if options.universe < 0 or (options.universe and options.source != "model"):
        problems.append(f"universe = {options.universe!r}: allowed is a number of symbols, with --source model")
    problems += [f"holiday = {day}: allowed is YYYYMMDD" for day in options.holidays if day_number(str(day)) is None]
    if options.clock_start and clock_start_ns(options) is None:
        problems.append(f"clock_start = {options.clock_start!r}: allowed is ISO 8601 with an offset")
    if options.clock_lull_rate < 0:
        problems.append(f"clock_lull_rate = {options.clock_lull_rate}: allowed is 0 or more")
    if options.clock_mono_ns is not None and not options.clock_start:
        problems.append("clock_mono_ns says when clock_start was: clock_start is missing")
    if problems:
        raise ConfigError("the options are wrong", problems=problems)
    script = load_script(options.script) if options.script else []
    captured: list[Captured] = []
    source: Source
    pairs: dict[str, float] = {}
    if options.source == "recordings" and options.recordings is not None:
        captured = load_captured(options.recordings, options.venue)
        source = TapeSource(load_tape(options.recordings / TAPE_FILE), options.rate, options.seed)
        pairs = recorded_pairs(options.recordings)
    elif options.source == "numbered":
        source = NumberedSource(options.rate, options.start_k)
    else:
        source = ModelSource(options.rate, options.seed)
    universe = None
    if options.universe:
        universe = Universe(options.venue, options.universe, options.seed, hours_of(options.venue, options.hours, options.holidays))
        pairs = dict(zip(universe.listing.codes, universe.listing.price.tolist(), strict=True))
    unknown = [action.symbol for action in script if action.do in SCENARIO and (universe is None or action.symbol not in universe.row_of)]
    if unknown:
        raise ConfigError("the script is wrong", problems=[f"symbol = {symbol!r}: no symbol of --universe" for symbol in unknown])
    log = SimLog(options.log)
    exchange: Exchange
    if options.venue == "kis":
        exchange = KisExchange(options, source, log, captured)
    else:
        exchange = UpbitExchange(options, source, log, captured, pairs)
    exchange.script = script
    exchange.universe = universe
    return exchange


def clock_start_ns(options: SimOptions) -> int | None:
    """Return clock_start in UTC nanoseconds, None if it is not given or no time with an offset."""
    try:
        start = datetime.fromisoformat(options.clock_start)
    except ValueError:
        return None
    return None if start.tzinfo is None else int(start.timestamp()) * 10**9 + start.microsecond * 1000


def start_clock(options: SimOptions) -> dict[str, float]:
    """Switch to the venue's clock that the options ask for; return what another process needs to build the same one ({}: the host's)."""
    if not options.clock_start and options.clock_rate == 1.0:
        return {}
    start_ns = clock_start_ns(options) if options.clock_start else None
    mono_ns = SYSTEM.mono_ns() if options.clock_mono_ns is None else options.clock_mono_ns
    clock = now.VenueClock(SYSTEM.wall_ns() if start_ns is None else start_ns, mono_ns, options.clock_rate, options.clock_lull_rate)
    now.use(clock, options.jitter_s)
    lull = {"lull_rate": clock.lull_rate} if clock.lull_rate else {}
    return {"start_ns": clock.start_ns, "mono_ns": clock.mono_ns_at_start, "rate": clock.rate, **lull}


def recorded_pairs(folder: Path) -> dict[str, float]:
    """Return the pairs of the recorded market lists, if there are any; their prices are not known (0)."""
    pairs: dict[str, float] = {}
    for path in sorted((folder / "upbit").glob("rest_market_all*.jsonl")):
        for line in path.read_text().splitlines():
            pairs |= {row["market"]: 0.0 for row in json.loads(line)["body"]}
    return pairs
