"""The frozen options: one dataclass per table of the file, each key with its default and its kind.

This is the only place where a default is written; those that depend on the type of a provider are in
obs/config/venues.py. Durations are `_s`, sizes `_bytes`. Children receive these objects whole, through pickle; they do not
read the file again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from obs.config.kinds import Choice, Dsn, FilePath, Flag, Host, Kind, Names, Number, Size, Text, Url, Whole

DEFAULT_FILE: Final = "obs.toml"
DEFAULT_DATA_DIR: Final = "data"
DEFAULT_DEMO_DATA_DIR: Final = "demo-data"

# A provider's name is a folder, a part of session ids and of lock files, and a label of metrics.
PROVIDER_NAME: Final = r"[a-z][a-z0-9_]{0,23}"
RESERVED_NAMES: Final = ("services",)  # `.lock/services` is the host's own lock


def setting(default: Any, kind: Kind) -> Any:
    """Return a dataclass field with this default, whose value in the file is read by `kind`."""
    return field(default=default, metadata={"kind": kind})


def hidden_password(dsn: str) -> str:
    """Return `dsn` with its password, if it has one, replaced: for messages and logs."""
    if "://" in dsn:
        try:
            parts = urlsplit(dsn)
        except ValueError:  # no URL: nobody can say which part of it is the password
            return f"{dsn.partition('://')[0]}://***"
        if parts.password is not None:
            user, _, place = parts.netloc.rpartition("@")
            dsn = urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:***@{place}"))
    return " ".join("password=***" if word.startswith("password=") else word for word in dsn.split(" "))


@dataclass(frozen=True, slots=True)
class DatabaseOptions:
    """`dsn` None: an embedded PostgreSQL under the data directory. Its repr shows no password."""

    dsn: str | None = field(default=None, repr=False, metadata={"kind": Dsn()})

    def __str__(self) -> str:
        return hidden_password(self.dsn) if self.dsn else "embedded"


@dataclass(frozen=True, slots=True)
class HttpOptions:
    host: str = setting("127.0.0.1", Host())
    port: int = setting(8000, Whole(0, 65535))  # 0: any free port
    token_file: Path | None = field(default=None, metadata={"kind": FilePath("the path of a file, mode 0600, that holds the token")})


@dataclass(frozen=True, slots=True)
class ArchiveOptions:
    flush_s: float = setting(1.0, Number(0.05, 60, "seconds"))
    segment_s: int = setting(300, Whole(1, 86400, "seconds"))
    segment_bytes: int = setting(64 << 20, Size(4 << 10, 4 << 30))
    zstd_level: int = setting(1, Whole(1, 19))


@dataclass(frozen=True, slots=True)
class LoaderOptions:
    rows: int = setting(10_000, Whole(1, 1_000_000, "rows"))
    flush_s: float = setting(1.0, Number(0.05, 60, "seconds"))


@dataclass(frozen=True, slots=True)
class RingOptions:
    """Capacities count records; a ring takes capacity x record size of shared memory, all of it at its creation."""

    dir: Path = field(default=Path("/dev/shm"), metadata={"kind": FilePath("a folder of a memory file system")})
    capacity: int = setting(131_072, Whole(16, 1 << 26, "records", power_of_two=True))
    event_capacity: int = setting(8_192, Whole(16, 1 << 22, "records", power_of_two=True))
    swing_capacity: int = setting(16_384, Whole(16, 1 << 24, "records", power_of_two=True))
    quarantine_capacity: int = setting(1_024, Whole(32, 1 << 20, "records", power_of_two=True))  # a message takes up to 17
    max_sessions: int = setting(3, Whole(1, 100))

    def capacities(self) -> dict[str, int]:
        """Return the capacity of each ring of a provider, by the ring's name."""
        return {
            "tick": self.capacity,
            "event": self.event_capacity,
            "swing": self.swing_capacity,
            "poll_event": self.event_capacity,
            "quarantine": self.quarantine_capacity,
        }


@dataclass(frozen=True, slots=True)
class QuarantineOptions:
    bytes_per_day: int = setting(64 << 20, Size(0, 1 << 40))


@dataclass(frozen=True, slots=True)
class SupervisorOptions:
    heartbeat_s: float = setting(15.0, Number(1, 3600, "seconds"))
    sink_heartbeat_s: float = setting(120.0, Number(1, 3600, "seconds"))


