"""EPU session folders: EpuSession.dm, Atlas.dm, GridSquare .dm and .xml, FoilHole and Data .xml with their images.

EPU writes metres, and pixels of the camera image counted from its corner: the stage position of an image is at
``(width / 2, height / 2)``. The way from pixels to the stage is fitted to the holes whose place EPU gives in both;
where there are fewer than four of them it is not known, and this is listed. (EPU's own ``ReferenceTransformation`` has
another sign from session to session and is not used.) Whether a file begins with the top or the bottom row is seen
from the same holes; where they do not tell, MRC files are taken as they are stored and this is listed.
"""

import math
import re
from datetime import datetime
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from agent.errors import BadFileError
from agent.messages import Level, Stage
from drivers.exchange.found import Found, FoundFrame, FoundHole, FoundSquare, Image, as_float, stage_within
from drivers.exchange.xmlfile import all_of, child, plain, read_xml, text

UM = 1e6
ENDINGS = (".mrc", ".tiff", ".tif", ".jpg", ".jpeg", ".png")
MOST_RESIDUAL_PX = 3.0
WIDEST_UM = 5_000.0
LEAST_HOLES = 6  # to see from them where the rows of a file begin
CLEARLY = 2.0
Matrix = tuple[float, float, float, float]


def read_epu(folder: Path) -> Found:
    """What an EPU session folder holds; missing and damaged files are listed.

    Raises
    ------
    BadFileError
        If ``folder`` is none.
    """
    if not folder.is_dir():
        raise BadFileError(f"{folder}: no folder; expected that of an EPU session")
    found = Found(name=folder.resolve().name, software="EPU", source=str(folder.resolve().name))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    _session(found, files)
    _atlas(found, [path for path in files if path.name.lower() == "atlas.dm"])
    for path in files:
        if match := re.fullmatch(r"GridSquare_(\d+)\.dm", path.name):
            _grid_square(found, path, match[1])
    pictures = {(path.parent, path.stem): path for path in files if path.suffix.lower() in ENDINGS}
    for path in files:
        if path.suffix.lower() == ".xml":
            _image(found, path, pictures)
    for key, square in list(found.squares.items()):
        if not (math.isfinite(square.x_um) and abs(square.x_um) <= WIDEST_UM and abs(square.y_um) <= WIDEST_UM):
            del found.squares[key]
            found.note(f"{square.key}: its place is not known; it was left out with {len(square.holes)} holes")
    return found


def _try(found: Found, path: Path) -> Element | None:
    try:
        return read_xml(path)
    except BadFileError as error:
        found.note(str(error).replace(str(path), path.name))
        return None


def _session(found: Found, files: list[Path]) -> None:
    path = next((path for path in files if path.name == "EpuSession.dm"), None)
    if path is None:
        found.note("there is no EpuSession.dm: the name of the session is that of its folder")
        return
    root = _try(found, path)
    if root is not None:
        found.name = text(root, "Name") or found.name
        if start := text(root, "StartDateTime"):
            found.software = f"EPU (session begun {start[:10]})"


def _position(element: Element | None) -> tuple[float, float, float] | None:
    x, y, z = (as_float(text(element, name)) for name in ("X", "Y", "Z"))
    return None if x is None or y is None else (x * UM, y * UM, (z or 0.0) * UM)


def _atlas(found: Found, paths: list[Path]) -> None:
    if not paths:
        found.note("there is no Atlas.dm: squares that were never visited are not known")
    for path in paths:
        root = _try(found, path)
        if root is None:
            continue
        for pair in all_of(root, "KeyValuePairOfintNodeXml30oatNZW"):
            node, key = child(pair, "value"), text(pair, "key")
            here = _position(child(node, "StagePosition"))
            size = child(node, "PositionOnTheAtlas", "Physical")
            width, height = as_float(text(size, "width")), as_float(text(size, "height"))
            if key is None or here is None or not width or not height:
                found.note(f"{path.name}: square {key or 'without a number'} has no stage position or size")
                continue
            quality = as_float(text(node, "PositionOnTheAtlas", "Quality"))
            features = {} if quality is None else {"epu_quality": round(quality, 4)}
            category = as_float(text(node, "Category"))
            if category is not None:
                features["epu_category"] = category
            side = math.sqrt(abs(width * height)) * UM
            found.squares[key] = FoundSquare(f"GridSquare_{key}", here[0], here[1], size_um=side, features=features)


def _square_of(found: Found, key: str) -> FoundSquare:
    return found.squares.setdefault(key, FoundSquare(f"GridSquare_{key}", math.nan, math.nan))


