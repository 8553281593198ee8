"""From a buffer's pixels to the stage by SerialEM's own calibrations, checked against its answer for single points.

SerialEM counts image coordinates from the top left corner of the first pixel, we count from its centre: a pixel at our
(x, y) is at its (x + 0.5, y + 0.5). This module and `drivers.serialem.navigator` are where one becomes the other.
"""

import math
from typing import NamedTuple

import numpy as np

from drivers.serialem.client import SerialEMClient
from drivers.serialem.errors import BadReplyError

Matrix2 = tuple[float, float, float, float]
Point = tuple[float, float]
NAVIGATOR = 0  # coordinates as the Navigator has them: where the stage goes to have the point in the centre
TOLERANCE_PX = 3.0
CORNER = 0.5


class Transform(NamedTuple):
    """Pixels (x right, y down, the first's centre is 0) to the stage: stage = centre + matrix @ (pixel - middle)."""

    matrix: Matrix2  # micrometres per pixel, row major
    centre_um: Point
    middle_px: Point

    def stage_um(self, x: float, y: float) -> Point:
        """Stage position of a pixel."""
        a, b, c, d = self.matrix
        dx, dy = x - self.middle_px[0], y - self.middle_px[1]
        return (self.centre_um[0] + a * dx + b * dy, self.centre_um[1] + c * dx + d * dy)


class GeometryError(BadReplyError):
    """SerialEM's matrix and its answer for single points do not agree."""


def of_buffer(client: SerialEMClient, buffer: str, shape: tuple[int, int], *, check: bool = True) -> Transform:
    """The transform of the image in a buffer.

    Parameters
    ----------
    client
        Where to ask.
    buffer
        Its letter.
    shape
        (rows, columns) of the image.
    check
        Compare with SerialEM's own answer for four points.

    Raises
    ------
    GeometryError
        If matrix and points differ by more than a few pixels.
    """
    middle = ((shape[1] - 1) / 2, (shape[0] - 1) / 2)
    if not client.has("BufImageToStageMatrix"):
        return _of_calibration(client, buffer, middle)
    a, b, c, d, dx, dy = client.report("BufImageToStageMatrix", buffer, NAVIGATOR, least=6)[:6]
    if not abs(a * d - b * c) > 0:  # also true for NaN
        raise GeometryError(f"buffer {buffer}: SerialEM's matrix to the stage ({a:g} {b:g} {c:g} {d:g}) is of no use")
    x, y = middle[0] + CORNER, middle[1] + CORNER
    centre = (a * x + b * y + dx, c * x + d * y + dy)
    transform = Transform((a, b, c, d), centre, middle)
    if check and client.has("BufImagePosToStagePos"):
        pixel_um = math.sqrt(abs(a * d - b * c))
        for x, y in sample(shape, 2):
            own = client.report("BufImagePosToStagePos", buffer, NAVIGATOR, x + CORNER, y + CORNER, least=2)
            ours = transform.stage_um(x, y)
            gap = math.hypot(own[0] - ours[0], own[1] - ours[1])
            if not gap <= TOLERANCE_PX * pixel_um:
                raise GeometryError(
                    f"buffer {buffer}: pixel ({x:.0f}, {y:.0f}) is at ({own[0]:.3f}, {own[1]:.3f}) µm by SerialEM's"
                    f" point and at ({ours[0]:.3f}, {ours[1]:.3f}) µm by its matrix, {gap / pixel_um:.1f} px apart"
                )
    return transform


def of_montage(client: SerialEMClient, buffer: str, shape: tuple[int, int]) -> Transform:
    """The transform of a montage's overview: fitted to points, as they honour the shifts of its pieces."""
    middle = ((shape[1] - 1) / 2, (shape[0] - 1) / 2)
    if not client.has("BufImagePosToStagePos"):
        return of_buffer(client, buffer, shape, check=False)
    pixels = sample(shape, 4)
    stage = [
        client.report("BufImagePosToStagePos", buffer, NAVIGATOR, x + CORNER, y + CORNER, least=2)[:2]
        for x, y in pixels
    ]
    design = np.array([(x - middle[0], y - middle[1], 1.0) for x, y in pixels])
    fit, *_ = np.linalg.lstsq(design, np.array(stage), rcond=None)
    (a, c), (b, d), (x_um, y_um) = ((float(u), float(v)) for u, v in fit)
    return Transform((a, b, c, d), (x_um, y_um), middle)


def sample(shape: tuple[int, int], per_side: int) -> list[Point]:
    """Whole pixels (x, y) on a grid inside the image, away from its edges."""
    rows, columns = shape
    at = [(i + 0.5) / per_side for i in range(per_side)]
    return [(float(int(u * columns)), float(int(v * rows))) for v in at for u in at]


def _of_calibration(client: SerialEMClient, buffer: str, middle: Point) -> Transform:
    """For SerialEM 4.0, which has no matrix of a buffer: from the camera's calibration, whose y points up."""
    binning = client.report("ImageProperties", buffer, least=3)[2]
    a, b, c, d = client.report("CameraToStageMatrix", 0, least=4)[:4]
    x_um, y_um = client.report("ReportStageXYZ", least=3)[:2]
    shift = client.report("ReportImageShift", least=6)
    matrix = (a * binning, -b * binning, c * binning, -d * binning)
    return Transform(matrix, (x_um + shift[4], y_um + shift[5]), middle)
