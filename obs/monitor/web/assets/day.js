// One day: for each provider what was recorded of each symbol, what was not, and why.

import { Chart, redrawAll } from "./charts.js";
import { heatMap, heatWindow, isNow } from "./heatmap.js";
import { el, getJson, meter, put } from "./dom.js";
import { reasonOfDay } from "./events.js";
import { gapTable, summaryOf } from "./gaps.js";
import { onTheme, start } from "./page.js";
import { clock, clockOn, dashed, dayName, named, onLanguage, share1, span, t, whole } from "./words.js";

const ROW = 12; // pixels of the heat map
const date = location.pathname.split("/").filter(Boolean).at(-1).replaceAll("-", "");
const only = new URLSearchParams(location.search).get("provider");
const content = document.getElementById("content");
const failed = document.getElementById("failed");

await start();

/** The columns of the table: name, how a row shows it, by what it is sorted; `down`: greatest first. */
const COLUMNS = [
  { key: "symbol", of: (row) => row.symbol },
  { key: "name", of: (row) => row.name ?? "" },
  { key: "coverage", of: (row) => row.coverage ?? -1, right: true },
  { key: "worst", of: (row) => row.worst ?? -1, right: true },
  { key: "minutes", of: (row) => row.minutes ?? -1, right: true, down: true },
  { key: "records", of: (row) => row.records ?? -1, right: true, down: true },
  { key: "gaps", of: (row) => row.gaps ?? 0, right: true, down: true },
  { key: "gap_seconds", of: (row) => row.gap_seconds ?? 0, right: true, down: true },
  { key: "first", of: (row) => row.first_ms ?? Infinity, right: true },
  { key: "last", of: (row) => row.last_ms ?? -1, right: true, down: true },
];

class Coverage {
  constructor(day) {
    this.day = day;
    this.by = "coverage";
    this.down = false;
    this.node = el("div", { class: "scroll", tabindex: "0", role: "region" });
    this.relabel();
  }

  relabel() {
    this.node.setAttribute("aria-label", t("day.coverage_of", { name: this.day.provider }));
    this.heads = COLUMNS.map((column) => {
      const button = el("button", { type: "button" }, t(`day.${column.key}`));
      button.addEventListener("click", () => this.sort(column));
      return el("th", { scope: "col", class: column.right ? "right" : null, "data-key": column.key }, button);
    });
    this.body = el("tbody");
    this.node.replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, this.heads)), this.body));
    this.draw();
  }

  sort(column) {
    this.down = this.by === column.key ? !this.down : Boolean(column.down);
    this.by = column.key;
    this.draw();
  }

  draw() {
    const column = COLUMNS.find(({ key }) => key === this.by);
    const sign = this.down ? -1 : 1;
    const sorted = [...this.day.symbols].sort((a, b) => {
      const [x, y] = [column.of(a), column.of(b)];
      return sign * (typeof x === "string" ? x.localeCompare(y) : x - y) || a.symbol.localeCompare(b.symbol);
    });
    this.heads.forEach((head) =>
      head.setAttribute("aria-sort", head.dataset.key === this.by ? (this.down ? "descending" : "ascending") : "none"),
    );
    this.body.replaceChildren(...sorted.map((row) => this.row(row)));
  }

  row(row) {
    const zone = this.day.timezone;
    const bar = meter(t("day.coverage_of", { name: row.symbol }));
    bar.set(row.coverage, row.coverage === null ? "" : row.coverage < 0.8 ? "bad" : row.coverage < 0.97 ? "warn" : "good");
    const href = `/symbol/${encodeURIComponent(this.day.provider)}/${encodeURIComponent(row.symbol)}?date=${this.day.date}`;
    const right = (text, tone) => el("td", { class: `right ${tone ?? ""}` }, text);
    return el(
      "tr",
      { "data-symbol": row.symbol },
      el("td", {}, el("a", { href }, row.symbol)),
      el("td", {}, row.name || "–"),
      el("td", { class: "right" }, row.coverage === null ? null : bar.node, share1(row.coverage)),
      right(share1(row.worst)),
      right(whole(row.minutes)),
      right(whole(row.records)),
      right(row.gaps ? `! ${whole(row.gaps)}` : "0", row.gaps ? "bad" : ""),
      right(row.gap_seconds ? span(row.gap_seconds) : "–", row.gap_seconds ? "bad" : ""),
      right(clock(row.first_ms, zone, false)), // minutes: a bar knows no more
      right(clock(row.last_ms, zone, false)),
    );
  }
}

