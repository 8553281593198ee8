"""A tomogram's vesicles for people: slices with circles, and one page that needs nothing else."""

import base64
import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models.vesicles import Vesicle
from models.vesicles.statistics import Pattern

FINE, ODD = (86, 180, 233), (230, 159, 0)  # told apart with every common colour blindness (Okabe & Ito 2008)
_SLICES = 6
_WIDE = 520

Picture = NDArray[np.uint8]


def slice_picture(volume: Any, vesicles: Sequence[Vesicle], voxel_nm: float, z: int) -> Picture:
    """Section ``z`` of a volume (z, y, x), mean of about 6 nm, with a circle for each vesicle it cuts; RGB."""
    half = max(0, round(3 / voxel_nm))
    part = np.asarray(volume[max(0, z - half) : z + half + 1], np.float32).mean(axis=0)
    part = cv2.GaussianBlur(np.nan_to_num(part), (0, 0), max(0.4, 1.2 / voxel_nm))
    low, high = np.percentile(part, (0.5, 99.5))
    grey = np.clip((part - low) / max(float(high - low), 1e-9) * 255, 0, 255).astype(np.uint8)
    zoom = max(1, math.ceil(_WIDE / max(grey.shape)))
    picture = cv2.cvtColor(cv2.resize(grey, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC), cv2.COLOR_GRAY2RGB)
    for v in vesicles:
        radius2 = (v.radius_nm / voxel_nm) ** 2 - (v.z - z) ** 2
        if radius2 <= 1:
            continue
        at = (round(((v.x + 0.5) * zoom - 0.5) * 16), round(((v.y + 0.5) * zoom - 0.5) * 16))
        colour = ODD if v.outlier else FINE
        cv2.circle(picture, at, round(math.sqrt(radius2) * zoom * 16), colour, 1, cv2.LINE_AA, 4)
    scale_bar(picture, voxel_nm / zoom)
    return np.asarray(picture, np.uint8)


def scale_bar(picture: Any, nm_per_px: float) -> None:
    """Draw a scale bar into the lower right corner."""
    length_nm = next(n for n in (1000, 500, 200, 100, 50, 20, 10) if n / nm_per_px < 0.35 * picture.shape[1] or n == 10)
    x1, y = picture.shape[1] - 12, picture.shape[0] - 12
    x0 = round(x1 - length_nm / nm_per_px)
    cv2.rectangle(picture, (x0 - 1, y - 4), (x1 + 1, y + 1), (0, 0, 0), -1)
    cv2.rectangle(picture, (x0, y - 3), (x1, y), (255, 255, 255), -1)
    for shift, colour in ((1, (0, 0, 0)), (0, (255, 255, 255))):  # a shadow, for bright sections
        at = (x0 + shift, y - 8 + shift)
        cv2.putText(picture, f"{length_nm} nm", at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)


def slices(volume: Any, vesicles: Sequence[Vesicle], voxel_nm: float) -> list[tuple[int, Picture]]:
    """Evenly spread sections, with their numbers."""
    depth = int(volume.shape[0])
    at = sorted({round((n + 0.5) * depth / _SLICES - 0.5) for n in range(_SLICES)})
    return [(z, slice_picture(volume, vesicles, voxel_nm, z)) for z in at]


def sheet(pictures: Sequence[tuple[int, Picture]]) -> Picture:
    """The sections side by side, three in a row."""
    rows = []
    for start in range(0, len(pictures), 3):
        row = [p for _, p in pictures[start : start + 3]]
        row += [np.zeros_like(row[0])] * (min(3, len(pictures)) - len(row))
        rows.append(np.hstack(row))
    return np.vstack(rows)


