/* A run as it goes: server-sent events in, phases, figures and two lines out. Loaded from this server alone. */
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 260, LEFT = 58, RIGHT = 10, TOP = 12, BOTTOM = 26;
const FLOOR_MS = 1;
const POINTS_MOST = 2400;

const live = document.getElementById("live");
const chart = document.getElementById("chart");
const samples = [];
let liveFrom = null, liveUntil = null, began = null, drawn = false;

function element(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms >= 1000) return `${(ms / 1000).toPrecision(3)} s`;
  return `${ms >= 100 ? Math.round(ms) : ms.toPrecision(2)} ms`;
}

function axisWords(ms) {
  return ms >= 1000 ? `${ms / 1000} s` : `${ms} ms`;
}

function draw() {
  drawn = false;
  if (samples.length < 2) return;
  const from = samples[0].t, until = Math.max(samples[samples.length - 1].t, from + 10);
  let most = 10;
  for (const sample of samples) for (const arm of Object.values(sample.arms)) most = Math.max(most, arm.p99_ms || 0);
  const WIDTH = Math.max(280, chart.clientWidth);
  chart.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  // Logarithmic, so that a slow fault arm does not press the other one flat.
  const decades = Math.ceil(Math.log10(most / FLOOR_MS));
  const x = (t) => LEFT + (WIDTH - LEFT - RIGHT) * (t - from) / (until - from);
  const y = (ms) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - Math.min(1, Math.max(0, Math.log10(Math.max(ms, FLOOR_MS) / FLOOR_MS) / decades)));
  const parts = [];
  if (liveFrom !== null) {
    const end = liveUntil === null ? samples[samples.length - 1].t : liveUntil;
    parts.push(element("rect", {class: "window", x: x(liveFrom).toFixed(1), y: TOP, width: Math.max(0, x(end) - x(liveFrom)).toFixed(1), height: HEIGHT - TOP - BOTTOM}));
  }
  for (let decade = 0; decade <= decades; decade += 1) {
    const ms = FLOOR_MS * 10 ** decade;
    parts.push(element("path", {class: "rule", d: `M${LEFT} ${y(ms)}H${WIDTH - RIGHT}`}));
    parts.push(element("text", {class: "tick", x: LEFT - 8, y: y(ms) + 4, "text-anchor": "end"}, axisWords(ms)));
  }
  for (const share of [0, 0.5, 1]) {
    const anchor = share === 0 ? "start" : share === 1 ? "end" : "middle";
    parts.push(element("text", {class: "tick", x: x(from + (until - from) * share).toFixed(1), y: HEIGHT - 8, "text-anchor": anchor}, `${Math.round((until - from) * share)} s`));
  }
  for (const arm of ["control", "fault"]) {
    for (const [figure, thin] of [["p99_ms", " thin"], ["p50_ms", ""]]) {
      let path = "", pen = "M";
      for (const sample of samples) {
        const value = sample.arms[arm][figure];
        if (value === null) { pen = "M"; continue; }
        path += `${pen}${x(sample.t).toFixed(1)} ${y(value).toFixed(1)}`;
        pen = "L";
      }
      if (path) parts.push(element("path", {class: `line ${arm}${thin}`, d: path}));
    }
  }
  chart.replaceChildren(...parts);
}

function onSample(event) {
  const sample = JSON.parse(event.data);
  samples.push(sample);
  if (samples.length > POINTS_MOST) samples.shift();
  for (const [arm, seen] of Object.entries(sample.arms)) {
    const row = document.querySelector(`tr[data-arm="${arm}"]`);
    for (const cell of row.querySelectorAll("[data-cell]")) {
      const name = cell.dataset.cell, value = seen[name];
      cell.textContent = name.endsWith("_ms") ? duration(value) : name === "rate_hz" ? `${value}/s` : String(value);
    }
  }
  if (!drawn) { drawn = true; requestAnimationFrame(draw); }
}

function onStep(event) {
  const said = JSON.parse(event.data), at = new Date(said.at);
  began = began || at;
  const phases = [...document.querySelectorAll("#phases li")];
  const index = phases.findIndex((each) => each.dataset.phase === said.step);
  if (index >= 0) {
    phases.forEach((each, number) => {
      each.classList.toggle("done", number < index);
      if (number === index) each.setAttribute("aria-current", "step"); else each.removeAttribute("aria-current");
    });
  }
  const last = samples.length ? samples[samples.length - 1].t : 0;
  if (said.step === "live") liveFrom = last;
  if (said.step === "withdrawing") liveUntil = last;
  document.getElementById("said").textContent = said.note || said.step;
  write(at, said.step, said.note);
}

function write(at, phase, note) {
  const row = document.createElement("li");
  for (const [name, text] of [["after", `+${((at - (began || at)) / 1000).toFixed(1)} s`], ["phase", phase], ["", note || ""]]) {
    const cell = document.createElement("span");
    if (name) cell.className = name;
    cell.textContent = text;
    row.append(cell);
  }
  document.getElementById("steps").append(row);
}

if (live) {
  const events = new EventSource(live.dataset.events);
  events.addEventListener("step", onStep);
  events.addEventListener("sample", onSample);
  events.addEventListener("stopping", (event) => {
    const said = JSON.parse(event.data);
    document.getElementById("said").textContent = `stopping: ${said.why}`;
    write(new Date(said.at), "stopping", said.why);
  });
  events.addEventListener("outcome", () => {
    events.close();
    window.location.reload();
  });
}
