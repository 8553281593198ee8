"""The difference of two sessions as one self-contained page: what changed, why, with pictures; and as JSON."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from agent import geometry
from agent.drawing import stretch
from agent.errors import BadFileError
from agent.recording.difference import KINDS, Change, Difference
from agent.recording.record import Record
from agent.report import environment
from agent.report.pictures import Picture, colour_jpeg
from agent.session import events as ev
from agent.whole import write_whole

MOST_PICTURES = 24
MOST_ROWS = 400
SIDE_PX = 260
THEN, NOW = (92, 116, 255), (255, 214, 51)  # blue and yellow, told apart with every common colour blindness


@dataclass(frozen=True, slots=True)
class Card:
    """A change with its picture."""

    change: Change
    picture: Picture


def render(then: Record, now: Record, difference: Difference, out: Path, notes: list[str]) -> tuple[Path, Path]:
    """Write ``difference.html`` and ``difference.json`` into the folder ``out`` and return their paths.

    Parameters
    ----------
    then, now
        The two records.
    difference
        What is different between them.
    out
        Folder, made where it is missing.
    notes
        Lines about the replay itself: where it left the recording, what was never recorded.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    shown = [Card(change, picture_of(then, now, change)) for change in difference.changes[:MOST_PICTURES]]
    tally = Counter((change.kind, change.level) for change in difference.changes)
    table = [
        (kind, tally[kind, "square"], tally[kind, "hole"])
        for kind in KINDS
        if tally[kind, "square"] + tally[kind, "hole"]
    ]
    page = (
        environment()
        .get_template("difference.html.jinja")
        .render(
            difference=difference,
            then=then,
            now=now,
            cards=shown,
            rows=difference.changes[:MOST_ROWS],
            rows_left_out=max(0, len(difference.changes) - MOST_ROWS),
            tally=table,
            notes=notes,
        )
    )
    as_json = json.dumps({**difference.plain(), "notes": notes}, indent=1, ensure_ascii=False)
    return write_whole(out / "difference.html", page), write_whole(out / "difference.json", as_json + "\n")


def picture_of(then: Record, now: Record, change: Change) -> Picture:
    """The target on the frame that shows it, with what was found there then (blue) and now (yellow, dashed)."""
    for record in (then, now):
        received = _frame(record, change)
        if received is None:
            continue
        try:
            image = record.pixels(received.frame.frame_id)
        except BadFileError:
            continue
        return _crop(image, received, change)
    return Picture(note="no frame of it was recorded")


def _frame(record: Record, change: Change) -> ev.FrameReceived | None:
    area_id = change.then_id if change.then_id else change.now_id
    square = record.state.square(area_id)
    if change.level == "hole":
        frame_id = square.map_frame_id if square else ""
    else:
        frame_id = square.frame_id if square else ""
    if frame_id in record.frames:
        return record.frames[frame_id]
    level = "medium" if change.level == "hole" else "low"
    near = [
        (geometry.distance(geometry.centre_um(r.frame), (change.x_um, change.y_um)), n, r)
        for n, r in enumerate(record.frames.values())
        if r.frame.level == level and r.grid_id == change.grid_id
    ]
    return min(near)[2] if near else None


def _crop(image: Any, received: ev.FrameReceived, change: Change) -> Picture:
    frame = received.frame
    scale = geometry.micron_per_pixel(frame)
    half = max(int(1.6 * change.size_um / scale), 24) if change.level == "square" else max(int(3.5 / scale), 24)
    x, y = geometry.stage_to_pixel(frame, change.x_um, change.y_um)
    rows, columns = image.shape
    left, top = round(x) - half, round(y) - half
    window = image[max(top, 0) : min(top + 2 * half, rows), max(left, 0) : min(left + 2 * half, columns)]
    if window.size == 0:
        return Picture(note="it lies outside the frame")
    canvas = np.full((2 * half, 2 * half), 128, np.uint8)
    at_y, at_x = max(-top, 0), max(-left, 0)
    canvas[at_y : at_y + window.shape[0], at_x : at_x + window.shape[1]] = stretch(window)
    enlarged = SIDE_PX / (2 * half)
    grey = cv2.resize(canvas, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC if enlarged > 1 else cv2.INTER_AREA)
    picture = np.repeat(grey[..., None], 3, axis=2)
    centre = (round((x - left + 0.5) * enlarged - 0.5), round((y - top + 0.5) * enlarged - 0.5))
    radius = max(round(0.5 * change.size_um / scale * enlarged), 4)
    if change.then_id:
        cv2.circle(picture, centre, radius, THEN, 2, cv2.LINE_AA)
    if change.now_id:
        for angle in range(0, 360, 30):
            cv2.ellipse(picture, centre, (radius + 3, radius + 3), 0, angle, angle + 16, NOW, 2, cv2.LINE_AA)
    return colour_jpeg(picture, 82)
