"""Simulated gold on the network's raster, and what the network is to say about it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.gold.fast import CELLS
from models.gold.network import Cells
from models.gold.sampling import CANONICAL_NM, raster_of
from simulators.specimen import immunogold

Field = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture on the network's raster, shape (rows, columns), and its particles.

    ``marks`` has rows (x, y, diameter, weight), in raster pixels; weight 0 says that nothing is to be learnt there.
    """

    picture: NDArray[np.float16]
    marks: Field


def simulated(seed: int, side: int) -> Sample:
    """A picture of ``side`` raster pixels, of a random look at a random magnification."""
    rng = np.random.default_rng([seed, 41])
    pixel_nm = float(np.exp(rng.uniform(np.log(0.3), np.log(3.0))))
    if rng.uniform() < 0.55:  # most work is done here
        pixel_nm = float(rng.uniform(0.5, 1.5))
    look = immunogold.draw_look(rng, pixel_nm)
    native = int(np.ceil(side * CANONICAL_NM / pixel_nm))
    made = immunogold.render(look, seed, (native, native), pixel_nm)
    raster = raster_of(made.image, pixel_nm)
    rows, columns = min(side, raster.shape[0]), min(side, raster.shape[1])
    picture = raster.window(0, 0, rows, columns)
    marks = [
        ((b.x + 0.5) / raster.step - 0.5, (b.y + 0.5) / raster.step - 0.5,
         b.diameter_nm / pixel_nm / raster.step, float(b.visible))
        for b in made.beads
    ]  # fmt: skip
    return Sample(np.clip(picture, -60, 60).astype(np.float16), np.array(marks, np.float32).reshape(-1, 4))


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures (n, 1, side, side); targets (n, 5, cells, cells): heat, weight of heat, log diameter, dx, dy; and.

    ``near`` (n, cells, cells): weight with which the last three count.
    """

    pictures: Field
    targets: Field
    near: Field


def batch(samples: Sequence[Sample], seed: int, step: int, size: int, side: int) -> Batch:
    """The batch of one step: ``size`` crops of ``side`` pixels, turned, mirrored and with other contrast."""
    rng = np.random.default_rng([seed, 43, step])
    crops = [crop(rng, samples[int(rng.integers(len(samples)))], side) for _ in range(size)]
    maps = [targets(marks, side) for _, marks in crops]
    pictures = np.stack([picture for picture, _ in crops])[:, None]
    return Batch(pictures, np.stack([m[0] for m in maps]), np.stack([m[1] for m in maps]))


def crop(rng: np.random.Generator, sample: Sample, side: int) -> tuple[Field, Field]:
    """A square of a sample, turned, mirrored and with other contrast, and the marks in its pixels."""
    picture, marks = sample.picture, sample.marks
    rows, columns = picture.shape
    if len(marks) and rng.uniform() < 0.8:  # look at particles: most of a picture has none
        x, y = marks[int(rng.integers(len(marks))), :2] + rng.uniform(-side / 2.5, side / 2.5, 2) - side / 2
    else:
        x, y = rng.uniform(0, max(1, columns - side + 1)), rng.uniform(0, max(1, rows - side + 1))
    left, top = int(np.clip(x, 0, max(0, columns - side))), int(np.clip(y, 0, max(0, rows - side)))
    part = picture[top : top + side, left : left + side].astype(np.float32)
    if part.shape != (side, side):
        part = np.pad(part, ((0, side - part.shape[0]), (0, side - part.shape[1])))  # nothing is known beyond
    inside = marks.copy()
    inside[:, 0] -= left
    inside[:, 1] -= top
    if rng.uniform() < 0.5:
        part, inside[:, 0] = part[:, ::-1], side - 1 - inside[:, 0]
    if rng.uniform() < 0.5:
        part, inside[:, [0, 1]] = part.T, inside[:, [1, 0]]
    if rng.uniform() < 0.5:
        part, inside[:, 0] = part[:, ::-1], side - 1 - inside[:, 0]
    if rng.uniform() < 0.7:
        part = part * np.float32(np.exp(rng.normal(0, 0.25))) + np.float32(rng.normal(0, 0.5))
    if rng.uniform() < 0.3:
        part = part + np.float32(rng.uniform(0, 0.4)) * rng.standard_normal(part.shape, dtype=np.float32)
    return np.ascontiguousarray(part, np.float32), inside


def targets(marks: Field, side: int, said: Cells = CELLS) -> tuple[Field, Field]:
    """Maps of (5, cells, cells) and (cells, cells) for objects in pixels of a picture of ``side``; see `Batch`."""
    stride = said.stride
    cells = side // stride
    maps = np.zeros((5, cells, cells), np.float32)
    maps[1] = 1
    near = np.zeros((cells, cells), np.float32)
    closest = np.full((cells, cells), np.inf, np.float32)
    axis = np.arange(cells, dtype=np.float32) * stride + (stride - 1) / 2
    for x, y, diameter, weight in marks.tolist():
        reach = max(diameter / 2, 4.0) + 4
        rows = slice(max(0, int((y - reach) // stride)), max(0, int((y + reach) // stride) + 2))
        columns = slice(max(0, int((x - reach) // stride)), max(0, int((x + reach) // stride) + 2))
        dy, dx = y - axis[rows, None], x - axis[None, columns]
        r2 = dx * dx + dy * dy
        if r2.size == 0:
            continue
        if weight == 0:
            maps[1][rows, columns][r2 < (diameter / 2 + 2) ** 2] = 0
            continue
        sigma = max(0.55 * stride, 0.13 * diameter)
        heat = np.exp(-r2 / (2 * sigma**2))
        j, i = round((y - axis[0]) / stride), round((x - axis[0]) / stride)
        if 0 <= j < cells and 0 <= i < cells:
            heat[j - rows.start, i - columns.start] = 1.0
            maps[1][j, i] = 1
        window = (rows, columns)
        maps[0][window] = np.maximum(maps[0][window], heat)
        mine = (r2 < closest[window]) & (r2 < (1.6 * stride) ** 2)
        closest[window][mine] = r2[mine]
        maps[2][window][mine] = np.log(diameter / said.reference_px)
        maps[3][window][mine] = np.broadcast_to(dx / stride, r2.shape)[mine]
        maps[4][window][mine] = np.broadcast_to(dy / stride, r2.shape)[mine]
        near[window][mine] = heat[mine]
    return maps, near
