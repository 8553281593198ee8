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
    seeds: Path,
    out: Path,
    structure: str | None = None,
    box: str = "",
    keep: Keep = "all",
    metric_mask: Path | None = None,
    voxel_size: str = "",
    config: Path | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Label a structure in a volume from strokes: a graph cut finds the rest.

    Strokes are a label volume of the same shape: 1 on the structure, 2 on the background, 0 elsewhere; a few planes are
    enough. The labels lie on the grid of the volume, 1 is the structure.

    Such as:

    - `cryonaut annotate cell.zarr --seeds strokes.tif --out mito.zarr --structure mitochondria --box 0:300,200:600,:`

    Parameters
    ----------
    volume
        MRC, TIFF stack or OME-Zarr.
    seeds
        Label volume with the strokes, of the shape of the volume.
    out
        Where the labels go: `.zarr`, `.tif` or `.mrc`.
    structure
        Clean up as this structure asks for: mitochondria, golgi, er, coated_pits, nuclear_pores, or one of --config.
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
    """
    import math

    from agent.cli.annotate_files import check_target, read_strokes, write_labels
    from agent.cli.volume import edges_of
    from drivers.volumes import open_volume
    from models.organelles.annotation import (
        AnnotationError,
        clean,
        cut,
        exclusion_zone,
        parts,
        read_settings,
        regions_of,
        supervoxels,
        to_grey,
    )

    try:
        opened = open_volume(volume)
        edges = edges_of(opened, voxel_size)
        settings = read_settings(config)
        place = parse_box(box, opened.array.shape)
        rules = settings.structure(structure, math.prod(edges) ** (1 / 3)) if structure else None
        if metric_mask is not None and rules is None:
            raise ConfigError("--metric-mask needs --structure: how wide the outline is depends on it")
        for target in (out, metric_mask):
            if target is not None:
                check_target(target)
        strokes = read_strokes(seeds, tuple(opened.array.shape), place)
        size = tuple(high - low for low, high in place)
        say_cost(size, dry_run=dry_run)
        if dry_run:
            return
        grey = to_grey(opened.array, place, settings.cut.percentiles)
        with _bar(volume.name) as progress:
            pieces = supervoxels(grey, settings.cut, edges=edges, workers=cores(), progress=progress)
        regions = regions_of(grey, pieces, settings.cut.bins, edges)
        labels = cut(grey, regions, strokes, settings.cut)
        if keep != "all":
            found = parts(labels, grey, settings.cut.components)
            labels = found.keep(labels, grey, 0 if keep == "dark" else len(found.means) - 1)
        if rules is not None:
            labels = clean(labels, rules)
        facts = {"structure": structure or "", "box": [list(side) for side in place], "volume": str(volume.resolve())}
        write_labels(out, labels, place, opened, edges, facts)
        if metric_mask is not None and rules is not None:
            counts = (~exclusion_zone(labels, rules)).astype("uint8")
            write_labels(metric_mask, counts, place, opened, edges, facts)
    except AnnotationError as error:
        raise CryonautError(str(error)) from error
    share = float(labels.mean())
    print(f"{len(regions)} supervoxels; {int(labels.sum())} voxels ({share:.1%} of the box) are the structure: {out}")


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
