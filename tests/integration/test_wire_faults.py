"""Paths that die in every way a path can: how long until it is noticed, and what is told.

A proxy between client and server stops forwarding, swallows, slows down, cuts and resets; its kernel goes on acknowledging,
as a silent middlebox does. A cut path, where nobody acknowledges, is made by a socket filter that drops every packet.
Times are configured short; the rule is the same for 30 s and 90 s (tests/unit/test_wire_liveness.py). Upper bounds leave
room for a busy machine; lower bounds prove that nothing is condemned early.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wire_peers import BINARY, PING, PONG, TEXT, Peer, Proxy, Remembers, Server, close_frame, open_sockets, raw_socket, run, until, ws_frame

from obs.wire import CloseReason, Connection, ConnectOptions
from obs.wire.dial import dial

REPOSITORY = Path(__file__).resolve().parents[2]
ROOM_S = 1.5  # for a busy machine


@pytest.fixture(autouse=True)
def _no_socket_is_left() -> Iterator[None]:
    before = open_sockets()
    yield
    assert open_sockets() <= before


async def chatter(peer: Peer) -> None:
    """A venue: numbers every 10 ms, pongs."""
    hearing = asyncio.create_task(answer_pings(peer))
    try:
        number = 0
        while not hearing.done():
            await peer.say(ws_frame(TEXT, b"%d" % number))
            number += 1
            await asyncio.sleep(0.01)
    finally:
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)


async def answer_pings(peer: Peer) -> None:
    while True:
        kind, payload = await peer.hear()
        if kind == PING:
            await peer.say(ws_frame(PONG, payload))
        elif kind == 8:
            await peer.say(close_frame(1000))
            return


async def ended(connection: Connection, since: float, within_s: float) -> tuple[CloseReason, float]:
    end = await asyncio.wait_for(connection.wait_closed(), within_s)
    return end, time.monotonic() - since


# --- a path that is there and carries nothing


PONG_LIMITS: dict[str, Any] = {"ping_every_s": 0.6, "pong_timeout_s": 0.3}  # the venue of 20 s + 10 s
MUTE_LIMITS: dict[str, Any] = {"idle_s": 0.6}  # the venue of 90 s
HALF_OPEN = [
    # direction that dies, limits, reason, earliest, latest
    ("", PONG_LIMITS, "pong_timeout", 0.3, 0.9),
    ("", MUTE_LIMITS, "mute", 0.55, 0.6),
    ("down", PONG_LIMITS, "pong_timeout", 0.3, 0.9),
    ("down", MUTE_LIMITS, "mute", 0.55, 0.6),
]


@pytest.mark.parametrize("mode", ["stop", "swallow"])
def test_half_open_is_found_in_time(mode: str) -> None:
    async def one(only: str, limits: dict[str, Any], reason: str, earliest_s: float, latest_s: float) -> None:
        async with Server(chatter).listening() as server, Proxy(server.port).listening() as proxy:
            sink = Remembers()
            connection = Connection(ConnectOptions(proxy.url, close_timeout_s=0.2, **limits), sink)
            await connection.connect()
            await until(lambda: len(sink.messages) > 30, "data flows")
            proxy.mode, proxy.only = mode, only
            end, after_s = await ended(connection, time.monotonic(), 10)
            assert end.reason == reason, only
            assert earliest_s <= after_s <= latest_s + 0.2 + ROOM_S, (only, reason)
            assert sink.messages == [b"%d" % number for number in range(len(sink.messages))], "what came is whole and in order"
            assert sink.closed == [(reason, 1001)]

    async def main() -> None:
        await asyncio.gather(*(one(*case) for case in HALF_OPEN))

    run(main())


def test_while_data_comes_a_missing_pong_is_no_fault() -> None:
    """The way out is dead for pings, the way in delivers: cutting it would lose what still comes."""

    async def main() -> None:
        async with Server(chatter).listening() as server, Proxy(server.port).listening() as proxy:
            sink = Remembers()
            connection = Connection(ConnectOptions(proxy.url, ping_every_s=0.1, pong_timeout_s=0.1, close_timeout_s=0.1), sink)
            await connection.connect()
            proxy.mode, proxy.only = "swallow", "up"
            seen = len(sink.messages)
            await until(lambda: len(sink.messages) > seen + 60, "data goes on")
            assert connection.is_open
            connection.close()
            await connection.wait_closed()

    run(main())


def test_pings_alone_keep_a_quiet_connection() -> None:
    """A lunch lull: no data at all, and no fault; every pong is a sign of life."""

    async def main() -> None:
        async with Server(answer_pings).listening() as server:
            sink = Remembers()
            connection = Connection(ConnectOptions(server.url, ping_every_s=0.1, pong_timeout_s=0.5, idle_s=0.8), sink)
            await connection.connect()
            began = time.monotonic()
            await until(lambda: not connection.is_open or time.monotonic() - began > 1.5, "the lull is over")
            assert connection.is_open
            connection.close()
            assert (await connection.wait_closed()).reason == "closed"

    run(main())


def test_a_slow_path_is_slow_and_not_dead() -> None:
    """100 kB/s: frames take longer than the pong time-out, one after the other they come."""
    frames = [ws_frame(BINARY, bytes([number]) * 20_000) for number in range(12)]

    async def script(peer: Peer) -> None:
        hearing = asyncio.create_task(answer_pings(peer))
        await peer.say(*frames)
        await hearing

    async def main() -> None:
        async with Server(script).listening() as server, Proxy(server.port, mode="slow", slow_bytes=2048).listening() as proxy:
            sink = Remembers()
            connection = Connection(ConnectOptions(proxy.url, ping_every_s=0.3, pong_timeout_s=0.3, idle_s=1.5, close_timeout_s=0.1), sink)
            await connection.connect()
            await until(lambda: len(sink.messages) == 12 or not connection.is_open, "all frames", within_s=12)
            assert sink.messages == [bytes([number]) * 20_000 for number in range(12)]
            assert connection.is_open
            connection.close()
            await connection.wait_closed()

    run(main())


# --- a path that ends


@pytest.mark.parametrize(("how", "reasons"), [("reset", ("reset",)), ("cut", ("eof", "reset"))])
def test_a_path_that_ends_is_told_at_once(how: str, reasons: tuple[str, ...]) -> None:
    async def main() -> None:
        async with Server(chatter).listening() as server, Proxy(server.port).listening() as proxy:
            sink = Remembers()
            connection = Connection(ConnectOptions(proxy.url), sink)
            await connection.connect()
            await until(lambda: len(sink.messages) > 10, "data flows")
            getattr(proxy, how)()
            end, after_s = await ended(connection, time.monotonic(), 10)
            assert end.reason in reasons
            assert end.code == 1006
            assert after_s < ROOM_S
            assert sink.messages == [b"%d" % number for number in range(len(sink.messages))]

    run(main())


# --- a path that is cut: nobody acknowledges


def test_a_cut_path_is_found_by_the_kernel() -> None:
    """(1, 1, 2): 3 s silent, 3 s after the send with bytes under way; the default is (2, 1, 2)."""

    async def one(busy: bool) -> None:
        gone = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.say(ws_frame(TEXT, b"before"))
            await gone.wait()

        async with Server(script).listening() as server:
            sink = Remembers()
            connection = Connection(ConnectOptions(server.url, keepalive=(1, 1, 2)), sink)
            await connection.connect()
            await until(lambda: sink.messages, "data flows")
            raw_socket(server.peers[0].writer).deafen()
            cut = time.monotonic()
            if busy:
                connection.send(b"nobody hears this", True)
            end, after_s = await ended(connection, cut, 15)
            gone.set()
            assert (end.reason, end.code) == ("timeout", 1006)
            assert 2.0 <= after_s <= 4.0 + ROOM_S

    async def main() -> None:
        await asyncio.gather(one(False), one(True))

    run(main())


def test_the_default_finds_a_cut_path_within_ten_seconds() -> None:
    idle_s, every_s, probes = ConnectOptions("ws://h/").keepalive
    silent_s = idle_s + every_s * probes
    assert 2 * silent_s + 0.6 < 10, "bytes sent just before the probes give up are retransmitted for as long again"

    async def main() -> None:
        async def nothing(_: Peer) -> None:
            return

        async with Server(nothing).listening() as server:
            sock = await dial("127.0.0.1", server.port, (idle_s, every_s, probes), 5)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            assert [sock.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [idle_s, every_s, probes, silent_s * 1000]
            sock.close()
            await until(lambda: server.over == 1, "the server has seen it")

    run(main())


# --- a process that is stopped

STOPPED = """
import asyncio, sys, uvloop
from obs.wire import Connection, ConnectOptions

