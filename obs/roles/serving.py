"""The HTTP server of the monitor: who may ask, what for, and how long a connection may last.

    GET /health  /metrics                            for machines
    GET /  /day/<date>  /symbol/<provider>/<symbol>  pages, and /assets/… that they are made of; what is not there is a page, too
    GET /api/…                                       JSON; /api/live is a stream
    GET, POST /login  POST /logout                   where a token is set

Every answer, errors and nonsense included, has the headers of obs.monitor.access. A client that sends slowly or does not read is cut,
alone; at most CONNECTIONS of ordinary requests live at once, and each for CONNECTION_S in all. A port that is taken is said and tried
again: collecting does not depend on it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import parse_qs

import orjson
from aiohttp import web

import obs.monitor
from obs.clock import NS, Clock
from obs.config import Config
from obs.log import Log
from obs.monitor.access import COOKIE, COOKIE_DAYS, HEADERS, Access, Patience
from obs.roles.answers import Answers, NotGood, Query
from obs.roles.streams import Streams
from obs.segment.textlog import is_day

WEB: Final = Path(obs.monitor.__file__).parent / "web"
CONNECTION_S: Final = 20.0  # a client has this long in all; scrapers connect again
CONNECTIONS: Final = 64
_RETRY_S: Final = 5.0  # while the port is taken
_LOOK_S: Final = 1.0
_HEADER_BYTES: Final = 8190
_LOGIN_BYTES: Final = 4096
_COOKIE: Final = "Path=/; HttpOnly; SameSite=Strict"
_LINGER_0: Final = struct.pack("ii", 1, 0)
_OPEN: Final = ("/login", "/logout", "/assets/")  # what one needs to log in, and out
_METHODS: Final = {"login": ("GET", "HEAD", "POST"), "logout": ("POST",)}
_READING: Final = ("GET", "HEAD")
_TYPES: Final = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".json": "application/json", ".svg": "image/svg+xml", ".png": "image/png", ".ico": "image/x-icon", ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8", ".map": "application/json",
}  # fmt: skip
_FILE: Final = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]*/)*[A-Za-z0-9_-][A-Za-z0-9._-]*")
_DAY: Final = re.compile(r"/day/([0-9]{4})(-?)([0-9]{2})\2([0-9]{2})")
_SYMBOL: Final = re.compile(r"/symbol/[^/]{1,64}/[^/]{1,64}")
Answer = Callable[[Query], Awaitable[dict[str, Any]]]


class Monitor(Protocol):
    """What the monitor itself answers, from its last look."""

    def health(self) -> tuple[int, bytes]: ...

    def metrics(self) -> tuple[bytes, str] | None: ...

    def status(self) -> bytes: ...


class Route(NamedTuple):
    """Where a path leads: `kind`, and what it needs; of kind "" `name` may say what is wrong with it."""

    kind: str
    name: str = ""


NO_DAY: Final = Route("", "there is no such day: write YYYYMMDD, as in /day/20260122; the pages begin at /")


def route(path: str) -> Route:
    """Tell where a path leads; kind "" for nowhere. Pure."""
    if path == "/":
        return Route("page", "index.html")
    if path in ("/health", "/metrics", "/login", "/logout"):
        return Route(path[1:])
    if found := _DAY.fullmatch(path):
        if not is_day(found[1] + found[3] + found[4]):
            return NO_DAY
        return Route("redirect", f"/day/{found[1]}{found[3]}{found[4]}") if found[2] else Route("page", "day.html")
    if _SYMBOL.fullmatch(path):
        return Route("page", "symbol.html")
    for kind, prefix in (("asset", "/assets/"), ("api", "/api/")):
        if path.startswith(prefix) and _FILE.fullmatch(name := path.removeprefix(prefix)):
            return Route(kind, name)
    return Route("")


class _Protocol(web.RequestHandler):
    """A connection whose answers to nonsense have our headers too, and quote none of it."""

    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if status >= 500:
            super().handle_error(request, status, exc, message)  # logs it
        response = error(status, "this is not a request that can be read" if status < 500 else "an error of the monitor: see its log")
        response.force_close()
        return response


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)


def error(status: int, text: str, **headers: str) -> web.Response:
    """Return an answer that says what is wrong and what to do."""
    return json(orjson.dumps({"error": text}), status, **headers)


def json(body: bytes, status: int = 200, **headers: str) -> web.Response:
    return web.Response(status=status, body=body + b"\n", content_type="application/json", headers={**HEADERS, **headers})


def reset(transport: asyncio.Transport) -> None:
    """Cut a connection and forget what it has not read: a plain close would leave that in the kernel for minutes."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
    transport.abort()


