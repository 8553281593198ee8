// A picture in tiles on a canvas: moved, zoomed, with layers over each other. What lies on top is drawn by the page.
const CHANNEL = 324;  // of the panel that floats over the picture, with its margins
const MOST_TILES = 500;

export class Tiles {
  // image: {rows, columns, levels, tile}; layers: () => [{name, smooth, alpha, url(level, row, column)}], lowest first
  constructor(canvas, { layers, over }) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
    this.layers = layers;
    this.over = over;
    this.image = null;
    this.view = { x: 0, y: 0, scale: 1 };  // pixel at the left top corner of the window, screen pixels per pixel
    this.kept = new Map();
    this.asked = false;
    this.whole = true;  // whether everything that was wanted was there at the last drawing
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  show(image, { keep = false } = {}) {
    this.image = image;
    if (keep) this.draw(); else this.fit();
  }

  toScreen(x, y) { return [(x + 0.5 - this.view.x) * this.view.scale, (y + 0.5 - this.view.y) * this.view.scale]; }
  toImage(sx, sy) { return [sx / this.view.scale + this.view.x - 0.5, sy / this.view.scale + this.view.y - 0.5]; }

  draw() { if (!this.asked) { this.asked = true; requestAnimationFrame(() => this.paint()); } }

  paint() {
    this.asked = false;
    const { canvas, pen, image, view } = this;
    if (!image) return;
    const ratio = window.devicePixelRatio || 1, wide = canvas.clientWidth, high = canvas.clientHeight;
    if (canvas.width !== Math.round(wide * ratio) || canvas.height !== Math.round(high * ratio)) {
      canvas.width = Math.round(wide * ratio);
      canvas.height = Math.round(high * ratio);
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, wide, high);
    const level = Math.min(image.levels - 1, Math.max(0, Math.floor(Math.log2(1 / view.scale))));
    this.whole = true;
    for (const layer of this.layers()) {
      pen.imageSmoothingEnabled = layer.smooth && view.scale < 3;
      pen.globalAlpha = layer.alpha ?? 1;
      // coarse first, so that nothing is black; not under a veil, which would then lie there twice
      if (layer.smooth && level < image.levels - 1) this.level(layer, image.levels - 1, wide, high);
      this.level(layer, level, wide, high);
    }
    pen.globalAlpha = 1;
    this.over(pen, wide, high);
    canvas.dataset.view = JSON.stringify([view.x, view.y, view.scale]);
  }

  level(layer, level, wide, high) {
    const { image, view, pen } = this;
    const side = image.tile * 2 ** level;
    const last = (n) => Math.ceil(n / side) - 1;
    const rows = [Math.max(0, Math.floor(view.y / side)), Math.min(last(image.rows), Math.floor((view.y + high / view.scale) / side))];
    const columns = [Math.max(0, Math.floor(view.x / side)), Math.min(last(image.columns), Math.floor((view.x + wide / view.scale) / side))];
    for (let row = rows[0]; row <= rows[1]; row++) {
      for (let column = columns[0]; column <= columns[1]; column++) {
        const tile = this.tile(layer, level, row, column);
        if (!tile) continue;
        const bit = 2 ** level * view.scale;
        pen.drawImage(tile, (column * side - view.x) * view.scale, (row * side - view.y) * view.scale,
          tile.naturalWidth * bit, tile.naturalHeight * bit);
      }
    }
  }

  // the tile as it is wanted; while that is on its way, the one of before
  tile(layer, level, row, column) {
    const key = `${layer.name}/${level}/${row}/${column}`, url = layer.url(level, row, column);
    let entry = this.kept.get(key);
    if (!entry) {
      entry = { url: "", coming: "", picture: null };
      this.kept.set(key, entry);
      if (this.kept.size > MOST_TILES) this.kept.delete(this.kept.keys().next().value);
    }
    if (entry.url !== url) {
      this.whole = false;
      if (entry.coming !== url) {
        entry.coming = url;
        const picture = new Image();
        const done = (ok) => {
          if (entry.coming !== url) return;  // another one is wanted by now
          entry.url = url;
          entry.picture = ok ? picture : null;
          this.draw();
        };
        picture.onload = () => done(true);
        picture.onerror = () => done(false);
        picture.src = url;
      }
    }
    return entry.picture;
  }

  zoom(factor, sx = this.canvas.clientWidth / 2, sy = this.canvas.clientHeight / 2) {
    const scale = Math.min(32, Math.max(0.5 * this.fitting(), this.view.scale * factor));
    this.view.x += sx / this.view.scale - sx / scale;
    this.view.y += sy / this.view.scale - sy / scale;
    this.view.scale = scale;
    this.draw();
  }
  free() { return this.canvas.clientWidth > 900 ? this.canvas.clientWidth - CHANNEL : this.canvas.clientWidth; }
  fitting() { return Math.min(this.free() / this.image.columns, this.canvas.clientHeight / this.image.rows, 32); }
  centre(x, y, scale) {
    this.view = {
      scale, x: x + 0.5 - this.canvas.clientWidth / 2 / scale, y: y + 0.5 - this.canvas.clientHeight / 2 / scale,
    };
    this.draw();
  }
  fit() {
    const scale = this.fitting(), aside = (this.canvas.clientWidth - this.free()) / 2 / scale;
    this.centre((this.image.columns - 1) / 2 + aside, (this.image.rows - 1) / 2, scale);
  }
  move(dx, dy) { this.view.x += dx / this.view.scale; this.view.y += dy / this.view.scale; this.draw(); }
}

export function levelsOf(rows, columns, side) {
  return Math.max(1, Math.ceil(Math.log2(Math.max(rows, columns) / side)) + 1);
}
