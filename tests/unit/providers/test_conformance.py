"""One suite for every provider: exact rows from synthetic and recorded frames, and nothing unforeseen from mutated ones."""

from __future__ import annotations

import contextlib
import math
import re
from typing import Any

import numpy as np
import pytest
import recorded
from cases import CASES, Case
from fuzz.mutate import ODD, WAYS, hurt_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inputs import NUMBERS, RECV_NS, decoded, same

from obs.errors import DecodeError
from obs.providers.base import CHANNELS, MAX_INPUTS_PER_MESSAGE, MAX_MESSAGE_BYTES, Control
from obs.record.schema import IGNORED, INPUT, PHASES, SIDES, SYMBOL_BYTES

FRAMES = [pytest.param(case, payload, rows, id=f"{case.name}-{name}") for case in CASES for name, (payload, rows) in case.frames.items()]
CONTROLS = [pytest.param(case, payload, id=f"{case.name}-{name}") for case in CASES for name, payload in case.control.items()]
EACH_CASE = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
PLAIN_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
OPTIONS = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@pytest.mark.parametrize(("case", "payload", "rows"), FRAMES)
def test_a_synthetic_frame_gives_its_rows(case: Case, payload: bytes, rows: list[dict[str, Any]]) -> None:
    assert case.provider.classify(payload) == "data"
    for form in (payload, memoryview(payload), memoryview(bytearray(payload))):
        found, faults = decoded(case.provider, case.context(), form)  # type: ignore[arg-type]
        assert faults == []
        assert len(found) == len(rows)
        for one, expected in zip(found, rows, strict=True):
            same(one, expected)


@pytest.mark.parametrize(("case", "payload"), CONTROLS)
def test_a_synthetic_control_frame_is_control(case: Case, payload: bytes) -> None:
    assert case.provider.classify(payload) == case.provider.classify(memoryview(payload)) == "control"
    assert len(case.provider.control(payload)) == 1
    with pytest.raises(DecodeError):
        decoded(case.provider, case.context(), payload)


@EACH_CASE
def test_every_recorded_frame_gives_its_exact_rows_or_is_refused_for_a_known_reason(case: Case) -> None:
    ctx = case.provider.context(case.recorded_symbols)
    places = {case.provider.record_symbol(symbol): row for row, symbol in enumerate(case.recorded_symbols, 1)}
    read = controls = 0
    for place, payload, recorded_ns in recorded.frames(case.folder):
        recv_ns = recorded_ns or RECV_NS
        if case.provider.classify(payload) == "control":
            assert all(isinstance(answer, Control) for answer in case.provider.control(payload)), place
            controls += 1
        elif b'"codes"' in payload or b"candle." in payload[:64]:  # our own request, and a channel that has no input
            with pytest.raises(DecodeError):
                decoded(case.provider, ctx, payload, recv_ns)
        elif case.owns(payload):
            found, faults = decoded(case.provider, ctx, payload, recv_ns)
            assert faults == [], place
            expected = case.oracle(payload, places, recv_ns)
            assert len(found) == len(expected), place
            for one, row in zip(found, expected, strict=True):
                same(one, row)
            read += len(found)
    assert read >= 6
    assert controls >= 4


@EACH_CASE
@OPTIONS
@given(st.data())
def test_a_mutated_frame_gives_rows_faults_control_or_decode_error(case: Case, data: st.DataObject) -> None:
    frames = [payload for payload, _ in case.frames.values()] + list(case.control.values())
    judge(case, data.draw(hurt_text(frames, (*WAYS, "encrypt", "count"))))


@EACH_CASE
@OPTIONS
@given(st.binary(max_size=200) | st.text(max_size=80).map(str.encode))
def test_any_bytes_give_rows_faults_control_or_decode_error(case: Case, payload: bytes) -> None:
    judge(case, payload)


