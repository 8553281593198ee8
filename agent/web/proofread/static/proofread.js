// Marks on a large image or on the sections of a volume: the picture comes in tiles, every change can be undone, and what
// changed is sent on saving.
import { Tiles } from "/static/base/tiles.js";

const canvas = document.getElementById("view");
const byId = (id) => document.getElementById(id);
const base = location.pathname;  // /proofread/NAME
const may = byId("panel").dataset.role === "operator";
const csrf = document.querySelector("meta[name=csrf]").content;
const COLOURS = ["#56b4e9", "#e69f00", "#009e73", "#f0e442", "#d55e00"];
const GRAB_PX = 5, CLICK_PX = 4;

let image = null;            // what the server said of it
let marks = new Map();       // id -> {id, x, y, d, score, z}
let saved = new Map();       // as the server has them
let checked = [], savedChecked = "[]";
let chosen = null, size = 0, nextId = 1, hidden = false, checking = false, saving = false;
let section = 0, thick = 1;  // of a volume: which is shown, and the mean of how many
const seen = new Set();
const done = [], undone = [];
const view = new Tiles(canvas, { layers, over });
const draw = () => view.draw();
const volume = () => image.sections !== null;

// ---------------------------------------------------------------- changes, each with its way back

function put(id, mark) { if (mark) marks.set(id, mark); else marks.delete(id); }

function act(steps) {  // steps: [{id, before, after}] or [{checked: [before, after]}]
  if (!may) { draw(); tell(); return; }
  play(steps, true);
  done.push(steps);
  undone.length = 0;
  tell();
}

function play(steps, forward) {
  for (const step of forward ? steps : [...steps].reverse()) {
    if (step.checked) checked = step.checked[forward ? 1 : 0];
    else {
      put(step.id, forward ? step.after : step.before);
      if (chosen === step.id && !marks.has(step.id)) chosen = null;
    }
  }
  draw();
}

function undo() { const steps = done.pop(); if (steps) { play(steps, false); undone.push(steps); tell(); } }
function redo() { const steps = undone.pop(); if (steps) { play(steps, true); done.push(steps); tell(); } }

function add(x, y) {
  const mark = { id: nextId++, x, y, d: size, score: 1, z: section };
  if (may) chosen = mark.id;
  act([{ id: mark.id, before: null, after: mark }]);
  if (may && image.snaps) snap(mark);
}

// to the membrane around it, where there is one: part of the step that placed the mark
async function snap(mark) {
  document.body.dataset.snapping = mark.id;
  let words = "";
  try {
    const answer = await fetch(`${base}/snap?x=${mark.x}&y=${mark.y}&z=${mark.z}`);
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.error || `the server said ${answer.status}`);
    const after = { ...mark, ...body };
    for (const steps of done) for (const step of steps) if (step.after === mark) step.after = after;
    if (marks.get(mark.id) === mark) marks.set(mark.id, after);
  } catch (error) {
    words = `not snapped: ${error.message}`;
  }
  draw();
  tell();
  if (words) say(words, true);
  delete document.body.dataset.snapping;
}
function remove(id) { const before = marks.get(id); if (before) act([{ id, before, after: null }]); }
function change(id, to) { const before = marks.get(id); if (before) act([{ id, before, after: { ...before, ...to } }]); }
function resize(id, factor) {
  const mark = marks.get(id);
  if (mark) change(id, { d: Math.min(500, Math.max(0.5, Math.round(mark.d * factor * 100) / 100)) });
}

// ---------------------------------------------------------------- saving

function pending() {
  const removed = [...saved.keys()].filter((id) => !marks.has(id));
  const placed = [...marks.values()].filter((m) => {
    const was = saved.get(m.id);
    return !was || was.x !== m.x || was.y !== m.y || was.d !== m.d || was.z !== m.z;
  }).map((m) => [m.id, m.x, m.y, m.d, m.z]);
  return { removed, placed, count: removed.length + placed.length + (JSON.stringify(checked) !== savedChecked ? 1 : 0) };
}

async function save() {
  const now = pending();
  if (!now.count || saving) return;
  saving = true;
  say("saving …");
  const held = new Map(marks), heldChecked = JSON.stringify(checked);
  try {
    const answer = await fetch(`${base}/save`, {
      method: "POST",
      headers: { "content-type": "application/json", "x-csrf-token": csrf },
      body: JSON.stringify({ revision: image.revision, removed: now.removed, placed: now.placed, checked }),
    });
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.error || `the server said ${answer.status}`);
    image.revision = body.revision;
    saved = held;
    savedChecked = heldChecked;
    saving = false;
    tell();
    if (!pending().count) say(`saved to ${body.file}`);
  } catch (error) {
    saving = false;
    tell();
    say(`not saved: ${error.message}`, true);
  }
}

