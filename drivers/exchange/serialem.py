"""SerialEM sessions on disk: .nav files, .mdoc files, and the MRC, TIFF or EER images beside them."""

import math
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from agent.errors import BadFileError
from agent.messages import Level, Stage
from drivers.exchange.found import Found, FoundFrame, FoundHole, FoundSquare, stage_within
from drivers.serialem.files import Recorded, read_section, recorded
from drivers.serialem.mdoc import read_mdoc
from drivers.serialem.navfile import MAP, POLYGON, MapTransform, NavItem, read_nav

LOW_ANGSTROM, MEDIUM_ANGSTROM = 2000.0, 50.0  # coarser is low-mag, coarser medium-mag, finer high-mag
OURS = re.compile(r"^(?P<square>.+-S\d+)(-H\d+)?$")
NOTE = re.compile(r"\b(?P<name>size|radius|score) (?P<value>-?\d+(\.\d+)?)")


def level_of(pixel_size_angstrom: float) -> Level:
    """The level that a pixel size stands for."""
    if pixel_size_angstrom >= LOW_ANGSTROM:
        return "low"
    return "medium" if pixel_size_angstrom >= MEDIUM_ANGSTROM else "high"


def read_serialem(folder: Path) -> Found:
    """What a SerialEM session folder, or a single .nav or .mdoc file, holds; odd and damaged files are listed.

    Raises
    ------
    BadFileError
        If there is no such folder or file.
    """
    if not folder.exists():
        raise BadFileError(f"{folder}: no such folder or file; expected that of a SerialEM session")
    found = Found(name=folder.resolve().stem, software="SerialEM", source=folder.resolve().name)
    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    transforms: dict[tuple[str, int], MapTransform] = {}
    for path in files:
        if path.suffix.lower() == ".nav":
            try:
                _items(found, path, read_nav(path), transforms)
            except BadFileError as error:
                found.note(str(error).replace(str(path), path.name))
    seen: set[tuple[str, int]] = set()
    for path in files:
        if path.suffix.lower() != ".mdoc":
            continue
        try:
            images = list(recorded(read_mdoc(path)))
        except BadFileError as error:
            found.note(str(error).replace(str(path), path.name))
            continue
        for image in images:
            _image(found, path, image, transforms)
            seen.add((image.file.name, image.section))
    for path, section, item in _maps(found, files, seen):
        _map_image(found, path, section, item)
    return found


# ---------------------------------------------------------------------------------------------- Navigator


def _items(found: Found, path: Path, items: list[NavItem], transforms: dict[tuple[str, int], MapTransform]) -> None:
    for item in items:
        try:
            if item.kind == MAP:
                _map(found, path, item, transforms)
            elif item.kind == POLYGON:
                _polygon(found, item)
        except BadFileError as error:
            found.note(f"{path.name}: {error}")
    for item in items:
        try:
            if item.kind not in (MAP, POLYGON):
                _point(found, path, item)
        except BadFileError as error:
            found.note(f"{path.name}: {error}")


def _map(found: Found, path: Path, item: NavItem, transforms: dict[tuple[str, int], MapTransform]) -> None:
    named = Path(item.values.get("MapFile", "").replace("\\", "/")).name
    section = int((item.numbers("MapSection") or (0.0,))[0])
    try:
        transforms[named, section] = MapTransform.of(item)
    except BadFileError as error:
        found.note(f"{path.name}: {error}")


def _polygon(found: Found, item: NavItem) -> None:
    outline = item.outline_um
    if len(outline) < 3:
        found.note(f"polygon {item.label} has {len(outline)} corners and was left out")
        return
    x, y, _ = item.stage_um
    area = 0.5 * abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(outline, outline[1:] + outline[:1], strict=True)))
    said = _said(item)
    found.squares[item.label] = FoundSquare(
        item.label,
        x,
        y,
        size_um=said.get("size") or math.sqrt(area) or 1.0,
        vertices_um=outline,
        score=said.get("score", 0.5),
        selected=item.acquire,
    )


