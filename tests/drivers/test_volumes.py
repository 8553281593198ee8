"""Volume files: what is read is what was written, with its voxel size, and what is wrong is one line."""

import struct
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile

from agent.errors import BadFileError
from drivers.volumes import new_mrc, open_volume, write_ome_zarr

DATA = np.random.default_rng(1).integers(0, 4000, (9, 20, 30), dtype=np.uint16)


def mrc(path: Path, data: np.ndarray = DATA, voxel: float | tuple[float, float, float] = 15.0) -> Path:
    with mrcfile.new(path) as file:
        file.set_data(data)
        file.voxel_size = voxel
    return path


def test_an_mrc_volume_comes_back_section_by_section(tmp_path: Path) -> None:
    volume = open_volume(mrc(tmp_path / "a.mrc"))
    assert volume.voxel_nm == pytest.approx(1.5)
    assert np.array_equal(volume.array[3:5, 2:7], DATA[3:5, 2:7])


def test_a_placeholder_voxel_size_is_none(tmp_path: Path) -> None:
    assert open_volume(mrc(tmp_path / "a.mrc", voxel=1.0)).voxel_nm is None


def test_flat_voxels_are_refused_with_their_edges_where_cubes_are_asked_for(tmp_path: Path) -> None:
    volume = open_volume(mrc(tmp_path / "a.mrc", voxel=(15.0, 15.0, 30.0)))
    assert volume.edges_nm == pytest.approx((3.0, 1.5, 1.5))
    with pytest.raises(BadFileError, match=r"voxels of 3 x 1\.5 x 1\.5 nm"):
        _ = volume.voxel_nm


def test_an_imagej_stack_has_the_voxel_size_of_its_spacing(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    facts = {"spacing": 2.2, "unit": "nm", "axes": "ZYX"}
    tifffile.imwrite(path, DATA, imagej=True, resolution=(1 / 2.2, 1 / 2.2), metadata=facts)
    volume = open_volume(path)
    assert volume.voxel_nm == pytest.approx(2.2, rel=1e-3)
    assert np.array_equal(volume.array[4], DATA[4])


def test_a_compressed_stack_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, DATA, compression="zlib", metadata={"axes": "ZYX"})
    volume = open_volume(path)
    assert volume.voxel_nm is None
    assert np.array_equal(volume.array[:], DATA)


@pytest.mark.parametrize("labels", [False, True])
def test_an_ome_zarr_comes_back_with_coarser_levels(tmp_path: Path, labels: bool) -> None:
    import zarr

    write_ome_zarr(tmp_path / "a.zarr", DATA, 2.2, labels=labels)
    volume = open_volume(tmp_path / "a.zarr")
    assert volume.voxel_nm == pytest.approx(2.2)
    assert np.array_equal(volume.array[:], DATA)
    half = zarr.open(str(tmp_path / "a.zarr"), mode="r")["s1"][:]
    assert half.shape == (4, 10, 15)
    block = DATA[:8].reshape(4, 2, 10, 2, 15, 2)
    wanted = block[:, 0, :, 0, :, 0] if labels else np.rint(block.mean(axis=(1, 3, 5)))
    assert np.array_equal(half, wanted)


def test_a_new_mrc_is_filled_in_place(tmp_path: Path) -> None:
    with new_mrc(tmp_path / "a.mrc", DATA.shape, 1.47) as file:
        file.data[...] = DATA
    volume = open_volume(tmp_path / "a.mrc")
    assert volume.voxel_nm == pytest.approx(1.47, rel=1e-5)
    assert np.array_equal(volume.array, DATA)


def test_what_is_no_volume_is_one_clear_line(tmp_path: Path) -> None:
    cut = mrc(tmp_path / "cut.mrc")
    cut.write_bytes(cut.read_bytes()[:-100])
    (tmp_path / "text.mrc").write_text("hello")
    (tmp_path / "empty.zarr").mkdir()
    complex_ = mrc(tmp_path / "complex.mrc")
    raw = bytearray(complex_.read_bytes())
    struct.pack_into("<i", raw, 12, 4)
    complex_.write_bytes(raw)
    tifffile.imwrite(tmp_path / "flat.tif", DATA[0])
    told = {
        "cut.mrc": "truncated",
        "text.mrc": "not an MRC file",
        "empty.zarr": "no zarr",
        "complex.mrc": "MRC mode 4",
        "flat.tif": "expected sections",
        "absent.mrc": "no such file",
    }
    for name, word in told.items():
        with pytest.raises(BadFileError, match=word) as raised:
            open_volume(tmp_path / name)
        assert "\n" not in str(raised.value)
