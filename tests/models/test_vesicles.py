"""Vesicles in tomograms: found once, to a fraction of a voxel, whatever the block, and bad volumes refused."""

from typing import Any

import numpy as np
import pytest

from models import runtime
from models.vesicles import BadVolumeError, TomogramVesicleFinder, Vesicle, paint
from models.vesicles.finder import finding, outliers
from models.vesicles.network import open_source, probability
from models.vesicles.refine import Refined, outside, rays, refine
from models.vesicles.seeds import Spheres, cones, tips, without_doubles
from simulators.specimen.tomogram import TomogramSettings, simulate

pytestmark = pytest.mark.timeout(400)  # real networks, on any machine

WEIGHTS = "vesicles-tomogram"
CLEAR = TomogramSettings(seed=31, shape=(64, 128, 128), vesicles=24, snr=0.5, tilt_step_deg=4.0)


def spheres_of(centres: Any, radii: Any) -> Spheres:
    return Spheres(np.array(centres, float).reshape(-1, 3), np.array(radii, float), np.ones(len(radii)))


def maps_of(spheres: Spheres, shape: tuple[int, int, int]) -> Any:
    """Maps as a perfect network would draw them."""
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    near = np.zeros(shape)
    for centre, radius in zip(spheres.centres, spheres.radii, strict=True):
        near = np.maximum(near, 1 - np.linalg.norm(grid - centre, axis=-1) / radius)
    maps = np.stack([(near > 0).astype(float), np.clip(near, 0, 1)])
    return np.rint(maps * 255).astype(np.uint8)


# -------------------------------------------------------------------------------------------- maps to spheres


def test_touching_vesicles_are_told_apart_to_a_fraction_of_a_voxel() -> None:
    truth = spheres_of([(20.3, 20.6, 20.2), (20.3, 20.6, 41.0), (21.0, 40.1, 30.7)], [10.2, 10.6, 11.5])
    found = cones(maps := maps_of(truth, (44, 60, 64)), tips(maps[1]))
    assert len(found) == 3
    for centre, radius in zip(truth.centres, truth.radii, strict=True):
        gap = np.linalg.norm(found.centres - centre, axis=1)
        assert gap.min() < 0.3
        assert abs(found.radii[gap.argmin()] - radius) < 0.4


def test_empty_maps_hold_no_vesicle() -> None:
    maps = np.zeros((2, 40, 40, 40), np.uint8)
    assert len(cones(maps, tips(maps[1]))) == 0


def test_tips_do_not_depend_on_the_slabs_they_are_looked_for_in() -> None:
    truth = spheres_of(np.random.default_rng(2).uniform(12, 84, (30, 3)), np.full(30, 9.0))
    near = maps_of(truth, (96, 96, 96))[1]
    whole = tips(near, slab=96)
    for slab in (17, 32, 64):
        assert np.array_equal(tips(near, slab=slab), whole)


def test_a_sphere_inside_a_better_one_is_not_counted() -> None:
    pair = Spheres(
        np.array([(10.0, 10, 10), (10.0, 12, 10), (10.0, 30, 10)]), np.array([9.0, 8, 8]), np.array([0.9, 0.8, 0.7])
    )
    assert without_doubles(pair).radii.tolist() == [9.0, 8.0]


# -------------------------------------------------------------------------------------------- refinement


def test_refinement_moves_spheres_back_to_their_membranes() -> None:
    made = simulate(CLEAR)
    rng = np.random.default_rng(3)
    off = rng.normal(0, 0.6, made.centres.shape)
    wrong = Spheres(made.centres + off, made.radii + rng.normal(0, 0.4, len(made.radii)), np.ones(len(made.radii)))
    better = refine(open_source(made.volume, 2.2), wrong).spheres
    inner = ((made.centres > 12) & (made.centres < np.array(made.labels.shape) - 13)).all(axis=1)
    before = np.linalg.norm(wrong.centres - made.centres, axis=1)[inner].mean()
    after = np.linalg.norm(better.centres - made.centres, axis=1)[inner].mean()
    assert after < 0.5 * before
    assert np.abs(better.radii - made.radii)[inner].mean() < 0.75 * np.abs(wrong.radii - made.radii)[inner].mean()


