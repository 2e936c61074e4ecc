"""From a TOML file to a checked `Config`, with every problem of the file in one list.

Reading goes on after a problem: a refused value is replaced by its default, so that one mistake does not hide the next, and
the checks between keys run on what could be read. A problem reads `file: key = value: what is allowed`; values of secrets
never stand in one.

The file is `--config`, else OBS_CONFIG, else ./obs.toml, else none, which gives the defaults and no provider. A relative
path inside the file counts from the folder of the file, so that it means the same wherever a command is typed; the default
data directory and paths of the command line count from the working directory.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from obs.config.kinds import FilePath, Refused, is_loopback
from obs.config.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_FILE,
    PROVIDER_NAME,
    RESERVED_NAMES,
    TABLES,
    Config,
    DatabaseOptions,
    ProviderConfig,
    ProviderOptions,
    hidden_password,
)
from obs.config.venues import SYMBOLS, TYPES, ProviderType
from obs.errors import ConfigError


@dataclass(slots=True)
class Problems:
    """Collects the problems of one file."""

    source: str
    lines: list[str] = field(default_factory=list)

    def add(self, key: str, value: Any, allowed: str) -> None:
        self.lines.append(f"{self.source}: {key} = {_shown(key, value)}: {allowed}")

    def unknown(self, key: str, known: Collection[str]) -> None:
        near = difflib.get_close_matches(key.rpartition(".")[2], sorted(known), n=1, cutoff=0.7)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(known))}"
        self.lines.append(f"{self.source}: {key}: no such key; {hint}")


def find(config: str | Path | None, environ: Mapping[str, str], cwd: Path) -> Path | None:
    """Return the configuration file to read, None if there is none. A file that was named is returned even if it is missing."""
    if config is not None:
        return cwd / config
    if named := environ.get("OBS_CONFIG"):
        return cwd / named
    default = cwd / DEFAULT_FILE
    return default if default.is_file() else None


def load(
    config: str | Path | None = None,
    *,
    data: str | Path | None = None,
    environ: Mapping[str, str],
    default_data: str = DEFAULT_DATA_DIR,
    cwd: Path | None = None,
) -> Config:
    """Read and check the configuration.

    `data` overrides data_dir; `default_data` is used where neither it nor the file names one. OBS_DSN of `environ` overrides
    database.dsn. Raises ConfigError whose `problems` are all that is wrong. What only a start needs (symbols, credentials) is
    checked by `start_problems`, so that a reader of an archive needs no keys.
    """
    cwd = cwd or Path.cwd()
    path = find(config, environ, cwd)
    source = _source_name(path, cwd)
    document = _parse(path, source) if path is not None else {}
    problems = Problems(source)
    base = path.resolve().parent if path is not None else cwd

    tables = {name: _read_table(problems, name, options, document.get(name, {}), base) for name, options in TABLES.items()}
    for key in document:
        if key not in {"data_dir", "providers", *TABLES}:
            problems.unknown(key, {"data_dir", "providers", *TABLES})
    tables["database"] = _database(problems, tables["database"], environ, path)
    providers = _providers(problems, document.get("providers", {}), base)
    result = Config(data_dir=_data_dir(problems, document, data, default_data, base, cwd), providers=providers, source=source, **tables)
    _check_tables(problems, result)
    _check_sharing(problems, result)
    if problems.lines:
        raise ConfigError(f"the configuration has {_count(len(problems.lines), 'problem')}", problems=problems.lines)
    return result


def config_hash(config: Config) -> str:
    """Return 16 hex digits that change with any setting; no secret goes in, so it may be stored and shown."""
    plain = dataclasses.asdict(config)
    plain["database"]["dsn"] = hidden_password(config.database.dsn) if config.database.dsn else None
    del plain["source"]
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _source_name(path: Path | None, cwd: Path) -> str:
    if path is None:
        return "defaults"
    return str(path.relative_to(cwd)) if path.is_relative_to(cwd) else str(path)


def _parse(path: Path, source: str) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError("the configuration cannot be read", problems=[f"{source}: {error.strerror or error}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        # TOML itself refuses a key or a section that stands twice: the text of the error names it and the line.
        raise ConfigError("the configuration is not TOML", problems=[f"{source}: {error}"]) from None


def _read_table(problems: Problems, table: str, options: type[Any], given: Any, base: Path) -> Any:
    """Read one table into its options; a refused value is reported and leaves the default."""
    fields = {item.name: item for item in dataclasses.fields(options) if "kind" in item.metadata}
    if not isinstance(given, dict):
        problems.add(table, given, f"a table, written [{table}]")
        return options()
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in fields:
            problems.unknown(f"{table}.{key}", fields)
            continue
        kind = fields[key].metadata["kind"]
        try:
            values[key] = kind.read(value)
        except Refused as refused:
            problems.add(f"{table}.{key}", value, refused.detail or kind.allowed)
            continue
        if isinstance(kind, FilePath):
            values[key] = base / values[key]
    return options(**values)


def _data_dir(problems: Problems, document: Mapping[str, Any], data: str | Path | None, default: str, base: Path, cwd: Path) -> Path:
    chosen = cwd / default
    if "data_dir" in document:
        try:
            chosen = base / FilePath().read(document["data_dir"])
        except Refused:
            problems.add("data_dir", document["data_dir"], FilePath().allowed)
    if data is not None:
        chosen = cwd / Path(data).expanduser()
    return chosen.resolve()


def _database(problems: Problems, given: DatabaseOptions, environ: Mapping[str, str], path: Path | None) -> DatabaseOptions:
    if given.dsn is not None and hidden_password(given.dsn) != given.dsn and path is not None and path.stat().st_mode & 0o077:
        problems.add("database.dsn", given.dsn, "no password in a file that others may read: chmod 0600 it, or use OBS_DSN or ~/.pgpass")
    return DatabaseOptions(dsn=environ["OBS_DSN"]) if environ.get("OBS_DSN") else given


def _providers(problems: Problems, given: Any, base: Path) -> tuple[ProviderConfig, ...]:
    if not isinstance(given, dict):
        problems.add("providers", given, "tables, written [providers.NAME]")
        return ()
    read = []
    for name, table in given.items():
        key = f"providers.{name}"
        if not re.fullmatch(PROVIDER_NAME, name) or name in RESERVED_NAMES:
            allowed = "a name of 1 to 24 small letters, digits and _ that begins with a letter"
            problems.add("providers", name, f"{allowed}, not {', '.join(RESERVED_NAMES)}")
        options = _read_table(problems, key, ProviderOptions, table, base)
        if isinstance(table, dict) and (provider := _provider(problems, key, name, options)):
            read.append(provider)
    return tuple(read)


def _provider(problems: Problems, key: str, name: str, options: ProviderOptions) -> ProviderConfig | None:
    """Fill in what the type gives and check the keys against each other; None where the type or place is unknown."""
    kind = TYPES.get(options.type or name)
    if kind is None:
        near = difflib.get_close_matches(options.type or name, list(TYPES), n=1)
        hint = f"; did you mean {near[0]}?" if near else "" if options.type else "; the default is the name of the section"
        problems.add(f"{key}.type", options.type or name, f"one of {', '.join(TYPES)}{hint}")
        return None
    market = options.market or kind.places[0].market
    if market not in kind.markets:
        problems.add(f"{key}.market", market, f"one of {', '.join(kind.markets)}")
        return None
    venue = options.venue or kind.venues(market)[0]
    place = kind.place(market, venue)
    if place is None:
        problems.add(f"{key}.venue", venue, f"one of {', '.join(kind.venues(market))} for market {market}")
        return None
    channels = kind.channels if options.channels is None else options.channels
    if not channels or not set(channels) <= set(place.channels):
        problems.add(f"{key}.channels", channels, f"at least one of {', '.join(place.channels)}, each once")
        channels = kind.channels
    default_credentials = (name.upper(),) if kind.secret_names else ()
    provider = ProviderConfig(
        name=name,
        type=options.type or name,
        enabled=options.enabled,
        market=market,
        venue=venue,
        rest_url=options.rest_url or place.rest_url,
        ws_url=options.ws_url or place.ws_url,
        credentials=default_credentials if options.credentials is None else options.credentials,
        secrets_file=options.secrets_file,
        symbols=options.symbols,
        channels=channels,
        slots=_default_slots(kind, channels) if options.slots is None else options.slots,
        mode=options.mode,
        hours=options.hours,
        calls_per_s=options.calls_per_s,
        master_url=options.master_url,
    )
    _check_provider(problems, key, provider, kind)
    return provider


def _default_slots(kind: ProviderType, channels: Collection[str]) -> int:
    return kind.slots if kind.registrations is None else min(kind.slots, kind.registrations // len(channels))


def _check_provider(problems: Problems, key: str, provider: ProviderConfig, kind: ProviderType) -> None:
    if kind.secret_names is None and provider.credentials:
        problems.add(f"{key}.credentials", provider.credentials, f"nothing: {provider.type} needs none")
    if kind.secret_names is not None and not provider.credentials:
        example = f'["{provider.name.upper()}"] for ' + " and ".join(f"{provider.name.upper()}_{name}" for name in kind.secret_names)
        problems.add(f"{key}.credentials", [], f"at least one environment prefix, such as {example}")
    pattern, example = SYMBOLS[provider.market]
    if wrong := [symbol for symbol in provider.symbols if not re.fullmatch(pattern, symbol)]:
        problems.add(f"{key}.symbols", wrong, f"each {example}")
    cost = len(provider.channels)
    room = provider.slots * max(1, len(provider.credentials))
    if kind.registrations is not None and provider.slots * cost > kind.registrations:
        said = f"{provider.slots} slots x {cost} channels = {provider.slots * cost} registrations"
        allowed = f"at most {kind.registrations // cost}: {said}, {provider.type} gives {kind.registrations} per credential"
        problems.add(f"{key}.slots", provider.slots, allowed)
    elif len(provider.symbols) > room:
        problems.add(f"{key}.symbols", f"{len(provider.symbols)} symbols", f"at most {room}: slots x credentials")


def _check_tables(problems: Problems, config: Config) -> None:
    if not is_loopback(config.http.host) and config.http.token_file is None:
        problems.add("http.host", config.http.host, "a loopback address such as 127.0.0.1, unless http.token_file is set")
    if 86400 % config.archive.segment_s:
        problems.add("archive.segment_s", config.archive.segment_s, "a divisor of 86400, so that a day ends with a segment")
    if config.archive.flush_s > config.archive.segment_s:
        problems.add("archive.flush_s", config.archive.flush_s, f"at most archive.segment_s = {config.archive.segment_s}")
    if config.supervisor.sink_heartbeat_s < config.supervisor.heartbeat_s:
        allowed = f"at least supervisor.heartbeat_s = {config.supervisor.heartbeat_s:g}: a sink waits for disks"
        problems.add("supervisor.sink_heartbeat_s", config.supervisor.sink_heartbeat_s, allowed)


def _check_sharing(problems: Problems, config: Config) -> None:
    """One app key allows one connection: two sections must never hold the same."""
    holder: dict[tuple[str, str, Path | None], str] = {}
    for provider in config.planned():
        for prefix in provider.credentials:
            key = (provider.type, prefix, provider.secrets_file)
            if key in holder:
                allowed = f"a credential that no other section uses; {prefix} is that of providers.{holder[key]}"
                problems.add(f"providers.{provider.name}.credentials", provider.credentials, allowed)
            holder.setdefault(key, provider.name)


def _shown(key: str, value: Any) -> str:
    if key == "database.dsn":
        return json.dumps(hidden_password(value)) if isinstance(value, str) else "(not a text)"
    text = json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False, default=str)
    return text if len(text) <= 120 else text[:117] + "…"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
