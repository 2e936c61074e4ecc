"""The embedded server: made whole or not at all, adopted, restarted after any death, stopped by its last user."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psycopg
import pytest

import obs
from obs.errors import ConfigError, LoadRetryable, SchemaMismatch
from obs.pg import cluster, postmaster
from obs.pg.embedded import EmbeddedPostgres
from obs.pg.loader import RingLoader
from obs.pg.migrate import migrate
from tests.integration.pg_rows import make_rows, same, stored_rows

SESSION = "sess_20260122_003105_kis_ab12"
ROOT = Path(obs.__file__ or "").parents[1] if obs.__file__ else Path(__file__).parents[2]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@contextmanager
def server(folder: Path) -> Iterator[EmbeddedPostgres]:
    made = EmbeddedPostgres(folder)
    try:
        yield made
    finally:
        made.stop()
    assert postmaster.processes(cluster.locate(folder) / "cluster") == []


def answer(dsn: str) -> object:
    with psycopg.connect(dsn) as conn:
        row = conn.execute("SELECT current_setting('server_version_num')::int >= 150000").fetchone()
    return row and row[0]


def until(condition: object, what: str, deadline_s: float = 20) -> None:
    assert callable(condition)
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


@pytest.fixture
def wide() -> Iterator[Path]:
    """A folder that every user of the system can reach."""
    path = Path(tempfile.mkdtemp(prefix="obs-wide-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_life(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "pg"
    with server(folder) as first:
        assert not first.is_alive()
        assert first.pid() is None
        with pytest.raises(LoadRetryable):
            first.dsn()
        dsn = first.start()
        assert first.is_alive()
        assert first.dsn() == dsn
        assert answer(dsn)
        assert folder.stat().st_mode & 0o777 == 0o700
        pid = first.pid()
        assert pid is not None
        assert os.getsid(pid) == pid
        with psycopg.connect(dsn) as conn:
            for name, value in (
                ("fsync", "on"), ("synchronous_commit", "on"), ("data_checksums", "on"), ("listen_addresses", ""),
                ("server_encoding", "UTF8"),
                ("TimeZone", "UTC"), ("lc_messages", "C"), ("max_connections", "50"), ("log_statement", "none"),
            ):  # fmt: skip
                assert conn.execute("SELECT current_setting(%s)", [name]).fetchone() == (value,), name
        second = EmbeddedPostgres(folder)
        assert second.start() == dsn
        assert second.pid() == pid
        assert first.stop() is False
        assert second.is_alive()
        assert first.start() == dsn
        assert second.stop() is False
        assert first.stop() is True
        assert not first.is_alive()
        assert first.stop() is True
        assert first.start() == dsn


def test_psql_of_the_owner_gets_in(tmp_path: Path) -> None:
    tool = next(iter(cluster.installed().values())) / "psql"
    with server(tmp_path / "pg") as made:
        done = subprocess.run([tool, made.start(), "-Atc", "SELECT 6 * 7"], capture_output=True, text=True, check=True)
    assert done.stdout == "42\n"


def test_postmaster_killed_under_load(tmp_path: Path) -> None:
    with server(tmp_path / "pg") as made:
        dsn = made.start()
        migrate(dsn)
        loader = RingLoader(made.dsn, "kis", SESSION, "one", lambda row, text: pytest.fail(text))
        mark, kills, total = -1, 0, 30_000
        while mark < total - 1:
            try:
                mark = loader.open()
                while mark < total - 1:
                    mark = loader.commit(make_rows(mark + 1, min(500, total - 1 - mark)))
                    pid = made.pid()
                    if mark // 6000 > kills and pid is not None:
                        os.kill(pid, signal.SIGKILL)
                        kills += 1
            except LoadRetryable:
                with suppress(LoadRetryable):
                    made.start()
        loader.close()
        assert kills >= 4
        assert same(stored_rows(made.dsn(), SESSION), make_rows(0, total))


def test_a_stale_pid_that_belongs_to_somebody_else(tmp_path: Path) -> None:
    with server(tmp_path / "pg") as made:
        dsn = made.start()
        pid = made.pid()
        assert pid is not None
        pid_file = tmp_path / "pg" / "cluster" / "postmaster.pid"
        text = pid_file.read_text()
        socket_lock = tmp_path / "pg" / "run" / ".s.PGSQL.5432.lock"
        os.kill(pid, signal.SIGKILL)
        until(lambda: not made.is_alive(), "postmaster dies")
        with subprocess.Popen(["sleep", "60"]) as other:
            stale = text.replace(str(pid), str(other.pid), 1)
            pid_file.write_text(stale)
            socket_lock.parent.mkdir(exist_ok=True)
            socket_lock.write_text(stale)
            assert not made.is_alive()
            assert made.start() == dsn
            assert answer(dsn)
            assert other.poll() is None
            other.kill()


@pytest.mark.parametrize("text", ["", "x", "999999999\n", "-1\n", "\0\n\n", "1\n/nowhere\n"])
def test_a_damaged_pid_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "postmaster.pid").write_text(text)
    assert postmaster.find(tmp_path) is None


def test_a_stopped_orphan_is_ended(tmp_path: Path) -> None:
    with server(tmp_path / "pg") as made:
        dsn = made.start()
        with psycopg.connect(dsn) as conn:
            backend = conn.info.backend_pid
            os.kill(backend, signal.SIGSTOP)
            pid = made.pid()
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            until(lambda: not made.is_alive(), "postmaster dies")
            assert answer(made.start())
            assert not postmaster.serves(backend, tmp_path / "pg" / "cluster")


def test_a_socket_that_was_cleaned_away(tmp_path: Path) -> None:
    with server(tmp_path / "pg") as made:
        made.start()
        shutil.rmtree(tmp_path / "pg" / "run")
        assert answer(made.start())


START_CHILD = (
    "import sys; from pathlib import Path; from obs.pg.embedded import EmbeddedPostgres; print(EmbeddedPostgres(Path(sys.argv[1])).start())"
)


def child(folder: Path, **options: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", START_CHILD, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, **options)  # type: ignore[call-overload, no-any-return]


def test_two_processes_start_at_once_and_die(tmp_path: Path) -> None:
    folder = tmp_path / "pg"
    with server(folder) as made:
        children = [child(folder) for _ in range(3)]
        answers = {starter.communicate(timeout=60)[0] for starter in children}
        assert [starter.returncode for starter in children] == [0, 0, 0]
        assert len(answers) == 1
        # Their deaths leave the server running, and free for the next user to stop.
        assert made.is_alive()
        assert answer(made.start())
        assert made.stop() is True


@pytest.mark.parametrize("after_s", [0.15, 0.3, 0.45, 0.6, 0.8])
def test_killed_while_it_makes_the_cluster(tmp_path: Path, after_s: float) -> None:
    folder = tmp_path / "pg"
    with server(folder) as made:
        starter = child(folder, start_new_session=True)
        time.sleep(after_s)  # a moment, not a condition
        with suppress(ProcessLookupError):
            os.killpg(starter.pid, signal.SIGKILL)
        starter.communicate()
        assert answer(made.start())
        assert not (folder / "cluster.new").exists()


def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 25) / "pg"
    with server(folder) as made:
        dsn = made.start()
        assert answer(dsn)
        assert "obs-pg-" in dsn
        place = next(Path("/tmp").glob(f"obs-pg-{os.geteuid()}-*"))
        assert place.stat().st_mode & 0o777 == 0o700
    for place in Path("/tmp").glob(f"obs-pg-{os.geteuid()}-*"):
        with suppress(OSError):
            place.rmdir()


def test_a_folder_that_somebody_made_before_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / ("long" * 25)
    home.mkdir()
    made = cluster.Cluster(home, tmp_path, cluster.Account())
    first = cluster.make_socket_folder(made)
    assert cluster.make_socket_folder(made) == first
    first.chmod(0o777)
    second = cluster.make_socket_folder(made)
    assert second.name == f"{first.name}-1"
    first.rmdir()
    first.symlink_to(tmp_path)
    assert cluster.make_socket_folder(made) == second
    first.unlink()
    second.rmdir()


def test_logs_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("obs.pg.embedded.LOG_KEEP_BYTES", 1000)
    folder = tmp_path / "pg" / "log"
    folder.mkdir(parents=True)
    for number in range(9):
        (folder / f"postgres-2026012{number}_000000.log").write_bytes(b"x" * 300)
    EmbeddedPostgres(tmp_path / "pg").trim_logs()
    assert sorted(file.name[9:17] for file in folder.iterdir()) == ["20260126", "20260127", "20260128"]


def test_a_cluster_of_a_version_that_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "pg" / "cluster").mkdir(parents=True)
    (tmp_path / "pg" / "cluster" / "PG_VERSION").write_text("9\n")
    with pytest.raises(SchemaMismatch) as caught:
        EmbeddedPostgres(tmp_path / "pg").start()
    assert caught.value.facts["found"] == "9"


@needs_root
@pytest.mark.parametrize("reachable", [True, False])
def test_root_without_namespaces(tmp_path: Path, wide: Path, monkeypatch: pytest.MonkeyPatch, reachable: bool) -> None:
    monkeypatch.setattr(cluster, "NAMESPACE", ("false",))
    monkeypatch.setattr(cluster, "ELSEWHERE", wide / "elsewhere")
    folder = (wide if reachable else tmp_path) / "pg"
    with server(folder) as made:
        dsn = made.start()
        pid = made.pid()
        assert answer(dsn)
        assert pid is not None
        assert os.stat(f"/proc/{pid}").st_uid != 0
        assert (folder / "home").is_symlink() is not reachable
        os.kill(pid, signal.SIGKILL)
        assert answer(made.start())
        # The way in which it was made is kept, although a namespace would work now.
        monkeypatch.undo()
        made.stop()
        assert answer(made.start())


@needs_root
def test_root_without_namespaces_and_binaries_out_of_reach(tmp_path: Path, wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    major, binaries = max(cluster.installed().items(), key=lambda item: int(item[0]))
    package = binaries.parents[1]
    shutil.copytree(package, tmp_path / package.name, symlinks=True)
    shutil.copytree(package.with_name(f"{package.name}.libs"), tmp_path / f"{package.name}.libs", symlinks=True)
    monkeypatch.setattr(cluster, "NAMESPACE", ("false",))
    monkeypatch.setattr(cluster, "ELSEWHERE", wide / "elsewhere")
    monkeypatch.setattr(cluster, "installed", lambda: {major: tmp_path / binaries.relative_to(package.parent)})
    with server(tmp_path / "pg") as made:
        assert answer(made.start())


LIKE_A_CONTAINER = """
import os, signal, sys
from pathlib import Path
from obs.pg import cluster
from obs.pg.embedded import EmbeddedPostgres
cluster.NAMESPACE, cluster.ELSEWHERE = ("false",), Path(sys.argv[2])
server = EmbeddedPostgres(Path(sys.argv[1]))
dsn = server.start()
pid = server.pid()
try:
    os.readlink(f"/proc/{pid}/cwd")
