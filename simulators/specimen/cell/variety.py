"""Cells of any number, no two alike, for a network that shall know organelles by their form and not by grey values.

Ranges are those of fixed and of freeze-substituted cells in FIB-SEM: contents from paler than the cytosol to near
black, membranes always darker than what they bound. The named cells lie within the ranges and are none of these.
"""

import numpy as np

from simulators.specimen.cell.settings import Anatomy, CellSettings, Milling, Stain


def varied(number: int, *, shape: tuple[int, int, int] = (176, 176, 176), voxel_nm: float = 8.0) -> CellSettings:
    """A region of cell ``number``, the same at every call.

    >>> varied(3) == varied(3), varied(3).stain == varied(4).stain
    (True, False)
    """
    rng = np.random.default_rng((0x6CE11, number))

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def count(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    thin = between(90, 150)
    anatomy = Anatomy(
        mitochondria=count(8, 20),
        mitochondrion_radius_nm=(thin, thin + between(60, 130)),
        cristae_nm=between(45, 90),
        er_sheets=between(0.12, 0.35),
        er_tubes=count(8, 26),
        er_lumen_nm=between(14, 34),
        golgi=count(1, 2),
        pits=count(5, 9),
        coated_vesicles=count(4, 8),
        vesicles=count(40, 100),
        lysosomes=count(3, 8),
        droplets=count(0, 2),
        microtubules=count(4, 14),
        pore_nm=between(86, 98),
    )
    cytosol = between(0.16, 0.42)
    stain = Stain(
        cytosol=cytosol,
        grain=between(0.7, 1.6),
        ribosomes=between(0.22, 0.45),
        membranes=between(0.7, 0.92),
        matrix=min(0.75, cytosol + between(-0.04, 0.5)),
        crista=between(0.15, 0.45),
        er_lumen=between(0.12, 0.34),
        golgi_lumen=between(0.18, 0.34),
        nucleoplasm=cytosol + between(-0.05, 0.08),
        heterochromatin=between(0.12, 0.42),
        coat=between(0.38, 0.5),
        lysosome=between(0.48, 0.8),
    )
    white = between(190, 240)
    milling = Milling(
        white=white,
        span=white * between(0.74, 0.92),
        gamma=between(0.8, 1.25),
        blur_nm=between(4, 6.5),
        blur_z_nm=between(5, 7.5),
        noise=between(7, 15),
        noise_grain=between(0.4, 0.7),
        curtains=between(2, 12),
        flicker=between(0.5, 4),
    )
    return CellSettings(f"varied-{number}", 0, shape, voxel_nm, anatomy, stain, milling)
