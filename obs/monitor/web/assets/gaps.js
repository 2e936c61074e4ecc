// What could not be recorded: the heat map symbol x minute of the day, and the same as a table, newest first.

import { Chart } from "./charts.js";
import { heatMap, heatWindow } from "./heatmap.js";
import { el, getJson, put, table } from "./dom.js";
import { clock, dashed, named, span, t, whole } from "./words.js";

const SHOWN = 8;
const ROW = 10.5; // pixels

export class GapMap {
  /** `slots`: returns the symbols that have a slot now; the map shows them, too, where nothing is missing. */
  constructor(name, nowMs, slots) {
    this.name = name;
    this.nowMs = nowMs;
    this.slots = slots;
    this.heat = null;
    this.gaps = [];
    this.node = el("section", { class: "panel", "data-testid": `gapmap-${name}` });
    this.drawn = el("div", { class: "chart" });
    this.chart = new Chart(this.drawn, (c) => {
      const shown = this.window;
      this.window = undefined; // from now on as the reader has it
      return heatMap(c, this.heat, { nowMs: this.nowMs(), window: shown });
    });
    this.relabel();
  }

  relabel() {
    this.summary = el("span", { class: "soft" });
    this.more = el("a", { href: "#" }, t("gaps.day_page"));
    this.listed = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("gaps.table", { name: this.name }) });
    this.failed = el("p", { class: "notice bad", hidden: true });
    this.node.replaceChildren(
      el("header", {}, el("h2", {}, t("gaps.title", { name: this.name })), this.summary, el("span", { class: "spring" }), this.more),
      this.failed,
      this.drawn,
      this.legend(),
      this.listed,
    );
    this.show();
  }

  legend() {
    const marks = ["brief", "minor", "major", "critical"].map((name) =>
      el("span", { class: "severity", "data-severity": name }, t(`severity.${name}_long`)),
    );
    return el("p", { class: "legend" }, el("span", { class: "severity", "data-severity": "none" }, t("gaps.ran")), marks);
  }

  async fetch() {
    try {
      const query = `provider=${encodeURIComponent(this.name)}`;
      const [heat, gaps] = await Promise.all([getJson(`/api/heat?${query}`), getJson(`/api/gaps?${query}`)]);
      const first = !this.heat || this.heat.date !== heat.date;
      this.heat = { ...heat, symbols: [...new Set([...heat.symbols, ...this.slots()])] };
      this.gaps = gaps.gaps;
      if (first) {
        this.window = heatWindow(heat, this.nowMs());
      }
      this.failed.hidden = true;
    } catch (error) {
      this.failed.hidden = false;
      put(this.failed, t("page.failed", { why: error.message }));
    }
    this.show();
  }

  show() {
    const heat = this.heat;
    if (!heat) {
      put(this.summary, t("page.loading"));
      return;
    }
    this.more.href = `/day/${heat.date}?provider=${encodeURIComponent(this.name)}`;
    const counted = this.gaps.filter((gap) => !gap.within);
    const told = counted.length ? t("gaps.summary", { n: whole(counted.length), span: span(together(counted)) }) : t("gaps.none");
    put(this.summary, `${told} · ${dashed(heat.date)} (${heat.timezone})`);
    this.drawn.style.height = `${Math.round((heat.symbols.length + 1) * ROW + 62)}px`;
    this.chart.label(t("gaps.map_label", { name: this.name, told }));
    this.drawn.setAttribute("data-cells", String(heat.all.length + heat.cells.length));
    this.chart.draw();
    this.listed.replaceChildren(this.gaps.length ? gapTable(this.gaps, heat.timezone, SHOWN) : "");
  }
}

/** Seconds that lie in any of these gaps: what many symbols lose at once counts once. */
export function together(gaps) {
  let [sum, end] = [0, -Infinity];
  for (const [from, to] of gaps.map((gap) => [Date.parse(gap.gap_start_ts), Date.parse(gap.gap_end_ts)]).sort((a, b) => a[0] - b[0])) {
    sum += Math.max(0, to - Math.max(from, end));
    end = Math.max(end, to);
  }
  return sum / 1000;
}

/** Gaps that differ in their symbol alone, put together, newest first: [gap, symbols]. */
export function bundled(gaps) {
  const bundles = new Map();
  for (const gap of [...gaps].sort((a, b) => Date.parse(b.gap_start_ts) - Date.parse(a.gap_start_ts))) {
    const key = [gap.gap_start_ts, gap.gap_end_ts, gap.reason, gap.sink, gap.provider, gap.symbol === null].join(" ");
    const bundle = bundles.get(key);
    bundle ? bundle[1].push(gap.symbol) : bundles.set(key, [gap, [gap.symbol]]);
  }
  return [...bundles.values()];
}

/** The symbols of a bundle in words. */
export const symbolsOf = (symbols) =>
  symbols[0] === null ? t("gaps.all_symbols") : symbols.length > 1 ? t("gaps.symbols", { n: whole(symbols.length) }) : symbols[0];

/** The newest gaps as a table. */
export function gapTable(gaps, zone, limit = Infinity) {
  const newest = bundled(gaps);
  const rows = newest
    .slice(0, limit)
    .map(([gap, symbols]) => [
      `${clock(Date.parse(gap.gap_start_ts), zone)} – ${clock(Date.parse(gap.gap_end_ts), zone)}`,
      span(gap.gap_seconds),
      gap.sink ? t("gaps.by", { reason: named("gap", gap.reason), sink: named("sink", gap.sink) }) : named("gap", gap.reason),
      el("span", { title: symbols.length > 1 ? symbols.join(", ") : null }, symbolsOf(symbols)),
      el("span", { class: "severity", "data-severity": gap.severity }, named("severity", gap.severity)),
    ]);
  const heads = ["span", "seconds", "reason", "symbol", "severity"].map((key) => t(`gaps.${key}`));
  const made = table(heads, rows, { right: [1], label: t("gaps.title_plain"), name: "gaplist" });
  return newest.length > limit
    ? el("div", {}, made, el("p", { class: "soft" }, t("gaps.older", { n: whole(newest.length - limit) })))
    : made;
}
