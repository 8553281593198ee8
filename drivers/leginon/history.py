"""State files: a run written down, to be learned from or gone on with later."""

import asyncio
import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import structlog

from agent.errors import BadFileError, LinkError
from agent.messages import HoleSeen, Past, PastHole, PastSquare, SquareSeen
from agent.session.state import square_of
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
        past = await self._past()
        await asyncio.to_thread(self._write, target, past)
        log.info("state.saved", path=str(target))
        return str(target)

    async def _past(self) -> dict[str, list[Any]]:
        """What others can learn from the current runs, by grid; nothing while the daemon is away."""
        found: dict[str, list[Any]] = {}
        if not await self.courier.bind():
            return found
        for name in self.register.grid_names(self.courier.session):
            async with asyncio.timeout(self.settings.http.answer_s):
                squares = (await self.courier.look(grid_ids=(name,))).squares
                with_holes = {square_of(hole.area_id) for hole in self.register.holes(self.register.current_runs())}
                for square in squares:
                    if square.area_id in with_holes:
                        holes = (await self.courier.look(square_ids=(square.area_id,))).holes
                        found.setdefault(name, []).append(msgspec.to_builtins(past_square(square, holes)))
        return found

    def _write(self, target: Path, past: dict[str, list[Any]]) -> None:
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
            "past": past,
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

    async def learn_from(self, paths: list[Any], *, add: bool = False) -> list[str]:
        """Let what these state files hold count for what is learned; returns the names of its grids.

        Grids of this session are named; what another session or another driver wrote is recalled into this one.

        Raises
        ------
        BadFileError
            If one is no state file; nothing has changed then.
        LinkError
            If the daemon does not take what is to be recalled.
        """
        states = [await asyncio.to_thread(read_state, self._allowed(str(path))) for path in paths]
        runs: list[int] = []
        names: list[str] = []
        for state in states:
            if state["register"] == self.register.name and self.register.knows(self.courier.session, state["runs"]):
                runs += [int(run) for run in state["runs"]]
            else:
                names += await self._recall(state)
        self.register.set_historical(runs, names, session=self.courier.session, add=add)
        return self.register.historical_names(self.courier.session)

    async def _recall(self, state: dict[str, Any]) -> list[str]:
        mark = hashlib.sha256(f"{state['register']} {state['runs']} {state.get('saved_utc')}".encode()).hexdigest()[:8]
        names = []
        for grid, squares in state.get("past", {}).items():
            name = f"P{mark}.{grid}"[:90]
            for number, plain in enumerate(squares):
                try:
                    square = msgspec.convert(plain, PastSquare)
                except msgspec.ValidationError as error:
                    raise BadFileError(f"state file: square {number} of {grid}: {error}") from error
                told = Past(
                    past_id=f"{name}-{number}",
                    session_id=self.courier.session,
                    grid_id=name,
                    why=f"grid {grid} of an earlier session",
                    square=square,
                )
                try:
                    async with asyncio.timeout(self.settings.http.answer_s):
                        await self.courier.shell.tell(told)
                except TimeoutError as error:
                    raise LinkError("the Cryonaut daemon did not take the earlier session in time") from error
            names.append(name)
        return names

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


def past_square(square: SquareSeen, holes: Iterable[HoleSeen]) -> PastSquare:
    """A square with its holes as others can learn from it."""
    return PastSquare(
        x_um=square.x_um,
        y_um=square.y_um,
        size_um=square.size_um,
        score=square.score,
        features=square.features,
        holes=tuple(
            PastHole(
                x_um=hole.x_um,
                y_um=hole.y_um,
                radius_um=hole.radius_um,
                score=hole.score,
                ctf_resolution_angstrom=hole.measured_ctf_angstrom,
                ice_thickness_nm=hole.measured_ice_nm,
                features=hole.features,
            )
            for hole in holes
        ),
    )


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
    runs = values.get("runs") if isinstance(values, dict) and values.get("format") == FORMAT else None
    if not isinstance(runs, list) or not all(isinstance(run, int) for run in runs) or "register" not in values:
        raise BadFileError(f"{path}: is no state file of this driver; `save_state` writes them")
    return dict(values)