@dataclass(frozen=True, slots=True)
class MitigationOptions:
    """`enabled` False: the feeds record at full speed whatever it costs. Thresholds and times are those of obs/pressure/mitigation.py."""

    enabled: bool = setting(True, Flag())


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What `--demo` drives its simulated exchanges with. `rate` is in inputs/s over all of them together."""

    source: str = setting("model", Choice(("numbered", "model", "recordings")))
    rate: float = setting(400.0, Number(0.1, 1_000_000, "inputs/s in all"))
    mode: str = setting("sample", Choice(("sample", "tape")))
    seed: int = setting(1, Whole(0, 2**63 - 1))
    script: Path | None = field(default=None, metadata={"kind": FilePath("the path of a file of script lines")})
    recordings: Path | None = None  # from --recordings alone


@dataclass(frozen=True, slots=True)
class ProviderOptions:
    """The keys of one [providers.NAME] table as they stand in the file; None: by type (obs/config/venues.py)."""

    type: str | None = setting(None, Text("the name of a provider type"))
    enabled: bool = setting(True, Flag())
    market: str | None = setting(None, Text("the name of a market"))
    venue: str | None = setting(None, Text("the name of a venue"))
    rest_url: str | None = setting(None, Url(("http", "https")))
    ws_url: str | None = setting(None, Url(("ws", "wss")))
    credentials: tuple[str, ...] | None = setting(
        None, Names('a list of environment prefixes such as ["KIS"] (for KIS_APP_KEY and KIS_APP_SECRET)', r"[A-Z][A-Z0-9_]*")
    )
    secrets_file: Path | None = field(default=None, metadata={"kind": FilePath("the path of a file, mode 0600, of NAME=value lines")})
    symbols: tuple[str, ...] = setting((), Names("a list of symbols", r"[!-~]{1,20}"))
    channels: tuple[str, ...] | None = setting(None, Names('a list of channels such as ["trade"]', r"[a-z_0-9.]+"))
    slots: int | None = setting(None, Whole(1, 1000, "symbols per credential"))
    mode: str = setting("sample", Choice(("sample", "tape")))
    hours: str = setting("calendar", Choice(("calendar", "always")))
    calls_per_s: float | None = setting(None, Number(0.05, 1000, "REST calls per second"))
    master_url: str | None = setting(None, Url(("http", "https")))


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """One provider, complete: one type, one market, one venue. `slots` counts symbols per credential.

    No `symbols`: they are selected. `calls_per_s`, `master_url`: None = those of the venue (obs/providers/*/options.py).
    """

    name: str
    type: str
    enabled: bool
    market: str
    venue: str
    rest_url: str
    ws_url: str
    credentials: tuple[str, ...]
    secrets_file: Path | None
    symbols: tuple[str, ...]
    channels: tuple[str, ...]
    slots: int
    mode: str
    hours: str
    calls_per_s: float | None = None
    master_url: str | None = None

    @property
    def selects(self) -> bool:
        """Whether poll selects the symbols, because none are listed."""
        return not self.symbols

    def provider_options(self) -> dict[str, float | str]:
        """Return the settings that only the provider's own code reads, those that are set."""
        return {name: value for name in ("calls_per_s", "master_url") if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration, checked. Picklable, holds no secret but the password of a DSN from OBS_DSN."""

    data_dir: Path  # absolute
    database: DatabaseOptions = DatabaseOptions()
    http: HttpOptions = HttpOptions()
    archive: ArchiveOptions = ArchiveOptions()
    loader: LoaderOptions = LoaderOptions()
    ring: RingOptions = RingOptions()
    quarantine: QuarantineOptions = QuarantineOptions()
    supervisor: SupervisorOptions = SupervisorOptions()
    mitigation: MitigationOptions = MitigationOptions()
    demo: DemoOptions = DemoOptions()
    providers: tuple[ProviderConfig, ...] = ()  # in the order of the file, disabled ones too
    source: str = ""  # the file it came from, "" for none
    is_demo: bool = False

    def planned(self) -> tuple[ProviderConfig, ...]:
        """Return the providers that run here: the enabled ones."""
        return tuple(provider for provider in self.providers if provider.enabled)

    def provider(self, name: str) -> ProviderConfig | None:
        """Return the provider of that name, enabled or not, or None."""
        return next((provider for provider in self.providers if provider.name == name), None)


TABLES: Final = {
    "database": DatabaseOptions,
    "http": HttpOptions,
    "archive": ArchiveOptions,
    "loader": LoaderOptions,
    "ring": RingOptions,
    "quarantine": QuarantineOptions,
    "supervisor": SupervisorOptions,
    "mitigation": MitigationOptions,
    "demo": DemoOptions,
}
