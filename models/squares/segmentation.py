"""Which pixels of a low-mag frame are open mesh: a working copy of the frame, and a mask on two levels.

The first level is the two-component Poisson mixture of Kim et al., "Ptolemy" (IUCrJ 10, 90, 2023, section
"Square localization"), started from Otsu's split (IEEE Trans. SMC 9, 62, 1979) instead of at random, on counts
from which an uneven background was taken. The second level cuts each region again at its own height, so that the
halo of a bright square does not bridge to its neighbour.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Plane = NDArray[np.float32]
Mask = NDArray[np.uint8]

_LARGEST, _SMALLEST = 2048, 640  # sides of the working copy
_OWN_LEVEL = 0.42  # of a region's own median height: where its edge is
_ROUNDS = 100
SMALLEST_PX = 6.0  # area of a square in image pixels below which it is noise


@dataclass(frozen=True, slots=True)
class Working:
    """The frame as the finder works on it.

    Attributes
    ----------
    values
        Background near 0, bright film near 255; shape (rows, columns) of the working copy, float32.
    scale
        Working pixels per image pixel.
    shape
        (rows, columns) of the image.
    frame
        Part of the image that holds data, as (left, top, right, bottom) in image pixels: constant margins that
        a viewer or a stitcher added lie outside.
    """

    values: Plane
    scale: float
    shape: tuple[int, int]
    frame: tuple[int, int, int, int]

    def to_image(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (n, 2) in working pixels as image pixels."""
        return np.asarray((points + 0.5) / self.scale - 0.5 + np.array(self.frame[:2], float))


