"""``cryonaut measure``: sizes, contacts, nuclear pores and coated pits of label volumes."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from agent.cli.volume_files import bar, edges_of
from agent.errors import ConfigError
from models.organelles.numbers import NUMBERS

app = App(name="measure", help="Measure organelles in label volumes: sizes, contacts, nuclear pores, coated pits.")
Out = Annotated[Path, Parameter(alias="-o")]
_SHOWN = 60  # pictures in a montage


@app.command
def volumes(*labels: Path, out: Out, workers: int = 0) -> None:
    """Volume, surface area and shape of each object.

    Writes `<name>.volumes.csv` and `<name>.volumes.html` for each label volume. Surfaces at the border of the volume
    are not counted; the column `at_border` says where something may be missing.

    Such as: `cryonaut measure volumes found/mitochondrion.labels.zarr found/golgi.labels.zarr -o measured`

    Parameters
    ----------
    labels
        Label volumes (OME-Zarr, TIFF, MRC …) that say their voxel size.
    out
        Folder for tables and pages.
    workers
        Local Dask workers (dask extra); 0: this process alone.
    """
    import numpy as np

    from agent.vesicle_report import histogram
    from drivers.volumes import open_volume

    if not labels:
        raise ConfigError("name a label volume")
    out.mkdir(parents=True, exist_ok=True)
    for path in labels:
        volume = open_volume(path)
        found = _objects(volume, out, workers)
        edges = volume.edges_nm or (1.0, 1.0, 1.0)
        cubic_um = found.voxels * float(np.prod(edges)) / 1e9
        square_um = found.area_nm2 / 1e6
        round_um = np.pi ** (1 / 3) * (6 * cubic_um) ** (2 / 3)  # of a ball of the same volume
        round_ = np.divide(round_um, square_um, out=np.full(len(found), np.nan), where=square_um > 0)
        columns = ("number", "voxels", "volume_um3", "surface_um2", "sphericity", "diameter_nm", *_PLACE, "at_border")
        rows = [
            (
                int(found.numbers[n]),
                int(found.voxels[n]),
                f"{cubic_um[n]:.6g}",
                f"{square_um[n]:.6g}",
                "" if found.at_border[n] else f"{round_[n]:.3f}",
                f"{2e3 * (3 * cubic_um[n] / 4 / np.pi) ** (1 / 3):.1f}",
                *_place(volume, found.centres[n]),
                int(found.at_border[n]),
            )
            for n in range(len(found))
        ]
        name = _name(path)
        _table(out / f"{name}.volumes.csv", columns, rows)
        whole = ~found.at_border
        facts = {
            "labels": str(path),
            "objects": f"{len(found)}, of which {int(found.at_border.sum())} touch the border",
            "volume together": f"{cubic_um.sum():.4g} µm³",
            "surface together": f"{square_um.sum():.4g} µm²",
            "median volume": f"{np.median(cubic_um[whole]):.4g} µm³ ({int(whole.sum())} whole ones)"
            if whole.any()
            else "-",
        }
        plots = [
            histogram(np.log10(cubic_um[whole]), "log10 of the volume in µm³, whole objects"),
            histogram(round_[whole & np.isfinite(round_)], "sphericity (1: a ball), whole objects"),
        ]
        _page(out / f"{name}.volumes.html", f"Sizes of {name}", facts, plots=plots, columns=columns, rows=rows)
        print(f"{name}: {len(found)} objects, {cubic_um.sum():.4g} µm³, {square_um.sum():.4g} µm²")


@app.command
def contacts(
    first: Path, second: Path, /, *, out: Out, within: float = NUMBERS["contacts"]["within_nm"], workers: int = 0
) -> None:
    """Contact sites: the surface of each object that lies within a distance of an object of another volume.

    Writes `<first>-<second>.contacts.csv` and a page. A place of the surface counts for the nearest object only.

    Such as: `cryonaut measure contacts found/mitochondrion.labels.zarr found/er.labels.zarr -o measured --within 30`

    Parameters
    ----------
    first
        Label volume whose surfaces are measured.
    second
        Label volume on the same grid whose objects they are near to.
    out
        Folder for table and page.
    within
        Largest distance between both surfaces in nm.
    workers
        Local Dask workers (dask extra); 0: this process alone.
    """
    from agent.cluster import Cluster
    from agent.vesicle_report import histogram
    from drivers.organelles.measuring import contact_sites
    from drivers.volumes import open_volume

    if not 0 <= within <= 1000:
        raise ConfigError(f"--within {within:g}: 0 to 1000 nm")
    out.mkdir(parents=True, exist_ok=True)
    one, other = open_volume(first), open_volume(second)
    with bar(f"{first.name} and {second.name}") as say:
        cluster = Cluster(workers=workers)
        found = contact_sites(one, other, within, out / ".contacts", cluster=cluster, say=say)
    names = _name(first), _name(second)
    columns = (names[0], names[1] if names[1] != names[0] else f"{names[1]}_2", "area_um2", "smallest_gap_nm")
    rows = [(a, b, f"{area / 1e6:.6g}", f"{gap:.2f}") for (a, b), (area, gap) in found.items()]
    stem = f"{names[0]}-{names[1]}.contacts"
    _table(out / f"{stem}.csv", columns, rows)
    total = sum(area for area, _ in found.values()) / 1e6
    facts = {
        "surfaces of": str(first),
        "near to": str(second),
        "within": f"{within:g} nm, from surface to surface",
        "pairs in contact": str(len(rows)),
        "area together": f"{total:.4g} µm²",
    }
    plots = [
        histogram([area / 1e6 for area, _ in found.values()], "area of a pair, µm²"),
        histogram([gap for _, gap in found.values()], "smallest gap of a pair, nm"),
    ]
    _page(out / f"{stem}.html", f"{names[0]} near {names[1]}", facts, plots=plots, columns=columns, rows=rows)
    print(f"{len(rows)} pairs in contact, {total:.4g} µm² within {within:g} nm")


@app.command
def pores(
    volume: Path,
    labels: Path,
    /,
    *,
    out: Out,
    nucleus: Path | None = None,
    alpha: float | None = None,
    min_axis: float = 15.0,
    voxel_size: str = "",
) -> None:
    """Nuclear pores: the diameter of each between the membranes, seen face-on, and how the diameters are spread.

    Writes `pores.csv`, `pores.png` (each pore face-on) and `pores.html` with the distribution and its tests.

    Such as: `cryonaut measure pores cell.zarr found/nuclear_pore.labels.zarr -o measured --nucleus nucleus.labels.zarr`

    Parameters
    ----------
    volume
        Grey values, membranes dark.
    labels
        Label volume of pores; it may have another voxel size.
    out
        Folder for table, pictures and page.
    nucleus
        Label volume of nuclei, whose surface tells the direction of each pore; without it the surface through all
        pores (an alpha complex) does.
    alpha
        Radius in nm up to which that surface is spanned between pores; by default from their distances.
    min_axis
        Objects whose shortest axis is below this many nm are passed over.
    voxel_size
        Edge of a voxel of `volume` in nm, or its three edges `z,y,x`.
    """
    import numpy as np

    from agent.vesicle_report import histogram
    from agent.volume_report import grey, montage, save
    from drivers.organelles.measuring import measured_pores
    from drivers.volumes import open_volume
    from models.organelles.pores import distribution

    out.mkdir(parents=True, exist_ok=True)
    source, marks = _with_edges(open_volume(volume), voxel_size), open_volume(labels)
    found = _objects(marks, out, 0)
    shell = open_volume(nucleus) if nucleus else None
    rows: list[tuple[Any, ...]] = []
    pictures: list[tuple[str, Any]] = []
    sizes: list[float] = []
    with bar("pores") as say:
        for pore, picture in measured_pores(source, marks, found, nucleus=shell, alpha_nm=alpha, shortest_nm=min_axis):
            seen = np.isfinite(pore.diameter_nm)
            rows.append(
                (
                    pore.number,
                    _number(pore.diameter_nm, 2),
                    _number(pore.spread_nm, 2),
                    pore.lines,
                    *(round(c, 2) for c in pore.centre),
                    *(round(c, 4) for c in pore.normal),
                    pore.normal_from,
                )
            )
            sizes.append(pore.diameter_nm)
            if len(pictures) < _SHOWN:
                pictures.append(
                    (f"{pore.number}: {pore.diameter_nm:.0f} nm" if seen else f"{pore.number}: -", grey(picture))
                )
            say(len(rows), len(found))
    columns = (
        "number",
        "diameter_nm",
        "spread_nm",
        "lines",
        "z",
        "y",
        "x",
        "normal_z",
        "normal_y",
        "normal_x",
        "normal_from",
    )
    _table(out / "pores.csv", columns, rows)
    spread = distribution(sizes)
    sheet = montage(pictures)
    save(out / "pores.png", sheet)
    facts = {
        "volume": str(volume),
        "objects": f"{len(found)}; {len(found) - len(rows)} are too flat, {len(rows) - spread.count} show no ring",
        "diameter": f"median {spread.median:.1f} nm, mean {spread.mean:.1f} ± {spread.deviation:.1f}",
        "measured": str(spread.count),
        "10th to 90th percentile": f"{spread.low:.1f} to {spread.high:.1f} nm",
        "smallest and largest": f"{spread.smallest:.1f} and {spread.largest:.1f} nm",
        "normally distributed?": f"p {spread.normal_p:.3g} (Shapiro-Wilk)",
        "one size and 6 nm of noise?": f"p {spread.one_size_p:.3g} (Kolmogorov-Smirnov, by simulation)",
    }
    seen_sizes = [s for s in sizes if np.isfinite(s)]
    plots = [histogram(seen_sizes, "diameter, nm")]
    words = "Each pore seen along the normal of the envelope; pixels of 1 nm, the mean of 8 nm around its middle plane."
    _page(out / "pores.html", "Nuclear pores", facts, [("pores, face-on", sheet)], plots, columns, rows, words)
    print(f"{spread.count} of {len(found)} pores measured, median {spread.median:.1f} nm. Report: {out / 'pores.html'}")


@app.command
def pits(volume: Path, labels: Path, /, *, out: Out, voxel_size: str = "") -> None:
    """Coated pits and vesicles: depth, width at half depth, neck, and the ellipse through the coat.

    Writes `pits.csv`, `pits.png` (the measured plane of each, with its outline) and `pits.html`.

    Such as: `cryonaut measure pits cell.zarr found/coated_pit.labels.zarr -o measured`

    Parameters
    ----------
    volume
        Grey values, membranes dark.
    labels
        Label volume of pits and vesicles; it may have another voxel size.
    out
        Folder for table, pictures and page.
    voxel_size
        Edge of a voxel of `volume` in nm, or its three edges `z,y,x`.
    """
    from agent.vesicle_report import histogram
    from agent.volume_report import grey, montage, save
    from drivers.organelles.measuring import measured_pits
    from drivers.volumes import open_volume
    from models.organelles.pits import OPEN_NECK_NM

    out.mkdir(parents=True, exist_ok=True)
    source, marks = _with_edges(open_volume(volume), voxel_size), open_volume(labels)
    found = _objects(marks, out, 0)
    rows: list[tuple[Any, ...]] = []
    pictures: list[tuple[str, Any]] = []
    all_pits: list[tuple[Any, bool]] = []
    with bar("pits") as say:
        for n, (pit, picture, points) in enumerate(measured_pits(source, marks, found)):
            sizes = (pit.depth_nm, pit.half_width_nm, pit.neck_nm, pit.major_nm, pit.minor_nm)
            kind = "vesicle" if pit.closed else "pit"
            rows.append(
                (
                    pit.number,
                    kind,
                    *(_number(v, 1) for v in sizes),
                    _number(pit.eccentricity, 3),
                    _number(pit.outline_nm, 1),
                    *(round(c, 2) for c in pit.centre),
                    *(round(c, 4) for c in pit.axis),
                    int(found.at_border[n]),
                )
            )
            all_pits.append((pit, bool(found.at_border[n])))
            if len(pictures) < _SHOWN:
                pictures.append(
                    (f"{pit.number}: {kind} {pit.depth_nm:.0f} nm", _drawn(grey(picture), points, pit.closed))
                )
            say(n + 1, len(found))
    columns: tuple[str, ...] = ("number", "kind", "depth_nm", "half_width_nm", "neck_nm", "major_nm", "minor_nm")
    columns += ("eccentricity", "outline_nm", "z", "y", "x", "axis_z", "axis_y", "axis_x", "at_border")
    _table(out / "pits.csv", columns, rows)
    sheet = montage(pictures)
    save(out / "pits.png", sheet)
    inner = [p for p, border in all_pits if not border and p.depth_nm == p.depth_nm]
    is_open, closed = [p for p in inner if not p.closed], [p for p in inner if p.closed]
    facts = {
        "volume": str(volume),
        "objects": f"{len(found)}, of which {sum(b for _, b in all_pits)} touch the border and are left out below",
        "pits": str(len(is_open)),
        f"with necks above {OPEN_NECK_NM:g} nm": str(sum(p.neck_nm > OPEN_NECK_NM for p in is_open)),
        "vesicles": str(len(closed)),
    }
    plots = [
        histogram([p.depth_nm for p in is_open], "depth of pits, nm"),
        histogram([p.half_width_nm for p in is_open], "width of pits at half depth, nm"),
        histogram([p.neck_nm for p in is_open], "neck of pits, nm"),
        histogram([p.major_nm for p in closed], "major axis of vesicles, nm"),
        histogram([p.eccentricity for p in inner if p.eccentricity == p.eccentricity], "major over minor axis"),
    ]
    words = "The measured plane of each; the opening is up. The line follows the dark ring: its ends are the neck."
    _page(
        out / "pits.html", "Coated pits and vesicles", facts, [("measured planes", sheet)], plots, columns, rows, words
    )
    print(f"{len(is_open)} pits, {len(closed)} vesicles. Report: {out / 'pits.html'}")


# ---------------------------------------------------------------------------------------------- shared

_PLACE = ("z_nm", "y_nm", "x_nm")


def _objects(volume: Any, out: Path, workers: int) -> Any:
    from agent.cluster import Cluster
    from drivers.organelles.measuring import objects

    with bar(f"{volume.path.name}: objects") as say:
        return objects(volume, out / f".{_name(volume.path)}.objects", cluster=Cluster(workers=workers), say=say)


def _with_edges(volume: Any, text: str) -> Any:
    from dataclasses import replace

    return replace(volume, edges_nm=edges_of(volume, text))


def _place(volume: Any, centre: Any) -> list[float]:
    edges = volume.edges_nm or (1.0, 1.0, 1.0)
    return [round(float(o + c * e), 2) for o, c, e in zip(volume.offset_nm, centre, edges, strict=True)]


def _name(path: Path) -> str:
    return path.name.removesuffix(path.suffix).removesuffix(".labels") or path.stem


def _number(value: float, digits: int) -> Any:
    return "" if value != value else round(value, digits)


def _table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def _page(
    path: Path,
    title: str,
    facts: dict[str, str],
    figures: Sequence[tuple[str, Any]] = (),
    plots: Sequence[str] = (),
    columns: Sequence[str] = (),
    rows: Sequence[Sequence[Any]] = (),
    words: str = "",
) -> None:
    from agent.volume_report import Page, write

    write(path, Page(title, facts, figures, plots, {}, columns, rows, words))


def _drawn(picture: Any, points: Any, closed: bool) -> Any:
    """The outline (across, along) in nm from the middle, in a picture of 1 nm pixels whose rows go down the axis."""
    import cv2
    import numpy as np

    middle = (np.array(picture.shape[:2]) - 1) / 2
    big = cv2.resize(picture, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    at = np.stack([points[:, 0] + middle[1], middle[0] - points[:, 1]], axis=1) * 3 + 1
    cv2.polylines(big, [np.rint(at).astype(np.int32)[:, None]], closed, (230, 159, 0), 2, cv2.LINE_AA)
    return big
