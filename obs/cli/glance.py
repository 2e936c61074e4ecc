"""A status at one glance: the verdict with its reasons and what to do, then a row for each provider and process; pure.

Input: what `obs.monitor.status` tells. Output: lines with the colour of each; a program that wants the words reads --json instead.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from obs.cli.terminal import fitted, plain

# What a person does first; the runbook has the rest.
ADVICE: Final = {
    "not_connected": "it reconnects by itself; if it has not after two minutes, check the network, the account and the venue's notices",
    "mute": "it reconnects by itself; if it comes again, check the network and whether the venue is up",
    "heartbeat": "a supervisor restarts what is silent; where none runs, start it: systemctl start obs.target",
    "archive_lag": "look at the disk (df, iostat): records wait in memory, none is lost while the ring has room",
    "loader_lag": "look at the database and its disk; nothing is lost, all of it is in the archive",
    "database_away": "start the database, or correct its DSN; recording goes on, and is loaded afterwards",
    "restarting": "read why in its log (journalctl -u 'obs*'); it is started again by itself",
    "disk": "free space, or repair the disk: what does not fit will be a gap",
    "ledger": "stop nothing, delete nothing, run `obs audit`: it names what has no fate",
    "universe": "see `obs universe`; check that the venue answers REST, and the account",
    "calendar": "standing hours are used; a new version of exchange-calendars knows this year's days",
}
RUNBOOK: Final = "ops/RUNBOOK.md"
_DISK_FULL: Final = 0.8  # an anomaly day begins there
WAIT: Final = "it starts or stops as ordered; wait a minute"
LOSING: Final = "Do: it reconnects by itself; if it has not after two minutes, see ops/RUNBOOK.md#mute"
BEGINNING: Final = "Do: wait for the first record, which ends it; if none has come after two minutes, see ops/RUNBOOK.md#restart"
START: Final = "start it with systemctl start obs.target, python -m obs.supervisor, or ops/run for the demo"


@dataclass(frozen=True)
class Line:
    text: str
    colour: str | None = None  # of obs.cli.terminal.COLOURS


def verdict(status: dict[str, Any]) -> Line:
    """Return the first line: how it is, why, and what to do."""
    if not status["running"]:
        return Line(f"DOWN  nothing runs here. Do: {START}", "wrong")
    health = status["health"]
    if health["ok"]:
        told, whole = _recording(status)
        if reasons := {loss["reason"] for one in status["providers"] for loss in one["losing"]}:
            return Line(f"YELLOW  {told}; health is green as yet. {BEGINNING if reasons == {'restart'} else LOSING}", "warning")
        if whole:
            return Line(f"GREEN  {told}; nothing is wrong", "good")
        return Line(f"YELLOW  {told}; health is green, but not every symbol is confirmed. Do: see which with `obs slots`", "warning")
    first, more = urgent(health["details"])[0], len(health["details"]) - 1
    rest = f" ({more} more below)" if more else ""
    return Line(f"RED  {said(first, status)}{rest}. Do: {advice(first)}", colour_of(first))


def urgent(details: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the reasons in the order in which a person should look: what an ordered start or stop explains comes last."""
    return sorted(details, key=lambda one: bool(one.get("expected")))


def advice(reason: dict[str, Any]) -> str:
    return WAIT if reason.get("expected") else plain(f"{ADVICE.get(reason['reason'], 'see')} ({RUNBOOK}#{reason['reason']})")


def colour_of(reason: dict[str, Any]) -> str:
    return "warning" if reason.get("expected") else "wrong"


def lines(status: dict[str, Any], room: int | None) -> list[Line]:
    """Return everything. `room`: columns of the terminal; None: as wide as it gets, and always alike."""
    first = verdict(status)
    out = [Line(text, first.colour) for text in _wrapped(first.text, room)]
    if not status["running"]:
        return out
    details = urgent(status["health"]["details"])
    for one in details if len(details) > 1 else ():
        text = f"  {said(one, status)}. Do: {advice(one)}"
        out += [Line(line, colour_of(one)) for line in _wrapped(text, room, "      ")]
    return [*out, Line(""), *_providers(status, room), Line(""), *_processes(status, room), Line(""), *_host(status, room)]


def _wrapped(text: str, room: int | None, indent: str = "    ") -> list[str]:
    return [text] if room is None else textwrap.wrap(text, room, subsequent_indent=indent, drop_whitespace=False, break_on_hyphens=False)


def said(reason: dict[str, Any], status: dict[str, Any]) -> str:
    """Return a reason as a sentence: of whom, what, why, and for how long where that is known."""
    since_ms, now_ms = reason.get("since_ms"), datetime.fromisoformat(status["ts"]).timestamp() * 1000
    lasted = f" (for {span((now_ms - since_ms) / 1000)})" if since_ms is not None and now_ms - since_ms >= 1000 else ""
    return plain(f"{reason['provider'] or 'host'} {reason['reason']}: {reason['text']}{lasted}")


