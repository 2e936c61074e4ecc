"""What poll must not forget over a restart, and needs nobody else to know: `data/state/<provider>.poll.json`, one small object.

Written whole or not at all, by a thread, because a disk may hang. Not fsynced: what a crash of the host takes is asked or judged anew.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Final

from obs.log import Log

_WAIT_S: Final = 2.0


class Notes:
    """Names and small JSON values. Safety: one event loop."""

    def __init__(self, data_dir: Path, provider: str, log: Log) -> None:
        self._path = data_dir / "state" / f"{provider}.poll.json"
        self._log = log
        self._values: dict[str, Any] = {}
        self._changed = False
        self._writing: asyncio.Task[None] | None = None

    async def load(self) -> None:
        self._values = await asyncio.to_thread(self._read)

    def get(self, name: str) -> Any:
        """Return the value, None if there is none."""
        return self._values.get(name)

    async def put(self, name: str, value: Any) -> None:
        """Keep `value` and write it; waits for the disk, but not long: what comes while it hangs is written after it."""
        self._values[name] = value
        self._changed = True
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())
        await asyncio.wait([self._writing], timeout=_WAIT_S)

    async def _write_all(self) -> None:
        while self._changed:
            self._changed = False
            await asyncio.to_thread(self._write, json.dumps(self._values))

    def _read(self) -> dict[str, Any]:
        try:
            values = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}

    def _write(self, text: str) -> None:
        temporary = self._path.with_name(f".{self._path.name}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            temporary.write_text(text, encoding="utf-8")
            temporary.chmod(0o640)
            temporary.replace(self._path)
        except OSError as error:
            self._log.error("notes_not_written", path=str(self._path), text=str(error))