def _point(found: Found, path: Path, item: NavItem) -> None:
    x, y, _ = item.stage_um
    if not item.values.get("StageXYZ") or max(abs(x), abs(y)) > 5_000:
        found.note(f"{path.name}: item {item.label} has no usable stage position and was left out")
        return
    said = _said(item)
    ours = OURS.match(item.label)
    if ours and not ours[2]:
        found.squares[item.label] = FoundSquare(
            item.label, x, y, size_um=said.get("size", 50.0), score=said.get("score", 0.5), selected=item.acquire
        )
        return
    square = found.squares.get(ours["square"]) if ours else found.square_at(x, y)
    if square is None:
        name = ours["square"] if ours else f"around {item.label}"
        square = found.squares.setdefault(name, FoundSquare(name, x, y))
        found.note(f"point {item.label} lies in no polygon: a square was put around it")
    radius, score = said.get("radius", 0.6), said.get("score", 0.5)
    square.holes.append(FoundHole(item.label, x, y, radius_um=radius, score=score, selected=item.acquire))


def _said(item: NavItem) -> dict[str, float]:
    return {found["name"]: float(found["value"]) for found in NOTE.finditer(item.note)}


# ---------------------------------------------------------------------------------------------- images


def _image(found: Found, path: Path, image: Recorded, transforms: dict[tuple[str, int], MapTransform]) -> None:
    entry, where = image.entry, f"{path.name} [{image.entry.kind} = {image.entry.name}]"
    stage, pixel = entry.stage, entry.pixel_size_angstrom
    if stage is None or not pixel or not stage_within(stage):
        found.note(f"{where}: has no usable StagePosition or PixelSpacing and was left out")
        return
    if not image.file.is_file():
        found.note(f"{where}: its image {image.file.name} is not there")
        return
    transform = transforms.get((image.file.name, image.section))
    level = level_of(pixel)
    if transform is None and level != "high":
        found.note(f"{where}: no map of it: the way from its pixels to the stage is not known; no rotation is assumed")
    found.frames.append(
        FoundFrame(
            name=f"{image.file.stem}-{image.section:04d}",
            level=level,
            read=image.read,
            pixel_size_angstrom=pixel,
            stage=stage,
            image_to_stage=_of_map(transform) if transform else None,
            defocus_um=entry.underfocus_um if level == "high" else None,
            dose_e_per_a2=entry.dose_e_per_a2,
            exposure_s=entry.number("ExposureTime"),
            taken_utc=_utc(entry.values.get("DateTime")),
        )
    )


def _maps(found: Found, files: Iterable[Path], seen: set[tuple[str, int]]) -> Iterable[tuple[Path, int, NavItem]]:
    """Maps of Navigator files whose images no .mdoc describes."""
    by_name = {path.name: path for path in files}
    for path in list(by_name.values()):
        if path.suffix.lower() != ".nav":
            continue
        try:
            items = [item for item in read_nav(path) if item.kind == MAP]
        except BadFileError:
            continue  # listed already
        for item in items:
            named = Path(item.values.get("MapFile", "").replace("\\", "/")).name
            section = int((item.numbers("MapSection") or (0.0,))[0])
            if (named, section) in seen:
                continue
            if named not in by_name:
                found.note(f"map {item.label}: its image {named or '(no MapFile)'} is not there")
                continue
            yield by_name[named], section, item


def _map_image(found: Found, path: Path, section: int, item: NavItem) -> None:
    try:
        transform = MapTransform.of(item)
    except BadFileError as error:
        found.note(str(error))
        return
    a, b, c, d = _of_map(transform)
    pixel = math.sqrt(abs(a * d - b * c)) * 1e4
    x, y, z = item.stage_um
    stage = Stage(x_um=x, y_um=y, z_um=z)
    if not stage_within(stage):
        found.note(f"map {item.label}: stage ({x:g}, {y:g}) µm is of no use")
        return
    found.frames.append(
        FoundFrame(
            name=f"{path.stem}-{section:04d}",
            level=level_of(pixel),
            read=lambda: read_section(path, section),
            pixel_size_angstrom=pixel,
            stage=stage,
            native_columns=transform.shape[1],
            image_to_stage=(a, b, c, d),
        )
    )


def _of_map(transform: MapTransform) -> tuple[float, float, float, float]:
    """Micrometres per pixel of the image with its top row first: the map's own y points up."""
    a, b, c, d = transform.to_pixels
    det = a * d - b * c
    return (d / det, b / det, -c / det, -a / det)


def _utc(said: str | None) -> float:
    """Time of an image; SerialEM writes its PC's local time, which is taken as UTC."""
    for form in ("%d-%b-%y %H:%M:%S", "%d-%b-%Y %H:%M:%S"):
        try:
            return datetime.strptime(f"{' '.join((said or '').split())} +0000", f"{form} %z").timestamp()
        except ValueError:
            continue
    return 0.0