def test_too_few_vesicles_stay_as_the_network_saw_them() -> None:
    made = simulate(CLEAR)
    few = Spheres(made.centres[:3], made.radii[:3], np.ones(3))
    assert refine(open_source(made.volume, 2.2), few).spheres is few


def test_radii_are_set_to_where_the_map_ends() -> None:
    rng = np.random.default_rng(4)
    centres = np.stack(np.meshgrid([20, 46], [20, 46, 72], [20, 46, 72], indexing="ij"), -1).reshape(-1, 3) + 0.0
    truth = spheres_of(centres + rng.uniform(-2, 2, centres.shape), rng.uniform(8, 11, len(centres)))
    maps = maps_of(truth, (66, 92, 92))
    small = Spheres(truth.centres, truth.radii - 0.7, truth.scores)
    assert outside(maps, small) == pytest.approx(0.7, abs=0.15)
    assert outside(np.zeros_like(maps), small) == 0.0


def test_rays_point_everywhere_alike() -> None:
    ways = rays(128)
    assert np.allclose(np.linalg.norm(ways, axis=1), 1)
    assert np.abs(ways.mean(axis=0)).max() < 0.01
    assert np.allclose(ways.T @ ways / len(ways), np.eye(3) / 3, atol=0.02)


# -------------------------------------------------------------------------------------------- overlap


def test_between_two_vesicles_a_voxel_belongs_to_the_nearer() -> None:
    out = np.zeros((24, 24, 40), np.int32)
    two = (
        Vesicle(number=1, z=12, y=12, x=12, radius_nm=18.0),
        Vesicle(number=2, z=12, y=12, x=26, radius_nm=18.0),
    )
    paint(two, 2.0, out)
    assert out[12, 12, 18] == 1
    assert out[12, 12, 20] == 2
    assert out[12, 12, 1] == 0
    alone = np.zeros_like(out)
    paint(two[:1], 2.0, alone)
    assert (alone > 0).sum() == pytest.approx(4 / 3 * np.pi * 9**3, rel=0.03)


# -------------------------------------------------------------------------------------------- flags


def test_an_odd_vesicle_is_flagged_and_kept() -> None:
    n = 40
    radii = np.random.default_rng(1).normal(10, 0.5, n)
    radii[7] = 19.0
    spheres = Spheres(np.zeros((n, 3)), radii, np.ones(n))
    flags = outliers(Refined(spheres, np.full(n, 2.7), np.full(n, 0.5), np.zeros(3), np.zeros(3)))
    assert "radius large" in flags[7]
    assert sum(map(bool, flags)) == 1


# -------------------------------------------------------------------------------------------- volumes


@pytest.mark.parametrize(
    ("volume", "voxel_nm", "told"),
    [
        (np.ones((10, 10)), 2.2, "three axes"),
        (np.ones((40, 40, 40)), 2.2, "constant"),
        (np.full((40, 40, 40), np.nan), 2.2, "no finite voxel"),
        (np.random.default_rng(0).normal(size=(40, 40, 40)), None, "no voxel size"),
        (np.random.default_rng(0).normal(size=(40, 40, 40)), 22.0, r"voxel size 22 nm"),
        (np.random.default_rng(0).normal(size=(40, 40, 3)), 2.2, "less than one vesicle along x"),
        (np.ones((40, 40, 40), complex), 2.2, "real numbers"),
    ],
)
def test_a_bad_volume_is_refused_in_one_line(volume: Any, voxel_nm: float | None, told: str) -> None:
    with pytest.raises(BadVolumeError, match=told) as raised:
        open_source(volume, voxel_nm)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("voxel_nm", [1.1, 1.47, 2.2, 3.0])
