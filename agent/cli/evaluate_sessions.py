"""``cryonaut evaluate sessions`` and ``cryonaut evaluate labels``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from agent.errors import ConfigError

if TYPE_CHECKING:
    from agent.cluster import Cluster
    from agent.evaluation.sessions import Judged


def sessions(
    *folders: Path,
    model: str = "",
    against: str | None = None,
    out: Path = Path("evaluation"),
    scheduler: str = "",
    workers: int = 0,
    parquet: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Judge recorded sessions: squares, holes, rankings, good micrographs against time; with intervals over sessions.

    Truth is what was chosen there (exposed, accepted, or chosen in the program it was imported from) and what the
    micrographs turned out like. Such as:

    - `cryonaut evaluate sessions sessions/*`
    - `cryonaut evaluate sessions sessions/* --model holes=holes-template --against holes=holes-net`
    - `cryonaut evaluate sessions archive/* --workers 8 --parquet`
    - `cryonaut evaluate sessions archive/* --scheduler tcp://head:8786`

    Parameters
    ----------
    folders
        Session folders, or folders that hold some.
    model
        Models in the place of what the session found: `squares=NAME,holes=NAME`; by default what it found itself.
    against
        A second variant, compared with the first session by session: models as above, or `recorded`.
    out
        Folder for `evaluation.html`, `evaluation.json` and `evaluation.parquet`.
    scheduler
        Address of a Dask scheduler; its workers must see the folders.
    workers
        So many local Dask workers; 0 works in this process.
    parquet
        Write every value into one Parquet file, too (always with workers).
    """
    from agent.cluster import Cluster
    from agent.evaluation.sessions import Variant, judge

    found = _session_folders(folders)
    variants = [Variant.of(model)]
    if against is not None:
        variants.append(Variant.of("" if against == "recorded" else against))
    if len({variant.name for variant in variants}) != len(variants):
        raise ConfigError(f"--model and --against are both {variants[0].name!r}: nothing to compare")
    cluster = _cluster(Cluster(scheduler, workers))
    tasks: list[Any] = [(judge, (folder.resolve(), variant)) for variant in variants for folder in found]
    rows = out / "evaluation.parquet" if parquet or scheduler or workers else None
    results = _run(tasks, cluster, rows)
    judged = [results[n * len(found) : (n + 1) * len(found)] for n in range(len(variants))]
    _tell(judged, out, rows, title="Recorded sessions", unit="sessions")


def labels(
    folder: Path,
    /,
    *,
    model: str,
    against: str | None = None,
    images: Path | None = None,
    out: Path = Path("evaluation"),
    scheduler: str = "",
    workers: int = 0,
) -> None:
    """Judge a finder or detector by labelled images.

    Labels are one JSON file per image (docs/evaluation.md): squares, holes, or points such as gold. Such as:

    - `cryonaut evaluate labels truth/medmag --images medmag --model holes-template --against holes-net`
    - `cryonaut evaluate labels truth/gold --images gold --model gold`

    Parameters
    ----------
    folder
        Folder of label files.
    model
        Model, by name.
    against
        A second model, compared with the first image by image.
    images
        Folder of the images; by default that of the labels.
    out
        Folder for `evaluation.html` and `evaluation.json`.
    scheduler
        Address of a Dask scheduler; its workers must see the folders.
    workers
        So many local Dask workers; 0 works in this process.
    """
    from agent.cluster import Cluster
    from drivers.exchange.labelled import judge_file, pairs

    found = pairs(folder, images or folder)
    names = [model, *([against] if against is not None else [])]
    if len(set(names)) != len(names):
        raise ConfigError(f"--model and --against are both {model!r}: nothing to compare")
    tasks: list[Any] = [(judge_file, (image, label, name)) for name in names for image, label in found]
    rows = out / "evaluation.parquet" if scheduler or workers else None
    results = _run(tasks, _cluster(Cluster(scheduler, workers)), rows)
    judged = [results[n * len(found) : (n + 1) * len(found)] for n in range(len(names))]
    _tell(judged, out, rows, title="Labelled images", unit="images")


def _cluster(cluster: "Cluster") -> "Cluster":
    if cluster.workers < 0:
        raise ConfigError(f"--workers {cluster.workers}: 0 or more")
    if cluster.scheduler and cluster.workers:
        raise ConfigError("--scheduler and --workers exclude each other")
    return cluster


def _session_folders(folders: tuple[Path, ...]) -> list[Path]:
    from agent.journal import FILE_NAME

    found: dict[Path, None] = {}
    for folder in folders:
        inside = [folder] if (folder / FILE_NAME).exists() else sorted(p.parent for p in folder.glob(f"*/{FILE_NAME}"))
        if not inside:
            raise ConfigError(f"{folder}: holds no session ({FILE_NAME})")
        found.update(dict.fromkeys(inside))
    if not found:
        raise ConfigError("evaluate sessions: give at least one session folder")
    return list(found)


def _run(tasks: list[Any], cluster: "Cluster", rows: Path | None) -> "list[Judged]":
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    from agent.evaluation.many import run

    with Progress(
        *Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task("judged", total=len(tasks))
        return run(tasks, cluster, rows, lambda done, _: bar.update(task, completed=done))


def _tell(judged: "list[list[Judged]]", out: Path, rows: Path | None, *, title: str, unit: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from agent.evaluation.page import table, write
    from agent.evaluation.summary import summarise

    summary = summarise(judged)
    heading, *lines = table(summary)
    shown = Table(box=None, pad_edge=False)
    for number, name in enumerate(heading):
        shown.add_column(name, justify="left" if number == 0 else "right", no_wrap=True)
    for line in lines:
        shown.add_row(*line)
    console = Console()
    Console(width=max(console.width, 150)).print(shown, highlight=False)
    for text in summary.troubles[:10]:
        print(f"trouble: {text}")
    page, as_json = write(summary, out, title=title, unit=unit)
    print(f"report: {page}\njson: {as_json}" + (f"\nparquet: {rows}" if rows else ""))
