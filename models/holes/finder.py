"""The classical hole finder: template matching on every scale, a lattice, and its extension, in one call."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.base import Image, as_plain, source_fingerprint
from models.detections import HoleDetection, HoleFinding, Lattice
from models.holes.lattice import LatticeFit, fit_lattice
from models.holes.prepare import Working, prepare
from models.holes.rim import settled_rim
from models.holes.scale import Hypothesis, hypotheses, noise_level, rim_hypotheses
from models.holes.scoring import judge
from models.holes.sites import Site, best_radius, centred, lattice_sites, refined_radius, response_at

_LATTICE_POINTS = 500
_CHANCE_RESIDUAL = 0.1  # of the pitch: what points thrown at random come to
_SURE = 24.0  # nats: a lattice that no chance makes
_LOOSE = 0.045  # of the pitch: residual from which discs are doubted and rims are tried as well
_WEAK_HALF = 0.8  # of the others' correlation: below it, every other member is a gap between holes
_FEW_HEIGHT = 0.75  # mean correlation that a lattice of few holes must reach
_LEAST_EXPLAINED = 0.004
_LEAST_RIM = 0.15  # correlation from which a rim counts as seen, once there is a lattice
_LEAST_STEP, _LEAST_SHADOW, _LEAST_SEEN = (
    0.25,
    0.1,
    0.03,
)  # of the usual contrast: what a hole must show off any lattice, in shadow, on foil
_LONE = 0.75  # correlation that one of the holes without a lattice must reach
_LONE_CUT = 0.7  # and the others, which the frame may cut
_WHOLE = 0.8  # share of a rim from which a hole counts as whole
_LONE_AREA = 0.004  # and the share of the frame that each must cover


@dataclass(frozen=True, slots=True)
class _Choice:
    hypothesis: Hypothesis
    fit: LatticeFit | None
    evidence: float
    sure: bool


class TemplateHoleFinder:
    """Finds holes without training: masked normalised correlation and a least-squares lattice.

    The same image gives the same answer, whatever its offset, gain or number type.
    """

    @property
    def name(self) -> str:
        """Name as configs and records show it."""
        return "holes-template"

    @property
    def fingerprint(self) -> str:
        """Hash of the code: there are no weights and no settings."""
        return source_fingerprint("models.holes")

    def find(self, image: Image, pixel_size_angstrom: float | None = None) -> HoleFinding:
        """Holes of ``image`` (rows, columns); none, with the reason in ``note``, where there are none.

        Parameters
        ----------
        image
            Medium-mag frame, any real dtype, shape (rows, columns).
        pixel_size_angstrom
            Not needed: the scale is found in the image.

        Raises
        ------
        BadImageError
            When the array is no image at all (see ``models.base.as_plain``).
        """
        work = prepare(as_plain(image))
        if work is None:
            return HoleFinding(holes=(), note="image is constant: no holes")
        choice = _choose(work)
        if choice is None:
            return HoleFinding(holes=(), note="nothing round stands out from noise: no holes")
        if choice.fit is None:
            return _plain(work, choice.hypothesis)
        return _on_lattice(work, choice.hypothesis, choice.fit)


def _choose(work: Working) -> _Choice | None:
    """Hypothesis and lattice that explain most of the frame.

    A lattice of many holes does not come about by chance, however little of the frame they cover, so any that
    is sure beats every hypothesis without one.
    """
    best = _best(work, hypotheses(work))
    if best is None or best.fit is None or not best.sure or best.fit.residual > _LOOSE * best.fit.pitch:
        by_rim = _best(work, rim_hypotheses(work))
        if by_rim is not None and by_rim.fit is not None and by_rim.sure:
            disc = significance(best.fit) if best is not None and best.fit is not None else 0.0
            if significance(by_rim.fit) > disc:
                return by_rim
    if best is None or (not best.sure and best.evidence < _LEAST_EXPLAINED):
        return None
    return best


def _best(work: Working, candidates: list[Hypothesis]) -> _Choice | None:
    """The candidate with a sure lattice that explains most; where none is sure, the one that explains most."""
    area = float(work.seen.sum())
    best: _Choice | None = None
    for hypothesis in sorted(candidates, key=lambda h: -h.explained(area)):
        if best is not None and best.sure and hypothesis.explained(area) <= best.evidence:
            break  # sorted: no later one can explain more
        fit = _lattice_of(hypothesis)
        sure = fit is not None and significance(fit) > _SURE
        member = None
        if fit is not None and sure:
            member = np.zeros(len(hypothesis.points), bool)
            member[: len(fit.member)] = fit.member
        choice = _Choice(hypothesis, fit, hypothesis.explained(area, member), sure)
        if best is None or (choice.sure, choice.evidence) > (best.sure, best.evidence):
            best = choice
    return best


def significance(fit: LatticeFit) -> float:
    """How much better than points thrown at random the members keep to their lattice, in nats."""
    loose = _CHANCE_RESIDUAL * fit.pitch / max(fit.residual, 0.01 * fit.pitch)
    return float(2.0 * (fit.member.sum() - 3) * np.log(max(loose, 1e-3)))


def _lattice_of(hypothesis: Hypothesis) -> LatticeFit | None:
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
    if significance(fit) > _SURE:
        return members >= 0.25 * len(fit.member)
    heights = hypothesis.heights[: len(fit.member)][fit.member]
    regular = fit.symmetry() != "oblique" and fit.residual < 0.03 * fit.pitch
    return regular and float(heights.mean()) > _FEW_HEIGHT and members >= 0.5 * len(fit.member)


def _plain(work: Working, hypothesis: Hypothesis) -> HoleFinding:
    """Holes without a lattice: bright, large, with a sharp rim, at least one of them whole."""
    none = "round spots on no lattice, too weak, too soft or too small for holes: no holes"
    share = np.pi * hypothesis.radius**2 / float(work.seen.sum())
    if hypothesis.sign < 0 or share < _LONE_AREA:
        return HoleFinding(holes=(), note=none)
    rows, columns = work.values.shape
    limit = np.array([columns - 1.0, rows - 1.0])
    rims = [settled_rim(work, point, hypothesis.radius, hypothesis.sign) for point in hypothesis.points]
    clear = [
        (rim, float(height))
        for rim, height in zip(rims, hypothesis.heights, strict=True)
        if rim.clear and (rim.centre >= 0).all() and (rim.centre <= limit).all()
    ]
    if not clear:
        return HoleFinding(holes=(), note=none)
    radius = float(np.median([rim.radius for rim, _ in clear]))
    # The radii that were tried lie far apart: the template of the right radius at the right place answers better.
    response, k = response_at(work, radius, hypothesis.sign)
    sites: list[Site] = []
    whole = False
    for rim, first in clear:
        x, y = np.rint((rim.centre + 0.5) * k - 0.5).astype(int)
        again = float(response[min(y, response.shape[0] - 1), min(x, response.shape[1] - 1)])
        height = max(first, again)
        if height < _LONE_CUT:
            continue
        sites.append(Site(float(rim.centre[0]), float(rim.centre[1]), height, inferred=False, index=None))
        whole |= rim.seen > _WHOLE and height >= _LONE
    if not whole:
        return HoleFinding(holes=(), note=none)
    return _finding(work, sites, radius, hypothesis.sign, None, "no lattice: holes as they were seen")


def _on_lattice(work: Working, hypothesis: Hypothesis, fit: LatticeFit) -> HoleFinding:
    points = hypothesis.points[: len(fit.member)]
    if hypothesis.sign == 0:
        radius, least = best_radius(work, points[fit.member], hypothesis.radius), _LEAST_RIM
    else:
        radius = refined_radius(work, points[fit.member], hypothesis.radius, hypothesis.sign)
        least = 0.6 * noise_level(min(radius, 6.0))
    sites = lattice_sites(work, fit, points, radius, hypothesis.sign, least)
    sites, radius = centred(work, sites, radius, hypothesis.sign)
    return _finding(work, sites, radius, hypothesis.sign, _record(work, fit), "")


def _record(work: Working, fit: LatticeFit) -> Lattice:
    record = fit.record()
    x, y = work.to_image(fit.origin[None, :])[0]
    s = work.scale
    return Lattice(
        origin=(float(x), float(y)),
        a=(record.a[0] / s, record.a[1] / s),
        b=(record.b[0] / s, record.b[1] / s),
        symmetry=record.symmetry,
        residual_px=record.residual_px / s,
    )


def _finding(
    work: Working, sites: list[Site], radius: float, sign: int, lattice: Lattice | None, note: str
) -> HoleFinding:
    holes = []
    for site, (score, label, features) in zip(sites, judge(work, sites, radius, sign or 1), strict=True):
        least = _LEAST_STEP if lattice is None else _LEAST_SHADOW if site.shadow else _LEAST_SEEN
        if sign and not site.inferred and features["step"] < least:
            continue
        x, y = work.to_image(np.array([[site.x, site.y]]))[0]
        holes.append(
            HoleDetection(
                x=float(x),
                y=float(y),
                radius_px=radius / work.scale,
                score=score,
                label=label,
                inferred=site.inferred,
                index=site.index,
                features={k: round(v, 6) for k, v in features.items()},
            )
        )
    holes.sort(key=lambda h: (-h.score, h.y, h.x))
    return HoleFinding(holes=tuple(holes), lattice=lattice, note=note)
