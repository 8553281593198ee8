"""Image files: what is in them comes out, and what is wrong with them is said in one line."""

import struct
from contextlib import suppress
from pathlib import Path

import cv2
import mrcfile
import numpy as np
import pytest
import tifffile

from agent.errors import BadFileError
from agent.frames import FrameStore
from agent.messages import Frame
from agent.wire import digest
from drivers.images import image_files, map_image, read_image

DATA = Path(__file__).parents[3] / "shared" / "data"
RANDOM = np.random.default_rng(7)


def some(dtype: str, rows: int = 21, columns: int = 34) -> np.ndarray:
    """An image without symmetry: a swapped axis or a flip shows."""
    return (RANDOM.random((rows, columns)) * 120 + np.arange(rows)[:, None]).astype(dtype)


def said(path: Path) -> str:
    """What the refusal of ``path`` says: one line that names the file."""
    with pytest.raises(BadFileError) as caught:
        read_image(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text


# ---------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("dtype", ["i1", "i2", "u2", "f4"])
@pytest.mark.parametrize("suffix", [".mrc", ".MRC", ".map", ".st"])
def test_mrc_comes_back_with_its_first_row_first(tmp_path: Path, dtype: str, suffix: str) -> None:
    image = some(dtype)
    path = tmp_path / f"a{suffix}"
    with mrcfile.new(path) as file:
        file.set_data(image)
        file.voxel_size = 2.345
    back, pixel_size = read_image(path)
    assert back.dtype == image.dtype
    assert np.array_equal(back, image)
    assert pixel_size == pytest.approx(2.345, rel=1e-5)


def test_of_an_mrc_stack_the_first_section_comes(tmp_path: Path) -> None:
    stack = np.stack([some("i2"), some("i2"), some("i2")])
    path = tmp_path / "a.st"
    with mrcfile.new(path) as file:
        file.set_data(stack)
        file.set_extended_header(np.zeros(10, "V100"))
        file.set_image_stack()
    assert np.array_equal(read_image(path)[0], stack[0])


def test_half_floats_are_widened(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    mrcfile.write(path, some("f2"))
    assert read_image(path)[0].dtype == np.float32


def test_a_big_endian_mrc_comes_back_native(tmp_path: Path) -> None:
    image = some("i2")
    header = bytearray(1024)
    struct.pack_into(">4i", header, 0, image.shape[1], image.shape[0], 1, 1)
    path = tmp_path / "sgi.mrc"
    path.write_bytes(bytes(header) + image.astype(">i2").tobytes())
    back, pixel_size = read_image(path)
    assert np.array_equal(back, image)
    assert back.dtype.isnative
    assert pixel_size is None


def test_bytes_that_imod_wrote_unsigned_stay_unsigned(tmp_path: Path) -> None:
    image = np.arange(256, dtype=np.uint8).reshape(8, 32)
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, 32, 8, 1, 0)
    struct.pack_into("<2i", header, 152, 1146047817, 0)
    path = tmp_path / "imod.mrc"
    path.write_bytes(bytes(header) + image.tobytes())
    assert np.array_equal(read_image(path)[0], image)


@pytest.mark.parametrize(("cell", "sampling"), [(34.0, 34), (340.0, 68), (0.0, 34), (float("nan"), 34)])
def test_an_mrc_pixel_size_that_says_nothing_is_none(tmp_path: Path, cell: float, sampling: int) -> None:
    path = tmp_path / "a.mrc"
    with mrcfile.new(path) as file:
        file.set_data(some("i2"))
        file.header.mx = sampling
        file.header.cella.x = cell
        file.header.cella.y = cell * 21 / 34
    assert read_image(path)[1] is None


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "f4", "f8"])
def test_tiff_comes_back_with_its_dtype(tmp_path: Path, dtype: str) -> None:
    image = some(dtype)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image, byteorder=">")
    back, pixel_size = read_image(path)
    assert np.array_equal(back, image)
    assert back.dtype == image.dtype
    assert pixel_size is None


def test_a_frame_of_ours_has_the_pixel_size_of_its_header(tmp_path: Path) -> None:
    image = some("u2")
    frame = Frame(
        frame_id="f1", session_id="s", level="low", pixel_size_angstrom=812.5, shape=image.shape, dtype="<u2",
        digest=digest(image),
    )  # fmt: skip
    path = tmp_path / FrameStore(tmp_path).save(frame, image)
    back, pixel_size = read_image(path)
    assert np.array_equal(back, image)
    assert pixel_size == 812.5


