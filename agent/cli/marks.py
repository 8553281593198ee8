"""Marked images to learn from: a folder of images with marks, or a recorded session with what its operator said.

Of squares also what came of them: the share of good micrographs among those that were judged.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.errors import BadFileError, ConfigError

Row = tuple[str, NDArray[Any], list[tuple[float, float, float, bool]]]  # name, image, (x, y, radius, unsure)


def marked_images(folder: Path) -> list[Row]:
    """Images and their holes.

    Parameters
    ----------
    folder
        A session folder (with ``journal.sqlite``), or one with ``<stem>.json`` beside each image: what
        ``cryonaut find holes --format json`` writes, corrected by a person, or ``{"holes": [...]}``; each hole with
        ``x``, ``y``, ``radius``, and ``state: partial`` where it counts neither way.

    Raises
    ------
    BadFileError
        If marks cannot be read.
    ConfigError
        If there are none.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is no folder of marks and no session")
    rows = _of_session(folder) if (folder / "journal.sqlite").exists() else _of_files(folder)
    if not rows:
        raise ConfigError(f"{folder}: no image with marks (<stem>.json beside it) and no mapped square in a journal")
    return rows


def judged_squares(folder: Path) -> list[tuple[str, NDArray[Any], list[tuple[float, float, float]], bool]]:
    """Low-mag images and their judged squares: name, image, (x, y, quality), and whether all others are unwanted.

    Parameters
    ----------
    folder
        A session folder: what its operator accepted (1) and rejected (0), and elsewhere the share of a square's judged
        micrographs that were good. Or one with ``<stem>.json`` beside each image, as ``cryonaut find squares --format
        json`` writes it, of which a person took out what is not wanted: squares found and not listed are not.

    Raises
    ------
    BadFileError
        If marks cannot be read.
    ConfigError
        If there are none.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is no folder of marks and no session")
    rows = _squares_of_session(folder) if (folder / "journal.sqlite").exists() else _squares_of_files(folder)
    if not rows:
        raise ConfigError(
            f"{folder}: no image with marks (<stem>.json beside it), and no square in a journal that was accepted,"
            " rejected or exposed"
        )
    return rows


def _squares_of_files(folder: Path) -> list[tuple[str, NDArray[Any], list[tuple[float, float, float]], bool]]:
    from drivers.images import image_files, read_image

    rows = []
    for file in image_files((folder,)):
        marks = file.with_suffix(".json")
        if not marks.exists():
            continue
        try:
            points = [(float(s["x"]), float(s["y"]), 1.0) for s in json.loads(marks.read_text(encoding="utf-8"))]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadFileError(f"{marks}: is no list of squares with x and y: {error!r}") from error
        rows.append((file.name, read_image(file)[0], points, True))
    return rows


def _squares_of_session(folder: Path) -> list[tuple[str, NDArray[Any], list[tuple[float, float, float]], bool]]:
    from agent import geometry
    from agent.recording.record import read

    record = read(folder)
    points: dict[str, list[tuple[float, float, float]]] = {}
    for grid in record.state.grids.values():
        for square in grid.squares.values():
            labels = [hole.quality_label for hole in square.holes.values() if hole.quality_label]
            word = {"accepted": 1.0, "rejected": 0.0}.get(square.word)
            quality = labels.count("good") / len(labels) if word is None and labels else word
            frame = record.header(square.frame_id) if square.frame_id and quality is not None else None
            if frame is not None and quality is not None:
                x, y = geometry.stage_to_pixel(frame, square.x_um, square.y_um)
                points.setdefault(square.frame_id, []).append((x, y, quality))
    return [(name, np.asarray(record.pixels(name)), rows, False) for name, rows in points.items()]


def _of_files(folder: Path) -> list[Row]:
    from drivers.images import image_files, read_image

    rows: list[Row] = []
    for file in image_files((folder,)):
        marks = file.with_suffix(".json")
        if not marks.exists():
            continue
        try:
            found = json.loads(marks.read_text(encoding="utf-8"))
            holes = found["holes"] if isinstance(found, dict) else found
            points = [
                (float(h["x"]), float(h["y"]), float(h["radius"]), h.get("state", h.get("label")) == "partial")
                for h in holes
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadFileError(f"{marks}: is no list of holes with x, y and radius: {error!r}") from error
        if points:
            rows.append((file.name, read_image(file)[0], points))
    return rows


def _of_session(folder: Path) -> list[Row]:
    """Mapped squares of a session; what an operator rejected is no hole, what the lattice alone knew is left open."""
    from agent import geometry
    from agent.recording.record import read

    record = read(folder)
    rows: list[Row] = []
    for grid in record.state.grids.values():
        for square in grid.squares.values():
            frame = record.header(square.map_frame_id) if square.map_frame_id else None
            if frame is None or not square.holes:
                continue
            scale = geometry.micron_per_pixel(frame)
            points = []
            for hole in square.holes.values():
                if hole.word != "rejected":
                    x, y = geometry.stage_to_pixel(frame, hole.x_um, hole.y_um)
                    unsure = hole.word != "accepted" and (hole.inferred or hole.label == "partial")
                    points.append((x, y, hole.radius_um / scale, unsure))
            if points:
                rows.append((f"{square.area_id}", np.asarray(record.pixels(square.map_frame_id)), points))
    return rows
