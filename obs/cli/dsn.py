"""`obs dsn`: where the database is, for psql and other programs."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import Final

from obs.cli.database import database, folder
from obs.cli.terminal import complain, print_json
from obs.config import Config
from obs.errors import EXIT_GOOD, EXIT_UNKNOWN

HELP: Final = "print the DSN of the database"
EXAMPLES: Final = """\
  psql "$(obs dsn)" -c 'select count(*) from scalp_ticks'
  obs dsn --hold                              keep the embedded database up without collectors, until Ctrl-C"""
EXITS: Final = {EXIT_GOOD: "the DSN was printed", EXIT_UNKNOWN: "there is no database yet, or it does not come up"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hold", action="store_true", help="keep the embedded database up until interrupted")


def run(args: argparse.Namespace, config: Config) -> int:
    """Print the DSN as it is, password included if OBS_DSN holds one. An embedded server that is down is said to be on stderr."""
    from obs.pg.embedded import EmbeddedPostgres

    ends = {signal.SIGINT, signal.SIGTERM}
    if args.hold:
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # waited for below, not acted upon
    embedded = config.database.dsn is None
    running = embedded and EmbeddedPostgres(folder(config)).pid() is not None
    with database(config) as dsn:
        if args.json:
            print_json({"dsn": dsn, "embedded": embedded, "running": running or args.hold or not embedded})
        else:
            print(dsn)
        sys.stdout.flush()
        if args.hold:
            signal.sigwait(ends)
    if embedded and not running and not args.hold:
        complain("dsn", "the embedded database is down now; it runs beside the collectors, or with `obs dsn --hold`")
    return EXIT_GOOD
