"""Every benchmark runs, and prints no figure that was not measured. No time is asserted: that is for a quiet machine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyperf", reason="the benchmarks need the bench extra")

from native_bench.__main__ import ORDER, PLAIN, WITH_PYPERF
from native_bench.report import figure, table
from native_bench.rows import OURS, Result, Row, Target

_REPOSITORY = Path(__file__).parents[2]
_FILES = sorted(path.stem.removeprefix("bench_") for path in (_REPOSITORY / "native_bench").glob("bench_*.py"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one run of everything with --fast."""
    out = tmp_path_factory.mktemp("bench")
    words = [sys.executable, "-m", "native_bench", "--fast", "--out", str(out)]
    done = subprocess.run(words, cwd=_REPOSITORY, capture_output=True, text=True, timeout=570, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return out


def results_of(folder: Path) -> list[Result]:
    return [Result.from_json(row) for row in json.loads((folder / "results.json").read_text())["rows"]]


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from numbers(one)
    else:
        yield value


def test_every_file_is_a_row_that_is_run() -> None:
    assert sorted(ORDER) == _FILES == sorted(WITH_PYPERF + PLAIN)


def test_every_row_runs(fast: Path) -> None:
    results = results_of(fast)
    assert len({result.row.key for result in results}) == len(ORDER)
    for result in results:
        assert result.samples or result.figures or result.missing, result.row.key
        assert all(value > 0 for value in numbers([result.samples, result.figures])), result.row.key
        for target in result.row.targets:
            told = result.missing.keys() & {"", target.rival, target.of}
            assert result.judged(target) or told, f"{result.row.key}: neither measured nor said why not"


def test_no_figure_without_a_measurement(fast: Path) -> None:
    """Each time that the report shows is a median of the results, and a row without one says so."""
    results, text = results_of(fast), (fast / "results.md").read_text()
    known = {figure(middle) for result in results for size, sides in result.samples.items() for side in sides
             if (middle := result.middle(size, side)) is not None}  # fmt: skip
    shown = set(re.findall(r"\b[0-9][0-9.e+]* (?:ns|µs|ms)\b", text))
    assert shown <= known, shown - known
    for result in results:
        for size, sides in result.samples.items():
            for side, rounds in sides.items():
                assert all(rounds), f"{result.row.key}: an empty round of {side}, {size}"


def test_outputs(fast: Path) -> None:
    machine = json.loads((fast / "results.json").read_text())["machine"]
    assert machine["failed"] == {}
    assert machine["cpu"] in (fast / "results.md").read_text()
    assert "times mean nothing" in (fast / "results.md").read_text()
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return
    assert (fast / "ratios.png").read_bytes().startswith(b"\x89PNG")


def test_a_missing_rival_is_told_and_not_invented() -> None:
    row = Row("x", "x", "a rival", (Target("rate", 2, "rival"), Target("at_most", 5, of="figure")), "1")
    result = Result(row, missing={"rival": "not installed"})
    result.add("1", OURS, [1e-6])
    lines = table([result])
    assert "not measured: not installed" in lines[2]
    assert "not measured: no figure" in lines[3]
    assert not re.search(r"[0-9] (ns|µs|ms)", "".join(lines))


def test_ratios_are_of_one_round() -> None:
    row = Row("x", "x", "a rival", (Target("rate", 2, "rival"), Target("time", 2, "rival")), "1")
    result, other = Result(row), Result(row)
    result.add("1", OURS, [1.0, 2.0, 3.0])
    result.add("1", "rival", [4.0])
    other.add("1", OURS, [4.0])
    other.add("1", "rival", [4.0])
    result.merge(other)
    assert result.ratios("1", row.targets[0]) == [2.0, 1.0]
    assert result.ratios("1", row.targets[1]) == [0.5, 1.0]
    assert Result.from_json(json.loads(json.dumps(result.to_json()))).ratios("1", row.targets[0]) == [2.0, 1.0]