def _grid_square(found: Found, path: Path, key: str) -> None:
    root = _try(found, path)
    if root is None:
        return
    square = _square_of(found, key)
    here = _position(child(root, "Position"))
    if here is not None:
        if math.isfinite(square.x_um) and math.hypot(here[0] - square.x_um, here[1] - square.y_um) > square.size_um:
            found.note(f"{path.name}: lies {math.hypot(here[0] - square.x_um, here[1] - square.y_um):.0f} µm from its"
                       " place on the atlas; the place in this file is taken")  # fmt: skip
        square.x_um, square.y_um = here[0], here[1]
    square.selected = text(root, "Selected") == "true"
    for pair in all_of(root, "KeyValuePairOfintTargetLocationXmlBpEWF4JT"):
        hole = _hole(found, path, child(pair, "value"), text(pair, "key"))
        if hole is not None:
            square.holes.append(hole)


def _hole(found: Found, path: Path, value: Element | None, key: str | None) -> FoundHole | None:
    corrected = text(value, "IsPositionCorrected") == "true"
    here = _position(child(value, "CorrectedStagePosition" if corrected else "StagePosition"))
    if here is None or key is None:
        found.note(f"{path.name}: hole {key or 'without a number'} has no stage position and was left out")
        return None
    features: dict[str, float] = {}
    for name, words in {
        "epu_quality": ("Quality",),
        "epu_mean": ("FilterProperties", "PixelIntensityMean"),
        "epu_stdev": ("FilterProperties", "PixelIntensityStDev"),
        "epu_x_px": ("PixelCenter", "x"),
        "epu_y_px": ("PixelCenter", "y"),
        "epu_diameter_px": ("PixelWidthHeight", "width"),
    }.items():
        number = as_float(text(value, *words))
        if number is not None:
            features[name] = round(number, 4)
    acquired = child(value, "ParticleAcquisitions", "KeyValuePairs")
    return FoundHole(
        key=f"FoilHole_{key}",
        x_um=here[0],
        y_um=here[1],
        score=min(max(features.get("epu_quality", 0.5), 0.0), 1.0),
        selected=text(value, "Selected") == "true",
        exposed=acquired is not None and len(acquired) > 0,
        features=features,
    )


# ---------------------------------------------------------------------------------------------- images


def _image(found: Found, path: Path, pictures: dict[tuple[Path, str], Path]) -> None:
    named = _named(path)
    if named is None:
        return
    level, square_key, hole_key = named
    root = _try(found, path)
    if root is None:
        return
    if plain(root) != "MicroscopeImage":
        found.note(f"{path.name}: is no MicroscopeImage")
        return
    stage = _stage(root)
    pixel = as_float(text(root, "SpatialScale", "pixelSize", "x", "numericValue"))
    if stage is None or not pixel or not stage_within(stage):
        found.note(f"{path.name}: has no usable stage position or pixel size and was left out")
        return
    square = _square_of(found, square_key) if square_key else None
    if square is not None and not math.isfinite(square.x_um):
        square.x_um, square.y_um = stage.x_um, stage.y_um
        found.note(f"{square.key}: its place is that of its first image, as no .dm file gives it")
    if hole_key:
        _hole_of_image(found, square, hole_key, stage, level)
    picture = pictures.get((path.parent, path.stem))
    if picture is None:
        found.note(f"{path.name}: its image is not there ({', '.join(ENDINGS)})")
        return
    area = child(root, "microscopeData", "acquisition", "camera", "ReadoutArea")
    columns = as_float(text(area, "width"))
    matrix = _matrix(square) if level == "medium" and not hole_key else None
    if level == "medium" and not hole_key and matrix is None:
        found.note(f"{path.name}: the way from its pixels to the stage is not known; no rotation is assumed")
    defocus = as_float(text(root, "microscopeData", "optics", "Defocus"))
    found.frames.append(
        FoundFrame(
            name=path.stem,
            level=level,
            read=Reader(picture, None if hole_key else square, int(columns) if columns else None, found),
            pixel_size_angstrom=pixel * 1e10,
            stage=stage,
            native_columns=int(columns) if columns else None,
            image_to_stage=matrix,
            defocus_um=-defocus * UM if defocus is not None and level == "high" and abs(defocus) < 1e-3 else None,
            dose_e_per_a2=None,
            exposure_s=as_float(text(root, "microscopeData", "acquisition", "camera", "ExposureTime")),
            taken_utc=_utc(text(root, "microscopeData", "acquisition", "acquisitionDateTime")),
            square=square_key,
            hole=f"FoilHole_{hole_key}" if hole_key and level == "high" else "",
        )
    )


def _named(path: Path) -> tuple[Level, str, str] | None:
    """Level, number of the square and number of the hole by the name of a file; None for other files."""
    square = next((m[1] for p in path.parents if (m := re.fullmatch(r"GridSquare_(\d+)", p.name))), "")
    if match := re.match(r"FoilHole_(\d+)_Data_", path.name):
        return "high", square, match[1]
    if match := re.match(r"FoilHole_(\d+)_\d+_\d+\.xml$", path.name):
        return "medium", square, match[1]
    if re.match(r"GridSquare_\d+_\d+\.xml$", path.name):
        return "medium", square, ""
    if path.name.startswith("Tile_"):
        return "low", "", ""
    return None


