"""GET /api/live: server-sent events for any number of browsers, at the price of one.

One task serves all: it reads the rings, encodes each message once and puts the same bytes before every client; while there is no
client there is no task, and no ring is mapped for it. A client's handler does nothing but write what lies before it. One that has not
taken what it was sent for CUT_S is reset, alone, with little lost: the kernel holds at most SEND_BYTES for it, and a browser connects
again by itself and is told everything anew.

    hello   at the beginning: version, figures of the last minutes, lines of prices, newest events, anomaly days
    status  each second     slots  at the beginning and on change     ticks  up to four a second     notices  new events
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import orjson
from aiohttp import web

from obs import __version__
from obs.clock import NS, Clock
from obs.config import Config
from obs.log import Log
from obs.monitor.live import Live
from obs.monitor.notices import Notices
from obs.monitor.past import Past
from obs.monitor.view import HostView
from obs.roles.answers import Answers, NotGood

CLIENTS: Final = 64
CUT_S: Final = 5.0
SEND_BYTES: Final = 64 << 10
_TURN_S: Final = 0.25
_TURNS: Final = 4  # in a second
_QUIET_S: Final = 10.0
_PAST_S: Final = 1.0  # files must not hold up what is live
_EVENTS: Final = 100
_DAYS: Final = 5
_DAYS_S: Final = 60.0
_BEGIN: Final = b"retry: 2000\n\n"
_QUIET: Final = b": nothing new\n\n"


def encoded(event: str, value: Any) -> bytes:
    """Return one message. NaN, which JSON has not, leaves as null."""
    return b"event: %s\ndata: %s\n\n" % (event.encode(), value if isinstance(value, bytes) else orjson.dumps(value))


class Client:
    """One browser: what lies before it, and since when it has taken nothing of what it was given."""

    def __init__(self, transport: asyncio.Transport | None, clock: Clock) -> None:
        self.transport, self._clock = transport, clock
        self.is_told = False  # it has its hello; what comes before that would be out of order
        self._waiting: list[bytes] = []
        self._more = asyncio.Event()
        self._written = self._taken = 0  # bytes given to the transport; of these, what has left it
        self._writing = False
        self._moved_ns = clock.mono_ns()

    def put(self, message: bytes) -> None:
        self._waiting.append(message)
        self._more.set()

    @property
    def has_left(self) -> bool:
        return self.transport is None or self.transport.is_closing()

    def wake(self) -> None:
        """Let its handler see that it has left."""
        self._more.set()

    async def write_to(self, response: web.StreamResponse) -> None:
        """Wait for messages and write all there are; returns when there is room for more. Raises ConnectionError once it has left."""
        await self._more.wait()
        if self.has_left:
            raise ConnectionResetError
        self._more.clear()
        data = b"".join(self._waiting)
        self._waiting.clear()
        self._written += len(data)
        self._writing = True
        await response.write(data)
        self._writing = False

    def is_stuck(self) -> bool:
        """Whether it has taken nothing for CUT_S although there was something. Looked at each turn."""
        now_ns = self._clock.mono_ns()
        held = self.transport.get_write_buffer_size() if self.transport is not None else 0
        taken = self._written - held
        if taken > self._taken or not (held or self._writing):
            self._taken, self._moved_ns = taken, now_ns
        return now_ns - self._moved_ns > CUT_S * NS


class Streams:
    """All clients of one monitor. Safety: one event loop.

    `status`: the encoded status of now, b"" before the first look. `view`: the last look. `past`: the figures of those before it.
    `cut`: ends a connection.
    """

    def __init__(
        self, config: Config, answers: Answers, view: Callable[[], HostView | None], status: Callable[[], bytes], past: Past,
        cut: Callable[[asyncio.Transport], None], log: Log, clock: Clock,
    ) -> None:  # fmt: skip
        self._config, self._answers, self._view, self._status, self._past, self._cut = config, answers, view, status, past, cut
        self._log, self._clock = log, clock
        self._live = Live(config.data_dir, config.ring.dir, clock)
        self._notices = Notices(config.data_dir)
        self._clients: set[Client] = set()
        self._task: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._follows = False  # the event files, from the newest events on
        self._events: deque[dict[str, Any]] = deque(maxlen=_EVENTS)
        self._days: list[dict[str, Any]] = []
        self._days_ns = 0
        self._slots = b""
        self._hello = (b"", 0)  # and when it was made
        self._sent_ns = 0

    def venue_ms(self, provider: str) -> float | None:
        return self._live.venue_ms(provider)

    def holds(self, transport: asyncio.Transport | None) -> bool:
        """Whether a connection is one of ours: it may last."""
        return any(client.transport is transport for client in self._clients)

    async def serve(self, request: web.BaseRequest, headers: dict[str, str]) -> web.StreamResponse:
        """Answer one request, for as long as its client stays."""
        self._forget_left()
        if len(self._clients) >= CLIENTS:
            raise NotGood(503, f"{CLIENTS} browsers are connected already: close one")
        response = web.StreamResponse(headers={**headers, "Content-Type": "text/event-stream; charset=utf-8"})
        client = Client(request.transport, self._clock)
        self._clients.add(client)
        try:
            if client.transport is not None:
                sock = client.transport.get_extra_info("socket")
                if sock is not None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES // 2)  # the kernel doubles it
                client.transport.set_write_buffer_limits(high=SEND_BYTES)
            await response.prepare(request)
            await response.write(_BEGIN)
            if self._task is None:
                self._task = asyncio.create_task(self._run())
            while True:
                await client.write_to(response)
        except ConnectionError:  # it has left, or was cut
            return response
        finally:
            self._clients.discard(client)

    async def close(self) -> None:
        """End what runs; the clients end with their connections."""
        tasks = [task for task in (self._task, self._reading) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- the one task

    async def _run(self) -> None:
        turn = 0
        try:
            while self._clients:
                began = self._clock.mono_ns()
                await self._turn(turn % _TURNS == 0)
                turn += 1
                await asyncio.sleep(max(0.01, _TURN_S - (self._clock.mono_ns() - began) / NS))
        finally:
            for client in [*self._clients]:  # of an error: they connect again, and another task begins
                self._end(client)
            self._live.end()
            self._slots, self._hello, self._follows = b"", (b"", 0), False
            self._events.clear()
            self._task = None

    async def _turn(self, is_second: bool) -> None:
        self._forget_left()
        for client in [client for client in self._clients if client.is_stuck()]:
            self._log.warning("slow_client_cut", clients=len(self._clients), waited_s=CUT_S)
            self._end(client)
        if is_second:  # in a thread: the past of a new ring may be a million records
            await asyncio.to_thread(self._live.follow, self._sessions())
        ticks = self._live.ticks()
        if ticks:
            self._send(encoded("ticks", ticks))
        if is_second:
            self._second()
        if any(not client.is_told for client in self._clients):
            await self._tell_new()
        if self._clock.mono_ns() - self._sent_ns > _QUIET_S * NS:
            self._send(_QUIET)

    def _second(self) -> None:
        if status := self._status():
            self._send(encoded("status", status))
        if self._reading is None or self._reading.done():  # a disk that hangs holds this alone; health says so
            self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        with contextlib.suppress(NotGood):
            slots = encoded("slots", await self._answers.slots({}))
            if slots != self._slots:
                self._slots = slots
                self._send(slots)
            new = await self._answers.files(self._notices.read if self._follows else lambda: self._notices.begin(_EVENTS))
            if not self._follows or self._clock.mono_ns() - self._days_ns > _DAYS_S * NS:
                self._days, self._days_ns = (await self._answers.days({}))["days"][:_DAYS], self._clock.mono_ns()
            if new:
                self._events.extend(new)
                self._hello = (b"", 0)
                self._send(encoded("notices", {"events": new[-_EVENTS:]}))
            self._follows = True

    async def _tell_new(self) -> None:
        """Begin with those that have come: hello, then everything as it stands."""
        if not self._follows and self._reading is not None:
            await asyncio.wait([self._reading], timeout=_PAST_S)
        hello, made_ns = self._hello
        if not hello or self._clock.mono_ns() - made_ns > NS:
            value = {
                "version": __version__, "now_ms": self._clock.wall_ns() // 1_000_000, "poll_ms": int(_TURN_S * 1000),
                "past": self._past.to_json(), "spark": self._live.sparks(), "events": list(reversed(self._events)), "days": self._days,
            }  # fmt: skip
            hello = encoded("hello", value)
            self._hello = (hello, self._clock.mono_ns())
        status = self._status()
        whole = hello + (encoded("status", status) if status else b"") + self._slots + encoded("ticks", self._live.latest())
        for client in self._clients:
            if not client.is_told:
                client.is_told = True
                client.put(whole)
        self._sent_ns = self._clock.mono_ns()

    def _forget_left(self) -> None:
        for client in [client for client in self._clients if client.has_left]:
            self._clients.discard(client)
            client.wake()

    def _sessions(self) -> dict[str, str]:
        view = self._view()
        return {provider.name: provider.session_id for provider in view.providers} if view is not None else {}

    def _send(self, message: bytes) -> None:
        for client in self._clients:
            if client.is_told:
                client.put(message)
        self._sent_ns = self._clock.mono_ns()

    def _end(self, client: Client) -> None:
        self._clients.discard(client)
        if client.transport is not None:
            self._cut(client.transport)