@pytest.mark.parametrize(
    ("options", "angstrom"),
    [
        ({"resolution": (1e8 / 1.35, 1e8 / 1.35), "resolutionunit": "CENTIMETER"}, 1.35),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, None),
        ({"resolution": (1, 1), "resolutionunit": "NONE"}, None),
        ({"imagej": True, "resolution": (765.6, 765.6), "metadata": {"unit": "micron"}}, 13.0617),
        ({"imagej": True, "resolution": (765.6, 765.6), "metadata": {"unit": "\\u00B5m"}}, 13.0617),
        ({"imagej": True, "resolution": (2.0, 2.0), "metadata": {"unit": "nm"}}, 5.0),
        ({"imagej": True, "resolution": (2.0, 2.0), "metadata": {"unit": "furlong"}}, None),
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.02, "PhysicalSizeY": 0.02}}, 200.0),
        (
            {
                "ome": True,
                "metadata": {
                    "PhysicalSizeX": 1.5,
                    "PhysicalSizeXUnit": "nm",
                    "PhysicalSizeY": 1.5,
                    "PhysicalSizeYUnit": "nm",
                },
            },
            15.0,
        ),
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.02, "PhysicalSizeY": 0.05}}, None),
        ({"description": '{"pixel_size_angstrom": "wide"}', "metadata": None}, None),
    ],
)
def test_tiff_pixel_sizes_are_taken_where_they_can_be_meant(tmp_path: Path, options: dict, angstrom: float) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, some("u2"), **options)
    assert read_image(path)[1] == (None if angstrom is None else pytest.approx(angstrom, rel=1e-3))


def test_of_a_tiff_with_pages_the_first_comes(tmp_path: Path) -> None:
    stack = np.stack([some("u2"), some("u2")])
    tifffile.imwrite(tmp_path / "a.tif", stack)
    assert np.array_equal(read_image(tmp_path / "a.tif")[0], stack[0])


@pytest.mark.parametrize("options", [{}, {"planarconfig": "separate"}])
def test_colours_of_a_tiff_become_luminance(tmp_path: Path, options: dict) -> None:
    colours = RANDOM.integers(0, 60_000, (12, 17, 3), dtype=np.uint16)
    stored = np.moveaxis(colours, -1, 0) if options else colours
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", **options)
    back, _ = read_image(tmp_path / "a.tif")
    assert back.dtype == np.uint16
    assert np.abs(back - colours @ np.array([0.299, 0.587, 0.114])).max() <= 0.5 + 1e-6


def test_a_compressed_tiff_comes_back(tmp_path: Path) -> None:
    image = some("u2")
    path = tmp_path / "lzw.tif"
    assert cv2.imwrite(str(path), image, [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    assert np.array_equal(read_image(path)[0], image)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_png_keeps_its_bits(tmp_path: Path, dtype: str) -> None:
    image = some(dtype) if dtype == "u1" else some("f8").astype("u2") * 500
    path = tmp_path / "a.PNG"
    path.write_bytes(cv2.imencode(".png", image)[1])
    back, pixel_size = read_image(path)
    assert np.array_equal(back, image)
    assert back.dtype == image.dtype
    assert pixel_size is None


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_become_luminance_and_alpha_is_ignored(tmp_path: Path, channels: int) -> None:
    colours = RANDOM.integers(0, 256, (12, 17, channels), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), colours)
    back, _ = read_image(tmp_path / "a.png")
    assert back.shape == (12, 17)
    assert np.abs(back - colours[..., :3] @ np.array([0.114, 0.587, 0.299])).max() <= 0.5 + 1e-6


def test_grey_stored_as_colours_is_exact(tmp_path: Path) -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    cv2.imwrite(str(tmp_path / "a.png"), cv2.merge([image] * 3))
    assert np.array_equal(read_image(tmp_path / "a.png")[0], image)


def test_jpeg_comes_back_and_its_exif_orientation_is_ignored(tmp_path: Path) -> None:
    image = np.tile(np.arange(0, 240, 5, dtype=np.uint8), (20, 1))
    raw = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    turned = b"Exif\x00\x00" + b"MM\x00*\x00\x00\x00\x08\x00\x01" + struct.pack(">HHIHHI", 0x112, 3, 1, 6, 0, 0)
    raw = raw[:2] + b"\xff\xe1" + struct.pack(">H", len(turned) + 2) + turned + raw[2:]
    (tmp_path / "a.jpg").write_bytes(raw)
    back, _ = read_image(tmp_path / "a.jpg")
    assert back.shape == image.shape
    assert np.abs(back.astype(int) - image).max() < 12


# ---------------------------------------------------------------------------------------------- refusals


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    assert "no such file" in said(tmp_path / "a.mrc")


def test_a_folder_is_said(tmp_path: Path) -> None:
    assert "folder" in said(tmp_path)


@pytest.mark.parametrize("suffix", [".mrc", ".tif", ".png", ".jpg"])
def test_an_empty_file_is_said(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").touch()
    assert "empty" in said(tmp_path / f"a{suffix}")


def test_an_unknown_suffix_is_said_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    text = said(tmp_path / "a.gif")
    assert "'.gif'" in text
    assert ".mrc" in text
    assert ".jpeg" in text


@pytest.mark.parametrize("suffix", [".mrc", ".tif", ".png", ".jpg"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.97])
def test_a_truncated_file_is_said(tmp_path: Path, suffix: str, kept: float) -> None:
    image = RANDOM.integers(0, 255, (200, 300), dtype=np.uint8)
    path = tmp_path / f"a{suffix}"
    match suffix:
        case ".mrc":
            mrcfile.write(path, image.astype("i2"))
        case ".tif":
            tifffile.imwrite(path, image)
        case _:
            cv2.imwrite(str(path), image)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * kept)])
    assert "truncated" in said(path)


