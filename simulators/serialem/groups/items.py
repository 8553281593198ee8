"""The Navigator's commands."""

from __future__ import annotations

import math

from simulators.serialem.buffers import ImageBuffer
from simulators.serialem.commands import Call, ScriptError, Values, command
from simulators.serialem.files import ImageFile
from simulators.serialem.groups import filing
from simulators.serialem.groups.stage import move
from simulators.serialem.navigator import MAP, POLYGON, NavItem, read
from simulators.serialem.program import SerialEM

LABEL_CHARACTERS = 16
CIRCLE_CORNERS = 32


@command("ReportIfNavOpen")
def report_if_nav_open(sem: SerialEM, call: Call) -> Values:
    """0 closed, 1 open, 2 with a file."""
    nav = sem.navigator
    return 0 if not nav.open else 2 if nav.file else 1


@command("OpenNavigator", "ReadNavFile")
def open_navigator(sem: SerialEM, call: Call) -> Values:
    """Open the Navigator, perhaps with the items of a file."""
    nav = sem.navigator
    nav.open = True
    if call.has(1):
        nav.items = read(sem.path(call.text(1)))
        nav.file, nav.selected = call.text(1), len(nav.items)
    return None


@command("MergeNavFile")
def merge_nav_file(sem: SerialEM, call: Call) -> Values:
    """Add the items of a file."""
    sem.navigator.need_open()
    for item in read(sem.path(call.text(1))):
        sem.navigator.add(item)
    return None


@command("SaveNavigator")
def save_navigator(sem: SerialEM, call: Call) -> Values:
    """Save all items, to the Navigator's own file unless another is named."""
    nav = sem.navigator
    nav.need_open()
    name = call.text(1) or nav.file
    if not name:
        raise ScriptError("The Navigator has no file yet: give a name")
    nav.write(sem.path(name), name)
    return None


@command("CloseNavigator")
def close_navigator(sem: SerialEM, call: Call) -> Values:
    """Close the Navigator; its items are gone."""
    sem.navigator.need_open()
    sem.navigator.open, sem.navigator.items, sem.navigator.file = False, [], ""
    sem.navigator.selected = 0
    return None


@command("ReportNavFile")
def report_nav_file(sem: SerialEM, call: Call) -> Values:
    """The Navigator's file, or NONE."""
    sem.navigator.need_open()
    return filing.name_parts(sem.navigator.file or "NONE", parts=call.integer(1) != 0)


@command("ReportNumTableItems")
def report_num_table_items(sem: SerialEM, call: Call) -> Values:
    """How many items there are."""
    sem.navigator.need_open()
    return len(sem.navigator.items)


@command("ReportNavItem", "ReportOtherItem")
def report_item(sem: SerialEM, call: Call) -> Values:
    """Index, x, y, z, type; label, note and more in variables."""
    nav = sem.navigator
    nav.need_open()
    if call.info.name == "ReportNavItem" and not nav.selected:
        raise ScriptError("There is no current Navigator item")
    index = nav.index(call.integer(1) if call.info.name == "ReportOtherItem" else 0)
    item = nav.items[index - 1]
    sem.script.variables |= {
        "NAVLABEL": item.label,
        "NAVNOTE": item.note,
        "NAVCOLOR": float(item.color),
        "NAVREGIS": float(item.registration),
        "NAVNUMHOLES": float(item.holes[0] * item.holes[1] - len(item.skipped)) if item.holes else 0.0,
        "NAVACQINDEX": float(sum(other.acquire for other in nav.items[:index])) if item.acquire else 0.0,
    }
    return index, item.x_um, item.y_um, item.z_um, item.kind


def _add(sem: SerialEM, x_um: float, y_um: float, z_um: float, group: int) -> int:
    nav = sem.navigator
    return nav.add(NavItem(nav.next_label(), x_um, y_um, z_um, group=group))


@command("AddStagePosAsNavPoint")
def add_stage_position(sem: SerialEM, call: Call) -> Values:
    """A point at a stage position; its index."""
    return _add(sem, call.number(1), call.number(2), call.number(3), call.integer(4))


@command("AddImagePosAsNavPoint")
def add_image_position(sem: SerialEM, call: Call) -> Values:
    """A point at an image point of a buffer, y down; its index."""
    image = sem.buffers.get(call.text(1))
    (x, y), piece, inside = image.point(call.number(2), call.number(3))
    index = _add(sem, x, y, call.number(4, image.stage_um[2]), call.integer(5))
    if piece >= 0:
        item = sem.navigator.items[index - 1]
        item.extra["PieceOn"] = str(piece)
        item.extra["XYinPc"] = f"{inside[0]:.1f} {inside[1]:.1f}"
    return index


