"""Pixels to stage and back: the one place that turns one into the other."""

import math
from collections.abc import Iterable

from msgspec.structs import replace

from agent.messages import Frame

Point = tuple[float, float]
Matrix2 = tuple[float, float, float, float]


def image_to_stage(frame: Frame) -> Matrix2:
    """Row-major 2 x 2 matrix, micrometres per pixel; without one in the header: pixel size, no rotation."""
    if frame.image_to_stage is not None:
        return frame.image_to_stage
    scale = frame.pixel_size_angstrom * 1e-4
    return (scale, 0.0, 0.0, scale)


def centre_um(frame: Frame) -> Point:
    """Stage coordinates of the frame's centre pixel: the stage position plus the image shift."""
    return (frame.stage.x_um + frame.image_shift_um[0], frame.stage.y_um + frame.image_shift_um[1])


def pixel_to_stage(frame: Frame, x: float, y: float) -> Point:
    """Stage position (x, y) in micrometres of pixel (x, y)."""
    return pixels_to_stage(frame, ((x, y),))[0]


def pixels_to_stage(frame: Frame, points: Iterable[Point]) -> list[Point]:
    """Stage positions (x, y) in micrometres of pixels (x, y)."""
    rows, columns = frame.shape
    middle_x, middle_y = (columns - 1) / 2, (rows - 1) / 2
    a, b, c, d = image_to_stage(frame)
    cx, cy = centre_um(frame)
    away = [(x - middle_x, y - middle_y) for x, y in points]
    return [(cx + a * dx + b * dy, cy + c * dx + d * dy) for dx, dy in away]


def stage_to_pixel(frame: Frame, x_um: float, y_um: float) -> Point:
    """Pixel (x, y) of a stage position; the inverse of `pixel_to_stage`.

    Raises
    ------
    ZeroDivisionError
        If the frame's matrix cannot be inverted.
    """
    return stage_to_pixels(frame, ((x_um, y_um),))[0]


def stage_to_pixels(frame: Frame, points_um: Iterable[Point]) -> list[Point]:
    """Pixels (x, y) of stage positions; the inverse of `pixels_to_stage`.

    Raises
    ------
    ZeroDivisionError
        If the frame's matrix cannot be inverted.
    """
    rows, columns = frame.shape
    middle_x, middle_y = (columns - 1) / 2, (rows - 1) / 2
    a, b, c, d = image_to_stage(frame)
    cx, cy = centre_um(frame)
    det = a * d - b * c
    away = [(x - cx, y - cy) for x, y in points_um]
    return [((d * dx - b * dy) / det + middle_x, (a * dy - c * dx) / det + middle_y) for dx, dy in away]


def on_grid(frame: Frame, matrix: Matrix2, shift_um: Point) -> Frame:
    """``frame`` with its place on a grid that lies turned and shifted on the stage: stage = matrix @ place + shift."""
    a, b, c, d = matrix
    det = a * d - b * c
    p, q, r, s = d / det, -b / det, -c / det, a / det

    def back(x: float, y: float) -> Point:
        return round(p * x + q * y, 6), round(r * x + s * y, 6)

    x_um, y_um = back(frame.stage.x_um - shift_um[0], frame.stage.y_um - shift_um[1])
    e, f, g, h = image_to_stage(frame)
    return replace(
        frame,
        stage=replace(frame.stage, x_um=x_um, y_um=y_um),
        image_shift_um=back(*frame.image_shift_um),
        image_to_stage=(p * e + q * g, p * f + q * h, r * e + s * g, r * f + s * h),
    )


def micron_per_pixel(frame: Frame) -> float:
    """Mean scale of the frame in micrometres per pixel."""
    a, b, c, d = image_to_stage(frame)
    return math.sqrt(abs(a * d - b * c))


def distance(p: Point, q: Point) -> float:
    """Distance of two points."""
    return math.hypot(p[0] - q[0], p[1] - q[1])
