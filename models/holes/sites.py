"""Holes one by one: the radius that the average hole shows, and what stands at each site of the lattice."""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from models.holes.prepare import Working
from models.holes.rim import trace_rims
from models.holes.template import match, match_rim

Points = NDArray[np.float64]

_SHARP_RADIUS = 9.0  # the frame is reduced until holes have this radius
_TRACED = 10.0  # working pixels: smallest radius of which the rim is traced
_MOST_TRACED = 150
_BAR_SHARE = 0.02  # of the frame: smallest dark part that is a grid bar
_CLEAR = 2.2  # standard deviations of both parts: how far apart bars and foil are
_BAR_HOLES = 0.3  # how frequent holes in it may be, relative to the rest


@dataclass(frozen=True, slots=True)
class Site:
    """One hole, in working pixels.

    Attributes
    ----------
    x, y
        Centre.
    correlation
        Of the template there, with the sign of the contrast taken out.
    inferred
        True when the lattice alone says that it is there.
    index
        On the lattice, or None.
    shadow
        True where a grid bar darkens the foil.
    quality
        Chance of a good micrograph, where a network says it.
    foil_px
        How far from its centre the foil reaches before a bar or torn film, working pixels.
    """

    x: float
    y: float
    correlation: float
    inferred: bool
    index: tuple[int, int] | None
    shadow: bool = False
    quality: float | None = None
    foil_px: float = math.inf


def refined_radius(work: Working, points: Points, radius: float, sign: int) -> float:
    """Radius at which the average of the holes at ``points`` has its steepest edge.

    Parameters
    ----------
    work
        Frame.
    points
        Centres, best first, shape (n, 2).
    radius
        First guess in working pixels; the answer lies between 0.75 and 1.3 times it.
    sign
        Contrast of the holes.
    """
    values, _, k = work.shrunk(min(1.0, 20.0 / radius))
    half = int(np.ceil(1.6 * radius * k)) + 1
    size = (2 * half + 1, 2 * half + 1)
    stack: list[NDArray[np.float32]] = []
    for x, y in (points[:80] + 0.5) * k - 0.5:
        if half <= x < values.shape[1] - half and half <= y < values.shape[0] - half:
            patch = np.asarray(cv2.getRectSubPix(values, size, (float(x), float(y))), np.float32)
            stack.append((patch - patch.mean()) / max(float(patch.std()), 1e-6))
    if not stack:
        x, y = (points[0] + 0.5) * k - 0.5
        padded = cv2.copyMakeBorder(values, half, half, half, half, cv2.BORDER_REPLICATE)
        stack = [np.asarray(cv2.getRectSubPix(padded, size, (float(x) + half, float(y) + half)), np.float32)]
    mean = np.mean(stack, axis=0)
    grid_y, grid_x = np.mgrid[-half : half + 1, -half : half + 1]
    r = np.hypot(grid_x, grid_y)
    edges = np.arange(0.6 * radius * k, 1.5 * radius * k, 0.25)
    soft = np.exp(-0.5 * ((r.ravel()[None, :] - edges[:, None]) / 0.5) ** 2)
    profile = soft @ mean.ravel() / np.maximum(soft.sum(axis=1), 1e-9)
    slope = -sign * np.gradient(profile)
    allowed = (edges >= 0.75 * radius * k) & (edges <= 1.3 * radius * k)
    if not allowed.any() or slope[allowed].max() <= 0:
        return radius
    return float(edges[int(np.argmax(np.where(allowed, slope, -np.inf)))] / k)


def centred(work: Working, sites: list[Site], radius: float, sign: int) -> tuple[list[Site], float]:
    """Sites moved to the circle through their rim where it is clear, and the radius that these circles share.

    Holes of a few pixels have no rim to trace and stay where the template puts them.
    """
    if radius < _TRACED or sign == 0:
        return sites, radius
    traced = [k for k, site in enumerate(sites) if not site.inferred]
    if len(traced) > _MOST_TRACED:  # many holes are small ones, which the template places as well
        return sites, radius
    rims = trace_rims(work, np.array([[sites[k].x, sites[k].y] for k in traced]).reshape(-1, 2), radius, sign)
    moved = list(sites)
    radii: list[float] = []
    for k, rim in zip(traced, rims, strict=True):
        if rim.clear:
            radii.append(rim.radius)
            moved[k] = replace(sites[k], x=float(rim.centre[0]), y=float(rim.centre[1]))
    return moved, float(np.median(radii)) if len(radii) > 0.3 * len(sites) else radius


