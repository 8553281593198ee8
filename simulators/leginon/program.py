"""One session as Leginon runs it: atlas, squares, hole images, exposures, what is measured, the next square."""

import json
import math
import shlex
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import mrcfile
import numpy as np
from numpy.typing import NDArray

from simulators.leginon.atlas import Target, merged, ordered
from simulators.leginon.calls import Calls, as_float32
from simulators.microscope import Exposure, VirtualMicroscope

Route = Literal["http", "command"]
Image = NDArray[np.float32]
FIRST_ID = 1000


@dataclass
class Pace:
    """How much of a session is played."""

    radius_um: float = 900.0
    overlap: float = 0.1
    squares: int = 3
    exposures: int = 4
    hole_score: float = 0.2
    ice_as_metres: bool = True  # appion's slip: nm that are multiplied by 1e9 once more
    parallel: int = 8  # tiles pushed at once


@dataclass
class Record:
    """What Leginon's database would hold, by Leginon's ids."""

    squares: dict[int, Target] = field(default_factory=dict)
    orders: list[list[int]] = field(default_factory=list)  # each time a learned order came
    visited: list[int] = field(default_factory=list)
    holes: dict[int, tuple[float, float]] = field(default_factory=dict)  # hole id -> stage, µm
    images: dict[int, int] = field(default_factory=dict)  # hole image id -> holes found
    exposed: dict[int, tuple[float, float | None]] = field(default_factory=dict)  # hole id -> ice nm, CTF Å


