"""Files of a segmented tomogram: tables, volumes, models, pictures and the page."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from agent import __version__
from agent.vesicle_report import sheet, slices, write_page
from drivers.volumes import new_mrc, write_json, write_ome_zarr, write_star
from models.vesicles import Vesicle, paint
from models.vesicles.statistics import Pattern, pattern, surface_points

COLUMNS = (
    "number",
    "x",
    "y",
    "z",
    "radius_nm",
    "thickness_nm",
    "fit",
    "score",
    "neighbour_nm",
    "surface_nm",
    "outlier",
)


def write_all(
    out: Path,
    tomogram: Path,
    source: Any,
    maps: Any,
    vesicles: Sequence[Vesicle],
    formats: Sequence[str],
    masks: dict[str, Any],
) -> None:
    """Everything that was asked for; ``masks`` holds ``region`` and ``az`` or None for each, shape (z, y, x)."""
    vesicles, voxel_nm = tuple(vesicles), source.voxel_nm
    surface = None if masks["az"] is None else surface_points(masks["az"], voxel_nm)
    shape = tuple(int(n) for n in source.volume.shape)
    searched = int(masks["region"].sum()) if masks["region"] is not None else int(np.prod(shape))
    measured = pattern(vesicles, voxel_nm, searched, surface)
    _csv(out / "vesicles.csv", vesicles, measured)
    if "mrc" in formats or "zarr" in formats:
        labels = np.zeros(shape, np.int32)
        paint(vesicles, voxel_nm, labels)
        if "mrc" in formats:
            with new_mrc(out / "labels.mrc", shape, voxel_nm) as file:
                file.data[...] = labels
            with new_mrc(out / "probability.mrc", source.shape, source.grid_nm, np.float32) as file:
                for z in range(source.shape[0]):
                    file.data[z] = maps[0, z].astype(np.float32) / 255
        if "zarr" in formats:
            write_ome_zarr(out / "labels.zarr", labels, voxel_nm, labels=True)
    if "star" in formats:
        _star(out / "vesicles.star", vesicles, tomogram.stem.replace(" ", "_"))
    if "imod" in formats:
        _imod(out / "vesicles.mod", vesicles, voxel_nm)
    pictures = slices(source.volume, vesicles, voxel_nm)
    cv2.imwrite(str(out / "slices.png"), sheet(pictures)[..., ::-1])
    mean, spread = measured.diameter_nm
    facts = {
        "tomogram": str(tomogram),
        "voxels (z, y, x)": f"{shape[0]} x {shape[1]} x {shape[2]} of {voxel_nm:g} nm",
        "vesicles": str(len(vesicles)),
        "outer diameter": f"{mean:.1f} ± {spread:.1f} nm" if vesicles else "-",
        "density": f"{measured.per_um3:.0f} per µm³; {measured.volume_share:.1%} of the searched volume",
        "worth a look": str(sum(bool(v.outlier) for v in vesicles)),
        "made by": f"Cryonaut {__version__}",
    }
    write_json(out / "summary.json", facts)
    write_page(
        out / "report.html",
        title=f"Vesicles of {tomogram.name}",
        facts=facts,
        vesicles=vesicles,
        pattern=measured,
        pictures=pictures,
    )


def _csv(path: Path, vesicles: Sequence[Vesicle], measured: Pattern) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for v, near, far in zip(vesicles, measured.neighbour_nm, measured.surface_nm, strict=True):
            gaps = ["" if not np.isfinite(n) else round(float(n), 2) for n in (near, far)]
            writer.writerow([v.number, v.x, v.y, v.z, v.radius_nm, v.thickness_nm, v.fit, v.score, *gaps, v.outlier])


def _star(path: Path, vesicles: Sequence[Vesicle], tomogram: str) -> None:
    columns = [f"rlnCoordinate{axis}" for axis in "XYZ"]
    columns += ["rlnTomoName", "cryonautRadiusNm", "rlnAutopickFigureOfMerit"]
    write_star(path, "particles", columns, [(v.x, v.y, v.z, tomogram, v.radius_nm, v.score) for v in vesicles])


def _imod(path: Path, vesicles: Sequence[Vesicle], voxel_nm: float) -> None:
    """Scattered points with sizes; IMOD's voxels begin at their corner."""
    import imodmodel
    import pandas

    rows = [
        {"object_id": 0, "contour_id": 0, "x": v.x + 0.5, "y": v.y + 0.5, "z": v.z, "size": v.radius_nm / voxel_nm}
        for v in vesicles
    ]
    imodmodel.write(pandas.DataFrame(rows, columns=["object_id", "contour_id", "x", "y", "z", "size"]), path)
