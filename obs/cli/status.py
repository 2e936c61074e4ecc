"""`obs status`: what runs here now, and how it is."""

from __future__ import annotations

import argparse
from typing import Final

from obs.cli.report import show
from obs.config import Config

HELP: Final = "show the running processes, connections and health"
EXAMPLES: Final = """\
  obs status
  obs status --json | jq .health"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing of its own."""


def run(args: argparse.Namespace, config: Config) -> int:
    """Show it; 0 healthy, 1 not, 4 nothing runs."""
    from obs.monitor import status

    return show(status.collect(config), as_json=args.json)