def _polygon(sem: SerialEM, corners: list[tuple[float, float]], z_um: float) -> int:
    xs, ys = tuple(x for x, _ in corners), tuple(y for _, y in corners)
    nav = sem.navigator
    middle = sum(xs[:-1]) / (len(xs) - 1), sum(ys[:-1]) / (len(ys) - 1)
    return nav.add(NavItem(nav.next_label(), *middle, z_um, POLYGON, 1, xs_um=xs, ys_um=ys))


@command("AddImagePointsAsPolygon")
def add_image_points_as_polygon(sem: SerialEM, call: Call) -> Values:
    """A polygon from image points in two array variables; its index."""
    image = sem.buffers.get(call.text(1))
    arrays = [sem.array_variable(call.text(place)) for place in (2, 3)]
    if len(arrays[0]) != len(arrays[1]) or len(arrays[0]) < 3:
        raise ScriptError("Two arrays of the same length, 3 or more, are needed for a polygon")
    corners = [image.point(x, y)[0] for x, y in zip(*arrays, strict=True)]
    return _polygon(sem, [*corners, corners[0]], call.number(4, image.stage_um[2]))


@command("AddCirclePolygon")
def add_circle_polygon(sem: SerialEM, call: Call) -> Values:
    """A circle of that radius in µm about x, y, or about the stage; its index."""
    x, y = call.number(2, sem.scope.x_um), call.number(3, sem.scope.y_um)
    turns = [2 * math.pi * number / CIRCLE_CORNERS for number in range(CIRCLE_CORNERS)]
    corners = [(x + call.number(1) * math.cos(turn), y + call.number(1) * math.sin(turn)) for turn in turns]
    return _polygon(sem, [*corners, corners[0]], sem.scope.z_um)


@command("GetUniqueNavID")
def get_unique_nav_id(sem: SerialEM, call: Call) -> Values:
    """An id for a group of items."""
    return sem.navigator.unique_id()


@command("ChangeItemLabel")
def change_item_label(sem: SerialEM, call: Call) -> Values:
    """Another label, of at most 16 characters."""
    if len(call.text(2)) > LABEL_CHARACTERS:
        raise ScriptError(f"Label {call.text(2)} is too long: {LABEL_CHARACTERS} characters are allowed")
    sem.navigator.item(call.integer(1)).label = call.text(2)
    return None


@command("ChangeItemNote")
def change_item_note(sem: SerialEM, call: Call) -> Values:
    """Another note, or none."""
    sem.navigator.item(call.integer(1)).note = call.text(2)
    return None


@command("ChangeItemColor")
def change_item_color(sem: SerialEM, call: Call) -> Values:
    """Another colour, 0 to 5."""
    item = sem.navigator.item(call.integer(1))
    if not 0 <= call.integer(2) <= 5:
        raise ScriptError(f"Color {call.integer(2)} is out of range; 0 to 5 are allowed")
    item.color = call.integer(2)
    return None


@command("SetItemAcquire")
def set_item_acquire(sem: SerialEM, call: Call) -> Values:
    """Mark an item for acquisition, or not."""
    sem.navigator.item(call.integer(1)).acquire = call.integer(2, 1) != 0
    return None


@command("ReportItemAcquire")
def report_item_acquire(sem: SerialEM, call: Call) -> Values:
    """Whether an item is marked."""
    return int(sem.navigator.item(call.integer(1)).acquire)


@command("ReportNumNavAcquire")
def report_num_nav_acquire(sem: SerialEM, call: Call) -> Values:
    """How many items are marked for acquisition, and for tilt series."""
    sem.navigator.need_open()
    return sum(item.acquire for item in sem.navigator.items), 0


@command("ReportIfNavAcquiring")
def report_if_nav_acquiring(sem: SerialEM, call: Call) -> Values:
    """Whether the Navigator acquires; its state."""
    return int(sem.navigator.acquiring), 0


@command("SetSelectedNavItem")
def set_selected_nav_item(sem: SerialEM, call: Call) -> Values:
    """Select an item."""
    sem.navigator.selected = sem.navigator.index(call.integer(1))
    return None


@command("DeleteNavigatorItem")
def delete_navigator_item(sem: SerialEM, call: Call) -> Values:
    """Delete an item; the others move up."""
    nav = sem.navigator
    del nav.items[nav.index(call.integer(1)) - 1]
    nav.selected = min(nav.selected, len(nav.items))
    return None


@command("NavIndexWithLabel", "NavIndexWithNote")
def nav_index_with(sem: SerialEM, call: Call) -> Values:
    """Index of the first item with that label or note, or 0."""
    sem.navigator.need_open()
    name = "label" if call.info.name == "NavIndexWithLabel" else "note"
    wanted = call.text(1).lower()
    items = enumerate(sem.navigator.items, start=1)
    return next((index for index, item in items if str(getattr(item, name)).lower() == wanted), 0)


@command("MoveToNavItem")
def move_to_nav_item(sem: SerialEM, call: Call) -> Values:
    """Bring an item into the middle at the present image shift."""
    _go(sem, sem.navigator.item(call.integer(1)))
    return None


