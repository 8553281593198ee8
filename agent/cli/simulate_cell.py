"""A region of a simulated cell in files: grey values, labels, and the YAML file that trains on it."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from drivers.volumes import write_tiff
from simulators.specimen.cell import Cell, CellName, CellSettings, simulate


def write(name: CellName, regions: Sequence[int], shape: tuple[int, int, int], voxel_nm: float, out: Path) -> Path:
    """Write regions to ``out`` and return the YAML file that names them: the last is held out where there are more."""
    out.mkdir(parents=True, exist_ok=True)
    entries = [_write(simulate(CellSettings.of(name, r, shape=shape, voxel_nm=voxel_nm)), out) for r in regions]
    held_out = entries[-1:] if len(entries) > 1 else []
    path = out / "data.yaml"
    path.write_bytes(msgspec.yaml.encode({"training": entries[: len(entries) - len(held_out)], "held_out": held_out}))
    return path


def _write(cell: Cell, out: Path) -> dict[str, object]:
    stem = f"{cell.settings.name}-{cell.settings.region}"
    edges = (cell.settings.voxel_nm,) * 3
    write_tiff(out / f"{stem}.tif", cell.raw, edges)
    labels = {}
    for structure, numbers in cell.labels.items():
        labels[structure] = f"{stem}-{structure}.tif"
        write_tiff(out / labels[structure], numbers, edges)
    truth = {"pores": cell.pores, "pits": cell.pits}
    (out / f"{stem}-truth.json").write_bytes(msgspec.json.format(msgspec.json.encode(truth)))
    return {"name": stem, "raw": f"{stem}.tif", "labels": labels}
