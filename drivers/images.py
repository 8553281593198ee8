"""Image files as arrays: MRC, TIFF, PNG and JPEG, each with its pixel size where the file can be trusted with it.

Rows come as the file stores them: row 0 is the first row of the file, nothing is flipped. That is what mrcfile,
tifffile and the usual viewers show, and what marks made on such files refer to. (MRC's own convention calls the
first row the bottom one; who needs the picture upright flips it knowingly.)

Headers are checked before any pixel is read, so that a damaged file costs one line and no memory.
"""

import json
import math
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import tifffile
from mrcfile.dtypes import HEADER_DTYPE
from numpy.typing import NDArray

from agent.errors import BadFileError

Image = NDArray[Any]  # shape (rows, columns)
Read = tuple[Image, float | None]

MAX_PIXELS = 2**31
COARSEST_ANGSTROM = 50_000.0  # 5 µm: coarser "pixel sizes" are dots per inch of a printer
FINEST_ANGSTROM = 0.01

MRC_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
MRC_REFUSED = {3: "complex integers", 4: "complex numbers", 16: "RGB colours", 101: "4-bit integers"}
IMOD_STAMP = 1146047817
MRC_DEPTH = 2**31 - 1

UNIT_ANGSTROM = {
    "a": 1.0, "å": 1.0, "angstrom": 1.0, "ångström": 1.0, "pm": 0.01, "nm": 10.0, "nanometer": 10.0, "um": 1e4,
    "µm": 1e4, "μm": 1e4, "micron": 1e4, "microns": 1e4, "micrometer": 1e4, "mm": 1e7, "cm": 1e8, "m": 1e10,
}  # fmt: skip
TIFF_UNIT_ANGSTROM = {2: 2.54e8, 3: 1e8}  # the resolution tags' inch and centimetre


def read_image(path: Path) -> Read:
    """The image in a file, and its pixel size.

    Of a stack or a file of several pages the first is taken; colours become luminance, an alpha channel and an
    EXIF orientation are ignored. The dtype is the file's (16 bits stay 16 bits), in this machine's byte order;
    half floats are widened to 32 bits.

    Parameters
    ----------
    path
        File with one of the suffixes in `SUFFIXES`, in upper or lower case.

    Returns
    -------
    image, pixel_size_angstrom
        Array of shape (rows, columns), row 0 being the first row in the file (MRC files are not flipped), and the
        pixel size in Å; None where the file has none, contradicts itself, or holds a writer's placeholder: MRC
        headers that say exactly 1 Å, resolution tags meant for printers.

    Raises
    ------
    BadFileError
        If the file cannot be read; the text says which file, what is wrong and what is expected.
    """
    image, pixel_size = _opened(path, READERS)
    native = image.dtype.newbyteorder("=") if image.dtype != np.float16 else np.dtype(np.float32)
    return np.ascontiguousarray(image, dtype=native), pixel_size


def map_image(path: Path) -> Read:
    """The image in a file without reading it, where the file allows that: as a memory map in the file's own dtype.

    MRC files and TIFF files without compression are mapped; all others are read as by `read_image`. The rest is as
    there: what is returned, and what is refused.
    """
    return _opened(path, {**READERS, **MAPPERS})


def _opened(path: Path, readers: dict[str, Callable[[Path], Read]]) -> Read:
    path = Path(path)
    reader = readers.get(path.suffix.lower())
    if path.is_dir():
        raise BadFileError(f"{path}: is a folder; expected an image file ({' '.join(SUFFIXES)})")
    if not path.is_file():
        raise BadFileError(f"{path}: no such file; expected an image file ({' '.join(SUFFIXES)})")
    if reader is None:
        raise BadFileError(f"{path}: unknown suffix {path.suffix!r}; known are {' '.join(SUFFIXES)}")
    try:
        if path.stat().st_size == 0:
            raise BadFileError(f"{path}: the file is empty; expected an image")
        return reader(path)
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise BadFileError(f"{path}: too large for this machine's memory") from error


