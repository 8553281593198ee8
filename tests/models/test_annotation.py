"""Graph-cut annotation: energies against brute force, cuts against drawn bodies, clean-up against counted voxels."""

import itertools

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from models.organelles.annotation import (
    BACKGROUND,
    STRUCTURE,
    AnnotationError,
    Regions,
    Structure,
    clean,
    cut,
    exclusion_zone,
    parts,
    read_settings,
    regions_of,
    supervoxels,
    to_grey,
)
from models.organelles.annotation.energy import Energy, boundary_cost, energy
from models.organelles.annotation.maxflow import least
from models.organelles.annotation.supervoxels import blocks

DEFAULT = read_settings()


def body(n=48, noise=12.0):
    """A dark ellipsoid in brighter surroundings, with noise; strokes on two planes."""
    z, y, x = np.mgrid[:n, :n, :n]
    truth = ((z - 23) / 14) ** 2 + ((y - 26) / 11) ** 2 + ((x - 21) / 15) ** 2 < 1
    volume = np.where(truth, 90.0, 150.0) + np.random.default_rng(3).normal(0, noise, truth.shape)
    strokes = np.zeros(truth.shape, np.uint8)
    strokes[23, 24:28, 14:28] = STRUCTURE
    strokes[15:31, 26, 21] = STRUCTURE
    strokes[23, 3:6, 5:44] = BACKGROUND
    strokes[5:44, 45, 22] = BACKGROUND
    return volume, truth, strokes


def dice(a, b):
    return 2 * np.sum(a & b) / (np.sum(a) + np.sum(b))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), n=st.integers(2, 8))
def test_the_cut_is_the_labelling_of_least_energy_among_all_there_are(data, n):
    pairs = list(itertools.combinations(range(n), 2))
    contacts = np.array(data.draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=12, unique=True)))
    costs = st.floats(0, 20, allow_subnormal=False)
    unary = np.array(data.draw(st.lists(st.tuples(costs, costs), min_size=n, max_size=n)))
    between = np.array(data.draw(st.lists(costs, min_size=len(contacts), max_size=len(contacts))))
    given_energy = Energy(unary, contacts, between)
    best = min(given_energy.of(np.array(way)) for way in itertools.product((False, True), repeat=n))
    assert given_energy.of(least(given_energy)) == pytest.approx(best, abs=1e-4)


