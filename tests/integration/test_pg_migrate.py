"""Migrations: the same schema by every road, whoever runs them and how often."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import psycopg
import pytest

from obs.errors import LoadRetryable, SchemaMismatch
from obs.pg.cluster import installed
from obs.pg.connect import connect
from obs.pg.migrate import migrate, pending
from obs.pg.partitions import day_of, make_around, make_day
from obs.pg.statements import migrations, sql_folder


def dump(dsn: str) -> list[str]:
    binaries = installed()
    tool = binaries[max(binaries, key=int)] / "pg_dump"
    text = subprocess.run([tool, "--schema-only", dsn], capture_output=True, check=True, text=True).stdout
    return [line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]


def test_schema_file_is_the_sum_of_the_migrations(pg_dsn: str, empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute(sql_folder().joinpath("schema.sql").read_text())
    assert dump(empty_dsn) == dump(pg_dsn)


def test_migrate_again_and_at_once(empty_dsn: str) -> None:
    assert len(pending(empty_dsn)) == len(migrations())
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(migrate, [empty_dsn] * 4))
    assert sorted(version for result in results for version in result.applied) == [migration.version for migration in migrations()]
    again = migrate(empty_dsn)
    assert (again.applied, again.changed, again.version) == ((), (), len(migrations()))
    assert pending(empty_dsn) == ()


def test_a_changed_file_is_named(pg_dsn: str) -> None:
    with psycopg.connect(pg_dsn, autocommit=True) as conn:
        conn.execute("UPDATE migration_log SET sha256 = 'x' WHERE version = 1")
    assert migrate(pg_dsn).changed == (migrations()[0].name,)


def test_a_newer_database_is_refused(pg_dsn: str) -> None:
    with psycopg.connect(pg_dsn, autocommit=True) as conn:
        conn.execute("INSERT INTO migration_log (version, name, sha256) VALUES (9999, 'later', 'x')")
    with pytest.raises(SchemaMismatch) as caught:
        migrate(pg_dsn)
    assert caught.value.facts["found"] == 9999


def test_no_server() -> None:
    with pytest.raises(LoadRetryable) as caught:
        migrate("postgresql://somebody:secret@/obs?host=/nonexistent")
    assert "secret" not in str(caught.value)


def test_partitions_made_at_once_and_again(pg_dsn: str) -> None:
    days = [date(2026, 1, 20 + place % 3) for place in range(12)]

    def make(day: date) -> bool:
        with connect(pg_dsn, "test") as conn:
            return make_day(conn, day)

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(make, days))
    assert sum(made) == 3
    with connect(pg_dsn, "test") as conn:
        make_around(conn, 1_769_041_865 * 10**9)
        names = [
            row[0] for row in conn.execute("SELECT relid::regclass::text FROM pg_partition_tree('scalp_ticks') WHERE isleaf ORDER BY 1")
        ]
    assert names == [f"scalp_ticks_202601{day}" for day in (20, 21, 22, 23)]


def test_a_reader_does_not_hold_up_a_new_partition(pg_dsn: str) -> None:
    with connect(pg_dsn, "reader") as reader, connect(pg_dsn, "test") as conn, reader.transaction():
        reader.execute("SELECT count(*) FROM scalp_ticks")
        conn.execute("SET lock_timeout = '2s'")
        assert make_day(conn, date(2026, 2, 1))


@pytest.mark.parametrize(("ns", "day"), [(0, date(1970, 1, 1)), (-1, date(1969, 12, 31)), (1_769_041_865 * 10**9, date(2026, 1, 22))])
def test_day_of(ns: int, day: date) -> None:
    assert day_of(ns) == day
