// The operator's page: brings the line, the model, the pictures and the panels together. It decides nothing: every
// button sends one Control message, and what is shown is what the daemon says afterwards.

import { drawTrends } from "./charts.js";
import { Link } from "./link.js";
import { isHole, kindOf, Model, short, squareOf } from "./model.js";
import * as panels from "./panels.js";
import { atlasScene, shotScene, squareScene } from "./scenes.js";
import { Viewer } from "./viewer.js";

const by = (id) => document.getElementById(id);
const model = new Model();
const look = { square: "", hole: "", chosen: new Set(), colour: "score", expects: {}, preview: null, drag: null, follow: true, tool: "", grid: "" };
let role = "observer";
let detail = null;
let queued = [];
let loading = false;

// ------------------------------------------------------------------------------------------------ the line

const link = new Link({
  async hello() {
    const me = await link.whoami();
    role = me.role;
    await reload();
  },
  news(body) {
    if (loading) queued.push(body);
    else takeNews(body);
  },
  beat(body) {
    if (model.summary) Object.assign(model.summary, body);
    panels.showPulse(body);
  },
  line(stale, silent_s) {
    document.body.classList.toggle("stale", stale);
    const clock = by("clock");
    clock.textContent = stale
      ? link.heard ? `no word for ${Math.round(silent_s)} s` : "connecting …"
      : clock.dataset.utc ? `live ${new Date(Number(clock.dataset.utc) * 1000).toLocaleTimeString("en-GB", { hourCycle: "h23" })}` : "live";
    clock.classList.toggle("bad", stale);
    if (stale && model.summary) document.title = `✕ no word – ${model.summary.name}`;
    enable();
  },
});

async function reload() {
  loading = true;
  try {
    model.loadSession(await link.get("/api/session"));
    panels.showPulse(model.summary);
    const grids = model.summary.grids.map((grid) => grid.id);
    const grid = look.grid && grids.includes(look.grid) ? look.grid : model.summary.grid_id || grids[0] || "";
    model.seq = 0;
    if (grid) model.loadGrid(await link.get(`/api/grid/${encodeURIComponent(grid)}`));
  } finally {
    loading = false;
  }
  const later = queued;
  queued = [];
  showAll();
  later.forEach(takeNews);
}

function takeNews(body) {
  const before = model.summary;
  const changed = model.take(body);
  const s = model.summary;
  const other = !look.grid && s.grid_id && s.grid_id !== model.grid;
  const whole = before && s.grid_id === model.grid && before.grid_state !== s.grid_state;
  if (other || whole) return reload(); // another grid, or its atlas is complete now
  follow();
  showState();
  if (changed) {
    draw();
    expect();
  }
  if (body.points.length) drawTrends(model.points, model.summary?.speed);
  if (look.hole && body.holes.some((hole) => hole.id === look.hole)) showHole(look.hole, { patient: look.follow });
}

// ------------------------------------------------------------------------------------------------ pictures

const views = {
  atlas: new Viewer(by("view-atlas"), "Atlas with the squares of the grid. Arrow keys move, plus and minus zoom.", {
    click: (x, y, more, near) => clickAtlas(x, y, more, near),
    box: (x0, y0, x1, y1) => chooseIn(model.squares.values(), (s) => [s.x, s.y], x0, y0, x1, y1),
    readout: (x, y) => `x ${x.toFixed(1)}  y ${y.toFixed(1)} µm${underAtlas(x, y)}`,
  }),
  square: new Viewer(by("view-square"), "Square with its holes. Arrow keys move, plus and minus zoom.", {
    click: (u, v, more) => clickSquare(u, v, more),
    box: (u0, v0, u1, v1) => {
      const scene = views.square.scene;
      chooseIn(model.holesOf(look.square), (h) => scene.at(h.x, h.y), u0, v0, u1, v1);
    },
    grip: (u, v) => (look.tool === "move" ? holeAt(u, v) : null),
    dragging: (hole, u, v) => { look.drag = { u, v, r: hole.r }; },
    dropped: (hole, u, v) => drop(hole, u, v),
    readout: (u, v) => readSquare(u, v),
  }),
  shot: new Viewer(by("view-shot"), "Micrograph. Arrow keys move, plus and minus zoom.", {
    readout: (u, v) => `px ${Math.floor(u)}, ${Math.floor(v)}  ${(u * (views.shot.scene?.umPerUnit || 0)).toFixed(3)}, ${(v * (views.shot.scene?.umPerUnit || 0)).toFixed(3)} µm`,
  }),
};

