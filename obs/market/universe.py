"""The universe: who is watched at all on one day, written once and then fixed, so that results can be reproduced.

    data/universe/<market>/<YYYYMMDD>.json
    {"format":"obs universe 1","market":"kr_stocks","day":20260122,"made_ns":…,"stale_since":null,"source":"kis",
     "listed":2748,"refused":{"halted":41,"price":310,…},
     "symbols":[{"symbol":"005930","name":"삼성전자","previous_close":71500,"traded_value":1.2e12},…]}

Symbols stand in the order of their traded value, the largest first: it is the order of the bootstrap list and of everything for
which a rate limit does not suffice. A day whose universe cannot be built has the one before it, marked `stale_since`; a list that is
much shorter than the one before is not a universe but a fault of its source. `made_ns` tells a list from the stale one it replaced.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from obs.errors import ConfigError
from obs.record.instruments import Instrument

FORMAT: Final = "obs universe 1"
# Source: specification 8. Market -> (what is compared, the least of it).
RULES: Final = {
    "kr_stocks": ("previous_close", 4_000.0),
    "us_stocks": ("previous_close", 1.0),
    "crypto": ("traded_value", 1_000_000_000.0),
}
SHRUNK: Final = 0.5  # of the listed issues of the day before: a shorter list is no universe


@dataclass(frozen=True, slots=True)
class Universe:
    """`day`: YYYYMMDD of the market. `listed`: issues that the source named; `refused`: reason -> how many of them are not watched.

    `stale_since`: the day that it was really built for, None if that is `day`.
    """

    market: str
    day: int
    source: str
    made_ns: int
    instruments: tuple[Instrument, ...]
    listed: int
    refused: dict[str, int]
    stale_since: int | None = None

    @property
    def symbols(self) -> list[str]:
        return [one.symbol for one in self.instruments]

    def stale_on(self, day: int) -> Universe:
        """Return the same list for a later day that has none of its own."""
        return replace(self, day=day, stale_since=self.stale_since or self.day)


def build(market: str, day: int, source: str, listed: Iterable[Instrument], made_ns: int) -> Universe:
    """Return the universe of one day by the market's rule. Symbols that come twice are taken once, the first."""
    field, least = RULES[market]
    kept: dict[str, Instrument] = {}
    refused: Counter[str] = Counter()
    count = 0
    for one in listed:
        count += 1
        value = getattr(one, field)
        reason = "twice" if one.symbol in kept else one.refused or ("unknown" if math.isnan(value) else "small" if value < least else "")
        if reason:
            refused[reason] += 1
        else:
            kept[one.symbol] = one
    ranked = sorted(kept.values(), key=lambda one: (-(0.0 if math.isnan(one.traded_value) else one.traded_value), one.symbol))
    return Universe(market, day, source, made_ns, tuple(ranked), count, dict(refused))


def doubt(universe: Universe, before: Universe | None) -> str:
    """Return why this is not to be taken for the universe, "" if it may: empty, or much shorter than what was listed before."""
    if not universe.instruments:
        return f"none of {universe.listed} listed issues fits"
    if before is not None and universe.listed < SHRUNK * before.listed:
        return f"{universe.listed} issues listed, {before.listed} on {before.day}"
    return ""


def path_of(data_dir: Path, market: str, day: int) -> Path:
    return data_dir / "universe" / market / f"{day}.json"


def save(universe: Universe, data_dir: Path) -> bool:
    """Write the day's file, whole and durable, unless there is one: what was fixed stays, but for a stale list, which a good one replaces.

    Return whether it was written.
    """
    path = path_of(data_dir, universe.market, universe.day)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    document = {
        "format": FORMAT, "market": universe.market, "day": universe.day, "made_ns": universe.made_ns, "stale_since": universe.stale_since,
        "source": universe.source, "listed": universe.listed, "refused": universe.refused,
        "symbols": [
            {"symbol": one.symbol, "name": one.name, "previous_close": _known(one.previous_close), "traded_value": _known(one.traded_value)}
            for one in universe.instruments
        ],
    }  # fmt: skip
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o640)
            json.dump(document, file, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # unlike a rename it never replaces what another process was the first to write
        except FileExistsError:
            if universe.stale_since is not None or not _is_stale(path):
                return False
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True


def _is_stale(path: Path) -> bool:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["stale_since"] is not None
    except (OSError, ValueError, KeyError, TypeError):
        return False


def load(data_dir: Path, market: str, day: int) -> Universe | None:
    """Return the universe that was fixed for a day, None if there is none. Raises ConfigError if the file does not read."""
    path = path_of(data_dir, market, day)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(f"{path} does not read: {error}; move it away, and it is built anew") from None
    try:
        if document["format"] != FORMAT:
            raise ConfigError(f"{path} has format {document['format']!r}, expected {FORMAT!r}")
        instruments = tuple(
            Instrument(str(one["symbol"]), str(one["name"]), _figure(one["previous_close"]), _figure(one["traded_value"]))
            for one in document["symbols"]
        )
        return Universe(
            str(document["market"]), int(document["day"]), str(document["source"]), int(document["made_ns"]), instruments,
            int(document["listed"]), {str(name): int(count) for name, count in document["refused"].items()}, document["stale_since"],
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path} is no universe: {error!r}; move it away, and it is built anew") from None


def newest_before(data_dir: Path, market: str, day: int) -> Universe | None:
    """Return the newest universe of an earlier day that reads, None if there is none."""
    folder = path_of(data_dir, market, day).parent
    days = sorted((int(path.stem) for path in folder.glob("[0-9]*.json") if path.stem.isdigit() and int(path.stem) < day), reverse=True)
    for one in days:
        try:
            return load(data_dir, market, one)
        except ConfigError:
            continue
    return None


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _figure(value: float | None) -> float:
    return math.nan if value is None else float(value)
