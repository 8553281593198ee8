"""``cryonaut find gold``: immunogold on image files of any size, its sizes and its pattern."""

import csv
import itertools
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
Arch = Literal["fast", "matched", "tac", "gan"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for, apart from the images."""

    out: Path | None
    formats: tuple[Format, ...]
    per_group: bool
    sizes_nm: tuple[float, ...]
    link_nm: float
    trials: int


def gold(
    *images: Path,
    out: Path | None = None,
    pixel_size: str | None = None,
    sizes: str = "",
    mask: Path | None = None,
    per_group: bool = False,
    formats: Formats = (),
    detector: Arch = "fast",
    weights: Path | None = None,
    threshold: float | None = None,
    link: float = 60.0,
    random_trials: int = 99,
) -> None:
    """Find immunogold, sort it by size and measure its pattern, on images of any size.

    Images stream through in tiles: MRC and uncompressed TIFF files are never read as a whole.

    Such as:

    - `cryonaut find gold replica.mrc --out found`
    - `cryonaut find gold replicas/ --pixel-size 1.11nm --sizes 6,12 --mask masks/ --per-group --out found`

    Parameters
    ----------
    images
        Files, or folders whose image files are taken.
    out
        Folder for the results: `<stem>.csv`, `<stem>_overlay.png`, `<stem>_rois.zip` (ImageJ), `<stem>_statistics.csv`,
        `<stem>_pairs.csv` (how the sizes lie about each other), `<stem>_curves.csv` and `<stem>_statistics.png`.
    pixel_size
        Pixel size where the file does not say it, such as `1.11nm` or `11.1A`; a number alone is in nm.
    sizes
        Nominal diameters in nm, such as `6,12`; without them the diameters themselves say how many sizes there are.
    mask
        Region to count in, white in an image of the same size; or a folder of masks named like their images.
    per_group
        Write one more CSV for each size.
    formats
        `table` (default) prints a summary; `json` and `csv` print the particles.
    detector
        `fast`: the network in use. `matched`: matched discs on a median background. `tac`: threshold, area and
        circularity. `gan`: trained by `train gold --arch gan`.
    weights
        Manifest (`.yaml`) of other weights than the ones that come with Cryonaut.
    threshold
        Least score that counts, from 0 to 1 (fast only).
    link
        Particles no further apart than this, in nm, belong to one cluster.
    random_trials
        Random patterns that the statistics are compared with; 0: none.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from agent.memory import peak_gib
    from drivers.images import image_files

    if not images:
        raise ConfigError("name at least one image: cryonaut find gold IMAGE...")
    angstrom = pixel_size_angstrom(pixel_size, "nm")
    wish = Wish(out, formats or ("table",), per_group, _sizes(sizes), _positive("--link", link), max(0, random_trials))
    finder = _detector(detector, weights, threshold)
    files = image_files(images)
    masks = _masks(mask, files)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    bad = 0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
    )
    for file in files:
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task(file.name, total=1.0)

            def tell(share: float, progress: Progress = progress, bar: Any = bar) -> None:
                progress.update(bar, completed=share)

            try:
                answer = _one(file, finder, angstrom, masks.get(file), wish, tell)
            except (BadFileError, ConfigError) as error:
                print(f"cryonaut: {error}", file=sys.stderr)
                bad += 1
                continue
        _say(file, answer, wish)
    print(f"peak memory {peak_gib():.2f} GiB", file=sys.stderr)
    if bad:
        print(f"cryonaut: {bad} of {len(files)} images could not be used", file=sys.stderr)
        sys.exit(1)


