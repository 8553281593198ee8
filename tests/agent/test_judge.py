"""Rules of `cryonaut judge` and of the pictures that it draws."""

import csv
import json
from pathlib import Path

import cv2
import mrcfile
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from agent import thon
from agent.cli.judge import judge
from agent.errors import ConfigError
from agent.sheet import figures, sheet, thumbnail
from models.quality import CtfQualityScorer
from models.quality.spectrum import spectrum
from simulators.specimen import Specimen, SpecimenSettings, View

PX = 1.4


@pytest.fixture(scope="module")
def micrograph() -> NDArray[np.uint16]:
    grid = Specimen(SpecimenSettings(seed=7, ice="good", grid_radius_um=150))
    hole = max((h for s in grid.squares for h in grid.holes(s.index)), key=lambda h: h.quality)
    view = View(
        hole.x_um, hole.y_um, PX, (640, 768), defocus_um=1.1, astigmatism_um=0.08, astigmatism_angle_deg=40,
        dose_e_per_a2=60,
    )  # fmt: skip
    return grid.render(view)


def test_files_hold_what_the_scorer_says(tmp_path: Path, micrograph: NDArray[np.uint16]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", micrograph)
    tifffile.imwrite(tmp_path / "b.tif", np.random.default_rng(1).poisson(90, (320, 320)).astype(np.uint16))
    out = tmp_path / "out"
    files = tmp_path / "a.tif", tmp_path / "b.tif"
    judge(*files, pixel_size=PX, open_beam=60 * PX * PX, picture=True, formats=("json", "csv"), out=out)
    rows = list(csv.DictReader((out / "judged.csv").read_text(encoding="utf-8").splitlines()))
    assert [Path(row["image"]).name for row in rows] == ["a.tif", "b.tif"]
    row = json.loads((out / "a.json").read_text(encoding="utf-8"))
    assert row["label"] == rows[0]["label"] == "good"
    assert row["defocus_um"] == pytest.approx(1.1, rel=0.01)
    assert row["astigmatism_um"] == pytest.approx(0.16, rel=0.05)
    assert row["ice_thickness_nm"] > 20
    for name in ("a", "b"):
        picture = cv2.imread(str(out / f"{name}_judged.png"))
        assert picture is not None
        assert picture.shape[1] > 1200


def test_what_cannot_be_is_refused_in_one_line_and_the_others_are_judged(
    tmp_path: Path, micrograph: NDArray[np.uint16], capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(tmp_path / "good.tif", micrograph)
    (tmp_path / "bad.tif").write_bytes(b"no image")
    with pytest.raises(SystemExit) as end:
        judge(tmp_path / "bad.tif", tmp_path / "good.tif", pixel_size=PX, formats=("json",))
    assert end.value.code == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["label"] == "good"
    assert "bad.tif" in said.err
    assert "1 of 2 images" in said.err
    with pytest.raises(ConfigError, match="--voltage 3: 20 to 1500 is possible"):
        judge(tmp_path / "good.tif", voltage=3.0)


def test_a_pair_with_and_without_the_energy_slit_gives_the_thickness(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(2)
    through = np.exp(-60 / 395)  # 60 nm
    tifffile.imwrite(tmp_path / "filtered.tif", rng.poisson(200 * through, (256, 256)).astype(np.uint16))
    tifffile.imwrite(tmp_path / "open.tif", rng.poisson(200, (256, 256)).astype(np.uint16))
    judge(tmp_path / "filtered.tif", unfiltered=tmp_path / "open.tif", formats=("json",))
    assert json.loads(capsys.readouterr().out)["ice_thickness_from_filter_nm"] == pytest.approx(60, abs=2)


def test_the_half_with_the_fit_goes_on_where_the_half_with_the_spectrum_ends(micrograph: NDArray[np.uint16]) -> None:
    finding = CtfQualityScorer().judge(micrograph, PX)
    fit = thon.fit_of(finding.features)
    assert fit is not None
    power = spectrum(micrograph.astype(np.float32), PX)
    # power is the same at k and -k: turned by half a turn, the measured half must look as the fitted one
    picture = thon.half_and_half(power, 401, fit, 0.14)[..., 0].astype(float)
    measured, fitted = picture[::-1, ::-1][:, 215:], picture[:, 215:]
    assert np.corrcoef(measured.ravel(), fitted.ravel())[0, 1] > 0.6
    wrong = thon.half_and_half(power, 401, (type(fit[0])(0.8, 0.1, 0.0), fit[1], fit[2]), 0.14)[..., 0].astype(float)
    assert np.corrcoef(measured.ravel(), wrong[:, 215:].ravel())[0, 1] < 0.3


def test_a_fit_that_is_not_to_be_trusted_is_not_drawn() -> None:
    assert thon.fit_of({}) is None
    assert thon.fit_of({"ctf_confidence": 0.2, "defocus_um": 1.0, "ctf_resolution_angstrom": 9.0}) is None
    assert thon.fit_of({"ctf_confidence": 0.9}) is None


def test_the_sheet_shows_an_image_without_pixel_size_too(micrograph: NDArray[np.uint16]) -> None:
    scorer = CtfQualityScorer()
    for px in (PX, None):
        m = scorer.measure(micrograph, px)
        assert m is not None
        finding = scorer.verdict(m)
        picture = sheet("a name", m, finding, px)
        assert picture.dtype == np.uint8
        assert picture.std() > 20
        names = [name for name, _ in figures(finding)]
        assert ("defocus" in names) == (px is not None)
        assert thumbnail(m, px, 300).shape == (300, 300, 3)


def test_of_a_movie_the_drift_is_told_and_the_aligned_sum_is_judged(
    tmp_path: Path, micrograph: NDArray[np.uint16], capsys: pytest.CaptureFixture[str]
) -> None:
    frames = np.stack([np.roll(micrograph, (3 * k, -2 * k), axis=(0, 1)) for k in range(5)])
    tifffile.imwrite(tmp_path / "movie.tif", frames, photometric="minisblack")
    with mrcfile.new(tmp_path / "movie.mrcs") as file:
        file.set_data(frames)
        file.voxel_size = PX
    judge(tmp_path / "movie.tif", tmp_path / "movie.mrcs", pixel_size=PX, formats=("json", "table"))
    printed = capsys.readouterr().out
    rows = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    for row in rows:
        assert row["frames"] == 5
        assert row["drift_total_angstrom"] == pytest.approx(4 * PX * np.hypot(3, 2), rel=0.05)
        assert row["defocus_um"] == pytest.approx(1.1, rel=0.01)  # the sum as the frames lie has no rings to fit
    assert len(rows) == 2
    assert "drift" in printed
