"""Fibres and needles of frozen ethane that lie across many squares: opaque curves on the stage."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from simulators.specimen import noise
from simulators.specimen.noise import Field
from simulators.specimen.settings import SpecimenSettings
from simulators.specimen.view import View, stage_to_pixel

OPAQUE_RAD = 25.0
_USUAL = {"mixed": 4.0, "good": 1.5, "thick": 3.0, "poor": 12.0}
_FRACTION_BITS = 4


@dataclass(frozen=True, slots=True)
class Fibre:
    """One fibre: points along it on the stage in µm, shape (n, 2), and its width in µm at each, shape (n,)."""

    points_um: NDArray[np.float64]
    width_um: NDArray[np.float64]

    def distance(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far stage points (µm) are from its edge; negative on it."""
        start, end = self.points_um[:-1], self.points_um[1:]
        along = end - start
        dx, dy = x[:, None] - start[None, :, 0], y[:, None] - start[None, :, 1]
        share = np.clip((dx * along[:, 0] + dy * along[:, 1]) / (along**2).sum(axis=1), 0, 1)
        away = np.hypot(dx - share * along[:, 0], dy - share * along[:, 1]) - self.width_um[:-1] / 2
        return np.asarray(away.min(axis=1))


def draw(settings: SpecimenSettings) -> tuple[Fibre, ...]:
    """The fibres of a grid, a few per square millimetre; many of them lie in one tuft."""
    rng = noise.stream(settings.seed, 43)
    radius = settings.grid_radius_um
    count = int(rng.poisson(_USUAL[settings.ice] * (radius / 1000) ** 2))
    tuft = rng.uniform(-0.6, 0.6, 2) * radius
    out = []
    for _ in range(count):
        lone = rng.uniform() < 0.5
        start = rng.uniform(-0.8, 0.8, 2) * radius if lone else tuft + rng.normal(0, 0.09 * radius, 2)
        length, angle = math.exp(rng.normal(4.9, 0.6)), rng.uniform(0, 2 * math.pi)
        steps = max(8, int(length / 12))
        heading = angle + np.cumsum(rng.normal(0, rng.choice([0.02, 0.15]), steps))
        step = length / steps * np.stack([np.cos(heading), np.sin(heading)], axis=1)
        taper = np.sin(np.linspace(0.15, 3.0, steps + 1)) ** 0.5
        points = start + np.concatenate([np.zeros((1, 2)), np.cumsum(step, axis=0)])
        out.append(Fibre(points, math.exp(rng.normal(0.9, 0.6)) * taper))
    return tuple(out)


def stamp(fibres: tuple[Fibre, ...], view: View, phase: Field) -> None:
    """Draw fibres over the phase of a frame."""
    for fibre in fibres:
        middle = fibre.points_um.mean(axis=0)
        extent = float(np.hypot(*(fibre.points_um - middle).T).max())
        if math.hypot(middle[0] - view.x_um, middle[1] - view.y_um) > extent + view.reach_um + 10:
            continue
        mask = np.zeros(phase.shape, np.uint8)
        xs, ys = stage_to_pixel(view, fibre.points_um[:, 0], fibre.points_um[:, 1])
        at = np.clip(np.stack([xs, ys], axis=1) * 2**_FRACTION_BITS, -(2**30), 2**30).astype(np.int32)
        for k in range(len(at) - 1):
            width = max(1, round(float(fibre.width_um[k]) / view.pixel_size_um))
            first, last = (int(at[k, 0]), int(at[k, 1])), (int(at[k + 1, 0]), int(at[k + 1, 1]))
            cv2.line(mask, first, last, 255, min(width, 4000), cv2.LINE_AA, _FRACTION_BITS)
        phase += mask.astype(np.float32) * np.float32(OPAQUE_RAD / 255)
