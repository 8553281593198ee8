"""A recording as files that other programs read: CSV, STAR, SerialEM's .nav, and the atlas as OME-Zarr."""

import csv
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from agent import geometry
from agent.errors import BadFileError, CryonautError
from agent.recording.record import Record
from agent.session.state import Hole, Square, grid_of, square_of
from agent.whole import whole
from drivers.serialem.navfile import NavItem, write_nav

COLUMNS = (
    "kind", "id", "grid", "square", "x_um", "y_um", "size_um", "radius_um", "score", "label", "state", "word",
    "priority", "exposed", "group", "dose_e_per_a2", "defocus_um", "quality", "quality_label", "frame", "why",
)  # fmt: skip
GREEN, YELLOW, RED = 1, 2, 0


def to_csv(record: Record, out: Path) -> Path:
    """Every square and hole as a row; `import leginon` reads it back."""
    return _written(out, lambda part: _csv(record, part))


def _csv(record: Record, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for area in areas(record):
            writer.writerow(_row(area))


def areas(record: Record) -> Iterator[Square | Hole]:
    """Squares, each followed by its holes, in the order of grids and numbers."""
    for grid in record.state.grids.values():
        for square in grid.squares.values():
            yield square
            yield from square.holes.values()


def _row(area: Square | Hole) -> dict[str, Any]:
    common = {
        "id": area.area_id, "grid": grid_of(area.area_id), "x_um": f"{area.x_um:.5f}", "y_um": f"{area.y_um:.5f}",
        "score": f"{area.score:.4f}", "label": area.label, "state": area.state, "word": area.word,
        "priority": area.priority, "why": area.why, "frame": area.frame_id,
    }  # fmt: skip
    if isinstance(area, Square):
        return common | {"kind": "square", "square": "", "size_um": f"{area.size_um:.4f}"}
    return common | {
        "kind": "hole", "square": square_of(area.area_id), "radius_um": f"{area.radius_um:.4f}",
        "exposed": str(bool(area.frame_id) or area.dose_e_per_a2 > 0 or area.state == "exposed").lower(),
        "group": "" if area.group is None else area.group, "dose_e_per_a2": area.dose_e_per_a2,
        "defocus_um": "" if area.defocus_um is None else area.defocus_um,
        "quality": "" if area.quality is None else area.quality, "quality_label": area.quality_label,
    }  # fmt: skip


def to_nav(record: Record, out: Path) -> Path:
    """Squares as polygons and holes as points of a new Navigator file; to be merged, not to replace one.

    Names are area ids; the note holds size and score, so that `import serialem` reads them back.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    write_nav(out, _items(record))
    return out


def _items(record: Record) -> Iterator[NavItem]:
    for area in areas(record):
        colour = RED if area.state in ("rejected", "skipped") else GREEN if area.score >= 0.5 else YELLOW
        if isinstance(area, Square):
            yield _polygon(area, colour)
            continue
        note = f"hole {area.label} radius {area.radius_um:.3f} score {area.score:.3f}"
        wanted = area.state in ("found", "queued") and area.word != "rejected"
        yield NavItem.point(area.area_id, area.x_um, area.y_um, note=note, colour=colour, acquire=wanted)


def _polygon(square: Square, colour: int) -> NavItem:
    half = square.size_um / 2
    box = ((-half, -half), (half, -half), (half, half), (-half, half))
    corners = list(square.vertices_um or [(square.x_um + dx, square.y_um + dy) for dx, dy in box])
    corners.append(corners[0])
    values = {
        "Color": str(colour),
        "StageXYZ": f"{square.x_um:.4f} {square.y_um:.4f} 0",
        "NumPts": str(len(corners)),
        "Regis": "1",
        "Type": "1",
        "Note": f"square {square.label} size {square.size_um:.3f} score {square.score:.3f}",
        "PtsX": " ".join(f"{x:.4f}" for x, _ in corners),
        "PtsY": " ".join(f"{y:.4f}" for _, y in corners),
    }
    return NavItem(square.area_id, values)


def to_star(record: Record, out: Path) -> Path:
    """Micrographs with one optics group per image shift, and the holes of squares as coordinates (RELION 3.1 on).

    ``out`` is ``micrographs.star``; ``NAME_holes.star`` beside it holds the holes of each medium-mag frame in its
    pixels, as RELION counts them: from the centre of the first pixel, x right, y down.
    """
    shifts: dict[tuple[float, float], int] = {}
    rows = []
    for shot in record.shots:
        frame = shot.frame
        if frame.level != "high":
            continue
        shift = (round(frame.image_shift_um[0], 1), round(frame.image_shift_um[1], 1))
        group = shifts.setdefault(shift, len(shifts) + 1)
        hole = record.state.hole(shot.received.area_id)
        square = record.state.square(shot.received.area_id) if shot.received.area_id else None
        defocus = 1e4 * frame.defocus_um if frame.defocus_um is not None else math.nan
        rows.append(
            (shot.received.file, group, f"{defocus:.1f}", f"{frame.pixel_size_angstrom:.4f}",
             f"{frame.dose_e_per_a2 or 0:.3f}", f"{frame.stage.x_um:.4f}", f"{frame.stage.y_um:.4f}",
             f"{frame.image_shift_um[0]:.4f}", f"{frame.image_shift_um[1]:.4f}",
             hole.area_id if hole else "None", square.area_id if square else "None",
             f"{hole.quality:.4f}" if hole and hole.quality is not None else "None")
        )  # fmt: skip
    pixel = rows[0][3] if rows else "1.0"
    optics = [(f"opticsGroup{n}", n, pixel, f"{x:.1f}", f"{y:.1f}") for (x, y), n in shifts.items()]
    text = _table("optics", ("_rlnOpticsGroupName", "_rlnOpticsGroup", "_rlnMicrographPixelSize",
                             "_cryonautImageShiftX", "_cryonautImageShiftY"), optics)  # fmt: skip
    text += _table("micrographs", ("_rlnMicrographName", "_rlnOpticsGroup", "_rlnDefocusU", "_cryonautPixelSize",
                                   "_rlnMicrographPreExposure", "_cryonautStageX", "_cryonautStageY",
                                   "_cryonautImageShiftX", "_cryonautImageShiftY", "_cryonautHole", "_cryonautSquare",
                                   "_cryonautQuality"), rows)  # fmt: skip
    _written(out, lambda part: _text(part, text))
    for square in [area for area in areas(record) if isinstance(area, Square)]:
        received = record.frames.get(square.map_frame_id)
        if received is not None and square.holes:
            _written(out.with_name(f"{square.area_id}_holes.star"), _coordinates(received.frame, square))
    return out


def _coordinates(frame: Any, square: Square) -> Callable[[Path], None]:
    points = [(*geometry.stage_to_pixel(frame, hole.x_um, hole.y_um), hole) for hole in square.holes.values()]
    rows = [(f"{x:.3f}", f"{y:.3f}", f"{hole.score:.4f}", hole.area_id) for x, y, hole in points]
    names = ("_rlnCoordinateX", "_rlnCoordinateY", "_rlnAutopickFigureOfMerit", "_cryonautHole")
    return lambda part: _text(part, _table("", names, rows))


def _table(name: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = ["# version 30001" if name else "# made by cryonaut", "", f"data_{name}", "", "loop_"]
    lines += [f"{column} #{number}" for number, column in enumerate(columns, 1)]
    lines += [" ".join(str(value).replace(" ", "_") for value in row) for row in rows]
    return "\n".join(lines) + "\n\n"


def to_zarr(record: Record, out: Path, grid_id: str = "") -> Path:
    """The atlas of a grid as OME-Zarr 0.5: a pyramid in micrometres of the stage.

    Raises
    ------
    CryonautError
        If zarr is not installed, the folder exists already, or no low-mag frame can be read.
    """
    try:
        import zarr
    except ImportError as error:
        raise CryonautError("OME-Zarr needs the package zarr: `pip install 'cryonaut[zarr]'`") from error
    if out.exists():
        raise CryonautError(f"{out}: exists already; an OME-Zarr needs a folder of its own")
    image, x_um, y_um, scale = mosaic(record, grid_id or next(iter(record.state.grids), ""))
    levels = [image]
    while min(levels[-1].shape) > 512:
        last = levels[-1]
        even = last[: last.shape[0] // 2 * 2, : last.shape[1] // 2 * 2].astype(np.float32)
        levels.append(even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2).mean(axis=(1, 3)).astype(last.dtype))
    root = zarr.open_group(str(out), mode="w", zarr_format=3)
    datasets: list[Any] = []
    for number, level in enumerate(levels):
        array = root.create_array(str(number), shape=level.shape, dtype=level.dtype, chunks=(512, 512))
        array[:] = level
        factor = scale * 2**number
        # the translation is that of the first pixel's centre
        place = [y_um + (factor - scale) / 2, x_um + (factor - scale) / 2]
        steps = [{"type": "scale", "scale": [factor, factor]}, {"type": "translation", "translation": place}]
        datasets.append({"path": str(number), "coordinateTransformations": steps})
    axes: list[Any] = [{"name": name, "type": "space", "unit": "micrometer"} for name in ("y", "x")]
    root.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"name": f"atlas {grid_id}", "axes": axes, "datasets": datasets}],
    }
    return out


def mosaic(record: Record, grid_id: str) -> tuple[np.ndarray, float, float, float]:
    """The low-mag frames of a grid on the stage: image, place of its first pixel's centre, and µm per pixel.

    Rows run along the stage's y, columns along its x; where frames overlap the later one lies on top.

    Raises
    ------
    CryonautError
        If there is none, or none can be read.
    """
    import cv2

    shots = [s for s in record.shots if s.frame.level == "low" and s.received.grid_id == grid_id]
    if not shots:
        raise CryonautError(f"{record.folder}: no low-mag frame of grid {grid_id or '(none)'} was recorded")
    scale = min(geometry.micron_per_pixel(shot.frame) for shot in shots)
    corners = np.array([geometry.pixel_to_stage(s.frame, x, y) for s in shots for x, y in _corners(s.frame.shape)])
    low, high = corners.min(axis=0), corners.max(axis=0)
    while (np.ceil((high - low) / scale) + 1).prod() > 2**28:
        scale *= 2
    columns, rows = (int(n) + 1 for n in np.ceil((high - low) / scale))
    canvas = np.zeros((rows, columns), np.float32)
    used = 0
    for shot in shots:
        try:
            image = np.asarray(record.pixels(shot.frame.frame_id), np.float32)
        except BadFileError:
            continue
        used += 1
        a, b, c, d = geometry.image_to_stage(shot.frame)
        x0, y0 = geometry.pixel_to_stage(shot.frame, 0.0, 0.0)
        matrix = np.array([[a, b, x0 - low[0]], [c, d, y0 - low[1]]]) / scale
        warped = cv2.warpAffine(image, matrix, (columns, rows), flags=cv2.INTER_LINEAR, borderValue=float("nan"))
        canvas = np.where(np.isfinite(warped), warped, canvas)
    if not used:
        raise CryonautError(f"{record.folder}: no low-mag frame of grid {grid_id} can be read")
    return canvas, float(low[0]), float(low[1]), float(scale)


def _corners(shape: tuple[int, int]) -> tuple[tuple[float, float], ...]:
    rows, columns = shape[0] - 1.0, shape[1] - 1.0
    return ((0.0, 0.0), (columns, 0.0), (0.0, rows), (columns, rows))


def _text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _written(path: Path, write: Callable[[Path], None]) -> Path:
    """``path``, written as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        write(part)
    return path
