"""One frame of `obs top`: what is shown of one look, in so many columns and lines; pure.

A frame is lines of (text, style) pieces; a style is one of STYLES. Nothing is wider than the terminal, and there are never more lines than
it has: what matters most stands first, the slots get the lines that are left, those in trouble before the others. What a person has to
act on is broken into lines, never cut.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from obs.cli.columns import number
from obs.cli.glance import advice, colour_of, lag, market, said, spared, urgent, verdict
from obs.cli.terminal import fitted, pad, plain, width
from obs.monitor.live import SPARK_S

STYLES: Final = {
    "": "", "good": "green", "warning": "yellow", "wrong": "bold red", "faint": "dim", "bold": "bold", "title good": "bold black on green",
    "line": "cyan", "title warning": "bold black on yellow", "title wrong": "bold white on red", "chosen": "reverse",
}  # fmt: skip
Piece = tuple[str, str]
Row = list[Piece]
MIN_COLUMNS: Final = 40
MIN_ROWS: Final = 10
_REASONS: Final = 3  # shown at most; the rest is counted
_AIRY: Final = 34  # lines from which there are empty ones between the parts
_BAR: Final = 8
_FULL: Final = {"cpu": 0.85, "memory": 0.9, "disk": 0.8}  # shares from which a bar is a warning
_NAME: Final = 12  # columns of a name
_SPARK: Final = 12  # values of a line
_OLD_S: Final = 60.0  # a price that is older is faint


@dataclass(frozen=True)
class Price:
    """The newest record of a symbol. `step`: which way its price went last, -1, 0, 1; `line`: its prices of the last minutes."""

    ts_ms: int
    price: float
    quality: str
    step: int = 0
    line: tuple[float, ...] = ()


@dataclass(frozen=True)
class Look:
    """Everything at one moment: the status, the slots of each provider, its newest prices, and the CPU share of each process."""

    now_ns: int
    status: dict[str, Any]
    slots: dict[str, dict[str, Any]] = field(default_factory=dict)
    prices: dict[str, dict[str, Price]] = field(default_factory=dict)
    cpu: dict[int, float] = field(default_factory=dict)


def frame(look: Look, columns: int, rows: int, *, chosen: int = 0, paused: bool = False, keys: bool = True) -> list[Row]:
    """Return the lines of a frame. `chosen`: which provider's slots; `keys`: whether to tell them."""
    columns, rows = max(columns, MIN_COLUMNS), max(rows, MIN_ROWS)
    status = look.status
    foot = [_keys(status, chosen, paused)] if keys else []
    air: list[Row] = [[]] if rows >= _AIRY else []
    title, told = _title(look, columns, paused)
    out = [title, *told, *_reasons(status, columns)]
    if status["running"]:
        out += [*air, _host(status), *air, *_providers(status, columns, chosen)]
        providers = status["providers"]
        if providers:
            one = providers[min(chosen, len(providers) - 1)]
            out += [*air, *_flowing(_ledger(one), columns)]
            for text in one["ledger"]:
                out += _wrapped(plain(f"LEDGER of {one['name']}: {text}"), "wrong", columns)
            out += [*_flowing(_rings(one, columns), columns), *_processes(status, one["name"], look.cpu, columns), *air]
            out += _slots(look, one["name"], columns, rows - len(out) - len(foot))
    out = out[: rows - len(foot)]
    out += [[] for _ in range(rows - len(foot) - len(out))] if keys else []
    return [cut(row, columns) for row in [*out, *foot]]


def cut(row: Row, room: int) -> Row:
    """Return `row`, plain, without what would stand beyond `room` columns."""
    kept: Row = []
    for text, style in row:
        fits = plain(text)
        while width(fits) > room:
            fits = fits[:-1]
        if fits:
            kept.append((fits, style))
        room -= width(fits)
    return kept


def bar(share: float, style: str, size: int = _BAR) -> Row:
    """Return a bar of `size` columns, in eighths."""
    whole, rest = divmod(round(min(1.0, max(0.0, share)) * size * 8), 8)
    full = "█" * whole + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
    return [(full, style), ("░" * (size - len(full)), "faint")]


def _title(look: Look, columns: int, paused: bool) -> tuple[Row, list[Row]]:
    """Return the title, and the lines of a verdict that it has no room for. Of a red one the reasons follow on lines of their own."""
    status = look.status
    first = verdict(status)
    word, _, text = first.text.partition("  ")
    right = f"{'PAUSED  ' if paused else ''}{status['ts'][:19].replace('T', ' ')} UTC "
    left, told = f" obs  {word}", list[Row]()
    if status["running"] and status["health"]["ok"]:
        if width(left) + 2 + width(text) + width(right) < columns:
            left += f"  {text}"
        elif first.colour != "good":
            told = list(_wrapped(text, str(first.colour), columns))
    return [(pad(left, columns - width(right)) + right, f"title {first.colour}")], told


def _wrapped(text: str, style: str, columns: int, indent: str = "") -> Iterator[Row]:
    for line in textwrap.wrap(text, columns, initial_indent=indent, subsequent_indent=indent or "    ", break_on_hyphens=False):
        yield [(line, style)]


