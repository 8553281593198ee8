"""What the commands on volumes share: voxel edges, what a job costs, where it may write, how it is shown."""

from pathlib import Path
from typing import Any

from agent.errors import ConfigError

Edges = tuple[float, float, float]


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
    edges = "no voxel size" if volume.edges_nm is None else f"voxels of {triple(volume.edges_nm)} nm"
    same = volume.edges_nm and len({round(e, 6) for e in volume.edges_nm}) == 1
    if same:
        edges = f"voxels of {volume.edges_nm[0]:g} nm"
    return f"{triple(volume.shape)} voxels (z, y, x) of {volume.array.dtype}, {edges}"


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

    voxels = product(shape)
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


def copied(
    source: Any, out: Path, edges: Any, box: Any, invert: bool, nan: float | None, levels: int, workers: int
) -> None:
    """Write a volume, or a box of it, as OME-Zarr."""
    from agent.cluster import Cluster
    from drivers.organelles.preparing import copy

    if levels < 1:
        raise ConfigError(f"--levels {levels}: at least 1")
    with bar(f"{source.path.name} to {out.name}") as say:
        cluster = Cluster(workers=workers)
        copy(source, out, edges, box=box, change=change_of(invert, nan), levels=levels, cluster=cluster, say=say)


def change_of(invert: bool, nan: float | None) -> Any:
    """What is done to grey values on the way."""
    from drivers.organelles.preparing import Change

    return Change(invert, nan)


def exported(source: Any, out: Path, edges: Any, aligned: bool, change: Any) -> None:
    """Write a volume as TIFF, sections or MRC; ``aligned``: in its place in the whole one."""
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


def span_of(axis: str, text: str, n: int) -> tuple[int, int]:
    """First and last (excluded) of ``a:b`` along an axis of ``n`` voxels."""
    first, colon, last = text.partition(":")
    try:
        a, b = int(first or 0), int(last or n)
    except ValueError:
        a, b = 0, -1
    if not colon or not 0 <= a < b <= n:
        raise ConfigError(f"--{axis} {text}: first:last within 0:{n}, such as {n // 4}:{n // 2}")
    return a, b


def product(values: Any) -> float:
    """Voxels of a shape."""
    import math

    return float(math.prod(values))


def triple(values: Any) -> str:
    """Three numbers as a person reads them."""
    return " x ".join(f"{v:g}" for v in values)
