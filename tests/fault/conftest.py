"""The seed of the random moments, and one demo per test that is cleaned up whatever happens."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from harness import LONG, SEED, Demo

from obs.pg.embedded import EmbeddedPostgres

_NUMBERS = itertools.count()


def pytest_report_header() -> str:
    return f"fault tests: OBS_FAULT_SEED={SEED} {'long' if LONG else 'short'} form (OBS_FAULT_LONG)"


@pytest.fixture
def demo(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Demo]]:
    """Return a maker of demos; each is closed after the test."""
    made: list[Demo] = []

    def make(**tables: Any) -> Demo:
        folder = tmp_path / f"demo{len(made)}"
        folder.mkdir()
        made.append(Demo(folder, request.node.name, **tables))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A database server for the tests that do not kill theirs: each takes a database of its own."""
    embedded = EmbeddedPostgres(tmp_path_factory.mktemp("postgres") / "pg")
    embedded.start()
    yield embedded
    assert embedded.stop()


@pytest.fixture
def dsn(server: EmbeddedPostgres) -> Iterator[str]:
    """The DSN of an empty database."""
    yield from _database(server)


@pytest.fixture
def second_dsn(server: EmbeddedPostgres) -> Iterator[str]:
    """The DSN of another one."""
    yield from _database(server)


def _database(server: EmbeddedPostgres) -> Iterator[str]:
    name = f"fault_{next(_NUMBERS)}"
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}")
    yield server.dsn().replace("/obs?", f"/{name}?")
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)")
