"""Build the image of ops/Dockerfile and run it, without Docker: `sudo python tests/ops/image.py`. No test: it needs a network.

Needs root, buildah and debootstrap (Debian). debootstrap makes a base in place of python:3.12-slim-bookworm, buildah builds on it, and its
entry point runs as process 1 of its own namespaces, as the user of the image, read-only but for the volume. The health check of the image
is asked as Docker asks it: while it starts, while it runs, with a feed that is stopped. Then SIGTERM. Takes some minutes; everything is in
--folder, which stays for the next run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BASE = "docker.io/library/python:3.12-slim-bookworm"
SUITE = "bookworm"
_RUN = """
set -e
ip link set lo up
root=$1
shift
mount --bind "$root" "$root"
for name in dev run tmp var/lib/obs; do mount -t tmpfs -o mode=1777 tmpfs "$root/$name"; done
chown 10001:10001 "$root/var/lib/obs"
chmod 750 "$root/var/lib/obs"
mkdir -m 1777 "$root/dev/shm"
mount -t tmpfs -o size=1g,mode=1777 tmpfs "$root/dev/shm"
for name in null zero random urandom; do touch "$root/dev/$name"; mount --bind "/dev/$name" "$root/dev/$name"; done
mount -t proc proc "$root/proc"
mount -o remount,bind,ro "$root"
exec "$@"
"""


def buildah(folder: Path, *words: str) -> str:
    where = ["--root", str(folder / "storage"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]
    return subprocess.run(["buildah", *where, *words], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def build(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the root of a container of the image, and the image's configuration."""
    base = folder / "base"
    if not (base / ".complete").exists():
        packages = "python3,python3-venv,ca-certificates"
        subprocess.run(["debootstrap", "--variant=minbase", f"--include={packages}", SUITE, base], check=True, stdout=subprocess.DEVNULL)
        (base / "usr/bin/python").symlink_to("python3")
        (base / ".complete").touch()
        made = buildah(folder, "from", "scratch")
        buildah(folder, "copy", "--quiet", made, str(base), "/")
        buildah(folder, "config", "--env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", made)
        buildah(folder, "commit", "--quiet", made, BASE)
        buildah(folder, "rm", made)
    # What the machine needs to reach its package index.
    needed = [path for path in ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt") if os.path.exists(path)]
    volumes = [word for path in needed for word in ("--volume", f"{path}:{path}:ro")]
    options = ["--pull-never", "--isolation", "chroot", "--network", "host", "--format", "docker", *volumes]
    buildah(folder, "bud", *options, "--file", str(ROOT / "ops" / "Dockerfile"), "--tag", "obs", str(ROOT))
    told = json.loads(buildah(folder, "inspect", "--type", "image", "obs"))["Docker"]["config"]
    return Path(buildah(folder, "mount", buildah(folder, "from", "--pull-never", "obs"))), told


class Container:
    def __init__(self, root: Path, told: dict[str, Any], *words: str) -> None:
        self._root, self._told = root, told
        command = self._inside(*told["Entrypoint"], *words)
        namespaces = ["unshare", "--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child"]
        self._log = (root.parent / "stderr").open("w+b")
        self.process = subprocess.Popen([*namespaces, "sh", "-c", _RUN, "sh", str(root), *command], stderr=self._log)
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        self.pid = int(until("process 1", children.read_text).split()[0])

    def _inside(self, *words: str) -> list[str]:
        told = self._told
        environment = ["env", "-i", f"--chdir={told['WorkingDir']}", *told["Env"]]
        return ["chroot", f"--userspec={told['User']}", str(self._root), *environment, *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--net", "--ipc", *self._inside(*words)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def health(self) -> int:
        """The health check of the image: its exit code."""
        kind, *words = self._told["Healthcheck"]["Test"]
        assert kind == "CMD"
        return self.run(*words).returncode

    def processes(self) -> dict[int, str]:
        script = "for one in /proc/[0-9]*; do echo ${one#/proc/} $(cut -d' ' -f3 $one/stat) $(tr '\\0' ' ' <$one/cmdline); done 2>/dev/null"
        lines = (line.partition(" ") for line in self.run("sh", "-c", script).stdout.splitlines())
        return {int(pid): words for pid, _, words in lines}


def until(what: str, condition: Callable[[], Any], deadline_s: float = 180) -> Any:
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        if time.monotonic() > end:
            raise SystemExit(f"not within {deadline_s} s: {what}")
        time.sleep(0.2)
    return value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp/obs-image"), help="for base and image (default %(default)s)")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    root, told = build(folder)
    megabytes = sum(path.lstat().st_size for path in (root / "opt/obs").rglob("*")) / 1e6
    print(f"built; /opt/obs {megabytes:.0f} MB beside the base; user {told['User']}, stops by {told['StopSignal']}")
    container = Container(root, told, "--demo")
    began = time.monotonic()
    assert container.health() != 0, "healthy before anything runs"
    until("healthy", lambda: container.health() == 0)
    print(f"process 1 is {container.processes()[1]!r}; unhealthy at first, healthy after {time.monotonic() - began:.1f} s")
    owners = container.run("sh", "-c", "id -u; touch /x /opt/obs/x /etc/x 2>/dev/null; ls /x /opt/obs/x /etc/x 2>/dev/null").stdout
    assert owners == "10001\n", owners
    container.run("sh", "-c", "sh -c 'exit 1' & sleep 1 & exit 0")
    until("orphans are reaped", lambda: not [one for one in container.processes().values() if one.startswith("Z")])
    print("an orphan was reaped")
    feed = next(pid for pid, words in container.processes().items() if words.endswith("obs feed upbit"))
    began = time.monotonic()
    container.run("sh", "-c", f"kill -STOP {feed}")
    until("unhealthy", lambda: container.health() != 0)
    print(f"a feed that is stopped: unhealthy after {time.monotonic() - began:.1f} s")
    until("healthy again", lambda: container.health() == 0)
    print(f"healthy again after {time.monotonic() - began:.1f} s")
    audit = container.run("obs", "audit")
    print(audit.stdout.splitlines()[-1])
    began = time.monotonic()
    os.kill(container.pid, 15)
    code = container.process.wait(60)
    print(f"SIGTERM: exit code {code} after {time.monotonic() - began:.1f} s")
    return code


if __name__ == "__main__":
    sys.exit(main())
