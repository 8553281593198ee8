"""``cryonaut evaluate``: measure policies on recorded data."""

import json as json_format
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from agent.cli.evaluate_sessions import labels, sessions

app = App(name="evaluate", help="Measure what models and policies make of recorded data.")
app.command(sessions)
app.command(labels)


@app.command
def policy(
    *,
    survey: Path,
    prior: bool = True,
    limits: str = "120,240,480",
    starts: int = 50,
    seed: int = 0,
    calibration: bool = True,
    figure: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Compare routes over a survey of which every outcome is known: good holes within a time limit.

    A run starts at a random hole. The next one costs 1 minute in the same patch, 2 in the same square, 6 in the same
    tile, 8 elsewhere; a hole is good up to a CTF resolution of 6 Å. docs/policy.md names the files and the policies.

    Example: `cryonaut evaluate policy --survey surveys/aldolase --limits 240,480 --starts 20`

    Parameters
    ----------
    survey
        Folder with `target_CTF_*.csv` and, for the prior, `*_regress_*.txt`.
    prior
        With --no-prior no predictions are looked at: only hierarchy, places and the outcomes seen so far.
    limits
        Time limits in minutes, with commas between.
    starts
        Random starts; all policies begin at the same ones.
    seed
        Of the starts.
    calibration
        Also compare the learner's chances for unseen squares with what came.
    figure
        SVG file for the reliability curve: what was said of holes of unseen squares against what came.
    json
        Print JSON.
    """
    from agent.errors import CryonautError
    from agent.evaluation import policies, reliability
    from agent.evaluation.survey import read

    try:
        minutes = [float(part) for part in limits.split(",") if part.strip()]
    except ValueError:
        minutes = []
    if not minutes or min(minutes) <= 0 or starts < 1:
        raise CryonautError(f"--limits {limits} --starts {starts}: minutes such as 120,240 and at least one start")
    if figure is not None and not (calibration and figure.parent.is_dir() and figure.suffix == ".svg"):
        raise CryonautError(f"--figure {figure}: an .svg file in a folder that exists, and no --no-calibration with it")
    data = read(survey)
    known = bool((data.predicted_angstrom > 0).any())
    if prior and not known:
        raise CryonautError(f"{survey}: no predictions (*_regress_*.txt): use --no-prior")
    scores = policies.compare(data, minutes, prior=prior, count=starts, seed=seed)
    trust = policies.calibration(data, prior=prior, count=min(starts, 20), seed=seed) if calibration else None
    if figure is not None and trust is not None:
        told = "with predictions" if prior else "without predictions"
        figure.write_text(reliability.picture(trust, f"{survey.name}, squares not seen yet, {told}"), encoding="utf-8")
    if json:
        table: dict[str, dict[str, float]] = {}
        for score in scores:
            table.setdefault(score.policy, {})[f"{score.limit_minutes:g}"] = round(score.mean, 2)
        answer = {
            "survey": str(survey),
            "holes": len(data),
            "good": int(data.good.sum()),
            "prior": prior,
            "starts": starts,
            "seed": seed,
            "mean_good_holes": table,
            "scores": [asdict(score) for score in scores],
            "calibration": asdict(trust) if trust else None,
        }
        print(json_format.dumps(answer, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    shown = Table("policy", *(f"T={m:g} min" for m in minutes), title=f"good holes, mean of {starts} starts (± s.e.)")
    for name in dict.fromkeys(score.policy for score in scores):
        cells = [f"{s.mean:.1f} ± {s.error:.1f}" for s in scores if s.policy == name]
        shown.add_row(name, *cells)
    console.print(f"{survey}: {len(data)} holes, {data.good.sum()} good; {'with' if prior else 'without'} predictions")
    console.print(shown)
    if trust:
        console.print(
            f"unseen squares: Brier {trust.brier:.3f} (the share that was good so far: {trust.brier_so_far:.3f}; the"
            f" share of the whole survey, which nobody knows: {trust.brier_base:.3f}); the 90 % interval of a"
            f" square's good holes held {trust.coverage:.0%} of {trust.squares} forecasts of"
            f" {int(data.square.max()) + 1} squares"
        )
        for p, good, number in trust.reliability:
            console.print(f"  said {p:4.2f}  was {good:4.2f}  {'#' * round(40 * good):<40} {number}")
