"""Pictures of simulated foil with the truth of every hole, and the ways in which real pictures differ from them.

A pool of views is rendered once; each training example is a random piece of one of them, turned, stretched, inverted,
blurred and dirtied as cameras, viewers and file formats do (domain randomisation, Tobin et al., IROS 2017).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from simulators.specimen import HoleTruth, Specimen, SpecimenSettings, View

STATES = ("good", "thick", "thin", "empty", "dirty")
_DIAMETERS_UM = (0.6, 1.0, 1.2, 1.4, 2.0, 2.0, 2.5, 3.5)

Image = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture and what is in it.

    Attributes
    ----------
    image
        Counts or grey levels of any scale, shape (rows, columns).
    holes
        Whole holes that are there, shape (n, 2), as (x, y) pixels, the frame's margin included.
    radius
        Of each, pixels, shape (n,).
    quality
        Chance that a micrograph of the hole is good, shape (n,).
    state
        Index into `STATES`, shape (n,).
    unsure
        Holes that a bar cuts, shape (m, 3), as (x, y, radius): neither right nor wrong.
    """

    image: Image
    holes: NDArray[np.float64]
    radius: NDArray[np.float64]
    quality: NDArray[np.float64]
    state: NDArray[np.int64]
    unsure: NDArray[np.float64]


def grid_of(rng: np.random.Generator) -> Specimen:
    """A small grid of any make."""
    diameter = float(rng.choice(_DIAMETERS_UM)) * float(rng.uniform(0.9, 1.1))
    return Specimen(
        SpecimenSettings(
            seed=int(rng.integers(2**31)),
            grid_radius_um=150.0,
            mesh="hexagonal" if rng.uniform() < 0.15 else "square",
            mesh_pitch_um=float(rng.choice([85.0, 127.0, 127.0])),
            bar_um=float(rng.uniform(20, 45)),
            foil="gold" if rng.uniform() < 0.35 else "carbon",
            lattice="hexagonal" if rng.uniform() < 0.25 else "square",
            hole_diameter_um=diameter,
            hole_pitch_um=max(1.3, diameter * float(rng.choice([1.35, 1.6, 2.0, 2.0, 2.0, 2.5, 3.0, 3.8]))),
            ice=rng.choice(["mixed", "good", "thick", "thick", "poor"]),
        )
    )


def view_of(rng: np.random.Generator, grid: Specimen, radius_px: float, side: int) -> View:
    """A view of a random square of ``grid`` in which holes have ``radius_px``."""
    alive = [s for s in grid.squares if s.state != "dark"] or list(grid.squares)
    square = alive[int(rng.integers(len(alive)))]
    pixel = grid.settings.hole_diameter_um * 1e4 / 2 / radius_px
    reach = 0.25 * (grid.settings.mesh_pitch_um - grid.settings.bar_um)
    if rng.uniform() < 0.2:
        reach *= 2.5  # bars and corners
    dx, dy = rng.uniform(-reach, reach, 2)
    return View(
        square.x_um + float(dx),
        square.y_um + float(dy),
        pixel,
        (side, side),
        rotation_deg=float(rng.uniform(0, 360)),
        tilt_deg=float(rng.choice([0.0, 0.0, 0.0, rng.uniform(0, 50)])),
        defocus_um=float(rng.choice([0.0, rng.uniform(-100, 200), rng.uniform(0, 1000)])),
        dose_e_per_a2=float(np.exp(rng.uniform(np.log(100), np.log(20000)))) / pixel**2,
        frame_seed=int(rng.integers(2**31)),
    )


def render(grid: Specimen, view: View) -> Scene:
    """The picture of a view, and its truth."""
    listed: list[HoleTruth] = []
    cut: list[NDArray[np.float64]] = []
    for square in grid.squares:
        if math.hypot(square.x_um - view.x_um, square.y_um - view.y_um) < view.reach_um + 90:
            listed += [hole for hole in grid.holes(square.index) if hole.state != "broken"]
            cut.append(grid.cut_holes(square.index))
    at = np.array([[h.x_um, h.y_um, h.radius_um] for h in listed]).reshape(-1, 3)
    quality = np.array([h.quality for h in listed])
    state = np.array([STATES.index(h.state) for h in listed], np.int64)
    unsure = np.concatenate(cut) if cut else np.zeros((0, 3))
    at, keep = _in_pixels(grid, view, at)
    unsure, _ = _in_pixels(grid, view, unsure)
    image = grid.render(view).astype(np.float32)
    return Scene(image, at[:, :2], at[:, 2], quality[keep], state[keep], unsure)


