"""Good micrographs against time spent: what a session made of its holes, and what other orders would have made of them.

The judged holes of a session are a small survey whose outcomes are known. Each order visits all of them; a step costs
what it cost in the session: going to a hole of the same square by image shift or stage, going to another square and
mapping it, and the exposure itself. Baselines: random, snowball (the nearest hole not visited yet, no knowledge),
rank-only (squares by score, their holes by score) and an oracle that knows every outcome.
"""

from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from agent.messages import Expose, Focus, MapSquare
from agent.recording.record import Record
from agent.session import events as ev
from agent.session.state import Hole, square_of

ORDERS = ("session", "rank-only", "snowball", "random", "oracle")
SAMPLES = 50  # points of a curve
RANDOM_ORDERS = 200
SNOWBALL_STARTS = 20
DEFAULT_S = {"expose": 10.0, "focus": 10.0, "map_square": 60.0}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One judged hole: where it is, what it was thought to be worth, and what it was."""

    area_id: str
    square_id: str
    x_um: float
    y_um: float
    score: float
    square_score: float
    good: bool


def outcomes(record: Record) -> list[Outcome]:
    """The judged holes, in the order in which their micrographs came."""
    place = {frame_id: number for number, frame_id in enumerate(record.frames)}
    squares = [square for grid in record.state.grids.values() for square in grid.squares.values()]
    found = [
        (place.get(hole.frame_id, len(place)), _outcome(hole, square.score))
        for square in squares
        for hole in square.holes.values()
        if hole.quality is not None
    ]
    return [outcome for _, outcome in sorted(found, key=lambda pair: pair[0])]


def _outcome(hole: Hole, square_score: float) -> Outcome:
    square_id = square_of(hole.area_id)
    good = hole.quality_label == "good"
    return Outcome(hole.area_id, square_id, hole.x_um, hole.y_um, hole.score, square_score, good)


def costs_s(record: Record) -> dict[str, float]:
    """Median seconds of an exposure, a focus and the mapping of a square; defaults where none was timed."""
    spent: dict[str, list[float]] = {}
    works = {}
    for item in record.happened:
        if isinstance(item.event, ev.CommandIssued):
            works[item.event.command.command_id] = item.event.command.work
        elif isinstance(item.event, ev.CommandEnded) and item.event.result.status == "done":
            work = works.get(item.event.result.command_id)
            if isinstance(work, Expose | Focus | MapSquare) and item.event.result.elapsed_s > 0:
                spent.setdefault(str(work.__struct_config__.tag), []).append(item.event.result.elapsed_s)
    return {name: median(spent[name]) if name in spent else otherwise for name, otherwise in DEFAULT_S.items()}


def curve(
    found: list[Outcome], order: list[int], costs: dict[str, float]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Seconds spent and good micrographs had after each step of an order."""
    spent, good, here = 0.0, 0, ""
    mapped: set[str] = set()
    times, goods = [], []
    for number in order:
        hole = found[number]
        if hole.square_id != here:
            spent += costs["focus"] + (0.0 if hole.square_id in mapped else costs["map_square"])
            mapped.add(hole.square_id)
            here = hole.square_id
        spent += costs["expose"]
        good += hole.good
        times.append(spent)
        goods.append(good)
    return np.array(times), np.array(goods, np.int64)


def orders(found: list[Outcome], seed: int = 0) -> dict[str, list[list[int]]]:
    """The orders to compare, by name; several where chance has a part."""
    every = list(range(len(found)))
    rng = np.random.default_rng(seed)
    ranked = sorted(every, key=lambda i: (-found[i].square_score, found[i].square_id, -found[i].score, i))
    starts = rng.permutation(len(found))[:SNOWBALL_STARTS].tolist()
    return {
        "session": [every],
        "rank-only": [ranked],
        "snowball": [_snowball(found, start) for start in starts],
        "random": [rng.permutation(len(found)).tolist() for _ in range(RANDOM_ORDERS)],
        "oracle": [_oracle(found)],
    }


def _snowball(found: list[Outcome], start: int) -> list[int]:
    places = np.array([(hole.x_um, hole.y_um) for hole in found])
    left = np.ones(len(found), bool)
    order = [start]
    left[start] = False
    while left.any():
        away = np.hypot(*(places - places[order[-1]]).T)
        order.append(int(np.argmin(np.where(left, away, np.inf))))
        left[order[-1]] = False
    return order


def _oracle(found: list[Outcome]) -> list[int]:
    """Squares with most good holes first, and in each the good holes first; then what is left."""
    good: dict[str, int] = {}
    for hole in found:
        good[hole.square_id] = good.get(hole.square_id, 0) + hole.good
    every = range(len(found))
    return sorted(every, key=lambda i: (not found[i].good, -good[found[i].square_id], found[i].square_id, i))


def curves(found: list[Outcome], costs: dict[str, float]) -> dict[str, list[float]]:
    """Mean good micrographs of each order at `SAMPLES` equal steps of the session's own time; key ``seconds``: when."""
    if not found:
        return {}
    total = curve(found, list(range(len(found))), costs)[0][-1]
    at = np.linspace(0.0, total, SAMPLES)
    table = {"seconds": at.tolist()}
    for name, several in orders(found).items():
        rows = []
        for order in several:
            times, goods = curve(found, order, costs)
            reached = np.searchsorted(times, at, side="right")
            rows.append(np.concatenate([[0], goods])[reached])
        table[name] = np.mean(rows, axis=0).tolist()
    return table


def share_of_oracle(table: dict[str, list[float]], name: str) -> float | None:
    """Area under a curve over the oracle's, above that of random: 0 is chance, 1 knows everything."""
    if not table:
        return None
    area = {key: float(np.trapezoid(table[key], table["seconds"])) for key in (name, "random", "oracle")}
    room = area["oracle"] - area["random"]
    return (area[name] - area["random"]) / room if room > 1e-9 else None
