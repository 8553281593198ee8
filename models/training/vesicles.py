"""Learning to see vesicles in tomograms: the published 3-D U-Net and the fast one, on simulated tomograms.

The published network and its loss follow CryoVesNet (Khosrozadeh et al., J Cell Biol 224, e202402169, 2025: "Training
and network"): blocks of two 3 x 3 x 3 convolutions with batch norm, 16 to 64 channels, two poolings, cross-entropy. The
fast one works at half the sampling, sees 29 voxels around, and has a second output, nearness to the vesicle's centre,
which parts vesicles that touch. Both learn Dice (Milletari et al., V-Net, 2016, section 3) plus cross-entropy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from models import runtime
from models.training.card import Card, Figure, write_card
from models.training.export import OPSET, export_onnx
from models.training.loop import History, LoopSettings, Say, seeded, train
from simulators.specimen.tomogram import Tomogram, TomogramSettings, diffuse, simulate

Arch = Literal["fast", "published"]
VOXEL_NM = 2.2
ALIGN = 8  # a shift of the input by so many voxels shifts the answer and changes nothing else


class VesicleRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the network learns.

    Attributes
    ----------
    tomograms
        Simulated tomograms to learn from, half of them crowded.
    shape
        Of each, voxels as (z, y, x).
    patch
        Edge of the cubes cut from them, a multiple of 8.
    batch
        Cubes for each step.
    width
        Channels at the first level of the fast network.
    loop
        How long and how fast.
    """

    tomograms: int = 48
    shape: tuple[int, int, int] = (72, 176, 176)
    patch: int = 56
    batch: int = 3
    width: int = 24
    loop: LoopSettings = LoopSettings(steps=3000, learning_rate=3e-3)


def _block(cin: int, cout: int, stride: int = 1, *, bias: bool = False, normed: bool = True) -> nn.Sequential:
    convolution = nn.Conv3d(cin, cout, 3, stride=stride, padding=1, bias=bias or not normed)
    return nn.Sequential(convolution, nn.BatchNorm3d(cout) if normed else nn.Identity(), nn.ReLU(inplace=True))


def _pair(cin: int, between: int, cout: int) -> nn.Sequential:
    """The published block: two convolutions, with biases though batch norm follows."""
    return nn.Sequential(_block(cin, between, bias=True), _block(between, cout, bias=True))


class FastVesicleNet(nn.Module):
    """Probabilities (n, 2, z, y, x): inside a vesicle, and nearness to its centre, from volumes (n, 1, z, y, x).

    Edges are multiples of `ALIGN`. No layer looks at the whole volume: an answer depends on 29 voxels around only.

    Parameters
    ----------
    width
        Channels at the first level.
    normed
        With batch norm, to learn from nothing; without it, to go on from exported weights, into which it was folded.
    """

    def __init__(self, width: int = 24, normed: bool = True) -> None:
        super().__init__()
        w1, w2, w3 = width, 2 * width, 4 * width

        def pair(cin: int, cout: int) -> nn.Sequential:
            return nn.Sequential(_block(cin, cout, 2, normed=normed), _block(cout, cout, normed=normed))

        self.stem = pair(1, w1)
        self.down1 = pair(w1, w2)
        self.down2 = pair(w2, w3)
        self.join1 = nn.Conv3d(w3, w2, 1, bias=False)
        self.up1 = _block(w2, w2, normed=normed)
        self.join0 = nn.Conv3d(w2, w1, 1, bias=False)
        self.up0 = _block(w1, w1, normed=normed)
        self.head = nn.Conv3d(w1, 16, 3, padding=1)

    def logits(self, volume: Tensor) -> Tensor:
        """The same before the sigmoid."""
        fine = self.stem(volume)
        middle = self.down1(fine)
        coarse = self.down2(middle)
        middle = self.up1(middle + functional.interpolate(self.join1(coarse), scale_factor=2.0, mode="nearest"))
        fine = self.up0(fine + functional.interpolate(self.join0(middle), scale_factor=2.0, mode="nearest"))
        parts = self.head(fine)
        # sixteen channels at half the sampling are two at full: each voxel becomes 2 x 2 x 2
        n, _, z, y, x = parts.shape
        parts = parts.reshape(n, 2, 2, 2, 2, z, y, x).permute(0, 1, 5, 2, 6, 3, 7, 4)
        return parts.reshape(n, 2, 2 * z, 2 * y, 2 * x)

    def forward(self, volume: Tensor) -> Tensor:
        """Probabilities."""
        return torch.sigmoid(self.logits(volume))


