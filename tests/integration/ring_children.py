"""The processes of the ring and board tests, and what starts them.

`python ring_children.py <part> key=value …`; each prints one JSON line at its end:

    storm    path seed kills batch until   producers in a row, each killed with SIGKILL at a random moment but the last
    consume  path name seed until [log]    a consumer with random pauses that checks every row; adds a line per batch to log
    order    rounds                        two threads and the fence
    board    path seed kills until         writers of a cell in a row, killed likewise
    look     path seed until               a reader of that cell that checks every value

`until` is a file that says, once it exists, where to stop. Runs on any Python with numpy and orjson, so under qemu too.
Rows are a function of the sequence and of the life of the producer: a row of two sequences or of two lives shows itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from obs.record.schema import TICK
from obs.ring import Consumer, Producer, attach_ring, fence
from obs.ring.order import fence_for
from obs.shm import Board

REPOSITORY = Path(__file__).resolve().parents[2]
DEADLINE_S = 100.0
_WORDS = TICK.itemsize // 8
_FACTORS = np.arange(_WORDS, dtype="<u8") * np.uint64(2) + np.uint64(0x9E3779B97F4A7C15)


class Children:
    """The processes of one test; none survives it. `command` runs Python, `folders` are what it may import."""

    def __init__(self) -> None:
        self.running: list[subprocess.Popen[str]] = []

    def start(
        self, part: str, command: Sequence[str | Path] = (sys.executable,), folders: Sequence[Path] = (), **arguments: object
    ) -> subprocess.Popen[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": ":".join(map(str, [*folders, REPOSITORY])),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        child = subprocess.Popen(
            [*command, __file__, part, *(f"{key}={value}" for key, value in arguments.items())],
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


def result(child: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a child; return what it printed. Fails with its errors."""
    output, errors = child.communicate(timeout=DEADLINE_S)
    assert child.returncode == 0, errors
    return dict(json.loads(output))


