"""OME-Zarr: read (0.4 and 0.5, and plain arrays with ``resolution`` and ``offset``), and written as 0.5 (zarr v3)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.errors import BadFileError, ConfigError
from drivers.images import UNIT_ANGSTROM
from drivers.volumes.base import Edges, Lazy, Triple, Volume, Whole
from drivers.volumes.chunks import open_chunks

CHUNK = 64
Say = Callable[[int, int], None]


def _zarr() -> Any:
    try:
        import zarr
    except ImportError as error:
        raise ConfigError("OME-Zarr needs the volumes extra: pip install 'cryonaut[volumes]'") from error
    return zarr


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr array or group of version 2 or 3."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


def open_zarr(path: Path) -> Volume:
    """The finest level of an OME-Zarr, or a plain zarr array."""
    zarr = _zarr()
    try:
        node = zarr.open(str(path), mode="r")
    except Exception as error:  # zarr raises many kinds
        raise BadFileError(f"{path}: is no zarr array or group: {' '.join(str(error).split())[:200]}") from error
    facts = dict(node.attrs)
    if hasattr(node, "shape"):
        if len(node.shape) != 3:
            raise BadFileError(f"{path}: array of shape {node.shape}; expected (z, y, x)")
        return Volume(
            _lazy(path, path, node), _plain(facts, "resolution"), path, _plain(facts, "offset") or (0.0, 0.0, 0.0)
        )
    scales = facts.get("ome", facts).get("multiscales") or []
    if not scales:
        unfinished = "unfinished: run again what makes it" if "cryonaut" in facts else "name the array inside it"
        raise BadFileError(f"{path}: a group without OME multiscales; {unfinished}")
    first = scales[0]["datasets"][0]
    array = node[first["path"]]
    names = [str(a.get("name")) for a in scales[0].get("axes", [])]
    if len(array.shape) != 3 or [n.lower() for n in names] != ["z", "y", "x"]:
        raise BadFileError(f"{path}: axes {names} of shape {array.shape}; expected z, y, x")
    moves = [*first.get("coordinateTransformations", ()), *scales[0].get("coordinateTransformations", ())]
    edges = _in_nm(scales[0], moves, "scale")
    own = facts.get("cryonaut", {}).get("whole")
    whole = Whole(_triple(own["shape"]), _triple(own["low"])) if own else None
    return Volume(
        _lazy(path, path / first["path"], array),
        edges,
        path,
        _in_nm(scales[0], moves, "translation") or (0.0, 0.0, 0.0),
        whole,
    )


def _lazy(path: Path, folder: Path, array: Any) -> Lazy:
    return open_chunks(folder, "zarr" if array.metadata.zarr_format == 2 else "zarr3", path)


def _triple(values: Any) -> Triple:
    z, y, x = (int(n) for n in values)
    return z, y, x


def _plain(facts: dict[str, Any], key: str) -> Edges | None:
    """Three numbers in nm, as daisy, funlib and incasem store them."""
    found = facts.get(key)
    if not isinstance(found, list) or len(found) != 3:
        return None
    z, y, x = (float(n) for n in found)
    return z, y, x


def _in_nm(scale: dict[str, Any], moves: list[dict[str, Any]], kind: str) -> Edges | None:
    """Scales multiply and translations add; None without one, or in a unit that is no length."""
    units = [UNIT_ANGSTROM.get(str(axis.get("unit", "")).lower()) for axis in scale["axes"]]
    values = [np.asarray(move[kind], float) for move in moves if move.get("type") == kind]
    if not values or None in units:
        return None
    total = np.prod(values, axis=0) if kind == "scale" else np.sum(values, axis=0)
    z, y, x = (float(v) * (u or 0) / 10 for v, u in zip(total, units, strict=True))
    return z, y, x


# ---------------------------------------------------------------------------------------------- writing


@dataclass(frozen=True, slots=True)
class NewVolume:
    """An OME-Zarr 0.5 that is filled chunk by chunk, by any number of processes, and then finished.

    Until it is finished it has no multiscales and nobody takes it for whole.

    Attributes
    ----------
    path
        Its folder.
    edges_nm, offset_nm
        Edges of a voxel and position of the first one's centre, (z, y, x).
    labels
        Whether it holds labels: coarser levels take every second voxel instead of means.
    whole
        What it is a crop of.
    """

    path: Path
    edges_nm: Edges
    offset_nm: Edges = (0.0, 0.0, 0.0)
    labels: bool = False
    whole: Whole | None = None

    def begin(self, shape: Triple, dtype: Any, chunk: Triple) -> Any:
        """The array of the finest level, new."""
        root = _zarr().open_group(str(self.path), mode="w", zarr_format=3)
        root.attrs["cryonaut"] = {} if self.whole is None else {"whole": _plain_whole(self.whole)}
        return root.create_array("s0", shape=shape, chunks=_chunks(shape, chunk), dtype=dtype)

    def fits(self, shape: Triple, dtype: Any, chunk: Triple) -> bool:
        """Whether it was begun before, with this shape, type and chunks."""
        if not is_zarr(self.path) or not is_zarr(self.path / "s0"):
            return False
        old = self.level()
        return bool((old.shape, old.dtype, old.chunks) == (shape, np.dtype(dtype), _chunks(shape, chunk)))

    def level(self) -> Any:
        """The finest level, to be written to."""
        return _zarr().open_group(str(self.path), mode="r+")["s0"]

    def finish(self, levels: int = 3, *, facts: dict[str, Any] | None = None, say: Say | None = None) -> None:
        """Make the coarser levels and say what it is.

        Parameters
        ----------
        levels
            How many, the finest one included; fewer where an axis gets shorter than four voxels.
        facts
            What a person may want to know, kept in the attribute ``cryonaut``.
        say
            Called with how many slabs are done, of how many.
        """
        root = _zarr().open_group(str(self.path), mode="r+")
        fine = root["s0"]
        datasets = []
        for level in range(levels):
            if level:
                source = _Half(fine, self.labels)
                shape = source.shape
                chunks = tuple(min(c, n) for c, n in zip(fine.chunks, shape, strict=True))
                target = root.create_array(f"s{level}", shape=shape, chunks=chunks, dtype=fine.dtype, overwrite=True)
                slabs = range(0, shape[0], chunks[0])
                for number, z in enumerate(slabs, start=1):
                    target[z : z + chunks[0]] = source[z : z + chunks[0]]
                    if say:
                        say(number, len(slabs))
                fine = target
            # the centre of the first coarse voxel lies between the first fine ones where these were averaged
            shift = 0.0 if self.labels else (2**level - 1) / 2
            moves = [
                {"type": "scale", "scale": [e * 2**level for e in self.edges_nm]},
                {
                    "type": "translation",
                    "translation": [o + e * shift for o, e in zip(self.offset_nm, self.edges_nm, strict=True)],
                },
            ]
            datasets.append({"path": f"s{level}", "coordinateTransformations": moves})
            if min(fine.shape) < 4:
                break
        axes = [{"name": n, "type": "space", "unit": "nanometer"} for n in "zyx"]
        scale = {"name": self.path.stem, "axes": axes, "datasets": datasets}
        ome: dict[str, Any] = {"version": "0.5", "multiscales": [scale]}
        if self.labels:
            ome["image-label"] = {}
        root.attrs["cryonaut"] = {**dict(root.attrs).get("cryonaut", {}), **(facts or {})}
        root.attrs["ome"] = ome


def _chunks(shape: Triple, chunk: Triple) -> Triple:
    return _triple(max(1, min(c, n)) for c, n in zip(chunk, shape, strict=True))


def _plain_whole(whole: Whole) -> dict[str, Any]:
    return {"shape": list(whole.shape), "low": list(whole.low)}


def write_ome_zarr(
    path: Path,
    array: Any,
    voxel_nm: float | Edges,
    *,
    labels: bool = False,
    levels: int = 3,
    say: Say | None = None,
) -> None:
    """Write a volume (z, y, x) as OME-Zarr 0.5 (zarr v3), in chunks of 64, with coarser levels of half the sampling.

    Parameters
    ----------
    path
        New folder, ``.zarr``; one that is there is written over.
    array
        What slices like an array.
    voxel_nm
        Edge of a voxel, or its three edges (z, y, x).
    labels
        Coarser levels take every second voxel instead of means, and the group says that it is a label image.
    levels
        How many, the finest one included.
    say
        Called with how many slabs are done, of how many.
    """
    edges = voxel_nm if isinstance(voxel_nm, tuple) else (voxel_nm, voxel_nm, voxel_nm)
    new = NewVolume(path, edges, labels=labels)
    target = new.begin(_triple(array.shape), array.dtype, (CHUNK, CHUNK, CHUNK))
    slabs = range(0, target.shape[0], CHUNK)
    for number, z in enumerate(slabs, start=1):
        target[z : z + CHUNK] = np.asarray(array[z : z + CHUNK])
        if say:
            say(number, len(slabs))
    new.finish(levels)


@dataclass(frozen=True, slots=True)
class _Half:
    """Every second voxel of a volume, or means of 2 x 2 x 2, made as they are asked for."""

    fine: Any
    nearest: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(max(1, n // 2) for n in self.fine.shape)

    def __getitem__(self, at: slice) -> NDArray[Any]:
        low, high, _ = at.indices(self.shape[0])
        part = np.asarray(self.fine[2 * low : 2 * high])
        if self.nearest:
            return np.asarray(part[::2, ::2, ::2][: high - low, : self.shape[1], : self.shape[2]])
        z, y, x = (2 * n for n in (high - low, self.shape[1], self.shape[2]))
        block = part[:z, :y, :x].astype(np.float32).reshape(z // 2, 2, y // 2, 2, x // 2, 2).mean(axis=(1, 3, 5))
        return np.asarray(np.rint(block) if part.dtype.kind in "iu" else block, part.dtype)
