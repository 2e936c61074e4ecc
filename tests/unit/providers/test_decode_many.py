"""Many messages at once give what they give one by one: rows to the last bit, and the same refusals in the same order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import recorded
from cases import CASES, Case
from inputs import RECV_NS
from synthetic_kis import SYMBOLS, book_fields, message, trade_fields

from obs.errors import DecodeError
from obs.providers.base import MAX_INPUTS_PER_MESSAGE, Bad
from obs.providers.kis.columns import decode_trades
from obs.record.schema import INPUT

KR = CASES[0]
EACH_CASE = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
# Texts for one field: what numbers, times, dates and codes may look like, and what they may not.
TEXTS = ["", "0", "00", "7", "-7", "--7", "-", "+7", "1.5", "7.", ".7", "1e5", "1_0", " 7", "12345678", "123456789", "1" * 16]
TEXTS += ["1" * 17, "9" * 21, "-12345678", "-123456789", "246060", "235959", "235960", "236000", "240000", "20260714", "20261301"]
TEXTS += ["19691231", "Y", "N", "A", "D", "Z", "20", "21", "33", "99", "200", "nan", "\uff11", "\x00", "/", ":", "0:", "7/", "005930"]
TEXTS += ["0193T0", "005930\x00", "5|5"]


def rows_of(out: np.ndarray) -> list[bytes]:
    return [row.tobytes() for row in out]


def known(bad: Sequence[Bad]) -> list[Any]:
    return [(place, what.reason if isinstance(what, DecodeError) else what) for place, what in bad]


def one_by_one(case: Case, payloads: Sequence[bytes]) -> tuple[list[bytes], list[Any]]:
    out, ctx = np.zeros(MAX_INPUTS_PER_MESSAGE, INPUT), case.context()
    rows: list[bytes] = []
    bad: list[Bad] = []
    for place, payload in enumerate(payloads):
        try:
            written, faults = case.provider.decode(payload, RECV_NS + place, ctx, out, 0)
        except DecodeError as error:
            bad.append((place, error))
            continue
        rows += rows_of(out[:written])
        if faults:
            bad.append((place, faults))
    return rows, known(bad)


def at_once(case: Case, payloads: Sequence[bytes], room: int = 4096) -> tuple[list[bytes], list[Any]]:
    """By as many calls as it takes, as a recorder makes them; checks that nothing but the rows told was touched before them."""
    ctx = case.context()
    times = [RECV_NS + place for place in range(len(payloads))]
    rows: list[bytes] = []
    bad: list[Any] = []
    start = 0
    while start < len(payloads):
        out = np.zeros(room + MAX_INPUTS_PER_MESSAGE, INPUT)
        taken = case.provider.decode_many(payloads[start:], times[start:], ctx, out, 3)
        assert taken.messages > 0
        assert not out[:3].tobytes().strip(b"\0")
        rows += rows_of(out[3 : 3 + taken.inputs])
        bad += [(start + place, what) for place, what in known(taken.bad)]
        start += taken.messages
    return rows, bad


def mutated(rng: random.Random, records: Sequence[list[str]]) -> list[list[str]]:
    records = [list(record) for record in records]
    record = rng.choice(records)
    for _ in range(rng.choice([1, 1, 2])):
        place = rng.randrange(len(record))
        how = rng.random()
        if how < 0.8:
            record[place] = rng.choice(TEXTS)
        elif how < 0.9:
            del record[place]
        else:
            record.insert(place, rng.choice(TEXTS))
    return records


def kis_messages(rng: random.Random, count: int, hurt: float) -> list[bytes]:
    """Trade messages of one to nine records, of which a share `hurt` has something wrong or unusual; some books, some garbage."""
    found = []
    for _ in range(count):
        wide = rng.random() < 0.5
        records = []
        for _ in range(rng.choice([1, 1, 1, 2, 4, 9])):
            plain = {"f2": str(rng.randrange(10**6)), "f4": str(rng.randrange(-(10**4), 10**4)), "f12": str(rng.randrange(10**5))}
            plain |= {"f1": f"{rng.randrange(24):02d}{rng.randrange(60):02d}{rng.randrange(60):02d}", "f13": str(rng.randrange(10**12))}
            plain |= {"f3": rng.choice("12345"), "f21": rng.choice("135"), "f33": rng.choice(["20260714", "20260714", "20260715"])}
            plain |= {"f34": rng.choice(["20", "21", "10"]), "f43": rng.choice("000A"), "f10": rng.choice(["71600", "0"])}
            records.append(trade_fields(rng.choice(SYMBOLS), **plain) + ([rng.choice("1235")] if wide else []))
        how = rng.random()
        if how >= hurt:
            found.append(message("H0STCNT0", *records))
        elif how < hurt * 0.7:
            found.append(message("H0STCNT0", *mutated(rng, records)))
        elif how < hurt * 0.8:
            found.append(message("H0STCNT0", *records, count=rng.choice([0, 1, 2, 5, 1024])))
        elif how < hurt * 0.9:
            found.append(message("H0STASP0", book_fields(rng.choice(SYMBOLS))))
        else:
            whole = message("H0STCNT0", *records)
            cut = [whole[: rng.randrange(len(whole))], b"", b"^" * rng.randrange(100), rng.randbytes(rng.randrange(200)), b"1" + whole[1:]]
            cut += [whole.replace(b"005930", b"00593A"), whole.replace(b"|00", b"|0x"), message("H0NXCNT0", *records), whole[:15]]
            found.append(rng.choice(cut))
    return found


@pytest.mark.parametrize("hurt", [0.0, 0.02, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_columns_give_what_the_records_give_one_by_one(seed: int, hurt: float) -> None:
    payloads = kis_messages(random.Random(seed), 400, hurt)
    assert at_once(KR, payloads) == one_by_one(KR, payloads)


def test_plain_messages_are_read_by_columns() -> None:
    """Or the test above would compare one way with itself."""
    payloads = kis_messages(random.Random(1), 400, 0.0)
    ctx: Any = KR.context()
    inputs, counts = decode_trades(payloads, [RECV_NS] * len(payloads), ctx.trades)
    assert counts.all()
    assert len(inputs) == counts.sum() > 400


@pytest.mark.parametrize("place", range(47))
def test_each_text_in_each_field_among_plain_messages(place: int) -> None:
    """One odd message at a time, so that it is the columns that must notice it."""
    plain = [message("H0STCNT0", [*trade_fields(f12=str(number)), "2"]) for number in range(130)]
    record = [*trade_fields(), "2"]
    odd = [message("H0STCNT0", [*record[:place], text, *record[place + 1 :]]) for text in TEXTS]
    ctx: Any = KR.context()
    for text, payload in zip(TEXTS, odd, strict=True):
        inputs, counts = decode_trades([*plain[:5], payload, *plain[:5]], [RECV_NS] * 11, ctx.trades)
        rows, _ = one_by_one(KR, [payload])
        if counts[5]:
            assert [inputs[5].tobytes()] == [row_at(rows[0], RECV_NS)], text
        assert counts[:5].all()
        assert counts[6:].all(), text
    payloads = [one for number, payload in enumerate(odd) for one in (plain[number], payload, plain[number + 50])]
    assert at_once(KR, payloads) == one_by_one(KR, payloads)


def row_at(row: bytes, recv_ns: int) -> bytes:
    found = np.frombuffer(row, INPUT).copy()
    found["recv_ns"] = recv_ns
    return found.tobytes()


@pytest.mark.parametrize("room", [0, 1, 100, 5000])
def test_what_does_not_fit_is_left_for_the_next_call(room: int) -> None:
    rng = random.Random(room)
    payloads = [*kis_messages(rng, 300, 0.05), message("H0STCNT0", *([trade_fields()] * 999)), *kis_messages(rng, 300, 0.05)]
    assert at_once(KR, payloads, room + 3) == one_by_one(KR, payloads)


@EACH_CASE
@pytest.mark.parametrize("times", [1, 40])
def test_recorded_and_synthetic_frames(case: Case, times: int) -> None:
    payloads = [payload for _, payload, _ in recorded.frames(case.folder)] + [payload for payload, _ in case.frames.values()]
    data = [payload for payload in payloads if case.provider.classify(payload) == "data"] * times
    random.Random(times).shuffle(data)
    assert at_once(case, data) == one_by_one(case, data)


@EACH_CASE
def test_much_that_is_bad_is_handed_over_before_more_is_read(case: Case) -> None:
    """What is kept of it goes through a ring that others must have the time to read."""
    out, ctx = np.zeros(8 * MAX_INPUTS_PER_MESSAGE, INPUT), case.context()
    taken = case.provider.decode_many([b"?"] * 500, [RECV_NS] * 500, ctx, out, 0)
    assert (taken.messages, taken.inputs, len(taken.bad)) == (16, 0, 16)
    good = next(iter(case.frames.values()))[0]
    taken = case.provider.decode_many([good, b"?"] * 250, [RECV_NS] * 500, ctx, out, 0)
    assert (taken.messages, len(taken.bad)) == (32, 16)


def test_a_context_without_symbols_reads_strangers() -> None:
    payloads = kis_messages(random.Random(3), 200, 0.1)
    out = np.zeros(4 * MAX_INPUTS_PER_MESSAGE, INPUT)
    taken = KR.provider.decode_many(payloads[:120], [RECV_NS] * 120, KR.provider.context([]), out, 0)
    assert (out["row"][: taken.inputs] == 0).all()
    assert taken.inputs > 0