def prepare(plain: Plane) -> Working | None:
    """Working copy of a finite float32 image, or None when the image is constant."""
    frame = _data_frame(plain)
    left, top, right, bottom = frame
    part = plain[top:bottom, left:right]
    side = max(part.shape)
    scale = _LARGEST / side if side > _LARGEST else float(min(4, max(1, round(_SMALLEST / side))))
    if scale < 1.0:
        part = np.asarray(cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.float32)
    part = _without_hot_pixels(part)
    low, high = np.percentile(part[:: max(1, side // 512), :: max(1, side // 512)], (0.5, 99.7))
    if not high > low:
        low, high = float(part.min()), float(part.max())
    if not high > low:
        return None
    part = np.clip((part - low) * (255.0 / (high - low)), 0.0, 255.0).astype(np.float32)
    if scale > 1.0:
        part = np.clip(cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC), 0.0, 255.0).astype(
            np.float32
        )
    flat = part - _background(part)
    return Working(np.clip(flat, 0.0, 255.0), scale, (plain.shape[0], plain.shape[1]), frame)


def poisson_threshold(values: Plane) -> tuple[float, float, float]:
    """Level at which two Poisson populations of counts are equally likely, and their two rates.

    Parameters
    ----------
    values
        Counts from 0 to 255, shape (rows, columns).

    Returns
    -------
    level, dark_rate, bright_rate
        In counts.
    """
    histogram = np.bincount(values.astype(np.uint8).ravel(), minlength=256).astype(np.float64)
    counts = np.arange(256, dtype=np.float64)
    split, _ = cv2.threshold(values.astype(np.uint8), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    bright = (counts > split).astype(np.float64)
    share, dark_rate, bright_rate, before = 0.5, 1.0, 2.0, -np.inf
    for _ in range(_ROUNDS):
        weight = histogram * bright
        total = float(weight.sum())
        rest = float(histogram.sum()) - total
        if total <= 0 or rest <= 0:
            break
        share = total / float(histogram.sum())
        bright_rate = max(float(weight @ counts) / total, 1e-3)
        dark_rate = max(float((histogram - weight) @ counts) / rest, 1e-3)
        log_bright = np.log(share) + counts * np.log(bright_rate) - bright_rate
        log_dark = np.log1p(-share) + counts * np.log(dark_rate) - dark_rate
        both = np.logaddexp(log_bright, log_dark)
        bright = np.exp(log_bright - both)
        gain = float(histogram @ both)
        if gain - before < 1e-3:
            break
        before = gain
    if bright_rate <= dark_rate * (1 + 1e-6):
        return float(split), dark_rate, bright_rate
    level = (bright_rate - dark_rate + np.log1p(-share) - np.log(share)) / np.log(bright_rate / dark_rate)
    return float(np.clip(level, 0.0, 255.0)), dark_rate, bright_rate


def open_mesh(work: Working) -> tuple[Mask, float]:
    """Mask of the open mesh (1 inside), and the first level that it was cut at, in working counts."""
    values = work.values
    level, _, _ = poisson_threshold(values)
    mask = (values > level).astype(np.uint8)
    for _ in range(2):
        n, found = cv2.connectedComponents(mask, connectivity=4, ltype=cv2.CV_32S)
        if n < 2:
            break
        labels, n = _large_enough(np.asarray(found, np.int32), n, SMALLEST_PX * max(work.scale, 1.0) ** 2)
        height = np.concatenate([[0.0], _medians(values, labels, n)])
        own = np.maximum(level, _OWN_LEVEL * height).astype(np.float32)
        mask = ((labels > 0) & (values > own[labels])).astype(np.uint8)
    return mask, level


def _large_enough(labels: NDArray[np.int32], n: int, least: float) -> tuple[NDArray[np.int32], int]:
    """The labels of at least ``least`` pixels, numbered anew, and their count with the 0: noise has many others."""
    large = np.bincount(labels.ravel(), minlength=n) >= least
    large[0] = False
    number = np.where(large, np.cumsum(large), 0).astype(np.int32)
    return number[labels], int(large.sum()) + 1


def _medians(values: Plane, labels: NDArray[np.int32], n: int) -> NDArray[np.float64]:
    """Median of the values, whole counts from 0 to 255, in each of the labels 1 to n - 1."""
    inside = labels > 0
    key = (labels[inside] - 1).astype(np.int64) * 256 + values[inside].astype(np.uint8)
    histogram = np.bincount(key, minlength=(n - 1) * 256).reshape(n - 1, 256)
    below = np.cumsum(histogram, axis=1, dtype=np.int32)
    return np.asarray((below >= (below[:, -1:] + 1) // 2).argmax(axis=1) + 0.5, np.float64)


def _data_frame(plain: Plane) -> tuple[int, int, int, int]:
    """Part of the image without the constant rows and columns at its margins."""
    rows, columns = plain.shape
    edges: list[int] = []
    for lines, length in ((plain, rows), (plain.T, columns)):
        flat = np.ptp(lines, axis=1) == 0.0
        most = length // 4
        first = 0
        while first < most and flat[first]:
            first += 1
        last = length
        while last > length - most and flat[last - 1]:
            last -= 1
        edges.append(first)
        edges.append(last)
    top, bottom, left, right = edges
    return left, top, right, bottom


def _without_hot_pixels(part: Plane) -> Plane:
    """Copy of the image in which single pixels far above all their neighbours are their neighbours' median."""
    ring = np.ones((3, 3), np.uint8)
    ring[1, 1] = 0
    highest = cv2.dilate(part, ring)
    spread = float(np.percentile(np.abs(part[::4, ::4] - np.median(part[::4, ::4])), 90)) + 1e-12
    hot = part > highest + 3.0 * spread
    if not hot.any():
        return part
    return np.where(hot, ndimage.median_filter(part, 3) if hot.sum() > 4096 else highest, part)


def _background(part: Plane) -> Plane:
    """Slow background: a grey opening far larger than any square, smoothed."""
    rows, columns = part.shape
    shrink = 96.0 / max(rows, columns)
    small = cv2.resize(part, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    small = np.pad(small, 24, mode="reflect") if min(small.shape) > 24 else small
    kernel = np.ones((45, 45), np.uint8)
    opened = cv2.GaussianBlur(cv2.morphologyEx(small, cv2.MORPH_OPEN, kernel), (0, 0), 12.0)
    if min(part.shape) * shrink > 24:
        opened = opened[24:-24, 24:-24]
    return np.asarray(cv2.resize(opened, (columns, rows), interpolation=cv2.INTER_LINEAR), np.float32)