class Serving:
    """Serves one monitor until it is cancelled."""

    def __init__(
        self, config: Config, monitor: Monitor, access: Access, answers: Answers, streams: Streams, log: Log, clock: Clock
    ) -> None:
        self._config, self._monitor, self._access, self._answers, self._streams = config, monitor, access, answers, streams
        self._log, self._clock = log, clock
        self._patience = Patience()
        self._files: dict[str, tuple[int, str, bytes]] = {}  # name -> time of change, tag, content
        self._since: dict[Any, float] = {}
        self._api: dict[str, Answer] = {
            "slots": answers.slots, "gaps": answers.gaps, "heat": answers.heat, "day": answers.day, "symbol": answers.symbol,
            "days": answers.days, "events": answers.events,
        }  # fmt: skip

    async def run(self) -> None:
        """Listen and serve."""
        server = _Server(
            self._handle, access_log=None, keepalive_timeout=CONNECTION_S, max_line_size=_HEADER_BYTES, max_field_size=_HEADER_BYTES
        )
        runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=0.5)
        await runner.setup()
        try:
            await self._listen(runner)
            while True:
                await asyncio.sleep(_LOOK_S)
                self._cut_slow(server)
        finally:
            await self._streams.close()
            await self._answers.close()
            await runner.cleanup()
            self.place.unlink(missing_ok=True)

    # --- listening

    async def _listen(self, runner: web.ServerRunner) -> None:
        http, told = self._config.http, False
        while True:
            site = web.TCPSite(runner, http.host, http.port)
            try:
                await site.start()
                break
            except OSError as problem:
                await site.stop()
                if not told:
                    self._log.error("http_port_taken", host=http.host, port=http.port, error=str(problem), again_s=_RETRY_S)
                    told = True
                await asyncio.sleep(_RETRY_S)
        host, port = runner.addresses[0][:2]
        self._write_place(str(host), int(port))
        self._log.info("http_listening", host=host, port=port, token=self._access.token is not None)

    @property
    def place(self) -> Path:
        return self._config.data_dir / "state" / "http.json"

    def _write_place(self, host: str, port: int) -> None:
        """Tell other programs where we listen: the port may have been 0."""
        shown = f"[{host}]" if ":" in host else host
        place = {"host": host, "port": port, "url": f"http://{shown}:{port}", "pid": os.getpid()}
        try:
            self.place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary = self.place.with_suffix(".tmp")
            temporary.write_bytes(orjson.dumps(place) + b"\n")
            temporary.replace(self.place)
        except OSError as problem:
            self._log.warning("http_place_not_written", path=str(self.place), error=str(problem))

    def _cut_slow(self, server: web.Server) -> None:
        """Abort connections that have been open for too long, and the oldest if there are too many; streams judge their own."""
        now = self._clock.mono_ns() / NS
        living = [one for one in server.connections if not self._streams.holds(one.transport)]
        self._since = {one: self._since.get(one, now) for one in living}
        oldest = sorted(living, key=self._since.__getitem__)
        excess = max(0, len(oldest) - CONNECTIONS)
        for place, one in enumerate(oldest):
            if (place < excess or now - self._since[one] > CONNECTION_S) and isinstance(one.transport, asyncio.Transport):
                reset(one.transport)

    # --- requests

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        where = route(request.path)
        if not self._access.is_host_good(request.headers.get("Host")):
            return error(421, "the Host header names another host: use the address that this server listens at")
        if request.method not in (allowed := _METHODS.get(where.kind, _READING)):
            text = "only reading is possible here" if allowed == _READING else "this is not how it is done: see Allow"
            return error(405, text, Allow=", ".join(allowed))
        if not request.path.startswith(_OPEN) and (refused := await self._refused(request, where)) is not None:
            return refused
        try:
            return await self._answer(request, where)
        except NotGood as problem:
            if problem.status == 404 and where.kind in ("", "page", "redirect") and "text/html" in request.headers.get("Accept", ""):
                return web.Response(status=404, body=self._content("missing.html")[1], headers={**HEADERS, "Content-Type": _TYPES[".html"]})
            return error(problem.status, problem.text)

    async def _refused(self, request: web.BaseRequest, where: Route) -> web.Response | None:
        """Return the answer to who may not see this, None if it may; a wrong token waits for it."""
        standing = self._access.standing(request.headers.get("Authorization"), request.cookies.get(COOKIE), self._clock.wall_ns())
        if standing == "good":
            return None
        if standing == "wrong":
            await asyncio.sleep(self._patience.wait_s(request.remote or "", self._clock.mono_ns()))
        elif where.kind in ("page", "redirect"):
            return self._redirect("/login")
        return error(401, "a token is needed: Authorization: Bearer, or log in at /login", **{"WWW-Authenticate": "Bearer"})

    async def _answer(self, request: web.BaseRequest, where: Route) -> web.StreamResponse:
        if where.kind == "health":
            status, body = self._monitor.health()
            return json(body, status)
        if where.kind == "metrics":
            found = self._monitor.metrics()
            if found is None:
                raise NotGood(503, "the monitor has not looked yet: ask again in a second")
            return web.Response(body=found[0], headers={**HEADERS, "Content-Type": found[1]})
        if where.kind == "api":
            return await self._json(request, where.name)
        if where == Route("page", "symbol.html"):
            provider, symbol = request.path.split("/")[2:]
            await self._ask_symbol(provider, symbol, request.query.get("date", ""))
        if where.kind in ("page", "asset"):
            return self._file(request, where.name if where.kind == "page" else f"assets/{where.name}")
        if where.kind == "redirect":
            return self._redirect(where.name)
        if where.kind == "login" and self._access.token is not None:
            return await self._login(request)
        if where.kind == "logout" and self._access.token is not None:
            self._ask_origin(request)
            # Without its cookie, which is SameSite=Strict, it may be another page that asks.
            ended = {"Set-Cookie": f"{COOKIE}=; {_COOKIE}; Max-Age=0"} if COOKIE in request.cookies else {}
            return self._redirect("/login", **ended)
        raise NotGood(404, where.name or "there is nothing here; the pages begin at /")

    async def _ask_symbol(self, provider: str, symbol: str, date: str) -> None:
        """Raise NotGood if nothing knows a symbol; where that cannot be told now, its page says why."""
        try:
            await self._answers.know(provider, symbol, date)
        except NotGood as problem:
            if problem.status == 404:
                raise

    async def _json(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        if name == "live":
            return await self._streams.serve(request, dict(HEADERS))
        if name == "status":
            if body := self._monitor.status():
                return json(body)
            raise NotGood(503, "the monitor has not looked yet: ask again in a second")
        if name == "session":
            asked = self._access.token is not None
            standing = self._access.standing(None, request.cookies.get(COOKIE), self._clock.wall_ns())
            return json(orjson.dumps({"token": asked, "cookie": asked and standing == "good"}))
        answer = self._api.get(name)
        if answer is None:
            raise NotGood(404, f"no such answer; there are: live, status, session, {', '.join(self._api)}")
        return json(orjson.dumps(await answer(dict(request.query))))

    def _redirect(self, where: str, **headers: str) -> web.Response:
        return web.Response(status=303, headers={**HEADERS, "Location": where, **headers})

    def _file(self, request: web.BaseRequest, name: str) -> web.Response:
        """Return a file of the pages; a browser asks each time whether it has changed."""
        kind = _TYPES.get(Path(name).suffix)
        if kind is None:
            raise NotGood(404, "no such file")
        tag, content = self._content(name)
        headers = {**HEADERS, "Content-Type": kind, "ETag": tag, "Cache-Control": "no-cache"}
        if tag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        return web.Response(body=content, headers=headers)

    def _content(self, name: str) -> tuple[str, bytes]:
        """Return tag and bytes of a file of the pages. Raises NotGood."""
        path = WEB / name
        try:
            changed_ns = path.stat().st_mtime_ns
            known = self._files.get(name)
            if known is None or known[0] != changed_ns:
                content = path.read_bytes()
                known = self._files[name] = (changed_ns, f'"{hashlib.sha256(content).hexdigest()[:32]}"', content)
        except OSError:
            raise NotGood(404, "no such file") from None
        return known[1:]

    @staticmethod
    def _ask_origin(request: web.BaseRequest) -> None:
        """Raise NotGood if a form was sent by a page of another site."""
        if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            raise NotGood(403, "log in and out from the pages themselves")

    async def _login(self, request: web.BaseRequest) -> web.Response:
        if request.method != "POST":
            return self._file(request, "login.html")
        self._ask_origin(request)
        if (request.content_length or 0) > _LOGIN_BYTES:
            raise NotGood(413, "that is no token")
        address, body = request.remote or "", await request.content.read(_LOGIN_BYTES)
        given = parse_qs(body.decode("utf-8", "replace"), max_num_fields=8).get("token", [""])[0].strip()
        if not self._access.is_token(given):
            await asyncio.sleep(self._patience.wait_s(address, self._clock.mono_ns()))
            return self._redirect("/login?wrong=1")
        self._patience.forgive(address)
        cookie = f"{COOKIE}={self._access.cookie(self._clock.wall_ns())}; {_COOKIE}; Max-Age={COOKIE_DAYS * 86400}"
        return self._redirect("/", **{"Set-Cookie": cookie})
