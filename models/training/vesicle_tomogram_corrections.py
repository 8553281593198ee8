"""Tomograms: learning from a person's corrections, beside simulated tomograms so that none is unlearnt.

The checked parts are cut into cubes of 106 nm (48 voxels of 2.2 nm); every fourth cube is held out and tells, before
and after, what was gained. Nothing outside the checked parts and nothing held out counts in the loss.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models.runtime import WEIGHTS, read_manifest
from models.training.corrections import HELD_OUT, Material, Quality, go_on, tally
from models.training.export import filled
from models.training.loop import LoopSettings, Say, TrainingError, seeded
from models.training.vesicles import Example, FastVesicleNet, VesicleRecipe, examples, write
from models.vesicles.network import REACH, Source, open_source
from models.vesicles.seeds import cones, tips

NAME = "vesicles-tomogram"
CUBE = 48  # voxels of the grid
_MARGIN = 16  # voxels around a held-out cube in which vesicles at its faces are seen whole

Rows = NDArray[np.float64]


class TomogramFinetuneRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that learning from corrections follows from.

    Attributes
    ----------
    seed
        Of the split, the cubes and their order.
    patch, batch
        Edge of the cubes that are learned from in voxels, a multiple of 8, and how many for each step.
    tomograms
        Simulated tomograms that are shown beside the corrections.
    simulated_share
        Share of the cubes that are simulated.
    loop
        How long and how fast.
    """

    seed: int = 0
    patch: int = 56
    batch: int = 3
    tomograms: int = 6
    simulated_share: float = 0.35
    loop: LoopSettings = LoopSettings(steps=200, learning_rate=3e-4, averaging=0.97, report_every=25, save_every=1000)


@dataclass(frozen=True, slots=True)
class CorrectedVolume:
    """A tomogram that a person went through.

    ``marks`` has rows (z, y, x, outer radius) in voxels of the file, ``checked`` boxes (left, top, right, bottom, first
    section, last section), as proofreading sheets have them; none means all of it.
    """

    name: str
    volume: Any
    voxel_nm: float
    marks: Rows
    checked: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A corrected tomogram on the network's grid: mask and nearness (z, y, x), marks, and cubes (low, high) to use."""

    source: Source
    grey: NDArray[np.float16]
    mask: NDArray[np.bool_]
    nearness: NDArray[np.float16]
    marks: Rows
    learnt: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    held: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    counts: NDArray[np.bool_]


