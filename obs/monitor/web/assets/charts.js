// Charts by Apache ECharts (vendor/echarts), in the colours of the page. The library is fetched when the first chart is wanted, so
// that the figures never wait for it. Everything is drawn on a canvas, tooltips too ("richText"): the content policy forbids the
// inline styles of HTML ones. What a chart shows also stands as text beside it, for those who do not see it.

import { clock, one } from "./words.js";

const library = () => import("/assets/vendor/echarts/echarts.esm.min.js");
const living = new Set();

export function colours() {
  const style = getComputedStyle(document.documentElement);
  return new Proxy({}, { get: (_, name) => style.getPropertyValue(`--${String(name)}`).trim() });
}

/** A chart in `node`, drawn by `options(colours)`; `draw` draws it anew, also after the theme or the language has changed. */
export class Chart {
  constructor(node, options) {
    this.node = node;
    this.options = options;
    this.chart = null;
    this.wanted = false;
    living.add(this);
    this.sizes = new ResizeObserver(() => (node.isConnected ? this.chart?.resize() : this.end()));
    this.sizes.observe(node);
    library().then((echarts) => {
      if (living.has(this)) {
        this.chart = echarts.init(node, null, { renderer: "canvas" });
        this.wanted && this.draw();
      }
    });
  }

  /** Draw it, or as soon as the library is there; what the reader has zoomed to stays. */
  draw() {
    this.wanted = true;
    if (this.chart && this.node.clientWidth) {
      this.chart.setOption({ animation: false, ...this.options(colours()) }, { lazyUpdate: true });
    }
  }

  /** Let go of a chart whose place in the page has gone. */
  end() {
    this.sizes.disconnect();
    living.delete(this);
    this.chart?.dispose();
    this.chart = null;
  }

  label(text) {
    this.node.setAttribute("role", "img");
    this.node.setAttribute("aria-label", text);
  }
}

export function redrawAll() {
  living.forEach((chart) => chart.wanted && chart.draw());
}

const font = "system-ui, sans-serif";
let pen = null;

/** How wide a text of an axis is, in pixels: what a library guesses for a hundred labels cuts the longest. */
export function textWidth(text, size, weight = "") {
  pen ??= document.createElement("canvas").getContext("2d");
  pen.font = `${weight} ${size}px ${font}`.trim();
  return pen.measureText(text).width;
}

export function frame(c) {
  return {
    textStyle: { fontFamily: font, color: c.soft },
    tooltip: {
      renderMode: "richText",
      confine: true,
      backgroundColor: c.panel,
      borderColor: c["line-strong"],
      borderWidth: 1,
      padding: [6, 9],
      textStyle: { color: c.text, fontSize: 12, fontFamily: font },
      extraCssText: "",
    },
  };
}

export const axisText = (c) => ({ color: c.soft, fontSize: 11, fontFamily: font });
export const axisLine = (c) => ({ lineStyle: { color: c["line-strong"] } });
export const splitLine = (c) => ({ lineStyle: { color: c.line } });

/** The slider below a chart by which one looks closer. */
export const slider = (c, more) => ({
  type: "slider",
  height: 16,
  showDetail: false,
  borderColor: c.line,
  backgroundColor: c.sunk,
  fillerColor: c["accent-soft"],
  dataBackground: { lineStyle: { opacity: 0 }, areaStyle: { opacity: 0 } },
  handleStyle: { color: c.panel, borderColor: c.accent },
  moveHandleStyle: { color: c["line-strong"] },
  brushSelect: false,
  ...more,
});

/** Lines over time. `series`: [{name, data: [[ms, value]…], colour}]; `step`: the least that two ticks of the upright axis differ by. */
export function lines(c, series, { from, to, max = null, form = one, step = null }) {
  return {
    ...frame(c),
    tooltip: { ...frame(c).tooltip, trigger: "axis", valueFormatter: form, axisPointer: { type: "line", label: { show: false } } },
    legend: { show: true, right: 0, top: 0, itemWidth: 14, itemHeight: 2, icon: "rect", textStyle: axisText(c), selectedMode: false },
    grid: { left: 4, right: 6, top: 26, bottom: 2, containLabel: true },
    xAxis: {
      type: "time",
      min: from,
      max: to,
      axisLine: axisLine(c),
      splitLine: { show: false },
      axisLabel: { ...axisText(c), hideOverlap: true, formatter: (ms) => clock(ms, undefined, false) },
      axisPointer: { label: { formatter: ({ value }) => clock(value) } },
    },
    yAxis: {
      type: "value",
      min: 0,
      max,
      splitNumber: 3,
      minInterval: step,
      interval: max ? max / 2 : null,
      axisLabel: { ...axisText(c), formatter: (value) => form(value) },
      splitLine: splitLine(c),
    },
    series: series.map(({ name, data, colour }, at) => ({
      name,
      type: "line",
      data,
      showSymbol: false,
      sampling: "lttb",
      lineStyle: { width: 1.5, color: c[colour], type: at ? "dashed" : "solid" },
      itemStyle: { color: c[colour] },
    })),
  };
}
