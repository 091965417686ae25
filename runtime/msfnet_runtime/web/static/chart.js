// A line chart over the last snapshots, drawn on a canvas.

import { niceStep } from "./colours.js";

const LEFT = 44;
const BOTTOM = 20;
const LEGEND_ROW = 16;

// series: [{name, value(snapshot)}]; the x axis is the time of the stream in seconds.
export function drawChart(canvas, snapshots, series) {
  const context = sharpContext(canvas);
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  const style = getComputedStyle(document.documentElement);
  const quiet = style.getPropertyValue("--quiet");
  context.font = "12px system-ui, sans-serif";
  context.clearRect(0, 0, width, height);
  const times = snapshots.map((snapshot) => snapshot.seconds);
  const values = series.map((one) => snapshots.map(one.value));
  const top = Math.max(1, ...values.flat()) * 1.05;
  const last = times.at(-1) ?? 0;
  const span = Math.max(last - (times[0] ?? 0), 10);
  const legend = placeLegend(context, series, width);
  const head = 6 + LEGEND_ROW * (legend.at(-1).row + 1);
  const x = (seconds) => LEFT + (1 - (last - seconds) / span) * (width - LEFT - 6);
  const y = (value) => height - BOTTOM - (value / top) * (height - BOTTOM - head);

  context.fillStyle = quiet;
  context.strokeStyle = style.getPropertyValue("--line");
  context.lineWidth = 1;
  const step = niceStep(top / 4);
  for (let i = 0; i * step <= top; i++) {
    const value = Number((i * step).toPrecision(6));
    line(context, [[LEFT, y(value)], [width - 6, y(value)]]);
    context.textAlign = "right";
    context.fillText(String(value), LEFT - 6, y(value) + 4);
  }
  context.textAlign = "left";
  context.fillText(`${Math.round(span)} s ago`, LEFT, height - 4);
  context.textAlign = "right";
  context.fillText("now", width - 6, height - 4);

  context.lineWidth = 2;
  context.textAlign = "left";
  series.forEach((one, i) => {
    const { at, row } = legend[i];
    const colour = style.getPropertyValue(`--series-${i + 1}`);
    context.strokeStyle = context.fillStyle = colour;
    line(context, times.map((seconds, k) => [x(seconds), y(values[i][k])]));
    context.fillRect(at, 6 + LEGEND_ROW * row, 10, 3);
    context.fillStyle = quiet;
    context.fillText(one.name, at + 14, 12 + LEGEND_ROW * row);
  });
}

// Place the names beside each other, in as many rows as the width needs.
function placeLegend(context, series, width) {
  let [at, row] = [LEFT, 0];
  return series.map(({ name }) => {
    const length = 14 + context.measureText(name).width;
    if (at > LEFT && at + length > width - 6) [at, row] = [LEFT, row + 1];
    const place = { at, row };
    at += length + 14;
    return place;
  });
}

function line(context, points) {
  context.beginPath();
  for (const [x, y] of points) context.lineTo(x, y);
  context.stroke();
}

// Match the canvas to the pixels of the screen.
function sharpContext(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * ratio);
  const height = Math.round(canvas.clientHeight * ratio);
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}
