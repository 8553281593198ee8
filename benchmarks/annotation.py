"""Annotation by graph cut: Dice against strokes painted, on simulated cells and real slices, and where time goes.

    python -m benchmarks.annotation                                    # simulated cells
    python -m benchmarks.annotation --data ../shared/data/volumes      # with mitochondria of the EPFL hippocampus

The person is simulated: first the middle lines of the structure, of what lies between, and a line around each object on
three planes (of thin stacks one); then, in each round, the middle lines of the four largest mistakes of any plane.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.organelles.annotation import (
    BACKGROUND,
    STRUCTURE,
    CutSettings,
    cut,
    read_settings,
    regions_of,
    supervoxels,
    to_grey,
)
from simulators.specimen.cell import CellSettings, simulate

Mask = NDArray[np.bool_]
ROUNDS = (0, 2, 5, 10)  # of corrections
MISTAKES = 4  # corrected in each
AROUND = 8  # voxels from an object at which a person circles it


def main() -> None:
    """Print the tables."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", type=Path, help="folder that holds epfl/slices and epfl/mitochondrion")
    words.add_argument("--side", type=int, default=112, help="edge of the simulated regions in voxels")
    words.add_argument("--structures", default="mitochondrion,golgi,er", help="of the simulated cells")
    given = words.parse_args()
    plain = read_settings().cut
    variants = {
        "default": plain,
        "fine: supervoxels of 3 voxels": msgspec.structs.replace(plain, largest_edge=3.0),
        "ASEM's text: lambda 10, supervoxels of 4000": msgspec.structs.replace(
            plain, boundary_weight=10.0, largest_edge=1000.0
        ),
    }
    for name in ("train-1", "naive-1"):
        cell = simulate(CellSettings.of(name, region=91, shape=(given.side,) * 3))
        for structure in filter(None, given.structures.split(",")):
            truth = cell.labels[structure] > 0
            if truth.any():
                for words_, settings in variants.items():
                    rounds(f"{name} {structure} ({words_})", cell.raw, truth, settings)
    if given.data:
        for run, files in enumerate(_runs(given.data / "epfl")):
            raw, marks = (np.stack([_grey(file) for file in some]) for some in files)
            for words_, settings in variants.items():
                rounds(f"EPFL run {run} mitochondria ({words_})", raw, marks > 0, settings)


def _grey(file: Path) -> NDArray[np.uint8]:
    return np.asarray(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE), np.uint8)


def rounds(name: str, raw: NDArray[Any], truth: Mask, settings: CutSettings) -> None:
    """One table: Dice, strokes and time, round by round."""
    spent: dict[str, float] = {}
    with timed(spent, "supervoxels"):
        grey = to_grey(raw, None, settings.percentiles)
        pieces = supervoxels(grey, settings)
        regions = regions_of(grey, pieces, settings.bins)
    best = (np.bincount(pieces.ravel(), truth.ravel(), len(regions)) / regions.sizes > 0.5)[pieces]
    strokes = np.zeros(truth.shape, np.uint8)
    for z in sorted({truth.shape[0] * k // 4 for k in (1, 2, 3)} if truth.shape[0] > 16 else {truth.shape[0] // 2}):
        beside = ndimage.binary_dilation(truth[z], iterations=AROUND)
        beside &= ~ndimage.binary_dilation(truth[z], iterations=AROUND - 3)
        strokes[z][beside | _middle(~truth[z])] = BACKGROUND
        strokes[z][_middle(truth[z])] = STRUCTURE
    print(f"\n{name}: {truth.shape} voxels, {len(regions)} supervoxels, best possible Dice {dice(best, truth):.3f}")
    for number in range(max(ROUNDS) + 1):
        with timed(spent, "cut"):
            labels = cut(grey, regions, strokes, settings) > 0
        if number in ROUNDS:
            share = np.count_nonzero(strokes) / strokes.size
            print(f"  {number:2d} corrections: Dice {dice(labels, truth):.3f}, painted {share:.2%} of the voxels")
        for z, wrong in _mistakes(labels, truth):
            strokes[z][_middle(wrong & truth[z])] = STRUCTURE
            strokes[z][_middle(wrong & ~truth[z])] = BACKGROUND
    once = spent["cut"] / (max(ROUNDS) + 1)
    per_voxel = spent["supervoxels"] / truth.size * 1e6
    print(f"  CPU seconds: supervoxels {spent['supervoxels']:.1f} ({per_voxel:.1f} µs a voxel), one cut {once:.2f}")


def dice(a: Mask, b: Mask) -> float:
    """Overlap of two masks."""
    return 2 * int(np.sum(a & b)) / max(1, int(np.sum(a)) + int(np.sum(b)))


@contextmanager
def timed(spent: dict[str, float], what: str) -> Iterator[None]:
    """Add the CPU seconds of a block."""
    first = time.process_time()
    yield
    spent[what] = spent.get(what, 0.0) + time.process_time() - first


def _middle(mask: Mask) -> Mask:
    from skimage.morphology import skeletonize

    line = skeletonize(mask & ndimage.binary_erosion(mask, iterations=2))
    return np.asarray(ndimage.binary_dilation(line) & mask if line.any() else mask & (_depth(mask) > 0.7 * _deep(mask)))


def _depth(mask: Mask) -> NDArray[np.float64]:
    return np.asarray(ndimage.distance_transform_edt(mask))


def _deep(mask: Mask) -> float:
    return float(_depth(mask).max()) if mask.any() else 1.0


def _mistakes(labels: Mask, truth: Mask) -> list[tuple[int, Mask]]:
    """Planes and masks of the largest mistakes."""
    wrong, found = labels != truth, []
    for z in range(len(wrong)):
        parts, count = ndimage.label(wrong[z])
        if count:
            sizes = np.bincount(parts.ravel())[1:]
            found.append((int(sizes.max()), z, parts == 1 + int(sizes.argmax())))
    found.sort(key=_size, reverse=True)
    chosen: list[tuple[int, Mask]] = []
    for _, z, mask in found:  # not four times the same one
        if len(chosen) < MISTAKES and all(abs(z - other) > len(wrong) // 16 for other, _ in chosen):
            chosen.append((z, mask))
    return chosen


def _size(found: tuple[int, int, Mask]) -> int:
    return found[0]


def _runs(folder: Path) -> list[tuple[list[Path], list[Path]]]:
    """Two runs of four consecutive slices, and their masks."""
    slices, masks = (sorted((folder / name).glob("*.png")) for name in ("slices", "mitochondrion"))
    return [(slices[k : k + 4], masks[k : k + 4]) for k in (0, 4)]


if __name__ == "__main__":
    main()
