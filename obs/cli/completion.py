"""`obs completion`: what bash or zsh needs to complete the words of this command, names of providers and symbols among them.

The script is made from the parser itself, so it is never behind. Names are asked of `obs completion words` when they are
needed, with the --data and --config that already stand on the line; that reads folder names and small files, nothing else.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Final

import orjson

from obs.cli.providers import known_providers
from obs.cli.terminal import complain, print_json
from obs.config import Config
from obs.errors import EXIT_GOOD, ConfigError

HELP: Final = "print a completion script for bash or zsh"
EXAMPLES: Final = """\
  obs completion bash > ~/.local/share/bash-completion/completions/obs       for one user; new shells have it
  obs completion bash | sudo tee /usr/share/bash-completion/completions/obs  for all users
  eval "$(obs completion bash)"                                              for this shell alone
  obs completion zsh > "${fpath[1]}/_obs"                                    zsh, with `autoload -U compinit; compinit`
  obs completion words providers                                             what <Tab> offers after --provider"""
EXITS: Final = {EXIT_GOOD: "printed"}
SHELLS: Final = ("bash", "zsh")
WORDS: Final = ("providers", "symbols")

# $1 is what to list. The options that say where to look are taken from the line as it stands.
_BASH: Final = """\
_obs_words() {
  local at given=()
  for ((at = 1; at < COMP_CWORD; at++)); do
    case ${COMP_WORDS[at]} in
      --data | --config | --provider) given+=("${COMP_WORDS[at]}" "${COMP_WORDS[at + 1]}"); ((at++)) ;;
    esac
  done
  compgen -W "$("${COMP_WORDS[0]}" completion words "$1" "${given[@]}" 2>/dev/null)" -- "$2"
}
_obs_providers() { _obs_words providers "$1"; }
_obs_symbols() { _obs_words symbols "$1"; }
"""
_ZSH: Final = """\
_obs_words() {
  local at given=() found=() line=(${(Q)${(z)LBUFFER}}) # of $words only those behind the command are left by now
  for ((at = 1; at < $#line; at++)); do
    case ${line[at]} in
      --data | --config | --provider) given+=("${line[at]}" "${line[at + 1]}"); ((at++)) ;;
    esac
  done
  found=(${(f)"$(obs completion words "$1" "${given[@]}" 2>/dev/null)"})
  compadd -a found
}
_obs_providers() { _obs_words providers }
_obs_symbols() { _obs_words symbols }
"""
_PREAMBLE: Final = {"bash": _BASH, "zsh": _ZSH}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", metavar="bash|zsh|words", choices=(*SHELLS, "words"), help="which shell; words: what it would offer")
    parser.add_argument("what", metavar="|".join(WORDS), nargs="?", choices=WORDS, help="with words: of what")
    parser.add_argument("--provider", metavar="P", help="with words: of this provider alone")


def run(args: argparse.Namespace, config: Config) -> int:
    """Print the script, or with `words` the names that are known of this data directory, one a line."""
    if args.shell == "words":
        if args.what is None:
            raise ConfigError(f"obs completion words: of what? {' or '.join(WORDS)}")
        found = known_providers(config) if args.what == "providers" else symbols(config, args.provider)
        if args.json:
            print_json(found)
        elif found:
            print("\n".join(found))
        return EXIT_GOOD
    text = script(args.shell)
    if args.json:
        print_json({"shell": args.shell, "script": text})
    else:
        print(text)
    return EXIT_GOOD


def script(shell: str) -> str:
    """Return the script for a shell of SHELLS."""
    import shtab

    from obs.cli.main import parser

    made = parser()
    _name_values(made)
    return shtab.complete(made, shell, preamble=_PREAMBLE[shell])


def _name_values(parser: argparse.ArgumentParser) -> None:
    """Say of each argument what its values are: shtab reads an attribute `complete`."""
    import shtab

    kinds = {
        "provider": {"bash": "_obs_providers", "zsh": "_obs_providers"}, "symbol": {"bash": "_obs_symbols", "zsh": "_obs_symbols"},
        "config": shtab.FILE, "data": shtab.DIRECTORY, "paths": shtab.FILE,
    }  # fmt: skip
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _name_values(command)
        elif action.dest in kinds:
            action.complete = kinds[action.dest]  # type: ignore[attr-defined]


def symbols(config: Config, provider: str | None) -> list[str]:
    """Return the symbols of the configuration and of the newest universe of its markets, else those that have a slot now."""
    found = {symbol for one in config.planned() if provider in (None, one.name) for symbol in one.symbols}
    section = config.provider(provider) if provider is not None else None
    for folder in sorted((config.data_dir / "universe").glob("*")):
        newest = max(folder.glob("[0-9]*.json"), default=None) if section is None or section.market == folder.name else None
        if newest is None:
            continue
        try:
            found |= {one["symbol"] for one in orjson.loads(newest.read_bytes())["symbols"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            complain("completion", f"{newest}: {error!r}")
    return sorted(found or _wanted(config, provider))


def _wanted(config: Config, provider: str | None) -> Iterator[str]:
    """Yield the symbols that a running provider wants: of a demo, whose symbols stand in no file."""
    from obs.monitor.slots import read_board

    for name in known_providers(config) if provider is None else [provider]:
        yield from ((read_board(config, name) or {}).get("wanted") or {}).get("symbols", ())
