"""The words of the `obs` command, what every command shares, and how errors become exit codes.

A command is a module with HELP, EXAMPLES, EXITS, `add_arguments(parser)` and `run(args, config) -> exit code`. Only the module of
the command that is asked for is imported, and it imports what is heavy inside `run`, so that `obs dsn` does not pay for `obs audit`.
`--config`, `--data` and `--json` may stand before or after the name of the command. A reader that closes our output
(`obs cat | head`) ends the command quietly.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Final

from obs import __version__
from obs.cli.terminal import complain
from obs.config import load
from obs.errors import EXIT_CONFIG, EXIT_FOUND, EXIT_GOOD, EXIT_UNKNOWN, ConfigError, ObsError

COMMANDS: Final = (
    "check", "status", "top", "audit", "cat", "tail", "verify", "gaps", "days", "slots", "universe", "migrate", "dsn", "completion",
)  # fmt: skip
EXIT_INTERRUPTED: Final = 130
# What every exit code of every command means; the EXITS of a command say what makes it so there.
EXITS: Final[Mapping[int, str]] = {
    EXIT_GOOD: "good: done, and nothing wrong was found",
    EXIT_FOUND: "found something wrong",
    EXIT_CONFIG: "usage or configuration",
    EXIT_UNKNOWN: "could not check: nothing is there, or it does not answer",
    EXIT_INTERRUPTED: "interrupted (Ctrl-C)",
    128 + signal.SIGTERM: "terminated",
}
CONFIGURATION: Final = "The configuration is --config, else OBS_CONFIG, else ./obs.toml, else the defaults."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    args, unknown = parser((name,) if (name := _named(words)) else COMMANDS).parse_known_args(words)
    if unknown:
        args.usage.error(f"unrecognized arguments: {' '.join(unknown)}")  # with the command's own usage, not that of `obs`
    signal.signal(signal.SIGTERM, _end)
    try:
        config = load(args.config, data=args.data, environ=os.environ)
        code: int = import_module(f"obs.cli.{args.command}").run(args, config)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout once more at exit, which would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_GOOD
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except ObsError as error:
        complain(args.command, str(error))
        return EXIT_CONFIG if isinstance(error, ConfigError) else EXIT_UNKNOWN
    except OSError as error:
        complain(args.command, str(error))
        return EXIT_UNKNOWN
    return code


def _end(number: int, _: object) -> None:
    """End through the `finally` blocks: a database that was started for this command is stopped again."""
    sys.exit(128 + number)


def _named(words: Sequence[str]) -> str | None:
    """Return the command that these words ask for, None if they name none."""
    left = iter(words)
    for word in left:
        if word in ("--config", "--data"):
            next(left, None)
        elif not word.startswith("-"):
            return word if word in COMMANDS else None
    return None


def parser(names: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """Return the parser of these commands."""
    shared = _shared(default=argparse.SUPPRESS)
    made = argparse.ArgumentParser(
        prog="obs",
        description="Look at what Stock Observer has recorded, and prove that nothing was lost silently.",
        epilog=f"{CONFIGURATION}\n\n{_exits(EXITS)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[_shared(default=None)],
        allow_abbrev=False,  # `_named` knows whole words
    )
    made.add_argument("--version", action="version", version=f"obs {__version__}")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in names:
        module = import_module(f"obs.cli.{name}")
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            epilog=f"examples:\n{module.EXAMPLES}\n\n{CONFIGURATION}\n\n{_exits({EXIT_CONFIG: EXITS[EXIT_CONFIG], **module.EXITS})}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[shared],
        )
        module.add_arguments(command)
        command.set_defaults(usage=command)
    return made


def _exits(codes: Mapping[int, str]) -> str:
    return "exit codes:\n" + "\n".join(f"  {code:<4} {codes[code]}" for code in sorted(codes))


def _shared(default: str | None) -> argparse.ArgumentParser:
    # A subcommand's own default would hide what stood before its name: there it must leave no trace.
    shared = argparse.ArgumentParser(add_help=False, argument_default=default)
    group = shared.add_argument_group("everywhere")
    group.add_argument("--config", metavar="FILE", default=default, help="configuration file")
    group.add_argument("--data", metavar="DIR", default=default, help="data directory, instead of the configured one")
    group.add_argument("--json", action="store_true", default=default or False, help="print JSON for a program")
    return shared
