"""Policies on simulated grids against fixed orderings, and what the learner's forecasts are worth there.

    python -m benchmarks.policy [--seeds 20] [--hours 8] [--kinds mixed,good] [--work runs/policy] [--processes 2]

A session is a night: in two hours, of which loading and atlas take a third of one, even who knows every outcome gets
only 1.3 times what the best fixed ordering gets on these grids, since their few best squares last that long; in eight
hours it is 1.6 times. Printed are good micrographs per hour of the learning policy and of fixed orderings, grid by grid
as they come, then their means and the worst grid; the calibration of its forecasts on squares that were still unseen;
and the time that an update and a plan take with 5,000 holes.

What was computed is kept in the work folder, so that a run that was cut short goes on where it was. It is kept by the
text of the policy, the session core and the simulation: after a change of any of these it is computed anew.
"""

import argparse
import hashlib
import json
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from agent.policy import live
from benchmarks.simulated_nights import ALL, Night, World, knower, settings, unseen

ROOT = Path(__file__).parents[1]
DECIDING = (
    "agent/policy",
    "agent/session",
    "agent/settings.py",
    "simulators/specimen",
    "benchmarks/simulated_nights.py",
)
WAYS = {
    "score-order, 30 a square": ("score-order", 30, False),
    "score-order, whole squares": ("score-order", ALL, False),
    "one after the other": ("score-order", ALL, True),
    "learning": ("learning", ALL, False),
}
KNOWER = "who knows every outcome"
LEVEL = 0.9


def night(kind: str, seed: int, hours: float) -> dict[str, Any]:
    """Good micrographs per hour of every way to spend one night on one grid."""
    world = World(100 + seed, kind)
    rates = {KNOWER: knower(world, hours)}
    for name, (policy, per_square, blind) in WAYS.items():
        rates[name] = Night(world, settings(policy, hours, per_square), blind=blind).run()
    return {"rates": rates}


def forecasts(kind: str, seed: int, hours: float) -> dict[str, Any]:
    """Forecasts of mapped squares without exposures, made at the end of a session, and what is there."""
    world = World(300 + seed, kind)
    session = Night(world, settings("learning", hours, 12))
    while session.state.outstanding:
        session.turn()
    squares = list(unseen(session, world))
    seen = live.view(session.state, session.settings)
    exposed = [world.is_good(*place) for place in session.exposed]
    found = []
    for square, holes in squares:
        forecast = seen.posterior.forecast(square)
        if len(forecast.mean) != len(holes):
            continue
        good = [world.is_good(*place) for place in holes]
        low, high = forecast.count_interval(level=LEVEL)
        found.append({"p": [round(p, 4) for p in forecast.p_good.tolist()], "good": good, "low": low, "high": high})
    return {"squares": found, "so_far": float(np.mean(exposed)) if exposed else 0.5}


TASKS = {"night": night, "forecasts": forecasts}


