"""Cryo-tomograms of a synapse with a known truth: vesicles among what else a cell holds, seen through a missing wedge.

The specimen is a density map: bilayer membranes of two leaflets, crowded cytosol, and in the crowded kind a plasma
membrane, a mitochondrion, a tube of endoplasmic reticulum, microtubules, endosomes and gold beads. It is projected
along a single-axis tilt series, each projection passes the lens (contrast transfer of a weak phase object, phases
flipped as a processing package does), gets noise, and the series is reconstructed by weighted back-projection
(Radermacher, in Frank, *Electron Tomography*, 2006, chapter 8). Projection and back-projection are one sparse matrix
and its transpose for each tilt, so the missing wedge is that of the tilt range and of nothing else.

Axes are (z, y, x): beam along z at zero tilt, tilt axis along y. Matter is dark. Positions are in voxels, the centre of
the first voxel is (0, 0, 0).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage, sparse
from scipy.spatial import cKDTree

Kind = Literal["ordinary", "crowded"]
Volume = NDArray[np.float32]
Rows = NDArray[np.float64]

_SIGMA_NM = 1.1
_WAVELENGTH_NM = 2.51e-3  # 200 kV
_AMPLITUDE_CONTRAST = 0.07


@dataclass(frozen=True, slots=True)
class TomogramSettings:
    """What a tomogram shows and how it was taken.

    Attributes
    ----------
    seed
        Everything follows from it.
    kind
        ``ordinary``: separate vesicles in cytosol; ``crowded``: many touching, among other organelles.
    shape
        Voxels as (z, y, x).
    voxel_nm
        Edge of a voxel.
    vesicles
        How many are tried to be placed; in a full volume fewer fit.
    diameter_nm
        Smallest and largest outer diameter.
    tilt_deg, tilt_step_deg
        The series runs from minus to plus ``tilt_deg``.
    defocus_um
        Underfocus of the series.
    snr
        Variance of the signal over that of the noise, in the reconstruction, within two voxels of a vesicle.
    diffused
        Whether the reconstruction is smoothed by edge-preserving diffusion, as such tomograms often are.
    detector_mtf
        What the camera leaves of signal and noise at Nyquist, from 0 to 1.
    leaflet_nm
        From the middle of a membrane to each of its two dark lines.
    grain
        Strength of the cytosol's protein against membranes.
    """

    seed: int = 0
    kind: Kind = "ordinary"
    shape: tuple[int, int, int] = (96, 256, 256)
    voxel_nm: float = 2.2
    vesicles: int = 230
    diameter_nm: tuple[float, float] = (40.0, 50.0)
    tilt_deg: float = 60.0
    tilt_step_deg: float = 2.0
    defocus_um: float = 8.0
    snr: float = 0.2
    diffused: bool = False
    detector_mtf: float = 0.4
    leaflet_nm: float = 1.9
    grain: float = 1.0

    @property
    def membrane_nm(self) -> float:
        """From the outside of the outer leaflet to the inside of the inner one."""
        return 2 * (self.leaflet_nm + _SIGMA_NM)

    @classmethod
    def crowded(cls, seed: int = 0, snr: float = 0.2, **changes: object) -> TomogramSettings:
        """330 vesicles of 34 to 56 nm in 96 x 320 x 320 voxels, many touching."""
        usual: dict[str, object] = {"shape": (96, 320, 320), "vesicles": 330, "diameter_nm": (34.0, 56.0)}
        return cls(seed=seed, kind="crowded", snr=snr, **(usual | changes))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Tomogram:
    """A reconstruction and its truth.

    Attributes
    ----------
    volume
        float32, (z, y, x), mean 0 and deviation 1.
    labels
        int32, same shape: number of the vesicle that a voxel belongs to, from 1, membrane included; else 0.
    centres
        Shape (n, 3) as (z, y, x) in voxels.
    radii
        Outer radii in voxels, shape (n,).
    """

    volume: Volume
    labels: NDArray[np.int32]
    centres: Rows
    radii: Rows


def simulate(settings: TomogramSettings) -> Tomogram:
    """The tomogram of these settings, the same at every call."""
    rng = np.random.default_rng(settings.seed)
    density, labels, centres, radii = specimen(settings, rng)
    matrices = _tilts(settings)
    signal = reconstruct(density, matrices, settings, rng)
    noise = reconstruct(None, matrices, settings, rng)
    near = ndimage.binary_dilation(labels > 0, iterations=2) if labels.any() else np.ones(labels.shape, bool)
    gain = math.sqrt(float(signal[near].var()) / max(settings.snr * float(noise[near].var()), 1e-30))
    volume = -(signal + np.float32(gain) * noise)
    if settings.diffused:
        volume = diffuse(volume)
    volume -= volume.mean()
    volume /= max(float(volume.std()), 1e-12)
    return Tomogram(volume, labels, centres, radii)


# ---------------------------------------------------------------------------------------------- the specimen


def bilayer(distance_nm: Volume, leaflet_nm: float = 1.9) -> Volume:
    """Density of a membrane at a signed distance from its middle: two leaflets."""
    inner, outer = distance_nm + np.float32(leaflet_nm), distance_nm - np.float32(leaflet_nm)
    width = np.float32(2 * _SIGMA_NM**2)
    return np.asarray(np.exp(-(inner**2) / width) + np.exp(-(outer**2) / width), np.float32)


def specimen(settings: TomogramSettings, rng: np.random.Generator) -> tuple[Volume, NDArray[np.int32], Rows, Rows]:
    """Density (matter positive), labels, centres and radii in voxels."""
    shape, voxel = settings.shape, settings.voxel_nm
    density = np.float32(settings.grain) * _cytosol(shape, voxel, rng)
    taken = np.zeros(shape, bool)
    if settings.kind == "crowded":
        _surroundings(density, taken, voxel, rng)
    centres, radii = _places(settings, taken, rng)
    labels = np.zeros(shape, np.int32)
    for number, (centre, radius) in enumerate(zip(centres, radii, strict=True), start=1):
        _vesicle(density, labels, number, centre, float(radius), settings, rng)
    if settings.kind == "crowded":
        _beads(density, voxel, rng)
    return density, labels, centres, radii


def _cytosol(shape: tuple[int, ...], voxel: float, rng: np.random.Generator) -> Volume:
    """Crowded protein: grains of several sizes, some of them dense."""
    out = np.zeros(shape, np.float32)
    for size_nm, weight, above in ((2.5, 0.35, 0.6), (5.0, 0.55, 1.2), (9.0, 0.35, 1.6)):
        grain = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), size_nm / 2 / voxel)
        grain /= grain.std()
        out += np.float32(weight) * np.maximum(grain - np.float32(above), 0)
    return out


def _box(centre: Rows, half: float, shape: tuple[int, ...]) -> tuple[slice, slice, slice] | None:
    low = np.maximum(np.floor(centre - half).astype(int), 0)
    high = np.minimum(np.ceil(centre + half).astype(int) + 1, shape)
    if (high <= low).any():
        return None
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return z, y, x


def _offsets(box: tuple[slice, ...], centre: Rows) -> list[Volume]:
    axes = [np.arange(s.start, s.stop, dtype=np.float32) - np.float32(c) for s, c in zip(box, centre, strict=True)]
    return list(np.meshgrid(*axes, indexing="ij", sparse=True))


def _vesicle(
    density: Volume,
    labels: NDArray[np.int32],
    number: int,
    centre: Rows,
    radius: float,
    settings: TomogramSettings,
    rng: np.random.Generator,
) -> None:
    box = _box(centre, radius * 1.25 + 3, density.shape)
    if box is None:
        return
    voxel = settings.voxel_nm
    z, y, x = _offsets(box, centre)
    # nearly a sphere: stretched by a few per cent along a random direction, its volume kept
    stretch = float(np.clip(rng.normal(0.0, 0.02), -0.05, 0.05))
    axis = rng.standard_normal(3)
    axis /= np.linalg.norm(axis)
    along = np.float32(axis[0]) * z + np.float32(axis[1]) * y + np.float32(axis[2]) * x
    distance2 = z * z + y * y + x * x
    across2 = np.maximum(distance2 - along**2, 0)
    k = 1.0 + stretch
    distance = np.sqrt(along**2 / np.float32(k**2) + across2 * np.float32(k))
    inside = distance <= radius
    middle = radius - settings.membrane_nm / 2 / voxel
    here = density[box]
    lumen = rng.uniform(0.1, 0.5) if rng.random() > 0.06 else rng.uniform(1.5, 2.5)  # a few are full
    here *= np.where(inside, np.float32(lumen), np.float32(1.0))
    here += np.float32(rng.uniform(0.8, 1.2)) * bilayer(
        (distance - np.float32(middle)) * np.float32(voxel), settings.leaflet_nm
    )
    # proteins on the membrane
    for _ in range(int(rng.poisson(5))):
        way = rng.standard_normal(3)
        at = way / np.linalg.norm(way) * (radius + rng.uniform(-1, 1.5) / voxel)
        spot2 = (z - np.float32(at[0])) ** 2 + (y - np.float32(at[1])) ** 2 + (x - np.float32(at[2])) ** 2
        here += np.float32(rng.uniform(0.5, 1.3)) * np.exp(-spot2 / np.float32(2 * (2.2 / voxel) ** 2))
    part = labels[box]
    part[inside & (part == 0)] = number


def _places(settings: TomogramSettings, taken: NDArray[np.bool_], rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Centres and radii in voxels; in the crowded kind most vesicles lean against one placed before."""
    shape = np.array(settings.shape, float)
    room = ndimage.distance_transform_edt(~taken) if taken.any() else None
    centres: list[Rows] = []
    radii: list[float] = []
    crowded = settings.kind == "crowded"
    for _ in range(settings.vesicles * 400):
        if len(centres) == settings.vesicles:
            break
        radius = rng.uniform(*settings.diameter_nm) / 2 / settings.voxel_nm
        if crowded and centres and rng.random() < 0.75:
            other = int(rng.integers(len(centres)))
            way = rng.standard_normal(3)
            gap = rng.exponential(1.2) / settings.voxel_nm
            centre = centres[other] + way / np.linalg.norm(way) * (radius + radii[other] + gap)
        else:
            centre = rng.uniform(0, 1, 3) * (shape - 1)
        margin = 0.6 * radius
        if (centre < margin).any() or (centre > shape - 1 - margin).any():
            continue
        at = tuple(np.rint(centre).astype(int))
        if room is not None and room[at] < radius + 1:
            continue
        least = 0.0 if crowded else 5.0 / settings.voxel_nm
        gaps = [float(np.linalg.norm(centre - c)) - r for c, r in zip(centres, radii, strict=True)]
        if gaps and min(gaps) < radius + least:
            continue
        centres.append(centre)
        radii.append(radius)
    return np.array(centres).reshape(-1, 3), np.array(radii)