def _go(sem: SerialEM, item: NavItem) -> None:
    x, y = sem.scope.image_shift_um
    height = item.z_um if abs(item.z_um - sem.scope.z_um) > 1e-3 else None
    move(sem, item.x_um - x, item.y_um - y, height)


@command("RealignToNavItem")
def realign_to_nav_item(sem: SerialEM, call: Call) -> Values:
    """Go to an item, and by image shift to where it lies on the map that holds it."""
    item = sem.navigator.item(call.integer(1))
    found = [
        image
        for other in sem.navigator.items
        if other.kind == MAP and (image := sem.navigator.map_images.get(other.map_id)) and _holds(image, item)
    ]
    if not found:
        raise ScriptError("There is no map image that contains this item well enough to realign to it")
    if not (sem.scope.valves_open and sem.scope.beam_current > 0):
        raise ScriptError("Realign to item: the images are dark")
    best = min(found, key=lambda image: math.dist(image.centre_um, (item.x_um, item.y_um)))
    sem.shift_to(0.0, 0.0)
    _go(sem, item)
    sem.wait(20.0)
    sem.check_stop()
    here = sem.scope.misplaced_um
    if sem.shift_to(best.misplaced_um[0] - here[0], best.misplaced_um[1] - here[1]):
        raise ScriptError("Realign to item: the image shift needed is beyond the limit")
    return None


def _holds(image: ImageBuffer, item: NavItem) -> bool:
    x, y = image.to_image(item.x_um, item.y_um)
    rows, columns = image.pixels.shape[:2]
    return bool(0 <= x <= columns and 0 <= y <= rows)


@command("UpdateItemZ")
def update_item_z(sem: SerialEM, call: Call) -> Values:
    """The stage's height for an item."""
    sem.navigator.item(call.integer(1)).z_um = sem.scope.z_um
    return None


@command("ShiftItemsByMicrons")
def shift_items_by_microns(sem: SerialEM, call: Call) -> Values:
    """Shift all items."""
    dx, dy = call.number(1), call.number(2)
    for item in sem.navigator.items:
        item.x_um, item.y_um = item.x_um + dx, item.y_um + dy
        item.xs_um, item.ys_um = tuple(x + dx for x in item.xs_um), tuple(y + dy for y in item.ys_um)
    return None


# -------------------------------------------------------------------------------------------------- maps


@command("NewMap")
def new_map(sem: SerialEM, call: Call) -> Values:
    """A map from the image in A, saved first where it was not, or from the montage overview in B; its index."""
    nav = sem.navigator
    nav.need_open()
    letter = "B" if 1 in sem.buffers.images and sem.buffers.get("B").pieces else "A"
    image = sem.buffers.get(letter)
    if not image.file:
        file = filing.current(sem)
        filing.remember(sem, letter, file, file.append(image))
        image = sem.buffers.get(letter)
    rows, columns = image.pixels.shape[:2]
    corners = [image.to_stage(x, y) for x, y in ((0, 0), (columns, 0), (columns, rows), (0, rows), (0, 0))]
    a, b, c, d = image.matrix_or_refuse()
    det = a * d - b * c
    item = NavItem(
        nav.next_label(),
        *image.centre_um,
        image.stage_um[2],
        MAP,
        2,
        call.text(2),
        xs_um=tuple(x for x, _ in corners),
        ys_um=tuple(y for _, y in corners),
        map_file=image.file,
        map_section=image.section,
        map_id=nav.unique_id(),
        extra={
            "MapWidthHeight": f"{columns} {rows}",
            "MapBinning": f"{image.binning:g}",
            "MapMagInd": str(image.mag_index),
            "MapScaleMat": f"{d / det:.6f} {-b / det:.6f} {c / det:.6f} {-a / det:.6f}",
            "MapMontage": str(int(bool(image.pieces))),
            "RawStageXY": f"{image.stage_um[0]:.4f} {image.stage_um[1]:.4f}",
        },
    )
    sem.script.variables["MAPID"] = float(item.map_id)
    index = nav.add(item)
    nav.map_images[item.map_id] = image
    return index


@command("LoadOtherMap", "LoadNavMap")
def load_map(sem: SerialEM, call: Call) -> Values:
    """The image of a map into the read buffer Q, or another."""
    other = call.info.name == "LoadOtherMap"
    item = sem.navigator.item(call.integer(1) if other else 0)
    if item.kind != MAP:
        raise ScriptError(f"Navigator item {item.label} is not a map")
    image = sem.navigator.map_images.get(item.map_id)
    if image is None:
        file = ImageFile.old(sem.path(item.map_file), item.map_file)
        try:
            image = ImageBuffer(file.read(item.map_section), file=item.map_file, section=item.map_section)
        finally:
            file.close()
    sem.buffers.put(call.text(2 if other else 1, "Q"), image)
    return None
