"""A Connection against real sockets: what is delivered, in which order, and how each kind of end is told."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import pickle
import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from wire_peers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Peer,
    Remembers,
    Script,
    Server,
    close_frame,
    open_sockets,
    outcome,
    run,
    until,
    ws_frame,
)

from obs.errors import ConnectionLost
from obs.wire import Connection, ConnectOptions

SECRET = "SECRET-5f1d"


@pytest.fixture(autouse=True)
def _no_socket_is_left() -> Iterator[None]:
    before = open_sockets()
    yield
    assert open_sockets() <= before


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "obs test")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return path


def tls_server(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


# --- what is delivered


def test_text_binary_and_fragments_arrive_whole_and_in_order() -> None:
    async def script(peer: Peer) -> None:
        await peer.say(
            ws_frame(TEXT, b"one"), ws_frame(BINARY, b"two"), ws_frame(TEXT),
            ws_frame(TEXT, b"fo", fin=False), ws_frame(PING, b"between"), ws_frame(CONTINUATION, b"", fin=False),
            ws_frame(CONTINUATION, b"ur"), ws_frame(BINARY, b"x" * 70_000), close_frame(1000),
        )  # fmt: skip
        assert await peer.hear() == (PONG, b"between")
        assert await peer.hear() == (CLOSE, (1000).to_bytes(2, "big"))

    async def main() -> None:
        async with Server(script).listening() as server:
            sink = Remembers()
            end = await outcome(server, sink)
            assert sink.messages == [b"one", b"two", b"", b"four", b"x" * 70_000]
            assert sink.kinds == [memoryview, memoryview, memoryview, bytes, memoryview]
            assert (end.reason, end.code, end.unfinished_bytes) == ("peer_close", 1000, 0)

    run(main())


def test_works_on_the_standard_loop_too() -> None:
    async def script(peer: Peer) -> None:
        await peer.say(ws_frame(TEXT, b"one"), close_frame(1000))
        await peer.hear_end()

    async def main() -> None:
        async with Server(script).listening() as server:
            sink = Remembers()
            assert (await outcome(server, sink)).reason == "peer_close"
            assert sink.messages == [b"one"]

    run(main(), asyncio.new_event_loop)


@pytest.mark.parametrize("seed", range(6))
def test_conservation_however_the_bytes_are_cut(seed: int) -> None:
    """Messages that are functions of their number, cut into random fragments, with pings between, sent in random pieces."""
    rng = Random(seed)
    messages = [number.to_bytes(4, "big") * rng.choice((1, 7, 75, 400, 9_000, 40_000)) for number in range(400)]
    stream = bytearray()
    for message in messages:
        kind, left = rng.choice((TEXT, BINARY)), message
        while rng.random() < 0.3:
            size = rng.randrange(len(left) + 1)
            stream += ws_frame(kind, left[:size], fin=False)
            kind, left = CONTINUATION, left[size:]
            if rng.random() < 0.3:
                stream += ws_frame(PING, rng.randbytes(rng.randrange(126)))
        stream += ws_frame(kind, left)
    stream += close_frame(1001, b"done")

    async def script(peer: Peer) -> None:
        at = 0
        while at < len(stream):
            size = rng.choice((1, 2, 3, 300, 5_000, 200_000))
            await peer.say(bytes(stream[at : at + size]))
            at += size
            if rng.random() < 0.3:
                await asyncio.sleep(0)
        await peer.hear_end()

    async def main() -> None:
        async with Server(script).listening() as server:
            sink = Remembers()
            end = await outcome(server, sink)
            assert sink.messages == messages
            assert (end.reason, end.code, end.detail) == ("peer_close", 1001, "done")
            assert not sink.broken

    run(main())


def test_recv_ns_is_the_clock_at_the_frame_that_completed_the_message() -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.say(ws_frame(TEXT, b"begun", fin=False))
        await go_on.wait()
        await peer.say(ws_frame(CONTINUATION, b" and ended"))
        await peer.hear_end()

    class Clock:
        now = 1_000

        def wall_ns(self) -> int:
            return self.now

        mono_ns = staticmethod(time.monotonic_ns)

    async def main() -> None:
        clock, sink = Clock(), Remembers()
        async with Server(script).listening() as server:
            connection = Connection(ConnectOptions(server.url), sink, clock)
            await connection.connect()
            await until(lambda: connection.is_open, "open")
            clock.now = 2_000
            go_on.set()
            await until(lambda: sink.messages, "the message")
            assert (sink.messages, sink.times) == ([b"begun and ended"], [2_000])
            connection.close()
            await connection.wait_closed()

    run(main())


def test_the_handshake_says_what_it_must_and_no_origin() -> None:
    async def script(peer: Peer) -> None:
        await peer.say(close_frame(1000))
        await peer.hear_end()

    async def main() -> None:
        async with Server(script, extra="Remaining-Req: group=websocket; sec=4\r\n").listening() as server:
            connection = Connection(ConnectOptions(server.url + "?a=b", {"Authorization": "Bearer x"}, user_agent="obs/test"), Remembers())
            await connection.connect()
            assert connection.response_headers["Remaining-Req"] == "group=websocket; sec=4"
            await connection.wait_closed()
            request = server.peers[0].request.decode()
            names = [line.split(":")[0].lower() for line in request.split("\r\n")[1:] if line]
            assert request.startswith("GET /feed?a=b HTTP/1.1\r\n")
            assert "User-Agent: obs/test\r\n" in request
            assert "Authorization: Bearer x\r\n" in request
            assert "origin" not in names
            assert "sec-websocket-extensions" not in names, "compression is not offered"
            assert len(names) == len(set(names))

    run(main())


def test_tls_carries_the_same_and_a_stranger_is_refused(certificate: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(*(ws_frame(TEXT, b"%d" % number * 500) for number in range(300)))
        assert await peer.hear() == (TEXT, b"hello")
        await peer.say(close_frame(1000))
        await peer.hear_end()

    async def main() -> None:
        async with Server(script, ssl_context=tls_server(certificate)).listening() as server:
            sink = Remembers()
            trusting = ssl.create_default_context(cafile=str(certificate))
            connection = Connection(ConnectOptions(server.url, ssl_context=trusting), sink)
            await connection.connect()
            connection.send(b"hello", True)
            assert (await connection.wait_closed()).reason == "peer_close"
            assert sink.messages == [b"%d" % number * 500 for number in range(300)]
            with pytest.raises(ConnectionLost) as refused:
                await Connection(ConnectOptions(server.url), Remembers()).connect()
            assert refused.value.facts["reason"] == "tls"

    run(main())


# --- how it ends


async def _say_and_leave(peer: Peer, *frames: bytes) -> None:
    await peer.hear()
    await peer.say(ws_frame(TEXT, b"before"), *frames)
    await peer.hear_end()


def says(*frames: bytes) -> Script:
    return lambda peer: _say_and_leave(peer, *frames)


async def _eof(peer: Peer) -> None:
    await peer.hear()
    await peer.say(ws_frame(TEXT, b"before"))


async def _eof_in_frame(peer: Peer) -> None:
    await peer.hear()
    await peer.say(ws_frame(TEXT, b"before"), ws_frame(TEXT, b"y" * 1000)[:300])


async def _eof_in_message(peer: Peer) -> None:
    await peer.hear()
    await peer.say(ws_frame(TEXT, b"before"), ws_frame(TEXT, b"y" * 100, fin=False))


async def _rst_in_frame(peer: Peer) -> None:
    await peer.hear()
    await peer.say(ws_frame(TEXT, b"before") + ws_frame(TEXT, b"y" * 1000)[:300])
    await asyncio.sleep(0.05)  # an RST throws away what the client has not read yet
    peer.reset()


ENDS: list[tuple[str, Script, str, int, str, int]] = [
    ("close 1000", says(close_frame(1000, b"bye")), "peer_close", 1000, "bye", 0),
    ("close 1001", says(close_frame(1001)), "peer_close", 1001, "", 0),
    ("close 1011", says(close_frame(1011, b"\xed\x95\x9c")), "peer_close", 1011, "한", 0),
    ("close 4001", says(close_frame(4001)), "peer_close", 4001, "", 0),
    ("close 1006 on the wire", says(close_frame(1006)), "peer_close", 1006, "", 0),
    ("close without code", says(close_frame(None)), "peer_close", 1005, "", 0),
    ("end of stream", _eof, "eof", 1006, "", 0),
    ("end of stream in a frame", _eof_in_frame, "eof", 1006, "", 300),
    ("end of stream in a message", _eof_in_message, "eof", 1006, "", 100),
    ("reset in a frame", _rst_in_frame, "reset", 1006, "", 300),
]


@pytest.mark.parametrize(("script", "reason", "code", "detail", "unfinished"), [case[1:] for case in ENDS], ids=[case[0] for case in ENDS])
def test_every_end_is_told(script: Script, reason: str, code: int, detail: str, unfinished: int) -> None:
    async def main() -> None:
        async with Server(script).listening() as server:
            sink = Remembers()
            end = await outcome(server, sink, first=b"go")
            assert sink.messages == [b"before"]
            assert (end.reason, end.code, end.unfinished_bytes) == (reason, code, unfinished)
            assert detail in end.detail
            assert not sink.broken, "an incomplete message lies in the gap, it is not a message"

    run(main())


def test_a_reset_behind_unread_data_is_noticed() -> None:
    """A process that was stopped, or busy, until the venue had reset it: the error comes with data, and uvloop tells of it only once."""
    busy, gone = threading.Event(), threading.Event()
    urls: queue.Queue[str] = queue.Queue()

    async def script(peer: Peer) -> None:
        await peer.say(ws_frame(TEXT, b"first"))
        await asyncio.to_thread(busy.wait, 10)
        for _ in range(100):  # more than one read takes, and no more than the kernel's buffers hold
            await peer.say(ws_frame(TEXT, b"x" * 1000))
        await until(lambda: peer.writer.transport.get_write_buffer_size() == 0, "the kernel has taken all")
        peer.reset()
        gone.set()

    async def venue() -> None:
        async with Server(script).listening() as server:
            urls.put(server.url)
            await until(gone.is_set, "the reset", 20)

    class Busy(Remembers):
        def on_message(self, payload: bytes | memoryview, recv_ns: int) -> None:
            if not self.messages:
                busy.set()
                assert gone.wait(10)
            super().on_message(payload, recv_ns)

    async def main() -> None:
        sink = Busy()
        connection = Connection(ConnectOptions(urls.get(timeout=10)), sink)
        await connection.connect()
        async with asyncio.timeout(5):
            end = await connection.wait_closed()
        assert (end.reason, end.code) == ("reset", 1006)

    thread = threading.Thread(target=lambda: run(venue()))
    thread.start()
    try:
        run(main())
    finally:
        thread.join(30)


def test_close_is_answered_within_its_time_or_the_socket_is_cut() -> None:
    async def polite(peer: Peer) -> None:
        assert await peer.hear() == (CLOSE, (1000).to_bytes(2, "big"))
        await peer.say(ws_frame(TEXT, b"still under way"), close_frame(1000))
        await peer.hear_end()

    async def rude(peer: Peer) -> None:
        await peer.hear_end()

    async def main(script: Script, within_s: float, messages: list[bytes]) -> None:
        async with Server(script).listening() as server:
            sink = Remembers()
            connection = Connection(ConnectOptions(server.url, close_timeout_s=0.3), sink)
            await connection.connect()
            began = time.monotonic()
            connection.close("stopped")
            connection.close("a second word changes nothing")
            assert not connection.is_open
            with pytest.raises(ConnectionLost):
                connection.send(b"too late", True)
            end = await connection.wait_closed()
            assert time.monotonic() - began < within_s
            assert (end.reason, end.code, sink.messages) == ("stopped", 1000, messages)

    run(main(polite, 0.25, [b"still under way"]))
    run(main(rude, 2.0, []))


def test_a_sink_may_answer_and_close_from_within_before_connect_has_returned() -> None:
    async def script(peer: Peer) -> None:
        await peer.say(ws_frame(TEXT, b"PINGPONG"))  # in one read with the answer to the handshake
        assert await peer.hear() == (TEXT, b"hello")
        assert await peer.hear() == (TEXT, b"PINGPONG")
        assert await peer.hear() == (CLOSE, (1000).to_bytes(2, "big"))
        await peer.say(close_frame(1000))

    async def main() -> None:
        class Answers(Remembers):
            def on_open(self) -> None:
                super().on_open()
                connection.send(b"hello", True)

            def on_message(self, payload: bytes | memoryview, recv_ns: int) -> None:
                super().on_message(payload, recv_ns)
                connection.send(bytes(payload), True)
                connection.close("in_use")

        async with Server(script).listening() as server:
            sink = Answers()
            connection = Connection(ConnectOptions(server.url), sink)
            await connection.connect()
            assert (await connection.wait_closed()).reason == "in_use"
            assert sink.messages == [b"PINGPONG"]

    run(main())


def test_one_object_connects_again_and_each_life_is_told() -> None:
    async def script(peer: Peer) -> None:
        await peer.say(ws_frame(TEXT, b"%d" % number_of(peer)), close_frame(1000))
        await peer.hear_end()

    server = Server(script)

    def number_of(peer: Peer) -> int:
        return server.peers.index(peer)

    async def main() -> None:
        async with server.listening():
            sink = Remembers()
            connection = Connection(ConnectOptions(server.url), sink)
            with pytest.raises(RuntimeError):
                await connection.wait_closed()
            with pytest.raises(ConnectionLost):
                connection.send(b"", True)
            for _ in range(3):
                await connection.connect()
                assert (await connection.wait_closed()).reason == "peer_close"
            assert sink.calls == ["on_open", "on_message", "on_close"] * 3
            assert sink.messages == [b"0", b"1", b"2"]

    run(main())


# --- broken framing


BROKEN: list[tuple[str, bytes]] = [
    ("opcode 3", ws_frame(3, b"x")),
    ("opcode 11", ws_frame(11)),
    ("masked by the server", ws_frame(TEXT, b"hello", mask=b"abcd")),
    ("reserved bit 1", ws_frame(TEXT, b"hello", rsv=4)),
    ("reserved bit 2", ws_frame(BINARY, b"h" * 300, rsv=2)),
    ("reserved bit 3 of a ping", ws_frame(PING, b"hello", rsv=1)),
    ("fragmented ping", ws_frame(PING, b"hello", fin=False)),
    ("ping of 126 bytes", ws_frame(PING, b"x" * 126)),
    ("length not minimal, 16 bits", b"\x81\x7e\x00\x05hello"),
    ("length not minimal, 64 bits", b"\x81\x7f" + (300).to_bytes(8, "big") + b"x" * 300),
    ("length negative", b"\x81\x7f" + b"\xff" * 8),
    ("continuation of nothing", ws_frame(CONTINUATION, b"hello")),
    ("message inside a message", ws_frame(TEXT, b"a", fin=False) + ws_frame(TEXT, b"b")),
    ("close code 999", close_frame(999)),
    ("close of one byte", ws_frame(CLOSE, b"\x03")),
    ("close text not UTF-8", close_frame(1000, b"\xff\xfe")),
    ("an HTTP answer", b"HTTP/1.1 502 Bad Gateway\r\n\r\n<html>"),
    ("zeros", bytes(100)),
]


@pytest.mark.parametrize("slowly", [False, True], ids=["in one write", "byte by byte"])
@pytest.mark.parametrize("bad", [case[1] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_broken_framing_hands_over_the_bytes_and_closes(bad: bytes, slowly: bool) -> None:
    good = ws_frame(TEXT, b"before")

    async def script(peer: Peer) -> None:
        assert await peer.hear() == (TEXT, b"go")
        if slowly:
            for at in range(len(good + bad)):
                await peer.say((good + bad)[at : at + 1])
                await asyncio.sleep(0.0005)
        else:
            await peer.say(good + bad)
        await peer.hear_end()

    async def main() -> None:
        async with Server(script).listening() as server:
            sink = Remembers()
            connection = Connection(ConnectOptions(server.url), sink)
            await connection.connect()
            connection.send(b"go", True)
            end = await connection.wait_closed()
            assert sink.messages == [b"before"], "what came before is delivered, nothing after"
            assert (end.reason, sink.closed) == ("framing", [("framing", end.code)])
            assert end.code in (1002, 1007)
            assert end.detail
            [(data, reason)] = sink.broken
            assert reason == "framing"
            expected = ws_frame(TEXT, b"b") if bad.startswith(b"\x01\x01a") else bad
            if slowly:  # it was cut as soon as the fault was seen
                assert expected.startswith(bytes(data))
                assert len(data) >= min(2, len(expected))
            else:
                assert bytes(data) == expected
            assert data.total_bytes == len(data)

    run(main())


def test_broken_bytes_are_bounded_and_their_length_is_known() -> None:
    bad = b"\x83" + b"z" * 200_000

    async def script(peer: Peer) -> None:
        await peer.hear()
        await peer.say(bad)
        await peer.hear_end()

    async def main() -> None:
        async with Server(script).listening() as server:
            sink = Remembers()
            connection = Connection(ConnectOptions(server.url), sink)
            await connection.connect()
            connection.send(b"go", True)
            assert (await connection.wait_closed()).reason == "framing"
            [(data, _)] = sink.broken
            assert bad.startswith(bytes(data))
            assert 1000 < len(data) <= 65536
            assert len(data) <= data.total_bytes <= len(bad)

    run(main())


def test_garbage_in_the_read_of_the_handshake_still_closes_and_is_reported() -> None:
    async def script(peer: Peer) -> None:
        peer.writer.write(ws_frame(3, b"x"))  # as near to the handshake's answer as can be
        await peer.hear_end()

    async def main() -> None:
        async with Server(script).listening() as server:
            for _ in range(10):
                sink = Remembers()
                end = await outcome(server, sink)
                assert end.reason == "framing"
                assert [reason for _, reason in sink.broken] == ["framing"]

    run(main())


# --- too long


def test_too_long_a_message_is_reported_and_the_connection_goes_on() -> None:
    long = Random(1).randbytes(10 << 20)

    async def script(peer: Peer) -> None:
        await peer.say(ws_frame(TEXT, b"before"), ws_frame(BINARY, long), ws_frame(TEXT, b"between"))
        await peer.say(ws_frame(BINARY, long[:700_000], fin=False), ws_frame(CONTINUATION, long[700_000:2_000_000], fin=False))
        await peer.say(ws_frame(CONTINUATION, b""), ws_frame(TEXT, b"after"), close_frame(1000))
        await peer.hear_end()

    async def main() -> None:
        async with Server(script).listening() as server:
            sink = Remembers()
            end = await outcome(server, sink)
            assert end.reason == "peer_close"
            assert sink.messages == [b"before", b"between", b"after"]
            assert [(data.total_bytes, reason) for data, reason in sink.broken] == [(10 << 20, "oversize"), (2_000_000, "oversize")]
            assert all(bytes(data) == long[:65536] for data, _ in sink.broken)

    run(main())


def test_too_long_a_frame_closes() -> None:
    frame = ws_frame(BINARY, b"q" * 5000)

    async def script(peer: Peer) -> None:
        await peer.hear()
        await peer.say(ws_frame(TEXT, b"before"), frame, ws_frame(TEXT, b"after"))
        await peer.hear_end()

    async def main() -> None:
        async with Server(script).listening() as server:
            sink = Remembers()
            connection = Connection(ConnectOptions(server.url, max_message_bytes=1000, max_frame_bytes=4000), sink)
            await connection.connect()
            connection.send(b"go", False)
            end = await connection.wait_closed()
            assert (end.reason, end.code, sink.messages) == ("oversize", 1009, [b"before"])
            [(data, reason)] = sink.broken
            assert reason == "oversize"
            assert bytes(data).startswith(frame[:1000])

    run(main())


# --- a sink that fails


@pytest.mark.parametrize("method", ["on_open", "on_message", "on_broken", "on_close"])
def test_what_a_sink_raises_ends_the_connection_and_comes_out(method: str) -> None:
    async def script(peer: Peer) -> None:
        if method != "on_open":
            await peer.hear()
        await peer.say(ws_frame(BINARY, b"L" * 2000), ws_frame(TEXT, b"one"), ws_frame(TEXT, b"two"))
        if method == "on_close":
            await peer.say(close_frame(1000))
        await peer.hear_end()

    async def main() -> None:
        async with Server(script).listening() as server:
            sink = Remembers(raises_in=method)
            connection = Connection(ConnectOptions(server.url, max_message_bytes=1000), sink)
            if method == "on_open":
                with pytest.raises(ZeroDivisionError):
                    await connection.connect()
            else:
                await connection.connect()
                connection.send(b"go", True)
            for _ in range(2):  # it is not forgotten by being told once
                with pytest.raises(ZeroDivisionError, match=method):
                    await connection.wait_closed()
            assert sink.closed == ([("peer_close", 1000)] if method == "on_close" else [("sink_error", 1011)])
            assert sink.messages == {"on_message": [b"one"], "on_close": [b"one", b"two"]}.get(method, []), "nothing after the failure"

    run(main())


# --- sending


def test_a_venue_that_does_not_read_is_found_out() -> None:
    async def deaf(peer: Peer) -> None:
        await stop.wait()

    stop = asyncio.Event()

    async def main() -> None:
        async with Server(deaf).listening() as server:
            sink = Remembers()
            connection = Connection(ConnectOptions(server.url, max_unsent_bytes=300_000, close_timeout_s=0.2), sink)
            await connection.connect()
            waiting = asyncio.create_task(connection.drain())
            await waiting  # nothing is queued yet

            def send_much() -> None:
                for _ in range(2000):
                    connection.send(b"s" * 10_000, False)

            with pytest.raises(ConnectionLost) as lost:
                send_much()
            assert lost.value.facts["reason"] == "send_stalled"
            with pytest.raises(ConnectionLost):
                await connection.drain()
            end = await connection.wait_closed()
            assert end.reason == "send_stalled"
            assert "unsent_bytes=" in end.detail
            stop.set()

    run(main())


def test_drain_waits_until_the_venue_reads() -> None:
    read_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await read_on.wait()
        for _ in range(1000):
            assert await peer.hear() == (BINARY, b"s" * 10_000)
        await peer.say(close_frame(1000))

    async def main() -> None:
        async with Server(script).listening() as server:
            connection = Connection(ConnectOptions(server.url, max_unsent_bytes=64 << 20), Remembers())
            await connection.connect()
            for _ in range(1000):
                connection.send(b"s" * 10_000, False)
            draining = asyncio.create_task(connection.drain())
            await asyncio.sleep(0)
            assert not draining.done()
            read_on.set()
            await draining
            assert (await connection.wait_closed()).reason == "peer_close"

    run(main())


# --- connect that fails


async def _answer(peer: Peer, answer: bytes) -> None:
    await peer.reader.readuntil(b"\r\n\r\n")
    await peer.say(answer)


def answers(text: str) -> Script:
    return lambda peer: _answer(peer, text.replace("\n", "\r\n").encode())


async def _silence(peer: Peer) -> None:
    await peer.hear_end()


async def _reset_at_once(peer: Peer) -> None:
    await peer.reader.readuntil(b"\r\n\r\n")
    peer.reset()


REFUSALS: list[tuple[str, Script, dict[str, Any]]] = [
    (
        "503",
        answers("HTTP/1.1 503 Unavailable\nRetry-After: 17\nContent-Length: 4\n\nbusy"),
        {"reason": "http_503", "retry_after_s": 17, "detail": "busy"},
    ),
    ("429", answers(f"HTTP/1.1 429 Too Many\n\n{SECRET}"), {"reason": "http_429", "detail": "***"}),
    ("401", answers("HTTP/1.1 401 No\nRetry-After: soon\n\n"), {"reason": "http_401"}),
    ("302", answers(f"HTTP/1.1 302 Found\nLocation: ws://elsewhere/?{SECRET}\n\n"), {"reason": "http_302"}),
    ("200", answers("HTTP/1.1 200 OK\n\nhello"), {"reason": "http_200"}),
    (
        "wrong accept",
        answers("HTTP/1.1 101 S\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Accept: no\n\n"),
        {"reason": "handshake"},
    ),
    ("no HTTP", answers(f"SSH-2.0-{SECRET}\n\n\n"), {"reason": "handshake"}),
    ("endless header", answers("HTTP/1.1 101 S\n" + "X: y\n" * 10_000), {"reason": "handshake"}),
    ("end of stream", answers("HTTP/1.1 101 S\n"), {"reason": "eof"}),
    ("reset", _reset_at_once, {"reason": "eof"}),
    ("silence", _silence, {"reason": "timeout"}),
]


@pytest.mark.parametrize(("script", "facts"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS])
def test_a_refused_handshake_says_why_and_tells_no_secret(script: Script, facts: dict[str, Any]) -> None:
    async def main() -> None:
        async with Server(script, raw=True).listening() as server:
            sink = Remembers()
            options = ConnectOptions(f"{server.url}?key={SECRET}", {"X-Token": SECRET}, connect_timeout_s=0.4)
            connection = Connection(options, sink)
            with pytest.raises(ConnectionLost) as caught:
                await connection.connect()
            error = caught.value
            assert error.__cause__ is None
            assert not connection.is_open
            with pytest.raises(RuntimeError):
                await connection.wait_closed()
            assert {name: error.facts[name] for name in facts} == facts
            assert SECRET not in str(error) + repr(error)
            assert str(pickle.loads(pickle.dumps(error))) == str(error)
            assert sink.calls == [], "what was never open is not closed"
            await until(lambda: server.over == 1, "the client has let go of the socket")

    run(main())


def test_nobody_listens_or_the_name_is_unknown() -> None:
    async def main(url: str, reason: str) -> None:
        with pytest.raises(ConnectionLost) as caught:
            await Connection(ConnectOptions(url, connect_timeout_s=5), Remembers()).connect()
        assert caught.value.facts["reason"] == reason

    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    run(main(f"ws://127.0.0.1:{port}/", "refused"))
    run(main("ws://no-such-host.invalid/", "dns"))


def test_a_full_backlog_times_out(certificate: Path) -> None:
    """TCP that is not answered, and TLS that is not answered: the same bound."""

    async def main(url: str) -> None:
        began = time.monotonic()
        with pytest.raises(ConnectionLost) as caught:
            await Connection(ConnectOptions(url, connect_timeout_s=0.4), Remembers()).connect()
        assert caught.value.facts["reason"] == "timeout"
        assert time.monotonic() - began < 2

    async def tls() -> None:
        async with Server(_silence, raw=True).listening() as server:
            await main(server.url.replace("ws:", "wss:"))
            await until(lambda: server.over == 1, "the client has let go of the socket")

    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        crowd = [socket.socket() for _ in range(4)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        run(main(f"ws://127.0.0.1:{full.getsockname()[1]}/"))
        for one in crowd:
            one.close()
    run(tls())


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_a_cancelled_connect_leaves_no_connection_at_the_venue(scheme: str) -> None:
    """An app key allows one connection: a handshake that picows finishes behind our back would count."""

    async def main() -> None:
        async with Server(_silence, raw=True).listening() as server:
            connection = Connection(ConnectOptions(server.url.replace("ws:", scheme + ":"), connect_timeout_s=30), Remembers())
            task = asyncio.create_task(connection.connect())
            await until(lambda: server.peers, "accepted")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: server.over == 1, "the venue sees the end")

    run(main())


def test_plain_text_where_tls_is_expected(certificate: Path) -> None:
    async def main() -> None:
        async with Server(answers("HTTP/1.1 400 Bad Request\n\n"), raw=True).listening() as server:

            async def chatter(peer: Peer) -> None:
                await peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                await peer.hear_end()

            server.script = chatter
            with pytest.raises(ConnectionLost) as caught:
                await Connection(ConnectOptions(server.url.replace("ws:", "wss:")), Remembers()).connect()
            assert caught.value.facts["reason"] == "tls"

    run(main())
