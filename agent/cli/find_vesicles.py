"""``cryonaut find vesicles``: vesicles on high-mag frames and sections, as files."""

import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from agent.cli.units import pixel_size_angstrom
from agent.errors import BadFileError, ConfigError, CryonautError

Format = Literal["table", "json", "csv"]
Formats = Annotated[tuple[Format, ...], Parameter(name="--format", negative="", consume_multiple=False)]


@dataclass(frozen=True, slots=True)
class Answer:
    """Vesicles of one image, its pixel size, what they measure, and why not to believe them."""

    found: list[Any]
    pixel_nm: float
    summary: dict[str, Any]
    doubt: str


def vesicles(
    *images: Path,
    out: Path | None = None,
    pixel_size: str | None = None,
    white: Annotated[bool, Parameter(negative="")] = False,
    formats: Formats = (),
    weights: Path | None = None,
    threshold: float | None = None,
) -> None:
    """Find vesicles on cryo projections, stained sections and FIB-SEM slices of any size.

    For tomograms there is `cryonaut segment vesicles`, which fits spheres.

    Such as:

    - `cryonaut find vesicles frame.mrc --out found`
    - `cryonaut find vesicles sections/ --pixel-size 1.3nm --out found`

    Parameters
    ----------
    images
        Files, or folders whose image files are taken.
    out
        Folder for the results: `<stem>.csv`, `<stem>_overlay.png`, and `vesicles.csv` with one line for each image.
    pixel_size
        Pixel size where the file does not say it, such as `1.3nm` or `13A`; a number alone is in nm.
    white
        Membranes are bright in these images; without it they are dark.
    formats
        `table` (default) prints a line for each image; `json` and `csv` print the vesicles.
    weights
        Manifest (`.yaml`) of other weights than the ones that come with Cryonaut.
    threshold
        Least score that counts, from 0 to 1.
    """
    from rich.console import Console
    from rich.progress import track

    from drivers.images import image_files

    if not images:
        raise ConfigError("name at least one image: cryonaut find vesicles IMAGE...")
    angstrom = pixel_size_angstrom(pixel_size, "nm")
    detector = _detector(weights, threshold)
    files = image_files(images)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    answers: list[tuple[Path, Answer]] = []
    shown = track(files, "finding", console=Console(stderr=True), transient=True, disable=len(files) < 2)
    for file in shown:
        try:
            answer = _one(file, detector, angstrom, not white, out)
        except (BadFileError, ConfigError) as error:
            print(f"cryonaut: {error}", file=sys.stderr)
            continue
        answers.append((file, answer))
        _print(file, answer, formats)
        if answer.doubt:
            print(f"cryonaut: {file}: warning: {answer.doubt}", file=sys.stderr)
    if not formats or "table" in formats:
        _table(answers)
    if out is not None and answers:
        _summaries(answers, out / "vesicles.csv")
        print(f"results: {out / 'vesicles.csv'} and beside it")
    if len(answers) < len(files):
        print(f"cryonaut: {len(files) - len(answers)} of {len(files)} images could not be used", file=sys.stderr)
        sys.exit(1)


def _detector(weights: Path | None, threshold: float | None) -> Any:
    from models.runtime import ModelError
    from models.vesicles.frames import FrameDetector

    if threshold is not None and not 0 < threshold < 1:
        raise ConfigError(f"--threshold {threshold:g}: a score above 0 and below 1")
    given: dict[str, Any] = {} if threshold is None else {"threshold_score": threshold}
    detector = FrameDetector(weights=weights or "vesicles-frames", **given)
    try:
        detector.fingerprint  # noqa: B018  (loads the weights: a fault in them is told before any image is opened)
    except ModelError as error:
        raise CryonautError(str(error)) from error
    return detector


def _one(file: Path, detector: Any, angstrom: float | None, dark: bool, out: Path | None) -> Answer:
    """Find on one image, and write what was asked for."""
    import cv2

    from agent.vesicle_frame_pictures import overlay
    from drivers.images import map_image
    from models.vesicles.frame_files import summary, write_csv
    from models.vesicles.live import doubt, unfit

    image, own = map_image(file)
    angstrom = angstrom or own
    if angstrom is None:
        raise ConfigError(f"{file}: the file has no pixel size; give it, such as --pixel-size 1.3nm")
    nm = angstrom / 10
    if reason := unfit(tuple(image.shape), nm):
        raise ConfigError(f"{file}: {reason}")
    candidates = detector.candidates(image, nm, dark=dark)
    found = [d for d in candidates if d.score >= detector.threshold_score]
    area_um2 = image.shape[0] * image.shape[1] * nm**2 * 1e-6
    if out is not None:
        write_csv(found, nm, out / f"{file.stem}.csv")
        cv2.imwrite(str(out / f"{file.stem}_overlay.png"), overlay(image, found, nm)[..., ::-1])
    return Answer(found, nm, summary(found, nm, area_um2), doubt(found, len(candidates) - len(found)))


def _print(file: Path, answer: Answer, formats: tuple[Format, ...]) -> None:
    from models.vesicles.frame_files import COLUMNS, rows

    table = rows(answer.found, answer.pixel_nm)
    if "json" in formats:
        plain = [{k: v if k == "group" else float(v) if v else None for k, v in row.items()} for row in table]
        print(json.dumps({"image": str(file), "doubt": answer.doubt, **answer.summary, "found": plain}))
    if "csv" in formats:
        writer = csv.DictWriter(sys.stdout, COLUMNS)
        writer.writeheader()
        writer.writerows(table)


def _table(answers: list[tuple[Path, Answer]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("image", title="vesicles", title_justify="left")
    for name in ("pixel nm", "n", "per µm²", "outer diameter nm", "gap nm"):
        table.add_column(name, justify="right")
    for file, answer in answers:
        s = answer.summary
        size = "" if s["diameter_mean_nm"] is None else f"{s['diameter_mean_nm']:.1f} ± {s['diameter_spread_nm']:.1f}"
        gap = "" if s["gap_median_nm"] is None else f"{s['gap_median_nm']:.1f}"
        table.add_row(file.name, f"{answer.pixel_nm:.4g}", str(s["vesicles"]), f"{s['per_um2']:.1f}", size, gap)
    Console().print(table)


def _summaries(answers: list[tuple[Path, Answer]], path: Path) -> None:
    lines = [
        {"image": file.name, "pixel_nm": f"{a.pixel_nm:.6g}", **a.summary, "doubt": a.doubt} for file, a in answers
    ]
    with path.open("w", newline="", encoding="utf-8") as table:
        writer = csv.DictWriter(table, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
