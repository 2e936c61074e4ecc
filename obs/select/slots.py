"""Who takes and who leaves a slot: the best scores get in, with two brakes against swapping to and fro.

A challenger replaces the weakest holder only if its score is more than 1.2 times the holder's, and only a holder that has had
its slot for the minimum time. Pinned rows come first and are never replaced; excluded ones, and rows that have left the universe,
go at once. Free slots take the best of the rest: by score, then by `size`, the traded value, which makes the bootstrap list before
the first sweep. Ties go to the lower row, so that the same input gives the same slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class SlotOptions:
    """`beat`: how much better a challenger must be. `hold_s`: how long a slot is safe. `least_score`: what may replace a holder."""

    beat: float = 0.20
    hold_s: float = 180.0
    least_score: float = 0.01


class Decision(NamedTuple):
    """Rows of the universe: `held` after all of it; `swaps` are (out, in); all others of `release` and `allocate` stand alone."""

    held: tuple[int, ...]
    allocate: tuple[int, ...]
    release: tuple[int, ...]
    swaps: tuple[tuple[int, int], ...]


def decide(
    score: np.ndarray, size: np.ndarray, held: dict[int, int], pinned: np.ndarray, excluded: np.ndarray, capacity: int, now_ns: int,
    options: SlotOptions,
) -> Decision:  # fmt: skip
    """Return who holds the `capacity` slots from now on.

    `score`, `size`: (n,) float64, NaN counts as 0. `held`: row -> since when (ns), rows of symbols that have left the universe are < 0.
    `pinned`, `excluded`: (n,) bool; excluded wins. A capacity below the number of holders releases the weakest.
    """
    score, size = np.nan_to_num(score), np.nan_to_num(size)
    holders = [row for row in held if row >= 0]
    worth = pinned | (score > 0)
    worth[holders] = True
    if np.count_nonzero(worth & ~excluded) < capacity:
        worth |= size > 0  # a slot is better filled by size than left free
    worth &= ~excluded
    rows = np.flatnonzero(worth)
    order = rows[np.lexsort((rows, -size[rows], -score[rows], ~pinned[rows]))].tolist()  # best first, pinned before all

    stay = [row for row in order if row in held]
    release = [row for row in held if row < 0 or excluded[row]] + stay[capacity:]
    stay = stay[:capacity]
    challengers = [row for row in order if row not in held]
    allocate = challengers[: capacity - len(stay)]
    swaps: list[tuple[int, int]] = []
    victims = [row for row in reversed(stay) if not pinned[row]]
    for challenger in challengers[len(allocate) :]:
        safe = {row for row in victims if now_ns - held[row] < options.hold_s * _NS and not pinned[challenger]}
        weakest = next((row for row in victims if row not in safe), None)
        if weakest is None:
            break
        better = score[challenger] >= options.least_score and score[challenger] > score[weakest] * (1.0 + options.beat)
        if not (pinned[challenger] or better):
            break
        swaps.append((weakest, challenger))
        victims.remove(weakest)
    gone = {row for row, _ in swaps}
    now_held = [*(row for row in stay if row not in gone), *allocate, *(row for _, row in swaps)]
    return Decision(tuple(now_held), tuple(allocate), tuple(release), tuple(swaps))
