// Strokes on slices of a volume, cuts that find the rest. The server keeps everything; here is what is shown and drawn.
import { Tiles, levelsOf } from "/static/base/tiles.js";

const canvas = document.getElementById("view");
const byId = (id) => document.getElementById(id);
const base = location.pathname;  // /annotate/NAME
const may = byId("panel").dataset.role === "operator";
const csrf = document.querySelector("meta[name=csrf]").content;
const COLOURS = { structure: "#e69f00", background: "#56b4e9", erase: "#e6e9ec" };
const PLANES = [["y", "x"], ["z", "x"], ["z", "y"]];
const POLL_MS = 400, STEP_PX = 0.35;

let state = null;
let axis = 0, index = 0;
const at = [0, 0, 0];           // the slice last looked at, for each axis
let brush = "structure", radius = 3;
let drag = null, pointer = null;
let pending = [];               // strokes on their way: [{axis, index, kind, radius, points, revision}]
const hidden = { ink: false, labels: false };

const view = new Tiles(canvas, { layers, over });

function layers() {
  const place = `${axis}/${index}`;
  const url = (layer, revision) => (level, row, column) =>
    `${base}/tile/${layer}/${place}/${level}/${row}/${column}?of=${state.key}.${revision}`;
  const shown = [{ name: `grey/${place}`, smooth: true, url: url("grey", 0) }];
  if (!hidden.labels && state.labelled) shown.push({ name: `labels/${place}`, url: url("labels", state.labels) });
  if (!hidden.ink) shown.push({ name: `ink/${place}`, alpha: 0.85, url: url("ink", state.ink) });
  return shown;
}

function over(pen) {
  // strokes that the server has not drawn yet
  if (!hidden.ink) {
    for (const stroke of drag?.points ? [...pending, drag.stroke] : pending) {
      if (stroke.axis === axis && stroke.index === index) line(pen, stroke);
    }
  }
  if (pointer && !drag?.pan) {
    const [x, y] = pointer, r = Math.max(1.5, (radius + 0.5) * view.view.scale);
    for (const [colour, wide] of [["#000000", 3], [COLOURS[brush], 1.5]]) {
      pen.beginPath();
      pen.arc(x, y, r, 0, 2 * Math.PI);
      pen.lineWidth = wide;
      pen.strokeStyle = colour;
      pen.setLineDash(brush === "erase" ? [4, 3] : []);
      pen.stroke();
    }
    pen.setLineDash([]);
  }
  if (view.whole) {
    pending = pending.filter((stroke) => stroke.revision === null || stroke.revision > state.ink);
    canvas.dataset.drawn = JSON.stringify({ axis, index, ink: state.ink, labels: state.labels });
  }
}

function line(pen, stroke) {
  pen.globalAlpha = stroke.kind === "erase" ? 0.35 : 0.85;
  pen.strokeStyle = pen.fillStyle = COLOURS[stroke.kind];
  pen.lineWidth = Math.max(1, 2 * Math.max(stroke.radius, 0.5)) * view.view.scale;
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  const places = stroke.points.map(([x, y]) => view.toScreen(x, y));
  if (places.length === 1) places.push(places[0]);
  places.forEach(([x, y], n) => n ? pen.lineTo(x, y) : pen.moveTo(x, y));
  pen.stroke();
  pen.globalAlpha = 1;
}

// ---------------------------------------------------------------- the server

async function send(what, body) {
  const answer = await fetch(`${base}/${what}`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-csrf-token": csrf },
    body: JSON.stringify(body ?? {}),
  });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error || `the server said ${answer.status}`);
  return said;
}

// changes go one after the other, in the order in which they were made
let before = Promise.resolve();
function change(what, body, after = () => {}) {
  if (!may) { say("to look at: an operator annotates", true); return; }
  before = before.then(async () => {
    try {
      take(await send(what, body));
      after(null);
    } catch (error) {
      after(error);
      say(error.message, true);
      view.draw();
    }
  });
}

let timer = null;
function take(now) {
  if (!state || now.key !== state.key || now.ink + now.labels >= state.ink + state.labels) state = now;
  tell();
  view.draw();
  if (now.busy && timer === null) timer = setTimeout(poll, POLL_MS);
}