def test_a_part_of_the_grid_is_the_part_of_the_whole_grid(voxel_nm: float) -> None:
    volume = np.random.default_rng(5).normal(size=(40, 50, 60)).astype(np.float32)
    source = open_source(volume, voxel_nm)
    whole = source.read((0, 0, 0), source.shape)
    part = source.read((3, 5, 7), (14, 15, 16))
    assert np.allclose(part, whole[3:14, 5:15, 7:16], atol=1e-5)
    assert not source.read((-9, -9, -9), (0, 0, 0)).any(), "outside there is nothing"


def test_the_answer_does_not_depend_on_the_block() -> None:
    made = simulate(CLEAR)
    source = open_source(made.volume, 2.2)
    model = runtime.load(WEIGHTS)
    answers = []
    for size in ((64, 128, 128), (24, 40, 56), (8, 128, 64)):
        maps = np.zeros((2, *source.shape), np.uint8)
        assert list(probability(source, model, maps, size=size))
        answers.append(maps)
    for maps in answers[1:]:
        assert np.abs(maps.astype(int) - answers[0]).max() <= 1, "rounding to 1/255 only"
    found = [[(v.z, v.y, v.x) for v in finding(source, maps).vesicles] for maps in answers]
    assert [len(f) for f in found] == [len(found[0])] * 3
    for other in found[1:]:
        gaps = np.linalg.norm(np.array(other)[:, None] - np.array(found[0])[None], axis=2)
        assert gaps.min(axis=1).max() < 0.1


def test_blocks_that_were_done_are_not_done_again() -> None:
    source = open_source(simulate(CLEAR).volume, 2.2)
    maps = np.zeros((2, *source.shape), np.uint8)
    assert list(probability(source, runtime.load(WEIGHTS), maps, size=(64, 64, 64), done={0, 2})) == [1, 3]
    assert not maps[:, :, :64, :64].any()


def test_vesicles_are_found_whatever_contrast_and_scale() -> None:
    made = simulate(CLEAR)
    finder = TomogramVesicleFinder(WEIGHTS)
    plain = finder.find(made.volume, 2.2)
    assert recall(made, plain) >= 0.9
    assert len(plain.vesicles) <= 1.15 * len(made.radii)
    turned = finder.find(-300 * made.volume + 7000, 2.2, dark=False)
    assert [v.radius_nm for v in turned.vesicles] == pytest.approx([v.radius_nm for v in plain.vesicles], abs=0.05)
    coarse = finder.find(np.repeat(np.repeat(np.repeat(made.volume, 2, 0), 2, 1), 2, 2), 1.1)
    assert len(coarse.vesicles) == pytest.approx(len(plain.vesicles), abs=3)
    assert np.median([v.radius_nm for v in coarse.vesicles]) == pytest.approx(
        np.median([v.radius_nm for v in plain.vesicles]), rel=0.05
    )


def test_a_region_restricts_the_search() -> None:
    made = simulate(CLEAR)
    region = np.zeros(made.labels.shape, bool)
    region[:, :64] = True
    found = TomogramVesicleFinder(WEIGHTS).find(made.volume, 2.2, region=region).vesicles
    assert found
    assert all(v.y < 64 for v in found)


def test_noise_holds_no_vesicles_and_this_is_said() -> None:
    noise = np.random.default_rng(9).normal(size=(48, 96, 96)).astype(np.float32)
    found = TomogramVesicleFinder(WEIGHTS).find(noise, 2.2)
    assert len(found.vesicles) <= 1
    assert found.vesicles or found.note == "no vesicles found"


def recall(made: Any, found: Any) -> float:
    centres = np.array([(v.z, v.y, v.x) for v in found.vesicles])
    gaps = np.linalg.norm(made.centres[:, None] - centres[None], axis=2)
    return float((gaps.min(axis=1) < made.radii).mean())
