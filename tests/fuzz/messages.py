"""Targets: what venues send. Data messages, control messages, REST answers, and whole streams into a real Recorder."""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Any

import numpy as np
from feed_rig import KIS_ACK, NS, Rig, counted

from fuzz.take import fresh
from obs.errors import AuthRejected, ConnectionLost, DecodeError
from obs.providers.base import CHANNELS, MAX_INPUTS_PER_MESSAGE, Context, Control, Provider, ProviderOptions
from obs.providers.registry import make_provider
from obs.record.events import event_payload
from obs.record.schema import EVENT_KINDS, IGNORED, INPUT, PHASES, SIDES, SYMBOL_BYTES
from obs.ring import copy_rows
from obs.sim.kis import CHANNELS as KIS_STREAMS
from obs.sim.kis import KisExchange
from obs.sim.log import SimLog
from obs.sim.malform import inject, spoil
from obs.sim.market import Stream
from obs.sim.numbered import NumberedSource
from obs.sim.options import SimOptions
from obs.sim.upbit import UpbitExchange

RECV_NS = 1_795_250_417_898_123_456
SYMBOLS = {"kr_stocks": ["005930", "0193T0", "Q500001"], "us_stocks": ["NAS:AAPL", "NYS:IBM"], "crypto": ["KRW-BTC", "KRW-ETH"]}
_COUNTS = EVENT_KINDS.index("counts")
_UNKNOWN = IGNORED.index("unknown_symbol")
_NUMBERS = ("price", "size", "bid_price", "ask_price", "bid_size", "ask_size", "acc_volume", "base_price")
_PLAIN_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_MARKS = re.compile(r'[\^|,:{}\[\]"\s]')
_KINDS = ("ack", "refused", "ping", "error", "status", "limit", "auth", "in_use")
_KEY = "k" * 36  # an approval key of the simulator's length


@cache
def provider(name: str, market: str, venue: str, channels: tuple[str, ...]) -> tuple[Provider, Context]:
    made = make_provider(name, ProviderOptions(name, market, venue, channels, 41, "http://127.0.0.1:1", "ws://127.0.0.1:1"))
    return made, made.context(SYMBOLS[market])


@cache
def _room() -> np.ndarray:
    return np.zeros(MAX_INPUTS_PER_MESSAGE + 1, INPUT)


def kis_data(data: bytes) -> None:
    """A KIS message, domestic and of the US: rows and faults, or DecodeError."""
    _decodes(*provider("kis", "kr_stocks", "krx", ("trade", "book")), data)
    _decodes(*provider("kis", "us_stocks", "us", ("trade",)), data)


def upbit_data(data: bytes) -> None:
    """An Upbit message: rows and faults, or DecodeError."""
    _decodes(*provider("upbit", "crypto", "kr", ("trade", "book", "ticker")), data)


def _decodes(made: Provider, ctx: Context, data: bytes) -> None:
    """Each input of the message is a row or a fault, its numbers are in the message, no byte is in two faults."""
    out = _room()
    out[0] = np.zeros((), INPUT)
    try:
        count, faults = made.decode(data, RECV_NS, ctx, out, 1)
    except DecodeError as error:
        assert 1 <= len(error.reason) <= 32, error.reason
        return
    assert not out[:1].tobytes().strip(b"\0"), "a row before its place was touched"
    assert 1 <= count <= MAX_INPUTS_PER_MESSAGE
    end = 0
    for fault in faults:
        assert end <= fault.start <= fault.stop <= len(data), faults
        assert 1 <= len(fault.reason) <= 32
        end = fault.stop
    hurt = bytearray(data)
    for fault in faults:
        hurt[fault.start : fault.stop] = b" " * (fault.stop - fault.start)
    held = {abs(float(token)) for token in _MARKS.split(hurt.decode("latin-1")) if _PLAIN_NUMBER.fullmatch(token)}
    for row in out[1 : 1 + count]:
        _check_row(row, held)


def _check_row(row: np.void, held: set[float]) -> None:
    assert row["recv_ns"] == RECV_NS
    assert row["event_ns"] >= 0
    assert re.fullmatch(rb"[ -~]{1,%d}" % SYMBOL_BYTES, row["symbol"])
    for name, codes in (("kind", CHANNELS), ("ignore", IGNORED), ("side", SIDES), ("phase", PHASES)):
        assert 0 <= row[name] < len(codes), name
    assert (row["row"] == 0) == (row["ignore"] == _UNKNOWN)
    for name in _NUMBERS:
        value = float(row[name])
        if math.isnan(value):
            continue
        assert math.isfinite(value), name
        assert value != 0 or "price" not in name, name
        assert name == "base_price" or abs(value) in held, f"{name} = {value}: the message does not say so"


