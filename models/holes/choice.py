"""Which hypothesis about the holes of a frame is right: the one whose holes stand on a lattice that no chance makes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.holes.lattice import LatticeFit, fit_lattice
from models.holes.prepare import Working
from models.holes.scale import Hypothesis

_LATTICE_POINTS = 500
_CHANCE_RESIDUAL = 0.1  # of the pitch: what points thrown at random come to
SURE = 24.0  # nats: a lattice that no chance makes
_WEAK_HALF = 0.8  # of the others' correlation: below it, every other member is a gap between holes
_FEW_HEIGHT = 0.75  # mean correlation that a lattice of few holes must reach
_TIGHT = 0.045  # of the pitch: residual up to which no clearer points are looked for


@dataclass(frozen=True, slots=True)
class Choice:
    """A hypothesis, its lattice if it has one, the share of the frame that it explains, and whether it is sure."""

    hypothesis: Hypothesis
    fit: LatticeFit | None
    evidence: float
    sure: bool


def _as_it_is(hypothesis: Hypothesis) -> Iterable[Hypothesis]:
    return (hypothesis,)


def best_of(
    work: Working,
    candidates: list[Hypothesis],
    parts: Callable[[Hypothesis], Iterable[Hypothesis]] = _as_it_is,
) -> Choice | None:
    """The candidate with a sure lattice that explains most; where none is sure, the one that explains most.

    Parameters
    ----------
    work
        Frame.
    candidates
        Hypotheses.
    parts
        Choices of the points of a hypothesis that a lattice is looked for in, the likeliest first.
    """
    area = float(work.seen.sum())
    best: Choice | None = None
    for hypothesis in sorted(candidates, key=lambda h: -h.explained(area)):
        if best is not None and best.sure and hypothesis.explained(area) <= best.evidence:
            break  # sorted: no later one can explain more
        hypothesis, fit = _clearest(hypothesis, parts)
        sure = fit is not None and significance(fit) > SURE
        member = None
        if fit is not None and sure:
            member = np.zeros(len(hypothesis.points), bool)
            member[: len(fit.member)] = fit.member
        choice = Choice(hypothesis, fit, hypothesis.explained(area, member), sure)
        if best is None or (choice.sure, choice.evidence) > (best.sure, best.evidence):
            best = choice
    return best


def _clearest(
    hypothesis: Hypothesis, parts: Callable[[Hypothesis], Iterable[Hypothesis]]
) -> tuple[Hypothesis, LatticeFit | None]:
    """The part of a hypothesis whose lattice is the least likely to be chance; the whole where none has one."""
    best: tuple[Hypothesis, LatticeFit] | None = None
    for part in parts(hypothesis):
        fit = lattice_of(part)
        if fit is not None and (best is None or significance(fit) > significance(best[1])):
            best = part, fit
        if best is not None and significance(best[1]) > SURE and best[1].residual < _TIGHT * best[1].pitch:
            break
    return best or (hypothesis, None)


def significance(fit: LatticeFit) -> float:
    """How much better than points thrown at random the members keep to their lattice, in nats."""
    loose = _CHANCE_RESIDUAL * fit.pitch / max(fit.residual, 0.01 * fit.pitch)
    return float(2.0 * (fit.member.sum() - 3) * np.log(max(loose, 1e-3)))


def lattice_of(hypothesis: Hypothesis) -> LatticeFit | None:
    """Lattice of the best points of a hypothesis, or None where they have none that could be one of holes."""
    points, heights = hypothesis.points[:_LATTICE_POINTS], hypothesis.heights[:_LATTICE_POINTS]
    fit = fit_lattice(points)
    if fit is None:
        return None
    strong = strong_sublattice(fit, heights)
    if strong is not None:
        again = fit_lattice(points[strong])
        if again is not None:
            member = np.zeros(len(points), bool)
            member[np.flatnonzero(strong)] = again.member
            indices = np.zeros((len(points), 2), np.int64)
            indices[strong] = again.indices
            fit = replace(again, member=member, indices=indices)
    return fit if _plausible(fit, hypothesis) else None


def strong_sublattice(fit: LatticeFit, heights: NDArray[np.float64]) -> NDArray[np.bool_] | None:
    """Members that alone are holes, where every other member of a too fine lattice is but a gap between holes.

    Returns
    -------
    numpy.ndarray or None
        Which points are strong, shape (n,); None when the members are all of one kind.
    """
    i, j = fit.indices.T
    for parity in ((i + j) % 2, i % 2, j % 2):
        even, odd = fit.member & (parity == 0), fit.member & (parity == 1)
        if min(even.sum(), odd.sum()) < 4:
            continue
        high, low = float(np.median(heights[even])), float(np.median(heights[odd]))
        if min(high, low) < _WEAK_HALF * max(high, low):
            return np.asarray(even if high > low else odd)
    return None


def _plausible(fit: LatticeFit, hypothesis: Hypothesis) -> bool:
    """Whether the lattice could be one of holes: not overlapping, not too far apart, and mostly full."""
    members = int(fit.member.sum())
    if not 2.1 * hypothesis.radius < fit.pitch < 9.0 * hypothesis.radius or fit.occupancy <= 0.5:
        return False
    if significance(fit) > SURE:
        return members >= 0.25 * len(fit.member)
    heights = hypothesis.heights[: len(fit.member)][fit.member]
    regular = fit.symmetry() != "oblique" and fit.residual < 0.03 * fit.pitch
    return regular and float(heights.mean()) > _FEW_HEIGHT and members >= 0.5 * len(fit.member)
