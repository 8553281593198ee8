// What the three pictures show: the atlas with its squares, a square with its holes and groups, a micrograph.

import { BAD, colourOf, GOOD, HALO, LEFT_OUT, scoreColour, WHITE } from "./palette.js";
import { kindOf, Place, short } from "./model.js";

/** A frame as an image of the world of `m`. */
function frameImage(frame, m, side, tiles) {
  const base = `/picture/${encodeURIComponent(frame.id)}/${frame.key}`;
  return {
    w: frame.w,
    h: frame.h,
    m,
    tiny: side > 320 ? `${base}/96.jpg` : null,
    small: `${base}/${side}.jpg`,
    tile: tiles && Math.max(frame.w, frame.h) > side ? (n, i, j) => `${base}/tile-${n}-${i}-${j}.jpg` : null,
  };
}

/** From corner-based pixels of a frame to the stage. */
function toStage({ m: [a, b, c, d], c: [x, y], w, h }) {
  return [a, c, b, d, x - (a * w + b * h) / 2, y - (c * w + d * h) / 2];
}

// ------------------------------------------------------------------------------------------------ atlas

export function atlasScene(model, look) {
  const low = [...model.frames.values()].filter((frame) => frame.level === "low");
  const images = model.atlas
    ? [{ w: model.atlas.w, h: model.atlas.h, m: [model.atlas.um_per_px, 0, 0, model.atlas.um_per_px, model.atlas.x, model.atlas.y], small: model.atlas.url, tile: null }]
    : low.map((frame) => frameImage(frame, toStage(frame), 320, false));
  const squares = [...model.squares.values()];
  const xs = squares.flatMap((s) => s.v.map((p) => p[0])).concat(low.flatMap((f) => edges(f, 0)));
  const ys = squares.flatMap((s) => s.v.map((p) => p[1])).concat(low.flatMap((f) => edges(f, 1)));
  const bounds = xs.length ? [min(xs), min(ys), max(xs), max(ys)] : [-500, -500, 500, 500];
  return {
    bounds,
    umPerUnit: low.some((frame) => frame.sized === false) ? 0 : 1,
    images,
    note: low.length ? "" : "The atlas appears here as its frames come in.",
    draw: (pen) => drawAtlas(pen, model, squares, look),
  };
}

function edges(frame, axis) {
  const place = new Place(frame);
  return [[0, 0], [frame.w, 0], [0, frame.h], [frame.w, frame.h]].map(([u, v]) => place.toStage(u, v)[axis]);
}

function drawAtlas(pen, model, squares, look) {
  const { ctx, scale } = pen;
  const medians = look.colour === "score" ? null : mediansOf(model, look);
  for (const square of squares) {
    const out = square.state === "rejected" || square.state === "skipped" || square.word === "rejected";
    const visited = Boolean(square.map) || square.state === "busy";
    const path = polygon(pen, square.v);
    const colour = out ? LEFT_OUT : medians ? medians.get(square.id) || LEFT_OUT : scoreColour(square.score);
    ctx.setLineDash(square.edge ? [2, 3] : []);
    ctx.lineWidth = visited ? 4.5 : 3;
    ctx.strokeStyle = HALO;
    ctx.stroke(path);
    ctx.lineWidth = visited ? 2.6 : square.edge || out ? 1 : 1.4;
    ctx.strokeStyle = colour;
    ctx.stroke(path);
    ctx.setLineDash([]);
    if (visited) tint(ctx, path, colour, 0.16);
    if (out) cross(pen, square.x, square.y, square.size * 0.3, LEFT_OUT);
  }
  if (scale > 0.9) {
    const holes = [...model.holes.values()].filter((hole) => visible(pen, hole.x, hole.y, 20));
    drawHoles(pen, holes, look, (hole) => [hole.x, hole.y], 1);
  }
  ranks(pen, model);
  for (const square of squares) {
    if (look.chosen.has(square.id) || square.id === look.square) outline(pen, square.v, look.chosen.has(square.id) ? 3 : 2, look.chosen.has(square.id) ? [] : [6, 3]);
    if (square.size * scale > 38 && visible(pen, square.x, square.y, 60)) {
      const counts = square.holes ? `${square.exposed || 0}/${square.holes}` : square.score.toFixed(2);
      tag(pen, short(square.id), square.x, square.y, -6);
      if (square.size * scale > 52) tag(pen, counts, square.x, square.y, 8);
    }
  }
  hints(pen, look.preview, (id) => model.squares.get(id), (square) => polygon(pen, square.v));
  here(pen, model);
}

