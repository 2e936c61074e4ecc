"""An embedded PostgreSQL: a server of our own, in `<data_dir>/pg`, reached by a Unix socket that only its owner can open.

It survives the SIGKILL of anything. The server runs in a session of its own and outlives whoever started it; the next
`start` finds it by its data directory and adopts it. A postmaster.pid or a socket lock left by a dead server is removed,
but only under our lock and only after the kernel has said that no process serves the directory; PostgreSQL itself would
take any process that has the old number for a running server, and refuse to start for ever.

Locks in the folder (flock, so that death releases them):
  .lock    held exclusively during a start or stop;
  .server  inherited by the server and all its processes, so that whoever gets it knows that none of them lives, even one whose
           starter was killed before it had written its first file;
  .users   held shared by everyone who has started or adopted the server: `stop` leaves it to the others.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

import psycopg

from obs.errors import LoadRetryable
from obs.pg import postmaster
from obs.pg.cluster import PORT, USER, Cluster, locate, make_socket_folder, prepare, sync_folder
from obs.pg.postmaster import POLL_S, Postmaster

DATABASE: Final = "obs"
START_S: Final = 60.0  # crash recovery of a large WAL takes tens of seconds
FAST_STOP_S: Final = 20.0
IMMEDIATE_STOP_S: Final = 5.0
ORPHANS_S: Final = 3.0
LOG_FILE_MB: Final = 8
LOG_KEEP_BYTES: Final = 64 << 20
TRIM_EVERY_S: Final = 60.0

# Small and safe. Why mmap: /dev/shm belongs to the rings, which must never find it full. No statement is logged: it may hold data.
_SETTINGS: Final = f"""\
# Written by obs at each start; changes here are lost.
listen_addresses = ''
port = {PORT}
unix_socket_permissions = 0700
max_connections = 50
shared_buffers = '64MB'
maintenance_work_mem = '32MB'
work_mem = '16MB'
dynamic_shared_memory_type = mmap
huge_pages = off
max_worker_processes = 2
max_parallel_workers = 0
max_parallel_workers_per_gather = 0
max_logical_replication_workers = 0
jit = off
fsync = on
synchronous_commit = on
max_wal_size = '1GB'
min_wal_size = '80MB'
checkpoint_timeout = '10min'
checkpoint_completion_target = 0.9
wal_level = replica
max_wal_senders = 2
timezone = 'UTC'
lc_messages = 'C'
log_timezone = 'UTC'
lc_messages = 'C'
logging_collector = on
log_filename = 'postgres-%Y%m%d_%H%M%S.log'
log_file_mode = 0600
log_rotation_age = '1d'
log_rotation_size = '{LOG_FILE_MB}MB'
log_min_error_statement = panic
log_line_prefix = '%m [%p] %a '
log_checkpoints = off
restart_after_crash = on
"""


class EmbeddedPostgres:
    """The embedded server of one data directory.

    `folder`: `<data_dir>/pg`, made if missing. Safety: any number of processes, one thread each. `start` and
    `stop` block for seconds, at most for their deadlines: a role with a heartbeat calls them from a thread.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Path(os.path.abspath(folder))
        self._users: int | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._trimmed_s = 0.0

    def start(self, deadline_s: float = START_S) -> str:
        """Make the cluster if there is none, start or adopt its server, and return the DSN once it answers.

        Safe to call at any time, as after a crash of the server. Raises LoadRetryable (it does not answer yet: call again;
        full disk), ConfigError (no binaries, no user), SchemaMismatch (cluster of another major version).
        """
        end = time.monotonic() + deadline_s
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked(end):
            cluster = prepare(self._folder)
            server = postmaster.find(cluster.path)
            if server is not None and server.socket_folder and not os.path.exists(f"{server.socket_folder}/.s.PGSQL.{PORT}"):
                # Somebody has cleaned the socket away: nobody can reach this server any more.
                self._end(cluster.path, FAST_STOP_S)
            dsn = self._wait_ready(cluster, end)
            _make_database(dsn)
            self._hold_users()
        self.trim_logs()
        return self._dsn_of(postmaster.find(cluster.path)) or dsn

    def stop(self, deadline_s: float = FAST_STOP_S) -> bool:
        """Shut the server down (fast, then immediate), unless another process that has started or adopted it still lives.

        Returns whether the server is down. Nothing that was committed is lost in any case.
        """
        self._release_users()
        if not self._folder.is_dir():
            return True
        with self._locked(time.monotonic() + deadline_s + IMMEDIATE_STOP_S):
            path = locate(self._folder) / "cluster"
            if postmaster.find(path) is None:
                return True
            users = os.open(self._folder / ".users", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._end(path, deadline_s)
            except BlockingIOError:
                return False
            finally:
                os.close(users)
        return True

    def close(self) -> None:
        """Use the server no more, and leave it running: whoever calls `stop` last ends it."""
        self._release_users()

    def pid(self) -> int | None:
        """Return the process id of the running server, whoever started it; None if there is none."""
        self._reap()
        server = postmaster.find(locate(self._folder) / "cluster")
        return None if server is None else server.pid

    def is_alive(self) -> bool:
        """Say whether the server runs. The caller's regular turn: it also keeps the log folder within its bound."""
        if time.monotonic() - self._trimmed_s > TRIM_EVERY_S:
            self.trim_logs()
        return self.pid() is not None

    def dsn(self) -> str:
        """Return the DSN of the running server; LoadRetryable if it does not run."""
        dsn = self._dsn_of(postmaster.find(locate(self._folder) / "cluster"))
        if dsn is None:
            raise LoadRetryable("embedded PostgreSQL is not running", folder=str(self._folder))
        return dsn

    def trim_logs(self) -> None:
        """Remove the oldest log files beyond LOG_KEEP_BYTES."""
        self._trimmed_s = time.monotonic()
        kept = 0
        with suppress(OSError):
            for file in sorted((locate(self._folder) / "log").glob("postgres-*.log"), reverse=True):
                kept += file.stat().st_size
                if kept > LOG_KEEP_BYTES:
                    file.unlink()

    def _dsn_of(self, server: Postmaster | None, database: str = DATABASE) -> str | None:
        if server is None or not server.socket_folder:
            return None
        return f"postgresql://{USER}@/{database}?host={quote(server.socket_folder, safe='')}&port={PORT}"

    def _spawn(self, cluster: Cluster) -> bool:
        """Start a server, unless a process of an earlier one still lives. The caller holds the lock."""
        self._reap()
        alive = os.open(self._folder / ".server", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            sockets = make_socket_folder(cluster)
            # Invariant: no process serves this directory, so these files speak of nobody.
            for stale in (cluster.path / "postmaster.pid", sockets / f".s.PGSQL.{PORT}.lock", sockets / f".s.PGSQL.{PORT}"):
                stale.unlink(missing_ok=True)
            _write_settings(cluster, sockets)
            command = [*cluster.account.prefix, str(cluster.bin / "postgres"), "-D", str(cluster.path)]
            with open(_start_log(cluster), "wb") as errors:
                # A session of its own: Ctrl-C in our terminal must not reach it.
                self._child = subprocess.Popen(
                    command, stdout=errors, stderr=errors, start_new_session=True, pass_fds=[alive], **cluster.account.popen_options()
                )
        except BlockingIOError:
            return False
        finally:
            os.close(alive)
        return True

    def _wait_ready(self, cluster: Cluster, end: float) -> str:
        """Start a server if there is none, now or on the way (one that we found may have been stopping)."""
        last, spawned = "no answer", False
        orphans_end = time.monotonic() + ORPHANS_S
        while True:
            server = postmaster.find(cluster.path)
            if server is None and not spawned:
                spawned = self._spawn(cluster)
                if not spawned and time.monotonic() > orphans_end:
                    # Orphans of a dead postmaster leave by themselves, unless stuck; none of them can commit any more.
                    postmaster.send(postmaster.processes(cluster.path), signal.SIGKILL)
            dsn = self._dsn_of(server, "postgres")
            if dsn is not None:
                try:
                    psycopg.connect(dsn, connect_timeout=2).close()
                    return dsn
                except psycopg.Error as error:
                    last = str(error).strip()
            if self._child is not None and self._child.poll() is not None and server is None:
                # Why not try again here: what ended it (a full disk, as a rule) does not pass in milliseconds.
                raise LoadRetryable(
                    "PostgreSQL ended at its start",
                    code=self._child.returncode,
                    text=_tail(_start_log(cluster)),
                    log=str(cluster.home / "log"),
                )
            if time.monotonic() > end:
                raise LoadRetryable("PostgreSQL does not answer yet", folder=str(self._folder), text=last)
            time.sleep(POLL_S)

    def _end(self, path: Path, deadline_s: float) -> None:
        """Stop the server of a data directory: fast, then immediate, then by force. The next start recovers."""
        steps = ((signal.SIGINT, deadline_s), (signal.SIGQUIT, IMMEDIATE_STOP_S), (signal.SIGKILL, IMMEDIATE_STOP_S))
        for number, wait_s in steps:
            server = postmaster.find(path)
            if server is None:
                break
            postmaster.send([server.pid], number)
            if self._gone(server.pid, path, wait_s):
                break
        postmaster.end_orphans(path, ORPHANS_S)

    def _gone(self, pid: int, path: Path, wait_s: float) -> bool:
        gone = postmaster.wait_gone([pid], path, wait_s)
        if gone and self._child is not None and self._child.pid == pid:
            self._child.wait()
            self._child = None
        return gone

    def _reap(self) -> None:
        """Take a dead child out of the process table."""
        if self._child is not None and self._child.poll() is not None:
            self._child = None

    @contextmanager
    def _locked(self, end: float) -> Iterator[None]:
        lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise LoadRetryable("another process is starting or stopping PostgreSQL", folder=str(self._folder)) from None
                    time.sleep(POLL_S)
            yield
        finally:
            os.close(lock)

    def _hold_users(self) -> None:
        if self._users is None:
            self._users = os.open(self._folder / ".users", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._users, fcntl.LOCK_SH)

    def _release_users(self) -> None:
        if self._users is not None:
            os.close(self._users)
            self._users = None


def _write_settings(cluster: Cluster, sockets: Path) -> None:
    text = f"{_SETTINGS}cluster_name = '{postmaster.tag(cluster.path)}'\n"
    text += f"unix_socket_directories = '{sockets}'\nlog_directory = '{_quoted(cluster.home / 'log')}'\n"
    if int((cluster.path / "PG_VERSION").read_text()) >= 18:
        text += "io_method = sync\n"
    fresh = cluster.path / "postgresql.conf.new"
    with open(fresh, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(fresh, 0o600)
    os.chown(fresh, cluster.account.owner, -1)
    os.rename(fresh, cluster.path / "postgresql.conf")
    sync_folder(cluster.path)


def _quoted(path: Path) -> str:
    return re.sub(r"(['\\])", r"\1\1", str(path))


def _make_database(dsn: str) -> None:
    try:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as conn:
            if conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone() is None:
                # A starter that was killed may have a backend that is making it at this moment.
                with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                    conn.execute("CREATE DATABASE obs")
    except psycopg.Error as error:
        raise LoadRetryable("cannot make the database", database=DATABASE, text=str(error).strip()) from error


def _start_log(cluster: Cluster) -> Path:
    return cluster.home / "log" / "start.log"


def _tail(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(errors="replace")[-1000:].strip()
    return ""
