"""A 2.5-D network on real slices, learned from one run and measured on another: mitochondria of EPFL and VNC.

EPFL holds two runs of four consecutive FIB-SEM slices (5 nm), VNC four sections of serial-section TEM (4.6 nm). Four
slices are too thin for three-dimensional context, so each slice is answered from itself and its neighbours (three
channels). The protocol is that of the volumes: balanced cross-entropy, valid convolutions, the published augmentation
in the plane. Weights made here stay on the disk of whoever runs it and are not shipped.
"""

import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from models.training.loop import seeded
from models.training.organelles_protocol import Scores, balanced_loss, score

RUNS = {
    "epfl": {
        "raw": "epfl/slices/training{:04d}.png",
        "truth": "epfl/mitochondrion/training{:04d}.png",
        "train": (0, 1, 2, 3),
        "test": (45, 46, 47, 48),
    },
    "vnc": {"raw": "vnc/raw/{:02d}.tif", "truth": "vnc/mitochondria/{:02d}.png", "train": (0, 1), "test": (2, 3)},
}
PATCH = 192
CONTEXT = 56
BATCH = 2
ITERATIONS = 1500
LEARNING_RATE = 2e-3
CLIP = 0.5  # not balanced: mitochondria are a tenth of these slices, and balanced ones come out too wide
HALF = 2  # the network works on pixels of twice the size


@dataclass(frozen=True, slots=True)
class Slices:
    """Slices and truth, shape (n, y, x); grey values in [0, 1], consecutive along n."""

    raw: NDArray[np.float32]
    truth: NDArray[np.bool_]


def read(name: str, part: str, data: Path) -> Slices:
    """The slices of a part of a set, ``train`` or ``test``."""
    how = RUNS[name]
    raw, truth = [], []
    for number in how[part]:
        raw.append(np.asarray(Image.open(data / str(how["raw"]).format(number)).convert("L"), np.float32) / 255)
        truth.append(np.asarray(Image.open(data / str(how["truth"]).format(number)).convert("L")) > 127)
    return Slices(np.stack(raw), np.stack(truth))


class _Residual2(nn.Module):  # type: ignore[misc]
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3), nn.Conv2d(width, width, 3)
        self.norms = nn.ModuleList([nn.BatchNorm2d(width), nn.BatchNorm2d(width)])

    def forward(self, image: Tensor) -> Tensor:
        inner = functional.relu(self.norms[0](self.first(image)))
        inner = self.norms[1](self.second(inner))
        shortcut: Tensor = image[:, :, 2:-2, 2:-2]
        return functional.relu(shortcut + inner)


class SliceNet(nn.Module):  # type: ignore[misc]
    """The plane's counterpart of the fast network: three slices in, log-odds of the middle one out, valid."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        w = [width, 2 * width, 4 * width]
        self.stem = nn.Conv2d(3, w[0], HALF, stride=HALF)
        self.down = nn.ModuleList([nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(w)])
        self.at = nn.ModuleList([_Residual2(n) for n in w])
        self.deep = _Residual2(w[2])
        self.join = nn.ModuleList([nn.Conv2d(b, a, 1) for a, b in pairwise(w)])
        self.back = nn.ModuleList([_Residual2(n) for n in w[:2]])
        self.head = nn.Conv2d(w[0], HALF * HALF, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Log-odds (n, 1, y, x) of the middle of three slices (n, 3, y, x)."""
        fine = self.at[0](functional.relu(self.stem(2 * image - 1)))
        middle = self.at[1](functional.relu(self.down[0](fine)))
        coarse = self.deep(self.at[2](functional.relu(self.down[1](middle))))
        middle = self.back[1](_joined(self.join[1](coarse), middle))
        fine = self.back[0](_joined(self.join[0](middle), fine))
        return functional.pixel_shuffle(self.head(fine), HALF)


