"""Blocks to learn organelles from: drawn from annotated volumes by the published rules, varied, and cut to size.

A block is a function of the seed and the iteration's number alone, so that a training that was interrupted goes on with
the blocks it would have seen.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from models.training.loop import TrainingError
from models.training.organelles_recipe import Augmentation, OrganelleRecipe, Sampling

Point = NDArray[np.float64]
AnyT = TypeVar("AnyT", bound=np.generic)
BLURRED = 0.5  # share of blocks that are smoothed


@dataclass(frozen=True, slots=True)
class Annotated:
    """A volume with its annotation.

    Attributes
    ----------
    name
        For messages and tables.
    raw
        uint8 (z, y, x), or float32 in [0, 1].
    bits
        uint8 (z, y, x): bit k is set where structure k is.
    mask
        Where the annotation holds; None: everywhere.
    known
        Bit k is set where structure k was annotated at all; nothing is learned of others.
    """

    name: str
    raw: NDArray[np.uint8] | NDArray[np.float32]
    bits: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None = None
    known: int = 255

    @classmethod
    def of(
        cls,
        name: str,
        raw: NDArray[np.uint8] | NDArray[np.float32],
        labels: Mapping[str, NDArray[np.generic]],
        structures: Sequence[str],
        mask: NDArray[np.bool_] | None = None,
    ) -> "Annotated":
        """From a label volume for each structure, not 0 where it is.

        Raises
        ------
        TrainingError
            When a structure's labels are missing or do not lie on the grid of the volume.
        """
        bits = np.zeros(raw.shape, np.uint8)
        for k, structure in enumerate(structures):
            if structure not in labels:
                raise TrainingError(f"{name}: no labels of {structure}; there are: {', '.join(sorted(labels)) or '-'}")
            if labels[structure].shape != raw.shape:
                raise TrainingError(
                    f"{name}: labels of {structure} are {labels[structure].shape} voxels, the volume {raw.shape}"
                )
            bits |= np.where(labels[structure] != 0, np.uint8(1 << k), np.uint8(0))
        if mask is not None and mask.shape != raw.shape:
            raise TrainingError(f"{name}: the mask is {mask.shape} voxels, the volume {raw.shape}")
        return cls(name, raw, bits, mask)

    def grey(self, box: tuple[slice, ...]) -> NDArray[np.float32]:
        """Grey values of a box in [0, 1]."""
        part = self.raw[box]
        return (
            np.asarray(part, np.float32) / np.float32(255) if part.dtype == np.uint8 else np.asarray(part, np.float32)
        )

    def cut(self, box: tuple[slice, ...], name: str | None = None) -> "Annotated":
        """A part of it."""
        return Annotated(
            name or self.name, self.raw[box], self.bits[box], None if self.mask is None else self.mask[box], self.known
        )

    @property
    def extent(self) -> tuple[int, ...]:
        """Voxels along each axis from the first annotated one to the last."""
        if self.mask is None:
            return self.raw.shape
        box = ndimage.find_objects(self.mask.astype(np.uint8))[0] if self.mask.any() else (slice(0, 0),) * 3
        return tuple(s.stop - s.start for s in box)

    def marked(self) -> int:
        """Bit k is set where structure k is somewhere in the annotated part."""
        there = self.bits if self.mask is None else self.bits[self.mask]
        return self.known & int(np.bitwise_or.reduce(there, axis=None))


@dataclass(frozen=True, slots=True)
class Block:
    """What a network sees and should say: volume (n, 1, z, y, x), truth and weight (n, structures, z, y, x)."""

    volume: Tensor
    truth: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> "Block":
        """The same on a device."""
        return Block(self.volume.to(device), self.truth.to(device), self.mask.to(device))


class Blocks:
    """Blocks by the iteration's number.

    Parameters
    ----------
    volumes
        What to draw from, each in proportion to its size.
    recipe
        Sampling and augmentation.
    context
        Of the network.
    seed
        Everything random follows from it and the number.

    Raises
    ------
    TrainingError
        When there is no volume, or one is smaller than a block.
    """

    def __init__(self, volumes: Sequence[Annotated], recipe: OrganelleRecipe, context: int, seed: int) -> None:
        self.volumes, self.recipe, self.context, self.seed = tuple(volumes), recipe, context, seed
        block = recipe.sampling.block
        if not volumes:
            raise TrainingError("no annotated volume to learn from")
        for volume in volumes:
            if min(volume.raw.shape) < block:
                raise TrainingError(
                    f"{volume.name}: {volume.raw.shape} voxels; a block has {block} along each axis (sampling.block)"
                )
        sizes = np.array([v.raw.size for v in volumes], float)
        self._chance = sizes / sizes.sum()
        self._spots = [self._voxels_of(v) if recipe.sampling.centred > 0 else [] for v in volumes]

    def _voxels_of(self, volume: Annotated) -> list[NDArray[np.int64]]:
        """Some voxels of each structure."""
        rng = np.random.default_rng((self.seed, 3))
        spots = []
        for k in range(len(self.recipe.structures)):
            there = (volume.bits & (1 << k)) != 0
            found = np.flatnonzero(there if volume.mask is None else there & volume.mask)
            spots.append(rng.choice(found, min(len(found), 20_000), replace=False) if len(found) else found)
        return spots

    def batch(self, iteration: int) -> Block:
        """What iteration ``iteration`` learns from."""
        rng = np.random.default_rng((self.seed, 7, iteration))
        one = [self._one(rng) for _ in range(self.recipe.optimisation.batch)]
        return Block(*(torch.stack([item[k] for item in one]) for k in range(3)))

    def _one(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        which = int(rng.choice(len(self.volumes), p=self._chance))
        volume = self.volumes[which]
        corner = place(volume, self._spots[which], len(self.recipe.structures), self.recipe.sampling, rng)
        return cut(volume, corner, self.recipe, self.context, rng)


def place(
    volume: Annotated,
    spots: Sequence[NDArray[np.int64]],
    structures: int,
    how: Sampling,
    rng: np.random.Generator,
) -> tuple[int, int, int]:
    """First voxel of a block that the rules let pass."""
    edge = how.block
    shape = volume.raw.shape
    structure = int(rng.integers(structures))
    here = (0, 0, 0)
    for _ in range(how.tries):
        z, y, x = (int(rng.integers(n - edge + 1)) for n in shape)
        if rng.random() < how.centred and len(spots[structure]):
            middle = np.unravel_index(int(rng.choice(spots[structure])), shape)
            aside = rng.integers(-edge // 4, edge // 4 + 1, 3)
            z, y, x = (
                int(np.clip(m + a - edge // 2, 0, n - edge)) for m, a, n in zip(middle, aside, shape, strict=True)
            )
        here = (z, y, x)
        box = (slice(z, z + edge), slice(y, y + edge), slice(x, x + edge))
        share = float(((volume.bits[box] >> structure) & 1).mean())
        if share <= how.few and how.centred == 0 and rng.random() < how.reject_few:
            continue
        if (
            volume.mask is not None
            and 1 - float(volume.mask[box].mean()) > how.outside
            and rng.random() < how.reject_outside
        ):
            continue
        return here
    return here


def signed_permutation(how: Augmentation, rng: np.random.Generator) -> NDArray[np.float64]:
    """A matrix that exchanges and reverses axes at random, as far as that is allowed."""
    order = rng.permutation(3) if how.transpose else np.arange(3)
    signs = rng.choice([-1.0, 1.0], 3) if how.mirror else np.ones(3)
    matrix = np.zeros((3, 3))
    matrix[np.arange(3), order] = signs
    return matrix


@cache
def _spread(edge: int, spacing: int, subsample: int) -> NDArray[np.float32]:
    """Matrix from control points to voxels of one axis: cubic to the coarser grid, linear from there."""
    points, coarse = max(2, round(edge / spacing) + 1), -(-edge // subsample) + 1
    cubic = ndimage.zoom(np.eye(points), (coarse / points, 1), order=3, mode="nearest", grid_mode=False)
    place = np.linspace(0, coarse - 1, edge)
    linear = np.stack([np.interp(place, np.arange(coarse), column) for column in cubic.T], axis=1)
    return linear.astype(np.float32)


def displacements(edge: int, how: Augmentation, rng: np.random.Generator) -> NDArray[np.float32]:
    """Elastic displacement of each voxel of a cube, shape (3, edge, edge, edge), and of its sections."""
    out = np.zeros((3, edge, edge, edge), np.float32)
    if how.jitter > 0:
        spread = _spread(edge, how.spacing, how.subsample)
        moved = rng.normal(0.0, how.jitter, (3, *[spread.shape[1]] * 3)).astype(np.float32)
        for axis in (1, 2, 3):
            moved = np.moveaxis(np.tensordot(spread, moved, axes=(1, axis)), 0, axis)
        out += moved
    if (how.shift > 0 or how.slip > 0) and how.misalign > 0:
        moves = rng.uniform(-how.misalign, how.misalign, (2, edge, 2))
        lasting = np.cumsum(moves[0] * (rng.random((edge, 1)) < how.shift), axis=0)
        lasting -= lasting[edge // 2]
        single = moves[1] * (rng.random((edge, 1)) < how.slip)
        out[1:] += (lasting + single).T[:, :, None, None].astype(np.float32)
    return out


def cut(
    volume: Annotated,
    corner: tuple[int, int, int],
    recipe: OrganelleRecipe,
    context: int,
    rng: np.random.Generator,
    *,
    varied: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Volume (1, z, y, x), truth and mask (structures, z, y, x) of the block whose answer begins at ``corner``.

    Parameters
    ----------
    varied
        Whether it is augmented.
    """
    how, block = recipe.augmentation, recipe.sampling.block
    edge = block + 2 * context
    middle = np.array(corner) + (block - 1) / 2
    inner = slice(context, context + block)
    if not varied:
        box = [(c - context, c + block + context) for c in corner]
        bits, mask = _marks(volume, [(c, c + block) for c in corner])
        return _target(torch.from_numpy(_grey(volume, box, recipe.sampling.padding)), bits, mask, volume.known, recipe)
    if how.deformed < 1 and rng.random() >= how.deformed:
        box = [(c - context, c + block + context) for c in corner]
        matrix = signed_permutation(how, rng)
        bits, mask = (_turned(part, matrix) for part in _marks(volume, [(c, c + block) for c in corner]))
        grey = torch.from_numpy(_turned(_grey(volume, box, recipe.sampling.padding), matrix))
        return _target(recoloured(grey, how, rng), bits, mask, volume.known, recipe)
    turn = float(rng.uniform(0, how.rotation_rad)) if how.rotation_rad else 0.0
    c, s = np.cos(turn), np.sin(turn)
    rotation = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    before, after = signed_permutation(how, rng), signed_permutation(how, rng)
    line = np.arange(edge) - (edge - 1) / 2
    moved = displacements(edge, how, rng)
    # where each voxel of the block comes from, seen from the middle of it
    parts = []
    turned = rotation @ after
    for axis in range(3):
        terms = [
            (turned[axis, k] * line).astype(np.float32).reshape([-1 if j == k else 1 for j in range(3)])
            for k in range(3)
        ]
        parts.append(terms[0] + terms[1] + terms[2] + moved[axis])
    source = [sum(np.float32(before[axis, k]) * parts[k] for k in range(3) if before[axis, k]) for axis in range(3)]
    box, grid = _sampled(source, middle)
    seen = functional.grid_sample(
        torch.from_numpy(_grey(volume, box, recipe.sampling.padding))[None, None],
        grid,
        mode="bilinear",
        align_corners=True,
        padding_mode="border",
    )[0, 0]
    box, grid = _sampled([part[inner, inner, inner] for part in source], middle)
    both = torch.from_numpy(np.stack(_marks(volume, box)).astype(np.float32))[None]
    marks = functional.grid_sample(both, grid, mode="nearest", align_corners=True, padding_mode="border")[0]
    bits, mask = marks.numpy().astype(np.uint8)
    return _target(recoloured(seen, how, rng), bits, mask, volume.known, recipe)


