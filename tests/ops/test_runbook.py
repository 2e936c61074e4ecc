"""The runbook: complete, and nothing in it that does not exist."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
from documents import code_lines, obs_commands, parses
from documents import commands as commands_of
from operating import DAY_REASONS, GAP_REASONS, OPS, REASONS, ROOT, RUNBOOK, alerts, metrics, metrics_in, program, sections

# Programs of a host that a person has or gets from its packages.
TOOLS = {
    "systemctl", "journalctl", "jq", "curl", "psql", "df", "du", "ls", "ps", "free", "tail", "head", "sort", "uniq", "grep", "base64",
    "sudo", "timedatectl", "iostat", "cd", ".", "kill", "ip", "rsync", "amtool", "last", "top", "chown",
}  # fmt: skip


def entries(*parts: str) -> set[str]:
    """The second-level headings below these first-level ones."""
    found, inside = set(), False
    for line in RUNBOOK.read_text().splitlines():
        if line.startswith("# "):
            inside = line[2:] in parts
        elif line.startswith("## ") and inside:
            found.add(line[3:])
    return found


def commands() -> list[list[str]]:
    """Every command of a block: words up to a pipe."""
    return commands_of(code_blocks())


def code_blocks() -> list[str]:
    lines = code_lines(RUNBOOK.read_text())
    assert len(lines) > 60
    return lines


def test_every_reason_alert_and_cause_has_an_entry() -> None:
    health, gaps, days = entries("Health reasons"), entries("Gap reasons"), entries("Anomaly days")
    assert health == set(REASONS)
    assert gaps == set(GAP_REASONS) - health
    assert days == set(DAY_REASONS) - health
    assert entries("Alerts") == {name for name, rule in alerts().items() if rule["annotations"]["runbook_url"].endswith(name.lower())}


@pytest.mark.parametrize("name", sorted(entries("Health reasons")))
def test_an_entry_of_a_health_reason_says_all_four_things(name: str) -> None:
    text = sections()[name]
    for word in ("**Means**", "**Confirm**", "**Cure**", "**Evidence**"):
        assert word in text, word
    assert re.search(r"^    \S", text, re.M), "no command to confirm it with"


@pytest.mark.parametrize("name", sorted(entries("Alerts")))
def test_an_entry_of_an_alert_says_all_four_things(name: str) -> None:
    text = sections()[name].lower()
    for word in ("**means**", "**cure**", "**evidence**"):
        assert word in text, word
    assert re.search(r"^    \S", text, re.M), "no command to confirm it with"


def test_every_obs_command_is_one() -> None:
    """Parsed by the program's own parser, in blocks, in substitutions and between backticks."""
    found = obs_commands(RUNBOOK.read_text())
    assert len(found) > 50
    assert not [words for words in found if not parses(words)]


def test_every_other_command_is_a_tool_or_ours() -> None:
    for words in commands():
        first = next(word for word in words if "=" not in word)
        if first.startswith("ops/") or (first == "sudo" and words[1].startswith("ops/")):
            path = first if first != "sudo" else words[1]
            assert (ROOT / path).stat().st_mode & 0o100, path
            # Its own help names every option.
            shown = subprocess.run([ROOT / path, "--help"], capture_output=True, text=True, timeout=20, check=True).stdout
            assert all(word in shown for word in words if word.startswith("--")), words
        else:
            assert first in TOOLS or first == "obs", words


def test_every_jq_program_compiles() -> None:
    jq, programs = program("jq"), 0
    for words in commands():
        if words[0] == "jq":
            done = subprocess.run([jq, *_without_files(words[1:])], input="", capture_output=True, text=True, timeout=20, check=False)
            assert done.returncode == 0, f"{words}: {done.stderr}"
            programs += 1
    assert programs > 20


def _without_files(words: list[str]) -> list[str]:
    return [word for word in words if not re.fullmatch(r"[\w/.*-]+\.jsonl?", word)]


def test_every_metric_exists() -> None:
    named = metrics_in(RUNBOOK.read_text())
    assert len(named) > 8
    # A command may search for the beginning of a name.
    assert not {name for name in named if not any(metric.startswith(name) for metric in metrics())}


@cache
def sources() -> str:
    paths = [*(ROOT / "obs").rglob("*.py"), *(ROOT / "sql").rglob("*.sql"), *(ROOT / "ops").rglob("*"), ROOT / "README.md"]
    return "\n".join(path.read_text(errors="replace") for path in paths if path.is_file() and path != RUNBOOK)


def test_every_name_of_an_event_key_or_file_exists() -> None:
    """What stands between backticks or is asked for by name in a filter, and looks like a name of the program, is one."""
    text = RUNBOOK.read_text()
    names = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", text))
    names |= set(re.findall(r'== "([a-z_]+)"', text))
    names |= {word for expression in re.findall(r'test\("([a-z_|]+)"\)', text) for word in expression.split("|")}
    names |= {key for line in code_blocks() for key in re.findall(r"[\[ ,(]\.([a-z]+(?:_[a-z]+)+)", line)}
    assert len(names) > 50
    system = {"wait_event_type", "wait_event", "query_start", "http_code"}
    shapes = {name: rf"\b{name}" if name.endswith("_") else rf"\b{name}\b" for name in names - system}
    assert not {name for name, shape in shapes.items() if not re.search(shape, sources())}


def test_every_file_of_ours_exists() -> None:
    named = set(re.findall(r"\bops/[\w./-]*\w", RUNBOOK.read_text()))
    assert named
    assert not {name for name in named if not (ROOT / name).exists()}


def test_paths_below_the_data_directory_are_those_of_the_readme() -> None:
    """Each with a provider, market and day of the examples; the README tells the layout with placeholders."""
    layout = re.findall(r"^    data/(\S+)", (ROOT / "README.md").read_text(), re.M)
    shapes = [
        re.escape(shape).replace("<provider>", r"\w+").replace("<market>", r"\w+").replace("<YYYYMMDD>", r"\d{8}").replace("…", ".*")
        for shape in layout
    ]
    shapes += [r"quarantine/\w+/\d{8}_rejected\.jsonl", r"state/calendar\.json", r"system/events"]
    named = set(re.findall(r"(?<![\w/])(?:system|quarantine|universe|state)/[\w/.]*\w", RUNBOOK.read_text()))
    assert len(named) > 5
    assert not {path for path in named if not any(re.fullmatch(shape, path) for shape in shapes)}


def test_sentences_point_to_entries_that_exist() -> None:
    """`see X`, `see X, Y`: each is a heading, or the beginning of one."""
    heads = set(sections())
    text = " ".join(line for line in RUNBOOK.read_text().splitlines() if not line.startswith("    "))
    for pointed in re.findall(r"\bsee ((?:[a-z]+_[a-z_]+|Obs\w+)(?:, (?:[a-z]+_[a-z_]+|Obs\w+))*)", text):
        assert not {name for name in pointed.split(", ") if name not in heads}, pointed


def test_the_longest_line_is_that_of_a_command() -> None:
    assert not [line for line in RUNBOOK.read_text().splitlines() if len(line) > 140 and not line.startswith(("    ", "|"))]


def test_ops_holds_the_runbook_that_the_units_name() -> None:
    units = [path.read_text() for path in (OPS / "systemd").glob("*.service")]
    assert units
    assert all("RUNBOOK.md" in text for text in units)
    assert Path(RUNBOOK).name == "RUNBOOK.md"
