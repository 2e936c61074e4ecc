"""From results to what is kept: one JSON, one Markdown table, one picture. Nothing is printed that is not in the results."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from native_bench.machine import sentence
from native_bench.rows import OURS, Result

# The table's place in the README.
BEGIN: Final = "<!-- native_bench: written by python -m native_bench --publish -->"
END: Final = "<!-- native_bench: end -->"


def write_json(path: Path, machine: dict[str, Any], results: Sequence[Result]) -> None:
    text = json.dumps({"machine": machine, "rows": [result.to_json() for result in results]}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n")


def read_json(path: Path) -> tuple[dict[str, Any], list[Result]]:
    value = json.loads(path.read_text())
    return value["machine"], [Result.from_json(row) for row in value["rows"]]


def figure(seconds: float) -> str:
    """Return a time per item, and the rate that it is."""
    for unit, scale in (("ns", 1e9), ("µs", 1e6), ("ms", 1e3)):
        if seconds * scale < 1000:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds:.3g} s"


def number(value: float) -> str:
    """Return a number with three digits that matter, all of them if it is large, and never as a power of ten."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{float(f'{value:.3g}'):,.10g}"


def spread(values: Sequence[float]) -> str:
    """Return the median of the rounds, and the least and the greatest of them where they are several."""
    middle = number(statistics.median(values))
    return middle if len(values) < 2 else f"{middle} ({number(min(values))} to {number(max(values))})"


def rate(per_second: float) -> str:
    """Return a rate with three digits that matter."""
    for unit, scale in ((" M", 1e6), (" k", 1e3)):
        if per_second >= scale:
            return f"{per_second / scale:.3g}{unit}/s"
    return f"{per_second:.3g}/s"


def _side(result: Result, size: str, side: str) -> str:
    middle = result.middle(size, side)
    if middle is None:
        return "-"
    return figure(middle) + (f", {rate(1 / middle)}" if result.row.items else "")


def table(results: Sequence[Result], fast: bool = False) -> list[str]:
    """Return the lines of the table: one for each target, ours and the other side of the size by which it is judged."""
    lines = ["| what | beside it | ours | theirs | ratio or figure | target | reached |", "|---|---|---|---|---|---|---|"]
    for result in results:
        row = result.row
        for target in row.targets:
            judged, what, sides = result.judged(target), row.what, ["-", "-"]
            if judged:
                verdict = "-" if fast else "yes" if target.reached(statistics.median(judged)) else "**no**"
                measured = spread(judged)
                if target.rival:
                    size = result.judged_size(target)
                    sides = [_side(result, size, OURS), _side(result, size, target.rival)]
                    what = f"{row.what}; {size}" if size and size not in row.what else row.what
            else:
                reason = result.missing.get(target.rival or target.of) or result.missing.get("") or "no figure"
                verdict, measured = "-", f"not measured: {reason}"
            if target.of:
                what = f"{row.what}: {target.of}"
            lines.append("| " + " | ".join([what, row.beside, *sides, measured, target.text, verdict]) + " |")
    return lines


def ladder(result: Result) -> list[str]:
    """Return everything else of a row: all sizes and sides, other figures, notes."""
    lines = []
    for size, sides in result.samples.items():
        parts = []
        for side in sides:
            middle = result.middle(size, side)
            if middle is not None:
                parts.append(f"{side} {figure(middle)}")
        ratios = []
        for target in result.row.targets:
            if found := result.ratios(size, target):
                ratios.append(f"{spread(found)} {target.kind} to {target.rival}")
        lines.append(f"- {size}: {', '.join(parts)}{'; ' + ', '.join(ratios) if ratios else ''}")
    lines += [f"- {name}: {spread(values)}" for name, values in result.figures.items()]
    lines += [f"- {name}: {', '.join(f'{number(x)}: {number(y)}' for x, y in points)}" for name, points in result.series.items()]
    lines += [f"- {note}" for note in result.notes]
    lines += [f"- not measured{', ' + name if name else ''}: {reason}" for name, reason in result.missing.items()]
    return lines


_EXPLAINED: Final = (
    "Times are per item: CPU seconds of the process, or wall seconds where the details say so. A ratio is the median of rounds in which",
    "both sides were measured in turn (in brackets the least and the greatest round): our rate by theirs, or our time by theirs.",
)


def write_markdown(path: Path, machine: dict[str, Any], results: Sequence[Result]) -> str:
    fast = machine["fast"]
    lines = ["# native_bench", "", sentence(machine), ""]
    if fast:
        lines += ["**--fast: this shows that every benchmark runs. Its times mean nothing.**", ""]
    lines += [*_EXPLAINED, "", *table(results, fast), ""]
    for result in results:
        beside = f" Beside it: {result.row.beside}." if result.row.beside != "-" else ""
        lines += [f"## {result.row.what}", "", ((f"{result.row.clock} time." if result.row.clock != "-" else "") + beside).strip(), ""]
        lines += [*ladder(result), ""]
    text = "\n".join(lines)
    path.write_text(text)
    return text