def image_files(paths: Sequence[Path]) -> list[Path]:
    """``paths`` with each folder replaced by the image files in it, sorted by name; each file once.

    Files that are named stay in, whatever their suffix, so that `read_image` can say what is wrong with them.

    Raises
    ------
    BadFileError
        If a folder holds no image file.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            found[path] = None
            continue
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in READERS and p.name[0] != "." and p.is_file())
        if not inside:
            raise BadFileError(f"{path}: holds no image file; looked for {' '.join(SUFFIXES)}")
        found.update(dict.fromkeys(inside))
    return list(found)


# ---------------------------------------------------------------------------------------------- MRC


def _read_mrc(path: Path) -> Read:
    image, pixel_size = _map_mrc(path)
    return np.array(image), pixel_size


def _map_mrc(path: Path) -> Read:
    with path.open("rb") as file:
        raw = file.read(HEADER_DTYPE.itemsize)
    if len(raw) < HEADER_DTYPE.itemsize:
        raise BadFileError(f"{path}: {len(raw)} bytes, truncated; an MRC header alone takes {HEADER_DTYPE.itemsize}")
    header = mrc_header(raw)
    if header is None:
        raise BadFileError(f"{path}: not an MRC file; expected sizes and a data mode (0, 1, 2, 6, 12) in its header")
    columns, rows, sections, mode = (int(header[name]) for name in ("nx", "ny", "nz", "mode"))
    if mode not in MRC_MODES:
        raise BadFileError(f"{path}: MRC mode {mode} ({MRC_REFUSED[mode]}); expected one of {sorted(MRC_MODES)}")
    _check_size(path, rows, columns)
    dtype = np.dtype(MRC_MODES[mode]).newbyteorder(header.dtype["nx"].byteorder)
    if mode == 0 and imod_bytes_are_unsigned(header):
        dtype = np.dtype("u1")
    start = HEADER_DTYPE.itemsize + max(int(header["nsymbt"]), 0)
    claimed = start + rows * columns * max(sections, 1) * dtype.itemsize
    size = path.stat().st_size
    if size < claimed:
        raise BadFileError(
            f"{path}: truncated: the header claims {max(sections, 1)} x {rows} x {columns} pixels of {dtype.name}"
            f" ({claimed} bytes), the file holds {size}"
        )
    return np.memmap(path, dtype=dtype, mode="r", offset=start, shape=(rows, columns)), _mrc_pixel_size(header)


def mrc_header(raw: bytes) -> Any:
    """The header in the byte order in which it makes sense, or None; machine stamp and MAP id are often missing."""
    for order in ("<", ">"):
        header = np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order))[0]
        sizes = [int(header[name]) for name in ("nx", "ny", "nz")]
        known = int(header["mode"]) in MRC_MODES or int(header["mode"]) in MRC_REFUSED
        if known and all(0 <= n <= MRC_DEPTH for n in sizes) and 0 <= int(header["nsymbt"]) <= MRC_DEPTH:
            return header
    return None


def imod_bytes_are_unsigned(header: Any) -> bool:
    """Whether IMOD or SerialEM wrote mode 0 the old way, 0 to 255."""
    stamp, flags = np.frombuffer(header["extra2"].tobytes(), header.dtype["nx"])[10:12]  # bytes 153 to 160
    return int(stamp) == IMOD_STAMP and not int(flags) & 1


def _mrc_pixel_size(header: Any) -> float | None:
    """Cell over sampling in Å; None where x and y disagree, the sampling is not this image's, or it says 1 Å."""
    if (int(header["mx"]), int(header["my"])) != (int(header["nx"]), int(header["ny"])):
        return None
    x, y = float(header["cella"]["x"]) / int(header["nx"]), float(header["cella"]["y"]) / int(header["ny"])
    if not (math.isfinite(x) and math.isclose(x, y, rel_tol=0.01)) or x == 1.0:
        return None
    return _plausible(x)


# ---------------------------------------------------------------------------------------------- TIFF


def _read_tiff(path: Path) -> Read:
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            _check_tiff(path, page)
            pixel_size = _tiff_pixel_size(page)
            try:
                return _grey(path, page.asarray(), page.axes), pixel_size
            except (ValueError, ImportError, RuntimeError) as error:  # imagecodecs' own errors are RuntimeErrors
                if page.compression == 1:
                    raise
                image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)  # LZW and the like, where imagecodecs is absent
                if image is None:
                    raise BadFileError(f"{path}: cannot be decoded: {_line(error)}") from error
                return _luminance(path, image), pixel_size
    except BadFileError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, struct.error, ArithmeticError) as error:
        # tifffile.TiffFileError is a ValueError; the others are what damaged tags lead to
        raise BadFileError(f"{path}: not a TIFF file, or damaged: {_line(error)}") from error
    except cv2.error as error:
        raise BadFileError(f"{path}: cannot be decoded: {_line(error)}") from error