def _flowing(pieces: Sequence[Row], columns: int) -> Iterator[Row]:
    """Yield as many rows as pieces need that must not be cut in two."""
    row: Row = []
    used = 0
    for piece in pieces:
        size = sum(width(text) for text, _ in piece)
        if row and used + size > columns:
            yield row
            row, used = [("    ", "")], 4
        row = [*row, *piece]
        used += size
    yield row


def _reasons(status: dict[str, Any], columns: int) -> Iterator[Row]:
    if not status["running"]:
        yield from _wrapped(verdict(status).text.partition("  ")[2], "wrong", columns)
        return
    found = urgent(status["health"]["details"])
    for one in found[:_REASONS]:
        yield from _wrapped(said(one, status), colour_of(one), columns)
        yield from _wrapped(f"do: {advice(one)}", "faint", columns, "    ")
    if len(found) > _REASONS:
        yield [(f"… {len(found) - _REASONS} reasons more: obs status", "wrong")]


def _host(status: dict[str, Any]) -> Row:
    host, row = status["host"], Row()
    for name, full in _FULL.items():
        if (share := host.get(f"{name}_used")) is not None:
            style = "warning" if share >= full else "good"
            row += [(f"{name} ", "faint"), *bar(share, style), (f" {share:4.0%}   ", "")]
    return [*row, (f"{host['disk_free_bytes'] / 2**30:.1f} GiB free", "faint")]


def _providers(status: dict[str, Any], columns: int, chosen: int) -> Iterator[Row]:
    head = ("#", "provider", "state", "links", "slots", "in/s", "rec/s", "gaps", "venue", "archive", "database", "level")
    rows = []
    for place, one in enumerate(status["providers"], 1):
        rates, late, tick = one.get("rates") or {}, one.get("latency") or {}, one["rings"].get("tick", {})
        venue, confirmed = late.get("venue_ms"), one["slots"].get("confirmed", 0)
        rows.append((
            place, one["name"], market(one), f"{one['connected']}/{len(one['links'])}", f"{confirmed}/{one['symbols']}",
            _rate(rates.get("inputs")), _rate(rates.get("records")), f"{one['gaps']:,}", None if venue is None else f"{venue:.0f} ms",
            lag(tick.get("archive_lag_s")), lag(tick.get("load_lag_s")), one["mitigation_level"],
        ))  # fmt: skip
    spare = ("level", "venue", "in/s", "links", "state", "database", "archive", "slots")
    first, *rest = fitted(head, rows, head[3:], columns, spared(spare, head, rows, ("level",)))
    yield [(first, "faint")]
    red = {one["provider"] for one in status["health"]["details"] if not one.get("expected")}
    for place, (line, one) in enumerate(zip(rest, status["providers"], strict=True)):
        style = "wrong" if one["name"] in red else "warning" if one["mitigation_level"] else "bold" if place == chosen else ""
        yield [(line, style)]


def _rate(value: float | None) -> str | None:
    return None if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _ledger(one: dict[str, Any]) -> list[Row]:
    """What came in, and how far it is, in pieces that must not be cut in two: figures that only lag are plain."""
    tick = one["rings"].get("tick")
    pieces: list[Row] = [[(f"{plain(one['name'])}  ", "bold"), (f"{one['messages']:,} messages → {one['inputs']:,} inputs", "")]]
    if tick is not None:
        waits = {"archived": tick["published"] - tick["archived"], "loaded": tick["published"] - tick.get("loaded", tick["published"])}
        pieces.append([(f" → {tick['published']:,} records", "")])
        for name, waiting in waits.items():
            pieces.append([(f" → {name}", ""), (f" ({waiting:,} wait)" if waiting else " all", "faint")])
    pieces += [[(f"  {one[name]:,} {name}", "warning")] for name in ("quarantined", "rejected") if one.get(name)]
    return pieces


def _rings(one: dict[str, Any], columns: int) -> list[Row]:
    """How full each ring is; without bars where these would need a second line."""
    pieces: list[Row] = []
    for has_bar in (True, False):
        pieces = [[("rings  ", "faint")], *(_ring(name, ring["used"], has_bar) for name, ring in one["rings"].items())]
        if sum(width(text) for piece in pieces for text, _ in piece) <= columns:
            break
    return pieces


def _ring(name: str, used: float, has_bar: bool) -> Row:
    style = "wrong" if used >= 0.5 else "warning" if used >= 0.1 else "good"
    if has_bar:
        return [(f"{name} ", ""), *bar(used, style, 4), (f" {used:.1%}  ", "faint")]
    return [(f"{name} ", ""), (f"{used:.1%}  ", "faint" if style == "good" else style)]


def _processes(status: dict[str, Any], provider: str, cpu: dict[int, float], columns: int) -> Iterator[Row]:
    """The processes of a provider and of the host, side by side."""
    cells: list[Row] = []
    for one in status["processes"]:
        if one["provider"] not in (provider, "services", ""):
            continue
        style = {"running": "good", "dead": "wrong"}.get(one["state"], "warning")
        state = "" if one["state"] == "running" else f" {one['state']}"
        used = cpu.get(one["pid"])
        figures = f" {'' if used is None else f'{used:.0%} '}{one.get('resident_bytes', 0) >> 20} MiB"
        cells.append([("● ", style), (one["role"] + state, style if state else ""), (figures, "faint")])
    yield from _side_by_side(cells, columns, 24)


