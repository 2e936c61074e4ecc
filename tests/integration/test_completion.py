"""<Tab> in a real bash and a real zsh: words of the parser, and names of providers and symbols of the data directory on the line."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from terminals import ROOT, Tmux, environ, tmux

from obs.cli.main import COMMANDS

CONFIG = """\
data_dir = "data"
[providers.kis]
symbols = ["005930", "000660"]
[providers.upbit]
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with an `obs` to call, a configuration, and a data directory that knows a provider and a universe beside it."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "obs"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)} -W error -m obs.cli "$@"\n')
    program.chmod(0o755)
    (tmp_path / "obs.toml").write_text(CONFIG)
    data = tmp_path / "data"
    for name in ("system/sessions", "universe/crypto"):
        (data / name).mkdir(parents=True)
    (data / "system" / "sessions" / "recorded.jsonl").touch()
    for day, symbols in ((20260121, ["KRW-OLD"]), (20260122, ["KRW-BTC", "KRW-BTG", "KRW-ETH"])):
        (data / "universe" / "crypto" / f"{day}.json").write_text(json.dumps({"symbols": [{"symbol": one} for one in symbols]}))
    return tmp_path


def obs(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(place / "bin" / "obs"), *words], capture_output=True, text=True, timeout=60, env=environ(), cwd=place, check=False
    )


LINES = [
    ("obs st", "status"),
    ("obs tail --fol", "--follow"),
    ("obs --data data tail --provider u", "upbit"),
    ("obs tail --config obs.toml --provider k", "kis"),
    ("obs tail --provider rec", "recorded"),
    ("obs tail --symbol KRW-E", "KRW-ETH"),
    ("obs slots pin 0006", "000660"),
    ("obs slots ex", "exclude"),
    ("obs completion z", "zsh"),
    ("obs cat --dataset sw", "swing"),
    ("obs --config obs.t", "obs.toml"),
    ("obs verify da", "data"),
]


def test_bash_completes(place: Path) -> None:
    """All words of all lines in one bash, asked as readline asks."""
    asked = [*LINES, ("obs ", " ".join(sorted(COMMANDS))), ("obs tail --symbol KRW-BT", "KRW-BTC KRW-BTG"), ("obs tail --provider x", "")]
    script = 'PATH="$PWD/bin:$PATH"\neval "$(obs completion bash)"\ncomplete -p obs >&2\n'
    for line, _ in asked:
        words = " ".join(shlex.quote(word) for word in line.split(" "))
        script += f'COMP_WORDS=({words}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)) COMPREPLY=()\n_shtab_obs\necho "${{COMPREPLY[*]}}"\n'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=100, env=environ(), cwd=place, check=False)
    assert "-F _shtab_obs obs" in done.stderr, done.stderr
    answers = [" ".join(sorted(answer.split())) for answer in done.stdout.splitlines()]
    found = dict(zip([line for line, _ in asked], answers, strict=True))
    found["obs "] = " ".join(one for one in found["obs "].split() if one[0] != "-")  # options stand beside the commands
    assert found == dict(asked)


@pytest.fixture
def zsh(place: Path) -> Iterator[Tmux]:
    if shutil.which("zsh") is None or shutil.which("tmux") is None:
        pytest.skip("needs zsh and tmux: ops/test-deps installs them")
    (place / "functions").mkdir()
    (place / "functions" / "_obs").write_text(obs(place, "completion", "zsh").stdout)
    with tmux(size=(100, 30), shell="zsh -f", ZDOTDIR=str(place)) as one:
        start = f"cd {place}; PATH=$PWD/bin:$PATH; fpath=($PWD/functions $fpath); autoload -U compinit; compinit -u -d $PWD/dump; clear"
        one.keys("-l", start)
        one.keys("Enter")
        yield one


def test_zsh_completes(zsh: Tmux) -> None:
    for line, word in LINES:
        zsh.keys("-l", line)
        zsh.keys("Tab")
        zsh.shows(" ".join([*line.split(" ")[:-1], word]))
        zsh.keys("C-u")


def test_what_tab_offers_is_also_told_to_programs(place: Path) -> None:
    assert obs(place, "completion", "words", "providers").stdout.split() == ["kis", "recorded", "upbit"]
    upbit = ["KRW-BTC", "KRW-BTG", "KRW-ETH"]
    assert json.loads(obs(place, "completion", "words", "symbols", "--json").stdout) == ["000660", "005930", *upbit]
    assert obs(place, "completion", "words", "symbols", "--provider", "upbit").stdout.split() == upbit
    assert json.loads(obs(place, "completion", "bash", "--json").stdout)["shell"] == "bash"
    (place / "data" / "universe" / "crypto" / "20260123.json").write_text("{")
    hurt = obs(place, "completion", "words", "symbols")
    assert (hurt.returncode, hurt.stdout.split()) == (0, ["000660", "005930"])
    assert "20260123.json" in hurt.stderr


@pytest.mark.parametrize("words", [("completion",), ("completion", "fish"), ("completion", "words"), ("completion", "words", "days")])
def test_wrong_usage(words: tuple[str, ...], place: Path) -> None:
    done = obs(place, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr
