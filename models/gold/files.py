"""Results as files that other programs read: CSV, one file per size on request, ImageJ regions."""

import csv
from collections.abc import Iterable, Sequence
from math import pi
from pathlib import Path

import numpy as np
import roifile

from models.gold.records import GoldParticle

CORNERS = 24  # of a circle in ImageJ
COLUMNS = ("x_px", "y_px", "x_nm", "y_nm", "area_nm2", "diameter_nm", "group", "score")


def rows(particles: Iterable[GoldParticle], pixel_nm: float) -> list[dict[str, str]]:
    """Particles as rows; pixels count from the centre of the first one, nm from there, too."""
    return [
        {
            "x_px": f"{p.x:.3f}",
            "y_px": f"{p.y:.3f}",
            "x_nm": f"{p.x * pixel_nm:.3f}",
            "y_nm": f"{p.y * pixel_nm:.3f}",
            "area_nm2": f"{pi / 4 * p.diameter_nm**2:.2f}",
            "diameter_nm": f"{p.diameter_nm:.3f}",
            "group": p.group,
            "score": f"{p.score:.4f}",
        }
        for p in particles
    ]


def write_csv(particles: Iterable[GoldParticle], pixel_nm: float, path: Path) -> None:
    """Write a table with the columns of `COLUMNS`."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows(particles, pixel_nm))


def read_csv(path: Path) -> list[GoldParticle]:
    """Particles of a table that `write_csv` wrote, or of any with at least ``x_px``, ``y_px`` and ``diameter_nm``.

    Raises
    ------
    ValueError
        When a column is missing or a value is no number; the text names the line.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = {"x_px", "y_px", "diameter_nm"} - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"{path}: no column {', '.join(sorted(missing))}; `cryonaut find gold` writes them")
        found = []
        for number, row in enumerate(reader, start=2):
            try:
                found.append(
                    GoldParticle(
                        x=float(row["x_px"]),
                        y=float(row["y_px"]),
                        diameter_nm=float(row["diameter_nm"]),
                        score=float(row.get("score") or 1.0),
                        group=row.get("group") or "",
                    )
                )
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}: line {number}: {error}") from error
    return found


def write_rois(particles: Sequence[GoldParticle], pixel_nm: float, path: Path) -> None:
    """Write circles as a ZIP of ImageJ regions, named by size and number, one group number per size.

    ImageJ's coordinates count from the corner of the first pixel, half a pixel before its centre.
    """
    groups = {name: n + 1 for n, name in enumerate(sorted({p.group for p in particles}))}
    path.unlink(missing_ok=True)
    if not particles:
        return
    angle = np.arange(CORNERS) * (2 * pi / CORNERS)
    outline = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    rois = []
    for number, p in enumerate(particles, start=1):
        points = outline * (p.diameter_nm / pixel_nm / 2) + (p.x + 0.5, p.y + 0.5)
        roi = roifile.ImagejRoi.frompoints(points.astype(np.float32), name=f"{number:05d} {p.group}".strip())
        roi.group = groups[p.group] % 256
        rois.append(roi)
    roifile.roiwrite(path, rois)
