"""The ring run by a real 64-bit ARM Python and numpy, under user-mode qemu (`ops/test-deps` installs both).

What it shows: on that machine obs chooses the fence made of a lock, that fence works there, and the protocol and the
layout hold between arm64 processes and between arm64 and the machine's own. What it cannot show: qemu keeps at least the
order of the machine it runs on, so a fence that is missing would go unseen on x86-64. That the fence is enough is the
argument in obs/ring/order.py; that one stands in each place is asserted in test_ring.py and test_board.py; what comes of
stores in another order is shown in test_ring_interleavings.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ring_children import Children, result, shared_folder

from obs.record.schema import TICK
from obs.ring import attach_ring, create_ring, fence
from obs.shm import Board

ROOT = Path(os.environ.get("OBS_AARCH64_ROOT", "/var/cache/obs-aarch64"))
QEMU = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64") or ""

pytestmark = [
    pytest.mark.skipif(not QEMU, reason="no qemu-aarch64: run ops/test-deps as root"),
    pytest.mark.skipif(not (ROOT / ".complete").is_file(), reason=f"no arm64 Python in {ROOT}: run ops/test-deps as root"),
]


def start_arm64(children: Children, part: str, **arguments: object) -> subprocess.Popen[str]:
    python = next(path for path in sorted((ROOT / "usr/bin").glob("python3.?*")) if "-" not in path.name)
    return children.start(part, command=(QEMU, "-L", ROOT, python), folders=(ROOT / "site",), **arguments)


@pytest.fixture
def children() -> Iterator[Children]:
    found = Children()
    yield found
    found.end()


@pytest.fixture
def folder() -> Iterator[Path]:
    with shared_folder() as path:
        yield path


def test_the_fence_of_arm64_is_the_lock_and_keeps_two_words_in_order(children: Children) -> None:
    told = result(start_arm64(children, "order", rounds=20_000))
    assert told == {"machine": "aarch64", "fence": "_fence_by_lock", "chosen": True, "wrong": []}


@pytest.mark.parametrize(("capacity", "kills", "batch"), [(256, 30, 100), (8192, 30, 2048)], ids=["laps", "large batches"])
def test_arm64_processes_share_a_ring_with_each_other_and_with_this_machine(
    folder: Path, children: Children, capacity: int, kills: int, batch: int
) -> None:
    path, until = folder / "ring", folder / "until"
    create_ring(path, TICK, capacity, "s", "tick", 0).close()
    consumers = [
        start_arm64(children, "consume", path=path, name="archive", seed=1, until=until),
        children.start("consume", path=path, name="load", seed=2, until=until),
    ]
    ring = attach_ring(path, TICK)
    storm = result(start_arm64(children, "storm", path=path, seed=capacity, kills=kills, batch=batch, until=until))
    assert (ring.published, ring.claimed) == (storm["published"], storm["claimed"])
    for consumer in consumers:
        seen = result(consumer)
        assert seen["received"] + seen["lost"] == storm["published"] == seen["cursor"]
        assert seen["received"]


def test_arm64_and_this_machine_share_a_board(folder: Path, children: Children) -> None:
    path, until = folder / "board", folder / "until"
    board = Board.create(path, fence)
    reader = start_arm64(children, "look", path=path, seed=1, until=until)
    written = result(start_arm64(children, "board", path=path, seed=2, kills=20, until=until))["written"]
    assert result(reader)["number"] == written
    assert int.from_bytes(board["budget"].read()[:8], "little") == written
