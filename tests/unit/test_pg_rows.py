"""COPY blocks: every number, text, time and null, read back from the bytes by a plain reader of the binary format."""

from __future__ import annotations

import struct
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obs.pg.rows import BEYOND, CHUNK, COLUMNS, NEGATIVE, NULL, NUMERICS, SIGNATURE, TRAILER, copy_block, copy_chunks, encode_numerics
from obs.pg.statements import migrations, statement
from obs.record.schema import FLAGS, KINDS, PHASES, SIDES, TICK

SESSION = "sess_20260122_003105_kis_ab12"
EIGHT = Decimal(1).scaleb(-8)
WIDE = Context(prec=60)


def number_of(data: bytes) -> Decimal | float:
    """Read one NUMERIC."""
    count, weight, sign, scale = struct.unpack(">hhHH", data[:8])
    if sign == 0xD000:
        return float("inf")
    digits = struct.unpack(f">{count}H", data[8:])
    assert max(digits) < 10_000
    assert scale == 8
    value = sum(Decimal(digit).scaleb(4 * (weight - place), WIDE) for place, digit in enumerate(digits))
    return -value if sign else Decimal(value)


def read(block: bytes) -> list[dict[str, bytes | None]]:
    """Read a COPY stream into rows of raw values by column name."""
    assert block.startswith(SIGNATURE)
    at, rows = len(SIGNATURE), []
    while True:
        (count,) = struct.unpack_from(">h", block, at)
        at += 2
        if count == -1:
            assert at == len(block)
            return rows
        assert count == len(COLUMNS)
        row: dict[str, bytes | None] = {}
        for column, _, _ in COLUMNS:
            (length,) = struct.unpack_from(">i", block, at)
            at += 4
            row[column] = None if length == -1 else block[at : at + length]
            at += max(length, 0)
        rows.append(row)


def expected(value: float) -> Decimal:
    return Decimal(repr(value)).quantize(EIGHT, ROUND_HALF_UP, WIDE)


def encoded(values: list[float]) -> list[Any]:
    rows = np.zeros(len(values), TICK)
    rows["last_price"] = values
    rows["seq"] = np.arange(len(values))
    found = {}
    for row in read(copy_block(rows, SESSION, "kis")):
        data, seq = row["last_price"], row["seq"]
        assert seq is not None
        found[struct.unpack(">q", seq)[0]] = None if data is None else number_of(data)
    return [found[seq] for seq in range(len(values))]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.builds(lambda n, e: float(f"{n}e{e}"), st.integers(0, 10**15 - 1), st.integers(-8, 4)), min_size=1, max_size=20))
def test_decimals_of_15_digits_are_exact(values: list[float]) -> None:
    assert encoded(values) == [expected(value) for value in values]


def test_decimal_of_15_digits_equals_its_text() -> None:
    rng = np.random.default_rng(5)
    for digits in range(1, 16):
        for decimals in range(9):
            numbers = rng.integers(10 ** (digits - 1), 10**digits, 60)
            texts = [str(Decimal(int(n)).scaleb(-decimals, WIDE)) for n in numbers]
            assert encoded([float(text) for text in texts]) == [Decimal(text) for text in texts]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(min_value=-9e19, max_value=9e19, allow_nan=False), min_size=1, max_size=20))
def test_any_number_is_its_shortest_spelling_rounded(values: list[float]) -> None:
    assert encoded(values) == [expected(value) for value in values]


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (0.1 + 0.2, "0.3"),
        (5e-9, "0.00000001"),
        (4.999999999e-9, "0"),
        (1.000000015, "1.00000002"),
        (99999999.99999999, "99999999.99999999"),
        (123456789.12345678, "123456789.12345678"),
        (999999999999999.0, "999999999999999"),
        (1e15, "1000000000000000"),
        (9999999.99999999, "9999999.99999999"),
        (10000000.0, "10000000"),
        (2.0**53, "9007199254740992"),
        (1e19, "1e19"),
        (-71450.5, "-71450.5"),
        (5e-324, "0"),
    ],
)
def test_edges(value: float, stored: str) -> None:
    assert encoded([value]) == [Decimal(stored)]


def test_statuses() -> None:
    values = np.array([np.nan, -1.0, np.inf, -np.inf, 1e20, 99999999999999990000.0])
    statuses, digits = encode_numerics(values)
    assert statuses.tolist() == [NULL, NEGATIVE, BEYOND, BEYOND, BEYOND, 0]
    assert digits.shape == values.shape
    assert encoded([float("nan"), float("inf"), 1e300]) == [None, float("inf"), float("inf")]