@EACH_CASE
def test_mutated_recorded_frames_give_rows_faults_control_or_decode_error(case: Case) -> None:
    random = np.random.default_rng(20260714)
    context = case.provider.context(case.recorded_symbols)
    frames = [payload for _, payload, _ in recorded.frames(case.folder)]
    for payload in frames[:: max(1, len(frames) // 40)]:
        for _ in range(30):
            data = bytearray(payload)
            at, length = random.integers(0, len(data)), int(random.integers(1, 5))
            match random.integers(0, 4):
                case 0:
                    del data[at:]
                case 1:
                    data[at] ^= 1 << int(random.integers(0, 8))
                case 2:
                    del data[at : at + length]
                case 3:
                    data[at : at + length] = ODD[int(random.integers(0, len(ODD)))]
            judge(case, bytes(data), context)


def judge(case: Case, payload: bytes, context: Any = None) -> None:
    """Assert that only rows, faults, control or DecodeError come of `payload`, and no number that it does not hold."""
    provider = case.provider
    if provider.classify(payload) == "control":
        with contextlib.suppress(DecodeError):
            assert all(isinstance(answer, Control) for answer in provider.control(payload))
        return
    try:
        rows, faults = decoded(provider, context or case.context(), payload)
    except DecodeError as error:
        rows, faults, reason = [], [], error.reason
    else:
        reason = "read"
    assert 1 <= len(reason) <= 32
    if reason != "read":
        return
    assert 1 <= len(rows) <= MAX_INPUTS_PER_MESSAGE
    for fault in faults:
        assert 0 <= fault.start <= fault.stop <= len(payload)
        assert fault.reason
        assert len(fault.reason) <= 32
    assert faults == sorted(faults)
    text = payload.decode("latin-1")
    held = {abs(float(token)) for token in re.split(r'[\^|,:{}\[\]"\s]', text) if PLAIN_NUMBER.fullmatch(token)}
    for one in rows:
        check_row(case, one, held)


def check_row(case: Case, row: dict[str, Any], held: set[float]) -> None:
    assert row["recv_ns"] == RECV_NS
    assert row["event_ns"] >= 0
    assert re.fullmatch(rb"[ -~]{1,%d}" % SYMBOL_BYTES, row["symbol"])
    assert 0 <= row["kind"] < len(CHANNELS)
    assert 0 <= row["ignore"] < len(IGNORED)
    assert 0 <= row["side"] < len(SIDES)
    assert 0 <= row["phase"] < len(PHASES)
    assert (row["row"] == 0) == (row["ignore"] == IGNORED.index("unknown_symbol"))
    for name in NUMBERS:
        value = row[name]
        assert math.isnan(value) or math.isfinite(value)
        if "price" in name:
            assert value != 0
        if name != "base_price" and not math.isnan(value):
            assert abs(value) in held, (name, value)


def test_the_checker_sees_a_number_that_is_not_there() -> None:
    case = CASES[0]
    (row, *_), _ = decoded(case.provider, case.context(), case.frames["synthetic_trade_01"][0])
    with pytest.raises(AssertionError):
        check_row(case, row | {"size": 38.0}, {37.0})


@EACH_CASE
def test_ten_megabytes_are_refused_unread(case: Case) -> None:
    for filler in (b"9", b"^", b"[", b'{"ty":', b"0|H0STCNT0|001|", b","):
        payload = next(iter(case.frames.values()))[0][:20] + filler * (10 * MAX_MESSAGE_BYTES // len(filler))
        with pytest.raises(DecodeError, match="oversize"):
            decoded(case.provider, case.context(), payload)


@EACH_CASE
def test_a_context_serves_another_array_and_leaves_what_is_before_the_rows(case: Case) -> None:
    payload, rows = next(iter(case.frames.values()))
    ctx = case.context()
    for _ in range(3):
        out = np.zeros(MAX_INPUTS_PER_MESSAGE + 5, INPUT)
        assert case.provider.decode(payload, RECV_NS, ctx, out, 5)[0] == len(rows)
        assert not out[:5].tobytes().strip(b"\0")
        assert out["symbol"][5] == rows[0]["symbol"]


@EACH_CASE
def test_a_row_without_symbol_stays_unused(case: Case) -> None:
    payload, rows = next(iter(case.frames.values()))
    found, _ = decoded(case.provider, case.provider.context(["", *case.symbols]), payload)
    assert found[0]["row"] == rows[0]["row"] + 1
