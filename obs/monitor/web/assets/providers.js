// One panel for each provider: connection, hours, rates, delays, mitigation; the ledger; the rings and their writers.

import { Chart, lines } from "./charts.js";
import { el, meter, put, setClass, table } from "./dom.js";
import { recorded, silent } from "./slots.js";
import { milliseconds, moment, named, one, share1, span, t, whole } from "./words.js";

const KEPT = 600; // seconds of rates that are drawn: as many as the monitor keeps
const ARCHIVE_LAG_S = 10; // as health judges them
const LOADER_LAG_S = 60;

export const MARKET_ZONES = { kr_stocks: "Asia/Seoul", us_stocks: "America/New_York", crypto: "UTC" };

export class Providers {
  constructor(node) {
    this.node = node;
    this.panels = new Map();
    this.past = null;
  }

  /** Take over the figures of the last minutes that the hello tells. */
  begin(past) {
    this.past = past;
    this.panels.forEach((panel) => panel.begin(past));
  }

  show(providers, recording, nowMs) {
    for (const value of providers) {
      let panel = this.panels.get(value.name);
      if (!panel) {
        panel = new Panel(value.name);
        panel.begin(this.past);
        this.panels.set(value.name, panel);
        this.node.append(panel.node);
      }
      panel.show(value, recording[value.name], nowMs);
    }
    const names = new Set(providers.map((value) => value.name));
    for (const [name, panel] of this.panels) {
      if (!names.has(name)) {
        panel.node.remove();
        this.panels.delete(name);
      }
    }
  }

  relabel() {
    this.panels.forEach((panel) => panel.relabel());
  }
}

class Panel {
  constructor(name) {
    this.name = name;
    this.rates = [];
    this.node = el("section", { class: "panel", "data-testid": `provider-${name}`, "aria-label": name });
    this.relabel();
  }

  relabel() {
    this.value = this.value ?? null;
    const fact = (key) => {
      const dd = el("dd");
      return { node: el("div", {}, el("dt", {}, t(`provider.${key}`)), dd), dd };
    };
    this.state = el("span", { class: "state" });
    this.place = el("span", { class: "tag" });
    this.session = el("code", { class: "soft" });
    this.facts = Object.fromEntries(
      ["symbols", "market", "messages", "records", "venue", "archive", "database", "mitigation", "reconnects", "gaps"].map((key) => [
        key,
        fact(key),
      ]),
    );
    this.flow = el("ol", { class: "flow", "aria-label": t("ledger.title"), "data-testid": `ledger-${this.name}` });
    this.steps = ["received", "published", "archived", "loaded"].map((key) => {
      const number = el("b", { "data-of": key });
      const small = el("span");
      return {
        key,
        number,
        small,
        box: el("div", { class: "box" }, number, small),
        between: key === "received" ? null : el("div", { class: "step" }),
      };
    });
    this.flow.replaceChildren(...this.steps.map((step) => el("li", {}, step.between, step.box)));
    this.broken = el("p", { class: "notice bad broken", role: "alert", hidden: true });
    this.ringbox = el("div", { class: "scroll" });
    this.rings = null;
    const drawn = el("div", { class: "chart rates" });
    this.chart = new Chart(drawn, (c) => this.options(c));
    this.chart.label(t("provider.rates_label", { name: this.name }));
    this.node.replaceChildren(
      el("header", {}, el("h2", {}, this.name), this.place, this.state, el("span", { class: "spring" }), this.session),
      el(
        "dl",
        { class: "facts" },
        Object.values(this.facts).map(({ node }) => node),
      ),
      el("h3", { class: "unseen" }, t("ledger.title")),
      this.flow,
      this.broken,
      el(
        "div",
        { class: "columns" },
        el("div", {}, el("h3", {}, t("provider.rates_title")), drawn),
        el("div", {}, el("h3", {}, t("rings.title")), this.ringbox),
      ),
    );
    if (this.value) {
      this.fill(...this.last);
    }
  }

  begin(past) {
    const rates = past?.providers?.[this.name];
    if (rates) {
      this.rates = past.ms.map((ms, at) => [ms, rates.messages[at], rates.records[at]]);
    }
  }

  show(value, recording, nowMs) {
    this.value = value;
    this.last = [value, recording, nowMs];
    if (value.rates && nowMs > (this.rates.at(-1)?.[0] ?? 0)) {
      this.rates.push([nowMs, value.rates.messages, value.rates.records]);
      this.rates.splice(0, Math.max(0, this.rates.length - KEPT));
    }
    this.fill(value, recording, nowMs);
  }

