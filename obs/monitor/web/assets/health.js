// The head of the dashboard: is everything being recorded, and if not, what is wrong, since when, and what to do.

import { el, put, setClass } from "./dom.js";
import { clock, language, moment, named, span, t, whole } from "./words.js";

/** The day of a time in the browser's zone, to tell "14:03:10" of today from one of another day. */
const sameDay = (a, b) => new Date(a).toDateString() === new Date(b).toDateString();
const since = (ms, nowMs) => (sameDay(ms, nowMs) ? clock(ms) : moment(ms));

/** What a reason says, in the reader's language: the server names the sentence and what it is filled with, and says it in English. */
function textOf(one) {
  const lists = { role: "role", why: "ended", ring: "ring" };
  const facts = Object.entries(one.facts ?? {}).map(([key, value]) => [
    key,
    lists[key] ? named(lists[key], value) : typeof value === "number" && key !== "pid" ? whole(value) : value,
  ]);
  return one.says && language() !== "en" ? t(`says.${one.says}`, Object.fromEntries(facts), one.text) : one.text;
}

export class Health {
  constructor(node) {
    this.node = node;
    this.sign = node.querySelector(".sign");
    this.title = node.querySelector("h1");
    this.when = node.querySelector(".since");
    this.list = node.querySelector(".reasons");
    this.rows = new Map();
  }

  /** As this page sees it: `missing`, `waiting`, `of`: how many symbols of open markets are not being recorded, and how many have only not
   *  traded yet; `quiet`: providers that send nothing; `losing`: [provider, what it loses now]; `settling`: too early to say. */
  show(health, { missing, waiting = 0, of, quiet, losing = [], settling = false }, nowMs) {
    const details = health.details ?? [];
    const alarm = details.some((one) => !one.expected);
    const names = quiet.join(", ");
    const times = (ms) => ({ time: since(ms, nowMs), span: span((nowMs - ms) / 1000) });
    const [look, sign, title] = health.ok
      ? missing
        ? ["is-warn", "△", t(quiet.length ? "health.partly_quiet" : "health.partly", { n: missing, of, names })]
        : quiet.length
          ? ["is-warn", "△", t("health.quiet", { names })]
          : settling
            ? ["", "…", t("page.loading")]
            : waiting
              ? ["is-wait", "…", t("health.waiting", { n: waiting, of })]
              : ["is-good", "✓", t("health.good")]
      : alarm
        ? ["is-bad", "!", t(details.length === 1 ? "health.one" : "health.many", { n: details.length })]
        : ["is-wait", "…", t("health.ordered")];
    setClass(this.node, `panel verdict ${look}`);
    put(this.sign, sign);
    put(this.title, title);
    put(
      this.when,
      look === "is-warn"
        ? losing.map(([name, loss]) => t("health.losing", { name, reason: named("gap", loss.reason), ...times(loss.since_ms) })).join(" · ")
        : health.since_ms && (!health.ok || look === "is-good")
          ? t("health.since", times(health.since_ms))
          : "",
    );
    document.title = `${sign} ${t("page.title")}`;
    // A reason keeps its element while it lasts, so that a screen reader speaks it once, and what is selected stays selected.
    const keys = new Set();
    details.forEach((one, place) => {
      const key = [
        one.reason,
        one.provider,
        details.filter((other, at) => at < place && other.reason === one.reason && other.provider === one.provider).length,
        language(),
      ].join(" ");
      keys.add(key);
      const row = this.rows.get(key) ?? this.make(key, one);
      put(row.text, textOf(one));
      put(row.when, one.since_ms ? t("health.since_short", times(one.since_ms)) : "");
    });
    for (const [key, row] of this.rows) {
      if (!keys.has(key)) {
        row.node.remove();
        this.rows.delete(key);
      }
    }
    this.list.hidden = !details.length;
  }

  /** Say that nothing is known: what was good a moment ago is no longer shown as good. */
  lose() {
    setClass(this.node, "panel verdict");
    put(this.sign, "?");
    put(this.title, t("health.unknown"));
    put(this.when, "");
    document.title = `? ${t("page.title")}`;
  }

  make(key, one) {
    const text = el("span", { class: "text" });
    const when = el("span", { class: "when" });
    const help = one.help ?? `RUNBOOK.md#${one.reason}`;
    const node = el(
      "li",
      { class: "reason", "data-testid": "reason", "data-reason": one.reason },
      el(
        "div",
        {},
        el("span", { class: "what" }, `${named("reason", one.reason)} · ${one.provider || t("health.host")}`),
        " ",
        el("code", {}, one.reason),
      ),
      when,
      el("div", { class: "text" }, text, one.expected ? ` (${t("health.expected")})` : ""),
      el("div", { class: "do" }, `${t(`do.${one.reason}`, {}, "")} `, t("health.runbook"), " ", el("code", {}, `ops/${help}`)),
    );
    this.list.append(node);
    const row = { node, text, when };
    this.rows.set(key, row);
    return row;
  }
}
