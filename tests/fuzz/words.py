"""Targets: what a person writes. The configuration, the file of secrets, the words of the command lines."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from functools import cache
from pathlib import Path

from segment_lines import SESSION, START_NS, gap_of

from fuzz.files import _sealed
from fuzz.take import fresh, scratch
from obs.cli import main as cli
from obs.config import Config, config_hash, load, read_secrets, start_problems
from obs.errors import EXIT_UNKNOWN, ConfigError
from obs.providers.base import ProviderOptions
from obs.providers.registry import make_provider
from obs.segment.sessions import SessionStart, append_start
from obs.supervisor.main import _arguments

_EXAMPLE = Path(__file__).parents[2] / "ops" / "obs.example.toml"
_READS = ("cat", "tail", "verify", "gaps")  # commands that read files alone


def config_toml(data: bytes) -> None:
    """Any bytes as obs.toml: a Config of which a provider can be made, or ConfigError with a line for each problem."""
    path = fresh("config") / "obs.toml"
    path.write_bytes(data)
    try:
        config = load(path, environ={}, cwd=path.parent)
    except ConfigError as error:
        assert error.problems
        assert all(problem.startswith("obs.toml: ") for problem in error.problems), error.problems
        return
    assert isinstance(config, Config)
    assert len(config_hash(config)) == 16
    assert config_hash(config) == config_hash(load(path, environ={}, cwd=path.parent))
    assert all(isinstance(problem, str) for problem in start_problems(config, {}))
    for section in config.providers:
        options = ProviderOptions(
            section.name, section.market, section.venue, section.channels, section.slots, section.rest_url, section.ws_url
        )
        made = make_provider(section.type, options)
        symbols = [made.slot_symbol(symbol) for symbol in section.symbols]
        made.context(symbols)
        made.connect_url()
        assert all(len(made.record_symbol(symbol)) <= 20 for symbol in symbols)


@cache
def _with_secrets() -> Config:
    folder = fresh("secrets")
    (folder / "obs.toml").write_text('[providers.kis]\nsymbols = ["005930"]\nsecrets_file = "secrets"\n')
    return load(folder / "obs.toml", environ={}, cwd=folder)


def secrets_file(data: bytes) -> None:
    """Any bytes as the file of secrets: both, or ConfigError that names what is missing and quotes nothing."""
    config = _with_secrets()
    section = config.providers[0]
    path = section.secrets_file
    assert path is not None
    path.write_bytes(data)
    path.chmod(0o600)
    try:
        [secret] = read_secrets(section, {})
    except ConfigError as error:
        assert error.problems
        assert all(len(problem) < 200 for problem in error.problems)
        return
    assert secret.key
    assert secret.secret
    assert repr(secret) == "Secret(name='KIS')"


@cache
def _archive() -> Path:
    root = scratch() / "archive"
    root.mkdir()
    _sealed(root)
    append_start(root, SessionStart(SESSION, "kis", START_NS, "host", "boot", "0", "hash", {"tick": 8}))
    events = root / "system" / "events" / "kis"
    events.mkdir(parents=True)
    (events / "20260122.jsonl").write_bytes(gap_of(21, 22) + b"\n")
    return root


def cli_words(data: bytes) -> None:
    """Any words, one a line, as arguments of `obs` and of the supervisor: a result, or a message and a documented exit code.

    Of `obs`, commands that read files alone are run, on a small archive, and never with --follow.
    """
    words = [os.fsdecode(word) for word in data.replace(b"\0", b"").split(b"\n")][:12]
    with contextlib.redirect_stderr(io.StringIO()), _captured():
        with contextlib.suppress(SystemExit):
            _arguments().parse_args(words)
        try:
            args = cli.parser().parse_args(words)
        except SystemExit as stop:
            assert stop.code in (0, 2), stop.code
            return
        if args.command not in _READS or getattr(args, "follow", False) or any("/" in path for path in getattr(args, "paths", [])):
            return
        archive = _archive()
        here = Path.cwd()
        os.chdir(archive)
        try:
            code = cli.main([*words, "--data", str(archive)] if "--" not in words else words)
        except SystemExit as stop:
            code = stop.code
        finally:
            os.chdir(here)
        assert code in (0, 1, 2, EXIT_UNKNOWN), code


@contextlib.contextmanager
def _captured() -> object:  # type: ignore[misc]
    """Stand in for stdout with one that encodes as a terminal does."""
    before = sys.stdout
    sys.stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict", write_through=True)
    try:
        yield
    finally:
        sys.stdout = before


# --- seeds


def config_toml_seeds() -> list[bytes]:
    live = "\n".join(line.removeprefix("# ") for line in _EXAMPLE.read_text().splitlines() if "=" in line or line.startswith(("[", "# [")))
    return [
        live.encode(),
        b'[providers.kis]\nsymbols = ["005930"]\ncredentials = ["KIS", "KIS2"]\n[ring]\ncapacity = 4096\n',
        b'[providers.upbit]\nsymbols = ["KRW-BTC"]\nvenue = "sg"\nchannels = ["trade"]\n[http]\nhost = "0.0.0.0"\n',
        b'[archive]\nflush_s = 400\nsegment_s = 7\n[quarantine]\nbytes_per_day = "64 MiB"\n[database]\ndsn = "postgresql://u:p@h/d"\n',
    ]


def secrets_file_seeds() -> list[bytes]:
    return [b"KIS_APP_KEY=abc\nKIS_APP_SECRET=def\n", b"# x\nexport KIS_APP_KEY='abc'\n\nKIS_APP_SECRET=\n", b"KIS_APP_KEY\n=\n"]


def cli_words_seeds() -> list[bytes]:
    lines = (
        "cat --provider kis --date 20260122 --symbol 005930", "cat --dataset swing", "tail -n 3 --symbol KRW-BTC", "verify --json",
        "verify scalp", "gaps --date 2026-01-22 --json", "gaps --provider kis", "--data x status", "audit --from x", "--version",
        "tail -n 99999999999999999999", "gaps --provider /x", "--demo --for 60", "--provider kis --for nan", "dsn --config nowhere.toml",
    )  # fmt: skip
    return [line.replace(" ", "\n").encode() for line in lines] + [b"cat\n--symbol\n\xff\xfe", b"gaps\n--provider\n**a"]
