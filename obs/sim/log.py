"""The simulator's own account of what it sent: JSON lines, for I4 of the fault tests (sent = received + gap rows).

    {"t_ns":…,"conn":1,"n":17,"symbol":"005930","kind":"trade","price":71900,"size":3,"acc_volume":812,"k":230,…}
    {"t_ns":…,"conn":1,"do":"drop",…}

`conn` counts connections from 1 after each `do` line `start` (the file is appended to); `n` counts the inputs of that
connection from 1 without a hole; `kind` is trade, quote, ticker, snapshot (what a subscription shows first, not news; `of`
names its type), or malformed (an input or a whole message that must not be readable; `variant` says how, `was` or `whole`
which of the two). Upbit lines carry `venue_seq`; `k` numbers the trades, or the book changes, of a symbol. Price and
size of a `quote` are null, its sides follow as bid, ask, bid_size, ask_size. An input sent a second time says
`"repeat":true`, one held back `"late":true`, one out of a recording `"captured":true`. `do` lines tell connects, ends,
refusals and script actions.

Order: write() returns before the frames it speaks of reach the transport, so no client can know more than the log. The
reverse does not hold: what was logged may have died in a socket buffer, which is what gap rows are for. The file is
written with os.write to O_APPEND and not fsynced: it must survive the death of the process, not of the host.

A log that cannot be written (a full disk) ends the process at that moment, with one line on stderr and exit code 1: an exchange
that went on would send what nobody can check. What was written of the failed lines is cut off again.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from obs.errors import EXIT_FOUND
from obs.sim.now import wall_ns


class SimLog:
    """Appends to one file, or swallows everything if `path` is None (`on` is then False)."""

    def __init__(self, path: Path | None) -> None:
        self.on = path is not None
        self._path, self._fd = path, -1
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
            except OSError as error:
                self._end(error)

    def write(self, lines: list[str]) -> None:
        """Write the lines, each without its newline, before returning."""
        if self._fd >= 0 and lines:
            self.write_bytes(("\n".join(lines) + "\n").encode())

    def write_bytes(self, data: bytes) -> None:
        """Write whole lines."""
        view = memoryview(data)
        try:
            while view and self._fd >= 0:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - (len(data) - len(view)))
            self._end(error)

    def do(self, action: str, *, conn: int | None = None, **facts: object) -> None:
        """Write one line about something done that is not an input."""
        if self._fd >= 0:
            self.write([json.dumps({"t_ns": wall_ns(), "conn": conn, "do": action, **facts}, separators=(",", ":"))])

    def _end(self, error: OSError) -> NoReturn:
        """End the process. Why not raise: no other handler of this loop may send anything any more."""
        print(f"obs sim: the log {self._path} cannot be written: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(EXIT_FOUND)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
