"""A machine with systemd as process 1: a container on an overlay of this very system, in which ops/install is run for real.

What is written there is in memory and gone with it. It has a network of its own, with nothing but loopback. The tests' Python and
libraries are mounted into it, because they may lie in a home, which the sandbox of the units hides.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path("/opt/python/bin") / f"python{sys.version_info[0]}.{sys.version_info[1]}"
SITE = "/opt/site"
# How the machine's Python finds the tests' libraries, and how pip builds without a network.
ENVIRON = {"PYTHONPATH": SITE, "LD_LIBRARY_PATH": "/opt/python/lib"}
INSTALL = {"PYTHON": str(PYTHON), "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", **ENVIRON}
_BOOT = """
set -e
for tree in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do # of its own: two machines may run at a time
    if [ -e "$tree/cgroup.procs" ]; then
        mkdir "$tree/${1##*/}"
        echo $$ >"$tree/${1##*/}/cgroup.procs"
    fi
done
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
rm -rf "$1/root/etc/obs" "$1/root/opt/obs" "$1/root/var/lib/obs" "$1/root/etc/machine-id"
echo 0123456789abcdef0123456789abcdef >"$1/root/etc/machine-id"
mkdir -p "$1/root/opt/python" "$1/root/opt/site" "$1/root/opt/source"
root=$1
shift
exec systemd-nspawn --quiet --boot --directory="$root/root" --register=no --keep-unit --private-network --console=pipe \
    --link-journal=no --settings=no "$@" -- systemd.unit=basic.target systemd.show_status=no
"""


def until(what: str, condition: Callable[[], Any], deadline_s: float = 60.0) -> Any:
    """Return the first true value of `condition`; AssertionError after `deadline_s`."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.05)
    return value


def copy_sources(target: Path) -> Path:
    """Copy what ops/install needs, so that a test may change it."""
    shutil.copytree(ROOT / "obs", target / "obs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "sql", target / "sql")
    shutil.copytree(ROOT / "ops", target / "ops")
    for name in ("pyproject.toml", "setup.cfg", "README.md"):
        shutil.copy(ROOT / name, target / name)
    return target


class Machine:
    """Started by the constructor; `close` ends it."""

    def __init__(self, source: Path) -> None:
        """`source`: the checkout that the machine sees as /opt/source. Skips the test where no such machine may be made."""
        for command in ("systemd-nspawn", "nsenter", "unshare"):
            if shutil.which(command) is None:
                pytest.skip(f"no {command}: run ops/test-deps as root")
        if not Path("/lib/systemd/systemd").exists():
            pytest.skip("no systemd: run ops/test-deps as root")
        if os.geteuid() != 0:
            pytest.skip("a machine of its own needs root")
        self._started: list[subprocess.Popen[Any]] = []
        self._folder = Path(tempfile.mkdtemp(prefix="obs-machine-"))
        binds = [f"--bind-ro={sys.base_prefix}:/opt/python", f"--bind-ro={sysconfig.get_path('purelib')}:{SITE}"]
        command = ["unshare", "--mount", "sh", "-c", _BOOT, "sh", str(self._folder), *binds, f"--bind-ro={source}:/opt/source"]
        self._console = (self._folder.parent / f"{self._folder.name}.console").open("w+b")
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._console, stderr=self._console)
        try:
            self.leader = int(until("process 1", self._find_leader, 20))
            until("systemd is up", lambda: self.run("systemctl", "is-system-running", check=False).strip() in ("running", "degraded"), 40)
        except BaseException:
            self.close()
            raise

    def _find_leader(self) -> int:
        if self._process.poll() is not None:
            self._console.seek(0)
            text = self._console.read().decode(errors="replace").strip()
            pytest.skip(f"systemd-nspawn cannot start a machine here: {text[-500:]}")
        for child in Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return int(child)
        return 0

    def popen(self, *words: str, environ: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[Any]:
        """Start a command in the machine, as root."""
        command = ["nsenter", "--target", str(self.leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--", *words]
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        told = {"PATH": path, "HOME": "/root", "LC_ALL": "C.UTF-8"} | (environ or {})
        process: subprocess.Popen[Any] = subprocess.Popen(command, env=told, **options)
        self._started.append(process)
        return process

    def run(self, *words: str, check: bool = True, environ: dict[str, str] | None = None, stdin: str = "", timeout: float = 120) -> str:
        """Run a command there and return what it printed, errors included."""
        process = self.popen(
            *words, environ=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        out, _ = process.communicate(stdin, timeout)
        assert not check or process.returncode == 0, f"{' '.join(words)}: exit code {process.returncode}\n{out}"
        self.exit_code = process.returncode
        return str(out)

    def write(self, path: str, text: str, mode: str = "0644") -> None:
        self.run("sh", "-c", 'mkdir -p "$(dirname "$1")" && cat >"$1" && chmod "$2" "$1"', "sh", path, mode, stdin=text)

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def journal(self, unit: str) -> list[dict[str, Any]]:
        """The entries of a unit, our own JSON lines decoded into "line"."""
        found = []
        for text in self.run("journalctl", "--unit", unit, "--output", "json").splitlines():
            entry = json.loads(text)
            if isinstance(entry["MESSAGE"], str) and entry["MESSAGE"].startswith("{") and entry.get("_TRANSPORT") == "stdout":
                entry["line"] = json.loads(entry["MESSAGE"])
            found.append(entry)
        return found

    def events(self, unit: str, event: str) -> list[dict[str, Any]]:
        """The log lines of one event, in their order."""
        ours = [entry for entry in self.journal(unit) if "line" in entry]
        return [entry["line"] | {"PRIORITY": entry["PRIORITY"]} for entry in ours if entry["line"]["event"] == event]

    def close(self) -> None:
        if getattr(self, "leader", 0):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.leader, signal.SIGKILL)  # and with process 1 all others of its namespace
        else:
            self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        for process in self._started:
            process.wait(10)
            if process.stdout is not None:
                process.stdout.close()
        self._console.close()
        Path(self._console.name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._folder.rmdir()  # empty: what was mounted there has gone with the namespace
        for tree in ("", "unified", "systemd"):
            groups = [folder for folder, _, _ in os.walk(Path("/sys/fs/cgroup", tree, self._folder.name), topdown=False)]
            for group in groups:
                until(f"nobody is in {group}", lambda path=group: not Path(path, "cgroup.procs").read_text(), 20)
                os.rmdir(group)
