"""A finished SerialEM session from its files: images top row first, with what .mdoc and .nav say of them.

The heavy readers are imported where they are needed, so that the driver itself runs without them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from agent.errors import BadFileError
from drivers.serialem.mdoc import Entry, Mdoc, read_mdoc
from drivers.serialem.navfile import MapTransform, NavItem, map_of, read_nav, write_nav
from drivers.serialem.navigator import GREEN, LABEL, RED, YELLOW

Image = NDArray[Any]  # shape (rows, columns), top row first
TIFFS = (".tif", ".tiff")
EER_COMPRESSIONS = (65000, 65001, 65002)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One image of a session: where its pixels are, and what SerialEM noted."""

    file: Path
    section: int
    entry: Entry

    def read(self) -> Image:
        """Its pixels."""
        return read_section(self.file, self.section)


class FoundHole(Protocol):
    """What a hole finder gives, in pixels of the image it was given."""

    x: float
    y: float
    score: float
    label: str


def read_session(folder: Path) -> Iterator[Recorded]:
    """The images of all .mdoc files below a folder, in the order of names and sections.

    Raises
    ------
    BadFileError
        If an .mdoc file is damaged.
    """
    for path in sorted(folder.rglob("*.mdoc")):
        yield from recorded(read_mdoc(path))


def recorded(mdoc: Mdoc) -> Iterator[Recorded]:
    """The images that an .mdoc file describes."""
    for number, entry in enumerate(e for e in mdoc.entries if e.kind in ("ZValue", "FrameSet", "Image")):
        if entry.kind == "Image":
            yield Recorded(mdoc.path.with_name(entry.name), 0, entry)
        else:
            yield Recorded(mdoc.image_file, number if entry.section is None else entry.section, entry)


def read_section(path: Path, section: int = 0) -> Image:
    """One image of an MRC or TIFF stack (EER: the sum of its frames), top row first.

    Raises
    ------
    BadFileError
        If the file is missing or damaged, or has no such section.
    """
    try:
        if path.suffix.lower() in TIFFS:
            return _read_tiff(path, section)
        if path.suffix.lower() == ".eer":
            return _read_eer(path)
        return _read_mrc(path, section)
    except (OSError, ValueError, IndexError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadFileError(f"{path}: section {section} cannot be read: {reason}") from error


def _read_mrc(path: Path, section: int) -> Image:
    import mrcfile

    with mrcfile.mmap(path, mode="r", permissive=True) as file:
        data = file.data
        if data is None or data.ndim not in (2, 3):
            raise BadFileError(f"{path}: not an MRC stack of images")
        if data.ndim == 2:
            data = data[None]
        if not 0 <= section < len(data):
            raise BadFileError(f"{path}: section {section}; it has {len(data)}")
        return np.ascontiguousarray(data[section][::-1])  # MRC begins with the bottom row


def _read_tiff(path: Path, section: int) -> Image:
    import tifffile

    with tifffile.TiffFile(path) as file:
        if not 0 <= section < len(file.pages):
            raise BadFileError(f"{path}: section {section}; it has {len(file.pages)}")
        return np.ascontiguousarray(file.pages[section].asarray())


def _read_eer(path: Path) -> Image:
    """Electrons in each pixel, summed over all frames; an integrated image that some writers put first is left out."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        total: Image | None = None
        for page in file.pages:
            if int(page.compression) not in EER_COMPRESSIONS:
                continue
            try:
                frame = page.asarray()
            except (ValueError, ImportError) as error:
                if not _has_codecs():
                    text = "EER frames need the package imagecodecs: pip install 'cryonaut[eer]'"
                    raise BadFileError(f"{path}: {text}") from error
                raise
            if total is None:
                total = np.zeros(frame.shape, np.uint16)
            total += frame
        if total is None:
            raise BadFileError(
                f"{path}: holds no EER frame; its first page has compression {file.pages[0].compression}"
            )
        return total


def _has_codecs() -> bool:
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        return False
    return True


def nav_beside(image: Path, section: int = 0) -> Path:
    """The Navigator file in an image's folder in which the image is a map.

    Raises
    ------
    BadFileError
        If there is none.
    """
    found = sorted(image.resolve().parent.glob("*.nav"))
    for path in found:
        try:
            map_of(read_nav(path), image, section)
        except BadFileError:
            continue
        return path
    names = ", ".join(path.name for path in found) or "no .nav file"
    raise BadFileError(f"{image}: no Navigator file beside it has it as a map (there: {names}); name the session's own")


def holes_to_nav(
    holes: Sequence[FoundHole],
    image: Path,
    shape: tuple[int, int],
    nav: Path,
    out: Path,
    *,
    section: int = 0,
    acquire_above: float = 0.5,
    top_row_first: bool = False,
) -> int:
    """Write holes that were found on a map's image as points for *Navigator - Merge File*; gives how many.

    Parameters
    ----------
    holes
        What was found, best first or in any order.
    image, section
        The map's image file, as its Navigator item names it.
    shape
        (rows, columns) of the image that the holes were found on.
    nav
        The session's Navigator file, which knows where the map lies on the stage.
    out
        File to write; not the one that SerialEM has open.
    acquire_above
        Score from which Acquire is on.
    top_row_first
        Whether the image was turned upright before the finder saw it; `drivers.images` leaves MRC as it is stored.

    Raises
    ------
    BadFileError
        If the Navigator file has no such map, or is the file to be written.
    """
    if out.resolve() == nav.resolve():
        raise BadFileError(f"{out}: is the session's own Navigator file, which SerialEM may have open; name another")
    item = map_of(read_nav(nav), image, section)
    transform = MapTransform.of(item, shape)
    points = []
    for number, hole in enumerate(sorted(holes, key=lambda hole: -hole.score), 1):
        y = shape[0] - 1 - hole.y if top_row_first else hole.y
        x_um, y_um = transform.to_stage(hole.x, y)
        wanted = hole.score >= acquire_above
        points.append(
            NavItem.point(
                f"{item.label}-{number}"[-LABEL:],
                x_um,
                y_um,
                item.stage_um[2],
                note=f"Cryonaut {hole.score:.2f}" + (f": {hole.label}" if hole.label != "unknown" else ""),
                colour=GREEN if wanted else YELLOW if hole.score >= 0.5 * acquire_above else RED,
                acquire=wanted,
                group=int(_group(item)),
            )
        )
    write_nav(out, points)
    return len(points)


def _group(item: NavItem) -> float:
    """One group for all holes of a map, so that SerialEM's hole combiner can take them together."""
    found = item.numbers("MapID")
    return found[0] if found else 0.0
