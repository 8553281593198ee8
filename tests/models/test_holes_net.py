"""The learned hole finder: network proposes, lattice decides; what it must share with the classical one."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.finder_sets import hole_set
from benchmarks.marks import tally
from models import runtime
from models.base import BadImageError
from models.holes.bars import Bars
from models.holes.learned import NetHoleFinder, possible
from models.holes.levels import LARGEST, SMALLEST, levels_of
from models.holes.prepare import prepare
from models.holes.proposals import Proposals, of_size, sizes
from simulators.specimen import Specimen, SpecimenSettings, View
from tests.models.drawing import HEXAGONAL, foil, lattice_points

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def finder() -> NetHoleFinder:
    return NetHoleFinder()


def missed(finding: object, truth: np.ndarray, within: float) -> tuple[int, int]:
    """Holes of ``truth`` that were not found, and found ones that are not there."""
    at = np.array([[h.x, h.y] for h in finding.holes]).reshape(-1, 2)  # type: ignore[attr-defined]
    away = np.hypot(*(truth[:, None] - at[None]).transpose(2, 0, 1))
    return int((away.min(axis=1) > within).sum()), int((away.min(axis=0) > within).sum())


@pytest.mark.parametrize("radius", [4.0, 11.0, 40.0])
@pytest.mark.parametrize("contrast", [30.0, -30.0])
def test_holes_of_any_size_and_contrast_are_found_with_their_radius(
    finder: NetHoleFinder, radius: float, contrast: float
) -> None:
    shape = (480, 520)
    truth = lattice_points(shape, 2.6 * radius, 17.0, margin=radius + 1)
    finding = finder.find(foil(shape, lattice_points(shape, 2.6 * radius, 17.0), radius, contrast=contrast))
    assert missed(finding, truth, 0.3 * radius)[0] <= 0.01 * len(truth)
    assert finding.lattice is not None
    assert np.median([h.radius_px for h in finding.holes]) == pytest.approx(radius, rel=0.15)


def test_a_hexagonal_lattice_is_named(finder: NetHoleFinder) -> None:
    shape = (400, 400)
    finding = finder.find(foil(shape, lattice_points(shape, 40.0, 5.0, HEXAGONAL), 12.0))
    assert finding.lattice is not None
    assert finding.lattice.symmetry == "hexagonal"


def test_gain_offset_and_number_type_change_nothing(finder: NetHoleFinder) -> None:
    image = np.rint(foil((300, 320), lattice_points((300, 320), 45.0, 8.0), 12.0))
    plain, other = finder.find(image.astype(np.uint16)), finder.find((image * 64.0 + 1000.0).astype(np.float32))
    assert len(plain.holes) == len(other.holes) > 20
    for one, two in zip(plain.holes, other.holes, strict=True):
        assert one.x == pytest.approx(two.x, abs=0.05)
        assert one.score == pytest.approx(two.score, abs=0.02)


@pytest.mark.parametrize("kind", ["noise", "black", "stripes", "slope"])
def test_an_image_without_holes_gives_none_and_says_why(finder: NetHoleFinder, kind: str) -> None:
    noise = np.random.default_rng(0).normal(0, 1, (400, 400))
    y, x = np.mgrid[:400, :400]
    image = {"noise": noise, "black": np.zeros((400, 400)), "stripes": (x % 40 < 20) + 0.1 * noise, "slope": x + y}[
        kind
    ]
    finding = finder.find(np.asarray(image, np.float32))
    assert finding.holes == ()
    assert "no holes" in finding.note


def test_what_is_no_image_is_refused(finder: NetHoleFinder) -> None:
    with pytest.raises(BadImageError):
        finder.find(np.zeros((3, 4, 5)))


def test_simulated_grids_of_middle_difficulty_are_found_nearly_whole(finder: NetHoleFinder) -> None:
    for example in hole_set("middle", 3, seed=5):
        found = finder.find(example.image).holes
        score = tally(example.truth, np.array([[h.x, h.y] for h in found]).reshape(-1, 2))
        assert score.recall > 0.93, example.name
        assert score.precision > 0.93, example.name


def test_every_size_of_hole_falls_into_the_network_s_octave_on_some_level() -> None:
    for shape in ((200, 300), (1024, 1024), (3000, 2000)):
        work = prepare(np.random.default_rng(0).normal(0, 1, shape).astype(np.float32))
        assert work is not None
        levels = levels_of(work)
        finest, coarsest = max(lv.scale for lv in levels), min(lv.scale for lv in levels)
        for radius in np.geomspace(SMALLEST / finest, min(LARGEST / coarsest, 0.4 * min(work.values.shape)), 40):
            assert any(SMALLEST <= radius * level.scale <= LARGEST for level in levels), (shape, radius)
        assert all(n % 16 == 0 for level in levels for n in level.planes.shape[1:])


def test_a_pixel_size_leaves_out_sizes_that_no_foil_has_unless_nothing_is_left() -> None:
    points = np.zeros((2, 2))
    found = Proposals(points, np.array([10.0, 200.0]), np.array([0.8, 0.9]), np.full(2, 0.5), np.zeros(2, np.int64))
    assert possible(found, 1000.0).radius.tolist() == [10.0]  # 1 µm, and 20 µm
    assert possible(found, 1.0).radius.tolist() == [10.0, 200.0]  # a header's placeholder: 1 nm and 20 nm


def test_holes_that_a_bar_cuts_are_partial_and_come_after_the_whole_ones(finder: NetHoleFinder) -> None:
    grid = Specimen(SpecimenSettings(seed=3, grid_radius_um=330.0, foil="gold", ice="good"))
    view = View(-109.4, -167.5, 2000.0, (512, 512), dose_e_per_a2=2e-4)  # a whole square
    whole = np.array([grid.stage_to_pixel(view, h.x_um, h.y_um) for s in grid.squares for h in grid.holes(s.index)])
    cut = np.array([grid.stage_to_pixel(view, x, y) for s in grid.squares for x, y, _ in grid.cut_holes(s.index)])
    found = finder.find(grid.render(view)).holes
    at = np.array([[h.x, h.y] for h in found])
    to_whole, to_cut = (np.hypot(*(at[:, None] - known[None]).transpose(2, 0, 1)).min(axis=1) for known in (whole, cut))
    is_cut = (to_cut < 6) & (to_whole > 6)
    assert is_cut.sum() > 15
    partial = np.array([h.label == "partial" for h in found])
    assert partial[is_cut].mean() > 0.9
    assert partial[~is_cut].mean() < 0.06
    assert not is_cut[: len(found) // 2].any()
    assert sum(h.label == "good" for h in found) > 0.85 * len(found), "one ice everywhere, none of them is empty"


def test_the_size_that_explains_most_comes_first_and_one_place_is_one_hole() -> None:
    rng = np.random.default_rng(3)
    small, large = rng.uniform(0, 400, (30, 2)), np.array([[50.0, 50.0], [150.0, 50.0], [50.0, 150.0], [51.0, 50.5]])
    found = Proposals(
        np.concatenate([large, small]),
        np.concatenate([np.full(4, 30.0), np.full(30, 4.0)]),
        np.concatenate([[0.9, 0.9, 0.9, 0.5], np.full(30, 0.8)]),
        np.full(34, 0.5),
        np.zeros(34, np.int64),
    )
    first = sizes(found)[0]
    assert first == pytest.approx(30.0, rel=0.1)
    assert len(of_size(found, first).points) == 3


def test_the_fingerprint_names_weights_and_code(finder: NetHoleFinder) -> None:
    weights, line, code = finder.fingerprint.split("-")
    assert len(line) == 8
    assert weights == runtime.load("holes-net").fingerprint
    assert len(code) == 16
    assert finder.provider == "CPU"


def test_a_site_s_own_weights_are_taken_by_their_manifest(tmp_path: Path) -> None:
    for suffix in (".onnx", ".yaml"):
        (tmp_path / f"holes-net{suffix}").write_bytes((runtime.WEIGHTS / f"holes-net{suffix}").read_bytes())
    assert NetHoleFinder(tmp_path / "holes-net.yaml").fingerprint == NetHoleFinder().fingerprint


def torn_and_tilted(blur_px: float) -> tuple[np.ndarray, np.ndarray]:
    """A scrap of film in a frame of dark bars and open beam, few electrons everywhere, and its holes."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:640, :640]
    film = (x > 200) & (x < 360) & (y > 60) & (y < 480)
    truth = lattice_points((640, 640), 30.0, 9.0, tilt=0.73)
    truth = truth[(truth[:, 0] > 210) & (truth[:, 0] < 350) & (truth[:, 1] > 70) & (truth[:, 1] < 470)]
    level = np.where(film, 60.0, 10.0)
    level[(x >= 360) & (x < 560) & (y > 60) & (y < 480)] = 100.0
    for u, v in truth:
        level += 9.0 * np.clip(6.5 - np.hypot(x - u, y - v) + 0.5, 0, 1)
    return cv2.GaussianBlur(rng.poisson(level).astype(np.float32), (0, 0), blur_px), truth


@pytest.mark.parametrize("blur_px", [0.8, 1.5])
def test_noise_of_bars_and_of_the_open_beam_does_not_hide_the_lattice_of_a_scrap_of_tilted_film(
    finder: NetHoleFinder, blur_px: float
) -> None:
    image, truth = torn_and_tilted(blur_px)
    finding = finder.find(image)
    assert finding.lattice is not None
    assert finding.lattice.symmetry == "oblique"
    lost, false = missed(finding, truth, 4.0)
    assert lost <= 0.1 * len(truth)
    assert false <= 0.15 * len(truth)


def test_a_bar_is_where_no_foil_is_round_a_place_and_no_hole_shows() -> None:
    image, truth = torn_and_tilted(0.8)
    work = prepare(image)
    assert work is not None
    bars = Bars.beside(work, truth, 6.5, 1)
    assert not bars.at(truth).any()
    assert bars.at(np.array([[60.0, 300.0], [600.0, 600.0]])).all()  # dark
    assert not bars.at((truth[1:] + truth[:-1]) / 2).any()  # foil between holes
