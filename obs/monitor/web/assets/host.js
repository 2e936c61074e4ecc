// The machine: disk, CPU and memory, now and over the last minutes; and every process of ours.

import { Chart, lines } from "./charts.js";
import { el, meter, put, table } from "./dom.js";
import { bytes, named, one, share, span, t } from "./words.js";

const KEPT = 600;
const LIMITS = { disk: [0.8, 0.95], cpu: [0.8, 0.9], memory: [0.85, 0.95] }; // warn, bad: as days are judged, and mitigation

export class Host {
  constructor(node) {
    this.node = node;
    this.points = [];
    this.relabel();
  }

  relabel() {
    const row = (key) => ({ key, bar: meter(t(`host.${key}`)), text: el("span", { class: "number" }) });
    this.rows = ["cpu", "memory", "disk"].map(row);
    const drawn = el("div", { class: "chart hostline" });
    this.chart = new Chart(drawn, (c) =>
      lines(
        c,
        [
          { name: t("host.cpu"), data: this.points.map(([ms, cpu]) => [ms, cpu]), colour: "series-1" },
          { name: t("host.memory"), data: this.points.map(([ms, , memory]) => [ms, memory]), colour: "series-3" },
        ],
        { from: this.nowMs - KEPT * 1000, to: this.nowMs, max: 1, form: share },
      ),
    );
    this.chart.label(t("host.chart"));
    this.processes = el("tbody");
    const heads = ["role", "provider", "state", "cpu", "resident", "uptime"].map((key) => t(`process.${key}`));
    const list = table(heads, [], { right: [3, 4, 5], label: t("process.title") });
    list.querySelector("tbody").replaceWith(this.processes);
    this.known = new Map();
    this.node.replaceChildren(
      el("header", {}, el("h2", {}, t("host.title"))),
      el(
        "div",
        { class: "meters" },
        this.rows.flatMap((row) => [el("span", {}, t(`host.${row.key}`)), row.bar.node, row.text]),
      ),
      drawn,
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("process.title") }, list),
    );
    if (this.last) {
      this.fill(...this.last);
    }
  }

  /** Take over the figures of the last minutes that the hello tells. */
  begin(past) {
    if (past) {
      this.points = past.ms.map((ms, at) => [ms, past.cpu[at], past.memory[at]]);
    }
  }

  show(host, processes, nowMs) {
    this.last = [host, processes, nowMs];
    if (nowMs > (this.points.at(-1)?.[0] ?? 0)) {
      this.points.push([nowMs, host.cpu_used, host.memory_used]);
      this.points.splice(0, Math.max(0, this.points.length - KEPT));
    }
    this.fill(host, processes, nowMs);
  }

  fill(host, processes, nowMs) {
    this.nowMs = nowMs;
    const [cpu, memory, disk] = this.rows;
    const set = (row, used, text) => {
      const [warn, bad] = LIMITS[row.key];
      row.bar.set(used, used >= bad ? "bad" : used >= warn ? "warn" : "");
      put(row.text, text);
    };
    set(cpu, host.cpu_used, t("host.cpu_of", { share: share(host.cpu_used), n: host.cores }));
    set(
      memory,
      host.memory_used,
      t("host.free_of", { share: share(host.memory_used), free: bytes(host.memory_free_bytes), all: bytes(host.memory_bytes) }),
    );
    set(
      disk,
      host.disk_used,
      t("host.free_of", { share: share(host.disk_used), free: bytes(host.disk_free_bytes), all: bytes(host.disk_bytes) }),
    );
    this.turn = (this.turn ?? -1) + 1;
    if (this.turn % 3 === 0 && !document.hidden) {
      this.chart.draw();
    }
    const seen = new Set();
    for (const process of processes) {
      const key = `${process.role} ${process.provider}`;
      seen.add(key);
      let row = this.known.get(key);
      if (!row) {
        const cells = Array.from({ length: 6 }, (_, at) => el("td", { class: at > 2 ? "right" : null }));
        row = { node: el("tr", {}, cells), cells };
        this.known.set(key, row);
        this.processes.append(row.node);
      }
      const good = process.state === "running";
      const waits = process.waiting_s > 1 ? ` (${named("waiting", process.waiting)} ${span(process.waiting_s)})` : "";
      const texts = [
        named("role", process.role),
        named("owner", process.provider),
        `${good ? "✓" : "✕"} ${named("process_state", process.state)}${waits}`,
        one(process.cpu_s),
        bytes(process.resident_bytes),
        span(process.uptime_s),
      ];
      texts.forEach((text, at) => put(row.cells[at], text));
      row.cells[2].className = good ? "" : "bad";
    }
    for (const [key, row] of this.known) {
      if (!seen.has(key)) {
        row.node.remove();
        this.known.delete(key);
      }
    }
  }
}
