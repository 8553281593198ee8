"""One picture of immunogold and its truth; three difficulties, and looks drawn at random for training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from simulators.specimen import noise
from simulators.specimen.immunogold import beads, camera, dirt, replica, section
from simulators.specimen.immunogold.texture import Field

Ground = Literal["replica", "section", "silver"]
SEEN_FROM = 5.0  # particles with a smaller signal-to-noise (matched filter) count as hidden
FINEST_GROUND_NM = 1.1


@dataclass(frozen=True, slots=True)
class Bead:
    """One particle: its centre in pixels, its diameter and nominal size in nm, and whether an expert could see it."""

    x: float
    y: float
    diameter_nm: float
    nominal_nm: float
    visible: bool


@dataclass(frozen=True, slots=True)
class GoldImage:
    """Grey values of shape (rows, columns), and all particles whose centre lies inside."""

    image: NDArray[np.uint8]
    pixel_nm: float
    beads: tuple[Bead, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """How a picture looks; lengths in nm.

    Attributes
    ----------
    ground
        ``replica``, ``section``, or ``silver`` (a section with pre-embedding grains and no countable gold).
    hardness
        0 to 1: relief, folds and texture of the ground.
    sizes_nm, per_um2, touching, spread
        The gold, see `beads.place`; ``per_um2`` 0 means none.
    gold_stop_nm
        Gold that lets 1/e of the electrons through.
    blur_nm, soft_nm, soft_share
        Blur in focus and out of it, and the share of the area that is out of it.
    fringe
        Strength of the underfocus fringe.
    noise, camera_px
        Shot noise at full brightness, and the camera's blur in pixels.
    dirt_per_um2
        Pieces of dirt.
    seam_step, seam_nm
        Gain steps of a montage and the side of its tiles; 0: one frame.
    black, dead, jpeg
        Transmission shown as black, share of dead pixels, JPEG quality or None.
    """

    ground: Ground = "replica"
    hardness: float = 0.4
    sizes_nm: tuple[float, ...] = (6.0, 12.0)
    per_um2: float = 60.0
    touching: float = 0.05
    spread: float = 0.08
    gold_stop_nm: float = 5.0
    blur_nm: float = 1.0
    soft_nm: float = 2.0
    soft_share: float = 0.0
    fringe: float = 0.2
    noise: float = 0.05
    camera_px: float = 0.6
    dirt_per_um2: float = 2.0
    seam_step: float = 0.0
    seam_nm: float = 2300.0
    black: float = 0.02
    dead: float = 0.0
    jpeg: int | None = None


DIFFICULTIES: dict[str, Look] = {
    "easy": Look(hardness=0.2, noise=0.03, dirt_per_um2=1.0, touching=0.02),
    "medium": Look(
        hardness=0.55, noise=0.045, dirt_per_um2=5.0, touching=0.08, soft_share=0.15, seam_step=0.04, dead=2e-6
    ),
    "hard": Look(
        hardness=0.9, noise=0.065, dirt_per_um2=12.0, touching=0.15, soft_share=0.3, soft_nm=2.6, seam_step=0.08,
        spread=0.1, blur_nm=1.2, dead=1e-5, jpeg=88,
    ),
}  # fmt: skip


def draw_look(rng: np.random.Generator, pixel_nm: float) -> Look:
    """A look such as some microscope, somewhere, might give at this pixel size."""
    ground: Ground = "silver" if rng.uniform() < 0.04 else ("section" if rng.uniform() < 0.3 else "replica")
    least = max(5.0, 2.4 * pixel_nm)
    if rng.uniform() < 0.45:
        sizes: tuple[float, ...] = tuple(s for s in (6.0, 12.0, 18.0) if s >= least) or (18.0,)
        sizes = sizes if rng.uniform() < 0.5 else sizes[: max(1, len(sizes) - 1)]
    else:
        sizes = tuple(np.sort(np.exp(rng.uniform(np.log(least), np.log(26.0), int(rng.integers(1, 4))))).tolist())
    hardness = float(rng.uniform())
    look = Look(
        ground=ground,
        hardness=hardness,
        sizes_nm=sizes,
        per_um2=0.0 if rng.uniform() < 0.12 else float(np.exp(rng.uniform(np.log(10), np.log(400)))),
        touching=float(rng.uniform(0, 0.3)),
        spread=float(rng.uniform(0.04, 0.12)),
        gold_stop_nm=float(rng.uniform(3.5, 8.0)),
        blur_nm=float(rng.uniform(0.4, 1.7)),
        soft_nm=float(rng.uniform(1.5, 3.0)),
        soft_share=float(rng.choice([0.0, rng.uniform(0, 0.5)])),
        fringe=float(rng.choice([0.0, rng.uniform(0, 0.7)])),
        noise=float(np.exp(rng.uniform(np.log(0.012), np.log(0.12)))),
        camera_px=float(rng.uniform(0, 1.3)),
        dirt_per_um2=float(rng.choice([0.0, np.exp(rng.uniform(np.log(1), np.log(40)))])),
        seam_step=float(rng.choice([0.0, 0.0, rng.uniform(0, 0.1)])),
        seam_nm=float(rng.uniform(200, 2300)),
        black=float(rng.uniform(-0.15, 0.16)),
        dead=float(rng.choice([0.0, 1e-5, 1e-4])),
        jpeg=int(rng.integers(60, 95)) if rng.uniform() < 0.3 else None,
    )
    return replace(look, per_um2=0.0) if ground == "silver" else look


def render(look: Look, seed: int, shape: tuple[int, int] = (2048, 2048), pixel_nm: float = 1.126) -> GoldImage:
    """The picture of a look and a seed, shape (rows, columns), with its truth."""
    rng = noise.stream(seed, 97)
    ground = _ground(rng, look, shape, pixel_nm)
    ground += dirt.density(rng, shape, pixel_nm, look.dirt_per_um2)
    lain = beads.place(rng, shape, pixel_nm, look.sizes_nm, look.per_um2, look.touching, look.spread)
    bare = np.exp(-ground)
    gold = bare * np.exp(beads.metal_nm(lain, shape, pixel_nm) * np.float32(-1 / look.gold_stop_nm))
    weight = camera.focus_map(rng, shape, pixel_nm, look.soft_share) if look.soft_share > 0 else None
    lens = (look.blur_nm / pixel_nm, look.soft_nm / pixel_nm, weight, look.fringe)
    seen = camera.focused(gold, *lens)
    empty = camera.focused(bare, *lens)
    clean = seen
    if look.seam_step > 0:
        seen = seen * camera.seams(rng, shape, max(32, round(look.seam_nm / pixel_nm)), look.seam_step)
    picture = camera.noisy(rng, seen, look.noise, look.camera_px)
    dirt.dead_pixels(rng, picture, look.dead)
    white = float(np.quantile(picture[::7, ::7], 0.995)) * float(rng.uniform(1.0, 1.15))
    black = min(look.black, white - 0.1)
    grey = camera.to_grey(picture, black, white, look.jpeg)
    shown, shown_empty = np.clip(clean, black, white), np.clip(empty, black, white)  # nothing is seen in black on black
    visible = _visible(lain, shown_empty - shown, shown, look, pixel_nm)
    table = zip(lain.x, lain.y, lain.diameter_nm, lain.nominal_nm, visible, strict=True)
    known = tuple(Bead(float(x), float(y), float(d), float(size), bool(clear)) for x, y, d, size, clear in table)
    return GoldImage(grey, pixel_nm, known)


def _ground(rng: np.random.Generator, look: Look, shape: tuple[int, int], pixel_nm: float) -> Field:
    """Density of the ground; it has no detail finer than a nanometre, so it is drawn on pixels no finer than that."""
    coarse_nm = max(pixel_nm, FINEST_GROUND_NM)
    rows, columns = (max(16, round(n * pixel_nm / coarse_nm)) for n in shape)
    make = replica.density if look.ground == "replica" else section.density
    out = make(rng, (rows, columns), coarse_nm, look.hardness)
    if look.ground == "silver":
        out += dirt.silver(rng, (rows, columns), coarse_nm, float(rng.uniform(8, 40)))
    if out.shape != shape:
        out = np.asarray(cv2.resize(out, shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)
    return out


def _visible(lain: beads.Beads, signal: Field, seen: Field, look: Look, pixel_nm: float) -> NDArray[np.bool_]:
    """Whether a matched filter on each particle would stand out from the noise.

    ``signal`` is what each pixel lacks by the gold, ``seen`` what is left, both within what the grey scale shows.
    """
    out = np.zeros(len(lain), bool)
    grain = camera.coarse_noise(look.camera_px)
    for k, (x, y, d) in enumerate(zip(lain.x, lain.y, lain.diameter_nm, strict=True)):
        half = max(2, round(0.75 * d / pixel_nm))
        i, j = round(x), round(y)
        window = (slice(max(0, j - half), j + half + 1), slice(max(0, i - half), i + half + 1))
        part = signal[window]
        variance = look.noise**2 * max(float(seen[window].mean()), 0.02) * grain + 0.01**2
        contrast = float(part.max(initial=0)) / max(float((seen[window] + part).mean()), 1e-3)
        out[k] = float(np.sum(part.astype(np.float64) ** 2)) / variance > SEEN_FROM**2 and contrast > 0.12
    return out