def _sizes(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ConfigError(f"--sizes {text}: expected diameters in nm with commas between them, such as 6,12") from error
    if any(not 1 <= size <= 200 for size in found):
        raise ConfigError(f"--sizes {text}: diameters in nm, from 1 to 200")
    return tuple(sorted(set(found)))


def _positive(name: str, value: float) -> float:
    if not 0 < value < 1e6:
        raise ConfigError(f"{name} {value:g}: nm, above 0")
    return value


def _detector(arch: Arch, weights: Path | None, threshold: float | None) -> Any:
    from models import gold as family
    from models.runtime import ModelError

    if threshold is not None and not 0 < threshold < 1:
        raise ConfigError(f"--threshold {threshold:g}: a score above 0 and below 1")
    try:
        if arch == "tac":
            return family.TacDetector()
        if arch == "matched":
            return family.MatchedDetector()
        if arch == "gan":
            if weights is None:
                raise ConfigError("--detector gan needs --weights: `cryonaut train gold --arch gan` makes them")
            found: Any = family.GanDetector(weights=weights)
        else:
            given: dict[str, Any] = {} if threshold is None else {"threshold_score": threshold}
            found = family.FastDetector(weights=weights or "gold-fast", **given)
        found.fingerprint  # noqa: B018  (loads the weights: a fault in them is told before any image is opened)
    except ModelError as error:
        raise CryonautError(str(error)) from error
    return found


def _masks(mask: Path | None, files: list[Path]) -> dict[Path, Path]:
    """The mask of each image: the one given, or those of a folder that are named like their images."""
    from drivers.images import image_files

    if mask is None:
        return {}
    if not mask.is_dir():
        if len(files) > 1:
            raise ConfigError(f"--mask {mask}: one mask for {len(files)} images; name a folder of masks")
        return {files[0]: mask}
    known = {_plain(path.stem): path for path in image_files([mask])}
    missing = [file.name for file in files if _plain(file.stem) not in known]
    if missing:
        raise ConfigError(
            f"--mask {mask}: no mask named like {', '.join(missing[:3])} (such as {Path(missing[0]).stem}_mask)"
        )
    return {file: known[_plain(file.stem)] for file in files}


def _plain(stem: str) -> str:
    return "".join(c for c in stem.lower().replace("mask", "") if c.isalnum())


def _one(file: Path, finder: Any, angstrom: float | None, mask: Path | None, wish: Wish, tell: Any) -> Any:
    """Find and measure on one image, and write what was asked for; (finding, patterns, pairs)."""
    import numpy as np

    from drivers.images import map_image, read_image
    from models.gold.pairs import paired
    from models.gold.search import GoldError, find
    from models.gold.spatial import Region, measured

    image, own = map_image(file)
    angstrom = angstrom or own
    if angstrom is None:
        raise ConfigError(f"{file}: the file has no pixel size; give it, such as --pixel-size 1.11nm")
    inside = None
    if mask is not None:
        white = read_image(mask)[0]
        if white.shape != image.shape:
            raise ConfigError(f"{mask}: {white.shape} pixels, the image has {image.shape}: (rows, columns) must agree")
        inside = white > (float(white.max()) + float(white.min())) / 2
        if not inside.any():
            raise ConfigError(f"{mask}: no pixel is white; white is the region to count in")
    try:
        finding = find(finder, image, angstrom / 10, wish.sizes_nm, tell)
    except GoldError as error:
        raise ConfigError(f"{file}: {error}") from error
    nm = finding.pixel_nm
    region = Region(image.shape[1] * nm, image.shape[0] * nm, inside)
    names = [g.name for g in finding.groups]
    points = {
        name: (np.array([[p.x, p.y] for p in finding.particles if p.group == name]).reshape(-1, 2) + 0.5) * nm
        for name in names
    }
    if len(names) != 1:
        points["all"] = np.concatenate([*points.values(), np.zeros((0, 2))])
    patterns = [measured(n, p, region, link_nm=wish.link_nm, trials=wish.trials) for n, p in points.items()]
    pairs = [
        paired((a, b), points[a], points[b], region, trials=wish.trials) for a, b in itertools.combinations(names, 2)
    ]
    if wish.out is not None:
        _write(file, image, (finding, patterns, pairs), inside, wish, wish.out)
    return finding, patterns, pairs


def _write(file: Path, image: Any, answer: Any, inside: Any, wish: Wish, out: Path) -> None:
    import cv2

    from agent import gold_pictures
    from models.gold.files import write_csv, write_rois

    finding, patterns, pairs = answer
    stem = out / file.stem
    write_csv(finding.particles, finding.pixel_nm, _beside(stem, ".csv"))
    for group in finding.groups if wish.per_group else ():
        mine = [p for p in finding.particles if p.group == group.name]
        write_csv(mine, finding.pixel_nm, _beside(stem, f"_{group.name.replace(' ', '')}.csv"))
    write_rois(finding.particles, finding.pixel_nm, _beside(stem, "_rois.zip"))
    cv2.imwrite(str(_beside(stem, "_overlay.png")), gold_pictures.overlay(image, finding, inside)[..., ::-1])
    for suffix, measured in (("_statistics.csv", patterns), ("_pairs.csv", pairs)):
        if not measured:  # one size makes no pair
            _beside(stem, suffix).unlink(missing_ok=True)
            continue
        with _beside(stem, suffix).open("w", newline="", encoding="utf-8") as table:
            writer = csv.DictWriter(table, list(measured[0].row()))
            writer.writeheader()
            writer.writerows(one.row() for one in measured)
    with _beside(stem, "_curves.csv").open("w", newline="", encoding="utf-8") as table:
        plain = csv.writer(table)
        plain.writerow(("group", "r_nm", "k_nm2", "l_minus_r_nm", "random_low_nm", "random_high_nm"))
        for p in (*patterns, *pairs):
            for values in zip(p.radii_nm, p.k, p.l_minus_r, p.low, p.high, strict=True):
                plain.writerow((p.name, *(f"{value:.4f}" for value in values)))
    try:
        gold_pictures.plots(patterns, pairs, finding, _beside(stem, "_statistics.png"))
    except ImportError:
        print("cryonaut: no plots: they need matplotlib (pip install 'cryonaut[plots]')", file=sys.stderr)


def _said(pair: Any) -> str:
    """How two sizes lie about each other, in a line."""
    r = pair.row()
    where = [
        f"{word} than at random from {r[f'{key}_from_nm']} to {r[f'{key}_to_nm']} nm"
        for key, word in (("together", "closer"), ("apart", "further apart"))
        if r[f"{key}_from_nm"] != ""
    ]
    told = " and ".join(where) or ("as at random" if r["nnd_random_mean_nm"] != "" else "no random patterns to compare")
    near = f"nearest {r['nnd_mean_nm']} nm (random {r['nnd_random_mean_nm'] or '-'})"
    return f"{pair.names[1]} about {pair.names[0]}: {near}; cross-type L: {told}"


def _beside(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)


def _say(file: Path, answer: Any, wish: Wish) -> None:
    from rich.console import Console
    from rich.table import Table

    from models.gold.files import COLUMNS, rows

    finding, patterns, pairs = answer
    if "json" in wish.formats:
        plain = [
            {k: v if k == "group" else float(v) for k, v in row.items()}
            for row in rows(finding.particles, finding.pixel_nm)
        ]
        print(json.dumps({"image": str(file), "doubt": finding.doubt, "note": finding.note, "gold": plain}))
    if "csv" in wish.formats and wish.out is None:
        writer = csv.DictWriter(sys.stdout, COLUMNS)
        writer.writeheader()
        writer.writerows(rows(finding.particles, finding.pixel_nm))
    if "table" in wish.formats:
        nm = finding.pixel_nm
        table = Table(title=f"{file}: gold at {nm:.4g} nm ({nm * 10:.4g} Å) per pixel", title_justify="left")
        for name in ("group", "n", "diameter nm", "per µm²", "NND nm", "random", "clusters", "in them"):
            table.add_column(name, justify="left" if name == "group" else "right")
        sizes = {g.name: f"{g.mean_nm:.1f} ± {g.spread_nm:.1f}" for g in finding.groups}
        for pattern in patterns:
            r = pattern.row()
            share = r["clustered_share"]
            table.add_row(
                str(r["group"]), str(r["particles"]), sizes.get(pattern.name, ""), f"{r['density_per_um2']}",
                str(r["nnd_mean_nm"]), str(r["nnd_random_mean_nm"]), str(r["clusters"]),
                f"{share:.0%}" if isinstance(share, float) else "",
            )  # fmt: skip
        Console().print(table)
        for pair in pairs:
            print(_said(pair))
        if finding.note:
            print(f"note: {finding.note}")
        if wish.out is not None:
            print(f"results: {_beside(wish.out / file.stem, '.csv')} and beside it")
    if finding.doubt:
        print(f"cryonaut: {file}: warning: {finding.doubt}", file=sys.stderr)
