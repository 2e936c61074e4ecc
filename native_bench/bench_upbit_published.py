"""Against a rival: Upbit frames to published records, beside cryptofeed's own message handler on the same frames.

Ours: classify, decode, count (the ledger), completeness, guards, one record of every input (tape mode) published to a ring in
shared memory; batches of 1 are what a quiet feed has, of 64 a busy one (its pump waits 10 ms). The rival: `Upbit.message_handler`
as its connection calls it, its Trade and OrderBook objects handed to callbacks that do nothing; nothing leaves its process.
Frames are in SIMPLE format, the only one that it reads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from native_bench.bench_decode_upbit import codes_of
from native_bench.feedside import feed_side
from native_bench.inputs import BOOK, TRADE, recorded_upbit, upbit_frames
from native_bench.rows import Row, Target, pyperf_main
from obs.sample import Completeness

ROW: Final = Row(
    "upbit_published", "Upbit frame to published record", "cryptofeed's own message handler on the same frames",
    (Target("rate", 5, "cryptofeed"),), "captured, batches of 64",
)  # fmt: skip
FRAMES: Final = 512
Load = tuple[Sequence[bytes], int]  # frames, messages in a batch


def ours(loops: int, load: Load) -> float:
    frames, batch = load
    batches = [frames[at : at + batch] for at in range(0, len(frames), batch)]
    with feed_side("upbit", ("trade", "book"), codes_of(frames), tape=True) as side:
        message, process, context, now = side.recorder.message, side.recorder.process, side.context, time.time_ns
        spent = 0.0
        for _ in range(loops):
            # The same trades again are new ones: what the recorder remembers of their ids is forgotten.
            side.recorder._completeness = Completeness(side.recorder.slots.rows)
            start = time.process_time()
            for some in batches:
                for frame in some:
                    message(frame, now(), context)
                process()
            spent += time.process_time() - start
        assert side.recorder.tick.published == loops * len(frames), "every frame is a record"
    return spent


def rival(loops: int, load: Load) -> float:
    from cryptofeed.defines import L2_BOOK, TRADES
    from cryptofeed.exchanges import Upbit
    from cryptofeed.symbols import Symbols

    frames, _ = load
    mapping, info = Upbit._parse_symbol_data([{"market": code} for code in codes_of(frames)])
    Symbols.set(Upbit.id, mapping, info)
    taken = 0

    async def on_data(_data: Any, _receipt: float) -> None:
        nonlocal taken
        taken += 1

    async def run() -> float:
        feed = Upbit(symbols=list(mapping), channels=[TRADES, L2_BOOK], callbacks={TRADES: on_data, L2_BOOK: on_data})
        handle, now = feed.message_handler, time.time
        texts = [frame.decode() for frame in frames]
        start = time.process_time()
        for _ in range(loops):
            for text in texts:
                await handle(text, None, now())
        return time.process_time() - start

    spent = asyncio.run(run())
    assert taken == loops * len(frames), "every frame reached a callback"
    return spent


def main() -> None:
    sides = {"obs": ours, "cryptofeed": rival}
    missing = {}
    try:
        import cryptofeed  # noqa: F401
    except ImportError as error:
        del sides["cryptofeed"]
        missing["cryptofeed"] = f"not installed: {error}"
    kinds = {"trades": (TRADE,), "trades and books": (TRADE, BOOK)}
    loads: dict[str, Callable[[], list[bytes]]] = {name: partial(upbit_frames, FRAMES, kind, "SIMPLE") for name, kind in kinds.items()}
    counts = dict.fromkeys(loads, FRAMES)
    if recorded_upbit():
        loads["captured"], counts["captured"] = captured, len(captured())
    else:
        missing["captured"] = "no recordings (OBS_RECORDINGS)"
    sizes: dict[str, tuple[Callable[[], Load], int]] = {}
    for name, frames in loads.items():
        for batch in (1, 64):
            sizes[f"{name}, batches of {batch}"] = (partial(load_of, frames, batch), counts[name])
    pyperf_main(ROW, sides, sizes, missing)


def captured() -> list[bytes]:
    return [frame for frame in recorded_upbit() if b'"st":"REALTIME"' in frame]


def load_of(frames: Callable[[], list[bytes]], batch: int) -> Load:
    return frames(), batch


if __name__ == "__main__":
    main()