def _joined(coarse: Tensor, skip: Tensor) -> Tensor:
    coarse = functional.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
    y, x = ((have - want) // 2 for have, want in zip(skip.shape[2:], coarse.shape[2:], strict=True))
    return coarse + skip[:, :, y : y + coarse.shape[2], x : x + coarse.shape[3]]


def _three(slices: NDArray[np.float32], middle: int) -> NDArray[np.float32]:
    """A slice between its neighbours; at the ends the run is mirrored."""
    last = len(slices) - 1
    return slices[[abs(middle - 1), middle, last - abs(last - middle - 1)]]


def _patch(data: Slices, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A varied patch: turned, mirrored, bent, other grey values; truth of its middle."""
    which = int(rng.integers(len(data.raw)))
    size = PATCH + 2 * CONTEXT
    turn, stretch = rng.uniform(0, 2 * np.pi), rng.uniform(0.85, 1.18)
    matrix = stretch * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    if rng.random() < 0.5:
        matrix = matrix @ np.diag([1.0, -1.0])
    shape = data.raw.shape[1:]
    centre = np.array([rng.uniform(60, n - 60) for n in shape])
    line = np.arange(size) - (size - 1) / 2
    bend = ndimage.zoom(rng.normal(0, 2.0, (2, 11, 11)), (1, size / 11, size / 11), order=1)
    source = [matrix[k, 0] * line[:, None] + matrix[k, 1] * line[None] + centre[k] + bend[k] for k in (0, 1)]
    grid = np.stack([source[k] * 2 / (shape[k] - 1) - 1 for k in (1, 0)], -1).astype(np.float32)[None]
    three = _three(data.raw, which)
    if rng.random() < 0.5:
        three = three[::-1].copy()
    seen = functional.grid_sample(
        torch.from_numpy(three)[None], torch.from_numpy(grid), align_corners=True, padding_mode="reflection"
    )[0]
    inner = slice(CONTEXT, CONTEXT + PATCH)
    truth = functional.grid_sample(
        torch.from_numpy(data.truth[which].astype(np.float32))[None, None],
        torch.from_numpy(grid[:, inner, inner]),
        mode="nearest",
        align_corners=True,
        padding_mode="reflection",
    )[0]
    mean = seen.mean()
    seen = (seen - mean) * float(rng.uniform(0.75, 1.3)) + mean + float(rng.uniform(-0.15, 0.15))
    seen = seen + float(rng.uniform(0, 0.06)) * torch.from_numpy(rng.standard_normal(seen.shape, dtype=np.float32))
    return seen.clamp(0, 1), truth


def learn(data: Slices, seed: int, iterations: int = ITERATIONS) -> SliceNet:
    """A network from the slices of one run; batches follow from the iteration's number."""
    seeded(seed)
    network = SliceNet()
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, weight_decay=3e-5)
    losses = []
    for iteration in range(iterations):
        rise, done = min(1.0, (iteration + 1) / 30), iteration / iterations
        optimiser.param_groups[0]["lr"] = LEARNING_RATE * rise * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * done)))
        rng = np.random.default_rng((seed, iteration))
        pairs = [_patch(data, rng) for _ in range(BATCH)]
        seen, truth = (torch.stack([pair[k] for pair in pairs]) for k in (0, 1))
        logits = network(seen)
        loss = balanced_loss(logits[:, :, None], truth[:, :, None], torch.ones_like(truth)[:, :, None], CLIP)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        if (iteration + 1) % 100 == 0:
            print(f"iteration {iteration + 1}/{iterations}  training {np.mean(losses[-100:]):.4f}", flush=True)
    network.eval()
    return network


def predict(network: SliceNet, raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities (n, y, x): each slice looked at in its four mirror images."""
    n, y, x = raw.shape
    full = [-(-size // 8) * 8 for size in (y, x)]
    out = np.zeros((n, *full), np.float32)
    ends = [(CONTEXT, CONTEXT + full[k] - size) for k, size in enumerate((y, x))]
    for k in range(n):
        three = np.pad(_three(raw, k), [(0, 0), *ends], mode="reflect")
        for axes in ((), (1,), (2,), (1, 2)):
            with torch.no_grad():
                seen = torch.from_numpy(np.flip(three, axes).copy())[None]
                answer = torch.sigmoid(network(seen))[0, 0].numpy()
            out[k] += np.flip(answer, tuple(a - 1 for a in axes))[: full[0], : full[1]] / 4
    return out[:, :y, :x]


def run(name: str, data: Path, work: Path, seed: int) -> None:
    """Learn from one run, print what the other one says; and a picture of it."""
    if not (data / name).is_dir():
        print(f"{data / name}: not there; real slices are skipped (--data)")
        return
    wall, cpu = time.perf_counter(), time.process_time()
    network = learn(read(name, "train", data), seed)
    test = read(name, "test", data)
    probability = predict(network, test.raw)
    total = Scores()
    for k in range(len(test.raw)):
        total += score(probability[k] >= 0.5, test.truth[k])
    numbers = RUNS[name]
    print(
        f"{name} mitochondria, learned from {numbers['train']}, measured on {numbers['test']}: F1 {total.f1:.3f}"
        f"  precision {total.precision:.3f}  recall {total.recall:.3f}"
        f"  ({(time.perf_counter() - wall) / 60:.0f} min, {(time.process_time() - cpu) / 60:.1f} CPU min)"
    )
    work.mkdir(parents=True, exist_ok=True)
    grey = (test.raw[0] * 255).astype(np.uint8)
    colour = np.repeat(grey[..., None], 3, 2)
    for mark, channel in ((test.truth[0], 1), (probability[0] >= 0.5, 0)):
        edge = mark ^ ndimage.binary_erosion(mark, iterations=2)
        colour[edge] = 0
        colour[edge, channel] = 255
    Image.fromarray(colour).save(work / f"{name}.png")
    print(f"picture: {work / f'{name}.png'} (green: truth, red: found)")
