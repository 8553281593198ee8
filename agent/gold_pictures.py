"""Gold on its image, and what its pattern measures, as pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.drawing import DARK, FONT, LARGEST_PX, WHITE, Colour, Picture, stretch
from models.gold.pairs import Pair
from models.gold.records import GoldFinding
from models.gold.sampling import Pixels
from models.gold.spatial import Pattern

# Told apart with every common colour blindness, and by lightness, too (Okabe & Ito 2008); smallest size first.
COLOURS: tuple[Colour, ...] = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (213, 94, 0))
SHIFT = 4


def overlay(image: Pixels, finding: GoldFinding, inside: NDArray[np.bool_] | None = None) -> Picture:
    """The image with a ring around each particle, coloured by size; large images are shown at most 4096 pixels wide.

    ``inside``, a mask of the image's shape, dims what lies outside the region.
    """
    rows, columns = image.shape[:2]
    bins = max(1, -(-max(rows, columns) // LARGEST_PX))
    small = binned(image, bins)
    picture = cv2.cvtColor(stretch(small), cv2.COLOR_GRAY2RGB)
    if inside is not None:
        shown = cv2.resize(inside.astype(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_AREA) > 0
        picture[~shown] = picture[~shown] // 2
    scale = 2 if max(picture.shape[:2]) * 2 <= 1600 else 1
    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    zoom = scale / bins
    colours = {group.name: COLOURS[n % len(COLOURS)] for n, group in enumerate(finding.groups)}
    width = max(1, round(max(picture.shape) / 1000))
    for p in finding.particles:
        x, y = (p.x + 0.5) * zoom - 0.5, (p.y + 0.5) * zoom - 0.5
        radius = max(p.diameter_nm / finding.pixel_nm / 2 * zoom + 2 * width, 3.0)
        at = (round(x * 2**SHIFT), round(y * 2**SHIFT))
        cv2.circle(picture, at, round(radius * 2**SHIFT), colours.get(p.group, WHITE), width, cv2.LINE_AA, SHIFT)
    return _legend(np.asarray(picture, np.uint8), finding, colours, zoom)


def binned(image: Pixels, bins: int) -> NDArray[np.float32]:
    """The mean of every ``bins`` x ``bins`` pixels, read in strips; edges that do not fill a bin are left out."""
    rows, columns = (n // bins for n in image.shape[:2])
    out = np.empty((rows, columns), np.float32)
    strip = max(1, (1 << 24) // max(1, columns * bins * bins))
    for top in range(0, rows, strip):
        bottom = min(rows, top + strip)
        part = np.asarray(image[top * bins : bottom * bins, 0 : columns * bins], np.float32)
        out[top:bottom] = part.reshape(bottom - top, bins, columns, bins).mean(axis=(1, 3))
    return out


def _legend(picture: Picture, finding: GoldFinding, colours: dict[str, Colour], zoom: float) -> Picture:
    size = max(0.5, min(1.2, picture.shape[1] / 1600))
    line = round(26 * size)
    entries = [(f"{g.name}: {g.count}", colours[g.name]) for g in finding.groups] or [("no gold found", WHITE)]
    bar = _round_length(picture.shape[1] * 0.2 / zoom * finding.pixel_nm)
    foot = np.full((round(line * 1.7), picture.shape[1], 3), DARK, np.uint8)
    x, y = line // 2, round(line * 1.1)
    for text, colour in entries:
        cv2.putText(foot, text, (x, y), FONT, size, colour, max(1, round(1.4 * size)), cv2.LINE_AA)
        x += cv2.getTextSize(text, FONT, size, 1)[0][0] + line
    length = round(bar / finding.pixel_nm * zoom)
    right = foot.shape[1] - line // 2
    if x + length + 5 * line < right:
        cv2.line(foot, (right - length, y - line // 4), (right, y - line // 4), WHITE, max(2, line // 6))
        text = f"{bar:g} nm"
        wide = cv2.getTextSize(text, FONT, size, 1)[0][0]
        cv2.putText(foot, text, (right - length - wide - line // 2, y), FONT, size, WHITE, 1, cv2.LINE_AA)
    return np.vstack([picture, foot])


def _round_length(nm: float) -> float:
    power = 10 ** np.floor(np.log10(max(nm, 1e-3)))
    return float(max(step * power for step in (1, 2, 5) if step * power <= nm * 1.0001))


def plots(patterns: Sequence[Pattern], pairs: Sequence[Pair], finding: GoldFinding, path: Path) -> None:
    """Write diameters, nearest neighbours, Ripley's L and, of each two sizes, the cross-type L as a PNG.

    Raises
    ------
    ImportError
        When matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14.5 if pairs else 11, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    sizes, near, ripley, *rest = figure.subplots(1, 4 if pairs else 3)
    named = [g.name for g in finding.groups]
    diameters = [[p.diameter_nm for p in finding.particles if p.group == name] for name in named]
    edges = np.arange(0, max([d for part in diameters for d in part], default=20) + 1.0, 0.5)
    for name, part in zip(named, diameters, strict=True):
        sizes.hist(part, bins=edges, color=_hex(named.index(name)), label=name, alpha=0.8)
    sizes.set(xlabel="diameter / nm", ylabel="particles")
    for pattern in patterns:
        if pattern.name not in named or pattern.count < 2:
            continue
        colour = _hex(named.index(pattern.name))
        _distribution(near, pattern, colour)
        ripley.fill_between(pattern.radii_nm, pattern.low, pattern.high, color=colour, alpha=0.2, linewidth=0)
        ripley.plot(pattern.radii_nm, pattern.l_minus_r, color=colour, label=pattern.name)
    near.set(xlabel="distance to the nearest neighbour / nm", ylabel="share of the particles")
    ripley.axhline(0, color="0.5", linewidth=0.8)
    ripley.set(xlabel="r / nm", ylabel="L(r) - r / nm", title="band: 95 % of random patterns")
    for axes in rest:
        for n, pair in enumerate(pairs):
            colour = _hex(len(named) + n)
            axes.fill_between(pair.radii_nm, pair.low, pair.high, color=colour, alpha=0.2, linewidth=0)
            axes.plot(pair.radii_nm, pair.l_minus_r, color=colour, label=pair.name)
        axes.axhline(0, color="0.5", linewidth=0.8)
        axes.set(xlabel="r / nm", ylabel="cross-type L(r) - r / nm", title="band: one size strewn at random")
    for axes in (sizes, near, ripley, *rest):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def _distribution(axes: Any, pattern: Pattern, colour: str) -> None:
    """Distances to the nearest neighbour, and what is expected of a Poisson process: 1 - exp(-density pi r²)."""
    distances = np.sort(pattern.neighbours_nm)
    axes.step(distances, np.arange(1, len(distances) + 1) / len(distances), color=colour, label=pattern.name)
    r = np.linspace(0, float(distances[-1]), 200)
    density = pattern.density_per_um2 * 1e-6
    axes.plot(r, 1 - np.exp(-density * np.pi * r**2), color=colour, linestyle=":", label=f"{pattern.name}, random")


def _hex(n: int) -> str:
    red, green, blue = COLOURS[n % len(COLOURS)]
    return f"#{red:02x}{green:02x}{blue:02x}"
