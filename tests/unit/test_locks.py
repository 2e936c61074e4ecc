"""One owner per provider of a data directory; a start waits for the last child of a dead tree."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from obs.config.process import children_lock_path, lock_path
from obs.errors import EXIT_FOUND, EXIT_STATE, ConfigError, DiskTrouble, ObsError, OwnedElsewhere
from obs.supervisor.locks import Ownership, writing


@contextmanager
def child_of(data: Path, owner: str) -> Iterator[int]:
    """Hold the lock as a child of a tree does."""
    descriptor = os.open(children_lock_path(data, owner), os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def fail() -> None:
    raise AssertionError("nothing to wait for")


def test_a_second_owner_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    first = Ownership(tmp_path, "kis")
    with pytest.raises(OwnedElsewhere) as caught:
        Ownership(tmp_path, "kis")
    assert caught.value.facts == {"owner": "kis", "data_dir": str(tmp_path), "pid": str(os.getpid())}
    assert caught.value.exit_code == EXIT_STATE
    first.release()
    Ownership(tmp_path, "kis").release()


def test_the_refusal_leaves_the_owner_in_peace(tmp_path: Path) -> None:
    first = Ownership(tmp_path, "kis")
    for _ in range(2):
        with pytest.raises(OwnedElsewhere, match=str(os.getpid())):
            Ownership(tmp_path, "kis")
    first.release()


@pytest.mark.parametrize(("owner", "place"), [("upbit", ""), ("services", ""), ("kis", "other")])
def test_other_owners_and_other_data_directories_are_free(tmp_path: Path, owner: str, place: str) -> None:
    first = Ownership(tmp_path, "kis")
    (tmp_path / place).mkdir(exist_ok=True)
    Ownership(tmp_path / place, owner).release()
    first.release()


def test_a_lock_file_left_by_a_dead_owner_is_no_lock(tmp_path: Path) -> None:
    program = "import os, sys; from pathlib import Path; from obs.supervisor.locks import Ownership"
    program += "; Ownership(Path(sys.argv[1]), 'kis'); os.kill(os.getpid(), 9)"
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=30)
    assert ended.returncode == -9
    assert lock_path(tmp_path, "kis").exists()
    owner = Ownership(tmp_path, "kis")
    assert lock_path(tmp_path, "kis").read_text() == f"{os.getpid()}\n"
    owner.release()


def test_without_children_nobody_waits(tmp_path: Path) -> None:
    owner = Ownership(tmp_path, "kis")
    owner.wait_for_children(0, fail)
    owner.release()


def test_after_waiting_the_new_tree_may_have_children(tmp_path: Path) -> None:
    owner = Ownership(tmp_path, "kis")
    owner.wait_for_children(0, fail)
    with child_of(tmp_path, "kis") as mine:
        with child_of(tmp_path, "kis"):  # shared: as many as there are roles
            pass
        fcntl.flock(mine, fcntl.LOCK_UN)
    owner.release()


def test_a_start_waits_for_the_last_child(tmp_path: Path) -> None:
    owner = Ownership(tmp_path, "kis")
    waits = threading.Event()
    done = threading.Event()

    def wait() -> None:
        owner.wait_for_children(30, waits.set)
        done.set()

    with child_of(tmp_path, "kis"):
        with child_of(tmp_path, "kis"):
            waiter = threading.Thread(target=wait)
            waiter.start()
            assert waits.wait(10)
        assert not done.is_set(), "one is left"
    assert done.wait(10)
    waiter.join()
    owner.release()


def test_a_child_that_does_not_die_is_an_error_in_the_end(tmp_path: Path) -> None:
    owner = Ownership(tmp_path, "kis")
    told: list[int] = []
    with child_of(tmp_path, "kis"), pytest.raises(ObsError, match="children of an earlier start are still alive") as caught:
        owner.wait_for_children(0.1, lambda: told.append(1))
    assert told == [1], "said once"
    assert caught.value.exit_code == EXIT_FOUND, "what keeps them passes: systemd starts us again, which it never does after 2 and 3"
    owner.release()


def test_children_of_another_owner_do_not_matter(tmp_path: Path) -> None:
    owner = Ownership(tmp_path, "kis")
    with child_of(tmp_path, "upbit"):
        owner.wait_for_children(0, fail)
    owner.release()


def test_modes(tmp_path: Path) -> None:
    owner = Ownership(tmp_path, "kis")
    assert stat.S_IMODE(lock_path(tmp_path, "kis").stat().st_mode) & 0o027 == 0
    assert stat.S_IMODE(lock_path(tmp_path, "kis").parent.stat().st_mode) & 0o027 == 0
    owner.release()


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOENT, errno.ENOTDIR, errno.EEXIST])
def test_what_lasts_is_a_matter_of_configuration(tmp_path: Path, number: int) -> None:
    with pytest.raises(ConfigError) as caught, writing(tmp_path):
        raise OSError(number, os.strerror(number), str(tmp_path / ".lock"))
    (problem,) = caught.value.problems
    assert problem.startswith(f"data_dir = {tmp_path}: a folder that uid {os.getuid()} can make and write, but {tmp_path}/.lock: ")
    assert os.strerror(number) in problem


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_what_may_pass_is_tried_again(tmp_path: Path, number: int) -> None:
    with pytest.raises(DiskTrouble, match=os.strerror(number)) as caught, writing(tmp_path):
        raise OSError(number, os.strerror(number))
    assert caught.value.exit_code == EXIT_FOUND, "systemd starts us again, which it never does after 2 and 3"


@pytest.mark.parametrize("what", ["", ".lock", ".lock/kis", ".lock/kis.children"])
def test_a_data_directory_that_cannot_be_used_is_named(tmp_path: Path, what: str) -> None:
    data = tmp_path / "data"
    path = data / what
    path.parent.mkdir(parents=True, exist_ok=True)
    if "/" in what:
        path.mkdir()
    else:
        path.touch()
    with pytest.raises(ConfigError, match="the data directory cannot be used") as caught:
        Ownership(data, "kis").wait_for_children(0, fail)
    assert str(path) in caught.value.problems[0]


def test_the_lock_is_not_inherited_by_children(tmp_path: Path) -> None:
    """Or a child that outlives its supervisor would be the owner."""
    owner = Ownership(tmp_path, "kis")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner.release()
    Ownership(tmp_path, "kis").release()
    child.communicate(b"\n", timeout=30)
