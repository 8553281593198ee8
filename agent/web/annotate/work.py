"""Long work on a project – supervoxels, cuts, saving – in a process of its own, one after the other, with progress.

The page's own process goes on meanwhile, whatever the work holds; a process that is ended leaves the project as it was.
"""

import json
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import msgspec
import structlog

log = structlog.get_logger("annotate")
Kind = Literal["prepare", "cut", "save"]


class Job(msgspec.Struct, kw_only=True):
    """What is being done, or was done last."""

    kind: Kind
    stage: str = "waiting"
    done: float = 0.0
    running: bool = True
    error: str = ""
    said: str = ""


class Work:
    """The work on one project.

    Parameters
    ----------
    folder
        The project.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.job: Job | None = None
        self._queue = ThreadPoolExecutor(1, thread_name_prefix="annotate")
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._waiting = 0
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether anything is being done or waits for it."""
        return self._waiting > 0

    @property
    def full(self) -> bool:
        """Whether something a person asked for is being done or waits; supervoxels alone are not."""
        job = self.job
        return self._waiting > 1 or (self._waiting == 1 and job is not None and job.running and job.kind != "prepare")

    def start(self, kind: Kind, finish: Callable[[], str] = str) -> None:
        """Begin a job, after the one that runs.

        Parameters
        ----------
        kind
            Which.
        finish
            Called in the worker thread when it has succeeded; what it returns is shown.
        """
        with self._lock:
            self._waiting += 1
        self._queue.submit(self._run, kind, finish)

    def cancel(self) -> None:
        """End the job that runs."""
        with self._lock:
            if self._process is not None:
                self._process.terminate()

    def close(self) -> None:
        """End everything; nothing can be started any more."""
        self._closed = True
        self.cancel()
        self._queue.shutdown(wait=True, cancel_futures=True)

    def _run(self, kind: Kind, finish: Callable[[], str]) -> None:
        job = Job(kind=kind)
        self.job = job
        try:
            if not self._closed:
                self._carried_out(job)
            if not job.error:
                job.said = finish()
        except Exception as error:  # whatever it is, the page says it
            log.exception("annotate.failed", kind=kind)
            job.error = f"{kind} failed: {error}"
        finally:
            job.running = False
            with self._lock:
                self._waiting -= 1
        log.info("annotate.done", kind=kind, folder=str(self.folder), error=job.error)

    def _carried_out(self, job: Job) -> None:
        words = [sys.executable, "-m", "agent.cli", "annotate-work", str(self.folder), job.kind]
        with tempfile.TemporaryFile("w+") as words_of_trouble:
            with subprocess.Popen(  # noqa: S603  (this program itself)
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=words_of_trouble, text=True
            ) as process:
                with self._lock:
                    self._process = process
                for line in process.stdout or ():
                    step = json.loads(line)
                    job.stage, job.done = str(step["stage"]), float(step["done"])
            with self._lock:
                self._process = None
            if process.returncode:
                words_of_trouble.seek(0)
                trouble = words_of_trouble.read().strip().splitlines()
                ended = process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)
                job.error = "cancelled" if ended else (trouble or ["it ended without a word"])[-1]
