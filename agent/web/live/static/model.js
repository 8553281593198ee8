// The page's copy of what the daemon knows. Only the daemon changes it: a snapshot first, then news.

const MOST_LINES = 400;
const MOST_POINTS = 20000;

export class Model {
  constructor() {
    this.seq = 0;
    this.summary = null;
    this.lines = [];
    this.points = [];
    this.grid = ""; // id of the grid that is shown
    this.clearGrid();
  }

  clearGrid() {
    this.squares = new Map();
    this.holes = new Map(); // id -> hole
    this.inside = new Map(); // id of a square -> Set of ids of its holes
    this.frames = new Map();
    this.atlas = null;
    this.changed = 0; // counts up, so that drawings know when they are old
  }

  loadSession({ summary, lines, points }) {
    this.summary = summary;
    this.lines = lines;
    this.points = points;
  }

  loadGrid(body) {
    this.clearGrid();
    this.grid = body.id;
    this.atlas = body.atlas;
    body.frames.forEach((frame) => this.frames.set(frame.id, frame));
    body.squares.forEach((square) => this.squares.set(square.id, square));
    body.holes.forEach((hole) => this.putHole(hole));
    this.seq = body.seq;
    this.changed++;
  }

  putHole(hole) {
    const square = squareOf(hole.id);
    if (!this.inside.has(square)) this.inside.set(square, new Set());
    this.inside.get(square).add(hole.id);
    this.holes.set(hole.id, hole);
  }

  /** Take news in; true where the grid that is shown has changed. */
  take(news) {
    if (news.seq < this.seq) return false;
    const mine = (id) => gridOf(id) === this.grid;
    const squares = news.squares.filter((square) => mine(square.id));
    const holes = news.holes.filter((hole) => mine(hole.id));
    const frames = news.frames.filter((frame) => frame.grid === this.grid && frame.level !== "high");
    const gone = news.gone.filter(mine);
    squares.forEach((square) => this.squares.set(square.id, square));
    holes.forEach((hole) => this.putHole(hole));
    frames.forEach((frame) => this.frames.set(frame.id, frame));
    for (const id of gone) {
      this.holes.delete(id);
      this.inside.get(squareOf(id))?.delete(id);
    }
    this.summary = news.summary;
    this.seq = news.seq;
    const last = this.lines.length ? this.lines[this.lines.length - 1].seq : 0;
    this.lines.push(...news.lines.filter((line) => line.seq > last));
    if (this.lines.length > MOST_LINES) this.lines.splice(0, this.lines.length - MOST_LINES);
    const recent = new Set(this.points.slice(-200).map((point) => `${point.id} ${point.utc}`));
    this.points.push(...news.points.filter((point) => !recent.has(`${point.id} ${point.utc}`)));
    if (this.points.length > MOST_POINTS) this.points.splice(0, this.points.length - MOST_POINTS);
    const changed = squares.length + holes.length + frames.length + gone.length > 0;
    if (changed) this.changed++;
    return changed;
  }

  holesOf(square) {
    return [...(this.inside.get(square) || [])].map((id) => this.holes.get(id));
  }

  area(id) {
    return this.holes.get(id) || this.squares.get(id) || null;
  }
}

export const isHole = (id) => /-S\d+-H\d+$/.test(id);
export const squareOf = (id) => id.replace(/-H\d+$/, "");
export const gridOf = (id) => squareOf(id).replace(/-S\d+$/, "");
export const short = (id) => id.split("-").slice(1).join("-") || id;

/** How a hole is drawn: good, other, exposed, out, busy, planned or open. */
export function kindOf(hole) {
  if (hole.verdict) return hole.verdict === "good" ? "good" : "other";
  if (hole.state === "busy") return "busy";
  if (hole.frame || hole.dose > 0) return "exposed";
  if (hole.state === "skipped" || hole.state === "rejected" || hole.word === "rejected") return "out";
  return hole.group == null ? "open" : "planned";
}

/** Pixels of a frame to the stage and back, as in the daemon's `geometry`. */
export class Place {
  constructor(frame) {
    this.frame = frame;
    const [a, b, c, d] = frame.m;
    this.det = a * d - b * c;
    this.umPerPx = Math.sqrt(Math.abs(this.det));
  }

  /** Corner-based picture coordinates (the corner of the first pixel is 0, 0) of a stage position. */
  toPicture(x, y) {
    const [a, b, c, d] = this.frame.m;
    const dx = x - this.frame.c[0];
    const dy = y - this.frame.c[1];
    return [(d * dx - b * dy) / this.det + this.frame.w / 2, (a * dy - c * dx) / this.det + this.frame.h / 2];
  }

  toStage(u, v) {
    const [a, b, c, d] = this.frame.m;
    const dx = u - this.frame.w / 2;
    const dy = v - this.frame.h / 2;
    return [this.frame.c[0] + a * dx + b * dy, this.frame.c[1] + c * dx + d * dy];
  }
}
