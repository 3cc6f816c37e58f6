// What captures cost over time, as three charts, and the same numbers as a table.

import { h, redraw, setText, svg } from "./dom.js";
import { brief, bytes, count, duration } from "./format.js";
import { median, numbers } from "./series.js";

const HEIGHT = 132;
const MARGIN = { left: 58, right: 10, top: 8, bottom: 20 };
/** Beyond that many, stems would be a wall. */
const MOST_STEMS = 90;

const CHARTS = [
  { key: "pause_ms", title: "Guest held", scale: linear, show: duration },
  { key: "delta_bytes", title: "Delta", scale: logarithmic, show: bytes },
  { key: "bytes_s", title: "Dirty rate", scale: logarithmic, show: (value) => `${bytes(value)}/s` },
];

/** Makes the charts; `show(list)` draws those of a history. */
export function makeCharts() {
  const charts = CHARTS.map(makeChart);
  const table = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Numbers of each snapshot" });
  const details = h("details", {}, h("summary", {}, "The same as a table"), table);
  const element = h(
    "section",
    { class: "charts", hidden: true },
    h("h2", {}, "What snapshots cost"),
    h(
      "div",
      { class: "figures" },
      charts.map((chart) => chart.element),
    ),
    details,
  );
  let series = [];
  let shown = null;

  function tabulate() {
    // A table of a thousand rows is made when somebody wants to see it.
    if (details.open) redraw(table, series, makeTable);
  }

  const observer = new ResizeObserver(() => charts.forEach((chart) => chart.draw()));
  observer.observe(element);
  details.addEventListener("toggle", tabulate);
  return {
    element,
    show(list) {
      if (list === shown) return;
      shown = list;
      series = numbers(list.snapshots);
      element.hidden = series.length === 0;
      for (const chart of charts) chart.show(series);
      tabulate();
    },
    close: () => observer.disconnect(),
  };
}

function makeChart({ key, title, scale, show }) {
  const readout = h("span", { class: "readout" });
  const plot = svg("svg", { class: "plot", role: "img", height: HEIGHT });
  const element = h("figure", {}, h("figcaption", {}, h("span", {}, title), readout), plot);
  let points = [];
  let places = [];

  function draw() {
    const width = plot.clientWidth;
    if (width === 0) return;
    redraw(plot, { points, width }, () => {
      const { parts, placed } = plotParts(points, width, scale, show);
      places = placed;
      return parts;
    });
  }

  function read(point) {
    setText(readout, point ? `${point.generation}: ${show(point.value)}` : "");
  }

  plot.addEventListener("pointermove", (event) => {
    const x = event.clientX - plot.getBoundingClientRect().left;
    const nearest = places.reduce(
      (best, place) => (Math.abs(place.x - x) < Math.abs(best.x - x) ? place : best),
      places[0],
    );
    if (!nearest) return;
    mark(plot, nearest);
    read(nearest.point);
  });
  plot.addEventListener("pointerleave", () => {
    mark(plot, null);
    read(points.at(-1));
  });
  return {
    element,
    draw,
    show(series) {
      points = series
        .filter((each) => each[key] !== null)
        .map(({ generation, at, [key]: value }) => ({ generation, at, value }));
      plot.setAttribute("aria-label", summary(title, points, show));
      read(points.at(-1));
      draw();
    },
  };
}

function summary(title, points, show) {
  if (points.length === 0) return `${title}: not known of any snapshot`;
  const values = points.map((point) => point.value);
  const range = `from ${show(Math.min(...values))} to ${show(Math.max(...values))}, half of them at most ${show(median(values))}`;
  return `${title} of ${count(points.length, "snapshot")}: ${range}. The table below has each.`;
}

/** The parts of a chart, and where in it each point is. */
function plotParts(points, width, scale, show) {
  if (points.length === 0) return { parts: [label(width / 2, HEIGHT / 2, "middle", "not known yet")], placed: [] };
  const base = HEIGHT - MARGIN.bottom;
  const { ticks, share } = scale(points.map((point) => point.value));
  const y = (value) => base - share(value) * (base - MARGIN.top);
  const x = timeScale(points, width);
  const placed = points.map((point) => ({ point, x: x(point.at), y: y(point.value) }));
  const grid = ticks.flatMap((tick) => [
    svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(tick), y2: y(tick) }),
    label(MARGIN.left - 6, y(tick) + 4, "end", show(tick)),
  ]);
  const days = [label(MARGIN.left, HEIGHT - 4, "start", brief(points[0].at))];
  if (points.length > 1) days.push(label(width - MARGIN.right, HEIGHT - 4, "end", brief(points.at(-1).at)));
  const stems = points.length <= MOST_STEMS ? placed.map((place) => `M${place.x} ${base}V${place.y}`) : [];
  // A line without length and with round ends is a dot: one path for all of them.
  const dots = placed.map((place) => `M${place.x} ${place.y}h0`);
  return {
    parts: [
      ...grid,
      ...days,
      svg("path", { class: "stems", d: stems.join("") }),
      svg("path", { class: points.length <= MOST_STEMS ? "dots" : "dots many", d: dots.join("") }),
      svg("circle", { class: "mark", r: 5, visibility: "hidden" }),
    ],
    placed,
  };
}

function mark(plot, place) {
  const ring = plot.querySelector(".mark");
  if (!ring) return;
  ring.setAttribute("visibility", place ? "visible" : "hidden");
  if (!place) return;
  ring.setAttribute("cx", place.x);
  ring.setAttribute("cy", place.y);
}

function timeScale(points, width) {
  const [first, last] = [points[0].at, points.at(-1).at];
  const [left, right] = [MARGIN.left + 6, width - MARGIN.right - 6];
  return (at) => (last === first ? (left + right) / 2 : left + ((at - first) / (last - first)) * (right - left));
}

/** From zero to a round number above the largest. */
function linear(values) {
  const most = Math.max(...values, Number.MIN_VALUE);
  const unit = 10 ** Math.floor(Math.log10(most));
  const top = [1, 2, 5, 10].map((step) => step * unit).find((step) => step >= most);
  return { ticks: [0, top / 2, top], share: (value) => value / top };
}

/** From one power of two to another: the first snapshots of a machine are a thousand times larger than those that follow. */
function logarithmic(values) {
  const positive = values.filter((value) => value > 0);
  const low = Math.floor(Math.log2(Math.min(...positive, 2 ** 40)) / 2) * 2;
  const high = Math.max(Math.ceil(Math.log2(Math.max(...positive, 1)) / 2) * 2, low + 2);
  const ticks = [low, (low + high) / 2, high].map((power) => 2 ** power);
  return { ticks, share: (value) => (value > 0 ? (Math.log2(value) - low) / (high - low) : 0) };
}

function label(x, y, anchor, text) {
  return svg("text", { x, y, "text-anchor": anchor }, text);
}

function makeTable(series) {
  const heads = ["Snapshot", "Taken", ...CHARTS.map((chart) => chart.title)];
  const row = (each) => [
    String(each.generation),
    brief(each.at),
    ...CHARTS.map(({ key, show }) => (each[key] === null ? "–" : show(each[key]))),
  ];
  return h(
    "table",
    {},
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        heads.map((text) => h("th", { scope: "col" }, text)),
      ),
    ),
    h(
      "tbody",
      {},
      [...series].reverse().map((each) =>
        h(
          "tr",
          {},
          row(each).map((text, at) => h(at === 0 ? "th" : "td", { scope: at === 0 ? "row" : null }, text)),
        ),
      ),
    ),
  );
}
