"""Blocks: allocated whole or refused, complete when named, never half, never left behind, outliving their makers."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from obs.errors import EXIT_CONFIG, ShmFull
from obs.shm import Block, attach, block_path, create, remove

REPOSITORY = Path(__file__).resolve().parents[2]


def no_header(data: memoryview) -> None:
    pass


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("size", [1, 7, 8, 4096, 4097, 1 << 20])
def test_a_block_is_allocated_whole_private_and_zero(tmp_path: Path, size: int) -> None:
    block = create(tmp_path / "block", size, no_header)
    status = (tmp_path / "block").stat()
    assert block.size == status.st_size == size
    assert status.st_blocks * 512 >= size
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert bytes(block.data) == bytes(size)
    assert len(block.words) == size // 8
    block.close()


def test_data_words_and_mapped_are_the_same_bytes_for_all_who_attach(tmp_path: Path) -> None:
    one = create(tmp_path / "block", 64, no_header)
    two = attach(tmp_path / "block")
    one.words[1] = 0x0102030405060708
    assert bytes(two.data[8:16]) == bytes([8, 7, 6, 5, 4, 3, 2, 1])
    two.mapped[0:8] = b"\xff" * 8
    assert one.words[0] == 2**64 - 1
    one.close()
    two.close()


def test_the_header_is_complete_when_the_name_appears(tmp_path: Path) -> None:
    path, seen = tmp_path / "block", []

    def fill(data: memoryview) -> None:
        seen.append(path.exists())
        data[:5] = b"magic"

    create(path, 4096, fill).close()
    assert seen == [False]
    assert path.read_bytes()[:6] == b"magic\0"


def test_a_new_block_replaces_an_old_one_that_others_keep(tmp_path: Path) -> None:
    old = create(tmp_path / "block", 64, no_header)
    old.words[0] = 7
    new = create(tmp_path / "block", 64, no_header)
    new.words[0] = 8
    assert (old.words[0], new.words[0]) == (7, 8)
    remove(tmp_path / "block")
    remove(tmp_path / "block")
    assert (old.words[0], new.words[0], names(tmp_path)) == (7, 8, [])
    old.close()
    new.close()


@pytest.mark.parametrize("error", [RuntimeError("header"), KeyboardInterrupt(), ShmFull("header")])
def test_a_failed_header_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def fill(data: memoryview) -> None:
        raise error

    before = descriptors()
    with pytest.raises(type(error)) as caught:
        create(tmp_path / "block", 1 << 20, fill)
    caught.value.__traceback__ = None
    assert names(tmp_path) == []
    del caught
    assert descriptors() <= before + 1  # the mapping goes with the last traceback that names it


def test_what_a_killed_creator_left_is_removed_by_a_later_one_but_not_a_young_one(tmp_path: Path) -> None:
    stale, young, foreign = tmp_path / ".obs-a.1.tmp", tmp_path / ".obs-b.2.tmp", tmp_path / ".other.tmp"
    for path in (stale, young, foreign):
        path.write_bytes(b"x")
    an_hour_ago = young.stat().st_mtime - 3600
    os.utime(stale, (an_hour_ago, an_hour_ago))
    os.utime(foreign, (an_hour_ago, an_hour_ago))
    create(tmp_path / "obs-c", 64, no_header).close()
    assert names(tmp_path) == sorted([young.name, foreign.name, "obs-c"])


def test_attach_refuses_what_is_not_there_or_empty(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        attach(tmp_path / "none")
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="empty"):
        attach(tmp_path / "empty")


def test_close_unmaps_and_waits_for_arrays_that_still_look(tmp_path: Path) -> None:
    before = descriptors()
    block = create(tmp_path / "block", 4096, no_header)
    block.close()
    assert descriptors() == before
    kept: Block | None = attach(tmp_path / "block")
    assert kept is not None
    array = np.frombuffer(kept.data, "<u8")
    kept.close()
    array[3] = 5
    assert (tmp_path / "block").read_bytes()[24] == 5
    del array, kept
    assert descriptors() == before


def test_the_name_depends_on_the_real_data_directory_and_on_each_part(tmp_path: Path) -> None:
    folder, data = Path("/dev/shm"), tmp_path / "data"
    data.mkdir()
    (tmp_path / "link").symlink_to(data)
    path = block_path(folder, data, "sess_1", "tick")
    assert path.parent == folder
    assert path.name.startswith("obs-")
    assert path.name.endswith("-tick")
    assert block_path(folder, tmp_path / "link", "sess_1", "tick") == path
    others = [
        block_path(folder, tmp_path, "sess_1", "tick"),
        block_path(folder, data, "sess_2", "tick"),
        block_path(folder, data, "sess_1", "event"),
        block_path(folder, data, "sess_1tick", "tick"),
        block_path(folder, data, "tick"),
    ]
    assert len({path, *others}) == 1 + len(others)


def test_a_block_outlives_its_makers_death_by_sigkill(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from obs.shm import create\n"
        "block = create(Path(sys.argv[1]), 4096, lambda data: None); block.words[5] = 99; os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "block"], cwd=REPOSITORY, check=False, timeout=30)
    assert done.returncode == -signal.SIGKILL
    block = attach(tmp_path / "block")
    assert block.words[5] == 99
    block.close()


def test_a_block_outlives_all_who_attach(tmp_path: Path) -> None:
    """Whoever attaches may end as it likes: nothing that runs behind its back removes the name that others still use."""
    block = create(tmp_path / "block", 4096, lambda data: None)
    block.words[5] = 99
    code = (
        "import multiprocessing, os, sys; from pathlib import Path; from obs.shm import attach\n"
        "block = attach(Path(sys.argv[1]))\n"
        "assert block.words[5] == 99 and not multiprocessing.active_children()\n"
        "os.kill(os.getpid(), 9) if sys.argv[2] == 'killed' else sys.exit()"
    )
    for how in ("ended", "killed"):
        subprocess.run([sys.executable, "-c", code, tmp_path / "block", how], cwd=REPOSITORY, check=False, timeout=30)
        assert (tmp_path / "block").stat().st_nlink == 1
    again = attach(tmp_path / "block")
    assert again.words[5] == 99
    again.close()
    block.close()


# What both refusals below run: a block that does not fit is an error with its facts and leaves nothing; one that fits is
# wholly there, so that writing each page of it cannot fail.
REFUSED = """
import os, sys
from pathlib import Path
from obs.errors import ShmFull
from obs.shm import create
folder = Path(sys.argv[1])
LIMIT
before = os.statvfs(folder).f_bfree
try:
    create(folder / "obs-large", 3 << 20, lambda data: None)