def _surroundings(density: Volume, taken: NDArray[np.bool_], voxel: float, rng: np.random.Generator) -> None:
    """Plasma membrane, mitochondrion, reticulum, microtubules and endosomes of the crowded kind."""
    shape = np.array(density.shape)
    _plasma_membrane(density, taken, voxel, rng)
    _mitochondrion(density, taken, voxel, rng)
    for _ in range(int(rng.integers(1, 3))):
        path = _curve(shape, rng)
        _tube(density, taken, path, rng.uniform(13, 22) / voxel, voxel, lumen=0.4)
    for _ in range(int(rng.integers(2, 5))):
        start, way = rng.uniform(0, 1, 3) * shape, rng.standard_normal(3) * (0.25, 1, 1)
        line = start + np.linspace(-1.5, 1.5, 400)[:, None] * way / np.linalg.norm(way) * shape.max()
        _tube(density, taken, line, 10.0 / voxel, voxel, lumen=0.5, wall_nm=4.0)
    for _ in range(int(rng.integers(2, 5))):
        centre, radius = rng.uniform(0.05, 0.95, 3) * shape, rng.uniform(38, 75) / voxel
        _endosome(density, taken, centre, radius, voxel, rng)


def _smooth_plane(shape: tuple[int, int], rough: float, rng: np.random.Generator) -> Rows:
    field = ndimage.gaussian_filter(rng.standard_normal(shape), 40.0, mode="nearest")
    return np.asarray(rough * field / max(float(field.std()), 1e-9))


