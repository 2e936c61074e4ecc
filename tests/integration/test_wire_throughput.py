"""What a Connection costs per message beside a bare picows listener, in the same run; run with -s to see the figures.

The rival does what picows' own examples do: a listener that counts text frames. Connection adds the receive time, the call of
the sink, the checks of fragments, length and reserved bits, and the Tap, whose share is measured by leaving its copy out.
Seconds are CPU seconds of the client's process: the server is a process of its own.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect
from wire_peers import run

import obs.wire.life
from obs.wire import Connection, ConnectOptions, Excerpt
from obs.wire.frames import Tap

MESSAGES = 100_000
SIZE = 300
ROUNDS = 5

SERVER = """
import asyncio, uvloop
from picows import WSListener, WSMsgType, ws_create_server
FRAME = b"\\x81\\x7e" + (SIZE).to_bytes(2, "big") + b"x" * SIZE

class Flood(WSListener):
    left, open = 0, True
    def on_ws_frame(self, transport, frame):
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close()
            transport.disconnect()
        elif frame.msg_type == WSMsgType.TEXT:
            self.below, self.left = transport.underlying_transport, int(frame.get_payload_as_bytes())
            self.pump()
    def pause_writing(self):
        self.open = False
    def resume_writing(self):
        self.open = True
        self.pump()
    def pump(self):
        while self.open and self.left:
            count = min(64, self.left)
            self.left -= count
            self.below.write(FRAME * count)

async def main():
    server = await ws_create_server(lambda request: Flood(), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

uvloop.run(main())
"""


@pytest.fixture
def flood_url() -> Iterator[str]:
    child = subprocess.Popen([sys.executable, "-c", SERVER.replace("SIZE", str(SIZE))], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        yield f"ws://127.0.0.1:{int(child.stdout.readline())}/"
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


class Counts:
    """A trivial sink."""

    def __init__(self) -> None:
        self.count = self.bytes = 0
        self.all = asyncio.Event()

    def on_open(self) -> None:
        return

    def on_message(self, payload: bytes | memoryview, recv_ns: int) -> None:
        self.count += 1
        if self.count == MESSAGES:
            self.all.set()

    def on_broken(self, data: Excerpt, reason: str) -> None:
        raise AssertionError(reason)

    def on_close(self, reason: str, code: int) -> None:
        return


class Bare(WSListener):
    def __init__(self) -> None:
        self.count = 0
        self.all = asyncio.Event()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            frame.get_payload_as_memoryview()
            self.count += 1
            if self.count == MESSAGES:
                self.all.set()


class TapWithoutCopy(Tap):
    def buffer_updated(self, nbytes: int) -> None:
        self._reader.frame = None
        self._parse(nbytes)
        self._reader.last_frame_ns = self._mono_ns()
        if self._transport.is_close_frame_sent:
            self._reader.close_sent()


async def bare(url: str) -> tuple[float, float]:
    transport, listener = await ws_connect(Bare, url)
    assert isinstance(listener, Bare)
    wall, cpu = time.perf_counter(), time.process_time()
    transport.send(WSMsgType.TEXT, b"%d" % MESSAGES)
    await listener.all.wait()
    spent = time.perf_counter() - wall, time.process_time() - cpu
    transport.disconnect()
    await transport.wait_disconnected()
    return spent


async def ours(url: str) -> tuple[float, float]:
    sink = Counts()
    connection = Connection(ConnectOptions(url, ping_every_s=20.0, idle_s=30.0), sink)
    await connection.connect()
    wall, cpu = time.perf_counter(), time.process_time()
    connection.send(b"%d" % MESSAGES, True)
    await sink.all.wait()
    spent = time.perf_counter() - wall, time.process_time() - cpu
    connection.close()
    await connection.wait_closed()
    assert sink.count == MESSAGES
    return spent


def test_throughput_beside_a_bare_listener(flood_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> dict[str, list[tuple[float, float]]]:
        async def uncopied(url: str) -> tuple[float, float]:
            with monkeypatch.context() as patch:
                patch.setattr(obs.wire.life, "Tap", TapWithoutCopy)
                return await ours(url)

        rivals: dict[str, Callable[[str], Awaitable[tuple[float, float]]]] = {
            "bare picows": bare,
            "Connection": ours,
            "without copy": uncopied,
        }
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in rivals}
        for _ in range(ROUNDS):
            for name, rival in rivals.items():
                spent[name].append(await rival(flood_url))
        return spent

    spent = run(main())
    best = {name: min(cpu for _, cpu in rounds) for name, rounds in spent.items()}
    for name, rounds in spent.items():
        middle = statistics.median(wall for wall, _ in rounds)
        print(f"{name:14s} {MESSAGES / middle:12,.0f} messages/s   {best[name] / MESSAGES * 1e9:6.0f} ns of CPU a message")
    # The bound is loose, the machine is shared: it is there to catch a tenfold mistake.
    assert best["Connection"] < 6 * best["bare picows"]
