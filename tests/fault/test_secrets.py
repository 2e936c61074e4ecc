"""Secrets never reach a log, an archive, an error, a process list, a page or a metric; files are for their owner and group."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import psutil
import pytest
from harness import Demo, until

from obs.config import demo_environ

Make = Callable[..., Demo]
pytestmark = pytest.mark.timeout(300)
_KEPT_PRIVATE = ("state", ".lock")  # state holds the tokens, mode 0600; a lock file holds a process id


def written(folder: Path) -> Iterator[Path]:
    """Yield every file of the collector; the simulators' own logs and the database's files are not the collector's."""
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).parts[0] not in ("sim", "pg"):
            yield path


def page(port: int, name: str) -> bytes:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{name}", timeout=5) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        return error.read()


def test_planted_secrets_stay_where_they_belong(demo: Make, dsn: str) -> None:
    """With a key that works, with a crash that prints stacks, and with every page and command asked."""
    one = demo(dsn=dsn)
    one.start()
    token = until("a token", lambda: orjson.loads((one.data / "state" / "kis.json").read_bytes()).get("tokens"))
    secrets = [*demo_environ().values(), *(kept["value"] for kept in token.values())]
    seen: dict[str, bytes] = {}
    for pid in one.children().values():
        seen[f"command line of {pid}"] = " ".join(psutil.Process(pid).cmdline()).encode()
    port = orjson.loads((one.data / "state" / "http.json").read_bytes())["port"]
    for name in ("health", "metrics", ""):
        seen[f"GET /{name}"] = page(port, name)
    for command in ("status", "check", "gaps"):
        words = [sys.executable, "-m", "obs.cli", command, "--data", str(one.data), "--config", str(one.config), "--json"]
        done = subprocess.run(words, capture_output=True, check=False, env=one.environ() | demo_environ(), timeout=60)
        seen[f"obs {command}"] = done.stdout + done.stderr
    one.restarted("feed", "kis", one.kill("feed", "kis", signal.SIGABRT))  # prints the stacks of all threads
    one.more("kis", 500)
    one.finish()
    seen["logs"] = one.log().encode()
    seen["stdout"] = (one.folder / "stdout").read_bytes()
    for path in written(one.data):
        if path.relative_to(one.data).parts[0] not in _KEPT_PRIVATE:
            seen[str(path)] = path.read_bytes()
    assert len(seen) > 12, sorted(seen)
    assert len(secrets) == 3
    for secret in secrets:
        for place, text in seen.items():
            assert secret.encode() not in text, f"a secret stands in {place}"


def test_file_modes(demo: Make, dsn: str) -> None:
    """Data files 0640 at most, state files with tokens 0600, whatever the umask of whoever starts it."""
    one = demo(dsn=dsn)
    one.prefix = ["sh", "-c", 'umask 000; exec "$@"', "sh"]
    one.start()
    one.more("upbit", 200)
    one.finish()
    modes = {str(path.relative_to(one.data)): stat.S_IMODE(path.stat().st_mode) for path in written(one.data)}
    assert modes, "nothing was written"
    assert not {name: oct(mode) for name, mode in modes.items() if mode & ~0o640}
    assert {name: mode for name, mode in modes.items() if name in ("state/kis.json", "state/upbit.json")} == {
        "state/kis.json": 0o600, "state/upbit.json": 0o600,
    }  # fmt: skip
