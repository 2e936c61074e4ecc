"""The identities of P1, watched while it happens: what was counted before sampling against what stands in the ring.

Two readings of an intake cell within one bucket tell how many inputs went into the records between them: the growth of
folded - pending. The ring holds those very records, tick_as_of of the first to tick_as_of of the second. The two numbers are
equal, whenever the cell was read (see the order in obs.ledger.intake), or an input has no fate.
"""

from __future__ import annotations

from typing import Final

from obs.clock import NS, Clock
from obs.ledger import Snapshot, broken_identity
from obs.ring import Ring, copy_rows

_BLOCK: Final = 8192
_REMEMBER_NS: Final = 300 * NS  # a break stays red this long: the proof of it is in the past, and audit has the rest


class LedgerWatch:
    """Watches one provider. `judge` is called with each new reading."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: Snapshot | None = None
        self._found = ""
        self._found_ns = 0

    def judge(self, snapshot: Snapshot, ring: Ring | None) -> list[str]:
        """Return the identities that do not hold. `ring`: the tick ring of the snapshot's session, None if it is gone."""
        broken = [text] if (text := broken_identity(snapshot)) else []
        before, self._last = self._last, snapshot
        if ring is not None and before is not None and _same_bucket(before, snapshot):
            self._compare(before, snapshot, ring)
        if self._found and self._clock.mono_ns() - self._found_ns < _REMEMBER_NS:
            broken.append(self._found)
        return broken

    def _compare(self, before: Snapshot, after: Snapshot, ring: Ring) -> None:
        first, stop = int(before.head["tick_as_of"]), int(after.head["tick_as_of"])
        held = _held(ring, first, stop)
        if held is None:
            return  # overwritten before we came: nothing is known
        counted = _settled(after) - _settled(before)
        if counted != held:
            self._found = f"records {first}..{stop - 1} hold {held} inputs, counted before sampling: {counted}"
            self._found_ns = self._clock.mono_ns()


def _same_bucket(before: Snapshot, after: Snapshot) -> bool:
    return before.session_id == after.session_id and int(before.head["n"]) == int(after.head["n"])


def _settled(snapshot: Snapshot) -> int:
    """Inputs of the bucket that lie in records published before tick_as_of."""
    table = snapshot.table
    return int((table["trades"] + table["quotes"] - table["pending_trades"] - table["pending_quotes"]).sum())


def _held(ring: Ring, first: int, stop: int) -> int | None:
    total = 0
    for at in range(first, stop, _BLOCK):
        rows = copy_rows(ring, at, min(_BLOCK, stop - at))
        if at < ring.oldest:
            return None
        total += int(rows["trades"].sum(dtype="i8") + rows["quotes"].sum(dtype="i8"))
    return total
