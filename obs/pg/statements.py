"""The SQL that ships with obs: named statements, numbered migrations, and the schema they add up to.

In a checkout the files lie in `sql/` beside the package; an ordinary install carries them as package data in `obs/sql/`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final, LiteralString

from obs.errors import ConfigError

_NAME: Final = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_MIGRATION: Final = re.compile(r"^(\d{4})_(\w+)\.sql$")


@dataclass(frozen=True)
class Migration:
    """One numbered file: `version` from its name, the text as shipped, and the hash by which a change is seen."""

    version: int
    name: str
    text: LiteralString

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def sql_folder() -> Traversable:
    """Return the folder of the SQL files; ConfigError if this installation has none."""
    package = files("obs")
    places = [package.joinpath("sql")]
    if hasattr(package, "parent"):
        places.append(package.parent.joinpath("sql"))
    for place in places:
        if place.joinpath("queries.sql").is_file():
            return place
    raise ConfigError("the SQL files are missing from this installation", looked_in=[str(place) for place in places])


@cache
def _statements() -> dict[str, LiteralString]:
    parts = _NAME.split(sql_folder().joinpath("queries.sql").read_text(encoding="utf-8"))
    named = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert len(named) == len(parts) // 2, "a statement is named twice"
    return {name: _bare(text) for name, text in named.items()}


def _bare(text: str) -> LiteralString:
    """Drop the comment lines, and the semicolon that ends the statement."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    return "\n".join(lines).strip().removesuffix(";")


def statement(name: str) -> LiteralString:
    """Return the statement of that name in sql/queries.sql; KeyError if there is none."""
    return _statements()[name]


@cache
def migrations() -> tuple[Migration, ...]:
    """Return all migrations in order; their versions are 1, 2, 3, …"""
    found = []
    for file in sql_folder().joinpath("migrations").iterdir():
        match = _MIGRATION.match(file.name)
        if match:
            found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    found.sort(key=lambda migration: migration.version)
    assert [migration.version for migration in found] == list(range(1, len(found) + 1)), "migrations are not numbered 1, 2, 3, …"
    return tuple(found)
