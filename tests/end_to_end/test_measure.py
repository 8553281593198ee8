"""``cryonaut measure`` on a simulated cell, against its truth; what does not fit together is one line."""

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from agent.cli import app
from agent.errors import BadFileError
from drivers.volumes import NewVolume, write_ome_zarr
from simulators.specimen.cell import Cell, CellSettings, simulate


def cryonaut(*words: object) -> None:
    app([str(word) for word in words], exit_on_error=False, result_action="return_value")


@pytest.fixture(scope="module")
def cell() -> Cell:
    return simulate(CellSettings.of("naive-1", region=3, shape=(112, 112, 144)))


@pytest.fixture(scope="module")
def folder(cell: Cell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cell")
    write_ome_zarr(path / "cell.zarr", cell.raw, cell.settings.voxel_nm)
    for name, labels in cell.labels.items():
        write_ome_zarr(path / f"{name}.labels.zarr", labels.astype("u4"), cell.settings.voxel_nm, labels=True)
    return path


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("nucleus", [True, False])
def test_pores_are_as_wide_as_they_were_made(cell: Cell, folder: Path, tmp_path: Path, nucleus: bool) -> None:
    more = ["--nucleus", folder / "nucleus.labels.zarr"] if nucleus else []
    cryonaut("measure", "pores", folder / "cell.zarr", folder / "nuclear_pore.labels.zarr", "-o", tmp_path, *more)
    rows = table(tmp_path / "pores.csv")
    seen = [row for row in rows if row["diameter_nm"]]
    assert len(seen) >= 6
    off, turned = [], []
    for row in seen:
        truth = cell.pores[int(row["number"]) - 1]
        off.append(float(row["diameter_nm"]) - truth.diameter_nm)
        normal = np.array([float(row[f"normal_{axis}"]) for axis in "zyx"])
        turned.append(np.degrees(np.arccos(min(1.0, abs(float(normal @ truth.normal))))))
        assert row["normal_from"] == ("envelope" if nucleus else "pores")
    assert abs(np.median(off)) < 4, "half a voxel"
    assert np.median(turned) < 12
    page = (tmp_path / "pores.html").read_text(encoding="utf-8")
    assert "Shapiro-Wilk" in page
    assert (tmp_path / "pores.png").stat().st_size > 10_000


def test_pits_are_open_and_vesicles_closed(cell: Cell, folder: Path, tmp_path: Path) -> None:
    cryonaut("measure", "pits", folder / "cell.zarr", folder / "coated_pit.labels.zarr", "-o", tmp_path)
    rows = [row for row in table(tmp_path / "pits.csv") if row["at_border"] == "0"]
    assert len(rows) >= 5
    right = []
    for row in rows:
        truth = cell.pits[int(row["number"]) - 1]
        right.append((row["kind"] == "pit") == truth.open)
        if row["kind"] == "vesicle":
            # the ring that is seen lies in the coat, between the membrane and 16 nm outside of it
            assert 2 * truth.radius_nm - 8 < float(row["minor_nm"]) < 2 * truth.radius_nm + 40
    assert np.mean(right) >= 0.8


def test_sizes_are_those_of_the_objects(cell: Cell, folder: Path, tmp_path: Path) -> None:
    cryonaut("measure", "volumes", folder / "mitochondrion.labels.zarr", folder / "golgi.labels.zarr", "-o", tmp_path)
    labels = cell.labels["mitochondrion"]
    rows = table(tmp_path / "mitochondrion.volumes.csv")
    assert [int(r["number"]) for r in rows] == [n for n in np.unique(labels) if n]
    edge = cell.settings.voxel_nm
    for row in rows:
        number = int(row["number"])
        voxels = int((labels == number).sum())
        assert int(row["voxels"]) == voxels
        assert float(row["volume_um3"]) == pytest.approx(voxels * edge**3 / 1e9, rel=1e-4)
        centre = ndimage.center_of_mass(labels == number)
        assert [float(row[f"{a}_nm"]) for a in "zyx"] == pytest.approx([c * edge for c in centre], abs=0.01)
    assert (tmp_path / "golgi.volumes.html").exists()
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".csv", ".csv", ".html", ".html"]


def test_contacts_are_named_by_both_numbers(folder: Path, tmp_path: Path) -> None:
    first, second = folder / "mitochondrion.labels.zarr", folder / "er.labels.zarr"
    cryonaut("measure", "contacts", first, second, "-o", tmp_path, "--within", 40)
    rows = table(tmp_path / "mitochondrion-er.contacts.csv")
    assert rows
    assert all(0 <= float(r["smallest_gap_nm"]) <= 40 for r in rows)
    assert all(float(r["area_um2"]) > 0 for r in rows)


def test_labels_off_the_grid_are_refused(cell: Cell, folder: Path, tmp_path: Path) -> None:
    shape, edge = cell.raw.shape, cell.settings.voxel_nm
    made = {
        "moved": (shape, (edge,) * 3, (3.0, 0.0, 0.0)),
        "finer": (shape, (edge, edge, edge / 2), (0.0,) * 3),
        "small": ((9, 9, 9), (edge,) * 3, (0.0,) * 3),
        "far": ((9, 9, 9), (edge,) * 3, (0.0, 1e5, 0.0)),
    }
    for name, (size, edges, offset) in made.items():
        new = NewVolume(tmp_path / f"{name}.zarr", edges, offset, labels=True)
        new.begin(size, "u4", (64, 64, 64))[:] = 1
        new.finish(1)
    mito = folder / "mitochondrion.labels.zarr"
    for name, told in (("moved", "off the grid"), ("finer", "another grid"), ("small", "another grid")):
        with pytest.raises(BadFileError, match=told):
            cryonaut("measure", "contacts", mito, tmp_path / f"{name}.zarr", "-o", tmp_path)
    with pytest.raises(BadFileError, match=r"is outside of .*cell\.zarr: labels of another volume"):
        cryonaut("measure", "pits", folder / "cell.zarr", tmp_path / "far.zarr", "-o", tmp_path)
    write_ome_zarr(tmp_path / "grey.zarr", np.zeros((9, 9, 9), "f4"), 5.0)
    with pytest.raises(BadFileError, match="labels are whole numbers"):
        cryonaut("measure", "volumes", tmp_path / "grey.zarr", "-o", tmp_path)
