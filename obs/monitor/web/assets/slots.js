// The slots of a provider as a live grid: symbol, price, the last five minutes, age of the newest record, why it has its slot.
//
// The sparklines are plain SVG: 82 instances of a chart library would cost more than everything else on the page. Ticks are collected
// and written into the document once per picture; a tile that has nothing new is not touched.

import { el, later, put, setClass } from "./dom.js";
import { named, price, span, t, whole } from "./words.js";

const SPARK_MS = 5_000; // one point each
const SPARK_POINTS = 60;
const REDRAW_MS = 1000;
const QUALITY = ["normal", "degraded", "gap"];
const LATE_S = 5; // a record comes each 0.5, 1 or 2 s
const REFUSED = new Set(["refused", "failed"]);

/** Whether a connected venue has sent no message at all over the last seconds, before anybody calls it mute. */
export const silent = (provider) => Boolean(provider?.open && provider.connected && provider.rates?.messages === 0);

/** How many symbols are being recorded, in words; those that have only not traded yet are counted apart. */
export const recorded = ({ fresh, waiting, of }) =>
  t(waiting ? "provider.of_waiting" : "provider.of", { n: whole(fresh), of: whole(of), waiting: whole(waiting) });

export class Slots {
  constructor(name, clock) {
    this.name = name;
    this.clock = clock;
    this.tiles = new Map();
    this.dirty = new Set();
    this.sparks = new Map();
    this.filter = { text: "", trouble: false };
    this.lags = [];
    this.node = el("section", { class: "panel" });
    this.list = el("ul", { class: "slots" });
    this.list.addEventListener("keydown", (event) => this.move(event));
    this.list.addEventListener("focusin", (event) => this.roam(event.target.closest("a")));
    this.relabel();
  }

  relabel() {
    this.heading = el("h2", {}, t("slots.title", { name: this.name }));
    this.summary = el("span", { class: "soft" });
    this.list.setAttribute("aria-label", t("slots.label", { name: this.name }));
    this.none = el("p", { class: "empty", hidden: true }, t("slots.none"));
    this.extra = el("p", { class: "legend" });
    this.node.replaceChildren(
      el("header", {}, this.heading, this.summary, el("span", { class: "spring" }), el("span", { class: "soft" }, t("slots.keys"))),
      this.list,
      this.none,
      this.extra,
    );
    this.tiles.forEach((tile) => tile.words?.());
    if (this.slots) {
      this.show(this.slots);
    }
  }

  /** Take over sparks of the hello: symbol -> [[ms, price]…]. */
  begin(sparks) {
    for (const [symbol, points] of Object.entries(sparks ?? {})) {
      this.sparks.set(symbol, points.slice(-SPARK_POINTS));
      const tile = this.tiles.get(symbol);
      if (tile) {
        this.spark(symbol, tile);
      }
    }
  }

  /** Show who has the slots. */
  show(slots) {
    this.slots = slots;
    const wanted = new Set(slots.slots.map((row) => row.symbol));
    for (const [symbol, tile] of this.tiles) {
      if (!wanted.has(symbol)) {
        tile.item.remove();
        this.tiles.delete(symbol);
      }
    }
    let before = null;
    for (const row of slots.slots) {
      let tile = this.tiles.get(row.symbol);
      if (!tile) {
        tile = this.make(row.symbol);
        this.tiles.set(row.symbol, tile);
        const points = this.sparks.get(row.symbol);
        if (points?.length) {
          tile.price = points.at(-1)[1];
          put(tile.priceNode, price(tile.price));
          this.spark(row.symbol, tile);
        }
      }
      if (before ? before.nextSibling !== tile.item : this.list.firstChild !== tile.item) {
        before ? before.after(tile.item) : this.list.prepend(tile.item);
      }
      before = tile.item;
      tile.row = row;
      tile.words();
    }
    this.none.hidden = slots.slots.length > 0;
    const also = ["leaving", "pinned", "excluded"]
      .filter((what) => slots[what]?.length)
      .map((what) => `${t(`slots.${what}`)}: ${slots[what].join(", ")}`);
    put(this.extra, also.join(" · "));
    this.extra.hidden = !also.length;
    this.roam(null);
    this.search();
  }