def _plasma_membrane(density: Volume, taken: NDArray[np.bool_], voxel: float, rng: np.random.Generator) -> None:
    nz, ny, nx = density.shape
    surface = nx * rng.uniform(0.05, 0.14) + _smooth_plane((nz, ny), rng.uniform(8, 26) / voxel, rng)
    x = np.arange(nx, dtype=np.float32)[None, None, :]
    distance = x - surface[:, :, None].astype(np.float32)
    density *= np.where(distance < 0, np.float32(0.35), np.float32(1.0))
    density += np.float32(1.2) * bilayer(distance * np.float32(voxel))
    # the neighbour cell's membrane across the cleft
    density += np.float32(1.1) * bilayer((distance + np.float32(20 / voxel)) * np.float32(voxel))
    taken |= distance < 3


def _mitochondrion(density: Volume, taken: NDArray[np.bool_], voxel: float, rng: np.random.Generator) -> None:
    shape = np.array(density.shape, float)
    centre = shape * (rng.uniform(0.3, 0.7), rng.uniform(0.0, 1.0), rng.uniform(0.82, 1.0))
    axes = np.array([rng.uniform(90, 130), rng.uniform(150, 240), rng.uniform(80, 120)]) / voxel
    z, y, x = _offsets((slice(0, int(shape[0])), slice(0, int(shape[1])), slice(0, int(shape[2]))), centre)
    scaled = np.sqrt((z / axes[0]) ** 2 + (y / axes[1]) ** 2 + (x / axes[2]) ** 2).astype(np.float32)
    distance = (scaled - 1) * np.float32(axes.min())  # near the surface: voxels from it
    inner = distance + np.float32(14 / voxel)
    density *= np.where(inner < 0, np.float32(1.8), np.float32(1.0))
    density += np.float32(1.1) * (bilayer(distance * np.float32(voxel)) + bilayer(inner * np.float32(voxel)))
    field = ndimage.gaussian_filter(rng.standard_normal(density.shape, dtype=np.float32), (12, 20, 9))
    sheets = np.sin(field / field.std() * np.float32(5.0)) * np.float32(9.0)  # nm from the middle of a crista, roughly
    density += np.where(inner < -2, bilayer(np.asarray(sheets, np.float32)), np.float32(0.0))
    taken |= distance < 2


