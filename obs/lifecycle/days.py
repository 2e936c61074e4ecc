"""Which days are anomalies, and why: pure functions of what system/events and the host say of them.

A day is the local date of the provider's market, as in paths. Only what lies in the hours of that day counts (`hours`: from the
first to the last trade, the whole date where a provider records always): a host that is off at night has lost nothing.

| reason | when |
|---|---|
| reconnects | 20 connections and more were made again |
| disconnected | 10 minutes and more without one, all spans together |
| paused | 5 minutes of failure on end: the feed says so itself |
| gaps | two gaps of 60 s and more |
| critical_gap | one gap of over 5 minutes |
| record_rate | fewer than 97 % of the records that the slots should have had, in each of 5 minutes on end |
| cpu | the host was busy for 85 % and more of each of 10 minutes on end |
| disk | more than 80 % of the disk was used |
| manual | a person says so |

Gaps that overlap or touch are one: three connections that break together, or a sink and its ring, are one event. A step of the
venue's count, a symbol that the venue refuses and a sweep that came short are losses of single symbols, and no gap of the day.

Source: specification 7 and 14.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, NamedTuple

REASONS: Final = (
    "reconnects", "disconnected", "paused", "gaps", "critical_gap", "record_rate", "cpu", "disk", "etl", "backup", "manual",
)  # fmt: skip
BY_HAND: Final = "manual"
RECONNECTS: Final = 20
DISCONNECTED_S: Final = 600.0
GAP_S: Final = 60.0
GAPS: Final = 2
CRITICAL_S: Final = 300.0
RATE: Final = 0.97
RATE_MINUTES: Final = 5
CPU: Final = 0.85
CPU_MINUTES: Final = 10
DISK: Final = 0.80

_NS: Final = 1_000_000_000
_MINUTE_NS: Final = 60 * _NS
_APART: Final = ("ws_disconnect", "mute", "api_error", "rate_limit", "refused", "restart", "host_death")  # nothing was connected
_SINGLE: Final = ("venue_count", "refused")  # of one symbol, if the line names one

Span = tuple[int, int]  # UTC ns, first <= t < last


class Loss(NamedTuple):
    """One gap line. `symbol` "": all of them."""

    start_ns: int
    end_ns: int
    reason: str
    symbol: str = ""
    scope: str = "scalp"


@dataclass
class Cover:
    """How much of one minute the records of the slots cover: seconds of all of them together, and how many slots there were."""

    covered_s: float = 0.0
    slots: int = 0


@dataclass
class Evidence:
    """What is known of one day of one provider; minutes by their start."""

    reconnects: int = 0
    paused: int = 0
    losses: set[Loss] = field(default_factory=set)
    cover: dict[int, Cover] = field(default_factory=dict)


class HostMinute(NamedTuple):
    """The host in one minute: `cpu` its mean, `disk` the share that is used at most, 0..1."""

    minute_ns: int
    cpu: float
    disk: float


def judge(evidence: Evidence, hours: Span | None) -> dict[str, dict[str, Any]]:
    """Return reason -> what was found, of the day's own evidence. `hours` None: there was no trading, so nothing was lost."""
    found: dict[str, dict[str, Any]] = {}
    if evidence.reconnects >= RECONNECTS:
        found["reconnects"] = {"reconnects": evidence.reconnects}
    if evidence.paused:
        found["paused"] = {"times": evidence.paused}
    if hours is None:
        return found
    apart_s = sum(map(_seconds, union(_inside((loss for loss in evidence.losses if _is_apart(loss)), hours))))
    if apart_s >= DISCONNECTED_S:
        found["disconnected"] = {"seconds": round(apart_s, 3)}
    gaps = [_seconds(span) for span in union(_inside((loss for loss in evidence.losses if _is_gap(loss)), hours))]
    long = [seconds for seconds in gaps if seconds >= GAP_S]
    if len(long) >= GAPS:
        found["gaps"] = {"gaps": len(long), "longest_s": round(max(long), 3)}
    if gaps and max(gaps) > CRITICAL_S:
        found["critical_gap"] = {"seconds": round(max(gaps), 3)}
    run = longest_run(_thin_minutes(evidence.cover, hours))
    if len(run) >= RATE_MINUTES:
        rate = min(_rate(evidence.cover[minute]) for minute in run)
        found["record_rate"] = {"minutes": len(run), "from_ns": run[0], "lowest": round(rate, 4)}
    return found


