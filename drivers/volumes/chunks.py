"""Chunked arrays read by tensorstore: N5, and zarr of both versions.

The zarr package is not used for reading: of a Blosc chunk that was cut short it gives garbage without a word.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from agent.errors import BadFileError, ConfigError
from drivers.volumes.base import Lazy, Triple


def open_chunks(path: Path, driver: Literal["n5", "zarr", "zarr3"], shown: Path, *, turned: bool = False) -> Lazy:
    """An array of three axes in a folder.

    Parameters
    ----------
    path
        Folder of the array itself.
    driver
        Its format.
    shown
        What a person calls it, for the words.
    turned
        Its axes are (x, y, z); they become (z, y, x).
    """
    try:
        import tensorstore
    except ImportError as error:
        raise ConfigError("OME-Zarr and N5 need the volumes extra: pip install 'cryonaut[volumes]'") from error
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{path.resolve()}/"}}
    try:
        store = tensorstore.open(spec, read=True, open=True).result()
    except Exception as error:  # tensorstore raises ValueError with its own words
        said = " ".join(str(error).split())[:200]
        raise BadFileError(f"{shown}: an array that cannot be read: {said}") from error
    if turned:
        store = store.T

    def fetch(low: Triple, high: Triple) -> NDArray[Any]:
        at = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        return np.asarray(store[at].read().result())

    z, y, x = (int(n) for n in store.shape)
    return Lazy((z, y, x), np.dtype(store.dtype.numpy_dtype), shown, fetch)