function draw() {
  views.atlas.show(atlasScene(model, look), { keep: views.atlas.touched });
  const square = views.square;
  const other = square.shown !== `${look.square} ${model.squares.get(look.square)?.map || ""}`;
  square.shown = `${look.square} ${model.squares.get(look.square)?.map || ""}`;
  if (other) square.touched = false;
  square.show(squareScene(model, look) || { bounds: [0, 0, 1, 1], images: [], note: "Click a square on the atlas." }, { keep: square.touched });
  const chosen = model.squares.get(look.square);
  panels.showSquare(chosen, chosen && model.frames.get(chosen.map));
  panels.showChosen([...look.chosen].filter((id) => model.area(id)), model);
}

function underAtlas(x, y) {
  const square = squareAt(x, y);
  return square ? `  ${short(square.id)} score ${square.score.toFixed(2)}` : "";
}

function readSquare(u, v) {
  const scene = views.square.scene;
  if (!scene?.back) return "";
  const [x, y] = scene.back(u, v);
  const hole = holeAt(u, v);
  return `px ${Math.floor(u)}, ${Math.floor(v)}  x ${x.toFixed(2)}  y ${y.toFixed(2)} µm${hole ? `  ${short(hole.id)} score ${hole.score.toFixed(2)}` : ""}`;
}

function squareAt(x, y) {
  let best = null;
  for (const square of model.squares.values()) {
    const inside = Math.max(Math.abs(square.x - x), Math.abs(square.y - y)) < 1.5 * square.size && within(square.v, x, y);
    if (inside && (!best || square.size < best.size)) best = square;
  }
  return best;
}

