"""``cryonaut view``: pictures and pages without anything else, viewers where they are installed, words where not."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from agent.cli import app
from agent.cli.organelle_pictures import write_result
from agent.cli.view import layers_of
from agent.errors import BadFileError, ConfigError
from drivers.volumes import open_volume, write_ome_zarr


def cryonaut(*words: object) -> None:
    app([str(word) for word in words], exit_on_error=False, result_action="return_value")


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """A ball in a grey volume of flat voxels, and its label on a grid of half the sampling along y and x."""
    z, y, x = np.mgrid[:30, :80, :80]
    ball = (2 * (z - 15)) ** 2 + (y - 40) ** 2 + (x - 30) ** 2 < 20**2
    grey = np.where(ball, 90, 160) + np.random.default_rng(0).integers(0, 20, ball.shape)
    write_ome_zarr(tmp_path / "cell.zarr", grey.astype("u1"), (8.0, 4.0, 4.0))
    folder = tmp_path / "found"
    folder.mkdir()
    write_ome_zarr(folder / "mito.labels.zarr", ball[:, ::2, ::2].astype("u4"), 8.0, labels=True)
    write_ome_zarr(folder / "mito.probability.zarr", ball[:, ::2, ::2].astype("u1") * 255, 8.0)
    (folder / "mito.csv").write_text("number,volume_um3\n1,0.0021\n", encoding="utf-8")
    write_result(folder, open_volume(tmp_path / "cell.zarr"), {"network": "drawn"})
    return folder


def test_a_page_and_a_picture_show_objects_where_they_are(result: Path) -> None:
    page = (result / "report.html").read_text(encoding="utf-8")
    assert "mito" in page
    assert "0.0021" in page
    assert "http" not in page, "self-contained"
    summary = json.loads((result / "summary.json").read_text(encoding="utf-8"))
    assert summary["objects"] == {"mito": 1}
    picture = cv2.imread(str(result / "slices.png"))[..., ::-1].astype(int)
    first = picture[:460, 460 + 6 : 2 * 460 + 6]  # z in the middle: second of three
    orange = (first[..., 0] - first[..., 2]) > 60  # greys have no colour
    rows, columns = np.nonzero(orange)
    assert len(rows) > 200
    scale = 460 / 80
    assert (rows.min() + rows.max()) / 2 / scale == pytest.approx(40, abs=2)
    assert (columns.min() + columns.max()) / 2 / scale == pytest.approx(30, abs=2)
    distance = np.hypot(rows / scale - 40, columns / scale - 30)
    assert distance.min() > 15, "an outline, not a filled disc"
    assert distance.max() < 25


def test_pictures_are_made_anew_without_any_viewer(result: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (result / "slices.png").unlink()
    cryonaut("view", result)
    assert "slices.png" in capsys.readouterr().out
    assert (result / "slices.png").exists()
    (result / "summary.json").unlink()
    with pytest.raises(BadFileError, match=r"not where it was: --volume PATH"):
        cryonaut("view", result)
    cryonaut("view", result, "--volume", result.parent / "cell.zarr")
    assert (result / "summary.json").exists()
    with pytest.raises(ConfigError, match="pictures are made of a result's folder"):
        cryonaut("view", result.parent / "cell.zarr")


def test_layers_are_grey_values_maps_and_labels(result: Path) -> None:
    layers = layers_of((result,), None)
    assert [(name, labels) for name, _, labels in layers] == [
        ("cell", False),
        ("mito.probability", False),
        ("mito.labels", True),
    ]
    assert layers[0][1].edges_nm == (8.0, 4.0, 4.0)


@pytest.mark.parametrize("viewer", ["neuroglancer", "napari"])
def test_a_viewer_that_is_missing_is_named_with_its_extra(
    result: Path, viewer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, viewer, None)  # as if it were not installed
    with pytest.raises(ConfigError, match=rf"pip install 'cryonaut\[{viewer}\]'"):
        cryonaut("view", result, "--with", viewer)
