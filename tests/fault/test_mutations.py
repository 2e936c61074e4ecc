"""Deliberate defects of the program are noticed; see mutations.py, which has the list and is a command as well."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import LONG
from mutations import DEFECTS, Copy, Defect, named_by

CHOSEN = [defect for defect in DEFECTS if LONG or not defect.slow]
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    made = Copy(tmp_path_factory.mktemp("mutations"))
    assert made.is_private(), "the tests of the copy would judge another program"
    return made


@pytest.mark.parametrize("defect", CHOSEN, ids=[defect.name for defect in CHOSEN])
def test_a_defect_is_noticed(copy: Copy, defect: Defect) -> None:
    caught, seconds = copy.notices(defect)
    assert caught, f"nobody notices that {defect.what}"
    print(f"{defect.what}: {caught}, {seconds:.1f} s")


def test_without_a_defect_the_same_tests_pass(copy: Copy) -> None:
    done = copy.tests(named_by(CHOSEN))
    assert done.returncode == 0, done.stdout[-3000:]


def test_every_named_defect_of_the_list_is_there(copy: Copy) -> None:
    """The patches fit the program of today, and no path of the list is shipped twice."""
    for defect in DEFECTS:
        assert (copy.folder / Path(defect.path)).read_text().count(defect.old) == 1, defect.name
    assert len({defect.name for defect in DEFECTS}) == len(DEFECTS)