function within(points, x, y) {
  let inside = false;
  for (let i = 0, j = points.length - 1; i < points.length; j = i++) {
    const [[xi, yi], [xj, yj]] = [points[i], points[j]];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}

function holeAt(u, v) {
  const scene = views.square.scene;
  if (!scene?.at) return null;
  let best = null;
  let nearest = Infinity;
  for (const hole of model.holesOf(look.square)) {
    const [x, y] = scene.at(hole.x, hole.y);
    const far = Math.hypot(x - u, y - v);
    if (far < nearest && far < Math.max(hole.r * scene.unit * 1.3, 8 / views.square.view.scale)) [best, nearest] = [hole, far];
  }
  return best;
}

// ------------------------------------------------------------------------------------------------ choosing

function clickAtlas(x, y, more) {
  if (look.tool === "add-square") return add({ x_um: x, y_um: y });
  const square = squareAt(x, y);
  if (!square) return choose([]);
  choose([square.id], more);
  if (!more) showSquare(square.id);
}

function clickSquare(u, v, more) {
  const scene = views.square.scene;
  if (look.tool === "add-hole" && scene?.back) {
    const [x, y] = scene.back(u, v);
    return add({ x_um: x, y_um: y, square_id: look.square });
  }
  const hole = holeAt(u, v);
  if (!hole) return choose([]);
  choose([hole.id], more);
  if (!more) {
    unfollow();
    showHole(hole.id);
  }
}

function chooseIn(areas, at, x0, y0, x1, y1) {
  const inside = [];
  for (const area of areas) {
    const [x, y] = at(area);
    if (Math.min(x0, x1) <= x && x <= Math.max(x0, x1) && Math.min(y0, y1) <= y && y <= Math.max(y0, y1)) inside.push(area.id);
  }
  choose(inside, true);
}

function choose(ids, more = false) {
  if (!more) look.chosen.clear();
  for (const id of ids) {
    if (more && ids.length === 1 && look.chosen.has(id)) look.chosen.delete(id);
    else look.chosen.add(id);
  }
  draw();
  enable();
}

function showSquare(id) {
  unfollow();
  look.square = id;
  const shots = model.holesOf(id).filter((hole) => hole.frame);
  draw();
  showHole(shots.length ? shots[shots.length - 1].id : "");
}

/** Show a hole; where nobody clicked (`patient`), the one before stays until the new picture is here. */
async function showHole(id, { patient = false } = {}) {
  look.hole = id;
  const hole = model.holes.get(id) || null;
  if (views.shot.shown !== id && !patient) panels.showShot(hole, null, null);
  views.square.redraw();
  if (!id) {
    detail = null;
    return showFrame(hole, null);
  }
  try {
    const found = await link.get(`/api/area/${encodeURIComponent(id)}`);
    if (look.hole !== id) return; // another one was clicked meanwhile
    if (patient && found.frame) await loaded(shotScene(found.frame, []).images[0].small);
    if (look.hole !== id) return;
    detail = found;
    showFrame(model.holes.get(id) || hole, detail);
  } catch (error) {
    tell(error.message, true);
  }
}

function loaded(url) {
  const image = new Image();
  image.src = url;
  return image.decode().catch(() => {}); // a picture that cannot be shown: its note is
}

function showFrame(hole, found) {
  const frame = found?.frame || null;
  const note = hole ? (kindOf(hole) === "busy" ? "It is being taken." : "No micrograph of this hole.") : "Click a hole of the square.";
  if (views.shot.shown !== hole?.id) views.shot.touched = false;
  views.shot.shown = hole?.id;
  views.shot.show(shotScene(frame, found?.marks) || { bounds: [0, 0, 1, 1], images: [], note }, { keep: views.shot.touched });
  by("proofread").hidden = !frame;
  if (frame) by("proofread").href = `/proofread/${encodeURIComponent(frame.id)}`;
  const spectrum = by("spectrum");
  spectrum.hidden = !frame;
  by("spectrum-words").textContent = frame && hole?.ctf != null ? "measured | CTF fit" : "power spectrum";
  const url = frame ? `/picture/${encodeURIComponent(frame.id)}/${frame.key}/spectrum.jpg?judged=${hole?.quality != null}` : "";
  if (frame && spectrum.getAttribute("src") !== url) spectrum.src = url;
  panels.showShot(hole, found, frame);
}

const FOLLOW_MS = 1500; // faster than that nobody can look at micrographs, and each costs the daemon a picture
let followed = -FOLLOW_MS;
let followTimer = 0;

/** Show what is under way, and the last micrograph of it. */
function follow() {
  if (!look.follow || !model.summary) return;
  const last = model.points.length ? model.points[model.points.length - 1].id : "";
  const now = model.summary.queue.find((row) => row.now)?.id || last; // the microscope software may lead: then the last one
  const square = model.squares.has(squareOf(now)) ? squareOf(now) : look.square;
  if (square !== look.square) look.square = square;
  const wait_ms = followed + FOLLOW_MS - performance.now();
  clearTimeout(followTimer);
  if (wait_ms > 0) {
    followTimer = setTimeout(follow, wait_ms);
  } else if (last !== look.hole && model.holes.has(last)) {
    followed = performance.now();
    showHole(last, { patient: true });
  }
}

function unfollow() {
  look.follow = false;
  by("follow").setAttribute("aria-pressed", "false");
}

// ------------------------------------------------------------------------------------------------ a word to the daemon

async function send(verb) {
  const reply = await link.control(verb);
  tell(reply.text, !reply.ok);
  return reply.ok;
}

let toldUntil = 0;
function tell(words, bad = false) {
  const told = by("told");
  told.textContent = words;
  told.className = `told ${bad ? "bad" : "well"}`;
  toldUntil = performance.now() + (bad ? 9000 : 4500);
}
setInterval(() => performance.now() > toldUntil && (by("told").textContent = ""), 500);

function ask(title, words, yes, { danger = false, choices = false } = {}) {
  const dialog = by("ask");
  by("ask-title").textContent = title;
  by("ask-text").textContent = words;
  by("ask-yes").textContent = yes;
  by("ask-yes").className = danger ? "danger" : "main";
  by("ask-choices").hidden = !choices;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }));
}

