"""Setting up and taking montages."""

from __future__ import annotations

import math
from dataclasses import replace

from simulators.serialem.buffers import ImageBuffer, Matrix, Point, apply, inverse
from simulators.serialem.commands import Call, ScriptError, Values, command
from simulators.serialem.groups import filing
from simulators.serialem.groups.camera import take
from simulators.serialem.groups.stage import move
from simulators.serialem.montage import MontageSetup, Overview, pieces_for
from simulators.serialem.navigator import POLYGON
from simulators.serialem.program import SerialEM

OVERLAP = 0.1
MOST_OFF_PX = 4.0


def _letter(sem: SerialEM) -> str:
    """The set that montages use: Mont-map, or View or Search where a script said so."""
    return {2: "V", 3: "S"}.get(int(sem.user_settings.get("MontageSet", 0)), "M")


def _frame_px(sem: SerialEM, letter: str) -> tuple[int, int]:
    rows, columns = sem.scope.settings.presets[sem.level_of_set(letter)].shape
    binning = int(sem.sets[letter].binning)
    return columns // binning, rows // binning


def _matrix(sem: SerialEM, letter: str) -> Matrix:
    """µm per pixel, y down, at tilt 0."""
    a, b, c, d = sem.camera_to_stage(sem.level_of_set(letter))
    binning = sem.sets[letter].binning
    return a * binning, -b * binning, c * binning, -d * binning


def _overlap(frame_px: tuple[int, int], part: float) -> tuple[int, int]:
    return int(frame_px[0] * part), int(frame_px[1] * part)


@command("OpenNewMontage")
def open_new_montage(sem: SerialEM, call: Call) -> Values:
    """A montage of nx times ny pieces about the present place, into a new file."""
    letter = _letter(sem)
    frame = _frame_px(sem, letter)
    columns, rows = call.integer(1), call.integer(2)
    if min(columns, rows) < 1:
        raise ScriptError(f"A montage of {columns} x {rows} pieces is none")
    filing.open_file(sem, call.text(3), montage=True)
    sem.montage = MontageSetup(columns, rows, _overlap(frame, OVERLAP), frame, letter=letter)
    return None


@command("SetupFullMontage")
def setup_full_montage(sem: SerialEM, call: Call) -> Values:
    """A montage of the whole grid with an overlap (a part of 1, or 0 for the usual), into a new file."""
    letter = _letter(sem)
    frame = _frame_px(sem, letter)
    overlap = _overlap(frame, call.number(1) or OVERLAP)
    pixel_um = sem.pixel_um(sem.level_of_set(letter)) * sem.sets[letter].binning
    radius = min(sem.scope.grid_radius_um, sem.scope.settings.stage_limit_um)
    columns, rows = (pieces_for(2 * radius / pixel_um, frame[axis], overlap[axis]) for axis in (0, 1))
    filing.open_file(sem, call.text(2), montage=True)
    sem.montage = MontageSetup(columns, rows, overlap, frame, (0.0, 0.0), radius_um=radius, letter=letter)
    return None


@command("SetupPolygonMontage")
def setup_polygon_montage(sem: SerialEM, call: Call) -> Values:
    """A montage of a polygon of the Navigator, into a new file; pieces, nx, ny."""
    item = sem.navigator.item(call.integer(1))
    if item.kind != POLYGON or len(item.xs_um) < 3:
        raise ScriptError(f"Navigator item {item.label} is not a polygon")
    letter = _letter(sem)
    frame, matrix = _frame_px(sem, letter), _matrix(sem, letter)
    overlap = _overlap(frame, call.number(2) or OVERLAP)
    outline = tuple(zip(item.xs_um, item.ys_um, strict=True))
    points = [apply(inverse(matrix), (0.0, 0.0), (0.0, 0.0), point) for point in outline]
    low = min(x for x, _ in points), min(y for _, y in points)
    high = max(x for x, _ in points), max(y for _, y in points)
    columns, rows = (pieces_for(high[axis] - low[axis], frame[axis], overlap[axis]) for axis in (0, 1))
    centre = apply(matrix, (0.0, 0.0), (0.0, 0.0), ((low[0] + high[0]) / 2, (low[1] + high[1]) / 2))
    filing.open_file(sem, call.text(3), montage=True)
    sem.montage = MontageSetup(columns, rows, overlap, frame, centre, outline, letter=letter)
    return len(sem.montage.pieces(matrix, centre)), columns, rows


def _open_montage(sem: SerialEM) -> MontageSetup:
    if sem.montage is None:
        raise ScriptError("There is no open montage file")
    return sem.montage


