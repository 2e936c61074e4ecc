"""The simulated exchanges of `--demo`: started by name, as any venue would be: nothing else in obs knows that they exist."""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
from pathlib import Path

from obs.config import Config
from obs.errors import ConfigError
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


def check_script(path: Path) -> None:
    """Raise ConfigError, with file, line and what is known instead, if the exchanges would refuse this script.

    By their own parser, found by name: they read it again when they start, and what they say then is one line among others.
    """
    script = importlib.import_module("obs.sim.script")
    script.load_script(path)
    needs_universe = importlib.import_module("obs.sim.universe").SCENARIO
    known = ", ".join(do for do in script.ACTIONS if do not in needs_universe)
    problems = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#") and (do := json.loads(line)["do"]) in needs_universe:
            problems.append(f"{path}:{number}: do = {do!r}: needs --universe, which the demo has not: known here are {known}")
    if problems:
        raise ConfigError("the script is wrong", problems=problems)


def answers(port: int) -> bool:
    """Whether something listens on a loopback port."""
    with socket.socket() as asker:
        return asker.connect_ex(("127.0.0.1", port)) == 0


def start(config: Config, venue: str, port: int, _stacks: int) -> subprocess.Popen[bytes]:
    """Start one simulated venue; it has no stacks to tell.

    In a process group of its own: a Ctrl-C on the terminal is for the supervisor, which stops the feeds first. Else the venue would be
    gone a moment before them, and that is a gap.
    """
    folder: Path = config.data_dir / "sim"
    folder.mkdir(parents=True, exist_ok=True, mode=0o750)
    return subprocess.Popen(command(config, venue, port), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, process_group=0)
