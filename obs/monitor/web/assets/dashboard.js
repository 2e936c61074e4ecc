// The live page: one stream from the monitor, handed to the parts of the page.

import { redrawAll } from "./charts.js";
import { getJson, later, put, setClass } from "./dom.js";
import { Events, showDays } from "./events.js";
import { GapMap } from "./gaps.js";
import { Health } from "./health.js";
import { Host } from "./host.js";
import { Live } from "./live.js";
import { onTheme, start } from "./page.js";
import { Providers } from "./providers.js";
import { recorded, silent, Slots } from "./slots.js";
import { milliseconds, onLanguage, span, t, whole, zoneName } from "./words.js";

const HEAT_MS = 30_000;
const DAYS_MS = 60_000;
const SETTLING_MS = 3000;
const find = (id) => document.getElementById(id);

await start();

const health = new Health(find("health"));
const providers = new Providers(find("providers"));
const host = new Host(find("host"));
const events = new Events(find("events"), find("kinds"));
const slots = new Map();
const maps = new Map();
let begunMs = Infinity; // when the stream began to speak
let status = null;
let days = [];
let recording = {};

const nowMs = () => live.clock.nowMs();

function ofProvider(known, name, parent, make) {
  let part = known.get(name);
  if (!part) {
    part = make();
    known.set(name, part);
    parent.append(part.node);
  }
  return part;
}

const slotsOf = (name) => ofProvider(slots, name, find("slots"), () => new Slots(name, live.clock));

const live = new Live(
  "/api/live",
  {
    hello(value) {
      begunMs = performance.now();
      put(find("version"), `obs ${value.version}`);
      providers.begin(value.past);
      host.begin(value.past);
      Object.entries(value.spark ?? {}).forEach(([name, sparks]) => slotsOf(name).begin(sparks));
      events.add(value.events ?? []);
      refresh();
    },
    status(value) {
      status = value;
      value.providers.forEach(({ name }) => {
        slotsOf(name);
        ofProvider(maps, name, find("gapmaps"), () => {
          const map = new GapMap(name, nowMs, () => [...slotsOf(name).tiles.keys()]);
          map.fetch();
          return map;
        });
      });
      later("status", showStatus);
    },
    slots(value) {
      later("slots", () =>
        value.providers.forEach((one) => {
          slotsOf(one.provider).show(one);
          maps.get(one.provider)?.fetch();
        }),
      );
    },
    ticks(value) {
      Object.entries(value).forEach(([name, ticks]) => slots.get(name)?.take(ticks));
    },
    notices(value) {
      events.add(value.events);
      for (const name of new Set(value.events.filter((line) => line.event_type === "gap_marker").map((line) => line.provider))) {
        soon(name);
      }
      if (value.events.some((line) => line.what === "anomaly_day")) {
        fetchDays();
      }
    },
  },
  (open) => later("connection", () => showConnection(open)),
);

// --- showing

// In the first moments of a page no tick has come yet: that says nothing of the symbols.
const settling = () => performance.now() - begunMs <= SETTLING_MS;

function judge() {
  recording = {};
  for (const [name, part] of slots) {
    const { fresh, waiting, of } = part.judge(
      status?.providers.find((one) => one.name === name),
      live.open === false,
    );
    recording[name] = settling() ? { fresh, waiting: 0, missing: 0, of } : { fresh, waiting, missing: of - fresh - waiting, of };
  }
}

