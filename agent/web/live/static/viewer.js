// A picture to look around in: two canvases, one with images (brightness and contrast are its CSS filter), one with
// marks. Coordinates of the world are whatever a scene says: stage micrometres for the atlas, pixels for a frame.

const MOST_IMAGES = 250;
const TILE_PX = 512;
const cache = new Map(); // url -> {image, ok}

/** An image that is on its way or here; `ready` is called once when it came. */
function picture(url, ready) {
  let entry = cache.get(url);
  if (entry) {
    cache.delete(url);
    cache.set(url, entry);
    if (!entry.ok) entry.waiting.add(ready);
    return entry;
  }
  entry = { image: new Image(), ok: false, waiting: new Set([ready]) };
  entry.image.onload = () => {
    entry.ok = true;
    entry.waiting.forEach((call) => call());
    entry.waiting.clear();
  };
  entry.image.onerror = () => cache.delete(url);
  entry.image.src = url;
  cache.set(url, entry);
  if (cache.size > MOST_IMAGES) cache.delete(cache.keys().next().value);
  return entry;
}

export class Viewer {
  /**
   * @param {HTMLElement} root
   * @param {string} label what is shown, for those who cannot see it
   * @param {{click?: Function, drag?: Function, box?: Function, readout?: Function}} on
   */
  constructor(root, label, on = {}) {
    this.root = root;
    this.on = on;
    this.scene = null; // {bounds: [x0, y0, x1, y1], umPerUnit, images: [], draw(pen)}
    this.view = { x: 0, y: 0, scale: 1 };
    this.touched = false; // moved by hand: not fitted again by itself
    this.pics = element("canvas", root, "pics");
    this.marks = element("canvas", root, "marks");
    this.marks.tabIndex = 0;
    this.marks.setAttribute("role", "application");
    this.marks.setAttribute("aria-label", label);
    this.note = element("p", root, "note");
    this.readout = element("div", root, "readout num");
    this.readout.setAttribute("aria-hidden", "true");
    this.light = this.lightControls();
    this.pointers = new Map();
    this.paint = () => this.redraw();
    this.listen();
    new ResizeObserver(() => this.resize()).observe(root);
  }

  show(scene, { keep = false } = {}) {
    const first = !this.scene;
    this.scene = scene;
    this.note.textContent = scene?.note || "";
    if (scene && (first || (!keep && !this.touched))) this.fit();
    this.redraw();
  }

  fit() {
    this.touched = false;
    if (!this.scene || !this.width) return;
    const [x0, y0, x1, y1] = this.scene.bounds;
    const scale = Math.min(this.width / Math.max(x1 - x0, 1e-6), this.height / Math.max(y1 - y0, 1e-6)) * 0.98;
    this.view = { x: (x0 + x1) / 2, y: (y0 + y1) / 2, scale };
    this.redraw();
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    this.width = this.root.clientWidth;
    this.height = this.root.clientHeight;
    for (const canvas of [this.pics, this.marks]) {
      canvas.width = Math.round(this.width * ratio);
      canvas.height = Math.round(this.height * ratio);
    }
    if (!this.touched) this.fit();
    this.redraw();
  }

  redraw() {
    if (this.due) return;
    this.due = requestAnimationFrame(() => {
      this.due = 0;
      this.drawNow();
    });
  }

  drawNow() {
    const begun = performance.now();
    const ratio = window.devicePixelRatio || 1;
    const { x, y, scale } = this.view;
    const world = [scale * ratio, 0, 0, scale * ratio, (this.width / 2 - x * scale) * ratio, (this.height / 2 - y * scale) * ratio];
    const pics = this.pics.getContext("2d");
    pics.setTransform(1, 0, 0, 1, 0, 0);
    pics.clearRect(0, 0, this.pics.width, this.pics.height);
    const marks = this.marks.getContext("2d");
    marks.setTransform(1, 0, 0, 1, 0, 0);
    marks.clearRect(0, 0, this.marks.width, this.marks.height);
    if (!this.scene || !this.width) return;
    pics.imageSmoothingEnabled = true;
    pics.imageSmoothingQuality = "medium";
    for (const item of this.scene.images) this.drawImage(pics, world, ratio, item);
    marks.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.scene.draw?.({ ctx: marks, at: (u, v) => this.toScreen(u, v), scale, width: this.width, height: this.height });
    this.scaleBar(marks);
    this.drawn_ms = performance.now() - begun;
  }

