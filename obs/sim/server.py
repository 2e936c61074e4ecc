"""One loopback port for a venue: WebSocket handshakes, REST, and a door for tests, on aiohttp.

aiohttp parses requests and the client's ws_frames; what the venue sends is framed by us and goes straight to the transport
(see frames.py). `POST /sim/do` takes a script object and does it at once, `GET /sim/stats` tells what was sent.
"""

from __future__ import annotations

import json
from typing import Any, Final

from aiohttp import WSMsgType, web

from obs.errors import ConfigError
from obs.sim.answers import spoiled
from obs.sim.connection import Connection
from obs.sim.exchange import Exchange
from obs.sim.frames import close_frame
from obs.sim.now import host_s, mono_s
from obs.sim.script import parse_action
from obs.sim.universe import SCENARIO

_MAX_CLIENT_MESSAGE: Final = 1 << 20


def build(exchange: Exchange) -> web.Server:
    """Return the protocol factory of the port."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path.startswith("/sim/"):
            return await _door(exchange, request)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return spoiled(await exchange.rest(request), exchange.faults.answer(request.path), exchange.venue)
        refused = exchange.faults.find("refuse")
        if refused:
            exchange.log.do("refused", status=int(refused.number("status", 503)))
            return web.Response(status=int(refused.number("status", 503)))
        return exchange.refuse_upgrade(request) or await _websocket(exchange, request)

    return web.Server(answer, access_log=None)


async def _websocket(exchange: Exchange, request: web.BaseRequest) -> web.StreamResponse:
    """Serve one connection from handshake to end."""
    socket = web.WebSocketResponse(autoping=False, autoclose=False, compress=False, max_msg_size=_MAX_CLIENT_MESSAGE)
    socket.headers.update(exchange.upgrade_headers())
    await socket.prepare(request)
    if request.transport is None:
        return socket
    conn = exchange.accept(request.remote or "", request.transport)
    try:
        while not conn.closing:
            message = await socket.receive()
            if message.type in (WSMsgType.CLOSED, WSMsgType.CLOSING, WSMsgType.ERROR):
                break
            if conn.half_open_until_s > mono_s():
                continue
            if not _hand_over(exchange, conn, message.type, message.data):
                break
    finally:
        exchange.gone(conn)
        # aiohttp would now say goodbye in its own way, and wait for an answer that a broken client never gives.
        if not conn.closing:
            conn.transport.close()
    return socket


def _hand_over(exchange: Exchange, conn: Connection, kind: WSMsgType, data: Any) -> bool:
    """Give one message of the client to the venue; False at its close frame."""
    conn.last_io_s = host_s()
    match kind:
        case WSMsgType.PING:
            exchange.ping(conn, bytes(data))
        case WSMsgType.PONG:
            exchange.received_pong(conn, bytes(data))
        case WSMsgType.TEXT:
            exchange.received(conn, data.encode())
        case WSMsgType.BINARY:
            exchange.received(conn, bytes(data))
        case _:
            conn.said_close = True
            conn.write(close_frame(data if isinstance(data, int) and data else 1005))
            return False
    return True


async def _door(exchange: Exchange, request: web.BaseRequest) -> web.Response:
    if request.path == "/sim/stats":
        stats = {
            "inputs": exchange.inputs_total,
            "connections": [{"conn": conn.no, "inputs": conn.n} for conn in exchange.connections.values()],
            "connections_total": exchange.conn_total,
            "streams": len(exchange.streams),
            "subscribed": sum(len(stream.subs) for stream in exchange.streams.values()),
        }
        if exchange.universe is not None:
            stats["scenario"] = exchange.universe.scenario()
        return web.json_response(stats)
    if request.path != "/sim/do" or request.method != "POST":
        return web.json_response({"error": "POST /sim/do with a script object, or GET /sim/stats"}, status=404)
    try:
        action = parse_action(json.loads(await request.read()))
    except ConfigError as error:
        return web.json_response({"error": error.problems}, status=400)
    except ValueError as error:
        return web.json_response({"error": [str(error)]}, status=400)
    if action.do in SCENARIO and (exchange.universe is None or action.symbol not in exchange.universe.row_of):
        return web.json_response({"error": [f"symbol = {action.symbol!r}: no symbol of --universe"]}, status=400)
    return web.json_response({"met": exchange.perform(action)})