def test_a_row_of_every_kind() -> None:
    rows = np.zeros(3, TICK)
    rows["seq"] = [7, 8, 9]
    rows["ts_ns"] = 1_769_041_865_500_000_999
    rows["event_ns"], rows["recv_ns"] = [0, 1_769_041_865_120_000_000, -1_000_000_001], [1, 0, 2]
    rows["symbol"] = [b"005930", b"", b"KRW-1000SATS-LONGEST"]
    rows["market"], rows["venue"] = [1, 4, 200], [1, 0, 2]
    rows["side"], rows["kind"], rows["phase"], rows["quality"] = [1, 2, 0], [0, 1, 4], [0, 3, 9], [0, 1, 2]
    rows["flags"] = [0, 1, (1 << len(FLAGS)) - 1]
    rows["mitigation_level"] = [0, 1, 2]
    rows["trades"], rows["quotes"] = [0, 1, 2**32 - 1], [1, 0, 3]
    rows["venue_seq"] = [-1, 17_690_418_655_000_000, 2**62]
    for field in NUMERICS:
        rows[field] = [np.nan, 1.5, 2.25]
    by_seq = {struct.unpack(">q", row["seq"] or b"")[0]: row for row in read(copy_block(rows, SESSION, "kis"))}

    def micros(ns: int) -> bytes:
        return struct.pack(">q", ns // 1000 - 946_684_800_000_000)

    assert by_seq[7]["ts"] == micros(1_769_041_865_500_000_000)
    assert [by_seq[seq]["event_time"] for seq in (7, 8, 9)] == [None, micros(1_769_041_865_120_000_000), micros(-1_000_000_001)]
    assert [by_seq[seq]["event_ns"] for seq in (7, 9)] == [None, struct.pack(">q", -1_000_000_001)]
    assert [by_seq[seq]["receive_time"] for seq in (7, 8)] == [micros(1), None]
    assert [by_seq[seq]["symbol"] for seq in (7, 8, 9)] == [b"005930", b"", b"KRW-1000SATS-LONGEST"]
    assert [by_seq[seq]["market"] for seq in (7, 8, 9)] == [b"kr_stocks", b"crypto", None]
    assert [by_seq[seq]["side"] for seq in (7, 8, 9)] == [SIDES[1].encode(), SIDES[2].encode(), None]
    assert [by_seq[seq]["kind"] for seq in (7, 8, 9)] == [KINDS[0].encode(), KINDS[1].encode(), KINDS[4].encode()]
    assert [by_seq[seq]["phase"] for seq in (7, 8, 9)] == [None, PHASES[3].encode(), PHASES[9].encode()]
    assert [by_seq[seq]["venue_seq"] for seq in (7, 9)] == [None, struct.pack(">q", 2**62)]
    assert by_seq[9]["trades"] == struct.pack(">q", 2**32 - 1)
    assert by_seq[9]["mitigation_level"] == struct.pack(">h", 2)
    assert by_seq[7]["flags"] == struct.pack(">iii", 0, 0, 25)
    assert by_seq[8]["flags"] == struct.pack(">iiiiii", 1, 0, 25, 1, 1, 11) + b"price_limit"
    for column, kind, _ in COLUMNS:
        if kind == "numeric":
            found = by_seq[8][column]
            assert by_seq[7][column] is None
            assert found is not None
            assert number_of(found) == Decimal("1.5")
    assert {row["session_id"] for row in by_seq.values()} == {SESSION.encode()}
    assert {row["provider"] for row in by_seq.values()} == {b"kis"}
    assert {row["schema_version"] for row in by_seq.values()} == {b"1.0"}


def test_rows_of_many_shapes_leave_in_their_order_by_chunks() -> None:
    rng, count = np.random.default_rng(11), 2 * CHUNK + 3
    rows = np.zeros(count, TICK)
    rows["seq"] = np.arange(count)
    rows["symbol"] = rng.choice([b"", b"005930", b"KRW-BTC", b"KRW-1000SATS-LONGEST"], count)
    rows["side"], rows["flags"] = rng.integers(0, 3, count), rng.integers(0, 1 << len(FLAGS), count)
    rows["venue_seq"] = rng.choice([-1, 17], count)
    for field in NUMERICS:
        rows[field] = rng.choice([np.nan, -1.5, 71450.0, 0.00000001, 1e20], count)
    pieces = list(copy_chunks(rows, SESSION, "kis"))
    assert len(pieces) == 5  # the ends and three chunks: the server works on one while the next is made
    whole = b"".join(pieces)
    assert [row["seq"] for row in read(whole)] == [struct.pack(">q", seq) for seq in range(count)]
    alone = [copy_block(rows[at : at + 1], SESSION, "kis")[len(SIGNATURE) : -len(TRAILER)] for at in range(count)]
    assert whole == SIGNATURE + b"".join(alone) + TRAILER


def test_no_rows() -> None:
    assert copy_block(np.zeros(0, TICK), SESSION, "kis") == SIGNATURE + TRAILER


def test_columns_are_those_of_the_statements() -> None:
    for name in ("copy_scalp_ticks", "copy_scalp_ticks_stage"):
        text = statement(name)
        listed = [column.strip() for column in text[text.index("(") + 1 : text.index(")")].split(",")]
        assert listed == [column for column, _, _ in COLUMNS]


def test_migrations_are_numbered_and_named() -> None:
    assert [migration.version for migration in migrations()] == list(range(1, len(migrations()) + 1))
    assert all(len(migration.sha256) == 64 and migration.text for migration in migrations())
