"""How well micrographs are judged: ``python -m benchmarks.quality``.

Four tables. Errors of defocus and astigmatism on simulated micrographs of known defocus; what a 4096 x 4096 frame
costs, beside a plain Fourier transform of it in the same run; score and label against the truth of simulated holes
(reliability); score and label of real micrographs whose class a curator gave, where ``--data`` has them.
"""

import argparse
import itertools
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import fft, stats

from drivers.images import read_image
from models.conditions import Conditions
from models.quality import CtfQualityScorer, ctf
from models.quality.cover import cover, shrunk
from models.quality.spectrum import spectrum
from simulators.specimen import HoleTruth, Specimen, SpecimenSettings, View, detector

PIXELS = (0.65, 1.06, 2.1)
VOLTAGES = (300.0, 200.0)
DEFOCI = (0.5, 0.8, 1.2, 2.0, 3.0, 4.0)
GOOD = ("0Great", "1Decent")


def seconds() -> float:
    """CPU seconds of this process and all its threads so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def best_hole(grid: Specimen) -> HoleTruth:
    """The best hole of a grid."""
    return max((h for s in grid.squares for h in grid.holes(s.index)), key=lambda h: h.quality)


def accuracy(dose_e_per_a2: float, side: int) -> Table:
    """Largest errors over the defoci, for each voltage and pixel size; astigmatism is a tenth of the defocus."""
    table = Table(
        title=f"simulated micrographs, {side} x {side}, {dose_e_per_a2:g} e/Å², 0.5 to 4 µm, astigmatism 10 %"
    )
    for name in ("kV", "pixel Å", "worst defocus", "worst astigmatism", "of the defocus", "worst angle", "fit Å"):
        table.add_column(name, justify="right")
    for kv, px in itertools.product(VOLTAGES, PIXELS):
        grid = Specimen(SpecimenSettings(seed=7, ice="good", grid_radius_um=150, voltage_kv=kv))
        hole = best_hole(grid)
        worst = [0.0, 0.0, 0.0, 0.0]
        resolved = []
        for n, z in enumerate(DEFOCI):
            a, angle = 0.1 * z, (35.0 + 50 * n) % 180
            view = View(
                hole.x_um, hole.y_um, px, (side, side), defocus_um=z, astigmatism_um=a / 2,
                astigmatism_angle_deg=angle, dose_e_per_a2=dose_e_per_a2, frame_seed=n,
            )  # fmt: skip
            found = ctf.fit(spectrum(grid.render(view).astype(np.float32), px).polar(), Conditions(voltage_kv=kv))
            assert found is not None
            off = found.defocus.astigmatism_um - a
            errors = (
                abs(found.defocus.mean_um / z - 1), abs(off) / a, abs(off) / z,
                abs((found.defocus.angle_deg - angle + 90) % 180 - 90),
            )  # fmt: skip
            worst = [max(pair) for pair in zip(worst, errors, strict=True)]
            resolved.append(found.resolution_angstrom)
        table.add_row(
            f"{kv:g}", f"{px:g}", f"{worst[0]:.2%}", f"{worst[1]:.1%}", f"{worst[2]:.2%}", f"{worst[3]:.1f}°",
            f"{min(resolved):.1f}–{max(resolved):.1f}",
        )  # fmt: skip
    return table


def cost(rounds: int = 3) -> Table:
    """CPU and wall seconds of a judgement of a 4096 x 4096 frame, and of a plain transform of the same frame."""
    grid = Specimen(SpecimenSettings(seed=7, ice="good", grid_radius_um=150))
    hole = best_hole(grid)
    table = Table(title="4096 x 4096, best of several; ratio to one real-to-complex transform of the frame, 1 thread")
    for name in ("pixel Å", "judge CPU s", "judge wall s", "transform CPU s", "ratio (CPU)"):
        table.add_column(name, justify="right")
    for px in PIXELS:
        image = grid.render(View(hole.x_um, hole.y_um, px, (4096, 4096), defocus_um=1.2, dose_e_per_a2=40))
        plain = image.astype(np.float32)
        known = Conditions(open_beam=40 * px * px)

        def best(work: Callable[[], Any]) -> tuple[float, float]:
            runs = []
            for _ in range(rounds):
                cpu, wall = seconds(), time.perf_counter()
                work()
                runs.append((seconds() - cpu, time.perf_counter() - wall))
            return min(run[0] for run in runs), min(run[1] for run in runs)

        scorer = CtfQualityScorer()
        cpu, wall = best(partial(scorer.judge, image, px, known))
        peer, _ = best(partial(fft.rfft2, plain, workers=1))
        table.add_row(f"{px:g}", f"{cpu:.2f}", f"{wall:.2f}", f"{peer:.2f}", f"{cpu / peer:.1f}")
    return table


@dataclass(frozen=True, slots=True)
class Case:
    """One simulated micrograph: what the hole is, and what the scorer says."""

    quality: float
    crystalline: float
    contamination: float
    ice_nm: float
    label: str
    score: float
    thickness_nm: float
    confidence: float
    defocus_right: bool


def cases(count: int, seed: int = 3) -> list[Case]:
    """Micrographs of holes of all qualities, at random optics and dose."""
    rng = np.random.default_rng(seed)
    out: list[Case] = []
    kinds: tuple[Literal["mixed", "good", "thick", "poor"], ...] = ("mixed", "poor", "good", "thick", "mixed", "poor")
    grids = [Specimen(SpecimenSettings(seed=seed + n, ice=kind, grid_radius_um=220)) for n, kind in enumerate(kinds)]
    holes = [(g, [h for s in g.squares for h in g.holes(s.index) if h.state != "broken"]) for g in grids]
    for number in range(count):
        grid, known = holes[number % len(holes)]
        if not known:
            continue
        hole = known[int(rng.integers(len(known)))]
        px = float(rng.choice([0.83, 1.06, 1.5, 2.4]))
        side, z, dose = 1536 if px < 1 else 1024, float(rng.uniform(0.6, 2.5)), float(rng.uniform(25, 50))
        view = View(
            hole.x_um, hole.y_um, px, (side, side), defocus_um=z, astigmatism_um=float(rng.uniform(0, 0.03)) * z,
            astigmatism_angle_deg=float(rng.uniform(0, 180)), dose_e_per_a2=dose, frame_seed=number,
        )  # fmt: skip
        open_beam = dose * px * px * detector.camera_gain(dose, px)
        finding = CtfQualityScorer().judge(grid.render(view), px, Conditions(open_beam=open_beam))
        f = finding.features
        out.append(
            Case(
                hole.quality,
                hole.crystalline,
                hole.contamination,
                hole.ice_nm,
                finding.label,
                finding.score,
                f.get("ice_thickness_nm", float("nan")),
                f.get("ctf_confidence", 0.0),
                abs(f.get("defocus_um", 0.0) / z - 1) < 0.05,
            )
        )
    return out


def area_under_curve(scores: NDArray[np.float64], good: NDArray[np.bool_]) -> float:
    """Probability that a good one scores above a bad one."""
    if good.all() or not good.any():
        return float("nan")
    return float(stats.mannwhitneyu(scores[good], scores[~good]).statistic / (good.sum() * (~good).sum()))


def reliability(found: list[Case]) -> list[Table]:
    """Of micrographs with a score or confidence within a bin, how many deserve it."""
    score, truth = np.array([c.score for c in found]), np.array([c.quality for c in found])
    confidence, right = np.array([c.confidence for c in found]), np.array([c.defocus_right for c in found])
    tables = []
    for title, said, is_so in (
        ("score, and the probability of a good micrograph that the hole has", score, truth),
        ("confidence of the fit, and share of defoci right within 5 %", confidence, right.astype(float)),
    ):
        brier = float(np.mean((said - is_so) ** 2))
        area = area_under_curve(said, is_so >= 0.5)
        table = Table(title=f"{title}: {len(found)} simulated, Brier score {brier:.3f}, AUC {area:.3f}")
        for name in ("bin", "micrographs", "said", "is"):
            table.add_column(name, justify="right")
        for low in (0.0, 0.2, 0.4, 0.6, 0.8):
            inside = (said >= low) & (said < low + 0.2 + (low == 0.8))
            if inside.any():
                table.add_row(
                    f"{low:.1f}–{low + 0.2:.1f}", str(inside.sum()), f"{said[inside].mean():.2f}",
                    f"{is_so[inside].mean():.2f}",
                )  # fmt: skip
        tables.append(table)
    ice, measured = np.array([c.ice_nm for c in found]), np.array([c.thickness_nm for c in found])
    some = np.isfinite(measured) & (ice > 15) & (ice < 200) & (np.array([c.contamination for c in found]) < 0.05)
    table = Table(title="labels by what the hole is")
    for name in ("hole", "n", "labels"):
        table.add_column(name)
    kinds = {
        "crystalline > 0.25": [c for c in found if c.crystalline > 0.25 and c.ice_nm > 10],
        "empty (< 3 nm)": [c for c in found if c.ice_nm < 3],
        "thick (> 180 nm)": [c for c in found if c.ice_nm > 180 and c.crystalline < 0.1],
        "good (> 0.8)": [c for c in found if c.quality > 0.8],
    }
    for kind, those in kinds.items():
        names = [c.label for c in those]
        shown = ", ".join(f"{name} {names.count(name)}" for name in sorted(set(names), key=names.count, reverse=True))
        table.add_row(kind, str(len(those)), shown)
    if some.any():
        off = measured[some] - ice[some]
        words = f"median error {np.median(off):+.1f} nm, 68 % within {np.percentile(np.abs(off), 68):.1f} nm"
        table.add_row("ice of 15 to 200 nm", str(some.sum()), words)
    return [*tables, table]


def real(folder: Path, out: Path | None) -> Table:
    """Score and label of real micrographs; their class is what the file name begins with."""
    table = Table(title=str(folder))
    for name in ("micrograph", "class", "label", "score", "dirt", "mottle"):
        table.add_column(name, justify="left" if name in ("micrograph", "class", "label") else "right")
    scores, good = [], []
    for path in sorted(folder.iterdir()):
        if ".mask." in path.name or path.suffix not in (".png", ".mrc"):
            continue
        image, px = read_image(path)
        scorer = CtfQualityScorer()
        m = scorer.measure(image, px)
        if m is None:
            continue
        finding = scorer.verdict(m)
        if out is not None:
            from agent.sheet import sheet

            cv2.imwrite(str(out / f"{path.stem}.png"), sheet(path.name, m, finding, px)[..., ::-1])
        kind, _, rest = path.name.partition("__")
        if rest:
            scores.append(finding.score)
            good.append(kind in GOOD)
        f = finding.features
        table.add_row(
            (rest or path.name)[:28], kind[:24] if rest else "–", finding.label, f"{finding.score:.2f}",
            f"{f['contamination']:.1%}", f"{f['mottle']:.2f}",
        )  # fmt: skip
    if scores:
        area = area_under_curve(np.array(scores), np.array(good))
        table.caption = f"great and decent against the rest: AUC {area:.3f} of {len(scores)}"
    for mask in sorted(folder.glob("*.mask.mrc")):
        truth = read_image(mask)[0] > 0.5
        image, _ = read_image(mask.with_name(mask.name.replace(".mask", "")))
        size = (truth.shape[1], truth.shape[0])
        dirt = cover(shrunk(np.asarray(image, np.float32))).dirt.astype(np.uint8)
        found = cv2.resize(dirt, size, interpolation=cv2.INTER_NEAREST) > 0
        both = float((found & truth).sum()) / max(float((found | truth).sum()), 1.0)
        table.caption = f"{table.caption or ''}; {mask.name}: intersection over union {both:.2f}"
    return table


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 also where there are no real images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/highmag"))
    parser.add_argument("--out", type=Path, default=None, help="folder for pictures of the real micrographs")
    parser.add_argument("--dose", type=float, default=40.0, help="e/Å² of the table of errors")
    parser.add_argument("--side", type=int, default=2048, help="pixels a side of the table of errors")
    parser.add_argument("--cases", type=int, default=120, help="simulated micrographs of the reliability tables")
    parser.add_argument("--only", choices=("accuracy", "cost", "reliability", "real"), default=None)
    options = parser.parse_args(arguments)
    console = Console(width=120)
    if options.only in (None, "cost"):
        console.print(cost())
    if options.only in (None, "real"):
        if options.data.is_dir():
            if options.out is not None:
                options.out.mkdir(parents=True, exist_ok=True)
            console.print(real(options.data, options.out))
        else:
            console.print(f"{options.data} is absent: real images are not part of the project; nothing measured")
    if options.only in (None, "accuracy"):
        console.print(accuracy(options.dose, options.side))
    if options.only in (None, "reliability"):
        for table in reliability(cases(options.cases)):
            console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
