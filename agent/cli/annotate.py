"""``cryonaut annotate``: label a structure in a volume from a few strokes."""

import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from agent.errors import ConfigError, CryonautError

Keep = Literal["all", "dark", "bright"]
MOST_VOXELS = 1 << 27
_BYTES = 40  # per voxel, at the most: SLIC's working copies beside greys, supervoxels, strokes and labels
_SECONDS = 6e-6  # per voxel and core, SLIC and the rest
_SIDE = re.compile(r"^\s*(\d*)\s*:\s*(\d*)\s*$")


def annotate(
    volume: Path,
    *,
    seeds: Path | None = None,
    out: Path | None = None,
    project: Path | None = None,
    structure: str | None = None,
    box: str = "",
    keep: Keep = "all",
    metric_mask: Path | None = None,
    voxel_size: str = "",
    config: Path | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    port: int = 0,
    open_browser: Annotated[bool, Parameter(name="--browser")] = True,
) -> None:
    """Label a structure in a volume from a few strokes: a graph cut finds the rest.

    Opens a page in the browser: paint on slices along any axis, cut, correct with more strokes, cut again, save. It is
    served to this machine only, behind a link with a secret; everything is kept in the project's folder.

    With --seeds there is no page: strokes are a label volume of the same shape, 1 on the structure, 2 on the
    background, 0 elsewhere. Labels lie on the grid of the volume, 1 is the structure.

    Such as:

    - `cryonaut annotate cell.zarr --project mito --structure mitochondrion --box 0:300,200:600,:`
    - `cryonaut annotate cell.zarr --seeds strokes.tif --out mito.zarr --structure mitochondrion`

    Parameters
    ----------
    volume
        MRC, TIFF stack, N5 or OME-Zarr.
    seeds
        Label volume with the strokes, of the shape of the volume; the labels are made at once.
    out
        Where the labels go: `.zarr`, `.tif` or `.mrc`; from the page by default `labels.zarr` in the project.
    project
        Folder of the page's project; by default one beside the volume. One that is there goes on.
    structure
        Clean up as this structure asks for: mitochondrion, golgi, er, coated_pit, nuclear_pore, or one of --config.
    box
        The part that is annotated, as `z0:z1,y0:y1,x0:x1` in voxels; all of it by default.
    keep
        Part the structure by its greys in two, and keep the darker or the brighter part.
    metric_mask
        Also write a mask that is 1 where scores count: in the box, but not along the structure's outline.
    voxel_size
        Edge of a voxel in nm, or its edges along z, y and x such as `5.2,4,4`, where the file does not say it.
    config
        YAML file with what to change of the numbers of the method (docs/organelles.md).
    dry_run
        Say what it would take, and do nothing.
    port
        Port of the page on this machine; 0 takes a free one.
    open_browser
        Open the page in the browser.
    """
    import msgspec

    from agent.cli.annotate_files import check_target, read_strokes
    from agent.cli.volume_files import edges_of
    from agent.web.annotate import Facts, read_facts
    from agent.web.annotate.project import FILE
    from drivers.volumes import open_volume
    from models.organelles.annotation import AnnotationError, read_settings

    if seeds is not None and out is None:
        raise ConfigError("--seeds needs --out: where the labels go")
    folder = project or volume.with_name(f"{volume.stem}-annotation")
    opened = open_volume(volume)
    place = parse_box(box, opened.shape)
    edges = edges_of(opened, voxel_size)
    try:
        settings = read_settings(config)
        facts = Facts(
            volume=str(volume.resolve()),
            box=place,
            edges_nm=edges,
            out=str((out or folder / "labels.zarr").resolve()),
            settings=settings,
            metric_mask=str(metric_mask.resolve()) if metric_mask else "",
            structure=structure or "",
            keep=keep,
        )
        if facts.rules is None and metric_mask is not None:
            raise ConfigError("--metric-mask needs --structure: how wide the outline is depends on it")
        say_cost(facts.shape, dry_run=dry_run)
        if seeds is not None:
            for target in (facts.out, facts.metric_mask):
                if target:
                    check_target(Path(target))
            strokes = read_strokes(seeds, opened.shape, place)
            if not dry_run:
                _at_once(opened, facts, strokes)
            return
    except AnnotationError as error:
        raise CryonautError(str(error)) from error
    if dry_run:
        return
    if (folder / FILE).exists():
        before = read_facts(folder)
        if (before.volume, before.box if not box else facts.box) != (facts.volume, before.box):
            raise ConfigError(f"{folder}: is of {before.volume}, box {before.box}: give another --project")
        same = msgspec.structs.replace(
            before, structure=structure or before.structure, metric_mask=facts.metric_mask or before.metric_mask
        )
        facts = msgspec.structs.replace(
            same, out=facts.out if out else before.out, settings=settings if config else before.settings
        )
    from agent.cli.annotate_page import serve_page

    serve_page(folder, opened, facts, port=port, show=open_browser)