class Day {
  /** `losing`: what its provider is losing now. */
  constructor(day, gaps, losing) {
    this.day = day;
    this.gaps = gaps;
    this.losing = isNow(day.heat, Date.now()) ? losing : [];
    this.coverage = new Coverage(day);
    this.node = el("section", { class: "panel", "data-testid": `day-${day.provider}`, "aria-label": day.provider });
    this.drawn = el("div", { class: "chart", "data-testid": `gapmap-${day.provider}` });
    const heat = {
      ...day.heat,
      symbols: [...new Set([...day.heat.symbols, ...day.symbols.map((row) => row.symbol)])],
      sessions: day.sessions,
    };
    const links = this.losing.filter((loss) => loss.link !== null).length;
    this.drawn.style.height = `${(heat.symbols.length + 1 + links) * ROW + 66}px`;
    this.window = heatWindow(heat, Date.now(), this.losing);
    this.chart = new Chart(this.drawn, (c) =>
      heatMap(c, heat, { nowMs: Date.now(), window: this.window, losing: this.losing, gaps: this.gaps }),
    );
    this.relabel();
  }

  relabel() {
    const { day } = this;
    const zone = day.timezone;
    const fact = (key, text, tone) => el("div", {}, el("dt", {}, t(`day.${key}`)), el("dd", { class: tone ?? null }, text));
    const totals = day.totals;
    const marks = [day.anomaly]
      .flat()
      .filter(Boolean)
      .flatMap((mark) => (mark.reasons && !Array.isArray(mark.reasons) ? Object.entries(mark.reasons) : [[mark.reason, mark.detail]]));
    const when = (ms) => clockOn(ms, zone, day.date);
    const ran = day.sessions.map((one) =>
      one.end_ms
        ? `${when(one.start_ms)} – ${when(one.end_ms)} (${named("session", one.reason)})`
        : `${when(one.start_ms)} – ${t("day.still")}`,
    );
    const told = summaryOf(totals.gaps, totals.gap_seconds);
    this.chart.label(t("gaps.map_label", { name: day.provider, told }));
    this.node.replaceChildren(
      el(
        "header",
        {},
        el("h2", {}, day.provider),
        el("span", { class: "tag" }, t(`market.${day.market}`, {}, day.market)),
        el("span", { class: "soft" }, zone),
      ),
      marks.length
        ? el(
            "p",
            { class: "notice warn" },
            `△ ${t("day.anomaly")}: ${marks.map(([reason, detail]) => reasonOfDay(reason, detail)).join("; ")}`,
          )
        : "",
      day.database ? el("p", { class: "notice warn" }, t("day.no_database", { why: day.database })) : "",
      el(
        "dl",
        { class: "totals" },
        fact("coverage", share1(totals.coverage), totals.coverage !== null && totals.coverage < 0.97 ? "bad" : ""),
        fact("records", whole(totals.records)),
        fact("symbols", whole(day.symbols.length)),
        fact("gaps", whole(totals.gaps), totals.gaps ? "bad" : ""),
        fact("gap_seconds", span(totals.gap_seconds)),
        fact("ran", ran.length > 3 ? t("day.sessions", { n: ran.length }) : ran.join(", ") || "–"),
      ),
      el("h3", {}, t("gaps.title_plain")),
      this.drawn,
      this.legend(),
      this.gapList(),
      el("h3", {}, t("day.symbols_title")),
      day.symbols.length ? this.coverage.node : el("p", { class: "empty" }, t("day.nothing")),
    );
    this.coverage.relabel();
    this.chart.draw();
  }

