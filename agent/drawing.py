"""Pictures a microscopist can judge: what a model found, drawn on the image it was shown.

Colours run from blue (score 0) over purple to yellow (score 1): they differ in lightness too, stand out on grey, and
are told apart with every common colour blindness. Inferred holes are dashed, what touches the edge is thin and grey.
"""

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models.detections import HoleDetection, Lattice, SquareDetection

Picture = NDArray[np.uint8]  # (rows, columns, 3), red green blue
Colour = tuple[int, int, int]

STOPS: tuple[tuple[float, Colour], ...] = (
    (0.0, (92, 116, 255)),
    (0.35, (190, 84, 205)),
    (0.65, (243, 112, 96)),
    (1.0, (255, 214, 51)),
)
GREY: Colour = (128, 132, 138)
WHITE: Colour = (240, 240, 240)
DARK: Colour = (22, 24, 28)
FONT = cv2.FONT_HERSHEY_SIMPLEX
SHIFT = 4  # fractional bits of drawn coordinates: a sixteenth of a pixel
SMALLEST_PX = 900
LARGEST_PX = 4096


def stretch(image: NDArray[Any], low: float = 0.5, high: float = 99.5) -> NDArray[np.uint8]:
    """``image`` (rows, columns) as 8-bit grey, black at percentile ``low`` and white at percentile ``high``.

    Pixels that are NaN or infinite become black; an image of one value becomes mid grey.
    """
    plain = np.asarray(image, dtype=np.float32)
    step = max(1, math.isqrt(plain.size // 1_000_000 + 1))
    sample = plain[::step, ::step]
    sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return np.zeros(plain.shape, np.uint8)
    black, white = (float(v) for v in np.percentile(sample, (low, high)))
    if not white > black:
        black, white = float(sample.min()), float(sample.max())
    if not white > black:
        return np.full(plain.shape, 128, np.uint8)
    grey = np.clip(np.nan_to_num((plain - black) * (255.0 / (white - black)), nan=0.0), 0, 255)
    return np.asarray(np.rint(grey), np.uint8)


def score_colour(score: float) -> Colour:
    """Colour (red, green, blue) of a score from 0 to 1."""
    score = min(max(score, 0.0), 1.0) if math.isfinite(score) else 0.0
    places = [place for place, _ in STOPS]
    red, green, blue = (
        round(float(np.interp(score, places, [colour[channel] for _, colour in STOPS]))) for channel in range(3)
    )
    return (red, green, blue)


def overlay(
    image: NDArray[Any],
    *,
    squares: Sequence[SquareDetection] = (),
    holes: Sequence[HoleDetection] = (),
    lattice: Lattice | None = None,
    pixel_size_angstrom: float | None = None,
) -> Picture:
    """``image`` with what was found on it, and a strip with the legend below.

    Parameters
    ----------
    image
        Shape (rows, columns), any real dtype; images whose longer side is below 900 pixels are enlarged.
    squares, holes
        What to draw, in pixels of ``image``: ``(x, y)``, the centre of the first pixel is ``(0, 0)``.
    lattice
        Lattice whose two vectors are drawn from the lattice point nearest to the middle.
    pixel_size_angstrom
        Gives a scale bar.

    Returns
    -------
    Picture
        Shape (rows, columns, 3), red green blue. Pixel (x, y) of ``image`` is at ``(x + 0.5) * scale - 0.5``, where
        ``scale`` is the ratio of the columns; the legend comes below the image and covers nothing.
    """
    rows, columns = image.shape
    scale = min(max(1.0, SMALLEST_PX / max(rows, columns)), LARGEST_PX / max(rows, columns))
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    grey = cv2.resize(stretch(image), size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    pen = _Pen(np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8), scale)
    for square in reversed(squares):  # the best on top
        pen.square(square)
    room = _room(holes) * scale
    for hole in reversed(holes):
        pen.hole(hole, _is_cut(hole, rows, columns), room)
    if lattice is not None:
        pen.lattice(lattice, rows, columns)
    strip = _legend(size[0], pen.unit, squares, holes, pixel_size_angstrom, scale)
    return np.vstack([pen.picture, strip])


class _Pen:
    """Draws on one picture, in pixels of the image that was enlarged by ``scale``."""

    def __init__(self, picture: Picture, scale: float) -> None:
        self.picture = picture
        self.scale = scale
        self.unit = max(1.0, max(picture.shape[:2]) / 1000)  # thickness of a thin line

    def at(self, x: float, y: float) -> tuple[int, int]:
        """Drawn place of pixel (x, y), in sixteenths."""
        return round(((x + 0.5) * self.scale - 0.5) * 2**SHIFT), round(((y + 0.5) * self.scale - 0.5) * 2**SHIFT)

    def square(self, square: SquareDetection) -> None:
        """Polygon of a square with its score and label in the middle."""
        corners = np.array([self.at(x, y) for x, y in square.vertices], np.int32).reshape(-1, 1, 2)
        if len(corners) == 0:
            return
        thin = square.touches_edge
        colour = GREY if thin else score_colour(square.score)
        width = max(1, round(self.unit * (1 if thin else 2)))
        if not thin:
            cv2.polylines(self.picture, [corners], True, DARK, width + 2, cv2.LINE_AA, SHIFT)
        cv2.polylines(self.picture, [corners], True, colour, width, cv2.LINE_AA, SHIFT)
        side = math.sqrt(max(square.area_px, 0.0)) * self.scale
        height = 11 * self.unit
        if side >= 5 * height:
            x, y = (v / 2**SHIFT for v in self.at(square.x, square.y))
            self.tag(f"{square.score:.2f}", x, y, height, colour)
            if square.label != "unknown" and side >= 7 * height:
                self.tag(square.label, x, y + 1.8 * height, 0.85 * height, colour)

    def hole(self, hole: HoleDetection, cut: bool, room: float) -> None:
        """Circle of a hole; its score below the rim, or inside it where holes are large and crowded."""
        centre, radius = self.at(hole.x, hole.y), max(round(hole.radius_px * self.scale * 2**SHIFT), 2**SHIFT)
        colour = GREY if cut else score_colour(hole.score)
        small = radius < 9 * self.unit * 2**SHIFT
        width = max(1, round(self.unit * (1 if cut or small else 1.5 if hole.inferred else 1.8)))
        halo = [(DARK, width + 2)] if not (cut or hole.inferred or small) else []
        for paint, thickness in (*halo, (colour, width)):
            for start in range(0, 360, 30) if hole.inferred else (0,):
                end = start + (18 if hole.inferred else 360)
                cv2.ellipse(self.picture, centre, (radius, radius), 0, start, end, paint, thickness, cv2.LINE_AA, SHIFT)
        height = 9 * self.unit
        r = radius / 2**SHIFT
        x, y = (v / 2**SHIFT for v in centre)
        if room - 2 * r >= 1.6 * height and room >= 4 * height:
            self.tag(f"{hole.score:.2f}", x, y + r + 1.1 * height, height, colour)
        elif r >= 3.2 * height:
            self.tag(f"{hole.score:.2f}", x, y + 0.62 * r, height, colour)

    def tag(self, words: str, x: float, y: float, height: float, colour: Colour) -> None:
        """Words on a darkened plate, so that they can be read on film and on vacuum."""
        (width, _), _ = cv2.getTextSize(words, FONT, height / 21.0, max(1, round(height / 11)))
        left, right = max(round(x - width / 2 - 0.3 * height), 0), round(x + width / 2 + 0.3 * height)
        top, bottom = max(round(y - 0.85 * height), 0), round(y + 0.9 * height)
        plate = self.picture[top:bottom, left:right]
        plate[:] = np.asarray(plate * 0.3, np.uint8)
        bright: Colour = WHITE if colour == GREY else colour
        soft = np.rint(np.array(bright) * 0.55 + 255 * 0.45).astype(int)
        text(self.picture, words, x, y, height, (int(soft[0]), int(soft[1]), int(soft[2])))

    def lattice(self, lattice: Lattice, rows: int, columns: int) -> None:
        """The two lattice vectors, as arrows from a lattice point near the middle."""
        basis = np.array([lattice.a, lattice.b]).T
        middle = np.array([(columns - 1) / 2, (rows - 1) / 2]) - lattice.origin
        if abs(float(np.linalg.det(basis))) < 1e-9:
            return
        start = np.array(lattice.origin) + basis @ np.rint(np.linalg.solve(basis, middle))
        for name, vector in (("a", lattice.a), ("b", lattice.b)):
            end = start + vector
            ends = self.at(*start), self.at(*end)
            for colour, extra in ((DARK, 2), (WHITE, 0)):
                width = max(1, round(1.5 * self.unit)) + extra
                cv2.arrowedLine(self.picture, *ends, colour, width, cv2.LINE_AA, SHIFT, 0.12)
            x, y = (v / 2**SHIFT for v in self.at(*(start + 1.15 * np.array(vector))))
            text(self.picture, name, x, y, 10 * self.unit, WHITE)


def text(picture: Picture, words: str, x: float, y: float, height: float, colour: Colour, *, left: bool = False) -> int:
    """Write ``words`` centred on (x, y), or starting at x when ``left``; the width in pixels is returned.

    The built-in fonts know ASCII only: ``µ`` is drawn as a u with a tail.
    """
    face = height / 21.0  # a capital letter of this font is 21 pixels high at scale 1
    line = max(1, round(height / 11))
    plain = words.replace("µ", "u")
    (width, _), _ = cv2.getTextSize(plain, FONT, face, line)
    start = (round(x if left else x - width / 2), round(y + height / 2))
    # an outline of the same strokes: thicker ones are wider letters in some builds of OpenCV
    for paint, dx, dy in ((DARK, -1, -1), (DARK, 1, -1), (DARK, -1, 1), (DARK, 1, 1), (colour, 0, 0)):
        cv2.putText(picture, plain, (start[0] + dx, start[1] + dy), FONT, face, paint, line, cv2.LINE_AA)
        for at in (i for i, letter in enumerate(words) if letter == "µ"):
            (before, _), _ = cv2.getTextSize(plain[:at], FONT, face, line)
            foot = round(start[0] + before + 0.22 * height) + dx
            ends = (foot, round(start[1] - 0.5 * height) + dy), (foot, round(start[1] + 0.3 * height) + dy)
            cv2.line(picture, *ends, paint, line, cv2.LINE_AA)
    return int(width)


def round_length_um(longest_um: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above ``longest_um``."""
    power = 10.0 ** math.floor(math.log10(longest_um))
    return max(step * power for step in (1.0, 2.0, 5.0) if step * power <= longest_um * (1 + 1e-9))


def length_words(um: float) -> str:
    """A length in the unit that reads best."""
    return f"{um:g} µm" if um >= 1 else f"{um * 1e3:g} nm" if um >= 1e-3 else f"{um * 1e4:g} A"


def _legend(
    width: int,
    unit: float,
    squares: Sequence[SquareDetection],
    holes: Sequence[HoleDetection],
    pixel_size_angstrom: float | None,
    scale: float,
) -> Picture:
    """Strip with the colours of the scores, what was found, and the scale bar."""
    height = 12 * unit
    parts = [part for part in (_counts(squares), _counts_of_holes(holes)) if part] or ["nothing found"]
    strip: Picture = np.full((round((2.6 + 1.9 * len(parts)) * height), width, 3), DARK, np.uint8)
    x, y = round(height), round(1.6 * height)
    x += text(strip, "score 0", x, y, height, WHITE, left=True) + round(0.7 * height)
    bar = round(9 * height)
    for column in range(min(bar, max(width - x, 0))):
        cv2.line(
            strip, (x + column, round(y - height / 2)), (x + column, round(y + height / 2)), score_colour(column / bar)
        )
    x += bar + round(0.7 * height)
    x += text(strip, "1", x, y, height, WHITE, left=True)
    for number, part in enumerate(parts, 1):
        text(strip, part, round(height), y + 1.9 * height * number, 0.9 * height, WHITE, left=True)
    if pixel_size_angstrom:
        um_per_px = pixel_size_angstrom * 1e-4 / scale
        length = round_length_um(0.2 * width * um_per_px)
        end, begin = width - round(height), round(width - height - length / um_per_px)
        if begin > x + 8 * height:
            words = length_words(length)
            cv2.rectangle(strip, (begin, round(y - 0.25 * height)), (end, round(y + 0.25 * height)), WHITE, -1)
            text(strip, words, begin - 3.2 * height, y, height, WHITE)
    return strip


def _counts(squares: Sequence[SquareDetection]) -> str:
    if not squares:
        return ""
    edge = sum(square.touches_edge for square in squares)
    return f"{len(squares)} squares" + (f", {edge} at the edge (thin, grey)" if edge else "")


def _counts_of_holes(holes: Sequence[HoleDetection]) -> str:
    if not holes:
        return ""
    inferred = sum(hole.inferred for hole in holes)
    return f"{len(holes)} holes" + (f", {inferred} inferred from the lattice (dashed)" if inferred else "")


def _is_cut(hole: HoleDetection, rows: int, columns: int) -> bool:
    """Whether the hole reaches over the edge of the image."""
    r = hole.radius_px
    return hole.x - r < -0.5 or hole.y - r < -0.5 or hole.x + r > columns - 0.5 or hole.y + r > rows - 0.5


def _room(holes: Sequence[HoleDetection]) -> float:
    """Typical distance of a hole to the next one, in pixels of the image; infinite for fewer than two."""
    if len(holes) < 2:
        return math.inf
    points = np.array([(hole.x, hole.y) for hole in holes])[:200]
    everyone = np.array([(hole.x, hole.y) for hole in holes])
    gaps = np.hypot(*(points[:, None] - everyone[None]).transpose(2, 0, 1))
    gaps[gaps < 1e-9] = np.inf
    return float(np.median(gaps.min(axis=1)))
