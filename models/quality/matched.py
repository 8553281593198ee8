"""The matched filter for Thon rings: defocus by a search over all of them, then the plane's best fit near it."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from models.conditions import Conditions
from models.quality.flatten import Flat, splines
from models.quality.optics import Defocus, Lens

Floats = NDArray[np.float64]

LEAST_UM, MOST_UM = 0.25, 8.0
MOST_ASTIGMATISM = 0.5  # of the mean defocus, as largest minus smallest
APART = 0.12  # defoci closer to each other than this share are one peak
_PLATE_STEP_DEG = 15.0
_ENVELOPES = (0.12, 0.2, 0.32, 0.5, 0.75, 1.5)  # Gaussian widths, as share of the finest frequency
_CANDIDATES = 3


def _grid(lens: Lens, high: float) -> Floats:
    """Defoci in µm whose phases differ by half a radian at most at the frequency ``high``."""
    step = min(0.5 / (lens.quadratic * high * high), 0.02)
    return np.arange(LEAST_UM, MOST_UM + step, step)


def search(flat: Flat, lens: Lens, conditions: Conditions) -> tuple[list[Defocus], Floats, Floats]:
    """Best starts, and the score of each defocus on the grid (best over envelopes and phase shifts)."""
    rings, weight = flat.mean()
    k, high = flat.k, float(flat.k[-1])
    grid = _grid(lens, high)
    fixed = conditions.phase_shift_deg
    shifts = np.arange(0.0, 180.0, _PLATE_STEP_DEG) if fixed is None else np.array([fixed])
    root = np.sqrt(weight)
    data = rings * root
    data = data - flat.basis.T @ (flat.basis @ data)
    best = np.full(len(grid), -np.inf)
    best_shift = np.zeros(len(grid))
    for shift in shifts:
        waves = -np.cos(2 * lens.phase(k[None, :], grid[:, None], math.radians(float(shift))))
        # rings narrower than four bins are blurred away
        per_bin = 2 * lens.quadratic * grid[:, None] * 2 * k[None, :] * (k[1] - k[0])
        waves *= np.clip(2.0 - per_bin / (0.5 * math.pi), 0, 1) * root
        for width in _ENVELOPES:
            template = waves * np.exp(-((k / (width * high)) ** 2))
            inside = template @ flat.basis.T
            norm = np.sqrt(np.maximum((template * template).sum(axis=1) - (inside * inside).sum(axis=1), 1e-12))
            score = (template @ data) / norm
            # fewer than a ring and a half under the envelope could be any slow bump of the background
            score[lens.phase(np.array([min(width, 1.0) * high]), grid[:, None])[:, 0] < 1.5 * math.pi] = -np.inf
            better = score > best
            best[better], best_shift[better] = score[better], shift
    starts: list[Defocus] = []
    left = best.copy()
    for _ in range(_CANDIDATES):
        top = int(np.argmax(left))
        if not np.isfinite(left[top]):
            break
        starts.append(Defocus(float(grid[top]), shift_deg=float(best_shift[top])))
        left[np.abs(grid / grid[top] - 1) < APART] = -np.inf
    return starts, grid, best


def _template(flat: Flat, lens: Lens, defocus: Defocus, envelope: Floats) -> Floats:
    along = defocus.along(flat.theta)[:, None]
    gamma = lens.phase(flat.k[None, :], along, math.radians(defocus.shift_deg))
    return np.asarray(-np.cos(2 * gamma) * envelope, dtype=np.float64)


class Filter:
    """The matched filter over the whole plane: how well a defocus explains the rings, and the best one near another."""

    def __init__(self, flat: Flat, lens: Lens, *, free_shift: bool) -> None:
        self.flat = flat
        self.lens = lens
        self.free_shift = free_shift
        self._data = flat.rings * flat.weight
        self._root = np.maximum(np.sqrt(flat.weight.sum(axis=0)), 1e-12)
        high = float(flat.k[-1])
        self.shapes = [np.exp(-((flat.k / (width * high)) ** 2)) for width in _ENVELOPES[1:5:2]]
        # a step that turns the phase by a third of a radian in the middle of the band
        self.step_um = 0.3 / (lens.quadratic * (0.5 * high) ** 2)

    def score(self, defocus: Defocus, envelope: Floats) -> float:
        """Height of the filter in standard deviations of noise."""
        wave = _template(self.flat, self.lens, defocus, envelope)
        weighted = wave * self.flat.weight
        inside = self.flat.basis @ (weighted.sum(axis=0) / self._root)
        norm = float((weighted * wave).sum()) - float(inside @ inside)
        return float((wave * self._data).sum()) / math.sqrt(max(norm, 1e-12))

    def best_starts(self, starts: list[Defocus]) -> list[tuple[Defocus, Floats]]:
        """The two most promising of ``starts``, each with the astigmatism and envelope that suit it."""
        found: list[tuple[float, Defocus, Floats]] = []
        for start in starts:
            tries = [start]
            for share in (0.03, 0.08, 0.18):
                tries += [
                    Defocus(start.mean_um, share * start.mean_um, angle, start.shift_deg)
                    for angle in (0.0, 30.0, 60.0, 90.0, 120.0, 150.0)
                ]
            scored = [(self.score(one, shape), one, shape) for one in tries for shape in self.shapes]
            found.append(max(scored, key=lambda item: item[0]))
        found.sort(key=lambda item: -item[0])
        return [(one, shape) for _, one, shape in found[:2]]

    def climb(self, start: Defocus, envelope: Floats) -> tuple[float, Defocus]:
        """The best score near ``start``, and where it is (simplex of Nelder & Mead)."""
        turn, half = math.radians(2 * start.angle_deg), 0.5 * start.astigmatism_um
        begin = np.array([start.mean_um, half * math.cos(turn), half * math.sin(turn), start.shift_deg / 180])
        begin = begin if self.free_shift else begin[:3]

        def made(values: Floats) -> Defocus:
            mean, c, s = (float(value) for value in values[:3])
            shift = float(values[3]) * 180 % 180 if self.free_shift else start.shift_deg
            return Defocus(mean, 2 * math.hypot(c, s), math.degrees(0.5 * math.atan2(s, c)) % 180.0, shift)

        def cost(values: Floats) -> float:
            one = made(values)
            beyond = max(0.0, one.astigmatism_um - MOST_ASTIGMATISM * abs(one.mean_um))
            below = max(0.0, LEAST_UM * 0.8 - one.mean_um)
            return -self.score(one, envelope) + 1e3 * (beyond + below)

        steps = np.diag([self.step_um] * 3 + [0.05])[: len(begin), : len(begin)]
        simplex = np.vstack([begin, begin + steps])
        options = {"initial_simplex": simplex, "xatol": 2e-5, "fatol": 1e-3, "maxiter": 150}
        found = optimize.minimize(cost, begin, method="Nelder-Mead", options=options)
        return -float(found.fun), made(found.x)


def envelope_of(flat: Flat, lens: Lens, defocus: Defocus) -> Floats:
    """Amplitude of the rings along k, never negative, as the spectrum itself has it."""
    wave = _template(flat, lens, defocus, np.ones_like(flat.k))
    wave = wave - (wave * flat.weight).sum() / max(float(flat.weight.sum()), 1e-12)
    top = (wave * flat.rings * flat.weight).sum(axis=0)
    bottom = (wave * wave * flat.weight).sum(axis=0)
    design = splines(flat.k, float(flat.k[0]), float(flat.k[-1]), 5, degree=2)
    normal = (design * bottom[:, None]).T @ design
    ridge = 1e-6 * float(np.trace(normal)) / len(normal)
    fitted = design @ np.linalg.solve(normal + ridge * np.eye(len(normal)), design.T @ top)
    peak = float(fitted.max(initial=0.0))
    return np.asarray(np.maximum(fitted, 0.02 * peak) if peak > 0 else np.ones_like(fitted), dtype=np.float64)