class PublishedVesicleNet(nn.Module):
    """The 3-D U-Net of CryoVesNet, 250,097 parameters; the same in and out as `FastVesicleNet`, with one output.

    Its second output repeats the first, so that both serve one pipeline.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down0 = _pair(1, 16, 16)
        self.down1 = _pair(16, 32, 32)
        self.middle = _pair(32, 64, 32)
        self.up1 = _pair(64, 32, 16)
        self.up0 = _pair(32, 16, 16)
        self.head = nn.Conv3d(16, 1, 1)

    def logits(self, volume: Tensor) -> Tensor:
        """The same before the sigmoid."""
        fine = self.down0(volume)
        half = self.down1(functional.max_pool3d(fine, 2))
        deep = self.middle(functional.max_pool3d(half, 2))
        half = self.up1(torch.cat([functional.interpolate(deep, scale_factor=2.0, mode="nearest"), half], 1))
        fine = self.up0(torch.cat([functional.interpolate(half, scale_factor=2.0, mode="nearest"), fine], 1))
        mask = self.head(fine)
        return torch.cat([mask, mask], 1)

    def forward(self, volume: Tensor) -> Tensor:
        """Probabilities."""
        return torch.sigmoid(self.logits(volume))


@dataclass(frozen=True, slots=True)
class Example:
    """A tomogram to learn from: volumes as float16, (z, y, x)."""

    raw: NDArray[np.float16]
    smooth: NDArray[np.float16]
    mask: NDArray[np.bool_]
    nearness: NDArray[np.float16]


def nearness(
    labels: NDArray[np.int32], centres: NDArray[np.float64], radii: NDArray[np.float64]
) -> NDArray[np.float32]:
    """1 at the centre of a vesicle, falling evenly to 0 at its outside, 0 elsewhere; shape as ``labels``."""
    out = np.zeros(labels.shape, np.float32)
    at = np.nonzero(labels)
    number = labels[at] - 1
    distance = np.linalg.norm(np.stack(at, axis=1) - centres[number], axis=1)
    out[at] = np.clip(1 - distance / radii[number], 0, 1)
    return out


def settings_of(number: int, seed: int, shape: tuple[int, int, int]) -> TomogramSettings:
    """Settings of one of the tomograms to learn from: every property is drawn anew."""
    rng = np.random.default_rng((seed, number))
    crowded = number % 2 == 0
    full = shape[0] * shape[1] * shape[2] / (96 * 256 * 256)
    low = rng.uniform(30, 42)
    return TomogramSettings(
        seed=int(rng.integers(2**31)),
        kind="crowded" if crowded else "ordinary",
        shape=shape,
        voxel_nm=VOXEL_NM,
        vesicles=max(4, round(rng.uniform(90, 260) * full)),
        diameter_nm=(low, low + rng.uniform(6, 24)),
        tilt_deg=rng.uniform(50, 65),
        tilt_step_deg=3.0,
        defocus_um=rng.uniform(2.0, 10.0),
        snr=float(np.exp(rng.uniform(np.log(0.06), np.log(0.6)))),
        detector_mtf=rng.uniform(0.1, 1.0),
        leaflet_nm=rng.uniform(0.9, 2.2),
        grain=rng.uniform(0.5, 1.6),
    )


def examples(recipe: VesicleRecipe, seed: int, say: Say = print) -> list[Example]:
    """The tomograms to learn from."""
    found = []
    for number in range(recipe.tomograms):
        tomogram = simulate(settings_of(number, seed, recipe.shape))
        found.append(example(tomogram))
        if (number + 1) % 10 == 0:
            say(f"{number + 1} of {recipe.tomograms} tomograms")
    return found


def example(tomogram: Tomogram) -> Example:
    """A tomogram as the network learns from it."""
    near = nearness(tomogram.labels, tomogram.centres, tomogram.radii)
    smooth = diffuse(tomogram.volume)
    smooth = (smooth - smooth.mean()) / smooth.std()
    return Example(
        tomogram.volume.astype(np.float16), smooth.astype(np.float16), tomogram.labels > 0, near.astype(np.float16)
    )


def batch_maker(pool: list[Example], recipe: VesicleRecipe, seed: int) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Batches of (volume, targets) by the number of the step: cubes, mirrored, turned, blurred, brightened."""

    def cube(rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        one = pool[int(rng.integers(len(pool)))]
        p = recipe.patch
        corner = [int(rng.integers(0, n - p + 1)) for n in one.mask.shape]
        at = tuple(slice(c, c + p) for c in corner)
        source = one.raw if rng.random() < 0.5 else one.smooth
        volume = source[at].astype(np.float32)
        if rng.random() < 0.6:
            volume = ndimage.gaussian_filter(volume, rng.uniform(0.3, 1.6))
        # the whole tomogram is standardised, not a cube of it: leave gain and level some freedom
        volume = volume / np.float32(max(float(volume.std()), 1e-6) * rng.uniform(0.75, 1.35))
        volume += np.float32(rng.normal(0, 0.15))
        target = np.stack([one.mask[at].astype(np.float32), one.nearness[at].astype(np.float32)])
        for axis in range(3):
            if rng.random() < 0.5:
                volume, target = np.flip(volume, axis), np.flip(target, axis + 1)
        if rng.random() < 0.5:  # the wedge may lie along x or y: packages differ
            volume, target = volume.swapaxes(1, 2), target.swapaxes(2, 3)
        return np.ascontiguousarray(volume), np.ascontiguousarray(target)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((seed, 7, step))
        cubes = [cube(rng) for _ in range(recipe.batch)]
        volumes = torch.from_numpy(np.stack([v for v, _ in cubes])[:, None])
        return volumes, torch.from_numpy(np.stack([t for _, t in cubes]))

    return batch


def loss_of(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Dice plus cross-entropy on the mask, cross-entropy on the nearness; a rim of 4 voxels does not count."""
    volume, target = batch
    inner = (slice(None), slice(None), *[slice(4, -4)] * 3)
    logits: Tensor = network.logits(volume)[inner]
    wanted = target[inner]
    mask, near = wanted[:, 0], wanted[:, 1]
    probability = torch.sigmoid(logits[:, 0])
    dice = 1 - (2 * (probability * mask).sum() + 1) / (probability.sum() + mask.sum() + 1)
    entropy = functional.binary_cross_entropy_with_logits(logits[:, 0], mask)
    centre = functional.binary_cross_entropy_with_logits(logits[:, 1], near)
    return dice + entropy + 2.0 * centre


def learn(
    recipe: VesicleRecipe,
    out: Path,
    *,
    arch: Arch = "fast",
    seed: int = 0,
    command: str = "",
    say: Say = print,
) -> tuple[runtime.Manifest, History]:
    """Train, export to ``out`` (an ``.onnx`` file), write manifest and model card beside it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    seeded(seed)
    network: nn.Module = FastVesicleNet(recipe.width) if arch == "fast" else PublishedVesicleNet()
    pool = examples(recipe, seed, say)
    network, history = train(
        network,
        batch_maker(pool, recipe, seed),
        loss_of,
        recipe.loop,
        checkpoint=out.with_suffix(".checkpoint"),
        say=say,
    )
    data = f"{recipe.tomograms} simulated tomograms (simulators.specimen.tomogram)"
    manifest = write(
        network, out, arch=arch, width=recipe.width, command=command, data=data, recipe=msgspec.to_builtins(recipe)
    )
    return manifest, history


def write(
    network: nn.Module,
    out: Path,
    *,
    arch: Arch,
    width: int,
    command: str,
    data: str,
    recipe: dict[str, object],
    figures: Sequence[Figure] = (),
) -> runtime.Manifest:
    """Export a network to ``out`` (an ``.onnx`` file) with its proof, manifest and card."""
    out.parent.mkdir(parents=True, exist_ok=True)
    probe = torch.from_numpy(runtime.question(1, {"volume": [2, 1, 24, 32, 40]})["volume"])
    parity = export_onnx(
        network,
        [(probe,)],
        out,
        inputs=["volume"],
        outputs=["probability"],
        free={name: {0: "n", 2: "z", 3: "y", 4: "x"} for name in ("volume", "probability")},
    )
    settings = {"voxel_nm": VOXEL_NM, "align": ALIGN, "arch": arch, "width": width}
    manifest = runtime.write_manifest(
        out,
        opset=OPSET,
        probe_shapes={"volume": [1, 1, 16, 24, 32]},
        what="Vesicles in cryo-tomograms: probability of being inside one, and nearness to its centre",
        made_by=command,
        trained_on=data,
        settings=settings,
    )
    card = Card(
        name=out.stem,
        purpose=manifest.what + ".",
        inputs="`volume` (n, 1, z, y, x), edges multiples of 8, 2.2 nm voxels, mean 0 and deviation 1 over"
        " the tomogram, matter dark",
        outputs="`probability` (n, 2, z, y, x): inside a vesicle, membrane included; nearness to its centre",
        data=manifest.trained_on,
        command=command,
        recipe=recipe,
        figures=figures,
        limits=[f"torch and ONNX Runtime agree to {parity.torch_onnx:.1e}"],
    )
    write_card(card, out.with_suffix(".md"))
    return manifest