def test_costs_are_what_the_papers_formulas_give_voxel_by_voxel():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (6, 6, 6)).astype(np.uint8)
    labels = (np.arange(6)[:, None, None] // 3 * 4 + np.arange(6)[None, :, None] // 3 * 2 + np.arange(6) // 3).astype(
        np.int32
    )
    strokes = np.zeros(grey.shape, np.uint8)
    strokes[0, 0, :2], strokes[5, 4:, 5] = STRUCTURE, BACKGROUND
    regions = regions_of(grey, labels, 5)
    made = energy(regions, grey, strokes, msgspec.structs.replace(DEFAULT.cut, boundary_weight=1.0))
    ink = np.minimum(grey // 51.2, 4).astype(int)
    for column, own in enumerate((BACKGROUND, STRUCTURE)):
        cost = {}
        for value in (BACKGROUND, STRUCTURE):
            counts = np.array([np.sum((ink == k) & (strokes == value)) for k in range(5)]) + 1.0
            cost[value] = -np.log(counts / counts.sum())
        dear = 100 * (1 + max(c.max() for c in cost.values()))
        by_voxel = cost[own][ink]
        by_voxel[strokes == own] = 0
        by_voxel[(strokes != own) & (strokes > 0)] = dear
        far = ndimage.distance_transform_edt(strokes != own)
        for k in range(8):
            here = labels == k
            assert made.unary[k, column] == pytest.approx(by_voxel[here].mean() + np.log1p(far[here].mean()))
    # all supervoxels are cubes of three voxels: neighbours share nine faces, their centres are three voxels apart
    assert len(made.contacts) == 12
    assert set(regions.faces) == {9.0}
    a, b = made.contacts.T
    square = (regions.means[a] - regions.means[b]) ** 2
    assert made.boundaries == pytest.approx(np.exp(-square / 2 / square.mean()) / 3)


def test_a_body_is_found_from_strokes_on_a_few_planes():
    pytest.importorskip("skimage", reason="scikit-image is not installed (volumes extra)")
    volume, truth, strokes = body()
    grey = to_grey(volume)
    pieces = supervoxels(grey, DEFAULT.cut)
    regions = regions_of(grey, pieces, DEFAULT.cut.bins)
    most = np.bincount(pieces.ravel(), truth.ravel()) / regions.sizes > 0.5
    labels = cut(grey, regions, strokes, DEFAULT.cut)
    assert dice(labels > 0, truth) > 0.95
    assert dice(labels > 0, truth) > dice(most[pieces], truth) - 0.01  # as good as these supervoxels allow
    # more strokes correct it, where they are and around
    strokes[23, 30:36, 22:40] = BACKGROUND
    corrected = cut(grey, regions, strokes, DEFAULT.cut)
    assert not corrected[23, 30:36, 22:40].any()
    assert corrected[strokes == STRUCTURE].all()


def test_distances_are_as_long_in_nm_along_each_axis():
    row = np.zeros((3, 1, 1), np.uint8)
    row[0], row[2] = STRUCTURE, BACKGROUND
    regions = regions_of(row, np.arange(3, dtype=np.int32).reshape(3, 1, 1), 5, (8.0, 1.0, 1.0))
    alone = msgspec.structs.replace(DEFAULT.cut, grey_weight=0.0)
    assert energy(regions, row, row, alone).unary[1].tolist() == pytest.approx([np.log1p(4.0)] * 2)


def test_borders_of_blocks_are_no_borders_of_supervoxels():
    pytest.importorskip("skimage", reason="scikit-image is not installed (volumes extra)")
    grey = np.random.default_rng(4).normal(128, 20, (20, 20, 128))
    pieces = supervoxels(ndimage.gaussian_filter(grey, 1).clip(0, 255).astype(np.uint8), DEFAULT.cut)
    parted = (pieces[..., 1:] != pieces[..., :-1]).mean(axis=(0, 1))
    assert parted[63] < 0.8  # all voxels are parted there where a border goes
    assert parted[63] < 1.6 * np.delete(parted, 63).mean()


def test_supervoxels_are_connected_numbered_without_gaps_and_as_many_as_asked_for():
    pytest.importorskip("skimage", reason="scikit-image is not installed (volumes extra)")
    volume, _, _ = body()
    seen = []
    pieces = supervoxels(to_grey(volume)[:40], DEFAULT.cut, progress=seen.append)
    count = int(pieces.max()) + 1
    assert seen[-1] == 1.0
    assert 0.6 < count / DEFAULT.cut.supervoxels < 1.4
    places = ndimage.find_objects(pieces + 1)
    assert all(ndimage.label(pieces[place] == k)[1] == 1 for k, place in enumerate(places))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(shape=st.tuples(*[st.integers(1, 300)] * 3))
def test_blocks_cover_a_volume_once(shape):
    for axis in range(3):
        sides = sorted({(b[axis].start, b[axis].stop) for b in blocks(shape)})
        assert [a for side in sides for a in range(*side)] == list(range(shape[axis]))


def test_regions_are_counted_as_plain_loops_count_them():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 5, (20, 7, 6)).astype(np.int32)  # deeper than one slab
    grey = rng.integers(0, 256, labels.shape).astype(np.uint8)
    found = regions_of(grey, labels, 5)
    faces = dict.fromkeys(itertools.combinations(range(5), 2), 0)
    for axis in range(3):
        for a, b in zip(
            np.take(labels, range(labels.shape[axis] - 1), axis).ravel(),
            np.take(labels, range(1, labels.shape[axis]), axis).ravel(),
            strict=True,
        ):
            if a != b:
                faces[min(a, b), max(a, b)] += 1
    assert dict(zip(map(tuple, found.contacts.tolist()), found.faces.tolist(), strict=True)) == faces
    for k in range(5):
        assert found.means[k] == pytest.approx(grey[labels == k].mean())
        assert found.centres[k] == pytest.approx(np.argwhere(labels == k).mean(axis=0))
        assert found.histograms[k].tolist() == np.histogram(grey[labels == k], 5, (0, 256))[0].tolist()


def test_a_supervoxel_with_strokes_of_both_classes_is_parted_between_them():
    grey = np.full((1, 4, 20), 100, np.uint8)
    grey[..., 10:] = 130
    labels = np.zeros(grey.shape, np.int32)
    labels[0, 3] = 1
    strokes = np.zeros(grey.shape, np.uint8)
    strokes[0, 1, 2], strokes[0, 1, 17] = STRUCTURE, BACKGROUND
    made = cut(grey, regions_of(grey, labels, 5), strokes, DEFAULT.cut)
    assert made[0, :3].sum(axis=0).tolist() == [3] * 10 + [0] * 10


def test_without_a_stroke_of_each_class_there_is_no_cut():
    grey = np.arange(64, dtype=np.uint8).reshape(4, 4, 4)
    regions = regions_of(grey, np.zeros(grey.shape, np.int32), 5)
    strokes = np.zeros(grey.shape, np.uint8)
    strokes[0, 0, 0] = STRUCTURE
    with pytest.raises(AnnotationError, match="no stroke on the background"):
        cut(grey, regions, strokes, DEFAULT.cut)
    with pytest.raises(AnnotationError, match="differ in shape"):
        cut(grey, regions, strokes[:2], DEFAULT.cut)


