"""Vesicles on their frame, as a picture."""

from collections.abc import Sequence

import cv2
import numpy as np

from agent.drawing import DARK, FONT, LARGEST_PX, WHITE, Colour, Picture, stretch
from agent.gold_pictures import SHIFT, binned
from models.gold.sampling import Pixels
from models.vesicles.discs import Disc
from models.vesicles.live import LARGE, SMALL, group

# Told apart with every common colour blindness (Okabe & Ito 2008).
COLOURS: dict[str, Colour] = {SMALL: (86, 180, 233), LARGE: (230, 159, 0)}
_SHOWN_NM = 1.2  # finer pixels are shown binned: the noise of single pixels hides membranes from an eye


def overlay(image: Pixels, found: Sequence[Disc], pixel_nm: float) -> Picture:
    """The image with a circle around each vesicle, blue below 65 nm, orange above; at most 4096 pixels wide."""
    rows, columns = image.shape[:2]
    bins = max(1, -(-max(rows, columns) // LARGEST_PX), int(_SHOWN_NM / pixel_nm))
    bins = min(bins, max(1, min(rows, columns) // 256))
    small = binned(image, bins)
    picture = cv2.cvtColor(stretch(small), cv2.COLOR_GRAY2RGB)
    scale = max(1, min(4, 1600 // max(picture.shape[:2])))
    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    zoom = scale / bins
    width = max(1, round(max(picture.shape) / 1400))
    for d in found:
        at = tuple(round(((c + 0.5) * zoom - 0.5) * 2**SHIFT) for c in (d.x, d.y))
        radius = round(d.diameter_nm / pixel_nm / 2 * zoom * 2**SHIFT)
        cv2.circle(picture, at, radius, COLOURS[group(d)], width, cv2.LINE_AA, SHIFT)
    return np.vstack([picture, _foot(picture.shape[1], found, zoom / pixel_nm)])


def _foot(wide: int, found: Sequence[Disc], px_per_nm: float) -> Picture:
    """Counts and a scale bar."""
    size = max(0.45, min(1.2, wide / 1600))
    line = round(26 * size)
    foot = np.full((round(line * 1.7), wide, 3), DARK, np.uint8)
    x, y = line // 2, round(line * 1.1)
    counts = [(name, sum(group(d) == name for d in found)) for name in COLOURS]
    entries = [(f"{name}: {n}", COLOURS[name]) for name, n in counts if n] or [("no vesicles found", WHITE)]
    for text, colour in entries:
        cv2.putText(foot, text, (x, y), FONT, size, colour, max(1, round(1.4 * size)), cv2.LINE_AA)
        x += cv2.getTextSize(text, FONT, size, 1)[0][0] + line
    nm = next((n for n in (2000, 1000, 500, 200, 100, 50) if n * px_per_nm < 0.2 * wide), 20)
    length, right = round(nm * px_per_nm), wide - line // 2
    cv2.line(foot, (right - length, y - line // 4), (right, y - line // 4), WHITE, max(2, line // 6))
    text = f"{nm} nm"
    across = cv2.getTextSize(text, FONT, size, 1)[0][0]
    if right - length - across - line // 2 > x:
        cv2.putText(foot, text, (right - length - across - line // 2, y), FONT, size, WHITE, 1, cv2.LINE_AA)
    return foot
