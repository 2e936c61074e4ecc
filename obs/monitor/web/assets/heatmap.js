// The heat map of gaps: symbol by minute of the day.

import { axisLine, axisText, frame, slider, splitLine } from "./charts.js";
import { clock, named, span, t } from "./words.js";

export const SEVERITIES = ["brief", "minor", "major", "critical"];

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

/** Which minutes are worth looking at first: from the first session to now, twenty at least. */
export function heatWindow(heat, nowMs) {
  const now = Math.max(0, Math.min(heat.minutes, minuteOf(heat, nowMs)));
  const starts = (heat.sessions ?? []).map((session) => minuteOf(heat, session.start_ms));
  const first = Math.max(
    0,
    Math.min(
      now - 18,
      ...(starts.length ? starts : [0]),
      ...heat.all.map(([minute]) => minute),
      ...heat.cells.map(([, minute]) => minute),
    ) - 1,
  );
  return [Math.floor(first), Math.min(heat.minutes, Math.ceil(Math.max(now + 1, first + 20)))];
}

/** Gaps, symbol by minute. The first row is what all symbols lost together; such a minute also tints the whole column. */
export function heatMap(c, heat, { nowMs, window: shown }) {
  const rows = [t("gaps.all_symbols"), ...heat.symbols];
  const time = (minute) => clock(heat.start_ms + minute * 60000, heat.timezone, false);
  const cells = [
    ...heat.all.map(([minute, seconds, reason, severity]) => [minute, 0, seconds, reason, SEVERITIES.indexOf(severity)]),
    ...heat.cells.map(([symbol, minute, seconds, reason, severity]) => [minute, symbol + 1, seconds, reason, SEVERITIES.indexOf(severity)]),
  ];
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
      formatter: ({ seriesId, value }) =>
        seriesId === "gaps"
          ? [
              `${rows[value[1]]}  ${time(value[0])}`,
              t("gaps.lost_of_minute", { span: span(value[2]) }),
              `${named("gap", value[3])} · ${named("severity", SEVERITIES[value[4]])}`,
            ].join("\n")
          : `${time(value[0])} – ${time(value[1])}\n${t(value[2] ? "gaps.ran" : "gaps.nothing_ran")}`,
    },
    grid: { left: 4, right: 10, top: 6, bottom: 44, containLabel: true },
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
        fontSize: 9.5,
        interval: 0,
        margin: 6,
        formatter: (text, at) => (at ? text : `{all|${text}}`),
        rich: { all: { color: c.text, fontSize: 10, fontWeight: "bold" } },
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