def _at_once(opened: Any, facts: Any, strokes: Any) -> None:
    """Labels from strokes, without a page."""
    from agent.cli.annotate_files import write_results
    from models.organelles.annotation import annotated, regions_of, supervoxels, to_grey

    cut = facts.settings.cut
    grey = to_grey(opened.array, facts.box, cut.percentiles)
    with _bar(opened.path.name) as progress:
        pieces = supervoxels(grey, cut, edges=facts.edges_nm, workers=cores(), progress=progress)
    regions = regions_of(grey, pieces, cut.bins, facts.edges_nm)
    labels = annotated(grey, regions, strokes, cut, rules=facts.rules, keep=facts.keep)
    write_results(opened, facts, labels)
    found = f"{int(labels.sum())} voxels ({float(labels.mean()):.1%} of the box)"
    print(f"{len(regions)} supervoxels; {found} are the structure: {facts.out}")


def parse_box(text: str, shape: Any) -> Any:
    """A box such as ``0:100,:,50:200`` (z, y, x; an empty side is all of it) in a volume of this shape.

    Raises
    ------
    ConfigError
        When it is none, or does not lie in the volume.
    """
    from models.organelles.annotation.grey import AnnotationError, check_box

    sides = text.split(",") if text.strip() else [":", ":", ":"]
    found = [_SIDE.match(side) for side in sides]
    if len(sides) != 3 or None in found:
        raise ConfigError(f"--box {text}: expected z0:z1,y0:y1,x0:x1 in voxels, such as 0:300,200:600,:")
    box = tuple(
        (int(side[1] or 0), int(side[2] or n)) for side, n in zip(found, shape, strict=True) if side is not None
    )
    try:
        check_box(box, tuple(int(n) for n in shape))  # type: ignore[arg-type]
    except AnnotationError as error:
        raise ConfigError(f"--{error}") from error
    return box


def say_cost(size: tuple[int, ...], *, dry_run: bool = False) -> None:
    """Say what a box of this size takes; refuse one that is too large for memory.

    Raises
    ------
    ConfigError
        With the limit and the way out.
    """
    import math

    voxels = math.prod(size)
    if voxels > MOST_VOXELS:
        raise ConfigError(
            f"{size[0]} x {size[1]} x {size[2]} voxels are {voxels / 1e6:.0f} million; a box of at most"
            f" {MOST_VOXELS / 1e6:.0f} million can be annotated at once: --box z0:z1,y0:y1,x0:x1"
        )
    if dry_run:
        minutes = voxels * _SECONDS / cores() / 60
        print(f"{voxels / 1e6:.1f} Mvoxel; memory at most {voxels * _BYTES / 2**30 + 0.3:.1f} GiB")
        print(
            f"about {max(minutes, 0.1):.1f} minutes on {cores()} cores; cutting again with other strokes takes seconds"
        )


def cores() -> int:
    """Threads to work with."""
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


class _bar:  # noqa: N801  (reads as what it does)
    """A progress bar on stderr."""

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._progress = Progress(console=Console(file=sys.stderr), transient=True)
        self._task = self._progress.add_task(f"supervoxels of {name}", total=1.0)

    def __enter__(self) -> Any:
        """What is called with the share that is done."""
        self._progress.start()
        return lambda share: self._progress.update(self._task, completed=share)

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        self._progress.stop()
