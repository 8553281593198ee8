"""Volume files as arrays that are read where they are needed, and how volumes, tables and results are written.

Axes are (z, y, x) as the file stores them: section 0 first, row 0 first, nothing is flipped.
"""

from drivers.volumes.base import Volume, cubic
from drivers.volumes.ngff import NewVolume, write_ome_zarr
from drivers.volumes.opening import KINDS, open_volume
from drivers.volumes.tables import write_json, write_star
from drivers.volumes.writing import new_mrc, write_tiff

__all__ = [
    "KINDS",
    "NewVolume",
    "Volume",
    "cubic",
    "new_mrc",
    "open_volume",
    "write_json",
    "write_ome_zarr",
    "write_star",
    "write_tiff",
]
