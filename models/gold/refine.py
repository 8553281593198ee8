"""Centres and diameters to a fraction of a pixel: a soft disc on a sloping ground, fitted around each mark.

The disc is ``ground + slope - depth * s((r - d) / w)``, with ``d`` the distance from the centre and ``s`` the logistic
function; Levenberg-Marquardt on all marks of a window at once. A neighbour's pixels do not count, and a fit that runs
away, or does not fit, leaves its mark as it was.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ROUNDS = 9
MARGIN = 1.45  # pixels within this many radii of the first guess take part
CHUNK = 256
# How far first guesses are believed: one over the variance of x, y, log radius, ground, slopes, depth, log softness.
BELIEF = np.array([1 / 0.6**2, 1 / 0.6**2, 1 / 0.15**2, 0, 0, 0, 0, 1 / 0.6**2])


@dataclass(frozen=True, slots=True)
class Discs:
    """Discs as arrays of shape (n,), lengths in pixels; ``held`` says whether the fit was believed."""

    x: Floats
    y: Floats
    diameter: Floats
    depth: Floats
    softness: Floats
    held: NDArray[np.bool_]


def refined(image: NDArray[np.floating], x: Floats, y: Floats, diameter: Floats, blur: float) -> Discs:
    """Discs fitted to an image of shape (rows, columns), from first guesses in its pixels.

    Parameters
    ----------
    image
        Grey values; gold is dark.
    x, y, diameter
        First guesses, shape (n,).
    blur
        About how soft edges are, in pixels.
    """
    if len(x) == 0:
        return Discs(x, y, diameter, np.zeros(0), np.zeros(0), np.zeros(0, bool))
    order = np.argsort(diameter, kind="stable")  # discs of about one size share a patch
    parts = [_fit(image, x, y, diameter, slice(k, k + CHUNK), order, blur) for k in range(0, len(x), CHUNK)]
    back = np.empty(len(x), np.intp)
    back[order] = np.arange(len(x))
    columns = [np.concatenate([part[k] for part in parts])[back] for k in range(6)]
    fx, fy, wide, depth, soft, held = columns
    return Discs(fx, fy, wide, depth, soft, held > 0)


def _fit(
    image: NDArray[np.floating], x: Floats, y: Floats, diameter: Floats, part: slice, order: NDArray[np.intp],
    blur: float,
) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]:  # fmt: skip
    chosen = order[part]
    x0, y0, r0 = x[chosen], y[chosen], diameter[chosen] / 2
    half = int(np.ceil(float(r0.max()) * MARGIN + 2.5 + blur))
    axis = np.arange(-half, half + 1)
    i, j = np.rint(x0).astype(np.intp), np.rint(y0).astype(np.intp)
    rows = np.clip(j[:, None] + axis, 0, image.shape[0] - 1)
    columns = np.clip(i[:, None] + axis, 0, image.shape[1] - 1)
    grey = image[rows[:, :, None], columns[:, None, :]].astype(np.float64).reshape(len(chosen), -1)
    u = np.broadcast_to((i[:, None] + axis)[:, None, :], (len(chosen), len(axis), len(axis))).reshape(grey.shape)
    v = np.broadcast_to((j[:, None] + axis)[:, :, None], (len(chosen), len(axis), len(axis))).reshape(grey.shape)
    weight = _mine(u, v, x0, y0, r0, x, y, diameter, chosen, blur)
    weight *= (u >= 0) & (u < image.shape[1]) & (v >= 0) & (v < image.shape[0])
    total = np.maximum(weight.sum(axis=1), 1e-9)
    level = (grey * weight).sum(axis=1) / total
    scale = np.maximum(np.sqrt(((grey - level[:, None]) ** 2 * weight).sum(axis=1) / total), 1e-9)
    grey = (grey - level[:, None]) / scale[:, None]
    # x, y, log radius, ground, slope x, slope y, depth, log softness
    inner = weight * (np.hypot(u - x0[:, None], v - y0[:, None]) < 0.7 * r0[:, None] + 0.5)
    outer = weight * (np.hypot(u - x0[:, None], v - y0[:, None]) > r0[:, None] + 0.5)
    ground = (grey * outer).sum(1) / np.maximum(outer.sum(1), 1e-9)
    depth = ground - (grey * inner).sum(1) / np.maximum(inner.sum(1), 1e-9)
    zero = np.zeros_like(x0)
    soft = np.full_like(x0, np.log(max(0.45 * blur, 0.25)))
    p = np.stack([x0, y0, np.log(np.maximum(r0, 0.7)), ground, zero, zero, np.maximum(depth, 0.3), soft], axis=1)
    first = p.copy()
    damp = np.full(len(p), 1e-2)
    cost, residual, jac = _model(p, grey, u, v, weight, x0, y0)
    belief = (cost / np.maximum(weight.sum(axis=1) - p.shape[1], 1))[:, None] * BELIEF  # shape (n, 8)
    eye = np.eye(p.shape[1])
    for _ in range(ROUNDS):
        turned = jac.transpose(0, 2, 1)
        normal = np.matmul(turned, jac) + belief[:, :, None] * eye
        gradient = np.matmul(turned, residual[:, :, None])[:, :, 0] + belief * (p - first)
        diagonal = np.einsum("nii->ni", normal)
        lhs = normal + (damp[:, None] * diagonal + 1e-6)[:, :, None] * eye
        step = np.linalg.solve(lhs, -gradient[:, :, None])[:, :, 0]
        trial = p + np.clip(step, -1.0, 1.0)
        trial[:, 2] = np.clip(trial[:, 2], first[:, 2] - 0.6, first[:, 2] + 0.6)
        trial[:, 7] = np.clip(trial[:, 7], np.log(0.15), np.log(max(3 * blur, 2.0)))
        new_cost, new_residual, new_jac = _model(trial, grey, u, v, weight, x0, y0)
        new_cost += (belief * (trial - first) ** 2).sum(axis=1)
        better = new_cost < cost
        p[better], cost[better] = trial[better], new_cost[better]
        residual[better], jac[better] = new_residual[better], new_jac[better]
        damp = np.where(better, damp * 0.3, damp * 5)
    moved = np.hypot(p[:, 0] - x0, p[:, 1] - y0)
    held = (moved < np.maximum(0.35 * r0, 1.0)) & (p[:, 6] > 0.2) & (np.abs(p[:, 2] - first[:, 2]) < 0.55)
    out = np.where(held[:, None], p, first)
    return (
        out[:, 0], out[:, 1], 2 * np.exp(out[:, 2]), p[:, 6] * scale, np.exp(out[:, 7]), held.astype(np.float64),
    )  # fmt: skip


def _mine(
    u: Floats, v: Floats, x0: Floats, y0: Floats, r0: Floats, x: Floats, y: Floats, diameter: Floats,
    chosen: NDArray[np.intp], blur: float,
) -> Floats:  # fmt: skip
    """Weights: 1 where a pixel is near its own disc and not nearer to the edge of another one."""
    reach = np.hypot(u - x0[:, None], v - y0[:, None])
    weight = (reach <= (r0 * MARGIN + 1.5 + blur)[:, None]).astype(np.float64)
    widest = float(diameter.max(initial=0)) / 2
    for row in range(len(chosen)):
        far = np.hypot(x - x0[row], y - y0[row])
        for other in np.flatnonzero((far < 2 * r0[row] * MARGIN + widest + 4 + blur) & (far > 0)).tolist():
            beyond = np.hypot(u[row] - x[other], v[row] - y[other]) - diameter[other] / 2
            weight[row][beyond < np.maximum(reach[row] - r0[row], 0.5 + blur / 2)] = 0
    return weight


def _model(
    p: Floats, grey: Floats, u: Floats, v: Floats, weight: Floats, x0: Floats, y0: Floats
) -> tuple[Floats, Floats, Floats]:
    """Cost, residuals (n, pixels) and their derivatives (n, pixels, 8)."""
    dx, dy = u - p[:, :1], v - p[:, 1:2]
    d = np.sqrt(dx * dx + dy * dy + 1e-6)
    radius, soft, depth = np.exp(p[:, 2:3]), np.exp(p[:, 7:8]), p[:, 6:7]
    t = np.clip((radius - d) / soft, -30, 30)
    s = 1 / (1 + np.exp(-t))
    bell = s * (1 - s)
    ux, uy = u - x0[:, None], v - y0[:, None]
    model = p[:, 3:4] + p[:, 4:5] * ux + p[:, 5:6] * uy - depth * s
    root = np.sqrt(weight)
    residual = root * (model - grey)
    along = depth * bell / soft
    jac = np.stack(
        [-along * dx / d, -along * dy / d, -along * radius, np.ones_like(d), ux, uy, -s, along * (radius - d)], axis=2
    )
    return (residual**2).sum(axis=1), residual, jac * root[:, :, None]
