"""The classical hole finder: template matching on every scale, a lattice, and its extension, in one call."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.base import Image, as_plain, source_fingerprint
from models.conditions import Conditions
from models.detections import HoleDetection, HoleFinding, Lattice
from models.holes.choice import Choice, best_of, significance
from models.holes.extension import Answers, all_sites
from models.holes.lattice import LatticeFit
from models.holes.prepare import Working, prepare
from models.holes.rim import settled_rims
from models.holes.scale import Hypothesis, hypotheses, noise_level, rim_hypotheses
from models.holes.scoring import judge
from models.holes.sites import Site, best_radius, centred, refined_radius, response_at
from models.holes.template import peaks

Floats = NDArray[np.float64]

_LOOSE = 0.045  # of the pitch: residual from which discs are doubted and rims are tried as well
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

    def find(
        self, image: Image, pixel_size_angstrom: float | None = None, conditions: Conditions | None = None
    ) -> HoleFinding:
        """Holes of ``image`` (rows, columns); none, with the reason in ``note``, where there are none.

        Parameters
        ----------
        image
            Medium-mag frame, any real dtype, shape (rows, columns).
        pixel_size_angstrom
            Not needed: the scale is found in the image.
        conditions
            Not needed: scores are made of the frame's own greys.

        Raises
        ------
        BadImageError
            When the array is no image at all (see ``models.base.as_plain``).
        """
        work = prepare(as_plain(image))
        if work is None:
            return HoleFinding(holes=(), note="image is constant: no holes")
        choice = choose(work)
        if choice is None:
            return HoleFinding(holes=(), note="nothing round stands out from noise: no holes")
        if choice.fit is None:
            return plain(work, choice.hypothesis)
        return on_lattice(work, choice.hypothesis, choice.fit)


def choose(work: Working, near: Sequence[float] | None = None) -> Choice | None:
    """Hypothesis and lattice that explain most of the frame; with ``near``, of radii near one of these.

    A lattice of many holes does not come about by chance, however little of the frame they cover, so any that
    is sure beats every hypothesis without one.
    """
    best = best_of(work, hypotheses(work, near))
    if best is None or best.fit is None or not best.sure or best.fit.residual > _LOOSE * best.fit.pitch:
        by_rim = best_of(work, rim_hypotheses(work, near))
        if by_rim is not None and by_rim.fit is not None and by_rim.sure:
            disc = significance(best.fit) if best is not None and best.fit is not None else 0.0
            if significance(by_rim.fit) > disc:
                return by_rim
    if best is None or (not best.sure and best.evidence < _LEAST_EXPLAINED):
        return None
    return best


def plain(work: Working, hypothesis: Hypothesis) -> HoleFinding:
    """Holes without a lattice: bright, large, with a sharp rim, at least one of them whole."""
    none = "round spots on no lattice, too weak, too soft or too small for holes: no holes"
    share = np.pi * hypothesis.radius**2 / float(work.seen.sum())
    if hypothesis.sign < 0 or share < _LONE_AREA:
        return HoleFinding(holes=(), note=none)
    rows, columns = work.values.shape
    limit = np.array([columns - 1.0, rows - 1.0])
    rims = settled_rims(work, hypothesis.points, hypothesis.radius, hypothesis.sign)
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
    return finding(work, sites, radius, hypothesis.sign, None, "no lattice: holes as they were seen")


def on_lattice(work: Working, hypothesis: Hypothesis, fit: LatticeFit) -> HoleFinding:
    """Holes on the lattice of a hypothesis, measured by template."""
    points = hypothesis.points[: len(fit.member)]
    if hypothesis.sign == 0:
        radius, least = best_radius(work, points[fit.member], hypothesis.radius), _LEAST_RIM
    else:
        radius = refined_radius(work, points[fit.member], hypothesis.radius, hypothesis.sign)
        least = 0.6 * noise_level(min(radius, 6.0))
    sites = all_sites(work, fit, points, _answers(work, radius, hypothesis.sign, least), radius)
    sites, radius = centred(work, sites, radius, hypothesis.sign)
    return finding(work, sites, radius, hypothesis.sign, record(work, fit), "")


def _answers(work: Working, radius: float, sign: int, least: float) -> Answers:
    """Where the template of a radius and sign answers with at least ``least``."""
    response, k = response_at(work, radius, sign)
    points, heights = peaks(response, least, max(1.0, 0.5 * radius * k))

    def at(places: Floats) -> Floats:
        column, row = np.rint((places + 0.5) * k - 0.5).astype(int).T.reshape(2, -1)
        rows, columns = response.shape
        return np.asarray(response[row.clip(0, rows - 1), column.clip(0, columns - 1)], np.float64)

    return Answers((points + 0.5) / k - 0.5, heights, 1.0 / k, at)


def record(work: Working, fit: LatticeFit) -> Lattice:
    """Lattice in image pixels."""
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


def finding(
    work: Working, sites: list[Site], radius: float, sign: int, lattice: Lattice | None, note: str
) -> HoleFinding:
    """Sites as judged holes in image pixels."""
    holes = []
    at = work.to_image(np.array([[site.x, site.y] for site in sites]).reshape(-1, 2)).tolist()
    judged = judge(work, sites, radius, sign or 1)
    for site, (x, y), (score, label, features) in zip(sites, at, judged, strict=True):
        least = _LEAST_STEP if lattice is None else _LEAST_SHADOW if site.shadow else _LEAST_SEEN
        if sign and not site.inferred and site.quality is None and features["step"] < least:
            continue
        holes.append(
            HoleDetection(
                x=x,
                y=y,
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
