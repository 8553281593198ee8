// The panels of text: lamps, phase, figures, queue, thresholds, events, the facts of a square and a micrograph.
// Words from the daemon are only ever put in as text, never as markup.

import { clock, number } from "./charts.js";
import { isHole, kindOf, short } from "./model.js";
import { element } from "./viewer.js";

const by = (id) => document.getElementById(id);
const LAMP = { well: "●", warn: "▲", bad: "■", off: "○" };
const TROUBLE = new Set(["suspended", "error_counted", "frame_set_aside", "safe_ordered", "driver_left", "degraded_changed", "idle_told"]);
const DECISIONS = new Set(["command_issued", "groups_planned", "area_changed", "grid_changed", "grid_sighted", "grid_steered", "area_placed"]);

/** Replace what is in `parent` only where the words differ, so that nothing flickers and a selection stays. */
function put(parent, rows, make) {
  const key = JSON.stringify(rows);
  if (parent.dataset.key === key) return;
  parent.dataset.key = key;
  parent.replaceChildren(...rows.map(make));
}

function text(id, words) {
  const node = by(id);
  if (node.textContent !== words) node.textContent = words;
}

function nothing(id, words) {
  const item = element("li", null, "soft");
  item.textContent = words;
  by(id).replaceChildren(item);
}

