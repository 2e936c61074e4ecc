"""Health is what the monitor that lives here says, and nobody else; without an answer the command's own look must do."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from views import LINK, provider, status

from obs.cli.glance import verdict
from obs.cli.running_monitor import ask, correct
from obs.config import Config, load

TOKEN = "sesame-open-0001"
NAMED = {"text": "connected, but no message for 121 s", "expected": False, "help": ""}
DETAILS = [
    {"reason": "mute", "provider": "kis", "since_ms": 7, **NAMED}, {"reason": "disk", "provider": "", "since_ms": None, **NAMED},
]  # fmt: skip
HEALTH = {"ok": False, "status": "red", "reasons": ["mute", "disk"], "since_ms": 5, "details": DETAILS}
LOSING = [{"reason": "mute", "since": "2026-01-22T00:29:00.000Z", "sure": False}]
RATES = {"messages": 3.0, "inputs": 2.0, "records": 1.0}


def status_body(**changes: Any) -> bytes:
    now = datetime.fromtimestamp(time.time(), UTC).isoformat()
    return json.dumps({"ts": now, "health": HEALTH, "providers": [{"name": "kis", "rates": RATES, "losing": LOSING}]} | changes).encode()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "data" / "state").mkdir(parents=True)
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    (tmp_path / "obs.toml").write_text('data_dir = "data"\n[http]\nhost = "0.0.0.0"\ntoken_file = "token"\n')
    return load(tmp_path / "obs.toml", environ={}, cwd=tmp_path)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield one


def tell(config: Config, port: int, pid: int = os.getpid()) -> None:
    (config.data_dir / "state" / "http.json").write_text(json.dumps({"host": "127.0.0.1", "port": port, "pid": pid}))


def answering(listener: socket.socket, body: bytes) -> Callable[[], bytes]:
    """Answer one request; the value returned gives it."""
    requests: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            requests.append(connection.recv(4096))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    def request() -> bytes:
        thread.join(10)
        return requests[0]

    return request


def test_what_the_monitor_knows_is_taken(config: Config, listener: socket.socket) -> None:
    tell(config, listener.getsockname()[1])
    request = answering(listener, status_body())
    answer = ask(config)
    assert answer is not None
    assert answer.since() == {("mute", "kis"): 7, ("disk", ""): None}
    assert request().startswith(b"GET /api/status HTTP/1.1\r\n")
    assert f"Authorization: Bearer {TOKEN}\r\n".encode() in request()
    seen: dict[str, Any] = status(provider(), provider("upbit"))
    assert seen["health"]["ok"]  # as far as one look can tell
    before = seen["providers"][1]["rates"]
    correct(seen, answer)
    assert seen["health"] == HEALTH
    assert verdict(seen).text.startswith("RED  kis mute: connected, but no message for 121 s")
    assert [one["rates"] for one in seen["providers"]] == [RATES, before]
    assert [one["losing"] for one in seen["providers"]] == [LOSING, []]


def test_a_monitor_that_is_green_is_believed_too(config: Config, listener: socket.socket) -> None:
    tell(config, listener.getsockname()[1])
    green = {"ok": True, "status": "green", "reasons": [], "details": [], "since_ms": 5}
    answering(listener, status_body(health=green))
    seen: dict[str, Any] = status(provider(links=[LINK | {"connected": False}]))
    assert not seen["health"]["ok"]
    correct(seen, ask(config))
    assert seen["health"] == green


def test_a_monitor_that_no_longer_looks_is_not_believed(config: Config, listener: socket.socket) -> None:
    tell(config, listener.getsockname()[1])
    answering(listener, status_body(ts=datetime.fromtimestamp(time.time() - 60, UTC).isoformat()))
    assert ask(config) is None


@pytest.mark.parametrize(
    "body",
    [
        b"", b"nonsense", b"[]", b"{}", b'{"health":null}', status_body(health=None), status_body(health={"details": [{}]}),
        status_body(health=HEALTH | {"ok": True}), status_body(health=HEALTH | {"details": []}), status_body(providers=None),
        status_body(ts=7), status_body(providers=[{"name": "kis", "rates": 7}]),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_nothing(body: bytes, config: Config, listener: socket.socket) -> None:
    tell(config, listener.getsockname()[1])
    answering(listener, body)
    assert ask(config) is None


def test_the_token_goes_to_no_stranger(config: Config, listener: socket.socket) -> None:
    """A monitor that was killed leaves its file; somebody else may listen at its port by now."""
    gone = subprocess.Popen(["true"])
    gone.wait(10)
    tell(config, listener.getsockname()[1], gone.pid)
    assert ask(config) is None
    assert select.select([listener], [], [], 0)[0] == []


@pytest.mark.parametrize("text", [None, "", "{}", '{"host":1,"port":"x","pid":1}'])
def test_no_file_or_another_is_nothing(text: str | None, config: Config) -> None:
    if text is not None:
        (config.data_dir / "state" / "http.json").write_text(text)
    assert ask(config) is None


def test_nobody_listens(config: Config, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    tell(config, port)
    assert ask(config) is None
    seen = status(provider(links=[LINK | {"connected": False}]))
    correct(seen, None)
    assert seen["health"]["details"][0]["since_ms"] is None
