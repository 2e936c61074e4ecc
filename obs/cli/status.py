"""`obs status`: what runs here now, and how it is."""

from __future__ import annotations

import argparse
from typing import Final

from obs.cli import archive
from obs.cli.terminal import print_json
from obs.config import Config
from obs.errors import EXIT_FOUND, EXIT_GOOD, EXIT_UNKNOWN

HELP: Final = "show the running processes, connections and health"
EXAMPLES: Final = """\
  obs status
  obs status --json | jq .health"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing of its own."""


def run(args: argparse.Namespace, config: Config) -> int:
    """Show it; 0 healthy, 1 not, 4 nothing runs."""
    archive.require(config.data_dir)

    from obs.monitor.status import collect, lines

    status = collect(config)
    if args.json:
        print_json(status)
    else:
        print("\n".join(lines(status)))
    if not status["running"]:
        return EXIT_UNKNOWN
    return EXIT_GOOD if status["health"]["ok"] else EXIT_FOUND
