"""How thick the ice is: over the grid, over one square, in one hole."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from simulators.specimen import noise
from simulators.specimen.noise import Field
from simulators.specimen.settings import SpecimenSettings
from simulators.specimen.truth import SquareState

_MEDIAN_NM = {"mixed": 48.0, "good": 38.0, "thick": 230.0, "poor": 45.0}
_SPREAD = {"mixed": 0.75, "good": 0.28, "thick": 0.7, "poor": 1.15}
DARK_NM = 620.0


def on_grid_nm(settings: SpecimenSettings, x_um: float, y_um: float) -> float:
    """Ice at a place of the grid (mesh coordinates): a slope left by blotting, slow waves, a flooded side."""
    rng = noise.stream(settings.seed, 3)
    angle, slope = rng.uniform(0, 2 * math.pi), rng.uniform(0.5, 1.1)
    radius = max(settings.grid_radius_um, 300.0)
    along = (x_um * math.cos(angle) + y_um * math.sin(angle)) / radius
    wave = noise.value(settings.seed, 3.6, x_um, y_um, 2.6 * radius)
    wave += 0.35 * noise.value(settings.seed + 1, 3.0, x_um, y_um, 1.1 * radius)
    level = slope * along + 0.75 * wave
    flooded = max(0.0, level - 0.8) if settings.ice != "good" else 0.0
    return _MEDIAN_NM[settings.ice] * math.exp(min(_SPREAD[settings.ice] * level + 1.8 * flooded, 4.4))


def state_of(ice_nm: float) -> SquareState:
    """State of a square with whole foil, by its ice."""
    if ice_nm < 7:
        return "empty"
    if ice_nm < 16:
        return "thin"
    if ice_nm < 110:
        return "good"
    return "thick" if ice_nm < DARK_NM else "dark"


@dataclass(frozen=True, slots=True)
class SquareIce:
    """Ice of one square: a slope, waves, and what clings to the bars.

    Parameters
    ----------
    centre_nm
        Thickness at the centre.
    slope_x, slope_y
        Relative change per µm.
    dome
        How much thicker (relative, negative: thinner) the middle is than a place 30 µm away.
    wave
        Strength of the waves.
    rim_nm, rim_um
        Extra thickness at a bar, and the distance over which it falls to 1/e.
    shift
        Where in the noise this square lies.
    """

    centre_nm: float
    slope_x: float
    slope_y: float
    dome: float
    wave: float
    rim_nm: float
    rim_um: float
    shift: tuple[float, float]
    seed: int

    def at(self, x: Field, y: Field, opening: Field) -> Field:
        """Thickness in nm at points about the centre (µm) that are ``opening`` µm away from the bars."""
        zero = np.zeros((1, 1), np.float32)
        origin = float(noise.sample(self.seed, 3.6, zero, zero, 160.0, self.shift)[0, 0])
        waves = noise.sample(self.seed, 3.6, x, y, 160.0, self.shift) - np.float32(origin)
        level = np.float32(self.slope_x) * x + np.float32(self.slope_y) * y + np.float32(self.wave) * waves
        level = level - np.float32(self.dome / 900.0) * (x * x + y * y)
        rim = np.float32(self.rim_nm) * np.exp(np.minimum(-opening / np.float32(self.rim_um), 0.5))
        return np.asarray(np.float32(self.centre_nm) * np.exp(np.clip(level, -1.6, 1.6)) + rim, dtype=np.float32)


def on_foil(ice_nm: Field) -> Field:
    """Ice on the foil between holes: little where a hole holds a thin film, nearly all of a thick one."""
    return np.asarray(ice_nm * (0.3 + 0.7 * ice_nm / (ice_nm + 75.0)), dtype=np.float32)


def quality(ice_nm: float, crystalline: float, contamination: float) -> float:
    """Probability that a micrograph is good: best at 20 to 60 nm, less with crystals and dirt."""
    if ice_nm < 3:
        return 0.0
    thin = 1 / (1 + math.exp(-(ice_nm - 14) / 2.5))
    thick = 1 / (1 + (max(ice_nm - 45, 0) / 60) ** 2)
    return thin * thick * (1 - crystalline) ** 2 * max(0.0, 1 - 1.6 * contamination)