def kis_control(data: bytes) -> None:
    """A KIS control message: Controls, or DecodeError."""
    _controls(*provider("kis", "kr_stocks", "krx", ("trade", "book")), data)
    _controls(*provider("kis", "us_stocks", "us", ("trade",)), data)


def upbit_control(data: bytes) -> None:
    """An Upbit control message: Controls, or DecodeError."""
    _controls(*provider("upbit", "crypto", "kr", ("trade", "book", "ticker")), data)


def _controls(made: Provider, _: Context, data: bytes) -> None:
    assert made.classify(data) in ("data", "control")
    assert made.classify(data) == made.classify(memoryview(data))
    try:
        found = made.control(data)
    except DecodeError as error:
        assert 1 <= len(error.reason) <= 32
        return
    assert found
    for one in found:
        assert isinstance(one, Control)
        assert one.kind in _KINDS
        assert len(one.code) <= 120
        assert len(one.text) <= 120
        assert (one.reply == data) if one.kind == "ping" else one.reply is None
        assert not one.registered or one.kind == "ack"
        assert isinstance(one.channel, str)
        assert isinstance(one.symbol, str)


def rest_answers(data: bytes) -> None:
    """The body of an answer to Approval and to tokenP: a key and an end, or AuthRejected or ConnectionLost, which quote no key."""
    made, _ = provider("kis", "kr_stocks", "krx", ("trade", "book"))
    for status in (200, 403, 500):
        for parse in (made.parse_approval, lambda code, body: made.parse_token(code, body, RECV_NS)):
            try:
                found: Any = parse(status, data)
            except (AuthRejected, ConnectionLost) as error:
                assert len(str(error)) < 400
                assert _KEY not in str(error)
                continue
            value = found.key if hasattr(found, "key") else found.value
            assert value
            assert value.isascii()
            assert value.isprintable()
            assert value not in repr(found) or len(value) < 12
            assert -(2**63) <= getattr(found, "expires_ns", 0) < 2**63


def kis_feed(data: bytes) -> None:
    """Messages, one a line, into the Recorder of a KIS feed: each has one fate."""
    _fates("kis", data)


def upbit_feed(data: bytes) -> None:
    """Messages, one a line, into the Recorder of an Upbit feed: each has one fate."""
    _fates("upbit", data)


@cache
def _rig(venue: str) -> Rig:
    return Rig(fresh(f"rig-{venue}"), venue, tape=True)


def _fates(venue: str, data: bytes) -> None:
    """What came in = data + control + quarantined; inputs = records + ignored; the bytes of what was quarantined are in the ring.

    The rings go on from input to input, so all figures are differences.
    """
    rig = _rig(venue)
    payloads = [line[:2000] for line in data.split(b"\n")[:20]]
    rig.clock.forward(NS)
    assert rig.feed() is None, "the one before has stopped in order"
    recorder = rig.recorder
    before = {name: ring.published for name, ring in rig.rings.items()}
    context = rig.context()
    for payload in payloads:
        rig.clock.forward(1000)
        recorder.message(memoryview(payload), rig.clock.wall, context)
    recorder.stop()
    new = {name: copy_rows(ring, before[name], ring.published - before[name]) for name, ring in rig.rings.items()}
    sums, totals = counted([event_payload(row) for row in new["event"] if row["kind"] == _COUNTS])
    assert totals["messages"] == len(payloads), (totals, len(payloads))
    inputs = sum(one.inputs for one in sums.values())
    folded = sum(one.trades + one.quotes for one in sums.values())
    assert folded == len(new["tick"]), (folded, len(new["tick"]))
    assert inputs == recorder.totals.inputs
    chunks = new["quarantine"]
    whole = chunks[(chunks["part"] == 0) & (chunks["whole"] == 1)]
    assert totals["quarantined"] == len(whole) == recorder.totals.quarantined
    held = [row["data"].tobytes()[: int(row["data_bytes"])] for row in chunks if row["parts"] == 1]
    left = list(payloads)
    for part in held:
        at = next((at for at, payload in enumerate(left) if part in payload), None)
        assert at is not None, f"quarantine holds bytes that nobody sent: {part[:80]!r}"
        del left[:at]