def _turned(cube: NDArray[AnyT], matrix: NDArray[np.float64]) -> NDArray[AnyT]:
    """A cube with its axes exchanged and reversed."""
    order = np.abs(matrix).argmax(1)
    reverse = tuple(axis for axis in range(3) if matrix[axis, order[axis]] < 0)
    return np.ascontiguousarray(np.flip(cube.transpose(order), reverse))


def _sampled(source: Sequence[NDArray[np.float32]], middle: Point) -> tuple[list[tuple[int, int]], Tensor]:
    """Box of a volume that holds places given from ``middle``, and these places in the box as torch counts them."""
    low = [int(np.floor(part.min() + m)) - 1 for part, m in zip(source, middle, strict=True)]
    high = [int(np.ceil(part.max() + m)) + 2 for part, m in zip(source, middle, strict=True)]
    scale = [2 / (b - a - 1) for a, b in zip(low, high, strict=True)]
    grid = np.empty((1, *source[0].shape, 3), np.float32)
    for place, axis in enumerate((2, 1, 0)):
        first = (middle[axis] - low[axis]) * scale[axis] - 1
        grid[0, ..., place] = source[axis] * np.float32(scale[axis]) + np.float32(first)
    return list(zip(low, high, strict=True)), torch.from_numpy(grid)