class Sink:
    count = 0
    def on_open(self): pass
    def on_message(self, payload, recv_ns): self.count += 1
    def on_broken(self, data, reason): print("broken", reason)
    def on_close(self, reason, code): print("end", reason, self.count, flush=True)

async def main():
    sink = Sink()
    connection = Connection(ConnectOptions(sys.argv[1], ping_every_s=0.3, pong_timeout_s=0.3, idle_s=0.6, close_timeout_s=0.3), sink)
    await connection.connect()
    print("open", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    connection.close()
    await connection.wait_closed()

uvloop.run(main())
"""


def test_a_process_that_was_stopped_reads_before_it_condemns() -> None:
    """SIGSTOP for longer than every time-out: what came meanwhile is in the socket, and the connection is good."""

    async def main() -> None:
        async with Server(chatter).listening() as server:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", STOPPED, server.url, cwd=REPOSITORY,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            assert child.stdout is not None
            assert child.stdin is not None
            try:
                assert await child.stdout.readline() == b"open\n"
                child.send_signal(signal.SIGSTOP)
                await asyncio.sleep(1.5)  # the fault itself
                child.send_signal(signal.SIGCONT)
                await asyncio.sleep(0.8)  # every time-out passes once more
                child.stdin.write(b"\n")
                _, reason, count = (await child.stdout.readline()).split()
                assert reason == b"closed"
                assert int(count) > 75, "what was sent meanwhile has been read"
                assert await child.wait() == 0
            finally:
                if child.returncode is None:
                    child.kill()
                    await child.wait()

    run(main())
