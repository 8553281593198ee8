"""Volumes in and out: bit for bit, with their voxel size and place, whatever the format; what is wrong is one line."""

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from agent.cli import app
from agent.errors import BadFileError, ConfigError
from drivers.organelles import preparing
from drivers.volumes import NewVolume, open_volume
from drivers.volumes.base import Lazy

RNG = np.random.default_rng(3)
DATA = RNG.integers(0, 4000, (9, 20, 30), dtype=np.uint16)


def cryonaut(*words: object) -> None:
    app([str(word) for word in words], exit_on_error=False, result_action="return_value")


def sections(folder: Path, data: np.ndarray, first: int = 0) -> Path:
    folder.mkdir()
    for n, plane in enumerate(data, start=first):
        tifffile.imwrite(folder / f"cell_{n:03d}_raw.tif", plane)
    return folder


def n5(path: Path, data: np.ndarray, block: tuple[int, int, int], facts: dict, kind: str = "gzip") -> Path:
    """A dataset written by hand from the N5 specification: blocks (x, y, z) of big-endian numbers with a header."""
    path.mkdir(parents=True)
    sizes = {"gzip": {"type": "gzip", "level": -1}, "raw": {"type": "raw"}}
    head = {
        "dimensions": list(data.shape[::-1]),
        "blockSize": list(block),
        "dataType": data.dtype.name,
        "compression": sizes[kind],
    }
    (path / "attributes.json").write_text(json.dumps(head | facts))
    nx, ny, nz = (-(-n // b) for n, b in zip(data.shape[::-1], block, strict=True))
    for i, j, k in np.ndindex(nx, ny, nz):
        part = data[
            k * block[2] : (k + 1) * block[2], j * block[1] : (j + 1) * block[1], i * block[0] : (i + 1) * block[0]
        ]
        raw = part.astype(part.dtype.newbyteorder(">")).tobytes()
        file = path / str(i) / str(j) / str(k)
        file.parent.mkdir(parents=True, exist_ok=True)
        header = struct.pack(">HHIII", 0, 3, *part.shape[::-1])
        file.write_bytes(header + (gzip.compress(raw) if kind == "gzip" else raw))
    return path


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "u4", "f4"])
def test_sections_to_zarr_and_back_are_the_same_bits(tmp_path: Path, dtype: str) -> None:
    data = RNG.integers(0, 2**31, (5, 12, 17)).astype("u4").view("f4" if dtype == "f4" else "u4").astype(dtype)
    data = np.nan_to_num(data)
    source = sections(tmp_path / "in", data, first=7)
    cryonaut("volume", "convert", source, "-o", tmp_path / "a.zarr", "--voxel-size", "5.24,4,4")
    volume = open_volume(tmp_path / "a.zarr")
    assert volume.edges_nm == (5.24, 4.0, 4.0)
    for out in ("back", "back.tif"):
        cryonaut("volume", "convert", tmp_path / "a.zarr", "-o", tmp_path / out)
        back = open_volume(tmp_path / out)
        assert back.array.dtype == data.dtype
        assert back.array[:].tobytes() == data.tobytes()
    assert open_volume(tmp_path / "back.tif").edges_nm == pytest.approx((5.24, 4, 4))


def test_a_crop_of_a_crop_goes_back_to_its_place_in_the_whole(tmp_path: Path) -> None:
    source = tmp_path / "whole.tif"
    tifffile.imwrite(source, DATA, metadata={"axes": "ZYX"})
    cryonaut("volume", "crop", source, "-o", tmp_path / "a.zarr", "--voxel-size", "5", "--z", "2:", "--x", "4:28")
    cryonaut("volume", "crop", tmp_path / "a.zarr", "-o", tmp_path / "b.zarr", "--z", ":4", "--y", "3:11", "--x", "1:9")
    volume = open_volume(tmp_path / "b.zarr")
    assert volume.offset_nm == (10.0, 15.0, 25.0)
    assert np.array_equal(volume.array[:], DATA[2:6, 3:11, 5:13])
    for out in ("whole_again.tif", "whole_again.mrc"):
        cryonaut("volume", "convert", tmp_path / "b.zarr", "-o", tmp_path / out, "--aligned")
        wanted = np.zeros_like(DATA)
        wanted[2:6, 3:11, 5:13] = DATA[2:6, 3:11, 5:13]
        assert np.array_equal(open_volume(tmp_path / out).array, wanted)
    with pytest.raises(ConfigError, match="is no crop"):
        cryonaut("volume", "convert", source, "-o", tmp_path / "c.tif", "--aligned")


