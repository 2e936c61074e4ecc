"""The monitor of a host: looks at everything once a second, says what has changed, and serves it (obs.roles.serving).

Answers come from the last look, so that clients cost the same however many they are. A look is made in a thread, since a hung
disk may hold it; then health is red for that reason.
"""

from __future__ import annotations

import asyncio
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import orjson

from obs.clock import NS, SYSTEM, Clock
from obs.config.credentials import read_token
from obs.config.kinds import is_loopback
from obs.config.process import ProcessSpec
from obs.errors import EXIT_GOOD
from obs.log import Log
from obs.monitor.access import Access
from obs.monitor.health import Verdict, because
from obs.monitor.metrics import render
from obs.monitor.status import Looks, status_of
from obs.monitor.tallies import Tallies
from obs.monitor.view import HostView
from obs.roles.answers import Answers
from obs.roles.serving import Serving, reset
from obs.roles.streams import Streams
from obs.shm import Counters
from obs.shm.counters import WAITING

_LOOK_S: Final = 1.0
_THREADS: Final = 2  # one look that hangs leaves one for everything else
_STALE_S: Final = 10.0  # a look that takes longer makes health red


def run(spec: ProcessSpec, log: Log) -> int:
    """Run until SIGTERM; return the exit code."""
    return asyncio.run(_Monitor(spec, Counters(spec.counters).cell("monitor"), log, SYSTEM).run())


class _Monitor:
    def __init__(self, spec: ProcessSpec, cell: Any, log: Log, clock: Clock) -> None:
        self._cell, self._log, self._clock = cell, log, clock
        cell["pid"], cell["started_ns"] = os.getpid(), clock.wall_ns()
        cell["heartbeat_ns"] = clock.mono_ns()
        config = spec.config
        token = read_token(config)
        if token is None and not is_loopback(config.http.host):
            token = ""  # nobody gets in
        if token:
            log.mask(token)
        self._looks = Looks(config, clock)
        self._tallies = Tallies(config.data_dir)
        self._view: HostView | None = None
        self._verdict = Verdict((because("restarting", "", "not_looked", expected=True),))
        self._told: set[tuple[str, str]] = set()
        self._looked_ns = clock.mono_ns()
        self._status: tuple[HostView, Verdict, bytes] | None = None
        self._metrics: tuple[HostView, Verdict, tuple[bytes, str]] | None = None
        answers = Answers(spec, log, clock)
        self._streams = Streams(config, answers, lambda: self._view, self.status, self._looks.trend.past, reset, log, clock)
        self._serving = Serving(config, self, Access(token, config.http.host), answers, self._streams, log, clock)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(_THREADS, "look"))
        stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        self._cell["ready"] = 1
        tasks = [asyncio.create_task(task) for task in (self._watch(), self._beat(), self._serving.run())]
        stopping = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in done - {stopping}:
            one.result()  # none of them ends by itself
        return EXIT_GOOD

    # --- looking

    async def _watch(self) -> None:
        while True:
            started = self._clock.mono_ns()
            self._looked_ns = started
            view, verdict = await asyncio.to_thread(self._look)
            self._tell(verdict)
            self._view = view
            self._looked_ns = self._clock.mono_ns()
            await asyncio.sleep(max(0.0, _LOOK_S - (self._looked_ns - started) / NS))

    def _look(self) -> tuple[HostView, Verdict]:
        view, verdict = self._looks.look()
        self._tallies.look([provider.name for provider in view.providers])
        return view, verdict

    async def _beat(self) -> None:
        while True:
            now = self._clock.mono_ns()
            self._cell["heartbeat_ns"] = now
            self._cell["progress"] += 1
            self._cell["log_dropped"] = self._log.dropped
            hangs = now - self._looked_ns > 2 * _LOOK_S * NS
            self._cell["waiting"] = WAITING.index("disk" if hangs else "")
            self._cell["waiting_since_ns"] = self._looked_ns if hangs else 0
            await asyncio.sleep(_LOOK_S)

    def _tell(self, verdict: Verdict) -> None:
        """Log what has changed, unless an ordered start or stop explains it."""
        alarms = [one for one in verdict.reasons if not one.expected]
        for one in alarms:
            if (one.reason, one.provider) not in self._told:
                self._log.warning("health_red", reason=one.reason, of=one.provider, text=one.text)
        self._told = {(one.reason, one.provider) for one in alarms}
        if verdict.ok and not self._verdict.ok:
            self._log.info("health_green")
        self._verdict = verdict

    def _now(self) -> Verdict:
        """Return the last verdict, with a reason more if the look itself hangs."""
        late_s = (self._clock.mono_ns() - self._looked_ns) / NS
        if late_s <= _STALE_S:
            return self._verdict
        return Verdict((*self._verdict.reasons, because("disk", "", "look_hangs", seconds=round(late_s))))

    # --- answering

    def health(self) -> tuple[int, bytes]:
        """Return the status and the body of /health."""
        verdict = self._now()
        return verdict.status, orjson.dumps(verdict.to_json())

    def metrics(self) -> tuple[bytes, str] | None:
        """Return /metrics of the last look and its content type, None before the first."""
        view, verdict = self._view, self._now()
        if view is None:
            return None
        if self._metrics is None or self._metrics[0] is not view or self._metrics[1] != verdict:
            self._metrics = (view, verdict, render(view, verdict, self._tallies))
        return self._metrics[2]

    def status(self) -> bytes:
        """Return the status of now, encoded once for all who ask; b"" before the first look."""
        view, verdict = self._view, self._now()
        if view is None:
            return b""
        if self._status is None or self._status[0] is not view or self._status[1] != verdict:
            body = orjson.dumps(status_of(view, verdict, self._looks.trend, self._streams.venue_ms))
            self._status = (view, verdict, body)
        return self._status[2]
