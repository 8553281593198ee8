"""Rules that the default scorer keeps on simulated and drawn micrographs: ice, crystals, dirt, foil, score."""

import math
from functools import lru_cache

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from models.base import BadImageError
from models.conditions import Conditions, mean_free_path_nm
from models.quality import CtfQualityScorer, ice
from models.quality.cover import cover
from models.quality.crystal import lattice
from models.quality.spectrum import spectrum
from simulators.specimen import HoleTruth, Specimen, SpecimenSettings, View, materials

KEYS = {
    "ctf_resolution_angstrom", "ctf_confidence", "defocus_um", "astigmatism_um", "astigmatism_angle_deg",
    "ice_thickness_nm", "ice_ring", "contamination",
}  # fmt: skip


@lru_cache
def grid(kind: str, seed: int = 7, content: tuple[str, ...] = ("particles",)) -> Specimen:
    return Specimen(SpecimenSettings(seed=seed, ice=kind, grid_radius_um=150, content=content))  # type: ignore[arg-type]


def holes(specimen: Specimen) -> list[HoleTruth]:
    return [h for s in specimen.squares for h in specimen.holes(s.index) if h.state != "broken"]


def picture(specimen: Specimen, hole: HoleTruth, px: float = 1.06, side: int = 768, **fields: float) -> NDArray:
    values = {"defocus_um": 1.2, "dose_e_per_a2": 45.0} | fields
    return specimen.render(View(hole.x_um, hole.y_um, px, (side, side), **values))  # type: ignore[arg-type]


@lru_cache
def good() -> tuple[NDArray, HoleTruth]:
    best = max(holes(grid("good")), key=lambda h: h.quality)
    return picture(grid("good"), best), best


# ------------------------------------------------------------------------------------------------ ice