const DO = {
  pause: () => send({ verb: "pause", now: false }),
  "pause-now": () => send({ verb: "pause", now: true }),
  resume: () => send({ verb: "resume" }),
  undo: () => send({ verb: "undo" }),
  help: () => by("keys").showModal(),
  async skip() {
    const what = model.summary?.working_on || "nothing";
    if (await ask("Skip this item?", `Under way: ${what}. It is cancelled where that is possible, and left out; Accept brings it back.`, "Skip")) send({ verb: "skip", area_id: "" });
  },
  async clear() {
    if (await ask("Clear the fault?", "Somebody has looked at the microscope and it may go on. The session is paused then.", "Clear", { danger: true })) send({ verb: "clear" });
  },
  async stop() {
    if (!(await ask("End the session?", "The microscope is parked, and the session ends in good order. It cannot be resumed.", "Stop", { danger: true, choices: true }))) return;
    const after = document.querySelector("#ask-choices input:checked").value;
    send(after === "now" ? { verb: "abort" } : { verb: "stop", after });
  },
  async emergency() {
    if (await ask("Emergency stop?", "The driver is told to reach its safe state now, whatever runs. Only “Clear fault” leads on.", "Emergency stop", { danger: true })) send({ verb: "emergency_stop", why: "from the page" });
  },
};

const AREA = {
  accept: (ids) => send({ verb: "accept", area_ids: ids }),
  async reject(ids) {
    if (ids.length < 10 || (await ask(`Reject ${ids.length} targets?`, "They are not visited, whatever a model thinks. Undo or Accept brings them back.", "Reject"))) send({ verb: "reject", area_ids: ids });
  },
  pin: (ids) => send({ verb: "pin", area_ids: ids }),
  async ban(ids) {
    if (await ask(`Ban ${ids.length === 1 ? short(ids[0]) : `${ids.length} targets`}?`, "Never visited, a square with all its holes; where one is under way it is left.", "Ban")) send({ verb: "ban", area_ids: ids });
  },
  more: (ids) => send({ verb: "like", area_id: ids[0], more: true }),
  fewer: (ids) => send({ verb: "like", area_id: ids[0], more: false }),
  async policy(ids) { for (const id of ids) await send({ verb: "rerank", area_id: id, priority: 0 }); },
  async goto(ids) {
    if (await ask("Go there?", `The stage moves to ${short(ids[0])}; nothing is exposed.`, "Go")) send({ verb: "goto", area_id: ids[0] });
  },
  none: () => choose([]),
};

function chosen() {
  return [...look.chosen].filter((id) => model.area(id));
}

async function add(target) {
  const where = target.square_id ? `a hole of ${short(target.square_id)}` : "a square";
  if (await ask(`Add ${where}?`, `At x ${target.x_um.toFixed(2)}, y ${target.y_um.toFixed(2)} µm. It is visited as if you had accepted it.`, "Add")) {
    if (await send({ verb: "add", ...target })) tool("");
  }
}

async function drop(hole, u, v) {
  const [x, y] = views.square.scene.back(u, v);
  const moved = Math.hypot(x - hole.x, y - hole.y);
  if (await ask(`Move ${short(hole.id)}?`, `By ${moved.toFixed(2)} µm, to x ${x.toFixed(2)}, y ${y.toFixed(2)} µm. It counts as accepted then.`, "Move")) {
    await send({ verb: "move", area_id: hole.id, x_um: x, y_um: y });
  }
  look.drag = null;
  views.square.redraw();
}

// ------------------------------------------------------------------------------------------------ showing

