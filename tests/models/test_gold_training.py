"""Training of the gold networks, small: it runs, it repeats itself, what it writes is what it learned."""

import shutil

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch", reason="torch is not installed (train extra)")
pytest.importorskip("onnxruntime", reason="the runtime of the networks is not installed")

from models.gold import FastDetector, GanDetector, find  # noqa: E402
from models.runtime import WEIGHTS, load  # noqa: E402
from models.training import gold, gold_corrections, gold_gan, gold_likeness  # noqa: E402
from models.training.corrected_windows import Proofread, split, windows  # noqa: E402
from models.training.gold_corrections import FinetuneRecipe, quality  # noqa: E402
from models.training.gold_data import Sample, batch, simulated, targets  # noqa: E402
from models.training.gold_likeness import LikenessRecipe  # noqa: E402
from models.training.gold_network import GoldNetwork, from_onnx  # noqa: E402
from models.training.loop import LoopSettings, TrainingError  # noqa: E402
from simulators.specimen.immunogold import DIFFICULTIES, render  # noqa: E402

pytestmark = pytest.mark.timeout(400)  # real programs and networks, on any machine
TINY = gold.GoldRecipe(
    pictures=6, picture_px=160, batch=2, crop_px=96, loop=LoopSettings(steps=3, report_every=1), likeness=None
)


def test_a_seed_makes_the_same_weights_and_they_are_written_with_proof_and_card(tmp_path):
    one = gold.learn(TINY, tmp_path / "a", command="cryonaut train gold", say=lambda _: None)
    two = gold.learn(TINY, tmp_path / "b", command="cryonaut train gold", say=lambda _: None)
    assert one.read_bytes() == two.read_bytes()
    model = load(one.with_suffix(".yaml"))
    assert model.manifest.made_by == "cryonaut train gold"
    assert "# gold-fast" in one.with_suffix(".md").read_text()
    assert FastDetector(network=model).candidates(np.full((64, 80), 100, np.uint8), 1.1) is not None


def test_exported_weights_are_taken_up_again_without_a_change(tmp_path):
    file = gold.learn(TINY, tmp_path, command="x", say=lambda _: None)
    network = from_onnx(file).eval()
    picture = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        heat, shape = network(picture)
    answer = load(file.with_suffix(".yaml")).run(picture.numpy())
    assert np.allclose(heat.numpy(), answer["heat"], atol=1e-4)
    assert np.allclose(shape.numpy(), answer["shape"], atol=1e-4)


def test_a_simulated_picture_is_dark_where_its_marks_are():
    darker = []
    for seed in range(20, 60):
        sample = simulated(seed, 192)
        picture = sample.picture.astype(float)
        inside = [m for m in sample.marks.tolist() if m[3] and 3 < m[0] < 188 and 3 < m[1] < 188]
        darker += [picture[round(y), round(x)] < np.median(picture) for x, y, _, _ in inside]
    assert len(darker) > 20
    assert np.mean(darker) > 0.95


def test_targets_have_one_peak_for_each_mark_and_say_where_it_is():
    marks = np.array([[20.3, 31.8, 6.0, 1.0], [50.0, 40.0, 14.0, 1.0], [70.0, 70.0, 6.0, 0.0]], np.float32)
    maps, near = targets(marks, 96)
    peaks = np.argwhere(maps[0] == 1)
    assert len(peaks) == 2
    for (j, i), (x, y, d, _) in zip(sorted(peaks.tolist(), key=lambda p: p[1]), marks[:2].tolist(), strict=True):
        assert 2 * i + 0.5 + 2 * maps[3, j, i] == pytest.approx(x, abs=1e-3)
        assert 2 * j + 0.5 + 2 * maps[4, j, i] == pytest.approx(y, abs=1e-3)
        assert 8 * np.exp(maps[2, j, i]) == pytest.approx(d, rel=1e-4)
        assert near[j, i] == 1
    assert maps[1, 35, 35] == 0  # what nobody can see is not learnt


@pytest.mark.parametrize("shape", [(40, 200), (200, 40), (33, 35), (96, 96)])
def test_windows_smaller_than_a_crop_are_learnt_from_too(shape):
    small = Sample(np.ones(shape, np.float16), np.array([[10, 10, 6, 1]], np.float32))
    for step in range(12):
        made = batch([small], 1, step, 2, 96)
        assert made.pictures.shape == (2, 1, 96, 96)
        assert np.isfinite(made.targets).all()


def test_the_generator_is_the_published_one_of_54_million_parameters():
    assert sum(p.numel() for p in gold_gan.Generator(64).parameters()) == 54_413_955
    assert tuple(gold_gan.Discriminator(8)(torch.zeros(1, 6, 256, 256)).shape) == (1, 1, 30, 30)