def _recording(status: dict[str, Any]) -> tuple[str, bool]:
    """Tell what is being recorded, and what is closed; and whether the venues have confirmed all that is open."""
    told, whole = [], True
    for one in status["providers"]:
        confirmed = one["slots"].get("confirmed", 0)
        if not one["open"]:
            told.append(f"{one['name']} is {market(one)}")
        elif one["losing"]:
            told.append(f"{one['name']}: {'; '.join(map(going_on, one['losing']))}")
        elif confirmed >= one["symbols"]:
            told.append(f"{one['name']} records {one['symbols']} symbols")
        else:
            told.append(f"{one['name']}: {confirmed} of {one['symbols']} confirmed")
            whole = False
    return plain("; ".join(told)), whole


def going_on(loss: dict[str, Any]) -> str:
    """Return a loss that goes on in words: why, since when, and whether it may be none."""
    doubt = "" if loss["sure"] else ", if the market is not quiet"
    return plain(f"loses since {loss['since'][11:19]} UTC ({loss['reason']}){doubt}")


def market(one: dict[str, Any]) -> str:
    """Return whether a provider's market is open, and if not, until when it is closed."""
    if one["open"]:
        return "open"
    return f"closed until {one['next_open'][:16].replace('T', ' ')} UTC" if one["next_open"] else "closed"


def lag(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"


def _providers(status: dict[str, Any], room: int | None) -> Iterator[Line]:
    head = (
        "provider", "market", "state", "connected", "symbols", "messages", "inputs", "records", "gaps", "quarantined", "reconnects",
        "archive lag", "database lag", "level",
    )  # fmt: skip
    rows = []
    for one in status["providers"]:
        tick = one["rings"].get("tick", {})
        rows.append((
            one["name"], one["market"], market(one), f"{one['connected']} of {len(one['links'])}", one["symbols"], f"{one['messages']:,}",
            f"{one['inputs']:,}", f"{one['records']:,}", f"{one['gaps']:,}", f"{one['quarantined']:,}", f"{one['reconnects']:,}",
            lag(tick.get("archive_lag_s")), lag(tick.get("load_lag_s")), one["mitigation_level"],
        ))  # fmt: skip
    spare = (
        "inputs", "market", "quarantined", "level", "reconnects", "messages", "database lag", "records", "archive lag", "gaps", "symbols",
        "connected",
    )  # fmt: skip
    first, *rest = fitted(head, rows, head[3:], room, spared(spare, head, rows, ("quarantined", "level", "reconnects", "gaps")))
    yield Line(first, "faint")
    red = {one["provider"] for one in status["health"]["details"] if not one.get("expected")}
    for line, one in zip(rest, status["providers"], strict=True):
        yield Line(line, "wrong" if one["name"] in red else "warning" if one["mitigation_level"] else None)


def spared(spare: Sequence[str], head: Sequence[str], rows: Sequence[Sequence[object]], telling: Collection[str]) -> list[str]:
    """Return which columns may go, the first first: those of `telling` before all others while they say 0, else after them."""
    silent = {name for name in telling if all(str(row[head.index(name)]) == "0" for row in rows)}
    loud = set(telling) - silent
    return [*(one for one in spare if one in silent), *(one for one in spare if one not in telling), *(one for one in spare if one in loud)]


def _processes(status: dict[str, Any], room: int | None) -> Iterator[Line]:
    head = ("process", "of", "pid", "state", "heartbeat", "up", "cpu s", "memory")
    rows = []
    for one in status["processes"]:
        state = f"waits for {one['waiting']}" if one["state"] == "waiting" and one.get("waiting") else one["state"]
        rows.append((
            one["role"], one["provider"] or "all", one["pid"], state, lag(one.get("heartbeat_age_s")), span(one.get("uptime_s")),
            f"{one.get('cpu_s', 0):.1f}", f"{one.get('resident_bytes', 0) >> 20} MiB",
        ))  # fmt: skip
    first, *rest = fitted(head, rows, ("pid", "heartbeat", "up", "cpu s", "memory"), room, ("cpu s", "up", "memory", "heartbeat", "pid"))
    yield Line(first, "faint")
    for line, one in zip(rest, status["processes"], strict=True):
        yield Line(line, {"running": None, "dead": "wrong"}.get(one["state"], "warning"))


def _host(status: dict[str, Any], room: int | None) -> Iterator[Line]:
    host = status["host"]
    text = f"host: {host['cores']} cores, memory {host['memory_used']:.0%} used, disk {host['disk_used']:.0%} used"
    for line in _wrapped(f"{text}, {host['disk_free_bytes'] / 2**30:.1f} GiB free", room):
        yield Line(line, "warning" if host["disk_used"] > _DISK_FULL else None)


def span(seconds: float | None) -> str:
    """Return a duration in its two largest units."""
    if seconds is None:
        return "-"
    days, rest = divmod(int(seconds), 86_400)
    hours, rest = divmod(rest, 3600)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min" if rest >= 60 else f"{rest} s"