# --- seeds: what our own simulator sends


@cache
def _kis_messages() -> tuple[bytes, ...]:
    found = []
    for width in (46, 47):
        exchange = KisExchange(SimOptions("kis", width=width), NumberedSource(100, start_k=0), SimLog(None), [])
        for tr_id, code in (("H0STCNT0", "005930"), ("H0UNCNT0", "Q500001"), ("H0STASP0", "0193T0"), ("HDFSCNT0", "DNASAAPL")):
            group, kind = KIS_STREAMS[tr_id]
            assert kind is not None
            stream = Stream((tr_id, code), kind, exchange.symbol(group, code))
            for count in (1, 3):
                [(_, messages)] = exchange.encode(stream, count, RECV_NS)
                found += [message.payload for message in messages]
                found.append(spoil("kis", "neighbour", messages[0])[0].payload)
        good = messages[0]
    fields = found[0].split(b"^")
    found += [b"^".join([*fields[:at], text, *fields[at + 1 :]]) for at in (2, 10, 12, 36) for text in (b"0", b"")]  # zero, and no value
    found += [inject("kis", variant, good) for variant in ("cut", "fields_more", "count", "cp949", "unknown", "encrypted")]
    return tuple(found)


class _Subscriber:
    """Stands for a connection: streams only keep it."""


@cache
def _upbit_messages() -> tuple[bytes, ...]:
    found = []
    for way in ("DEFAULT", "SIMPLE", "JSON_LIST", "SIMPLE_LIST"):
        exchange = UpbitExchange(SimOptions("upbit"), NumberedSource(100, start_k=0), SimLog(None), [])
        for kind, name in (("trade", "trade"), ("orderbook", "book"), ("ticker", "ticker")):
            stream = Stream((kind, "KRW-BTC"), name, exchange.symbol("crypto", "KRW-BTC"))
            stream.subs[_Subscriber()] = (way, 5, 0)
            [(_, messages)] = exchange.encode(stream, 2, RECV_NS)
            found += [message.payload for message in messages]
        found.append(spoil("upbit", "type", messages[0])[0].payload)
    found.append(b"[" + b",".join(message.strip(b"[]") for message in found[:2]) + b"]")
    found += [inject("upbit", variant, messages[0]) for variant in ("cut", "fields_less", "count", "cp949", "unknown", "no_records")]
    return tuple(found)


_KIS_CONTROL = (
    KIS_ACK,
    b'{"header":{"tr_id":"PINGPONG","datetime":"20260714093000"}}',
    b'{"header":{"tr_id":"H0STCNT0","tr_key":"005930","encrypt":"N"},"body":{"rt_cd":"1","msg_cd":"OPSP0008","msg1":"MAX SUBSCRIBE OVER"}}',
    b'{"header":{"tr_id":"(null)","tr_key":"","encrypt":"N"},"body":{"rt_cd":"9","msg_cd":"OPSP8996","msg1":"ALREADY IN USE appkey"}}',
)
_UPBIT_CONTROL = (
    b'{"status":"UP"}',
    b'{"error":{"message":"no such format","name":"WRONG_FORMAT"}}',
    b'{"method":"LIST_SUBSCRIPTIONS","result":[{"type":"trade","codes":["KRW-BTC"]}],"ticket":"x"}',
)


def kis_data_seeds() -> list[bytes]:
    return list(_kis_messages())


def upbit_data_seeds() -> list[bytes]:
    return list(_upbit_messages())


def kis_control_seeds() -> list[bytes]:
    return list(_KIS_CONTROL)


def upbit_control_seeds() -> list[bytes]:
    return list(_UPBIT_CONTROL)


def rest_answers_seeds() -> list[bytes]:
    return [
        b'{"approval_key":"%s"}' % _KEY.encode(),
        b'{"access_token":"%s","access_token_token_expired":"2026-11-22 12:00:00","expires_in":86400}' % _KEY.encode(),
        b'{"error_description":"wrong key","error_code":"EGW00103"}',
        b'{"error_description":"once a minute","error_code":"EGW00133"}',
    ]


def kis_feed_seeds() -> list[bytes]:
    return [b"\n".join((*_KIS_CONTROL[:2], *_kis_messages()[start::3][:4], b"")) for start in range(3)]


def upbit_feed_seeds() -> list[bytes]:
    return [b"\n".join((_UPBIT_CONTROL[0], *_upbit_messages()[start::3][:4], b"")) for start in range(3)]
