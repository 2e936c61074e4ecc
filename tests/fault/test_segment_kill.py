"""SIGKILL of a real writer process at 50 seeded moments: the archive is a prefix, nothing torn, nothing twice.

One child imports the code once and forks a writer per turn, so that a turn costs milliseconds. The records are functions of
their seq, so this test is the ring: a writer takes them again from the last archived one.
"""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from segment_lines import SESSION, check_rows, series_at

from obs.record.jsonl import is_gap
from obs.segment.format import OPEN_SUFFIX, line_span
from obs.segment.reader import find, last_archived, read_lines, verify
from obs.segment.recover import recover_open

TURNS = 50
NURSERY = """
import os, sys
from pathlib import Path
from segment_lines import put, writer_at

def write(first):
    writer = writer_at(Path(sys.argv[1]), segment_s=60, segment_bytes=200_000)
    seq, turn = first, 0
    while True:
        count = 1 + (seq * 7 + turn) % 90
        put(writer, seq, count)
        seq, turn = seq + count, turn + 1
        if turn % 9 == 0:
            writer.seal()
        os.write(1, b"%d\\n" % writer.flush())

for line in sys.stdin:
    pid = os.fork()
    if not pid:
        write(int(line))
    os.write(1, b"pid %d\\n" % pid)
    os.waitpid(pid, 0)
    os.write(1, b"dead\\n")
"""


class Child:
    """The nursery and the lines it says, its writers' acknowledgements among them."""

    def __init__(self, root: Path) -> None:
        paths = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", NURSERY, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.pending = b""

    def line(self) -> bytes:
        deadline = time.monotonic() + 60
        while b"\n" not in self.pending:
            ready, _, _ = select.select([self.stdout], [], [], max(0, deadline - time.monotonic()))
            assert ready, "the child says nothing"
            data = os.read(self.stdout.fileno(), 65536)
            assert data, "the child is gone"
            self.pending += data
        line, self.pending = self.pending.split(b"\n", 1)
        return line

    def turn(self, first: int, acknowledgements: int, delay_s: float) -> int:
        """Let a writer go on from `first`, kill it `delay_s` after some acknowledgements; return the last one."""
        self.stdin.write(b"%d\n" % first)
        self.stdin.flush()
        pid, last, seen = 0, -1, 0
        while not pid or seen < acknowledgements:
            line = self.line()
            if line.startswith(b"pid "):
                pid = int(line[4:])
            else:
                last, seen = int(line), seen + 1
        end = time.monotonic() + delay_s
        while time.monotonic() < end:  # shorter than any sleep can be told to be
            pass
        os.kill(pid, signal.SIGKILL)
        while (line := self.line()) != b"dead":
            last = int(line)
        return last

    def close(self) -> None:
        self.stdin.close()
        self.process.wait(60)
        self.stdout.close()


@pytest.mark.parametrize("ring", [True, False])
def test_a_killed_writer_leaves_a_prefix(tmp_path, ring):
    rng = random.Random(20260122 + ring)
    series = series_at(tmp_path)
    child = Child(tmp_path)
    opened = torn = 0
    try:
        for _ in range(TURNS // 2):
            first = last_archived(series, SESSION) + 1
            acknowledged = child.turn(first, rng.randrange(6), rng.random() * 0.004)
            opened += len(list(tmp_path.rglob("*" + OPEN_SUFFIX)))
            for done in recover_open(series, SESSION, max(acknowledged, first - 1) if ring else None):
                torn += done.torn_bytes > 0
                assert done.quarantined is None
            recover_open(series)  # what says no session: empty files
            assert last_archived(series, SESSION) >= acknowledged
            assert not list(tmp_path.rglob("*" + OPEN_SUFFIX))
    finally:
        child.close()
    expected = 0
    for segment in find(series, SESSION):
        assert segment.sealed
        assert verify(segment.path).good
        lines = [line for _, line in read_lines(segment.path)]
        assert not any(is_gap(line) for line in lines)
        check_rows(lines)
        for line in lines:
            assert line_span(line)[0] == expected
            expected += 1
    assert expected == last_archived(series, SESSION) + 1 > 500
    assert opened > TURNS // 8, "most of the deaths must hit an open file"
