"""The specimen: its truth is fixed, and its pictures show that truth."""

import dataclasses
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from simulators.specimen import HoleTruth, Specimen, SpecimenSettings, View, optics
from simulators.specimen import gallery as galleries

SMALL = SpecimenSettings(seed=3, grid_radius_um=260)
GOLD = SpecimenSettings(seed=5, grid_radius_um=200, foil="gold", ice="good")
POOR = SpecimenSettings(seed=7, grid_radius_um=450, ice="poor")


@pytest.fixture(scope="module")
def small() -> Specimen:
    return Specimen(SMALL)


@pytest.fixture(scope="module")
def gold() -> Specimen:
    return Specimen(GOLD)


@pytest.fixture(scope="module")
def poor() -> Specimen:
    return Specimen(POOR)


def best_hole(grid: Specimen) -> HoleTruth:
    return max((h for s in grid.squares for h in grid.holes(s.index)), key=lambda h: h.quality)


def blobs(image: NDArray[np.uint16], level: float) -> NDArray[np.float64]:
    """Centres (x, y) of bright blobs that do not touch the border: what a person would mark."""
    smooth = ndimage.gaussian_filter(image.astype(float), 1.5)
    labels, _ = ndimage.label(smooth > level)
    border = set(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]).tolist())
    sizes = np.bincount(labels.ravel())
    keep = [n for n in range(1, len(sizes)) if n not in border and sizes[n] > 30]
    centres = ndimage.center_of_mass(np.ones_like(labels), labels, keep)
    return np.array(centres)[:, ::-1]


def test_the_same_seed_gives_the_same_pixels() -> None:
    view = View(0, 0, 3000, (256, 256), defocus_um=20)
    np.testing.assert_array_equal(Specimen(SMALL).render(view), Specimen(SMALL).render(view))


def test_another_seed_gives_another_grid(small: Specimen) -> None:
    other = Specimen(dataclasses.replace(SMALL, seed=4))
    assert [s.ice_nm for s in other.squares] != [s.ice_nm for s in small.squares]


def test_noise_differs_between_exposures_and_the_specimen_does_not(gold: Specimen) -> None:
    hole = best_hole(gold)
    view = View(hole.x_um, hole.y_um, 200, (256, 256), defocus_um=50, dose_e_per_a2=0.01)
    one, two = gold.render(view), gold.render(dataclasses.replace(view, frame_seed=1))
    assert (one != two).mean() > 0.8
    smooth = [ndimage.uniform_filter(a.astype(float), 9) for a in (one, two)]
    assert np.corrcoef(smooth[0].ravel(), smooth[1].ravel())[0, 1] > 0.99


def test_truth_does_not_depend_on_the_order_of_calls() -> None:
    one, two = Specimen(SMALL), Specimen(SMALL)
    view = View(20, 30, 8, (64, 64))
    forward = [one.holes(k) for k in range(4)]
    objects = one.objects(view)
    assert two.objects(view) == objects
    two.render(View(0, 0, 4000, (64, 64)))
    assert [two.holes(k) for k in (3, 2, 1, 0)][::-1] == forward
    assert two.squares == one.squares


def test_overlapping_micrographs_show_the_same_grain(gold: Specimen) -> None:
    hole = best_hole(gold)
    view = View(hole.x_um, hole.y_um, 2, (512, 512), defocus_um=1.5, dose_e_per_a2=4000)
    moved = dataclasses.replace(view, x_um=hole.x_um + 128 * 2e-4, frame_seed=9)
    one, two = gold.render(view).astype(float), gold.render(moved).astype(float)
    same = np.corrcoef(one[64:-64, 192:-64].ravel(), two[64:-64, 64:-192].ravel())[0, 1]
    assert same > 0.9


@pytest.mark.parametrize(("rotation", "tilt"), [(0.0, 0.0), (37.0, 0.0), (0.0, 40.0), (-110.0, 25.0)])
def test_pixels_and_stage_are_inverse_maps(small: Specimen, rotation: float, tilt: float) -> None:
    view = View(12.5, -40.0, 150, (300, 500), rotation_deg=rotation, tilt_deg=tilt)
    x, y = small.stage_to_pixel(view, *small.pixel_to_stage(view, 17.0, 250.5))
    assert (x, y) == pytest.approx((17.0, 250.5), abs=1e-6)
    assert small.pixel_to_stage(view, 249.5, 149.5) == pytest.approx((12.5, -40.0))
    a, b, c, d = small.image_to_stage(view)
    assert small.pixel_to_stage(view, 250.5, 151.5) == pytest.approx((12.5 + a + 2 * b, -40.0 + c + 2 * d))