/** The next squares by their place in the queue. */
function ranks(pen, model) {
  let rank = 0;
  for (const row of model.summary?.queue || []) {
    if (row.what !== "map square" || row.now) continue;
    rank++;
    const square = model.squares.get(row.id);
    if (!square) continue;
    const [x, y] = pen.at(max(square.v.map((p) => p[0])), min(square.v.map((p) => p[1])));
    badge(pen.ctx, String(rank), x, y);
  }
}

function here(pen, model) {
  const id = model.summary?.queue?.find((row) => row.now)?.id || "";
  const square = model.squares.get(id.replace(/-H\d+$/, ""));
  if (!square) return;
  const [x, y] = pen.at(square.x, square.y);
  const r = Math.max(square.size * pen.scale * 0.75, 9);
  pen.ctx.lineWidth = 2;
  pen.ctx.strokeStyle = WHITE;
  for (const quarter of [0, 1, 2, 3]) {
    pen.ctx.beginPath();
    pen.ctx.arc(x, y, r, (quarter + 0.3) * Math.PI / 2, (quarter + 0.7) * Math.PI / 2);
    pen.ctx.stroke();
  }
}

/** Colours of squares by the median of what their holes gave, or by what is expected of them. */
function mediansOf(model, look) {
  const found = new Map();
  if (look.colour === "expected") {
    for (const square of model.squares.values()) found.set(square.id, colourOf(square, look));
    return found;
  }
  for (const [id, inside] of model.inside) {
    const values = [...inside].map((hole) => model.holes.get(hole)?.[look.colour]).filter((value) => value != null).sort((a, b) => a - b);
    if (values.length) found.set(id, colourOf({ [look.colour]: values[values.length >> 1] }, look));
  }
  return found;
}

// ------------------------------------------------------------------------------------------------ square

export function squareScene(model, look) {
  const square = model.squares.get(look.square);
  if (!square) return null;
  const frame = model.frames.get(square.map);
  if (!frame) {
    const half = square.size * 0.75;
    return {
      bounds: [square.x - half, square.y - half, square.x + half, square.y + half],
      umPerUnit: 1, images: [], at: (x, y) => [x, y], back: (u, v) => [u, v], unit: 1,
      note: square.state === "busy" ? "Its medium-mag picture is being taken." : "Not visited yet: there is no medium-mag picture.",
      draw: (pen) => outline(pen, square.v, 2, []),
    };
  }
  const place = new Place(frame);
  const at = (x, y) => place.toPicture(x, y);
  return {
    bounds: [0, 0, frame.w, frame.h],
    umPerUnit: frame.sized === false ? 0 : place.umPerPx,
    images: [frameImage(frame, [1, 0, 0, 1, 0, 0], 1024, true)],
    at,
    back: (u, v) => place.toStage(u, v),
    unit: 1 / place.umPerPx,
    draw: (pen) => drawSquare(pen, model, square, look, at, 1 / place.umPerPx),
  };
}

function drawSquare(pen, model, square, look, at, unit) {
  const { ctx } = pen;
  const holes = model.holesOf(square.id);
  ctx.setLineDash([3, 4]);
  ctx.lineWidth = 1;
  ctx.strokeStyle = "rgb(244 246 248 / .5)";
  ctx.stroke(polygon(pen, square.v.map(([x, y]) => at(x, y))));
  ctx.setLineDash([]);
  const groups = square.groups || [];
  const near = nearGroups(model, groups, look);
  for (const group of groups) drawGroup(pen, model, group, at, near.has(group.n) ? unit : 0);
  drawHoles(pen, holes, look, (hole) => at(hole.x, hole.y), unit);
  for (const hole of holes) {
    const [x, y] = pen.at(...at(hole.x, hole.y));
    const r = hole.r * unit * pen.scale;
    if (look.chosen.has(hole.id)) ring(ctx, x, y, r + 4, WHITE, 2.5);
    else if (hole.id === look.hole) ring(ctx, x, y, r + 4, WHITE, 1.5, [4, 3]);
    if (hole.word === "accepted" && r > 9) badge(ctx, "✓", x + r * 0.8, y - r * 0.8);
    if (r > 15) {
      tag(pen, short(hole.id).split("-")[1], ...at(hole.x, hole.y), r > 26 ? -5 : 0);
      if (r > 26) tag(pen, (hole.quality ?? hole.score).toFixed(2), ...at(hole.x, hole.y), 9);
    }
  }
  drawOrder(pen, model, groups.filter((group) => near.has(group.n)), at, unit);
  hints(pen, look.preview, (id) => model.holes.get(id), (hole) => circle(pen, at(hole.x, hole.y), hole.r * unit * 1.25));
  if (look.drag) {
    const [x, y] = pen.at(look.drag.u, look.drag.v);
    ring(ctx, x, y, look.drag.r * unit * pen.scale, WHITE, 2, [5, 3]);
  }
}