def _target(
    grey: Tensor, bits: NDArray[np.uint8], mask: NDArray[np.uint8], known: int, recipe: OrganelleRecipe
) -> tuple[Tensor, Tensor, Tensor]:
    each = range(len(recipe.structures))
    truth = np.stack([(bits >> k) & 1 for k in each]).astype(np.float32)
    weight = np.stack([mask * ((known >> k) & 1) for k in each]).astype(np.float32)
    return grey[None], torch.from_numpy(truth), torch.from_numpy(weight)


def recoloured(grey: Tensor, how: Augmentation, rng: np.random.Generator) -> Tensor:
    """Grey values scaled about their mean, shifted, blurred, bent and made noisy at random, in [0, 1]."""
    mean = grey.mean()
    grey = (grey - mean) * float(rng.uniform(*how.scale)) + mean + float(rng.uniform(*how.offset))
    if how.blur > 0 and rng.random() < BLURRED:
        grey = _blurred(grey, float(rng.uniform(0, how.blur)))
    grey = grey.clamp(0, 1)
    if how.gamma > 0:
        grey = grey ** float(np.exp(rng.uniform(-how.gamma, how.gamma)))
    if how.noise > 0:
        level, generator = float(rng.uniform(0, how.noise)), torch.Generator().manual_seed(int(rng.integers(2**62)))
        grey = grey + level * torch.randn(grey.shape, generator=generator)
    return grey.clamp(0, 1)


