// Marks on a large image: the picture comes in tiles, every change can be undone, and what changed is sent on saving.
"use strict";
(() => {
  const canvas = document.getElementById("view");
  const pen = canvas.getContext("2d");
  const byId = (id) => document.getElementById(id);
  const base = location.pathname;  // /proofread/NAME
  const may = byId("panel").dataset.role === "operator";
  const csrf = document.querySelector("meta[name=csrf]").content;
  const COLOURS = ["#56b4e9", "#e69f00", "#009e73", "#f0e442", "#d55e00"];
  const GRAB_PX = 5, CLICK_PX = 4, MOST_TILES = 400;

  let image = null;            // what the server said of it
  let marks = new Map();       // id -> {id, x, y, d, score}
  let saved = new Map();       // as the server has them
  let checked = [], savedChecked = "[]";
  let view = { x: 0, y: 0, scale: 1 };  // image pixel at the left top corner of the window, screen pixels per pixel
  let chosen = null, size = 0, nextId = 1, hidden = false, checking = false, saving = false;
  const seen = new Set();
  const done = [], undone = [];
  const tiles = new Map();

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
    const mark = { id: nextId++, x, y, d: size, score: 1 };
    if (may) chosen = mark.id;
    act([{ id: mark.id, before: null, after: mark }]);
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
      return !was || was.x !== m.x || was.y !== m.y || was.d !== m.d;
    }).map((m) => [m.id, m.x, m.y, m.d]);
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
    byId("counts").textContent = `${marks.size} marks: ${parts.join(", ")}`;
    document.body.dataset.marks = marks.size;
    byId("undo").disabled = !done.length;
    byId("redo").disabled = !undone.length;
    const open = pending().count;
    byId("save").disabled = !open || saving || !may;
    document.body.dataset.unsaved = open;
    if (!saving) say(!may ? "to look at: an operator corrects" : open ? `${open} not saved` : "everything is saved");
    const mark = marks.get(chosen);
    byId("selected").textContent = mark
      ? `selected: ${mark.d.toFixed(1)} nm at (${mark.x.toFixed(1)}, ${mark.y.toFixed(1)})` +
        (mark.score < 1 ? `, score ${mark.score.toFixed(2)}` : "")
      : "nothing selected";
  }

  // ---------------------------------------------------------------- drawing

  const toScreen = (x, y) => [(x + 0.5 - view.x) * view.scale, (y + 0.5 - view.y) * view.scale];
  const toImage = (sx, sy) => [sx / view.scale + view.x - 0.5, sy / view.scale + view.y - 0.5];
  const radius = (mark) => mark.d / image.pixel_nm / 2 * view.scale;

  let asked = false;
  function draw() { if (!asked) { asked = true; requestAnimationFrame(paint); } }

  function paint() {
    asked = false;
    if (!image) return;
    const ratio = window.devicePixelRatio || 1, wide = canvas.clientWidth, high = canvas.clientHeight;
    if (canvas.width !== Math.round(wide * ratio) || canvas.height !== Math.round(high * ratio)) {
      canvas.width = Math.round(wide * ratio);
      canvas.height = Math.round(high * ratio);
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, wide, high);
    pen.imageSmoothingEnabled = view.scale < 3;
    const level = Math.min(image.levels - 1, Math.max(0, Math.floor(Math.log2(1 / view.scale))));
    if (level < image.levels - 1) paintLevel(image.levels - 1, wide, high);  // coarse first, so that nothing is black
    paintLevel(level, wide, high);
    if (!hidden) { paintChecked(); paintMarks(wide, high); }
    if (drag && drag.kind === "check") frame(drag.from, drag.to, "#ffffff");
    canvas.dataset.view = JSON.stringify([view.x, view.y, view.scale]);
  }

  function paintLevel(level, wide, high) {
    const side = image.tile * 2 ** level;
    const last = (n) => Math.ceil(n / side) - 1;
    const rows = [Math.max(0, Math.floor(view.y / side)), Math.min(last(image.rows), Math.floor((view.y + high / view.scale) / side))];
    const columns = [Math.max(0, Math.floor(view.x / side)), Math.min(last(image.columns), Math.floor((view.x + wide / view.scale) / side))];
    for (let row = rows[0]; row <= rows[1]; row++) {
      for (let column = columns[0]; column <= columns[1]; column++) {
        const tile = fetched(level, row, column);
        if (!tile.complete || !tile.naturalWidth) continue;
        const bit = 2 ** level * view.scale;
        pen.drawImage(tile, (column * side - view.x) * view.scale, (row * side - view.y) * view.scale,
          tile.naturalWidth * bit, tile.naturalHeight * bit);
      }
    }
  }

  function fetched(level, row, column) {
    const key = `${level}/${row}/${column}`;
    let tile = tiles.get(key);
    if (!tile) {
      tile = new Image();
      tile.onload = draw;
      tile.src = `${base}/tile/${key}?of=${image.key}`;
      tiles.set(key, tile);
      if (tiles.size > MOST_TILES) tiles.delete(tiles.keys().next().value);
    }
    return tile;
  }

  function paintMarks(wide, high) {
    for (const mark of marks.values()) {
      const [x, y] = toScreen(mark.x, mark.y), r = Math.max(radius(mark) + 1.5, 2.5);
      if (x < -r || y < -r || x > wide + r || y > high + r) continue;
      pen.beginPath();
      pen.arc(x, y, r, 0, 2 * Math.PI);
      pen.lineWidth = mark.id === chosen ? 3 : 1.5;
      pen.strokeStyle = mark.id === chosen ? "#ffffff" : COLOURS[group(mark) % COLOURS.length];
      pen.setLineDash(mark.score < 0.7 && mark.id !== chosen ? [3, 3] : []);
      pen.stroke();
    }
    pen.setLineDash([]);
  }

  function paintChecked() { for (const [l, t, r, b] of checked) frame([l, t], [r, b], "#5ec8c4"); }

  function frame(from, to, colour) {
    const [ax, ay] = toScreen(...from), [bx, by] = toScreen(...to);
    pen.strokeStyle = colour;
    pen.lineWidth = 1.5;
    pen.setLineDash([8, 4]);
    pen.strokeRect(Math.min(ax, bx), Math.min(ay, by), Math.abs(bx - ax), Math.abs(by - ay));
    pen.setLineDash([]);
  }

  // ---------------------------------------------------------------- looking around

  function zoom(factor, sx = canvas.clientWidth / 2, sy = canvas.clientHeight / 2) {
    const scale = Math.min(32, Math.max(0.5 * whole(), view.scale * factor));
    view.x += sx / view.scale - sx / scale;
    view.y += sy / view.scale - sy / scale;
    view.scale = scale;
    draw();
  }
  const free = () => canvas.clientWidth > 900 ? canvas.clientWidth - 324 : canvas.clientWidth;  // beside the panel
  function whole() { return Math.min(free() / image.columns, canvas.clientHeight / image.rows); }
  function centre(x, y, scale) {
    view = { scale, x: x + 0.5 - canvas.clientWidth / 2 / scale, y: y + 0.5 - canvas.clientHeight / 2 / scale };
    draw();
  }
  function fit() {
    const scale = whole();
    centre((image.columns - 1) / 2 + (canvas.clientWidth - free()) / 2 / scale, (image.rows - 1) / 2, scale);
  }
  function move(dx, dy) { view.x += dx / view.scale; view.y += dy / view.scale; draw(); }

  function doubtful() {
    const left = [...marks.values()].filter((m) => m.score < 1 && !seen.has(m.id)).sort((a, b) => a.score - b.score);
    if (!left.length) { say("every mark of the model was looked at"); return; }
    seen.add(left[0].id);
    chosen = left[0].id;
    centre(left[0].x, left[0].y, Math.max(view.scale, 30 / (left[0].d / image.pixel_nm)));
    tell();
  }

  // ---------------------------------------------------------------- mouse and keys

  function at(sx, sy) {
    let best = null, nearest = Infinity;
    for (const mark of hidden ? [] : marks.values()) {
      const [x, y] = toScreen(mark.x, mark.y), far = Math.hypot(x - sx, y - sy);
      if (far < Math.max(radius(mark) + 2, GRAB_PX) && far < nearest) { best = mark; nearest = far; }
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
    const step = Math.max(-1, Math.min(1, event.deltaY / 100));
    if (event.altKey && chosen !== null) resize(chosen, 1 - 0.05 * step);
    else zoom(Math.exp(-0.25 * step), event.offsetX, event.offsetY);
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
    "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5),
    0: () => { const [x, y] = toImage(canvas.clientWidth / 2, canvas.clientHeight / 2); centre(x, y, 1); },
    f: fit, n: doubtful, h: hide, c: check, "?": () => { byId("keys").open = !byId("keys").open; },
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
    if (event.altKey) return;
    if (/^[1-9]$/.test(key)) { pick(Number(key) - 1); return; }
    if (event.target.closest("button, summary") && (key === " " || key === "Enter")) return;
    if (KEYS[key]) { event.preventDefault(); KEYS[key](); }
  });

  const CLICKS = { undo, redo, next: doubtful, save, hide, check };
  for (const [id, what] of Object.entries(CLICKS)) byId(id).addEventListener("click", () => { what(); canvas.focus(); });
  for (const button of document.querySelectorAll("button.size")) {
    button.addEventListener("click", () => { choose(Number(button.dataset.size)); canvas.focus(); });
  }
  window.addEventListener("resize", draw);
  window.addEventListener("beforeunload", (event) => { if (image && pending().count) event.preventDefault(); });

  fetch(`${base}/marks`).then(async (answer) => {
    if (!answer.ok) throw new Error(`the server said ${answer.status}`);
    image = await answer.json();
    for (const [id, x, y, d, score] of image.marks) {
      marks.set(id, { id, x, y, d, score });
      nextId = Math.max(nextId, id + 1);
    }
    saved = new Map(marks);
    checked = image.checked;
    savedChecked = JSON.stringify(checked);
    choose(image.sizes_nm[0]);
    fit();
    tell();
    document.body.dataset.ready = "1";
  }).catch((error) => say(`the marks could not be loaded: ${error.message}`, true));
})();