// ---------------------------------------------------------------- words

function say(text, bad = false) {
  byId("state").textContent = text;
  byId("state").className = bad ? "alarm" : "soft";
}

function group(mark) {
  let best = 0;
  image.sizes_nm.forEach((s, n) => {
    if (Math.abs(Math.log(mark.d / s)) < Math.abs(Math.log(mark.d / image.sizes_nm[best]))) best = n;
  });
  return best;
}

function tell() {
  const counts = image.sizes_nm.map(() => 0);
  for (const mark of marks.values()) counts[group(mark)]++;
  const parts = image.sizes_nm.map((s, n) => `${counts[n]} × ${s} nm`);
  byId("counts").textContent = `${marks.size} mark${marks.size === 1 ? "" : "s"}: ${parts.join(", ")}`;
  document.body.dataset.marks = marks.size;
  byId("undo").disabled = !done.length;
  byId("redo").disabled = !undone.length;
  const open = pending().count;
  byId("save").disabled = !open || saving || !may;
  document.body.dataset.unsaved = open;
  if (!saving) say(!may ? "to look at: an operator corrects" : open ? `${open} not saved` : "everything is saved");
  const mark = marks.get(chosen);
  byId("selected").textContent = mark
    ? `selected: ${mark.d.toFixed(1)} nm at (${[mark.x, mark.y, ...(volume() ? [mark.z] : [])].map((v) => v.toFixed(1)).join(", ")})` +
      (mark.score < 1 ? `, score ${mark.score.toFixed(2)}` : "")
    : "nothing selected";
}

// ---------------------------------------------------------------- drawing

const toScreen = (x, y) => view.toScreen(x, y), toImage = (sx, sy) => view.toImage(sx, sy);
// how large a mark is in what is shown: a sphere is the circle in which the section meets it
function radius(mark) {
  const r = mark.d / image.pixel_nm / 2, off = volume() ? mark.z - section : 0;
  return Math.abs(off) > Math.max(r, 0.5) ? -1 : Math.sqrt(Math.max(0, r * r - off * off)) * view.view.scale;
}

function layers() {
  const place = volume() ? `section/${section}/${thick}` : "tile";
  const url = (level, row, column) => `${base}/${place}/${level}/${row}/${column}?of=${image.key}`;
  return [{ name: place, smooth: true, url }];
}

function over(pen, wide, high) {
  if (!hidden) { paintChecked(pen); paintMarks(pen, wide, high); }
  if (drag && drag.kind === "check") frame(pen, drag.from, drag.to, "#ffffff");
  if (view.whole) canvas.dataset.drawn = JSON.stringify({ section, thick });
}

function paintMarks(pen, wide, high) {
  for (const mark of marks.values()) {
    const inside = radius(mark);
    if (inside < 0) continue;
    const [x, y] = toScreen(mark.x, mark.y), r = Math.max(inside + 1.5, 2.5);
    if (x < -r || y < -r || x > wide + r || y > high + r) continue;
    pen.beginPath();
    pen.arc(x, y, r, 0, 2 * Math.PI);
    pen.lineWidth = mark.id === chosen ? 3 : 1.5;
    pen.strokeStyle = mark.id === chosen ? "#ffffff" : COLOURS[group(mark) % COLOURS.length];
    pen.setLineDash(mark.score < 0.7 && mark.id !== chosen ? [3, 3] : []);
    pen.stroke();
    if (volume() && Math.abs(mark.z - section) <= 0.5) {  // its centre lies here
      pen.fillStyle = pen.strokeStyle;
      pen.fillRect(x - 1.5, y - 1.5, 3, 3);
    }
  }
  pen.setLineDash([]);
}

function paintChecked(pen) {
  for (const [l, t, r, b, first, last] of checked) {
    if (!volume() || (first <= section && section <= last)) frame(pen, [l, t], [r, b], "#5ec8c4");
  }
}