def test_image_axes_are_stage_axes_without_rotation(small: Specimen) -> None:
    view = View(0, 0, 1000, (101, 101))
    assert small.pixel_to_stage(view, 60, 50) == pytest.approx((1.0, 0.0))
    assert small.pixel_to_stage(view, 50, 60) == pytest.approx((0.0, 1.0))


@pytest.mark.parametrize(("rotation", "tilt"), [(0.0, 0.0), (25.0, 0.0), (10.0, 35.0)])
def test_bright_blobs_lie_where_the_truth_has_holes(gold: Specimen, rotation: float, tilt: float) -> None:
    square = max(gold.squares, key=lambda s: s.quality)
    view = View(square.x_um, square.y_um, 400, (512, 512), rotation_deg=rotation, tilt_deg=tilt, dose_e_per_a2=0.01)
    image = gold.render(view)
    found = blobs(image, 0.5 * 0.01 * 400**2)
    expected = np.array([gold.stage_to_pixel(view, h.x_um, h.y_um) for h in gold.holes(square.index)])
    away = np.hypot(*(found[:, None] - expected[None]).transpose(2, 0, 1)).min(axis=1)
    assert len(found) > 12
    assert np.median(away) < 1.0
    assert (away < 3.0).mean() > 0.9


def test_tilt_foreshortens_stage_y_by_its_cosine(small: Specimen) -> None:
    square = max((s for s in small.squares if s.state == "good"), key=lambda s: s.quality)
    flat = View(square.x_um, square.y_um, 300, (700, 700), dose_e_per_a2=0.01)
    spread = []
    for view in (flat, dataclasses.replace(flat, tilt_deg=50.0)):
        lit = small.render(dataclasses.replace(view, pixel_size_angstrom=2500.0)) > 0.25 * 0.01 * 2500**2
        labels, _ = ndimage.label(ndimage.binary_closing(lit, iterations=2))
        ys, xs = np.nonzero(labels == np.bincount(labels[300:400, 300:400].ravel())[1:].argmax() + 1)
        spread.append((xs.std(), ys.std()))
    assert spread[1][0] == pytest.approx(spread[0][0], rel=0.02)
    assert spread[1][1] == pytest.approx(spread[0][1] * math.cos(math.radians(50)), rel=0.03)


def test_an_empty_hole_passes_the_whole_dose(poor: Specimen) -> None:
    empty = [h for s in poor.squares for h in poor.holes(s.index) if h.state == "empty" and h.contamination < 0.004]
    assert empty
    image = poor.render(View(empty[0].x_um, empty[0].y_um, 10, (400, 400), dose_e_per_a2=2.0))
    assert np.median(image) == pytest.approx(2.0 * 10**2, rel=0.03)


def test_ice_takes_its_share_of_the_dose(gold: Specimen) -> None:
    hole = best_hole(gold)
    image = gold.render(View(hole.x_um, hole.y_um, 50, (64, 64), dose_e_per_a2=1.0))
    mean_free_path_nm = 303.0  # amplitude contrast 0.07 at 300 kV
    assert np.median(image) == pytest.approx(2500 * math.exp(-hole.ice_nm / mean_free_path_nm), rel=0.04)


def test_matter_is_dark_in_underfocus_and_bright_in_overfocus() -> None:
    y, x = np.mgrid[:256, :256] - 128.0
    phase = (0.05 * np.exp(-(x * x + y * y) / (2 * 8.0**2))).astype(np.float32)  # a blob of 38 Å diameter
    middle = [optics.expose(phase, 0.07 * phase, 2.0, 300.0, z)[128, 128] for z in (1.5, 0.0, -1.5)]
    assert middle[0] < middle[1] - 0.005 < 1 - 0.007
    assert middle[2] > 1.005