def _hole_of_image(found: Found, square: FoundSquare | None, key: str, stage: Stage, level: Level) -> None:
    if square is None:
        return
    name = f"FoilHole_{key}"
    hole = next((hole for hole in square.holes if hole.key == name), None)
    if hole is None:
        hole = FoundHole(name, stage.x_um, stage.y_um, selected=True)
        square.holes.append(hole)
        found.note(f"{name}: its place is that of its first image, as no .dm file gives it")
    hole.exposed = hole.exposed or level == "high"


def _stage(root: Element) -> Stage | None:
    element = child(root, "microscopeData", "stage", "Position")
    here = _position(element)
    tilt = as_float(text(element, "A"))
    return None if here is None else Stage(x_um=here[0], y_um=here[1], z_um=here[2], tilt_deg=math.degrees(tilt or 0.0))


def _matrix(square: FoundSquare | None) -> Matrix | None:
    """Micrometres per camera pixel, fitted to holes whose place is known in both."""
    if square is None:
        return None
    known = [h for h in square.holes if "epu_x_px" in h.features and "epu_y_px" in h.features]
    if len(known) < 4:
        return None
    pixels = np.array([(h.features["epu_x_px"], h.features["epu_y_px"], 1.0) for h in known])
    stage = np.array([(h.x_um, h.y_um) for h in known])
    fit, _, rank, _ = np.linalg.lstsq(pixels, stage, rcond=None)
    if rank < 3:
        return None
    (a, c), (b, d) = fit[0], fit[1]
    scale = math.sqrt(abs(a * d - b * c))
    residual = np.sqrt(((pixels @ fit - stage) ** 2).sum(axis=1).mean())
    if scale == 0 or residual > MOST_RESIDUAL_PX * scale:
        return None
    return float(a), float(b), float(c), float(d)


class Reader:
    """Reads an EPU image, top row first.

    Parameters
    ----------
    path
        The file.
    square, native_columns
        The square whose holes it shows, and the columns of the camera image in which their places are known.
    note
        Takes what is odd, in words.
    """

    def __init__(self, path: Path, square: FoundSquare | None, native_columns: int | None, found: Found) -> None:
        self.path = path
        self.square = square
        self.native_columns = native_columns
        self.found = found

    def __call__(self) -> Image:
        """Its pixels."""
        from drivers.images import read_image

        image = read_image(self.path)[0]
        if self.path.suffix.lower() != ".mrc":
            return image
        known = None
        if self.square is not None and self.native_columns:
            known = bottom_row_first(image, self.square.holes, image.shape[1] / self.native_columns)
        if known is None:
            self.found.note("MRC files whose holes do not tell where their rows begin are taken as they are stored")
        return np.ascontiguousarray(image[::-1]) if known else image


def bottom_row_first(image: Image, holes: list[FoundHole], scale: float) -> bool | None:
    """Whether the rows of ``image`` begin at the bottom, by where its holes stand out; None where that is not clear.

    Parameters
    ----------
    image
        As the file stores it.
    holes
        Holes with their place in pixels of the camera image.
    scale
        Pixels of ``image`` per pixel of the camera image.
    """
    places = [(h.features["epu_x_px"], h.features["epu_y_px"]) for h in holes if "epu_y_px" in h.features]
    sizes = [h.features["epu_diameter_px"] for h in holes if "epu_diameter_px" in h.features]
    if len(places) < LEAST_HOLES or not sizes:
        return None
    import cv2

    radius = 0.5 * float(np.median(sizes)) * scale
    plain = np.asarray(image, np.float32)
    # a hole against its surroundings: mean in the hole minus mean in a disc twice as wide
    near, far = (cv2.GaussianBlur(plain, (0, 0), max(factor * radius, 0.5)) for factor in (0.5, 1.5))
    contrast = near - far
    columns, rows = (np.rint(np.array(axis) * scale - 0.5).astype(int) for axis in zip(*places, strict=True))
    inside = (columns >= 0) & (columns < image.shape[1]) & (rows >= 0) & (rows < image.shape[0])
    if inside.sum() < LEAST_HOLES:
        return None
    columns, rows = columns[inside], rows[inside]
    as_stored = abs(float(contrast[rows, columns].mean()))
    turned = abs(float(contrast[image.shape[0] - 1 - rows, columns].mean()))
    if max(as_stored, turned) < CLEARLY * min(as_stored, turned):
        return None
    return turned > as_stored


def _utc(said: str | None) -> float:
    if said is None:
        return 0.0
    said = re.sub(r"(\.\d{6})\d+", r"\1", said).replace("Z", "+00:00")  # EPU gives seven digits
    try:
        return datetime.fromisoformat(said).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0