@command("SetMontageParams")
def set_montage_params(sem: SerialEM, call: Call) -> Values:
    """Overlaps and frame sizes in pixels, -1 leaves them; before the first piece."""
    setup = _open_montage(sem)
    if setup.started:
        raise ScriptError("Montage parameters cannot be changed after the first piece")
    ox, oy = (call.integer(place, -1) for place in (2, 3))
    fx, fy = (call.integer(place, -1) for place in (4, 5))
    largest = _frame_px(sem, setup.letter)
    frame = min(largest[0], fx) if fx > 0 else setup.frame_px[0], min(largest[1], fy) if fy > 0 else setup.frame_px[1]
    overlap = ox if ox >= 0 else setup.overlap_px[0], oy if oy >= 0 else setup.overlap_px[1]
    if overlap[0] >= frame[0] or overlap[1] >= frame[1]:
        raise ScriptError(f"Overlap {overlap} does not fit a frame of {frame} pixels")
    setup.frame_px, setup.overlap_px = frame, overlap
    return None


@command("SetMontPanelParams")
def set_mont_panel_params(sem: SerialEM, call: Call) -> Values:
    """Display choices that change nothing here."""
    return None


@command("ParamSetToUseForMontage")
def param_set_to_use_for_montage(sem: SerialEM, call: Call) -> Values:
    """1 Mont-map, 2 View, 3 Search; negative is off again."""
    number = call.integer(1)
    if abs(number) not in (1, 2, 3):
        raise ScriptError(f"Parameter set {number} for montages is unknown; there are 1, 2, 3")
    sem.user_settings["MontageSet"] = float(max(0, number))
    return None


@command("ReportNumMontagePieces")
def report_num_montage_pieces(sem: SerialEM, call: Call) -> Values:
    """How many pieces the open montage has."""
    setup = _open_montage(sem)
    return len(setup.pieces(_matrix(sem, setup.letter), _centre(sem, setup)))


def _centre(sem: SerialEM, setup: MontageSetup) -> Point:
    if setup.centre_um is not None:
        return setup.centre_um
    x, y = sem.scope.image_shift_um
    return sem.scope.x_um + x, sem.scope.y_um + y


@command("Montage", "M")
def montage(sem: SerialEM, call: Call) -> Values:
    """Take all pieces: the overview comes into B, the last piece into A; the stage returns."""
    setup = _open_montage(sem)
    file = filing.current(sem)
    centre = _centre(sem, setup)
    pieces = setup.pieces(_matrix(sem, setup.letter), centre)
    if not pieces:
        raise ScriptError("No piece of the montage is inside its outline")
    back = sem.scope.x_um, sem.scope.y_um
    shift = sem.scope.image_shift_um
    setup.started = True
    overview = Overview(setup)
    for piece in pieces:
        sem.check_stop()
        x_um, y_um = _within(sem, piece.centre_um[0] - shift[0], piece.centre_um[1] - shift[1])
        move(sem, x_um, y_um)
        image = take(sem, setup.letter)
        _check_place(sem, image, (x_um + shift[0], y_um + shift[1]))
        image = _cut(image, setup.frame_px)
        where = f"{int(piece.x_px)} {int(setup.size_px[1] - setup.frame_px[1] - piece.y_px)} 0"
        file.append(replace(image, extra={"PieceCoordinates": where}))
        overview.add(piece, image.pixels)
    whole = replace(overview.buffer(setup, pieces, image, centre), file=file.name, section=0)
    sem.buffers.put("A", whole)
    sem.buffers.put("A", image)
    move(sem, *back)
    return None


def _check_place(sem: SerialEM, image: ImageBuffer, wanted_um: Point) -> None:
    """Refuse a recorded image of a place that is not the piece's own: the overview would show it where it is not."""
    off = math.dist(image.centre_um, wanted_um)
    if off > MOST_OFF_PX * sem.pixel_um(sem.level_of_set(image.set_letter)) * image.binning:
        x, y = wanted_um
        raise ScriptError(
            f"never recorded: the piece of the montage at ({x:.1f}, {y:.1f}) um; the nearest is {off:.1f} um away"
        )


def _within(sem: SerialEM, x_um: float, y_um: float) -> Point:
    """A stage position moved inside the limits."""
    limit = sem.scope.settings.stage_limit_um
    return max(-limit, min(limit, x_um)), max(-limit, min(limit, y_um))


def _cut(image: ImageBuffer, frame_px: tuple[int, int]) -> ImageBuffer:
    """The middle of an image."""
    columns, rows = frame_px
    top, left = (image.pixels.shape[0] - rows) // 2, (image.pixels.shape[1] - columns) // 2
    return replace(image, pixels=image.pixels[top : top + rows, left : left + columns])
