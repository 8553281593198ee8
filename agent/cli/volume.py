"""``cryonaut volume``: volumes in and out, cut and normalised."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from agent.cli.volume_files import (
    bar,
    change_of,
    copied,
    describe,
    edges_of,
    exported,
    free,
    product,
    regridded,
    say_cost,
    span_of,
    triple,
)
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
            print(f"  first voxel at {triple(volume.offset_nm)} nm (z, y, x)")
        if volume.whole:
            print(f"  cut from {triple(volume.whole.shape)} voxels at {triple(volume.whole.low)} (z, y, x)")
        if volume.edges_nm:
            span = [n * e / 1000 for n, e in zip(volume.shape, volume.edges_nm, strict=True)]
            print(f"  {triple(span)} µm, {product(span):.4g} µm³")


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
        copied(source, out, edges, None, invert, nan, levels, workers)
    else:
        exported(source, out, edges, aligned, change_of(invert, nan))
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
    spans = [span_of(name, text, n) for name, text, n in zip("zyx", (z, y, x), source.shape, strict=True)]
    box = (tuple(a for a, _ in spans), tuple(b for _, b in spans))
    edges = edges_of(source, voxel_size)
    if out.suffix != ".zarr":
        raise ConfigError(f"--out {out}: a crop is an OME-Zarr; `cryonaut volume convert` makes others of it")
    if dry_run:
        say_cost(source, tuple(b - a for a, b in spans), 1)
        return
    free(out, force)
    copied(source, out, edges, box, False, None, 3, workers)
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
    share = float(found.parts.voxels.sum()) / product(source.shape)
    print(f"{out}: {len(found.parts)} pieces, {share:.1%} of the volume; {found.left_out} smaller ones dropped")