async function poll() {
  timer = null;
  try {
    const answer = await fetch(`${base}/state`);
    if (!answer.ok) throw new Error(`the server said ${answer.status}`);
    take(await answer.json());
  } catch (error) {
    say(`no word from the server: ${error.message}`, true);
    timer = setTimeout(poll, 5 * POLL_MS);
  }
}

// ---------------------------------------------------------------- words

function say(text, bad = false) {
  byId("state").textContent = text;
  byId("state").className = bad ? "alarm" : "soft";
}

const WORDS = { prepare: "supervoxels", cut: "cut", save: "saving" };

function tell() {
  const { job, busy, painted } = state;
  byId("undo").disabled = !state.undo || !may;
  byId("redo").disabled = !state.redo || !may;
  const own = busy && job && job.kind !== "prepare";  // supervoxels are made while strokes are painted
  byId("cut").disabled = own || !may;
  byId("save").disabled = own || !state.labelled || !may;
  byId("cancel").hidden = !busy;
  byId("progress").hidden = !busy;
  byId("progress").value = busy && job ? job.done : 0;
  byId("counts").textContent =
    `painted: ${painted.structure} voxels of structure, ${painted.background} of background; labelled: ${state.labelled}`;
  if (busy && job) say(`${WORDS[job.kind]}: ${job.stage} …`);
  else if (job?.error) say(job.error, job.error !== "cancelled");
  else if (state.unsaved) say(`${job?.kind === "cut" ? `${job.said}; ` : ""}labels are not saved`);
  else if (job?.kind === "save") say(job.said);
  else say("paint on the structure and on the background, then cut");
  const whole = document.body.dataset;
  whole.busy = busy ? "1" : "0";
  whole.labelled = state.labelled;
  whole.structure = painted.structure;
  whole.background = painted.background;
  whole.unsaved = state.unsaved ? "1" : "0";
}

// ---------------------------------------------------------------- slices

function turn(to, { anew = true } = {}) {
  at[axis] = index;
  axis = to;
  index = at[axis];
  const [rows, columns] = [0, 1, 2].filter((n) => n !== axis).map((n) => state.shape[n]);
  view.show({ rows, columns, tile: state.tile, levels: levelsOf(rows, columns, state.tile) }, { keep: !anew });
  const slider = byId("slice");
  slider.max = state.shape[axis] - 1;
  for (const button of document.querySelectorAll("button.axis")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.axis) === axis));
  }
  go(index);
}

function go(to) {
  index = Math.max(0, Math.min(state.shape[axis] - 1, to));
  at[axis] = index;
  byId("slice").value = index;
  const name = "zyx"[axis], first = state.box[axis][0];
  byId("where").textContent = `${name} ${index + first}`;
  byId("slice").setAttribute("aria-valuetext", `${name} ${index + first}`);
  view.draw();
}

function pick(what) {
  brush = what;
  for (const button of document.querySelectorAll("button.brush")) {
    button.setAttribute("aria-pressed", String(button.dataset.brush === what));
  }
  view.draw();
}

function size(to) {
  radius = Math.max(0, Math.min(40, to));
  byId("radius").value = radius;
  byId("radius-shown").textContent = radius;
  view.draw();
}

function hide(what) {
  hidden[what] = !hidden[what];
  byId(`hide-${what}`).setAttribute("aria-pressed", String(hidden[what]));
  view.draw();
}

function cut() {
  const weight = Number(byId("weight").value);
  change("cut", { structure: byId("structure").value, keep: byId("keep").value, boundary_weight: weight });
}

// ---------------------------------------------------------------- mouse and keys

