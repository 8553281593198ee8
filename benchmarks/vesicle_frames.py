"""Vesicles in high-mag frames: ``python -m benchmarks.vesicle_frames``.

Prints recall, precision, F1, diameter and centre errors on simulated frames that no training saw (three kinds, three
difficulties), false alarms on frames without vesicles and at wrong pixel sizes, agreement with the marked vesicles of
real FIB-SEM slices with and without fine-tuning on the other run of slices, and the time for a frame of 4096 x 4096.
With ``--out FOLDER`` overlays of all of them are written, those of real frames without a truth, too.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from models.gold.matching import matched
from models.vesicles.discs import Disc
from models.vesicles.frames import FrameDetector
from simulators.specimen import vesicles as simulated

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SEEDS = 3
PIXELS: dict[simulated.Kind, tuple[float, int]] = {"cryo": (1.1, 1400), "section": (1.3, 1200), "fib": (5.0, 400)}
EPFL_NM = 5.0
# The first three are known; the others were assumed from the usual diameter of synaptic vesicles.
REAL = {
    "imbrosci_25_05_WT_0005.tif": 1.306, "imbrosci_25_05_WT_0014.tif": 1.306, "imbrosci_26-8_wt_0003.tif": 1.306,
    "cryovesnet_slice_a.png": 2.2, "vp_bbox_comparison__12020341732316584951_raw.png": 0.22,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Score:
    """Hits, misses and false alarms, and how far off the hits are."""

    hits: int
    missed: int
    false: int
    diameter_off: float
    centre_nm: float

    @property
    def recall(self) -> float:
        """Share of the vesicles that was found."""
        return self.hits / max(1, self.hits + self.missed)

    @property
    def precision(self) -> float:
        """Share of what was found that is one."""
        return self.hits / max(1, self.hits + self.false)

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        return 2 * self.hits / max(1, 2 * self.hits + self.missed + self.false)


def score(found: list[Disc], frame: simulated.VesicleFrame) -> Score:
    """One to one, the centre within the true radius; what is not surely visible is neither missed nor false."""
    at = np.array([(d.x, d.y) for d in found]).reshape(-1, 2)
    sure = [v for v in frame.vesicles if v.visible]
    unsure = [v for v in frame.vesicles if not v.visible]
    pairs = matched(_points(sure), at, _radii(sure, frame.pixel_nm))
    left = np.ones(len(found), bool)
    left[[j for _, j in pairs]] = False
    excused = matched(_points(unsure), at[left], _radii(unsure, frame.pixel_nm)) if unsure and left.any() else []
    offs = [abs(np.log(found[j].diameter_nm / sure[i].diameter_nm)) for i, j in pairs]
    gaps = [np.hypot(found[j].x - sure[i].x, found[j].y - sure[i].y) * frame.pixel_nm for i, j in pairs]
    return Score(
        len(pairs), len(sure) - len(pairs), int(left.sum()) - len(excused),
        float(np.mean(offs)) if offs else 0.0, float(np.mean(gaps)) if gaps else 0.0,
    )  # fmt: skip


def _points(vesicles: list[simulated.FrameVesicle]) -> NDArray[np.float64]:
    return np.array([(v.x, v.y) for v in vesicles]).reshape(-1, 2)


def _radii(vesicles: list[simulated.FrameVesicle], pixel_nm: float) -> NDArray[np.float64]:
    return np.array([v.diameter_nm / 2 / pixel_nm for v in vesicles])


def summed(scores: list[Score]) -> Score:
    """All of them as one."""
    hits = sum(s.hits for s in scores)
    return Score(
        hits,
        sum(s.missed for s in scores),
        sum(s.false for s in scores),
        sum(s.diameter_off * s.hits for s in scores) / max(1, hits),
        sum(s.centre_nm * s.hits for s in scores) / max(1, hits),
    )


def sure_of(detector: FrameDetector, image: NDArray[Any], pixel_nm: float, **more: Any) -> list[Disc]:
    """Hits that count."""
    return [d for d in detector.candidates(image, pixel_nm, **more) if d.score >= detector.threshold_score]


def on_simulated(detector: FrameDetector, console: Console, out: Path | None) -> dict[str, Score]:
    """The table of the simulated frames; the scores of the difficulties, over all kinds."""
    table = Table("frames", "vesicles", "recall", "precision", "F1", "diameter off", "centre, nm", title="simulated")
    totals: dict[str, Score] = {}
    for difficulty, looks in simulated.DIFFICULTIES.items():
        all_kinds: list[Score] = []
        for kind, look in looks.items():
            pixel_nm, side = PIXELS[kind]
            scores = []
            for seed in range(SEEDS):
                frame = simulated.render(look, 9_000_000 + seed, (side, side), pixel_nm)
                found = sure_of(detector, frame.image, pixel_nm)
                scores.append(score(found, frame))
                if out is not None and seed == 0:
                    _overlay(out / f"simulated_{kind}_{difficulty}.png", frame.image, found, pixel_nm)
            all_kinds += scores
            _row(table, f"{difficulty} {kind}", summed(scores))
        totals[difficulty] = summed(all_kinds)
        _row(table, f"[bold]{difficulty}", totals[difficulty])
    console.print(table)
    return totals


def _row(table: Table, name: str, s: Score) -> None:
    table.add_row(
        name, str(s.hits + s.missed), f"{s.recall:.3f}", f"{s.precision:.3f}", f"{s.f1:.3f}",
        f"{s.diameter_off:.1%}", f"{s.centre_nm:.1f}",
    )  # fmt: skip


def out_of_depth(detector: FrameDetector, console: Console) -> None:
    """False alarms where there is nothing to find, or at a wrong scale."""
    from dataclasses import replace

    from models.vesicles.live import LiveVesicles

    table = Table("frames", "area, µm²", "found", "for each µm²", "what is said", title="out of depth")
    live = LiveVesicles(detector=detector)
    for kind, look in simulated.DIFFICULTIES["medium"].items():
        pixel_nm, side = PIXELS[kind]
        for name, per_um2, wrong in (
            ("no vesicles", 0.0, 1.0), ("pixel size 4 times too large", None, 4.0), ("... too small", None, 0.25)
        ):  # fmt: skip
            shown = look if per_um2 is None else replace(look, per_um2=per_um2)
            found, said, area = 0, "", 0.0
            for seed in range(SEEDS):
                frame = simulated.render(shown, 9_100_000 + seed, (side, side), pixel_nm)
                answer = live.detect(frame.image, pixel_nm * wrong * 10)
                found += len(answer.objects)
                said = answer.doubt or answer.note or said
                area += (side * pixel_nm * wrong) ** 2 * 1e-6
            table.add_row(f"{kind}, {name}", f"{area:.1f}", str(found), f"{found / area:.1f}", said)
    console.print(table)


# ---------------------------------------------------------------------------------------------- real frames


def epfl(run: tuple[str, ...]) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.bool_]]]:
    """Slices of a run with their vesicle masks: name, greys, mask."""
    from PIL import Image

    folder = DATA / "volumes" / "epfl"
    for name in run:
        grey = np.asarray(Image.open(folder / "slices" / f"training{name}.png").convert("L"))
        mask = np.asarray(Image.open(folder / "vesicles" / f"training{name}.png").convert("L")) > 127
        yield name, grey, mask


RUNS = {"first": ("0000", "0001", "0002", "0003"), "second": ("0045", "0046", "0047", "0048")}


def parted(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Vesicles of a mask in which they run together, rows (x, y, diameter) in pixels.

    The mask is cut at its necks: each maximum of the distance to the outside that stands out from those nearby is a
    vesicle. It is an estimate, of merged clusters above all.
    """
    room = ndimage.distance_transform_edt(mask)
    smooth = ndimage.gaussian_filter(room, 0.8)
    top = (smooth == ndimage.maximum_filter(smooth, 7)) & (room > 1.8)
    y, x = np.nonzero(top)
    rows = np.stack([x, y, 2 * room[top]], axis=1).astype(float)
    rows = rows[np.argsort(-rows[:, 2], kind="stable")]
    kept: list[NDArray[np.float64]] = []
    for row in rows:
        if all(np.hypot(*(row[:2] - k[:2])) > 0.6 * k[2] for k in kept):
            kept.append(row)
    return np.array(kept).reshape(-1, 3)