def judge_host(minutes: Iterable[HostMinute], hours: Span | None) -> dict[str, dict[str, Any]]:
    """Return reason -> what was found, of the host's minutes within the hours of a day."""
    if hours is None:
        return {}
    inside = [one for one in minutes if hours[0] <= one.minute_ns < hours[1]]
    found: dict[str, dict[str, Any]] = {}
    run = longest_run(sorted(one.minute_ns for one in inside if one.cpu >= CPU))
    if len(run) >= CPU_MINUTES:
        found["cpu"] = {"minutes": len(run), "from_ns": run[0]}
    disk = max((one.disk for one in inside), default=0.0)
    if disk > DISK:
        found["disk"] = {"used": round(disk, 4)}
    return found


def take(line: Mapping[str, Any], of_day: Evidence) -> bool:
    """Add one line of system/events to the evidence of its day; return whether it told anything.

    Each line once: what is counted would be counted again. A gap goes to each day that it touches; see `days_of`.
    """
    kind = line.get("event_type")
    if kind == "gap_marker" and line.get("sink") != "database" and line.get("inside") is None:
        loss = _loss(line)
        known = len(of_day.losses)
        if loss is not None:
            of_day.losses.add(loss)
        return len(of_day.losses) > known
    if kind == "reconnection_event" and line.get("result") == "SUCCESS":
        of_day.reconnects += 1
        return True
    if kind == "lifecycle" and line.get("anomaly_day") is True and line.get("what") == "recording_paused":
        of_day.paused += 1
        return True
    minute_ns, slots, covered_s = line.get("minute_ns"), line.get("slots"), line.get("covered_s")
    if kind == "counts" and isinstance(minute_ns, int) and isinstance(slots, int) and isinstance(covered_s, (int, float)):
        cover = of_day.cover.setdefault(minute_ns, Cover())
        cover.covered_s += covered_s
        cover.slots = max(cover.slots, slots)
        return True
    return False


def moment_of(line: Mapping[str, Any]) -> Span | None:
    """Return the first and the last instant of which a line speaks, None if it does not say."""
    if line.get("event_type") == "gap_marker":
        loss = _loss(line)
        return None if loss is None else (loss.start_ns, loss.end_ns)
    minute_ns, ts_ns = line.get("minute_ns"), line.get("ts_ns")
    if line.get("event_type") == "counts":
        return (minute_ns + 1, minute_ns + 1) if isinstance(minute_ns, int) else None
    return (ts_ns, ts_ns) if isinstance(ts_ns, int) else None


def union(spans: Iterable[Span]) -> list[Span]:
    """Return spans in order, those that overlap or touch joined."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def longest_run(minutes: list[int]) -> list[int]:
    """Return the longest part of ascending minutes in which each follows the one before."""
    best: list[int] = minutes[:1]
    run: list[int] = minutes[:1]
    for before, minute in pairwise(minutes):
        run = [*run, minute] if minute - before == _MINUTE_NS else [minute]
        best = run if len(run) > len(best) else best
    return best


def _thin_minutes(cover: Mapping[int, Cover], hours: Span) -> list[int]:
    """Whole minutes within the hours whose slots have too few records. One without slots says nothing."""
    inside = (minute for minute in cover if hours[0] <= minute and minute + _MINUTE_NS <= hours[1])
    return sorted(minute for minute in inside if cover[minute].slots and _rate(cover[minute]) < RATE)


def _rate(cover: Cover) -> float:
    return cover.covered_s / (60.0 * cover.slots)


def _inside(losses: Iterable[Loss], hours: Span) -> Iterable[Span]:
    for loss in losses:
        start, end = max(loss.start_ns, hours[0]), min(loss.end_ns, hours[1])
        if start < end:
            yield start, end


def _seconds(span: Span) -> float:
    return (span[1] - span[0]) / _NS


def _is_apart(loss: Loss) -> bool:
    return _is_gap(loss) and loss.reason in _APART


def _is_gap(loss: Loss) -> bool:
    return loss.scope != "swing" and not (loss.symbol and loss.reason in _SINGLE)


def _loss(line: Mapping[str, Any]) -> Loss | None:
    start_ns, end_ns, reason = line.get("gap_start_ns"), line.get("gap_end_ns"), line.get("reason")
    if not isinstance(start_ns, int) or not isinstance(end_ns, int) or not isinstance(reason, str):
        return None
    return Loss(start_ns, max(start_ns, end_ns), reason, str(line.get("symbol") or ""), str(line.get("scope")))
