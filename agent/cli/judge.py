"""``cryonaut judge``: what micrographs are worth, on image files, without a microscope."""

import csv
import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from agent.errors import BadFileError, ConfigError

Format = Literal["table", "json", "csv"]
Formats = Annotated[tuple[Format, ...], Parameter(name="--format", negative="", consume_multiple=False)]


def judge(
    *images: Path,
    out: Path | None = None,
    formats: Formats = (),
    picture: bool = False,
    pixel_size: float | None = None,
    config: Path | None = None,
    voltage: float | None = None,
    cs: float | None = None,
    amplitude_contrast: float | None = None,
    phase_plate: bool | None = None,
    open_beam: float | None = None,
    unfiltered: Path | None = None,
) -> None:
    """Judge micrographs: defocus, resolution, ice, dirt, and a score from 0 to 1.

    Such as:

    - `cryonaut judge micrographs/ --picture --out judged`
    - `cryonaut judge micrograph.mrc --pixel-size 1.06 --voltage 200 --open-beam 45 --format json`

    Of a movie (an MRC or TIFF file of several frames) the drift is told, and the sum of its frames, moved back onto
    each other, is judged. `docs/quality.md` says how each figure is made.

    Parameters
    ----------
    images
        Files, or folders whose image files are taken.
    out
        Folder for the results: `<image stem>.json`, `<image stem>_judged.png`, and `judged.csv` for all.
    formats
        `table` (default) prints; `json` and `csv` are written to --out, or printed without it.
    picture
        Draw micrograph, power spectrum with fit, and profile as a PNG in --out (default: beside you).
    pixel_size
        Pixel size in Å, where the file does not say it; without any there is no CTF fit.
    config
        YAML file whose `quality` section says how the micrographs were taken.
    voltage
        Acceleration voltage in kV (default 300).
    cs
        Spherical aberration in mm (default 2.7).
    amplitude_contrast
        Share of amplitude contrast (default 0.07).
    phase_plate
        There is a phase plate: fit its phase shift, too.
    open_beam
        Mean pixel value of the same exposure through an empty hole; gives the thickness of the ice.
    unfiltered
        The same place at the same dose without the energy slit, for one image taken with it; gives the thickness, too.
    """
    from agent.settings import Settings, load
    from drivers.images import image_files, read_image
    from models.base import BadImageError
    from models.conditions import Conditions

    if not images:
        raise ConfigError("name at least one image: cryonaut judge IMAGE...")
    if unfiltered is not None and len(images) != 1:
        raise ConfigError(f"--unfiltered {unfiltered}: belongs to one filtered image: name one, not {len(images)}")
    for name, value, low, high in (
        ("--pixel-size", pixel_size, 0.01, 1000.0),
        ("--voltage", voltage, 20.0, 1500.0),
        ("--cs", cs, 0.0, 100.0),
        ("--amplitude-contrast", amplitude_contrast, 0.0, 1.0),
        ("--open-beam", open_beam, 1e-12, 1e12),
    ):
        if value is not None and not low <= value <= high:
            raise ConfigError(f"{name} {value:g}: {low:g} to {high:g} is possible")
    site = (load(config) if config is not None else Settings()).quality
    plate = site.phase_plate if phase_plate is None else phase_plate
    conditions = Conditions(
        voltage_kv=site.voltage_kv if voltage is None else voltage,
        cs_mm=site.cs_mm if cs is None else cs,
        amplitude_contrast=site.amplitude_contrast if amplitude_contrast is None else amplitude_contrast,
        phase_shift_deg=None if plate else 0.0,
        open_beam=site.open_beam_counts if open_beam is None else open_beam,
        mean_free_path_nm=site.mean_free_path_nm,
        vitreous=site.vitreous,
    )
    formats = formats or (() if out is not None and picture else ("table",))
    rows: list[dict[str, Any]] = []
    bad = 0
    files = image_files(images)
    for file in files:
        try:
            image, own = read_image(file)
            image, motion = _still(file, image, pixel_size or own)
            row, drawn = _one(file, image, pixel_size or own, conditions, unfiltered, draw=picture)
            row |= motion
        except (BadFileError, BadImageError) as error:
            text = str(error) if isinstance(error, BadFileError) else f"{file}: {error}"
            print(f"cryonaut: {text}", file=sys.stderr)
            bad += 1
            continue
        rows.append(row)
        if drawn is not None:
            _save(drawn, out or Path(), file)
        if "json" in formats and out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / f"{file.stem}.json").write_text(json.dumps(row, indent=1), encoding="utf-8")
    if "json" in formats and out is None:
        for row in rows:
            print(json.dumps(row))
    if "csv" in formats:
        _csv(rows, out)
    if "table" in formats:
        _table(rows)
    if bad:
        print(f"cryonaut: {bad} of {len(files)} images could not be used", file=sys.stderr)
        sys.exit(1)


