"""Corrected tomograms teach the network: the exported weights are gone on from, figures are of what was held out."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (train extra)")
pytest.importorskip("onnxruntime", reason="the runtime of the networks is not installed")

from agent.cli.corrected import proofread_volumes  # noqa: E402
from agent.web.proofread.project import Mark, Project, Sheet  # noqa: E402
from models.runtime import WEIGHTS, load  # noqa: E402
from models.training.export import filled  # noqa: E402
from models.training.loop import LoopSettings, TrainingError  # noqa: E402
from models.training.vesicle_tomogram_corrections import (  # noqa: E402
    CorrectedVolume,
    TomogramFinetuneRecipe,
    learn,
    prepared,
    quality,
)
from models.training.vesicles import FastVesicleNet  # noqa: E402
from simulators.specimen.tomogram import Tomogram, TomogramSettings, simulate  # noqa: E402

pytestmark = pytest.mark.timeout(400)  # real networks, on any machine


@pytest.fixture(scope="module")
def tomogram() -> Tomogram:
    return simulate(TomogramSettings(seed=9, shape=(40, 76, 76), vesicles=14, snr=0.3, tilt_step_deg=4.0))


def corrected(made: Tomogram, checked: tuple[tuple[float, ...], ...] = ()) -> CorrectedVolume:
    marks = np.concatenate([made.centres, made.radii[:, None]], axis=1)
    return CorrectedVolume("synapse.mrc", made.volume, 2.2, marks, checked)


def test_the_weights_in_use_are_taken_up_without_a_change() -> None:
    network = filled(FastVesicleNet(24, normed=False), WEIGHTS / "vesicles-tomogram.onnx").eval()
    volume = torch.randn(1, 1, 24, 32, 40, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours = network(volume).numpy()
    assert np.allclose(ours, load("vesicles-tomogram").run(volume.numpy())["probability"], atol=1e-4)


def test_cubes_to_learn_from_and_held_out_are_apart_and_mask_and_tips_are_the_truth(tomogram: Tomogram) -> None:
    ready = prepared(corrected(tomogram), 0)
    assert not set(ready.learnt) & set(ready.held)
    held = np.zeros(tomogram.labels.shape, bool)
    for low, high in ready.held:
        held[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    assert not (held & ready.counts).any()
    assert (held | ready.counts).all()  # nothing was left unchecked
    agree = 2 * (ready.mask & (tomogram.labels > 0)).sum() / (ready.mask.sum() + (tomogram.labels > 0).sum())
    assert agree > 0.97
    for z, y, x in np.rint(tomogram.centres).astype(int):
        assert ready.nearness[z, y, x] > 0.85


def test_only_checked_boxes_count_and_too_few_are_refused(tomogram: Tomogram) -> None:
    box = (-0.5, -0.5, 75.5, 59.5, 0.0, 39.0)  # left, top, right, bottom, first and last section
    ready = prepared(corrected(tomogram, (box,)), 0)
    held = np.zeros(tomogram.labels.shape, bool)
    for low, high in ready.held:
        held[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    z, y, x = np.nonzero(ready.counts | held)
    assert (z.max(), y.max(), x.max()) == (39, 59, 75)
    with pytest.raises(TrainingError, match="proofread more"):
        prepared(corrected(tomogram, ((0.0, 0.0, 20.0, 20.0, 0.0, 20.0),)), 0)


def test_learning_tells_before_and_after_on_what_it_did_not_learn_from(tomogram: Tomogram, tmp_path: Path) -> None:
    recipe = TomogramFinetuneRecipe(
        batch=1, tomograms=0, patch=40, loop=LoopSettings(steps=2, learning_rate=1e-5, averaging=0.5, report_every=1)
    )
    said: list[str] = []
    file, before, after = learn(recipe, [corrected(tomogram)], tmp_path, command="x", say=said.append)
    assert before.hits + before.missed == after.hits + after.missed > 0
    assert before.f1 > 0.6
    assert after.f1 > before.f1 - 0.2
    assert any("held out" in line for line in said)
    network = filled(FastVesicleNet(24, normed=False), file).eval()
    assert quality(network, [prepared(corrected(tomogram), recipe.seed)]) == after
    assert load(file.with_suffix(".yaml")).manifest.settings["width"] == 24


def test_a_sheet_of_a_volume_becomes_marks_in_its_voxels(tomogram: Tomogram, tmp_path: Path) -> None:
    mrcfile.write(tmp_path / "t.mrc", tomogram.volume, voxel_size=22.0)
    sheet = Sheet(
        image=str(tmp_path / "t.mrc"), shape=tuple(tomogram.volume.shape), pixel_nm=2.2, structure="vesicles",
        marks=(Mark(id=1, x=30.0, y=40.0, z=20.0, diameter_nm=44.0),), checked=((0, 0, 60, 60, 5, 40),),
    )  # fmt: skip
    Project(tmp_path / "mine").write(sheet)
    (read,) = proofread_volumes(tmp_path / "mine")
    assert read.marks.tolist() == [[20.0, 40.0, 30.0, 10.0]]
    assert read.checked == ((0, 0, 60, 60, 5, 40),)
    assert read.volume.shape == tomogram.volume.shape
