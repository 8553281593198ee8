"""Drift of a movie: how far each frame lies from the first, by cross-correlation.

Phase information of neighbours in time, as movie programs use it (Grant & Grigorieff 2015, eLife 4, e06980): frames are
summed about each time, low-passed, correlated with the sum of all others, the peak found to a part of a pixel by a
parabola, and the whole repeated with the frames put in place.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from models.base import BadImageError, Image, as_plain

Floats = NDArray[np.float64]

_ROUNDS = 6
_SIDE = 1024  # longer side of the copy that is correlated
_FINEST_ANGSTROM = 12.0  # detail that frames of an electron per Å² still share


@dataclass(frozen=True, slots=True)
class Drift:
    """Motion of a movie.

    Parameters
    ----------
    path_angstrom
        Place (x, y) of each frame relative to the first, shape (frames, 2), in Å (pixels without pixel size).
    total_angstrom
        Length of that way, step by step.
    per_frame_angstrom
        Mean step.
    fastest_angstrom
        Longest step.
    straight_angstrom
        From the first to the last place.
    """

    path_angstrom: Floats
    total_angstrom: float
    per_frame_angstrom: float
    fastest_angstrom: float
    straight_angstrom: float


def drift(frames: Sequence[Image], pixel_size_angstrom: float | None = None) -> Drift:
    """Motion between the frames of a movie.

    Parameters
    ----------
    frames
        Two or more, each of shape (rows, columns), or one array of shape (frames, rows, columns).
    pixel_size_angstrom
        Without it all lengths are in pixels.

    Raises
    ------
    BadImageError
        With fewer than two frames, or frames of different shapes.
    """
    if len(frames) < 2:
        raise BadImageError(f"{len(frames)} frame: drift needs at least two")
    shapes = {np.shape(frame) for frame in frames}
    if len(shapes) > 1:
        raise BadImageError(f"frames of shapes {sorted(shapes)}: all must be alike")
    spectra, kx, ky = _spectra(frames, pixel_size_angstrom)
    path = np.zeros((len(spectra), 2))
    for _ in range(_ROUNDS):
        turned = spectra * np.exp(
            2j * math.pi * (kx[None] * path[:, 0, None, None] + ky[None] * path[:, 1, None, None])
        )
        total = turned.sum(axis=0)
        step = np.array([_peak((total - one) * np.conj(one), kx, ky) for one in turned])
        path -= step
        path = _smooth(path)
        if float(np.abs(step).max()) < 0.01:
            break
    path -= path[0]
    scale = pixel_size_angstrom or 1.0
    path = path * scale
    steps = np.hypot(*np.diff(path, axis=0).T)
    return Drift(
        path_angstrom=path,
        total_angstrom=float(steps.sum()),
        per_frame_angstrom=float(steps.mean()),
        fastest_angstrom=float(steps.max()),
        straight_angstrom=float(np.hypot(*path[-1])),
    )


def aligned(frames: Sequence[Image], path_px: Floats) -> NDArray[np.float32]:
    """Sum of the frames, each moved back by its place ``path_px[i]``, (x, y); what leaves comes in opposite."""
    rows, columns = frames[0].shape
    kx = np.arange(columns // 2 + 1)[None, :] / columns
    ky = fft.fftfreq(rows)[:, None]
    total = np.zeros((rows, columns // 2 + 1), np.complex128)
    for frame, (x, y) in zip(frames, path_px.tolist(), strict=True):
        turn = np.exp(2j * math.pi * ky * y) * np.exp(2j * math.pi * kx * x)
        total += fft.rfft2(as_plain(frame), workers=2) * turn
    return np.asarray(fft.irfft2(total, s=(rows, columns), workers=2), np.float32)


def _spectra(frames: Sequence[Image], pixel_size: float | None) -> tuple[NDArray[np.complex128], Floats, Floats]:
    """Low frequencies of every frame, and their frequencies in cycles per pixel (x: half-plane, y: as fftfreq)."""
    rows, columns = frames[0].shape
    finest = min(0.5, _SIDE / max(rows, columns) / 2)
    if pixel_size:
        finest = min(finest, pixel_size / _FINEST_ANGSTROM)
    last_y, last_x = max(2, int(finest * rows)), max(2, int(finest * columns))
    last_y, last_x = min(last_y, (rows - 1) // 2), min(last_x, (columns - 1) // 2)
    kept = np.concatenate([np.arange(0, last_y + 1), np.arange(-last_y, 0)])
    ky = np.broadcast_to((kept / rows)[:, None], (len(kept), last_x + 1))
    kx = np.broadcast_to((np.arange(last_x + 1) / columns)[None, :], ky.shape)
    fade = np.outer(_fade(rows), _fade(columns)).astype(np.float32)
    out = []
    for frame in frames:
        plain = as_plain(frame)
        part = fft.rfft2((plain - plain.mean()) * fade, workers=2)[kept, : last_x + 1]
        out.append(part.astype(np.complex128))
    spectra = np.stack(out)
    # the slowest waves are illumination and the mean of fixed patterns, which do not move with the specimen
    k2 = (kx / max(finest, 1e-9)) ** 2 + (ky / max(finest, 1e-9)) ** 2
    spectra *= np.exp(-2 * k2) * (k2 > (3 / (finest * min(rows, columns))) ** 2)
    # fixed patterns of the camera sit on the axes as well
    spectra *= (np.abs(ky) > 0.5 / rows) & (kx > 0.5 / columns)
    return spectra, np.asarray(kx, np.float64), np.asarray(ky, np.float64)


def _fade(n: int) -> Floats:
    at = np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5
    return np.asarray(0.5 - 0.5 * np.cos(math.pi * np.clip(at / (0.1 * n), 0, 1)), dtype=np.float64)


def _peak(cross: NDArray[np.complex128], kx: Floats, ky: Floats) -> Floats:
    """Place (x, y) of the highest correlation in pixels, by a parabola through it and its neighbours."""
    rows, columns = cross.shape[0], 2 * (cross.shape[1] - 1)
    # two points of the map for each of the finest waves
    padded = np.zeros((2 * rows, columns + 1), np.complex128)
    half = (rows + 1) // 2
    padded[:half, : cross.shape[1]] = cross[:half]
    padded[half - rows :, : cross.shape[1]] = cross[half:]
    size = (2 * rows, 2 * columns)
    table = fft.irfft2(padded, s=size, workers=1)
    y, x = np.unravel_index(int(np.argmax(table)), table.shape)
    place = []
    for at, line, step in (
        (int(x), table[y], 1 / (kx[0, 1] * size[1])),
        (int(y), table[:, x], 1 / (ky[1, 0] * size[0])),
    ):
        n = len(line)
        before, here, after = line[(at - 1) % n], line[at], line[(at + 1) % n]
        bend = before - 2 * here + after
        part = 0.5 * (before - after) / bend if bend < 0 else 0.0
        place.append(((at + part + n / 2) % n - n / 2) * step)
    return np.array(place)


def _smooth(path: Floats) -> Floats:
    """The path by least squares with a price on bends: a specimen does not jump from frame to frame and back."""
    n = len(path)
    if n < 4:
        return path
    bend = np.diff(np.eye(n), 2, axis=0)
    return np.asarray(np.linalg.solve(np.eye(n) + 0.5 * bend.T @ bend, path), dtype=np.float64)
