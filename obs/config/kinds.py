"""The kinds of value that a configuration key can hold: read one, or say what is allowed instead.

A kind is a small frozen value: `read(value)` returns the typed value or raises `Refused`, `allowed` is the text that
completes "key = value: …". Each key of obs/config/options.py names its kind beside its default, so that type, range,
default and error text of a key are one line in one place.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit


class Refused(Exception):
    """This value is not allowed; `detail` replaces the kind's own text where it says more."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail)
        self.detail = detail


class Kind(Protocol):
    """What a key needs: the text of what is allowed, and the reading of one TOML value."""

    @property
    def allowed(self) -> str: ...

    def read(self, value: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Flag:
    allowed: str = "true or false"

    def read(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise Refused
        return value


@dataclass(frozen=True, slots=True)
class Whole:
    low: int
    high: int
    unit: str = ""
    power_of_two: bool = False

    @property
    def allowed(self) -> str:
        what = "a power of two" if self.power_of_two else "a whole number"
        return f"{what}{f' of {self.unit}' if self.unit else ''}, {self.low} to {self.high}"

    def read(self, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            raise Refused
        if self.power_of_two and value & (value - 1):
            raise Refused(f"{self.allowed}, for example {1 << value.bit_length()}")
        return value


_SIZE = re.compile(r"(\d+) ?(KiB|MiB|GiB)")
_SIZE_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


@dataclass(frozen=True, slots=True)
class Size:
    """A number of bytes: 67108864, or a text such as "64 MiB"."""

    low: int
    high: int

    @property
    def allowed(self) -> str:
        return f'a number of bytes, {self.low} to {self.high}, or a text such as "64 MiB"'

    def read(self, value: Any) -> int:
        if isinstance(value, str) and (found := _SIZE.fullmatch(value)):
            value = int(found[1]) * _SIZE_UNITS[found[2]]
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            raise Refused
        return value


@dataclass(frozen=True, slots=True)
class Number:
    low: float
    high: float
    unit: str = ""

    @property
    def allowed(self) -> str:
        return f"a number{f' of {self.unit}' if self.unit else ''}, {self.low:g} to {self.high:g}"

    def read(self, value: Any) -> float:
        # NaN fails every comparison, so it is refused here too.
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            raise Refused
        return float(value)


@dataclass(frozen=True, slots=True)
class Text:
    allowed: str
    pattern: str = r"[^\x00-\x1f]+"

    def read(self, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(self.pattern, value):
            raise Refused
        return value


@dataclass(frozen=True, slots=True)
class Dsn:
    allowed: str = "a PostgreSQL URL or key=value text"

    def read(self, value: Any) -> str:
        text = Text(self.allowed).read(value)
        if "://" in text:
            try:
                urlsplit(text)
            except ValueError:
                raise Refused from None
        return text


@dataclass(frozen=True, slots=True)
class Choice:
    options: tuple[str, ...]

    @property
    def allowed(self) -> str:
        return "one of " + ", ".join(f'"{option}"' for option in self.options)

    def read(self, value: Any) -> str:
        if value not in self.options:
            raise Refused
        return str(value)


@dataclass(frozen=True, slots=True)
class Names:
    """A list of texts, each once, each matching `pattern`."""

    allowed: str
    pattern: str = r"[^\x00-\x20]+"

    def read(self, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise Refused
        if wrong := [item for item in value if not re.fullmatch(self.pattern, item)]:
            raise Refused(f"{self.allowed}; {', '.join(map(repr, wrong[:5]))} cannot stand in it")
        if twice := repeated(value):
            raise Refused(f"each name once; {', '.join(map(repr, twice[:5]))} stands twice")
        return tuple(value)


@dataclass(frozen=True, slots=True)
class FilePath:
    """A path; a relative one counts from the folder of the configuration file (the loader joins it)."""

    allowed: str = "a path"

    def read(self, value: Any) -> Path:
        if not isinstance(value, str) or not value or "\x00" in value:
            raise Refused
        return Path(value).expanduser()


@dataclass(frozen=True, slots=True)
class Url:
    schemes: tuple[str, ...]

    @property
    def allowed(self) -> str:
        return f"a URL that starts with {' or '.join(scheme + '://' for scheme in self.schemes)}"

    def read(self, value: Any) -> str:
        if not isinstance(value, str):
            raise Refused
        try:
            parts = urlsplit(value)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise Refused from None
        if parts.scheme not in self.schemes or not host or re.search(r"\s", value):
            raise Refused
        if parts.username is not None or parts.password is not None:
            raise Refused("a URL without a user name or password in it")
        return value.rstrip("/")


@dataclass(frozen=True, slots=True)
class Host:
    allowed: str = 'an address or host name, for example "127.0.0.1"'

    def read(self, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(r"[0-9A-Za-z.:_-]+", value):
            raise Refused
        return value


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def repeated(items: Sequence[str]) -> list[str]:
    """Return the items that occur more than once, each once, in order."""
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for item in items:
        if item in seen:
            twice[item] = None
        seen.add(item)
    return list(twice)
