"""One way to open a volume, whatever it is stored as."""

from pathlib import Path

from agent.errors import BadFileError
from drivers.volumes import mrc, tiff
from drivers.volumes.base import Volume
from drivers.volumes.mrc import open_mrc
from drivers.volumes.n5 import is_n5, open_n5
from drivers.volumes.ngff import is_zarr, open_zarr
from drivers.volumes.tiff import open_sections, open_tiff, sections

KINDS = ".mrc .rec .map .st .tif .tiff, a folder of numbered .tif, a .zarr or N5 folder"


def open_volume(path: Path) -> Volume:
    """The volume in a file (MRC, TIFF stack) or folder (OME-Zarr, N5, numbered TIFF sections).

    Raises
    ------
    BadFileError
        When it cannot be read or is no volume; the text says what is wrong and what is expected.
    ConfigError
        When a package that it needs is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise BadFileError(f"{path}: no such file; expected a volume ({KINDS})")
    try:
        if path.is_dir():
            return _folder(path)
        suffix = path.suffix.lower()
        if suffix in tiff.SUFFIXES:
            return open_tiff(path)
        if suffix in mrc.SUFFIXES:
            return open_mrc(path)
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    raise BadFileError(f"{path}: unknown suffix {path.suffix!r}; known are {KINDS}")


def _folder(path: Path) -> Volume:
    if is_zarr(path) or path.suffix == ".zarr":
        return open_zarr(path)
    if is_n5(path):
        return open_n5(path)
    files = sections(path)
    if not files:
        raise BadFileError(f"{path}: a folder that holds no volume; expected {KINDS}")
    return open_sections(path, files)
