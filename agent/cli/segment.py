"""``cryonaut segment``: what fills volumes, in files."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from agent.cli.segment_organelles import labels, organelles
from agent.errors import BadFileError, ConfigError, CryonautError

app = App(name="segment", help="Segment volumes (MRC, TIFF stacks, N5, OME-Zarr).")
app.command(organelles)
app.command(labels)
Format = Literal["mrc", "zarr", "csv", "star", "imod"]
ALL: tuple[Format, ...] = ("mrc", "csv", "star")


@app.command
def vesicles(
    tomogram: Path,
    /,
    *,
    out: Annotated[Path, Parameter(alias="-o")],
    voxel_size: float | None = None,
    formats: Annotated[tuple[Format, ...], Parameter(name="--format", negative="", consume_multiple=False)] = ALL,
    region: Path | None = None,
    active_zone: Path | None = None,
    white: Annotated[bool, Parameter(negative="")] = False,
    weights: Path | None = None,
    block: int = 128,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Find the vesicles of a cryo-tomogram, each as a sphere fitted to its membrane.

    Writes to --out: `vesicles.csv` and, as asked for, `labels.mrc` and `probability.mrc`, `labels.zarr`,
    `vesicles.star`, `vesicles.mod` (IMOD); always `slices.png`, `report.html` and `summary.json`. A run that was
    interrupted goes on where it was.

    Such as:

    - `cryonaut segment vesicles synapse.mrc -o found`
    - `cryonaut segment vesicles synapse.rec -o found --voxel-size 1.47 --region mask.mrc --format csv --format imod`

    Parameters
    ----------
    tomogram
        MRC (.mrc, .rec), TIFF stack or OME-Zarr folder.
    out
        Folder for the results.
    voxel_size
        Edge of a voxel in nm, where the file does not say it or says it wrong.
    formats
        What to write: `mrc`, `zarr` (needs the volumes extra), `csv`, `star`, `imod` (needs the volumes extra).
    region
        Mask volume of the same shape: vesicles whose centre lies where it is 0 are left out.
    active_zone
        Label volume of the same shape: distances to its surface are measured.
    white
        Membranes are bright in this file; without it they are dark.
    weights
        Manifest of other weights than those that come with the package.
    block
        Edge of the blocks that are worked on, a multiple of 8: larger ones are faster and take more memory.
    dry_run
        Say what it would take, and do nothing.
    """
    import numpy as np

    from drivers.volumes import open_volume
    from models.vesicles.network import open_source

    with speaking():
        volume = open_volume(tomogram)
        if block % 8 or not 16 <= block <= 512:
            raise ConfigError(f"--block {block}: a multiple of 8 from 16 to 512")
        source = open_source(volume.array, voxel_size or volume.voxel_nm, dark=not white)
        size = (min(block, 64), block, block)
        if dry_run:
            _say_cost(source, size)
            return
        needed = [name for name in formats if name in ("zarr", "imod")]
        if needed:
            _need(needed)
        masks = {name: _mask(path, source.volume.shape) for name, path in (("region", region), ("az", active_zone))}
        out.mkdir(parents=True, exist_ok=True)
        maps = _maps(source, tomogram, out, size, weights)
        from models.vesicles.finder import finding

        found = finding(source, maps, region=masks["region"])
        from agent.cli.segment_files import write_all

        write_all(out, tomogram, source, maps, found.vesicles, formats, masks)
    kept = [v for v in found.vesicles if v.outlier]
    diameters = [2 * v.radius_nm for v in found.vesicles]
    middle = f", median diameter {np.median(diameters):.1f} nm" if diameters else ""
    print(f"{len(found.vesicles)} vesicles{middle}; {len(kept)} worth a look. Report: {out / 'report.html'}")
    if found.note:
        print(f"note: {found.note}")


class speaking:  # noqa: N801  (reads as what it does)
    """Turn errors of models into one line for a person."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Say what a person can mend."""
        from models.runtime import ModelError
        from models.vesicles import BadVolumeError

        if isinstance(error, BadVolumeError | ModelError):
            raise CryonautError(str(error)) from error


def _need(formats: Sequence[str]) -> None:
    import importlib.util

    wanted = {"zarr": "zarr", "imod": "imodmodel"}
    missing = [f for f in formats if importlib.util.find_spec(wanted[f]) is None]
    if missing:
        raise ConfigError(f"--format {missing[0]} needs the volumes extra: pip install 'cryonaut[volumes]'")


def _mask(path: Path | None, shape: tuple[int, ...]) -> Any:
    import numpy as np

    from drivers.volumes import open_volume

    if path is None:
        return None
    mask = open_volume(path).array
    if tuple(mask.shape) != tuple(shape):
        raise BadFileError(f"{path}: mask of {tuple(mask.shape)} voxels (z, y, x); the tomogram has {tuple(shape)}")
    return np.asarray(mask[:]) != 0


def _say_cost(source: Any, size: tuple[int, int, int]) -> None:
    import math

    blocks = math.prod(math.ceil(n / s) for n, s in zip(source.shape, size, strict=True))
    voxels = math.prod(source.shape)
    wide = math.prod(s + 64 for s in size)
    print(f"{voxels / 1e6:.1f} Mvoxel of {source.grid_nm:g} nm in {blocks} blocks of {size[0]} x {size[1]} x {size[2]}")
    print(f"memory about {(wide * 4 * 14) / 2**30 + 0.5:.1f} GiB, on disk {2 * voxels / 2**30:.2f} GiB for the maps")
    print(f"about {voxels / 1.0e6 / 60:.1f} to {voxels / 0.4e6 / 60:.1f} minutes on two cores")


def _maps(source: Any, tomogram: Path, out: Path, size: tuple[int, int, int], weights: Path | None) -> Any:
    """Both maps, on disk; blocks that an earlier run with the same input finished are not done again."""
    import numpy as np
    from rich.console import Console
    from rich.progress import Progress

    from drivers.volumes import write_json
    from models import runtime
    from models.vesicles.network import blocks, probability

    model = runtime.load(weights or "vesicles-tomogram")
    stat = tomogram.stat()
    key = {
        "file": str(tomogram.resolve()),
        "bytes": stat.st_size,
        "changed": stat.st_mtime,
        "grid": list(source.shape),
        "voxel_nm": source.voxel_nm,
        "dark": source.dark,
        "block": list(size),
        "weights": model.fingerprint,
    }
    state, file = out / "progress.json", out / "maps.npy"
    done: set[int] = set()
    if state.exists() and file.exists():
        before = json.loads(state.read_text(encoding="utf-8"))
        if before.get("of") == key:
            done = set(before["done"])
            print(f"going on: {len(done)} of {len(blocks(source.shape, size))} blocks are done", file=sys.stderr)
    mode: Any = "r+" if done else "w+"
    maps = np.lib.format.open_memmap(file, mode=mode, dtype=np.uint8, shape=(2, *source.shape))
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"{tomogram.name} on {model.provider}", total=len(blocks(source.shape, size)))
        for number in probability(
            source, model, maps, size=size, done=done, progress=lambda n, _: bar.update(task, completed=n)
        ):
            maps.flush()
            done.add(number)
            write_json(state, {"of": key, "done": sorted(done)})
    return maps
