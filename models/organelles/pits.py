"""Coated pits and vesicles: depth, width at half depth, neck, and an ellipse, from sections through the middle.

The coat is a dark ring around the object's centre. Its opening tells the axis. In nine planes that contain the axis the
ring is followed from the bottom to both sides as long as it is dark; the plane with the longest outline is measured
(ASEM takes the best of nine planes in three views of the stack, and measures by hand; here the planes turn about the
pit's own axis). The neck is the line between the outline's ends, depth the way from there to the bottom.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.organelles.numbers import NUMBERS
from models.organelles.pores import plane_axes, sampled

PLANES = int(NUMBERS["pits"]["planes"])
NEAREST_NM, FARTHEST_NM = 15.0, 130.0  # radii at which the ring is looked for
OPEN_NECK_NM = float(NUMBERS["pits"]["open_neck_nm"])  # necks wider than this are open
_ANGLES = 72
_STEP_NM = 1.0
_BLUR_NM = 3.0
_DARK = 0.4  # of the bottom's contrast: where the ring ends
_TURN_NM = 2.0  # the ring's radius changes by at most so much from one angle to the next
_FEWEST = 0.01  # share of all directions that an opening takes
_FLARE = 1.3  # times the lower half's radius: where the ring has left for the membrane around
_ONE_PLACE = 0.75  # mean of the unit vectors to what is missing, relative to that of a round opening

Points = NDArray[np.float64]  # (n, 2): across the axis, along it (towards the opening)


@dataclass(frozen=True, slots=True)
class Pit:
    """A measured pit or vesicle; lengths in nm, NaN where there is none.

    Attributes
    ----------
    number
        Of its object.
    centre
        In voxels (z, y, x).
    axis
        Unit, towards the opening, (z, y, x) in nm space.
    closed
        Whether the ring is closed: a vesicle, without neck.
    depth_nm
        From the line between the ends of the outline to its farthest point; of a vesicle its longest extent.
    half_width_nm
        Between both sides at half of the depth.
    neck_nm
        Between the ends of the outline; 0 for a vesicle.
    major_nm, minor_nm
        Axes (full lengths) of the ellipse through the outline.
    eccentricity
        Major over minor axis, as ASEM defines it.
    outline_nm
        Length of the outline.
    """

    number: int
    centre: tuple[float, float, float]
    axis: tuple[float, float, float]
    closed: bool
    depth_nm: float
    half_width_nm: float
    neck_nm: float
    major_nm: float
    minor_nm: float
    eccentricity: float
    outline_nm: float


def directions(count: int = 256) -> NDArray[np.float64]:
    """Unit vectors spread evenly over the sphere (Fibonacci's spiral), shape (count, 3)."""
    n = np.arange(count) + 0.5
    height = 1 - 2 * n / count
    turn = n * np.pi * (1 + 5**0.5)
    flat = np.sqrt(1 - height**2)
    return np.stack([height, flat * np.sin(turn), flat * np.cos(turn)], axis=1)


@dataclass(frozen=True, slots=True)
class Only:
    """One object of a label volume, as 1 where it is, read where it is needed.

    Attributes
    ----------
    labels
        Label volume (z, y, x), on a grid of its own.
    number
        Of the object.
    edges_nm
        Edges of its voxels.
    centre
        In its voxels; the same place as the centre in the grey volume.
    """

    labels: Any
    number: int
    edges_nm: Sequence[float]
    centre: Sequence[float]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the volume."""
        return tuple(self.labels.shape)

    def __getitem__(self, at: Any) -> NDArray[np.float32]:
        """A part of it."""
        return np.asarray(np.asarray(self.labels[at]) == self.number, np.float32)

    def held(self, places_nm: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether places (..., 3) in nm from the centre lie in the object."""
        return np.asarray(np.nan_to_num(sampled(self, self.edges_nm, self.centre, places_nm)) > 0.5)


def opening(
    volume: Any, edges_nm: Sequence[float], centre: Sequence[float], farthest_nm: float, inside: Only | None = None
) -> tuple[NDArray[np.float64], float]:
    """Unit vector from a pit's centre to where its dark ring is missing, in nm space, and half the opening's angle.

    The ring is as dark as the darkest voxel of a ray within reach; the mean of the rays with less than 0.4 of the usual
    darkness is the opening, where they are more than 1 %, lie together, and lead to what is nearly as bright as the
    inside; else the angle is 0 and the vector points to the palest side.
    """
    ways = directions()
    radii = np.arange(NEAREST_NM, farthest_nm, 2.0)
    places = ways[:, None, :] * radii[None, :, None]
    bare = sampled(volume, edges_nm, centre, places)
    grey = bare if inside is None else np.where(inside.held(places), bare, np.nan)
    usual = np.nanmedian(grey)
    filled = np.where(np.isfinite(grey), grey, usual)
    dark = usual - filled.min(axis=1)
    missing = dark < _DARK * np.median(dark)
    if not missing.any():
        pull = -(ways * (dark - dark.mean())[:, None]).sum(axis=0)
        return np.asarray(pull / max(float(np.linalg.norm(pull)), 1e-12)), 0.0
    pull = ways[missing].mean(axis=0)
    length, share = float(np.linalg.norm(pull)), float(missing.mean())
    ring = int(np.median(filled[~missing].argmin(axis=1))) if (~missing).any() else 0
    beyond = np.nan_to_num(bare[missing, ring + 3 : ring + 13], nan=usual).mean() if ring + 3 < len(radii) else usual
    lumen = np.nanmean(sampled(volume, edges_nm, centre, ways[:, None, :] * np.array([4.0, 8.0, 12.0])[None, :, None]))
    rim = float(np.median(filled.min(axis=1)))
    is_open = share >= _FEWEST and length >= _ONE_PLACE * (1 - share) and beyond > (lumen + rim) / 2
    return np.asarray(pull / max(length, 1e-12)), float(np.arccos(1 - 2 * share)) if is_open else 0.0


def outline(section: NDArray[np.float64], half: float, held: NDArray[np.bool_] | None = None) -> Points:
    """The dark ring of a section, followed from its bottom to both sides.

    Parameters
    ----------
    section
        Grey values on rays, shape (angles, radii): the first ray points to the bottom, angles go round once, radii are
        `NEAREST_NM` and every nm from there.
    half
        Half the angle of the opening, radians; 0: the ring is closed, and goes all round.
    held
        Same shape: where the object is; a ring outside of it (such as another cell's membrane before the opening) is
        not the pit's.

    Returns
    -------
    points
        From one end over the bottom to the other, (across, along), nm.
    """
    count = len(section)
    smooth = ndimage.gaussian_filter(section, (0.6, _BLUR_NM / _STEP_NM), mode=("wrap", "nearest"))
    ring = _followed(smooth if held is None else np.where(held, smooth, smooth.max()))
    background = np.median(smooth, axis=1)
    contrast = background - smooth[np.arange(count), ring]
    contrast = ndimage.uniform_filter1d(contrast, 3, mode="wrap")
    near = int(count / 8)
    bottom = float(np.median(np.concatenate([contrast[: near + 1], contrast[-near:]])))
    usual = float(np.median((NEAREST_NM + ring * _STEP_NM)[(np.arange(count) + count // 4) % count < count // 2]))
    dark = (contrast > _DARK * bottom) & (NEAREST_NM + ring * _STEP_NM <= _FLARE * usual)
    if held is not None:
        dark &= held[np.arange(count), ring]
    last = int((np.pi - half) / (2 * np.pi) * count)
    ends = []
    for way in (1, -1):
        n = 0
        while n <= last and dark[(way * n) % count]:
            n += 1
        ends.append(max(n - 1, 0))
    span = np.arange(-ends[1], ends[0] + 1) if half else np.arange(count)
    radii = NEAREST_NM + _parabola(smooth[span % count], ring[span % count]) * _STEP_NM
    angles = span * 2 * np.pi / count
    return np.stack([radii * np.sin(angles), -radii * np.cos(angles)], axis=1)


def _followed(grey: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the ring on each ray: the darkest way from the bottom all round to the bottom that turns gently."""
    count, depth = grey.shape
    most = int(_TURN_NM / _STEP_NM)
    order = np.concatenate([np.arange(count // 2, count), np.arange(count // 2)])  # the bottom in the middle
    cost = grey[order] - grey.min()
    total = np.full((count, depth), np.inf)
    came = np.zeros((count, depth), np.int64)
    total[0] = cost[0]
    for n in range(1, count):
        padded = np.pad(total[n - 1], most, constant_values=np.inf)
        choices = np.stack([padded[k : k + depth] for k in range(2 * most + 1)])
        best = choices.argmin(axis=0)
        came[n] = np.clip(np.arange(depth) + best - most, 0, depth - 1)
        total[n] = cost[n] + choices[best, np.arange(depth)]
    way = np.zeros(count, np.int64)
    way[-1] = int(total[-1].argmin())
    for n in range(count - 1, 0, -1):
        way[n - 1] = came[n, way[n]]
    out = np.zeros(count, np.int64)
    out[order] = way
    return out


def _parabola(grey: NDArray[np.float64], index: NDArray[np.int64]) -> NDArray[np.float64]:
    n = np.arange(len(index))
    inner = np.clip(index, 1, grey.shape[1] - 2)
    left, middle, right = grey[n, inner - 1], grey[n, inner], grey[n, inner + 1]
    bend = left - 2 * middle + right
    return np.asarray(inner + np.where(bend > 0, np.clip(0.5 * (left - right) / np.where(bend > 0, bend, 1), -1, 1), 0))


@dataclass(frozen=True, slots=True)
class Shape:
    """Numbers of one outline, nm; see `Pit`."""

    depth: float
    half_width: float
    neck: float
    major: float
    minor: float
    length: float


def shape_of(points: Points, closed: bool) -> Shape:
    """Depth, widths and ellipse of an outline whose points run from end to end (or all round)."""
    ring = np.concatenate([points, points[:1]]) if closed else points
    length = float(np.linalg.norm(np.diff(ring, axis=0), axis=1).sum())
    major, minor = _ellipse(points)
    if closed:
        centred = points - points.mean(axis=0)
        along = np.linalg.svd(centred, full_matrices=False)[2]
        extents = [float(np.ptp(centred @ way)) for way in along]
        return Shape(extents[0], extents[1], 0.0, major, minor, length)
    first, last = points[0], points[-1]
    neck = float(np.linalg.norm(last - first))
    across = (last - first) / max(neck, 1e-9)
    down = np.array([across[1], -across[0]])
    depths = (points - first) @ down
    if abs(depths.min()) > depths.max():
        depths = -depths
    deepest = int(depths.argmax())
    depth = float(depths[deepest])
    sides = [
        _crossing((points[: deepest + 1] - first) @ across, depths[: deepest + 1], depth / 2),
        _crossing(((points[deepest:] - first) @ across)[::-1], depths[deepest:][::-1], depth / 2),
    ]
    return Shape(depth, float(abs(sides[1] - sides[0])), neck, major, minor, length)


def _crossing(place: NDArray[np.float64], depth: NDArray[np.float64], level: float) -> float:
    """Where depths, which rise from an end to the bottom, last pass a level."""
    below = np.flatnonzero(depth < level)
    n = int(below[-1]) if len(below) else 0
    if n + 1 >= len(depth) or depth[n + 1] == depth[n]:
        return float(place[n])
    share = float(np.clip((level - depth[n]) / (depth[n + 1] - depth[n]), 0, 1))
    return float(place[n] + share * (place[n + 1] - place[n]))


def _ellipse(points: Points) -> tuple[float, float]:
    """Full axes of the ellipse through an outline (Fitzgibbon, Pilu & Fisher 1999); NaN where there is none."""
    if len(points) < 6:
        return float("nan"), float("nan")
    _, axes, _ = cv2.fitEllipseDirect(points.astype(np.float32)[:, None])
    return float(max(axes)), float(min(axes))


def measured(
    volume: Any,
    edges_nm: Sequence[float],
    number: int,
    centre: Sequence[float],
    extent_nm: float,
    inside: Only | None = None,
) -> tuple[Pit, NDArray[np.float64], Points]:
    """A pit or vesicle, measured in its best plane.

    Parameters
    ----------
    volume
        Grey values, dark membranes; what slices like an array (z, y, x).
    edges_nm
        Edges of its voxels.
    number
        Of its object.
    centre
        In voxels (z, y, x).
    extent_nm
        Largest extent of the object; the ring is looked for up to 0.75 of it from the centre.
    inside
        The object itself: its ring is looked for within it and a voxel around.

    Returns
    -------
    pit
        What was measured.
    picture
        The plane: 1 nm pixels, rows along the axis (the opening is up), the centre in the middle.
    points
        The outline in it, (across, along) from the centre.
    """
    farthest = float(np.clip(0.75 * extent_nm, 2 * NEAREST_NM, FARTHEST_NM))
    axis, half = opening(volume, edges_nm, centre, farthest, inside)
    closed = half == 0
    first, second = plane_axes(axis)
    angles = np.arange(_ANGLES) * 2 * np.pi / _ANGLES
    radii = np.arange(NEAREST_NM, farthest, _STEP_NM)
    best: tuple[Shape, Points, NDArray[np.float64]] | None = None
    for n in range(PLANES):
        turn = n * np.pi / PLANES
        across = np.cos(turn) * first + np.sin(turn) * second
        ways = np.sin(angles)[:, None] * across - np.cos(angles)[:, None] * axis
        grey = sampled(volume, edges_nm, centre, ways[:, None, :] * radii[None, :, None])
        grey = np.where(np.isfinite(grey), grey, np.nanmedian(grey))
        held = None
        if inside is not None:
            nearer = np.maximum(radii - float(max(inside.edges_nm)), 0)
            held = inside.held(ways[:, None, :] * nearer[None, :, None])
        points = outline(grey, half, held)
        if len(points) < 6:
            continue
        shape = shape_of(points, closed)
        if best is None or shape.length > best[0].length:
            best = shape, points, across
    z, y, x = (float(c) for c in centre)
    a0, a1, a2 = (float(a) for a in axis)
    if best is None:
        nan = float("nan")
        pit = Pit(number, (z, y, x), (a0, a1, a2), closed, nan, nan, nan, nan, nan, nan, nan)
        return pit, np.zeros((1, 1)), np.zeros((0, 2))
    shape, points, across = best
    half_picture = np.arange(-farthest, farthest + 1, _STEP_NM)
    places = half_picture[None, :, None] * across - half_picture[:, None, None] * axis
    picture = sampled(volume, edges_nm, centre, places)
    ratio = shape.major / shape.minor if shape.minor > 0 else float("nan")
    pit = Pit(
        number,
        (z, y, x),
        (a0, a1, a2),
        closed,
        shape.depth,
        shape.half_width,
        shape.neck,
        shape.major,
        shape.minor,
        ratio,
        shape.length,
    )
    return pit, picture, points