  legend() {
    return el(
      "p",
      { class: "legend" },
      el("span", { class: "severity", "data-severity": "none" }, t("gaps.ran")),
      ["brief", "minor", "major", "critical"].map((name) =>
        el("span", { class: "severity", "data-severity": name }, t(`severity.${name}_long`)),
      ),
      el("span", { class: "severity", "data-severity": "open" }, t("gaps.open_long")),
    );
  }

  gapList() {
    const now = { losing: this.losing, nowMs: Date.now(), precise: true };
    if (!this.gaps.length && !this.losing.length) {
      return el("p", { class: "empty" }, t("gaps.none"));
    }
    const first = el(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": t("gaps.table", { name: this.day.provider }) },
      gapTable(this.gaps.slice(-200), this.day.timezone, { ...now, limit: this.gaps.length > 12 ? 8 : 12, fold: true }),
    );
    if (this.gaps.length <= 12) {
      return first;
    }
    const all = el("details", {}, el("summary", {}, t("gaps.all", { n: whole(this.gaps.length) })));
    all.addEventListener(
      "toggle",
      () =>
        all.open &&
        all.children.length === 1 &&
        all.append(
          el(
            "div",
            { class: "scroll bars", tabindex: "0", role: "region", "aria-label": t("gaps.table", { name: this.day.provider }) },
            gapTable(this.gaps, this.day.timezone, now),
          ),
        ),
    );
    return el("div", {}, first, all);
  }
}

let days = [];

function navigation() {
  const to = (day, text) => {
    const attributes = day ? { href: `/day/${day}${location.search}` } : { "aria-disabled": "true", role: "link" };
    return el("a", { class: "button", ...attributes }, text);
  };
  const before = days
    .map(({ day }) => day.previous)
    .filter(Boolean)
    .sort()
    .at(-1);
  const after = days
    .map(({ day }) => day.next)
    .filter(Boolean)
    .sort()
    .at(0);
  document
    .getElementById("nav")
    .replaceChildren(
      to(before, `← ${before ? dashed(before) : t("day.previous")}`),
      to(after, `${after ? dashed(after) : t("day.next")} →`),
      ...(only ? [el("a", { class: "button", href: location.pathname }, t("day.all_providers"))] : []),
    );
}

function title() {
  put(document.getElementById("title"), dayName(date));
  document.title = `${dashed(date)} · ${t("page.title")}`;
}

async function show() {
  title();
  try {
    const { providers } = await getJson("/api/status");
    const names = only ? [only] : providers.map((one) => one.name);
    const losing = (name) => providers.find((one) => one.name === name)?.losing ?? [];
    const asked = (name) => `provider=${encodeURIComponent(name)}&date=${date}`;
    const values = await Promise.allSettled(
      names.map((name) => Promise.all([getJson(`/api/day?${asked(name)}`), getJson(`/api/gaps?${asked(name)}`)])),
    );
    const parts = values.map(({ value, reason }, at) =>
      value ? new Day(value[0], value[1].gaps, losing(names[at])) : el("p", { class: "notice warn" }, `${names[at]}: ${reason.message}`),
    );
    days = parts.filter((part) => part instanceof Day);
    content.replaceChildren(...parts.map((part) => part.node ?? part));
    days.forEach((day) => day.chart.draw());
    navigation();
  } catch (error) {
    failed.hidden = false;
    put(failed, t("page.failed", { why: error.message }));
  }
}

onLanguage(() => {
  title();
  days.forEach((day) => day.relabel());
  navigation();
});
onTheme(redrawAll);
await show();
