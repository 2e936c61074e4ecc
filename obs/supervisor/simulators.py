"""The simulated exchanges of `--demo`: started by name, as any venue would be: nothing else in obs knows that they exist."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

from obs.config import Config
from obs.supervisor.child import module_command

VENUES = ("kis", "upbit")


def free_ports() -> dict[str, int]:
    """Return a free loopback port for each simulated venue."""
    held = []
    for _ in VENUES:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        held.append(listener)
    ports = {venue: listener.getsockname()[1] for venue, listener in zip(VENUES, held, strict=True)}
    for listener in held:
        listener.close()
    return ports


def command(config: Config, venue: str, port: int) -> list[str]:
    """Return the command line of one simulated venue. `rate` counts all venues together."""
    demo = config.demo
    log = config.data_dir / "sim" / f"{venue}.jsonl"
    words = [
        *module_command("obs.sim"), venue, "--port", str(port), "--source", demo.source,
        "--rate", str(demo.rate / len(VENUES)), "--seed", str(demo.seed), "--log", str(log),
        f"--die-with-parent={os.getpid()}", "--zombie-s", "0.3",
    ]  # fmt: skip
    if demo.recordings is not None:
        words += ["--recordings", str(demo.recordings)]
    if demo.script is not None:
        words += ["--script", str(demo.script)]
    return words


def answers(port: int) -> bool:
    """Whether something listens on a loopback port."""
    with socket.socket() as asker:
        return asker.connect_ex(("127.0.0.1", port)) == 0


def start(config: Config, venue: str, port: int, _stacks: int) -> subprocess.Popen[bytes]:
    """Start one simulated venue; it has no stacks to tell."""
    folder: Path = config.data_dir / "sim"
    folder.mkdir(parents=True, exist_ok=True, mode=0o750)
    return subprocess.Popen(command(config, venue, port), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
