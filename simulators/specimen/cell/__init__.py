"""Simulated cells in FIB-SEM volumes with a known truth: two to train on, two naive ones that look otherwise.

A region of a cell is built from signed distances in nanometres: plasma membrane with coated pits, a part of the nucleus
with its double envelope and pores, mitochondria with cristae, endoplasmic reticulum, Golgi stacks, and lysosomes,
vesicles, lipid droplets and microtubules that no mark names. It is stained (membranes dark), blurred, sampled with
shot noise, and striped by curtaining, as `CellSettings` says. Sizes are those that the seeds measure where they do
(pores: median 92 nm between membranes; pits: 61 to 81 nm and wider) and textbook ones elsewhere.

Axes are (z, y, x): imaged planes along z, ion beam along y. Truth is numbered by object where objects are apart.

>>> from simulators.specimen.cell import CellSettings, simulate
>>> cell = simulate(CellSettings.of("train-1", region=0, shape=(64, 64, 64)))
>>> cell.raw.shape, cell.raw.dtype.name, sorted(cell.labels)[0]
((64, 64, 64), 'uint8', 'coated_pit')
"""

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulators.specimen.cell import borders, imaging, organelles
from simulators.specimen.cell.scene import Pit, Pore, Scene
from simulators.specimen.cell.settings import CELLS, STRUCTURES, Anatomy, CellName, CellSettings, Milling, Stain

__all__ = [
    "CELLS", "STRUCTURES", "Anatomy", "Cell", "CellName", "CellSettings", "Milling", "Pit", "Pore", "Stain", "simulate",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cell:
    """A region as the microscope saw it, and its truth.

    Attributes
    ----------
    raw
        uint8 (z, y, x); dark is stained.
    labels
        For each of `STRUCTURES` uint16 (z, y, x): number of the object from 1, else 0. Reticulum is one object.
    inside
        Voxels of the cell, (z, y, x): not the resin outside, nor the neighbour.
    pores, pits
        Truth of what is measured.
    settings
        What it was made from.
    """

    raw: NDArray[np.uint8]
    labels: dict[str, NDArray[np.uint16]]
    inside: NDArray[np.bool_]
    pores: tuple[Pore, ...]
    pits: tuple[Pit, ...]
    settings: CellSettings


def simulate(settings: CellSettings) -> Cell:
    """The region of these settings, the same at every call."""
    rng = np.random.default_rng((zlib.crc32(settings.name.encode()), settings.region))
    scene = Scene.empty(settings, rng)
    borders.plasma_membrane(scene)
    inside = scene.room_nm > 0
    inside |= scene.labels["coated_pit"] > 0
    borders.nucleus(scene)
    organelles.mitochondria(scene)
    organelles.golgi(scene)
    organelles.bystanders(scene)
    organelles.reticulum(scene)
    er_nm = ndimage.distance_transform_edt(scene.labels["er"] == 0).astype(np.float32) * np.float32(settings.voxel_nm)
    imaging.granules(scene.stain, scene.cytosol, er_nm, settings, rng)
    raw = imaging.photograph(scene.stain, settings, rng)
    return Cell(raw, scene.labels, inside, tuple(scene.pores), tuple(scene.pits), settings)
