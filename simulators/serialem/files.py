"""Image files as SerialEM writes them: MRC stacks, bottom row first, with an .mdoc beside each."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from simulators.serialem.buffers import ImageBuffer
from simulators.serialem.commands import ScriptError

HEADER_BYTES = 1024
MODES = {"uint8": 0, "int16": 1, "float32": 2, "uint16": 6}
DTYPES = {0: "|u1", 1: "<i2", 2: "<f4", 6: "<u2"}
UNSIGNED_BYTES = 1146047817  # IMOD's stamp and flag: bytes of mode 0 are signed
SIGNED_FLAG = 0


def mdoc_values(image: ImageBuffer) -> dict[str, str]:
    """What an .mdoc says of an image."""
    x, y, z = image.stage_um
    rows, columns = image.pixels.shape[:2]
    values = {
        "TiltAngle": f"{image.tilt_deg:.3f}",
        "StagePosition": f"{x:.4f} {y:.4f}",
        "StageZ": f"{z:.4f}",
        "Magnification": str(image.mag),
        "Intensity": "0.12",
        "ExposureDose": f"{image.dose_e_per_a2:.6g}",
        "PixelSpacing": f"{image.pixel_nm * 10:.4f}",
        "SpotSize": "5",
        "Defocus": f"{image.defocus_um:.4f}",
        "ImageShift": f"{image.image_shift_um[0]:.4f} {image.image_shift_um[1]:.4f}",
        "RotationAngle": "0",
        "ExposureTime": f"{image.exposure_s:.4f}",
        "Binning": f"{image.binning:g}",
        "CameraIndex": "0",
        "OperatingMode": "0",
        "UncroppedSize": f"{columns} {rows}",
        "MinMaxMean": f"{image.pixels.min():g} {image.pixels.max():g} {float(image.pixels.mean()):.6g}",
        "DateTime": f"simulated {image.taken_s:.2f}",
    }
    if image.frame_file:
        values["SubFramePath"] = image.frame_file
    return values | image.extra


@dataclass(slots=True)
class ImageFile:
    """One open stack.

    Parameters
    ----------
    path
        Where it lies here.
    name
        How SerialEM calls it.
    montage
        Whether its sections are the pieces of a montage.
    """

    path: Path
    name: str
    montage: bool = False
    sections: int = 0
    mode: int = -1
    shape: tuple[int, int] = (0, 0)
    pending: dict[str, str] = field(default_factory=dict)
    _stream: BinaryIO | None = None

    @classmethod
    def new(cls, path: Path, name: str, *, overwrite: bool, montage: bool = False) -> ImageFile:
        """A new, empty stack; `ScriptError` when one is there and must not be overwritten."""
        if path.exists() and not overwrite:
            raise ScriptError(f"The file {name} already exists, and overwriting was not allowed")
        path.parent.mkdir(parents=True, exist_ok=True)
        file = cls(path, name, montage)
        file._stream = path.open("w+b")
        file._stream.write(bytes(HEADER_BYTES))
        file.mdoc_path.unlink(missing_ok=True)
        return file

    @classmethod
    def old(cls, path: Path, name: str) -> ImageFile:
        """An existing stack, to be read or continued."""
        try:
            stream = path.open("r+b")
        except OSError as error:
            raise ScriptError(f"Error opening {name}: {error.strerror}") from error
        head = stream.read(HEADER_BYTES)
        if len(head) < HEADER_BYTES or struct.unpack_from("<i", head, 12)[0] not in DTYPES:
            stream.close()
            raise ScriptError(f"{name} is not an MRC file that can be opened")
        columns, rows, sections, mode = struct.unpack_from("<4i", head)
        return cls(path, name, sections=sections, mode=mode, shape=(rows, columns), _stream=stream)

    @property
    def mdoc_path(self) -> Path:
        """The .mdoc beside it."""
        return self.path.with_name(f"{self.path.name}.mdoc")

    def append(self, image: ImageBuffer) -> int:
        """Add a section and return its number from 0."""
        stream = self._open()
        pixels = image.pixels
        mode = MODES.get(pixels.dtype.name, -1)
        if mode < 0 or pixels.ndim != 2:
            raise ScriptError(f"An image of {pixels.dtype} cannot be saved to {self.name}")
        if self.sections and (mode, pixels.shape) != (self.mode, self.shape):
            raise ScriptError(f"The image does not have the size and mode of the sections in {self.name}")
        self.mode, self.shape = mode, (pixels.shape[0], pixels.shape[1])
        stream.seek(HEADER_BYTES + self.sections * pixels.nbytes)
        stream.write(np.ascontiguousarray(pixels[::-1]).astype(DTYPES[mode], copy=False).tobytes())
        self.sections += 1
        self._write_header(pixels, image.pixel_nm)
        self._write_mdoc(image)
        stream.flush()
        return self.sections - 1

    def read(self, section: int) -> NDArray[Any]:
        """A section, top row first."""
        stream = self._open()
        if not 0 <= section < self.sections:
            raise ScriptError(f"There is no section {section} in {self.name}: it has {self.sections}")
        size = self.shape[0] * self.shape[1] * np.dtype(DTYPES[self.mode]).itemsize
        stream.seek(HEADER_BYTES + section * size)
        pixels = np.frombuffer(stream.read(size), DTYPES[self.mode]).reshape(self.shape)
        return np.ascontiguousarray(pixels[::-1])

    def write_pending(self) -> None:
        """Put the lines of AddToAutodoc into the .mdoc."""
        if self.pending:
            with self.mdoc_path.open("a", encoding="utf-8") as mdoc:
                mdoc.writelines(f"{key} = {value}\n" for key, value in self.pending.items())
            self.pending = {}

    def close(self) -> None:
        """Close the stack."""
        if self._stream is not None:
            self.write_pending()
            self._stream.close()
            self._stream = None

    def _open(self) -> BinaryIO:
        if self._stream is None:
            raise ScriptError(f"{self.name} is not open")
        return self._stream

    def _write_header(self, pixels: NDArray[Any], pixel_nm: float) -> None:
        rows, columns = self.shape
        size = 10 * pixel_nm or 1.0
        head = bytearray(HEADER_BYTES)
        struct.pack_into(
            "<10i", head, 0, columns, rows, self.sections, self.mode, 0, 0, 0, columns, rows, self.sections
        )
        struct.pack_into("<6f", head, 40, columns * size, rows * size, self.sections * size, 90.0, 90.0, 90.0)
        struct.pack_into("<3i", head, 64, 1, 2, 3)
        struct.pack_into("<3f", head, 76, float(pixels.min()), float(pixels.max()), float(pixels.mean()))
        struct.pack_into("<2i", head, 152, UNSIGNED_BYTES, SIGNED_FLAG)
        head[208:212], head[212:216] = b"MAP ", b"\x44\x44\0\0"
        stream = self._open()
        stream.seek(0)
        stream.write(head)

    def _write_mdoc(self, image: ImageBuffer) -> None:
        self.write_pending()
        lines = [f"[ZValue = {self.sections - 1}]"] + [f"{key} = {value}" for key, value in mdoc_values(image).items()]
        if self.sections == 1:
            rows, columns = self.shape
            top = [
                f"PixelSpacing = {image.pixel_nm * 10:.4f}",
                f"ImageFile = {self.path.name}",
                f"ImageSize = {columns} {rows}",
                *(["Montage = 1"] if self.montage else []),
                f"DataMode = {self.mode}",
                "",
                "[T = SerialEM: simulated by Cryonaut]",
                "",
            ]
            lines = top + lines
        else:
            lines = ["", *lines]
        with self.mdoc_path.open("a", encoding="utf-8") as mdoc:
            mdoc.write("\n".join(lines) + "\n")
