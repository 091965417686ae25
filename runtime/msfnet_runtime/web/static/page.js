// The page: it draws the frames it receives; its controls affect this page only.

import { drawChart } from "./chart.js";
import { Cloud } from "./cloud.js";
import { Palette, usualRange } from "./colours.js";
import { Connection } from "./connection.js";
import { FARTHEST, INVALID, readFrame } from "./frame.js";

const SNAPSHOTS = 120;
const STATES = {
  connecting: "Connecting",
  open: "Live",
  paused: "Paused",
  lost: "No connection, trying again",
  ended: "The stream has ended",
};
const AGES = [
  { name: "median", value: (s) => s.age.p50_ms },
  { name: "99 %", value: (s) => s.age.p99_ms },
  { name: "99 % until written", value: (s) => s.written_age.p99_ms },
];
const STAGES = ["capture", "prepare", "infer", "finish", "write"].map((name) => ({
  name,
  value: (snapshot) => snapshot.stages[`${name}_ms`],
}));

const find = (id) => document.getElementById(id);
const palette = new Palette();
const cloud = new Cloud(find("cloud"));
let modelRange = [1, 10];
let frame = null; // {header, image, counts} of the frame shown
let mark = null; // {x, y} in pixels of the depth sent
let snapshots = [];
let paused = false;
let greeted = false;
const drawn = []; // times of the last frames drawn, milliseconds

// Remove the token from the address and the history; a cookie has it now.
history.replaceState(null, "", location.pathname);

const connection = new Connection({ state: showState, text: receiveText, frame: receiveFrame });

function showState(name) {
  find("state").dataset.state = name;
  find("state").textContent = STATES[name];
}

function receiveText(message) {
  if (message.type === "hello") greet(message);
  else receiveSnapshots(message.snapshots);
}

function greet(hello) {
  find("model").textContent = hello.model;
  palette.setTables(hello.colours);
  modelRange = hello.range_m;
  snapshots = [];
  if (!greeted) {
    find("colours").replaceChildren(...palette.names.map((name) => new Option(name)));
    setRange(modelRange);
  }
  greeted = true;
  choose();
}

async function receiveFrame(buffer) {
  const received = await readFrame(buffer);
  if (paused) return;
  frame?.image.close();
  frame = received;
  drawn.push(performance.now());
  show();
  await new Promise(requestAnimationFrame);
}

// Draw the current frame with the current settings.
function show() {
  if (!frame) return;
  const { header, image, counts } = frame;
  if (find("auto").checked) {
    const range = usualRange(counts, header.counts_per_metre);
    if (range) setRange(range);
  }
  const rgb = sized(find("rgb"), header);
  rgb.drawImage(image, 0, 0, header.width, header.height);
  const depth = sized(find("depth"), header);
  const pixels = depth.createImageData(header.width, header.height);
  palette.paint(counts, header.counts_per_metre, pixels);
  depth.putImageData(pixels, 0, 0);
  const time = `${header.timestamp_s.toFixed(2)} s`;
  find("frame").textContent = `frame ${header.index}, ${time}${header.name && `, ${header.name}`}`;
  showMark();
  showCloud();
}

function sized(canvas, { width, height }) {
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  return canvas.getContext("2d");
}

function showCloud() {
  find("cloud-panel").hidden = !find("show-cloud").checked;
  if (!cloud.available) {
    find("camera").textContent = "WebGL 2 is not available in this browser";
    return;
  }
  if (!frame || !find("show-cloud").checked) return;
  const picture = find("paint").value === "rgb" ? find("rgb") : find("depth");
  cloud.show(frame.header, frame.counts, picture);
  const { assumed_fov_deg: assumed, width, fx, cx } = frame.header;
  const edges = [cx + 0.5, width - 0.5 - cx].map((side) => Math.atan(side / fx));
  const degrees = Math.round((edges[0] + edges[1]) * 180 / Math.PI);
  find("camera").textContent = assumed === null
    ? `field of view ${degrees}°`
    : `camera unknown: field of view of ${assumed}° assumed`;
}

function setRange([near, far]) {
  for (const [id, metres] of [["near", near], ["far", far]]) {
    if (document.activeElement !== find(id)) find(id).value = Number(metres.toPrecision(3));
  }
  readRange();
}

// Use the range if it is valid; otherwise mark it and keep the last one.
function readRange() {
  const [near, far] = [find("near").valueAsNumber, find("far").valueAsNumber];
  const valid = near > 0 && far > near;
  find("far").setCustomValidity(valid ? "" : "Must be greater than the nearest depth");
  if (!valid) return;
  Object.assign(palette.choice, { near, far });
  palette.paintBar(find("bar"));
  find("marks").replaceChildren(...palette.marks().map((metres) => {
    const label = document.createElement("span");
    label.textContent = metres;
    label.style.left = `${100 * palette.place(metres)}%`;
    return label;
  }));
}

