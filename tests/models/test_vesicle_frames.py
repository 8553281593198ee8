"""Vesicles in frames: the simulated truth is found at any magnification, the same in every tiling; doubt where due."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("onnxruntime", reason="the runtime of the networks is not installed (cpu or gpu extra)")

from agent.inference import build_detector, detect
from agent.settings import InferenceSettings
from models.gold.matching import matched
from models.vesicles.discs import Disc, apart
from models.vesicles.frames import FrameDetector
from models.vesicles.live import LARGE, SMALL, LiveVesicles
from simulators.specimen import Specimen, SpecimenSettings, View
from simulators.specimen.vesicles import DIFFICULTIES, Kind, VesicleFrame, render

pytestmark = pytest.mark.timeout(400)  # real networks, on any machine
PIXEL: dict[Kind, float] = {"cryo": 1.4, "section": 1.3, "fib": 4.0}


@lru_cache(maxsize=8)
def made(kind: Kind = "section", difficulty: str = "easy", seed: int = 8_200_001) -> VesicleFrame:
    side = round(640 / PIXEL[kind])
    return render(DIFFICULTIES[difficulty][kind], seed, (side, side + 40), PIXEL[kind])


@lru_cache(maxsize=1)
def in_one_piece() -> list[Disc]:
    return FrameDetector().candidates(made().image, PIXEL["section"])


def sure(found: list[Disc]) -> list[Disc]:
    return [d for d in found if d.score >= FrameDetector().threshold_score]


def scored(found: list[Disc], frame: VesicleFrame) -> tuple[float, float, float]:
    """Recall of what is surely visible, precision, median ratio of the diameters."""
    truth = np.array([(v.x, v.y) for v in frame.vesicles]).reshape(-1, 2)
    said = np.array([(d.x, d.y) for d in found]).reshape(-1, 2)
    reach = np.array([v.diameter_nm / 2 / frame.pixel_nm for v in frame.vesicles])
    pairs = matched(truth, said, reach)
    seen = [(i, j) for i, j in pairs if frame.vesicles[i].visible]
    ratio = np.median([found[j].diameter_nm / frame.vesicles[i].diameter_nm for i, j in seen])
    return len(seen) / sum(v.visible for v in frame.vesicles), len(pairs) / max(1, len(found)), float(ratio)


@pytest.mark.parametrize("kind", ["cryo", "section", "fib"])
def test_vesicles_of_every_kind_of_frame_are_found_with_their_diameters(kind: Kind) -> None:
    recall = precision = 0.0
    for seed in (8_200_006, 8_200_007):
        frame = made(kind, "easy", seed)
        r, p, ratio = scored(sure(FrameDetector().candidates(frame.image, frame.pixel_nm)), frame)
        assert ratio == pytest.approx(1, abs=0.06)
        recall, precision = recall + r / 2, precision + p / 2
    assert recall > 0.8
    assert precision > 0.85


@settings(max_examples=4, deadline=None, derandomize=True)
@given(side=st.integers(64, 300))
def test_every_tiling_gives_the_same_vesicles_each_once(side: int) -> None:
    tiled = FrameDetector(tile_px=side).candidates(made().image, PIXEL["section"])
    whole = in_one_piece()
    assert len(tiled) == len(whole) > 10
    for a, b in zip(tiled, whole, strict=True):
        assert (a.x, a.y, a.diameter_nm) == pytest.approx((b.x, b.y, b.diameter_nm), abs=0.02)
        assert a.score == pytest.approx(b.score, abs=1e-3)


def test_diameters_in_nm_and_places_do_not_hang_on_the_pixel_size() -> None:
    frame = made("cryo")
    half = frame.image[: frame.image.shape[0] // 2 * 2, : frame.image.shape[1] // 2 * 2]
    half = half.reshape(half.shape[0] // 2, 2, half.shape[1] // 2, 2).mean(axis=(1, 3))
    fine = sure(FrameDetector().candidates(frame.image, frame.pixel_nm))
    coarse = sure(FrameDetector().candidates(half, 2 * frame.pixel_nm))
    a = np.array([(d.x + 0.5, d.y + 0.5) for d in fine])
    b = np.array([(2 * (d.x + 0.5), 2 * (d.y + 0.5)) for d in coarse])
    pairs = matched(a, b, 6.0)
    assert len(pairs) > 0.75 * max(len(a), len(b))
    assert np.median([abs(np.log(coarse[j].diameter_nm / fine[i].diameter_nm)) for i, j in pairs]) < 0.04


def test_bright_membranes_and_missing_pixels_change_nothing_that_matters() -> None:
    frame = made()
    turned = FrameDetector().candidates(255 - frame.image, frame.pixel_nm, dark=False)
    assert len(sure(turned)) == len(sure(in_one_piece()))
    holed = frame.image.astype(np.float32)
    holed[::50, ::50] = np.nan
    assert abs(len(sure(FrameDetector().candidates(holed, frame.pixel_nm))) - len(sure(in_one_piece()))) < 4


@pytest.mark.parametrize(("angstrom", "side"), [(14.0, 600)])
def test_vesicles_of_the_simulated_microscope_another_simulator_are_found(angstrom: float, side: int) -> None:
    specimen = Specimen(SpecimenSettings(seed=3, content=("vesicles",)))
    square = next(s for s in specimen.squares if s.state == "good")
    hole = next(h for h in specimen.holes(square.index) if h.state == "good")
    view = View(hole.x_um, hole.y_um, angstrom, (side, side), dose_e_per_a2=20, defocus_um=3.0)
    answer = detect(LiveVesicles(), specimen.render(view), angstrom)
    places = [(*specimen.stage_to_pixel(view, o.x_um, o.y_um), o.diameter_nm) for o in specimen.objects(view)]
    truth = np.array([p for p in places if 0 <= min(p[:2]) and max(p[:2]) < side])
    said = np.array([(o.x, o.y) for o in answer.objects]).reshape(-1, 2)
    pairs = matched(truth[:, :2], said, 150.0 / angstrom)
    assert len(truth) > 5
    assert len(pairs) > 0.7 * len(truth)
    assert len(pairs) > 0.7 * len(said)
    ratio = [(answer.objects[j].diameter_nm or 0) / truth[i, 2] for i, j in pairs]
    assert np.median(ratio) == pytest.approx(1, abs=0.12)


def test_a_frame_that_cannot_be_judged_says_why_in_one_line_and_finds_nothing() -> None:
    live = build_detector("vesicles", InferenceSettings())
    image = made().image
    for pixel_size, says in ((None, "no pixel size"), (0.5, "pixel size 0.05 nm"), (200.0, "pixel size 20 nm")):
        answer = live.detect(image, pixel_size)
        assert not answer.objects
        assert says in answer.note
        assert "\n" not in answer.note
    blank = live.detect(np.full((300, 300), 7, np.uint8), 13.0)
    assert (blank.objects, blank.note) == ((), "no vesicles found")


@pytest.mark.parametrize("kind", ["cryo", "section", "fib"])
def test_where_there_are_no_vesicles_hardly_any_are_found(kind: Kind) -> None:
    side = round(900 / PIXEL[kind])
    found = 0
    for seed in (8_300_001,):
        look = replace(DIFFICULTIES["medium"][kind], per_um2=0.0)
        frame = render(look, seed, (side, side), PIXEL[kind])
        found += len(sure(FrameDetector().candidates(frame.image, PIXEL[kind])))
    assert found <= 5  # on 0.8 µm², where as many vesicles as usual would be 80 to 250


def test_the_groups_are_counted_and_a_wrong_scale_is_doubted() -> None:
    frame = made()
    answer = detect(LiveVesicles(), frame.image, 10 * frame.pixel_nm)
    assert sum(answer.counts.values()) == len(answer.objects) > 20
    assert set(answer.counts) <= {SMALL, LARGE}
    assert answer.doubt == ""
    assert all(a.score >= b.score for a, b in zip(answer.objects, answer.objects[1:], strict=False))


def test_one_vesicle_seen_twice_is_kept_once_and_neighbours_that_touch_are_both_kept() -> None:
    twice = [Disc(10, 10, 40, 0.9), Disc(14, 10, 40, 0.7), Disc(50, 10, 40, 0.8), Disc(50, 49, 38, 0.6)]
    assert [d.score for d in apart(twice, 1.0)] == [0.9, 0.8, 0.6]
