"""State files: a run written down, to be learned from or gone on with later."""

import asyncio
import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

import structlog

from agent.errors import BadFileError
from drivers.leginon.courier import Courier
from drivers.leginon.register import Register
from drivers.leginon.settings import AnswerSettings, LeginonSettings, load

log = structlog.get_logger("leginon")
FORMAT = "cryonaut-leginon-state"
MOST_BYTES = 256 << 20


class History:
    """State files of one register. Whoever may ask the driver may name paths, so no other file is ever overwritten."""

    def __init__(self, register: Register, courier: Courier, settings: LeginonSettings) -> None:
        self.register = register
        self.courier = courier
        self.settings = settings

    async def save(self, path: str) -> str:
        """Write the current runs to ``path``: which they are, their squares, holes and what was measured there.

        Raises
        ------
        BadFileError
            If it cannot be written, or holds something else than a state file.
        """
        target = self._allowed(path)
        await asyncio.to_thread(self._write, target)
        log.info("state.saved", path=str(target))
        return str(target)

    def _write(self, target: Path) -> None:
        if target.exists():
            read_state(target)  # nothing but a state file is overwritten
        runs = self.register.current_runs()
        holes = self.register.holes(runs)
        values = {
            "format": FORMAT,
            "version": 1,
            "register": self.register.name,
            "saved_utc": round(time.time(), 3),
            "runs": runs,
            "squares": [square._asdict() for square in self.register.squares(runs)],
            "holes": [hole._asdict() for hole in holes],
            "visits": self.register.visits_of([hole.area_id for hole in holes]),
        }
        part = target.with_name(target.name + ".part")
        try:
            with part.open("w", encoding="utf-8") as file:
                json.dump(values, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink()
            raise BadFileError(f"{target}: cannot be written: {error.strerror}") from error

    async def learn_from(self, paths: list[Any], *, add: bool = False) -> list[int]:
        """Let the runs in these state files count for what is learned; returns them.

        Raises
        ------
        BadFileError
            If one is no state file of this register; nothing has changed then.
        """
        runs = [run for path in paths for run in await asyncio.to_thread(self._runs, str(path))]
        self.register.set_historical(runs, add=add)
        return sorted(set(runs))

    async def make_current(self, path: str, *, alone: bool) -> list[int]:
        """Go on with the runs of a state file, instead of what is current (``alone``) or beside it.

        Raises
        ------
        BadFileError
            If it is no state file of this register.
        """
        runs = await asyncio.to_thread(self._runs, path)
        for number, run in enumerate(runs):
            self.register.revive(run, alone=alone and number == 0)
        return self.register.current_runs()

    def _runs(self, path: str) -> list[int]:
        values = read_state(self._allowed(path))
        if values["register"] != self.register.name:
            raise BadFileError(
                f"{path}: the state of another register ({values['register']}): its ids mean nothing here"
            )
        return [int(run) for run in values["runs"]]

    def _allowed(self, path: str) -> Path:
        target = Path(path)
        folder = self.settings.daemon.folder / "states"
        if not target.is_absolute():
            target = folder / target
        inside = target.resolve().is_relative_to(folder.resolve())
        if self.settings.http.allow and not inside:  # others than this machine may ask: they get one folder
            raise BadFileError(f"{path}: only files in {folder} can be named while other machines may ask")
        target.parent.mkdir(parents=True, exist_ok=True) if inside else None
        return target

    def answers_of(self, path: str) -> AnswerSettings:
        """The section ``answers`` of a config file of this driver."""
        return load(self._allowed(path)).answers


def read_state(path: Path) -> dict[str, Any]:
    """The content of a state file.

    Raises
    ------
    BadFileError
        If it is none.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadFileError(f"{path}: larger than {MOST_BYTES >> 20} MB: no state file of this driver")
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadFileError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BadFileError(f"{path}: is no state file of this driver: {error}") from error
    good = isinstance(values, dict) and values.get("format") == FORMAT and isinstance(values.get("runs"), list)
    if not good:
        raise BadFileError(f"{path}: is no state file of this driver; `save_state` writes them")
    return dict(values)
