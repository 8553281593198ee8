"""Vesicles of frames as files: CSV."""

import csv
from collections.abc import Iterable, Sequence
from math import pi
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from models.vesicles.discs import Disc
from models.vesicles.live import group

COLUMNS = ("x_px", "y_px", "x_nm", "y_nm", "diameter_nm", "area_nm2", "gap_nm", "group", "score")


def rows(found: Sequence[Disc], pixel_nm: float) -> list[dict[str, str]]:
    """Vesicles as rows, best first; ``gap_nm`` is the distance between its outside and its nearest neighbour's.

    Pixels count from the centre of the first one, nm from there, too.
    """
    gaps = gaps_nm(found, pixel_nm)
    order = sorted(range(len(found)), key=lambda k: (-found[k].score, found[k].y, found[k].x))
    return [
        {
            "x_px": f"{found[k].x:.2f}",
            "y_px": f"{found[k].y:.2f}",
            "x_nm": f"{found[k].x * pixel_nm:.2f}",
            "y_nm": f"{found[k].y * pixel_nm:.2f}",
            "diameter_nm": f"{found[k].diameter_nm:.2f}",
            "area_nm2": f"{pi / 4 * found[k].diameter_nm ** 2:.1f}",
            "gap_nm": f"{gaps[k]:.1f}" if np.isfinite(gaps[k]) else "",
            "group": group(found[k]),
            "score": f"{found[k].score:.4f}",
        }
        for k in order
    ]


def gaps_nm(found: Sequence[Disc], pixel_nm: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Distance from each vesicle's outside to the nearest other's; negative where they overlap, infinite if alone."""
    out = np.full(len(found), np.inf)
    if len(found) < 2:
        return out
    at = np.array([(d.x * pixel_nm, d.y * pixel_nm) for d in found])
    radius = np.array([d.diameter_nm for d in found]) / 2
    distance, index = cKDTree(at).query(at, k=min(len(found), 8))
    return np.asarray((distance[:, 1:] - radius[index[:, 1:]]).min(axis=1) - radius)


def write_csv(found: Sequence[Disc], pixel_nm: float, path: Path) -> None:
    """Write a table with the columns of `COLUMNS`."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows(found, pixel_nm))


def summary(found: Iterable[Disc], pixel_nm: float, area_um2: float) -> dict[str, float | int | None]:
    """What the vesicles of a frame measure: how many, how dense, how large, how far apart."""
    discs = list(found)
    diameters = np.array([d.diameter_nm for d in discs])
    gaps = gaps_nm(discs, pixel_nm)
    gaps = gaps[np.isfinite(gaps)]
    return {
        "vesicles": len(discs),
        "per_um2": round(len(discs) / max(area_um2, 1e-12), 3),
        "diameter_mean_nm": round(float(diameters.mean()), 2) if len(discs) else None,
        "diameter_spread_nm": round(float(diameters.std()), 2) if len(discs) else None,
        "gap_median_nm": round(float(np.median(gaps)), 2) if len(gaps) else None,
    }
