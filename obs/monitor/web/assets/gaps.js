// What could not be recorded: the heat map symbol x minute of the day, and the same as a table, newest first.

import { Chart } from "./charts.js";
import { heatMap, heatWindow, sinceOpen } from "./heatmap.js";
import { el, getJson, put, table } from "./dom.js";
import { clock, dashed, exact, named, span, t, whole } from "./words.js";

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
    this.losing = []; // what is being lost now: no line tells of it yet
    this.node = el("section", { class: "panel", "data-testid": `gapmap-${name}` });
    this.drawn = el("div", { class: "chart" });
    this.chart = new Chart(this.drawn, (c) => {
      const shown = this.window;
      this.window = undefined; // from now on as the reader has it
      return heatMap(c, this.heat, { nowMs: this.nowMs(), window: shown, losing: this.losing, gaps: this.gaps });
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
    return el(
      "p",
      { class: "legend" },
      el("span", { class: "severity", "data-severity": "none" }, t("gaps.ran")),
      marks,
      el("span", { class: "severity", "data-severity": "open" }, t("gaps.open_long")),
    );
  }

  /** Show what is being lost now. Called each second; while nothing is, that costs nothing. */
  lose(losing) {
    const had = this.losing.length;
    this.losing = losing;
    if (had || losing.length) {
      this.show();
    }
  }

  async fetch() {
    try {
      const query = `provider=${encodeURIComponent(this.name)}`;
      const [heat, gaps] = await Promise.all([getJson(`/api/heat?${query}`), getJson(`/api/gaps?${query}`)]);
      const first = !this.heat || this.heat.date !== heat.date;
      this.heat = { ...heat, symbols: [...new Set([...heat.symbols, ...this.slots()])] };
      this.gaps = gaps.gaps;
      if (first) {
        this.window = heatWindow(heat, this.nowMs(), this.losing);
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
    const told = summaryOf(counted.length, together(counted.filter((gap) => gap.scope !== "swing"))); // a sweep misses nothing live
    const open = this.losing.map((loss) => sinceOpen(loss, heat.timezone));
    put(this.summary, `${[told, ...open].join(" · ")} · ${dashed(heat.date)} (${heat.timezone})`);
    const links = this.losing.filter((loss) => loss.link !== null).length;
    this.drawn.style.height = `${Math.round((heat.symbols.length + 1 + links) * ROW + 66)}px`;
    this.chart.label(t("gaps.map_label", { name: this.name, told }));
    this.drawn.setAttribute("data-cells", String(heat.all.length + heat.cells.length));
    this.chart.draw();
    this.listed.replaceChildren(
      this.gaps.length + this.losing.length
        ? gapTable(this.gaps, heat.timezone, { limit: SHOWN, losing: this.losing, nowMs: this.nowMs(), fold: true })
        : "",
    );
  }
}

/** How many gaps, and how long together, in words. */
export const summaryOf = (count, seconds) =>
  count ? t(count === 1 ? "gaps.summary_one" : "gaps.summary", { n: whole(count), span: span(seconds) }) : t("gaps.none");

/** Seconds that lie in any of these gaps: what many symbols lose at once counts once. */
export function together(gaps) {
  let [sum, end] = [0, -Infinity];
  for (const [from, to] of gaps.map((gap) => [Date.parse(gap.gap_start_ts), Date.parse(gap.gap_end_ts)]).sort((a, b) => a[0] - b[0])) {
    sum += Math.max(0, to - Math.max(from, end));
    end = Math.max(end, to);
  }
  return sum / 1000;
}

const idOf = (gap) => `${gap.session_id}/${gap.event_ring}/${gap.event_seq}`; // as `inside` of another names it
const start = ([gap]) => Date.parse(gap.gap_start_ts);
const SINGLE = "venue_count"; // of each symbol by itself, for one silence of all of them

/** Gaps that differ in their symbol alone, put together, newest first, each with those that it explains behind it: [gap, symbols].
 *
 *  `fold`: of those that one gap explains the ones of one reason are put together, too, as one from the first to the last of them; and
 *  counts of the venue that nothing explains, where they overlap. */
export function bundled(gaps, fold = false) {
  const bundles = new Map();
  const counts = new Map(); // provider -> key of the counts that the next may overlap
  for (const gap of [...gaps].sort((a, b) => Date.parse(b.gap_start_ts) - Date.parse(a.gap_start_ts))) {
    const own = fold && gap.inside ? [gap.inside] : [gap.gap_start_ts, gap.gap_end_ts];
    let key = [...own, gap.reason, gap.sink, gap.provider, gap.symbol === null].join(" ");
    if (fold && gap.reason === SINGLE && !gap.inside) {
      const before = counts.get(gap.provider);
      key = before && gap.gap_end_ts >= bundles.get(before)[0].gap_start_ts ? before : key;
      counts.set(gap.provider, key);
    }
    const bundle = bundles.get(key);
    if (!bundle) {
      bundles.set(key, [gap, [gap.symbol]]);
      continue;
    }
    if (!bundle[1].includes(gap.symbol)) {
      bundle[1].push(gap.symbol);
    }
    bundle[0] = joined(bundle[0], gap);
  }
  const all = [...bundles.values()];
  const causes = new Set(all.map(([gap]) => idOf(gap)));
  const byCause = new Map([null, ...causes].map((cause) => [cause, []]));
  all.forEach((one) => byCause.get(causes.has(one[0].inside) ? one[0].inside : null).push(one));
  return byCause
    .get(null)
    .sort((a, b) => start(b) - start(a))
    .flatMap((one) => [one, ...byCause.get(idOf(one[0]))]);
}

/** The first of two gaps, with the time of both. */
function joined(one, other) {
  if (one.gap_start_ts === other.gap_start_ts && one.gap_end_ts === other.gap_end_ts) {
    return one;
  }
  const [from, to] = [
    [one.gap_start_ts, other.gap_start_ts].sort()[0],
    [one.gap_end_ts, other.gap_end_ts].sort()[1],
  ];
  return { ...one, gap_start_ts: from, gap_end_ts: to, gap_seconds: (Date.parse(to) - Date.parse(from)) / 1000 };
}

/** The symbols of a bundle in words. */
export const symbolsOf = (symbols) =>
  symbols[0] === null ? t("gaps.all_symbols") : symbols.length > 1 ? t("gaps.symbols", { n: whole(symbols.length) }) : symbols[0];

/** The newest gaps as a table, above them what is being lost now. `precise`: times to the millisecond. */
export function gapTable(gaps, zone, { limit = Infinity, losing = [], nowMs = 0, fold = false, precise = false } = {}) {
  const newest = bundled(gaps, fold);
  const time = precise ? exact : clock;
  const severity = (name, text) => el("span", { class: "severity", "data-severity": name }, text);
  const open = losing.map((loss) => [
    el("strong", {}, sinceOpen(loss, zone)),
    span((nowMs - loss.since_ms) / 1000),
    named("gap", loss.reason),
    loss.link === null ? t("gaps.all_symbols") : t("gaps.link", { name: loss.link }),
    severity("open", t(loss.sure ? "gaps.open" : "gaps.perhaps")),
  ]);
  const rows = newest.slice(0, limit).map(([gap, symbols]) => [
    `${time(Date.parse(gap.gap_start_ts), zone)} – ${time(Date.parse(gap.gap_end_ts), zone)}`,
    span(gap.gap_seconds),
    [
      gap.sink ? t("gaps.by", { reason: named("gap", gap.reason), sink: named("sink", gap.sink) }) : named("gap", gap.reason),
      gap.inside ? el("span", { class: "soft" }, ` (${t("gaps.inside")})`) : "",
    ],
    el("span", { title: symbols.length > 1 ? symbols.join(", ") : null }, symbolsOf(symbols)),
    severity(gap.severity, named("severity", gap.severity)),
  ]);
  const heads = ["span", "seconds", "reason", "symbol", "severity"].map((key) => t(`gaps.${key}`));
  const made = table(heads, [...open, ...rows], { right: [1], label: t("gaps.title_plain"), name: "gaplist" });
  return newest.length > limit
    ? el("div", {}, made, el("p", { class: "soft" }, t("gaps.older", { n: whole(newest.length - limit) })))
    : made;
}
