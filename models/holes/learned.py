"""The learned hole finder: a network proposes on every scale, the lattice decides, as in the classical finder."""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from models import runtime
from models.base import Image, as_plain, source_fingerprint
from models.conditions import Conditions
from models.detections import HoleFinding
from models.holes.bars import Bars
from models.holes.choice import Choice, best_of
from models.holes.discs import measure
from models.holes.extension import Answers, all_sites
from models.holes.finder import choose, finding, on_lattice, plain, record
from models.holes.levels import LARGEST, SMALLEST
from models.holes.prepare import Working, prepare
from models.holes.proposals import Maps, Proposals, maps_of, of_size, proposals_of, sizes
from models.holes.scale import Hypothesis
from models.holes.sites import centred, refined_radius
from models.holes.worth import Worth, transmissions

_LIKELY = 0.5  # chance that a hole without a lattice must reach
_RADII_UM = 0.1, 6.0  # of holes in foils that can be bought, with room
_ANYTHING = 0.3  # chance that one proposal must reach for the frame to hold a hole at all
_SURE, _DOUBTFUL, _AROUND = 0.3, 0.25, 0.25  # chances: a hole for itself, some sign of one; share of those round it
_THINKABLE = 0.08  # median chance below which a lattice of spots is none of holes
_CUT, _FEW = 0.6, 3  # radii from the frame's edge, within which holes carry no lattice, unless there are few others
_CLEAR, _VISIBLE = 0.35, 0.3  # chance, and share of the step that clear ones have: what first makes a lattice
_MOST_MEASURED = 1000
_SHARP = 9.0  # working pixels: from here on, the average hole has an edge to measure


class NetHoleFinder:
    """Finds holes with a compact network (``holes-net``) and a least-squares lattice.

    Where the network's proposals stand on no lattice, the classical search is asked as well, so that a foil unlike any
    that it learned from costs time and not the frame.

    Parameters
    ----------
    weights
        Name of the weights, or path of their manifest.
    """

    def __init__(self, weights: str | Path = "holes-net") -> None:
        self._network = runtime.load(weights)
        self._worth = Worth.of(self._network.manifest.settings)

    @property
    def name(self) -> str:
        """Name as configs and records show it."""
        return "holes-net"

    @property
    def fingerprint(self) -> str:
        """Hash of weights, of the curve that scores, and of the code."""
        line = hashlib.sha256(repr(self._network.manifest.settings.get("worth")).encode()).hexdigest()[:8]
        return f"{self._network.fingerprint}-{line}-{source_fingerprint('models.holes')}"

    @property
    def provider(self) -> str:
        """What the network runs on."""
        return self._network.provider

    @property
    def note(self) -> str:
        """What a person should know about where the network runs."""
        return self._network.note

    def find(
        self, image: Image, pixel_size_angstrom: float | None = None, conditions: Conditions | None = None
    ) -> HoleFinding:
        """Holes of ``image`` (rows, columns); none, with the reason in ``note``, where there are none.

        Parameters
        ----------
        image
            Medium-mag frame, any real dtype, shape (rows, columns).
        pixel_size_angstrom
            Not needed, as the scale is found in the image; where it is known, sizes that no foil has are left out.
        conditions
            How the frame was taken. Where ``open_beam`` is known and holes are brighter than the foil, what a hole lets
            through says how thick its ice is and makes its score; else the network's look at it does.

        Raises
        ------
        BadImageError
            When the array is no image at all (see ``models.base.as_plain``).
        ModelError
            When the network gives no answer.
        """
        plain = as_plain(image)
        finding = self._found(plain, pixel_size_angstrom)
        if self._worth is None or not finding.holes or conditions is None or not conditions.open_beam:
            return finding
        shares, why = transmissions(plain, finding.holes, conditions.open_beam)
        if shares is None:
            note = f"{why}: scores by the frame's own greys"
            return msgspec.structs.replace(finding, note="; ".join(filter(None, (finding.note, note))))
        return msgspec.structs.replace(finding, holes=self._worth.judged(finding.holes, shares, conditions))

    def _found(self, plain: NDArray[np.float32], pixel_size_angstrom: float | None) -> HoleFinding:
        """Holes, scored by what the frame alone shows."""
        work = prepare(plain)
        if work is None:
            return HoleFinding(holes=(), note="image is constant: no holes")
        maps = maps_of(self._network, work)
        found = proposals_of(maps)
        if pixel_size_angstrom:
            found = possible(found, pixel_size_angstrom / work.scale)
        if not len(found.chance) or found.chance[0] < _ANYTHING:
            return HoleFinding(holes=(), note="nothing looks like a hole: no holes")
        choice = self._choose(work, found)
        if choice is not None and choice.fit is not None:
            return _with_maps(work, maps, found, choice)
        alone = self._alone(work, found)
        if alone.holes or found.chance[0] < _LIKELY:
            return alone
        return self._classical(work, maps, sizes(found))

    def _choose(self, work: Working, found: Proposals) -> Choice | None:
        candidates = []
        for radius in sizes(found):
            group = of_size(found, radius)
            x, y = group.points.T
            rows, columns = work.values.shape
            whole = np.minimum(np.minimum(x, y), np.minimum(columns - 1 - x, rows - 1 - y)) > _CUT * radius
            group = group.chosen(whole) if whole.sum() >= _FEW else group
            sign = contrast(work, group.points, radius)
            candidates.append(Hypothesis(radius, sign, group.points, group.chance))
        return best_of(work, candidates, partial(clear_parts, work))

    def _alone(self, work: Working, found: Proposals) -> HoleFinding:
        """Large holes on no lattice that the network is sure of, and whose rims say so, too."""
        for radius in sizes(found):
            group = of_size(found, radius)
            group = group.chosen(group.chance > _LIKELY)
            if len(group.chance):
                sign = contrast(work, group.points, radius)
                finding = plain(work, Hypothesis(radius, sign, group.points, group.chance))
                if finding.holes:
                    return finding
        return HoleFinding(
            holes=(), note="round spots on no lattice, too weak, too soft or too small for holes: no holes"
        )

    def _classical(self, work: Working, maps: list[Maps], near: list[float]) -> HoleFinding:
        """What the classical search finds near these sizes, where the network does not think it out of the question."""
        choice = choose(work, near)
        if choice is None:
            return HoleFinding(holes=(), note="nothing round stands out from noise: no holes")
        if choice.fit is None:
            return plain(work, choice.hypothesis)
        points = choice.hypothesis.points[: len(choice.fit.member)][choice.fit.member]
        middle = np.sqrt(SMALLEST * LARGEST) / choice.hypothesis.radius
        level = min(maps, key=lambda m: abs(np.log(m.level.scale / middle)))
        if float(np.median(level.chance_at(points))) < _THINKABLE:
            return HoleFinding(holes=(), note="a lattice of spots that do not look like holes: no holes")
        return on_lattice(work, choice.hypothesis, choice.fit)


