"""Data that a recorder holds until it is processed: counted no sooner than it is decoded, and never out of order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from feed_rig import KIS_ACK, KisTrades, Rig, counted

from obs.ledger import broken_identity
from obs.ledger import read as read_intake
from obs.providers.base import Context

MS = 10**6


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path, tape=True, capacities={"tick": 16384, "event": 1024, "swing": 16, "poll_event": 16, "quarantine": 4096})
    made.clock.wall += 1
    made.feed()
    yield made
    made.close()


@pytest.mark.parametrize("bad", [0.0, 0.01, 0.5])
def test_a_commit_never_speaks_of_a_message_that_is_not_decoded(rig: Rig, bad: float) -> None:
    """Or the restart gap of a feed that dies then would begin behind it."""
    rng, trades, recorder, context = random.Random(5), KisTrades(), rig.recorder, rig.context()
    came: list[int] = []
    commits = 0
    commit = recorder.intake.commit

    def checked() -> None:
        nonlocal commits
        commit()
        snapshot = read_intake(rig.board["intake"])
        assert snapshot is not None
        told = int(snapshot.head["messages"])
        assert broken_identity(snapshot) == ""
        assert came[told - 1 : told] == [int(snapshot.head["last_recv_ns"])] or not told
        commits += 1

    recorder.intake.commit = checked  # type: ignore[method-assign]
    for number in range(6000):
        came.append(rig.clock.forward(1000))
        some = [trades.record(rng.choice(rig.symbols)) for _ in range(rng.choice([1, 1, 1, 4]))]
        payload = trades.message(*some) if rng.random() >= bad else rng.choice([b"?", trades.message("000660^nonsense"), b"\xff" * 5000])
        recorder.message(memoryview(payload), came[-1], context)
        assert recorder.messages == number + 1
    recorder.process()
    assert not recorder.staged
    assert commits > 4, "more than is held at once"
    assert rig.rows("tick")["recv_ns"].tolist() == sorted(rig.rows("tick")["recv_ns"].tolist())


def test_two_connections_are_each_read_by_what_they_subscribed(rig: Rig) -> None:
    trades, recorder = KisTrades(), rig.recorder
    one, other = rig.provider.context(["005930", "", ""]), rig.provider.context(["", "000660", ""])
    sent: list[tuple[str, int]] = []
    for number in range(900):
        symbol, context = whose(number, one, other)
        rig.clock.forward(1000)
        recorder.message(trades.trade(symbol), rig.clock.wall, context)
        sent.append((symbol, rig.clock.wall))
    recorder.message(trades.trade("000660"), rig.clock.forward(1000), one)
    recorder.process()
    rows = rig.rows("tick")
    assert [(row["symbol"].decode(), int(row["recv_ns"])) for row in rows] == sent
    recorder.stop()
    sums, _ = counted(rig.events("counts"))
    assert sum(one.ignored["unknown_symbol"] for one in sums.values()) == 1


def whose(number: int, one: Context, other: Context) -> tuple[str, Context]:
    """One connection has a run of messages, then the other; now and then each just one."""
    first = number % 300 < 120 or number % 7 == 0
    return ("005930", one) if first else ("000660", other)


def test_what_is_set_aside_keeps_its_order(rig: Rig) -> None:
    """Also around control messages and broken framing, which are not held."""
    recorder, context, trades = rig.recorder, rig.context(), KisTrades()
    for number in range(30):
        for payload in (b"data %d" % number, trades.trade("005930"), KIS_ACK, b'{"control": %d}' % number):
            recorder.message(payload, rig.clock.forward(1000), context)
        recorder.broken(b"broken %d" % number, "opcode", 8, bytes(32))
    kept = [chunk["data"].tobytes()[: chunk["data_bytes"]] for chunk in rig.rows("quarantine")]
    assert kept == [text % number for number in range(30) for text in (b"data %d", b'{"control": %d}', b"broken %d")]
    assert np.all(np.diff(rig.rows("quarantine")["recv_ns"].astype(np.int64)) >= 0)
    recorder.stop()
    _, provider = counted(rig.events("counts"))
    assert (provider["messages"], provider["data"], provider["control"], provider["quarantined"]) == (150, 30, 30, 90)


@pytest.mark.parametrize("size", [100, 60_000, 900_000])
def test_few_bytes_are_held(rig: Rig, size: int) -> None:
    """A flood of large messages must not grow the process: what is held is bounded by its bytes."""
    recorder, context = rig.recorder, rig.context()
    most = 0
    for _ in range(3000 if size == 100 else 60):
        recorder.message(b"x" * size, rig.clock.forward(1000), context)
        most = max(most, sum(map(len, recorder._held)))
    assert most < 512 * 1024
    recorder.process()
    assert recorder._held == recorder._held_ns == []