def _slots(look: Look, provider: str, columns: int, room: int) -> Iterator[Row]:
    """As much of each slot as all of them have room for; if they have none at all, as many as there is room for."""
    slots = look.slots.get(provider)
    if slots is None or room < 2:
        return
    rows = slots["slots"]
    named = any(row["name"] for row in rows)
    prices = look.prices.get(provider, {})
    wide = (
        max((width(plain(row["symbol"])) for row in rows), default=0),
        max((len(number(prices[row["symbol"]].price)) for row in rows if row["symbol"] in prices), default=0),
    )
    for detail in (2, 1, 0) if named else (1, 0):
        cells = [_slot(row, slots, look, detail, wide) for row in rows]
        size = max((sum(width(text) for text, _ in cell) for cell in cells), default=1) + 3
        fit = max(1, (columns + 3) // size) * (room - 1)
        if fit >= len(cells):
            break
    more = ""
    if len(cells) > fit:  # those that want a look come first, then the others in their order
        troubled = [_wants_a_look(row, prices, look.now_ns) for row in rows]
        cells = [cells[at] for at in sorted(range(len(cells)), key=lambda at: not troubled[at])]
        left = sum(troubled) - fit
        more = f"; {len(cells) - fit} more do not fit here" + (f", {left} of them not well: obs slots" if left > 0 else ", all well")
    what = "price, seconds since its record" + (f", last {_SPARK * SPARK_S} s" if detail else "") + ", trigger"
    yield [(f"slots of {provider}{more}: {what}", "faint")]
    yield from _side_by_side(cells[:fit], columns, size)


def _slot(row: dict[str, Any], slots: dict[str, Any], look: Look, detail: int, wide: tuple[int, int]) -> Row:
    """Return what is shown of a slot. `wide`: columns of a symbol and of a price."""
    price = look.prices.get(slots["provider"], {}).get(row["symbol"])
    standing = row["standing"]
    style = "wrong" if standing in ("refused", "failed") else "" if standing == "confirmed" else "warning"
    cell: Row = [(pad(plain(row["symbol"]), wide[0]), style)]
    if detail > 1:
        cell.append((f" {pad(cut([(row['name'], '')], _NAME)[0][0] if row['name'] else '', _NAME)}", "faint"))
    if price is None:
        cell.append((f" {standing or 'wanted':>{wide[1] + 5}}", style or "faint"))
    else:
        age_s = max(0.0, look.now_ns / 1e9 - price.ts_ms / 1e3)
        bad = {"normal": "", "degraded": "warning"}.get(price.quality, "wrong")
        figure = f" {number(price.price):>{wide[1]}}{' ▴▾'[price.step]}"
        cell += [(figure, bad), (f"{_age(age_s):>4}", "faint" if age_s < _OLD_S else "warning")]
        if detail:
            cell.append((f" {spark(price.line):<{_SPARK}}", "line"))
    if row["trigger"]:
        cell.append((f" {row['trigger'].split('_')[0]}", "bold"))
    elif row["symbol"] in slots["pinned"]:
        cell.append((" pin", "bold"))
    return cell


def _wants_a_look(row: dict[str, Any], prices: dict[str, Price], now_ns: int) -> bool:
    """Whether a slot is not confirmed, or its newest record is bad, old or not there."""
    price = prices.get(row["symbol"])
    return row["standing"] != "confirmed" or price is None or price.quality != "normal" or now_ns / 1e9 - price.ts_ms / 1e3 >= _OLD_S


def spark(line: Sequence[float], size: int = _SPARK) -> str:
    """Return the last `size` values as a line of blocks between their least and their greatest."""
    values = line[-size:]
    if not values:
        return ""
    low, high = min(values), max(values)
    return "".join("▁▂▃▄▅▆▇█"[round(7 * (value - low) / (high - low))] if high > low else "▄" for value in values)


def _age(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds < 10 else f"{seconds:.0f}" if seconds < 1000 else f"{seconds / 60:.0f}m"


def _side_by_side(cells: Sequence[Row], columns: int, least: int) -> Iterator[Row]:
    """Yield cells in rows of as many as fit, all of one width."""
    size = max([least, *(sum(width(text) for text, _ in cell) + 2 for cell in cells)])
    across = max(1, columns // size)
    for at in range(0, len(cells), across):
        row: Row = []
        for cell in cells[at : at + across]:
            row += [*cell, (" " * (size - sum(width(text) for text, _ in cell)), "")]
        yield row


def _keys(status: dict[str, Any], chosen: int, paused: bool) -> Row:
    row: Row = [(" q", "bold"), (" quit  ", "faint"), ("p", "bold"), (" go on  " if paused else " pause  ", "faint")]
    for place, one in enumerate(status["providers"][:9]):
        row += [(f" {place + 1} {one['name']} ", "chosen" if place == chosen else "faint")]
    return row
