// Three small charts: pace, quality, ice. Drawn from all points, thinned to what a chart can show.

import { BAD, GOOD } from "./palette.js";

const MOST_DOTS = 700;
const BINS = 24;

export function drawTrends(points, speed = 1) {
  const ice = points.filter((p) => p.ice != null);
  document.getElementById("chart-ice").parentElement.hidden = !ice.length; // first: the others take its room
  drawRate(document.getElementById("chart-rate"), points, speed);
  const ctf = points.filter((p) => p.ctf != null);
  if (ctf.length) drawDots(document.getElementById("chart-quality"), ctf, "ctf", "CTF resolution, Å (better is higher)", true);
  else drawDots(document.getElementById("chart-quality"), points, "score", "quality score");
  if (ice.length) drawDots(document.getElementById("chart-ice"), ice, "ice", "ice thickness, nm");
}

function sheet(canvas, title) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const ctx = canvas.getContext("2d");
  ctx.scale(ratio, ratio);
  ctx.font = "11px system-ui, sans-serif";
  ctx.fillStyle = colour("--soft");
  ctx.textBaseline = "top";
  ctx.fillText(title, 0, 2);
  return { ctx, left: 32, top: 17, right: width - 4, bottom: height - 15 };
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function say(canvas, text) {
  canvas.setAttribute("aria-label", text);
}

function axes(s, [low, high], [from, to]) {
  const { ctx } = s;
  ctx.strokeStyle = colour("--line");
  ctx.lineWidth = 1;
  ctx.beginPath();
  ctx.moveTo(s.left, s.bottom + 0.5);
  ctx.lineTo(s.right, s.bottom + 0.5);
  ctx.moveTo(s.left, s.top + 0.5);
  ctx.lineTo(s.right, s.top + 0.5);
  ctx.stroke();
  ctx.fillStyle = colour("--soft");
  ctx.textAlign = "right";
  ctx.textBaseline = "middle";
  ctx.fillText(number(high), s.left - 4, s.top + 3);
  ctx.fillText(number(low), s.left - 4, s.bottom - 3);
  ctx.textBaseline = "top";
  ctx.textAlign = "left";
  ctx.fillText(clock(from), s.left, s.bottom + 3);
  ctx.textAlign = "right";
  ctx.fillText(clock(to), s.right, s.bottom + 3);
  ctx.textAlign = "left";
}

function nothing(canvas, title, why) {
  const s = sheet(canvas, title);
  s.ctx.fillText(why, 0, 22);
  say(canvas, `${title}: ${why}`);
}

function drawDots(canvas, points, key, title, down = false) {
  if (!points.length) return nothing(canvas, title, "not measured yet");
  if (points.length === 1) return nothing(canvas, title, `${number(points[0][key])}, one so far`);
  const s = sheet(canvas, title);
  const values = points.map((p) => p[key]);
  const sorted = [...values].sort((a, b) => a - b);
  let low = sorted[Math.floor(0.01 * sorted.length)];
  let high = sorted[Math.ceil(0.99 * sorted.length) - 1];
  if (high - low < 1e-9) [low, high] = [low - 0.5, high + 0.5];
  const from = points[0].utc;
  const to = Math.max(points[points.length - 1].utc, from + 1);
  const scale = down ? [high, low] : [low, high]; // the better, the higher
  axes(s, scale, [from, to]);
  const step = Math.max(1, Math.ceil(points.length / MOST_DOTS));
  const x = (p) => s.left + ((p.utc - from) / (to - from)) * (s.right - s.left - 3) + 1;
  const y = (v) => s.bottom - 2 - Math.min(Math.max((v - scale[0]) / (scale[1] - scale[0]), 0), 1) * (s.bottom - s.top - 4);
  for (let i = 0; i < points.length; i += step) {
    s.ctx.fillStyle = points[i].good ? GOOD : BAD;
    s.ctx.fillRect(x(points[i]) - 1.2, y(points[i][key]) - 1.2, 2.4, 2.4);
  }
  const window = Math.max(3, Math.round(points.length / 20));
  s.ctx.strokeStyle = colour("--ink");
  s.ctx.lineWidth = 1.3;
  s.ctx.beginPath();
  for (let i = 0; i + window <= points.length; i += Math.max(1, window >> 1)) {
    const part = points.slice(i, i + window);
    const middle = part.map((p) => p[key]).sort((a, b) => a - b)[part.length >> 1];
    s.ctx[i ? "lineTo" : "moveTo"](x(part[part.length >> 1]), y(middle));
  }
  s.ctx.stroke();
  const last = values.slice(-window).sort((a, b) => a - b)[Math.min(window, values.length) >> 1];
  say(canvas, `${title}: median of the last ${Math.min(window, values.length)} is ${number(last)}`);
}

function drawRate(canvas, points, speed) {
  const title = speed === 1 ? "micrographs per hour" : "micrographs per hour, simulated clock";
  if (points.length < 2) return nothing(canvas, title, points.length ? "one so far" : "none yet");
  const s = sheet(canvas, title);
  const from = points[0].utc;
  const to = Math.max(points[points.length - 1].utc, from + 1);
  const width = (to - from) / BINS;
  const bins = Array.from({ length: BINS }, () => ({ all: 0, good: 0 }));
  for (const p of points) {
    const bin = bins[Math.min(BINS - 1, Math.floor((p.utc - from) / width))];
    bin.all++;
    if (p.good) bin.good++;
  }
  const perHour = 3600 / width / speed;
  const high = Math.max(...bins.map((bin) => bin.all)) * perHour;
  axes(s, [0, high], [from, to]);
  const step = (s.right - s.left) / BINS;
  bins.forEach((bin, i) => {
    const h = (bin.all * perHour / high) * (s.bottom - s.top - 2);
    const good = (bin.good * perHour / high) * (s.bottom - s.top - 2);
    s.ctx.fillStyle = BAD;
    s.ctx.fillRect(s.left + i * step + 0.5, s.bottom - h, step - 1, h - good);
    s.ctx.fillStyle = GOOD;
    s.ctx.fillRect(s.left + i * step + 0.5, s.bottom - good, step - 1, good);
  });
  const all = points.length * 3600 / (to - from) / speed;
  say(canvas, `${title}: ${number(all)} on average, ${number(points.filter((p) => p.good).length / points.length * 100)} % good`);
}

export function number(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  return size >= 10000 ? `${Math.round(value / 1000)}k` : size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : value.toFixed(2);
}

export function clock(utc, seconds = false) {
  const options = { hour: "2-digit", minute: "2-digit", hourCycle: "h23", ...(seconds ? { second: "2-digit" } : {}) };
  return new Date(utc * 1000).toLocaleTimeString("en-GB", options);
}
