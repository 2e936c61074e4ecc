// The heat map of gaps: symbol by minute of the day.

import { axisLine, axisText, frame, slider, splitLine, textWidth } from "./charts.js";
import { clock, exact, named, span, t } from "./words.js";

export const SEVERITIES = ["brief", "minor", "major", "critical"];
const LABEL = 9.5; // pixels
const TOLD = 3; // gaps of one cell whose times its tooltip tells

const minuteOf = (heat, ms) => (ms - heat.start_ms) / 60000;

/** The spans of minutes up to now by whether a session ran: [from, to, 1 or 0]. Where none ran nothing was recorded, and no gap says so. */
function ranSpans(heat, nowMs) {
  if (!heat.sessions) {
    return [];
  }
  const end = Math.min(heat.minutes, minuteOf(heat, nowMs));
  const spans = [];
  let at = 0;
  const sorted = heat.sessions
    .map((session) => [minuteOf(heat, session.start_ms), session.end_ms ? minuteOf(heat, session.end_ms) : end])
    .sort((a, b) => a[0] - b[0]);
  for (const [first, last] of sorted) {
    spans.push([at, Math.min(first, end), 0], [Math.max(at, first), Math.min(last, end), 1]);
    at = Math.max(at, last);
  }
  spans.push([at, end, 0]);
  return spans.filter(([first, last]) => last > first);
}

/** Stripes, for what has not ended yet. */
function stripes(colour) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 6;
  const pen = canvas.getContext("2d");
  pen.strokeStyle = colour;
  pen.lineWidth = 2;
  for (const at of [-6, 0, 6]) {
    pen.moveTo(at, 6);
    pen.lineTo(at + 6, 0);
  }
  pen.stroke();
  return { image: canvas, repeat: "repeat" };
}

/** Whether a day as the server tells it is the one that goes on now. */
export const isNow = (day, nowMs) => minuteOf(day, nowMs) >= 0 && minuteOf(day, nowMs) < day.minutes;

/** Which minutes are worth looking at first: from the first session to now, twenty at least. */
export function heatWindow(heat, nowMs, losing = []) {
  const now = Math.max(0, Math.min(heat.minutes, minuteOf(heat, nowMs)));
  const starts = (heat.sessions ?? []).map((session) => minuteOf(heat, session.start_ms));
  const first = Math.max(
    0,
    Math.min(
      now - 18,
      ...(starts.length ? starts : [0]),
      ...losing.map((loss) => minuteOf(heat, loss.since_ms)),
      ...heat.all.map(([minute]) => minute),
      ...heat.cells.map(([, minute]) => minute),
    ) - 1,
  );
  return [Math.floor(first), Math.min(heat.minutes, Math.ceil(Math.max(now + 1, first + 20)))];
}

/** Gaps, symbol by minute. The first row is what all symbols lost together; such a minute also tints the whole column.
 *
 *  `losing`: what is being lost now, up to now and striped, that of one connection of several in a row of its own; `gaps`: the lines of
 *  the gaps, whose exact times the tooltips tell. */