def possible(found: Proposals, pixel_size_angstrom: float) -> Proposals:
    """Proposals of sizes that foils have; all of them where there are none: then the pixel size cannot be trusted."""
    radius_um = found.radius * pixel_size_angstrom / 1e4
    real = (radius_um >= _RADII_UM[0]) & (radius_um <= _RADII_UM[1])
    return found.chosen(real) if (real & (found.chance > _LIKELY)).any() else found


def clear_parts(work: Working, hypothesis: Hypothesis) -> Iterator[Hypothesis]:
    """What a lattice is looked for in: likely holes, of these the ones that show, all.

    The network sees local contrast made even, so the noise of a bar or of torn film, where hardly any electrons arrive
    or hardly any are stopped, may look to it as holes do; the step from foil to hole is next to nothing there. Noise
    that stands between holes by chance would bend or hide their lattice.
    """
    likely = hypothesis.heights > _CLEAR
    if _FEW <= likely.sum() < len(likely):
        yield hypothesis.chosen(likely)
    if likely.sum() >= _FEW:
        points, heights = hypothesis.points[likely][:_MOST_MEASURED], hypothesis.heights[likely][:_MOST_MEASURED]
        discs = measure(work, points, hypothesis.radius)
        step = np.abs(discs.mean - discs.ring)
        shows = step > _VISIBLE * np.percentile(step, 90)
        yield Hypothesis(hypothesis.radius, hypothesis.sign, points[shows], heights[shows])
    yield hypothesis


def contrast(work: Working, points: NDArray[np.float64], radius: float) -> int:
    """1 where holes are brighter than the foil round them, else -1."""
    discs = measure(work, points[:200], radius)
    return 1 if float(np.median(discs.mean - discs.ring)) >= 0 else -1


def _with_maps(work: Working, maps: list[Maps], found: Proposals, choice: Choice) -> HoleFinding:
    hypothesis, fit = choice.hypothesis, choice.fit
    assert fit is not None  # noqa: S101 - the caller saw it
    points = hypothesis.points[: len(fit.member)]
    group = of_size(found, hypothesis.radius)
    level = maps[int(np.bincount(group.level).argmax())]
    radius, sign = hypothesis.radius, hypothesis.sign
    bars = Bars.beside(work, points[fit.member], radius, sign)
    group = group.chosen(~bars.at(group.points))

    def chance_at(places: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(bars.at(places), 0.0, level.chance_at(places))

    answers = Answers(
        group.points,
        group.chance,
        2.0 / level.level.scale,
        chance_at,
        group.quality,
        level.quality_at,
        sure=_SURE,
        doubtful=_DOUBTFUL,
        around=_AROUND,
    )
    if (group.chance > 0.5).any():
        radius = float(np.median(group.radius[group.chance > 0.5]))
    if radius >= _SHARP:
        radius = refined_radius(work, points[fit.member], radius, sign)
    sites = all_sites(work, fit, points, answers, radius)
    sites, radius = centred(work, sites, radius, sign)
    return finding(work, sites, radius, sign, record(work, fit), "")
