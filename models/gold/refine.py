"""Centres and diameters to a fraction of a pixel: a soft disc on a sloping ground, fitted around each mark.

The disc is ``ground + slope - depth * s((r - d) / w)``, with ``d`` the distance from the centre and ``s`` the logistic
function; Levenberg-Marquardt on all marks of a window at once. A neighbour's pixels do not count, and a fit that runs
away, or does not fit, leaves its mark as it was.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Floats = NDArray[Any]  # 64 bits for what comes out, 32 on the way

ROUNDS = 9
MARGIN = 1.45  # pixels within this many radii of the first guess take part
CHUNK = 64  # what is worked on stays in the processor's cache
ENOUGH = 2e-3  # pixels, or of the logarithm of the radius
# How far first guesses are believed: one over the variance of x, y, log radius, ground, slopes, depth, log softness.
BELIEF = np.array([1 / 0.6**2, 1 / 0.6**2, 1 / 0.15**2, 0, 0, 0, 0, 1 / 0.6**2])


@dataclass(frozen=True, slots=True)
class Discs:
    """Discs as arrays of shape (n,), lengths in pixels, greys in those of the image.

    ``ground`` is the grey value around a disc, ``depth`` how much darker its middle is, ``softness`` of its edge.
    ``misfit`` is the root mean square of what the fit leaves, in depths. ``held`` says whether the fit was believed.
    """

    x: Floats
    y: Floats
    diameter: Floats
    ground: Floats
    depth: Floats
    softness: Floats
    misfit: Floats
    held: NDArray[np.bool_]


def refined(
    image: NDArray[np.floating],
    x: Floats,
    y: Floats,
    diameter: Floats,
    blur: float,
    solid: NDArray[np.bool_] | None = None,
) -> Discs:
    """Discs fitted to an image of shape (rows, columns), from first guesses in its pixels.

    Parameters
    ----------
    image
        Grey values; gold is dark.
    x, y, diameter
        First guesses, shape (n,).
    blur
        About how soft edges are, in pixels.
    solid
        Which of the guesses are taken for particles, whose pixels their neighbours leave out; all by default.
    """
    if len(x) == 0:
        none = np.zeros(0)
        return Discs(x, y, diameter, none, none, none, none, np.zeros(0, bool))
    order = np.argsort(diameter, kind="stable")  # discs of about one size share a patch
    near = _neighbours(x, y, diameter, blur, np.ones(len(x), bool) if solid is None else solid)
    parts = [_fit(image, x, y, diameter, order[k : k + CHUNK], near, blur) for k in range(0, len(x), CHUNK)]
    back = np.empty(len(x), np.intp)
    back[order] = np.arange(len(x))
    fx, fy, wide, ground, depth, soft, misfit, held = (
        np.concatenate([part[k] for part in parts])[back] for k in range(8)
    )
    return Discs(fx, fy, wide, ground, depth, soft, misfit, held > 0)


def _neighbours(x: Floats, y: Floats, diameter: Floats, blur: float, solid: NDArray[np.bool_]) -> list[list[int]]:
    """Of each disc, the solid others whose edge may come near its pixels."""
    points = np.stack([x, y], axis=1)
    reach = diameter * MARGIN + float(diameter.max()) / 2 + 4 + blur
    around = cKDTree(points).query_ball_point(points, reach)
    return [[k for k in near if k != own and solid[k]] for own, near in enumerate(around)]


def _fit(
    image: NDArray[np.floating], x: Floats, y: Floats, diameter: Floats, chosen: NDArray[np.intp],
    near: list[list[int]], blur: float,
) -> tuple[Floats, ...]:  # fmt: skip
    x0, y0, r0 = x[chosen], y[chosen], diameter[chosen] / 2
    i, j = np.rint(x0).astype(np.intp), np.rint(y0).astype(np.intp)
    reach = float(r0.max()) * MARGIN + 1.5 + blur
    half = int(np.ceil(reach + 0.5))
    v0, u0 = np.mgrid[-half : half + 1, -half : half + 1].reshape(2, -1)
    round_ = np.hypot(u0, v0) <= reach + 0.71  # the corners of a square patch are never looked at
    u0, v0 = u0[round_], v0[round_]
    grey = image[
        np.clip(j[:, None] + v0, 0, image.shape[0] - 1), np.clip(i[:, None] + u0, 0, image.shape[1] - 1)
    ].astype(np.float32)
    inside = _inside(i[:, None] + u0, image.shape[1]) & _inside(j[:, None] + v0, image.shape[0])
    # from here on places are counted from the nearest pixel: few digits are enough for them
    u, v = u0.astype(np.float32), v0.astype(np.float32)
    cx, cy = (x0 - i).astype(np.float32), (y0 - j).astype(np.float32)
    away = np.hypot(u - cx[:, None], v - cy[:, None])
    weight = (away <= (r0 * MARGIN + 1.5 + blur)[:, None]).astype(np.float32) * inside
    for row, own in enumerate(chosen.tolist()):
        for other in near[own]:
            beyond = np.hypot(u - (x[other] - i[row]), v - (y[other] - j[row])) - diameter[other] / 2
            weight[row][beyond < np.maximum(away[row] - r0[row], 0.5 + blur / 2)] = 0
    total = np.maximum(weight.sum(axis=1), 1e-9)
    level = (grey * weight).sum(axis=1) / total
    scale = np.maximum(np.sqrt(((grey - level[:, None]) ** 2 * weight).sum(axis=1) / total), 1e-9)
    grey = (grey - level[:, None]) / scale[:, None]
    inner = weight * (away < 0.7 * r0[:, None] + 0.5)
    outer = weight * (away > r0[:, None] + 0.5)
    ground = (grey * outer).sum(1) / np.maximum(outer.sum(1), 1e-9)
    depth = ground - (grey * inner).sum(1) / np.maximum(inner.sum(1), 1e-9)
    zero = np.zeros_like(x0)
    soft = np.full_like(x0, np.log(max(0.45 * blur, 0.25)))
    # x, y, log radius, ground, slope x, slope y, depth, log softness
    first = np.stack([cx, cy, np.log(np.maximum(r0, 0.7)), ground, zero, zero, np.maximum(depth, 0.3), soft], axis=1)
    root = np.sqrt(weight)
    p, cost = _descended(first, grey, u, v, root, cx, cy, total, max(3 * blur, 2.0))
    moved = np.hypot(p[:, 0] - cx, p[:, 1] - cy)
    held = (moved < np.maximum(0.35 * r0, 1.0)) & (p[:, 6] > 0.2) & (np.abs(p[:, 2] - first[:, 2]) < 0.55)
    out = np.where(held[:, None], p, first)
    misfit = np.sqrt(cost / total) / np.maximum(p[:, 6], 1e-3)
    return (
        out[:, 0] + i, out[:, 1] + j, 2 * np.exp(out[:, 2]), p[:, 3] * scale + level, p[:, 6] * scale,
        np.exp(out[:, 7]), misfit, held.astype(np.float64),
    )  # fmt: skip


def _inside(index: NDArray[np.intp], size: int) -> NDArray[np.bool_]:
    return np.asarray((index >= 0) & (index < size))


def _descended(
    first: Floats, grey: Floats, u: Floats, v: Floats, root: Floats, cx: Floats, cy: Floats, total: Floats,
    softest: float,
) -> tuple[Floats, Floats]:  # fmt: skip
    """Levenberg-Marquardt from ``first`` (n, 8); parameters and what is left of the squares (n,)."""
    p = first.copy()
    damp = np.full(len(p), 1e-2)
    squares, residual, jac = _model(p, grey, u, v, root, cx, cy)
    belief = (squares / np.maximum(total - p.shape[1], 1))[:, None] * BELIEF  # shape (n, 8)
    cost = squares.copy()
    eye = np.eye(p.shape[1])
    live = np.arange(len(p))  # those that still move
    for _ in range(ROUNDS):
        normal = np.matmul(jac, jac.transpose(0, 2, 1)).astype(np.float64) + belief[live][:, :, None] * eye
        gradient = np.matmul(jac, residual[:, :, None])[:, :, 0] + belief[live] * (p[live] - first[live])
        diagonal = np.einsum("nii->ni", normal)
        lhs = normal + (damp[live][:, None] * diagonal + 1e-6)[:, :, None] * eye
        step = np.linalg.solve(lhs, -gradient[:, :, None])[:, :, 0]
        trial = p[live] + np.clip(step, -1.0, 1.0)
        trial[:, 2] = np.clip(trial[:, 2], first[live, 2] - 0.6, first[live, 2] + 0.6)
        trial[:, 7] = np.clip(trial[:, 7], np.log(0.15), np.log(softest))
        new_squares, new_residual, new_jac = _model(trial, grey[live], u, v, root[live], cx[live], cy[live])
        new_cost = new_squares + (belief[live] * (trial - first[live]) ** 2).sum(axis=1)
        better = new_cost < cost[live]
        moved = np.abs(trial - p[live])[:, :3].max(axis=1)
        won = live[better]
        p[won], cost[won], squares[won] = trial[better], new_cost[better], new_squares[better]
        residual[better], jac[better] = new_residual[better], new_jac[better]
        damp[live] = np.where(better, damp[live] * 0.3, damp[live] * 5)
        still = (moved > ENOUGH) | ~better & (damp[live] < 1e4)
        if not still.any():
            break
        live, residual, jac = live[still], residual[still], jac[still]
    return p, squares


def _model(
    p: Floats, grey: Floats, u: Floats, v: Floats, root: Floats, cx: Floats, cy: Floats
) -> tuple[Floats, Floats, Floats]:
    """Squares (n,), residuals (n, pixels) and their derivatives (n, 8, pixels)."""
    q = p.astype(np.float32)
    dx, dy = u - q[:, :1], v - q[:, 1:2]
    d = np.sqrt(dx * dx + dy * dy + np.float32(1e-6))
    radius, soft, depth = np.exp(q[:, 2:3]), np.exp(q[:, 7:8]), q[:, 6:7]
    s = np.float32(0.5) + np.float32(0.5) * np.tanh((radius - d) / (2 * soft))
    ux, uy = u - cx[:, None], v - cy[:, None]
    residual = root * (q[:, 3:4] + q[:, 4:5] * ux + q[:, 5:6] * uy - depth * s - grey)
    along = root * (s * (1 - s)) * (depth / soft)
    jac = np.empty((len(p), 8, len(u)), np.float32)
    radial = along / d
    jac[:, 0], jac[:, 1] = -radial * dx, -radial * dy
    jac[:, 2] = along * -radius
    jac[:, 3], jac[:, 4], jac[:, 5], jac[:, 6] = root, root * ux, root * uy, -root * s
    jac[:, 7] = along * (radius - d)
    return (residual * residual).sum(axis=1, dtype=np.float64), residual, jac
