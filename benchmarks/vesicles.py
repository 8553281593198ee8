"""Vesicles in simulated tomograms: ``python -m benchmarks.vesicles``.

Prints, for tomograms that no training saw, what each step of the pipeline reaches: Dice of the probability map and of
the spheres after each step, vesicles found, F1, radius deviation and centre error, beside the figures that the
published pipeline with its own weights reached on such tomograms; then throughput against the published network.
"""

import argparse
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from models import runtime
from models.vesicles.finder import Vesicle, paint
from models.vesicles.network import BLOCK, Source, open_source, probability
from models.vesicles.refine import outside, refine
from models.vesicles.seeds import Spheres, cones, tips
from simulators.specimen.tomogram import Tomogram, TomogramSettings, simulate

# CryoVesNet with its own weights on tomograms of these kinds: final Dice, F1, centre error in nm
PUBLISHED = {
    ("ordinary", 0.1): (0.89, 0.97, 1.5),
    ("ordinary", 0.2): (0.92, 0.99, 1.33),
    ("ordinary", 0.3): (0.93, 1.00, 1.26),
    ("crowded", 0.1): (0.735, 0.834, 1.6),
    ("crowded", 0.2): (0.797, 0.896, 1.5),
}


@dataclass(frozen=True, slots=True)
class Score:
    """Agreement of spheres with the truth."""

    dice: float
    found: int
    of: int
    false: int
    radius_off: float
    centre_nm: float

    @property
    def f1(self) -> float:
        """Harmonic mean of recall and precision."""
        return 2 * self.found / max(1, self.of + self.found + self.false)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Overlap of two masks."""
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))


def score(spheres: Spheres, truth: Tomogram, voxel_nm: float) -> Score:
    """One-to-one, nearest pairs first, centre distance at most the smaller radius (CryoVesNet, "Evaluation")."""
    painted = np.zeros(truth.labels.shape, np.int32)
    paint(as_vesicles(spheres, voxel_nm), voxel_nm, painted)
    distance = np.linalg.norm(truth.centres[:, None] - spheres.centres[None], axis=2)
    limit = np.minimum(truth.radii[:, None], spheres.radii[None])
    pairs = np.argwhere(distance <= limit)
    pairs = pairs[np.argsort(distance[tuple(pairs.T)], kind="stable")]
    left, right, offs, gaps = set(), set(), [], []
    for i, j in pairs.tolist():
        if i in left or j in right:
            continue
        left.add(i)
        right.add(j)
        offs.append(1 - min(truth.radii[i], spheres.radii[j]) / max(truth.radii[i], spheres.radii[j]))
        gaps.append(distance[i, j] * voxel_nm)
    return Score(
        dice=dice(painted > 0, truth.labels > 0),
        found=len(left),
        of=len(truth.radii),
        false=len(spheres) - len(left),
        radius_off=float(np.mean(offs)) if offs else float("nan"),
        centre_nm=float(np.mean(gaps)) if gaps else float("nan"),
    )


def as_vesicles(spheres: Spheres, voxel_nm: float) -> tuple[Vesicle, ...]:
    """Spheres as vesicles, numbered as they come."""
    rows = zip(spheres.centres.tolist(), spheres.radii.tolist(), strict=True)
    return tuple(
        Vesicle(number=n, z=z, y=y, x=x, radius_nm=r * voxel_nm) for n, ((z, y, x), r) in enumerate(rows, start=1)
    )


def steps(source: Source, maps: NDArray[np.uint8]) -> dict[str, Spheres]:
    """Spheres after each step."""
    first = cones(maps, tips(maps[1]))
    level = Spheres(first.centres, first.radii + outside(maps, first), first.scores)
    refined = refine(source, level).spheres
    return {"cones": first, "+ level": level, "+ membrane": refined}


def settings_of(kind: str, snr: float, seed: int, diffused: bool) -> TomogramSettings:
    """The tomograms of the benchmark."""
    if kind == "crowded":
        return TomogramSettings.crowded(seed=seed, snr=snr, diffused=diffused)
    return TomogramSettings(seed=seed, snr=snr, diffused=diffused)


def maps_of(source: Source, model: runtime.OnnxModel) -> NDArray[np.uint8]:
    """Both maps of a tomogram."""
    maps = np.zeros((2, *source.shape), np.uint8)
    for _ in probability(source, model, maps):
        pass
    return maps


def quality(console: Console, weights: Any, seeds: list[int], snrs: list[float], kinds: list[str]) -> None:
    """The ablation table."""
    model = runtime.load(weights)
    table = Table(
        "tomograms",
        "SNR",
        "step",
        "Dice",
        "found",
        "false",
        "F1",
        "radius off",
        "centre nm",
        title="Simulated tomograms",
    )
    for kind in kinds:
        for snr in snrs:
            rows: dict[str, list[Score]] = {}
            plain: list[float] = []
            for seed in seeds:
                for diffused in (False, True):
                    truth = simulate(settings_of(kind, snr, seed, diffused))
                    source = open_source(truth.volume, 2.2)
                    maps = maps_of(source, model)
                    plain.append(dice(maps[0] > 127, truth.labels > 0))
                    for name, spheres in steps(source, maps).items():
                        rows.setdefault(name, []).append(score(spheres, truth, 2.2))
            table.add_row(kind, f"{snr:g}", "map > 0.5", f"{np.mean(plain):.3f}")
            for name, scores in rows.items():
                means = [
                    float(np.mean([getattr(s, k) for s in scores])) for k in ("dice", "f1", "radius_off", "centre_nm")
                ]
                found, of, false = (sum(getattr(s, k) for s in scores) for k in ("found", "of", "false"))
                cells = [
                    f"{means[0]:.3f}",
                    f"{found}/{of}",
                    str(false),
                    f"{means[1]:.3f}",
                    f"{means[2]:.3f}",
                    f"{means[3]:.2f}",
                ]
                table.add_row("", "", name, *cells)
            if published := PUBLISHED.get((kind, snr)):
                table.add_row(
                    "", "", "published", f"{published[0]:g}", "", "", f"{published[1]:g}", "", f"{published[2]:g}"
                )
    console.print(table)


def speed(console: Console, weights: Any) -> None:
    """Voxels per second, end to end, and the published network in torch on the same volume, as it was published."""
    truth = simulate(TomogramSettings(seed=77, shape=(96, 192, 192), vesicles=120))
    model = runtime.load(weights)
    begun, cpu = time.monotonic(), time.process_time()
    source = open_source(truth.volume, 2.2)
    maps = maps_of(source, model)
    network, network_cpu = time.monotonic() - begun, time.process_time() - cpu
    list(steps(source, maps).values())
    whole, whole_cpu = time.monotonic() - begun, time.process_time() - cpu
    table = Table(
        "what", "kvoxel/s", "kvoxel/CPU-s", "ratio (CPU)", title=f"Speed on {truth.volume.size / 1e6:.1f} Mvoxel"
    )
    voxels = truth.volume.size / 1e3
    rows = [("ours, network", network, network_cpu), ("ours, end to end", whole, whole_cpu)]
    try:
        import torch

        from models.training.vesicles import PublishedVesicleNet
    except ImportError:
        console.print("torch is not installed: no published network to compare with (`pip install 'cryonaut[train]'`)")
        published = None
    else:
        net = PublishedVesicleNet().eval()
        window = torch.randn(1, 1, 64, 64, 64)
        with torch.no_grad():
            net(window)
            begun, cpu = time.monotonic(), time.process_time()
            count = 12
            for _ in range(count):
                net(window)
        per = count * 24**3 / 1e3
        published = per / (time.process_time() - cpu)
        table.add_row(
            "published network (64 -> 24), torch", f"{per / (time.monotonic() - begun):.0f}", f"{published:.0f}", "1"
        )
    for name, wall, used in rows:
        ratio = f"{voxels / used / published:.1f}" if published else ""
        table.add_row(name, f"{voxels / wall:.0f}", f"{voxels / used:.0f}", ratio)
    console.print(table)
    console.print(f"blocks of {BLOCK}, on {model.provider}")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default="vesicles-tomogram", help="name, or path of a manifest")
    parser.add_argument("--seeds", type=int, default=1, help="tomograms of each kind, each raw and diffused")
    parser.add_argument("--snr", default="0.1,0.2,0.3")
    parser.add_argument("--kinds", default="ordinary,crowded")
    parser.add_argument("--skip", default="", help="quality, speed")
    given = parser.parse_args()
    console = Console(width=130)
    from pathlib import Path

    weights = Path(given.weights) if given.weights.endswith(".yaml") else given.weights
    if "quality" not in given.skip:
        seeds = [9000 + n for n in range(given.seeds)]
        quality(console, weights, seeds, [float(s) for s in given.snr.split(",")], given.kinds.split(","))
    if "speed" not in given.skip:
        speed(console, weights)


if __name__ == "__main__":
    main()
