"""From results to what is kept: one JSON, one Markdown table, one picture. Nothing is printed that is not in the results."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from native_bench.machine import sentence
from native_bench.rows import OURS, Result, Target


def write_json(path: Path, machine: dict[str, Any], results: Sequence[Result]) -> None:
    path.write_text(json.dumps({"machine": machine, "rows": [result.to_json() for result in results]}, indent=1, ensure_ascii=False))


def figure(seconds: float) -> str:
    """Return a time per item, and the rate that it is."""
    for unit, scale in (("ns", 1e9), ("µs", 1e6), ("ms", 1e3)):
        if seconds * scale < 1000:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds:.3g} s"


def spread(values: Sequence[float]) -> str:
    """Return the median of the rounds, and the least and the greatest of them where they are several."""
    middle = f"{statistics.median(values):,.3g}" if abs(statistics.median(values)) < 1000 else f"{statistics.median(values):,.0f}"
    return middle if len(values) < 2 else f"{middle} ({min(values):,.3g} to {max(values):,.3g})"


def _measured(result: Result, target: Target) -> str:
    if target.kind not in ("rate", "time"):
        return target.of
    size = result.judged_size(target)
    sides = []
    for side in (OURS, target.rival):
        middle = result.middle(size, side)
        if middle is not None:
            rate = f" ({1 / middle:,.0f}/s)" if result.row.items else ""
            sides.append(f"{side} {figure(middle)}{rate}")
    return f"{size}: {', '.join(sides)}" if sides else ""


def table(results: Sequence[Result], fast: bool = False) -> list[str]:
    lines = ["| what | floor or rival | measured | ratio or figure | target | reached |", "|---|---|---|---|---|---|"]
    for result in results:
        row = result.row
        for target in row.targets:
            judged = result.judged(target)
            if judged:
                verdict = "-" if fast else "yes" if target.reached(statistics.median(judged)) else "**no**"
                cells = [_measured(result, target), spread(judged), target.text, verdict]
            else:
                reason = result.missing.get(target.rival or target.of) or result.missing.get("") or "no figure"
                cells = [f"not measured: {reason}", "-", target.text, "-"]
            lines.append("| " + " | ".join([row.what, row.beside, *cells]) + " |")
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
    lines += [f"- {name}: {', '.join(f'{x:,.3g}: {y:.4g}' for x, y in points)}" for name, points in result.series.items()]
    lines += [f"- {note}" for note in result.notes]
    lines += [f"- not measured{', ' + name if name else ''}: {reason}" for name, reason in result.missing.items()]
    return lines


def write_markdown(path: Path, machine: dict[str, Any], results: Sequence[Result], fast: bool) -> str:
    lines = ["# native_bench", "", sentence(machine), ""]
    if fast:
        lines += ["**--fast: this shows that every benchmark runs. Its times mean nothing.**", ""]
    lines += [
        "Times are per item: CPU seconds of the process, or wall seconds where the details say so. Ratios are medians over rounds",
        "(least to greatest round): how many times the rival's rate ours is, or how many times its time.", "", *table(results, fast), "",
    ]  # fmt: skip
    for result in results:
        beside = f" Beside it: {result.row.beside}." if result.row.beside != "-" else ""
        lines += [f"## {result.row.what}", "", (f"{result.row.clock} time." if result.row.clock != "-" else "") + beside, ""]
        lines += [*ladder(result), ""]
    text = "\n".join(lines)
    path.write_text(text)
    return text


def draw(path: Path, machine: dict[str, Any], results: Sequence[Result], fast: bool) -> None:
    """Draw how far each row is from its target (1 = just reached), and growth and memory."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    bars: list[tuple[str, float]] = []
    for result in results:
        for target in result.row.targets:
            judged = result.judged(target)
            if judged:
                middle = statistics.median(judged)
                share = middle / target.bound if target.kind in ("rate", "at_least") else target.bound / middle if middle else 0.0
                label = f"{result.row.what}\n{target.of or 'beside ' + target.rival}: {spread(judged)}, {target.text}"
                bars.append((label, share))
    series = {name: points for result in results for name, points in result.series.items()}
    columns = max(1, len(series))
    figure_, axes = pyplot.subplot_mosaic(
        [["bars"] * columns, [f"series{place}" for place in range(columns)]], figsize=(4.2 * max(3, columns), 0.55 * len(bars) + 5),
        height_ratios=(max(1.0, 0.55 * len(bars)), 3.2), layout="constrained",
    )  # fmt: skip
    panel = axes["bars"]
    colours = ["#3a7d44" if share >= 1 else "#b3432b" for _, share in bars]
    panel.barh([label for label, _ in bars], [share for _, share in bars], color=colours)
    panel.axvline(1.0, color="black", linewidth=1)
    panel.set_xscale("log")
    panel.invert_yaxis()
    panel.tick_params(axis="y", labelsize=7)
    panel.set_xlabel("how far beyond its target (1 = just reached; right is better)")
    kind = "native_bench --fast: times mean nothing" if fast else "native_bench"
    panel.set_title(f"{kind}, {machine['date']}, {machine['cpu']}, {machine['cores']} cores", fontsize=9)
    for place in range(columns):
        _draw_series(axes[f"series{place}"], list(series.items())[place] if series else None)
    figure_.savefig(path, dpi=120)
    pyplot.close(figure_)


def _draw_series(panel: Any, one: tuple[str, list[tuple[float, float]]] | None) -> None:
    if one is None:
        panel.axis("off")
        return
    name, points = one
    panel.plot([x for x, _ in points], [y for _, y in points], marker="o", color="#2b5a8c", label="measured")
    if "minutes" in name:
        panel.set_ylim(bottom=0)
    else:
        x0, y0 = points[0]
        panel.plot([x for x, _ in points], [y0 * x / x0 for x, _ in points], linestyle="--", color="grey", label="linear")
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.legend(fontsize=7)
    panel.set_title(name, fontsize=8)