def against_mask(found: list[Disc], mask: NDArray[np.bool_], pixel_nm: float) -> tuple[Score, float]:
    """Score against the parted mask, and the Dice of the discs."""
    truth = parted(mask)
    at = np.array([(d.x, d.y) for d in found]).reshape(-1, 2)
    pairs = matched(truth[:, :2], at, np.maximum(truth[:, 2] / 2, 20 / pixel_nm))
    painted = np.zeros(mask.shape, np.uint8)
    for d in found:
        cv2.circle(painted, (round(d.x * 16), round(d.y * 16)), round(d.diameter_nm / pixel_nm * 8), 1, -1, 8, 4)
    dice = 2 * float((mask & (painted > 0)).sum()) / max(1.0, float(mask.sum() + painted.sum()))
    return Score(len(pairs), len(truth) - len(pairs), len(found) - len(pairs), 0, 0), dice


def on_epfl(detector: FrameDetector, console: Console, out: Path | None, finetune: bool) -> None:
    """The table of the FIB-SEM slices."""
    table = Table(
        "slices", "weights", "marked", "found", "recall", "precision", "F1", "Dice", title="EPFL FIB-SEM, 5 nm"
    )
    for name, run in RUNS.items():
        _epfl_row(table, name, "as they come", detector, run, out)
        if finetune:
            other = next(r for n, r in RUNS.items() if n != name)
            _epfl_row(table, name, "fine-tuned on the other run", tuned(other), run, None)
    console.print(table)


