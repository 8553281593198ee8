"""``cryonaut proofread``: look through the marks on an image in a browser, and correct them."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from agent.errors import ConfigError

if TYPE_CHECKING:
    from agent.web.proofread import OneImage


def proofread(
    image: Path,
    *,
    detections: Path | None = None,
    project: Path = Path("proofread"),
    pixel_size: str | None = None,
    sizes: str = "",
    port: int = 0,
    open_browser: Annotated[bool, Parameter(name="--browser")] = True,
) -> None:
    """Correct gold marks on an image in the browser: remove, add, move, re-size, undo, save.

    The page is served to this machine only, behind a link with a secret. Corrections are kept in a project folder, from
    which `cryonaut train gold --from PROJECT --finetune` learns.

    Such as:

    - `cryonaut find gold replica.mrc --out found && cryonaut proofread replica.mrc --detections found/replica.csv`

    Parameters
    ----------
    image
        Image file.
    detections
        CSV of `cryonaut find gold`; without it, what the project has, or nothing.
    project
        Folder in which corrections are kept, one file per image.
    pixel_size
        Pixel size where the file does not say it, such as `1.11nm`; a number alone is in nm.
    sizes
        Sizes in nm to place with the keys 1 to 9; by default those of the detections, or 6, 12 and 18.
    port
        Port on this machine; 0 takes a free one.
    open_browser
        Open the page in the browser.
    """
    from agent.cli.find_gold import _sizes
    from agent.cli.units import pixel_size_angstrom
    from agent.web.proofread import OneImage, Project, Sheet, sizes_of
    from agent.web.proofread.project import numbered
    from drivers.images import map_image
    from models.gold.files import read_csv

    pixels, own = map_image(image)
    angstrom = pixel_size_angstrom(pixel_size, "nm") or own
    if angstrom is None:
        raise ConfigError(f"{image}: the file has no pixel size; give it, such as --pixel-size 1.11nm")
    kept = Project(project)
    sheet = kept.read(image)
    if sheet is None or detections is not None:
        if sheet is not None and sheet.revision:
            raise ConfigError(f"{kept.path(image)} holds corrections: leave --detections out to go on, or move it away")
        try:
            found = read_csv(detections) if detections is not None else []
        except (OSError, ValueError) as error:
            raise ConfigError(str(error)) from error
        marks = numbered((p.x, p.y, p.diameter_nm, p.group, p.score) for p in found)
        shape = (int(pixels.shape[0]), int(pixels.shape[1]))
        sheet = Sheet(image=str(image.resolve()), shape=shape, pixel_nm=angstrom / 10, marks=marks)
    if tuple(pixels.shape) != tuple(sheet.shape):
        raise ConfigError(f"{kept.path(image)} is of an image of {sheet.shape} pixels; {image} has {pixels.shape}")
    wanted = _sizes(sizes) or sizes_of(sheet)
    asyncio.run(_serve(OneImage(image.name, pixels, sheet, kept), wanted, port, open_browser))


async def _serve(shelf: "OneImage", sizes: tuple[float, ...], port: int, show: bool) -> None:
    import webbrowser

    from agent.web.app import create_app
    from agent.web.proofread import LinkAccess, Proofread
    from agent.web.serve import address_of, listen, serve

    access = LinkAccess()
    app = create_app([Proofread(shelf, sizes).page()], access, title="Cryonaut")
    try:
        made = listen(f"127.0.0.1:{port}")
    except OSError as error:
        raise ConfigError(f"--port {port}: {error.strerror or error}") from error
    link = f"http://{address_of(made)}/signin?token={access.token}"
    print(f"proofread at {link}\nCtrl-C ends it; what is saved stays in {shelf.project.folder}", flush=True)
    if show:
        webbrowser.open(link)
    await serve(app, made)
