"""Holes one by one: the radius that the average hole shows, and what stands at each site of the lattice."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.holes.lattice import LatticeFit
from models.holes.prepare import Working
from models.holes.template import match, peaks

Points = NDArray[np.float64]

_SHARP_RADIUS = 9.0  # the frame is reduced until holes have this radius
_REACH = 0.25  # of the pitch: how far from its site a hole is looked for


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
    """

    x: float
    y: float
    correlation: float
    inferred: bool
    index: tuple[int, int] | None


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
    values, seen, k = work.shrunk(min(1.0, 20.0 / radius))
    half = int(np.ceil(1.6 * radius * k)) + 1
    size = (2 * half + 1, 2 * half + 1)
    stack = []
    for x, y in (points[:80] + 0.5) * k - 0.5:
        if half <= x < values.shape[1] - half and half <= y < values.shape[0] - half:
            patch = cv2.getRectSubPix(values, size, (float(x), float(y)))
            stack.append((patch - patch.mean()) / max(float(patch.std()), 1e-6))
    if not stack:
        x, y = (points[0] + 0.5) * k - 0.5
        padded = cv2.copyMakeBorder(values, half, half, half, half, cv2.BORDER_REPLICATE)
        stack = [cv2.getRectSubPix(padded, size, (float(x) + half, float(y) + half))]
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


def response_at(work: Working, radius: float, sign: int) -> tuple[NDArray[np.float32], float]:
    """Correlation with holes of ``radius``, and its scale in its own pixels per working pixel."""
    values, seen, k = work.shrunk(min(1.0, _SHARP_RADIUS / radius))
    return (sign * match(values, seen, radius * k).correlation).astype(np.float32), k


def foil(work: Working, pitch: float) -> NDArray[np.bool_]:
    """Where foil is: true everywhere unless a grid bar darkens part of the frame."""
    blurred = cv2.GaussianBlur(work.values, (0, 0), max(1.0, 0.5 * pitch))
    weight = cv2.GaussianBlur(work.seen, (0, 0), max(1.0, 0.5 * pitch))
    mean = blurred / np.maximum(weight, 1e-3)
    counted = mean[work.seen > 0]
    low, high = float(counted.min()), float(np.percentile(counted, 99))
    if not high > low:
        return work.seen > 0
    byte = np.clip((mean - low) / (high - low) * 255.0, 0, 255).astype(np.uint8)
    split, _ = cv2.threshold(byte[work.seen > 0][None, :], 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    inside = byte > split
    dark, bright = byte[~inside & (work.seen > 0)], byte[inside & (work.seen > 0)]
    if len(dark) == 0 or len(bright) == 0:
        return work.seen > 0
    gap = (float(bright.mean()) - float(dark.mean())) / (0.5 * float(bright.std() + dark.std()) + 1e-6)
    share = len(dark) / counted.size
    if gap < 4.0 or share < 0.02:
        return np.asarray(weight > 0.3)
    return np.asarray(inside & (weight > 0.3))


def lattice_sites(work: Working, fit: LatticeFit, radius: float, sign: int, least: float) -> list[Site]:
    """Hole at each lattice site in the frame: measured where the template answers, inferred elsewhere on foil."""
    response, k = response_at(work, radius, sign)
    rows, columns = work.values.shape
    on_foil = foil(work, fit.pitch)
    reach = max(1.0, _REACH * fit.pitch * k)
    points, heights = peaks(response, least, max(1.0, 0.5 * radius * k))
    points = (points + 0.5) / k - 0.5
    corners = np.array([[0, 0], [columns, 0], [0, rows], [columns, rows]], float)
    units = np.linalg.solve(fit.basis, (corners - fit.origin).T).T
    low, high = np.floor(units.min(axis=0)).astype(int), np.ceil(units.max(axis=0)).astype(int)
    i, j = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1), indexing="ij")
    index = np.stack([i.ravel(), j.ravel()], axis=1)
    place = fit.origin + index @ fit.basis.T
    margin = 0.25 * radius
    inside = (
        (place[:, 0] > -margin)
        & (place[:, 0] < columns - 1 + margin)
        & (place[:, 1] > -margin)
        & (place[:, 1] < rows - 1 + margin)
    )
    sites: list[Site] = []
    for (a, b), at in zip(index[inside], place[inside], strict=True):
        gap = np.hypot(*(points - at).T) if len(points) else np.array([np.inf])
        near = np.flatnonzero(gap <= reach / k)
        x, y = int(np.clip(round(at[0]), 0, columns - 1)), int(np.clip(round(at[1]), 0, rows - 1))
        if len(near):
            best = near[int(np.argmax(heights[near] - 0.3 * gap[near] * k / reach))]
            sites.append(
                Site(
                    float(points[best, 0]),
                    float(points[best, 1]),
                    float(heights[best]),
                    False,
                    (int(a), int(b)),
                )
            )
        elif on_foil[y, x] and 0 <= at[0] <= columns - 1 and 0 <= at[1] <= rows - 1:
            row = int(np.clip(round((at[1] + 0.5) * k - 0.5), 0, response.shape[0] - 1))
            column = int(np.clip(round((at[0] + 0.5) * k - 0.5), 0, response.shape[1] - 1))
            sites.append(
                Site(float(at[0]), float(at[1]), float(response[row, column]), True, (int(a), int(b)))
            )
    return sites
