"""From options to an exchange: check them, load what they name, put source, log and venue together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from obs.errors import ConfigError
from obs.sim.captured import Captured, load_captured
from obs.sim.exchange import Exchange
from obs.sim.kis import KisExchange
from obs.sim.log import SimLog
from obs.sim.market import Source
from obs.sim.model import ModelSource
from obs.sim.numbered import NumberedSource
from obs.sim.options import SimOptions
from obs.sim.script import load_script
from obs.sim.tape import TAPE_FILE, TapeSource, load_tape
from obs.sim.upbit import UpbitExchange

_POSITIVE: Final = ("rate", "slots", "width", "book_width", "pingpong_s", "pong_timeout_s", "idle_s", "connects_per_s", "buffer_bytes")


def build_exchange(options: SimOptions) -> Exchange:
    """Return the exchange that the options describe, not yet running. Raises ConfigError with every problem."""
    problems = [f"{name} = {getattr(options, name)!r}: allowed is a positive number" for name in _POSITIVE if getattr(options, name) <= 0]
    if not 0 <= options.port <= 65535:
        problems.append(f"port = {options.port!r}: allowed is 0 (any free one) to 65535")
    if options.source == "recordings" and options.recordings is None:
        problems.append("recordings is missing: --source recordings needs the folder")
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
    log = SimLog(options.log)
    exchange: Exchange
    if options.venue == "kis":
        exchange = KisExchange(options, source, log, captured)
    else:
        exchange = UpbitExchange(options, source, log, captured, pairs)
    exchange.script = script
    return exchange


def recorded_pairs(folder: Path) -> dict[str, float]:
    """Return the pairs of the recorded market lists, if there are any; their prices are not known (0)."""
    pairs: dict[str, float] = {}
    for path in sorted((folder / "upbit").glob("rest_market_all*.jsonl")):
        for line in path.read_text().splitlines():
            pairs |= {row["market"]: 0.0 for row in json.loads(line)["body"]}
    return pairs
