"""Pictures and the page of a folder of segmented organelles."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from agent import __version__
from agent.errors import BadFileError
from agent.vesicle_report import histogram
from agent.volume_report import COLOURS, Page, Picture, montage, outlined, save, write
from drivers.volumes import Volume, open_volume, write_json

_CUTS = ((0, 0.25), (0, 0.5), (0, 0.75), (1, 0.5), (2, 0.5))  # axis and where along it
_AXES = "zyx"


def label_volumes(folder: Path) -> dict[str, Volume]:
    """The label volumes of a result, by structure.

    Raises
    ------
    BadFileError
        When there are none.
    """
    found = {p.name.removesuffix(".labels.zarr"): open_volume(p) for p in sorted(folder.glob("*.labels.zarr"))}
    if not found:
        raise BadFileError(f"{folder}: holds no <structure>.labels.zarr; `cryonaut segment organelles` makes them")
    return found


def colours(names: Any) -> dict[str, tuple[int, int, int]]:
    """A colour for each structure."""
    return {name: COLOURS[n % len(COLOURS)] for n, name in enumerate(names)}


def cuts(volume: Volume, labels: Mapping[str, Volume]) -> list[tuple[str, Picture]]:
    """Sections across all axes with the outlines of all structures."""
    first = next(iter(labels.values()))
    palette = colours(labels)
    pictures = []
    for axis, share in _CUTS:
        at = int((first.shape[axis] - 1) * share)
        edges, own = _edges(volume), _edges(first)
        place = (first.offset_nm[axis] + at * own[axis] - volume.offset_nm[axis]) / edges[axis]
        mine = int(np.clip(round(place), 0, volume.shape[axis] - 1))
        section = np.asarray(volume.array[_at(axis, mine)], np.float32)
        masks = [(np.asarray(one.array[_at(axis, at)]), palette[name]) for name, one in labels.items()]
        across = [e for n, e in enumerate(edges) if n != axis]
        picture = outlined(section, (across[0], across[1]), masks)
        pictures.append((f"{_AXES[axis]} {mine}", picture))
    return pictures


def _edges(volume: Volume) -> tuple[float, float, float]:
    return volume.edges_nm or (1.0, 1.0, 1.0)


def _at(axis: int, place: int) -> tuple[Any, ...]:
    return tuple(place if n == axis else slice(None) for n in range(3))


def write_result(folder: Path, volume: Volume, facts: Mapping[str, str]) -> None:
    """``slices.png``, ``report.html`` and ``summary.json`` of a folder of label volumes.

    Parameters
    ----------
    folder
        With ``<structure>.labels.zarr`` and ``<structure>.csv``.
    volume
        What was segmented, with the edges of its voxels.
    facts
        What stands first on the page.
    """
    labels = label_volumes(folder)
    pictures = cuts(volume, labels)
    save(folder / "slices.png", montage(pictures, columns=3, edge=460))
    palette = colours(labels)
    rows, plots = [], []
    for name, one in labels.items():
        sizes = np.array(_volumes_um3(folder / f"{name}.csv"))
        share = float(sizes.sum()) / max(float(np.prod(one.shape) * np.prod(_edges(one))) / 1e9, 1e-12)
        median = f"{np.median(sizes):.3g}" if len(sizes) else "-"
        rows.append((name, len(sizes), f"{sizes.sum():.4g}", f"{share:.2%}", median))
        if len(sizes) > 1:
            plots.append(histogram(np.log10(sizes), f"{name}: log10 of the volume in µm³"))
    plain = {
        "volume": str(volume.path.resolve()),
        "edges_nm": list(_edges(volume)),
        "made by": f"Cryonaut {__version__}",
    }
    write_json(folder / "summary.json", dict(facts) | plain | {"objects": {str(r[0]): r[1] for r in rows}})
    page = Page(
        title=f"Organelles of {volume.path.name}",
        facts={**facts, "made by": f"Cryonaut {__version__}"},
        figures=pictures,
        plots=plots,
        legend=palette,
        columns=("structure", "objects", "volume, µm³", "share of the volume", "median volume, µm³"),
        rows=rows,
        words="Sections across all three axes with the outlines of the objects. Look before you believe a number.",
    )
    write(folder / "report.html", page)


def _volumes_um3(table: Path) -> list[float]:
    import csv

    if not table.exists():
        return []
    with table.open(encoding="utf-8", newline="") as file:
        return [float(row["volume_um3"]) for row in csv.DictReader(file)]


def segmented(folder: Path) -> Volume | None:
    """The volume that a result was made from, where the folder says it and it is still there."""
    try:
        facts = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        path, edges = Path(facts["volume"]), tuple(float(e) for e in facts["edges_nm"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not path.exists() or len(edges) != 3:
        return None
    found = open_volume(path)
    return Volume(found.array, (edges[0], edges[1], edges[2]), found.path, found.offset_nm, found.whole)
