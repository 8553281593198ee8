"""Plots as SVG text: curves over time, and figures with their intervals; readable in print, with any colour sight."""

from collections.abc import Sequence
from html import escape

from agent.evaluation.summary import Row

WIDTH, HEIGHT = 640, 320
LEFT, BOTTOM, TOP, RIGHT = 56, 40, 14, 130
STROKES = {
    "session": 'stroke="#2159a8" stroke-width="2.5"',
    "rank-only": 'stroke="#b3500c" stroke-width="2"',
    "snowball": 'stroke="#8a5bc0" stroke-width="2" stroke-dasharray="8 3 2 3"',
    "random": 'stroke="#7a828a" stroke-width="2" stroke-dasharray="2 3"',
    "oracle": 'stroke="#0b6e6e" stroke-width="2" stroke-dasharray="6 3"',
}
VARIANTS = ("#2159a8", "#b3500c")


def curve_plot(table: dict[str, list[float]]) -> str:
    """Share of the good micrographs against the share of the time."""
    if not table:
        return ""
    xs = table["share of the time"]
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(x: float, y: float) -> str:
        return f"{LEFT + wide * x:.1f},{TOP + high * (1 - y):.1f}"

    parts = [_frame(wide, high, "share of the session's time", "share of the good micrographs")]
    ends: list[tuple[float, str]] = []
    for name in (key for key in table if key != "share of the time"):
        points = " ".join(at(x, y) for x, y in zip(xs, table[name], strict=True))
        parts.append(f'<polyline points="{points}" fill="none" {STROKES[name]}/>')
        ends.append((sum(table[name]) / len(xs), name))
    for number, (_, name) in enumerate(sorted(ends, reverse=True)):
        y = TOP + 14 + 20 * number
        x = WIDTH - RIGHT + 12
        parts.append(f'<line x1="{x}" y1="{y}" x2="{x + 26}" y2="{y}" {STROKES[name]}/>')
        parts.append(f'<text x="{x + 32}" y="{y + 4}">{escape(name)}</text>')
    return _svg(parts, HEIGHT)


def _frame(wide: float, high: float, below: str, beside: str) -> str:
    parts = [f'<rect x="{LEFT}" y="{TOP}" width="{wide}" height="{high}" fill="none" stroke="#b8bec5"/>']
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = LEFT + wide * tick, TOP + high * (1 - tick)
        parts.append(f'<line x1="{x:.1f}" y1="{TOP + high}" x2="{x:.1f}" y2="{TOP + high + 4}" stroke="#b8bec5"/>')
        parts.append(f'<text x="{x:.1f}" y="{TOP + high + 17}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    parts.append(f'<text x="{LEFT + wide / 2}" y="{TOP + high + 34}" text-anchor="middle">{escape(below)}</text>')
    middle = TOP + high / 2
    parts.append(f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(beside)}</text>')
    return "".join(parts)


def figure_plot(rows: Sequence[Row], variants: Sequence[str]) -> str:
    """Metrics between 0 and 1: a dot per variant with its 95 % interval."""
    shown = [row for row in rows if all(f is None or (0 <= f.mean <= 1) for f in row.figures)]
    shown = [
        row
        for row in shown
        if not any(word in row.metric for word in ("error", "seconds", "per_", "judged", "micrographs"))
    ]
    if not shown:
        return ""
    left, wide = 190, WIDTH - 190 - 30
    step = 14 * len(variants) + 12
    height = 30 + step * len(shown) + 24 * bool(len(variants) > 1)
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = left + wide * tick
        parts.append(f'<line x1="{x}" y1="8" x2="{x}" y2="{8 + step * len(shown)}" stroke="#dfe3e7"/>')
        parts.append(f'<text x="{x}" y="{24 + step * len(shown)}" text-anchor="middle">{tick:g}</text>')
    for number, row in enumerate(shown):
        top = 8 + step * number
        parts.append(f'<text x="{left - 10}" y="{top + step / 2 + 4}" text-anchor="end">{escape(row.metric)}</text>')
        for place, found in enumerate(row.figures):
            if found is None:
                continue
            y, colour = top + 13 + 14 * place, VARIANTS[place % 2]
            if found.low is not None and found.high is not None:
                a, b = (left + wide * min(max(v, 0.0), 1.0) for v in (found.low, found.high))
                parts.append(f'<line x1="{a:.1f}" y1="{y}" x2="{b:.1f}" y2="{y}" stroke="{colour}" stroke-width="2"/>')
            x = left + wide * found.mean
            mark = f'<circle cx="{x:.1f}" cy="{y}" r="4.5" fill="{colour}"/>'
            if place % 2:
                mark = f'<rect x="{x - 4:.1f}" y="{y - 4}" width="8" height="8" fill="{colour}"/>'
            parts.append(mark)
    if len(variants) > 1:
        for place, name in enumerate(variants[:2]):
            x, y = left + place * 220, height - 8
            parts.append(f'<rect x="{x}" y="{y - 9}" width="9" height="9" fill="{VARIANTS[place]}"/>')
            parts.append(f'<text x="{x + 14}" y="{y}">{escape(name[:32])}</text>')
    return _svg(parts, height)


def _svg(parts: Sequence[str], height: float) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" style="max-width:{WIDTH}px;width:100%;font:12px system-ui,'
        f'sans-serif;fill:currentColor">{"".join(parts)}</svg>'
    )