def _map_tiff(path: Path) -> Read:
    try:
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages[0]
            _check_tiff(path, page)
            if page.axes == "YX" and page.is_memmappable and page.dtype != np.bool_:
                dtype = page.dtype.newbyteorder(file.byteorder)
                shape = (page.imagelength, page.imagewidth)
                pixels = np.memmap(path, dtype=dtype, mode="r", offset=page.dataoffsets[0], shape=shape)
                return pixels, _tiff_pixel_size(page)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, struct.error, ArithmeticError):
        pass  # the reader says what is wrong with it
    return _read_tiff(path)


def _check_tiff(path: Path, page: Any) -> None:
    if page.dtype is None:
        raise BadFileError(f"{path}: sample format unknown; expected integers or real numbers")
    if page.dtype.kind not in "biuf":
        raise BadFileError(f"{path}: dtype {page.dtype}; expected integers or real numbers")
    _check_size(path, page.imagelength, page.imagewidth)
    size = path.stat().st_size
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
    if not ends or max(ends) > size:
        raise BadFileError(f"{path}: truncated: its pixels reach to byte {max(ends, default=0)}, the file holds {size}")
    if page.compression == 1 and sum(page.databytecounts) < page.nbytes * page.bitspersample // (
        8 * page.dtype.itemsize
    ):
        raise BadFileError(
            f"{path}: the header claims {page.imagelength} x {page.imagewidth} pixels of {page.dtype},"
            f" the file holds {sum(page.databytecounts)} bytes of them"
        )


def _tiff_pixel_size(page: Any) -> float | None:
    """Pixel size in Å from our own header, OME, ImageJ or the resolution tags, in this order."""
    text = str(page.description or "")
    if text.startswith("{"):
        try:
            own = json.loads(text)
        except ValueError:
            own = None
        if isinstance(own, dict) and isinstance(own.get("pixel_size_angstrom"), int | float):
            return _plausible(float(own["pixel_size_angstrom"]))
    if "<OME" in text[:2000]:
        return _ome_pixel_size(text)
    tags = page.tags
    if "XResolution" not in tags or "YResolution" not in tags:
        return None
    x, y = (n / d if d else 0.0 for n, d in (tags["XResolution"].value, tags["YResolution"].value))
    if x <= 0 or not math.isclose(x, y, rel_tol=0.01):
        return None
    if text.startswith("ImageJ="):
        found = re.search(r"^unit=(.+?)\s*$", text, re.MULTILINE)
        unit = (
            found[1].encode().decode("unicode_escape", "ignore") if found and "\\u" in found[1] else found and found[1]
        )
        scale = UNIT_ANGSTROM.get((unit or "").strip().lower())
        return _plausible(scale / x) if scale else None
    unit_tag = tags["ResolutionUnit"].value if "ResolutionUnit" in tags else 2
    scale = TIFF_UNIT_ANGSTROM.get(int(unit_tag))
    return _plausible(scale / x) if scale else None


def _ome_pixel_size(text: str) -> float | None:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # no OME file has them, and entities can be made to explode
        return None
    try:
        root = ElementTree.fromstring(text)  # noqa: S314  (entities are refused above)
    except ElementTree.ParseError:
        return None
    for pixels in root.iter():
        if pixels.tag.endswith("}Pixels") or pixels.tag == "Pixels":
            scale = UNIT_ANGSTROM.get(pixels.get("PhysicalSizeXUnit", "µm").lower())
            try:
                x, y = float(pixels.get("PhysicalSizeX", "nan")), float(pixels.get("PhysicalSizeY", "nan"))
            except ValueError:
                return None
            same = pixels.get("PhysicalSizeXUnit") == pixels.get("PhysicalSizeYUnit")
            return _plausible(scale * x) if scale and same and math.isclose(x, y, rel_tol=0.01) else None
    return None


# ---------------------------------------------------------------------------------------------- PNG, JPEG


def _read_picture(path: Path) -> Read:
    raw = path.read_bytes()
    if raw.startswith(b"\x89PNG\r\n\x1a\n"):
        rows, columns = _check_png(path, raw)
    elif raw.startswith(b"\xff\xd8"):
        rows, columns = _check_jpeg(path, raw)
    else:
        raise BadFileError(f"{path}: neither PNG nor JPEG by its first bytes; expected what the suffix says")
    _check_size(path, rows, columns)
    try:
        image = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise BadFileError(f"{path}: cannot be decoded ({rows} x {columns} pixels): {_line(error)}") from error
    if image is None or image.shape[:2] != (rows, columns):
        raise BadFileError(f"{path}: damaged: its {rows} x {columns} pixels cannot be decoded")
    return _luminance(path, image), None


