"""The table of README.md: what a run measured goes into the rows that name its tests, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import figures
import pytest

TABLE = """# Title

| fault | test |
|---|---|
| one | `test_a.py::test_one`, `test_two` |
| a folder of its own | `test_b.py`; elsewhere: `tests/unit/test_c.py` |
| any of them | `test_a.py::test_t*` |
| kept | `test_d.py::test_four` | kill feed 1 | 2 | 3 | 0 | 4.0 / 5.0 s | 2026-01-01 |

| symptom | cause | test |
|---|---|---|
| not this table | | `test_a.py::test_one` |
"""


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "figures.jsonl"
    monkeypatch.setenv("OBS_FAULT_FIGURES", str(path))
    recovery_s = {"kill feed": [float(one) for one in range(1, 100)]}
    figures.note("test_a.py::test_one[x]", 7, long=True, faults={"kill feed": 1}, moved=1)  # the run before
    figures.note("test_a.py::test_one[x]", 7, long=True, faults={"kill feed": 99}, moved=1000, lost=20, recovery_s=recovery_s)
    figures.note("test_a.py::test_two", 7, long=True, faults={"kill feed": 1, "stop load": 2}, moved=234, recovery_s={"kill feed": [100.0]})
    figures.note("test_a.py::test_two_more", 7, long=True, faults={"a": 1, "b": 2, "c": 3, "d": 1000}, invented=5)
    figures.note("test_b.py::test_three", 7, long=False, faults={"bit flip": 4096})
    return path


def test_rows_sum_up_the_tests_that_they_name(measured: Path) -> None:
    today = figures.datetime.now(figures.UTC).strftime("%Y-%m-%d")
    lines = figures.rewritten(TABLE, figures.read([measured])).splitlines()
    assert lines[2] == "| fault | test | injected | records moved | lost, in gap rows | invented | recovery p50 / p99 | date |"
    assert lines[3] == "|---|---|---|---|---|---|---|---|"
    assert lines[4].endswith(f"| kill feed 100, stop load 2 | 1,234 | 20 | 0 | 50.0 / 99.0 s | {today} |")
    assert lines[5].endswith(f"| bit flip 4,096 | 0 | 0 | 0 | | {today} (short) |")
    assert lines[6].endswith(f"| 1,009 of 6 kinds | 234 | 0 | 5 | 100.0 / 100.0 s | {today} |")
    assert lines[7:] == TABLE.splitlines()[7:], "a row that the run says nothing of, or another table"


def test_rewriting_again_changes_nothing(measured: Path) -> None:
    once = figures.rewritten(TABLE, figures.read([measured]))
    assert figures.rewritten(once, figures.read([measured])) == once
    assert figures.rewritten(once, {}) == once


def test_the_real_table_is_found() -> None:
    """Every row has both cells, and every test that a row names exists."""
    text = figures.README.read_text()
    assert "| fault | test |" in figures.rewritten(text, {})
    table = text.partition("| fault | test |")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(table) > 20
    for line in table:
        for name in figures.named(line.strip("|").split("|")[1]):
            file, _, test = name.partition("::")
            path = figures.README.parents[2] / file if "/" in file else figures.README.with_name(file)
            assert path.exists(), line
            assert f"def {test.partition('[')[0].rstrip('*')}" in path.read_text(), line
