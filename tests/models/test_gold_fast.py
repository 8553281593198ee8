"""The default gold detector: simulated truth is found, at any magnification, the same in every tiling."""

from functools import lru_cache

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("onnxruntime", reason="the runtime of the networks is not installed (cpu or gpu extra)")

from agent.inference import build_detector
from agent.settings import InferenceSettings
from models.gold import FastDetector, find
from models.gold.fast import apart
from models.gold.matching import matched
from models.gold.records import Candidate
from simulators.specimen import Specimen, SpecimenSettings, View
from simulators.specimen.immunogold import DIFFICULTIES, Look, render

pytestmark = pytest.mark.timeout(400)  # real programs and networks, on any machine


@lru_cache(maxsize=8)
def made(name: str = "easy", pixel_nm: float = 1.126, side: int = 560):
    return render(DIFFICULTIES[name], 21, (side, side + 60), pixel_nm)


@lru_cache(maxsize=1)
def in_one_piece():
    return FastDetector(tile_px=1024).candidates(made().image, 1.126)


def scored(image, found, near_nm=3.0):
    """(recall of what can be seen, precision)."""
    beads = [b for b in image.beads if b.visible]
    truth = np.array([(b.x, b.y) for b in image.beads]).reshape(-1, 2)
    said = np.array([(p.x, p.y) for p in found.particles]).reshape(-1, 2)
    pairs = matched(truth, said, max(near_nm / image.pixel_nm, 1.5))
    seen = sum(image.beads[i].visible for i, _ in pairs)
    return seen / len(beads), len(pairs) / max(1, len(said))


@settings(max_examples=8, deadline=None, derandomize=True)
@given(side=st.integers(40, 700))
@example(side=96)
def test_every_tiling_gives_the_same_particles_each_once(side):
    tiled = FastDetector(tile_px=side).candidates(made().image, 1.126)
    whole = in_one_piece()
    assert len(tiled) == len(whole) > 10
    for a, b in zip(tiled, whole, strict=True):
        assert (a.x, a.y, a.diameter_nm) == pytest.approx((b.x, b.y, b.diameter_nm), abs=0.02)
        assert a.score == pytest.approx(b.score, abs=1e-3)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_particle_on_a_tile_border_is_found_once(data):
    # borders of 128-pixel tiles cross a lattice of particles at random phases
    dx, dy = data.draw(st.floats(0, 1)), data.draw(st.floats(0, 1))
    image = np.random.default_rng(0).normal(180, 6, (300, 300))
    truth = [(128 * i + dx * 2 - 1, 40 + 45 * j + dy) for i in (1, 2) for j in range(5)]
    y, x = np.mgrid[0:300, 0:300]
    for cx, cy in truth:
        image -= 140 / (1 + np.exp((np.hypot(x - cx, y - cy) - 5.4) / 0.6))
    found = find(FastDetector(tile_px=128), image, 1.1)
    assert len(found.particles) == len(truth)
    assert len(matched(np.array(truth), np.array([(p.x, p.y) for p in found.particles]), 0.5)) == len(truth)


@pytest.mark.parametrize("pixel_nm", [0.45, 0.8, 1.126, 2.0])
def test_one_set_of_weights_serves_all_magnifications(pixel_nm):
    side = 1400 if pixel_nm < 1.0 else 900  # a few dozen particles at least: one missed is no verdict
    image = made("easy", pixel_nm, side)
    found = find(FastDetector(), image.image, pixel_nm, (6, 12))
    recall, precision = scored(image, found)
    assert recall >= 0.93
    assert precision >= 0.93
    for group in (g for g in found.groups if g.count > 5):  # at half depth; a sphere lets more through at its rim
        assert 0.82 < group.mean_nm / float(group.name.split()[0]) < 1.05


def test_centres_are_within_a_third_of_a_pixel():
    image = made("easy", 1.126, 900)
    found = find(FastDetector(), image.image, 1.126)
    truth = np.array([(b.x, b.y) for b in image.beads])
    said = np.array([(p.x, p.y) for p in found.particles])
    errors = [np.hypot(*(truth[i] - said[j])) for i, j in matched(truth, said, 3.0)]
    assert np.sqrt(np.mean(np.square(errors))) < 0.3


