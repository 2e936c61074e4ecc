"""Whom an operator wants watched, or never watched: `data/state/<provider>.pins.json`, written by `obs slots`, read by poll.

    {"pinned":["005930"],"excluded":["000660"]}

A pinned symbol has a slot for as long as it is pinned, also outside the day's universe; an excluded one has none. A symbol
stands in one of the two lists at most.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from obs.errors import ConfigError


class Pins(NamedTuple):
    """Record symbols, in the order in which they were named."""

    pinned: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()


def pins_path(data_dir: Path, provider: str) -> Path:
    return data_dir / "state" / f"{provider}.pins.json"


def read_pins(path: Path) -> Pins:
    """Return what stands there, nothing if there is no file. Raises ConfigError if it does not read."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        pins = Pins(*(tuple(dict.fromkeys(document.get(name, ()))) for name in Pins._fields))
    except FileNotFoundError:
        return Pins()
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"{path} does not read: {error!r}; mend it, or move it away and pin anew") from None
    if not all(isinstance(symbol, str) for symbol in (*pins.pinned, *pins.excluded)):
        raise ConfigError(f"{path} holds something that is no symbol; mend it, or move it away and pin anew")
    return pins._replace(pinned=tuple(symbol for symbol in pins.pinned if symbol not in pins.excluded))


def change_pins(path: Path, change: Callable[[Pins], Pins]) -> Pins:
    """Replace the file by what `change` makes of it, whole and durable, one caller at a time; return that. Raises ConfigError, OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        pins = change(read_pins(path))
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o640)
                if os.geteuid() == 0:  # of an operator as root: poll, another user, must be able to read it
                    owner = os.fstat(folder)
                    os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
                json.dump({"pinned": pins.pinned, "excluded": pins.excluded}, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        os.fsync(folder)
    finally:
        os.close(folder)
    return pins