/** Numbers of the groups that are shown in full: the one at hand or next, and those of the chosen holes. */
function nearGroups(model, groups, look) {
  const states = (group) => group.holes.map((id) => model.holes.get(id)?.state);
  const busy = groups.find((group) => states(group).includes("busy"));
  const begun = groups.find((group) => (group.focused || states(group).some((s) => s === "done")) && states(group).some(isOpen));
  const next = busy || begun || groups.find((group) => states(group).some(isOpen));
  const chosen = groups.filter((group) => group.holes.some((id) => look.chosen.has(id) || id === look.hole));
  return new Set([next, ...chosen].filter(Boolean).map((group) => group.n));
}

const isOpen = (state) => state === "found" || state === "queued";

/** A group as it is shot: stage, focus spot, holes in their order; with `unit` also the beam and how far shift reaches. */
function drawGroup(pen, model, group, at, unit) {
  const { ctx } = pen;
  const holes = group.holes.map((id) => model.holes.get(id));
  const open = holes.filter(Boolean);
  if (!open.length) return;
  const done = open.every((hole) => !isOpen(hole.state) && hole.state !== "busy");
  const [x, y] = pen.at(...at(group.x, group.y));
  const shots = model.summary?.shots || {};
  if (unit && shots.shift_um > 0) {
    ring(ctx, x, y, shots.shift_um * unit * pen.scale, "rgb(141 185 245 / .9)", 1.2, [1, 4]);
  }
  ctx.strokeStyle = done ? "rgb(244 246 248 / .22)" : "rgb(141 185 245 / .95)";
  ctx.lineWidth = done ? 1 : 1.4;
  ctx.beginPath();
  for (const hole of open) {
    ctx.moveTo(x, y);
    ctx.lineTo(...pen.at(...at(hole.x, hole.y)));
  }
  ctx.stroke();
  const [fx, fy] = pen.at(...at(group.fx, group.fy));
  ctx.setLineDash([2, 3]);
  ctx.beginPath();
  ctx.moveTo(x, y);
  ctx.lineTo(fx, fy);
  ctx.stroke();
  ctx.setLineDash([]);
  if (unit && shots.beam_um > 0) {
    const beam = (shots.beam_um / 2) * unit * pen.scale;
    for (const hole of open) ring(ctx, ...pen.at(...at(hole.x, hole.y)), beam, "rgb(255 214 102 / .9)", 1, [3, 3]);
    if (shots.focus) ring(ctx, fx, fy, beam, "rgb(255 214 102 / .9)", 1, [3, 3]);
  }
  const r = 6;
  for (const colour of shots.focus === false ? [] : [HALO, group.focused ? GOOD : "#8db9f5"]) {
    ctx.strokeStyle = colour;
    ctx.lineWidth = colour === HALO ? 4 : 1.8;
    ctx.beginPath();
    ctx.moveTo(fx - r, fy);
    ctx.lineTo(fx + r, fy);
    ctx.moveTo(fx, fy - r);
    ctx.lineTo(fx, fy + r);
    ctx.rect(fx - r * 0.6, fy - r * 0.6, r * 1.2, r * 1.2);
    ctx.stroke();
  }
  if (!done) badge(ctx, String(group.n), x, y);
}

/** In which order the holes of the groups shown in full are shot: a number beside each. */
function drawOrder(pen, model, groups, at, unit) {
  for (const group of groups) {
    group.holes.forEach((id, i) => {
      const hole = model.holes.get(id);
      if (!hole) return;
      const [x, y] = pen.at(...at(hole.x, hole.y));
      const r = Math.max(hole.r * unit * pen.scale, 4);
      if (r < 6) return;
      step(pen.ctx, String(i + 1), x - r * 0.78, y - r * 0.78);
    });
  }
}

// ------------------------------------------------------------------------------------------------ holes