canvas.addEventListener("pointerdown", (event) => {
  canvas.focus();
  if (!state) return;
  canvas.setPointerCapture(event.pointerId);
  const [sx, sy] = [event.offsetX, event.offsetY];
  if (event.button !== 0) { drag = { pan: true, x: sx, y: sy }; canvas.classList.add("pan"); return; }
  if (!may) { say("to look at: an operator annotates", true); return; }
  const stroke = { axis, index, kind: brush, radius, points: [view.toImage(sx, sy)], revision: null };
  drag = { stroke, points: stroke.points };
  view.draw();
});
canvas.addEventListener("pointermove", (event) => {
  pointer = [event.offsetX, event.offsetY];
  if (drag?.pan) {
    view.move(drag.x - pointer[0], drag.y - pointer[1]);
    [drag.x, drag.y] = pointer;
  } else if (drag) {
    const [x, y] = view.toImage(...pointer), [lx, ly] = drag.points[drag.points.length - 1];
    if (Math.hypot(x - lx, y - ly) > STEP_PX) drag.points.push([x, y]);
  }
  view.draw();
});
canvas.addEventListener("pointerup", () => {
  const stroke = drag?.stroke;
  drag = null;
  canvas.classList.remove("pan");
  if (stroke) {
    pending.push(stroke);
    const round = (v) => Math.round(v * 100) / 100;
    const { axis, index, kind, radius } = stroke;
    const body = { axis, index, kind, radius, points: stroke.points.map(([x, y]) => [round(x), round(y)]) };
    change("stroke", body, (error) => {
      if (error) pending = pending.filter((one) => one !== stroke);
      else stroke.revision = state.ink;  // drawn by the server from this revision on
    });
  }
  view.draw();
});
canvas.addEventListener("pointercancel", () => { drag = null; canvas.classList.remove("pan"); view.draw(); });
canvas.addEventListener("pointerleave", () => { pointer = null; view.draw(); });
canvas.addEventListener("contextmenu", (event) => event.preventDefault());
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  if (!state) return;
  const turned = event.deltaY || event.deltaX, step = Math.max(-1, Math.min(1, turned / 100));
  if (event.shiftKey) go(index + Math.sign(turned));
  else if (event.altKey) size(radius - Math.sign(turned));
  else view.zoom(Math.exp(-0.25 * step), event.offsetX, event.offsetY);
}, { passive: false });

const undo = () => change("undo"), redo = () => change("redo"), save = () => change("save");
const KEYS = {
  1: () => pick("structure"), 2: () => pick("background"), 3: () => pick("erase"),
  "[": () => size(radius - 1), "]": () => size(radius + 1),
  ",": () => go(index - 1), ".": () => go(index + 1), PageUp: () => go(index - 10), PageDown: () => go(index + 10),
  z: () => turn(0), y: () => turn(1), x: () => turn(2),
  ArrowLeft: () => view.move(-80, 0), ArrowRight: () => view.move(80, 0),
  ArrowUp: () => view.move(0, -80), ArrowDown: () => view.move(0, 80),
  "+": () => view.zoom(1.5), "=": () => view.zoom(1.5), "-": () => view.zoom(1 / 1.5),
  0: () => { const [x, y] = view.toImage(canvas.clientWidth / 2, canvas.clientHeight / 2); view.centre(x, y, 1); },
  f: () => view.fit(), k: () => hide("ink"), l: () => hide("labels"), Enter: cut,
  "?": () => { byId("keys").open = !byId("keys").open; },
};
document.addEventListener("keydown", (event) => {
  if (!state) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) {
    const what = { z: event.shiftKey ? redo : undo, y: redo, s: save }[key];
    if (what) { event.preventDefault(); what(); }
    return;
  }
  if (event.altKey || event.target.closest("input, select")) return;
  if (event.target.closest("button, summary") && (key === " " || key === "Enter")) return;
  if (KEYS[key]) { event.preventDefault(); KEYS[key](); }
});

const CLICKS = { undo, redo, cut, save, cancel: () => change("cancel"), "hide-ink": () => hide("ink"), "hide-labels": () => hide("labels") };
for (const [id, what] of Object.entries(CLICKS)) byId(id).addEventListener("click", () => { what(); canvas.focus(); });
for (const button of document.querySelectorAll("button.axis")) {
  button.addEventListener("click", () => { turn(Number(button.dataset.axis)); canvas.focus(); });
}
for (const button of document.querySelectorAll("button.brush")) {
  button.addEventListener("click", () => { pick(button.dataset.brush); canvas.focus(); });
}
byId("slice").addEventListener("input", (event) => go(Number(event.target.value)));
byId("radius").addEventListener("input", (event) => size(Number(event.target.value)));
window.addEventListener("beforeunload", (event) => { if (pending.length) event.preventDefault(); });

fetch(`${base}/state`).then(async (answer) => {
  if (!answer.ok) throw new Error(`the server said ${answer.status}`);
  take(await answer.json());
  state.shape.forEach((n, a) => { at[a] = Math.floor(n / 2); });
  index = at[0];
  turn(0);
  document.body.dataset.ready = "1";
}).catch((error) => say(`the project could not be loaded: ${error.message}`, true));