function showAll() {
  const s = model.summary;
  const grid = by("grid");
  grid.replaceChildren(...s.grids.map((g) => new Option(`${g.id} – ${g.state}`, g.id, false, g.id === model.grid)));
  grid.hidden = s.grids.length < 2;
  if (!model.squares.has(look.square)) look.square = lastSquare();
  follow();
  showState();
  draw();
  drawTrends(model.points, model.summary?.speed);
  if (look.hole) showHole(look.hole);
  else showFrame(null, null);
}

function lastSquare() {
  const mapped = [...model.squares.values()].filter((square) => square.map);
  return mapped.length ? mapped[mapped.length - 1].id : "";
}

function showState() {
  const s = model.summary;
  panels.showSummary(s);
  panels.showLog(model.lines, by("log-filter").value);
  panels.showThresholds(s.thresholds, () => may(), previewThreshold, applyThreshold);
  if (document.activeElement !== by("autonomy")) by("autonomy").value = s.autonomy;
  enable();
}

const may = () => role === "operator" && !link.stale;

/** Only what can be done now can be pressed. */
function enable() {
  const s = model.summary;
  const phase = s?.phase === "suspended" ? "collecting" : s?.phase;
  const can = {
    pause: ["collecting", "idle", "stopping"].includes(phase),
    "pause-now": ["collecting", "pausing", "idle", "stopping"].includes(phase),
    resume: ["paused", "pausing"].includes(phase) || (phase === "collecting" && s && ["errors", "grid", "moves"].some((cause) => cause in s.suspensions)),
    clear: phase === "fault",
    skip: Boolean(s?.working_on),
    undo: Boolean(s?.undo),
    stop: Boolean(phase) && !["stopped", "fault"].includes(phase),
    emergency: Boolean(phase) && phase !== "fault" && phase !== "stopped",
  };
  for (const button of document.querySelectorAll("[data-do]")) {
    if (button.dataset.do === "help") continue;
    button.disabled = !may() || !can[button.dataset.do];
  }
  document.querySelector("[data-do=clear]").hidden = phase !== "fault";
  document.querySelector("[data-do=resume]").hidden = phase === "fault"; // its place is taken: nothing else moves
  const undo = document.querySelector("[data-do=undo]");
  undo.textContent = s?.undo ? `Undo: ${s.undo}` : "Undo";
  undo.title = s?.undo ? `Take back: ${s.undo} (u)` : "Nothing to take back";
  by("autonomy").disabled = !may();
  for (const button of document.querySelectorAll("[data-area]")) {
    if (button.dataset.area === "none") continue;
    const one = ["goto", "more", "fewer"].includes(button.dataset.area);
    const moves = button.dataset.area === "goto" && !["paused", "idle"].includes(phase);
    const wrong = moves || (one && look.chosen.size !== 1);
    button.disabled = !may() || wrong;
  }
  for (const button of document.querySelectorAll("[data-tool]")) button.disabled = !may();
}

let previewTimer = 0;
function previewThreshold(name, value) {
  clearTimeout(previewTimer);
  previewTimer = setTimeout(async () => {
    try {
      look.preview = await link.get(`/api/preview?name=${encodeURIComponent(name)}&value=${value}`);
      by("preview").textContent = look.preview.text;
    } catch (error) {
      by("preview").textContent = error.message;
    }
    draw();
  }, 150);
}

async function applyThreshold(name, value) {
  const done = await send({ verb: "threshold", name, value });
  dropPreview();
  return done;
}

function dropPreview() {
  look.preview = null;
  by("preview").textContent = "";
  draw();
}

function tool(name) {
  look.tool = look.tool === name ? "" : name;
  look.drag = null;
  for (const button of document.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === look.tool));
  document.body.dataset.tool = look.tool;
}

// ------------------------------------------------------------------------------------------------ hands

