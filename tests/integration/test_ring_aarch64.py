"""The ring run by a real 64-bit ARM Python and numpy, under user-mode qemu (`ops/test-deps` installs both).

What it shows: on that machine obs chooses the fence made of a lock, that fence works there, and the protocol and the
layout hold between arm64 processes and between arm64 and the machine's own. What it cannot show: qemu keeps at least the
order of the machine it runs on, so a fence that is missing would go unseen on x86-64. That the fence is enough is the
argument in obs/ring/order.py; that none is missing is asserted by test_ring_interleavings.py, which runs every order
of stores without one into a forbidden outcome.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from obs.record.schema import TICK
from obs.ring import CONSUMERS, attach_ring, create_ring, fence
from obs.shm import Board

HERE = Path(__file__).resolve()
REPOSITORY = HERE.parents[2]
ROOT = Path(os.environ.get("OBS_AARCH64_ROOT", "/var/cache/obs-aarch64"))
QEMU = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
TIMEOUT_S = 100

pytestmark = [
    pytest.mark.skipif(QEMU is None, reason="no qemu-aarch64: run ops/test-deps as root"),
    pytest.mark.skipif(not (ROOT / ".complete").is_file(), reason=f"no arm64 Python in {ROOT}: run ops/test-deps as root"),
]


class Arm64:
    """Starts ring_children.py in arm64 processes, or natively; none survives the test."""

    def __init__(self) -> None:
        self.running: list[subprocess.Popen[str]] = []
        self.python = next(path for path in sorted((ROOT / "usr/bin").glob("python3.?*")) if "-" not in path.name)

    def start(self, part: str, native: bool = False, **arguments: object) -> subprocess.Popen[str]:
        python = [sys.executable] if native else [QEMU, "-L", ROOT, self.python]
        command = [*python, HERE.with_name("ring_children.py"), part]
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY) if native else f"{ROOT / 'site'}:{REPOSITORY}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        child = subprocess.Popen(
            [*map(str, command), *(f"{key}={value}" for key, value in arguments.items())],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(child)
        return child

    def end(self) -> None:
        for child in self.running:
            child.kill()
            child.communicate()


def result(child: subprocess.Popen[str]) -> dict[str, object]:
    output, errors = child.communicate(timeout=TIMEOUT_S)
    assert child.returncode == 0, errors
    return dict(json.loads(output))


@pytest.fixture
def arm64() -> Iterator[Arm64]:
    found = Arm64()
    yield found
    found.end()


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path("/dev/shm") / f"obs-test-{os.getpid()}-{time.monotonic_ns()}"
    path.mkdir()
    yield path
    for name in path.iterdir():
        name.unlink()
    path.rmdir()


def test_the_fence_of_arm64_is_the_lock_and_keeps_two_words_in_order(arm64: Arm64) -> None:
    told = result(arm64.start("order", rounds=20_000))
    assert told == {"machine": "aarch64", "fence": "_fence_by_lock", "chosen": True, "wrong": []}


@pytest.mark.parametrize(("capacity", "kills", "batch"), [(256, 30, 100), (8192, 30, 2048)], ids=["laps", "large batches"])
def test_arm64_processes_share_a_ring_with_each_other_and_with_this_machine(
    folder: Path, arm64: Arm64, capacity: int, kills: int, batch: int
) -> None:
    path, until = folder / "ring", folder / "until"
    create_ring(path, TICK, capacity, "s", "tick", 0).close()
    consumers = [
        arm64.start("consume", native=name == "load", path=path, name=name, seed=place, until=until) for place, name in enumerate(CONSUMERS)
    ]
    ring = attach_ring(path, TICK)
    storm = result(arm64.start("storm", path=path, seed=capacity, kills=kills, batch=batch, until=until))
    assert (ring.published, ring.claimed) == (storm["published"], storm["claimed"])
    for consumer in consumers:
        seen = result(consumer)
        assert seen["received"] + seen["lost"] == storm["published"] == seen["cursor"]  # type: ignore[operator]
        assert seen["received"]


def test_arm64_and_this_machine_share_a_board(folder: Path, arm64: Arm64) -> None:
    path, until = folder / "board", folder / "until"
    board = Board.create(path, fence)
    reader = arm64.start("look", path=path, seed=1, until=until)
    written = result(arm64.start("board", path=path, seed=2, kills=20, until=until))["written"]
    assert result(reader)["number"] == written
    assert int.from_bytes(board["budget"].read()[:8], "little") == written
