"""Secrets never reach a log, an archive, an error, a process list, a page or a metric; files are for their owner and group."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import orjson
import psutil
import psycopg
import pytest
import zstandard
from harness import PROVIDERS, Demo, listening, until

from obs.config import demo_environ

Make = Callable[..., Demo]
pytestmark = pytest.mark.timeout(300)
PATHS = (
    "/", "/login", "/login?wrong=1", "/day/20260122", "/symbol/kis/005930", "/health", "/metrics", "/nothing", "/assets/nothing.js",
    "/api/status", "/api/slots", "/api/gaps", "/api/heat", "/api/day", "/api/symbol?symbol=005930", "/api/days", "/api/events",
    "/api/nothing",
)  # fmt: skip
COMMANDS = ("status", "check", "gaps", "slots", "days", "universe")
_KEPT_PRIVATE = ("state", ".lock")  # state holds the tokens, mode 0600; a lock file holds a process id


def written(folder: Path) -> Iterator[Path]:
    """Yield every file of the collector; the simulators' own logs and the database's files are not the collector's."""
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).parts[0] not in ("sim", "pg"):
            yield path


def content(path: Path) -> bytes:
    """Return what a file says: a segment holds nothing in plain text."""
    data = path.read_bytes()
    if path.name.endswith((".zst", ".zst.open", ".zst.torn")):
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
            return data + reader.read()
    return data


def tables(dsn: str) -> Iterator[tuple[str, bytes]]:
    """Yield each table of the database as text."""
    with psycopg.connect(dsn) as conn:
        for (name,) in conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall():
            with conn.cursor().copy(f"COPY (SELECT * FROM {name}) TO STDOUT") as copy:
                yield name, b"".join(map(bytes, copy))


def asked(place: tuple[str, int], method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
    """Return a whole answer, headers included."""
    connection = http.client.HTTPConnection(*place, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return f"{answer.status} {answer.getheaders()}\n".encode() + answer.read()
    finally:
        connection.close()


def sent(place: tuple[str, int], data: bytes, until_s: float = 10.0, enough: bytes = b"never") -> bytes:
    """Send bytes as they are; return what comes, up to the end, or until `enough` was among it."""
    found, end = b"", time.monotonic() + until_s
    with socket.create_connection(place, timeout=until_s) as sock, contextlib.suppress(ConnectionError):
        sock.sendall(data)
        while enough not in found and time.monotonic() < end and (part := sock.recv(1 << 16)):
            found += part
    return found


def answers(place: tuple[str, int], token: str) -> Iterator[tuple[str, bytes]]:
    """Ask for everything there is: as one who may, as one who may not, and with secrets where they do not belong."""
    may = {"Authorization": f"Bearer {token}"}
    yield "POST /login, wrong", asked(place, "POST", "/login", f"token={token}x".encode())
    granted = asked(place, "POST", "/login", f"token={token}".encode())
    assert b"obs_session" in granted
    yield "POST /login", granted
    for path in PATHS:
        for headers in (may, {}):
            yield f"GET {path} {'with' if headers else 'without'} a token", asked(place, "GET", path, headers=headers)
    yield "GET with a token in its path", asked(place, "GET", f"/{token}", headers=may)
    yield "GET with a token in its query", asked(place, "GET", f"/api/day?date={token}&symbol={token}&provider={token}", headers=may)
    yield "no HTTP", sent(place, f"GET /health HTTP/1.1\r\nAuthorization: Bearer {token}\x00\x01\r\n\r\n".encode())
    yield "a header without end", sent(place, f"GET / HTTP/1.1\r\nX-{token}: {'x' * 9000}\r\n\r\n".encode())
    stream = sent(place, f"GET /api/live HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode(), 30.0, b"event: ticks")
    assert b"event: hello" in stream
    assert b"event: status" in stream
    yield "GET /api/live", stream


def test_planted_secrets_stay_where_they_belong(demo: Make, dsn: str) -> None:
    """With keys that work, a database password and an HTTP token; with a crash that prints stacks, and everything asked.

    Searched are the command lines of all processes, every page, answer and metric, the stream, what commands print, the logs, the
    whole database, and every file of the collector, segments unpacked.
    """
    token, password = "planted-token-of-the-monitor", "planted-database-password"
    dsn = dsn.replace("@", f":{password}@", 1)
    one = demo(dsn=dsn, http={"port": 0, "token_file": "token"})
    (one.folder / "token").write_text(token + "\n")
    (one.folder / "token").chmod(0o600)
    one.start()
    kept = until("a token", lambda: orjson.loads((one.data / "state" / "kis.json").read_bytes()).get("tokens"))
    secrets = [token, password, *demo_environ().values(), *(value["value"] for value in kept.values())]
    seen: dict[str, bytes] = {}
    for pid in one.children().values():
        seen[f"command line of {pid}"] = " ".join(psutil.Process(pid).cmdline()).encode()
    place = listening(one)
    for provider in PROVIDERS:
        one.more(provider, 200)
    where = (place["host"], place["port"])
    until("it has looked", lambda: asked(where, "GET", "/metrics", headers={"Authorization": f"Bearer {token}"}).startswith(b"200"))
    seen |= dict(answers(where, token))
    for command in COMMANDS:
        words = [sys.executable, "-m", "obs.cli", command, "--data", str(one.data), "--config", str(one.config), "--json"]
        done = subprocess.run(words, capture_output=True, check=False, env=one.environ() | demo_environ(), timeout=60)
        seen[f"obs {command}"] = done.stdout + done.stderr
    one.restarted("feed", "kis", one.kill("feed", "kis", signal.SIGABRT))  # writes the stacks of all threads, which go into the log
    one.more("kis", 500)
    one.finish()
    seen["logs"] = one.log().encode()
    seen["stdout"] = (one.folder / "stdout").read_bytes()
    seen |= {f"table {name}": text for name, text in tables(dsn)}
    for path in written(one.data):
        if path.relative_to(one.data).parts[0] not in _KEPT_PRIVATE:
            seen[str(path)] = content(path)
    assert len(seen) > len(PATHS) * 2 + len(COMMANDS) + 20, sorted(seen)
    assert any(b'"last_price"' in text for name, text in seen.items() if name.endswith(".zst")), "no segment was unpacked"
    assert b"KRW-BTC" in seen["table scalp_ticks"]
    assert len(secrets) == len(set(secrets)) == 5
    for secret in secrets:
        for place_of, text in seen.items():
            for form in (secret, quote(secret, safe=""), orjson.dumps(secret).decode()[1:-1]):
                assert form.encode() not in text, f"a secret stands in {place_of}"
    modes = {str(path.relative_to(one.data)): stat.S_IMODE(path.stat().st_mode) for path in written(one.data)}
    assert not {name: oct(mode) for name, mode in modes.items() if mode & ~0o640}


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
