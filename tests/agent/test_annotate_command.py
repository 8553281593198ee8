"""``cryonaut annotate`` on files: labels lie where the volume lies, and what cannot be done is said in one line."""

import numpy as np
import pytest

from agent.cli import app
from agent.cli.annotate import parse_box
from agent.errors import ConfigError, CryonautError
from drivers.volumes import new_mrc, open_volume
from tests.models.test_annotation import body, dice


def write(path, array, voxel_nm=5.0):
    with new_mrc(path, array.shape, voxel_nm, array.dtype) as file:
        file.data[...] = array
    return path


@pytest.fixture
def files(tmp_path):
    volume, truth, strokes = body()
    return write(tmp_path / "cell.mrc", volume.astype(np.float32)), write(tmp_path / "strokes.mrc", strokes), truth


def run(*words):
    app([str(word) for word in words], result_action="return_value", exit_on_error=False)


def test_strokes_in_a_file_become_labels_on_the_volumes_grid(files, tmp_path):
    pytest.importorskip("skimage", reason="scikit-image is not installed (volumes extra)")
    volume, strokes, truth = files
    out, mask = tmp_path / "mito.zarr", tmp_path / "counts.tif"
    box = "4:46,:,0:44"
    config = tmp_path / "mine.yaml"
    config.write_text("structures: {mitochondrion: {grow: 0}}")
    words = ("annotate", volume, "--seeds", strokes, "--out", out, "--box", box)
    run(*words, "--structure", "mitochondrion", "--metric-mask", mask, "--config", config)
    labels = open_volume(out)
    made = np.asarray(labels.array[:])
    assert labels.voxel_nm == pytest.approx(5.0)
    assert made.shape == truth.shape
    assert set(np.unique(made)) == {0, 1}
    assert dice(made > 0, truth) > 0.95
    assert not made[:4].any()
    counts = open_volume(mask)
    assert counts.voxel_nm == pytest.approx(5.0)
    inside = np.asarray(counts.array)[4:46, :, :44] > 0
    assert not inside[(made[4:46, :, :44] > 0) & ~_eroded(made)[4:46, :, :44]].any()  # the outline does not count
    assert 0.5 < inside.mean() < 0.95


def _eroded(labels):
    from scipy import ndimage

    return ndimage.binary_erosion(labels > 0)


def test_what_cannot_be_annotated_is_said_before_the_work_begins(files, tmp_path):
    volume, strokes, _ = files
    out = tmp_path / "mito.mrc"
    small = write(tmp_path / "small.mrc", np.zeros((3, 4, 5), np.uint8))
    wild = write(tmp_path / "wild.mrc", np.full((48, 48, 48), 7, np.uint8))
    for words, said in (
        (("--seeds", small, "--out", out), "strokes of"),
        (("--seeds", wild, "--out", out), "values from 7 to 7"),
        (("--seeds", strokes, "--out", tmp_path / "a.png"), "labels are written as"),
        (("--seeds", strokes, "--out", tmp_path / "no" / "a.mrc"), "there is no folder"),
        (("--seeds", strokes, "--out", out, "--structure", "ribosomes"), "known are"),
        (("--seeds", strokes, "--out", out, "--box", "0:99,:,:"), "the volume has voxels 0:48"),
        (("--seeds", strokes, "--out", out, "--box", "5"), "expected z0:z1"),
        (("--seeds", strokes, "--out", out, "--metric-mask", out), "needs --structure"),
    ):
        with pytest.raises(CryonautError, match=said):
            run("annotate", volume, *words)
    assert not out.exists()


def test_a_dry_run_says_what_it_takes_and_writes_nothing(files, tmp_path, capsys):
    volume, strokes, _ = files
    run("annotate", volume, "--seeds", strokes, "--out", tmp_path / "mito.mrc", "--dry-run")
    assert "memory at most" in capsys.readouterr().out
    assert not (tmp_path / "mito.mrc").exists()


def test_boxes_are_read_as_they_are_meant():
    assert parse_box("", (5, 6, 7)) == ((0, 5), (0, 6), (0, 7))
    assert parse_box("1:3, :4 ,2:", (5, 6, 7)) == ((1, 3), (0, 4), (2, 7))
    for text in ("3:1,:,:", ":,:", "a:b,:,:", "-1:3,:,:"):
        with pytest.raises(ConfigError):
            parse_box(text, (5, 6, 7))
