// Colours of scores and states: the same as in the report; they differ in lightness and are told apart with every
// common colour blindness. Nothing is said by colour alone: shapes and dashes say it, too.

const STOPS = [
  [0.0, [92, 116, 255]],
  [0.35, [190, 84, 205]],
  [0.65, [243, 112, 96]],
  [1.0, [255, 214, 51]],
];
export const GOOD = "#5ec8c4";
export const BAD = "#f0a35e";
export const LEFT_OUT = "#9aa5b0";
export const WHITE = "#f4f6f8";
export const HALO = "rgb(12 14 16 / 0.85)";
export const STEPS = 16;

const SCALE = Array.from({ length: STEPS + 1 }, (_, i) => mix(i / STEPS));

function mix(score) {
  const at = STOPS.findIndex(([place]) => place >= score);
  if (at <= 0) return css(STOPS[0][1]);
  const [low, from] = STOPS[at - 1];
  const [high, to] = STOPS[at];
  const part = (score - low) / (high - low);
  return css(from.map((value, i) => Math.round(value + part * (to[i] - value))));
}

function css([r, g, b]) {
  return `rgb(${r} ${g} ${b})`;
}

/** Colour of a score from 0 to 1, in few steps so that shapes of one colour can be drawn together. */
export function scoreColour(score) {
  const value = Number.isFinite(score) ? Math.min(Math.max(score, 0), 1) : 0;
  return SCALE[Math.round(value * STEPS)];
}

/** Colour of a hole or square by what was asked for; null where it was not measured. */
export function colourOf(area, { colour, expects }) {
  switch (colour) {
    case "expected": return expects[area.id] == null ? null : scoreColour(expects[area.id]);
    case "quality": return area.quality == null ? null : scoreColour(area.quality);
    case "ctf": return area.ctf == null ? null : scoreColour((9 - area.ctf) / 6); // 3 Å best, 9 Å worst
    case "ice": return area.ice == null ? null : scoreColour(1 - area.ice / 120); // thin is bright
    default: return scoreColour(area.score);
  }
}
