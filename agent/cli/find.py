"""``cryonaut find``: squares and holes on image files, without a microscope."""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from agent.cli.find_gold import gold
from agent.errors import BadFileError, ConfigError

app = App(
    name="find", help="Find squares, holes or immunogold on image files (MRC, TIFF, PNG, JPG) or folders of them."
)
app.command(gold)
Format = Literal["table", "json", "csv"]
Formats = Annotated[tuple[Format, ...], Parameter(name="--format", negative="", consume_multiple=False)]


@app.command
def squares(
    *images: Path,
    out: Path | None = None,
    formats: Formats = (),
    overlay: bool = False,
    pixel_size: float | None = None,
) -> None:
    """Find mesh squares on low-mag images.

    Such as:

    - `cryonaut find squares atlas.mrc --overlay --out found`
    - `cryonaut find squares atlas/ --format json --format csv --out found`

    Parameters
    ----------
    images
        Files, or folders whose image files are taken.
    out
        Folder for the results: `<image stem>.json`, `.csv`, `.png`.
    formats
        `table` (default) prints; `json` and `csv` are written to --out, or printed without it.
    overlay
        Draw the result on the image, as a PNG in --out (default: beside you).
    pixel_size
        Pixel size in Å, where the file does not say it; it is not needed.
    """
    from models.squares import MixtureSquareFinder

    _find("squares", MixtureSquareFinder().find, images, out, formats, overlay, pixel_size)


@app.command
def holes(
    *images: Path,
    out: Path | None = None,
    formats: Formats = (),
    overlay: bool = False,
    pixel_size: float | None = None,
    nav: Path | None = None,
    session_nav: Path | None = None,
) -> None:
    """Find foil holes on medium-mag images.

    Such as:

    - `cryonaut find holes square_012.mrc --overlay --out found`
    - `cryonaut find holes squares/ --format json --out found`

    Parameters
    ----------
    images
        Files, or folders whose image files are taken.
    out
        Folder for the results: `<image stem>.json`, `.csv`, `.png`.
    formats
        `table` (default) prints; `json` and `csv` are written to --out, or printed without it.
    overlay
        Draw the result on the image, as a PNG in --out (default: beside you).
    pixel_size
        Pixel size in Å, where the file does not say it; it is not needed.
    nav
        Write the holes as points of a SerialEM Navigator file, for one map that a Navigator file knows.
    session_nav
        The Navigator file that knows the map; by default the one beside the image.
    """
    from models.holes import TemplateHoleFinder

    if nav is not None and len(images) != 1:
        raise ConfigError(f"--nav {nav}: the points of one map go into one file: name one image, not {len(images)}")
    findings = _find("holes", TemplateHoleFinder().find, images, out, formats, overlay, pixel_size)
    if nav is not None:
        from drivers.serialem.files import holes_to_nav, nav_beside

        for file, shape, finding in findings:
            count = holes_to_nav(list(finding.holes), file, shape, session_nav or nav_beside(file), nav)
            print(f"{count} points: {nav}")


def _find(
    what: Literal["squares", "holes"],
    find: Callable[..., Any],
    images: tuple[Path, ...],
    out: Path | None,
    formats: tuple[Format, ...],
    overlay: bool,
    pixel_size: float | None,
) -> list[tuple[Path, tuple[int, int], Any]]:
    from rich.console import Console
    from rich.progress import track

    from drivers.images import image_files, read_image
    from models.base import BadImageError

    if not images:
        raise ConfigError(f"name at least one image: cryonaut find {what} IMAGE...")
    if pixel_size is not None and not 0 < pixel_size < 1e6:
        raise ConfigError(f"--pixel-size {pixel_size:g}: Å, above 0 and below 1,000,000")
    files = image_files(images)
    formats = formats or (() if out is not None and overlay else ("table",))
    bad = 0
    findings: list[tuple[Path, tuple[int, int], Any]] = []
    # a bar for many images on a terminal only, and never in the way of what is printed
    shown = track(files, "finding", console=Console(stderr=True), transient=True, disable=len(files) < 2)
    for file in shown:
        try:
            image, own_pixel_size = read_image(file)
            finding = find(image, pixel_size or own_pixel_size)
        except (BadFileError, BadImageError) as error:
            text = str(error) if isinstance(error, BadFileError) else f"{file}: {error}"
            print(f"cryonaut: {text}", file=sys.stderr)
            bad += 1
            continue
        findings.append((file, (int(image.shape[0]), int(image.shape[1])), finding))
        items = list(finding.squares if what == "squares" else finding.holes)
        _write(what, file, items, finding, out, formats)
        if overlay:
            _draw(what, file, image, finding, out or Path(), pixel_size or own_pixel_size)
    if bad:
        print(f"cryonaut: {bad} of {len(files)} images could not be used", file=sys.stderr)
        sys.exit(1)
    return findings


