"""Measures of organelles against shapes whose numbers are known: balls, tori, pits, pores, clouds of points."""

import numpy as np
import pytest
from scipy import stats

from models.organelles import pits, pores
from models.organelles.blocks import blocks
from models.organelles.envelope import envelope, freed
from models.organelles.surface import areas, contacts, crossing_areas, reach

UNIT = (1.0, 1.0, 1.0)
Axis = tuple[float, float, float]


def places(shape: tuple[int, int, int], edges: Axis, off: Axis = (0.3, 0.2, 0.4)) -> list[np.ndarray]:
    axes = [(np.arange(n) - n // 2) * e - o for n, e, o in zip(shape, edges, off, strict=True)]
    return np.meshgrid(*axes, indexing="ij")


def whole(labels: np.ndarray, edges: Axis = UNIT) -> dict[int, float]:
    z, y, x = labels.shape
    return areas(labels, (slice(0, z), slice(0, y), slice(0, x)), edges)


@pytest.mark.parametrize("edges", [UNIT, (1.31, 1.0, 1.0)])
@pytest.mark.parametrize("radius", [8.0, 20.0])
def test_the_surface_of_a_ball_is_within_one_per_cent(radius: float, edges: Axis) -> None:
    z, y, x = places((54, 54, 54), edges)
    ball = (z**2 + y**2 + x**2 <= radius**2).astype(int)
    assert whole(ball, edges)[1] == pytest.approx(4 * np.pi * radius**2, rel=0.01)


def test_the_surface_of_a_torus_is_within_two_per_cent() -> None:
    z, y, x = places((40, 70, 70), UNIT)
    torus = ((np.hypot(y, x) - 20) ** 2 + z**2 <= 9**2).astype(int)
    assert whole(torus)[1] == pytest.approx(4 * np.pi**2 * 20 * 9, rel=0.02)


def test_weights_of_the_directions_make_a_mean_over_the_sphere() -> None:
    steps = np.linalg.norm([[1, 0, 0], [1, 1, 0], [1, 1, 1]], axis=1)
    found = sorted(set(np.round(crossing_areas(UNIT), 9)), reverse=True)
    # Legland, Kieu & Devaux 2007: shares of the 13 directions, each both ways
    published = np.array([0.04577789120476, 0.03698062787608, 0.03519563978232]) * 2
    assert found == pytest.approx(sorted(2 * published / steps, reverse=True), abs=1e-6)


def test_blocks_add_up_to_the_whole() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (13, 17, 11))
    total: dict[int, float] = {}
    for low, high in blocks(labels.shape, (5, 8, 11)):
        wide = [slice(max(0, a - 1), min(n, b + 1)) for a, b, n in zip(low, high, labels.shape, strict=True)]
        inner = tuple(slice(a - w.start, b - w.start) for a, b, w in zip(low, high, wide, strict=True))
        for name, area in areas(labels[tuple(wide)], inner, UNIT).items():
            total[name] = total.get(name, 0.0) + area
    assert total == pytest.approx(whole(labels))


@pytest.mark.parametrize("within", [6.0, 9.0, 14.0])
def test_the_contact_of_a_ball_with_a_plane_is_a_cap(within: float) -> None:
    z, y, x = places((70, 70, 70), UNIT)
    ball = (z**2 + y**2 + x**2 <= 22.3**2).astype(int)
    plane = np.zeros(ball.shape, int)
    plane[:10] = 5  # up to z -25.8 from the centre
    gap = 25.8 - 22.3
    found = contacts(ball, plane, (slice(0, 70), slice(0, 70), slice(0, 70)), UNIT, within)
    assert list(found) == [(1, 5)]
    assert found[(1, 5)].area == pytest.approx(2 * np.pi * 22.3 * (within - gap), abs=2 * np.pi * 22.3 * 0.6)
    assert found[(1, 5)].gap == pytest.approx(gap, abs=0.6)


def test_contacts_of_blocks_add_up_and_far_objects_have_none() -> None:
    rng = np.random.default_rng(2)
    one = np.where(rng.random((24, 20, 22)) < 0.02, rng.integers(1, 4, (24, 20, 22)), 0)
    other = np.where(rng.random((24, 20, 22)) < 0.01, 9, 0) * (one == 0)
    at = (slice(0, 24), slice(0, 20), slice(0, 22))
    expected = contacts(one, other, at, UNIT, 2.5)
    halo, total, gaps = reach(UNIT, 2.5), {}, {}
    for low, high in blocks(one.shape, (10, 9, 8)):
        wide = tuple(slice(max(0, a - h), min(n, b + h)) for a, b, h, n in zip(low, high, halo, one.shape, strict=True))
        inner = tuple(slice(a - w.start, b - w.start) for a, b, w in zip(low, high, wide, strict=True))
        for pair, c in contacts(one[wide], other[wide], inner, UNIT, 2.5).items():
            total[pair] = total.get(pair, 0.0) + c.area
            gaps[pair] = min(gaps.get(pair, np.inf), c.gap)
    assert total == pytest.approx({pair: c.area for pair, c in expected.items()})
    assert gaps == pytest.approx({pair: c.gap for pair, c in expected.items()})
    assert contacts(one, np.zeros_like(one), at, UNIT, 2.5) == {}


# ---------------------------------------------------------------------------------------------- envelope and pores


def on_a_ball(count: int, radius: float, jitter: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    ways = pits.directions(count)
    turned = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    ways = ways @ turned
    return radius * ways + np.random.default_rng(seed).normal(0, jitter, (count, 3)), ways


def test_normals_of_a_cloud_on_a_ball_point_outwards_or_inwards() -> None:
    points, ways = on_a_ball(300, 2000.0, 0.0)
    surface = envelope(points)
    assert surface.areas.sum() == pytest.approx(4 * np.pi * 2000**2, rel=0.05)
    assert np.abs((surface.normals_at(points) * ways).sum(axis=1)).min() > np.cos(np.radians(6))


def test_jitter_across_the_surface_is_taken_away() -> None:
    points, ways = on_a_ball(600, 2000.0, 50.0)
    turns = [np.abs((envelope(p).normals_at(p) * ways).sum(axis=1)).clip(0, 1) for p in (points, freed(points))]
    bare, free = (float(np.degrees(np.arccos(np.median(t)))) for t in turns)
    assert free < 0.8 * bare
    assert free < 7


def test_a_flat_sheet_has_one_normal_and_few_points_have_what_they_can() -> None:
    rng = np.random.default_rng(0)
    sheet = np.stack([np.full(40, 7.0), *rng.uniform(0, 900, (2, 40))], axis=1)
    assert np.abs(envelope(sheet).normals_at(sheet)[:, 0]) == pytest.approx(1)
    three = np.array([[0.0, 0, 0], [0, 100, 0], [0, 0, 100]])
    assert np.abs(envelope(three, 200.0).normals_at(three)[:, 0]) == pytest.approx(1)
    assert np.isnan(envelope(three[:2]).normals_at(three[:2])).all()
    line = np.outer(np.arange(6.0), [1, 2, 3])
    assert np.isnan(envelope(line, 100.0).normals_at(line)).all()


def pore(diameter: float, normal: np.ndarray, edge: float = 4.0, noise: float = 0.0) -> np.ndarray:
    """A double envelope whose membranes turn into each other around a hole."""
    z, y, x = places((64, 64, 64), (edge,) * 3, (1.3, 0.4, -0.7))
    up = z * normal[0] + y * normal[1] + x * normal[2]
    across = np.sqrt(np.maximum(z**2 + y**2 + x**2 - up**2, 0))
    half = 15.0
    gap = np.where(across < diameter / 2 + half, np.hypot(up, across - diameter / 2 - half), np.abs(up)) - half
    grey = 180 - 90 * np.exp(-((gap / 5) ** 2))
    return grey + np.random.default_rng(0).normal(0, noise, grey.shape)


@pytest.mark.parametrize("diameter", [64.0, 92.0, 120.0])
@pytest.mark.parametrize("normal", [(1.0, 0.0, 0.0), (0.5, -0.6, 0.8)])
def test_the_diameter_of_a_drawn_pore_is_found(diameter: float, normal: Axis) -> None:
    way = np.array(normal) / np.linalg.norm(normal)
    volume = pore(diameter, way, noise=12.0)
    centre = np.array([32 + 1.3 / 4, 32 + 0.4 / 4, 32 - 0.7 / 4])
    beside = 6.0 * pores.plane_axes(way)[0] / 4  # the centre of an object is not that of its ring
    found, _ = pores.measured(volume, (4.0,) * 3, 3, centre + beside, way, "envelope")
    assert found.diameter_nm == pytest.approx(diameter, abs=3.0)
    assert found.lines == pores.LINES
    assert found.spread_nm < 6


def test_a_pore_that_is_cut_off_or_not_there_has_no_diameter() -> None:
    way = np.array([1.0, 0, 0])
    volume = pore(92.0, way)[:, :, 32:]
    centre = np.array([32.0, 32.0, 0.0])
    assert np.isnan(pores.measured(volume, (4.0,) * 3, 1, centre, way, "object")[0].diameter_nm)


def test_the_surface_of_a_mask_tells_the_normal() -> None:
    z, y, x = places((60, 60, 60), (8.0,) * 3)
    mask = z**2 + y**2 + x**2 < 200**2
    way = np.array([0.6, -0.48, 0.64])
    centre = 30 + 200 * way / 8
    assert pores.mask_normal(mask, (8.0,) * 3, centre) @ way > np.cos(np.radians(5))
    assert np.isnan(pores.mask_normal(mask, (8.0,) * 3, [30, 30, 30])).all()


def test_the_short_axis_of_an_ellipsoid_is_its_own() -> None:
    z, y, x = places((50, 50, 50), (2.0,) * 3)
    inside = (z / 40) ** 2 + (y / 12) ** 2 + (x / 30) ** 2 <= 1
    way, length = pores.short_axis(np.argwhere(inside) * 2.0)
    assert abs(way[1]) == pytest.approx(1, abs=0.01)
    assert length == pytest.approx(24, rel=0.03)


def test_the_tests_of_a_distribution_tell_one_size_from_many() -> None:
    rng = np.random.default_rng(4)
    one = pores.distribution(rng.normal(92, 6, 200).tolist())
    many = pores.distribution(rng.normal(92, 12, 200).tolist())
    assert one.one_size_p > 0.05
    assert many.one_size_p < 0.01
    assert one.count == 200
    assert (one.low, one.high) == pytest.approx((92 - 1.2816 * 6, 92 + 1.2816 * 6), abs=1.5)
    skewed = pores.distribution(rng.gamma(2, 10, 200).tolist())
    assert skewed.normal_p < 1e-4
    few = pores.distribution([90.0, float("nan")])
    assert (few.count, few.median) == (1, 90.0)


def test_the_chance_of_one_size_is_evenly_spread_where_it_is_true() -> None:
    rng = np.random.default_rng(5)
    chances = [pores.distribution(rng.normal(80, 6, 40).tolist(), trials=300).one_size_p for _ in range(60)]
    assert stats.kstest(chances, "uniform").pvalue > 0.01


# ---------------------------------------------------------------------------------------------- pits


def pit(radius: float, rise: float, axis: Axis, noise: float = 0.0) -> tuple[np.ndarray, list[float]]:
    """A dark coat: the part of a sphere below a plane ``rise`` above its centre, and the plane around it."""
    way = np.array(axis) / np.linalg.norm(axis)
    z, y, x = places((80, 80, 80), (3.0,) * 3)
    along = z * way[0] + y * way[1] + x * way[2]
    across = np.sqrt(np.maximum(z**2 + y**2 + x**2 - along**2, 0))
    rim = np.sqrt(max(radius**2 - rise**2, 0.0))
    shell = np.where(along <= rise, np.abs(np.hypot(along, across) - radius), 1e3)
    plane = np.where(across >= rim, np.abs(along - rise), np.hypot(along - rise, across - rim))
    far = np.minimum(shell, plane) if rise < radius else shell
    grey = 200 - 120 * np.exp(-((far / 6) ** 2))
    return grey + np.random.default_rng(0).normal(0, noise, grey.shape), [40 + o / 3 for o in (0.3, 0.2, 0.4)]


@pytest.mark.parametrize(
    ("radius", "rise", "axis"),
    [(50.0, 0.0, (0, 0, 1)), (50.0, 25.0, (0, 1, 1)), (45.0, 30.0, (1, -2, 3)), (50.0, 40.0, (-1, 2, 0))],
)
def test_depth_widths_and_neck_of_a_drawn_pit(radius: float, rise: float, axis: Axis) -> None:
    volume, centre = pit(radius, rise, axis, noise=10.0)
    found, picture, points = pits.measured(volume, (3.0,) * 3, 1, centre, 2 * radius + 20)
    assert not found.closed
    assert np.array(found.axis) @ np.array(axis) / np.linalg.norm(axis) > np.cos(np.radians(8))
    depth = radius + rise
    middle = rise - depth / 2
    assert found.depth_nm == pytest.approx(depth, abs=6)
    assert found.half_width_nm == pytest.approx(2 * np.sqrt(radius**2 - middle**2), abs=5)
    # the dark rim is one membrane thick: a narrow neck comes out that much smaller
    neck = 2 * np.sqrt(radius**2 - rise**2)
    assert neck - 15 < found.neck_nm < neck + 8
    assert found.major_nm == pytest.approx(2 * radius, rel=0.12)
    assert 1 <= found.eccentricity < 1.15
    assert picture.ndim == 2
    assert len(points) > 20


def test_a_vesicle_is_closed_and_has_no_neck() -> None:
    volume, centre = pit(40.0, 60.0, (0, 0, 1), noise=10.0)
    found, _, _ = pits.measured(volume, (3.0,) * 3, 1, centre, 100.0)
    assert found.closed
    assert found.neck_nm == 0
    assert (found.depth_nm, found.minor_nm) == pytest.approx((80, 80), abs=4)


def test_an_outline_of_known_shape_gives_its_numbers() -> None:
    angles = np.radians(np.linspace(-120, 120, 200))
    points = np.stack([40 * np.sin(angles), -60 * np.cos(angles)], axis=1)
    shape = pits.shape_of(points, False)
    assert shape.neck == pytest.approx(80 * np.sin(np.radians(120)))
    assert shape.depth == pytest.approx(60 + 30, abs=0.01)
    assert shape.half_width == pytest.approx(80 * np.sqrt(1 - (15 / 60) ** 2), abs=0.2)
    assert (shape.major, shape.minor) == pytest.approx((120, 80), abs=0.5)


def test_directions_are_spread_evenly() -> None:
    ways = pits.directions()
    assert np.linalg.norm(ways, axis=1) == pytest.approx(1)
    assert np.abs(ways.mean(axis=0)).max() < 0.01
    assert ways.T @ ways / len(ways) == pytest.approx(np.eye(3) / 3, abs=0.01)
