"""The evidence of a session: its squares, holes and exposures as the learner takes them."""

import math
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from agent.policy.learning import Belief, Floats, Region
from agent.session.state import Hole, Square, State

WORST_ANGSTROM, BEST_ANGSTROM = 20.0, 2.0
LEAST, SPAN = 0.2, 0.6  # merit by the label alone: from +-0.2 for a doubtful to +-0.8 for a sure one
MOST_LOOKS = 8  # features of holes that are learned from, beside the score
SCORE_WEIGHT, SCORE_SD, LOOK_SD = 0.12, 0.10, 0.06
SQUARE_WEIGHT, SQUARE_SD = 0.08, 0.08
NOMINAL_PITCH_UM = 4.0


class Evidence(NamedTuple):
    """Squares as regions, and what is believed of them before the first exposure.

    A square that was not mapped yet has one stand-in hole with the features of an average one.
    """

    regions: tuple[Region, ...]
    belief: Belief
    looks: tuple[str, ...]  # names of the hole features, after ``score``
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


def gather(state: State, good_ctf_angstrom: float, belief: Belief | None = None) -> Evidence:
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
    prior = belief or replace(
        Belief(),
        hole_weights=(SCORE_WEIGHT, *(0.0 for _ in looks)),
        hole_weight_sds=(SCORE_SD, *(LOOK_SD for _ in looks)),
        square_weights=(SQUARE_WEIGHT,),
        square_weight_sds=(SQUARE_SD,),
    )
    area = sum(square.size_um**2 for _, square in squares if square.holes)
    count = sum(len(table.score) for table in filled)
    return Evidence(tuple(regions), prior, looks, count / area if area else 1.0 / NOMINAL_PITCH_UM**2)


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
        scaled = [
            np.clip((c - m) / s, -3.0, 3.0) if s != 1.0 or m else c
            for c, m, s in zip(columns, middle, spread, strict=True)
        ]
        holes, places, merit = np.column_stack(scaled), table.places, table.merit
    else:
        holes = np.array([[usual, *(0.0 for _ in looks)]])
        places, merit = np.zeros((1, 2)), np.full(1, math.nan)
    return Region(
        key=square.area_id,
        grid=grid_id,
        place_um=(square.x_um, square.y_um),
        features=np.array([logit(square.score)]),
        holes=holes,
        places=places,
        merit=merit,
    )
