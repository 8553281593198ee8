"""What a simulated cell is made of and how it was stained and milled; four cells by name."""

from dataclasses import dataclass, replace
from typing import Literal

CellName = Literal["train-1", "train-2", "naive-1", "naive-2"]
STRUCTURES = ("mitochondrion", "er", "nucleus", "golgi", "nuclear_pore", "coated_pit")


@dataclass(frozen=True, slots=True)
class Anatomy:
    """How much of what a region of a cell holds; lengths in nanometres.

    Attributes
    ----------
    mitochondria
        How many are tried to be placed.
    mitochondrion_radius_nm
        Smallest and largest.
    cristae_nm
        From one crista to the next.
    er_sheets
        Share of the cytosol where the reticulum forms sheets.
    er_tubes
        How many tubes.
    er_lumen_nm
        Half the width of a sheet's lumen.
    golgi
        How many stacks.
    pits, coated_vesicles
        How many pits along the plasma membrane, and coated vesicles below it.
    vesicles, lysosomes, droplets
        How many of what is not marked: small vesicles, lysosomes and endosomes, lipid droplets.
    microtubules
        How many.
    pore_nm, pore_spread_nm
        Median and deviation of the diameter of nuclear pores, from membrane to membrane (the seeds measure 92 and,
        between pores, about 12).
    """

    mitochondria: int = 12
    mitochondrion_radius_nm: tuple[float, float] = (130.0, 230.0)
    cristae_nm: float = 62.0
    er_sheets: float = 0.3
    er_tubes: int = 16
    er_lumen_nm: float = 20.0
    golgi: int = 1
    pits: int = 6
    coated_vesicles: int = 6
    vesicles: int = 60
    lysosomes: int = 5
    droplets: int = 1
    microtubules: int = 8
    pore_nm: float = 92.0
    pore_spread_nm: float = 11.0


@dataclass(frozen=True, slots=True)
class Stain:
    """How dark things are: 0 is bare resin, 1 the darkest stain."""

    cytosol: float = 0.24
    grain: float = 1.0  # of cytosol and chromatin
    ribosomes: float = 0.32
    membranes: float = 0.85
    matrix: float = 0.46
    crista: float = 0.26
    er_lumen: float = 0.15
    golgi_lumen: float = 0.26
    nucleoplasm: float = 0.28
    heterochromatin: float = 0.26
    coat: float = 0.45
    lysosome: float = 0.62


@dataclass(frozen=True, slots=True)
class Milling:
    """How a FIB-SEM saw it.

    Attributes
    ----------
    white, span
        Grey value (0 to 255) of bare resin, and how far below it the darkest stain lies.
    gamma
        Of the display curve.
    blur_nm, blur_z_nm
        Point spread (Gaussian sigma) in the imaged plane and across it, where the beam's depth counts.
    noise
        Grey levels of shot noise at mid grey.
    noise_grain
        Voxels over which the noise of a line scan hangs together.
    curtains
        Grey levels of curtaining: stripes along y, where the ion beam came from.
    flicker
        Grey levels by which slices differ.
    """

    white: float = 215.0
    span: float = 185.0
    gamma: float = 1.0
    blur_nm: float = 5.0
    blur_z_nm: float = 6.0
    noise: float = 11.0
    noise_grain: float = 0.55
    curtains: float = 5.0
    flicker: float = 1.5


@dataclass(frozen=True, slots=True)
class CellSettings:
    """A region of a cell.

    Attributes
    ----------
    name
        Of the cell; regions of one cell share anatomy, stain and milling.
    region
        Which region; everything random follows from the name and this number.
    shape
        Voxels as (z, y, x).
    voxel_nm
        Edge of a voxel.
    """

    name: str = "train-1"
    region: int = 0
    shape: tuple[int, int, int] = (176, 176, 176)
    voxel_nm: float = 8.0
    anatomy: Anatomy = Anatomy()
    stain: Stain = Stain()
    milling: Milling = Milling()

    @classmethod
    def of(cls, name: CellName, region: int = 0, **changes: object) -> "CellSettings":
        """Region of one of the four cells: two to train on, two naive ones with other anatomy, stain and milling."""
        usual = replace(CELLS[name], region=region)
        return replace(usual, **changes)  # type: ignore[arg-type]


CELLS: dict[CellName, CellSettings] = {
    # a cultured cell after chemical fixation: clear cytosol, dark mitochondria
    "train-1": CellSettings(name="train-1"),
    # denser cytosol, thinner and paler mitochondria, harder display curve, little noise
    "train-2": CellSettings(
        name="train-2",
        anatomy=Anatomy(mitochondria=20, mitochondrion_radius_nm=(95.0, 160.0), cristae_nm=48.0, er_sheets=0.16,
                        er_tubes=24, er_lumen_nm=24.0, lysosomes=4, microtubules=14),
        stain=Stain(cytosol=0.34, grain=1.3, ribosomes=0.25, membranes=0.75, matrix=0.45, crista=0.32, er_lumen=0.24,
                    nucleoplasm=0.38, heterochromatin=0.2),
        milling=Milling(white=225.0, span=190.0, gamma=1.15, noise=8.0, noise_grain=0.4, curtains=3.0),
    ),
    # high-pressure frozen and freeze-substituted: mitochondria hardly darker than the cytosol, swollen reticulum, noise
    "naive-1": CellSettings(
        name="naive-1",
        anatomy=Anatomy(mitochondria=9, mitochondrion_radius_nm=(150.0, 270.0), cristae_nm=85.0, er_sheets=0.24,
                        er_tubes=12, er_lumen_nm=32.0, lysosomes=8, droplets=2),
        stain=Stain(cytosol=0.37, grain=0.8, ribosomes=0.38, membranes=0.8, matrix=0.39, crista=0.20, er_lumen=0.30,
                    nucleoplasm=0.36, heterochromatin=0.15, lysosome=0.50),
        milling=Milling(white=195.0, span=150.0, noise=10.0, noise_grain=0.65, blur_nm=6.0, curtains=6.0),
    ),
    # heavy stain: near-black mitochondria with light cristae, pale cytosol, strong curtains
    "naive-2": CellSettings(
        name="naive-2",
        anatomy=Anatomy(mitochondria=16, mitochondrion_radius_nm=(100.0, 200.0), cristae_nm=55.0, er_sheets=0.3,
                        er_tubes=10, er_lumen_nm=15.0, lysosomes=6, droplets=2, vesicles=90),
        stain=Stain(cytosol=0.22, grain=1.5, ribosomes=0.42, membranes=0.9, matrix=0.70, crista=0.40, er_lumen=0.30,
                    nucleoplasm=0.30, heterochromatin=0.40, coat=0.45, lysosome=0.75),
        milling=Milling(white=235.0, span=215.0, gamma=0.85, noise=14.0, blur_nm=4.0, curtains=11.0, flicker=4.0),
    ),
}  # fmt: skip
