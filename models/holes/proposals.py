"""What the hole network says of a frame: where holes may be, how large, and what each is worth."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from models.holes.levels import Level, levels_of
from models.holes.prepare import Working
from models.holes.template import peaks
from models.runtime import OnnxModel

Floats = NDArray[np.float64]

LEAST = 0.12  # chance below which a peak is nothing
_MOST = 4000  # peaks of one level


@dataclass(frozen=True, slots=True)
class Maps:
    """Answers of the network to one level, at half its scale."""

    level: Level
    centre: NDArray[np.float32]  # (rows, columns): chance that a centre is in the cell
    about: NDArray[np.float32]  # (7, rows, columns): see models/training/networks.py

    def cells(self, points: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns of the cells at working points (n, 2)."""
        at = np.rint(((points + 0.5) * self.level.scale - 1.0) / 2.0).astype(np.int64)
        rows, columns = self.centre.shape
        return at[:, 1].clip(0, rows - 1), at[:, 0].clip(0, columns - 1)

    def chance_at(self, points: Floats) -> Floats:
        """Chance of a hole near working points (n, 2), the best of the cell of each and the eight round it."""
        row, column = self.cells(points)
        around = np.pad(self.centre, 1)
        best = np.max([around[row + i, column + j] for i in range(3) for j in range(3)], axis=0)
        return np.asarray(best, np.float64)

    def quality_at(self, points: Floats) -> Floats:
        """Chance of a good micrograph at working points (n, 2)."""
        row, column = self.cells(points)
        return np.asarray(1.0 / (1.0 + np.exp(-self.about[1, row, column].astype(np.float64))))


@dataclass(frozen=True, slots=True)
class Proposals:
    """Possible holes of one frame, in working pixels, best first; arrays of shape (n,), ``points`` (n, 2)."""

    points: Floats
    radius: Floats
    chance: Floats
    quality: Floats
    level: NDArray[np.int64]

    def chosen(self, those: NDArray[np.integer] | NDArray[np.bool_]) -> "Proposals":
        """Some of them."""
        return Proposals(
            self.points[those], self.radius[those], self.chance[those], self.quality[those], self.level[those]
        )


def maps_of(network: OnnxModel, work: Working) -> list[Maps]:
    """Answers of the network on every scale, the coarsest first."""
    found = []
    for level in levels_of(work):
        answer = network.run(level.planes[None])
        rows, columns = (level.rows + 1) // 2, (level.columns + 1) // 2
        found.append(Maps(level, answer["centre"][0, 0, :rows, :columns], answer["about"][0, :, :rows, :columns]))
    return found


def proposals_of(maps: list[Maps]) -> Proposals:
    """Peaks of all levels together."""
    parts = [_peaks(m, k) for k, m in enumerate(maps)]
    joined = Proposals(
        np.concatenate([p.points for p in parts]),
        np.concatenate([p.radius for p in parts]),
        np.concatenate([p.chance for p in parts]),
        np.concatenate([p.quality for p in parts]),
        np.concatenate([p.level for p in parts]),
    )
    return joined.chosen(np.argsort(-joined.chance, kind="stable"))


def _peaks(maps: Maps, number: int) -> Proposals:
    cells, chance = peaks(maps.centre, LEAST, 1.0)
    cells, chance = cells[:_MOST], chance[:_MOST]
    column, row = np.rint(cells).astype(int).T.reshape(2, -1)
    column, row = column.clip(0, maps.centre.shape[1] - 1), row.clip(0, maps.centre.shape[0] - 1)
    radius = np.exp(maps.about[0, row, column].astype(np.float64)) / maps.level.scale
    quality = 1.0 / (1.0 + np.exp(-maps.about[1, row, column].astype(np.float64)))
    points = maps.level.to_working(2.0 * cells + 0.5)
    return Proposals(points, radius, chance, quality, np.full(len(cells), number))


def sizes(found: Proposals, *, width: float = 0.12, most: int = 3) -> list[float]:
    """Radii on which proposals agree, those first that explain most of the frame."""
    if not len(found.chance):
        return []
    at = np.arange(np.log(found.radius.min()) - 0.3, np.log(found.radius.max()) + 0.3, 0.03)
    weight = found.chance**4 * found.radius**2
    shape = np.exp(-0.5 * ((at[:, None] - np.log(found.radius)[None, :]) / width) ** 2) @ weight
    top = (
        np.flatnonzero((shape[1:-1] >= shape[:-2]) & (shape[1:-1] > shape[2:]) & (shape[1:-1] > 0.1 * shape.max())) + 1
    )
    return [float(np.exp(at[k])) for k in top[np.argsort(-shape[top], kind="stable")][:most]]


def of_size(found: Proposals, radius: float, *, within: float = 0.3) -> Proposals:
    """Proposals whose radius is near ``radius`` (natural logarithm ``within``), one for each place."""
    near = found.chosen(np.abs(np.log(found.radius / radius)) < within)
    if len(near.chance) < 2:
        return near
    keep = np.ones(len(near.chance), bool)
    pairs = cKDTree(near.points).query_pairs(1.1 * radius, output_type="ndarray")
    for a, b in pairs[np.argsort(pairs.min(axis=1), kind="stable")]:  # best first
        if keep[min(a, b)]:
            keep[max(a, b)] = False
    return near.chosen(keep)
