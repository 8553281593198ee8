"""Where the microscope looks, and the map between pixels and the stage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

ANGSTROM_PER_UM = 1e4


@dataclass(frozen=True, slots=True)
class View:
    """One exposure: stage, optics, dose and camera.

    Parameters
    ----------
    x_um, y_um
        Stage position at the image centre ``((columns - 1) / 2, (rows - 1) / 2)``.
    pixel_size_angstrom
        Side of one pixel, seen along the beam.
    shape
        (rows, columns).
    rotation_deg
        Camera relative to the stage axes; at 0 image x is stage x and image y is stage y.
    tilt_deg
        About the stage x axis: stage y appears shorter by cos(tilt).
    defocus_um
        Positive is underfocus.
    astigmatism_um, astigmatism_angle_deg
        Half the difference of the two defoci, and the axis (image x towards y) of the larger one.
    dose_e_per_a2
        Electrons per Å² that arrive at the specimen.
    drift_angstrom
        How far the specimen moves during the exposure.
    frame_seed
        The noise of this exposure; the specimen does not depend on it.
    beam_radius_um
        Radius of the illuminated disc; ``None`` is wider than the frame.
    """

    x_um: float
    y_um: float
    pixel_size_angstrom: float
    shape: tuple[int, int]
    rotation_deg: float = 0.0
    tilt_deg: float = 0.0
    defocus_um: float = 0.0
    astigmatism_um: float = 0.0
    astigmatism_angle_deg: float = 0.0
    dose_e_per_a2: float = 0.01
    drift_angstrom: float = 0.0
    frame_seed: int = 0
    beam_radius_um: float | None = None

    def __post_init__(self) -> None:
        """Refuse a view that no camera can take."""
        if self.pixel_size_angstrom <= 0 or min(self.shape) < 1:
            raise ValueError(f"pixel size {self.pixel_size_angstrom} Å and shape {self.shape} must be positive")
        if abs(self.tilt_deg) >= 85:
            raise ValueError(f"tilt {self.tilt_deg}° is outside -85…85°")

    @property
    def pixel_size_um(self) -> float:
        """Side of one pixel in µm."""
        return self.pixel_size_angstrom / ANGSTROM_PER_UM

    @property
    def centre_px(self) -> tuple[float, float]:
        """Centre of the image, (x, y) in pixels."""
        return (self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2

    @property
    def reach_um(self) -> float:
        """Radius of a disc on the stage that holds the whole frame."""
        rows, columns = self.shape
        return 0.5 * math.hypot(rows, columns) * self.pixel_size_um / math.cos(math.radians(self.tilt_deg))


Number = TypeVar("Number", float, NDArray[np.float64])
Matrix = tuple[float, float, float, float]


def image_to_stage(view: View) -> Matrix:
    """Matrix M, row major, in µm per pixel: stage = centre + M @ (pixel - image centre)."""
    angle, tilt = math.radians(view.rotation_deg), math.radians(view.tilt_deg)
    c, s, px = math.cos(angle), math.sin(angle), view.pixel_size_um
    return c * px, -s * px, s * px / math.cos(tilt), c * px / math.cos(tilt)


def pixel_to_stage(view: View, x: float, y: float) -> tuple[float, float]:
    """Stage position in µm of an image point (x, y) in pixels."""
    a, b, c, d = image_to_stage(view)
    cx, cy = view.centre_px
    return view.x_um + a * (x - cx) + b * (y - cy), view.y_um + c * (x - cx) + d * (y - cy)


def stage_to_pixel(view: View, x_um: Number, y_um: Number) -> tuple[Number, Number]:
    """Image point (x, y) in pixels of a stage position in µm, or of many (arrays)."""
    a, b, c, d = image_to_stage(view)
    cx, cy = view.centre_px
    dx, dy, det = x_um - view.x_um, y_um - view.y_um, a * d - b * c
    return cx + (d * dx - b * dy) / det, cy + (a * dy - c * dx) / det
