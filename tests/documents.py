"""What stands in a document: code, commands, tables, links and anchors. Shared by the tests of the READMEs and of the runbook."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

from obs.cli.main import COMMANDS, parser

PIPES = {"|", "&&", ";"}
_FENCED = re.compile(r"^```[^\n]*\n(.*?)^```$\n?", re.M | re.S)
_INDENTED = re.compile(r"^    .*$", re.M)


def code_lines(text: str) -> list[str]:
    """The lines of all code blocks, indented or fenced; what goes on in the next line is one."""
    text = _FENCED.sub(lambda block: re.sub(r"^", "    ", block[1], flags=re.M), text)
    text = re.sub(r" *\\\n +|\n +(?=\|)", " ", text)
    return [line[4:] for line in text.splitlines() if line.startswith("    ") and line.strip()]


def prose(text: str) -> str:
    """All but the code blocks."""
    return _INDENTED.sub("", _FENCED.sub("", text))


def inline(text: str) -> list[str]:
    """What stands between backticks, each on one line."""
    return [" ".join(one.split()) for part in prose(text).split("\n\n") for one in re.findall(r"`([^`]+)`", part)]


def headings(text: str) -> list[tuple[int, str]]:
    """The level and the words of every heading."""
    return [(len(level), words) for level, words in re.findall(r"^(#{1,6}) (.+)$", prose(text), re.M)]


def anchor(heading: str) -> str:
    """The anchor that a heading gets where Markdown is shown."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(text: str) -> set[str]:
    return {anchor(words) for _, words in headings(text)}


def tables(text: str) -> list[list[str]]:
    """The lines of every table, those of its head too."""
    return [table.splitlines() for table in re.findall(r"(?:^\|.*\n?)+", prose(text), re.M)]


def images(text: str) -> list[str]:
    return re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", prose(text))


def links(text: str) -> list[str]:
    """Where links and images lead; those to other hosts are left out."""
    return [target for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose(text)) if "://" not in target]


def split(line: str) -> list[str]:
    """The words of a line as a shell takes them, without its comment; pipes are words."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    return list(lexer)


def commands(lines: Iterable[str]) -> list[list[str]]:
    """Every command of these lines: words up to a pipe."""
    found: list[list[str]] = []
    for line in lines:
        words: list[str] = []
        for word in [*split(line), "|"]:
            if word in PIPES:
                found.append(words)
                words = []
            else:
                words.append(word)
    return [words[: words.index(">")] if ">" in words else words for words in found if words]


def obs_commands(text: str) -> list[list[str]]:
    """Every `obs …` in blocks, in substitutions and between backticks, as words, the first of them `obs`."""
    found = commands(line for line in code_lines(text) if re.search(r"\bobs ", line))
    found += [shlex.split(one) for one in re.findall(r"\$\((obs [^)]*)\)", text)]
    found += [shlex.split(one) for one in inline(text) if re.match(r"(?:sudo )?obs (?:--data \S+ )?[a-z]", one)]
    found = [words[words[0] == "sudo" :] for words in found]
    return [words for words in found if words[:1] == ["obs"]]


def parses(words: list[str]) -> bool:
    """Whether `obs` takes this command, by its own parser."""
    try:
        return parser().parse_args(words[1:]).command in COMMANDS
    except SystemExit:
        return False
