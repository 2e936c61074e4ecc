"""What system/events says of today, counted for /metrics: gaps by reason, steps of slots, losers, sweeps, warnings, covered minutes.

Events are the one record of what the rings, the sinks and the poll had to tell, so they are counted where they are durable and not
once more in shared memory. Of each provider the newest day file is followed, from its first line on: the figures are those of that
file, whoever counts them, so a monitor that starts again goes on where the one before it was, and a new day begins at zero, as a
counter may. Until a file has been read to its end its provider has no figures: half of a count would look like a restart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

from obs.monitor.gaps import SEVERITIES, read_gap
from obs.record.events import GAP_REASONS
from obs.segment.textlog import day_files, ends_a_line, json_object, text_lines

_LINES: Final = 20_000  # of one provider in one look
_HEAD: Final = b'{"event_type":"'
SLOT_STEPS: Final = ("bootstrap", "allocate", "swap", "release", "pin", "unpin", "exclude", "include")
DECISIONS: Final = ("slot_full", "low_score", "manual_exclude")
# What a warning event can say; a test compares it with the sources.
WARNINGS: Final = (
    "calendar_disagreement", "clock_step", "clock_stepped", "low_coverage", "pins_cut", "pins_unreadable", "selection_failed",
    "slot_refused", "state_unreadable", "task_failed", "too_many_pins", "universe_failed", "universe_not_written", "universe_stale",
)  # fmt: skip
OTHER: Final = "other"  # a word that this version does not know: labels are closed lists


@dataclass
class Sweep:
    """The last sweep of Track A. Times: seconds; `end_s`: UTC epoch of the end of its bar."""

    end_s: float
    expected: int
    received: int
    candles: int
    quotes_s: float
    seconds: float


@dataclass
class Tally:
    """One provider's newest day file. `slots`, `covered_s`: of the last minute that was counted; None in tape mode."""

    gaps: Counter[tuple[str, str]] = field(default_factory=Counter)  # reason, severity
    gap_milliseconds: Counter[str] = field(default_factory=Counter)
    slot_steps: Counter[str] = field(default_factory=Counter)
    overflow: Counter[str] = field(default_factory=Counter)
    reconnections: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    marks: Counter[str] = field(default_factory=Counter)  # anomaly days, by reason
    symbols: Counter[str] = field(default_factory=Counter)  # of all sweeps: quoted, failed, candle
    mitigations: int = 0
    sweep: Sweep | None = None
    minute_ns: int = 0
    covered_s: float | None = None
    slots: int = 0
    bad_lines: int = 0

    @property
    def coverage(self) -> float | None:
        """Return how much of the last counted minute has records, 0..1; None where nothing can be said."""
        return None if self.covered_s is None or not self.slots else self.covered_s / (60.0 * self.slots)


class Tallies:
    """Follows the event files of one data directory. Safety: one thread looks; readers take what `of` returns as it is."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / "system" / "events"
        self._followed: dict[str, _Followed] = {}

    def look(self, providers: list[str]) -> None:
        """Read what is new, at most _LINES lines of each; a disk error leaves it to the next look."""
        for name in providers:
            try:
                self._followed.setdefault(name, _Followed()).read(self._folder / name)
            except OSError:
                continue

    def of(self, provider: str) -> Tally | None:
        """Return the figures of a provider; None until its file has been read once to the end."""
        followed = self._followed.get(provider)
        return followed.tally if followed is not None and followed.whole else None


class _Followed:
    """One folder of event files, and how far its newest file has been read."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._offset = 0
        self.tally = Tally()
        self.whole = False

    def read(self, folder: Path) -> None:
        files = day_files(folder)
        if not files:
            self.whole = True  # nothing was told yet: zero is the truth
            return
        if files[-1] != self._path or not ends_a_line(files[-1], self._offset):
            self._path, self._offset, self.tally, self.whole = files[-1], 0, Tally(), False
        read = 0
        for end, line in islice(text_lines(files[-1], self._offset), _LINES):
            self._offset = end
            read += 1
            count(self.tally, line)
        self.whole = self.whole or read < _LINES


def count(tally: Tally, line: bytes) -> None:
    """Add one line of system/events. Losers come by the thousand: of them nothing is parsed but the word that counts."""
    kind = line[len(_HEAD) : line.find(b'"', len(_HEAD))] if line.startswith(_HEAD) else b""
    if kind == b"overflow":
        tally.overflow[_word_after(line, b'"decision_reason":"', DECISIONS)] += 1
        return
    if kind == b"counts" and b'"covered_s"' not in line:
        return
    taker = _TAKERS.get(kind)
    try:
        value = read_gap(line) if kind == b"gap_marker" else json_object(line)
        if not value:
            raise ValueError("no object")
        if taker is not None:
            taker(tally, value)
    except (KeyError, TypeError, ValueError, OverflowError):
        tally.bad_lines += 1


def _word_after(line: bytes, key: bytes, known: tuple[str, ...]) -> str:
    at = line.find(key)
    word = line[at + len(key) : line.find(b'"', at + len(key))].decode("ascii", "replace") if at >= 0 else ""
    return word if word in known else OTHER


def _gap(tally: Tally, value: Mapping[str, Any]) -> None:
    reason = value["reason"] if value["reason"] in GAP_REASONS else OTHER
    tally.gaps[reason, value["severity"] if value["severity"] in SEVERITIES else OTHER] += 1
    if value.get("inside") is None:  # else the time is counted with the gap that holds it
        tally.gap_milliseconds[reason] += round(value["gap_seconds"] * 1000)


def _slot(tally: Tally, value: Mapping[str, Any]) -> None:
    tally.slot_steps[value["what"] if value["what"] in SLOT_STEPS else OTHER] += 1


def _reconnection(tally: Tally, value: Mapping[str, Any]) -> None:
    tally.reconnections["success" if value["result"] == "SUCCESS" else "fail"] += 1


def _mitigation(tally: Tally, _: Mapping[str, Any]) -> None:
    tally.mitigations += 1


def _counts(tally: Tally, value: Mapping[str, Any]) -> None:
    tally.minute_ns, tally.covered_s, tally.slots = int(value["minute_ns"]), float(value["covered_s"]), int(value["slots"])


def _warning(tally: Tally, value: Mapping[str, Any]) -> None:
    what = str(value.get("what", ""))
    tally.warnings[what if what in WARNINGS else OTHER] += 1


def _lifecycle(tally: Tally, value: Mapping[str, Any]) -> None:
    if value.get("what") == "anomaly_day" and value["change"] == "marked":
        tally.marks[str(value["reason"])] += 1
    elif value.get("what") == "sweep":
        expected, received, candles = int(value["expected"]), int(value["received"]), int(value["candles"])
        tally.symbols.update({"quoted": received, "failed": expected - received, "candle": candles})
        tally.sweep = Sweep(
            int(value["end_ns"]) / 1e9, expected, received, candles, float(value["quotes_s"]), float(value["seconds"]),
        )  # fmt: skip


_TAKERS: Final = {
    b"gap_marker": _gap, b"slot": _slot, b"reconnection_event": _reconnection, b"mitigation": _mitigation, b"counts": _counts,
    b"warning": _warning, b"lifecycle": _lifecycle,
}  # fmt: skip
