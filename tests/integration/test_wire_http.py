"""The REST client against a real HTTP server: answers whole, failures named, nothing secret told."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from wire_peers import Peer, Server, open_sockets, run

from obs.errors import ConnectionLost
from obs.wire.http import MAX_BODY_BYTES, Response, RestClient

SECRET = "SECRET-77aa"


@pytest.fixture(autouse=True)
def _no_socket_is_left() -> Iterator[None]:
    before = open_sockets()
    yield
    assert open_sockets() <= before


@asynccontextmanager
async def venue() -> AsyncIterator[str]:
    async def echo(request: web.Request) -> web.Response:
        body = await request.read()
        told = {name.lower(): value for name, value in request.headers.items()}
        return web.json_response(
            {"method": request.method, "query": dict(request.query), "headers": told, "body": body.decode()},
            status=int(request.query.get("status", 200)),
        )

    async def moved(_: web.Request) -> web.Response:
        raise web.HTTPFound("http://127.0.0.1:1/elsewhere")

    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(2 + MAX_BODY_BYTES // (1 << 20)):
            await answer.write(bytes(1 << 20))
        return answer

    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/echo", echo)
    app.router.add_get("/moved", moved)
    app.router.add_get("/endless", endless)
    app.router.add_get("/slow", slow)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def ask(url: str, timeout_s: float = 10.0, **options: Any) -> Response:
    client = RestClient(timeout_s=timeout_s)
    try:
        return await client.request(options.pop("method", "GET"), url, **options)
    finally:
        await client.close()
        await client.close()


def test_a_request_arrives_as_it_was_given_and_any_status_is_an_answer() -> None:
    async def main() -> None:
        async with venue() as url:
            answer = await ask(
                f"{url}/echo?a=1", method="POST", headers={"appkey": SECRET, "Content-Type": "application/json"}, body=b'{"x": 1}'
            )
            told = json.loads(answer.body)
            assert (answer.status, told["method"], told["query"], told["body"]) == (200, "POST", {"a": "1"}, '{"x": 1}')
            assert (told["headers"]["appkey"], told["headers"]["user-agent"]) == (SECRET, "obs")
            assert "origin" not in told["headers"]
            assert answer.headers["content-type"].startswith("application/json"), "names compare without case"
            assert SECRET not in repr(answer)
            assert (await ask(f"{url}/echo?status=500")).status == 500
            assert (await ask(f"{url}/moved")).status == 302, "a redirect is an answer, it is not followed"

    run(main())


def test_one_client_asks_again_and_again() -> None:
    async def main() -> None:
        async with venue() as url:
            client = RestClient()
            answers = [await client.request("GET", f"{url}/echo?n={number}") for number in range(5)]
            assert [answer.status for answer in answers] == [200] * 5
            await client.close()
            assert (await client.request("GET", f"{url}/echo")).status == 200, "and after a close"
            await client.close()

    run(main())


def test_failures_are_named_without_secrets() -> None:
    async def reset(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.reset()

    async def leave(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        async with venue() as url, Server(reset, raw=True).listening() as resets, Server(leave, raw=True).listening() as leaves:
            cases = [
                (f"{url}/slow", "timeout"),
                (f"{url}/endless", "oversize"),
                (f"http://127.0.0.1:{port}/", "refused"),
                ("http://no-such-host.invalid/", "dns"),
                (url.replace("http:", "https:") + "/", "tls"),
                (f"http://127.0.0.1:{resets.port}/", "reset"),
                (f"http://127.0.0.1:{leaves.port}/", "eof"),
                ("http:///", "network"),
            ]
            for address, reason in cases:
                with pytest.raises(ConnectionLost) as caught:
                    await ask(f"{address}?key={SECRET}", timeout_s=0.5 if reason == "timeout" else 10, headers={"secretkey": SECRET})
                assert caught.value.facts["reason"] == reason, address
                assert SECRET not in str(caught.value) + repr(caught.value)
                assert caught.value.__cause__ is None
                assert caught.value.__suppress_context__ or caught.value.__context__ is None

    run(main())