except PermissionError:
    print("hidden")
os.kill(pid, signal.SIGKILL)
second = EmbeddedPostgres(Path(sys.argv[1]))
print(server.start() == dsn, server.pid() != pid, second.start() == dsn)
second.close()
print(server.stop())
"""


@needs_root
def test_root_who_may_not_look_at_other_users(tmp_path: Path, wide: Path) -> None:
    command = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", sys.executable, "-c", LIKE_A_CONTAINER]
    done = subprocess.run([*command, tmp_path / "pg", wide / "elsewhere"], capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode != 0 and "setpriv" in done.stderr:
        pytest.skip("cannot drop a capability here")
    assert done.stderr == ""
    assert done.stdout.split() == ["hidden", "True", "True", "True", "True"]


@needs_root
def test_as_an_ordinary_user(wide: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    os.chown(wide, nobody.pw_uid, nobody.pw_gid)
    account = cluster.Account(uid=nobody.pw_uid, gid=nobody.pw_gid)
    packages = Path(psycopg.__file__).parents[1]
    command = ["env", f"PYTHONPATH={ROOT}:{packages}", "", "-c"]
    for command[2] in (sys.executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"):
        if account.works(*command, "import psycopg, obs.pg.embedded"):
            break
    else:
        pytest.skip("an ordinary user cannot read this checkout or any Python here")
    out = subprocess.run([*command, START_CHILD, str(wide / "pg")], capture_output=True, check=True, **account.popen_options()).stdout
    with server(wide / "pg") as made:
        pid = made.pid()
        assert pid is not None
        assert os.stat(f"/proc/{pid}").st_uid == nobody.pw_uid
        assert answer(out.decode().strip())  # root may enter, too
        assert made.start() == out.decode().strip()


@needs_root
def test_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "obs-test", str(disk)], capture_output=True, check=False).returncode != 0:
        pytest.skip("cannot mount a tmpfs here")
    try:
        with server(disk / "pg") as made:
            migrate(made.start())
            loader = RingLoader(made.dsn, "kis", SESSION, "one", lambda row, text: pytest.fail(text))
            filler = disk / "filler"
            mark, total, waits = -1, 60_000, []
            deadline = time.monotonic() + 60
            while mark < total - 1 and time.monotonic() < deadline:
                try:
                    mark = loader.open()
                    while mark < total - 1:
                        if mark >= 20_000 and not waits and not filler.exists():
                            fill(filler)
                        mark = loader.commit(make_rows(mark + 1, min(2000, total - 1 - mark)))
                except LoadRetryable as error:
                    waits.append(error.facts.get("sqlstate"))
                    if len(waits) == 5:
                        filler.unlink()
                    with suppress(LoadRetryable):
                        made.start()
            loader.close()
            assert len(waits) >= 5, waits
            assert same(stored_rows(made.dsn(), SESSION), make_rows(0, total))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(path: Path) -> None:
    """Leave no byte free."""
    with open(path, "wb", buffering=0) as file, suppress(OSError):
        while file.write(np.zeros(1 << 16, np.uint8).tobytes()):
            pass


def test_no_binaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError):
        EmbeddedPostgres(tmp_path / "pg").start()
