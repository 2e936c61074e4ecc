"""`obs top`: health, providers, processes and slots, live and full-screen; one frame where there is no terminal."""

from __future__ import annotations

import argparse
import shutil
import sys
from typing import TYPE_CHECKING, Any, Final

from obs.cli import archive
from obs.cli.terminal import complain, is_terminal, paint, print_json
from obs.clock import NS, SYSTEM
from obs.config import Config
from obs.errors import EXIT_FOUND, EXIT_GOOD, EXIT_UNKNOWN

if TYPE_CHECKING:
    from obs.cli.looking import Looker

HELP: Final = "watch health, providers, processes and slots live"
EXAMPLES: Final = """\
  obs top                     keys: q quit, p pause, 1 2 … provider, left and right the one before and after
  obs top --provider upbit    begin with the slots of upbit
  obs top | cat               one frame, as without a terminal
  obs top --json | jq '.slots[0].slots[].symbol'"""
EXITS: Final = {
    EXIT_GOOD: "left with q or Ctrl-C; without a terminal: healthy",
    EXIT_FOUND: "without a terminal: not healthy",
    EXIT_UNKNOWN: "there is no such provider; without a terminal: nothing runs here",
}
LOOK_S: Final = 0.5
_RATE_S: Final = 1.0  # a single frame looks twice, so that it has rates
_PAUSED_S: Final = 60.0  # nothing changes then but by a key
_QUIT: Final = ("q", "Q")
_PAUSE: Final = ("p", "P", " ")
_NEXT: Final = ("\x1b[C", "\x1bOC", "\t")
_PREVIOUS: Final = ("\x1b[D", "\x1bOD", "\x1b[Z")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    archive.add_filters(parser, symbol=False, date=False)


def run(args: argparse.Namespace, config: Config) -> int:
    """Show it until it is left."""
    archive.require(config.data_dir)
    archive.require_provider(config, args.provider)

    from obs.cli.looking import Looker

    looker = Looker(config)
    try:
        if args.json or not (sys.stdin.isatty() and is_terminal()):
            return _once(args, looker)
        return _live(args, looker)
    finally:
        looker.close()
        for text in looker.complaints:
            complain("top", text)  # after the screen is given back


def _chosen(status: dict[str, Any], name: str | None) -> int:
    return next((place for place, one in enumerate(status["providers"]) if one["name"] == name), 0)


def _once(args: argparse.Namespace, looker: Looker) -> int:
    """Print one frame: as wide as the terminal if there is one, and as long as it gets."""
    import time

    from obs.cli.frame import frame

    looker.look()
    time.sleep(_RATE_S)
    look = looker.look()
    if args.json:
        print_json({"status": look.status, "slots": list(look.slots.values())})
    else:
        room = shutil.get_terminal_size((120, 24)).columns
        for row in frame(look, room, 10_000, chosen=_chosen(look.status, args.provider), keys=False):
            print("".join(_painted(text, style) for text, style in row).rstrip())
    if not look.status["running"]:
        return EXIT_UNKNOWN
    return EXIT_GOOD if look.status["health"]["ok"] else EXIT_FOUND


def _painted(text: str, style: str) -> str:
    colour = {"title good": "good", "title warning": "warning", "title wrong": "wrong", "chosen": "bold"}.get(style, style)
    return paint(text, colour) if colour else text


def _live(args: argparse.Namespace, looker: Looker) -> int:
    from obs.cli.frame import frame
    from obs.cli.screen import opened

    look = looker.look()
    chosen, paused = _chosen(look.status, args.provider), False
    due_ns = SYSTEM.mono_ns()
    try:
        with opened() as screen:
            while True:
                if not paused and SYSTEM.mono_ns() >= due_ns:
                    look, due_ns = looker.look(), SYSTEM.mono_ns() + int(LOOK_S * NS)
                screen.show(frame(look, *screen.size, chosen=chosen, paused=paused))
                known = max(1, len(look.status["providers"]))
                for key in screen.keys((due_ns - SYSTEM.mono_ns()) / NS if not paused else _PAUSED_S):
                    if key in _QUIT:
                        return EXIT_GOOD
                    if key in _PAUSE:
                        paused = not paused
                    elif key.isdecimal() and 1 <= int(key) <= known:
                        chosen = int(key) - 1
                    elif key in _NEXT or key in _PREVIOUS:
                        chosen = (chosen + (1 if key in _NEXT else -1)) % known
    except KeyboardInterrupt:
        return EXIT_GOOD
