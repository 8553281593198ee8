"""A cassette of grids of different quality: a first look at each, then where it pays, against grid after grid.

    python -m benchmarks.screening [--seeds 6] [--hours 10] [--kinds poor,mixed,thick,good] [--squares 1] [--holes 3]

The real session core with a simulated clock, as in `benchmarks.policy`: loading a grid takes ten minutes, its atlas
another ten, finding it again one. The grids of a cassette are those kinds in an order drawn from the seed. ``grid after
grid`` is the same learning policy without a screening pass, which leaves a grid when one not seen yet promises more;
``equal time`` gives each grid the same share of the exposures that the night has time for, by the models' scores.
Printed are good micrographs per hour of the whole night, how often grids were changed, and how the exposures fell on
the kinds of grids.
"""

import argparse
from collections import Counter
from collections.abc import Sequence

import numpy as np

from agent import messages as m
from agent.session import inputs as inp
from agent.session.state import grid_of
from agent.settings import Settings
from benchmarks.simulated_nights import ALL, SECONDS, Night, World
from benchmarks.simulated_nights import settings as of_one_grid
from models.detections import GridSighting

REALIGN_S = 60.0
WAYS = ("screening", "grid after grid", "equal time")
SEEN_AGAIN = GridSighting(turn_deg=0.0, dx=0.0, dy=0.0, correlation=1.0)


class Cassette(Night):
    """One session of the real core on several worlds, by the id of their grid."""

    def __init__(self, worlds: dict[str, World], settings: Settings) -> None:
        self.worlds = worlds
        self.shots_on: Counter[str] = Counter()
        self.good_on: Counter[str] = Counter()
        self.loads = 0
        super().__init__(next(iter(worlds.values())), settings)

    def turn(self) -> None:
        """Carry out the command under way."""
        (entry,) = self.state.outstanding.values()
        work, good = entry.command.work, self.good
        if isinstance(work, m.LoadGrid):
            self.world = self.worlds[work.grid_id]
            self.loads += 1
        if isinstance(work, m.AcquireAtlas) and self.state.grids[work.grid_id].state == "realigning":
            self.utc += REALIGN_S
            x_um, y_um = work.positions_um[0]
            self._take(entry.command, "low", x_um, y_um, lambda _: SEEN_AGAIN)
            return
        super().turn()
        if isinstance(work, m.Expose):
            self.shots_on[grid_of(work.area_id)] += 1
            self.good_on[grid_of(work.area_id)] += self.good - good

    def _result(self, command: m.Command) -> inp.ResultCame:
        told = super()._result(command)
        work = command.work
        if isinstance(work, m.AcquireAtlas) and self.state.grids[work.grid_id].state == "realigning":
            result = m.CommandResult(command_id=command.command_id, session_id="s", status="done", elapsed_s=REALIGN_S)
            return inp.ResultCame(result=result)
        return told


def settings(way: str, grids: Sequence[str], hours: float, look: tuple[int, int]) -> Settings:
    """A night with these grids, spent in one of the `WAYS`."""
    plain = of_one_grid("score-order" if way == "equal time" else "learning", hours, 30 if way == "equal time" else ALL)
    values = plain.model_dump(mode="json")
    values["session"]["grids"] = [{"id": grid, "slot": n} for n, grid in enumerate(grids, 1)]
    if way == "screening":
        values["policy"]["screening"] = {"squares_per_grid": look[0], "holes_per_square": look[1]}
    if way == "equal time":
        once = SECONDS["load_grid"] + SECONDS["acquire_atlas"]
        each = hours * 3600.0 / len(grids) - once
        usual = SECONDS["expose"] * 1.2 + SECONDS["map_square"] / 30.0  # with focus, and the map of a square for 30
        values["budget"]["exposures_per_grid"] = max(1, round(each / usual))
    return Settings.model_validate(values)


def night(seed: int, kinds: Sequence[str], hours: float, look: tuple[int, int]) -> dict[str, Cassette]:
    """The same cassette in every way."""
    order = np.random.default_rng([seed, 9]).permutation(len(kinds)).tolist()
    worlds = {f"G{n}": World(700 + 10 * seed + n, kinds[k]) for n, k in enumerate(order, 1)}
    found = {}
    for way in WAYS:
        session = Cassette(worlds, settings(way, list(worlds), hours, look))
        session.run()
        found[way] = session
    ids = [f"{grid}={kinds[k]}" for grid, k in zip(worlds, order, strict=True)]
    rates = ", ".join(
        f"{way} {s.good / hours:.1f}/h ({s.loads} loads; good of shots on "
        + " ".join(f"{g} {s.good_on[g]}/{s.shots_on[g]}" for g in worlds)
        + ")"
        for way, s in found.items()
    )
    print(f"  seed {seed}, {' '.join(ids)}: {rates}", flush=True)
    return found


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--hours", type=float, default=10.0)
    parser.add_argument("--kinds", default="poor,mixed,thick,good")
    parser.add_argument("--squares", type=int, default=1)
    parser.add_argument("--holes", type=int, default=3)
    given = parser.parse_args()
    kinds = given.kinds.split(",")
    nights = [night(seed, kinds, given.hours, (given.squares, given.holes)) for seed in range(given.seeds)]
    rates = {way: np.array([found[way].good / given.hours for found in nights]) for way in WAYS}
    print(
        f"{len(kinds)} grids ({given.kinds}), {given.hours:g} h: "
        + ", ".join(f"{w} {r.mean():.1f}/h" for w, r in rates.items())
    )
    for way in WAYS[1:]:
        ratios = rates["screening"] / np.maximum(rates[way], 1e-9)
        print(
            f"screening gets {rates['screening'].mean() / rates[way].mean():.2f} times the good micrographs of {way}"
            f" ({ratios.min():.2f} to {ratios.max():.2f} in {given.seeds} nights)"
        )


if __name__ == "__main__":
    main()