def prepared(one: CorrectedVolume, seed: int) -> Prepared:
    """The tomogram on the grid, its checked parts cut into cubes to learn from and cubes held out.

    Raises
    ------
    TrainingError
        When fewer than two cubes hold a marked vesicle.
    """
    source = open_source(one.volume, one.voxel_nm)
    shape = source.shape
    marks = one.marks.reshape(-1, 4).copy()
    marks[:, :3] = (marks[:, :3] + 0.5) / source.factor - 0.5
    marks[:, 3] /= source.factor
    mask, near = np.zeros(shape, bool), np.zeros(shape, np.float16)
    for z, y, x, radius in marks.tolist():
        at = tuple(
            slice(max(0, int(c - radius)), min(n, int(c + radius) + 2)) for c, n in zip((z, y, x), shape, strict=True)
        )
        axes = [np.arange(s.start, s.stop) - c for s, c in zip(at, (z, y, x), strict=True)]
        away = np.sqrt(sum(g**2 for g in np.meshgrid(*axes, indexing="ij", sparse=True))) / radius
        mask[at] |= away <= 1
        near[at] = np.maximum(near[at], np.clip(1 - away, 0, 1))
    cubes = [cube for box in _boxes(one, source) for cube in _cubes(*box)]
    full = [c for c in cubes if len(_inside(marks, c))]
    empty = [c for c in cubes if not len(_inside(marks, c))]
    if len(full) < 2:
        raise TrainingError(
            f"{one.name}: {len(full)} checked cube of {CUBE * source.grid_nm:.0f} nm with vesicles: at least 2 are"
            " needed, one of them to measure on; proofread more"
        )
    rng = np.random.default_rng([seed, 83])
    full = [full[k] for k in rng.permutation(len(full))]
    empty = [empty[k] for k in rng.permutation(len(empty))]
    held = full[::HELD_OUT] + empty[::HELD_OUT]
    learnt = [c for c in full + empty if c not in held]
    counts = np.zeros(shape, bool)
    for low, high in learnt:
        counts[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    grey = source.read((0, 0, 0), shape).astype(np.float16)
    return Prepared(source, grey, mask, near, marks, tuple(learnt), tuple(held), counts)


def _boxes(one: CorrectedVolume, source: Source) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Checked boxes on the grid."""
    if not one.checked:
        return [((0, 0, 0), source.shape)]
    found = []
    for left, top, right, bottom, first, last in one.checked:
        edges = [(first - 0.5, last + 0.5), (top, bottom), (left, right)]
        low = tuple(max(0, round((a + 0.5) / source.factor)) for a, _ in edges)
        high = tuple(min(n, round((b + 0.5) / source.factor)) for (_, b), n in zip(edges, source.shape, strict=True))
        if all(a < b for a, b in zip(low, high, strict=True)):
            found.append((low, high))
    return found


def _cubes(low: tuple[int, ...], high: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    starts = [range(a, b, CUBE) for a, b in zip(low, high, strict=True)]
    return [
        ((z, y, x), tuple(min(s + CUBE, b) for s, b in zip((z, y, x), high, strict=True)))
        for z in starts[0] for y in starts[1] for x in starts[2]
    ]  # fmt: skip


def _inside(points: Rows, cube: tuple[tuple[int, ...], tuple[int, ...]]) -> Rows:
    low, high = (np.array(c) - 0.5 for c in cube)
    return points[((points[:, :3] >= low) & (points[:, :3] < high)).all(axis=1)]


def quality(network: nn.Module, volumes: Sequence[Prepared]) -> Quality:
    """What a network finds in the held-out cubes; a hit lies within the radius of its mark."""

    def looks() -> Iterator[tuple[Rows, Rows, Rows]]:
        for one, cube in [(volume, cube) for volume in volumes for cube in volume.held]:
            low = [a - _MARGIN for a in cube[0]]
            high = [a + -(-(b + _MARGIN - a) // 8) * 8 for a, b in zip(low, cube[1], strict=True)]
            part = one.source.read(tuple(a - REACH for a in low), tuple(b + REACH for b in high))
            with torch.no_grad():
                maps = network(torch.from_numpy(part[None, None]))[0].numpy()
            inner = tuple(slice(REACH, -REACH) for _ in range(3))
            maps = np.rint(maps[(slice(None), *inner)] * 255).astype(np.uint8)
            found = cones(maps, tips(maps[1])).centres + np.array(low)
            marks = _inside(one.marks, cube)
            yield marks[:, :3], _inside(found, cube), marks[:, 3]

    return tally(looks(), "vesicles")


def learn(
    recipe: TomogramFinetuneRecipe,
    volumes: Sequence[CorrectedVolume],
    out: Path,
    *,
    command: str,
    start: Path = WEIGHTS / f"{NAME}.onnx",
    say: Say = print,
) -> tuple[Path, Quality, Quality]:
    """Go on from ``start`` with corrections; the weights' file, and the quality on the held-out part before and after.

    Raises
    ------
    TrainingError
        When there are too few corrections.
    """
    seeded(recipe.seed)
    ready = [prepared(one, recipe.seed) for one in volumes]
    width = int(read_manifest(start.with_suffix(".yaml")).settings["width"])
    learnt, held = sum(len(one.learnt) for one in ready), sum(len(one.held) for one in ready)
    simulated = examples(VesicleRecipe(tomograms=recipe.tomograms, shape=(64, 96, 96)), recipe.seed, say)
    gained = go_on(
        filled(FastVesicleNet(width, normed=False), start),
        _maker(recipe, ready, simulated),
        _loss,
        recipe.loop,
        material=Material("cubes", learnt, held, tuple(one.name for one in volumes), start),
        measure=partial(quality, volumes=ready),
        command=command,
        say=say,
    )
    file = out / f"{NAME}.onnx"
    write(
        gained.network, file, arch="fast", width=width, command=command,
        data=f"{gained.data}; last loss {gained.last_loss}", recipe=msgspec.to_builtins(recipe), figures=gained.figures,
    )  # fmt: skip
    return file, gained.before, gained.after


def _maker(
    recipe: TomogramFinetuneRecipe, ready: Sequence[Prepared], simulated: Sequence[Example]
) -> Callable[[int], tuple[Tensor, Tensor, Tensor]]:
    """Batches of (volume, targets, what counts) by the number of the step."""

    def one(rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        p = recipe.patch
        if simulated and rng.random() < recipe.simulated_share:
            made = simulated[int(rng.integers(len(simulated)))]
            at = tuple(slice(c, c + p) for c in (int(rng.integers(0, n - p + 1)) for n in made.mask.shape))
            target = np.stack([made.mask[at], made.nearness[at]])
            return (made.raw if rng.random() < 0.5 else made.smooth)[at], target, np.ones((p, p, p), bool)
        volume = ready[int(rng.integers(len(ready)))]
        low, high = volume.learnt[int(rng.integers(len(volume.learnt)))]
        corner = [int((a + b) / 2 - p / 2 + rng.integers(-12, 13)) for a, b in zip(low, high, strict=True)]
        inside = [(max(c, 0), min(c + p, n)) for c, n in zip(corner, volume.mask.shape, strict=True)]
        pad = [(a - c, c + p - b) for c, (a, b) in zip(corner, inside, strict=True)]
        at = tuple(slice(a, b) for a, b in inside)
        grey, counts = np.pad(volume.grey[at], pad), np.pad(volume.counts[at], pad)
        return grey, np.stack([np.pad(volume.mask[at], pad), np.pad(volume.nearness[at], pad)]), counts

    def batch(step: int) -> tuple[Tensor, Tensor, Tensor]:
        rng = np.random.default_rng((recipe.seed, 89, step))
        parts: list[list[NDArray[np.float32]]] = [[], [], []]
        for _ in range(recipe.batch):
            grey, target, counts = (a.astype(np.float32) for a in one(rng))
            grey = grey * np.float32(np.exp(rng.normal(0, 0.15))) + np.float32(rng.normal(0, 0.1))
            for axis in range(3):
                if rng.random() < 0.5:
                    grey, target, counts = np.flip(grey, axis), np.flip(target, axis + 1), np.flip(counts, axis)
            for kept, array in zip(parts, (grey[None], target, counts), strict=True):
                kept.append(np.ascontiguousarray(array))
        volumes, targets, counted = (torch.from_numpy(np.stack(part)) for part in parts)
        return volumes, targets, counted

    return batch


def _loss(network: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """As in training from nothing, over what counts; a rim of 4 voxels does not."""
    volume, target, counts = batch
    rim = (slice(None), *[slice(4, -4)] * 3)
    logits: Tensor = network.logits(volume)
    weight = counts[rim]
    total = weight.sum().clamp(min=1)
    mask, near = target[:, 0][rim], target[:, 1][rim]
    inside, centre = logits[:, 0][rim], logits[:, 1][rim]
    probability = torch.sigmoid(inside) * weight
    held = mask * weight
    dice = 1 - (2 * (probability * held).sum() + 1) / (probability.sum() + held.sum() + 1)
    entropy = functional.binary_cross_entropy_with_logits
    sides = [entropy(a, b, weight, reduction="sum") / total for a, b in ((inside, mask), (centre, near))]
    return dice + sides[0] + 2.0 * sides[1]
