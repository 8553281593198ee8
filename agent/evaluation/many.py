"""Many sessions: judged one after the other here, or spread over Dask workers; rows stream into one Parquet file."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from agent.cluster import Cluster, spread
from agent.errors import CryonautError
from agent.evaluation.sessions import Judged

Progress = Callable[[int, int], None]
Task = tuple[Callable[..., Judged], tuple[Any, ...]]


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
        for number, result in spread(tasks, cluster, what="many sessions"):
            judged = result
            if isinstance(result, Exception):
                said = " ".join(str(result).split())[:300]
                judged = Judged(str(tasks[number][1][0]), "", {}, trouble=f"no worker could do it: {said}")
            results[number] = judged
            write(judged)
            progress(len(results), len(tasks))
    return [results[number] for number in range(len(tasks))]


def _nowhere(judged: Judged) -> None:
    """No file was asked for."""


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