  /** An image {w, h, m: [a, b, c, d, e, f] from its corner-based pixels to the world, tiny, small, tile(n, i, j)}. */
  drawImage(ctx, world, ratio, item) {
    const [a, b, c, d, e, f] = item.m;
    ctx.setTransform(...world);
    ctx.transform(a, b, c, d, e, f);
    const small = picture(item.small, this.paint);
    const first = small.ok ? small : item.tiny && picture(item.tiny, this.paint); // on a slow link something at once
    if (first?.ok) ctx.drawImage(first.image, 0, 0, item.w, item.h);
    if (!item.tile) return;
    const perPixel = Math.hypot(a, b) * this.view.scale * ratio; // screen pixels for one of the image
    if (!small.ok || perPixel * Math.max(item.w, item.h) < 1.3 * Math.max(small.image.width, small.image.height)) return;
    const halvings = Math.max(0, Math.floor(-Math.log2(Math.min(perPixel, 1)) + 0.3));
    const side = TILE_PX * 2 ** halvings;
    const inverse = ctx.getTransform().inverse();
    const corners = [[0, 0], [this.pics.width, 0], [0, this.pics.height], [this.pics.width, this.pics.height]]
      .map(([u, v]) => inverse.transformPoint(new DOMPoint(u, v)));
    const low = (key) => Math.max(0, Math.floor(Math.min(...corners.map((p) => p[key])) / side));
    const high = (key, size) => Math.min(Math.ceil(size / side) - 1, Math.floor(Math.max(...corners.map((p) => p[key])) / side));
    for (let j = low("y"); j <= high("y", item.h); j++) {
      for (let i = low("x"); i <= high("x", item.w); i++) {
        const tile = picture(item.tile(halvings, i, j), this.paint);
        if (tile.ok) ctx.drawImage(tile.image, i * side, j * side, tile.image.width * 2 ** halvings, tile.image.height * 2 ** halvings);
      }
    }
  }

  scaleBar(ctx) {
    const umPerPx = (this.scene.umPerUnit || 0) / this.view.scale;
    if (!(umPerPx > 0) || this.width < 80) return;
    const longest = 0.28 * this.width * umPerPx;
    const power = 10 ** Math.floor(Math.log10(longest));
    const length = Math.max(...[1, 2, 5].map((step) => step * power).filter((step) => step <= longest * 1.000001));
    const px = length / umPerPx;
    const words = length >= 1 ? `${length} µm` : `${Math.round(length * 1000)} nm`;
    const [x, y] = [10, this.height - 12];
    ctx.fillStyle = "rgb(12 14 16 / .7)";
    ctx.fillRect(x - 5, y - 18, Math.max(px, ctx.measureText(words).width) + 10, 25);
    ctx.fillStyle = "#f4f6f8";
    ctx.fillRect(x, y, px, 3);
    ctx.font = "11px system-ui, sans-serif";
    ctx.textAlign = "left";
    ctx.textBaseline = "alphabetic";
    ctx.fillText(words, x, y - 5);
  }

  toScreen(u, v) {
    return [(u - this.view.x) * this.view.scale + this.width / 2, (v - this.view.y) * this.view.scale + this.height / 2];
  }

  toWorld(px, py) {
    return [(px - this.width / 2) / this.view.scale + this.view.x, (py - this.height / 2) / this.view.scale + this.view.y];
  }

  zoom(factor, px = this.width / 2, py = this.height / 2) {
    const [u, v] = this.toWorld(px, py);
    const scale = Math.min(Math.max(this.view.scale * factor, this.least()), this.least() * 4000);
    this.view = { scale, x: u - (px - this.width / 2) / scale, y: v - (py - this.height / 2) / scale };
    this.touched = true;
    this.redraw();
  }

  least() {
    const [x0, y0, x1, y1] = this.scene?.bounds || [0, 0, 1, 1];
    return 0.5 * Math.min(this.width / Math.max(x1 - x0, 1e-6), this.height / Math.max(y1 - y0, 1e-6));
  }

