"""Block jobs with a journal: a block that is finished is never done again, whoever dies.

Each block leaves a small file in the job's folder, made in one step when its results are on disk. Who wants to do a
block looks for that file first. So a run that was killed goes on where it was, a worker that is lost costs the block
that it had, and two workers that were given the same block do it once.
"""

import json
import os
import resource
import shutil
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.cluster import Cluster, spread
from agent.errors import ConfigError, CryonautError
from drivers.volumes.tables import write_json

Progress = Callable[[int, int], None]
Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Journal:
    """The record of one job on disk.

    Attributes
    ----------
    folder
        Where its files are; the machines that work on it see the same folder.
    """

    folder: Path

    def begin(self, of: Facts, *, restart: bool = False) -> bool:
        """Open the journal of a job that is described by ``of``; whether an earlier run of the same one goes on.

        Raises
        ------
        ConfigError
            When the folder holds another job, and ``restart`` was not asked for; what differs is said.
        """
        head = self.folder / "job.json"
        of = json.loads(json.dumps(of))
        if restart:
            shutil.rmtree(self.folder, ignore_errors=True)
        if head.exists():
            before = json.loads(head.read_text(encoding="utf-8"))
            other = [key for key in {*before, *of} if before.get(key) != of.get(key)]
            if other:
                key = sorted(other)[0]
                raise ConfigError(
                    f"{self.folder}: an earlier run had {key} {before.get(key)}, this one {of.get(key)}:"
                    " the same again to go on, or --restart to begin anew"
                )
            return True
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(head, of)
        return False

    def done(self) -> dict[int, Facts]:
        """What is known of each finished block, by its number."""
        return {int(p.stem): json.loads(p.read_text(encoding="utf-8")) for p in self.folder.glob("[0-9]*.json")}

    def end(self) -> None:
        """Forget the job; its results are whole."""
        shutil.rmtree(self.folder, ignore_errors=True)


def carry_out(
    journal: Journal,
    function: Callable[..., Facts],
    arguments: Sequence[tuple[Any, ...]],
    cluster: Cluster,
    say: Progress | None = None,
) -> list[Facts]:
    """Do ``function(*arguments[n])`` for each block ``n`` that is not done yet; what is known of all, in order.

    Parameters
    ----------
    journal
        Begun before.
    function
        Of a module; it writes its results, and gives plain facts about them.
    arguments
        Of each block.
    cluster
        Where to work.
    say
        Called with how many blocks are done, of how many.

    Raises
    ------
    CryonautError
        When a block cannot be done; what is finished stays finished.
    """
    facts = journal.done()
    left = [n for n in range(len(arguments)) if n not in facts]
    if say:
        say(len(arguments) - len(left), len(arguments))
    tasks = [(once, (str(journal.folder), n, function, arguments[n])) for n in left]
    for number, result in spread(tasks, cluster, what="blocks") if tasks else ():
        if isinstance(result, Exception):
            raise _failure(left[number], result) from result
        facts[left[number]] = result
        if say:
            say(len(facts), len(arguments))
    return [facts[n] for n in range(len(arguments))]


def _failure(number: int, error: Exception) -> CryonautError:
    said = " ".join(str(error).split())[:300]
    if isinstance(error, CryonautError):
        return error
    if type(error).__name__ == "KilledWorker":
        return CryonautError(
            f"block {number} was lost with every worker that had it: out of memory? A smaller --block, or fewer"
            " --workers; what is finished is kept"
        )
    return CryonautError(f"block {number}: {type(error).__name__}: {said}; what is finished is kept")


def once(folder: str, number: int, function: Callable[..., Facts], arguments: tuple[Any, ...]) -> Facts:
    """A block done and noted, or what was noted when it was done before."""
    mark = Path(folder) / f"{number:07d}.json"
    if mark.exists():
        found: Facts = json.loads(mark.read_text(encoding="utf-8"))
        return found
    who = f"{socket.gethostname()}-{os.getpid()}"
    with (Path(folder) / f"starts-{who}.log").open("a", encoding="utf-8") as file:
        file.write(f"{number}\n")
    began, cpu = time.monotonic(), time.process_time()
    facts = dict(function(*arguments))
    facts |= {
        "by": who,
        "seconds": round(time.monotonic() - began, 4),
        "cpu_seconds": round(time.process_time() - cpu, 4),
        "peak_mb": peak_mb(),
    }
    part = Path(folder) / f".{number:07d}.{who}"
    part.write_text(json.dumps(facts), encoding="utf-8")
    try:
        os.link(part, mark)  # one of two wins
    except FileExistsError:
        facts = json.loads(mark.read_text(encoding="utf-8"))
    except OSError:  # a file system without hard links
        part.replace(mark)
    part.unlink(missing_ok=True)
    return facts


def peak_mb() -> int:
    """Largest memory that this process ever held, in MB."""
    try:  # the kernel's other count, of getrusage, begins with that of the process which started this one
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 2**10
    except (OSError, StopIteration):
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used // (2**20 if sys.platform == "darwin" else 2**10)
