"""Every shell script of the repository: what shellcheck says, and what each says of itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLACES = (".ci", "ops", "tests", "native_bench", "sql", "obs")
SOURCED = {"ops/venv": "bash"}  # read by others, so without a first line that names a shell


def scripts() -> list[str]:
    found = []
    for place in PLACES:
        for path in sorted((ROOT / place).rglob("*")):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                with path.open("rb") as file:
                    first = file.readline(100)
                if first.startswith(b"#!") and b"sh" in first:
                    found.append(path.relative_to(ROOT).as_posix())
    return [*found, *SOURCED]


SCRIPTS = scripts()


def test_they_are_found() -> None:
    assert {".ci/run", "ops/install", "ops/uninstall", "ops/run", "ops/test", "ops/test-deps", "ops/compose-secrets"} <= set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing(script: str) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck: run ops/test-deps as root")
    words = ["shellcheck", "--external-sources", "--color=never", *([f"--shell={SOURCED[script]}"] if script in SOURCED else []), script]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_shellcheck_would_find_something(tmp_path: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck: run ops/test-deps as root")
    bad = tmp_path / "bad"
    bad.write_text('#!/bin/sh\nrm -rf $1/*\n')
    assert subprocess.run(["shellcheck", str(bad)], capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name not in SOURCED])
def test_an_error_ends_it(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK), "it can be run"
    assert [line for line in (ROOT / script).read_text().splitlines() if line.startswith("set -e")], "no error is passed over"


@pytest.mark.parametrize("script", ["ops/install", "ops/uninstall", "ops/compose-secrets", "ops/test"])
def test_help_shows_examples_and_does_nothing(script: str, tmp_path: Path) -> None:
    done = subprocess.run([ROOT / script, "--help"], capture_output=True, text=True, cwd=tmp_path, timeout=20, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: {script} ")
    assert done.stdout.count(f"{script} ") >= 3, "examples"
    assert done.stderr == ""
    if script != "ops/test":  # which hands what it does not know to pytest
        wrong = subprocess.run([ROOT / script, "--no-such-option"], capture_output=True, text=True, cwd=tmp_path, timeout=20, check=False)
        assert (wrong.returncode, wrong.stdout) == (2, "")
        assert "Usage" in wrong.stderr


def test_the_help_of_an_installation_names_all_that_it_leaves_behind() -> None:
    """Whatever ops/uninstall removes, folder and name, and the variables that ops/install obeys."""
    told = subprocess.run([ROOT / "ops/install", "--help"], capture_output=True, text=True, cwd=ROOT, timeout=20, check=True).stdout
    text = (ROOT / "ops/uninstall").read_text()
    removed = re.findall(r"(?<!\S)(/(?:etc|usr)/\S+)", " ".join(line for line in text.splitlines() if line.strip().startswith("remove ")))
    assert {"/usr/local/bin/obs", "/usr/local/share/zsh/site-functions/_obs", "/etc/systemd/system/obs.target"} <= set(removed)
    for path in removed:
        whole = any(path.startswith(place) and path[len(place) :].lstrip("/") in told for place in re.findall(r"^  (/\S+)", told, re.M))
        assert whole or path in told, path
    assert re.search(r"\bPYTHON=/\S+ ops/install", told)
