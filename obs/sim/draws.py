"""Numbers that are functions of what they are for: a hash of (symbol, place, use), and noise between hashed points.

Nothing here has a state, so that the same question has the same answer in whatever order questions are asked.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_USE: Final = np.uint64(0xD1B54A32D192ED03)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)
_SHIFTS: Final = (np.uint64(30), np.uint64(27), np.uint64(31))
_TOP: Final = np.uint64(11)


def _mix(x: np.ndarray) -> np.ndarray:
    """Return splitmix64 of each; `x`: uint64, overwritten."""
    x ^= x >> _SHIFTS[0]
    x *= _MIX_1
    x ^= x >> _SHIFTS[1]
    x *= _MIX_2
    x ^= x >> _SHIFTS[2]
    return x


def keys_of(seed: int, codes: Sequence[str]) -> np.ndarray:
    """Return a key for each code, uint64."""
    crcs = np.array([zlib.crc32(code.encode()) for code in codes], np.uint64)
    return _mix(crcs + np.full(1, (seed + 1) & 0xFFFFFFFF, np.uint64) * _GOLDEN)


def hashes(keys: np.ndarray, places: np.ndarray, use: int) -> np.ndarray:
    """Return 64 random bits for each (key, place). `keys`: uint64; `places`: int64 of the same shape."""
    return _mix(keys + places.astype(np.uint64) * _GOLDEN + np.full(1, use, np.uint64) * _USE)


def uniforms(keys: np.ndarray, places: np.ndarray, use: int) -> np.ndarray:
    """Return floats in [0, 1), 53 bits each."""
    return (hashes(keys, places, use) >> _TOP) * 2.0**-53


def noise(keys: np.ndarray, at_ms: np.ndarray, period_ms: int, use: int) -> np.ndarray:
    """Return a continuous function of time in [-1, 1]: straight lines between a hashed point each period."""
    cells, inside = np.divmod(at_ms, period_ms)
    here, there = uniforms(keys, cells, use), uniforms(keys, cells + 1, use)
    between: np.ndarray = here + (there - here) * (inside / period_ms)
    return 2 * between - 1
