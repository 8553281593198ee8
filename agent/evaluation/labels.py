"""A finder or detector against labelled images, image by image.

Labels are one JSON file per image, named as the image: ``squares`` (``x, y, polygon, state``) or ``holes``
(``x, y, radius, state``) or ``points`` (``x, y, diameter_nm, group``), optional ``crop`` ``[x0, y0, x1, y1]``,
``ignore`` (polygons), ``pixel_size_angstrom``, ``lattice``. Marks with state ``partial``, with ``visible`` false,
outside the crop or in an ignored polygon are neither hits nor misses, and detections on them no false alarms.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from agent import inference
from agent.drawing import stretch
from agent.errors import BadFileError, ConfigError
from agent.evaluation.rule import Counts, in_discs, in_polygons, one_to_one, overlap
from agent.evaluation.sessions import CHOSEN, FOUND, WORST_PX, Judged, Metrics
from agent.evaluation.statistics import average_precision, roc_auc
from agent.messages import Level
from agent.report.pictures import colour_jpeg
from agent.settings import InferenceSettings
from models.gold.matching import matched

Family = str  # squares, holes or points
PITCH_SHARE, RADIUS_SHARE = 0.25, 0.35
MOST_BYTES = 64 << 20
Points = NDArray[np.float64]


def read_labels(path: Path) -> dict[str, Any]:
    """One file of labels.

    Raises
    ------
    BadFileError
        If it cannot be read, or holds neither squares nor holes nor points.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadFileError(f"{path}: {path.stat().st_size} bytes; at most {MOST_BYTES} are read")
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise BadFileError(f"{path}: no JSON: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(values, dict) or not any(isinstance(values.get(k), list) for k in ("squares", "holes", "points")):
        raise BadFileError(f"{path}: no labels: a list under squares, holes or points is expected")
    return values


def family_of(labels: dict[str, Any]) -> Family:
    """What is labelled."""
    return next(name for name in ("squares", "holes", "points") if isinstance(labels.get(name), list))


def judge_image(image: NDArray[Any], labels: dict[str, Any], model_name: str, name: str, variant: str) -> Judged:
    """Every metric of one labelled image by one model.

    Raises
    ------
    ConfigError
        If there is no such model.
    BadFileError
        If the labels are not usable.
    """
    begun = time.process_time()
    items = _ask(image, labels, model_name)
    seconds = time.process_time() - begun
    family = family_of(labels)
    try:
        metrics, counts, marks = _score(image, labels, family, items)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadFileError(f"labels of {name}: {type(error).__name__}: {error}") from error
    metrics["seconds_per_frame"] = seconds
    text = f"{counts.hits} of {counts.hits + counts.missed} found, {counts.false} false"
    case = {"what": name, "f1": counts.f1 or 0.0, "text": text, "picture": _picture(image, marks, items)}
    return Judged(name, variant, metrics, worst=(case,))


def _ask(image: NDArray[Any], labels: dict[str, Any], model_name: str) -> list[Any]:
    family = family_of(labels)
    pixel = labels.get("pixel_size_angstrom")
    level: Level = {"squares": "low", "holes": "medium", "points": "high"}[family]  # type: ignore[assignment]
    try:
        if family == "points":
            detector = inference.build_detector(model_name, InferenceSettings())
            return list(inference.detect(detector, image, pixel).objects)
        finding: Any = inference.ask(inference.build(model_name), level, image, pixel)
    except KeyError as error:
        raise ConfigError(str(error.args[0])) from error
    if family not in ("squares", "holes") or not hasattr(finding, family):
        raise ConfigError(f"{model_name} finds no {family}")
    return list(getattr(finding, family))


def _score(
    image: NDArray[Any], labels: dict[str, Any], family: Family, items: list[Any]
) -> tuple[Metrics, Counts, list[tuple[float, float, float]]]:
    marks = labels[family]
    ignore = [np.asarray(p, float) for p in labels.get("ignore", ())]
    x0, y0, x1, y1 = labels.get("crop") or (0, 0, image.shape[1], image.shape[0])
    centres = _xy([(mark["x"], mark["y"]) for mark in marks])
    counted = ~_outside(centres, (x0, y0, x1, y1)) & ~in_polygons(centres, ignore).any(axis=1)
    counted &= np.array([m.get("state") != "partial" and m.get("visible", True) for m in marks], bool)
    found = _xy([(item.x, item.y) for item in items])
    pairs, unsure = _pairs(labels, family, marks, centres, items, found)
    taken = {j for i, j in pairs if not counted[i]}
    free = {j for _, j in pairs}
    dropped = _outside(found, (x0, y0, x1, y1)) | in_polygons(found, ignore).any(axis=1)
    dropped |= unsure[:, ~counted].any(axis=1) if len(items) else False
    out = {j for j in range(len(items)) if (j not in free and dropped[j]) or j in taken}
    good = [(i, j) for i, j in pairs if counted[i]]
    counts = Counts(len(good), len(items) - len(good) - len(out), int(counted.sum()) - len(good))
    kept = [j for j in range(len(items)) if j not in out]
    hit = {j for _, j in good}
    scores = [float(items[j].score) for j in kept]
    wanted = [j in hit for j in kept]
    pixel = labels.get("pixel_size_angstrom")
    errors = [float(np.hypot(*(centres[i] - found[j]))) for i, j in good]
    metrics: Metrics = {
        f"{family}.precision": counts.precision,
        f"{family}.recall": counts.recall,
        f"{family}.f1": counts.f1,
        f"{family}.auc": roc_auc(wanted, scores),
        f"{family}.ap": average_precision(wanted, scores),
        f"{family}.centre_error_px": float(np.mean(errors)) if errors else None,
        f"{family}.centre_error_um": float(np.mean(errors)) * pixel * 1e-4 if errors and pixel else None,
    }
    metrics |= _own(family, marks, items, centres, found, counted, good, counts)
    radii = [float(m.get("radius", 0.0)) or 4.0 for m in marks]
    shown = [(float(x), float(y), r) for (x, y), r, keep in zip(centres, radii, counted, strict=True) if keep]
    return metrics, counts, shown


def _own(
    family: Family,
    marks: list[Any],
    items: list[Any],
    centres: Points,
    found: Points,
    counted: NDArray[np.bool_],
    good: Sequence[tuple[int, int]],
    counts: Counts,
) -> Metrics:
    """What only one family has: overlap of squares, the published one-to-one rule of holes, counts of points."""
    if family == "squares":
        boxes = [overlap(np.asarray(marks[i]["polygon"], float), np.asarray(items[j].vertices)) for i, j in good]
        return {"squares.box_iou": float(np.mean(boxes)) if boxes else None}
    if family == "holes":
        radii = np.array([item.radius_px for item in items])
        rule, _ = one_to_one(in_discs(centres[counted], found, radii))
        return {"holes.one_to_one_recall": rule.recall}
    marked, seen = float(counted.sum()), float(counts.hits + counts.false)
    return {"points.counted": seen, "points.count_error": (seen - marked) / marked if marked else None}


def _pairs(
    labels: dict[str, Any], family: Family, marks: list[Any], centres: Points, items: list[Any], found: Points
) -> tuple[list[tuple[int, int]], NDArray[np.bool_]]:
    """Pairs (mark, detection), and for each detection which marks it may belong to, shape (detections, marks)."""
    if family == "squares":
        inside = in_polygons(found, [np.asarray(mark["polygon"], float) for mark in marks])
        reach = np.array([max(np.ptp(np.asarray(m["polygon"], float), axis=0)) for m in marks])
        allowed = [(i, j) for i, j in matched(centres, found, reach) if inside[j, i]]
        return allowed, inside
    lattice = labels.get("lattice") or {}
    pitch = min(np.hypot(*lattice["a"]), np.hypot(*lattice["b"])) if "a" in lattice and "b" in lattice else None
    if family == "holes":
        radii = np.array([float(mark["radius"]) for mark in marks])
        reach = np.full(len(marks), PITCH_SHARE * pitch) if pitch else RADIUS_SHARE * radii
    else:
        pixel = labels.get("pixel_size_angstrom") or 1.0
        radii = np.array([max(float(m.get("diameter_nm") or 10.0) * 5.0 / pixel, 2.0) for m in marks])
        reach = radii
    return matched(centres, found, reach), in_discs(found, centres, np.maximum(radii, reach))


def _outside(points: Points, crop: Sequence[float]) -> NDArray[np.bool_]:
    x0, y0, x1, y1 = crop
    x, y = points[:, 0], points[:, 1]
    return np.asarray((x < x0 - 0.5) | (y < y0 - 0.5) | (x >= x1 - 0.5) | (y >= y1 - 0.5))


def _xy(points: Sequence[tuple[float, float]]) -> Points:
    return np.array(points, float).reshape(-1, 2)


def _picture(image: NDArray[Any], marks: Sequence[tuple[float, float, float]], items: Sequence[Any]) -> str:
    factor = WORST_PX / max(image.shape)
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    grey = cv2.resize(stretch(image), size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    picture: NDArray[Any] = np.repeat(grey[..., None], 3, axis=2)
    found = [(i.x, i.y, getattr(i, "radius_px", None) or 4.0 / factor) for i in items]
    for places, colour, share in ((found, FOUND, 1.0), (marks, CHOSEN, 0.6)):
        for x, y, radius in places:
            centre = (round((x + 0.5) * factor - 0.5), round((y + 0.5) * factor - 0.5))
            cv2.circle(picture, centre, max(2, round(share * radius * factor)), colour, 1, cv2.LINE_AA)
    return colour_jpeg(picture, 70).uri