function choose() {
  Object.assign(palette.choice, { map: find("colours").value, scale: find("scale").value });
  readRange();
  show();
}

// Show the depth at the mark, exactly as received.
function showMark() {
  const crosses = document.querySelectorAll(".cross");
  const inside = mark && frame && mark.x < frame.header.width && mark.y < frame.header.height;
  for (const cross of crosses) cross.hidden = !inside;
  find("readout").textContent = inside ? readOut(mark, frame) : "";
  if (!inside) return;
  for (const cross of crosses) {
    cross.style.left = `${(100 * (mark.x + 0.5)) / frame.header.width}%`;
    cross.style.top = `${(100 * (mark.y + 0.5)) / frame.header.height}%`;
  }
}

function readOut({ x, y }, { header, counts }) {
  const count = counts[y * header.width + x];
  const metres = (count / header.counts_per_metre).toFixed(3);
  const what = count === INVALID ? "no depth" : `${count === FARTHEST ? "≥ " : ""}${metres} m`;
  return `${what} at column ${x * header.step}, row ${y * header.step}`;
}

function pointAt(event) {
  if (!frame) return;
  const box = event.target.getBoundingClientRect();
  const { width, height } = frame.header;
  const x = Math.floor(((event.clientX - box.left) / box.width) * width);
  const y = Math.floor(((event.clientY - box.top) / box.height) * height);
  moveMark(x, y);
}

function moveMark(x, y) {
  const { width, height } = frame.header;
  mark = { x: Math.min(Math.max(x, 0), width - 1), y: Math.min(Math.max(y, 0), height - 1) };
  showMark();
}

function steerMark(event) {
  const step = event.shiftKey ? 10 : 1;
  const way = {
    ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step],
  }[event.key];
  if (event.key === "Escape") {
    mark = null;
    showMark();
  }
  if (!way || !frame) return;
  event.preventDefault();
  const { x, y } = mark ?? { x: frame.header.width >> 1, y: frame.header.height >> 1 };
  moveMark(x + way[0], y + way[1]);
}

function pause(wanted) {
  paused = wanted;
  find("pause").textContent = paused ? "Resume" : "Pause";
  find("pause").setAttribute("aria-pressed", String(paused));
  requestIfVisible();
}

// A hidden page requests no frames.
function requestIfVisible() {
  connection.request(!paused && !document.hidden);
}

function receiveSnapshots(news) {
  snapshots = [...snapshots, ...news].slice(-SNAPSHOTS);
  const last = snapshots.at(-1);
  find("engine").textContent = last.engine;
  find("fps").textContent = last.fps.toFixed(1);
  find("age").textContent = last.age.p99_ms.toFixed(0);
  find("frames").textContent = last.total ? `${last.frames} of ${last.total}` : last.frames;
  find("dropped").textContent = last.dropped;
  find("skipped").textContent = last.skipped;
  find("losses").textContent = last.losses;
  drawCharts();
}

function drawCharts() {
  drawChart(find("ages"), snapshots, AGES);
  drawChart(find("stages"), snapshots, STAGES);
}

function showRate() {
  while (drawn.length && drawn[0] < performance.now() - 2000) drawn.shift();
  find("shown").textContent = (drawn.length / 2).toFixed(1);
}

find("pause").addEventListener("click", () => pause(!paused));
for (const id of ["colours", "scale"]) find(id).addEventListener("change", choose);
for (const id of ["near", "far"]) {
  find(id).addEventListener("input", () => {
    find("auto").checked = false;
    choose();
  });
}
find("auto").addEventListener("change", show);
find("full").addEventListener("click", () => {
  find("auto").checked = false;
  setRange(modelRange);
  show();
});
for (const id of ["show-cloud", "paint"]) find(id).addEventListener("change", showCloud);
find("point").addEventListener("input", () => {
  cloud.pointSize = find("point").valueAsNumber;
  cloud.draw();
});
for (const [id, kind] of [["home", "click"], ["cloud", "home"]]) {
  find(id).addEventListener(kind, () => {
    cloud.home();
    showCloud();
  });
}
for (const id of ["rgb", "depth"]) {
  find(id).addEventListener("pointermove", pointAt);
  find(id).addEventListener("pointerdown", pointAt);
}
find("depth").addEventListener("keydown", steerMark);
find("controls").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("keydown", (event) => {
  if (event.key === " " && !/^(BUTTON|INPUT|SELECT)$/.test(event.target.tagName)) {
    event.preventDefault();
    pause(!paused);
  }
});
document.addEventListener("visibilitychange", requestIfVisible);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
new ResizeObserver(drawCharts).observe(find("ages"));
setInterval(showRate, 500);
