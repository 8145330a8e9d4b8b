// Chart data (views.py says what is in it) → ECharts. Colours come from the style sheet, so that dark mode has one source.
const CROSS = "path://M-1,-3h2v2h2v2h-2v2h-2v-2h-2v-2h2z"; // ECharts has none of its own
const SYMBOLS = { dense: "diamond", uniform: "rect", greedy: "triangle", exploit: "circle", explore: "circle", replicate: CROSS };
const TONES = { warm: "greedy", replicate: "exploit" }; // kinds that share another one's colour
const ORDER = ["dense", "uniform", "greedy", "warm", "exploit", "explore", "replicate", "random", "grid", "other"];
const drawn = new Map(); // place → { chart, make }

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const colour = (kind) => style(`kind-${TONES[kind] ?? kind}`) || style("kind-other");
const filling = (kind) =>
  kind === "explore"
    ? { color: style("card"), borderColor: colour(kind), borderWidth: 2 }
    : { color: colour(kind), borderColor: style("card"), borderWidth: 1 };
const percent = (value) => `${Number((100 * value).toFixed(2))} %`;
const short = (value) => String(Number(Number(value).toPrecision(4)));

const NARROW = 520; // px: the legend needs a second line

function chartOf(place) {
  if (!drawn.has(place)) {
    const entry = { chart: globalThis.echarts.init(place, null, { renderer: "canvas" }), make: () => ({}), narrow: false };
    drawn.set(place, entry);
    new ResizeObserver(() => {
      entry.chart.resize();
      if (place.clientWidth < NARROW !== entry.narrow) renew(place);
    }).observe(place);
  }
  return drawn.get(place);
}

function renew(place) {
  const entry = drawn.get(place);
  entry.narrow = place.clientWidth < NARROW;
  entry.chart.setOption(entry.make(entry.narrow), { notMerge: true });
}

function render(place, make) {
  chartOf(place).make = make;
  renew(place);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach((_, place) => renew(place)));

function tip(title, lines) {
  const box = document.createElement("div");
  box.className = "tip";
  const head = document.createElement("strong");
  head.textContent = title;
  box.append(head, ...lines.map((line) => Object.assign(document.createElement("span"), { textContent: line })));
  return box;
}

function base() {
  return {
    animationDuration: 300,
    animation: !matchMedia("(prefers-reduced-motion: reduce)").matches,
    textStyle: { fontFamily: getComputedStyle(document.body).fontFamily, color: style("ink") },
    tooltip: {
      trigger: "item",
      confine: true,
      backgroundColor: style("card"),
      borderColor: style("line"),
      textStyle: { color: style("ink") },
      extraCssText: "",
    },
  };
}

function axis(name, more = {}) {
  return {
    type: "value",
    scale: true,
    name,
    nameLocation: "middle",
    nameGap: 30,
    nameTextStyle: { color: style("quiet") },
    axisLine: { show: false },
    axisTick: { show: false },
    axisLabel: { color: style("quiet"), hideOverlap: true },
    splitLine: { lineStyle: { color: style("line") } },
    ...more,
  };
}

// Each value holds until the next one; ECharts' own steps slant where they are low.
const stairs = (points) => points.flatMap(([x, y], i) => (i ? [[x, points[i - 1][1]], [x, y]] : [[x, y]]));

// Ends on round ticks, some five of them.
function round(low, high) {
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  const rough = (high - low + 2 * room) / 5;
  const size = 10 ** Math.floor(Math.log10(rough));
  const interval = size * [1, 2, 5, 10].find((factor) => factor * size >= rough);
  return { min: Math.floor((low - room) / interval) * interval, max: Math.ceil((high + room) / interval) * interval, interval };
}

const dashed = (name) => ({ color: style(name), type: "dashed", width: 1.2 });

function limits(data) {
  const lines = [];
  const label = (formatter, position) => ({ formatter, position, color: style("quiet"), fontSize: 11 });
  if (data.dense !== null) {
    lines.push({ yAxis: data.dense, lineStyle: { ...dashed("quiet"), type: "dotted" }, label: label("dense", "insideEndTop") });
  }
  if (data.least_accuracy !== null) {
    const text = `limit: dense − ${short(100 * data.max_drop)} pt`;
    lines.push({ yAxis: data.least_accuracy, lineStyle: dashed("bad"), label: label(text, "insideEndBottom") });
  }
  if (data.most_ratio !== null) {
    lines.push({ xAxis: data.most_ratio, lineStyle: dashed("bad"), label: label(`limit ${short(data.most_ratio)}`, "insideEndTop") });
  }
  return { silent: true, symbol: "none", precision: 9, data: lines };
}

function tradeoffPoint(point, data) {
  const below = data.floor !== null && point.y < data.floor;
  return {
    value: [point.x, below ? data.floor : point.y],
    point,
    symbolRotate: below ? 180 : 0,
    ...(below ? { symbol: "triangle" } : {}),
    itemStyle: { opacity: point.within ? 1 : 0.55 },
  };
}

