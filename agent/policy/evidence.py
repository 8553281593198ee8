"""The evidence of a session: its squares, holes and exposures as the learner takes them."""

import math
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from agent.policy.learning import Belief, Floats, Region, neighbourhood
from agent.session.state import Hole, Square, State

WORST_ANGSTROM, BEST_ANGSTROM = 20.0, 2.0
LEAST, SPAN = 0.2, 0.6  # merit by the label alone: from +-0.2 for a doubtful to +-0.8 for a sure one
MOST_LOOKS = 8  # features of holes that are learned from, beside the score
SCORE_WEIGHT, SCORE_SD, AROUND_WEIGHT, AROUND_SD, LOOK_SD = 0.09, 0.08, 0.03, 0.04, 0.06
LIKE_MERIT, LIKE_COPIES = 0.6, 3  # "more like this one" counts as this many micrographs
SQUARE_WEIGHT, SQUARE_SD = 0.08, 0.08
NOMINAL_PITCH_UM = 4.0


AROUND = "scores around"


class Evidence(NamedTuple):
    """Squares as regions, and what is believed of them before the first exposure.

    A square that was not mapped yet has one stand-in hole with the features of an average one.
    """

    regions: tuple[Region, ...]
    belief: Belief
    looks: tuple[str, ...]  # names of the hole features, after the score and the scores around
    holes_per_um2: float


@dataclass(frozen=True, slots=True)
class _Table:
    """The holes of one square as arrays."""

    score: Floats  # log odds, (n,)
    places: Floats  # (n, 2), in pitches
    merit: Floats  # (n,)
    looks: dict[str, Floats]