function showStatus() {
  if (!status || live.open === false) {
    return;
  }
  judge();
  const ms = Date.parse(status.ts);
  status.providers.forEach((one) => maps.get(one.name)?.lose(one.losing ?? []));
  find("empty").hidden = status.providers.length > 0;
  providers.show(status.providers, recording, ms);
  host.show(status.host, status.processes, ms);
  const open = status.providers.filter((one) => one.open);
  const sum = (list, of) => list.reduce((all, one) => all + (of(one) ?? 0), 0);
  const keys = ["fresh", "waiting", "missing", "of"];
  const symbols = Object.fromEntries(keys.map((key) => [key, sum(open, (one) => recording[one.name]?.[key])]));
  const quiet = status.providers.filter(silent).map((one) => one.name);
  const losing = status.providers.filter((one) => one.losing?.length).map((one) => [one.name, one.losing[0]]); // the longest
  const unsure = settling() && symbols.fresh < sum(open, (one) => one.symbols); // the slots may not have come either
  health.show(status.health, { ...symbols, quiet, losing, settling: unsure }, ms);
  put(find("count-symbols"), recorded(symbols));
  put(find("count-records"), t("unit.per_s", { n: whole(sum(status.providers, (one) => one.rates?.records)) }));
  put(find("count-links"), t("provider.of", { n: sum(open, (one) => one.connected), of: sum(open, (one) => one.links.length) }));
  const gaps = whole(sum([...maps.values()], (one) => one.gaps.filter((gap) => !gap.within).length));
  const lost = sum(status.providers, (one) => one.losing?.filter((loss) => loss.sure).length);
  put(find("count-gaps"), lost ? t("count.gaps_open", { n: gaps, open: whole(lost) }) : gaps);
}

function showConnection(open) {
  if (open === false) {
    health.lose();
  }
  find("lost").hidden = open !== false;
  setClass(document.body, open === false ? "is-lost" : "");
  judge();
  showAge();
}

function showAge() {
  const silent = live.silentS;
  const node = find("age");
  put(node, status ? t("page.age", { span: span(silent) }) : t("page.loading"));
  setClass(node, `state ${live.open === false || silent > 5 ? "bad" : "good"}`);
  // What is spoken by a screen reader is said once; the seconds stand beside it.
  put(find("lost-text"), live.open === false ? t("page.lost") : "");
  if (live.open === false) {
    put(find("lost-since"), t("page.lost_since", { span: span(live.lostS) }));
  }
}

function showLag() {
  const lags = [...slots.values()].flatMap((part) => part.lags).sort((a, b) => a - b);
  put(
    find("lag"),
    lags.length
      ? t("page.lag", { median: milliseconds(lags[lags.length >> 1]), p95: milliseconds(lags[Math.floor(lags.length * 0.95)]) })
      : "",
  );
}

function showDaysNow() {
  showDays(find("days"), days);
}

// --- what is asked for besides the stream

async function fetchDays() {
  try {
    days = (await getJson("/api/days")).days.slice(0, 12);
    showDaysNow();
  } catch (error) {
    put(find("days"), t("page.failed", { why: error.message }));
  }
}

const asked = new Map();

/** Fetch the gaps of a provider anew, a moment after the last of several news. */
function soon(name) {
  clearTimeout(asked.get(name));
  asked.set(
    name,
    setTimeout(() => maps.get(name)?.fetch(), 300),
  );
}

function refresh() {
  maps.forEach((map) => map.fetch());
  fetchDays();
}

setInterval(
  () =>
    later("age", () => {
      showAge();
      judge();
    }),
  1000,
);
setInterval(() => later("lag", showLag), 2000);
setInterval(() => document.hidden || live.open === false || maps.forEach((map) => map.fetch()), HEAT_MS);
setInterval(() => document.hidden || live.open === false || fetchDays(), DAYS_MS);
document.addEventListener("visibilitychange", () => document.hidden || (live.open && refresh()));

// --- what the reader asks for

const filter = { text: "", trouble: false };
const search = () => slots.forEach((part) => part.search({ ...filter }));
find("search").addEventListener("input", (event) => {
  filter.text = event.target.value;
  search();
});
find("trouble").addEventListener("change", (event) => {
  filter.trouble = event.target.checked;
  search();
});
find("retry").addEventListener("click", () => live.connect());

function words() {
  put(find("zone"), t("page.zone", { zone: zoneName() }));
}

onLanguage(() => {
  providers.relabel();
  slots.forEach((part) => part.relabel());
  maps.forEach((part) => part.relabel());
  host.relabel();
  events.draw();
  showDaysNow();
  words();
  live.open === false ? health.lose() : showStatus();
  showAge();
});
onTheme(redrawAll);
words();
showAge();
