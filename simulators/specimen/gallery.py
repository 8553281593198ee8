"""A contact sheet of simulated pictures, alone or between real ones: ``python -m simulators.specimen.gallery OUT``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from simulators.specimen.settings import SpecimenSettings
from simulators.specimen.specimen import Specimen
from simulators.specimen.truth import HoleTruth, SquareTruth
from simulators.specimen.view import View

CELL = 480
_READABLE = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".mrc"}
Picture = tuple[str, NDArray[np.uint16]]


def low(seed: int) -> list[Picture]:
    """Atlas views of different grids, coarse and close."""
    makes = [
        ("mixed carbon", SpecimenSettings(seed=seed), 16000.0),
        ("poor carbon", SpecimenSettings(seed=seed + 1, ice="poor"), 7000.0),
        ("thick", SpecimenSettings(seed=seed + 2, ice="thick", bar_um=50), 20000.0),
        ("hexagonal mesh", SpecimenSettings(seed=seed + 3, mesh="hexagonal"), 9000.0),
    ]
    out = []
    for name, settings, px in makes:
        view = View(0, 0, px, (900, 900), dose_e_per_a2=400 / px**2, frame_seed=seed)
        out.append((f"low {name} {px / 10:.0f} nm", Specimen(settings).render(view)))
    return out


def medium(seed: int) -> list[Picture]:
    """Whole squares and close views of their holes, for both foils and lattices."""
    makes = [
        ("carbon", SpecimenSettings(seed=seed)),
        ("gold", SpecimenSettings(seed=seed + 1, foil="gold", hole_diameter_um=1.2, hole_pitch_um=2.5)),
        ("thick", SpecimenSettings(seed=seed + 2, ice="thick")),
        ("hexagonal", SpecimenSettings(seed=seed + 3, lattice="hexagonal", ice="poor")),
    ]
    out = []
    for k, (name, settings) in enumerate(makes):
        grid = Specimen(settings)
        square = _pick(grid, ("good", "good", "thick", "broken")[k], k)
        for px, shape in ((1300.0, (720, 1000)), (220.0, (900, 900)), (60.0, (720, 1000))):
            x, y = square.x_um, square.y_um
            if px < 1000:
                x, y = x + 0.35 * (square.vertices_um[0][0] - x), y + 0.35 * (square.vertices_um[0][1] - y)
            view = View(
                x, y, px, shape, rotation_deg=20.0 * k, defocus_um=80, dose_e_per_a2=600 / px**2, frame_seed=seed
            )
            out.append((f"medium {name} {px / 10:.0f} nm", grid.render(view)))
    return out


def high(seed: int) -> list[Picture]:
    """Micrographs: good, thin, dirty, crystalline, the edge of a hole, gold and vesicles."""
    grid = Specimen(SpecimenSettings(seed=seed + 1, ice="poor", grid_radius_um=500))
    holes = [h for s in grid.squares if s.state != "dark" for h in grid.holes(s.index)]
    whole = [h for h in holes if h.state != "broken"]
    edge = max(whole, key=lambda h: h.quality)
    picks: list[tuple[str, Specimen, float, float, float, float]] = [
        ("dirty", grid, *_at(max(whole, key=lambda h: h.contamination * (h.contamination < 0.06))), 8.0, 2.5),
        ("crystalline", grid, *_at(max(whole, key=lambda h: h.crystalline)), 8.0, 2.0),
        ("no ice", grid, *_at(min(whole, key=lambda h: h.ice_nm)), 8.0, 1.5),
        ("edge", grid, edge.x_um + edge.radius_um, edge.y_um, 8.0, 2.0),
    ]
    for k, content in enumerate((("particles",), ("particles",), ("particles",), ("gold",), ("vesicles",))):
        other = Specimen(SpecimenSettings(seed=seed + 20 + k, ice="good", grid_radius_um=250, content=content))
        best = max((h for s in other.squares for h in other.holes(s.index)), key=lambda h: h.quality)
        picks.append((content[0], other, *_at(best), 6.0 if content != ("gold",) else 11.0, 2.2))
    out = []
    for name, specimen, x, y, px, defocus in picks:
        view = View(x, y, px, (620, 640), defocus_um=defocus, dose_e_per_a2=45, frame_seed=seed)
        out.append((f"high {name} {px:.0f} A", specimen.render(view)))
    return out


def contact_sheet(out: Path, seed: int = 0, against: Path | None = None) -> None:
    """Draw simulated pictures at the three levels; with ``against``, real ones of that folder between them."""
    drawn: dict[str, Callable[[int], list[Picture]]] = {"lowmag": low, "medmag": medium, "highmag": high}
    levels = [drawn[against.name]] if against and against.name in drawn else list(drawn.values())
    pictures: list[tuple[str, NDArray[Any]]] = [p for level in levels for p in level(seed)]
    if against is not None:
        real = list(_real(against))
        pictures = [p for pair in _zip_longest(pictures, real) for p in pair]
    columns = 4
    cells = [_cell(name, image) for name, image in pictures]
    cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
    rows = [np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)]
    if not cv2.imwrite(str(out), np.vstack(rows)):
        raise OSError(f"{out}: cannot be written; give a name that ends in .png")


def _at(hole: HoleTruth) -> tuple[float, float]:
    return hole.x_um, hole.y_um


def _pick(grid: Specimen, state: str, k: int) -> SquareTruth:
    centre = sorted(grid.squares, key=lambda s: math.hypot(s.x_um, s.y_um))
    fitting = [s for s in centre if s.state == state] or centre
    if state == "broken":  # torn, not gone
        return max(fitting, key=lambda s: s.quality)
    return fitting[k % len(fitting)]


def _real(folder: Path) -> Iterable[tuple[str, NDArray[Any]]]:
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in _READABLE:
            continue
        if path.suffix.lower() == ".mrc":
            image = _mrc(path)
        else:
            image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if image is not None:
            yield f"REAL {path.name[:34]}", image


def _mrc(path: Path) -> NDArray[Any] | None:
    """The first section of an MRC file of bytes, 16-bit integers or floats."""
    raw = path.read_bytes()
    columns, rows, _, mode = np.frombuffer(raw, "<i4", 4).tolist()
    kinds = {0: "i1", 1: "<i2", 2: "<f4", 6: "<u2"}
    if mode not in kinds or columns <= 0 or rows <= 0:
        return None
    start = 1024 + int(np.frombuffer(raw, "<i4", 1, 92)[0])
    return np.frombuffer(raw, kinds[mode], columns * rows, start).reshape(rows, columns)[::-1]


def _zip_longest(one: list[Any], two: list[Any]) -> Iterable[list[Any]]:
    for k in range(max(len(one), len(two))):
        yield [*one[k : k + 1], *two[k : k + 1]]


def _cell(name: str, image: NDArray[Any]) -> NDArray[np.uint8]:
    floating = image.astype(np.float32)
    dark, bright = np.percentile(floating, (0.5, 99.5))
    grey = np.clip((floating - dark) / (bright - dark + 1e-9) * 255, 0, 255).astype(np.uint8)
    scale = CELL / max(grey.shape)
    size = max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale))
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    cell = np.zeros((CELL + 18, CELL), np.uint8)
    cell[: small.shape[0], : small.shape[1]] = small
    cv2.putText(cell, name, (2, CELL + 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, 255, 1)
    return cell


def main() -> None:
    """Write the sheet that the command line asks for."""
    parser = argparse.ArgumentParser(description="Contact sheet of simulated pictures.")
    parser.add_argument("out", type=Path, help="PNG to write")
    parser.add_argument("--against", type=Path, help="folder of real pictures to put between them")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    contact_sheet(given.out, given.seed, given.against)


if __name__ == "__main__":
    main()