class _Kept:
    """What was computed from frozen records, by their identity; the oldest goes first."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._values: OrderedDict[tuple[int, object], tuple[object, object]] = OrderedDict()

    def get(self, record: object, extra: object) -> object | None:
        """What was kept for this very record."""
        found = self._values.get((id(record), extra))
        return found[1] if found is not None and found[0] is record else None

    def put(self, record: object, extra: object, value: object) -> None:
        """Keep ``value``; the record is held too, so that its identity stays its own."""
        self._values[(id(record), extra)] = (record, value)
        while len(self._values) > self.most:
            self._values.popitem(last=False)


_tables, _regions = _Kept(8192), _Kept(8192)


def merit_of(hole: Hole, good_ctf_angstrom: float) -> float:
    """How good the micrograph of ``hole`` is, 0 at the limit; NaN where it was not judged.

    A fitted CTF resolution counts as ``ln(limit / resolution)``. Where there is none the label gives the sign and the
    score the size; a micrograph with a bad label is never good.
    """
    ctf = hole.features.get("ctf_resolution_angstrom") if hole.frame_id or hole.quality is not None else None
    if hole.quality is None and ctf is None:
        return math.nan
    quality = 0.5 if hole.quality is None else hole.quality
    bad = hole.quality_label not in ("good", "unknown", "")
    by_label = -LEAST - SPAN * (1.0 - quality) if bad or (ctf is None and quality < 0.25) else LEAST + SPAN * quality
    if ctf is None or not math.isfinite(ctf) or ctf <= 0:
        return by_label
    by_ctf = math.log(good_ctf_angstrom / min(max(ctf, BEST_ANGSTROM), WORST_ANGSTROM))
    return min(by_ctf, by_label) if bad else by_ctf


def gather(state: State, good_ctf_angstrom: float) -> Evidence:
    """The evidence of the whole session; what did not change since the last call is not computed again."""
    squares = [(grid_id, square) for grid_id, grid in state.grids.items() for square in grid.squares.values()]
    tables = [_table(square, good_ctf_angstrom) for _, square in squares]
    filled = [table for table in tables if len(table.score)]
    looks = _shared_looks(filled)
    columns = [np.concatenate([table.score for table in filled])] if filled else [np.zeros(1)]
    columns += [np.concatenate([table.looks[name] for table in filled]) for name in looks]
    middle = tuple(0.0 if i == 0 else round(float(np.median(c)), 3) for i, c in enumerate(columns))
    spread = tuple(1.0 if i == 0 else _spread(c) for i, c in enumerate(columns))
    usual = round(float(np.median(columns[0])), 2)
    key = (looks, middle, spread, usual, good_ctf_angstrom)
    regions = []
    for (grid_id, square), table in zip(squares, tables, strict=True):
        region = _regions.get(square, key)
        if region is None:
            region = _region(grid_id, square, table, looks, middle, spread, usual)
            _regions.put(square, key, region)
        assert isinstance(region, Region)  # noqa: S101 - what was put is what comes back
        regions.append(region)
    prior = _belief(state, looks)
    area = sum(square.size_um**2 for _, square in squares if square.holes)
    count = sum(len(table.score) for table in filled)
    return Evidence(tuple(regions), prior, looks, count / area if area else 1.0 / NOMINAL_PITCH_UM**2)


def _belief(state: State, looks: tuple[str, ...]) -> Belief:
    """What is believed before the first exposure: the usual, or what earlier sessions taught."""
    weights = {"score": (SCORE_WEIGHT, SCORE_SD), AROUND: (AROUND_WEIGHT, AROUND_SD)}
    squares = {"score": (SQUARE_WEIGHT, SQUARE_SD)}
    usual = Belief()
    offset = (usual.offset, usual.offset_sd)
    if state.prior is not None:
        weights, squares, offset = state.prior.hole_weights, state.prior.square_weights, state.prior.offset
    names = ("score", AROUND, *looks)
    hole = [weights.get(name, (0.0, LOOK_SD)) for name in names]
    square = [squares.get("score", (SQUARE_WEIGHT, SQUARE_SD))]
    return replace(
        usual,
        offset=offset[0],
        offset_sd=offset[1],
        hole_weights=tuple(mean for mean, _ in hole),
        hole_weight_sds=tuple(sd for _, sd in hole),
        square_weights=tuple(mean for mean, _ in square),
        square_weight_sds=tuple(sd for _, sd in square),
    )


def logit(score: float) -> float:
    """A score between 0 and 1 as log odds, bounded to what 2 % and 98 % would be."""
    p = min(max(score, 0.02), 0.98)
    return math.log(p / (1.0 - p))


def _table(square: Square, good_ctf_angstrom: float) -> _Table:
    kept = _tables.get(square, good_ctf_angstrom)
    if isinstance(kept, _Table):
        return kept
    holes = list(square.holes.values())
    names = set(holes[0].seen_before) if holes else set()
    for hole in holes:
        names &= set(hole.seen_before)
    pitch = square.pitch_um or NOMINAL_PITCH_UM
    table = _Table(
        score=np.array([logit(hole.score) for hole in holes]),
        places=np.array([(hole.x_um, hole.y_um) for hole in holes]).reshape(-1, 2) / pitch,
        merit=np.array([merit_of(hole, good_ctf_angstrom) for hole in holes]),
        looks={name: np.array([hole.seen_before[name] for hole in holes]) for name in sorted(names)},
    )
    _tables.put(square, good_ctf_angstrom, table)
    return table


def _shared_looks(tables: list[_Table]) -> tuple[str, ...]:
    if not tables:
        return ()
    shared = set(tables[0].looks)
    for table in tables:
        shared &= set(table.looks)
    return tuple(sorted(shared))[:MOST_LOOKS]


def _spread(values: Floats) -> float:
    deviation = 1.4826 * float(np.median(np.abs(values - np.median(values))))
    return round(max(deviation, 1e-3), 3)


def _region(
    grid_id: str,
    square: Square,
    table: _Table,
    looks: tuple[str, ...],
    middle: tuple[float, ...],
    spread: tuple[float, ...],
    usual: float,
) -> Region:
    if len(table.score):
        columns = [table.score, *(table.looks[name] for name in looks)]
        scaled = [np.clip((c - m) / d, -4.0, 4.0) for c, m, d in zip(columns, middle, spread, strict=True)]
        scaled.insert(1, neighbourhood(scaled[0], table.places))
        holes, places, merit = np.column_stack(scaled), table.places, table.merit
    else:
        holes = np.array([[usual, usual, *(0.0 for _ in looks)]])
        places, merit = np.zeros((1, 2)), np.full(1, math.nan)
    rows, spots, outcomes = _liked(square, holes, places)
    return Region(
        key=square.area_id,
        grid=grid_id,
        place_um=(square.x_um, square.y_um),
        features=np.array([logit(square.score)]),
        holes=np.concatenate([holes, rows]),
        places=np.concatenate([places, spots]),
        merit=np.concatenate([merit, outcomes]),
        stand_ins=len(outcomes),
    )


def _liked(square: Square, holes: Floats, places: Floats) -> tuple[Floats, Floats, Floats]:
    """What an operator wants more or less of, as micrographs that turned out so."""
    rows = [(holes[i], places[i], hole.like) for i, hole in enumerate(square.holes.values()) if hole.like]
    if square.like:
        rows.append((holes.mean(axis=0), places.mean(axis=0), square.like))
    rows = [row for row in rows for _ in range(LIKE_COPIES)]
    features = np.array([row[0] for row in rows]).reshape(-1, holes.shape[1])
    spots = np.array([row[1] for row in rows]).reshape(-1, 2)
    return features, spots, np.array([LIKE_MERIT * row[2] for row in rows], float)
