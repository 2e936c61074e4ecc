"""`obs migrate`: bring the database to the schema of this version; safe to run again."""

from __future__ import annotations

import argparse
from typing import Final

from obs.cli.database import database
from obs.cli.progress import progress
from obs.cli.terminal import paint, print_json
from obs.config import Config
from obs.errors import EXIT_FOUND, EXIT_GOOD, EXIT_UNKNOWN

HELP: Final = "bring the database to the schema of this version"
EXAMPLES: Final = """\
  obs migrate
  OBS_DSN=postgresql://obs@db/obs obs migrate --json"""
EXITS: Final = {
    EXIT_GOOD: "the database has the schema of this version",
    EXIT_FOUND: "a migration was changed after it had been applied",
    EXIT_UNKNOWN: "the database cannot be reached",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing of its own."""


def run(args: argparse.Namespace, config: Config) -> int:
    """Apply what is missing; 1 if a migration was changed after it had been applied."""
    from obs.pg.migrate import migrate, pending

    with database(config, make=True) as dsn:
        missing = pending(dsn)
        with progress("migrate", len(missing), wanted=bool(missing)) as advance:
            done = migrate(dsn, lambda name: advance(1, name))
    if args.json:
        print_json({"ok": not done.changed, "applied": done.applied, "version": done.version, "changed": done.changed})
    else:
        applied = f"applied {', '.join(f'{version:04d}' for version in done.applied)}" if done.applied else "nothing to apply"
        print(f"{config.database}: {applied}; schema version {done.version}")
        for name in done.changed:
            print(paint(f"{name} is not what was applied to this database: never change a migration, add one", "wrong"))
    return EXIT_FOUND if done.changed else EXIT_GOOD