def _blurred(grey: Tensor, sigma: float) -> Tensor:
    """Smoothed by a little: three voxels along each axis."""
    aside = math.exp(-1 / (2 * sigma**2)) if sigma > 0 else 0.0
    share = aside / (1 + 2 * aside)
    for axis in range(3):
        first, last = grey.narrow(axis, 0, 1), grey.narrow(axis, grey.shape[axis] - 1, 1)
        before = torch.cat([first, grey.narrow(axis, 0, grey.shape[axis] - 1)], axis)
        after = torch.cat([grey.narrow(axis, 1, grey.shape[axis] - 1), last], axis)
        grey = grey * (1 - 2 * share) + share * (before + after)
    return grey


def _inside(shape: Sequence[int], box: Sequence[tuple[int, int]]) -> tuple[tuple[slice, ...], list[tuple[int, int]]]:
    """The part of a box that is in the volume, and how many voxels are missing at both ends of each axis."""
    inside = tuple(slice(min(max(a, 0), n), min(max(b, 0), n)) for (a, b), n in zip(box, shape, strict=True))
    return inside, [(s.start - a, b - s.stop) for (a, b), s in zip(box, inside, strict=True)]


def _grey(volume: Annotated, box: Sequence[tuple[int, int]], padding: float | None) -> NDArray[np.float32]:
    """Grey values of a box that may reach beyond the volume."""
    inside, ends = _inside(volume.raw.shape, box)
    grey = volume.grey(inside)
    if padding is None:
        return np.ascontiguousarray(np.pad(grey, ends, mode="symmetric"))
    return np.ascontiguousarray(np.pad(grey, ends, constant_values=np.float32(padding)))


def _marks(volume: Annotated, box: Sequence[tuple[int, int]]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Bits and mask of a box that may reach beyond the volume, where both are 0."""
    inside, ends = _inside(volume.raw.shape, box)
    bits = volume.bits[inside]
    mask = np.ones(bits.shape, np.uint8) if volume.mask is None else volume.mask[inside].astype(np.uint8)
    return np.pad(bits, ends), np.pad(mask, ends)


def fixed_blocks(volume: Annotated, recipe: OrganelleRecipe, context: int, count: int) -> list[Block]:
    """At most ``count`` blocks spread evenly over a volume, as they are, to validate on.

    Raises
    ------
    TrainingError
        When the volume is smaller than a block.
    """
    edge = recipe.sampling.block
    if min(volume.raw.shape) < edge:
        raise TrainingError(f"{volume.name}: {volume.raw.shape} voxels; a validation block has {edge} along each axis")
    places = [list(range(0, n - edge + 1, edge)) for n in volume.raw.shape]
    corners = [(z, y, x) for z in places[0] for y in places[1] for x in places[2]]
    chosen = [corners[i] for i in np.unique(np.linspace(0, len(corners) - 1, min(count, len(corners))).astype(int))]
    rng = np.random.default_rng(0)
    cuts = [cut(volume, corner, recipe, context, rng, varied=False) for corner in chosen]
    return [Block(*(part[None] for part in one)) for one in cuts]
