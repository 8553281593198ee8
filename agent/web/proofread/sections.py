"""Sections of a volume as tiles: one at a time, or the mean of those around, all with the same greys."""

from collections import OrderedDict
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.web.proofread.pyramid import Pyramid, limits

KEPT = 6  # sections whose pixels are held
_SAMPLED = 7
THICK_NM = 10.0  # of a thick section: noise falls, and what is as large as a vesicle stays sharp


class Sections:
    """A volume of shape (z, y, x) by its sections.

    Parameters
    ----------
    volume
        What slices like an array; a section is read when it is looked at.
    pixel_nm
        Edge of a voxel.
    """

    def __init__(self, volume: Any, pixel_nm: float) -> None:
        self.volume = volume
        self.count, self.rows, self.columns = (int(n) for n in volume.shape)
        self.thick = max(1, min(self.count, round(THICK_NM / pixel_nm)) // 2 * 2 + 1)
        places = np.unique(np.linspace(0, self.count - 1, _SAMPLED + 2)[1:-1].round().astype(int))
        self.black, self.white = limits(np.concatenate([self._read(int(z), int(z) + 1)[0] for z in places]))
        self._kept: OrderedDict[tuple[int, int], Pyramid] = OrderedDict()
        self._lock = Lock()
        self.levels = self.section(self.count // 2, 1).levels

    def section(self, z: int, thick: int) -> Pyramid:
        """Tiles of the mean of ``thick`` sections around ``z``.

        Raises
        ------
        IndexError
            When there is no such section.
        """
        if not 0 <= z < self.count or not 1 <= thick <= self.thick:
            raise IndexError(f"section {z} of {self.count}")
        with self._lock:  # one thread reads, the others that want the same wait for it
            known = self._kept.get((z, thick))
            if known is None:
                low, high = max(0, z - thick // 2), min(self.count, z + thick // 2 + 1)
                plane = self._read(low, high)
                mean = plane[0] if len(plane) == 1 else plane.mean(axis=0, dtype=np.float32)
                # the mean of noise is less wide than noise
                own = (self.black, self.white) if thick == 1 else limits(mean)
                known = Pyramid(mean, greys=own)
                self._kept[z, thick] = known
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end((z, thick))
            return known

    def _read(self, low: int, high: int) -> NDArray[Any]:
        return np.asarray(self.volume[low:high, :, :])
