"""Every image with its result drawn on it: ``python -m benchmarks.gallery --out gallery``.

Simulated images come from `benchmarks.finder_sets`; real ones from ``--data``, where it is there: their licences let
anyone look, not everyone copy, so they are drawn into ``--out`` and never committed. ``--page docs`` writes the page
with the simulated ones, ``docs/gallery.md`` and its pictures.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.drawing import overlay
from agent.errors import BadFileError
from agent.inference import BEST, build
from benchmarks.finder_sets import DIFFICULTIES, hole_set, square_set
from benchmarks.finders import places
from benchmarks.marks import Tally, tally
from drivers.images import read_image

_CELL = 480  # pixels of a picture on a sheet
Drawn = tuple[str, NDArray[np.uint8], int, Tally | None]  # name, picture (RGB), found, score


def drawn(what: str, name: str, image: NDArray[Any], truth: dict[str, Any] | None) -> Drawn:
    """One image with what the finder in use finds on it."""
    model: Any = build(BEST["low" if what == "squares" else "medium"])
    finding = model.find(image)
    items = finding.squares if what == "squares" else finding.holes
    picture = overlay(image, squares=finding.squares) if what == "squares" else overlay(image, holes=finding.holes)
    score = tally(truth, places(items)) if truth is not None else None
    return name, np.asarray(picture, np.uint8), len(items), score


def simulated(what: str, each: int) -> Iterator[Drawn]:
    """The first images of each simulated set."""
    for difficulty in DIFFICULTIES:
        for example in (hole_set if what == "holes" else square_set)(difficulty, each):
            yield drawn(what, example.name, example.image, example.truth)


def real(data: Path, what: str) -> Iterator[Drawn]:
    """Every image of a folder of real ones, with its score where it has hand marks."""
    level = "lowmag" if what == "squares" else "medmag"
    for path in sorted((data / level).iterdir()):
        try:
            image, _ = read_image(path)
        except BadFileError:
            continue
        marks = data / "truth" / level / f"{path.stem}.json"
        truth = json.loads(marks.read_text()) if marks.exists() else None
        yield drawn(what, path.stem, image, truth)


def sheet(cells: list[Drawn], columns: int = 3) -> NDArray[np.uint8]:
    """Pictures side by side with their names under them."""
    parts = [_cell(name, picture) for name, picture, _, _ in cells]
    parts += [np.zeros_like(parts[0])] * (-len(parts) % columns)
    return np.vstack([np.hstack(parts[k : k + columns]) for k in range(0, len(parts), columns)])


def _cell(name: str, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = _CELL / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    cell = np.zeros((_CELL + 22, _CELL, 3), np.uint8)
    cell[: small.shape[0], : small.shape[1]] = small
    cv2.putText(cell, name, (4, _CELL + 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return cell


def line(cell: Drawn) -> str:
    """One row of a table: name, found, recall, precision."""
    name, _, found, score = cell
    if score is None:
        return f"| {name} | {found} | no marks | no marks |"
    return f"| {name} | {found} | {score.recall:.3f} | {score.precision:.3f} |"


HEAD = ["| image | found | recall | precision |", "|---|---|---|---|"]


def write_folder(out: Path, data: Path) -> None:
    """Draw everything into ``out``, one PNG each, with ``index.md`` to look through them."""
    out.mkdir(parents=True, exist_ok=True)
    lines = ["# Gallery", ""]
    for what in ("squares", "holes"):
        sources = [("simulated", simulated(what, 4))]
        if (data / ("lowmag" if what == "squares" else "medmag")).is_dir():
            sources.append(("real", real(data, what)))
        else:
            print(f"{data} is absent: only simulated {what}")
        for kind, cells in sources:
            lines += [f"## {what}, {kind}", "", *HEAD]
            pictures = []
            for cell in cells:
                file = f"{what}_{kind}_{cell[0].replace(' ', '_').replace('/', '_')}.png"
                cv2.imwrite(str(out / file), cell[1][..., ::-1])
                lines.append(line(cell))
                pictures.append(f"![{cell[0]}]({file})")
                print(line(cell))
            lines += ["", *pictures, ""]
    (out / "index.md").write_text("\n".join(lines), encoding="utf-8")


def write_page(docs: Path, data: Path) -> None:
    """Write ``gallery.md`` with two sheets of simulated images, and figures of real ones where they are at hand."""
    lines = [
        "# Gallery",
        "",
        "What `cryonaut find` sees, drawn by `python -m benchmarks.gallery --page docs`; nothing is retouched.",
        "The legend is under each picture; holes that the lattice alone knows are drawn apart.",
        "",
    ]
    for what in ("holes", "squares"):
        cells = list(simulated(what, 3))
        file = docs / "images" / f"gallery_{what}.jpg"
        cv2.imwrite(str(file), sheet(cells)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])
        lines += [f"## Simulated {what}: easy, middle, hard", "", f"![Simulated {what}](images/{file.name})", ""]
        lines += [*HEAD, *map(line, cells), ""]
    lines += [
        "## Real images",
        "",
        "The real images that we measure on may be looked at and not all of them copied: none is in this repository.",
        "With such a folder at hand (`lowmag/`, `medmag/`, `truth/`), every image is drawn with its result by",
        "`python -m benchmarks.gallery --out gallery --data FOLDER`; open `gallery/index.md`. Against hand marks:",
        "",
    ]
    for what in ("squares", "holes"):
        if (data / "truth").is_dir():
            lines += [f"### {what}", "", *HEAD, *(line(cell) for cell in real(data, what)), ""]
    (docs / "gallery.md").write_text("\n".join(lines), encoding="utf-8")


def main() -> None:
    """Draw what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for every picture")
    parser.add_argument("--page", type=Path, help="the docs folder, to write gallery.md anew")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of real images")
    given = parser.parse_args()
    if given.out is None and given.page is None:
        parser.error("name --out or --page")
    if given.out is not None:
        write_folder(given.out, given.data)
    if given.page is not None:
        write_page(given.page, given.data)


if __name__ == "__main__":
    main()