except ShmFull as error:
    assert error.exit_code == 2 and error.facts["need"] == 3 << 20 and error.facts["path"] == str(folder / "obs-large"), error
    assert os.listdir(folder) == [], os.listdir(folder)
    assert os.statvfs(folder).f_bfree == before or not sys.argv[2:], "pages kept"
else:
    raise SystemExit("not refused")
block = create(folder / "obs-small", 1 << 20, lambda data: None)
for at in range(0, block.size, 4096):
    block.data[at] = 1
print("refused, then fitted")
"""


def test_a_file_size_limit_is_a_refusal(tmp_path: Path) -> None:
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, {resource.RLIM_INFINITY}))"
    code = REFUSED.replace("LIMIT", limit)
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=30)
    assert (done.stdout, done.stderr) == ("refused, then fitted\n", "")


def test_a_small_shared_memory_is_a_refusal(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("no unshare(1) to mount a small tmpfs in a namespace of its own")
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    mount = f'mount -t tmpfs -o size=2m tmpfs "{tmp_path}" || exit 77; exec "$@"'
    command = [*namespace, "sh", "-c", mount, "sh", sys.executable, "-c", REFUSED.replace("LIMIT", ""), tmp_path, "exact"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip(f"cannot mount a tmpfs here: {done.stderr.strip()}")
    assert (done.stdout, done.stderr) == ("refused, then fitted\n", "")
    assert names(tmp_path) == []


def test_a_refusal_is_a_matter_of_configuration() -> None:
    assert ShmFull("x").exit_code == EXIT_CONFIG
