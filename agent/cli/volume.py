"""``cryonaut volume``: volumes in and out, cut and normalised."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from agent.errors import BadFileError, ConfigError
from models.organelles.numbers import NUMBERS

app = App(name="volume", help="Volumes in and out: TIFF stacks, MRC, N5, OME-Zarr; crops, grey values.")
Out = Annotated[Path, Parameter(alias="-o")]
Flag = Annotated[bool, Parameter(negative="")]
Edges = tuple[float, float, float]
_CLAHE, _MASK = NUMBERS["clahe"], NUMBERS["mask"]


@app.command
def info(*volumes: Path) -> None:
    """Print size, type, voxel size and place of volumes.

    Such as: `cryonaut volume info cell.zarr sections/ block.mrc`

    Parameters
    ----------
    volumes
        TIFF stacks, folders of numbered TIFF sections, MRC, N5, OME-Zarr.
    """
    from drivers.volumes import open_volume

    if not volumes:
        raise ConfigError("name a volume")
    for path in volumes:
        volume = open_volume(path)
        print(f"{path}: {describe(volume)}")
        if any(volume.offset_nm):
            print(f"  first voxel at {_triple(volume.offset_nm)} nm (z, y, x)")
        if volume.whole:
            print(f"  cut from {_triple(volume.whole.shape)} voxels at {_triple(volume.whole.low)} (z, y, x)")
        if volume.edges_nm:
            span = [n * e / 1000 for n, e in zip(volume.shape, volume.edges_nm, strict=True)]
            print(f"  {_triple(span)} µm, {_product(span):.4g} µm³")


@app.command
def convert(
    volume: Path,
    /,
    *,
    out: Out,
    voxel_size: str = "",
    invert: Flag = False,
    nan: float | None = None,
    aligned: Flag = False,
    like: Path | None = None,
    levels: int = 3,
    workers: int = 0,
    force: Flag = False,
    dry_run: Flag = False,
) -> None:
    """Put a volume in another format, grey values bit for bit.

    `--out` ending in `.zarr` becomes OME-Zarr (version 0.5, zarr 3, chunks of 128, coarser levels); `.tif` one
    OME-TIFF; `.mrc` an MRC file; anything else a folder of TIFF sections. A run that was interrupted goes on.

    Such as:

    - `cryonaut volume convert sections/ -o cell.zarr --voxel-size 5`
    - `cryonaut volume convert cell.n5/em/fibsem -o cell.zarr --voxel-size 5.24,4,4 --invert`
    - `cryonaut volume convert block.zarr -o block.tif --aligned`
    - `cryonaut volume convert found/mito.labels.zarr -o mito.tif --like sections/`

    Parameters
    ----------
    volume
        TIFF stack, folder of numbered TIFF sections, MRC, N5 or OME-Zarr.
    out
        Where to.
    voxel_size
        Edge of a voxel in nm, or its three edges `z,y,x`, where the file does not say it or says it wrong.
    invert
        Dark becomes bright, as for volumes whose grey values are turned round.
    nan
        Value for voxels that are not numbers; without it they are refused.
    aligned
        A crop goes back to its place in the whole it was cut from, with 0 around it (TIFF and MRC).
    like
        Original volume: each of its voxels gets the value at its place, by offsets and voxel sizes; 0 where there is
        none. So labels of other voxels lie on the original again (TIFF and MRC).
    levels
        Levels of the OME-Zarr's pyramid.
    workers
        Local Dask workers (dask extra); 0: this process alone.
    force
        Write over what is there.
    dry_run
        Say what it would take, and do nothing.
    """
    from drivers.volumes import open_volume

    source = open_volume(volume)
    if like:
        if out.suffix == ".zarr" or aligned:
            raise ConfigError("--like goes with TIFF and MRC, and without --aligned")
        original = open_volume(like)
        source = regridded(source, original, edges_of(original, voxel_size))
    edges = source.edges_nm if like else edges_of(source, voxel_size, needed=out.suffix == ".zarr")
    if dry_run:
        say_cost(source, source.shape, 1)
        return
    free(out, force)
    if out.suffix == ".zarr":
        _copy(source, out, edges, None, invert, nan, levels, workers)
    else:
        _export(source, out, edges, aligned, _change(invert, nan))
    print(f"{out}: {describe(open_volume(out))}")


@app.command
def crop(
    volume: Path,
    /,
    *,
    out: Out,
    z: str = ":",
    y: str = ":",
    x: str = ":",
    voxel_size: str = "",
    workers: int = 0,
    force: Flag = False,
    dry_run: Flag = False,
) -> None:
    """Cut a box out of a volume, as OME-Zarr that knows where it is from.

    Such as: `cryonaut volume crop cell.zarr -o block.zarr --z 100:304 --y 512:716 --x :204`

    Parameters
    ----------
    volume
        TIFF stack, folder of numbered TIFF sections, MRC, N5 or OME-Zarr.
    out
        New `.zarr` folder.
    z, y, x
        Voxels `first:last`, the last one outside; either may be left out.
    voxel_size
        Edge of a voxel in nm, or its three edges `z,y,x`.
    workers
        Local Dask workers (dask extra); 0: this process alone.
    force
        Write over what is there.
    dry_run
        Say what it would take, and do nothing.
    """
    from drivers.volumes import open_volume

    source = open_volume(volume)
    spans = [_span(name, text, n) for name, text, n in zip("zyx", (z, y, x), source.shape, strict=True)]
    box = (tuple(a for a, _ in spans), tuple(b for _, b in spans))
    edges = edges_of(source, voxel_size)
    if out.suffix != ".zarr":
        raise ConfigError(f"--out {out}: a crop is an OME-Zarr; `cryonaut volume convert` makes others of it")
    if dry_run:
        say_cost(source, tuple(b - a for a, b in spans), 1)
        return
    free(out, force)
    _copy(source, out, edges, box, False, None, 3, workers)
    print(f"{out}: {describe(open_volume(out))}")


@app.command
def normalise(
    volume: Path,
    /,
    *,
    out: Out,
    kind: Literal["rescale", "histogram", "clahe"] = "clahe",
    kernel: int = _CLAHE["kernel"],
    clip: float = _CLAHE["clip"],
    voxel_size: str = "",
    workers: int = 0,
    force: Flag = False,
    dry_run: Flag = False,
) -> None:
    """Even out the grey values of a volume: an OME-Zarr of 8 bits, without seams between blocks.

    Such as: `cryonaut volume normalise cell.zarr -o even.zarr --kind clahe --workers 4`

    Parameters
    ----------
    volume
        TIFF stack, folder of numbered TIFF sections, MRC, N5 or OME-Zarr.
    out
        New `.zarr` folder.
    kind
        `rescale`: linear, 0.5 % of the voxels go black and as many white; `histogram`: equalised over the whole volume;
        `clahe`: equalised locally with limited contrast.
    kernel, clip
        Tile edge in voxels and clip limit of `clahe`.
    voxel_size
        Edge of a voxel in nm, or its three edges `z,y,x`.
    workers
        Local Dask workers (dask extra); 0: this process alone.
    force
        Write over what is there.
    dry_run
        Say what it would take, and do nothing.
    """
    from agent.cluster import Cluster
    from drivers.organelles.preparing import normalise as write
    from drivers.volumes import open_volume
    from models.organelles.normalise import BadGreyError, normaliser

    source = open_volume(volume)
    edges = edges_of(source, voxel_size)
    if out.suffix != ".zarr":
        raise ConfigError(f"--out {out}: an OME-Zarr is made; `cryonaut volume convert` makes others of it")
    if dry_run:
        say_cost(source, source.shape, 3 if kind == "clahe" else 2, bytes_per_voxel=1)
        return
    free(out, force)
    with bar(f"{volume.name}: looking at grey values") as say:
        try:
            tables = normaliser(source.array, kind, kernel=kernel, clip=clip, say=say)
        except BadGreyError as error:
            raise BadFileError(f"{volume}: {error}") from error
    of = {"kind": kind, "kernel": kernel, "clip": clip} if kind == "clahe" else {"kind": kind}
    with bar(f"{volume.name}: {kind}") as say:
        write(source, out, edges, tables, of, cluster=Cluster(workers=workers), say=say)
    print(f"{out}: {describe(open_volume(out))}")


@app.command
def mask(
    volume: Path,
    /,
    *,
    out: Out,
    above: float = _MASK["above"],
    below: float = _MASK["below"],
    opening: int = _MASK["opening"],
    closing: int = _MASK["closing"],
    min_size: int = _MASK["smallest"],
    voxel_size: str = "",
    workers: int = 0,
    force: Flag = False,
    dry_run: Flag = False,
) -> None:
    """Mark the inside of the cell: 1 there, 0 in the resin around it; the defaults are those of ASEM for 8 bits.

    Such as: `cryonaut volume mask cell.zarr -o cell_mask.zarr --below 190`

    Parameters
    ----------
    volume
        TIFF stack, folder of numbered TIFF sections, MRC, N5 or OME-Zarr.
    out
        New `.zarr` folder.
    above, below
        Grey values between which a voxel is taken for cell, both excluded.
    opening, closing
        Radii in voxels of the balls that take specks away, and close gaps.
    min_size
        Pieces of fewer voxels are dropped; holes are always filled.
    voxel_size
        Edge of a voxel in nm, or its three edges `z,y,x`.
    workers
        Local Dask workers (dask extra); 0: this process alone.
    force
        Write over what is there.
    dry_run
        Say what it would take, and do nothing.
    """
    from agent.cluster import Cluster
    from drivers.organelles.labelling import cell_mask
    from drivers.volumes import open_volume

    source = open_volume(volume)
    edges = edges_of(source, voxel_size)
    if out.suffix != ".zarr":
        raise ConfigError(f"--out {out}: an OME-Zarr is made; `cryonaut volume convert` makes others of it")
    if above >= below or min(opening, closing) < 0:
        raise ConfigError(f"--above {above:g} --below {below:g}: the first is the smaller one; radii are 0 or more")
    if dry_run:
        say_cost(source, source.shape, 1, bytes_per_voxel=3)
        return
    free(out, force)
    with bar(f"{volume.name}: inside of the cell") as say:
        found = cell_mask(
            source,
            out,
            edges,
            low=above,
            high=below,
            opening=opening,
            closing=closing,
            smallest=min_size,
            cluster=Cluster(workers=workers),
            say=say,
        )
    share = float(found.parts.voxels.sum()) / _product(source.shape)
    print(f"{out}: {len(found.parts)} pieces, {share:.1%} of the volume; {found.left_out} smaller ones dropped")


# ---------------------------------------------------------------------------------------------- shared


class bar:  # noqa: N801  (reads as what it does)
    """A progress bar on stderr, for as long as something takes; entering gives what is to be called with progress."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __enter__(self) -> Any:
        """Begin to show."""
        from rich.console import Console
        from rich.progress import Progress

        self._progress = Progress(console=Console(stderr=True), transient=True)
        self._progress.start()
        task = self._progress.add_task(self.text, total=None)
        return lambda done, total: self._progress.update(task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        """Take it away."""
        self._progress.stop()


def describe(volume: Any) -> str:
    """Size, type and voxel size of a volume."""
    edges = "no voxel size" if volume.edges_nm is None else f"voxels of {_triple(volume.edges_nm)} nm"
    same = volume.edges_nm and len({round(e, 6) for e in volume.edges_nm}) == 1
    if same:
        edges = f"voxels of {volume.edges_nm[0]:g} nm"
    return f"{_triple(volume.shape)} voxels (z, y, x) of {volume.array.dtype}, {edges}"


def edges_of(volume: Any, text: str, *, needed: bool = True) -> Any:
    """Edges of a voxel (z, y, x) in nm: what a person said, else what the file says.

    Raises
    ------
    ConfigError
        When neither says it and it is ``needed``, or what was said makes no sense.
    """
    if text:
        try:
            said = [float(word) for word in text.split(",")]
        except ValueError:
            said = []
        if len(said) not in (1, 3) or not all(0.05 <= e <= 1000 for e in said):
            raise ConfigError(f"--voxel-size {text}: one edge in nm, or three `z,y,x`, such as 5.24,4,4")
        return tuple(said * 3) if len(said) == 1 else tuple(said)
    if volume.edges_nm is None and needed:
        raise ConfigError(f"{volume.path}: says no voxel size: give it with --voxel-size NM, or --voxel-size Z,Y,X")
    return volume.edges_nm


def regridded(volume: Any, original: Any, edges: Any) -> Any:
    """A volume on the voxels of another one: the nearest value at the place of each, 0 beyond it.

    Raises
    ------
    ConfigError
        When the volume says no voxel size, or the two do not overlap.
    """
    import numpy as np

    from drivers.volumes import Volume
    from drivers.volumes.base import Lazy

    own = edges_of(volume, "")
    at = []
    for axis, (n, e, o) in enumerate(zip(original.shape, edges, original.offset_nm, strict=True)):
        place = (o + np.arange(n) * e - volume.offset_nm[axis]) / own[axis]
        nearest = np.floor(place + 0.5).astype(np.int64)
        at.append(np.where((nearest >= 0) & (nearest < volume.shape[axis]), nearest, -1))
    if any((a < 0).all() for a in at):
        raise ConfigError(f"{volume.path}: lies beside {original.path}: offsets or voxel sizes are not of one cell")

    def fetch(low: Any, high: Any) -> Any:
        picked = [a[first:last] for a, first, last in zip(at, low, high, strict=True)]
        out = np.zeros([len(p) for p in picked], volume.array.dtype)
        inside = [np.flatnonzero(p >= 0) for p in picked]
        if all(len(i) for i in inside):
            wanted = [p[i] for p, i in zip(picked, inside, strict=True)]
            part = volume.array[tuple(slice(int(w.min()), int(w.max()) + 1) for w in wanted)]
            out[np.ix_(*inside)] = part[np.ix_(*(w - w.min() for w in wanted))]
        return out

    array = Lazy(original.shape, np.dtype(volume.array.dtype), volume.path, fetch)
    return Volume(array, tuple(edges), volume.path, original.offset_nm)


def say_cost(source: Any, shape: Any, passes: int, *, bytes_per_voxel: int = 0) -> None:
    """Print what a job would take; how fast reading goes is measured on the first sections."""
    import time

    import numpy as np

    voxels = _product(shape)
    size = bytes_per_voxel or source.array.dtype.itemsize
    depth = min(16, source.shape[0])
    began = time.perf_counter()
    part = np.asarray(source.array[:depth])
    speed = part.size / max(time.perf_counter() - began, 1e-6)
    held = 2 * min(128, shape[0]) * shape[1] * shape[2] * source.array.dtype.itemsize
    print(f"{describe(source)}")
    print(f"writes {voxels / 1e6:.1f} Mvoxel, at most {voxels * size * 8 / 7 / 2**30:.2f} GiB on disk")
    print(f"memory at most about {0.2 + held / 2**30:.1f} GiB")
    minutes = passes * voxels / speed / 60
    print(f"reading alone takes {minutes:.1f} minutes or more, at {speed / 1e6:.0f} Mvoxel/s of the first sections")


def _copy(
    source: Any, out: Path, edges: Any, box: Any, invert: bool, nan: float | None, levels: int, workers: int
) -> None:
    from agent.cluster import Cluster
    from drivers.organelles.preparing import copy

    if levels < 1:
        raise ConfigError(f"--levels {levels}: at least 1")
    with bar(f"{source.path.name} to {out.name}") as say:
        cluster = Cluster(workers=workers)
        copy(source, out, edges, box=box, change=_change(invert, nan), levels=levels, cluster=cluster, say=say)


def _change(invert: bool, nan: float | None) -> Any:
    from drivers.organelles.preparing import Change

    return Change(invert, nan)


def _export(source: Any, out: Path, edges: Any, aligned: bool, change: Any) -> None:
    import numpy as np

    from drivers.organelles.jobs import Journal
    from drivers.volumes import cubic, new_mrc, write_tiff
    from drivers.volumes.base import Lazy

    if aligned and source.whole is None:
        raise ConfigError(f"{source.path}: is no crop, or does not know of what: leave --aligned out")
    path = str(source.path)

    def fetch(low: Any, high: Any) -> Any:
        part = source.array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        return np.asarray(change(np.asarray(part), path, low))

    array = Lazy(source.shape, source.array.dtype, source.path, fetch)
    whole = source.whole if aligned else None
    with bar(f"{source.path.name} to {out.name}") as say:
        if out.suffix.lower() not in (".mrc", ".rec"):
            journal = Journal(out.with_name(out.name + ".work"))
            if not out.suffix:  # a folder, whose sections outlive an interruption
                journal.begin({"source": path, "changed": source.path.stat().st_mtime, "aligned": aligned})
            write_tiff(out, array, edges, whole=whole, say=say)
            journal.end()
            return
        dtype = np.dtype(source.array.dtype)
        if dtype.kind + str(dtype.itemsize) not in ("i1", "i2", "u2", "f4", "f2"):
            raise ConfigError(f"{source.path}: MRC has no mode for {dtype}; take .tif, which keeps every bit")
        low = whole.low if whole else (0, 0, 0)
        with new_mrc(
            out, whole.shape if whole else source.shape, cubic(source.path, edges or (0.1,) * 3), dtype
        ) as file:
            at = slice(low[1], low[1] + source.shape[1]), slice(low[2], low[2] + source.shape[2])
            for z in range(source.shape[0]):
                file.data[(z + low[0], *at)] = array[z]
                say(z + 1, source.shape[0])


def free(out: Path, force: bool) -> None:
    """Nothing that is there is written over by accident; what an interrupted run left is gone on with."""
    import shutil

    work = out.with_name(out.name + ".work")
    if out.exists() and force:
        shutil.rmtree(out) if out.is_dir() else out.unlink()
        shutil.rmtree(work, ignore_errors=True)
    elif out.exists() and not work.exists():
        raise ConfigError(f"{out}: is there already; another --out, or --force to write over it")
    elif work.exists():
        import sys

        print(f"going on with what {work} says is done", file=sys.stderr)
    out.parent.mkdir(parents=True, exist_ok=True)


def _span(axis: str, text: str, n: int) -> tuple[int, int]:
    first, colon, last = text.partition(":")
    try:
        a, b = int(first or 0), int(last or n)
    except ValueError:
        a, b = 0, -1
    if not colon or not 0 <= a < b <= n:
        raise ConfigError(f"--{axis} {text}: first:last within 0:{n}, such as {n // 4}:{n // 2}")
    return a, b


def _product(values: Any) -> float:
    import math

    return float(math.prod(values))


def _triple(values: Any) -> str:
    return " x ".join(f"{v:g}" for v in values)
