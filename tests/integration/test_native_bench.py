"""Every benchmark runs, and prints no figure that was not measured. No time is asserted: that is for a quiet machine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from native_bench import __main__ as command
from native_bench.__main__ import ORDER, PLAIN, README, WITH_PYPERF, publish
from native_bench.report import BEGIN, END, figure, number, rate, read_json, readme_part, table
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
    return read_json(folder / "results.json")[1]


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
    assert machine["minutes"] < 10
    assert machine["cpu"] in (fast / "results.md").read_text()
    assert "times mean nothing" in (fast / "results.md").read_text()
    assert (fast / "ratios.png").read_bytes().startswith(b"\x89PNG")


def test_only_a_whole_run_is_published(fast: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme, kept = tmp_path / "README.md", tmp_path / "kept"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nbehind\n")
    assert publish(fast, readme, kept) == 1
    assert "nothing was changed" in capsys.readouterr().err
    assert "old" in readme.read_text()
    assert not kept.exists()
    out = tmp_path / "out"
    shutil.copytree(fast, out)
    value = json.loads((fast / "results.json").read_text())
    value["machine"]["fast"] = False  # as if it had been a whole one
    (out / "results.json").write_text(json.dumps(value))
    for _ in range(2):  # again over its own text
        assert publish(out, readme, kept) == 0
        head, rest = readme.read_text().split(BEGIN)
        body, tail = rest.split(END)
        assert (head, tail) == ("before\n", "\nbehind\n")
        assert "old" not in body
        assert value["machine"]["cpu"] in body
        assert all(line in body for line in table(results_of(out)))
    assert sorted(path.name for path in kept.iterdir()) == ["ratios.png", "results.json", "results.md"]
    value["rows"].pop()
    (out / "results.json").write_text(json.dumps(value))
    assert publish(out, readme, kept) == 1


def test_the_readme_shows_the_results_that_are_kept() -> None:
    """What stands between its marks is what the command wrote, not what somebody typed."""
    text = README.read_text()
    assert text.count(BEGIN) == text.count(END) == 1
    shown = text[text.index(BEGIN) : text.index(END) + len(END)]
    if (command.KEPT / "results.json").exists():
        machine, results = read_json(command.KEPT / "results.json")
        assert shown == readme_part(machine, results)
    else:
        assert "|" not in shown, "a table that no results stand behind"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (0.01234, "0.0123"), (0.95, "0.95"), (4.0, "4"), (12.345, "12.3"), (99.96, "100"), (896.4, "896"), (4100.0, "4,100")],
)
def test_numbers(value: float, shown: str) -> None:
    assert number(value) == shown


def test_rates() -> None:
    assert [rate(value) for value in (3.14159, 999.0, 4215.4, 8_700_381.0)] == ["3.14/s", "999/s", "4.22 k/s", "8.7 M/s"]


def test_a_row_that_takes_too_long_is_ended_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "LIMIT_S", 0.5)
    found = command.run_row("memory", False, 1)
    assert found == "not done in 0 s"


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
