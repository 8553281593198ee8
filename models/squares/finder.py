"""The classical square finder: mixture, polygons, mesh and summary statistics in one call."""

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from models.base import Image, as_plain, source_fingerprint
from models.detections import SquareDetection, SquareFinding
from models.squares.faint import with_faint
from models.squares.located import Located
from models.squares.mesh import Mesh, build_mesh
from models.squares.polygons import Blob, blobs_of, grown
from models.squares.scoring import Judgement, judge
from models.squares.segmentation import SMALLEST_PX, Working, open_mesh, prepare

_MOST = 6000  # regions; a grid has some 1500 openings
_SHAPE = 0.68  # share of its box that a lone region must fill to pass for a square
_RIM = 0.13  # of a square's side: how wide its soft rim may be
_LEAST_INNER = 9  # pixels


class MixtureSquareFinder:
    """Finds squares without training: Poisson mixture, convex polygons, common mesh (Kim et al. 2023, Baseline).

    The same image gives the same answer, whatever its offset, gain or number type.
    """

    @property
    def name(self) -> str:
        """Name as configs and records show it."""
        return "squares-mixture"

    @property
    def fingerprint(self) -> str:
        """Hash of the code: there are no weights and no settings."""
        return source_fingerprint("models.squares", "models.holes")

    def find(self, image: Image, pixel_size_angstrom: float | None = None) -> SquareFinding:
        """Squares of ``image`` (rows, columns); none, with the reason in ``note``, where there are none.

        Parameters
        ----------
        image
            Low-mag frame or whole atlas, any real dtype, shape (rows, columns).
        pixel_size_angstrom
            Not needed: the scale is found in the image.

        Raises
        ------
        BadImageError
            When the array is no image at all (see ``models.base.as_plain``).
        """
        located = locate(image)
        if isinstance(located, SquareFinding):
            return located
        return finding(located, judge(located))


def locate(image: Image) -> Located | SquareFinding:
    """The openings of ``image`` before they are judged; a finding without squares, and why, where there are none."""
    work = prepare(as_plain(image))
    if work is None:
        return SquareFinding(squares=(), note="image is constant: no squares")
    mask, _ = open_mesh(work)
    n, found = cv2.connectedComponents(mask, connectivity=4, ltype=cv2.CV_32S)
    labels = np.asarray(found, np.int32)
    blobs = blobs_of(labels, n, SMALLEST_PX * max(work.scale, 1.0) ** 2)
    if not blobs:
        return SquareFinding(squares=(), note="no open region of at least a few pixels: no squares")
    if len(blobs) > _MOST:
        return SquareFinding(squares=(), note=f"{len(blobs)} open regions, as in noise: no squares")
    mesh = build_mesh(blobs, np.array([not _cut(b, work) for b in blobs]))
    reason = _why_none(mesh, work)
    if reason:
        return SquareFinding(squares=(), note=reason)
    return _with_pixels(*with_faint(mesh, work, labels, n), work)


def _cut(blob: Blob, work: Working) -> bool:
    rows, columns = work.values.shape
    low, high = blob.hull.min(axis=0), blob.hull.max(axis=0)
    margin = max(1.0, work.scale / 2)
    return bool(min(low) < margin or high[0] > columns - 1 - margin or high[1] > rows - 1 - margin)


def _why_none(mesh: Mesh, work: Working) -> str:
    """Why the regions are no squares; empty when they are."""
    whole = [b for b in mesh.squares if b.area >= 0.5 * mesh.nominal_area and not _cut(b, work)]
    if not whole:
        return "no whole opening in the frame: no squares"
    fill = float(np.median([b.rectangularity(mesh.angle_deg) for b in whole]))
    if fill < _SHAPE:
        return f"regions fill {fill:.0%} of their boxes (squares fill over {_SHAPE:.0%}): no squares"
    if mesh.lattice is None and len(mesh.squares) > 12:
        return f"{len(mesh.squares)} regions stand on no lattice: no squares"
    return ""


def _well_inside(
    taken: NDArray[np.bool_], of_pixel: NDArray[np.int64], n: int, nominal_area: float
) -> NDArray[np.bool_]:
    """Pixels of the squares without their soft rims; of squares too small for that, all pixels."""
    depth = cv2.distanceTransform(taken.astype(np.uint8), cv2.DIST_L2, 3)
    inner = taken & (depth > _RIM * np.sqrt(nominal_area))
    few = np.bincount(of_pixel[inner], minlength=n)[:n] < _LEAST_INNER
    return np.asarray(inner | (taken & few[of_pixel]))


def _with_pixels(mesh: Mesh, labels: NDArray[np.int32], n: int, work: Working) -> Located:
    owner = np.full(n, -1, np.int64)
    for k, blob in enumerate(mesh.squares):
        owner[list(blob.labels)] = k
    of_pixel = owner[labels]
    taken = _well_inside(of_pixel >= 0, of_pixel, len(mesh.squares), mesh.nominal_area)
    order = np.argsort(of_pixel[taken], kind="stable")
    start = np.searchsorted(of_pixel[taken][order], np.arange(len(mesh.squares) + 1))
    values = work.values[taken][order]
    pixels = [values[a:b] for a, b in pairwise(start)]
    return Located(mesh, work, pixels, np.array([_cut(b, work) for b in mesh.squares]))


def finding(located: Located, judgements: list[Judgement]) -> SquareFinding:
    """Openings and what they are worth as a finding in image pixels, best first."""
    mesh, work = located.mesh, located.work
    squares = []
    for blob, (score, label, features), cut in zip(mesh.squares, judgements, located.cut, strict=True):
        x, y = work.to_image(blob.box_centre(mesh.angle_deg)[None, :])[0]
        outline = work.to_image(grown(blob.hull))
        squares.append(
            SquareDetection(
                x=float(x),
                y=float(y),
                vertices=tuple((u, v) for u, v in outline.tolist()),
                score=score,
                area_px=blob.area / work.scale**2,
                label=label,
                touches_edge=bool(cut),
                features={k: round(v, 6) for k, v in features.items()},
            )
        )
    squares.sort(key=lambda s: (-s.score, s.y, s.x))
    lattice = mesh.lattice
    angle = mesh.angle_deg
    if lattice is not None and lattice.symmetry() == "hexagonal":
        angle = float(np.degrees(np.arctan2(lattice.a[1], lattice.a[0])) % 60.0)
    return SquareFinding(
        squares=tuple(squares),
        angle_deg=angle,
        pitch_px=lattice.pitch / work.scale if lattice is not None else None,
        note="" if lattice is not None else "too few squares for a lattice",
    )