function frame(pen, from, to, colour) {
  const [ax, ay] = toScreen(...from), [bx, by] = toScreen(...to);
  pen.strokeStyle = colour;
  pen.lineWidth = 1.5;
  pen.setLineDash([8, 4]);
  pen.strokeRect(Math.min(ax, bx), Math.min(ay, by), Math.abs(bx - ax), Math.abs(by - ay));
  pen.setLineDash([]);
}

// ---------------------------------------------------------------- looking around

const move = (dx, dy) => view.move(dx, dy);

function go(to) {
  if (!volume()) return;
  section = Math.max(0, Math.min(image.sections - 1, Math.round(to)));
  byId("section").value = section;
  byId("where").textContent = `z ${section}`;
  draw();
}
function thicken() {
  if (!volume()) return;
  thick = thick > 1 ? 1 : image.thick;
  toggle("thick", thick > 1);
  draw();
}
function lift(dz) { const mark = marks.get(chosen); if (mark && volume()) change(chosen, { z: Math.max(0, Math.min(image.sections - 1, mark.z + dz)) }); }
function visit() { const mark = marks.get(chosen); if (mark) { go(mark.z); view.centre(mark.x, mark.y, view.view.scale); } }

function doubtful() {
  const left = [...marks.values()].filter((m) => m.score < 1 && !seen.has(m.id)).sort((a, b) => a.score - b.score);
  if (!left.length) { say("every mark of the model was looked at"); return; }
  seen.add(left[0].id);
  chosen = left[0].id;
  go(left[0].z);
  view.centre(left[0].x, left[0].y, Math.max(view.view.scale, 30 / (left[0].d / image.pixel_nm)));
  tell();
}

// ---------------------------------------------------------------- mouse and keys

function at(sx, sy) {
  let best = null, nearest = Infinity;
  for (const mark of hidden ? [] : marks.values()) {
    const [x, y] = toScreen(mark.x, mark.y), far = Math.hypot(x - sx, y - sy), r = radius(mark);
    if (r >= 0 && far < Math.max(r + 2, GRAB_PX) && far < nearest) { best = mark; nearest = far; }
  }
  return best;
}

let drag = null;
canvas.addEventListener("pointerdown", (event) => {
  canvas.focus();
  if (event.button === 2) return;
  canvas.setPointerCapture(event.pointerId);
  const sx = event.offsetX, sy = event.offsetY, mark = event.button === 0 && !checking ? at(sx, sy) : null;
  const kind = event.button === 0 && checking ? "check" : mark ? "mark" : "pan";
  drag = { kind, sx, sy, x: sx, y: sy, moved: false, left: event.button === 0, mark, from: toImage(sx, sy), to: toImage(sx, sy) };
  if (mark) { chosen = mark.id; tell(); draw(); }
});
canvas.addEventListener("pointermove", (event) => {
  if (!drag) return;
  const sx = event.offsetX, sy = event.offsetY;
  if (Math.hypot(sx - drag.sx, sy - drag.sy) > CLICK_PX) drag.moved = true;
  if (!drag.moved) return;
  if (drag.kind === "pan") { canvas.classList.add("pan"); move(drag.x - sx, drag.y - sy); }
  if (drag.kind === "check") drag.to = toImage(sx, sy);
  if (drag.kind === "mark") {
    const [x, y] = toImage(sx, sy), before = drag.mark;
    put(before.id, { ...before, x: before.x + x - drag.from[0], y: before.y + y - drag.from[1] });
  }
  drag.x = sx;
  drag.y = sy;
  draw();
});
canvas.addEventListener("pointerup", (event) => {
  if (!drag) return;
  const { kind, moved, left, mark, from, to } = drag;
  drag = null;
  canvas.classList.remove("pan");
  const inside = ([x, y]) => x > -1 && y > -1 && x < image.columns && y < image.rows;
  if (kind === "mark" && moved) {
    const after = marks.get(mark.id);
    put(mark.id, mark);
    if (inside([after.x, after.y])) act([{ id: mark.id, before: mark, after: { ...after, score: 1 } }]);
  } else if (kind === "pan" && !moved && left) {
    const [x, y] = toImage(event.offsetX, event.offsetY);
    if (inside([x, y])) add(Math.round(x * 100) / 100, Math.round(y * 100) / 100);
  } else if (kind === "check" && moved) {
    const part = [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1])];
    if (volume()) part.push(Number(byId("first").value), Number(byId("last").value));
    act([{ checked: [checked, [...checked, part.map((v) => Math.round(v))]] }]);
  }
  draw();
});
canvas.addEventListener("pointercancel", () => { if (drag && drag.mark) put(drag.mark.id, drag.mark); drag = null; draw(); });
canvas.addEventListener("contextmenu", (event) => {
  event.preventDefault();
  const mark = at(event.offsetX, event.offsetY);
  if (mark) remove(mark.id);
});
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const turned = event.deltaY || event.deltaX, step = Math.max(-1, Math.min(1, turned / 100));
  if (event.altKey && chosen !== null) resize(chosen, 1 - 0.05 * step);
  else if (event.shiftKey && volume()) go(section + Math.sign(turned));
  else view.zoom(Math.exp(-0.25 * step), event.offsetX, event.offsetY);
}, { passive: false });