export function heatMap(c, heat, { nowMs, window: shown, losing = [], gaps = [] }) {
  const links = losing.filter((loss) => loss.link !== null).map((loss) => t("gaps.link", { name: loss.link }));
  const rows = [t("gaps.all_symbols"), ...links, ...heat.symbols];
  const from = 1 + links.length; // the row of the first symbol
  const open = losing
    .map((loss) => [Math.max(0, minuteOf(heat, loss.since_ms)), Math.min(heat.minutes, minuteOf(heat, nowMs)), rowOf(loss), loss])
    .filter(([start, end]) => end > start);
  const left = Math.ceil(Math.max(...rows.map((text, at) => textWidth(text, LABEL, at ? "" : "bold")))) + 12;
  const time = (minute) => clock(heat.start_ms + minute * 60000, heat.timezone, false);
  const cells = [
    ...heat.all.map(([minute, seconds, reason, severity]) => [minute, 0, seconds, reason, SEVERITIES.indexOf(severity)]),
    ...heat.cells.map(([symbol, minute, seconds, reason, severity]) => [minute, symbol + from, seconds, reason, SEVERITIES.indexOf(severity)]),
  ];
  function rowOf(loss) {
    return loss.link === null ? 0 : 1 + links.indexOf(t("gaps.link", { name: loss.link }));
  }
  /** The exact times of the gaps of a cell. */
  const times = (minute, row) => {
    const [start, end] = [0, 60000].map((more) => heat.start_ms + minute * 60000 + more);
    const here = gaps.filter(
      (gap) =>
        gap.scope !== "swing" &&
        gap.symbol === (row ? rows[row] : null) &&
        Date.parse(gap.gap_start_ts) < end &&
        Date.parse(gap.gap_end_ts) >= start,
    );
    const told = here
      .slice(0, TOLD)
      .map((gap) => `${exact(Date.parse(gap.gap_start_ts), heat.timezone)} – ${exact(Date.parse(gap.gap_end_ts), heat.timezone)}`);
    return here.length > TOLD ? [...told, "…"] : told;
  };
  const box = (params, api, from, to, row, rowsTall) => {
    const [x, y] = api.coord([from, row]);
    const [right] = api.coord([to, row]);
    const tall = api.size([0, 1])[1];
    const area = params.coordSys;
    const left = Math.max(area.x, x);
    const wide = Math.min(area.x + area.width, Math.max(right, x + 3)) - left;
    return wide <= 0 ? null : { x: left, y: y - tall / 2, width: wide, height: tall * rowsTall };
  };
  const zoom = shown ? { startValue: shown[0], endValue: shown[1] } : {}; // none: as the reader has it
  const colour = (value) => c[`gap-${SEVERITIES[value] ?? "brief"}`];
  return {
    ...frame(c),
    tooltip: {
      ...frame(c).tooltip,
      trigger: "item",
      formatter: ({ seriesId, value, dataIndex }) =>
        seriesId === "gaps"
          ? [
              `${rows[value[1]]}  ${time(value[0])}`,
              t("gaps.lost_of_minute", { span: span(value[2]) }),
              `${named("gap", value[3])} · ${named("severity", SEVERITIES[value[4]])}`,
              ...times(value[0], value[1]),
            ].join("\n")
          : seriesId === "open" && open[dataIndex]
            ? [rows[open[dataIndex][2]], sinceOpen(open[dataIndex][3], heat.timezone), named("gap", open[dataIndex][3].reason)].join("\n")
            : `${time(value[0])} – ${time(value[1])}\n${t(value[2] ? "gaps.ran" : "gaps.nothing_ran")}`,
    },
    grid: { left, right: 16, top: 6, bottom: 60, outerBoundsMode: "none" },
    dataZoom: [
      slider(c, { ...zoom, filterMode: "none", bottom: 4, minValueSpan: 10 }),
      {
        type: "inside",
        ...zoom,
        filterMode: "none",
        minValueSpan: 10,
        zoomOnMouseWheel: "ctrl",
        moveOnMouseMove: true,
        preventDefaultMouseMove: false,
      },
    ],
    xAxis: {
      type: "value",
      min: 0,
      max: heat.minutes,
      axisLine: axisLine(c),
      splitLine: { show: true, ...splitLine(c) },
      splitNumber: 8,
      minInterval: 1,
      axisLabel: { ...axisText(c), hideOverlap: true, showMaxLabel: false, formatter: time },
    },
    yAxis: {
      type: "category",
      data: rows,
      inverse: true,
      axisTick: { show: false },
      axisLine: axisLine(c),
      splitArea: { show: true, areaStyle: { color: ["transparent", c.sunk] } },
      splitLine: { show: true, lineStyle: { color: c.panel, width: 1 } },
      axisLabel: {
        ...axisText(c),
        fontSize: LABEL,
        interval: 0,
        margin: 6,
        formatter: (text, at) => (at ? text : `{all|${text}}`),
        rich: { all: { color: c.text, fontSize: LABEL, fontWeight: "bold" } },
      },
    },
    series: [
      {
        id: "ran",
        type: "custom",
        data: ranSpans(heat, nowMs),
        encode: { x: [0, 1] },
        clip: true,
        z: 1,
        renderItem: (params, api) => {
          const shape = box(params, api, api.value(0), api.value(1), 0, rows.length);
          return shape && { type: "rect", shape, style: api.value(2) ? { fill: c.good, opacity: 0.22 } : { fill: c.line, opacity: 0.75 } };
        },
      },
      {
        id: "gaps",
        type: "custom",
        data: cells,
        encode: { x: 0, y: 1 },
        clip: true,
        z: 3,
        renderItem: (params, api) => {
          const [minute, row, value] = [api.value(0), api.value(1), api.value(4)];
          const shape = box(params, api, minute, minute + 1, row, 1);
          if (!shape) {
            return null;
          }
          const cell = { type: "rect", shape: { ...shape, height: Math.max(2, shape.height - 1) }, style: { fill: colour(value) } };
          if (row !== 0) {
            return cell;
          }
          const column = {
            type: "rect",
            shape: { ...shape, height: shape.height * rows.length },
            style: { fill: colour(value), opacity: 0.45 },
          };
          return { type: "group", children: [column, cell] };
        },
      },
      {
        id: "open",
        type: "custom",
        data: open.map(([start, end, row]) => [start, end, row]),
        encode: { x: [0, 1], y: 2 },
        clip: true,
        z: 3,
        renderItem: (params, api) => {
          const row = api.value(2);
          const shape = box(params, api, api.value(0), api.value(1), row, 1);
          if (!shape) {
            return null;
          }
          const colour = open[params.dataIndex]?.[3].sure ? c.bad : c.warn;
          const all = row === 0 ? { ...shape, height: shape.height * rows.length } : shape;
          return {
            type: "group",
            children: [
              { type: "rect", shape: all, style: { fill: stripes(colour), opacity: row === 0 ? 0.4 : 1 } },
              { type: "rect", shape, style: { fill: stripes(colour), stroke: colour, lineWidth: 1.5 } },
            ],
          };
        },
      },
      {
        id: "now",
        type: "line",
        data: [],
        silent: true,
        z: 4,
        markLine: {
          symbol: "none",
          silent: true,
          animation: false,
          lineStyle: { color: c.accent, type: "solid", width: 1 },
          label: { show: false },
          data: minuteOf(heat, nowMs) > 0 && minuteOf(heat, nowMs) < heat.minutes ? [{ xAxis: minuteOf(heat, nowMs) }] : [],
        },
      },
    ],
  };
}

/** Since when a loss goes on, in words. */
export const sinceOpen = (loss, zone) =>
  t(loss.sure ? "gaps.since_open" : "gaps.since_silent", { time: clock(loss.since_ms, zone) });