  pan(dx, dy) {
    this.view.x -= dx / this.view.scale;
    this.view.y -= dy / this.view.scale;
    this.touched = true;
    this.redraw();
  }

  listen() {
    const area = this.marks;
    area.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0016)), event.offsetX, event.offsetY);
    }, { passive: false });
    area.addEventListener("pointerdown", (event) => this.down(event));
    area.addEventListener("pointermove", (event) => this.move(event));
    area.addEventListener("pointerup", (event) => this.up(event));
    area.addEventListener("pointercancel", (event) => this.pointers.delete(event.pointerId));
    area.addEventListener("pointerleave", () => { this.readout.textContent = ""; });
    area.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    const step = 60;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (moves[event.key]) this.pan(...moves[event.key]);
    else if (event.key === "+" || event.key === "=") this.zoom(1.4);
    else if (event.key === "-") this.zoom(1 / 1.4);
    else if (event.key === "0") this.fit();
    else return;
    event.preventDefault();
  }

  down(event) {
    this.marks.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    const grip = this.pointers.size === 1 ? this.on.grip?.(...this.toWorld(event.offsetX, event.offsetY), this) : null;
    this.gesture = { x: event.offsetX, y: event.offsetY, far: false, box: event.shiftKey, grip, pinch: this.spread() };
  }

  spread() {
    const [p, q] = [...this.pointers.values()];
    return q ? Math.hypot(p[0] - q[0], p[1] - q[1]) : 0;
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    const [u, v] = this.toWorld(event.offsetX, event.offsetY);
    this.readout.textContent = this.scene ? this.on.readout?.(u, v) || "" : "";
    if (!before || !this.gesture) return;
    this.pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    const dx = event.offsetX - before[0];
    const dy = event.offsetY - before[1];
    const g = this.gesture;
    if (Math.hypot(event.offsetX - g.x, event.offsetY - g.y) > 4) g.far = true;
    if (this.pointers.size === 2) {
      const spread = this.spread();
      if (g.pinch > 0) this.zoom(spread / g.pinch, event.offsetX, event.offsetY);
      g.pinch = spread;
      g.far = true;
    } else if (g.far && g.grip) {
      this.on.dragging?.(g.grip, u, v);
      this.redraw();
    } else if (g.far && g.box) {
      this.drawNow();
      const ctx = this.marks.getContext("2d");
      ctx.strokeStyle = "#f4f6f8";
      ctx.setLineDash([4, 3]);
      ctx.strokeRect(g.x, g.y, event.offsetX - g.x, event.offsetY - g.y);
      ctx.setLineDash([]);
    } else if (g.far) {
      this.pan(dx, dy);
    }
  }

  up(event) {
    const g = this.gesture;
    const alone = this.pointers.size === 1;
    this.pointers.delete(event.pointerId);
    if (!g || !alone || !this.scene) return;
    this.gesture = null;
    const [u, v] = this.toWorld(event.offsetX, event.offsetY);
    if (g.far && g.grip) this.on.dropped?.(g.grip, u, v);
    else if (g.far && g.box) this.on.box?.(...this.toWorld(g.x, g.y), u, v);
    else if (!g.far) this.on.click?.(u, v, event.shiftKey || event.ctrlKey || event.metaKey, 6 / this.view.scale);
    this.redraw();
  }

  lightControls() {
    const box = element("details", this.root, "light");
    const head = element("summary", box);
    head.textContent = "◐";
    head.title = "Brightness and contrast";
    head.setAttribute("aria-label", "Brightness and contrast");
    const values = { brightness: 1, contrast: 1 };
    const apply = () => { this.pics.style.filter = `brightness(${values.brightness}) contrast(${values.contrast})`; };
    for (const name of Object.keys(values)) {
      const label = element("label", box);
      label.append(name);
      const input = element("input", label);
      Object.assign(input, { type: "range", min: "0.3", max: "3", step: "0.05", value: "1" });
      input.addEventListener("input", () => { values[name] = Number(input.value); apply(); });
      box.addEventListener("dblclick", () => { input.value = "1"; values[name] = 1; apply(); });
    }
    return values;
  }
}

export function element(tag, parent, className = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  parent?.append(made);
  return made;
}
