"""The data path of a feed without its socket: a real provider, real rings and board in a folder of their own, a Recorder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from native_bench.inputs import SESSION, provider_of
from obs.clock import SYSTEM
from obs.providers.base import Context, Provider
from obs.record.schema import DTYPES
from obs.ring import Ring, create_ring, fence
from obs.roles.recorder import Recorder, Rings
from obs.roles.takeover import take_over
from obs.sample import Slots
from obs.shm import Board


class FeedSide(NamedTuple):
    recorder: Recorder
    context: Context
    provider: Provider
    rings: dict[str, Ring]
    board: Board


@contextmanager
def feed_side(venue: str, channels: tuple[str, ...], symbols: Sequence[str], *, tape: bool) -> Iterator[FeedSide]:
    """Yield a Recorder that has begun; its rings live below /dev/shm, as a feed's do."""
    folder = Path(tempfile.mkdtemp(prefix="obs-bench-", dir="/dev/shm"))
    try:
        provider = provider_of(venue, channels)
        rings = {name: create_ring(folder / name, dtype, 8192, SESSION, name, SYSTEM.wall_ns()) for name, dtype in DTYPES.items()}
        board = Board.create(Board.path(folder, folder, venue), fence)
        slots = Slots([provider.record_symbol(symbol) for symbol in symbols], provider.options.market, provider.options.venue)
        recorder = Recorder(provider, slots, Rings(rings["tick"], rings["event"], rings["quarantine"]), board, SYSTEM, venue, tape)
        take_over(recorder, folder, folder, lambda start_ns, end_ns: [(start_ns, end_ns)])
        yield FeedSide(recorder, provider.context(symbols), provider, rings, board)
        for ring in rings.values():
            ring.close()
        board.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
