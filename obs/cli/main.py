"""The words of the `obs` command, what every command shares, and how errors become exit codes.

A command is a module with HELP, EXAMPLES, `add_arguments(parser)` and `run(args, config) -> exit code`; it imports what is heavy
inside `run`, so that `obs dsn` does not pay for `obs audit`. `--config`, `--data` and `--json` may stand before or after the
name of the command. A reader that closes our output (`obs cat | head`) ends the command quietly.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Final

from obs import __version__
from obs.cli import audit, cat, check, days, dsn, gaps, migrate, slots, status, tail, universe, verify
from obs.config import load
from obs.errors import EXIT_CONFIG, EXIT_GOOD, EXIT_UNKNOWN, ConfigError, ObsError

COMMANDS: Final[dict[str, ModuleType]] = {
    "check": check,
    "status": status,
    "audit": audit,
    "cat": cat,
    "tail": tail,
    "verify": verify,
    "gaps": gaps,
    "days": days,
    "slots": slots,
    "universe": universe,
    "migrate": migrate,
    "dsn": dsn,
}
EXIT_INTERRUPTED: Final = 130
EPILOG: Final = """\
The configuration is --config, else OBS_CONFIG, else ./obs.toml, else the defaults.
Exit codes: 0 good, 1 found something wrong, 2 usage or configuration, 4 could not check.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _end)
    try:
        config = load(args.config, data=args.data, environ=os.environ)
        code: int = COMMANDS[args.command].run(args, config)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout once more at exit, which would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_GOOD
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except ObsError as error:
        print(f"obs {args.command}: {error}", file=sys.stderr)
        return EXIT_CONFIG if isinstance(error, ConfigError) else EXIT_UNKNOWN
    except OSError as error:
        print(f"obs {args.command}: {error}", file=sys.stderr)
        return EXIT_UNKNOWN
    return code


def _end(number: int, _: object) -> None:
    """End through the `finally` blocks: a database that was started for this command is stopped again."""
    sys.exit(128 + number)


def _parser() -> argparse.ArgumentParser:
    shared = _shared(default=argparse.SUPPRESS)
    parser = argparse.ArgumentParser(
        prog="obs",
        description="Look at what Stock Observer has recorded, and prove that nothing was lost silently.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[_shared(default=None)],
    )
    parser.add_argument("--version", action="version", version=f"obs {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            epilog=f"examples:\n{module.EXAMPLES}\n\n{EPILOG}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[shared],
        )
        module.add_arguments(command)
    return parser


def _shared(default: str | None) -> argparse.ArgumentParser:
    # A subcommand's own default would hide what stood before its name: there it must leave no trace.
    shared = argparse.ArgumentParser(add_help=False, argument_default=default)
    group = shared.add_argument_group("everywhere")
    group.add_argument("--config", metavar="FILE", default=default, help="configuration file")
    group.add_argument("--data", metavar="DIR", default=default, help="data directory, instead of the configured one")
    group.add_argument("--json", action="store_true", default=default or False, help="print JSON for a program")
    return shared
