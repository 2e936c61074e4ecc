"""The link of a feed: a real provider, rings and sockets, and hours without a venue that pass in no time."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
from feed_rig import VENUES, Rig

from obs.clock import NS
from obs.log import Log
from obs.market.calendar import Calendar
from obs.providers.base import ProviderOptions
from obs.providers.registry import make_provider
from obs.roles import link as module
from obs.roles.link import Link, Linking
from obs.roles.subscriptions import Standing

ATTEMPTS = 100
DEADLINE_S = 30.0


class Hurry:
    """asyncio as the link sees it: while it is not connected, a wait is no more than a turn of the clock."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.link: Link | None = None
        self.waits: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        if self.link is not None and self.link.state.connected:
            await asyncio.sleep(seconds)
            return
        self.waits.append(seconds)
        self._rig.clock.forward(int(seconds * NS))
        await asyncio.sleep(0)


@dataclass
class Scene:
    """A link that is in a hurry, and the venue that opens on its port when a test says so."""

    rig: Rig
    link: Link
    hurry: Hurry
    port: int
    venues: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def open_venue(self, *words: str) -> None:
        command = [sys.executable, "-m", "obs.sim", "upbit", "--port", str(self.port), "--source", "numbered", "--rate", "200"]
        self.venues.append(subprocess.Popen([*command, "--die-with-parent", *words], stdout=subprocess.PIPE))

    def opened(self) -> bool:
        """Return whether the venue took its port; wait for it."""
        stdout = self.venues[-1].stdout
        assert stdout is not None
        return json.loads(stdout.readline())["port"] == self.port

    def run(self, story: Callable[[asyncio.Task[None]], Awaitable[None]]) -> None:
        """Run the link: `story` first, then until something is recorded and the loss has ended."""

        async def whole() -> None:
            run = asyncio.create_task(self.link.run())
            async with asyncio.timeout(DEADLINE_S):
                await story(run)
                while self.rig.recorder.messages < 100 or len(self.rig.gaps()) < 1:
                    assert not run.done(), run
                    await asyncio.sleep(0.01)
                self.link.stop()
                await run

        asyncio.run(whole())


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    rig, port = Rig(tmp_path, "upbit"), free_port()
    hurry = Hurry(rig)
    monkeypatch.setattr(module, "asyncio", hurry)
    descriptor = os.open(os.devnull, os.O_WRONLY)
    log = Log("feed", "upbit", descriptor=descriptor)
    hurry.link = make_link(rig, port, log)
    made = Scene(rig, hurry.link, hurry, port)
    yield made
    for venue in made.venues:
        venue.kill()
        venue.wait()
        assert venue.stdout is not None
        venue.stdout.close()
    log.close()
    os.close(descriptor)
    rig.close()


def make_link(rig: Rig, port: int, log: Log) -> Link:
    market, venue, channels = VENUES["upbit"]
    rig.provider = make_provider(
        "upbit", ProviderOptions("upbit", market, venue, channels, 41, f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}")
    )
    rig.feed()
    linking = Linking(rig.provider, rig.recorder, Calendar, rig.board, rig.clock, log, "always", Random(1), rig.recorder.process)
    return Link(linking, None, {symbol: row for row, symbol in enumerate(rig.symbols, 1)})


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_it_never_gives_up(scene: Scene) -> None:
    """After a hundred refused attempts, some two hours, the next one is made as the first was, and everything is recorded."""
    rig, began_ns = scene.rig, scene.rig.clock.wall

    async def story(run: asyncio.Task[None]) -> None:
        while scene.link.state.reconnects < ATTEMPTS:
            assert not run.done(), run
            await asyncio.sleep(0.001)
        scene.open_venue()

    scene.run(story)
    assert scene.opened()
    assert max(scene.hurry.waits) <= 60.0
    assert rig.clock.wall - began_ns > (ATTEMPTS - 20) * 60 * NS, "the budget was not kept"
    (gap,) = rig.gaps()
    assert (gap["gap_start_ns"], gap["symbol"]) == (began_ns, None)
    assert gap["gap_end_ns"] > began_ns + (ATTEMPTS - 20) * 60 * NS
    assert len(rig.rows("tick")) > 0


def test_a_venue_that_says_nothing_is_left_again_and_again(scene: Scene, tmp_path: Path) -> None:
    """Silent after its first answers, it then takes connections, answers pings and says nothing: none ends the loss or is kept."""
    rig, began_ns = scene.rig, scene.rig.clock.wall
    script = tmp_path / "script.jsonl"
    script.write_text('{"at_s":0,"do":"mute","s":3600}\n')
    scene.open_venue("--script", str(script))
    assert scene.opened()

    async def story(run: asyncio.Task[None]) -> None:
        while scene.link.state.connection_no < 4:
            assert not run.done(), run
            if scene.link.state.connected:
                rig.clock.forward(2 * NS)
            await asyncio.sleep(0.02)
        assert rig.gaps() == [], "a loss that is not over has no end"
        async with aiohttp.ClientSession() as client, client.post(f"http://127.0.0.1:{scene.port}/sim/do", json={"do": "calm"}) as answer:
            assert answer.status == 200, await answer.text()
        # Some had been given up for want of an answer: they are listened for, and no loss of a minute each.
        while len(scene.link.subscriptions.of(Standing.CONFIRMED)) < len(scene.link.subscriptions.pairs):
            assert not run.done(), run
            await asyncio.sleep(0.02)

    scene.run(story)
    (gap,) = rig.gaps()
    assert (gap["reason"], gap["symbol"]) == ("mute", None)
    assert gap["gap_start_ns"] - began_ns < 10 * NS, "from the last that was heard"
    assert gap["gap_end_ns"] - gap["gap_start_ns"] > (300 + 30 + 30) * NS, "to the first that was heard again"
    assert len(rig.rows("tick")) > 0
