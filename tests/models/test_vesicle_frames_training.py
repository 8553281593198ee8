"""Training of the frame network, small: it repeats itself, what it writes is what it learned, corrections count."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (train extra)")
pytest.importorskip("onnxruntime", reason="the runtime of the networks is not installed")

from agent.cli.corrected import proofread_images  # noqa: E402
from agent.errors import ConfigError  # noqa: E402
from agent.web.proofread.project import Mark, Project, Sheet  # noqa: E402
from models.runtime import load  # noqa: E402
from models.training import vesicle_corrections, vesicle_frames  # noqa: E402
from models.training.corrected_windows import Proofread, split, windows  # noqa: E402
from models.training.export import filled  # noqa: E402
from models.training.loop import LoopSettings  # noqa: E402
from models.training.vesicle_corrections import FrameFinetuneRecipe, quality  # noqa: E402
from models.training.vesicle_frames import FrameNetwork  # noqa: E402
from models.training.vesicle_frames_data import simulated  # noqa: E402
from models.vesicles.frames import CELLS, FrameDetector, raster_of  # noqa: E402
from simulators.specimen.vesicles import DIFFICULTIES, render  # noqa: E402

pytestmark = pytest.mark.timeout(400)  # real programs and networks, on any machine
TINY = vesicle_frames.FrameRecipe(
    pictures=3, picture_px=112, batch=2, crop_px=96, loop=LoopSettings(steps=2, report_every=1)
)


def test_a_seed_makes_the_same_weights_and_they_are_written_with_proof_and_card(tmp_path: Path) -> None:
    one = vesicle_frames.learn(TINY, tmp_path / "a", command="cryonaut train vesicles --frames", say=lambda _: None)
    two = vesicle_frames.learn(TINY, tmp_path / "b", command="cryonaut train vesicles --frames", say=lambda _: None)
    assert one.read_bytes() == two.read_bytes()
    model = load(one.with_suffix(".yaml"))
    assert model.manifest.settings["raster_nm"] == 2.5
    assert "# vesicles-frames" in one.with_suffix(".md").read_text(encoding="utf-8")
    assert FrameDetector(network=model).candidates(np.full((64, 80), 100, np.uint8), 2.5) is not None


def test_exported_weights_are_taken_up_again_without_a_change(tmp_path: Path) -> None:
    file = vesicle_frames.learn(TINY, tmp_path, command="x", say=lambda _: None)
    network = filled(FrameNetwork(normed=False), file).eval()
    picture = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        heat, shape = network(picture)
    answer = load(file.with_suffix(".yaml")).run(picture.numpy())
    assert np.allclose(heat.numpy(), answer["heat"], atol=1e-4)
    assert np.allclose(shape.numpy(), answer["shape"], atol=1e-4)


def test_the_network_sees_no_further_than_the_margin_of_a_tile() -> None:
    network = FrameNetwork(normed=False).eval()
    picture = torch.zeros(1, 1, 320, 320, requires_grad=True)
    heat, shape = network(picture)
    (heat[0, 0, 40, 40] + shape[0, :, 40, 40].sum()).backward()
    rows, columns = np.nonzero(picture.grad[0, 0].numpy())
    assert 40 < max(abs(rows - 161).max(), abs(columns - 161).max()) <= CELLS.halo


def test_marks_of_a_simulated_sample_lie_on_dark_spots_of_the_raster() -> None:
    inside, around = [], []
    for seed in range(40, 52):
        sample = simulated(seed, 128)
        y, x = np.mgrid[:128, :128]
        for mx, my, d, weight in sample.marks.tolist():
            if weight and min(mx, my) > d and max(mx, my) < 127 - d:
                r = np.hypot(x - mx, y - my)
                inside.append(float(sample.picture[r < 0.45 * d].mean()))
                around.append(float(sample.picture[(r > 0.6 * d) & (r < 0.8 * d)].mean()))
    assert len(inside) > 40
    assert np.mean(np.array(inside) < np.array(around)) > 0.8


def corrected(side: int = 520) -> Proofread:
    made = render(DIFFICULTIES["medium"]["section"], 31, (side, side), 2.5)
    marks = np.array([(v.x, v.y, v.diameter_nm / 2.5) for v in made.vesicles if v.visible])
    return Proofread("section.png", made.image, 2.5, marks)


def test_learning_from_corrections_tells_before_and_after_on_what_it_did_not_learn_from(tmp_path: Path) -> None:
    recipe = FrameFinetuneRecipe(
        pictures=2, picture_px=112, batch=2, crop_px=96,
        loop=LoopSettings(steps=3, learning_rate=1e-4, averaging=0.5, report_every=2),
    )  # fmt: skip
    said: list[str] = []
    file, before, after = vesicle_corrections.learn(recipe, [corrected()], tmp_path, command="x", say=said.append)
    assert before.hits + before.missed == after.hits + after.missed > 5
    assert before.f1 > 0.6
    assert after.f1 > before.f1 - 0.15
    assert any("before" in line and "vesicles" in line for line in said)
    assert "held-out" in file.with_suffix(".md").read_text(encoding="utf-8")
    _, held = split(windows(corrected(), raster_of), recipe.seed)
    assert quality(filled(FrameNetwork(normed=False), file).eval(), held) == after


@pytest.mark.slow
def test_corrections_of_a_look_that_is_foreign_raise_the_figures_on_its_held_out_part(tmp_path: Path) -> None:
    made = render(DIFFICULTIES["easy"]["section"], 37, (900, 900), 2.5)
    marks = np.array([(v.x, v.y, v.diameter_nm / 2.5) for v in made.vesicles if v.visible])
    read = Proofread("turned.png", 255 - made.image, 2.5, marks)  # bright membranes, which it never saw
    recipe = FrameFinetuneRecipe(pictures=20, loop=LoopSettings(steps=200, learning_rate=8e-4, averaging=0.97))
    _, before, after = vesicle_corrections.learn(recipe, [read], tmp_path, command="x", say=lambda _: None)
    assert before.f1 < 0.5
    assert after.f1 > 0.8


def test_a_project_of_corrected_vesicles_is_read_and_one_of_gold_is_refused(tmp_path: Path) -> None:
    import cv2

    image = tmp_path / "frame.png"
    cv2.imwrite(str(image), np.zeros((60, 80), np.uint8))
    sheet = Sheet(
        image=str(image), shape=(60, 80), pixel_nm=2.0, structure="vesicles", checked=((0.0, 0.0, 40.0, 40.0),),
        marks=(Mark(id=1, x=20.0, y=30.0, diameter_nm=44.0),),
    )  # fmt: skip
    Project(tmp_path / "mine").write(sheet)
    (read,) = proofread_images(tmp_path / "mine", "vesicles")
    assert read.marks.tolist() == [[20.0, 30.0, 22.0]]
    assert read.checked == ((0.0, 0.0, 40.0, 40.0),)
    with pytest.raises(ConfigError, match="vesicles in an image, and not gold"):
        proofread_images(tmp_path / "mine")
