"""Against a floor: WebSocket to ring, beside a picows listener that only splits each frame; same frames, same server.

Ours is what runs in a feed: Connection, Link and Recorder in tape mode, the pump after 10 ms, records in a ring. The server is a
process of its own: it answers KIS subscriptions, and a moment after the last it writes the flood as fast as the client reads. CPU
seconds of the client's process: on few cores the server would be measured otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import orjson
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from native_bench.feedside import feed_side
from native_bench.inputs import kis_frames
from native_bench.rows import OURS, Result, Row, Target, plain_main
from obs.clock import SYSTEM
from obs.config.demo import KIS_SYMBOLS
from obs.log import Log
from obs.market.calendar import Calendar
from obs.providers.base import ProviderOptions
from obs.providers.registry import make_provider
from obs.roles.link import Link, Linking
from obs.roles.subscriptions import Standing

ROW: Final = Row(
    "socket", "WebSocket to ring", "a picows listener that only splits each frame, same frames, same server",
    (Target("rate", 0.45, "listener"),), "1 record a message", items="messages",
)  # fmt: skip
SYMBOLS: Final = KIS_SYMBOLS[:8]
ROUNDS: Final = 5
_PAUSE_S: Final = 0.5  # between the last subscription and the flood
_PUMP_S: Final = 0.01


def serve(records: int, count: int) -> None:
    """Be the server: tell the port, then flood each client that has sent as many messages as there are symbols."""
    from picows import ws_create_server

    parts = []
    for payload in kis_frames(count, records, SYMBOLS):  # no trade twice: one that has come before goes another way
        parts.append(b"\x81\x7e" + len(payload).to_bytes(2, "big") + payload)
    frames = [b"".join(parts[at : at + 50]) for at in range(0, len(parts), 50)]

    class Flood(WSListener):
        asked = 0
        left = len(frames)
        open = True

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.send_close()
                transport.disconnect()
            elif frame.msg_type == WSMsgType.TEXT:
                self.asked += 1
                asked = orjson.loads(frame.get_payload_as_bytes())["body"]["input"]
                header = {"tr_id": asked["tr_id"], "tr_key": asked["tr_key"], "encrypt": "N"}
                body = {"rt_cd": "0", "msg_cd": "OPSP0000", "msg1": "SUBSCRIBE SUCCESS"}
                transport.send(WSMsgType.TEXT, orjson.dumps({"header": header, "body": body}))
                if self.asked == len(SYMBOLS):
                    self.below = transport.underlying_transport
                    asyncio.get_running_loop().call_later(_PAUSE_S, self.pump)

        def pause_writing(self) -> None:
            self.open = False

        def resume_writing(self) -> None:
            self.open = True
            self.pump()

        def pump(self) -> None:
            while self.open and self.left:
                self.below.write(frames[-self.left])
                self.left -= 1

    async def main() -> None:
        server = await ws_create_server(lambda _request: Flood(), "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    uvloop.run(main())


@contextmanager
def flood(records: int, count: int) -> Iterator[str]:
    words = [sys.executable, "-m", "native_bench.bench_socket", "--serve", str(records), "--count", str(count)]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        yield f"ws://127.0.0.1:{int(child.stdout.readline())}/"
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


async def ours(url: str, count: int, inputs: int) -> float:
    """Return the CPU seconds from the flood's begin until all its inputs are published."""
    with feed_side("kis", ("trade",), SYMBOLS, tape=True) as side:
        options = ProviderOptions("kis", "kr_stocks", "krx", ("trade",), 41, url, url.rstrip("/"), {})
        provider = make_provider("kis", options)
        recorder = side.recorder
        loop, pump = asyncio.get_running_loop(), None

        def process() -> None:
            nonlocal pump
            pump = None
            recorder.process()

        def staged() -> None:
            nonlocal pump
            if pump is None and recorder.staged:
                pump = loop.call_later(_PUMP_S, process)

        calendar, log = Calendar({}, 0, 0), Log("feed", "bench")
        rows = {symbol: row for row, symbol in enumerate(SYMBOLS, 1)}
        linking = Linking(provider, recorder, lambda: calendar, side.board, SYSTEM, log, "always", random.Random(1), staged)
        link = Link(linking, None, rows)
        running = asyncio.create_task(link.run())
        while len(link.subscriptions.of(Standing.CONFIRMED)) < len(SYMBOLS):  # noqa: ASYNC110, the link has no event for it
            await asyncio.sleep(0.01)
        begun = recorder.messages
        start = time.process_time()
        while recorder.totals.inputs < inputs:
            if recorder.messages == begun:
                start = time.process_time()  # until the first of them
            await asyncio.sleep(0.02)
        spent = time.process_time() - start
        assert recorder.messages - begun == count, (recorder.messages, begun, count)
        assert recorder.totals.inputs == inputs
        link.stop()
        await asyncio.wait([running], timeout=2)
        running.cancel()
        log.close()
    return spent


class Splitter(WSListener):
    """The floor."""

    def __init__(self) -> None:
        self.count = 0

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            frame.get_payload_as_bytes().split(b"^")
            self.count += 1


async def floor(url: str, count: int) -> float:
    transport, listener = await ws_connect(Splitter, url)
    assert isinstance(listener, Splitter)
    for symbol in SYMBOLS:
        transport.send(WSMsgType.TEXT, orjson.dumps({"body": {"input": {"tr_id": "H0STCNT0", "tr_key": symbol}}}))
    start = time.process_time()
    while listener.count < count + len(SYMBOLS):
        if listener.count <= len(SYMBOLS):
            start = time.process_time()
        await asyncio.sleep(0.02)
    spent = time.process_time() - start
    transport.disconnect()
    await transport.wait_disconnected()
    return spent


def measure(result: Result, fast: bool, arguments: argparse.Namespace) -> None:
    if arguments.serve:
        serve(arguments.serve, arguments.count)
        return
    for records, count in ((1, 2000),) if fast else ((1, 100_000), (4, 50_000)):
        size = f"{records} record{'s' if records > 1 else ''} a message"
        with flood(records, count) as url:
            for _ in range(1 if fast else ROUNDS):
                result.add(size, OURS, [uvloop.run(ours(url, count, count * records)) / count])
                result.add(size, "listener", [uvloop.run(floor(url, count)) / count])


def more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--serve", type=int, default=0, metavar="RECORDS", help="be the server, with so many records a message")
    parser.add_argument("--count", type=int, default=0, help="messages of the server's flood")


def main() -> Any:
    if "--serve" in sys.argv:
        parser = argparse.ArgumentParser()
        more(parser)
        arguments = parser.parse_args()
        return serve(arguments.serve, arguments.count)
    return plain_main(ROW, measure, more)


if __name__ == "__main__":
    main()
