// The feed of events, newest first, each in one line a person can read; and the days out of the ordinary.

import { el, later } from "./dom.js";
import { bundled, symbolsOf } from "./gaps.js";
import { clock, dayName, named, span, t, whole } from "./words.js";

const KEPT = 200;
const HIDDEN = new Set([
  "event_type",
  "timestamp",
  "what",
  "session_id",
  "provider",
  "event_ring",
  "event_seq",
  "ts_ns",
  "start_ns",
  "end_ns",
  "symbol",
  "recovered_slot_list",
  "pid",
  "link",
  "shortened",
  "of_session",
  "minute_ns",
  "from_ns",
  "to_ns",
  "bar_ns",
]);

const timeOf = (line) => Date.parse(line.timestamp ?? line.gap_end_ts ?? line.gap_start_ts);
const keyOf = (line) =>
  [line.session_id, line.event_ring, line.event_seq, line.ring, line.sink, line.first_seq, line.gap_start_ts].join(" ");
const group = (line) =>
  ({ gap_marker: "gap", reconnection_event: "connection", slot: "slot", overflow: "slot" })[line.event_type] ?? line.event_type;

const LISTS = { reason: ["ended", "gap"], trigger: ["trigger"], change: ["change"] }; // whose names are values of a fact

/** A value of a fact in words, as far as it is a name that we know. */
function said(key, value) {
  if (typeof value === "number") {
    return whole(value) === "0" ? value : Math.round(value * 1000) / 1000;
  }
  const list = LISTS[key]?.find((one) => t(`${one}.${value}`, {}, "") !== "");
  return list ? named(list, value) : value;
}

function rest(line) {
  return Object.entries(line)
    .filter(([key, value]) => !HIDDEN.has(key) && value !== null && ["string", "number", "boolean"].includes(typeof value) && value !== "")
    .slice(0, 5)
    .map(([key, value]) => `${named("fact", key)} ${said(key, value)}`)
    .join(", ");
}

const why = (line) => (line.reason ? ` (${named("ended", line.reason)})` : "");

/** [tone, words] of one event; `symbols`: those of a gap that befell several at once. */
function describe(line, symbols) {
  const symbol = line.symbol ? `${line.symbol}: ` : "";
  switch (line.event_type) {
    case "gap_marker":
      return [
        line.severity === "brief" ? "warn" : "bad",
        t(line.inside ? "event.gap_inside" : "event.gap", {
          reason: named("gap", line.reason),
          span: span(line.gap_seconds),
          symbol: symbolsOf(symbols),
          severity: named("severity", line.severity),
        }),
      ];
    case "reconnection_event":
      return line.result === "SUCCESS"
        ? [
            "good",
            t("event.reconnected", {
              n: line.attempt_no,
              reason: why(line),
              symbols: line.recovered_slot_list?.length ?? 0,
            }),
          ]
        : [
            "bad",
            t("event.not_reconnected", {
              n: line.attempt_no,
              reason: why(line),
              span: span(line.backoff_seconds),
            }),
          ];
    case "mitigation":
      return ["warn", `${t("event.mitigation")} ${rest(line)}`];
    case "warning":
      return ["warn", `${symbol}${named("what", line.what)} ${rest(line)}`];
    default:
      return ["", `${symbol}${named("what", line.what ?? line.event_type)} ${rest(line)}`];
  }
}

export class Events {
  constructor(list, choice) {
    this.list = list;
    this.choice = choice;
    this.lines = new Map();
    choice.addEventListener("change", () => this.draw());
  }

  add(lines) {
    for (const line of lines) {
      this.lines.set(keyOf(line), line);
    }
    if (this.lines.size > KEPT) {
      const old = [...this.lines].sort((a, b) => timeOf(a[1]) - timeOf(b[1])).slice(0, this.lines.size - KEPT);
      old.forEach(([key]) => this.lines.delete(key));
    }
    later("events", () => this.draw());
  }

  draw() {
    const wanted = this.choice.value;
    const lines = [...this.lines.values()].filter((line) => !wanted || group(line) === wanted);
    const [gaps, others] = [true, false].map((is) => lines.filter((line) => (line.event_type === "gap_marker") === is));
    const newest = [...bundled(gaps, true), ...others.map((line) => [line, []])].sort((a, b) => timeOf(b[0]) - timeOf(a[0]));
    this.list.replaceChildren(
      ...newest.map(([line, symbols]) => {
        const [tone, text] = describe(line, symbols);
        const ms = timeOf(line);
        return el(
          "li",
          { "data-kind": group(line) },
          el("time", { datetime: new Date(ms).toISOString(), title: new Date(ms).toISOString() }, clock(ms)),
          el("span", { class: `kind ${tone}` }, t(`kind.${group(line)}`)),
          el("span", { class: "of" }, line.provider ?? ""),
          el("span", { class: "text" }, text),
        );
      }),
    );
    if (!newest.length) {
      this.list.append(el("li", { class: "empty" }, t("events.none")));
    }
  }
}

/** The facts of one reason of an anomaly day in words. */
export function reasonOfDay(reason, detail = {}) {
  const values = {
    ...detail,
    seconds: span(detail.seconds),
    longest_s: span(detail.longest_s),
    used: detail.used && Math.round(detail.used * 100),
    lowest: detail.lowest && Math.round(detail.lowest * 100),
  };
  return t(`anomaly.${reason}`, values, reason);
}

export function showDays(node, marks) {
  const days = new Map();
  for (const mark of marks) {
    const key = `${mark.day} ${mark.provider}`;
    days.set(key, [...(days.get(key) ?? []), mark]);
  }
  node.replaceChildren(
    ...[...days.values()].map((of) => {
      const { day, provider } = of[0];
      const reasons = of.flatMap((mark) => (mark.reasons ? Object.entries(mark.reasons) : [[mark.reason, mark.detail]]));
      return el(
        "li",
        {},
        el("a", { href: `/day/${day}?provider=${encodeURIComponent(provider)}` }, dayName(day)),
        ` · ${provider}`,
        el("div", { class: "soft" }, reasons.map(([reason, detail]) => reasonOfDay(reason, detail)).join("; ")),
      );
    }),
  );
  if (!days.size) {
    node.append(el("li", { class: "empty" }, t("days.none")));
  }
}