class LeginonProgram:
    """Plays Leginon in front of a virtual microscope.

    Parameters
    ----------
    scope
        The microscope.
    calls
        The HTTP route.
    scripts
        Folder with ``squares.sh`` and ``holes.sh``: the command route is used instead where it is given.
    images
        Folder of the session's images (command route).
    tell
        Is told in a line what happens.
    """

    def __init__(
        self,
        scope: VirtualMicroscope,
        calls: Calls | None = None,
        *,
        scripts: Path | None = None,
        images: Path | None = None,
        pace: Pace | None = None,
        tell: Callable[[str], None] = lambda line: None,
        first_id: int = FIRST_ID,
    ) -> None:
        self.scope = scope
        self.calls = calls
        self.scripts = scripts
        self.images = images
        self.pace = pace or Pace()
        self.tell = tell
        self.record = Record()
        self.warnings: list[str] = calls.warnings if calls is not None else []
        self.grid_id = first_id
        self._next_id = first_id
        self._lock = threading.Lock()
        self._tiles: dict[int, Exposure] = {}

    def new_id(self) -> int:
        """A database id: positive, never given before."""
        with self._lock:
            self._next_id += 1
            return self._next_id

    # ------------------------------------------------------------------------------------------ the session

    def run(self, between: Callable[[str], None] = lambda where: None) -> Record:
        """Play the session to its end; ``between`` is called before each step with its name."""
        between("begin")
        if self.calls is not None:
            self.calls.initialize_new_session()
        self.grid_id = self.new_id()
        between("atlas")
        self.take_atlas()
        between("squares")
        targets = self.find_squares()
        order = ordered(targets, {t.square_id: t.score for t in targets})
        self.tell(f"{len(targets)} square targets on {len(self._tiles)} tiles")
        for _ in range(self.pace.squares):
            left = [square_id for square_id in order if square_id not in self.record.visited]
            if not left:
                break
            between("square")
            self.visit(self.record.squares[left[0]], between)
            between("order")
            order = self.learned_order(targets) or order
        between("end")
        return self.record

    def take_atlas(self) -> None:
        """Acquire the tiles one after the other and push each at once, many under way together."""
        preset = self.scope.settings.presets["low"]
        field_um = min(preset.shape) * preset.pixel_size_angstrom * 1e-4
        with ThreadPoolExecutor(self.pace.parallel) as pushing:
            pushed = []
            for x_um, y_um in positions(self.pace.radius_um, field_um * (1 - self.pace.overlap)):
                self.scope.move(x_um, y_um)
                tile_id, shot = self.new_id(), self.scope.acquire("low")
                self._tiles[tile_id] = shot
                pushed.append(pushing.submit(self._push_tile, tile_id, as_float32(shot.image)))
            for job in pushed:
                job.result()

    def _push_tile(self, tile_id: int, image: Image) -> None:
        if self.calls is not None and self.scripts is None:
            if self.calls.is_there():
                self.calls.push_lm(image, self.grid_id, tile_id)
            else:
                self.warnings.append(f"tile {tile_id}: no server")

    def find_squares(self) -> list[Target]:
        """Targets on the atlas."""
        if self.scripts is None:
            assert self.calls is not None  # noqa: S101 - one of both routes is there
            self.calls.is_there()
            rows = self.calls.current_lm_state()
        else:
            with ThreadPoolExecutor(self.pace.parallel) as asking:
                found = list(asking.map(self._command_squares, self._tiles))
            rows = [row for tile in found for row in tile]
        targets = [self._target(row) for row in rows if row["grid_id"] == self.grid_id]
        self.record.squares = {t.square_id: t for t in targets}
        return merged(targets, len(self._tiles), self.warnings)

    def _target(self, row: dict[str, Any]) -> Target:
        shot = self._tiles[row["tile_id"]]
        x_um, y_um = self.scope.specimen.pixel_to_stage(shot.believed, row["center_x"], row["center_y"])
        rows, columns = shot.image.shape
        if not (0 <= row["center_x"] <= columns - 1 and 0 <= row["center_y"] <= rows - 1):
            self.warnings.append(f"square {row['square_id']} lies outside its tile")
        return Target(
            square_id=row["square_id"],
            tile_id=row["tile_id"],
            grid_id=row["grid_id"],
            x_um=x_um,
            y_um=y_um,
            area_um2=row["area"] * shot.believed.pixel_size_um**2,
            brightness=row["brightness"],
            score=row["score"],
        )

    def visit(self, target: Target, between: Callable[[str], None] = lambda where: None) -> None:
        """Take the hole image of a square, expose some of its holes, and report what the pipeline measured."""
        self.record.visited.append(target.square_id)
        self.scope.move(target.x_um, target.y_um)
        shot = self.scope.acquire("medium")
        image_id = self.new_id()
        between("holes")
        rows = self.find_holes(as_float32(shot.image), target, image_id)
        self.record.images[image_id] = len(rows)
        for row in rows:
            place = self.scope.specimen.pixel_to_stage(shot.believed, row["center_x"], row["center_y"])
            self.record.holes[row["hole_id"]] = place
        chosen = self._chosen(rows)
        self.tell(f"square {target.square_id}: {len(rows)} holes, {len(chosen)} exposed")
        for row in chosen:
            between("exposure")
            self._expose(row["hole_id"])

    def find_holes(self, image: Image, target: Target, image_id: int) -> list[dict[str, Any]]:
        """The holes of an image, by whichever route."""
        if self.scripts is not None:
            return self._command_holes(image, image_id)
        assert self.calls is not None  # noqa: S101 - one of both routes is there
        empty = float(image.max())
        self.calls.set_noice_hole_intensity(empty)
        rows = self.calls.push_and_evaluate_mm(
            image, grid_id=target.grid_id, tile_id=target.tile_id, square_id=target.square_id, mm_img_id=image_id
        )
        self.calls.set_noice_hole_intensity(empty)
        return rows

    def _chosen(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        good = [row for row in rows if row["score"] >= self.pace.hole_score]
        step = max(1, len(good) // max(1, self.pace.exposures))  # spread over the scores, as sampling by classes does
        return good[::step][: self.pace.exposures]

    def _expose(self, hole_id: int) -> None:
        x_um, y_um = self.record.holes[hole_id]
        self.scope.move(x_um, y_um)
        self.scope.acquire("high", defocus_um=1.2)
        ice_nm, ctf = self.measured(x_um, y_um, hole_id)
        self.record.exposed[hole_id] = (ice_nm, ctf)
        if self.calls is not None:
            told = ice_nm * 1e9 if self.pace.ice_as_metres else ice_nm
            self.calls.visit_holes([hole_id], [ctf], [told])

    def measured(self, x_um: float, y_um: float, seed: int) -> tuple[float, float | None]:
        """Ice in nm and CTF resolution in Å as a pipeline measures them here; the CTF fit may fail."""
        rng = np.random.default_rng((self.scope.settings.seed, 7, seed))
        truth = self.scope.specimen.hole_at(x_um, y_um)
        if truth is None:
            return float(rng.normal(0.0, 2.0)), None
        good = rng.random() < truth.quality
        ctf = rng.normal(3.9, 0.4) if good else rng.uniform(7.0, 20.0)
        return float(truth.ice_nm * rng.normal(1.0, 0.05)), float(max(2.5, ctf))

    def learned_order(self, targets: list[Target]) -> list[int]:
        """The order in which squares follow now; empty when none came."""
        if self.calls is None or self.scripts is not None:
            return []
        rows = self.calls.select_next_square(-1)
        scores = {row["square_id"]: row["score"] for row in rows}
        here = [t for t in targets if t.square_id in scores]
        order = ordered(here, scores)
        as_told = [row["square_id"] for row in rows if row["square_id"] in {t.square_id for t in here}]
        if order != as_told:
            self.warnings.append("Leginon's integer scores give another order than the one told")
        self.record.orders.append([row["square_id"] for row in rows])
        return order

    # ------------------------------------------------------------------------------------------ the command route

    def source(self, script: str, job: str, image: Image) -> list[dict[str, Any]]:
        """Write an image, source a script as Leginon does, and read what it wrote."""
        assert self.scripts is not None  # noqa: S101 - only called where they are given
        assert self.images is not None  # noqa: S101
        path, answer = self.images / f"{job}.mrc", self.images / f"{job}.json"
        with mrcfile.new(path, overwrite=True) as file:
            file.set_data(image)
        answer.unlink(missing_ok=True)
        line = f"source {shlex.quote(str(self.scripts / script))} {job} {path} {self.images}"
        subprocess.run(["/bin/bash", "-c", line], check=False)  # noqa: S603 - as Leginon does
        if not answer.exists():
            self.warnings.append(f"{job}: the command did not run")
            return []
        text = answer.read_text(encoding="utf-8").split("\n")[0]  # nothing but the first line is read
        found: list[dict[str, Any]] = json.loads(text) if text else []
        return found

    def _command_squares(self, tile_id: int) -> list[dict[str, Any]]:
        found = self.source("squares.sh", f"sim_{tile_id}", as_float32(self._tiles[tile_id].image))
        rows = []
        for one in found:
            if len(one["vertices"]) < 3:
                self.warnings.append("a square has fewer than three corners")
            rows.append(
                {
                    "square_id": self.new_id(),
                    "tile_id": tile_id,
                    "grid_id": self.grid_id,
                    "center_x": one["center"][0],
                    "center_y": one["center"][1],
                    "area": one["area"],
                    "brightness": one["brightness"],
                    "score": one["score"],
                }
            )
        return rows

    def _command_holes(self, image: Image, image_id: int) -> list[dict[str, Any]]:
        found = self.source("holes.sh", "sim_Exposure_Targeting", image)
        return [
            {
                "hole_id": self.new_id(),
                "mm_img_id": image_id,
                "center_x": one["center"][0],
                "center_y": one["center"][1],
                "score": one["score"],
            }
            for one in found
        ]


def positions(radius_um: float, step_um: float) -> list[tuple[float, float]]:
    """Centres of the tiles that cover a disc, row by row."""
    count = max(0, math.ceil(radius_um / step_um - 0.5))
    places = [(i * step_um, j * step_um) for j in range(-count, count + 1) for i in range(-count, count + 1)]
    return [(x, y) for x, y in places if math.hypot(x, y) <= max(radius_um, 1e-9)] or [(0.0, 0.0)]
