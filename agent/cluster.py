"""Work spread over processes and machines: this process, so many local workers, or a Dask scheduler that is there."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from agent.errors import CryonautError, LinkError

RETRIES = 2  # a task that fails is tried again so often; one whose worker died always is, on another
CONNECT_S = 30
Task = tuple[Callable[..., Any], tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where to work: a scheduler that is there already, so many local workers, or (0 workers) this process."""

    scheduler: str = ""
    workers: int = 0

    @property
    def here(self) -> bool:
        """Whether the work is done in this process."""
        return not self.scheduler and self.workers < 1


def spread(tasks: Sequence[Task], cluster: Cluster, *, what: str, retries: int = RETRIES) -> Iterator[tuple[int, Any]]:
    """Carry out ``tasks`` and give each result with its number as soon as it is there.

    Parameters
    ----------
    tasks
        Functions of a module with their arguments; other machines must have the same Cryonaut, and see the same files.
    cluster
        Where.
    what
        What needs Dask, for the words.
    retries
        How often a task that raises is tried again on workers; in this process what it raises is raised.

    Yields
    ------
    number, result
        The result is an Exception where no worker could do it.

    Raises
    ------
    LinkError
        If the scheduler cannot be reached.
    CryonautError
        If Dask is needed and not installed.
    """
    if cluster.here:
        for number, (function, arguments) in enumerate(tasks):
            yield number, function(*arguments)
        return
    with ExitStack() as stack:
        client = _client(stack, cluster, what)
        from distributed import as_completed

        futures = {
            client.submit(function, *arguments, retries=retries, pure=False): number
            for number, (function, arguments) in enumerate(tasks)
        }
        for future in as_completed(list(futures)):
            number = futures.pop(future)
            try:
                # where the worker that had it died a moment ago, this waits for it to be done again
                result = future.result()
            except Exception as error:  # whatever the task raised, or Dask's word that it gave up
                result = error
            future.release()  # results stay here, not on the workers
            yield number, result


def _client(stack: ExitStack, cluster: Cluster, what: str) -> Any:
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise CryonautError(f"{what} on workers needs Dask: `pip install 'cryonaut[dask]'`") from error
    if cluster.scheduler:
        try:
            return stack.enter_context(Client(cluster.scheduler, timeout=CONNECT_S))
        except (OSError, ValueError, TimeoutError) as error:
            raise LinkError(f"no Dask scheduler answers at {cluster.scheduler}: {error}") from error
    local = LocalCluster(
        n_workers=cluster.workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        silence_logs=50,
        memory_limit=0,  # what a block takes is known before; Dask would kill workers that use memory maps
    )
    return stack.enter_context(Client(stack.enter_context(local)))
