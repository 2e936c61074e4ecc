"""One embedded PostgreSQL for the whole run, of which each test gets a database of its own; and real polls against simulated venues."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from poll_rig import Rig

from obs.pg.embedded import EmbeddedPostgres
from obs.pg.migrate import migrate

_NUMBERS = itertools.count()
_TEMPLATE = "obs_template"


def _in(dsn: str, database: str) -> str:
    return dsn.replace("/obs?", f"/{database}?")


@pytest.fixture(scope="session")
def pg_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """The server; a test that stops or kills it takes one of its own."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres") / "pg")
    server.start()
    yield server
    assert server.stop()
    assert not server.is_alive()


@pytest.fixture(scope="session")
def _pg_template(pg_server: EmbeddedPostgres) -> str:
    dsn = pg_server.dsn()
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {_TEMPLATE}")
    migrate(_in(dsn, _TEMPLATE))
    return dsn


@pytest.fixture
def empty_dsn(pg_server: EmbeddedPostgres) -> Iterator[str]:
    """DSN of an empty database, dropped after the test."""
    yield from _database(pg_server.dsn(), "template0")


@pytest.fixture
def pg_dsn(_pg_template: str) -> Iterator[str]:
    """DSN of a database with all migrations, dropped after the test."""
    yield from _database(_pg_template, _TEMPLATE)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(*args: Any, **options: Any) -> Rig:
        made.append(Rig(tmp_path, *args, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def _database(dsn: str, template: str) -> Iterator[str]:
    name = f"test_{next(_NUMBERS)}"
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield _in(dsn, name)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)")