def readme_part(machine: dict[str, Any], results: Sequence[Result]) -> str:
    """Return what stands in the README from its one mark to the other, both included."""
    picture = "![How far each row is beyond its target, and growth](native_bench/results/ratios.png)"
    details = "All sizes, notes and versions: [native_bench/results/results.md](native_bench/results/results.md)."
    return "\n".join([BEGIN, "", sentence(machine), "", *_EXPLAINED, "", *table(results), "", picture, "", details, "", END])


_GOOD, _BAD, _OURS, _QUIET = "#3a7d44", "#b3432b", "#2b5a8c", "#8a8a8a"


def draw(path: Path, machine: dict[str, Any], results: Sequence[Result]) -> None:
    """Draw how far each row is from its target (1 = just reached), and growth and memory."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    bars: list[tuple[str, float, str]] = []
    for result in results:
        for target in result.row.targets:
            judged = result.judged(target)
            if judged:
                middle = statistics.median(judged)
                share = middle / target.bound if target.kind in ("rate", "at_least") else target.bound / middle if middle else 0.0
                beside = f"{target.of}: {target.text}" if target.of else f"{target.text}, beside {target.rival}"
                bars.append((f"{result.row.what}\n{beside}", share, spread(judged)))
    series = {name: points for result in results for name, points in result.series.items()}
    columns = max(1, len(series))
    tall = 0.42 * max(4, len(bars))
    panels, axes = pyplot.subplot_mosaic(
        [["bars"] * columns, [f"series{place}" for place in range(columns)]], figsize=(12.5, tall + 3.6), height_ratios=(tall, 2.6),
        layout="constrained",
    )  # fmt: skip
    _draw_bars(axes["bars"], bars)
    kind = "native_bench --fast: times mean nothing" if machine["fast"] else "native_bench"
    axes["bars"].set_title(f"{kind}, {machine['date']}, {machine['cpu']}, {machine['cores']} cores", fontsize=10)
    for place in range(columns):
        _draw_series(axes[f"series{place}"], list(series.items())[place] if series else None)
    panels.savefig(path, dpi=110)
    pyplot.close(panels)


def _draw_bars(panel: Any, bars: Sequence[tuple[str, float, str]]) -> None:
    """Draw from 1, the target, to the right what is beyond it and to the left what falls short."""
    if not bars:
        panel.axis("off")
        return
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    shares = [min(max(share, 0.05), 50.0) for _, share, _ in bars]
    places = range(len(bars))
    panel.barh(places, [share - 1 for share in shares], left=1, height=0.66, color=[_GOOD if share >= 1 else _BAD for share in shares])
    for place, (_, _, told), share in zip(places, bars, shares, strict=True):
        right = share >= 1
        panel.annotate(
            told, (share, place), (4 if right else -4, 0), textcoords="offset points", va="center", ha="left" if right else "right",
            fontsize=7.5,
        )  # fmt: skip
    panel.set_yticks(places, [label for label, _, _ in bars], fontsize=7.5)
    panel.axvline(1.0, color="black", linewidth=1)
    panel.set_xscale("log")
    panel.set_xlim(min(0.5, *shares) / 1.6, max(2.0, *shares) * 1.8)
    panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.grid(axis="x", color="#dddddd", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.invert_yaxis()
    panel.set_xlabel("times its target (1 = just reached, right is better); beside each bar what was measured", fontsize=8)


def _draw_series(panel: Any, one: tuple[str, list[tuple[float, float]]] | None) -> None:
    if one is None:
        panel.axis("off")
        return
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    name, points = one
    by_minutes = "minutes" in name
    places = [x for x, _ in points]
    panel.plot(places, [y for _, y in points], marker=None if by_minutes else "o", color=_OURS, label="measured")
    if by_minutes:
        panel.set_ylim(bottom=0, top=1.25 * max(y for _, y in points))
    else:
        x0, y0 = points[0]
        panel.plot(places, [y0 * x / x0 for x in places], linestyle="--", color=_QUIET, label="linear")
        panel.set_xscale("log")
        panel.set_yscale("log")
        plain = FuncFormatter(lambda value, _: f"{value:g}")
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_xticks(places, [number(x) for x in places])
        panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.yaxis.set_major_formatter(plain)
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.legend(fontsize=7, frameon=False)
    panel.grid(color="#dddddd", linewidth=0.6)
    panel.tick_params(labelsize=7)
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_title(name, fontsize=8)
