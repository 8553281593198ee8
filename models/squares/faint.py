"""Squares too thick for the mask: a glow at a place of the mesh where a square is missing.

Ice lets a hundredth of the light through before it lets none through. Such a square is lost to every threshold on the
frame, but its place is known from its neighbours, and there a faint spot that is brighter than the bars about it is
enough. It is followed outwards from squares that are seen, step by step, as ice thickens.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from models.holes.anchors import Anchors
from models.holes.lattice import LatticeFit
from models.squares.mesh import LEAST, Mesh
from models.squares.polygons import Blob
from models.squares.segmentation import Working

Points = NDArray[np.float64]

_STEP = 0.1  # of the usual height of a square: what a glow must show
_SURE = 5.0  # standard errors that it must show
_HALF = 0.42  # of the way from the bars to the middle of the glow: where its edge is
_CELL = 0.46  # of a mesh cell, from its middle: where a square may be
_OFF = 0.22  # of the pitch: how far from its place the middle of a glow may lie
_NEAR = 2  # of the eight squares about it that must be there
_ROUNDS = 6
_SHAPE = 0.55  # of its convex outline that a glow fills


def with_faint(mesh: Mesh, work: Working, labels: NDArray[np.int32], n: int) -> tuple[Mesh, NDArray[np.int32], int]:
    """The mesh with its faint squares, and the label image with theirs.

    Parameters
    ----------
    mesh, work
        Squares that the mask shows, and the frame.
    labels, n
        Label image of the mask, shape of the working copy, and the count of its labels, 0 included.
    """
    if mesh.lattice is None or len(mesh.squares) < 3:
        return mesh, labels, n
    cells = _Cells.of(mesh, mesh.lattice)
    labels, squares = labels.copy(), list(mesh.squares)
    usual = float(np.median([work.values[int(y), int(x)] for x, y in (b.centre for b in mesh.squares)]))
    least = _STEP * usual
    tried: set[tuple[int, int]] = set()
    for _ in range(_ROUNDS):
        candidates = cells.missing(work.values.shape, tried)
        fresh = False
        for index, at in candidates:
            tried.add(index)
            blob = _glow(work, labels, n, at, mesh, least)
            if blob is not None:
                squares.append(blob)
                cells.taken.add(index)
                n += 1
                fresh = True
        if not fresh:
            break
    return Mesh(squares, mesh.angle_deg, mesh.nominal_area, mesh.lattice), labels, n


class _Cells:
    """Which places of the mesh are taken, and where the others are."""

    def __init__(self, anchors: Anchors, taken: set[tuple[int, int]]) -> None:
        self.anchors, self.taken = anchors, taken

    @classmethod
    def of(cls, mesh: Mesh, fit: LatticeFit) -> "_Cells":
        centres = np.array([blob.box_centre(mesh.angle_deg) for blob in mesh.squares])
        index = np.rint((centres - fit.origin) @ np.linalg.inv(fit.basis).T).astype(np.int64)
        anchors = Anchors(centres, index, fit.basis)
        return cls(anchors, {(int(i), int(j)) for i, j in index})

    def missing(self, shape: tuple[int, ...], tried: set[tuple[int, int]]) -> list[tuple[tuple[int, int], Points]]:
        """Free places beside at least two squares, most of their cell in the frame, as index and (x, y)."""
        count: dict[tuple[int, int], int] = {}
        for i, j in self.taken:
            for di in (-1, 0, 1):
                for dj in (-1, 0, 1):
                    count[i + di, j + dj] = count.get((i + di, j + dj), 0) + 1
        free = sorted(k for k, near in count.items() if near >= _NEAR and k not in self.taken and k not in tried)
        if not free:
            return []
        places = self.anchors.place(np.array(free, np.int64))
        inside = ((places > 0) & (places < np.array(shape[::-1], float) - 1)).all(axis=1)
        return [(free[k], places[k]) for k in np.flatnonzero(inside).tolist()]


def _glow(work: Working, labels: NDArray[np.int32], number: int, at: Points, mesh: Mesh, least: float) -> Blob | None:
    """The glow at a place of the mesh, marked with ``number`` in ``labels``; None where there is none."""
    assert mesh.lattice is not None  # noqa: S101 - the caller saw it
    basis = mesh.lattice.basis
    reach = int(np.ceil(0.5 * np.abs(basis).sum(axis=1).max())) + 1
    rows, columns = work.values.shape
    top, left = max(0, round(at[1]) - reach), max(0, round(at[0]) - reach)
    bottom, right = min(rows, round(at[1]) + reach + 1), min(columns, round(at[0]) + reach + 1)
    y, x = np.mgrid[top:bottom, left:right]
    units = np.stack([x - at[0], y - at[1]], axis=-1) @ np.linalg.inv(basis).T
    away = np.abs(units).max(axis=-1)
    part, mine = work.values[top:bottom, left:right], labels[top:bottom, left:right]
    free = mine == 0
    side = np.sqrt(mesh.nominal_area)
    soft = cv2.GaussianBlur(part, (0, 0), max(0.6, 0.06 * side))
    middle = (np.hypot(x - at[0], y - at[1]) < 0.2 * side) & free
    bars = (away > _CELL) & (away < 0.56) & free
    if middle.sum() < 4 or bars.sum() < 4:
        return None
    # Light from bright neighbours spills over some of the bars: their darker half is what they are.
    dark = float(np.median(soft[bars]))
    height = float(np.median(soft[middle])) - dark
    grains = max(work.scale, 1.0) ** 2  # pixels of an enlarged copy are not independent
    noise = float(part[middle].std()) * np.sqrt(grains / middle.sum()) + float(part[bars].std()) * np.sqrt(
        grains / bars.sum()
    )
    if height < max(least, _SURE * noise):
        return None
    above = (soft > dark + _HALF * height) & (away < _CELL) & free
    _, found = cv2.connectedComponents(above.astype(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    inside = found[middle & above]
    if not len(inside):
        return None
    spot = found == np.bincount(inside).argmax()
    area = float(spot.sum())
    hull = cv2.convexHull(np.column_stack([x[spot], y[spot]]).astype(np.int32))[:, 0, :].astype(np.float64)
    blob = Blob(hull, area, (number,))
    off = float(np.hypot(*(blob.box_centre(mesh.angle_deg) - at)))
    if not LEAST * mesh.nominal_area <= area <= 1.7 * mesh.nominal_area or off > _OFF * mesh.lattice.pitch:
        return None
    if area < _SHAPE * blob.hull_area or len(hull) < 3:
        return None
    mine[spot] = number
    return blob