def test_labels_of_other_voxels_lie_on_the_original_again(tmp_path: Path) -> None:
    original = tmp_path / "cell.tif"
    tifffile.imwrite(original, np.zeros((12, 20, 30), "u1"), metadata={"axes": "ZYX"})
    coarse = RNG.integers(0, 9, (4, 8, 10), dtype=np.uint32)
    new = NewVolume(tmp_path / "labels.zarr", (8.0, 8.0, 8.0), (6.0, 10.0, 2.0), labels=True)
    new.begin(coarse.shape, "u4", (4, 4, 4))[:] = coarse
    new.finish(1)
    words = ("volume", "convert", tmp_path / "labels.zarr", "-o", tmp_path / "back.tif", "--like", original)
    cryonaut(*words, "--voxel-size", "4")
    back = open_volume(tmp_path / "back.tif")
    assert back.voxel_nm == pytest.approx(4)
    for place in np.ndindex(12, 20, 30):
        at = [np.floor((p * 4 - o) / 8 + 0.5) for p, o in zip(place, (6, 10, 2), strict=True)]
        inside = all(0 <= a < n for a, n in zip(at, coarse.shape, strict=True))
        assert back.array[place] == (coarse[tuple(int(a) for a in at)] if inside else 0)
    new = NewVolume(tmp_path / "far.zarr", (8.0, 8.0, 8.0), (6000.0, 0.0, 0.0))
    new.begin((4, 4, 4), "u4", (4, 4, 4))
    new.finish(1)
    with pytest.raises(ConfigError, match="lies beside"):
        cryonaut(
            "volume", "convert", tmp_path / "far.zarr", "-o", tmp_path / "b.tif", "--like", original, "--voxel-size", 4
        )


@pytest.mark.parametrize("kind", ["gzip", "raw"])
@pytest.mark.parametrize(
    "facts",
    [
        {"pixelResolution": {"dimensions": [4.0, 4.0, 5.24], "unit": "nm"}},
        {"transform": {"axes": ["z", "y", "x"], "scale": [5.24, 4, 4], "translate": [10, 0, 0], "units": ["nm"] * 3}},
        {"resolution": [4, 4, 5.24]},
    ],
    ids=["bigdataviewer", "openorganelle", "neuroglancer"],
)
def test_an_n5_written_by_hand_is_read_with_its_voxel_size(tmp_path: Path, kind: str, facts: dict) -> None:
    path = n5(tmp_path / "cell.n5" / "raw", DATA, (16, 8, 4), facts, kind)
    volume = open_volume(path)
    assert volume.edges_nm == pytest.approx((5.24, 4.0, 4.0))
    assert np.array_equal(volume.array[:], DATA)
    assert np.array_equal(volume.array[3:8, 5, ::2], DATA[3:8, 5, ::2])
    cryonaut("volume", "convert", path, "-o", tmp_path / "a.zarr", "--invert")
    turned = open_volume(tmp_path / "a.zarr")
    assert np.array_equal(turned.array[:], 65535 - DATA)
    assert turned.edges_nm == pytest.approx(volume.edges_nm)
    assert turned.offset_nm == volume.offset_nm


def test_a_group_of_an_n5_names_what_is_inside(tmp_path: Path) -> None:
    n5(tmp_path / "cell.n5" / "em" / "s0", DATA, (16, 8, 4), {})
    (tmp_path / "cell.n5" / "attributes.json").write_text('{"n5": "2.0.0"}')
    with pytest.raises(BadFileError, match=r"name the dataset inside it; there are: em/s0"):
        open_volume(tmp_path / "cell.n5")
    (tmp_path / "cell.n5" / "em" / "attributes.json").write_text('{"resolution": [8, 8, 8]}')
    volume = open_volume(tmp_path / "cell.n5" / "em")
    assert (volume.voxel_nm, volume.shape) == (8.0, DATA.shape)


def test_a_damaged_block_of_an_n5_is_one_line_that_says_where(tmp_path: Path) -> None:
    path = n5(tmp_path / "raw", DATA, (16, 8, 4), {})
    block = path / "1" / "1" / "1"
    block.write_bytes(block.read_bytes()[:-40])
    with pytest.raises(BadFileError, match=r"damaged or truncated, voxels 4:6 0:20 0:30") as raised:
        open_volume(path).array[4:6]
    assert "\n" not in str(raised.value)


def test_a_plain_zarr_of_version_2_has_its_resolution_and_offset_in_nm(tmp_path: Path) -> None:
    root = zarr.open_group(str(tmp_path / "cell.zarr"), mode="w", zarr_format=2)
    raw = root.create_array("volumes/raw", shape=DATA.shape, chunks=(4, 8, 16), dtype="u2")
    raw[:] = DATA
    raw.attrs.update({"resolution": [5, 4, 4], "offset": [50, 0, 40]})
    volume = open_volume(tmp_path / "cell.zarr" / "volumes" / "raw")
    assert (volume.edges_nm, volume.offset_nm) == ((5.0, 4.0, 4.0), (50.0, 0.0, 40.0))
    assert np.array_equal(volume.array[:], DATA)
    chunk = next(p for p in (tmp_path / "cell.zarr" / "volumes" / "raw").iterdir() if p.name == "1.1.1")
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(BadFileError, match="damaged or truncated"):
        volume.array[:]


