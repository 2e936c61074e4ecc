"""The README in two languages: the same in both, and nothing in either that does not exist. The runbook's links lead somewhere too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from documents import anchors, code_lines, headings, images, inline, links, obs_commands, parses, tables

ROOT = Path(__file__).resolve().parents[2]
ENGLISH = ROOT / "README.md"
KOREAN = ROOT / "ops" / "README.ko.md"
RUNBOOK = ROOT / "ops" / "RUNBOOK.md"
READMES = pytest.mark.parametrize("path", [ENGLISH, KOREAN], ids=lambda path: path.name)


def both() -> tuple[str, str]:
    """The texts that must agree: the English one without its generated results, to which the Korean one links."""
    english, parts = re.subn(r"<!-- native_bench: (?!end).*?<!-- native_bench: end -->", "", ENGLISH.read_text(), flags=re.S)
    assert parts == 1
    return english, KOREAN.read_text()


def bare(line: str) -> str:
    """A line without what explains it: after #, or in the list of stored files after the path."""
    path = re.match(r"data/\S+", line)
    return path[0] if path else re.sub(r"(?:^|\s+)# .*", "", line).rstrip()


def test_headings_are_of_the_same_levels() -> None:
    english, korean = ([level for level, _ in headings(text)] for text in both())
    assert len(english) > 10
    assert korean == english


def test_code_blocks_are_the_same_but_for_comments() -> None:
    english, korean = ([bare(line) for line in code_lines(text) if bare(line)] for text in both())
    assert len(english) > 70
    assert korean == english


def test_tables_have_as_many_rows() -> None:
    english, korean = ([len(table) for table in tables(text)] for text in both())
    assert len(english) == 3
    assert korean == english


def test_pictures_are_the_same() -> None:
    english, korean = ([(path.parent / target).resolve() for target in images(path.read_text())] for path in (ENGLISH, KOREAN))
    assert len(english) > 3
    assert korean == english


@pytest.mark.parametrize("path", [ENGLISH, KOREAN, RUNBOOK], ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    """Links and images, relative to the document; and files with an anchor in commands and sentences, relative to the project too."""
    text = path.read_text()
    targets = [(path.parent / file if file else path, head) for file, _, head in (target.partition("#") for target in links(text))]
    for file, head in re.findall(r"(?<![\w/.(-])((?:[\w.-]+/)*[\w-]+\.md)#([\w-]+)", text):
        targets.append((next((at / file for at in (ROOT, path.parent) if (at / file).exists()), ROOT / file), head))
    assert targets
    for file, head in targets:
        assert file.exists(), file
        assert not head or head in anchors(file.read_text()), f"{file}#{head}"


@READMES
def test_every_path_of_ours_exists(path: Path) -> None:
    """Those in commands and between backticks, but for what .gitignore says is made where it runs."""
    text, made = path.read_text(), [line[1:] for line in (ROOT / ".gitignore").read_text().splitlines() if line.startswith("/")]
    words = " ".join([*inline(text), *code_lines(text)])
    named = set(re.findall(r"(?<![\w/.-])(?:obs|ops|tests|native_bench)/[\w./-]*\w", words))
    assert len(named) > 40
    assert not {name for name in named if not (ROOT / name).exists() and not name.startswith(tuple(made))}
    tests = {file.name for file in (ROOT / "tests").rglob("test_*.py")}
    assert not set(re.findall(r"\btest_\w+\.py", words)) - tests


@READMES
def test_every_obs_command_is_one(path: Path) -> None:
    """Parsed by the program's own parser, in blocks, in substitutions and between backticks."""
    found = obs_commands(path.read_text())
    assert len(found) > 20
    assert not [words for words in found if not parses(words)]


@pytest.mark.parametrize("path", [ENGLISH, KOREAN, RUNBOOK], ids=lambda path: path.name)
def test_every_colour_of_the_status_is_explained(path: Path) -> None:
    """The words with which `obs.cli.glance` begins a verdict."""
    source = (ROOT / "obs" / "cli" / "glance.py").read_text()
    words = set(re.findall(r'Line\(f?"([A-Z]{3,})  ', source))
    assert words == {"GREEN", "YELLOW", "RED", "DOWN"}
    assert not [word for word in words if not re.search(rf"\b{word}\b", path.read_text())]
