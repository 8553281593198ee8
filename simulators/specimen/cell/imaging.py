"""How a FIB-SEM sees a block of stained cell: blur, display curve, shot noise, curtaining, flicker; dark is stained."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulators.specimen.cell.settings import CellSettings
from simulators.specimen.cell.shapes import Volume, field


def granules(
    stain: Volume, cytosol: NDArray[np.bool_], er_nm: Volume, settings: CellSettings, rng: np.random.Generator
) -> None:
    """Ribosomes, free in clusters and in rows on the reticulum, and the grain of the cytosol; changes ``stain``."""
    voxel, shape, how = settings.voxel_nm, settings.shape, settings.stain
    crowd = np.clip(0.6 + 0.9 * field(shape, 60 / voxel, rng), 0, None)
    chance = (voxel / 8) ** 3 * np.where((er_nm > 0) & (er_nm < 20), 0.055, 0.008 * crowd)
    dots = (rng.random(shape, dtype=np.float32) < chance).astype(np.float32)
    dots = ndimage.gaussian_filter(dots, 8.5 / voxel)
    dots *= np.float32(1 / max(float(ndimage.gaussian_filter(_point(), 8.5 / voxel).max()), 1e-6))
    grain = 0.040 * field(shape, 9 / voxel, rng) + 0.025 * field(shape, 28 / voxel, rng)
    more = np.float32(how.ribosomes) * np.minimum(dots, 1.4) + np.float32(how.grain) * grain
    stain += np.where(cytosol, more, np.float32(0)) * (1 - stain)


def _point() -> Volume:
    one = np.zeros((9, 9, 9), np.float32)
    one[4, 4, 4] = 1
    return one


def photograph(stain: Volume, settings: CellSettings, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Grey values (z, y, x) of a block, imaged in planes of z and milled along y."""
    how, voxel = settings.milling, settings.voxel_nm
    nz, ny, nx = stain.shape
    seen = ndimage.gaussian_filter(
        np.clip(stain, 0, 1), (how.blur_z_nm / voxel, how.blur_nm / voxel, how.blur_nm / voxel)
    )
    grey = how.white - how.span * np.power(np.clip(seen, 0, 1), np.float32(how.gamma))
    shot = ndimage.gaussian_filter(
        rng.standard_normal(stain.shape, dtype=np.float32), (0, how.noise_grain, how.noise_grain)
    )
    grey += np.float32(how.noise / shot.std()) * shot * np.sqrt(np.clip(grey, 1, None) / 128)
    # stripes begin somewhere along y, below something hard, and last for a few slices
    stripes = field((nz, nx), (3.0, 1.4), rng)
    stripes = np.sign(stripes) * np.maximum(np.abs(stripes) - 1.1, 0) + 0.25 * field((nz, nx), (2.0, 6.0), rng)
    fade = np.clip(0.6 + 0.5 * field((nz, ny, nx), (5.0, ny / 3, 3.0), rng), 0, 1.5)
    grey += np.float32(how.curtains) * stripes[:, None, :] * fade
    grey += np.float32(how.flicker) * rng.standard_normal((nz, 1, 1), dtype=np.float32)
    grey += np.float32(4) * field((nz, ny, nx), (nz, ny / 1.5, nx / 1.5), rng)
    return np.asarray(np.clip(np.rint(grey), 0, 255), np.uint8)