def response_at(work: Working, radius: float, sign: int) -> tuple[NDArray[np.float32], float]:
    """Correlation with holes of ``radius``, and its scale in its own pixels per working pixel."""
    values, seen, k = work.shrunk(min(1.0, _SHARP_RADIUS / radius))
    if sign == 0:
        return match_rim(values, seen, radius * k), k
    return (sign * match(values, seen, radius * k)).astype(np.float32), k


def best_radius(work: Working, points: Points, radius: float) -> float:
    """Radius at which rims at ``points`` (n, 2) answer best, within a fifth of ``radius``; working pixels."""
    heights = []
    radii = radius * np.linspace(0.82, 1.2, 9)
    for r in radii:
        response, k = response_at(work, float(r), 0)
        at = np.rint((points + 0.5) * k - 0.5).astype(int)
        inside = ((at >= 0) & (at < np.array(response.shape[::-1]))).all(axis=1)
        heights.append(float(response[at[inside, 1], at[inside, 0]].mean()) if inside.any() else 0.0)
    return float(radii[int(np.argmax(heights))])


def foil(work: Working, pitch: float, holes: Points) -> NDArray[np.bool_]:
    """Where foil is, shape of the frame: everywhere that is seen but in bars and where the film is torn.

    A dark or bright part in which holes are as frequent as elsewhere is neither.

    Parameters
    ----------
    work
        Frame.
    pitch
        Of the lattice, working pixels.
    holes
        Centres of holes that are sure, shape (n, 2).
    """
    values, seen, k = work.shrunk(min(1.0, 6.0 / pitch))
    weight = cv2.GaussianBlur(seen, (0, 0), 3.0)
    mean = cv2.GaussianBlur(values * seen, (0, 0), 3.0) / np.maximum(weight, 1e-3)
    open_ = np.asarray(weight > 0.3)
    column, row = np.rint((holes + 0.5) * k - 0.5).astype(int).T
    at = row.clip(0, open_.shape[0] - 1), column.clip(0, open_.shape[1] - 1)
    for again in (False, True):  # bars and torn film may both be there
        bar = _bar(np.asarray(mean, np.float32), (seen * open_).astype(np.float32), at, again)
        if bar is None:
            break
        open_ = open_ & ~bar
    rows, columns = work.values.shape
    full = cv2.resize(open_.astype(np.uint8), (columns, rows), interpolation=cv2.INTER_NEAREST)
    return np.asarray(full > 0)


def _bar(
    mean: NDArray[np.float32],
    seen: NDArray[np.float32],
    holes: tuple[NDArray[np.int64], NDArray[np.int64]],
    again: bool,
) -> NDArray[np.bool_] | None:
    """The dark or the bright part of what is seen in which there are hardly any holes, or None.

    A bright part, or a second one (``again``), must stand out clearly: thick ice may darken, hardly ever brighten.
    """
    counted = mean[seen > 0]
    if counted.size < 64:
        return None
    low, high = float(counted.min()), float(np.percentile(counted, 99))
    if high <= low:
        return None
    byte = np.clip((mean - low) / (high - low) * 255.0, 0, 255).astype(np.uint8)
    split, _ = cv2.threshold(byte[seen > 0][None, :], 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))  # 1.5 pitches: a hidden hole is no bar
    below, above = counted[byte[seen > 0] <= split], counted[byte[seen > 0] > split]
    apart = float(above.mean() - below.mean()) if below.size and above.size else 0.0
    clear = apart > _CLEAR * float(below.std() + above.std())
    for part in ((byte <= split) & (seen > 0), (byte > split) & (seen > 0)):
        if not clear and (again or (part.any() and byte[part].min() > split)):
            continue
        padded = np.pad(part.astype(np.uint8), 8, mode="edge")
        bar = (cv2.morphologyEx(padded, cv2.MORPH_OPEN, disc)[8:-8, 8:-8] > 0) & (seen > 0)
        area, rest = float(bar.sum()), float((~bar & (seen > 0)).sum())
        in_bar = float(bar[holes].sum()) / max(area, 1.0)
        in_rest = float((~bar[holes]).sum()) / max(rest, 1.0)
        if area > _BAR_SHARE * counted.size and rest > _BAR_SHARE * counted.size and in_bar < _BAR_HOLES * in_rest:
            return np.asarray(bar)
    return None
