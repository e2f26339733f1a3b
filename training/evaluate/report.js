// Draws the series of an evaluation report: each when it comes near the screen, from the data beside it.
"use strict";

const reader = (text, type) => new type(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);

/** A packed curve as x and y; a value that is not finite leaves a gap. */
function curve({ rows, values, offset }) {
  const y = Array.from(reader(values, Float32Array), (v) => (Number.isFinite(v) ? v + offset : null));
  return { x: reader(rows, Uint32Array), y };
}

const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** A shaded run of rows over the whole plot, or over a strip of the score's panel. */
function shade([first, end], colour, yref = "paper", y0 = 0, y1 = 1) {
  const line = { color: colour, width: 1 };
  return { type: "rect", layer: "below", xref: "x", yref, x0: first, x1: end, y0, y1, fillcolor: colour, line };
}

/** Under a thumb a plot scrolls with the page; the buttons zoom. */
const isTouched = matchMedia("(pointer: coarse)").matches;

/** The panel's name, above its upper left corner. */
const label = (text, y) => ({
  text, y, x: 0, xref: "paper", yref: "paper", xanchor: "left", yanchor: "bottom", showarrow: false, font: { size: 12 },
});

function traces(data) {
  const line = (name, text, width, more) => ({
    ...curve(data.curves[name]), name: text, type: "scatter", mode: "lines", line: { color: ink(name), width, ...more },
  });
  const edge = (name) => ({ ...line(name, name, 0), hoverinfo: "skip" });
  const marks = (alarms, name, symbol) => ({
    ...alarms, name, type: "scatter", mode: "markers", yaxis: "y2", cliponaxis: false,
    marker: { color: ink("alarm"), symbol, size: 9, line: { color: ink("paper"), width: 1 } },
  });
  return [
    edge("upper"),
    { ...edge("lower"), fill: "tonexty", fillcolor: ink("band") },
    line("expected", "expected", 1),
    line("observed", "observed", 1.3),
    { ...line("score", "score", 1.2), yaxis: "y2" },
    { ...line("threshold", "threshold", 1.2, { dash: "dot" }), yaxis: "y2" },
    marks(data.right, "alarm in an event", "triangle-down"),
    marks(data.wrong, "alarm outside", "x"),
  ].filter((trace) => trace.x.length);
}

function layout(data) {
  const grid = { gridcolor: "rgba(128,128,128,.2)", zerolinecolor: "rgba(128,128,128,.35)", automargin: true };
  return {
    height: 340, showlegend: false, hovermode: "closest", dragmode: isTouched ? false : "zoom",
    margin: { l: 44, r: 12, t: 22, b: 36 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    xaxis: { ...grid, title: { text: "row" }, anchor: "y2", range: [0, data.length - 1], nticks: 6, ticklabelstandoff: 8 },
    yaxis: { ...grid, domain: [0.45, 1], nticks: 5 },
    yaxis2: { ...grid, domain: [0, 0.34], rangemode: "tozero", nticks: 4 },
    shapes: [
      shade([0, data.train], ink("train")),
      ...data.truth.map((run) => shade(run, ink("truth"))),
      ...data.open.map((run) => shade(run, ink("alarm"), "y2 domain", 0, 0.05)),
    ],
    annotations: [label(data.channel, 1), label("score, nines", 0.34)],
  };
}

/** The height that shows what was observed between two rows; a band far beyond it is cut off. */
function zoom(plot, [first, end]) {
  const { x, y } = plot.data.find((trace) => trace.name === "observed");
  const seen = y.filter((v, at) => v !== null && x[at] >= first && x[at] <= end);
  const low = seen.reduce((a, b) => Math.min(a, b), Infinity);
  const high = seen.reduce((a, b) => Math.max(a, b), -Infinity);
  const air = (high - low || Math.abs(high) || 1) / 4;
  const range = seen.length ? { "yaxis.range": [low - air, high + air] } : { "yaxis.autorange": true };
  return Plotly.relayout(plot, { "xaxis.range": [first, end], ...range });
}

async function draw(plot) {
  const data = JSON.parse(plot.nextElementSibling.textContent);
  plot.dataset.drawn = "yes";
  await Plotly.react(plot, traces(data), layout(data), { responsive: true, displayModeBar: false });
  if (plot.dataset.drawn) await zoom(plot, [0, data.length - 1]);
}

function clear(plot) {
  if (!plot.dataset.drawn) return;
  Plotly.purge(plot);
  delete plot.dataset.drawn;
}

/** Plots near the screen are drawn, those far from it forgotten: hundreds at once would choke a phone. */
const nearby = new IntersectionObserver(
  (entries) => entries.forEach(({ target, isIntersecting }) => {
    if (!isIntersecting) clear(target);
    else if (!target.dataset.drawn) draw(target);
  }),
  { rootMargin: "1200px" },
);

/** Show the series of a family, in the chosen order. */
function choose(suite) {
  const family = suite.querySelector(".family").value;
  const order = suite.querySelector(".order").value;
  const series = [...suite.querySelectorAll("article")];
  series.sort((a, b) => a.dataset[order] - b.dataset[order]).forEach((one) => one.parentElement.append(one));
  series.forEach((one) => { one.hidden = Boolean(family) && one.dataset.family !== family; });
  const shown = series.filter((one) => !one.hidden).length;
  suite.querySelector("output").textContent = `${shown} of ${series.length} series`;
}

/** Zoom to what a button names, or out again. */
async function look(button) {
  const plot = button.closest("article").querySelector(".plot");
  if (!plot.dataset.drawn) await draw(plot);
  await zoom(plot, JSON.parse(button.dataset.range));
}

document.querySelectorAll(".series .plot").forEach((plot) => nearby.observe(plot));
document.querySelectorAll(".suite").forEach((suite) => {
  suite.querySelectorAll("select").forEach((select) => select.addEventListener("change", () => choose(suite)));
});
document.querySelectorAll("button[data-range]").forEach((button) => {
  button.addEventListener("click", () => look(button));
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  document.querySelectorAll(".series .plot[data-drawn]").forEach(draw);
});
