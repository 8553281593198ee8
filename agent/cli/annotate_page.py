"""The page of ``cryonaut annotate``, and the work that it does in processes of its own."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any, Literal

from agent.errors import ConfigError, CryonautError

PIECES = ("supervoxels", "largest_edge", "compactness", "iterations", "bins")  # what supervoxels follow from


def serve_page(folder: Path, volume: Any, facts: Any, *, port: int, show: bool) -> None:
    """Make the project where it is not there yet, and serve its page until Ctrl-C."""
    import numpy as np

    from agent.cli.annotate_files import check_target
    from agent.web.annotate import write_facts
    from models.organelles.annotation import AnnotationError, to_grey

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--project {folder}: {error.strerror or error}") from error
    for target in (facts.out, facts.metric_mask):
        if target:
            check_target(Path(target))
    if not (folder / "grey.npy").exists():
        try:
            grey = to_grey(volume.array, facts.box, facts.settings.cut.percentiles)
        except AnnotationError as error:
            raise CryonautError(f"{volume.path}: {error}") from error
        np.save(folder / "grey.part.npy", grey)
        (folder / "grey.part.npy").replace(folder / "grey.npy")
    _forget_other_pieces(folder, facts)
    write_facts(folder, facts)
    asyncio.run(_serve(folder.resolve(), port, show))


def _forget_other_pieces(folder: Path, facts: Any) -> None:
    """Supervoxels made with other numbers are made anew."""
    from agent.web.annotate import read_facts
    from agent.web.annotate.project import FILE

    if not (folder / FILE).exists():
        return
    before, now = read_facts(folder).settings.cut, facts.settings.cut
    if any(getattr(before, name) != getattr(now, name) for name in PIECES):
        for name in ("pieces.npy", "regions.npz"):
            (folder / name).unlink(missing_ok=True)


async def _serve(folder: Path, port: int, show: bool) -> None:
    import webbrowser

    from agent.web.annotate import Annotate
    from agent.web.app import create_app
    from agent.web.proofread import LinkAccess
    from agent.web.serve import address_of, listen, serve

    access = LinkAccess()
    annotate = Annotate(lambda: {folder.name: folder})
    app = create_app([annotate.page()], access, title="Cryonaut")
    try:
        made = listen(f"127.0.0.1:{port}")
    except OSError as error:
        raise ConfigError(f"--port {port}: {error.strerror or error}") from error
    link = f"http://{address_of(made)}/signin?token={access.token}"
    print(f"annotate at {link}\nCtrl-C ends it; strokes and labels stay in {folder}", flush=True)
    if show:
        webbrowser.open(link)
    try:
        await serve(app, made)
    finally:
        annotate.close()


def annotate_work(folder: Path, what: Literal["prepare", "cut", "save"]) -> None:
    """Work on an annotation project, for its page: progress comes as lines of JSON.

    Parameters
    ----------
    folder
        The project.
    what
        Make supervoxels; cut; write the labels to their file.
    """
    from models.organelles.annotation import AnnotationError

    if hasattr(os, "nice"):
        os.nice(5)  # people at the page come first
    try:
        {"prepare": _prepare, "cut": _cut, "save": _save}[what](folder)
    except AnnotationError as error:
        raise CryonautError(str(error)) from error


def _say(stage: str, done: float) -> None:
    sys.stdout.write(json.dumps({"stage": stage, "done": round(done, 3)}) + "\n")
    sys.stdout.flush()


def _prepare(folder: Path) -> Any:
    """The supervoxels of a project, made where they are not there yet."""
    import numpy as np

    from agent.cli.annotate import cores
    from agent.web.annotate import read_facts
    from models.organelles.annotation import Regions, regions_of, supervoxels

    facts = read_facts(folder)
    grey = np.load(folder / "grey.npy", mmap_mode="r")
    pieces, known = folder / "pieces.npy", folder / "regions.npz"
    if pieces.exists() and known.exists():
        with np.load(known) as table:
            fields = {name: table[name] for name in table.files}
        return grey, Regions(np.load(pieces, mmap_mode="r"), **fields, edges=_relative(facts))
    _say("supervoxels", 0)
    labels = supervoxels(
        grey,
        facts.settings.cut,
        edges=facts.edges_nm,
        workers=cores(),
        progress=lambda share: _say("supervoxels", 0.95 * share),
    )
    regions = regions_of(grey, labels, facts.settings.cut.bins, facts.edges_nm)
    np.save(folder / "pieces.part.npy", labels)
    (folder / "pieces.part.npy").replace(pieces)
    kept = {name: getattr(regions, name) for name in ("sizes", "means", "centres", "histograms", "contacts", "faces")}
    np.savez(folder / "regions.part.npz", **kept)
    (folder / "regions.part.npz").replace(known)
    _say("supervoxels", 1)
    return grey, regions


def _relative(facts: Any) -> Any:
    from models.organelles.annotation.supervoxels import relative

    return relative(facts.edges_nm)


def _cut(folder: Path) -> None:
    import numpy as np

    from agent.web.annotate import read_facts
    from models.organelles.annotation import annotated

    facts = read_facts(folder)
    strokes = np.load(folder / "strokes.npy")  # as they are now: what is painted meanwhile comes with the next cut
    grey, regions = _prepare(folder)
    _say("cutting", 0.2)
    labels = annotated(np.asarray(grey), regions, strokes, facts.settings.cut, rules=facts.rules, keep=facts.keep)
    _say("keeping", 0.9)
    np.save(folder / "labels.part.npy", labels)
    _say("done", 1)


def _save(folder: Path) -> None:
    import numpy as np

    from agent.cli.annotate_files import write_results
    from agent.web.annotate import read_facts
    from drivers.volumes import open_volume

    facts = read_facts(folder)
    _say(f"writing {Path(facts.out).name}", 0.1)
    write_results(open_volume(Path(facts.volume)), facts, np.load(folder / "labels.npy", mmap_mode="r"))
    _say("done", 1)
