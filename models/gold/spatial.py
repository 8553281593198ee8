"""What the pattern of particles says: density, nearest neighbours, Ripley's K and L, clusters; with random controls.

All lengths in nm. The region is the whole image or a mask of it; particles outside do not count. Sources: Ripley,
J. R. Stat. Soc. B 39 (1977); translation correction of the edge: Ohser & Stoyan, Biom. J. 23 (1981); the choice of
measures: GoldExt (Sci Rep 7, 15240, 2017) and Gold In-and-Out.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, rfft2
from scipy.ndimage import map_coordinates
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]
MOST_RANDOM = 300_000  # random particles of all controls together, beyond `FEWEST_TRIALS` of them
FEWEST_TRIALS = 19
MOST_COMPARED = 50_000  # particles that controls are made for
COARSE = 512  # cells along a mask's longer side, for the overlap of the region with itself


@dataclass(frozen=True, slots=True)
class Region:
    """Where particles may lie: a rectangle of ``width_nm`` by ``height_nm`` from (0, 0), or a mask of cells in it.

    ``mask`` has shape (rows, columns), and each cell covers the same part of the rectangle.
    """

    width_nm: float
    height_nm: float
    mask: NDArray[np.bool_] | None = None

    @property
    def area_nm2(self) -> float:
        """Area of the region."""
        share = 1.0 if self.mask is None else float(self.mask.mean())
        return self.width_nm * self.height_nm * share

    def contains(self, points_nm: Floats) -> NDArray[np.bool_]:
        """Whether points (n, 2) as (x, y) lie inside."""
        x, y = points_nm[:, 0], points_nm[:, 1]
        inside = (x >= 0) & (x < self.width_nm) & (y >= 0) & (y < self.height_nm)
        if self.mask is None:
            return np.asarray(inside)
        rows, columns = self.mask.shape
        j = np.clip((y / self.height_nm * rows).astype(np.intp), 0, rows - 1)
        i = np.clip((x / self.width_nm * columns).astype(np.intp), 0, columns - 1)
        return np.asarray(inside & self.mask[j, i])

    def random(self, rng: np.random.Generator, count: int) -> Floats:
        """``count`` points spread evenly over the region, shape (count, 2)."""
        if self.mask is None:
            return rng.uniform(0, 1, (count, 2)) * (self.width_nm, self.height_nm)
        rows, columns = self.mask.shape
        cells = np.flatnonzero(self.mask)
        picked = cells[rng.integers(0, len(cells), count)]
        j, i = np.divmod(picked, columns)
        x = (i + rng.uniform(0, 1, count)) * self.width_nm / columns
        y = (j + rng.uniform(0, 1, count)) * self.height_nm / rows
        return np.stack([x, y], axis=1)

    def overlap_nm2(self, shifts_nm: Floats) -> Floats:
        """Area of the region that it shares with itself moved by each of ``shifts_nm`` (n, 2)."""
        if self.mask is None:
            free = np.maximum(0, np.array([self.width_nm, self.height_nm]) - np.abs(shifts_nm))
            return np.asarray(free[:, 0] * free[:, 1])
        step = max(1, -(-max(self.mask.shape) // COARSE))
        rows, columns = (-(-n // step) * step for n in self.mask.shape)
        whole = np.zeros((rows, columns))
        whole[: self.mask.shape[0], : self.mask.shape[1]] = self.mask
        cover = whole.reshape(rows // step, step, columns // step, step).mean(axis=(1, 3))
        size = (2 * cover.shape[0], 2 * cover.shape[1])
        spectrum = rfft2(cover, size)
        shared = irfft2(spectrum * spectrum.conj(), size)
        cell_x, cell_y = self.width_nm / self.mask.shape[1] * step, self.height_nm / self.mask.shape[0] * step
        at = np.stack([shifts_nm[:, 1] / cell_y, shifts_nm[:, 0] / cell_x])
        return np.asarray(map_coordinates(shared, at, order=1, mode="grid-wrap") * cell_x * cell_y)


def neighbours_nm(points_nm: Floats, others_nm: Floats | None = None) -> Floats:
    """Distance of each point (n, 2) to the nearest other one, or to the nearest of ``others_nm``; empty if none."""
    if others_nm is not None:
        if len(others_nm) == 0 or len(points_nm) == 0:
            return np.zeros(0)
        return np.asarray(cKDTree(others_nm).query(points_nm)[0], np.float64)
    if len(points_nm) < 2:
        return np.zeros(0)
    return np.asarray(cKDTree(points_nm).query(points_nm, k=2)[0][:, 1], np.float64)


def ripley_k(points_nm: Floats, radii_nm: Floats, region: Region, others_nm: Floats | None = None) -> Floats:
    """Ripley's K in nm² at ``radii_nm``, edges corrected by translation; with ``others_nm`` the cross-type K.

    For particles strewn at random K is pi r². NaN where there are too few particles.
    """
    cross = others_nm is not None
    targets = others_nm if others_nm is not None else points_nm
    pairs_possible = len(points_nm) * (len(targets) - (0 if cross else 1))
    if pairs_possible <= 0:
        return np.full(len(radii_nm), np.nan)
    near = cKDTree(points_nm).sparse_distance_matrix(cKDTree(targets), float(radii_nm[-1]), output_type="coo_matrix")
    keep = np.ones(len(near.row), bool) if cross else near.row != near.col
    row, column, distance = near.row[keep], near.col[keep], near.data[keep]
    weight = 1 / np.maximum(region.overlap_nm2(targets[column] - points_nm[row]), 1e-9)
    order = np.argsort(distance)
    summed = np.concatenate([[0.0], np.cumsum(weight[order])])
    upto = summed[np.searchsorted(distance[order], radii_nm, side="right")]
    return np.asarray(upto * region.area_nm2**2 / pairs_possible)


def ripley_l(k: Floats) -> Floats:
    """L = sqrt(K / pi): r for a random pattern, more where particles cluster."""
    return np.asarray(np.sqrt(np.maximum(k, 0) / np.pi))


@dataclass(frozen=True, slots=True)
class Clusters:
    """Label of each point (n,): the number of its cluster, or -1; and members, centre (x, y) and spread of each."""

    labels: NDArray[np.intp]
    members: NDArray[np.intp]
    centres_nm: Floats
    radius_nm: Floats  # root mean square distance from the centre


def clusters(points_nm: Floats, distance_nm: float, least: int = 2) -> Clusters:
    """Points linked over at most ``distance_nm`` (single linkage), in groups of at least ``least``."""
    n = len(points_nm)
    if n == 0:
        return Clusters(np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros((0, 2)), np.zeros(0))
    pairs = cKDTree(points_nm).query_pairs(distance_nm, output_type="ndarray")
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, raw = connected_components(graph, directed=False)
    members = np.bincount(raw)
    large = np.flatnonzero(members >= least)
    number = np.full(len(members), -1)
    number[large] = np.arange(len(large))
    labels = number[raw]
    centres = np.array([points_nm[labels == k].mean(axis=0) for k in range(len(large))]).reshape(-1, 2)
    radius = np.array([
        np.sqrt(((points_nm[labels == k] - centres[k]) ** 2).sum(axis=1).mean()) for k in range(len(large))
    ])  # fmt: skip
    return Clusters(labels.astype(np.intp), members[large].astype(np.intp), centres, radius)


@dataclass(frozen=True, slots=True)
class Pattern:
    """One set of particles in a region, measured.

    ``k``, ``l_minus_r`` and the envelope have the shape of ``radii_nm``; the envelope holds the middle 95 % of as many
    random patterns of the same number in the same region.
    """

    name: str
    count: int
    area_um2: float
    density_per_um2: float
    neighbours_nm: Floats
    random_neighbour_nm: float
    radii_nm: Floats
    k: Floats
    l_minus_r: Floats
    low: Floats
    high: Floats
    clusters: Clusters

    def row(self) -> dict[str, float | int | str]:
        """One row of a table."""
        shared = int(self.clusters.members.sum())
        separation = neighbours_nm(self.clusters.centres_nm)
        above = longest(self.radii_nm, self.l_minus_r > self.high)
        return {
            "group": self.name,
            "particles": self.count,
            "area_um2": round(self.area_um2, 5),
            "density_per_um2": round(self.density_per_um2, 3),
            "nnd_mean_nm": rounded(self.neighbours_nm, np.mean),
            "nnd_median_nm": rounded(self.neighbours_nm, np.median),
            "nnd_random_mean_nm": round(self.random_neighbour_nm, 2) if np.isfinite(self.random_neighbour_nm) else "",
            "clusters": len(self.clusters.members),
            "clustered_share": round(shared / self.count, 4) if self.count else "",
            "particles_per_cluster": rounded(self.clusters.members, np.mean),
            "cluster_rms_radius_nm": rounded(self.clusters.radius_nm, np.mean),
            "cluster_separation_nm": rounded(separation, np.mean),
            "largest_l_minus_r_nm": rounded(self.l_minus_r[np.isfinite(self.l_minus_r)], np.max),
            "clustered_from_nm": round(float(above[0]), 1) if len(above) else "",
            "clustered_to_nm": round(float(above[-1]), 1) if len(above) else "",
        }


def longest(radii_nm: Floats, where: NDArray[np.bool_]) -> Floats:
    """The radii of the longest stretch of them that is in ``where``, shape (n,); none where nothing is."""
    ends = np.flatnonzero(np.diff(np.concatenate([[False], where, [False]]).astype(int)))
    starts, stops = ends[::2], ends[1::2]
    if len(starts) == 0:
        return radii_nm[:0]
    best = int(np.argmax(stops - starts))
    return radii_nm[starts[best] : stops[best]]


def rounded(values: NDArray[np.number], how: object) -> float | str:
    """``how`` of ``values`` for a table; empty where there are none."""
    return round(float(how(values)), 2) if len(values) else ""  # type: ignore[operator]


def measured(
    name: str,
    points_nm: Floats,
    region: Region,
    *,
    link_nm: float = 60.0,
    least: int = 3,
    most_nm: float | None = None,
    trials: int = 99,
    seed: int = 0,
) -> Pattern:
    """The pattern of points (n, 2) that lie in the region.

    Parameters
    ----------
    name
        What the points are.
    points_nm, region
        Where they are, and where they could be.
    link_nm, least
        Particles no further apart belong to one cluster; a cluster has at least so many.
    most_nm
        Largest radius of K; a quarter of the region's shorter side, at most 500 nm, by default.
    trials, seed
        Random patterns of the control; of very many particles fewer are made, of more than 50,000 none.
    """
    inside = points_nm[region.contains(points_nm)] if len(points_nm) else points_nm.reshape(0, 2)
    radii = radii_of(region, most_nm)
    rng = np.random.default_rng(seed)
    k = ripley_k(inside, radii, region)
    curves, means = [], []
    affordable = max(FEWEST_TRIALS, MOST_RANDOM // max(1, len(inside)))
    for _ in range(min(trials, affordable) if 2 <= len(inside) <= MOST_COMPARED else 0):
        control = region.random(rng, len(inside))
        curves.append(ripley_l(ripley_k(control, radii, region)) - radii)
        means.append(float(neighbours_nm(control).mean()))
    low, high = np.quantile(curves, (0.025, 0.975), axis=0) if curves else np.full((2, len(radii)), np.nan)
    area = region.area_nm2 * 1e-6
    return Pattern(
        name=name,
        count=len(inside),
        area_um2=area,
        density_per_um2=len(inside) / area if area else 0.0,
        neighbours_nm=neighbours_nm(inside),
        random_neighbour_nm=float(np.mean(means)) if means else float("nan"),
        radii_nm=radii,
        k=k,
        l_minus_r=ripley_l(k) - radii,
        low=low,
        high=high,
        clusters=clusters(inside, link_nm, least),
    )


def radii_of(region: Region, most_nm: float | None = None) -> Floats:
    """Radii at which K is told: fifty of them, up to ``most_nm`` or what `measured` says of it."""
    reach = most_nm or min(500.0, 0.25 * min(region.width_nm, region.height_nm))
    return np.linspace(reach / 50, reach, 50)
