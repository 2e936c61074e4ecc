"""ops/install and ops/uninstall on a folder in place of the host; on a whole machine: test_systemd.py."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import copy_sources

ROOT = Path(__file__).resolve().parents[2]
# No network: it builds with what the tests have.
ENVIRON = {
    **os.environ, "PYTHON": os.path.realpath(sys.executable), "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0",
    "PYTHONPATH": sysconfig.get_path("purelib"),
}  # fmt: skip
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="it makes a user and gives files away: needs root")


def run(script: str, *words: str | Path, stdin: str = "", of: Path = ROOT, as_nobody: bool = False) -> subprocess.CompletedProcess[str]:
    command = [str(of / "ops" / script), *map(str, words)]
    if as_nobody:
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, env=ENVIRON, cwd="/", timeout=110, check=False)


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "host"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("script", ["install", "uninstall"])
def test_a_dry_run_tells_and_does_nothing(script: str, host: Path) -> None:
    done = run(script, "--dry-run", "--root", host)
    assert done.returncode == 0, done.stderr
    assert tree(host) == []
    if script == "install":
        units = "write /etc/systemd/system/obs@.service"
        for what in ("make the system user obs", "make /var/lib/obs (mode 0750)", "write /etc/obs/obs.toml", units):
            assert f"would {what}\n" in done.stdout
        assert "systemctl enable --now" in done.stdout, "and what comes next"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prefix", "opt"], "absolute path"), (["--data"], "absolute path"), (["--root", "x"], "absolute path"),
        (["--data", "/srv/my data"], "letters, digits"), (["--prefix", "/opt/a|b"], "letters, digits"),
    ],
)  # fmt: skip
def test_what_cannot_stand_in_a_unit_file_is_refused(words: list[str], said: str) -> None:
    done = run("install", "--dry-run", *words)
    assert done.returncode == 2
    assert said in done.stderr


@needs_root
@pytest.mark.parametrize("script", ["install", "uninstall"])
def test_without_root_it_only_looks(script: str, tmp_path: Path) -> None:
    # The checkout may lie where nobody else can read.
    with_ops = tmp_path / "checkout"
    shutil.copytree(ROOT / "ops", with_ops / "ops")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    done = run(script, of=with_ops, as_nobody=True)
    assert done.returncode == 1
    assert "run it as root" in done.stderr


@needs_root
def test_an_ordinary_user_named_obs_is_refused(host: Path) -> None:
    (host / "etc").mkdir()
    (host / "etc" / "passwd").write_text("obs:x:1000:1000::/home/obs:/bin/bash\n")
    done = run("install", "--root", host)
    assert done.returncode == 1
    assert "no system user" in done.stderr
    assert tree(host) == ["etc", "etc/passwd"]


@needs_root
@pytest.mark.timeout(240)
def test_installed_again_and_taken_off(host: Path, tmp_path: Path) -> None:
    source = copy_sources(tmp_path / "source")
    before = tree(source)
    where = ("--root", host, "--prefix", "/srv/obs", "--data", "/srv/data")
    done = run("install", *where, of=source)
    assert done.returncode == 0, done.stderr
    assert tree(source) == before, "nothing is written into the checkout"

    user = next(line.split(":") for line in (host / "etc/passwd").read_text().splitlines() if line.startswith("obs:"))
    uid, gid = int(user[2]), int(user[3])
    assert uid < 1000
    assert user[5:] == ["/srv/data", "/usr/sbin/nologin"]
    for path, mode, owner, group in (
        ("srv/data", 0o750, uid, gid), ("etc/obs", 0o750, 0, gid), ("etc/obs/obs.toml", 0o640, 0, gid), ("srv/obs", 0o755, 0, 0),
        ("usr/local/bin/obs", 0o755, 0, 0), ("etc/systemd/system/obs@.service", 0o644, 0, 0),
    ):  # fmt: skip
        found = (host / path).stat()
        assert (path, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (path, mode, owner, group)
    assert tomllib.loads((host / "etc/obs/obs.toml").read_text())["data_dir"] == "/srv/data"
    for unit in ("obs@.service", "obs-services.service"):
        text = (host / "etc/systemd/system" / unit).read_text()
        assert "\nExecStart=/srv/obs/current/bin/python -P -m obs.supervisor --config /etc/obs/obs.toml --" in text
        assert "\nReadWritePaths=/dev/shm /srv/data\n" in text
        assert "/opt/obs" not in text
    python = host / "srv/obs/current/bin/python"
    asked = subprocess.run([python, "-P", "-m", "obs.cli", "--version"], capture_output=True, text=True, env=ENVIRON, cwd="/", check=True)
    assert asked.stdout.startswith("obs ")
    first_line = (host / "srv/obs/current/bin/obs").read_text().splitlines()[0]
    assert first_line.startswith("#!/srv/obs/releases/"), "it will be run there"
    for shell in ("bash-completion/completions/obs", "zsh/site-functions/_obs"):
        assert "completion words" in (host / "usr/local/share" / shell).read_text()

    config = host / "etc/obs/obs.toml"
    config.write_text(config.read_text() + "\n# mine\n")
    secret = host / "etc/obs/kis.env"
    secret.write_text("KIS_APP_KEY=x\n")
    secret.chmod(0o644)
    again = run("install", *where, of=source)
    assert again.returncode == 0, again.stderr
    assert [line for line in again.stdout.splitlines() if line.startswith("obs: ")] == ["obs: make /etc/obs/kis.env private (mode 0600)"]
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert config.read_text().endswith("# mine\n")

    (host / "srv/data/scalp").mkdir()
    refused = run("uninstall", "--root", host, "--purge", stdin="y\n")
    assert refused.returncode == 1
    assert python.exists()
    assert run("uninstall", "--root", host).returncode == 0
    left = tree(host)
    assert {"srv/data/scalp", "etc/obs/obs.toml", "etc/obs/kis.env"} <= set(left)
    assert not [path for path in left if path.startswith(("srv/obs", "usr/local/bin/", "etc/systemd/system/"))]
    assert run("uninstall", "--root", host, "--purge", stdin="/srv/data\n").returncode == 0
    assert not [path for path in tree(host) if path.startswith(("srv/data", "etc/obs"))]
    assert "obs:" not in (host / "etc/passwd").read_text()