def _check_png(path: Path, raw: bytes) -> tuple[int, int]:
    """(rows, columns) of a PNG whose chunks reach from IHDR to IEND."""
    if raw[12:16] != b"IHDR" or len(raw) < 33:
        raise BadFileError(f"{path}: truncated: a PNG file begins with an IHDR chunk of 13 bytes")
    columns, rows = struct.unpack(">II", raw[16:24])
    at = 8
    while at + 12 <= len(raw):
        length, name = struct.unpack(">I4s", raw[at : at + 8])
        at += 12 + length
        if name == b"IEND" and at <= len(raw):
            return rows, columns
    raise BadFileError(f"{path}: truncated: {len(raw)} bytes without the IEND chunk that ends a PNG file")


def _check_jpeg(path: Path, raw: bytes) -> tuple[int, int]:
    """(rows, columns) of a JPEG that has its end marker."""
    shape: tuple[int, int] | None = None
    for marker, at in _jpeg_segments(raw):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 9 <= len(raw):
            rows, columns = struct.unpack(">HH", raw[at + 5 : at + 9])
            shape = (rows, columns)
        if marker == 0xDA and shape and raw.rfind(b"\xff\xd9") > at:
            return shape
    raise BadFileError(f"{path}: truncated: {len(raw)} bytes without the end marker of a JPEG file")


def _jpeg_segments(raw: bytes) -> Iterator[tuple[int, int]]:
    """(marker, offset of the marker) of each segment up to the first scan."""
    at = 2
    while at + 4 <= len(raw) and raw[at] == 0xFF:
        marker = raw[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        yield marker, at
        if marker == 0xDA:
            return
        at += 2 + int.from_bytes(raw[at + 2 : at + 4], "big")


# ---------------------------------------------------------------------------------------------- common


def _check_size(path: Path, rows: int, columns: int) -> None:
    if rows < 1 or columns < 1:
        raise BadFileError(f"{path}: {rows} x {columns} pixels; expected at least one row and one column")
    if rows * columns > MAX_PIXELS:
        raise BadFileError(f"{path}: {rows} x {columns} pixels; at most {MAX_PIXELS} are taken")


def _grey(path: Path, image: Image, axes: str) -> Image:
    """``image`` as (rows, columns); ``axes`` as tifffile names them."""
    if axes == "YX":
        return image.astype(np.uint8) * np.uint8(255) if image.dtype == np.bool_ else image
    if axes == "SYX":
        image, axes = np.moveaxis(image, 0, -1), "YXS"
    if axes != "YXS":
        raise BadFileError(
            f"{path}: axes {axes} of shape {image.shape}; expected (rows, columns), with or without colours"
        )
    return _luminance(path, image[..., :3][..., ::-1] if image.shape[2] >= 3 else image)


def _luminance(path: Path, image: Image) -> Image:
    """Luminance 0.299 R + 0.587 G + 0.114 B of (rows, columns[, B G R and perhaps alpha]), in the same dtype."""
    if image.dtype.kind == "c":
        raise BadFileError(f"{path}: dtype {image.dtype}; expected integers or real numbers")
    if image.ndim == 2:
        return image
    if image.shape[2] < 3:
        return image[..., 0]
    grey: Image = image[..., :3].astype(np.float64) @ np.array([0.114, 0.587, 0.299])
    whole = image.dtype.kind in "iu"
    return (np.rint(grey) if whole else grey).astype(image.dtype)


def _plausible(angstrom: float) -> float | None:
    """The pixel size if a microscope can have it, else None."""
    return angstrom if FINEST_ANGSTROM <= angstrom <= COARSEST_ANGSTROM else None


def _line(error: Exception) -> str:
    """An error's text in one short line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


READERS: dict[str, Callable[[Path], Read]] = {
    **dict.fromkeys((".mrc", ".mrcs", ".map", ".st", ".rec"), _read_mrc),
    **dict.fromkeys((".tif", ".tiff"), _read_tiff),
    **dict.fromkeys((".png", ".jpg", ".jpeg"), _read_picture),
}
SUFFIXES = tuple(READERS)
MAPPERS: dict[str, Callable[[Path], Read]] = {
    **dict.fromkeys((".mrc", ".mrcs", ".map", ".st", ".rec"), _map_mrc),
    **dict.fromkeys((".tif", ".tiff"), _map_tiff),
}
