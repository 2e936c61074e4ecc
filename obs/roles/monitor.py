"""The monitor of a host: looks at everything once a second and answers GET /health, /metrics and /.

Answers come from the last look, so that clients cost the same however many they are. A look is made in a thread, since a hung
disk may hold it; then health is red for that reason. A client that sends slowly or does not read is cut, alone. A port that is
taken is said and tried again: collecting does not depend on it.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import signal
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import orjson
from aiohttp import web

from obs.clock import NS, SYSTEM, Clock
from obs.config import Config
from obs.config.credentials import read_token
from obs.config.kinds import is_loopback
from obs.config.process import ProcessSpec
from obs.errors import EXIT_GOOD
from obs.log import Log
from obs.monitor import page
from obs.monitor.health import Reason, Verdict, judge
from obs.monitor.metrics import render
from obs.monitor.status import status_of
from obs.monitor.view import HostView, Watcher
from obs.shm import Counters
from obs.shm.counters import WAITING

_LOOK_S: Final = 1.0
_STALE_S: Final = 10.0  # a look that takes longer makes health red
_RETRY_S: Final = 5.0  # while the port is taken
_CONNECTION_S: Final = 20.0  # a client has this long in all; scrapers connect again
_CONNECTIONS: Final = 64
_HEADER_BYTES: Final = 8190
_LINGER_0: Final = struct.pack("ii", 1, 0)
_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def run(spec: ProcessSpec, log: Log) -> int:
    """Run until SIGTERM; return the exit code."""
    return asyncio.run(_Monitor(spec.config, Counters(spec.counters).cell("monitor"), log, SYSTEM).run())


def _reset(transport: asyncio.Transport) -> None:
    """Cut a connection and forget what it has not read: a plain close would leave that in the kernel for minutes."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
    transport.abort()


class _Monitor:
    def __init__(self, config: Config, cell: Any, log: Log, clock: Clock) -> None:
        self._config, self._cell, self._log, self._clock = config, cell, log, clock
        self._root: Path = config.data_dir
        cell["pid"], cell["started_ns"] = os.getpid(), clock.wall_ns()
        cell["heartbeat_ns"] = clock.mono_ns()
        self._token = None if is_loopback(config.http.host) else read_token(config) or ""
        if self._token:
            log.mask(self._token)
        self._watcher = Watcher(config, clock)
        self._view: HostView | None = None
        self._verdict = Verdict((Reason("restarting", "", "the monitor has not looked yet", expected=True),))
        self._told: set[tuple[str, str]] = set()
        self._looked_ns = clock.mono_ns()
        self._since: dict[Any, float] = {}

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        self._cell["ready"] = 1
        tasks = [asyncio.create_task(task) for task in (self._watch(), self._beat(), self._serve())]
        stopping = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._place().unlink(missing_ok=True)
        for one in done - {stopping}:
            one.result()  # none of them ends by itself
        return EXIT_GOOD

    # --- looking

    async def _watch(self) -> None:
        while True:
            started = self._clock.mono_ns()
            self._looked_ns = started
            view = await asyncio.to_thread(self._watcher.look)
            self._tell(judge(view, self._config.supervisor))
            self._view = view
            self._looked_ns = self._clock.mono_ns()
            await asyncio.sleep(max(0.0, _LOOK_S - (self._looked_ns - started) / NS))

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
        return Verdict((*self._verdict.reasons, Reason("disk", "", f"the monitor has waited for {late_s:.0f} s")))

    # --- serving

    async def _serve(self) -> None:
        application = web.Application(middlewares=[self._guard])
        application.add_routes([
            web.get("/health", self._get_health), web.get("/metrics", self._get_metrics), web.get("/", self._get_page)
        ])  # fmt: skip
        runner = web.AppRunner(
            application, access_log=None, handle_signals=False, shutdown_timeout=0.5, keepalive_timeout=_CONNECTION_S,
            max_line_size=_HEADER_BYTES, max_field_size=_HEADER_BYTES,
        )  # fmt: skip
        await runner.setup()
        try:
            await self._listen(runner)
            while True:
                await asyncio.sleep(_LOOK_S)
                self._cut_slow(runner)
        finally:
            await runner.cleanup()

    async def _listen(self, runner: web.AppRunner) -> None:
        http, told = self._config.http, False
        while True:
            site = web.TCPSite(runner, http.host, http.port)
            try:
                await site.start()
                break
            except OSError as error:
                await site.stop()
                if not told:
                    self._log.error("http_port_taken", host=http.host, port=http.port, error=str(error), again_s=_RETRY_S)
                    told = True
                await asyncio.sleep(_RETRY_S)
        host, port = runner.addresses[0][:2]
        self._write_place(str(host), int(port))
        self._log.info("http_listening", host=host, port=port, token=self._token is not None)

    def _place(self) -> Path:
        return self._root / "state" / "http.json"

    def _write_place(self, host: str, port: int) -> None:
        """Tell other programs where we listen: the port may have been 0."""
        path = self._place()
        shown = f"[{host}]" if ":" in host else host
        place = {"host": host, "port": port, "url": f"http://{shown}:{port}", "pid": os.getpid()}
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary = path.with_suffix(".tmp")
            temporary.write_bytes(orjson.dumps(place) + b"\n")
            temporary.replace(path)
        except OSError as error:
            self._log.warning("http_place_not_written", path=str(path), error=str(error))

    def _cut_slow(self, runner: web.AppRunner) -> None:
        """Abort connections that have been open for too long, and the oldest if there are too many."""
        assert runner.server is not None
        now = self._clock.mono_ns() / NS
        living = list(runner.server.connections)
        self._since = {one: self._since.get(one, now) for one in living}
        oldest = sorted(living, key=self._since.__getitem__)
        excess = max(0, len(oldest) - _CONNECTIONS)
        for place, one in enumerate(oldest):
            if (place < excess or now - self._since[one] > _CONNECTION_S) and one.transport is not None:
                _reset(one.transport)

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Ask for the token where anybody may connect; compared in constant time."""
        if self._token is not None:
            given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
            if not self._token or not hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode()):
                return web.Response(status=401, text="a token is needed\n", headers={"WWW-Authenticate": "Bearer", **_HEADERS})
        return await handler(request)

    async def _get_health(self, _: web.Request) -> web.Response:
        verdict = self._now()
        return web.Response(
            status=verdict.status, body=orjson.dumps(verdict.to_json()) + b"\n", content_type="application/json", headers=_HEADERS
        )

    async def _get_metrics(self, _: web.Request) -> web.Response:
        if self._view is None:
            return web.Response(status=503, text="not looked yet\n", headers=_HEADERS)
        body, content_type = render(self._view, self._now())
        return web.Response(body=body, headers={"Content-Type": content_type, **_HEADERS})

    async def _get_page(self, _: web.Request) -> web.Response:
        if self._view is None:
            return web.Response(status=503, text="not looked yet\n", headers=_HEADERS)
        body = page.render(status_of(self._view, self._now()))
        return web.Response(body=body, content_type="text/html", charset="utf-8", headers=_HEADERS)