def write_page(
    path: Path,
    *,
    title: str,
    facts: dict[str, str],
    vesicles: Sequence[Vesicle],
    pattern: Pattern,
    pictures: Sequence[tuple[int, Picture]],
) -> None:
    """One self-contained HTML page."""
    cells = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in facts.items())
    figures = "".join(
        f'<figure><img alt="section {z}" src="data:image/jpeg;base64,{_jpeg(p)}">'
        f"<figcaption>section {z}</figcaption></figure>"
        for z, p in pictures
    )
    odd = [v for v in vesicles if v.outlier]
    rows = "".join(
        f"<tr><td>{v.number}</td><td>{v.x:.1f}</td><td>{v.y:.1f}</td><td>{v.z:.1f}</td><td>{2 * v.radius_nm:.1f}</td>"
        f"<td>{html.escape(v.outlier)}</td></tr>"
        for v in odd[:200]
    )
    plots = [histogram([2 * v.radius_nm for v in vesicles], "outer diameter, nm")]
    thick = [v.thickness_nm for v in vesicles if v.thickness_nm is not None]
    plots.append(histogram(thick, "membrane thickness, nm"))
    plots.append(histogram(pattern.neighbour_nm[np.isfinite(pattern.neighbour_nm)], "gap to the nearest vesicle, nm"))
    surface = pattern.surface_nm[np.isfinite(pattern.surface_nm)]
    if len(surface):
        plots.append(histogram(surface, "distance to the surface, nm"))
    look = "<p>None: every vesicle is like the others.</p>"
    if odd:
        head = "<tr><th>number</th><th>x</th><th>y</th><th>z</th><th>diameter, nm</th><th>why</th></tr>"
        look = f"<table>{head}{rows}</table>"
    path.write_text(
        f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style>
<h1>{html.escape(title)}</h1><table>{cells}</table>
<h2>Sections</h2><p>Circles: <span style="color:#2a7fb0">vesicles</span>,
<span style="color:#b07400">worth a look</span>. They are cuts of the fitted spheres.</p>
<div class="row">{figures}</div>
<h2>Distributions</h2><div class="row">{"".join(plots)}</div>
<h2>Worth a look</h2>{look}</html>""",
        encoding="utf-8",
    )


_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1180px;margin:2em auto;padding:0 1em;color:#1c2430}
table{border-collapse:collapse}th,td{text-align:left;padding:.15em 1em .15em 0;font-variant-numeric:tabular-nums}
th{color:#5a6675;font-weight:500}.row{display:flex;flex-wrap:wrap;gap:14px}figure{margin:0}
img{max-width:370px;border-radius:4px}figcaption{color:#5a6675;font-size:13px}
svg text{font:11px system-ui,sans-serif}"""


def _jpeg(picture: Picture) -> str:
    done, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    return base64.b64encode(data.tobytes()).decode() if done else ""


def histogram(values: Any, title: str, bins: int = 24) -> str:
    """A histogram as SVG, with its median."""
    values = np.asarray(values, float)
    if not len(values):
        return ""
    counts, edges = np.histogram(values, bins=bins)
    width, height, top = 270, 130, max(1, int(counts.max()))
    span = max(float(edges[-1] - edges[0]), 1e-9)
    bars = "".join(
        f'<rect x="{i * width / bins:.1f}" y="{height - c / top * height:.1f}" width="{width / bins - 1:.1f}"'
        f' height="{c / top * height:.1f}" fill="#56b4e9"/>'
        for i, c in enumerate(counts)
    )
    middle = float(np.median(values))
    at = (middle - edges[0]) / span * width
    return (
        f'<svg width="{width + 20}" height="{height + 46}" viewBox="-10 -4 {width + 20} {height + 46}" role="img"'
        f' aria-label="{html.escape(title)}">{bars}<line x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{height}"'
        f' stroke="#1c2430" stroke-dasharray="3 3"/><text x="0" y="{height + 14}">{edges[0]:.1f}</text>'
        f'<text x="{width}" y="{height + 14}"'
        f' text-anchor="end">{edges[-1]:.1f}</text><text x="{width / 2}" y="{height + 32}" text-anchor="middle">'
        f"{html.escape(title)}; median {middle:.1f}, n {len(values)}</text></svg>"
    )
