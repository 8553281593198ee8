"""N5 datasets (zarr 3 reads them no longer).

An N5 names its axes x first; here they become (z, y, x). Voxel sizes are where the tools of the field put them:
``pixelResolution`` (BigDataViewer), ``resolution`` with ``units`` (neuroglancer), ``transform`` (OpenOrganelle).
"""

import json
from pathlib import Path
from typing import Any

from agent.errors import BadFileError
from drivers.images import UNIT_ANGSTROM
from drivers.volumes.base import Edges, Volume
from drivers.volumes.chunks import open_chunks


def is_n5(path: Path) -> bool:
    """Whether a folder is an N5 container, group or dataset."""
    return (path / "attributes.json").is_file()


def open_n5(path: Path) -> Volume:
    """The volume in an N5 dataset, or in ``s0`` of a multi-scale group."""
    facts = _attributes(path)
    dataset = path
    if "dimensions" not in facts:
        dataset = path / "s0"
        if "dimensions" not in _attributes(dataset):
            inside = sorted(str(p.parent.relative_to(path)) for p in path.rglob("attributes.json") if p.parent != path)
            there = ", ".join(inside[:8]) or "nothing"
            raise BadFileError(f"{path}: an N5 group; name the dataset inside it; there are: {there}")
        facts = facts | _attributes(dataset)
    if len(facts["dimensions"]) != 3:
        raise BadFileError(f"{dataset}: N5 dimensions {facts['dimensions']}; expected three (x, y, z)")
    array = open_chunks(dataset, "n5", path, turned=True)
    return Volume(array, _edges_nm(facts), path, _offset_nm(facts))


def _attributes(path: Path) -> dict[str, Any]:
    try:
        found = json.loads((path / "attributes.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadFileError(f"{path / 'attributes.json'}: cannot be read: {error}") from error
    return found if isinstance(found, dict) else {}


def _edges_nm(facts: dict[str, Any]) -> Edges | None:
    transform = facts.get("transform")
    if isinstance(transform, dict) and "scale" in transform:  # in the order of its own axes
        order = [str(a) for a in transform.get("axes", "zyx")]
        units = transform.get("units", [None] * 3)
        sizes = dict(zip(order, zip(transform["scale"], units, strict=False), strict=False))
        return _in_nm([sizes.get(axis, (0, None)) for axis in "zyx"])
    found = facts.get("pixelResolution")
    if isinstance(found, dict):
        return _in_nm([(n, found.get("unit")) for n in reversed(found.get("dimensions", []))])
    if isinstance(facts.get("resolution"), list):
        units = facts.get("units", ["nm"] * 3)  # neuroglancer's nanometres where nothing is said
        return _in_nm(list(reversed(list(zip(facts["resolution"], units, strict=False)))))
    return None


def _in_nm(sizes: list[tuple[Any, Any]]) -> Edges | None:
    edges = [float(n) * UNIT_ANGSTROM.get(str(unit).lower(), 0.0) / 10 for n, unit in sizes]
    return (edges[0], edges[1], edges[2]) if len(edges) == 3 and all(e > 0 for e in edges) else None


def _offset_nm(facts: dict[str, Any]) -> Edges:
    transform = facts.get("transform")
    if isinstance(transform, dict) and len(transform.get("translate", ())) == 3:
        at = dict(zip((str(a) for a in transform.get("axes", "zyx")), transform["translate"], strict=True))
        return float(at.get("z", 0)), float(at.get("y", 0)), float(at.get("x", 0))
    return 0.0, 0.0, 0.0