  fill(value, recording, nowMs) {
    const links = value.links.length;
    const [tone, word] = !value.open
      ? ["idle", t("provider.closed")]
      : silent(value)
        ? ["warn", t("provider.silent")]
        : value.connected === links && links
          ? ["good", t("provider.connected", { n: value.connected, of: links })]
          : value.connected
            ? ["warn", t("provider.connected", { n: value.connected, of: links })]
            : ["bad", t("provider.not_connected")];
    put(this.state, word);
    setClass(this.state, `state ${tone}`);
    put(this.place, [named("market", value.market), value.venue && named("venue", value.venue)].filter(Boolean).join(" · "));
    put(this.session, value.session_id ?? "");
    const fact = (key, text, mood = "") => {
      put(this.facts[key].dd, text);
      setClass(this.facts[key].dd, mood);
    };
    const rates = value.rates ?? {};
    const delay = value.latency ?? {};
    const symbols = recording ?? { fresh: 0, waiting: 0, missing: 0, of: value.symbols };
    const doubt = symbols.waiting || silent(value) ? "warn" : "";
    fact("symbols", recorded(symbols), !value.open ? "" : symbols.missing ? "bad" : doubt);
    fact(
      "market",
      value.open
        ? t("provider.open")
        : value.next_open
          ? t("provider.opens", { time: moment(Date.parse(value.next_open)) })
          : t("provider.closed"),
    );
    fact("messages", t("unit.per_s", { n: one(rates.messages) }), silent(value) ? "warn" : "");
    fact("records", t("unit.per_s", { n: one(rates.records) }));
    fact("venue", milliseconds(delay.venue_ms));
    fact("archive", span(delay.archive_s), delay.archive_s > ARCHIVE_LAG_S ? "bad" : "");
    fact("database", span(delay.database_s), delay.database_s > LOADER_LAG_S ? "bad" : "");
    fact("mitigation", t(`mitigation.${value.mitigation_level}`), value.mitigation_level ? "warn" : "");
    fact("reconnects", whole(value.reconnects));
    fact("gaps", whole(value.gaps), value.gaps ? "warn" : "");
    this.fillLedger(value);
    this.fillRings(value.rings);
    this.ticks = (this.ticks ?? -1) + 1;
    if (this.ticks % 2 === 0 && !document.hidden) {
      this.nowMs = nowMs;
      this.chart.draw();
    }
  }

  fillLedger(value) {
    const sums = value.ledger_sums ?? {};
    const tick = value.rings.tick ?? {};
    const [received, published, archived, loaded] = this.steps;
    const numbers = [
      [received, sums.received],
      [published, sums.published],
      [archived, sums.archived],
      [loaded, sums.loaded],
    ];
    numbers.forEach(([step, count]) => put(step.number, whole(count)));
    put(received.small, t("ledger.received"));
    put(published.small, t("ledger.published"));
    put(archived.small, t("ledger.archived"));
    put(loaded.small, t("ledger.loaded"));
    // Between received and published messages become inputs, and those are folded into records: nothing to subtract, but what could
    // not be read is said. After that each difference is in flight, in a gap row, or wrong.
    const say = (step, lists) => {
      const shown = lists.map(([text, tone]) => `${tone}|${text}`).join("\n");
      if (step.said !== shown) {
        step.said = shown;
        step.between.replaceChildren(
          el("i", { "aria-hidden": "true" }, "→"),
          ...lists.map(([text, tone]) => el("div", { class: tone || null }, text)),
        );
      }
    };
    say(published, [
      [t("ledger.inputs", { n: whole(sums.inputs) }), ""],
      ...(sums.quarantined ? [[t("ledger.quarantined", { n: whole(sums.quarantined) }), "bad"]] : []),
      ...(value.ledger?.length ? [[`≠ ${t("ledger.broken_short")}`, "bad"]] : []),
    ]);
    const lost = sums.archive_gaps ?? 0;
    const waits = Math.max(0, (sums.published ?? 0) - (sums.archived ?? 0) - lost);
    say(archived, [
      [t("ledger.in_flight", { n: whole(waits) }), tick.archive_lag_s > ARCHIVE_LAG_S ? "bad" : ""],
      ...(lost ? [[t("ledger.lost", { n: whole(lost) }), "bad"]] : []),
    ]);
    const behind = (sums.archived ?? 0) - (sums.loaded ?? 0);
    say(loaded, [
      [t("ledger.in_flight", { n: whole(Math.max(0, behind)) }), tick.load_lag_s > LOADER_LAG_S ? "bad" : ""],
      ...(value.rejected ? [[t("ledger.rejected", { n: whole(value.rejected) }), "bad"]] : []),
    ]);
    this.broken.hidden = !value.ledger?.length;
    put(this.broken, value.ledger?.length ? `${t("ledger.broken")} ${value.ledger.join("; ")}` : "");
  }

  fillRings(rings) {
    const names = Object.keys(rings).join(" ");
    if (!this.rings || this.rings.names !== names) {
      const rows = Object.keys(rings).map((name) => {
        const bar = meter(t("rings.used_label", { name: named("ring", name) }));
        return {
          name,
          bar,
          used: el("span", { class: "number" }),
          archive: el("span", { class: "number" }),
          load: el("span", { class: "number" }),
        };
      });
      this.rings = { names, rows };
      this.ringbox.replaceChildren(
        table(
          [t("rings.ring"), t("rings.used"), t("rings.archive_lag"), t("rings.load_lag")],
          rows.map((row) => [named("ring", row.name), el("span", {}, row.bar.node, row.used), row.archive, row.load]),
          { right: [2, 3], label: t("rings.title") },
        ),
      );
    }
    for (const row of this.rings.rows) {
      const ring = rings[row.name];
      const tone = ring.used > 0.8 ? "bad" : ring.used > 0.3 ? "warn" : "";
      row.bar.set(ring.used, tone);
      put(row.used, share1(ring.used));
      put(row.archive, span(ring.archive_lag_s));
      setClass(row.archive, `number ${ring.archive_lag_s > ARCHIVE_LAG_S ? "bad" : ""}`);
      put(row.load, ring.load_lag_s === undefined ? "–" : span(ring.load_lag_s));
      setClass(row.load, `number ${ring.load_lag_s > LOADER_LAG_S ? "bad" : ""}`);
    }
  }

  options(c) {
    const to = this.nowMs ?? Date.now();
    return lines(
      c,
      [
        { name: t("provider.messages"), data: this.rates.map(([ms, messages]) => [ms, messages]), colour: "series-1" },
        { name: t("provider.records"), data: this.rates.map(([ms, , records]) => [ms, records]), colour: "series-2" },
      ],
      { from: to - KEPT * 1000, to, form: whole, step: 1 },
    );
  }
}