@pytest.mark.parametrize("suffix", [".mrc", ".tif", ".png", ".jpg"])
def test_something_else_under_a_known_suffix_is_said(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(b"<html>not found</html>" * 100)
    assert any(word in said(tmp_path / f"a{suffix}") for word in ("not an MRC", "not a TIFF", "neither PNG nor JPEG"))


@pytest.mark.parametrize(
    ("sizes", "word"),
    [
        ((0, 0, 1, 1), "0 x 0"),
        ((40_000, 60_000, 1, 0), "at most"),
        ((500, 500, 1, 2), "claims"),
        ((8, 8, 1, 4), "complex"),
        ((8, 8, 1, 99), "not an MRC"),
        ((-8, 8, 1, 1), "not an MRC"),
    ],
)
def test_an_mrc_header_that_cannot_be_is_said(tmp_path: Path, sizes: tuple[int, ...], word: str) -> None:
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, *sizes)
    (tmp_path / "a.mrc").write_bytes(bytes(header) + bytes(512))
    assert word in said(tmp_path / "a.mrc")


def test_complex_numbers_are_said(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((20, 20), np.complex64))
    assert "complex" in said(tmp_path / "a.tif")
    mrcfile.write(tmp_path / "a.mrc", np.ones((20, 20), np.complex64))
    assert "complex" in said(tmp_path / "a.mrc")


def test_a_png_that_claims_too_many_pixels_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), some("u1"))
    raw = bytearray(path.read_bytes())
    struct.pack_into(">II", raw, 16, 60_000, 60_000)
    path.write_bytes(raw)
    assert "at most" in said(path)


def test_a_tiff_that_claims_more_than_it_holds_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, some("u2"))
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["ImageLength"].overwrite(9_000)
    assert "claims" in said(path) or "damaged" in said(path)


@pytest.mark.parametrize("suffix", [".mrc", ".tif", ".png", ".jpg"])
def test_no_damage_of_single_bytes_gets_past_as_another_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    image = some("u1")
    mrcfile.write(path, image.astype("i2")) if suffix == ".mrc" else cv2.imwrite(str(path), image)
    raw = path.read_bytes()
    for _ in range(150):
        broken = bytearray(raw)
        broken[RANDOM.integers(0, min(len(raw), 400))] = RANDOM.integers(0, 256)
        path.write_bytes(broken)
        with suppress(BadFileError):
            assert read_image(path)[0].ndim == 2


# ---------------------------------------------------------------------------------------------- folders, real files


def test_a_folder_gives_its_images_sorted_and_each_once(tmp_path: Path) -> None:
    for name in ("b.png", "a.TIF", "c.mrc", "notes.txt", "._a.png"):
        (tmp_path / name).touch()
    (tmp_path / "d.png").mkdir()
    named = [tmp_path / "notes.txt", tmp_path, tmp_path / "b.png"]
    assert [p.name for p in image_files(named)] == ["notes.txt", "a.TIF", "b.png", "c.mrc"]


def test_a_folder_without_images_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="no image"):
        image_files([tmp_path])


@pytest.mark.skipif(not DATA.is_dir(), reason="the real data (../shared/data) is not here")
def test_every_real_file_can_be_read() -> None:
    for path in image_files([DATA / name for name in ("gold", "highmag", "lowmag", "medmag", "vesicles")]):
        image, _ = read_image(path)
        assert image.ndim == 2
        if path.suffix == ".mrc":
            with path.open("rb") as file:
                file.seek(1024)
                first = np.frombuffer(file.read(4 * image.itemsize), image.dtype)
            assert np.array_equal(image[0, :4], first)


@pytest.mark.parametrize("suffix", [".mrc", ".tif", ".png"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_mapped_image_is_the_one_that_is_read(tmp_path, suffix, dtype):
    path = tmp_path / f"image{suffix}"
    image = np.arange(35 * 21).reshape(35, 21).astype(dtype)
    if suffix == ".mrc":
        mrcfile.write(path, image.astype("int16" if dtype == "uint8" else dtype), voxel_size=2.5)
    elif suffix == ".tif":
        tifffile.imwrite(path, image, byteorder=">")
    else:
        cv2.imwrite(str(path), image)
    mapped, mapped_size = map_image(path)
    read, size = read_image(path)
    assert np.array_equal(mapped, read)
    assert mapped_size == size
    assert isinstance(mapped, np.memmap) == (suffix != ".png")


def test_a_compressed_tiff_is_read_where_it_cannot_be_mapped(tmp_path):
    image = np.arange(4000).reshape(40, 100).astype("uint16")
    tifffile.imwrite(tmp_path / "a.tif", image, compression="zlib")
    mapped, _ = map_image(tmp_path / "a.tif")
    assert np.array_equal(mapped, image)


def test_what_cannot_be_read_cannot_be_mapped_either(tmp_path):
    (tmp_path / "a.mrc").write_bytes(b"short")
    with pytest.raises(BadFileError, match="truncated"):
        map_image(tmp_path / "a.mrc")
    with pytest.raises(BadFileError, match="no such file"):
        map_image(tmp_path / "b.tif")
