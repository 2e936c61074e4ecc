"""Since when health is red: asked of the monitor that lives here, and of nobody else; an answer that is none leaves it unknown."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from views import LINK, provider, status

from obs.cli.since import ask, correct
from obs.config import Config, load

TOKEN = "sesame-open-0001"
DETAILS = [{"reason": "not_connected", "provider": "kis", "since_ms": 7}, {"reason": "disk", "provider": "", "since_ms": None}]
HEALTH = {"since_ms": 5, "details": DETAILS}


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
    request = answering(listener, json.dumps({"health": HEALTH}).encode())
    known = ask(config)
    assert known == {("", ""): 5, ("not_connected", "kis"): 7, ("disk", ""): None}
    assert request().startswith(b"GET /api/status HTTP/1.1\r\n")
    assert f"Authorization: Bearer {TOKEN}\r\n".encode() in request()
    seen: dict[str, Any] = status(provider(links=[LINK | {"connected": False}], symbols=0))
    correct(seen, known)
    assert [(one["reason"], one["since_ms"]) for one in seen["health"]["details"]] == [("not_connected", 7), ("universe", None)]
    assert seen["health"]["since_ms"] == 5


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[]", b"{}", b'{"health":{"details":[{}]}}', b'{"health":null}'])
def test_an_answer_that_is_none_is_nothing(body: bytes, config: Config, listener: socket.socket) -> None:
    tell(config, listener.getsockname()[1])
    answering(listener, body)
    assert ask(config) == {}


def test_the_token_goes_to_no_stranger(config: Config, listener: socket.socket) -> None:
    """A monitor that was killed leaves its file; somebody else may listen at its port by now."""
    gone = subprocess.Popen(["true"])
    gone.wait(10)
    tell(config, listener.getsockname()[1], gone.pid)
    assert ask(config) == {}
    assert select.select([listener], [], [], 0)[0] == []


@pytest.mark.parametrize("text", [None, "", "{}", '{"host":1,"port":"x","pid":1}'])
def test_no_file_or_another_is_nothing(text: str | None, config: Config) -> None:
    if text is not None:
        (config.data_dir / "state" / "http.json").write_text(text)
    assert ask(config) == {}


def test_nobody_listens(config: Config, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    tell(config, port)
    assert ask(config) == {}
    seen = status(provider(links=[LINK | {"connected": False}]))
    correct(seen, {})
    assert seen["health"]["details"][0]["since_ms"] is None
