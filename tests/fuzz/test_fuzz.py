"""Drives every target: its kept corpus, hurt inputs by hypothesis, and coverage-guided inputs by atheris.

The short form is the same each time; OBS_FAULT_LONG=1 takes other inputs at each run, and more of them.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.mutate import hurt_bytes, hurt_text
from fuzz.take import edited
from fuzz.targets import TARGETS, Target

LONG = bool(os.environ.get("OBS_FAULT_LONG"))
SECONDS = 120 if LONG else 60
RUNS = -1 if LONG else 2000  # inputs, not seconds: the short form must not depend on the machine
_EXAMPLES = 20_000 if LONG else 200
_START_S = 60  # generous: the start of the child and the reading of the corpus
_FOLDER = Path(__file__).parent
EACH_TARGET = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
Hunts = dict[str, tuple[Path, Future[subprocess.CompletedProcess[str]]]]  # by target: where what it finds goes, its result
INPUTS = [pytest.param(target, data, id=f"{target.name}-{name}") for target in TARGETS.values() for name, data in target.corpus.items()]


@pytest.mark.parametrize(("target", "data"), INPUTS)
def test_a_kept_input(target: Target, data: bytes) -> None:
    """What every later input is made from, and every crash that was ever found."""
    target.run(data)


@EACH_TARGET
@pytest.mark.timeout(3600 if LONG else 120)
def test_hurt_inputs(target: Target) -> None:
    """Inputs of the corpus with a few places hurt, each in its own structure."""
    corpus = list(target.corpus.values())

    @settings(
        max_examples=_EXAMPLES, deadline=None, derandomize=not LONG, database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.nested_given],
    )  # fmt: skip
    @given((hurt_text if target.keeps == "text" else hurt_bytes)(corpus) | st.binary(max_size=100))
    def judge(data: bytes) -> None:
        target.run(data)

    judge()


@pytest.fixture(scope="module")
def hunts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hunts]:
    """A hunt for each target, with the folder of what it finds; all of them are begun, one for each processor at a time."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        folders = {name: tmp_path_factory.mktemp(name) for name in TARGETS}
        yield {name: (folder, pool.submit(fuzz, name, folder)) for name, folder in folders.items()}


@EACH_TARGET
@pytest.mark.timeout((SECONDS + _START_S) * len(TARGETS) + 30)  # its turn may be the last
def test_coverage_guided(target: Target, hunts: Hunts) -> None:
    """No input is found that breaks the contract; a crash file is kept by copying it to tests/fuzz/corpus/<target>/found_<what>."""
    folder, hunt = hunts[target.name]
    done = hunt.result()
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{[path.read_bytes() for path in folder.glob('crash-*')]}"
    assert "stat::number_of_executed_units" in done.stdout, done.stdout[-1000:]


def test_the_fuzzer_finds_what_is_planted(tmp_path: Path) -> None:
    """Behind three nested comparisons, which blind inputs do not pass."""
    done = fuzz("planted", tmp_path, 60, -1)
    assert done.returncode != 0
    assert "ValueError: planted" in done.stdout
    assert [path.read_bytes()[:3] for path in tmp_path.glob("crash-*")] == [b"obs"]


@EACH_TARGET
def test_a_target_has_a_contract_and_seeds_that_can_be_made_anew(target: Target) -> None:
    assert (target.run.__doc__ or "").strip()
    assert len(set(target.make_seeds())) == sum(name.startswith("seed_") for name in target.corpus)


def test_edits_do_what_they_say() -> None:
    data = bytes(range(200))
    assert edited(data, b"") == data
    assert edited(data, b"\0\x05\x01") == data[:5] + b"\x07" + data[6:]
    assert edited(data, b"\1\x05\x01ab") == data[:5] + b"ab" + data[7:]
    assert edited(data, b"\2\x05\x01") == data[:5] + data[7:]
    assert edited(data, b"\3\x05\x01ab") == data[:5] + b"ab" + data[5:]
    assert edited(data, b"\4\x05") == data[:5]


def fuzz(name: str, found: Path, seconds: int = SECONDS, runs: int = RUNS) -> subprocess.CompletedProcess[str]:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris has no wheel for this Python or machine")
    command = [sys.executable, str(_FOLDER), name, "--seconds", str(seconds), "--runs", str(runs), "--found", str(found)]
    if LONG:
        command += ["--seed", str(int.from_bytes(os.urandom(3), "little"))]
    environ = os.environ | {"PYTHONHASHSEED": "0"}
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=seconds + _START_S, check=False,
        env=environ,
    )  # fmt: skip