function toggle(id, on) { byId(id).setAttribute("aria-pressed", String(on)); }
function hide() { hidden = !hidden; toggle("hide", hidden); draw(); }
function check() { checking = !checking; toggle("check", checking); canvas.classList.toggle("check", checking); }
function choose(nm) {
  size = nm;
  for (const button of document.querySelectorAll("button.size")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.size) === nm));
  }
}
function pick(n) {
  const nm = image.sizes_nm[n];
  if (nm === undefined) return;
  choose(nm);
  if (chosen !== null) change(chosen, { d: nm });
}

const KEYS = {
  Delete: () => remove(chosen), Backspace: () => remove(chosen), x: () => remove(chosen),
  "[": () => resize(chosen, 1 / 1.05), "]": () => resize(chosen, 1.05),
  ArrowLeft: () => move(-80, 0), ArrowRight: () => move(80, 0), ArrowUp: () => move(0, -80), ArrowDown: () => move(0, 80),
  "+": () => view.zoom(1.5), "=": () => view.zoom(1.5), "-": () => view.zoom(1 / 1.5),
  0: () => { const [x, y] = toImage(canvas.clientWidth / 2, canvas.clientHeight / 2); view.centre(x, y, 1); },
  ",": () => go(section - 1), ".": () => go(section + 1), PageUp: () => go(section - 10), PageDown: () => go(section + 10),
  "<": () => lift(-1), ">": () => lift(1), g: visit, t: thicken,
  f: () => view.fit(), n: doubtful, h: hide, c: check, "?": () => { byId("keys").open = !byId("keys").open; },
  Escape: () => { chosen = null; tell(); draw(); },
};
document.addEventListener("keydown", (event) => {
  if (!image) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) {
    const what = { z: event.shiftKey ? redo : undo, y: redo, s: save }[key];
    if (what) { event.preventDefault(); what(); }
    return;
  }
  if (event.altKey || event.target.closest("input")) return;
  if (/^[1-9]$/.test(key)) { pick(Number(key) - 1); return; }
  if (event.target.closest("button, summary") && (key === " " || key === "Enter")) return;
  if (KEYS[key]) { event.preventDefault(); KEYS[key](); }
});

const CLICKS = { undo, redo, next: doubtful, save, hide, check };
for (const [id, what] of Object.entries(CLICKS)) byId(id).addEventListener("click", () => { what(); canvas.focus(); });
for (const button of document.querySelectorAll("button.size")) {
  button.addEventListener("click", () => { choose(Number(button.dataset.size)); canvas.focus(); });
}
if (byId("section")) {
  byId("section").addEventListener("input", (event) => go(Number(event.target.value)));
  byId("thick").addEventListener("click", () => { thicken(); canvas.focus(); });
}
window.addEventListener("beforeunload", (event) => { if (image && pending().count) event.preventDefault(); });

fetch(`${base}/marks`).then(async (answer) => {
  if (!answer.ok) throw new Error(`the server said ${answer.status}`);
  image = await answer.json();
  for (const [id, x, y, d, score, z] of image.marks) {
    marks.set(id, { id, x, y, d, score, z });
    nextId = Math.max(nextId, id + 1);
  }
  saved = new Map(marks);
  checked = image.checked;
  savedChecked = JSON.stringify(checked);
  choose(image.sizes_nm[0]);
  view.show(image);
  if (volume()) {
    for (const id of ["section", "first", "last"]) byId(id).max = image.sections - 1;
    byId("last").value = image.sections - 1;
    go(Math.floor(image.sections / 2));
  }
  tell();
  document.body.dataset.ready = "1";
}).catch((error) => say(`the marks could not be loaded: ${error.message}`, true));
