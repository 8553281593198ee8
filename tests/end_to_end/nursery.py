"""Starts daemons quickly by forking a process that has everything imported; some of them are told when to die.

Run as ``python -m tests.end_to_end.nursery``; each line on stdin is JSON ``{settings, die_at, side}``, each line on
stdout the process id of the daemon that was started.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from agent import logs
from agent.daemon import Daemon
from agent.inference import Analyst
from agent.journal import Draft, Journal
from agent.settings import Settings


class DyingJournal(Journal):
    """Kills its process with SIGKILL right before or right after its ``die_at``-th commit."""

    die_at, side = 0, "before"

    def append(self, drafts: Sequence[Draft], *, utc: float, epoch: int) -> int:
        self.die_at -= 1
        if self.die_at == 0 and self.side == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        seq = super().append(drafts, utc=utc, epoch=epoch)
        if self.die_at == 0 and self.side == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return seq


def serve(settings: Settings, die_at: int, side: str, log: Path) -> None:
    """Be a daemon."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    logs.configure(json=True)

    def journal(folder: Path) -> Journal:
        made = DyingJournal(folder)
        made.die_at, made.side = die_at, side
        return made

    asyncio.run(Daemon(settings, journal=journal).run())


def main() -> None:
    """Fork a daemon for each line."""
    Analyst(Settings().inference).close()  # imports the models, once for all
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            code = 1
            try:
                serve(Settings.model_validate(order["settings"]), order["die_at"], order["side"], Path(order["log"]))
                code = 0
            finally:
                os._exit(code)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