def _curve(shape: NDArray[np.int64], rng: np.random.Generator) -> Rows:
    """A winding path across the volume, points about a voxel apart."""
    ends = rng.uniform(0, 1, (6, 3)) * shape
    ends = ends[np.argsort(ends[:, 1])]
    ends[0, 1], ends[-1, 1] = -10, shape[1] + 10
    t = np.linspace(0, len(ends) - 1, 900)
    fine = np.stack([np.interp(t, np.arange(len(ends)), ends[:, i]) for i in range(3)], axis=1)
    return np.asarray(ndimage.gaussian_filter1d(fine, 60, axis=0, mode="nearest"))


def _tube(
    density: Volume,
    taken: NDArray[np.bool_],
    path: Rows,
    radius: float,
    voxel: float,
    *,
    lumen: float,
    wall_nm: float = 6.0,
) -> None:
    """A tube of outer ``radius`` voxels round a path of points (n, 3)."""
    reach = radius + 4
    inside = ((path > -reach) & (path < np.array(density.shape) + reach)).all(axis=1)
    if not inside.any():
        return
    near = np.zeros(density.shape, bool)
    on_grid = np.clip(np.rint(path[inside]).astype(int), 0, np.array(density.shape) - 1)
    near[tuple(on_grid.T)] = True
    near = ndimage.distance_transform_edt(~near) < reach + 2
    voxels = np.argwhere(near)
    distance = cKDTree(path).query(voxels)[0].astype(np.float32)
    middle = np.float32(radius - wall_nm / 2 / voxel)
    at = tuple(voxels.T)
    values = density[at] * np.where(distance < radius, np.float32(lumen), np.float32(1.0))
    if wall_nm < 6.0:  # one wall of protein instead of two leaflets
        wall = np.exp(-(((distance - middle) * np.float32(voxel)) ** 2) / np.float32(2 * 1.6**2)) * np.float32(1.5)
    else:
        wall = bilayer((distance - middle) * np.float32(voxel))
    density[at] = values + wall
    taken[at] |= distance < radius + 1


def _endosome(
    density: Volume,
    taken: NDArray[np.bool_],
    centre: Rows,
    radius: float,
    voxel: float,
    rng: np.random.Generator,
) -> None:
    box = _box(centre, radius * 1.3 + 3, density.shape)
    if box is None or taken[box].mean() > 0.2:
        return
    z, y, x = _offsets(box, centre)
    a, b = rng.uniform(0.75, 1.25, 2)
    distance = np.sqrt(z * z * np.float32(a) + y * y * np.float32(b) + x * x / np.float32(a * b))
    here = density[box]
    here *= np.where(distance < radius, np.float32(rng.uniform(0.2, 0.8)), np.float32(1.0))
    here += bilayer((distance - np.float32(radius - 3.0 / voxel)) * np.float32(voxel))
    taken[box] |= distance < radius + 1


def _beads(density: Volume, voxel: float, rng: np.random.Generator) -> None:
    shape = np.array(density.shape)
    for _ in range(int(rng.integers(4, 10))):
        centre = rng.uniform(0, 1, 3) * shape
        box = _box(centre, 8 / voxel + 3, density.shape)
        if box is not None:
            z, y, x = _offsets(box, centre)
            density[box] += np.float32(9.0) / (1 + np.exp((np.sqrt(z * z + y * y + x * x) - np.float32(5 / voxel)) * 3))


# ---------------------------------------------------------------------------------------------- the tilt series


