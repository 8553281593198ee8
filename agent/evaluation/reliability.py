"""How far chances can be trusted, as a picture: what was said against what came, for squares that were not seen yet."""

from html import escape

from agent.evaluation.policies import Calibration

SIDE, LEFT, TOP, BELOW = 360, 62, 34, 96


def picture(trust: Calibration, title: str) -> str:
    """A reliability curve as the text of an SVG file: on the diagonal, chances are what they say they are.

    The area of a dot is the number of holes; the bars below show how often each tenth of probability was said.
    """
    wide, high = LEFT + SIDE + 24, TOP + SIDE + BELOW + 64
    most = max(number for _, _, number in trust.reliability)
    parts = [
        f'<rect width="{wide}" height="{high}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20" font-size="13">{escape(title)}</text>',
        f'<rect x="{LEFT}" y="{TOP}" width="{SIDE}" height="{SIDE}" fill="none" stroke="#b8bec5"/>',
        f'<line x1="{LEFT}" y1="{TOP + SIDE}" x2="{LEFT + SIDE}" y2="{TOP}" stroke="#7a828a" stroke-dasharray="5 4"/>',
    ]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = LEFT + SIDE * tick, TOP + SIDE * (1 - tick)
        parts.append(f'<text x="{x:.1f}" y="{TOP + SIDE + 16}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    points = [(LEFT + SIDE * said, TOP + SIDE * (1 - came), number) for said, came, number in trust.reliability]
    curve = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
    parts.append(f'<polyline points="{curve}" fill="none" stroke="#2159a8" stroke-width="1.5"/>')
    base = TOP + SIDE + BELOW
    for x, y, number in points:
        tall = 50 * number / most
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{2 + 9 * (number / most) ** 0.5:.1f}" fill="#2159a8"/>')
        parts.append(f'<rect x="{x - 7:.1f}" y="{base - tall:.1f}" width="14" height="{tall:.1f}" fill="#9db7d9"/>')
        parts.append(f'<text x="{x:.1f}" y="{base + 13}" text-anchor="middle" font-size="9">{number}</text>')
    middle = TOP + SIDE / 2
    parts.append(f'<text x="{LEFT + SIDE / 2}" y="{TOP + SIDE + 32}" text-anchor="middle">chance that was said</text>')
    parts.append(
        f'<text transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">share of good micrographs</text>'
    )
    words = (
        f"Brier score {trust.brier:.3f}; of the share that was good so far {trust.brier_so_far:.3f}",
        f"90 % intervals of a square's good holes held {trust.coverage:.0%} of {trust.squares} forecasts",
    )
    for number, line in enumerate(words):
        parts.append(f'<text x="16" y="{base + 34 + 17 * number}">{escape(line)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" viewBox="0 0 {wide} {high}"'
        f' font-family="system-ui,sans-serif" font-size="12" fill="#22272e">{"".join(parts)}</svg>\n'
    )