@pytest.mark.parametrize("px", [1.06, 3.0])
def test_thickness_from_transmission_is_that_of_the_simulated_ice(px: float) -> None:
    bare = grid("good", content=())
    for hole in sorted(holes(bare), key=lambda h: h.ice_nm)[:: max(1, len(holes(bare)) // 3)]:
        image = picture(bare, hole, px, 512)
        found = CtfQualityScorer().judge(image, px, Conditions(open_beam=45.0 * px * px))
        assert found.features["ice_thickness_nm"] == pytest.approx(hole.ice_nm, abs=4 + 0.06 * hole.ice_nm)


def test_thickness_follows_beers_law_and_pairs_with_a_filter_follow_it_too() -> None:
    through = 1000 * math.exp(-50 / 303)  # 50 nm at 303 nm
    assert ice.thickness_nm(through, 1000, mean_free_path_nm(300)) == pytest.approx(50, abs=0.01)
    # an energy filter stops 1 - exp(-d / 395 nm) of the electrons (Rice et al. 2018)
    assert ice.thickness_from_pair_nm(800, 800 * math.exp(-80 / 395), 395) == pytest.approx(80, abs=0.01)
    assert ice.inelastic_mean_free_path_nm(300) == 395


def test_slower_electrons_have_shorter_paths() -> None:
    # (v/c)² from the tabulated speeds of Williams & Carter, table 1.2: 0.5482, 0.6953 and 0.7765 of c
    for kv, share in ((100, 0.5482), (200, 0.6953), (300, 0.7765)):
        assert mean_free_path_nm(kv) / mean_free_path_nm(300) == pytest.approx((share / 0.7765) ** 2, rel=1e-3)


@pytest.mark.parametrize("kv", [100.0, 200.0, 300.0])
def test_simulated_ice_takes_what_the_default_path_says(kv: float) -> None:
    phase = materials.radian_per_volt_nm(kv) * materials.ICE_VOLT * 60.0
    path = mean_free_path_nm(kv)
    assert ice.thickness_nm(materials.transmission(phase, kv), 1.0, path) == pytest.approx(60.0, rel=0.004)


def test_an_intensity_without_electrons_has_no_thickness() -> None:
    with pytest.raises(ice.NoThicknessError, match="must be above 0"):
        ice.thickness_nm(0.0, 100.0, 303.0)


# ------------------------------------------------------------------------------------------------ crystals


def test_crystalline_ice_is_found_by_its_rings_where_pixels_are_fine_and_by_its_mottle_elsewhere() -> None:
    poor = grid("poor", seed=11)
    ok = [h for h in holes(poor) if 20 < h.ice_nm < 120 and h.contamination < 0.03]
    crystal = max(ok, key=lambda h: h.crystalline)
    assert crystal.crystalline > 0.3
    for px in (1.06, 2.4):
        assert CtfQualityScorer().judge(picture(poor, crystal, px), px).label == "crystalline"
    vitreous, _ = good()
    assert CtfQualityScorer().judge(vitreous, 1.06).label == "good"


def test_mottle_is_no_crime_in_a_replica_and_particles_and_vesicles_make_none() -> None:
    replica = grid("good", seed=5, content=("gold",))
    hole = max(holes(replica), key=lambda h: h.quality)
    image = picture(replica, hole, 2.4, 640)
    assert CtfQualityScorer().judge(image, 2.4, Conditions(vitreous=False)).label != "crystalline"
    crowd = grid("good", seed=5, content=("particles", "vesicles"))
    hole = max(holes(crowd), key=lambda h: h.quality)
    for px in (2.4, 5.6):
        found = CtfQualityScorer().judge(picture(crowd, hole, px, 640), px)
        assert found.label == "good"
        assert found.features["ice_waves"] < 0.006


def test_a_drawn_ring_and_drawn_spots_at_a_lattice_spacing_are_measured() -> None:
    rng = np.random.default_rng(2)
    n, px = 768, 1.2
    k = np.hypot(np.fft.fftfreq(n, px)[:, None], np.fft.rfftfreq(n, px)[None, :])
    white = np.fft.rfft2(rng.normal(size=(n, n)))
    found = []
    for strength in (0.0, 1.0):
        image = np.fft.irfft2(white * np.sqrt(1 + strength * (np.abs(k - 1 / 3.67) < 0.003)), s=(n, n))
        power = spectrum(image.astype(np.float32), px)
        crystals = lattice(power, power.polar())
        assert crystals is not None
        found.append(crystals)
    assert found[0].ring < 0.1
    assert found[0].spots == 0
    assert found[1].ring == pytest.approx(1.0, abs=0.25)
    assert found[1].spoiled.any()
    assert not found[0].spoiled.any()
    y, x = np.mgrid[:n, :n] * px
    waves = sum(np.cos(2 * np.pi / 3.67 * (x * np.cos(t) + y * np.sin(t))) for t in (0.3, 0.3 + np.pi / 3))
    power = spectrum((rng.normal(size=(n, n)) + 0.1 * waves).astype(np.float32), px)
    crystals = lattice(power, power.polar())
    assert crystals is not None
    assert crystals.spots >= 4


def test_coarse_pixels_say_nothing_about_lattices() -> None:
    power = spectrum(np.random.default_rng(1).normal(size=(256, 256)).astype(np.float32), 2.0)
    assert lattice(power, power.polar()) is None
    assert "ice_ring" not in CtfQualityScorer().judge(np.random.default_rng(1).normal(size=(256, 256)), 2.0).features


# ------------------------------------------------------------------------------------------------ dirt and foil


def test_lumps_are_found_and_particles_are_not() -> None:
    rng = np.random.default_rng(4)
    image = rng.normal(100, 10, (512, 512)).astype(np.float32)
    truth = np.zeros((512, 512), np.uint8)
    for x, y, r in ((100, 120, 30), (300, 260, 18), (420, 90, 24)):
        cv2.circle(truth, (x, y), r, 1, -1)
    for x, y in rng.integers(10, 500, (60, 2)):
        cv2.circle(image, (int(x), int(y)), 3, 80.0, -1)  # 6 pixels: particles of 60 Å
    image[truth > 0] -= 45
    found = cover(image, 10.0)
    both = (found.dirt & (truth > 0)).sum() / (found.dirt | (truth > 0)).sum()
    assert both > 0.8
    assert found.dirt_share == pytest.approx(truth.mean(), rel=0.25)


def test_a_lump_over_two_fifths_of_the_frame_is_still_a_lump() -> None:
    image = np.random.default_rng(4).normal(100, 10, (512, 512)).astype(np.float32)
    cv2.circle(truth := np.zeros((512, 512), np.uint8), (200, 240), 185, 1, -1)
    image[truth > 0] *= 0.6
    assert cover(image, 8.0).dirt_share == pytest.approx(truth.mean(), rel=0.1)


def test_uneven_illumination_is_no_dirt() -> None:
    y, x = np.mgrid[-1:1:512j, -1:1:512j]
    image = (np.random.default_rng(5).normal(100, 8, (512, 512)) + 25 * x - 10 * y * y).astype(np.float32)
    assert cover(image).dirt_share < 0.002


def test_the_edge_of_a_hole_is_named_and_its_foil_measured() -> None:
    specimen = grid("good")
    best = max(holes(specimen), key=lambda h: h.quality)
    px, side = 4.0, 1024
    # the frame's middle on the hole's edge: about half of it is foil
    view = View(best.x_um + best.radius_um, best.y_um, px, (side, side), defocus_um=1.5, dose_e_per_a2=45)
    found = CtfQualityScorer().judge(specimen.render(view), px)
    assert found.label == "edge"
    assert 0.3 < found.features["foil"] < 0.7


# ------------------------------------------------------------------------------------------------ the whole


def test_a_good_micrograph_has_all_figures_and_a_high_score() -> None:
    image, hole = good()
    found = CtfQualityScorer().judge(image, 1.06, Conditions(open_beam=45 * 1.06**2))
    assert found.label == "good"
    assert found.score > 0.8
    assert set(found.features) >= KEYS
    assert found.features["defocus_um"] == pytest.approx(1.2, rel=0.01)
    assert "1.20 µm underfocus" in found.note
    assert found.features["ice_thickness_nm"] == pytest.approx(hole.ice_nm, abs=12)  # particles stop electrons, too


def test_an_empty_hole_is_empty_with_a_reference_and_without() -> None:
    rng = np.random.default_rng(6)
    beam = rng.poisson(50, (768, 768)).astype(np.uint16)
    for known in (Conditions(open_beam=50.0), None):
        found = CtfQualityScorer().judge(beam, 1.06, known)
        assert found.label == "empty"
        assert found.score <= 0.1


def test_thick_ice_is_named_where_there_is_a_reference() -> None:
    image, _ = good()
    dim = np.random.default_rng(1).poisson(image * 0.5).astype(np.uint16)
    found = CtfQualityScorer().judge(dim, 1.06, Conditions(open_beam=45 * 1.06**2))
    assert found.label == "thick"
    assert found.features["ice_thickness_nm"] > 200


def test_drift_lowers_the_score() -> None:
    specimen, (still, hole) = grid("good"), good()
    moved = picture(specimen, hole, drift_angstrom=25.0)
    first, second = (CtfQualityScorer().judge(image, 1.06) for image in (still, moved))
    assert second.score < first.score - 0.2


def test_a_wrong_voltage_gives_a_wrong_defocus_so_the_right_one_must_be_told() -> None:
    image, _ = good()
    found = CtfQualityScorer().judge(image, 1.06, Conditions(voltage_kv=200.0))
    # the phase goes as wavelength times defocus: 1.2 µm at 300 kV look like 0.94 µm at 200 kV
    assert found.features["defocus_um"] == pytest.approx(1.2 * 0.0197 / 0.0251, rel=0.03)


def test_number_type_and_gain_do_not_matter_and_the_answer_is_always_the_same() -> None:
    image, _ = good()
    first = CtfQualityScorer().judge(image, 1.06)
    assert CtfQualityScorer().judge(image, 1.06) == first
    for other in (image.astype(np.float32) * 0.01 + 3, image.astype(np.int16) - 40):
        second = CtfQualityScorer().judge(other, 1.06)
        assert second.label == first.label
        assert second.score == pytest.approx(first.score, abs=0.01)


def test_any_small_image_is_answered_and_no_image_is_refused() -> None:
    rng = np.random.default_rng(3)
    for shape in ((16, 16), (16, 300), (33, 17), (64, 48)):
        for px in (None, 1.0, 30.0):
            finding = CtfQualityScorer().judge(rng.normal(size=shape), px, Conditions(open_beam=1.0))
            assert 0 <= finding.score <= 1
            assert all(np.isfinite(v) for v in finding.features.values())
    assert CtfQualityScorer().judge(np.zeros((64, 64), np.uint8), 1.0).score == 0
    with pytest.raises(BadImageError):
        CtfQualityScorer().judge(np.zeros((20, 20, 3)))