class Kept:
    """Results in a work folder, one JSON line each, by what was computed and with which code."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "results.jsonl"
        self._code = _fingerprint()
        self.results: dict[str, dict[str, Any]] = {}
        if self._file.exists():
            for line in self._file.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except ValueError:  # the last line of a run that was cut short
                    continue
                if row["code"] == self._code:
                    self.results[row["task"]] = row["result"]

    def put(self, task: str, result: dict[str, Any]) -> None:
        """Keep one result."""
        self.results[task] = result
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"code": self._code, "task": task, "result": result}) + "\n")


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for place in DECIDING:
        path = ROOT / place
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def carry_out(what: str, kind: str, seeds: int, hours: float, kept: Kept, processes: int) -> list[dict[str, Any]]:
    """The results of one task for every seed, those that are missing computed now."""
    names = [f"{what} {kind} {seed} {hours:g}h" for seed in range(seeds)]
    open_ = [seed for seed in range(seeds) if names[seed] not in kept.results]
    if processes > 1 and len(open_) > 1:
        with ProcessPoolExecutor(processes) as pool:
            jobs = {pool.submit(TASKS[what], kind, seed, hours): seed for seed in open_}
            for job in as_completed(jobs):
                _came(names[jobs[job]], job.result(), kept)
    else:
        for seed in open_:
            _came(names[seed], TASKS[what](kind, seed, hours), kept)
    return [kept.results[name] for name in names]


def _came(name: str, result: dict[str, Any], kept: Kept) -> None:
    kept.put(name, result)
    if "rates" in result:
        print(f"  {name}: " + ", ".join(f"{way} {rate:.1f}" for way, rate in result["rates"].items()), flush=True)


def compare(kind: str, seeds: int, hours: float, kept: Kept, processes: int) -> None:
    """Good micrographs per hour of every policy over the seeds."""
    nights = [row["rates"] for row in carry_out("night", kind, seeds, hours, kept, processes)]
    rates = {name: np.array([row[name] for row in nights]) for name in nights[0]}
    means = {name: float(values.mean()) for name, values in rates.items()}
    best = max((name for name in WAYS if name != "learning"), key=lambda name: means[name])
    each = rates["learning"] / np.maximum(rates[best], 1e-9)
    print(f"{kind}: " + ", ".join(f"{name} {mean:.1f}/h" for name, mean in means.items()))
    print(
        f"{kind}: learning is {means['learning'] / max(means[best], 1e-9):.2f}x the best fixed ordering ({best}),"
        f" {KNOWER} {means[KNOWER] / max(means[best], 1e-9):.2f}x; of {seeds} grids the worst {each.min():.2f}x, the"
        f" median {np.median(each):.2f}x, the best {each.max():.2f}x"
    )


def calibration(kind: str, seeds: int, hours: float, kept: Kept, processes: int) -> None:
    """Forecasts of squares that no exposure was made in against what is there."""
    rows = carry_out("forecasts", kind, seeds, hours, kept, processes)
    squares = [square for row in rows for square in row["squares"]]
    if not squares:
        print(f"{kind}: no square was held out")
        return
    p = np.concatenate([square["p"] for square in squares])
    good = np.concatenate([np.array(square["good"], float) for square in squares])
    so_far = np.concatenate([np.full(len(s["p"]), row["so_far"]) for row in rows for s in row["squares"]])
    inside = [square["low"] <= sum(square["good"]) <= square["high"] for square in squares]
    wide = [(square["high"] - square["low"]) / len(square["p"]) for square in squares]
    print(
        f"{kind}, {len(squares)} held-out squares of {seeds} grids: Brier {((p - good) ** 2).mean():.3f} (the share"
        f" that was good so far: {((so_far - good) ** 2).mean():.3f}; the share of all, which nobody knows:"
        f" {good.mean() * (1 - good.mean()):.3f}); {LEVEL:.0%} intervals of a square's good micrographs held"
        f" {np.mean(inside):.0%}, and are {np.mean(wide):.2f} of its holes wide"
    )
    for b in range(10):
        rows_ = (p >= b / 10) & (p < (b + 1) / 10)
        if rows_.any():
            print(f"  said {p[rows_].mean():.2f}  was {good[rows_].mean():.2f}  {int(rows_.sum())}")


def speed(holes: int = 5_000) -> None:
    """CPU time of a whole turn, learning and planning included, with this many holes known."""
    world = World(7, "mixed", most=40, pitch_um=5.5)
    session = Night(world, settings("learning", 1_000.0, 6))
    while sum(len(s.holes) for s in session.state.grids["G1"].squares.values()) < holes and session.state.outstanding:
        session.turn()
    known = sum(len(s.holes) for s in session.state.grids["G1"].squares.values())
    for _ in range(10):
        if session.state.outstanding:
            session.plan_s.clear()
            session.turn()
    begun = time.process_time()
    for _ in range(5):
        live.view(session.state, session.settings)
    update = (time.process_time() - begun) / 5
    print(
        f"{known} holes, {session.shots} exposures: update {update * 1e3:.0f} ms (limit 50), a whole turn with its plan"
        f" {max(session.plan_s) * 1e3:.0f} ms CPU (limit 200)"
    )


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--hours", type=float, default=8.0)
    parser.add_argument("--kinds", default="mixed,good")
    parser.add_argument("--work", type=Path, default=Path("runs/policy"), help="where results are kept")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    kept = Kept(given.work)
    speed()
    kinds = given.kinds.split(",")
    for kind in kinds:
        compare(kind, given.seeds, given.hours, kept, given.processes)
    for kind in kinds:
        calibration(kind, given.seeds, min(given.hours, 2.0), kept, given.processes)


if __name__ == "__main__":
    main()
