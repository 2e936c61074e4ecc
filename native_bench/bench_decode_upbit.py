"""Absolute cost: Upbit messages to INPUT rows, beside orjson.loads alone on the same frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import numpy as np
import orjson

from native_bench.inputs import BOOK, TICKER, TRADE, provider_of, recorded_upbit, upbit_frames
from native_bench.rows import Row, Target, pyperf_main
from obs.config.demo import UPBIT_SYMBOLS
from obs.record.schema import INPUT

ROW: Final = Row(
    "decode_upbit", "Upbit decode", "orjson.loads alone on the same frames", (Target("time", 1.6, "floor"),), "trades and books",
)  # fmt: skip
FRAMES: Final = 1000


def codes_of(frames: Sequence[bytes]) -> list[str]:
    """Return the codes that the frames speak of, as a feed that subscribed them would know them."""
    messages = [orjson.loads(frame) for frame in frames]
    return sorted({message.get("cd") or message["code"] for message in messages} | set(UPBIT_SYMBOLS))


def decode(loops: int, frames: Sequence[bytes]) -> float:
    """Return the seconds of `loops` times all `frames`."""
    provider = provider_of("upbit", ("trade", "book"))
    context, out, take = provider.context(codes_of(frames)), np.zeros(2048, INPUT), provider.decode
    recv_ns = time.time_ns()
    start = time.process_time()
    for _ in range(loops):
        for frame in frames:
            take(frame, recv_ns, context, out, 0)
    return time.process_time() - start


def floor(loops: int, frames: Sequence[bytes]) -> float:
    loads = orjson.loads
    start = time.process_time()
    for _ in range(loops):
        for frame in frames:
            loads(frame)
    return time.process_time() - start


def main() -> None:
    kinds = {"trades": (TRADE,), "books of 15": (BOOK,), "tickers": (TICKER,), "trades and books": (TRADE, BOOK)}
    sizes: dict[str, tuple[Callable[[], list[bytes]], int]]
    sizes = {name: (partial(upbit_frames, FRAMES, kind), FRAMES) for name, kind in kinds.items()}
    missing = {}
    if captured := recorded_upbit():
        sizes["captured"] = (recorded_upbit, len(captured))
    else:
        missing["captured"] = "no recordings (OBS_RECORDINGS)"
    pyperf_main(ROW, {"obs": decode, "floor": floor}, sizes, missing)


if __name__ == "__main__":
    main()
