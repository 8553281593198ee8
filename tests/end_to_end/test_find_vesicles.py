"""``cryonaut find vesicles`` as a person types it: tables, statistics, pictures, and what is said when it is wrong."""

import csv
import json
from pathlib import Path

import cv2
import mrcfile
import numpy as np
import pytest

from agent.cli.find_vesicles import vesicles
from agent.errors import CryonautError
from simulators.specimen.vesicles import DIFFICULTIES, VesicleFrame, render

pytest.importorskip("onnxruntime", reason="the runtime of the networks is not installed (cpu or gpu extra)")

pytestmark = pytest.mark.timeout(400)  # real networks, on any machine
NM = 2.0


@pytest.fixture(scope="module")
def section() -> VesicleFrame:
    return render(DIFFICULTIES["easy"]["section"], 8_400_004, (330, 300), NM)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_images_become_tables_one_line_of_statistics_each_and_pictures(
    section: VesicleFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    mrcfile.write(folder / "a.mrc", section.image.astype(np.int16), voxel_size=10 * NM)
    mrcfile.write(folder / "b.mrc", np.full((80, 90), 100, np.int16), voxel_size=10 * NM)
    out = tmp_path / "found"
    vesicles(folder, out=out)
    printed = capsys.readouterr().out
    assert "a.mrc" in printed
    assert str(out / "vesicles.csv") in printed
    rows = rows_of(out / "a.csv")
    truth = [v for v in section.vesicles if v.visible]
    assert len(rows) == pytest.approx(len(truth), rel=0.3)
    x_px, x_nm, d, area = (np.array([float(r[k]) for r in rows]) for k in ("x_px", "x_nm", "diameter_nm", "area_nm2"))
    assert np.allclose(x_nm, NM * x_px, atol=0.03)
    assert np.allclose(area, np.pi / 4 * d**2, rtol=1e-2)
    near = [  # the gap of the first, worked out from all the others
        np.hypot(float(r["x_nm"]) - float(rows[0]["x_nm"]), float(r["y_nm"]) - float(rows[0]["y_nm"]))
        - float(r["diameter_nm"]) / 2 - float(rows[0]["diameter_nm"]) / 2
        for r in rows[1:]
    ]  # fmt: skip
    assert float(rows[0]["gap_nm"]) == pytest.approx(min(near), abs=0.2)
    summary = {row["image"]: row for row in rows_of(out / "vesicles.csv")}
    assert int(summary["a.mrc"]["vesicles"]) == len(rows)
    assert float(summary["a.mrc"]["per_um2"]) == pytest.approx(len(rows) / (330 * 300 * NM**2 * 1e-6), rel=1e-3)
    assert summary["b.mrc"]["vesicles"] == "0"
    picture = cv2.imread(str(out / "a_overlay.png"))
    assert picture is not None
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 256  # grey values, and coloured circles


def test_json_has_every_vesicle_and_a_threshold_leaves_fewer(
    section: VesicleFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "section.png"
    cv2.imwrite(str(image), section.image)
    vesicles(image, pixel_size="2nm", formats=("json",))
    usual = json.loads(capsys.readouterr().out)
    vesicles(image, pixel_size="20A", formats=("json",), threshold=0.6)
    strict = json.loads(capsys.readouterr().out)
    assert usual["vesicles"] == len(usual["found"])
    assert 0 < len(strict["found"]) < len(usual["found"])
    assert all(v["score"] >= 0.6 for v in strict["found"])


def test_what_a_person_can_mend_is_said_in_one_line(
    section: VesicleFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "section.png"
    cv2.imwrite(str(image), section.image)
    with pytest.raises(SystemExit):
        vesicles(image)
    assert "section.png: the file has no pixel size; give it, such as --pixel-size 1.3nm" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        vesicles(image, pixel_size="30nm")
    assert "pixel size 30 nm: vesicles are looked for at 0.08 to 6 nm" in capsys.readouterr().err
    with pytest.raises(CryonautError, match="--threshold 2"):
        vesicles(image, threshold=2.0)
    with pytest.raises(CryonautError, match="no weights"):
        vesicles(image, weights=tmp_path / "none.yaml")
    with pytest.raises(CryonautError, match="name at least one image"):
        vesicles()
