// The chart of one symbol on one day.

import { axisLine, axisText, frame, slider, splitLine } from "./charts.js";
import { clock, named, one, price, share, t, whole } from "./words.js";

/** One symbol over a day: bars of a minute, volume, how much of each minute was recorded, and the gaps as shaded spans. */
export function candles(c, { bars, gaps, timezone }) {
  const time = (ms) => clock(ms, timezone, false);
  const first = bars.length ? bars[0][0] : Math.min(...gaps.map((gap) => gap.from));
  const last = bars.length ? bars.at(-1)[0] + 60000 : Math.max(...gaps.map((gap) => gap.to));
  const axis = (at, show) => ({
    type: "time",
    gridIndex: at,
    min: first,
    max: last,
    containShape: false,
    minInterval: 60000, // labels are minutes: each stands there once
    axisLine: axisLine(c),
    splitLine: { show: false },
    axisTick: { show },
    axisLabel: { ...axisText(c), show, hideOverlap: true, formatter: time },
    axisPointer: { label: { show, formatter: ({ value }) => time(value) } },
  });
  const upright = (at, extra) => ({
    type: "value",
    gridIndex: at,
    splitNumber: 3,
    axisLabel: { ...axisText(c), formatter: (value) => price(value) },
    splitLine: splitLine(c),
    ...extra,
  });
  const shade = {
    silent: false,
    itemStyle: { opacity: 0.35 },
    data: gaps.map((gap) => [
      { xAxis: gap.from, name: named("gap", gap.reason), itemStyle: { color: c[`gap-${gap.severity}`] }, label: { show: false } },
      { xAxis: Math.max(gap.to, gap.from + (last - first) / 400) },
    ]),
  };
  // A minute without a bar is a hole, not a line from one side to the other.
  const covered = bars.flatMap((bar, at) => [
    [bar[0], bar[6]],
    ...(bars[at + 1]?.[0] === bar[0] + 60000
      ? []
      : [
          [bar[0] + 60000, bar[6]],
          [bar[0] + 60000, null],
        ]),
  ]);
  const beside = (key) => ({ name: t(key), nameLocation: "middle", nameGap: 58, nameTextStyle: axisText(c) });
  const middle = (ms) => ms + 30000; // a bar stands over the middle of its minute
  const find = (ms) => bars.find((bar) => bar[0] === Math.floor(ms / 60000) * 60000);
  return {
    ...frame(c),
    axisPointer: { link: [{ xAxisIndex: "all" }] },
    tooltip: {
      ...frame(c).tooltip,
      trigger: "axis",
      axisPointer: { type: "cross", crossStyle: { color: c.soft }, label: { backgroundColor: c.soft, color: c.panel } },
      formatter: (items) => {
        const bar = find((Array.isArray(items) ? items : [items])[0]?.value?.[0]);
        return bar
          ? [
              time(bar[0]),
              `${t("bar.open")} ${price(bar[1])}   ${t("bar.high")} ${price(bar[2])}`,
              `${t("bar.low")} ${price(bar[3])}   ${t("bar.close")} ${price(bar[4])}`,
              `${t("bar.volume")} ${price(bar[5])}`,
              `${t("bar.coverage")} ${share(bar[6])} (${whole(bar[7])})`,
            ].join("\n")
          : "";
      },
    },
    grid: [
      ["52%", 10],
      ["16%", "60%"],
      ["7%", "81%"],
    ].map(([height, top]) => ({ left: 84, right: 22, top, height, outerBoundsMode: "none" })),
    dataZoom: [slider(c, { xAxisIndex: [0, 1, 2], bottom: 2 }), { type: "inside", xAxisIndex: [0, 1, 2], zoomOnMouseWheel: "ctrl" }],
    xAxis: [axis(0, false), axis(1, false), axis(2, true)],
    yAxis: [
      upright(0, { scale: true }),
      upright(1, { ...beside("bar.volume"), splitNumber: 2, axisLabel: { ...axisText(c), formatter: short } }),
      upright(2, {
        ...beside("bar.coverage"),
        min: 0,
        max: 1,
        interval: 1,
        axisLabel: { ...axisText(c), formatter: (value) => share(value) },
      }),
    ],
    series: [
      {
        id: "bars",
        type: "candlestick",
        data: bars.map(([ms, open, high, low, close]) => [middle(ms), open, close, low, high]),
        barMaxWidth: 12,
        markArea: shade,
        itemStyle: { color: c.panel, color0: c["series-1"], borderColor: c["series-1"], borderColor0: c["series-1"] },
      },
      {
        id: "volume",
        type: "bar",
        xAxisIndex: 1,
        yAxisIndex: 1,
        data: bars.map((bar) => [middle(bar[0]), bar[5]]),
        barMaxWidth: 12,
        itemStyle: { color: c["line-strong"] },
      },
      {
        id: "coverage",
        type: "line",
        step: "end",
        xAxisIndex: 2,
        yAxisIndex: 2,
        data: covered,
        showSymbol: false,
        lineStyle: { width: 1, color: c["series-2"] },
        itemStyle: { color: c["series-2"] },
        areaStyle: { color: c["series-2"], opacity: 0.25 },
      },
    ],
  };
}

const short = (value) =>
  Math.abs(value) >= 1e6 ? `${one(value / 1e6)}M` : Math.abs(value) >= 1e4 ? `${whole(value / 1e3)}k` : price(value);