def _in_pixels(grid: Specimen, view: View, at: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    xs, ys = np.array([grid.stage_to_pixel(view, x, y) for x, y, _ in at]).reshape(-1, 2).T
    radius = at[:, 2] / view.pixel_size_um * math.sqrt(math.cos(math.radians(view.tilt_deg)))
    rows, columns = view.shape
    keep = (xs > -radius) & (ys > -radius) & (xs < columns + radius) & (ys < rows + radius)
    return np.column_stack([xs, ys, radius])[keep], keep


def empty_scene(rng: np.random.Generator, side: int) -> Scene:
    """A picture without holes: an atlas, a micrograph, noise, blobs, stripes."""
    kind = int(rng.integers(5))
    nothing = np.zeros((0, 2)), np.zeros(0), np.zeros(0), np.zeros(0, np.int64), np.zeros((0, 3))
    if kind == 0:
        grid = Specimen(SpecimenSettings(seed=int(rng.integers(2**31)), grid_radius_um=400))
        pixel = float(rng.uniform(12000, 40000))
        view = View(0, 0, pixel, (side, side), rotation_deg=float(rng.uniform(0, 90)), dose_e_per_a2=300 / pixel**2)
        return Scene(grid.render(view).astype(np.float32), *nothing)
    if kind == 1:
        grid = Specimen(SpecimenSettings(seed=int(rng.integers(2**31)), grid_radius_um=80, ice="good"))
        holes = [h for s in grid.squares for h in grid.holes(s.index)]
        hole = holes[int(rng.integers(len(holes)))]
        view = View(hole.x_um, hole.y_um, 8.0, (side, side), defocus_um=2.0, dose_e_per_a2=40.0)
        return Scene(grid.render(view).astype(np.float32), *nothing)
    noise = rng.standard_normal((side, side)).astype(np.float32)
    if kind == 2:
        return Scene(noise + 0.4 * cv2.GaussianBlur(noise, (0, 0), float(rng.uniform(1, 12))) * 8, *nothing)
    if kind == 3:  # an uneven web, as lacey carbon
        web = np.abs(cv2.GaussianBlur(noise, (0, 0), float(rng.uniform(4, 16))))
        web = web / web.mean()
        return Scene(np.minimum(web * float(rng.uniform(1, 6)), 1.0) * 8 + noise, *nothing)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    turn, period = float(rng.uniform(0, math.pi)), float(rng.uniform(6, 60))
    wave = np.sin((np.cos(turn) * x + np.sin(turn) * y) * np.float32(2 * math.pi / period))
    return Scene((np.sign(wave) if rng.uniform() < 0.5 else wave) * 2 + noise, *nothing)


def pool(
    seed: int, count: int, side: int, radius_px: tuple[float, float], say: Callable[[str], None] = print
) -> list[Scene]:
    """``count`` rendered pictures of ``side`` pixels, holes of ``radius_px`` (from, to); one in eight has no holes."""
    rng = np.random.default_rng([seed, 101])
    scenes: list[Scene] = []
    low, high = np.log(radius_px)
    while len(scenes) < count:
        grid = grid_of(rng)
        for _ in range(6):
            scene = render(grid, view_of(rng, grid, float(np.exp(rng.uniform(low, high))), side))
            scenes.append(compact(scene))
        scenes.append(compact(empty_scene(rng, side)))
        if len(scenes) % 175 == 0:
            say(f"{len(scenes)} of {count} pictures rendered")
    return scenes[:count]


def compact(scene: Scene) -> Scene:
    """Scene with its picture clipped at robust limits and kept as float16 of 0 to 1, a quarter of the memory."""
    low, high = np.percentile(scene.image, (0.05, 99.95))
    grey = np.clip((scene.image - low) / max(float(high - low), 1e-9), 0, 1)
    return replace(scene, image=grey.astype(np.float16))


def piece(rng: np.random.Generator, scene: Scene, side: int, zoom: float, *, turn: float, shear: float) -> Scene:
    """A piece of ``side`` pixels: enlarged by ``zoom``, turned by ``turn`` degrees, one axis shortened by ``shear``."""
    rows, columns = scene.image.shape
    angle = math.radians(turn)
    c, s = math.cos(angle), math.sin(angle)
    # The piece stays inside the picture: beyond it, nothing is known.
    needed = side * (abs(c) + abs(s)) / (1.0 - shear)
    zoom = max(zoom, needed / min(rows, columns))
    free = max(0.0, (min(rows, columns) - needed / zoom) / 2)
    matrix = zoom * np.array([[c, -s], [s, c]]) @ np.diag([1.0, 1.0 - shear])
    middle = np.array([(columns - 1) / 2, (rows - 1) / 2])
    if len(scene.holes) and rng.uniform() < 0.6:  # where holes are
        middle += np.clip(scene.holes[int(rng.integers(len(scene.holes)))] - middle, -free, free)
    else:
        middle += rng.uniform(-free, free, 2)
    offset = np.array([(side - 1) / 2, (side - 1) / 2]) - matrix @ middle
    source: Image = scene.image.astype(np.float32)
    if zoom < 0.8:
        source = cv2.GaussianBlur(source, (0, 0), 0.45 / zoom)
    image = cv2.warpAffine(
        source, np.column_stack([matrix, offset]), (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    holes = scene.holes @ matrix.T + offset
    size = zoom * math.sqrt(1.0 - shear)
    inside = _shown(holes, side, scene.radius * size)
    unsure = np.column_stack([scene.unsure[:, :2] @ matrix.T + offset, scene.unsure[:, 2] * size])
    return Scene(
        np.asarray(image, np.float32),
        holes[inside],
        scene.radius[inside] * size,
        scene.quality[inside],
        scene.state[inside],
        unsure[_shown(unsure[:, :2], side, unsure[:, 2])],
    )


def _shown(at: NDArray[np.float64], side: int, radius: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(((at > -radius[:, None]) & (at < side + radius[:, None])).all(axis=1))


def worn(rng: np.random.Generator, image: Image) -> Image:
    """The picture as other cameras and files would give it: inverted, uneven, blurred, noisy, clipped, compressed."""
    image = image - image.mean()
    image /= max(float(image.std()), 1e-6)
    if rng.uniform() < 0.5:
        image = -image
    side = image.shape[0]
    if rng.uniform() < 0.4:  # uneven light
        y, x = np.mgrid[0 : image.shape[0], 0 : image.shape[1]].astype(np.float32) / side - np.float32(0.5)
        image = image + np.float32(rng.normal(0, 0.8)) * x + np.float32(rng.normal(0, 0.8)) * y
        image = image + np.float32(rng.normal(0, 0.8)) * (x * x + y * y)
    if rng.uniform() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.4)))
    if rng.uniform() < 0.5:
        level = float(np.exp(rng.uniform(np.log(0.02), np.log(0.6))))
        noise = rng.standard_normal(image.shape).astype(np.float32)
        if rng.uniform() < 0.4:
            noise = cv2.GaussianBlur(noise, (0, 0), 0.8) * np.float32(2.2)
        image = image + np.float32(level) * noise
    if rng.uniform() < 0.3:
        image = np.sign(image) * np.abs(image) ** float(rng.uniform(0.6, 1.5))
    if rng.uniform() < 0.3:  # a viewer's limits
        low, high = np.percentile(image, (float(rng.uniform(0, 8)), float(rng.uniform(92, 100))))
        image = np.clip(image, low, high)
    if rng.uniform() < 0.2:  # text, scale bars, marks
        for _ in range(int(rng.integers(1, 4))):
            x, y = rng.integers(0, side, 2).tolist()
            level = float(rng.choice([image.min(), image.max()]))
            w, h = rng.integers(2, 40, 2).tolist()
            image[y : y + h // 4 + 1, x : x + w] = level
    if rng.uniform() < 0.2:
        low, high = float(image.min()), float(image.max())
        byte = np.clip((image - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
        _, packed = cv2.imencode(".jpg", byte, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 90))])
        image = np.asarray(cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE), np.float32)
    return np.asarray(image, np.float32)
