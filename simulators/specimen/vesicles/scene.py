"""One frame with vesicles and its truth: three kinds, three difficulties, and looks drawn at random for training."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from simulators.specimen import noise
from simulators.specimen.immunogold import camera
from simulators.specimen.immunogold.texture import Field, clouds, grain
from simulators.specimen.vesicles import crowd, ice
from simulators.specimen.vesicles.bodies import Ball, Wall, stamp
from simulators.specimen.vesicles.neuropil import tissue

Kind = Literal["cryo", "section", "fib"]
KINDS: tuple[Kind, ...] = ("cryo", "section", "fib")
_DRAWN_NM = (1.0, 1.7)  # detail is drawn on pixels between these
_CONTRAST = 0.3  # of a line of a membrane seen edge on, before the lens
_SEEN = 0.62  # of its radius: a vesicle of which the slab holds a smaller cap is not counted, nor is it wrong to find


@dataclass(frozen=True, slots=True)
class FrameVesicle:
    """Centre in pixels, outer diameter in nm as it shows, and whether a person would surely mark it."""

    x: float
    y: float
    diameter_nm: float
    visible: bool


@dataclass(frozen=True, slots=True)
class VesicleFrame:
    """Grey values (rows, columns), matter dark, and everything round in it; those not ``visible`` do not count."""

    image: NDArray[np.uint8]
    pixel_nm: float
    vesicles: tuple[FrameVesicle, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """How a frame looks; lengths in nm.

    Attributes
    ----------
    kind
        ``cryo`` (projection, or a slice of a tomogram), ``section`` (stained), ``fib`` (FIB-SEM slice).
    per_um2
        Vesicles for each square micrometre of where they lie; 0: none at all.
    diameters_nm, large
        Smallest and largest outer diameter, and the share that is larger still.
    touching
        Share put beside another one.
    slab_nm
        Thickness that is summed over.
    clutter
        0 to 1: what else there is.
    stain, wall_nm, lumen
        Strength of stained membranes, their width, and what fills vesicles, against the membrane.
    leaflets
        Whether the two lines of a membrane are apart (cryo).
    defocus_um, flipped
        Of the lens (cryo).
    blur_nm, noise, soft_noise
        Blur; noise of a pixel of 1 nm against a membrane's line (cryo) or of a pixel of the frame at full brightness;
        blur of the noise in pixels.
    round
        Standard deviation of the elongation.
    black, jpeg
        Transmission that is shown as black; JPEG quality or None.
    """

    kind: Kind = "section"
    per_um2: float = 250.0
    diameters_nm: tuple[float, float] = (34.0, 48.0)
    large: float = 0.03
    touching: float = 0.5
    slab_nm: float = 55.0
    clutter: float = 0.4
    stain: float = 0.5
    wall_nm: float = 4.0
    lumen: float = 0.15
    leaflets: bool = True
    defocus_um: float = 3.0
    flipped: bool = False
    blur_nm: float = 1.0
    noise: float = 0.08
    soft_noise: float = 0.6
    round: float = 0.05
    black: float = 0.0
    jpeg: int | None = None


_CRYO = Look(
    kind="cryo", lumen=0.01, slab_nm=1e4, per_um2=160, diameters_nm=(34, 50), touching=0.3, defocus_um=3.0, round=0.03
)
_SECTION = Look()
_FIB = Look(kind="fib", slab_nm=14, wall_nm=4.5, lumen=0.5, blur_nm=4.0, per_um2=300, noise=0.06, soft_noise=0.7)
DIFFICULTIES: dict[str, dict[Kind, Look]] = {
    "easy": {
        "cryo": replace(_CRYO, clutter=0.15, noise=0.3, per_um2=110, touching=0.1),
        "section": replace(_SECTION, clutter=0.2, noise=0.05, per_um2=160, touching=0.3, slab_nm=40),
        "fib": replace(_FIB, clutter=0.2, noise=0.03, per_um2=180, touching=0.3, lumen=0.25, blur_nm=2.5),
    },
    "medium": {
        "cryo": replace(_CRYO, clutter=0.5, noise=0.55, per_um2=200),
        "section": replace(_SECTION, clutter=0.5, noise=0.09, round=0.09),
        "fib": replace(_FIB, clutter=0.5, noise=0.05),
    },
    "hard": {
        "cryo": replace(
            _CRYO, clutter=0.9, noise=0.9, per_um2=300, touching=0.5, defocus_um=2.0, diameters_nm=(30, 54)
        ),
        "section": replace(
            _SECTION, clutter=0.9, noise=0.15, per_um2=400, touching=0.7, slab_nm=65, round=0.12, lumen=0.35,
            blur_nm=1.8,
        ),
        "fib": replace(_FIB, clutter=0.9, noise=0.085, per_um2=420, touching=0.7, lumen=0.75, blur_nm=5.0, jpeg=88),
    },
}  # fmt: skip


def draw_look(rng: np.random.Generator, pixel_nm: float) -> Look:
    """A look such as some microscope, somewhere, might give at this pixel size."""
    kind: Kind = KINDS[int(rng.choice(3, p=(0.36, 0.34, 0.3)))]
    low = float(rng.uniform(28, 42))
    common = Look(
        kind=kind,
        per_um2=0.0 if rng.random() < 0.12 else float(np.exp(rng.uniform(np.log(25), np.log(650)))),
        diameters_nm=(low, low + float(rng.uniform(4, 22))),
        large=float(rng.choice([0.0, rng.uniform(0, 0.2)])),
        touching=float(rng.uniform(0, 0.9)),
        clutter=float(rng.uniform()),
        round=float(rng.uniform(0.01, 0.14)),
        soft_noise=float(rng.uniform(0, 1.3)),
        black=float(rng.uniform(-0.1, 0.15)),
        jpeg=int(rng.integers(60, 95)) if rng.random() < 0.25 else None,
    )
    if kind == "cryo":
        sliced = rng.random() < 0.35
        return replace(
            common,
            slab_nm=float(rng.uniform(4, 14)) if sliced else 1e4,
            defocus_um=float(np.exp(rng.uniform(np.log(0.8), np.log(8)))),
            flipped=bool(sliced or rng.random() < 0.3),
            leaflets=bool(rng.random() < 0.8),
            lumen=float(rng.uniform(-0.02, 0.05)),
            blur_nm=float(rng.uniform(0.4, 1.4)),
            noise=float(np.exp(rng.uniform(np.log(0.1), np.log(1.2)))) * (0.5 if sliced else 1.0),
            round=common.round / 2,
        )
    if kind == "section":
        return replace(
            common,
            slab_nm=float(rng.uniform(30, 80)),
            stain=float(rng.uniform(0.3, 0.9)),
            wall_nm=float(rng.uniform(2.8, 5.0)),
            lumen=float(rng.uniform(-0.05, 0.55)),
            blur_nm=float(rng.uniform(0.5, 2.5)),
            noise=float(np.exp(rng.uniform(np.log(0.02), np.log(0.2)))),
        )
    return replace(
        common,
        slab_nm=float(rng.uniform(6, 26)),
        stain=float(rng.uniform(0.35, 0.9)),
        wall_nm=float(rng.uniform(3.2, 6.0)),
        lumen=float(rng.uniform(0.0, 1.0)),
        blur_nm=float(rng.uniform(1.5, 8.5)),
        noise=float(np.exp(rng.uniform(np.log(0.015), np.log(0.1)))),
    )


def render(look: Look, seed: int, shape: tuple[int, int] = (1024, 1024), pixel_nm: float = 2.0) -> VesicleFrame:
    """The frame of a look and a seed, shape (rows, columns), with its truth."""
    rng = noise.stream(seed, 131)
    fine = max(1, math.ceil(pixel_nm / _DRAWN_NM[1]))
    drawn_nm = max(pixel_nm / fine, _DRAWN_NM[0])
    size = (
        (shape[0] * fine, shape[1] * fine)
        if pixel_nm >= _DRAWN_NM[0]
        else (max(16, round(shape[0] * pixel_nm / drawn_nm)), max(16, round(shape[1] * pixel_nm / drawn_nm)))
    )
    make = _ice if look.kind == "cryo" else _tissue
    density, marks = make(rng, look, size, drawn_nm)
    scale = drawn_nm / pixel_nm
    if look.kind == "cryo":
        seen = ice.through_lens(density, drawn_nm, look.defocus_um, look.flipped, look.blur_nm)
        seen = 1 - np.float32(_CONTRAST) * _to(seen, shape)
        shot = 0.1 * look.noise / pixel_nm
        picture = camera.noisy(rng, np.ones(shape, np.float32), shot, look.soft_noise) - 1 + seen
        low, high = (float(v) for v in np.quantile(picture[::3, ::3], (0.001, 0.999)))
    else:
        seen = _to(np.exp(-camera.blurred(density, look.blur_nm / drawn_nm)), shape)
        picture = camera.noisy(rng, seen, look.noise, look.soft_noise)
        white = float(np.quantile(picture[::3, ::3], 0.998)) * float(rng.uniform(1.0, 1.1))
        low, high = min(look.black, white - 0.2), white
    grey = camera.to_grey(picture, low, high, look.jpeg)
    found = tuple(
        FrameVesicle((x + 0.5) * scale - 0.5, (y + 0.5) * scale - 0.5, diameter, visible)
        for x, y, diameter, visible in marks
        if -0.5 <= (x + 0.5) * scale - 0.5 < shape[1] - 0.5 and -0.5 <= (y + 0.5) * scale - 0.5 < shape[0] - 0.5
    )
    return VesicleFrame(grey, pixel_nm, found)


Mark = tuple[float, float, float, bool]


def _to(drawn: Field, shape: tuple[int, int]) -> Field:
    if drawn.shape == shape:
        return drawn
    way = cv2.INTER_AREA if drawn.shape[0] > shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(drawn, shape[::-1], interpolation=way), np.float32)


def _ice(rng: np.random.Generator, look: Look, shape: tuple[int, int], nm: float) -> tuple[Field, list[Mark]]:
    out, taken, unsure = ice.surroundings(rng, shape, nm, look.clutter)
    room = cv2.distanceTransform((~taken).astype(np.uint8), cv2.DIST_L2, 3)
    room[room > 40 / nm] = 200 / nm
    thin = look.slab_nm < 100
    count = int(rng.poisson(look.per_um2 * shape[0] * shape[1] * nm**2 * 1e-6 * (1.0 if thin else 0.8)))
    depth = look.slab_nm if thin else float(rng.uniform(10, 70))
    laid = crowd.place(rng, np.asarray(room), nm, count, look.diameters_nm, depth, look.touching, look.large)
    wall = Wall() if look.leaflets else Wall(0.8, 1.6)
    # a line of the membrane is 1 where it is seen edge on: about this much path through a leaflet
    per_nm = np.float32(1 / (look.slab_nm if thin else 11.0))
    marks = _drawn(rng, out, laid, look, wall, nm, per_nm, 1.0, look.slab_nm)
    return out, marks + [(x, y, d, False) for x, y, d in unsure]


def _tissue(rng: np.random.Generator, look: Look, shape: tuple[int, int], nm: float) -> tuple[Field, list[Mark]]:
    made = tissue(rng, shape, nm, stain=look.stain, wall_nm=look.wall_nm, clutter=look.clutter)
    out = made.density
    laid = []
    for room, share in ((made.room_px, 1.0), (made.elsewhere_px, 0.08)):
        area_um2 = float((room > 0).sum()) * nm**2 * 1e-6
        count = int(rng.poisson(look.per_um2 * share * area_um2 * 1.5))
        laid.append(crowd.place(rng, room, nm, count, look.diameters_nm, look.slab_nm * 0.9, look.touching, look.large))
    wall = Wall(0.0, look.wall_nm * 0.62)
    strength = (
        look.stain * float(rng.uniform(0.45, 1.3)) / 2
    )  # both lines of a wall without leaflets lie on one another
    per_nm = np.float32(1 / min(look.slab_nm, 22.0))
    marks = _drawn(rng, out, np.concatenate(laid), look, wall, nm, per_nm, strength, look.slab_nm)
    out += np.float32(0.02 * look.clutter) * clouds(rng, shape, 15 / nm, 2)
    return np.clip(out, 0.0, 5.0), marks + [(x, y, d, False) for x, y, d in made.unsure]


def _drawn(
    rng: np.random.Generator, out: Field, laid: NDArray[np.float64], look: Look, wall: Wall, nm: float,
    per_nm: np.float32, strength: float, slab_nm: float,
) -> list[Mark]:  # fmt: skip
    layer = np.zeros_like(out)
    marks: list[Mark] = []
    full = float(rng.choice([0.0, 0.0, rng.uniform(0, 0.15)]))
    for x, y, z, radius in laid.tolist():
        dense = rng.random() < full
        ball = Ball(
            radius_nm=radius,
            depth_nm=z if slab_nm < 1000 else 0.0,
            membrane=strength * float(rng.uniform(0.75, 1.2)),
            lumen=2 * strength * look.lumen * float(rng.uniform(0.6, 1.3)),
            core=2 * strength * float(rng.uniform(0.6, 1.2)) if dense else 0.0,
            core_nm=radius * float(rng.uniform(0.4, 0.75)),
            stretch=float(np.exp(abs(rng.normal(0, look.round)))),
            angle=float(rng.uniform(0, math.pi)),
            wobble=look.round / 2.5,
        )
        stamp(layer, x, y, ball, wall, slab_nm, nm, np.append(rng.normal(0, 1, 3), rng.uniform(0, 6.3, 3)))
        shown = ball.shown_nm(slab_nm)
        if shown > 0.3 * radius:
            marks.append((x, y, 2 * shown, bool(shown > _SEEN * radius and 2 * shown > 20)))
    if look.kind == "cryo":  # proteins on and in the membrane
        spots = grain(rng, (out.shape[0], out.shape[1]), 2.5 / nm)
        layer *= np.maximum(1 + np.float32(rng.uniform(0, 0.6)) * spots, np.float32(0.2))
    out += layer * per_nm
    return _told_apart(marks, nm)


def _told_apart(marks: list[Mark], nm: float) -> list[Mark]:
    """The same, where those that mostly lie over one another are no longer sure."""
    if not marks:
        return marks
    at = np.array([(x * nm, y * nm) for x, y, *_ in marks])
    size = np.array([d for _, _, d, _ in marks])
    out = []
    for k, (x, y, d, visible) in enumerate(marks):
        gap = np.hypot(*(at - at[k]).T)
        gap[k] = np.inf
        out.append((x, y, d, visible and not bool((gap < 0.3 * (size + d) / 2).any())))
    return out
