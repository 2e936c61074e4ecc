"""A poll of one provider in the test's own process, by its own clock, against a simulated venue of the same clock over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from paces import RatedPace

from obs.clock import NS, SYSTEM
from obs.config import load
from obs.config.process import ProcessSpec, SessionSpec
from obs.log import Log
from obs.record.events import event_line
from obs.record.schema import DTYPES
from obs.ring import Ring, copy_rows, create_ring, fence
from obs.roles.poll import Poll
from obs.shm import Board, Counters, block_path

ROOT = Path(__file__).resolve().parents[1]
LONG = bool(os.environ.get("OBS_FAULT_LONG"))
DEADLINE_S = 900.0 if LONG else 90.0
SESSION = "sess_20261120_000000_venue_ab12"
CAPACITY = 1 << 17 if LONG else 1 << 15


class Rig:
    """`start`: where the clock of venue and poll begins, ISO 8601 with an offset; `rate`: how many times as fast it runs."""

    def __init__(
        self, folder: Path, venue: str, universe: int, start: str, rate: float, *words: str, section: str = "", lull_rate: float = 0.0
    ) -> None:  # fmt: skip
        self.venue, self.data = venue, folder / "data"
        self.pace = RatedPace(start, rate, lull_rate)
        command = [
            sys.executable, "-m", "obs.sim", venue, "--universe", str(universe), "--clock-start", start, "--clock-rate", str(rate),
            "--clock-lull-rate", str(lull_rate), "--clock-mono-ns", str(self.pace.began_ns), "--die-with-parent", *words,
        ]  # fmt: skip
        self.sim = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=ROOT)
        assert self.sim.stdout is not None
        self.rest = orjson.loads(self.sim.stdout.readline())["rest"]
        secrets = folder / "secrets"
        secrets.write_text(f"KIS_APP_KEY={'k' * 36}\nKIS_APP_SECRET={'s' * 180}\n")
        secrets.chmod(0o600)
        only_kis = f'secrets_file = "{secrets}"\nmaster_url = "{self.rest}/common/master"\n' if venue == "kis" else ""
        (folder / "obs.toml").write_text(
            f'[ring]\ndir = "{folder}"\n[providers.{venue}]\nrest_url = "{self.rest}"\nws_url = "{self.rest.replace("http", "ws")}"\n'
            + only_kis + section
        )  # fmt: skip
        self.config = load(folder / "obs.toml", data=self.data, environ={})
        self.data.mkdir(exist_ok=True)
        counters = Counters.path(folder, self.data, venue)
        self.counters = Counters(counters, make=True)
        for role in ("poll", "archive"):
            self.counters.add(role)
        self.cell = self.counters.cell("poll")
        board = Board.path(folder, self.data, venue)
        self.board = Board.create(board, fence)
        paths = {name: block_path(folder, self.data, SESSION, name) for name in DTYPES}
        self.rings: dict[str, Ring] = {
            name: create_ring(paths[name], dtype, CAPACITY, SESSION, name, SYSTEM.wall_ns()) for name, dtype in DTYPES.items()
        }
        self.spec = ProcessSpec(
            "poll", venue, self.config, counters, 0, self.config.provider(venue), SessionSpec(SESSION, self.pace.wall_ns(), paths), board
        )
        self.log = Log("poll", venue, level="error")
        self._lines: list[dict[str, Any]] = []

    def run(self, *steps: Callable[[], Awaitable[None]]) -> None:
        """Run one poll while `steps` run one after the other; its end must be an orderly one, and its heart must not have stood still."""

        async def main() -> None:
            stop = asyncio.Event()
            poll = asyncio.create_task(Poll(self.spec, self.log, self.pace).run(stop))
            beats = asyncio.create_task(self._watch_heart())
            try:
                for step in steps:
                    await step()
                    assert not poll.done(), poll.exception()
            finally:
                stop.set()
                code = await asyncio.wait_for(poll, DEADLINE_S)
                beats.cancel()
            assert code == 0

        asyncio.run(main())

    async def _watch_heart(self) -> None:
        self.silent_s = 0.0
        while True:
            self.silent_s = max(self.silent_s, (SYSTEM.mono_ns() - int(self.cell["heartbeat_ns"])) / NS)
            await asyncio.sleep(0.05)

    async def until(self, what: str, condition: Callable[[], Any]) -> None:
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, f"not within {DEADLINE_S} s: {what}; events: {self.events()[-5:]}"
            await asyncio.sleep(0.02)

    def do(self, action: dict[str, Any]) -> None:
        """Have the venue do something now."""
        with urllib.request.urlopen(f"{self.rest}/sim/do", json.dumps(action).encode(), timeout=10) as answer:
            assert answer.status == 200, answer.read()

    def rows(self, ring: str = "swing", first: int = 0) -> np.ndarray:
        published = self.rings[ring].published
        assert published <= CAPACITY
        return copy_rows(self.rings[ring], first, published - first)

    def events(self, kind: str = "", what: str = "") -> list[dict[str, Any]]:
        """Return the lines of poll's events of a kind, as they would stand in system/events."""
        new = self.rows("poll_event", len(self._lines))
        self._lines += [orjson.loads(event_line(row, SESSION, self.venue, "poll_event")) for row in new]
        return [line for line in self._lines if kind in ("", line["event_type"]) and what in ("", line.get("what"))]

    def sweeps(self) -> list[dict[str, Any]]:
        return self.events("lifecycle", "sweep")

    def close(self) -> None:
        self.sim.terminate()
        self.sim.wait(DEADLINE_S)
        assert self.sim.stdout is not None
        self.sim.stdout.close()
        self.log.close()
        for ring in self.rings.values():
            ring.close()
        self.board.close()
        self.counters.close()
