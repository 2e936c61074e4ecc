// One symbol on one day: price, volume, how much of each minute was recorded, and the gaps.

import { candles } from "./candles.js";
import { Chart, redrawAll } from "./charts.js";
import { el, getJson, put, table } from "./dom.js";
import { gapTable, summaryOf, together } from "./gaps.js";
import { isNow } from "./heatmap.js";
import { onTheme, start } from "./page.js";
import { clock, dashed, dayName, onLanguage, price, share, share1, t, whole } from "./words.js";

const AGAIN_MS = 15_000;
const [provider, symbol] = location.pathname.split("/").filter(Boolean).slice(-2).map(decodeURIComponent);
const wanted = (new URLSearchParams(location.search).get("date") ?? "").replaceAll("-", "");
const content = document.getElementById("content");
const failed = document.getElementById("failed");

await start();

let value = null;
let losing = []; // what all symbols of the provider are losing now
const drawn = el("div", { class: "chart price", "data-testid": "price" });
const chart = new Chart(drawn, (c) => candles(c, { bars: value.bars, gaps: spans(), timezone: value.timezone }));
const summary = el("dl", { class: "totals", "data-testid": "totals" });
const gapbox = el("div", { class: "scroll", tabindex: "0", role: "region" });
const barbox = el("div", { class: "scroll bars", tabindex: "0", role: "region" });
const notice = el("p", { class: "notice warn", hidden: true });
const empty = el("p", { class: "empty", hidden: true });
const [chartTitle, gapTitle, barTitle] = [el("h2"), el("h2"), el("h2")];
const details = el("details", { open: true }, el("summary", {}, barTitle), barbox);
content.append(
  el("section", { class: "panel" }, el("header", {}, chartTitle), notice, summary, empty, drawn),
  el("section", { class: "panel" }, el("header", {}, gapTitle), gapbox),
  el("section", { class: "panel" }, details),
);

const spans = () =>
  value.gaps.map((gap) => ({
    from: Date.parse(gap.gap_start_ts),
    to: Date.parse(gap.gap_end_ts),
    reason: gap.reason,
    severity: gap.severity,
  }));

function show() {
  const { bars, gaps, timezone, date } = value;
  const counted = gaps.filter((gap) => !gap.within);
  put(document.getElementById("title"), value.name ? `${symbol} ${value.name}` : symbol);
  document.title = `${symbol} ${dashed(date)} · ${t("page.title")}`;
  put(chartTitle, `${provider} · ${dayName(date)} (${timezone})`);
  put(
    gapTitle,
    counted.length ? `${t("gaps.title_plain")}: ${summaryOf(counted.length, together(counted))}` : t("gaps.title_plain"),
  );
  put(barTitle, t("symbol.bars", { n: whole(bars.length) }));
  notice.hidden = !value.database;
  put(notice, value.database ? t("day.no_database", { why: value.database }) : "");
  const fact = (key, text, tone) => el("div", {}, el("dt", {}, t(`symbol.${key}`)), el("dd", { class: tone ?? null }, text));
  const mean = value.coverage; // of all minutes, those that have no bar as well
  summary.replaceChildren(
    fact("last", price(bars.at(-1)?.[4])),
    fact("high", price(bars.length ? Math.max(...bars.map((bar) => bar[2] ?? -Infinity)) : null)),
    fact("low", price(bars.length ? Math.min(...bars.map((bar) => bar[3] ?? Infinity)) : null)),
    fact("volume", price(bars.length ? Number(bars.reduce((sum, bar) => sum + (bar[5] ?? 0), 0).toPrecision(12)) : null)),
    fact("records", whole(bars.reduce((sum, bar) => sum + (bar[7] ?? 0), 0))),
    fact("coverage", share1(mean), mean !== null && mean < 0.97 ? "bad" : ""),
    fact("gaps", whole(counted.length), counted.length ? "bad" : ""),
  );
  empty.hidden = bars.length > 0;
  put(empty, t("symbol.no_bars"));
  drawn.hidden = !bars.length && !gaps.length;
  chart.label(t("symbol.chart_label", { symbol, n: whole(bars.length), gaps: whole(counted.length) }));
  chart.draw();
  gapbox.setAttribute("aria-label", t("gaps.table", { name: symbol }));
  const now = { losing, nowMs: Date.now(), precise: true };
  gapbox.replaceChildren(gaps.length + losing.length ? gapTable(gaps, timezone, now) : el("p", { class: "empty" }, t("gaps.none")));
  const heads = ["minute", "open", "high", "low", "close", "volume", "coverage", "records"].map((key) => t(`bar.${key}`));
  const rows = [...bars]
    .reverse()
    .map(([ms, open, high, low, close, volume, coverage, records]) => [
      clock(ms, timezone, false),
      price(open),
      price(high),
      price(low),
      price(close),
      price(volume),
      share(coverage),
      whole(records),
    ]);
  barbox.setAttribute("aria-label", t("symbol.bars", { n: whole(bars.length) }));
  barbox.replaceChildren(table(heads, rows, { right: [1, 2, 3, 4, 5, 6, 7], label: t("symbol.bars", { n: whole(bars.length) }) }));
  document
    .getElementById("nav")
    .replaceChildren(
      el("a", { class: "button", href: `/day/${date}?provider=${encodeURIComponent(provider)}` }, t("symbol.day", { day: dashed(date) })),
    );
}

async function fetchNow() {
  try {
    value = await getJson(
      `/api/symbol?provider=${encodeURIComponent(provider)}&symbol=${encodeURIComponent(symbol)}${wanted ? `&date=${wanted}` : ""}`,
    );
    const of = isNow(value, Date.now()) ? (await getJson("/api/status")).providers.find((one) => one.name === provider) : null;
    losing = (of?.losing ?? []).filter((loss) => loss.link === null);
    failed.hidden = true;
    show();
  } catch (error) {
    failed.hidden = false;
    put(failed, t("page.failed", { why: error.message }));
    put(document.getElementById("title"), symbol);
  }
}

onLanguage(() => value && show());
onTheme(redrawAll);
await fetchNow();
if (!wanted) {
  setInterval(() => document.hidden || fetchNow(), AGAIN_MS); // today grows; another day does not
}
