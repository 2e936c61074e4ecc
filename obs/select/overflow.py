"""Who got no slot, and why: the ledger of all losers."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

DECISION_REASONS: Final = ("slot_full", "low_score", "manual_exclude")


class Overflow(NamedTuple):
    """Columns of the losers, best first. `row`: of the universe; `rank`: 1 = best score of all; `reason`: index into DECISION_REASONS."""

    row: np.ndarray
    score: np.ndarray
    rank: np.ndarray
    reason: np.ndarray


def overflow(score: np.ndarray, size: np.ndarray, held: np.ndarray, excluded: np.ndarray, least_score: float) -> Overflow:
    """Return every row with a score that holds no slot.

    `score`, `size`: (n,) float64, NaN counts as 0. `held`, `excluded`: (n,) bool. Ranks count all rows with a score, those in slots too,
    in the order of `decide`: score, size, row. low_score: not a candidate at all; slot_full: a candidate for whom there was no room.
    """
    score, size = np.nan_to_num(score), np.nan_to_num(size)
    rows = np.flatnonzero((score > 0) | excluded)
    rows = rows[np.lexsort((rows, -size[rows], -score[rows]))]
    rank = np.arange(1, len(rows) + 1)
    lost = ~held[rows] | excluded[rows]
    rows, rank = rows[lost], rank[lost]
    reason = np.where(score[rows] >= least_score, DECISION_REASONS.index("slot_full"), DECISION_REASONS.index("low_score"))
    reason = np.where(excluded[rows], DECISION_REASONS.index("manual_exclude"), reason)
    return Overflow(rows, score[rows], rank, reason)