/** Draw many holes: shapes of one look go into one path, so that thousands take milliseconds. */
export function drawHoles(pen, holes, look, place, unit) {
  const { ctx, scale } = pen;
  const bins = new Map();
  const bin = (key, style) => {
    if (!bins.has(key)) bins.set(key, { ...style, path: new Path2D() });
    return bins.get(key).path;
  };
  for (const hole of holes) {
    const [x, y] = pen.at(...place(hole));
    const r = Math.max(hole.r * unit * scale, 1);
    const kind = kindOf(hole);
    const measured = look.colour !== "score" ? colourOf(hole, look) : null;
    const colour = measured || (kind === "good" ? GOOD : kind === "other" ? BAD : kind === "out" ? LEFT_OUT : scoreColour(hole.score));
    if (r < 2.2) {
      bin(`dot ${colour}`, { fill: colour }).rect(x - r, y - r, 2 * r, 2 * r);
      continue;
    }
    const line = kind === "planned" || kind === "busy" ? 2.4 : 1.5;
    if (r > 5 && kind !== "open" && kind !== "out") arc(bin("halo", { stroke: HALO, line: line + 2.4 }), x, y, r);
    const dashed = hole.inferred && kind !== "good" && kind !== "other";
    arc(bin(`ring ${colour} ${line} ${dashed}`, { stroke: colour, line, dash: dashed ? [r * 0.5, r * 0.35] : null }), x, y, r);
    if (kind === "good" || kind === "other" || kind === "exposed") {
      arc(bin(`fill ${colour} ${kind}`, { fill: colour, alpha: kind === "exposed" ? 0.25 : 0.38 }), x, y, r * 0.92);
    }
    if (kind === "busy") arc(bin("busy", { stroke: WHITE, line: 1.6 }), x, y, r + 3);
    if (kind === "out") strike(bin("out", { stroke: LEFT_OUT, line: 1.6 }), x, y, r * 0.6, true);
    if (kind === "other") strike(bin("other", { stroke: BAD, line: 1.6 }), x, y, r * 0.6, false);
  }
  for (const { path, fill, stroke, line, dash, alpha } of bins.values()) {
    ctx.globalAlpha = alpha ?? 1;
    if (fill) {
      ctx.fillStyle = fill;
      ctx.fill(path);
    }
    if (stroke) {
      ctx.setLineDash(dash || []);
      ctx.lineWidth = line;
      ctx.strokeStyle = stroke;
      ctx.stroke(path);
    }
  }
  ctx.globalAlpha = 1;
  ctx.setLineDash([]);
}

function arc(path, x, y, r) {
  path.moveTo(x + r, y);
  path.arc(x, y, r, 0, 2 * Math.PI);
}

function strike(path, x, y, r, both) {
  path.moveTo(x - r, y + r);
  path.lineTo(x + r, y - r);
  if (!both) return;
  path.moveTo(x - r, y - r);
  path.lineTo(x + r, y + r);
}

// ------------------------------------------------------------------------------------------------ micrograph

const GROUP_COLOURS = ["#56b4e9", "#e69f00", GOOD, "#f0e442", "#d55e00"]; // as on the proofreading page

/** What detectors marked, by group: [{name, colour, marks}], 6 nm before 12 nm. */
export function markGroups(marks) {
  const groups = new Map();
  for (const mark of marks || []) {
    if (!groups.has(mark.group)) groups.set(mark.group, []);
    groups.get(mark.group).push(mark);
  }
  const order = new Intl.Collator("en", { numeric: true });
  const names = [...groups.keys()].sort(order.compare);
  return names.map((name, i) => ({ name, colour: GROUP_COLOURS[i % GROUP_COLOURS.length], marks: groups.get(name) }));
}

export function shotScene(frame, marks) {
  if (!frame) return null;
  const place = new Place(frame);
  const groups = markGroups(marks);
  return {
    bounds: [0, 0, frame.w, frame.h],
    umPerUnit: frame.px_a * 1e-4,
    images: [frameImage(frame, [1, 0, 0, 1, 0, 0], 1024, true)],
    back: (u, v) => place.toStage(u, v),
    draw: (pen) => {
      for (const group of groups) {
        for (const mark of group.marks) {
          const r = Math.max(((mark.diameter_nm || 10) / 2) * 10 / frame.px_a, 3);
          ring(pen.ctx, ...pen.at(mark.x + 0.5, mark.y + 0.5), r * pen.scale, group.colour, 1.5);
        }
      }
      if (groups.length) legend(pen.ctx, groups);
    },
  };
}

