"""Volumes and what was measured in them, for people: sections with outlines, montages, pages that need nothing else."""

import base64
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.vesicle_report import scale_bar

Picture = NDArray[np.uint8]  # RGB
# told apart with every common colour blindness (Okabe & Ito 2008)
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167), (0, 114, 178))
_WIDE = 480
_WIDEST = 1100
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1180px;margin:2em auto;padding:0 1em;color:#1c2430}
table{border-collapse:collapse}th,td{text-align:left;padding:.15em 1em .15em 0;font-variant-numeric:tabular-nums}
th{color:#5a6675;font-weight:500}.row{display:flex;flex-wrap:wrap;gap:14px}figure{margin:0}
img{max-width:100%;border-radius:4px}figcaption{color:#5a6675;font-size:13px}
svg text{font:11px system-ui,sans-serif}i{display:inline-block;width:.8em;height:.8em;border-radius:2px;
margin:0 .3em 0 1em}"""


@dataclass(frozen=True, slots=True)
class Page:
    """What stands on a page.

    Attributes
    ----------
    title
        Its heading.
    facts
        The first table.
    figures
        Pictures with captions.
    plots
        SVG drawings.
    legend
        Names and colours.
    columns, rows
        A table at the end; at most 300 rows are shown.
    words
        A paragraph below the facts.
    """

    title: str
    facts: Mapping[str, str]
    figures: Sequence[tuple[str, Picture]] = ()
    plots: Sequence[str] = ()
    legend: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    words: str = ""


def write(path: Path, page: Page) -> None:
    """One self-contained HTML page."""
    cells = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in page.facts.items())
    legend = "".join(
        f'<i style="background:rgb{colour}"></i>{html.escape(name)}' for name, colour in page.legend.items()
    )
    figures = "".join(
        f'<figure><img alt="{html.escape(text)}" src="data:image/jpeg;base64,{_jpeg(picture)}">'
        f"<figcaption>{html.escape(text)}</figcaption></figure>"
        for text, picture in page.figures
    )
    table = ""
    if page.rows:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in page.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(str(value))}</td>" for value in row) + "</tr>"
            for row in page.rows[:300]
        )
        more = f"<p>{len(page.rows) - 300} more rows in the table.</p>" if len(page.rows) > 300 else ""
        table = f"<h2>Table</h2><table><tr>{head}</tr>{body}</table>{more}"
    plots = f'<h2>Distributions</h2><div class="row">{"".join(page.plots)}</div>' if any(page.plots) else ""
    shown = f'<h2>Pictures</h2><p>{legend}</p><div class="row">{figures}</div>' if figures else ""
    path.write_text(
        f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(page.title)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style>
<h1>{html.escape(page.title)}</h1><table>{cells}</table><p>{html.escape(page.words)}</p>{shown}{plots}{table}</html>""",
        encoding="utf-8",
    )


def _jpeg(picture: Picture) -> str:
    done, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    return base64.b64encode(data.tobytes()).decode() if done else ""


def save(path: Path, picture: Picture) -> None:
    """A PNG."""
    cv2.imwrite(str(path), picture[..., ::-1])


def grey(section: NDArray[Any], low: float | None = None, high: float | None = None) -> Picture:
    """A section as a picture, stretched between two grey values (by default its 0.5 and 99.5 percentiles)."""
    values = np.nan_to_num(np.asarray(section, np.float32), nan=float(np.nanmedian(section)))
    if low is None or high is None:
        low, high = (float(v) for v in np.percentile(values, (0.5, 99.5)))
    flat = np.clip((values - low) / max(high - low, 1e-9) * 255, 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(flat, cv2.COLOR_GRAY2RGB), np.uint8)


def zoomed(picture: Picture, edges: tuple[float, float], wide: int = _WIDE) -> tuple[Picture, float]:
    """A picture of square pixels and how many nm a pixel is; ``edges`` (y, x) in nm.

    It is at least ``wide`` in whole pixels for a voxel, and at most `_WIDEST`.
    """
    nm = min(edges)
    rows, columns = (n * e / nm for n, e in zip(picture.shape[:2], edges, strict=True))
    largest = max(rows, columns)
    zoom = float(max(1, math.ceil(wide / largest))) if largest <= _WIDEST else _WIDEST / largest
    size = (max(1, round(columns * zoom)), max(1, round(rows * zoom)))
    way = cv2.INTER_CUBIC if zoom >= 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(picture, size, interpolation=way), np.uint8), nm / zoom


def outlined(
    section: NDArray[Any],
    edges: tuple[float, float],
    masks: Sequence[tuple[NDArray[Any], tuple[int, int, int]]],
    wide: int = _WIDE,
) -> Picture:
    """A section with the outlines of label sections of the same shape, each in its colour, and a scale bar."""
    picture, nm = zoomed(grey(section), edges, wide)
    for labels, colour in masks:
        big = cv2.resize(
            labels.astype(np.float32), (picture.shape[1], picture.shape[0]), interpolation=cv2.INTER_NEAREST
        )
        border = np.zeros(big.shape, np.uint8)
        border[:, 1:] |= (big[:, 1:] != big[:, :-1]).astype(np.uint8)
        border[1:] |= (big[1:] != big[:-1]).astype(np.uint8)
        picture[cv2.dilate(border, np.ones((2, 2), np.uint8)) > 0] = colour
    scale_bar(picture, nm)
    return picture


def montage(pictures: Sequence[tuple[str, Picture]], columns: int = 6, edge: int = 180) -> Picture:
    """Small pictures in rows, each with a word below."""
    tiles = []
    for text, picture in pictures:
        scale = edge / max(picture.shape[:2])
        size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        tile = np.full((edge + 22, edge + 6, 3), 255, np.uint8)
        tile[: size[1], : size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        cv2.putText(tile, text, (2, edge + 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (28, 36, 48), 1, cv2.LINE_AA)
        tiles.append(tile)
    rows = []
    for start in range(0, len(tiles), columns):
        row = tiles[start : start + columns]
        row += [np.full_like(row[0], 255)] * (min(columns, len(tiles)) - len(row))
        rows.append(np.hstack(row))
    return np.vstack(rows) if rows else np.full((edge, edge, 3), 255, np.uint8)