function tradeoff(data, narrow) {
  const kinds = ORDER.filter((kind) => data.points.some((point) => point.kind === kind));
  const fraction = data.points.every((point) => point.y >= 0 && point.y <= 1);
  const bars = data.points
    .filter((point) => point.lo !== null && point.hi !== null)
    .flatMap((point) => {
      const y = data.floor !== null ? Math.max(point.y, data.floor) : point.y;
      return [[point.lo, y], [point.hi, y], ["-", "-"]];
    });
  const ys = [...data.points.map((point) => Math.max(point.y, data.floor ?? point.y)), data.dense, data.least_accuracy];
  const known = ys.filter((y) => y !== null);
  return {
    ...base(),
    tooltip: {
      ...base().tooltip,
      formatter: ({ data: { point } = {} }) =>
        point &&
        tip(`${point.number} · ${point.title}`, [
          `${point.kind}${point.within ? "" : ", outside the limit"}`,
          `latency ratio ${point.x.toFixed(3)}${point.lo === null ? "" : ` (${point.lo.toFixed(3)}–${point.hi.toFixed(3)})`}`,
          ...point.text,
        ]),
    },
    legend: { top: 0, left: 0, itemGap: 14, itemWidth: 12, itemHeight: 10, textStyle: { color: style("ink") }, data: [...kinds, "Pareto front"] },
    grid: { left: narrow ? 56 : 62, right: 16, top: narrow ? 64 : 40, bottom: 46 },
    xAxis: axis("latency ratio to dense  (← faster)", {
      min: 0,
      axisLabel: { color: style("quiet"), formatter: short, hideOverlap: true },
    }),
    yAxis: axis(`validation ${data.metric}`, {
      nameGap: 46,
      ...round(Math.min(...known), Math.max(...known)),
      axisLabel: { color: style("quiet"), formatter: fraction ? percent : short },
    }),
    series: [
      {
        name: "Pareto front",
        type: "line",
        data: stairs(data.front),
        symbol: "none",
        silent: true,
        lineStyle: { color: style("accent"), width: 2 },
        itemStyle: { color: style("accent") },
        areaStyle: { color: style("accent"), opacity: 0.06, origin: "start" },
        markLine: limits(data),
        z: 1,
      },
      { type: "line", data: bars, symbol: "none", silent: true, lineStyle: { color: style("quiet"), width: 1, opacity: 0.6 }, z: 2 },
      ...kinds.map((kind) => ({
        name: kind,
        type: "scatter",
        symbol: SYMBOLS[kind] ?? "circle",
        symbolSize: kind === "dense" ? 15 : 11,
        itemStyle: filling(kind),
        data: data.points.filter((point) => point.kind === kind).map((point) => tradeoffPoint(point, data)),
        cursor: "pointer",
        z: 3,
      })),
    ],
  };
}

function best(data) {
  const kinds = ORDER.filter((kind) => data.points.some((point) => point.kind === kind));
  return {
    ...base(),
    tooltip: {
      ...base().tooltip,
      formatter: ({ data: { point } = {} }) => point && tip(`${point.x} · ${point.title}`, [`${data.metric} ${short(point.y)}`, point.kind]),
    },
    grid: { left: 58, right: 16, top: 16, bottom: 46 },
    xAxis: axis("trial", { minInterval: 1, scale: false, min: 0, splitLine: { show: false } }),
    yAxis: axis(data.metric, { nameGap: 42, axisLabel: { color: style("quiet"), formatter: short } }),
    series: [
      { type: "line", data: stairs(data.line), symbol: "none", silent: true, lineStyle: { color: style("accent"), width: 2 }, z: 1 },
      ...kinds.map((kind) => ({
        name: kind,
        type: "scatter",
        symbol: SYMBOLS[kind] ?? "circle",
        symbolSize: 8,
        itemStyle: { ...filling(kind), opacity: 0.85 },
        data: data.points.filter((point) => point.kind === kind).map((point) => ({ value: [point.x, point.y], point })),
        cursor: "pointer",
        z: 2,
      })),
    ],
  };
}

function curve(data) {
  const few = data.points.length < 40;
  return {
    ...base(),
    tooltip: { ...base().tooltip, trigger: "axis", formatter: ([first]) => tip(short(first.value[1]), [`step ${short(first.value[0])}`]) },
    grid: { left: 48, right: 12, top: 10, bottom: 24 },
    xAxis: axis("", { axisLabel: { color: style("quiet"), formatter: short, hideOverlap: true }, minInterval: 1, splitLine: { show: false } }),
    yAxis: axis("", { splitNumber: 3, axisLabel: { color: style("quiet"), formatter: short } }),
    series: [{ type: "line", data: data.points, showSymbol: few, symbolSize: 5, lineStyle: { width: 1.6 }, itemStyle: { color: style("info") } }],
  };
}

const MAKERS = { tradeoff, best };
const NAMES = {
  tradeoff: (data) => `Scatter of ${data.points.length} trials, validation ${data.metric} against latency ratio, ${data.front.length} on the Pareto front. The table of trials has the numbers.`,
  best: (data) => `Best ${data.metric} so far over ${data.points.length} trials. The table of trials has the numbers.`,
};

export function draw(place, data, runs) {
  const kind = place.dataset.chart;
  place.hidden = data.points.length === 0;
  place.nextElementSibling.hidden = !place.hidden;
  if (place.hidden) return;
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", NAMES[kind](data));
  place.dataset.points = String(data.points.length);
  const fresh = !drawn.has(place);
  render(place, (narrow) => MAKERS[kind](data, narrow));
  if (!fresh || !runs) return;
  drawn.get(place).chart.on("click", ({ data: item }) => {
    if (item?.point) location.href = runs + encodeURIComponent(item.point.name);
  });
}

export function drawCurves(place, curves) {
  if (!place || !curves.length) return;
  place.querySelector(".empty")?.remove();
  for (const data of curves) {
    let figure = [...place.children].find((one) => one.dataset.metric === data.metric);
    if (!figure) {
      figure = document.createElement("figure");
      figure.dataset.metric = data.metric;
      figure.append(
        Object.assign(document.createElement("figcaption"), { textContent: data.metric }),
        Object.assign(document.createElement("div"), { className: "chart" }),
      );
      place.append(figure);
    }
    const chart = figure.querySelector(".chart");
    chart.setAttribute("role", "img");
    chart.setAttribute("aria-label", `${data.metric} over ${data.points.length} steps`);
    chart.dataset.points = String(data.points.length);
    render(chart, () => curve(data));
  }
}