def _tilts(settings: TomogramSettings) -> list[sparse.csr_matrix]:
    """For each tilt the matrix from an (x, z) plane, flattened, to a line on the detector."""
    nz, _, nx = settings.shape
    z, x = np.meshgrid(np.arange(nz) - (nz - 1) / 2, np.arange(nx) - (nx - 1) / 2, indexing="ij")
    width = nx + nz
    pixels = np.arange(nz * nx)
    found = []
    count = round(2 * settings.tilt_deg / settings.tilt_step_deg) + 1
    for tilt in np.radians(np.linspace(-settings.tilt_deg, settings.tilt_deg, count)):
        s = (x * math.cos(tilt) + z * math.sin(tilt) + (width - 1) / 2).ravel()
        left = np.floor(s).astype(np.int64)
        part = (s - left).astype(np.float32)
        rows, columns = np.concatenate([left, left + 1]), np.concatenate([pixels, pixels])
        found.append(
            sparse.csr_matrix(
                (np.concatenate([1 - part, part]), (rows, columns)), shape=(width, nz * nx), dtype=np.float32
            )
        )
    return found


def reconstruct(
    density: Volume | None,
    matrices: list[sparse.csr_matrix],
    settings: TomogramSettings,
    rng: np.random.Generator,
) -> Volume:
    """Weighted back-projection of the tilt series of ``density``; without one, that of white noise from ``rng``."""
    nz, ny, nx = settings.shape
    width = matrices[0].shape[0]
    long = fft.next_fast_len(2 * width, real=True)
    frequency = np.fft.rfftfreq(long)
    weight = (frequency * (0.5 + 0.5 * np.cos(2 * np.pi * frequency))).astype(np.float32)  # ramp, rolled off at Nyquist
    camera = _camera(ny, width, settings)
    lens = _lens(ny, width, settings) * camera
    plane = None
    if density is not None:
        plane = np.ascontiguousarray((density - density.mean()).transpose(0, 2, 1).reshape(nz * nx, ny))
    out = np.zeros((nz * nx, ny), np.float32)
    for matrix in matrices:
        if plane is None:
            lines = rng.standard_normal((width, ny), dtype=np.float32)
        else:
            lines = matrix @ plane
        lines = np.asarray(
            fft.irfft2(fft.rfft2(lines) * (camera if plane is None else lens), s=lines.shape), np.float32
        )
        lines = np.asarray(fft.irfft(fft.rfft(lines, long, axis=0) * weight[:, None], long, axis=0)[:width], np.float32)
        out += matrix.T @ lines
    return np.ascontiguousarray(out.reshape(nz, nx, ny).transpose(0, 2, 1))


def _lens(ny: int, width: int, settings: TomogramSettings) -> NDArray[np.float32]:
    """Contrast transfer with flipped phases on the half plane of `rfft2` of a (width, ny) projection."""
    ks = np.fft.fftfreq(width, settings.voxel_nm)[:, None]
    ky = np.fft.rfftfreq(ny, settings.voxel_nm)[None, :]
    k2 = ks**2 + ky**2
    phase = math.pi * _WAVELENGTH_NM * settings.defocus_um * 1e3 * k2
    return np.asarray(np.abs(np.sin(phase + math.asin(_AMPLITUDE_CONTRAST))), np.float32)


def _camera(ny: int, width: int, settings: TomogramSettings) -> NDArray[np.float32]:
    """What the camera passes at each frequency of `rfft2`, a Gaussian that is ``detector_mtf`` at Nyquist."""
    k2 = np.fft.fftfreq(width)[:, None] ** 2 + np.fft.rfftfreq(ny)[None, :] ** 2
    return np.asarray(np.exp(math.log(max(settings.detector_mtf, 1e-3)) * k2 / 0.25), np.float32)


def diffuse(volume: Volume, rounds: int = 8, edge: float = 1.2) -> Volume:
    """Edge-preserving diffusion (Perona & Malik, IEEE PAMI 12, 629, 1990), ``edge`` in deviations of the volume."""
    out = (volume - volume.mean()) / max(float(volume.std()), 1e-12)
    for _ in range(rounds):
        change = np.zeros_like(out)
        smooth = ndimage.gaussian_filter(out, 0.7)
        for axis in range(3):
            step = np.diff(out, axis=axis)
            flow = step * np.exp(-((np.diff(smooth, axis=axis) / np.float32(edge)) ** 2))
            first = [slice(None)] * 3
            last = [slice(None)] * 3
            first[axis], last[axis] = slice(None, -1), slice(1, None)
            change[tuple(first)] += flow
            change[tuple(last)] -= flow
        out = np.asarray(out + np.float32(0.14) * change, np.float32)
    return np.asarray(out, np.float32)
