"""Scripts of faults: what is accepted, and that every problem is told at once."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import obs.sim.script
from obs.errors import ConfigError
from obs.sim.script import ACTIONS, Action, load_script, parse_action, problems_of


def test_a_script_is_read_in_time_order(tmp_path: Path) -> None:
    path = tmp_path / "script.jsonl"
    path.write_text('# first faults\n\n{"at_s":5,"do":"mute","s":100}\n{"at_s":1.5,"do":"drop","conn":2,"from":"subscription"}\n')
    assert load_script(path) == [
        Action("drop", 1.5, from_subscription=True, conn=2),
        Action("mute", 5.0, parameters={"s": 100}),
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ([], "JSON object"),
        ({}, "allowed are drop"),
        ({"do": "explode"}, "allowed are drop"),
        ({"do": "drop", "s": 3}, "drop takes"),
        ({"do": "mute", "s": "3"}, "allowed is int or float"),
        ({"do": "mute", "s": True}, "allowed is int or float"),
        ({"do": "mute", "s": -1}, "positive"),
        ({"do": "late", "n": 0}, "positive"),
        ({"do": "quiet_symbol"}, "symbol is missing"),
        ({"do": "malformed", "variant": "odd"}, "allowed are cut"),
        ({"do": "poison", "variant": "nan"}, "poison sends whole messages"),
        ({"do": "drop", "from": "noon"}, "allowed are start, subscription"),
    ],
)
def test_a_bad_line_is_told(line: object, told: str) -> None:
    assert told in "\n".join(problems_of(line))
    with pytest.raises(ConfigError):
        parse_action(line)


def test_all_problems_of_all_lines_are_told_together(tmp_path: Path) -> None:
    path = tmp_path / "script.jsonl"
    path.write_text('{"do":"nothing"}\nnot json\n{"do":"drop","x":1,"y":2}\n')
    with pytest.raises(ConfigError) as caught:
        load_script(path)
    assert [problem.split(": ")[0] for problem in caught.value.problems] == [f"{path}:{line}" for line in (1, 2, 3, 3)]


def test_a_script_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.jsonl"):
        load_script(tmp_path / "none.jsonl")


def test_the_docstring_names_every_action() -> None:
    documented = set(re.findall(r"^\| (\w+) \|", obs.sim.script.__doc__ or "", re.MULTILINE)) - {"do"}
    assert documented == set(ACTIONS)


def test_a_negative_skew_is_allowed() -> None:
    assert parse_action(json.loads('{"do":"skew","offset_s":-3600}')).number("offset_s", 0) == -3600