def record(item: Any) -> dict[str, Any]:
    """One square or hole as plain data: pixels of the file, (0, 0) is the centre of its first pixel."""
    plain: dict[str, Any] = {
        "x": round(item.x, 3),
        "y": round(item.y, 3),
        "score": round(item.score, 4),
        "label": item.label,
    }
    if hasattr(item, "vertices"):
        plain |= {"vertices": [[round(x, 2), round(y, 2)] for x, y in item.vertices], "area_px": round(item.area_px, 1)}
        plain |= {"touches_edge": item.touches_edge}
    else:
        plain |= {"radius": round(item.radius_px, 2), "inferred": item.inferred}
    return plain


def _write(
    what: str, file: Path, items: list[Any], finding: Any, out: Path | None, formats: tuple[Format, ...]
) -> None:
    rows = [record(item) for item in items]
    if "json" in formats:
        if out is None:
            print(json.dumps({"image": str(file), "note": finding.note, what: rows}))
        else:
            _into(out, file, ".json").write_text(json.dumps(rows), encoding="utf-8")
    if "csv" in formats:
        names = [
            name for name in (rows[0] if rows else {"x": 0, "y": 0, "score": 0, "label": ""}) if name != "vertices"
        ]
        target = sys.stdout if out is None else _into(out, file, ".csv").open("w", newline="", encoding="utf-8")
        try:
            writer = csv.DictWriter(target, names, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        finally:
            if target is not sys.stdout:
                target.close()
    if "table" in formats:
        _print(what, file, items, finding)


def _into(out: Path, file: Path, suffix: str) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    return out / f"{file.stem}{suffix}"


def _print(what: str, file: Path, items: list[Any], finding: Any) -> None:
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    size = "side px" if what == "squares" else "radius px"
    table = Table("x", "y", size, "score", "label", "main reasons", title=f"{file.name}: {len(items)} {what}")
    for item in items[:25]:
        span = float(np.sqrt(item.area_px)) if what == "squares" else item.radius_px
        top = sorted(item.features.items(), key=lambda pair: -abs(pair[1]))[:3]
        why = ", ".join(f"{name} {value:+.2f}" for name, value in top)
        table.add_row(f"{item.x:.1f}", f"{item.y:.1f}", f"{span:.1f}", f"{item.score:.2f}", item.label, why)
    console = Console()
    console.print(table)
    if len(items) > 25:
        console.print(f"… and {len(items) - 25} more (--format csv or json gives all)", style="dim")
    lattice = getattr(finding, "lattice", None)
    if lattice is not None:
        a, b = (float(np.hypot(*v)) for v in (lattice.a, lattice.b))
        console.print(f"{lattice.symmetry} lattice, spacings {a:.1f} and {b:.1f} px, rms {lattice.residual_px:.2f} px")
    if finding.note:
        console.print(f"note: {finding.note}")


def _draw(what: str, file: Path, image: Any, finding: Any, out: Path, pixel_size: float | None) -> None:
    import cv2

    from agent.drawing import overlay

    picture = overlay(image, **{what: getattr(finding, what)}, pixel_size_angstrom=pixel_size)
    target = _into(out, file, ".png")
    if target.resolve() == file.resolve():
        target = target.with_name(f"{file.stem}_{what}.png")
    cv2.imwrite(str(target), picture[..., ::-1])
    print(f"overlay: {target}")