export function hours(h) {
  if (!Number.isFinite(h)) return "–";
  const minutes = Math.round(h * 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")}`;
}

export function showPulse({ lamps, utc }) {
  put(by("lamps"), lamps, (lamp) => {
    const node = element("span", null, `lamp ${lamp.state}`);
    node.title = lamp.text;
    node.dataset.lamp = lamp.name;
    node.append(`${LAMP[lamp.state]} ${lamp.name}`);
    const words = element("span", node, "lamp-text");
    words.textContent = lamp.state === "well" ? " well" : `: ${lamp.text}`;
    return node;
  });
  by("clock").dataset.utc = utc;
}

export function showSummary(s) {
  showPulse(s);
  text("session", s.name || "session");
  by("phase").className = `phase ${mood(s)}`;
  text("phase", phaseWords(s));
  text("doing", s.working_on ? s.working_on.replaceAll("_", " ") : s.phase === "collecting" ? "choosing what comes next" : s.why);
  text("leader", s.leader);
  const me = by("me").textContent.split(" (")[0];
  const others = s.pages.filter((name, i, all) => name !== me || all.indexOf(name) !== i);
  text("others", others.length ? ` + ${others.length} more` : "");
  by("others").title = others.join(", ");
  const held = Object.entries(s.suspensions).map(([cause, detail]) => `Held by ${cause}: ${detail}`);
  if (s.phase === "fault") held.unshift(`Fault: ${s.why}`);
  if (s.degraded) held.push(`Degraded: ${s.degraded}`);
  text("banner", held.join(" · "));
  by("banner").title = held.join("\n");
  by("banner").hidden = !held.length; // in a line that is there anyway: nothing on the page moves when it comes
  by("doing").hidden = held.length > 0 && !s.working_on;
  by("banner").className = `banner ${s.phase === "fault" || Object.keys(s.suspensions).length ? "alarm" : "warn"}`;
  document.title = `${mood(s) === "well" ? "●" : mood(s) === "warn" ? "▲" : "■"} ${phaseWords(s)} – ${s.name}`;
  figures(s);
  queue(s);
}

function phaseWords(s) {
  const words = { collecting: "Collecting", suspended: "Suspended", pausing: "Pausing after this item", paused: "Paused", stopping: "Stopping", stopped: "Ended", fault: "Fault", idle: "Waiting for you" };
  return words[s.phase] || s.phase;
}

export function mood(s) {
  if (s.phase === "fault" || s.phase === "suspended" || Object.keys(s.suspensions).length) return "bad";
  return ["paused", "pausing", "idle", "stopping", "stopped"].includes(s.phase) || s.degraded ? "warn" : "well";
}

function figures(s) {
  const c = s.counts;
  const f = s.forecast;
  const share = c.judged ? `${Math.round((100 * c.good) / c.judged)} %` : "–";
  const left = f.budget_h - f.spent_h;
  const rows = [
    ["exposures", String(c.exposures), f.left ? `about ${f.left} to come` : ""],
    ["good", share, `${c.good} of ${c.judged} judged`],
    ["pace", f.per_hour ? `${number(f.per_hour / s.speed)}/h` : "–", s.speed !== 1 ? "simulated" : f.shot_s ? `${number(f.shot_s)} s a shot` : ""],
    ["squares", `${c.squares_mapped}/${c.squares}`, "visited"],
    ["ends about", f.ends_utc ? clock(f.ends_utc) : "–", f.ends_utc ? `in ${hours((f.ends_utc - s.utc) / 3600)}` : ""],
    ["time budget", hours(left), `of ${hours(f.budget_h)}`],
    ["last result", s.idle_s == null ? "–" : `${ago(s.idle_s)} ago`, ""],
  ];
  put(by("figures"), rows, ([name, value, note]) => {
    const box = element("div", null);
    element("dt", box).textContent = name;
    const value_node = element("dd", box, "num");
    value_node.textContent = value;
    element("small", value_node).textContent = note;
    return box;
  });
}

function ago(seconds) {
  return seconds < 60 ? `${Math.floor(seconds / 5) * 5} s` : hours(seconds / 3600);
}

function queue(s) {
  put(by("queue"), s.queue, (row) => {
    const item = element("li", null, row.now ? "now" : "");
    areaButton(item, row.id);
    element("span", item).textContent = row.what;
    element("span", item, "soft why").textContent = row.now ? "now" : row.why;
    return item;
  });
  if (!s.queue.length) nothing("queue", s.phase === "stopped" ? "The session has ended." : "Nothing is planned.");
  text("forecast", s.forecast.ends_utc ? `about ${s.forecast.left} exposures, until ${clock(s.forecast.ends_utc)}` : "");
}

function areaButton(parent, id) {
  if (!id) return;
  const button = element("button", parent, "area mono");
  button.dataset.area_id = id;
  button.textContent = short(id);
  button.title = id;
}

// ------------------------------------------------------------------------------------------------ events

export function showLog(lines, filter) {
  const keep = {
    all: () => true,
    trouble: (line) => TROUBLE.has(line.name),
    people: (line) => line.by !== "agent" && line.by !== "",
    decisions: (line) => DECISIONS.has(line.name),
  }[filter];
  const log = by("log");
  const rows = lines.filter(keep).slice(-200).reverse();
  put(log, rows.map((line) => line.seq), (seq) => {
    const line = rows.find((row) => row.seq === seq);
    const item = element("li", null, TROUBLE.has(line.name) ? "trouble" : line.by && line.by !== "agent" ? "person" : "");
    element("time", item, "num soft").textContent = clock(line.utc, true);
    element("span", item).textContent = (TROUBLE.has(line.name) ? "▲ " : "") + line.text;
    if (line.by && line.by !== "agent") element("b", item).textContent = ` ${line.by}`;
    if (line.area_id) item.dataset.area_id = line.area_id;
    return item;
  });
}

// ------------------------------------------------------------------------------------------------ thresholds

const NAMES = {
  square_score: ["Squares from score", 0, 1, 0.01],
  hole_score: ["Holes from score", 0, 1, 0.01],
  squares_per_grid: ["Squares per grid", 0, 60, 1],
  exposures_per_square: ["Exposures per square", 0, 200, 1],
};

export function showThresholds(thresholds, may, change, apply) {
  const box = by("thresholds");
  if (!box.children.length) {
    for (const [name, [label, low, high, step]] of Object.entries(NAMES)) {
      const row = element("div", box, "row");
      row.dataset.name = name;
      const head = element("label", row);
      head.textContent = label;
      head.htmlFor = `threshold-${name}`;
      const slider = element("input", row);
      Object.assign(slider, { type: "range", id: `threshold-${name}`, min: low, max: high, step });
      const field = element("input", row, "num");
      Object.assign(field, { type: "number", min: low, max: 100000, step });
      field.setAttribute("aria-label", `${label}, value`);
      const button = element("button", row);
      button.textContent = "Apply";
      button.setAttribute("aria-label", `Apply ${label}`);
      button.disabled = true;
      const edit = (value) => {
        row.dataset.edited = "yes";
        slider.value = value;
        field.value = value;
        button.disabled = !may();
        change(name, Number(value));
      };
      slider.addEventListener("input", () => edit(slider.value));
      field.addEventListener("input", () => field.value !== "" && edit(field.value));
      button.addEventListener("click", async () => {
        if (await apply(name, Number(field.value))) delete row.dataset.edited;
        button.disabled = true;
      });
    }
  }
  for (const row of box.children) {
    if (row.dataset.edited) continue; // being edited: not taken out of somebody's hand
    const value = thresholds[row.dataset.name];
    const [slider, field] = row.querySelectorAll("input");
    slider.max = Math.max(NAMES[row.dataset.name][2], value);
    slider.value = value;
    field.value = value;
  }
}

export function resetThresholds() {
  for (const row of by("thresholds").children) {
    delete row.dataset.edited;
    row.querySelector("button").disabled = true;
  }
}

// ------------------------------------------------------------------------------------------------ square and micrograph

export function showSquare(square, frame) {
  text("square-id", square ? short(square.id) : "");
  if (!square) return text("square-facts", "");
  const sized = frame?.sized !== false;
  const parts = [
    `score ${square.score.toFixed(2)}`,
    square.state || "found",
    square.word && `${square.word} by ${square.by}`,
    square.label,
    square.holes ? `${square.exposed || 0} of ${square.holes} holes exposed, ${square.good || 0} good` : "",
    square.groups?.length ? `${square.groups.length} image-shift group${square.groups.length === 1 ? "" : "s"}` : "",
    square.lattice && `${square.lattice} lattice${square.pitch && sized ? `, pitch ${square.pitch.toFixed(2)} µm` : ""}`,
    sized && `x ${square.x.toFixed(1)} y ${square.y.toFixed(1)} µm`,
    square.why,
  ];
  text("square-facts", parts.filter(Boolean).join(" · "));
}

export function showShot(hole, detail, frame) {
  text("shot-id", hole ? short(hole.id) : "");
  const facts = [];
  if (hole) {
    const kind = { good: "good", other: hole.verdict || "not good", exposed: "exposed, not judged yet", busy: "under way", planned: "planned", open: "found", out: "left out" }[kindOf(hole)];
    facts.push(["state", kind + (hole.word ? ` (${hole.word} by ${hole.by})` : "")]);
    if (hole.quality != null) facts.push(["micrograph", `score ${hole.quality.toFixed(2)}`]);
    if (hole.ctf != null) facts.push(["CTF to", `${hole.ctf.toFixed(1)} Å`]);
    if (hole.ice != null) facts.push(["ice", `${hole.ice.toFixed(0)} nm`]);
    const expects = detail?.expects;
    if (expects) facts.push(["expected", `${Math.round(100 * expects.p_good)} % good (${Math.round(100 * expects.low)}–${Math.round(100 * expects.high)})`]);
    facts.push(["predicted", `score ${hole.score.toFixed(2)}${hole.label ? `, ${hole.label}` : ""}${hole.inferred ? ", from the lattice" : ""}`]);
    if (detail?.marks.length) facts.push(["found", counted(detail.marks)]);
    if (hole.defocus != null) facts.push(["defocus", `${hole.defocus.toFixed(2)} µm under`]);
    if (hole.dose) facts.push(["dose", `${hole.dose.toFixed(1)} e/Å²`]);
    facts.push(["stage", `x ${hole.x.toFixed(2)} y ${hole.y.toFixed(2)} µm`]);
    if (hole.group != null) facts.push(["group", String(hole.group)]);
  }
  if (frame) facts.push(["pixel", `${number(frame.px_a)} Å, ${frame.w} × ${frame.h}`]);
  const shown = ["ctf_resolution_angstrom", "ice_thickness_nm"];
  for (const [name, value] of Object.entries(detail?.features || {}).filter(([name]) => !shown.includes(name))) facts.push([named(name), `${number(value)}${unit(name)}`]);
  put(by("shot-facts"), facts, ([name, value]) => {
    const pair = element("div", null);
    element("dt", pair).textContent = name;
    element("dd", pair, "num").textContent = value;
    return pair;
  });
  const story = detail ? [...detail.story].reverse() : [];
  put(by("story"), story, (line) => {
    const item = element("li", null);
    element("time", item, "num soft").textContent = clock(line.utc, true);
    element("span", item).textContent = line.text;
    if (line.by && line.by !== "agent") element("b", item).textContent = ` ${line.by}`;
    return item;
  });
  if (!story.length) nothing("story", "Choose a hole to see why it was taken.");
}

function counted(marks) {
  const counts = {};
  for (const mark of marks) counts[mark.group] = (counts[mark.group] || 0) + 1;
  return Object.entries(counts).map(([group, count]) => `${count} ${group}`).join(", ");
}

const UNITS = { angstrom: " Å", nm: " nm", um: " µm", deg: "°" };

function unit(name) {
  return UNITS[name.split("_").pop()] || "";
}

function named(name) {
  const words = name.split("_");
  if (UNITS[words[words.length - 1]]) words.pop();
  return words.join(" ").replace("ctf", "CTF");
}

export function showChosen(ids, model) {
  by("chosen").hidden = !ids.length;
  if (!ids.length) return;
  const holes = ids.filter(isHole).length;
  const kind = holes === ids.length ? "hole" : holes ? "target" : "square";
  const one = ids.length === 1 ? model.area(ids[0]) : null;
  text("chosen-text", one ? `${short(one.id)}: score ${one.score.toFixed(2)}, ${one.state || "found"}` : `${ids.length} ${kind}s`);
}