def test_a_missing_section_and_a_missing_voxel_size_are_told(tmp_path: Path) -> None:
    folder = sections(tmp_path / "in", DATA)
    with pytest.raises(ConfigError, match=r"says no voxel size: give it with --voxel-size"):
        cryonaut("volume", "convert", folder, "-o", tmp_path / "a.zarr")
    (folder / "cell_004_raw.tif").unlink()
    with pytest.raises(BadFileError, match=r"1 of 9 sections missing: 4"):
        open_volume(folder)
    tifffile.imwrite(folder / "cell_004_raw.tif", DATA[4, :5])
    with pytest.raises(BadFileError, match=r"cell_004_raw.tif: \(5, 30\) of uint16"):
        open_volume(folder).array[3:6]


def test_nan_is_refused_with_its_place_or_given_a_value(tmp_path: Path) -> None:
    data = DATA.astype("f4")
    data[4, 5, 6] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", data, metadata={"axes": "ZYX"})
    words = ("volume", "convert", tmp_path / "a.tif", "-o", tmp_path / "a.zarr", "--voxel-size", 5)
    with pytest.raises(BadFileError, match=r"voxel \(z 4, y 5, x 6\) is not a number"):
        cryonaut(*words)
    with pytest.raises(BadFileError, match="unfinished: run again"):
        open_volume(tmp_path / "a.zarr")
    cryonaut(*words, "--nan", "7", "--force")
    assert open_volume(tmp_path / "a.zarr").array[4, 5, 6] == 7


def test_an_interrupted_conversion_goes_on_and_reads_no_block_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "CHUNK", 8)
    tifffile.imwrite(tmp_path / "a.tif", DATA, metadata={"axes": "ZYX"})
    source = open_volume(tmp_path / "a.tif")
    asked: list[int] = []

    def reading(limit: int) -> Lazy:
        def fetch(low: tuple[int, int, int], high: tuple[int, int, int]) -> np.ndarray:
            if len(asked) == limit:
                raise KeyboardInterrupt
            asked.append(sum(low))
            return source.array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]

        return Lazy(DATA.shape, DATA.dtype, source.path, fetch)

    for limit in (5, 10**6):
        volume = type(source)(reading(limit), (5.0, 5.0, 5.0), source.path)
        monkeypatch.setattr(preparing, "opened", lambda _, volume=volume: volume)
        if limit == 5:
            with pytest.raises(KeyboardInterrupt):
                preparing.copy(volume, tmp_path / "out.zarr", (5.0, 5.0, 5.0))
        else:
            preparing.copy(volume, tmp_path / "out.zarr", (5.0, 5.0, 5.0))
    assert len(asked) == 2 * 3 * 4
    assert np.array_equal(open_volume(tmp_path / "out.zarr").array[:], DATA)
    assert not (tmp_path / "out.zarr.work").exists()


def test_nothing_is_written_over_by_accident_and_a_dry_run_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", DATA, metadata={"axes": "ZYX"})
    words = ("volume", "convert", tmp_path / "a.tif", "-o", tmp_path / "a.zarr", "--voxel-size", 5)
    cryonaut(*words, "--dry-run")
    assert "GiB" in capsys.readouterr().out
    assert not (tmp_path / "a.zarr").exists()
    cryonaut(*words)
    with pytest.raises(ConfigError, match="is there already"):
        cryonaut(*words)
    cryonaut("volume", "info", tmp_path / "a.zarr")
    assert "9 x 20 x 30 voxels (z, y, x) of uint16, voxels of 5 nm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("crop", "a.tif", "-o", "b.zarr", "--voxel-size", "5", "--z", "4:99"), r"--z 4:99: first:last within 0:9"),
        (("crop", "a.tif", "-o", "b.tif", "--voxel-size", "5"), "a crop is an OME-Zarr"),
        (("convert", "a.tif", "-o", "b.zarr", "--voxel-size", "5,4"), r"one edge in nm, or three"),
        (("convert", "rgb.tif", "-o", "b.zarr", "--voxel-size", "5"), "expected sections of grey images"),
        (("normalise", "flat.tif", "-o", "b.zarr", "--voxel-size", "5"), "all voxels are 7"),
    ],
)
def test_what_cannot_be_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("a.tif", DATA, metadata={"axes": "ZYX"})
    tifffile.imwrite("rgb.tif", np.zeros((9, 20, 30, 3), "u1"), photometric="rgb")
    tifffile.imwrite("flat.tif", np.full((5, 8, 8), 7, "u1"), photometric="minisblack", metadata={"axes": "ZYX"})
    with pytest.raises((ConfigError, BadFileError), match=told) as raised:
        cryonaut("volume", *words)
    assert "\n" not in str(raised.value)
