"""Many sessions: judged one after the other here, or spread over Dask workers; rows stream into one Parquet file."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import CryonautError, LinkError
from agent.evaluation.sessions import Judged

RETRIES = 2  # a worker that dies costs a retry of what it had, and not the run
CONNECT_S = 30
Progress = Callable[[int, int], None]
Task = tuple[Callable[..., Judged], tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where to work: a scheduler that is there already, so many local workers, or (0 workers) this process."""

    scheduler: str = ""
    workers: int = 0


def run(tasks: Sequence[Task], cluster: Cluster, out: Path | None, progress: Progress) -> list[Judged]:
    """Carry out ``tasks`` and return their results in order.

    Parameters
    ----------
    tasks
        Functions with their arguments; each gives a `Judged` and never raises.
    cluster
        Where.
    out
        Parquet file that gets a row as soon as it is there; None: no file.
    progress
        Told after each how many of how many are done.

    Raises
    ------
    LinkError
        If the scheduler cannot be reached.
    CryonautError
        If Dask or pyarrow is needed and not installed.
    """
    results: dict[int, Judged] = {}
    with ExitStack() as stack:
        write = stack.enter_context(_rows(out)) if out is not None else stack.enter_context(nullcontext(_nowhere))
        source = _here(tasks) if not cluster.scheduler and cluster.workers < 1 else _on_dask(stack, tasks, cluster)
        for number, judged in source:
            results[number] = judged
            write(judged)
            progress(len(results), len(tasks))
    return [results[number] for number in range(len(tasks))]


def _nowhere(judged: Judged) -> None:
    """No file was asked for."""


def _here(tasks: Sequence[Task]) -> Iterator[tuple[int, Judged]]:
    for number, (function, arguments) in enumerate(tasks):
        yield number, function(*arguments)


def _on_dask(stack: ExitStack, tasks: Sequence[Task], cluster: Cluster) -> Iterator[tuple[int, Judged]]:
    try:
        from distributed import Client, LocalCluster, as_completed
    except ImportError as error:
        raise CryonautError("many sessions on workers need Dask: `pip install 'cryonaut[dask]'`") from error
    if cluster.scheduler:
        try:
            client = stack.enter_context(Client(cluster.scheduler, timeout=CONNECT_S))
        except (OSError, ValueError, TimeoutError) as error:
            raise LinkError(f"no Dask scheduler answers at {cluster.scheduler}: {error}") from error
    else:
        local = LocalCluster(
            n_workers=cluster.workers, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        )
        client = stack.enter_context(Client(stack.enter_context(local)))
    futures = {
        client.submit(function, *arguments, retries=RETRIES, pure=False): number
        for number, (function, arguments) in enumerate(tasks)
    }
    for future in as_completed(list(futures)):
        number = futures.pop(future)
        try:
            judged = (
                future.result()
            )  # where the worker that had it died a moment ago, this waits for it to be done again
        except Exception as error:  # whatever the task raised, or Dask's word that it gave up
            said = " ".join(str(error).split())[:300]
            judged = Judged(str(tasks[number][1][0]), "", {}, trouble=f"no worker could do it: {said}")
        future.release()  # results stay here, not on the workers
        yield number, judged


@contextmanager
def _rows(path: Path) -> Iterator[Callable[[Judged], None]]:
    """A Parquet file that takes a row at a time; it is whole when the block ends, whatever ended it."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise CryonautError("a Parquet file needs pyarrow: `pip install 'cryonaut[dask]'`") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema(
        [("session", pa.string()), ("variant", pa.string()), ("metric", pa.string()), ("value", pa.float64()),
         ("trouble", pa.string())]
    )  # fmt: skip
    with parquet.ParquetWriter(path, schema) as writer:

        def write(judged: Judged) -> None:
            values = judged.metrics or {"": None}
            writer.write_table(
                pa.table(
                    {
                        "session": [judged.session] * len(values),
                        "variant": [judged.variant] * len(values),
                        "metric": list(values),
                        "value": [None if value is None else float(value) for value in values.values()],
                        "trouble": [judged.trouble] * len(values),
                    },
                    schema=schema,
                )
            )

        yield write
