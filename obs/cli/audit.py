"""`obs audit`: prove the accounting from the files and the database alone."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import Final

from obs.cli import archive
from obs.cli.progress import progress, sizes
from obs.cli.report import show
from obs.cli.terminal import complain
from obs.config import Config
from obs.errors import EXIT_FOUND, EXIT_GOOD, EXIT_UNKNOWN, ConfigError, ObsError

HELP: Final = "prove from files and database that every message is accounted for"
EXAMPLES: Final = """\
  obs audit --date 20260122
  obs audit --json | jq '.mismatches[]'"""
EXITS: Final = {
    EXIT_GOOD: "the ledger closes",
    EXIT_FOUND: "it does not close: something has no fate",
    EXIT_UNKNOWN: "not everything could be judged (no database, a sink far behind, nothing recorded)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    told = "this path date alone, a day of the market: YYYYMMDD (default: the whole archive)"
    parser.add_argument("--date", metavar="D", type=archive.day, help=told)


def run(args: argparse.Namespace, config: Config) -> int:
    """Judge; 0 the ledger closes, 1 it does not, 4 it could not be judged (the database is away, a sink far behind)."""
    archive.require(config.data_dir)

    from obs.cli.database import database, last_error
    from obs.monitor import audit

    with ExitStack() as stack:
        dsn = away = None
        try:
            dsn = stack.enter_context(database(config))
        except ConfigError:
            raise
        except ObsError as error:  # the files are judged all the same
            said = last_error(config)
            away = f"{error}; its log says: {said}" if said else str(error)
        read = sum(sizes(archive.archive_files(config.data_dir, None, args.date)))
        with progress("audit", read, unit="bytes") as told:
            report = audit.run(config, date=args.date, dsn=dsn, away=away, told=told)
        if hint := archive.other_dates(config, None, args.date):
            complain("audit", hint)
        return show(report, as_json=args.json)