/** Which colour is which group, and how many there are. */
function legend(ctx, groups) {
  ctx.font = "11px system-ui, sans-serif";
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  const words = groups.map((group) => `${group.marks.length} × ${group.name}`);
  const width = Math.max(...words.map((text) => ctx.measureText(text).width)) + 30;
  ctx.fillStyle = "rgb(12 14 16 / .7)";
  ctx.fillRect(6, 6, width, 17 * groups.length + 5);
  groups.forEach((group, i) => {
    const y = 17 + 17 * i;
    ring(ctx, 16, y, 4.5, group.colour, 1.8);
    ctx.fillStyle = WHITE;
    ctx.fillText(words[i], 27, y);
  });
}

// ------------------------------------------------------------------------------------------------ strokes

const min = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
const max = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);

function visible(pen, x, y, margin) {
  const [u, v] = pen.at(x, y);
  return u > -margin && v > -margin && u < pen.width + margin && v < pen.height + margin;
}

function polygon(pen, points) {
  const path = new Path2D();
  points.forEach(([x, y], i) => path[i ? "lineTo" : "moveTo"](...pen.at(x, y)));
  path.closePath();
  return path;
}

function circle(pen, [x, y], r) {
  const path = new Path2D();
  arc(path, ...pen.at(x, y), r * pen.scale);
  return path;
}

function outline(pen, points, line, dash) {
  pen.ctx.setLineDash(dash);
  pen.ctx.lineWidth = line;
  pen.ctx.strokeStyle = WHITE;
  pen.ctx.stroke(polygon(pen, points));
  pen.ctx.setLineDash([]);
}

function tint(ctx, path, colour, alpha) {
  ctx.globalAlpha = alpha;
  ctx.fillStyle = colour;
  ctx.fill(path);
  ctx.globalAlpha = 1;
}

function ring(ctx, x, y, r, colour, line, dash = []) {
  ctx.setLineDash(dash);
  for (const [paint, width] of [[HALO, line + 2], [colour, line]]) {
    ctx.strokeStyle = paint;
    ctx.lineWidth = width;
    ctx.beginPath();
    ctx.arc(x, y, Math.max(r, 1), 0, 2 * Math.PI);
    ctx.stroke();
  }
  ctx.setLineDash([]);
}

function cross(pen, x, y, half, colour) {
  const path = new Path2D();
  strike(path, ...pen.at(x, y), half * pen.scale, true);
  pen.ctx.strokeStyle = colour;
  pen.ctx.lineWidth = 1.4;
  pen.ctx.stroke(path);
}

function tag(pen, words, x, y, dy) {
  const { ctx } = pen;
  const [u, v] = pen.at(x, y);
  ctx.font = "600 11px system-ui, sans-serif";
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  ctx.lineWidth = 3;
  ctx.strokeStyle = "rgb(12 14 16 / .9)";
  ctx.strokeText(words, u, v + dy);
  ctx.fillStyle = WHITE;
  ctx.fillText(words, u, v + dy);
}

function badge(ctx, words, x, y) {
  ctx.font = "600 10px system-ui, sans-serif";
  const width = Math.max(ctx.measureText(words).width + 6, 14);
  ctx.fillStyle = "rgb(12 14 16 / .9)";
  ctx.strokeStyle = "#8db9f5";
  ctx.lineWidth = 1;
  ctx.beginPath();
  ctx.roundRect(x - width / 2, y - 7, width, 14, 4);
  ctx.fill();
  ctx.stroke();
  ctx.fillStyle = WHITE;
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  ctx.fillText(words, x, y + 0.5);
}

/** A small number on a dark disc. */
function step(ctx, words, x, y) {
  ctx.font = "600 9.5px system-ui, sans-serif";
  ctx.fillStyle = "rgb(12 14 16 / .82)";
  ctx.beginPath();
  ctx.arc(x, y, words.length > 1 ? 8 : 6.5, 0, 2 * Math.PI);
  ctx.fill();
  ctx.fillStyle = "#8db9f5";
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  ctx.fillText(words, x, y + 0.5);
}

/** What another threshold would change: more is dashed teal, less is orange and struck. */
function hints(pen, preview, find, shape) {
  if (!preview) return;
  for (const [ids, colour, dash] of [[preview.more, GOOD, [6, 3]], [preview.less, BAD, [2, 3]]]) {
    pen.ctx.strokeStyle = colour;
    pen.ctx.lineWidth = 3.5;
    pen.ctx.setLineDash(dash);
    for (const id of ids) {
      const area = find(id);
      if (area) pen.ctx.stroke(shape(area));
    }
  }
  pen.ctx.setLineDash([]);
}
