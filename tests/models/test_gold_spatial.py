"""Statistics of particle patterns against brute force, SciPy and what a Poisson process must give."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist

from models.gold.pairs import paired
from models.gold.spatial import Region, clusters, longest, measured, neighbours_nm, ripley_k, ripley_l

RECTANGLE = Region(2000.0, 1500.0)


def islands():
    mask = np.zeros((300, 400), bool)
    mask[50:200, 60:300] = True
    mask[:, 350:] = True
    mask[90:130, 100:160] = False
    return Region(2000.0, 1500.0, mask)


@pytest.mark.parametrize("region", [RECTANGLE, islands()], ids=["rectangle", "mask"])
def test_ripleys_k_of_a_random_pattern_is_the_area_of_the_disc(region):
    radii = np.linspace(20, 300, 15)
    curves = [ripley_k(region.random(np.random.default_rng(seed), 400), radii, region) for seed in range(12)]
    assert np.allclose(np.mean(curves, axis=0), np.pi * radii**2, rtol=0.05)


def test_k_without_edges_to_mind_is_what_brute_force_counts():
    rng = np.random.default_rng(0)
    region = Region(1e6, 1e6)  # so large that no edge matters
    points = rng.uniform(4.9e5, 5.1e5, (60, 2))
    radii = np.linspace(500, 5000, 10)
    distances = cdist(points, points)[~np.eye(60, dtype=bool)]
    wanted = [(distances <= r).sum() * region.area_nm2 / (60 * 59) for r in radii]
    assert np.allclose(ripley_k(points, radii, region), wanted, rtol=0.02)


def test_the_overlap_of_a_mask_with_itself_is_what_moving_it_gives():
    region = islands()
    mask = region.mask
    for dx, dy in ((0, 0), (25, 0), (-40, 60), (150, -300)):  # cells of 5 nm
        i, j = dx // 5, dy // 5
        moved = np.zeros_like(mask)
        source = mask[max(0, -j) : mask.shape[0] - max(0, j), max(0, -i) : mask.shape[1] - max(0, i)]
        moved[max(0, j) : mask.shape[0] + min(0, j), max(0, i) : mask.shape[1] + min(0, i)] = source
        wanted = (moved & mask).sum() * 25.0
        assert region.overlap_nm2(np.array([[dx, dy]], float))[0] == pytest.approx(wanted, rel=1e-6, abs=1)


def test_a_clustered_pattern_stands_above_its_controls_and_a_random_one_does_not():
    rng = np.random.default_rng(5)
    hubs = RECTANGLE.random(rng, 20)
    clustered = (hubs[:, None] + rng.normal(0, 20, (20, 10, 2))).reshape(-1, 2)
    found = measured("12 nm", clustered, RECTANGLE, trials=39)
    assert (found.l_minus_r > found.high)[:20].mean() > 0.9
    assert found.row()["nnd_mean_nm"] < 0.6 * found.row()["nnd_random_mean_nm"]
    random = measured("12 nm", RECTANGLE.random(rng, 200), RECTANGLE, trials=39)
    assert (random.l_minus_r > random.high).mean() < 0.3
    assert random.row()["nnd_random_mean_nm"] == pytest.approx(0.5 / np.sqrt(200 / 3e6), rel=0.1)


def test_cross_type_k_of_two_independent_patterns_is_random():
    radii = np.linspace(30, 200, 8)
    curves = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        curves.append(ripley_k(RECTANGLE.random(rng, 200), radii, RECTANGLE, RECTANGLE.random(rng, 150)))
    assert np.allclose(ripley_l(np.mean(curves, axis=0)), radii, rtol=0.06)


def test_two_kinds_that_lie_together_or_keep_apart_are_told_from_independent_ones():
    rng = np.random.default_rng(4)
    first = RECTANGLE.random(rng, 120)
    beside = first[:80] + rng.normal(0, 12, (80, 2))
    together = paired(("6 nm", "12 nm"), first, beside, RECTANGLE, trials=39)
    assert (together.l_minus_r > together.high)[:10].all()
    assert together.row()["together_from_nm"] == round(float(together.radii_nm[0]), 1)
    far = RECTANGLE.random(rng, 4000)
    far = far[cdist(far, first).min(axis=1) > 45][:80]
    apart = paired(("6 nm", "12 nm"), first, far, RECTANGLE, trials=39)
    assert (apart.l_minus_r < apart.low)[2:5].all()
    assert apart.row()["nnd_mean_nm"] > apart.row()["nnd_random_mean_nm"] > together.row()["nnd_mean_nm"]
    free = paired(("6 nm", "12 nm"), first, RECTANGLE.random(rng, 80), RECTANGLE, trials=39)
    assert ((free.l_minus_r > free.high) | (free.l_minus_r < free.low)).mean() < 0.3
    assert np.allclose(free.neighbours_nm.size, 120)


def test_the_longest_stretch_of_radii_is_told():
    radii = np.arange(10.0)
    where = np.array([0, 1, 1, 0, 0, 1, 1, 1, 0, 1], bool)
    assert longest(radii, where).tolist() == [5, 6, 7]
    assert longest(radii, ~where & where).size == 0
    assert longest(radii, where | ~where).size == 10


def test_a_kind_that_is_not_there_makes_a_pair_without_figures():
    row = paired(("6 nm", "12 nm"), RECTANGLE.random(np.random.default_rng(0), 5), np.zeros((0, 2)), RECTANGLE).row()
    assert (row["particles"], row["others"], row["nnd_mean_nm"], row["together_from_nm"]) == (5, 0, "", "")


def test_nearest_neighbours_are_those_of_the_full_distance_table():
    points = RECTANGLE.random(np.random.default_rng(1), 150)
    table = cdist(points, points)
    np.fill_diagonal(table, np.inf)
    assert np.allclose(neighbours_nm(points), table.min(axis=1))
    others = RECTANGLE.random(np.random.default_rng(2), 40)
    assert np.allclose(neighbours_nm(points, others), cdist(points, others).min(axis=1))


def test_clusters_are_those_of_single_linkage():
    points = RECTANGLE.random(np.random.default_rng(3), 300)
    found = clusters(points, 54.0, least=2)
    wanted = fcluster(linkage(points, "single"), 54.0, "distance")
    sizes = np.bincount(wanted)
    assert sorted(found.members) == sorted(sizes[sizes >= 2])
    assert ((found.labels >= 0) == (sizes[wanted] >= 2)).all()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_particles_are_measured_without_complaint(count):
    found = measured("6 nm", RECTANGLE.random(np.random.default_rng(0), count), RECTANGLE, trials=9)
    assert found.count == count
    assert found.row()["particles"] == count


def test_particles_outside_the_mask_do_not_count():
    region = islands()
    points = np.array([[500.0, 400.0], [100.0, 100.0], [1900.0, 700.0]])
    assert region.contains(points).tolist() == [True, False, True]
    assert measured("x", points, region, trials=0).count == 2
    assert measured("x", points, region, trials=0).density_per_um2 == pytest.approx(2 / (region.area_nm2 * 1e-6))
