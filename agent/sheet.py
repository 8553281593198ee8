"""One picture that lets a microscopist check a judgement: micrograph, power spectrum with fit, profile, figures."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from agent.drawing import DARK, GREY, WHITE, Colour, Picture, length_words, round_length_um, score_colour, stretch, text
from agent.thon import fit_of, half_and_half, plot, reach_of
from models.detections import QualityFinding
from models.quality.measured import Measured

SIDE = 620
_GAP = 12
_PLOT = 300
_DIRT: Colour = (255, 92, 92)
_FOIL: Colour = (92, 220, 130)


def sheet(name: str, m: Measured, finding: QualityFinding, pixel_size_angstrom: float | None) -> Picture:
    """The picture, about 1264 x 1000 pixels, red green blue.

    Parameters
    ----------
    name
        Heading, such as the file's name.
    m, finding
        What was measured on the micrograph, and what the scorer says.
    pixel_size_angstrom
        For the scale bar; ``None``: none is drawn.
    """
    width = 2 * SIDE + 3 * _GAP
    head = 64
    canvas = np.full((head + SIDE + _PLOT + 3 * _GAP, width, 3), 14, np.uint8)
    text(canvas, name[:70], _GAP, 22, 15, WHITE, left=True)
    words = f"{finding.label}  {finding.score:.2f}"
    text(canvas, words, width - 230, 22, 17, score_colour(finding.score), left=True)
    text(canvas, finding.note[:150].replace("Å", "A").replace("°", " deg"), _GAP, 50, 11, GREY, left=True)
    canvas[head : head + SIDE, _GAP : _GAP + SIDE] = thumbnail(m, pixel_size_angstrom, SIDE)
    at = 2 * _GAP + SIDE
    fit = fit_of(finding.features) if m.fit is not None else None
    reach = reach_of(m.spectrum, fit[2] if fit else None) if pixel_size_angstrom else m.spectrum.reach
    spectrum = half_and_half(m.spectrum, SIDE, fit, reach)
    left = "power spectrum"
    text(spectrum, left, 10, 16, 12, WHITE, left=True)
    if fit is not None:
        text(spectrum, "fit", SIDE - 40, 16, 12, WHITE, left=True)
        text(spectrum, f"circle: {fit[2]:.1f} A", 10, SIDE - 14, 12, (255, 168, 38), left=True)
    edge = f"edge: {1 / reach:.1f} A" if pixel_size_angstrom else "edge: Nyquist"
    text(spectrum, edge, SIDE - 120, SIDE - 14, 12, GREY, left=True)
    canvas[head : head + SIDE, at : at + SIDE] = spectrum
    below = head + SIDE + _GAP
    if m.fit is not None:
        canvas[below : below + _PLOT, _GAP : _GAP + 860] = plot(m.fit.profile, m.fit.resolution_angstrom, 860, _PLOT)
    else:
        text(canvas, "no CTF fit: the pixel size is not known, or too coarse", _GAP, below + 30, 13, GREY, left=True)
    _table(canvas, figures(finding), _GAP + 890, below + 12)
    return canvas


def thumbnail(m: Measured, pixel_size_angstrom: float | None, side: int) -> Picture:
    """The micrograph in a square of ``side`` pixels, lumps outlined in red and foil in green, with a scale bar."""
    rows, columns = m.small.shape
    factor = side / max(rows, columns)
    size = (max(1, round(columns * factor)), max(1, round(rows * factor)))
    soft = cv2.GaussianBlur(m.small, (0, 0), 0.7)
    grey = stretch(cv2.resize(soft, size, interpolation=cv2.INTER_LINEAR))
    picture = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    for mask, colour in ((m.cover.dirt, _DIRT), (m.cover.foil, _FOIL)):
        large = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_LINEAR)
        outlines, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, colour, 1, cv2.LINE_AA)
    out = np.full((side, side, 3), DARK, np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    out[top : top + size[1], left : left + size[0]] = picture
    if pixel_size_angstrom is not None:
        um_per_px = pixel_size_angstrom * 1e-4 * m.scale / factor
        length = round_length_um(0.3 * size[0] * um_per_px)
        wide = round(length / um_per_px)
        x, y = left + 14, top + size[1] - 16
        cv2.rectangle(out, (x - 1, y - 1), (x + wide + 1, y + 5), DARK, -1)
        cv2.rectangle(out, (x, y), (x + wide, y + 4), WHITE, -1)
        text(out, length_words(length), x + wide / 2, y - 14, 12, WHITE)
    return out


def figures(finding: QualityFinding) -> list[tuple[str, str]]:
    """The figures of a judgement as pairs of name and value with unit; those not known are left out."""
    f = finding.features
    out: list[tuple[str, str]] = []

    def row(name: str, key: str, form: str, unit: str = "", times: float = 1.0) -> None:
        if key in f and math.isfinite(f[key]):
            out.append((name, f"{f[key] * times:{form}}{unit}"))

    row("defocus", "defocus_um", ".3f", " µm")
    row("astigmatism", "astigmatism_um", ".3f", " µm")
    row("  direction", "astigmatism_angle_deg", ".0f", " deg")
    if f.get("phase_shift_deg"):
        row("phase shift", "phase_shift_deg", ".0f", " deg")
    row("fit resolution", "ctf_resolution_angstrom", ".2f", " A")
    row("confidence", "ctf_confidence", ".2f")
    row("ice thickness", "ice_thickness_nm", ".0f", " nm")
    row("transmission", "transmission", ".3f")
    row("ice ring", "ice_ring", ".2f")
    row("ice spots", "ice_spots", ".0f")
    row("mottle", "mottle", ".2f")
    row("contamination", "contamination", ".1f", " %", 100)
    row("foil", "foil", ".0f", " %", 100)
    return out


def _table(canvas: Picture, rows: Sequence[tuple[str, str]], x: int, y: int) -> None:
    for number, (name, value) in enumerate(rows):
        at = y + 10 + 22 * number
        text(canvas, name, x, at, 12, GREY, left=True)
        text(canvas, value, x + 180, at, 12, WHITE, left=True)