def test_the_gan_trains_and_its_mask_becomes_particles(tmp_path):
    recipe = gold_gan.GanRecipe(pictures=4, picture_px=288, width=4, steps=2, batch=1)
    file = gold_gan.learn(recipe, tmp_path, command="cryonaut train gold --arch gan", say=lambda _: None)
    find(GanDetector(weights=file.with_suffix(".yaml")), np.full((300, 280), 120, np.uint8), 1.1)

    class Painter:
        """A generator that knows what it should paint: green where it is dark."""

        fingerprint = "x"

        def run(self, shown):
            return {"painted": np.where(shown < -0.8, 1.0, -1.0).astype(np.float32)}

    image = np.random.default_rng(0).normal(180, 5, (500, 460))
    y, x = np.mgrid[0:500, 0:460]
    truth = [
        (100.0, 90.0, 12.0),
        (191.5, 192.0, 12.0),
        (300.0, 400.0, 8.0),
    ]  # the second one on the border of four tiles
    for cx, cy, d in truth:
        image -= 150 * (np.hypot(x - cx, y - cy) < d / 2)
    found = find(GanDetector(network=Painter()), image, 1.1)
    assert len(found.particles) == 3
    for (cx, cy, d), p in zip(truth, sorted(found.particles, key=lambda p: p.y), strict=True):
        assert np.hypot(p.x - cx, p.y - cy) < 0.4
        assert p.diameter_nm / 1.1 == pytest.approx(d, rel=0.12)


def proofread(side=700):
    made = render(DIFFICULTIES["easy"], 31, (side, side), 1.126)
    marks = np.array([(b.x, b.y, b.diameter_nm / 1.126) for b in made.beads if b.visible])
    return Proofread("replica.png", made.image, 1.126, marks)


def test_every_mark_lies_in_one_window_and_only_checked_parts_are_used():
    read = proofread()
    found = windows(read)
    assert sum(len(w.marks) for w in found) == len(read.marks)
    part = Proofread(read.name, read.image, read.pixel_nm, read.marks, ((100.0, 50.0, 400.0, 350.0),))
    inside = [(100 <= x < 400) and (50 <= y < 350) for x, y, _ in read.marks]
    assert sum(len(w.marks) for w in windows(part)) == sum(inside)


def test_learnt_and_held_out_windows_are_apart_and_both_have_marks():
    learnt, held = split(windows(proofread()), seed=1)
    places = [{(w.top, w.left) for w in part} for part in (learnt, held)]
    assert not places[0] & places[1]
    assert any(len(w.marks) for w in learnt)
    assert any(len(w.marks) for w in held)
    with pytest.raises(TrainingError, match="proofread more"):
        split([], seed=1)


def test_learning_from_corrections_tells_before_and_after_and_does_not_lose_what_was_known(tmp_path):
    recipe = FinetuneRecipe(
        pictures=4, picture_px=192, batch=3, crop_px=96,
        loop=LoopSettings(steps=4, learning_rate=1e-4, averaging=0.5, report_every=2),
    )  # fmt: skip
    said: list[str] = []
    file, before, after = gold_corrections.learn(recipe, [proofread()], tmp_path, command="x", say=said.append)
    assert before.hits + before.missed == after.hits + after.missed > 5
    assert before.f1 > 0.85
    assert after.f1 > before.f1 - 0.1
    assert any("before" in line and "after" in line for line in said)
    assert "held-out" in file.with_suffix(".md").read_text()
    assert quality(from_onnx(file).eval(), split(windows(proofread()), recipe.seed)[1]) == after


def test_what_is_learned_about_fellows_stands_in_the_manifest_repeats_itself_and_stays_through_corrections(tmp_path):
    for kind in (".onnx", ".yaml"):
        shutil.copy(WEIGHTS / f"gold-fast{kind}", tmp_path)
    recipe = LikenessRecipe(pictures=3, sides_nm=(500.0,), steps=20)
    manifest = tmp_path / "gold-fast.yaml"
    one = gold_likeness.learn(recipe, manifest, say=lambda _: None).to_settings()
    two = gold_likeness.learn(recipe, manifest, say=lambda _: None).to_settings()
    assert one == two == yaml.safe_load(manifest.read_text())["settings"]["likeness"]
    corrections = FinetuneRecipe(
        pictures=2, picture_px=160, batch=2, crop_px=96, loop=LoopSettings(steps=1, averaging=0.0, report_every=1)
    )
    file, *_ = gold_corrections.learn(
        corrections, [proofread()], tmp_path / "out", command="x", start=tmp_path / "gold-fast.onnx", say=lambda _: None
    )
    assert load(file.with_suffix(".yaml")).manifest.settings["likeness"] == one


def test_weights_of_another_network_are_refused(tmp_path):
    recipe = gold_gan.GanRecipe(pictures=2, picture_px=256, width=2, steps=1, batch=1)
    file = gold_gan.learn(recipe, tmp_path, command="x", say=lambda _: None)
    with pytest.raises(TrainingError, match="another network"):
        from_onnx(file)
    assert isinstance(GoldNetwork(normed=False), torch.nn.Module)
