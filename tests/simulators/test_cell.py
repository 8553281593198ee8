"""Simulated cells: the truth is where the picture says, and measures what it claims."""

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from simulators.specimen.cell import CELLS, STRUCTURES, Cell, CellName, CellSettings, simulate
from simulators.specimen.cell.shapes import along, field, smooth_union, sphere
from simulators.specimen.cell.variety import varied

NAMES: tuple[CellName, ...] = ("train-1", "train-2", "naive-1", "naive-2")


@cache
def cell(name: CellName, region: int = 3) -> Cell:
    return simulate(CellSettings.of(name, region, shape=(56, 64, 104)))


def test_a_region_is_the_same_at_every_call_and_another_one_is_not() -> None:
    again = simulate(CellSettings.of("train-1", 3, shape=(56, 64, 104)))
    assert np.array_equal(again.raw, cell("train-1").raw)
    assert all(np.array_equal(again.labels[s], cell("train-1").labels[s]) for s in STRUCTURES)
    assert not np.array_equal(cell("train-1", 4).raw, again.raw)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_voxel_belongs_to_is_one_thing(name: CellName) -> None:
    """Pores are part of the envelope; everything else keeps apart."""
    apart = [cell(name).labels[s] > 0 for s in STRUCTURES if s != "nuclear_pore"]
    assert int(np.sum(apart, axis=0).max()) == 1
    pore, nucleus = (cell(name).labels[s] > 0 for s in ("nuclear_pore", "nucleus"))
    near = ndimage.distance_transform_edt(~nucleus)
    assert pore.any()
    assert near[pore].max() * 8 < 60


@pytest.mark.parametrize("name", NAMES)
def test_membranes_are_dark_and_resin_is_bright(name: CellName) -> None:
    one = cell(name)
    er = one.labels["er"] > 0
    if er.any():
        rim = er & ~ndimage.binary_erosion(er)
        core = ndimage.binary_erosion(er, iterations=3)
        if core.any():
            assert one.raw[rim].mean() < one.raw[core].mean()
    cytosol = one.inside & ~np.any([v > 0 for v in one.labels.values()], axis=0)
    outside = ~one.inside
    assert np.quantile(one.raw[outside], 0.8) > np.quantile(one.raw[cytosol], 0.8)


def test_mitochondria_are_darker_than_the_cytosol_where_the_stain_says_so() -> None:
    one = simulate(CellSettings.of("naive-2", 1, shape=(80, 96, 96)))
    mitochondria = one.labels["mitochondrion"] > 0
    assert mitochondria.any()
    assert one.raw[mitochondria].mean() < one.raw[one.inside & ~mitochondria].mean() - 40


def test_naive_cells_look_otherwise_than_those_to_train_on() -> None:
    spread = {name: (float(cell(name).raw.mean()), float(cell(name).raw.std())) for name in NAMES}
    assert spread["naive-2"][1] > 1.15 * max(spread["train-1"][1], spread["train-2"][1])
    assert spread["naive-1"][0] < min(spread["train-1"][0], spread["train-2"][0])
    assert len({settings.stain for settings in CELLS.values()}) == len(CELLS)


def test_a_pore_is_marked_at_its_place_and_as_wide_as_it_says() -> None:
    one = cell("train-1")
    assert len(one.pores) >= 3
    edges = one.settings.voxel_nm
    for number, pore in enumerate(one.pores, start=1):
        at = tuple(np.rint(np.array(pore.centre_nm) / edges).astype(int))
        assert one.labels["nuclear_pore"][at] > 0
        assert np.linalg.norm(pore.normal) == pytest.approx(1.0)
        assert 60 <= pore.diameter_nm <= 130
        assert number in one.labels["nuclear_pore"]
    centres = np.array([pore.centre_nm for pore in one.pores])
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=-1) + 1e9 * np.eye(len(centres))
    assert gaps.min() >= 200


def test_pits_lie_at_the_plasma_membrane_and_vesicles_below_it() -> None:
    one = cell("train-1")
    assert any(pit.open for pit in one.pits)
    assert any(not pit.open for pit in one.pits)
    for pit in one.pits:
        assert pit.depth_nm < 1.3 * pit.radius_nm if pit.open else pit.depth_nm > pit.radius_nm + 40


def test_a_field_has_one_deviation_everywhere_and_the_smoothness_asked_for() -> None:
    rng = np.random.default_rng(0)
    many = np.stack([field((24, 24, 24), 3.0, rng) for _ in range(300)])
    assert many.std(0) == pytest.approx(np.ones((24, 24, 24)), abs=0.25)
    # neighbours at a distance d correlate as exp(-d^2 / (4 sigma^2))
    found = float((many[:, 10, 10, 10] * many[:, 13, 10, 10]).mean())
    assert found == pytest.approx(np.exp(-9 / 36), abs=0.15)


def test_distances_are_those_of_geometry() -> None:
    box = (slice(0, 20), slice(0, 20), slice(0, 20))
    ball = sphere(box, np.array([40.0, 40.0, 40.0]), 24.0, 4.0)
    assert ball[10, 10, 10] == -24.0
    assert ball[10, 10, 16] == pytest.approx(0.0, abs=1e-5)
    path = np.stack([np.full(21, 40.0), np.full(21, 40.0), np.linspace(0, 80, 21)], axis=1)
    course = along(path, 30.0, (20, 20, 20), 4.0)
    assert course is not None
    at = course.distance_nm[10 - course.box[0].start, 15 - course.box[1].start, 7 - course.box[2].start]
    assert at == pytest.approx(20.0, abs=1e-4)
    union = smooth_union(ball, ball + 200, 10.0)
    assert union == pytest.approx(ball, abs=1e-4)


def test_cells_by_number_are_the_same_at_every_call_all_differ_and_none_is_a_cell_by_name() -> None:
    some = [varied(number, shape=(64, 64, 64)) for number in range(40)]
    assert some == [varied(number, shape=(64, 64, 64)) for number in range(40)]
    assert len({one.stain for one in some}) == len({one.milling for one in some}) == 40
    assert not {one.stain for one in some} & {one.stain for one in CELLS.values()}
    for one in some:  # membranes are darker than whatever they bound, as in real cells
        stain = one.stain
        for content in (stain.cytosol, stain.matrix, stain.er_lumen, stain.crista):
            assert content + stain.membranes * (1 - content) > content + 0.15
    cell = simulate(some[3])
    assert cell.raw.shape == (64, 64, 64)