def _epfl_row(
    table: Table, name: str, weights: str, detector: FrameDetector, run: tuple[str, ...], out: Path | None
) -> None:
    scores, dices = [], []
    for number, grey, mask in epfl(run):
        found = sure_of(detector, grey, EPFL_NM)
        s, dice = against_mask(found, mask, EPFL_NM)
        scores.append(s)
        dices.append(dice)
        if out is not None:
            _overlay(out / f"epfl_{number}.png", grey, found, EPFL_NM)
    s = summed(scores)
    table.add_row(
        name, weights, str(s.hits + s.missed), str(s.hits + s.false), f"{s.recall:.3f}", f"{s.precision:.3f}",
        f"{s.f1:.3f}", f"{np.mean(dices):.3f}",
    )  # fmt: skip


def tuned(run: tuple[str, ...]) -> FrameDetector:
    """A detector that went on learning from the marked slices of one run; its weights are not kept."""
    from models.runtime import load
    from models.training.corrected_windows import Proofread
    from models.training.vesicle_corrections import FrameFinetuneRecipe, learn

    images = [Proofread(name, grey, EPFL_NM, parted(mask)) for name, grey, mask in epfl(run)]
    with tempfile.TemporaryDirectory() as folder:
        file, *_ = learn(FrameFinetuneRecipe(), images, Path(folder), command="python -m benchmarks.vesicle_frames")
        return FrameDetector(network=load(file.with_suffix(".yaml")))


def overlays(detector: FrameDetector, console: Console, out: Path | None) -> None:
    """Counts and overlays of real frames without a truth."""
    from drivers.images import read_image
    from models.vesicles.live import LiveVesicles

    table = Table("frame", "pixel, nm", "found", "median diameter, nm", "what is said", title="no truth: look at them")
    live = LiveVesicles(detector=detector)
    for name, pixel_nm in REAL.items():
        image = read_image(DATA / "vesicles" / name)[0]
        found = sure_of(detector, image, pixel_nm)
        middle = f"{np.median([d.diameter_nm for d in found]):.0f}" if found else ""
        answer = live.detect(image, pixel_nm * 10)
        table.add_row(name, f"{pixel_nm:g}", str(len(found)), middle, answer.doubt or answer.note)
        if out is not None:
            _overlay(out / f"{Path(name).stem}.png", image, found, pixel_nm)
    console.print(table)


def _overlay(path: Path, image: NDArray[Any], found: list[Disc], pixel_nm: float) -> None:
    from agent.vesicle_frame_pictures import overlay

    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), overlay(image, found, pixel_nm)[..., ::-1])


def speed(detector: FrameDetector, console: Console) -> None:
    """Time for frames of 4096 x 4096 pixels."""
    table = Table("4096 x 4096 at", "wall s", "CPU s", title="speed")
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (4096, 4096), np.uint8)
    for pixel_nm in (0.5, 1.3, 2.5, 5.0):
        wall, cpu = time.perf_counter(), time.process_time()
        detector.candidates(image, pixel_nm)
        table.add_row(f"{pixel_nm:g} nm", f"{time.perf_counter() - wall:.2f}", f"{time.process_time() - cpu:.2f}")
    console.print(table)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("simulated", "depth", "epfl", "real", "speed"))
    parser.add_argument("--weights", type=Path, help="manifest of other weights")
    parser.add_argument("--out", type=Path, help="folder for overlays")
    parser.add_argument(
        "--finetune", action="store_true", help="also fine-tune on one run of the FIB-SEM slices (torch)"
    )
    parser.add_argument("--threshold", type=float)
    asked = parser.parse_args()
    console = Console(width=150)
    given: dict[str, Any] = {} if asked.threshold is None else {"threshold_score": asked.threshold}
    detector = FrameDetector(weights=asked.weights or "vesicles-frames", **given)

    def wanted(part: str) -> bool:
        return asked.only in (None, part)

    if wanted("simulated"):
        on_simulated(detector, console, asked.out)
    if wanted("depth"):
        out_of_depth(detector, console)
    there = (DATA / "vesicles").is_dir()
    if wanted("epfl") and there:
        on_epfl(detector, console, asked.out, asked.finetune)
    if wanted("real") and there:
        overlays(detector, console, asked.out)
    if wanted("speed"):
        speed(detector, console)


if __name__ == "__main__":
    main()