@pytest.mark.parametrize("defocus_um", [0.8, 1.6])
def test_thon_rings_are_dark_where_the_formula_says(gold: Specimen, defocus_um: float) -> None:
    hole = best_hole(gold)
    px, n = 1.6, 768
    view = View(hole.x_um, hole.y_um, px, (n, n), defocus_um=defocus_um, dose_e_per_a2=8000)
    image = gold.render(view).astype(float)
    window = np.hanning(n)[:, None] * np.hanning(n)[None, :]
    power = np.abs(np.fft.fft2((image / image.mean() - 1) * window)) ** 2
    k = np.hypot(np.fft.fftfreq(n, px)[:, None], np.fft.fftfreq(n, px)[None, :])
    bins = np.rint(k * n * px).astype(int).ravel()
    radial = np.log(np.bincount(bins, power.ravel())[: n // 2] / np.bincount(bins)[: n // 2])

    lam, cs = 0.019687, 2.7e7  # Å at 300 kV, Å
    fine = np.linspace(0.01, 0.2, 40000)
    contrast = np.sin(
        math.pi * lam * defocus_um * 1e4 * fine**2 - 0.5 * math.pi * cs * lam**3 * fine**4 + math.asin(0.07)
    )
    zeros = fine[1:][np.diff(np.sign(contrast)) != 0][:3]
    for zero in zeros:
        at = zero * n * px
        near = np.arange(round(at) - 5, round(at) + 6)
        assert abs(near[np.argmin(radial[near])] - at) <= 2.0


def test_astigmatism_makes_rings_oval(gold: Specimen) -> None:
    hole = best_hole(gold)
    view = View(hole.x_um, hole.y_um, 1.6, (512, 512), defocus_um=1.5, dose_e_per_a2=8000)
    views = (view, dataclasses.replace(view, astigmatism_um=0.4))
    powers = [np.abs(np.fft.fft2(gold.render(v).astype(float))) ** 2 for v in views]
    along = [p[1:60, :4].mean(axis=1) for p in powers]
    across = [p[:4, 1:60].mean(axis=0) for p in powers]
    assert (
        np.corrcoef(np.log(along[0]), np.log(across[0]))[0, 1]
        > np.corrcoef(np.log(along[1]), np.log(across[1]))[0, 1] + 0.1
    )


def test_gold_objects_are_dark_spots() -> None:
    grid = Specimen(dataclasses.replace(GOLD, foil="carbon", content=("gold",), grid_radius_um=120))
    hole = best_hole(grid)
    view = View(hole.x_um, hole.y_um, 5.6, (900, 900), defocus_um=0.8, dose_e_per_a2=30)
    image = ndimage.uniform_filter(grid.render(view).astype(float), 3)
    found = grid.objects(view)
    kinds = {o.kind for o in found}
    assert kinds == {"gold6", "gold12"}
    places = np.rint([grid.stage_to_pixel(view, o.x_um, o.y_um) for o in found]).astype(int)
    inside = image[np.clip(places[:, 1], 0, 899), np.clip(places[:, 0], 0, 899)]
    assert (inside < 0.8 * np.median(image)).mean() > 0.95
    sizes = {kind: np.mean([o.diameter_nm for o in found if o.kind == kind]) for kind in kinds}
    assert sizes["gold6"] == pytest.approx(6, abs=0.5)
    assert sizes["gold12"] == pytest.approx(12, abs=0.9)


def test_objects_lie_in_holes_with_ice_and_keep_apart(gold: Specimen) -> None:
    hole = best_hole(gold)
    found = gold.objects(View(hole.x_um, hole.y_um, 10, (1000, 1000)))
    points = np.array([(o.x_um, o.y_um) for o in found])
    assert len(found) > 20
    assert np.hypot(points[:, 0] - hole.x_um, points[:, 1] - hole.y_um).max() < hole.radius_um
    away = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1)) + np.eye(len(points))
    assert away.min() > 0.99 * found[0].diameter_nm * 1e-3


