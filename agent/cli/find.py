"""``cryonaut find``: squares, holes, gold and vesicles on image files, without a microscope."""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from agent.cli.find_gold import gold
from agent.cli.find_vesicles import vesicles
from agent.cli.found import formats_of, into, write
from agent.cli.units import pixel_size_angstrom
from agent.errors import BadFileError, ConfigError

app = App(
    name="find",
    help="Find squares, holes, immunogold or vesicles on image files (MRC, TIFF, PNG, JPG) or folders of them.",
)
app.command(gold)
app.command(vesicles)


@Parameter(name="*")
@dataclass(frozen=True)
class Wanted:
    """What is wanted of images, whatever is looked for on them.

    Parameters
    ----------
    out
        Folder for the results: `<image stem>.json`, `.csv`, `.star`, `.nav`, `.png`.
    formats
        Any of `table` (default, printed), `json`, `csv`, `star`, `nav`, with commas or one by one; written to --out, or
        printed without it. `nav` needs a Navigator file beside the image in which it is a map (or --session-nav).
    overlay
        Draw the result on the image, as a PNG in --out (default: beside you).
    pixel_size
        Pixel size where the file does not say it, such as `40A` or `4nm`; a number alone is in Å. It is not needed.
    model
        Another finder than the default: a name, or the manifest (`.yaml`) of a site's own weights.
    session_nav
        The Navigator file that knows the map; by default the one beside the image.
    """

    out: Path | None = None
    formats: Annotated[tuple[str, ...], Parameter(name="--format", negative="", consume_multiple=False)] = ()
    overlay: bool = False
    pixel_size: str | None = None
    model: str | None = None
    session_nav: Path | None = None


@app.command
def squares(*images: Path, wanted: Wanted | None = None) -> None:
    """Find mesh squares on low-mag images.

    Such as:

    - `cryonaut find squares atlas.mrc --overlay --out found`
    - `cryonaut find squares atlas/ --format json,csv --out found`

    Parameters
    ----------
    images
        Files, or folders whose image files are taken.
    """
    _find("squares", images, wanted or Wanted())


@app.command
def holes(*images: Path, wanted: Wanted | None = None, nav: Path | None = None, open_beam: float | None = None) -> None:
    """Find foil holes on medium-mag images.

    Such as:

    - `cryonaut find holes square_012.mrc --overlay --out found`
    - `cryonaut find holes squares/ --format json,star --out found`
    - `cryonaut find holes map.mrc --open-beam 620`

    Parameters
    ----------
    images
        Files, or folders whose image files are taken.
    nav
        Write the holes as points of a SerialEM Navigator file, for one map that a Navigator file knows.
    open_beam
        Mean pixel value that this exposure gives where nothing is in the beam. Holes are then scored by how much they
        let through, and so by how thick their ice is. The image must hold counts, with 0 where no electron arrives.
    """
    wanted = wanted or Wanted()
    if nav is not None and len(images) != 1:
        raise ConfigError(f"--nav {nav}: the points of one map go into one file: name one image, not {len(images)}")
    if open_beam is not None and not 0 < open_beam < 1e12:
        raise ConfigError(f"--open-beam {open_beam:g}: a mean pixel value above 0 is needed")
    findings = _find("holes", images, wanted, open_beam)
    if nav is not None:
        from drivers.serialem.files import holes_to_nav, nav_beside

        for file, shape, finding in findings:
            count = holes_to_nav(list(finding.holes), file, shape, wanted.session_nav or nav_beside(file), nav)
            print(f"{count} points: {nav}")


def _find(
    what: Literal["squares", "holes"], images: tuple[Path, ...], wanted: Wanted, open_beam: float | None = None
) -> list[tuple[Path, tuple[int, int], Any]]:
    from rich.console import Console
    from rich.progress import track

    from drivers.images import image_files, read_image
    from models.base import BadImageError
    from models.conditions import Conditions

    if not images:
        raise ConfigError(f"name at least one image: cryonaut find {what} IMAGE...")
    files = image_files(images)
    out, pixel_size = wanted.out, pixel_size_angstrom(wanted.pixel_size, "Å")
    formats = formats_of(wanted.formats) or (() if out is not None and wanted.overlay else ("table",))
    find = _finder(what, wanted.model)
    if open_beam is not None:
        find = partial(find, conditions=Conditions(open_beam=open_beam))
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
        shape = (int(image.shape[0]), int(image.shape[1]))
        findings.append((file, shape, finding))
        items = list(finding.squares if what == "squares" else finding.holes)
        try:
            write(what, file, shape, items, finding, out, formats, wanted.session_nav)
        except BadFileError as error:
            print(f"cryonaut: {error}", file=sys.stderr)
            bad += 1
        if wanted.overlay:
            _draw(what, file, image, finding, out or Path(), pixel_size or own_pixel_size)
    if bad:
        print(f"cryonaut: {bad} of {len(files)} images could not be used", file=sys.stderr)
        sys.exit(1)
    return findings


def _finder(what: str, model: str | None) -> Any:
    """The way to find that a name or a manifest stands for; the classical one where the default cannot start."""
    from agent.inference import BEST, FALLBACK, REGISTRY, build
    from models.runtime import ModelError

    level: Literal["low", "medium"] = "low" if what == "squares" else "medium"
    names = [name for name in REGISTRY if name.startswith(what)]
    own = model is not None and model.endswith(".yaml")
    if model is not None and not own and model not in names:
        raise ConfigError(f"--model {model}: there are {', '.join(names)}, or the manifest (.yaml) of weights")
    try:
        finder: Any = build(f"{what}-net", Path(model)) if own and model else build(model or BEST[level])
    except ModelError as error:
        if model is not None:
            raise ConfigError(f"--model {model}: {error}") from error
        print(f"cryonaut: {error}; {FALLBACK[level]} answers instead", file=sys.stderr)
        finder = build(FALLBACK[level])
    return finder.find


def _draw(what: str, file: Path, image: Any, finding: Any, out: Path, pixel_size: float | None) -> None:
    import cv2

    from agent.drawing import overlay

    picture = overlay(image, **{what: getattr(finding, what)}, pixel_size_angstrom=pixel_size)
    target = into(out, file, ".png")
    if target.resolve() == file.resolve():
        target = target.with_name(f"{file.stem}_{what}.png")
    cv2.imwrite(str(target), picture[..., ::-1])
    print(f"overlay: {target}")
