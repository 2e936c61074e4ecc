"""Tells each change of the marked days as an event of the provider, so that the archive and every reader of it know.

Keeper and people write the log of marks; poll, who owns a ring of events, reads it. How far it has told stands in
data/state/<provider>.days.json; a death between event and file tells a change twice, with the same `mark_ns`, and never not at all.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from obs.clock import Pace
from obs.lifecycle.marks import Change, changes, path_of
from obs.segment.textlog import json_object

_LOOK_S: Final = 5.0


class Emit(Protocol):
    def __call__(self, kind: str, payload: dict[str, Any]) -> None: ...


class DayEvents:
    """Safety: one event loop. The disk is touched in threads: a hung one holds up this task alone."""

    def __init__(self, data_dir: Path, provider: str, emit: Emit, pace: Pace) -> None:
        self._path = path_of(data_dir, provider)
        self._place = data_dir / "state" / f"{provider}.days.json"
        self._emit, self._pace = emit, pace

    async def keep(self) -> None:
        """Tell what is new, for ever. Raises OSError: begin again."""
        told = await asyncio.to_thread(self._told)
        while True:
            for change in await asyncio.to_thread(self._new, told):
                self._emit("lifecycle", _payload(change))
                told = change.end
                await asyncio.to_thread(self._note, told)
            await self._pace.sleep(_LOOK_S)

    def _new(self, told: int) -> list[Change]:
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return []
        return changes(self._path, told) if size > told else []

    def _told(self) -> int:
        try:
            told = json_object(self._place.read_bytes()).get("told")
        except FileNotFoundError:
            return 0
        return told if isinstance(told, int) and told >= 0 else 0

    def _note(self, told: int) -> None:
        self._place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = self._place.with_suffix(".tmp")
        temporary.write_bytes(orjson.dumps({"told": told}) + b"\n")
        temporary.chmod(0o640)
        temporary.replace(self._place)


def _payload(change: Change) -> dict[str, Any]:
    mark = change.mark
    return {
        "what": "anomaly_day", "change": change.what, "day": mark.day, "market": mark.market, "reason": mark.reason, "detail": mark.detail,
        "by": mark.by, "mark_ns": mark.ts_ns,
    }  # fmt: skip
