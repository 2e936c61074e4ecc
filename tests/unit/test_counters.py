"""Counters: one live row per role, seen whole by others, refused in another layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from obs.errors import EXIT_STATE, SchemaMismatch
from obs.shm import ROLE_CELL, Counters
from obs.shm.counters import ROWS


@pytest.fixture
def counters(tmp_path: Path) -> Counters:
    return Counters(tmp_path / "counters", make=True)


def test_roles_are_named_once_in_order_and_seen_by_others(tmp_path: Path, counters: Counters) -> None:
    other = Counters(tmp_path / "counters")
    assert other.roles() == []
    for role in ("feed", "archive", "feed", "load"):
        counters.add(role)
    assert counters.roles() == other.roles() == ["feed", "archive", "load"]
    for name in ("poll", "feeds", "fee"):
        with pytest.raises(KeyError, match=name):
            other.cell(name)


@pytest.mark.parametrize("field", list(ROLE_CELL.names or ()))
def test_every_field_is_an_aligned_word_that_others_see_at_once(tmp_path: Path, counters: Counters, field: str) -> None:
    counters.add("feed")
    counters.add("archive")
    mine, seen = counters.cell("feed"), Counters(tmp_path / "counters").cell("feed")
    mine[field] = 2**63 + 5
    mine[field] += 2
    assert int(seen[field]) == 2**63 + 7
    others = [name for name in ROLE_CELL.names or () if name != field]
    assert not any(np.any(seen[name]) for name in others)
    assert not counters.cell("archive").tobytes().strip(b"\0")
    dtype, offset = (ROLE_CELL.fields or {})[field][:2]
    address = np.asarray(mine).__array_interface__["data"][0] + offset
    assert (dtype, address % 8) == (np.dtype("<u8"), 0)


def test_all_rows_can_be_used_and_no_more(counters: Counters) -> None:
    for place in range(ROWS):
        counters.add(f"role{place}")
        counters.cell(f"role{place}")["progress"] = place
    assert [int(counters.cell(f"role{place}")["progress"]) for place in range(ROWS)] == list(range(ROWS))
    with pytest.raises(IndexError):
        counters.add("one more")


def test_values_outlive_the_mapping_and_make_starts_anew(tmp_path: Path, counters: Counters) -> None:
    counters.add("feed")
    counters.cell("feed")["messages"] = 97_329
    counters.close()
    again = Counters(tmp_path / "counters")
    assert (again.roles(), int(again.cell("feed")["messages"])) == (["feed"], 97_329)
    assert Counters(tmp_path / "counters", make=True).roles() == []
    assert again.roles() == ["feed"]  # who mapped the old block keeps it


@pytest.mark.parametrize(
    "content",
    [b"x", b"OBSCNT01", b"OBSCNT00" + bytes(5176), b"OBSCNT01" + bytes(5175), b"OBSCNT01" + bytes(5177), bytes(5184)],
    ids=["foreign", "magic alone", "older", "a byte short", "a byte long", "zeros"],
)
def test_another_layout_is_refused(tmp_path: Path, counters: Counters, content: bytes) -> None:
    path = tmp_path / "counters"
    assert path.stat().st_size == 5184
    path.write_bytes(content)
    with pytest.raises(SchemaMismatch, match=str(path)) as caught:
        Counters(path)
    assert caught.value.exit_code == EXIT_STATE


def test_no_block_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Counters(tmp_path / "none")