  make(symbol) {
    const part = (name) => el("span", { class: name });
    const [symbolNode, age, name, priceNode, why, mark] = ["symbol", "age", "name", "price", "why", "word"].map(part);
    const line = el("polyline", { points: "" });
    const spark = el("svg", { class: "spark", viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" }, line);
    const href = `/symbol/${encodeURIComponent(this.name)}/${encodeURIComponent(symbol)}`;
    const link = el(
      "a",
      { class: "slot", href, tabindex: "-1", "data-testid": `slot-${this.name}-${symbol}`, "data-state": "idle" },
      el("span", { class: "pair" }, symbolNode, " ", priceNode),
      el("span", { class: "pair" }, name, " ", el("span", { class: "mark" }, mark, " ", age)),
      el("span", { class: "pair" }, why, " ", spark),
    );
    put(symbolNode, symbol);
    put(priceNode, "–");
    const tile = { item: el("li", {}, link), link, age, priceNode, line, mark, row: null, ts: null, price: null, quality: 0, sparkMs: 0 };
    tile.words = () => {
      const row = tile.row;
      put(name, row.name || `#${row.slot}`);
      setClass(name, row.name ? "name" : "name number"); // a name may be cut short, a number must not
      const how = row.trigger ? named("trigger", row.trigger) : named("how", row.how);
      const pinned = this.slots?.pinned?.includes(symbol);
      put(why, pinned ? `★ ${how}` : row.score === null || row.score === undefined ? how : `${how} ${row.score.toFixed(2)}`);
      const since = row.since && `${t("slots.since")} ${row.since}`;
      link.title = [symbol, row.name, t("slots.number", { n: row.slot }), how, since].filter(Boolean).join(" · ");
    };
    return tile;
  }

  /** Ticks: symbol -> [ms, price, volume, quality]. */
  take(ticks) {
    for (const [symbol, [ms, value, , quality]] of Object.entries(ticks)) {
      let points = this.sparks.get(symbol);
      if (!points) {
        this.sparks.set(symbol, (points = []));
      }
      if (value !== null) {
        const last = points.at(-1);
        if (last && ms - last[0] < SPARK_MS) {
          last[1] = value;
        } else {
          points.push([ms, value]);
          points.splice(0, points.length - SPARK_POINTS);
        }
      }
      const tile = this.tiles.get(symbol);
      if (tile) {
        [tile.ts, tile.price, tile.quality] = [ms, value ?? tile.price, quality];
        this.dirty.add(symbol);
      }
    }
    later(`ticks ${this.name}`, () => this.flush());
  }

  flush() {
    const now = this.clock.nowMs();
    for (const symbol of this.dirty) {
      const tile = this.tiles.get(symbol);
      if (tile) {
        put(tile.priceNode, price(tile.price));
        tile.link.setAttribute("data-ts", tile.ts);
        this.lags.push(this.clock.ageMs(tile.ts));
        if (now - tile.sparkMs > REDRAW_MS) {
          tile.sparkMs = now;
          this.spark(symbol, tile);
        }
      }
    }
    this.lags.splice(0, this.lags.length - 1000);
    this.dirty.clear();
  }

  spark(symbol, tile) {
    const points = this.sparks.get(symbol) ?? [];
    if (points.length < 2) {
      return;
    }
    const values = points.map((point) => point[1]);
    const low = Math.min(...values);
    const tall = Math.max(...values) - low || 1;
    const first = points[0][0];
    const wide = Math.max(points.at(-1)[0] - first, 1);
    tile.line.setAttribute(
      "points",
      points.map(([ms, value]) => `${(((ms - first) / wide) * 100).toFixed(1)},${(18 - ((value - low) / tall) * 16).toFixed(1)}`).join(" "),
    );
  }

  /** Judge each tile; return how many symbols are being recorded, and how many the venue has confirmed that have not traded yet: no fault,
   *  for their records begin with that. `provider`: its status; `blind`: the stream is lost. */
  judge(provider, blind) {
    let [fresh, waiting] = [0, 0];
    for (const tile of this.tiles.values()) {
      const age = tile.ts === null ? null : this.clock.ageMs(tile.ts) / 1000;
      const [state, word, waits = 0] = this.stateOf(tile, age, provider, blind);
      waiting += waits;
      tile.link.getAttribute("data-state") === state || tile.link.setAttribute("data-state", state);
      put(tile.mark, word);
      put(tile.age, age === null ? "" : span(age));
      if (!blind && age !== null && age <= LATE_S + (provider?.mode === "tape" ? 60 : 0)) {
        fresh += 1;
      }
    }
    const of = this.tiles.size;
    const counts = { n: fresh, of, room: this.slots?.capacity ?? of };
    put(this.summary, blind ? t("slots.unknown") : t(silent(provider) ? "slots.summary_quiet" : "slots.summary", counts));
    if (this.filter.trouble) {
      this.search();
    }
    return { fresh, waiting, of };
  }

  stateOf(tile, age, provider, blind) {
    const standing = tile.row?.standing;
    if (blind) {
      return ["idle", `? ${t("slot.unknown")}`];
    }
    if (provider && !provider.open) {
      return ["idle", `– ${t("slot.closed")}`];
    }
    if (REFUSED.has(standing)) {
      return ["bad", `✕ ${named("standing", standing)}`];
    }
    if (age === null && provider && !provider.connected) {
      return ["bad", `✕ ${t("slot.silent")}`];
    }
    if (age === null) {
      return standing === "confirmed" ? ["warn", `… ${t("slot.waiting")}`, 1] : ["warn", `… ${named("standing", standing ?? "wanted")}`];
    }
    if (age > LATE_S && provider?.mode !== "tape") {
      return ["bad", `✕ ${t("slot.silent")}`];
    }
    // A record comes twice a second also when nobody trades; but a venue from which nothing at all comes may be mute.
    if (silent(provider)) {
      return ["warn", `△ ${t("slot.quiet")}`];
    }
    const quality = typeof tile.quality === "number" ? QUALITY[tile.quality] : tile.quality;
    if (quality && quality !== "normal") {
      return ["warn", `△ ${named("quality", quality)}`];
    }
    return ["good", "✓"];
  }

  // --- keyboard: one stop of the tabulator, arrows within

  roam(link) {
    const current = link ?? this.list.querySelector("a[tabindex='0']") ?? this.list.querySelector("li:not([hidden]) a");
    this.list.querySelectorAll("a[tabindex='0']").forEach((other) => other !== current && other.setAttribute("tabindex", "-1"));
    current?.setAttribute("tabindex", "0");
  }

  move(event) {
    const links = [...this.list.querySelectorAll("li:not([hidden]) a")];
    const at = links.indexOf(document.activeElement);
    if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) {
      return;
    }
    const top = links[0].offsetTop;
    const columns = Math.max(
      1,
      links.findIndex((link) => link.offsetTop > top) === -1 ? links.length : links.findIndex((link) => link.offsetTop > top),
    );
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
    const to = event.key === "Home" ? 0 : event.key === "End" ? links.length - 1 : event.key in steps ? at + steps[event.key] : null;
    if (to !== null) {
      event.preventDefault();
      links[Math.max(0, Math.min(links.length - 1, to))].focus();
    }
  }

  // --- what is looked for

  search(filter = this.filter) {
    this.filter = filter;
    const text = filter.text.trim().toLowerCase();
    let first = null;
    for (const [symbol, tile] of this.tiles) {
      const found = !text || symbol.toLowerCase().includes(text) || (tile.row?.name ?? "").toLowerCase().includes(text);
      const shown = found && (!filter.trouble || ["bad", "warn"].includes(tile.link.getAttribute("data-state")));
      tile.item.hidden = !shown;
      first = first ?? (shown ? tile : null);
    }
    const current = this.list.querySelector("a[tabindex='0']");
    if (first && (!current || current.parentElement.hidden)) {
      this.roam(first.link);
    }
    this.none.hidden = first !== null;
  }
}
