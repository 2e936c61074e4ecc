"""`obs status`: what runs here now, and how it is."""

from __future__ import annotations

import argparse
from typing import Final

from obs.cli import archive
from obs.cli.terminal import columns, paint, print_json
from obs.config import Config
from obs.errors import EXIT_FOUND, EXIT_GOOD, EXIT_UNKNOWN

HELP: Final = "show the running processes, connections and health"
EXAMPLES: Final = """\
  obs status                                  first line: how it is, why, and what to do
  obs top                                     the same and more, live
  obs status --json | jq .health"""
EXITS: Final = {EXIT_GOOD: "healthy", EXIT_FOUND: "not healthy: the first line says why", EXIT_UNKNOWN: "nothing runs here"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing of its own."""


def run(args: argparse.Namespace, config: Config) -> int:
    """Show it; 0 healthy, 1 not, 4 nothing runs."""
    archive.require(config.data_dir)

    from obs.cli.glance import lines
    from obs.cli.running_monitor import ask, correct
    from obs.monitor.status import collect

    status = collect(config)
    correct(status, ask(config))
    if args.json:
        print_json(status)
    else:
        for line in lines(status, columns()):
            print(paint(line.text, line.colour) if line.colour else line.text)
    if not status["running"]:
        return EXIT_UNKNOWN
    return EXIT_GOOD if status["health"]["ok"] else EXIT_FOUND
