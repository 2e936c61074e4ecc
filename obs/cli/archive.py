"""Which files of a data directory a command speaks of: segments and day files, by provider, path date, or path.

Dates are path dates: the local day of the provider's market. Files come in the order in which they were opened. While a
collector runs, an open segment may be sealed between being listed and being read: `present` finds it again.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from obs.cli.providers import known_providers
from obs.clock import SYSTEM
from obs.config import Config, ProviderConfig
from obs.errors import ConfigError, ObsError
from obs.monitor.gaps import about as about  # one fact, one place; the commands say archive.about
from obs.segment.format import OPEN_SUFFIX, RINGS, SUFFIX, Series
from obs.segment.reader import is_segment
from obs.segment.textlog import is_day

_CLOCK: Final = re.compile(r"(\d\d_\d\d_\d\d)(?:_(\d+))?")


def day(text: str) -> str:
    """Read a --date: YYYYMMDD or YYYY-MM-DD."""
    number = text.replace("-", "")
    if not re.fullmatch(r"\d{4}(-?)\d\d\1\d\d", text) or not is_day(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a date: YYYYMMDD or YYYY-MM-DD")
    return number


def add_filters(parser: argparse.ArgumentParser, *, symbol: bool = True, date: bool = True) -> None:
    """Add the filters that several commands share."""
    parser.add_argument("--provider", metavar="P", help="of this provider alone (the name of its section)")
    if date:
        parser.add_argument("--date", metavar="D", type=day, help="of this path date alone, a day of the market: YYYYMMDD")
    if symbol:
        parser.add_argument("--symbol", metavar="S", help="of this symbol alone, with the gaps that concern it")


def require(data_dir: Path, provider: str | None = None) -> None:
    """Raise ObsError if there is no data directory, or nothing of `provider`: a command must not take that for an empty archive."""
    if not data_dir.is_dir():
        raise ObsError(f"no data directory {data_dir}; name it with --data or --config")
    if provider is None:
        return
    known = sorted({series.provider for dataset in RINGS for series in series_of(data_dir, dataset)})
    if provider not in known:
        raise ObsError(f"nothing of a provider {provider!r} in {data_dir}; there are: {', '.join(known) or 'none'}")


def require_provider(config: Config, provider: str | None) -> None:
    """Raise ObsError if neither the configuration nor the data directory knows `provider`: nothing found of it is no all-clear."""
    if provider is None or config.provider(provider) is not None:
        return
    known = known_providers(config)
    if provider not in known:
        where = f"it is neither configured nor in {config.data_dir}"
        raise ObsError(f"nothing is known of a provider {provider!r}: {where}; there are: {', '.join(known) or 'none'}")


def other_dates(config: Config, provider: str | None, date: str | None) -> str:
    """Return what to say of a path date of which there is nothing at all; else ""."""
    if date is None:
        return ""
    from obs.monitor.day import zone_of

    known: dict[str, list[str]] = {}  # date -> of whom
    zones = []
    for name in known_providers(config) if provider is None else [provider]:
        zones.append(f"{name}: {zone_of(_section(config, name).market)}")
        for one in _dates(config.data_dir, name):
            known.setdefault(one, []).append(name)
    near = [max((one for one in known if one < date), default=""), min((one for one in known if one > date), default="")]
    if date in known:
        return ""
    if not any(near):
        return f"there is nothing of {date}, nor of any other day"
    there = " and ".join(f"{one} ({', '.join(known[one])})" for one in near if one)
    return f"there is nothing of {date}; the nearest days that have anything: {there}. A date is a day of the market ({', '.join(zones)})"


def ends_of(config: Config, date: str) -> Callable[[str], int]:
    """Return a function that tells when a path date ends for a provider (UTC ns)."""
    from obs.monitor.day import end_of

    return lambda provider: end_of(_section(config, provider).market, date)


def is_today(config: Config, provider: str, date: str) -> bool:
    """Tell whether a path date is that of now, for a provider."""
    from obs.monitor.day import today

    return today(_section(config, provider), SYSTEM.wall_ns()) == date


def _section(config: Config, provider: str) -> ProviderConfig:
    """Return the section of a provider, or what its archive tells of one that has none."""
    from obs.monitor.slots import foreign

    return config.provider(provider) or foreign(config.data_dir, provider)


def _dates(data_dir: Path, provider: str) -> set[str]:
    """Return the path dates of which a provider has anything."""
    from obs.segment.textlog import day_files

    found = {folder.name for dataset in RINGS for series in series_of(data_dir, dataset, provider) for folder in series.day_folders()}
    return found | {path.stem for path in day_files(data_dir / "system" / "events" / provider)}


def series_of(data_dir: Path, dataset: str, provider: str | None = None) -> list[Series]:
    """Return the series of a dataset that are on disk, sorted by provider and market."""
    folder = data_dir / dataset
    if not folder.is_dir():
        return []
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and provider in (None, path.name))
    return [
        Series(data_dir, dataset, name, market.name) for name in names for market in sorted((folder / name).iterdir()) if market.is_dir()
    ]


def segments(folder: Path) -> list[Path]:
    """Return the segments of one day folder, open and sealed, in the order of their opening."""
    try:
        return sorted((path for path in folder.iterdir() if is_segment(path)), key=opening)
    except FileNotFoundError:
        return []


def opening(path: Path) -> tuple[str, str, int]:
    """Return what sorts segments of one series by their opening: 10_00_00, 10_00_00_2, … 10_00_00_10, 10_05_00."""
    found = _CLOCK.match(path.name)
    return (path.parent.name, found[1], int(found[2] or 1)) if found else (path.parent.name, path.name, 0)


def archive_files(data_dir: Path, provider: str | None, date: str | None, datasets: Sequence[str] = tuple(RINGS)) -> Iterator[Path]:
    """Yield the segments of these datasets, by provider, market, day and opening."""
    for dataset in datasets:
        for series in series_of(data_dir, dataset, provider):
            for folder in series.day_folders():
                if date in (None, folder.name):
                    yield from segments(folder)


def named_files(paths: Sequence[str]) -> Iterator[Path]:
    """Yield the files that PATH arguments name: files as given, the segments and .jsonl files below folders.

    Raises ConfigError (a usage error) for a path that does not exist.
    """
    for text in paths:
        path = present(Path(text))
        if path is None:
            raise ConfigError(f"no such file or folder: {text}")
        if path.is_dir():
            found = (item for item in path.rglob("*") if item.is_file() and (is_segment(item) or item.suffix == ".jsonl"))
            yield from sorted((item for item in found if item.name != "manifest.jsonl"), key=lambda item: (str(item.parent), opening(item)))
        else:
            yield path


def present(path: Path) -> Path | None:
    """Return `path`, or its name after sealing, or before, whichever exists now; None if none does."""
    name = path.name
    if not name:  # "." or "/"
        return path
    other = path.with_name(name.removesuffix(OPEN_SUFFIX) if name.endswith(OPEN_SUFFIX) else name + OPEN_SUFFIX)
    for candidate in (path, other, path):
        if candidate.exists():
            return candidate
    return None


def is_text(path: Path) -> bool:
    """Tell whether a file is plain text of one JSON object a line."""
    return not path.name.endswith((SUFFIX, SUFFIX + OPEN_SUFFIX))


def text_lines(path: Path) -> tuple[list[bytes], bytes]:
    """Return the whole lines of a plain-text file, and the bytes behind its last newline, which are not one yet."""
    *lines, rest = path.read_bytes().split(b"\n")
    return lines, rest