def test_vesicles_are_rings_of_their_diameter() -> None:
    grid = Specimen(dataclasses.replace(GOLD, foil="carbon", content=("vesicles",), grid_radius_um=120))
    hole = best_hole(grid)
    view = View(hole.x_um, hole.y_um, 6, (1024, 1024), defocus_um=1.0, dose_e_per_a2=400)
    image = grid.render(view).astype(float)
    rims, middles = [], []
    for vesicle in grid.objects(view):
        x, y = grid.stage_to_pixel(view, vesicle.x_um, vesicle.y_um)
        if not 60 < x < 964 or not 60 < y < 964:
            continue
        r = np.hypot(np.arange(1024)[None, :] - x, np.arange(1024)[:, None] - y) * 0.6
        rims.append(image[np.abs(r - vesicle.diameter_nm / 2 + 2.5) < 2].mean())
        middles.append(image[r < 0.25 * vesicle.diameter_nm].mean())
        assert 25 < vesicle.diameter_nm < 65
    assert len(rims) > 5
    assert np.mean(rims) < np.mean(middles) < 1.1 * np.median(image)


@pytest.mark.parametrize(("lattice", "neighbours"), [("square", 4), ("hexagonal", 6)])
def test_a_hole_has_the_neighbours_of_its_lattice(lattice: str, neighbours: int) -> None:
    settings = SpecimenSettings(seed=2, grid_radius_um=90, lattice=lattice, ice="good")  # type: ignore[arg-type]
    grid = Specimen(settings)
    points = np.array([(h.x_um, h.y_um) for h in grid.holes(0)])
    square = grid.squares[0]
    middle = np.argmin(np.hypot(points[:, 0] - square.x_um, points[:, 1] - square.y_um))
    away = np.sort(np.hypot(*(points - points[middle]).T))
    assert away[1 : neighbours + 1] == pytest.approx(settings.hole_pitch_um, rel=0.03)
    assert away[neighbours + 1] > 1.3 * settings.hole_pitch_um


@pytest.mark.parametrize("mesh", ["square", "hexagonal"])
def test_light_falls_through_openings_and_not_through_bars(mesh: str) -> None:
    settings = SpecimenSettings(seed=6, grid_radius_um=300, mesh=mesh, ice="good")  # type: ignore[arg-type]
    grid = Specimen(settings)
    view = View(0, 0, 8000, (900, 900), dose_e_per_a2=1e-4)
    image = grid.render(view).astype(float)
    open_beam = 1e-4 * 8000**2
    lit = []
    for square in grid.squares:
        x, y = grid.stage_to_pixel(view, square.x_um, square.y_um)
        lit.append(np.median(image[round(y) - 8 : round(y) + 9, round(x) - 8 : round(x) + 9]) > 0.3 * open_beam)
        edge = np.array([grid.stage_to_pixel(view, *v) for v in square.vertices_um])
        outside = np.rint(1.08 * (edge - (x, y)) + (x, y)).astype(int)
        assert np.median(image[outside[:, 1], outside[:, 0]]) < 0.1 * open_beam
    assert len(lit) > 10
    assert np.mean(lit) > 0.9


def test_squares_and_holes_are_found_by_their_place(small: Specimen) -> None:
    square = max(small.squares, key=lambda s: s.quality)
    assert small.square_at(square.x_um, square.y_um) == square
    hole = small.holes(square.index)[3]
    assert small.hole_at(hole.x_um + 0.3 * hole.radius_um, hole.y_um) == hole
    corner = np.array(square.vertices_um).max(axis=0) + 12.0
    assert small.square_at(*corner) is None
    assert small.hole_at(1e6, 0.0) is None


def test_a_squares_quality_is_the_mean_of_its_holes(small: Specimen) -> None:
    for square in small.squares:
        holes = small.holes(square.index)
        assert square.quality == pytest.approx(np.mean([h.quality for h in holes]), abs=1e-9)
        assert all(0 <= h.quality <= 1 and 0 <= h.crystalline <= 1 and 0 <= h.contamination <= 1 for h in holes)


def test_a_poor_grid_has_squares_of_every_kind() -> None:
    grid = Specimen(SpecimenSettings(seed=1, ice="poor"))
    assert {s.state for s in grid.squares} == {"good", "thick", "thin", "empty", "broken", "dark"}
    assert len(grid.squares) > 100


