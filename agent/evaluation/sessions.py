"""One recorded session judged: what a pair of finders makes of its frames, against what was chosen and measured there.

Truth is what somebody chose (holes that were exposed, accepted by an operator, or chosen in the program that the
session was imported from) and what the micrographs turned out like. Nobody chooses everything that is good, so
precision is a lower bound.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from agent import geometry, inference, recording
from agent.drawing import stretch
from agent.errors import BadFileError, ConfigError
from agent.evaluation import timing
from agent.evaluation.rule import Counts, in_discs, in_polygons, one_to_one, overlap
from agent.evaluation.statistics import average_precision, roc_auc
from agent.messages import Frame
from agent.recording.record import Record
from agent.report.pictures import colour_jpeg
from agent.session import events as ev
from agent.session.state import Hole, Square

WORST_PX = 420
WORST_EACH = 2
CHOSEN, FOUND = (255, 214, 51), (92, 116, 255)
Metrics = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Variant:
    """What is judged: a name, and the models in the place of what the session itself found (empty: its own)."""

    name: str = "as recorded"
    squares: str = ""
    holes: str = ""

    @classmethod
    def of(cls, text: str) -> "Variant":
        """A variant written as ``squares=NAME,holes=NAME``; empty: as recorded.

        Raises
        ------
        ConfigError
            If it is written otherwise, or there is no such model.
        """
        values = dict.fromkeys(("squares", "holes"), "")
        for part in filter(None, text.split(",")):
            family, equals, name = part.partition("=")
            if not equals or family not in values:
                raise ConfigError(f"{text!r}: write squares=NAME, holes=NAME, or both with a comma")
            if name not in inference.REGISTRY:
                raise ConfigError(f"{text!r}: no model {name!r}; there are {', '.join(sorted(inference.REGISTRY))}")
            values[family] = name
        return cls(text or "as recorded", **values)


@dataclass(frozen=True)
class Judged:
    """One session by one variant."""

    session: str
    variant: str
    metrics: Metrics
    curves: dict[str, list[float]] = field(default_factory=dict)
    worst: tuple[dict[str, Any], ...] = ()
    trouble: str = ""

    def row(self) -> dict[str, Any]:
        """As one row of a table."""
        return {"session": self.session, "variant": self.variant, "trouble": self.trouble, **self.metrics}


@dataclass(frozen=True)
class Region:
    """One predicted place: on the stage in micrometres."""

    x_um: float
    y_um: float
    radius_um: float
    score: float
    vertices_um: tuple[tuple[float, float], ...] = ()


def judge(folder: Path, variant: Variant) -> Judged:
    """Judge the session in ``folder``; what goes wrong is in ``trouble`` and costs this session only."""
    try:
        record = recording.read(folder)
        return judge_record(record, variant)
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return Judged(folder.name, variant.name, {}, trouble=said)


def judge_record(record: Record, variant: Variant) -> Judged:
    """Every metric that this session has truth for; the others are None."""
    spent: list[float] = []
    metrics: Metrics = {}
    worst: list[dict[str, Any]] = []
    trouble: list[str] = []
    metrics |= _squares(record, variant, spent, trouble)
    metrics |= _holes(record, variant, spent, worst, trouble)
    found = timing.outcomes(record)
    costs = timing.costs_s(record)
    table = timing.curves(found, costs)
    metrics["micrographs.judged"] = float(len(found))
    metrics["micrographs.good"] = float(sum(outcome.good for outcome in found))
    metrics["micrographs.good_share"] = _mean([float(outcome.good) for outcome in found])
    hours = table["seconds"][-1] / 3600 if table else 0.0
    metrics["micrographs.good_per_hour"] = table["session"][-1] / hours if hours else None
    for name in ("session", "rank-only", "snowball"):
        metrics[f"order.{name}"] = timing.share_of_oracle(table, name)
    metrics["objects.per_micrograph"] = _objects(record)
    metrics["seconds_per_frame"] = _mean(spent)
    worst.sort(key=lambda case: case["f1"])
    name = record.state.name or record.folder.name
    return Judged(
        record.folder.name or name, variant.name, metrics, table, tuple(worst[:WORST_EACH]), "; ".join(trouble)
    )


def chosen(area: Square | Hole) -> bool:
    """Whether somebody chose this place: it was visited, accepted, or chosen in another program."""
    if area.word:
        return area.word == "accepted"
    visited = bool(area.map_frame_id) if isinstance(area, Square) else bool(area.frame_id) or area.dose_e_per_a2 > 0
    return visited or area.state == "exposed" or area.why.endswith(", chosen there")


# ---------------------------------------------------------------------------------------------- squares


def _squares(record: Record, variant: Variant, spent: list[float], trouble: list[str]) -> Metrics:
    counts = Counts()
    overlaps: list[float] = []
    wanted: list[bool] = []
    scores: list[float] = []
    any_truth = False
    for grid in record.state.grids.values():
        truth = [square for square in grid.squares.values() if chosen(square)]
        if variant.squares:
            shots = [s for s in record.shots if s.frame.level == "low" and s.received.grid_id == grid.grid_id]
            regions = _find_squares(record, shots, variant.squares, spent, trouble)
        else:
            regions = [_region_of(square) for square in grid.squares.values()]
        if not truth or not regions:
            continue
        any_truth = True
        here = in_polygons(_points(truth), [np.array(region.vertices_um) for region in regions])
        counted, pairs = one_to_one(here)
        counts += counted
        for location, region in pairs:
            marks = np.array(_region_of(truth[location]).vertices_um)
            overlaps.append(overlap(marks, np.array(regions[region].vertices_um)))
        wanted += [bool(hit) for hit in np.atleast_1d(here.any(axis=0))]
        scores += [region.score for region in regions]
    return {
        "squares.recall": counts.recall if any_truth else None,
        "squares.box_iou": _mean(overlaps),
        "squares.auc_chosen": roc_auc(wanted, scores),
        "squares.ap_chosen": average_precision(wanted, scores),
    }


def _region_of(area: Square) -> Region:
    half = area.size_um / 2
    box = tuple(
        (area.x_um + dx, area.y_um + dy) for dx, dy in ((-half, -half), (half, -half), (half, half), (-half, half))
    )
    return Region(area.x_um, area.y_um, half, area.score, area.vertices_um or box)


def _find_squares(
    record: Record, shots: Iterable[recording.Shot], model: str, spent: list[float], trouble: list[str]
) -> list[Region]:
    """Squares of the atlas frames by another model; one seen on several frames counts once, the whole one first."""
    found: list[tuple[bool, Region]] = []
    for shot in shots:
        finding = _ask(record, shot.frame, model, spent, trouble)
        for square in finding.squares if finding is not None else ():
            corners = tuple(geometry.pixel_to_stage(shot.frame, *corner) for corner in square.vertices)
            x, y = geometry.pixel_to_stage(shot.frame, square.x, square.y)
            size = np.sqrt(max(square.area_px, 1.0)) * geometry.micron_per_pixel(shot.frame)
            found.append((square.touches_edge, Region(x, y, size / 2, float(square.score), corners)))
    found.sort(key=lambda pair: pair[0])
    kept: list[Region] = []
    for _, region in found:
        if all(np.hypot(k.x_um - region.x_um, k.y_um - region.y_um) > max(k.radius_um, region.radius_um) for k in kept):
            kept.append(region)
    return kept


# ---------------------------------------------------------------------------------------------- holes


def _holes(
    record: Record, variant: Variant, spent: list[float], worst: list[dict[str, Any]], trouble: list[str]
) -> Metrics:
    counts = Counts()
    errors: list[float] = []
    wanted: list[bool] = []
    good: list[bool] = []
    scores: list[float] = []
    good_scores: list[float] = []
    for square in [s for grid in record.state.grids.values() for s in grid.squares.values()]:
        truth = [hole for hole in square.holes.values() if chosen(hole)]
        received = record.frames.get(square.map_frame_id) or _shown(record, square)
        if not truth:
            continue
        if variant.holes:
            regions = _find_holes(record, received, variant.holes, spent, trouble)
            if regions is None:
                continue
        else:
            regions = [Region(h.x_um, h.y_um, h.radius_um, h.score) for h in square.holes.values()]
        inside = in_discs(_points(truth), _centres(regions), np.array([region.radius_um for region in regions]))
        counted, pairs = one_to_one(inside)
        counts += counted
        errors += [
            geometry.distance((truth[i].x_um, truth[i].y_um), (regions[j].x_um, regions[j].y_um)) for i, j in pairs
        ]
        wanted += [bool(hit) for hit in np.atleast_1d(inside.any(axis=0))]
        scores += [region.score for region in regions]
        for location, region in pairs:
            if truth[location].quality is not None:
                good.append(truth[location].quality_label == "good")
                good_scores.append(regions[region].score)
        if received is not None and counted.f1 is not None:
            worst.append(_case(record, square, received, truth, regions, counted))
    measured = variant.holes or counts.hits + counts.missed
    return {
        "holes.precision": counts.precision if measured else None,
        "holes.recall": counts.recall,
        "holes.f1": counts.f1,
        "holes.centre_error_um": _mean(errors),
        "holes.auc_chosen": roc_auc(wanted, scores),
        "holes.ap_chosen": average_precision(wanted, scores),
        "holes.auc_good": roc_auc(good, good_scores),
        "holes.ap_good": average_precision(good, good_scores),
    }


def _shown(record: Record, square: Square) -> ev.FrameReceived | None:
    """The medium-mag frame that was taken of a square: of an import, the coarsest one whose centre lies in it."""
    near = [
        received
        for received in record.frames.values()
        if received.frame.level == "medium"
        and geometry.distance(geometry.centre_um(received.frame), (square.x_um, square.y_um)) < 0.75 * square.size_um
    ]
    return max(near, key=lambda received: received.frame.pixel_size_angstrom, default=None)


def _find_holes(
    record: Record, received: ev.FrameReceived | None, model: str, spent: list[float], trouble: list[str]
) -> list[Region] | None:
    if received is None:
        return None
    frame = received.frame
    finding = _ask(record, frame, model, spent, trouble)
    if finding is None:
        return None
    scale = geometry.micron_per_pixel(frame)
    return [
        Region(*geometry.pixel_to_stage(frame, hole.x, hole.y), hole.radius_px * scale, float(hole.score))
        for hole in finding.holes
    ]


def _ask(record: Record, frame: Frame, model: str, spent: list[float], trouble: list[str]) -> Any:
    try:
        image = record.pixels(frame.frame_id)
    except BadFileError as error:
        trouble.append(str(error))
        return None
    begun = time.process_time()
    finding = inference.ask(_built(model), frame.level, image, frame.pixel_size_angstrom)
    spent.append(time.process_time() - begun)
    return finding


_models: dict[str, Any] = {}


def _built(name: str) -> Any:
    if name not in _models:
        _models[name] = inference.build(name)
    return _models[name]


def _case(
    record: Record,
    square: Square,
    received: ev.FrameReceived,
    truth: list[Hole],
    regions: list[Region],
    counts: Counts,
) -> dict[str, Any]:
    """One square as a picture: chosen holes in yellow, predicted ones in blue."""
    found = f"{counts.hits} of {counts.hits + counts.missed} chosen holes found"
    text = f"{found}, {counts.false} regions beside them"
    case = {"what": square.area_id, "f1": counts.f1 or 0.0, "text": text, "picture": ""}
    try:
        image = record.pixels(received.frame.frame_id)
    except BadFileError:
        return case
    factor = WORST_PX / max(image.shape)
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    grey = cv2.resize(stretch(image), size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    picture: NDArray[Any] = np.repeat(grey[..., None], 3, axis=2)
    scale = factor / geometry.micron_per_pixel(received.frame)
    for places, colour in (
        ([(r.x_um, r.y_um, r.radius_um) for r in regions], FOUND),
        ([(h.x_um, h.y_um, 0.6 * h.radius_um) for h in truth], CHOSEN),
    ):
        for x_um, y_um, radius in places:
            x, y = geometry.stage_to_pixel(received.frame, x_um, y_um)
            centre = (round((x + 0.5) * factor - 0.5), round((y + 0.5) * factor - 0.5))
            cv2.circle(picture, centre, max(2, round(radius * scale)), colour, 1, cv2.LINE_AA)
    return case | {"picture": colour_jpeg(picture, 70).uri}


# ---------------------------------------------------------------------------------------------- parts


def _points(areas: Iterable[Square | Hole]) -> NDArray[np.float64]:
    return np.array([(area.x_um, area.y_um) for area in areas], float).reshape(-1, 2)


def _centres(regions: Iterable[Region]) -> NDArray[np.float64]:
    return np.array([(region.x_um, region.y_um) for region in regions], float).reshape(-1, 2)


def _objects(record: Record) -> float | None:
    """Objects (gold, vesicles) per micrograph that a detector looked at."""
    looked = [len(item.event.objects) for item in record.happened if isinstance(item.event, ev.ObjectsDetected)]
    return _mean([float(number) for number in looked])


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
