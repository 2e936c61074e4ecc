"""Absolute cost: KIS trade messages to INPUT rows, beside `payload.split(b"^")` alone on the same frames.

The floor is what a decoder of one message in Python must do: the fields are as many as 47 a record, in text. Ours gets the messages in
batches of BATCH, as a flood gives them to a feed (its pump waits 10 ms); "one by one" is the same for a feed with less to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import numpy as np

from native_bench.inputs import kis_frames, provider_of, recorded_kis
from native_bench.rows import Row, Target, pyperf_main
from obs.config.demo import KIS_SYMBOLS
from obs.record.schema import INPUT

ROW: Final = Row(
    "decode_kis", "KIS trade decode", '`payload.split(b"^")` alone on the same frames', (Target("time", 2.5, "floor"),),
    "1 record a message",
)  # fmt: skip
FRAMES: Final = 4096
BATCH: Final = 1024


def decode(loops: int, frames: Sequence[bytes]) -> float:
    """Return the seconds of `loops` times all `frames`."""
    provider = provider_of("kis", ("trade",))
    context, out, take = provider.context(KIS_SYMBOLS), np.zeros(16 * BATCH, INPUT), provider.decode_many
    batches = [frames[at : at + BATCH] for at in range(0, len(frames), BATCH)]
    times = [time.time_ns()] * BATCH
    start = time.process_time()
    for _ in range(loops):
        for batch in batches:
            taken = take(batch, times, context, out, 0)
            assert taken.messages == len(batch)
    return time.process_time() - start


def one_by_one(loops: int, frames: Sequence[bytes]) -> float:
    provider = provider_of("kis", ("trade",))
    context, out, take = provider.context(KIS_SYMBOLS), np.zeros(2048, INPUT), provider.decode
    recv_ns = time.time_ns()
    start = time.process_time()
    for _ in range(loops):
        for frame in frames:
            take(frame, recv_ns, context, out, 0)
    return time.process_time() - start


def floor(loops: int, frames: Sequence[bytes]) -> float:
    start = time.process_time()
    for _ in range(loops):
        for frame in frames:
            frame.split(b"^")
    return time.process_time() - start


def recorded(times: int) -> list[bytes]:
    return recorded_kis() * times


def main() -> None:
    sizes: dict[str, tuple[Callable[[], list[bytes]], int]] = {}
    for records in (1, 4, 9):
        sizes[f"{records} record{'s' if records > 1 else ''} a message"] = (partial(kis_frames, FRAMES, records), FRAMES * records)
    missing = {}
    if captured := recorded_kis():
        times = FRAMES // len(captured)
        sizes["captured"] = (partial(recorded, times), times * sum(int(frame.split(b"|")[2]) for frame in captured))
    else:
        missing["captured"] = "no recordings (OBS_RECORDINGS)"
    pyperf_main(ROW, {"obs": decode, "one by one": one_by_one, "floor": floor}, sizes, missing)


if __name__ == "__main__":
    main()