def test_inverted_pictures_are_bright_where_bars_are() -> None:
    plain, turned = Specimen(SMALL), Specimen(dataclasses.replace(SMALL, inverted=True))
    view = View(0, 0, 4000, (300, 300))
    one, two = plain.render(view).astype(float), turned.render(view).astype(float)
    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] < -0.99


def test_nothing_is_lit_outside_the_beam(small: Specimen) -> None:
    square = max(small.squares, key=lambda s: s.quality)
    view = View(square.x_um, square.y_um, 500, (400, 400), dose_e_per_a2=0.01, beam_radius_um=5.0)
    image = small.render(view)
    assert image[:40, :40].max() < 5
    assert image[195:205, 195:205].mean() > 0.3 * 0.01 * 500**2


def test_drift_takes_detail_away_in_one_direction_only(gold: Specimen) -> None:
    hole = best_hole(gold)
    view = View(hole.x_um, hole.y_um, 2, (512, 512), defocus_um=1.0, dose_e_per_a2=8000)
    still = np.abs(np.fft.fft2(gold.render(view).astype(float)))
    moved = np.abs(np.fft.fft2(gold.render(dataclasses.replace(view, drift_angstrom=12.0)).astype(float)))
    ratio = moved / np.maximum(still, 1e-9)
    ky, kx = np.fft.fftfreq(512)[:, None], np.fft.fftfreq(512)[None, :]
    ring = (np.hypot(kx, ky) > 0.08) & (np.hypot(kx, ky) < 0.16)
    angle = np.arctan2(ky, kx) * np.ones_like(kx)
    by_angle = [np.median(ratio[ring & (np.abs(np.mod(angle - a, np.pi)) < 0.2)]) for a in np.arange(0, np.pi, 0.2)]
    assert min(by_angle) < 0.5
    assert max(by_angle) > 0.85


def test_counts_of_a_bright_low_view_fit_the_camera(small: Specimen) -> None:
    image = small.render(View(0, 0, 8000, (200, 200), dose_e_per_a2=0.1))
    assert image.dtype == np.uint16
    assert 20000 < image.max() < 40000


def test_crystals_roughen_a_micrograph(poor: Specimen) -> None:
    holes = [
        h
        for s in poor.squares
        for h in poor.holes(s.index)
        if h.state == "good" and h.contamination < 0.02 and h.ice_nm > 30
    ]
    rough, smooth = max(holes, key=lambda h: h.crystalline), min(holes, key=lambda h: h.crystalline)
    spread = []
    for hole in (rough, smooth):
        image = poor.render(View(hole.x_um, hole.y_um, 8, (512, 512), defocus_um=1, dose_e_per_a2=40)).astype(float)
        slow = ndimage.gaussian_filter(image, 12)[40:-40, 40:-40]
        spread.append(np.percentile(slow, 90) - np.percentile(slow, 10))
    assert spread[0] > 1.5 * spread[1]


@pytest.mark.parametrize(
    "wrong",
    [{"bar_um": 200.0}, {"hole_diameter_um": 5.0}, {"content": ("worms",)}],
    ids=["bar wider than the pitch", "hole wider than the pitch", "unknown content"],
)
def test_a_grid_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SpecimenSettings(**wrong)  # type: ignore[arg-type]


def test_a_view_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="pixel size"):
        View(0, 0, -1, (10, 10))
    with pytest.raises(ValueError, match="tilt"):
        View(0, 0, 10, (10, 10), tilt_deg=90)


def test_the_gallery_puts_real_pictures_between_its_own(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    import cv2

    real = tmp_path / "lowmag"
    real.mkdir()
    cv2.imwrite(str(real / "a.png"), np.eye(40, dtype=np.uint8) * 200)
    few = [("one", np.arange(2500, dtype=np.uint16).reshape(50, 50))] * 2
    monkeypatch.setattr(galleries, "low", lambda seed: few)
    galleries.contact_sheet(tmp_path / "sheet.png", against=real)
    sheet = cv2.imread(str(tmp_path / "sheet.png"), cv2.IMREAD_GRAYSCALE)
    assert sheet.shape == (galleries.CELL + 18, 4 * galleries.CELL)
    assert sheet[:, 2 * galleries.CELL : 3 * galleries.CELL].any()
    assert not sheet[:, 3 * galleries.CELL :].any()