@contextlib.contextmanager
def shared_folder() -> Iterator[Path]:
    """A folder in shared memory, as rings have it, gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="obs-test-", dir="/dev/shm"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def rows_of(first: int, lives: np.ndarray) -> np.ndarray:
    """Rows from sequence `first` on; word 0 is the sequence, word 1 the life, the others products of both."""
    numbers = np.arange(first, first + len(lives), dtype="<u8")
    words = (numbers * np.uint64(8191) + lives + np.uint64(1))[:, None] * _FACTORS
    words[:, 0], words[:, 1] = numbers, lives
    return words.view(TICK).reshape(len(lives))


def whole(rows: np.ndarray, first: int) -> bool:
    lives = rows.view("<u8").reshape(len(rows), _WORDS)[:, 1]
    return rows.tobytes() == rows_of(first, lives).tobytes()


def tell(path: Path, value: object) -> None:
    """Write a file that appears whole."""
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(value))
    temporary.rename(path)


def told(path: Path) -> int | None:
    return int(json.loads(path.read_text())) if path.exists() else None


def kill_at_a_random_moment(child: int, started: Callable[[], bool], rng: random.Random) -> bool:
    """Kill `child` some random time after it has begun its work; return whether it had."""
    deadline = time.monotonic() + DEADLINE_S
    while not started():
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError("the child does not begin")
    moment = time.perf_counter() + rng.random() ** 2 * 0.006
    while time.perf_counter() < moment:
        pass
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


def storm(path: Path, seed: int, kills: int, batch: int, until: Path) -> dict[str, int]:
    """Killed producers one after the other. `unfinished`: deaths that left more claimed than published."""
    rng = random.Random(seed)
    ring = attach_ring(path, TICK)
    unfinished = 0
    for life in range(kills):
        published, claimed = ring.published, ring.claimed
        child = os.fork()
        if child == 0:
            _produce(path, seed * 1000 + life, life, batch)
            os._exit(0)
        if not kill_at_a_random_moment(child, lambda before=published: ring.published > before, rng):  # type: ignore[misc]
            raise AssertionError("the producer ended by itself")
        if not (ring.published >= published and ring.claimed >= claimed and ring.published <= ring.claimed <= ring.published + batch):
            raise AssertionError(f"published {published} -> {ring.published}, claimed {claimed} -> {ring.claimed}")
        unfinished += ring.claimed > ring.published
    producer = Producer(ring)
    for _ in range(100):
        producer.publish(rows_of(producer.published, np.full(batch, kills, "<u8")))
    tell(until, ring.published)
    return {"published": ring.published, "claimed": ring.claimed, "unfinished": unfinished}


def _produce(path: Path, seed: int, life: int, batch: int) -> None:
    rng, parent = random.Random(seed), os.getppid()
    producer = Producer(attach_ring(path, TICK))
    while os.getppid() == parent:
        lives = np.full(rng.randint(1, batch), life, "<u8")
        producer.publish(rows_of(producer.published, lives))
        if rng.random() < 0.02:
            time.sleep(rng.random() * 0.001)


def consume(path: Path, name: str, seed: int, until: Path, log: Path | None = None) -> dict[str, int]:
    """Read to the end. With `log`, also be a sink: a line, then `durable`, and begin at `durable` as after a death."""
    rng = random.Random(seed)
    consumer = Consumer(attach_ring(path, TICK), name)
    consumer.rewind()
    first_seq = consumer.cursor
    received = lost = laps = 0
    sink = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if log else None
    deadline = time.monotonic() + DEADLINE_S
    while (end := told(until)) is None or consumer.cursor < end:
        if time.monotonic() > deadline:
            raise TimeoutError(f"cursor={consumer.cursor} end={end}")
        at = consumer.cursor
        batch = consumer.poll(rng.choice((1, 7, 64, 4096)))
        if batch.first_seq - batch.lost != at or consumer.cursor != batch.first_seq + len(batch.rows):
            raise AssertionError(f"counts: at={at} first={batch.first_seq} rows={len(batch.rows)} lost={batch.lost}")
        if not whole(batch.rows, batch.first_seq):
            raise AssertionError(f"torn: first={batch.first_seq} rows={len(batch.rows)}")
        received, lost, laps = received + len(batch.rows), lost + batch.lost, laps + (batch.lost > 0)
        if sink is not None and (len(batch.rows) or batch.lost):
            os.write(sink, b"%d %d %d\n" % (at, batch.lost, len(batch.rows)))
            if rng.random() < 0.3:
                consumer.durable = consumer.cursor
        if rng.random() < 0.05 or not len(batch.rows):
            time.sleep(rng.random() * 0.003)
    return {"first": first_seq, "received": received, "lost": lost, "laps": laps, "cursor": consumer.cursor}


def order(rounds: int) -> dict[str, object]:
    """The fence is the one of this machine, and two threads that use it keep a protocol of two words."""
    shared = memoryview(bytearray(128)).cast("Q")
    wrong: list[tuple[int, int]] = []

    def write() -> None:
        for number in range(1, rounds + 1):
            shared[0] = number
            fence()
            shared[8] = number

    thread = threading.Thread(target=write)
    thread.start()
    seen = 0
    while seen < rounds:
        second = shared[8]
        fence()
        first = shared[0]
        if first < second or second < seen:
            wrong.append((first, second))
        seen = second
    thread.join()
    return {"machine": platform.machine(), "fence": fence.__name__, "chosen": fence_for(platform.machine()) is fence, "wrong": wrong}


def value_of(number: int) -> bytes:
    """A value of the cell: its number, then as many copies of it as the number says."""
    return number.to_bytes(8, "little") * (1 + number * 7 % 500)


def board(path: Path, seed: int, kills: int, until: Path) -> dict[str, int]:
    rng = random.Random(seed)
    cell = Board.attach(path, fence)["budget"]
    for life in range(kills):
        before = cell.read()
        child = os.fork()
        if child == 0:
            _write_cell(path, seed * 1000 + life)
            os._exit(0)
        if not kill_at_a_random_moment(child, lambda before=before: cell.read() != before, rng):  # type: ignore[misc]
            raise AssertionError("the writer ended by itself")
        if number_in(cell.read()) <= (number_in(before) if before else 0):
            raise AssertionError("the cell went back")
    number = number_in(cell.read())
    tell(until, number)
    return {"written": number}


def _write_cell(path: Path, seed: int) -> None:
    rng, parent = random.Random(seed), os.getppid()
    cell = Board.attach(path, fence)["budget"]
    number = number_in(cell.read()) if cell.read() else 0
    while os.getppid() == parent:
        number += 1
        cell.write(value_of(number))
        if rng.random() < 0.1:
            time.sleep(rng.random() * 0.0005)


def number_in(value: bytes) -> int:
    number = int.from_bytes(value[:8], "little")
    if value != value_of(number):
        raise AssertionError(f"not a whole value: number={number} bytes={len(value)}")
    return number


def look(path: Path, seed: int, until: Path) -> dict[str, int]:
    rng = random.Random(seed)
    cell = Board.attach(path, fence)["budget"]
    number = reads = 0
    deadline = time.monotonic() + DEADLINE_S
    while (end := told(until)) is None or number < end:
        if time.monotonic() > deadline:
            raise TimeoutError(f"number={number} end={end}")
        value = cell.read()
        if value:
            reads += 1
            if number_in(value) < number:
                raise AssertionError(f"went back: {number_in(value)} after {number}")
            number = number_in(value)
        if rng.random() < 0.1:
            time.sleep(rng.random() * 0.0005)
    return {"number": number, "reads": reads}


PARTS: dict[str, Callable[..., dict[str, object]]] = {
    "storm": storm, "consume": consume, "order": order, "board": board, "look": look,
}  # fmt: skip


def main(arguments: list[str]) -> None:
    kinds: dict[str, Callable[[str], object]] = {"path": Path, "until": Path, "log": Path, "name": str}
    given = dict(argument.split("=", 1) for argument in arguments[1:])
    print(json.dumps(PARTS[arguments[0]](**{key: kinds.get(key, int)(value) for key, value in given.items()})), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