document.addEventListener("click", (event) => {
  const target = event.target.closest("[data-do], [data-area], [data-tool], [data-zoom], [data-tab], [data-area_id]");
  if (!target || target.disabled) return;
  const d = target.dataset;
  if (d.do) DO[d.do]();
  else if (d.area) d.area === "none" ? AREA.none() : AREA[d.area](chosen());
  else if (d.tool) tool(d.tool);
  else if (d.zoom) views[d.view].fit();
  else if (d.tab) tab(d.tab);
  else if (model.squares.has(squareOf(d.area_id))) jump(d.area_id);
});

function jump(id) {
  showSquare(squareOf(id));
  choose([id]);
  if (isHole(id)) showHole(id);
}

function tab(name) {
  document.body.dataset.tab = name;
  for (const button of document.querySelectorAll("[data-tab]")) if (button.tagName === "BUTTON") button.setAttribute("aria-pressed", String(button.dataset.tab === name));
  drawTrends(model.points, model.summary?.speed);
}

function tuning(open) {
  by("panel-tuning").classList.toggle("open", open);
  by("tuning").setAttribute("aria-pressed", String(open));
  if (!open) {
    panels.resetThresholds();
    dropPreview();
    if (model.summary) showState();
  }
}
const tuningIsOpen = () => by("panel-tuning").classList.contains("open");
by("tuning").addEventListener("click", () => tuning(!tuningIsOpen()));
by("tuning-close").addEventListener("click", () => tuning(false));

by("follow").addEventListener("click", () => {
  look.follow = !look.follow;
  by("follow").setAttribute("aria-pressed", String(look.follow));
  follow();
  draw();
});
by("colour").addEventListener("change", (event) => { look.colour = event.target.value; expect(); draw(); });

/** What the policy expects of every hole, where the pictures are coloured by it; it learns as the session goes. */
let expecting = 0;
async function expect() {
  if (look.colour !== "expected" || !model.grid || performance.now() < expecting) return;
  expecting = performance.now() + 4000;
  look.expects = await link.get(`/api/outlook/${encodeURIComponent(model.grid)}`);
  draw();
}
by("grid").addEventListener("change", (event) => { look.grid = event.target.value; look.square = ""; look.chosen.clear(); views.atlas.touched = false; reload(); });
by("log-filter").addEventListener("change", () => panels.showLog(model.lines, by("log-filter").value));
by("autonomy").addEventListener("change", async (event) => {
  const level = event.target.value;
  const what = { suggest: "It answers frames and commands nothing.", approve: "It visits only squares that you accept.", unattended: "It does everything within thresholds, budgets and interlocks." }[level];
  if (!(await ask(`Autonomy: ${level}?`, what, "Change")) || !(await send({ verb: "autonomy", level }))) event.target.value = model.summary.autonomy;
  event.target.blur();
});

const KEYS = {
  p: () => press("pause"), P: () => press("pause-now"), r: () => press("resume"), k: () => press("skip"), u: () => press("undo"),
  a: () => may() && chosen().length && AREA.accept(chosen()),
  x: () => may() && chosen().length && AREA.reject(chosen()),
  f: () => by("follow").click(),
  t: () => tuning(!tuningIsOpen()),
  n: () => step(1), b: () => step(-1),
  "?": () => DO.help(),
  Escape: () => { tool(""); choose([]); tuning(false); },
};

function press(name) {
  const button = document.querySelector(`[data-do="${name}"]`);
  if (!button.disabled) DO[name]();
}

function step(by_how_many) {
  const holes = model.holesOf(look.square);
  if (!holes.length) return;
  const at = holes.findIndex((hole) => hole.id === look.hole);
  const next = holes[(at + by_how_many + holes.length) % holes.length];
  unfollow();
  choose([next.id]);
  showHole(next.id);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.closest("input, select, textarea")) return;
  const act = KEYS[event.key];
  if (!act || !model.summary) return;
  event.preventDefault();
  act();
});

new ResizeObserver(() => drawTrends(model.points, model.summary?.speed)).observe(document.querySelector(".charts"));
document.body.dataset.tab = "now";
window.cryonaut = { model, look, views, link }; // for tests and the curious; whoever is signed in may see all of it
link.open();