def test_boundaries_cost_more_between_like_greys_and_over_large_faces():
    def pair(step, faces):
        means = np.array([0.0, step, 200.0])
        centres = np.array([[0.0, 0, 0], [0, 0, 5], [0, 0, 10]])
        nothing = np.zeros((3, 5))
        made = Regions(
            np.zeros(1, np.int32), np.ones(3), means, centres, nothing, np.array([[0, 1], [1, 2]]), np.array(faces)
        )
        return boundary_cost(made)[0]

    assert pair(10.0, [4.0, 4.0]) > pair(90.0, [4.0, 4.0]) > 0
    assert pair(10.0, [6.0, 4.0]) > pair(10.0, [4.0, 6.0])


def test_small_objects_go_holes_are_filled_and_the_outline_moves():
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[4:14, 4:14, 4:14] = 1
    labels[8:10, 8:10, 8:10] = 0  # a hole of 8 voxels
    labels[17, 17, 17] = 1
    labels[4:6, 9, 9] = 0  # a pit of the outline: no hole
    made = clean(labels, Structure(smallest_object=2, largest_hole=9))
    assert made[17, 17, 17] == 0
    assert made[8:10, 8:10, 8:10].all()
    assert not made[4, 9, 9]
    assert clean(labels, Structure(smallest_object=2, largest_hole=8)).sum() == 1000 - 8 - 2
    point = np.zeros((9, 9, 9), np.uint8)
    point[4, 4, 4] = 1
    far = np.abs(np.mgrid[:9, :9, :9] - 4).sum(axis=0)
    assert np.array_equal(clean(point, Structure(grow=2)) > 0, far <= 2)


def test_scores_do_not_count_in_the_band_along_the_outline_and_the_border_is_none():
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[:, 10:20] = 1  # a plate that reaches the border
    zone = exclusion_zone(labels, Structure(exclude_outside=3, exclude_inside=1))
    rows = zone[15, :, 15]
    assert np.flatnonzero(rows).tolist() == [7, 8, 9, 10, 19, 20, 21, 22]
    assert (zone == rows[None, :, None]).all()


def test_a_structure_is_parted_by_its_greys():
    rng = np.random.default_rng(5)
    grey = np.clip(rng.normal(60, 8, (12, 12, 12)), 0, 255).astype(np.uint8)
    grey[:, :, 8:] = np.clip(rng.normal(170, 8, (12, 12, 4)), 0, 255).astype(np.uint8)
    labels = np.ones(grey.shape, np.uint8)
    labels[0] = 0
    found = parts(labels, grey, 2)
    assert found.means == pytest.approx((60, 170), abs=3)
    assert found.shares == pytest.approx((2 / 3, 1 / 3), abs=0.01)
    dark = found.keep(labels, grey, 0)
    assert dark[1:, :, :8].all()
    assert not dark[:, :, 8:].any()
    assert not dark[0].any()
    with pytest.raises(AnnotationError, match="too few grey values"):
        parts(labels * 0, grey, 2)


def test_greys_keep_their_order_and_what_is_no_number_is_black():
    volume = np.arange(1000.0).reshape(10, 10, 10)
    volume[5, 5, 5] = np.nan
    grey = to_grey(volume, ((2, 9), (0, 10), (3, 10)))
    assert grey.shape == (7, 10, 7)
    assert grey[3, 5, 2] == 0
    others = np.delete(grey.ravel(), np.ravel_multi_index((3, 5, 2), grey.shape)).astype(int)
    assert (np.diff(others) >= 0).all()
    assert (others.min(), others.max()) == (0, 255)
    with pytest.raises(AnnotationError, match="one grey value"):
        to_grey(np.ones((4, 4, 4)))
    with pytest.raises(AnnotationError, match="along y: the volume has voxels 0:10"):
        to_grey(volume, ((0, 4), (0, 11), (0, 4)))


def test_published_numbers_are_the_defaults_and_a_file_changes_what_it_names(tmp_path):
    assert (DEFAULT.cut.boundary_weight, DEFAULT.cut.bins, DEFAULT.cut.supervoxels) == (2.0, 5, 4000)
    assert DEFAULT.structure("er").largest_hole == 20_000
    at_10_nm = DEFAULT.structure("mitochondrion", 10.0)
    assert (at_10_nm.smallest_object, at_10_nm.grow, at_10_nm.exclude_outside) == (27 / 8, 2.0, 2.0)
    assert DEFAULT.structure("er", 20.0).exclude_inside == 1.0  # never thinner than a voxel
    file = tmp_path / "mine.yaml"
    file.write_text("cut: {bins: 16}\nstructures: {lysosomes: {grow: 2}}\n")
    mine = read_settings(file)
    assert (mine.cut.bins, mine.cut.iterations) == (16, DEFAULT.cut.iterations)
    assert mine.structure("lysosomes").grow == 2
    for text, said in (("cut: {binz: 3}", "binz"), ("cut: {bins: 1}", "bins"), ("- a", "expected keys"), ("a: [", "a")):
        file.write_text(text)
        with pytest.raises(AnnotationError, match=said):
            read_settings(file)
    with pytest.raises(AnnotationError, match="known are coated_pit"):
        DEFAULT.structure("ribosomes")
