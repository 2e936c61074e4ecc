"""Secrets, from the environment or from a file of mode 0600, and what a start needs beyond a correct file.

A secrets file holds `NAME=value` lines, with the names that the environment would have; blank lines and lines that begin
with # are skipped. No secret ever stands in a message: problems name the variable, never its value.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from obs.config.options import Config, ProviderConfig
from obs.config.venues import TYPES
from obs.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Secret:
    """One credential: the prefix it is configured by, and its key and secret, which its repr hides."""

    name: str
    key: str = field(repr=False)
    secret: str = field(repr=False)


def read_secrets(provider: ProviderConfig, environ: Mapping[str, str]) -> tuple[Secret, ...]:
    """Return one Secret per prefix of `provider.credentials`, in that order; () for a type that needs none.

    Raises ConfigError naming every variable that is missing or empty, or a file that others may read.
    """
    names = TYPES[provider.type].secret_names
    if names is None:
        return ()
    place = "the environment"
    values = environ
    if provider.secrets_file is not None:
        place = str(provider.secrets_file)
        values = _assignments(read_private_file(provider.secrets_file, f"providers.{provider.name}.secrets_file"))
    wanted = [(prefix, f"{prefix}_{names[0]}", f"{prefix}_{names[1]}") for prefix in provider.credentials]
    missing = [name for _, *pair in wanted for name in pair if not values.get(name, "").strip()]
    if missing:
        problem = f"providers.{provider.name}.credentials: {', '.join(missing)} not set in {place}"
        raise ConfigError("credentials are missing", problems=[problem])
    return tuple(Secret(prefix, values[key].strip(), values[secret].strip()) for prefix, key, secret in wanted)


def read_token(config: Config) -> str | None:
    """Return the token that HTTP requests must carry, None if none is configured. Raises ConfigError."""
    if config.http.token_file is None:
        return None
    token = read_private_file(config.http.token_file, "http.token_file").strip()
    if not token:
        raise ConfigError("the HTTP token is missing", problems=[f"http.token_file = {config.http.token_file}: a file with a token in it"])
    return token


def read_private_file(path: Path, key: str) -> str:
    """Return the text of a file that only its owner may read; raises ConfigError otherwise. `key` names it in the message."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, encoding="utf-8") as file:
            # Judged on the open file, so that it cannot be exchanged between the check and the reading.
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            if mode & 0o077:
                raise ConfigError("secrets are not private", problems=[f"{key} = {path}: mode {mode:04o}, must be 0600"])
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError("secrets cannot be read", problems=[f"{key} = {path}: {reason}"]) from None


def _assignments(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    return {name.strip().removeprefix("export "): value.strip().strip("\"'") for name, _, value in pairs}


def start_problems(config: Config, environ: Mapping[str, str], *, provider: str | None = None, services: bool = False) -> list[str]:
    """Return what keeps the collectors from starting although the file is correct; empty if nothing does.

    `provider`: judge that one alone (`--provider NAME`); `services`: the host's services alone, which need no provider.
    """
    source = config.source
    problems: list[str] = []
    if provider is None:  # the services run
        try:
            read_token(config)
        except ConfigError as error:
            problems += [f"{source}: {problem}" for problem in error.problems]
    if services:
        return problems
    if provider is not None:
        chosen = config.provider(provider)
        if chosen is None or not chosen.enabled:
            names = ", ".join(item.name for item in config.planned()) or "none"
            what = "is not enabled" if chosen else "no such section"
            return [f"{source}: providers.{provider}: {what}; enabled: {names}"]
        planned: tuple[ProviderConfig, ...] = (chosen,)
    else:
        planned = config.planned()
    if not planned:
        problems.append(f"{source}: providers: none is enabled; add a section such as [providers.upbit], or start with --demo")
    held: list[tuple[ProviderConfig, Secret]] = []
    for item in planned:
        if item.selects and (why := _unselected(item)):
            most = item.slots * max(1, len(item.credentials))
            problems.append(f"{source}: providers.{item.name}.symbols = []: list 1 to {most} symbols, they cannot be selected: {why}")
        try:
            held += [(item, secret) for secret in read_secrets(item, environ)]
        except ConfigError as error:
            problems += [f"{source}: {problem}" for problem in error.problems]
    problems += [f"{source}: {problem}" for problem in _shared_keys(held)]
    if config.is_demo and config.demo.source == "recordings" and config.demo.recordings is None:
        problems.append(f'{source}: demo.source = "recordings": name their folder with --recordings')
    return problems


def _shared_keys(held: Sequence[tuple[ProviderConfig, Secret]]) -> Iterator[str]:
    """Yield each credential that has the key of one before it, whatever its name: each of them would end the other's connection."""
    first: dict[tuple[str, str], str] = {}
    for provider, secret in held:
        place = f"providers.{provider.name}.credentials"
        if (other := first.setdefault((provider.type, secret.key), f"{secret.name} of {place}")) != f"{secret.name} of {place}":
            yield f"{place}: {secret.name} has the same key as {other}: one key allows one connection"


def _unselected(provider: ProviderConfig) -> str:
    """Return why nothing can select the symbols of this provider, "" if poll can."""
    kind = TYPES[provider.type]
    place = kind.place(provider.market, provider.venue)
    if urlsplit(provider.rest_url).port in kind.paper_ports:
        return "the paper server does not quote many issues in one call"
    return place.unselected if place is not None else ""


def require_start(config: Config, environ: Mapping[str, str], *, provider: str | None = None, services: bool = False) -> None:
    """Raise ConfigError with all of `start_problems`, if there are any."""
    if problems := start_problems(config, environ, provider=provider, services=services):
        raise ConfigError("the collectors cannot start", problems=problems)
