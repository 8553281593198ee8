"""``cryonaut find gold`` as a person types it: files, sizes, masks, and what is read when something is wrong."""

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import mrcfile
import numpy as np
import pytest
import roifile

from agent.cli.find_gold import gold
from agent.errors import CryonautError
from simulators.specimen.immunogold import DIFFICULTIES, GoldImage, render
from tests.end_to_end.test_command_line import cryonaut

pytest.importorskip("onnxruntime", reason="the runtime of the networks is not installed (cpu or gpu extra)")


pytestmark = pytest.mark.timeout(400)  # real programs and networks, on any machine


@pytest.fixture(scope="module")
def replica() -> GoldImage:
    return render(DIFFICULTIES["easy"], 12, (700, 800), 1.126)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_an_image_becomes_tables_regions_statistics_and_pictures(replica: GoldImage, tmp_path: Path) -> None:
    image = tmp_path / "replica.mrc"
    mrcfile.write(image, replica.image.astype(np.int16), voxel_size=11.26)
    out = tmp_path / "found"
    done = cryonaut("find", "gold", image, "--sizes", "6,12", "--per-group", "--out", out)
    assert "gold at 1.126 nm (11.26 Å) per pixel" in done.stdout
    assert "peak memory" in done.stderr
    rows = rows_of(out / "replica.csv")
    assert len(rows) == pytest.approx(len(replica.beads), abs=4)
    x_nm, x_px, d, area = (np.array([float(r[k]) for r in rows]) for k in ("x_nm", "x_px", "diameter_nm", "area_nm2"))
    assert np.allclose(x_nm, 1.126 * x_px, atol=2e-3)
    assert np.allclose(area, np.pi / 4 * d**2, rtol=1e-2)
    parts = [len(rows_of(out / f"replica_{size}nm.csv")) for size in (6, 12)]
    assert sum(parts) == len(rows) == len(roifile.roiread(out / "replica_rois.zip"))
    statistics = {row["group"]: row for row in rows_of(out / "replica_statistics.csv")}
    assert [int(statistics[g]["particles"]) for g in ("6 nm", "12 nm", "all")] == [*parts, len(rows)]
    area_um2 = 700 * 800 * 1.126e-3**2
    assert float(statistics["all"]["density_per_um2"]) == pytest.approx(len(rows) / area_um2, rel=1e-3)
    assert len(rows_of(out / "replica_curves.csv")) == 4 * 50  # both sizes, all, and the one about the other
    (pair,) = rows_of(out / "replica_pairs.csv")
    assert [pair["from"], pair["to"]] == ["6 nm", "12 nm"]
    assert [int(pair["particles"]), int(pair["others"])] == parts
    assert "12 nm about 6 nm" in done.stdout
    for name in ("replica_overlay.png", "replica_statistics.png"):
        picture = cv2.imread(str(out / name))
        assert picture is not None
        assert picture.std() > 5


def test_only_the_region_of_a_mask_is_measured_and_masks_find_their_images(replica: GoldImage, tmp_path: Path) -> None:
    images, masks, out = tmp_path / "images", tmp_path / "masks", tmp_path / "out"
    images.mkdir()
    masks.mkdir()
    for name in ("a 1", "b"):
        cv2.imwrite(str(images / f"{name}.png"), replica.image)
    white = np.zeros(replica.image.shape, np.uint8)
    white[:, :300] = 255
    cv2.imwrite(str(masks / "A_1_mask.png"), white)
    cv2.imwrite(str(masks / "b_mask.png"), 255 - white)
    cryonaut("find", "gold", images, "--pixel-size", "1.126", "--mask", masks, "--out", out, "--random-trials", "9")
    inside = sum(float(r["x_px"]) < 299.5 for r in rows_of(out / "a 1.csv"))
    counts = [int(rows_of(out / f"{name}_statistics.csv")[-1]["particles"]) for name in ("a 1", "b")]
    assert counts[0] == inside
    assert sum(counts) == len(rows_of(out / "b.csv"))


def test_particles_are_printed_for_other_programs(replica: GoldImage, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), replica.image)
    words = ("find", "gold", tmp_path / "a.png", "--pixel-size", "11.26A", "--random-trials", "0")
    plain = json.loads(cryonaut(*words, "--format", "json", "--detector", "tac").stdout)
    assert plain["gold"][0]["diameter_nm"] > 3
    table = cryonaut(*words, "--format", "csv", "--detector", "tac").stdout
    assert table.splitlines()[0] == "x_px,y_px,x_nm,y_nm,area_nm2,diameter_nm,group,score"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "the file has no pixel size; give it, such as --pixel-size 1.11nm"),
        ({"pixel_size": "1.1 furlong"}, "expected a length such as 1.11nm"),
        ({"pixel_size": "1126nm"}, "gold is looked for at"),
        ({"pixel_size": "1.1", "sizes": "6;12"}, "--sizes 6;12: expected diameters in nm"),
        ({"pixel_size": "1.1", "mask": "small.png"}, "(rows, columns) must agree"),
        ({"threshold": 2.0}, "--threshold 2: a score"),
        ({"detector": "gan"}, "--detector gan needs --weights"),
        ({"detector": "fast", "weights": Path("none.yaml")}, "no weights 'none'"),
        ({"pixel_size": "1.1", "link": -1.0}, "--link -1: nm, above 0"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    replica: GoldImage,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: dict[str, Any],
    says: str,
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), replica.image)
    cv2.imwrite(str(tmp_path / "small.png"), replica.image[:50])
    if "mask" in options:
        options = options | {"mask": tmp_path / options["mask"]}
    with pytest.raises((CryonautError, SystemExit)) as caught:
        gold(tmp_path / "a.png", **({"detector": "tac"} | options))
    said = capsys.readouterr().err + str(caught.value)
    assert says in said
    assert "\n" not in str(caught.value)
