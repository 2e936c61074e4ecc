"""What one simulator is told: every default is written here, once, and shown by `--help`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from obs.sim.now import JITTER_S

VENUES: Final = ("kis", "upbit")
SOURCES: Final = ("numbered", "model", "recordings")


@dataclass(frozen=True, slots=True)
class SimOptions:
    """One simulated venue. Times end in `_s`; rates are per second."""

    venue: str
    host: str = "127.0.0.1"
    port: int = 0  # 0: any free one, told in the ready line
    source: str = "model"
    rate: float = 200.0  # inputs/s in all, over every subscribed channel and symbol
    seed: int = 1
    recordings: Path | None = None
    script: Path | None = None
    log: Path | None = None
    start_k: int | None = None  # numbered: the number before the first trade; None: from the venue's clock
    universe: int = 0  # symbols of obs/sim/universe.py; 0: the few of obs/sim/symbols.py, moved by the source
    clock_rate: float = 1.0  # how many times as fast the venue's time runs
    clock_lull_rate: float = 0.0  # and in the second half of each ten minutes (obs/sim/now.py); 0: as fast
    clock_start: str = ""  # ISO 8601 with an offset: the venue's time at the start; "": this host's
    jitter_s: float = JITTER_S  # host seconds over which calls per venue second are counted when the venue's clock is fast
    clock_mono_ns: int | None = None  # this host's monotonic clock at clock_start; None: when the simulator is ready
    buffer_bytes: int = 16 << 20  # unsent bytes at which a client that does not read is cut
    # KIS
    width: int = 47  # fields of a domestic trade record. Source: kis.md 4.4, 47 since 2026-09-14
    book_width: int = 63  # fields of a domestic book record. Source: kis.md 4.4, 63 on 2026-09-22
    slots: int = 41  # registrations per appkey. Source: kis.md 3
    pingpong_s: float = 10.0  # the venue does not document its interval
    pong_timeout_s: float = 100.0  # Source: kis.md 4.3, two measurements
    zombie_s: float = 1.0  # how long an appkey stays taken after a connection broke. Source: kis.md 12.2, no figure
    token_spacing_s: float = 60.0  # Source: kis.md 2.1
    approval_spacing_s: float = 1.0  # Source: kis.md 2.2
    rest_rate: float = 18.0  # data calls/s per appkey. Source: kis.md 3
    hours: str = ""  # with universe: "HH:MM-HH:MM" KST, or "always"; "": 09:00-15:30
    holidays: tuple[int, ...] = ()  # with universe: YYYYMMDD, besides those of obs/sim/hours.py
    connects_per_min: int = 120  # Source: kis.md 3, loops of connect and close get blocked; no figure
    # Upbit
    idle_s: float = 60.0  # Source: upbit.md 2.3, measured 60.5-61 s
    connects_per_s: int = 5  # Source: upbit.md 2.5
    messages_per_s: int = 5  # Source: upbit.md 2.5
    messages_per_min: int = 100  # Source: upbit.md 2.5
    origin_s: float = 10.0  # Source: upbit.md 2.5, one request per 10 s with an Origin header
