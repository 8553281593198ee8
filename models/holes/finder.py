"""The classical hole finder: template matching on every scale, a lattice, and its extension, in one call."""

import hashlib
from dataclasses import dataclass

import numpy as np

from models.base import Image, as_plain
from models.detections import HoleDetection, HoleFinding, Lattice
from models.holes.lattice import LatticeFit, fit_lattice
from models.holes.prepare import Working, prepare
from models.holes.scale import Hypothesis, hypotheses, noise_level
from models.holes.scoring import judge
from models.holes.sites import Site, lattice_sites, refined_radius

_VERSION = "holes-template-1"
_TRIED = 12  # hypotheses that are tested for a lattice
_LATTICE_POINTS = 500
_BARE = 0.3  # what a hypothesis without a lattice counts for
_LEAST_EXPLAINED = 0.004
_LONE = 0.75  # correlation that holes without a lattice must reach
_LONE_AREA = 0.004  # and the share of the frame that each must cover


@dataclass(frozen=True, slots=True)
class _Choice:
    hypothesis: Hypothesis
    fit: LatticeFit | None
    evidence: float


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
        """Hash of the version: there are no weights and no settings."""
        return hashlib.sha256(_VERSION.encode()).hexdigest()[:16]

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
    """Hypothesis and lattice that explain most of the frame."""
    area = float(work.seen.sum())
    ranked = sorted(hypotheses(work), key=lambda h: -h.explained(area))
    best: _Choice | None = None
    for hypothesis in ranked[:_TRIED]:
        fit = fit_lattice(hypothesis.points[:_LATTICE_POINTS])
        if fit is not None and _plausible(fit, hypothesis):
            member = np.zeros(len(hypothesis.points), bool)
            member[: len(fit.member)] = fit.member
            evidence = hypothesis.explained(area, member) * min(1.0, fit.occupancy)
        else:
            fit, evidence = None, 0.0
        bare = _BARE * hypothesis.explained(area)
        choice = _Choice(hypothesis, fit, evidence) if evidence > bare else _Choice(hypothesis, None, bare)
        if best is None or choice.evidence > best.evidence:
            best = choice
    if best is None or best.evidence < _LEAST_EXPLAINED:
        return None
    return best


def _plausible(fit: LatticeFit, hypothesis: Hypothesis) -> bool:
    """Whether the lattice could be one of holes: not overlapping, not too far apart, and mostly full."""
    members = int(fit.member.sum())
    if not 2.1 * hypothesis.radius < fit.pitch < 9.0 * hypothesis.radius:
        return False
    if members < 6 and fit.symmetry() == "oblique":
        return False
    return fit.occupancy > 0.5 and members >= 0.25 * len(fit.member)


def _plain(work: Working, hypothesis: Hypothesis) -> HoleFinding:
    share = np.pi * hypothesis.radius**2 / float(work.seen.sum())
    keep = hypothesis.heights >= _LONE
    if not keep.any() or share < _LONE_AREA:
        return HoleFinding(
            holes=(), note="round spots on no lattice, too weak or too small for holes: no holes"
        )
    radius = refined_radius(work, hypothesis.points[keep], hypothesis.radius, hypothesis.sign)
    sites = [
        Site(float(x), float(y), float(h), inferred=False, index=None)
        for (x, y), h in zip(hypothesis.points[keep], hypothesis.heights[keep], strict=True)
    ]
    return _finding(work, sites, radius, hypothesis.sign, None, "no lattice: holes as they were seen")


def _on_lattice(work: Working, hypothesis: Hypothesis, fit: LatticeFit) -> HoleFinding:
    points = hypothesis.points[: len(fit.member)][fit.member]
    radius = refined_radius(work, points, hypothesis.radius, hypothesis.sign)
    sites = lattice_sites(work, fit, radius, hypothesis.sign, 0.6 * noise_level(min(radius, 6.0)))
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
    for site, (score, label, features) in zip(sites, judge(work, sites, radius, sign), strict=True):
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
