"""``cryonaut proofread``: look through the marks on an image in a browser, and correct them."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from agent.errors import ConfigError

if TYPE_CHECKING:
    from agent.web.proofread import OneImage


def proofread(
    image: Path,
    *,
    detections: Path | None = None,
    structure: Literal["gold", "vesicles"] | None = None,
    project: Path = Path("proofread"),
    pixel_size: str | None = None,
    sizes: str = "",
    white: Annotated[bool, Parameter(negative="")] = False,
    port: int = 0,
    open_browser: Annotated[bool, Parameter(name="--browser")] = True,
) -> None:
    """Correct marks on an image or in a volume in the browser: remove, add, move, re-size, undo, save.

    Gold on images, vesicles on images and in tomograms, which are shown section by section. A vesicle that is added by
    a click snaps to its membrane. The page is served to this machine only, behind a link with a secret. Corrections are
    kept in a project folder, from which `cryonaut train gold --from PROJECT --finetune` learns, and vesicles likewise.

    Such as:

    - `cryonaut find gold replica.mrc --out found && cryonaut proofread replica.mrc --detections found/replica.csv`
    - `cryonaut segment vesicles synapse.mrc -o found && cryonaut proofread synapse.mrc --detections found/vesicles.csv`

    Parameters
    ----------
    image
        Image file, or volume: MRC, TIFF stack, N5, OME-Zarr.
    detections
        CSV of `cryonaut find gold`, `find vesicles` or `segment vesicles`; without it, what the project has.
    structure
        What the marks are, where no detections say it; by default gold on images and vesicles in volumes.
    project
        Folder in which corrections are kept, one file per image.
    pixel_size
        Pixel size where the file does not say it, such as `1.11nm`; a number alone is in nm.
    sizes
        Sizes in nm to place with the keys 1 to 9; by default those of the detections, or usual ones.
    white
        Membranes of vesicles are bright in this file; without it they are dark.
    port
        Port on this machine; 0 takes a free one.
    open_browser
        Open the page in the browser.
    """
    from agent.cli.find_gold import _sizes
    from agent.cli.proofread_files import open_any, read_table
    from agent.cli.units import pixel_size_angstrom
    from agent.web.proofread import OneImage, Project, Sheet, sizes_of

    kept = Project(project)
    sheet = kept.read(image)
    table = read_table(detections) if detections is not None else None
    if sheet is not None and sheet.revision and table is not None:
        raise ConfigError(f"{kept.path(image)} holds corrections: leave --detections out to go on, or move it away")
    known = table.volume if table is not None else sheet.sections is not None if sheet is not None else None
    opened = open_any(image, volume=known if known is not None or structure != "gold" else False)
    shape = tuple(int(n) for n in opened.pixels.shape)
    angstrom = pixel_size_angstrom(pixel_size, "nm")
    pixel_nm = angstrom / 10 if angstrom else opened.pixel_nm
    if pixel_nm is None:
        raise ConfigError(f"{image}: the file has no pixel size; give it, such as --pixel-size 1.11nm")
    if sheet is None or table is not None:
        usual = "gold" if len(shape) == 2 else "vesicles"
        sheet = Sheet(
            image=str(image.resolve()),
            shape=shape,
            pixel_nm=pixel_nm,
            marks=table.marks if table is not None else (),
            structure=structure or (table.structure if table is not None else usual),
            white=white,
        )
    if shape != tuple(sheet.shape):
        raise ConfigError(f"{kept.path(image)} is of an image of {sheet.shape} pixels; {image} has {shape}")
    if sheet.structure == "gold" and sheet.sections is not None:
        raise ConfigError(f"{image}: gold is proofread on images; this is a volume of {shape} voxels")
    wanted = _sizes(sizes) or sizes_of(sheet)
    asyncio.run(_serve(OneImage(image.name, opened.pixels, sheet, kept), wanted, port, open_browser))


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
