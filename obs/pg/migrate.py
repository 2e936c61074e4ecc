"""Bring a database to the schema of this version: numbered files, each in its own transaction with its row in migration_log.

Every step is taken under one advisory lock and looks at migration_log again once it holds it, so any number of
processes may migrate at once, and a kill at any instant leaves whole steps only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from obs.errors import SchemaMismatch
from obs.pg.connect import Connection, Dsn, connect, translated
from obs.pg.statements import Migration, migrations, statement


@dataclass(frozen=True)
class Migrated:
    """What `migrate` found and did: versions applied now, the version after, and names whose file has changed since."""

    applied: tuple[int, ...]
    version: int
    changed: tuple[str, ...]


def migrate(dsn: Dsn, told: Callable[[str], None] | None = None) -> Migrated:
    """Apply what is missing; safe to run again, and from several processes at once. `told`: of each step by its name.

    Raises LoadRetryable if the database cannot be used now, SchemaMismatch if it was migrated by a newer version of obs.
    """
    conn = connect(dsn, "obs migrate")
    with conn, translated(conn):
        applied = []
        while (step := _next_step(conn)) is not None:
            applied.append(step.version)
            if told is not None:
                told(f"{step.version:04d}_{step.name}")
        with conn.transaction():
            log = _log(conn)
    shipped = {migration.version: migration for migration in migrations()}
    changed = tuple(shipped[version].name for version, (_, sha256) in log.items() if shipped[version].sha256 != sha256)
    return Migrated(tuple(applied), max(log, default=0), changed)


def pending(dsn: Dsn) -> tuple[str, ...]:
    """Return the names of the migrations that this database still lacks, without applying any. Raises as `migrate`."""
    conn = connect(dsn, "obs check")
    with conn, translated(conn), conn.transaction():
        log = _log(conn)
    return tuple(f"{migration.version:04d}_{migration.name}" for migration in migrations() if migration.version not in log)


def _next_step(conn: Connection) -> Migration | None:
    with conn.transaction():
        conn.execute(statement("migration_lock"))
        log = _log(conn)
        for migration in migrations():
            if migration.version not in log:
                conn.execute(migration.text)
                facts = {"version": migration.version, "name": migration.name, "sha256": migration.sha256}
                conn.execute(statement("migration_applied"), facts)
                return migration
    return None


def _log(conn: Connection) -> dict[int, tuple[str, str]]:
    row = conn.execute(statement("migration_log_exists")).fetchone()
    if row is None or not row[0]:
        return {}
    log = {version: (name, sha256) for version, name, sha256 in conn.execute(statement("migrations_applied"))}
    newest = migrations()[-1].version
    if log and max(log) > newest:
        raise SchemaMismatch(
            "the database was migrated by a newer version of obs; update this one", found=max(log), expected_at_most=newest
        )
    return log