def _still(file: Path, image: Any, pixel_size: float | None) -> tuple[Any, dict[str, Any]]:
    """The image to judge, and the figures of its motion where the file is a movie."""
    from drivers.volumes.mrc import open_mrc
    from drivers.volumes.tiff import open_tiff
    from models.quality.drift import aligned, drift

    if file.suffix.lower() in (".mrc", ".mrcs", ".st"):
        frames = open_mrc(file).array
    elif file.suffix.lower() in (".tif", ".tiff") and _pages(file) > 1:
        frames = open_tiff(file).array
    else:
        return image, {}
    if len(frames) < 2:
        return image, {}
    found = drift(frames, pixel_size)
    unit = "angstrom" if pixel_size else "pixels"
    motion = {
        "frames": len(frames),
        f"drift_total_{unit}": round(found.total_angstrom, 3),
        f"drift_per_frame_{unit}": round(found.per_frame_angstrom, 3),
        f"drift_fastest_{unit}": round(found.fastest_angstrom, 3),
        f"drift_straight_{unit}": round(found.straight_angstrom, 3),
    }
    return aligned(frames, found.path_angstrom / (pixel_size or 1.0)), motion


def _pages(file: Path) -> int:
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        return len(tiff.pages)


def _one(
    file: Path, image: Any, pixel_size: float | None, conditions: Any, unfiltered: Path | None, *, draw: bool
) -> tuple[dict[str, Any], Any]:
    """The row of one image, and its picture where one is wanted."""
    from drivers.images import read_image
    from models.quality import CtfQualityScorer
    from models.quality.ice import NoThicknessError, inelastic_mean_free_path_nm, thickness_from_pair_nm

    scorer = CtfQualityScorer()
    m = scorer.measure(image, pixel_size, conditions)
    finding = scorer.judge(image, pixel_size, conditions) if m is None else scorer.verdict(m)
    row: dict[str, Any] = {
        "image": str(file),
        "score": finding.score,
        "label": finding.label,
        "pixel_size_angstrom": pixel_size,
        **finding.features,
        "note": finding.note,
    }
    if unfiltered is not None:
        other, _ = _still(unfiltered, *read_image(unfiltered))
        path = conditions.mean_free_path_nm or inelastic_mean_free_path_nm(conditions.voltage_kv)
        try:
            pair = thickness_from_pair_nm(float(other.mean()), float(image.mean()), path)
        except NoThicknessError as error:
            raise BadFileError(f"{file} and {unfiltered}: {error}") from error
        row["ice_thickness_from_filter_nm"] = round(pair, 3)
    if not draw or m is None:
        return row, None
    from agent.sheet import sheet

    return row, sheet(file.name, m, finding, pixel_size)


def _save(drawn: Any, out: Path, file: Path) -> None:
    import cv2

    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{file.stem}_judged.png"
    cv2.imwrite(str(target), drawn[..., ::-1])
    print(f"picture: {target}")


def _drift(row: dict[str, Any]) -> str:
    for unit, short in (("angstrom", "Å"), ("pixels", "px")):
        if f"drift_total_{unit}" in row:
            return f"{row[f'drift_total_{unit}']:.1f} {short} in {row['frames']}"
    return "–"


def _csv(rows: list[dict[str, Any]], out: Path | None) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    target = sys.stdout if out is None else (out / "judged.csv").open("w", newline="", encoding="utf-8")
    try:
        writer = csv.DictWriter(target, names)
        writer.writeheader()
        writer.writerows(rows)
    finally:
        if target is not sys.stdout:
            target.close()


def _table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    roomy = console.width >= 130
    table = Table(title=f"{len(rows)} micrograph{'' if len(rows) == 1 else 's'}")
    table.add_column("image", no_wrap=True)
    longest = max(12, console.width - (64 if not roomy else 104))
    for name in ("label", "score", "defocus", "astig.", "fit Å", "ice nm", "dirt"):
        table.add_column(name, justify="left" if name == "label" else "right", no_wrap=True)
    movies = any("frames" in row for row in rows)
    if movies:
        table.add_column("drift", justify="right", no_wrap=True)
    if roomy:
        table.add_column("why", overflow="fold")

    def shown(row: dict[str, Any], key: str, form: str) -> str:
        return f"{row[key]:{form}}" if row.get(key) is not None else "–"

    for row in rows:
        trusted = row.get("ctf_confidence", 0.0) >= 0.5
        thickness = "ice_thickness_from_filter_nm" if "ice_thickness_from_filter_nm" in row else "ice_thickness_nm"
        table.add_row(
            name if len(name := Path(row["image"]).name) <= longest else name[: longest - 1] + "…",
            row["label"],
            f"{row['score']:.2f}",
            shown(row, "defocus_um", ".2f") if trusted else "–",
            shown(row, "astigmatism_um", ".3f") if trusted else "–",
            shown(row, "ctf_resolution_angstrom", ".1f") if trusted else "–",
            shown(row, thickness, ".0f"),
            f"{100 * row.get('contamination', 0.0):.1f} %",
            *([_drift(row)] if movies else []),
            *([row["note"]] if roomy else []),
        )
    console.print(table)
    console.print("defocus and astigmatism in µm, – where no Thon rings can be trusted", style="dim")
