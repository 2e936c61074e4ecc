"""A full disk and a failing fsync, made by the kernel and not by the test: the writer stops at its last durable point, says so,
and goes on by itself when the disk does."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from segment_lines import SESSION, check_rows, put, series_at, writer_at

from obs.errors import DiskTrouble
from obs.segment.disk import gap_reason
from obs.segment.format import line_span
from obs.segment.reader import find, last_archived, read_lines, verify

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join((str(REPOSITORY / "tests"), str(REPOSITORY)))}


def stored(root: Path) -> list[int]:
    seqs = []
    for segment in find(series_at(root), SESSION):
        assert verify(segment.path).good
        lines = [line for _, line in read_lines(segment.path)]
        check_rows(lines)
        seqs += [line_span(line)[0] for line in lines]
    return seqs


@pytest.mark.parametrize("limit", [5_000, 20_000, 20_001])
def test_a_file_that_may_not_grow(tmp_path, limit):
    """RLIMIT_FSIZE makes the kernel take part of a write and refuse the rest, as a full disk does."""
    writer = writer_at(tmp_path)
    put(writer, 0, 20)
    writer.flush()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        put(writer, 20, 2000)
        with pytest.raises(DiskTrouble) as caught:
            writer.flush()
        assert gap_reason(caught.value) == "disk_full"
        for _ in range(3):
            with pytest.raises(DiskTrouble):
                writer.flush()
        assert writer.durable_seq == last_archived(series_at(tmp_path), SESSION) == 19
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert writer.flush() == 2019
    writer.seal()
    assert stored(tmp_path) == list(range(2020))


FULL = """
import os, sys
from pathlib import Path
from segment_lines import put, writer_at
from obs.errors import DiskTrouble
root = Path(sys.argv[1]) / "data"
root.mkdir()
blocker = Path(sys.argv[1]) / "blocker"
writer = writer_at(root)
seq, filled = 0, False
while seq < 60_000:
    if seq == 20_000:
        with blocker.open("wb") as file:
            try:
                while True:
                    file.write(os.urandom(1 << 16))
                    file.flush()
            except OSError:
                filled = True
    put(writer, seq, 500, step_ns=5_000_000)
    seq += 500
    failures = 0
    while True:
        try:
            writer.flush()
            break
        except DiskTrouble as trouble:
            assert trouble.facts["name"] == "ENOSPC", trouble
            failures += 1
            if failures == 5:
                blocker.unlink()
    if seq == 20_500:
        assert failures == 5 and filled, failures
writer.seal()
import segment_lines
from obs.segment.reader import find, verify
assert all(verify(one.path).good and one.sealed for one in find(segment_lines.series_at(root)))
print("sealed", sum(verify(one.path).records for one in find(segment_lines.series_at(root))), writer.durable_seq)
"""


def test_a_full_tmpfs(tmp_path):
    mount = f"mount -t tmpfs -o size=16m none {tmp_path}"
    unshare = ["unshare", "--user", "--map-root-user", "--mount"] if os.geteuid() else ["unshare", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace may be made here")
    done = subprocess.run(
        [*unshare, "sh", "-c", f'{mount} && exec "$0" -c "$1" "$2"', sys.executable, FULL, str(tmp_path)],
        capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=100,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "sealed 60000 59999\n"), done.stderr


FSYNC = """
import sys
from pathlib import Path
from segment_lines import put, writer_at
from obs.errors import DiskTrouble
writer = writer_at(Path(sys.argv[1]))
troubles = 0
for turn in range(20):
    put(writer, turn * 10, 10)
    while True:
        try:
            writer.flush()
            break
        except DiskTrouble as trouble:
            assert trouble.facts["name"] == "EIO", trouble
            troubles += 1
while True:
    try:
        writer.seal()
        break
    except DiskTrouble:
        troubles += 1
print("troubles", troubles)
"""


@pytest.mark.parametrize("when", [6, 9, 12])
def test_fsync_fails_with_eio(tmp_path, when):
    """Every fsync from the n-th on by steps of five: also those that cut, seal, and sync a folder."""
    strace = ["strace", "-f", "-qq", "-o", str(tmp_path / "calls"), "-e", "trace=fsync,openat,close"]
    if not shutil.which("strace") or subprocess.run([*strace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace may not be used here")
    root = tmp_path / "data"
    root.mkdir()
    done = subprocess.run(
        [*strace, "-e", f"inject=fsync:error=EIO:when={when}+5", sys.executable, "-c", FSYNC, str(root)],
        capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) >= 3
    assert stored(root) == list(range(200))
    used: dict[str, bool] = {}
    for line in (tmp_path / "calls").read_text().splitlines():
        call = line.split(" ", 1)[1].strip()
        if call.startswith("fsync("):
            number = call[6:].split(")")[0]
            assert not used.get(number), f"descriptor {number} was synced again after a failure"
            used[number] = "EIO" in call
        elif call.startswith("close("):
            used.pop(call[6:].split(")")[0], None)