def test_brightness_contrast_and_type_of_the_pixels_do_not_matter():
    image = made().image
    plain = find(FastDetector(), image, 1.126)
    deep = find(FastDetector(), (image.astype(np.uint16) * 37 + 1000), 1.126)
    assert len(deep.particles) == len(plain.particles)
    holed = image.astype(np.float32)
    holed[5, 5] = np.nan
    assert len(find(FastDetector(), holed, 1.126).particles) == len(plain.particles)


def test_a_map_of_a_file_gives_what_its_pixels_give(tmp_path):
    image = made().image
    mapped = np.memmap(tmp_path / "image.raw", np.uint8, "w+", shape=image.shape)
    mapped[:] = image
    assert FastDetector().candidates(mapped, 1.126) == FastDetector().candidates(image, 1.126)


@pytest.mark.parametrize("ground", ["replica", "section", "silver"])
def test_where_there_is_no_gold_next_to_none_is_found(ground):
    look = Look(ground=ground, per_um2=0, dirt_per_um2=3, hardness=0.5)
    false = [len(find(FastDetector(), render(look, seed, (700, 700), 1.126).image, 1.126).particles) for seed in (1, 2)]
    assert sum(false) <= 25  # on 1.2 µm²; labelled faces hold hundreds


def test_noise_holds_no_gold_and_that_is_said():
    found = find(FastDetector(), np.random.default_rng(0).normal(1000, 30, (500, 500)), 1.1)
    assert len(found.particles) <= 2
    flat = find(FastDetector(), np.full((200, 200), 100, np.uint8), 1.1)
    assert (flat.particles, flat.note) == ((), "no gold found")


def test_a_wrong_pixel_size_is_doubted():
    image = cv2.resize(made("easy", 1.126, 900).image, None, fx=2.2, fy=2.2, interpolation=cv2.INTER_CUBIC)
    found = find(FastDetector(), image, 1.126, (6,))  # 13 and 26 nm by this pixel size
    assert "pixel size" in found.doubt


def test_progress_is_told_up_to_the_end():
    told = []
    FastDetector(tile_px=256).candidates(made().image, 1.126, told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_of_two_marks_in_one_place_the_better_stays():
    kept = apart([Candidate(10, 10, 12, 0.9), Candidate(11, 10, 11, 0.8), Candidate(30, 10, 12, 0.5)], 1.0)
    assert [(c.x, c.score) for c in kept] == [(10, 0.9), (30, 0.5)]


@pytest.mark.parametrize(("angstrom", "side"), [(5.0, 900), (10.0, 700)])
def test_the_live_detector_counts_the_gold_of_the_simulated_microscope(angstrom, side):
    # gold in ice, drawn by another simulator than the one that the network learned from
    specimen = Specimen(SpecimenSettings(seed=3, content=("gold",)))
    square = next(s for s in specimen.squares if s.state == "good")
    hole = next(h for h in specimen.holes(square.index) if h.state == "good")
    view = View(hole.x_um, hole.y_um, angstrom, (side, side), dose_e_per_a2=40, defocus_um=1.0)
    detector = build_detector("gold", InferenceSettings(gold_sizes_nm=(6.0, 12.0)))
    finding = detector.detect(specimen.render(view), angstrom)
    for size in (6, 12):
        truth = sum(o.kind == f"gold{size}" for o in specimen.objects(view))
        assert truth > 3
        assert finding.counts[f"{size} nm"] == pytest.approx(truth, abs=max(3, 0.15 * truth))
    assert finding.doubt == ""


def test_a_frame_that_cannot_be_judged_says_why():
    detector = build_detector("gold", InferenceSettings())
    assert detector.detect(made().image, None).note.startswith("the frame has no pixel size")
    assert "gold is looked for" in detector.detect(made().image, 600.0).note
