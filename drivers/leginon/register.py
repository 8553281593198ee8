"""The register: which id Leginon was given for what, in SQLite; nothing in it is ever deleted, no id given twice.

A *run* is what Leginon calls a session. A new one archives the runs before it; their ids stay theirs.
"""

import itertools
import json
import time
from collections.abc import Iterable
from typing import Any

from drivers.leginon.register_file import RegisterFile
from drivers.leginon.register_rows import (
    HOLES,
    SQUARES,
    TILES,
    Hole,
    HoleImage,
    NewHole,
    NewSquare,
    Parent,
    Square,
    Tile,
    Visit,
    square_of,
)


class Register(RegisterFile):
    """What Leginon was given: runs, grids, tiles, squares, hole images, holes, and what it reported of them.

    For one process; every change is on disk when its method returns.

    Raises
    ------
    BadFileError
        If the file is no register, of a newer version, or in use.
    """

    def _begin(self) -> None:
        if not self._one("SELECT count(*) FROM runs"):
            self._new_run()

    # ------------------------------------------------------------------------------------------ runs

    def _new_run(self) -> int:
        cursor = self._db.execute("INSERT INTO runs (begun_utc, current) VALUES (?, 1)", (time.time(),))
        return int(cursor.lastrowid or 0)

    def current_runs(self) -> list[int]:
        """The runs whose squares Leginon sees, the newest last."""
        return [row[0] for row in self._rows("SELECT run FROM runs WHERE current ORDER BY run")]

    @property
    def run(self) -> int:
        """The run that new tiles belong to."""
        return self.current_runs()[-1]

    def run_is_empty(self, run: int) -> bool:
        """Whether nothing was pushed in this run."""
        return not self._one(
            "SELECT (SELECT count(*) FROM tiles WHERE run = ?) + (SELECT count(*) FROM images WHERE run = ?)",
            (run, run),
        )

    def new_run(self) -> int:
        """Archive the current runs and begin another; an empty one is used again."""
        current = self.current_runs()
        if len(current) == 1 and self.run_is_empty(current[0]):
            return current[0]
        with self._change():
            self._db.execute("UPDATE runs SET current = 0")
            return self._new_run()

    def revive(self, run: int, *, alone: bool = True) -> None:
        """Make an archived run current again (``alone``: instead of what is current now)."""
        with self._change():
            if alone:
                self._db.execute("UPDATE runs SET current = 0")
            self._db.execute("UPDATE runs SET current = 1 WHERE run = ?", (run,))

    def set_historical(
        self, runs: Iterable[int], pasts: Iterable[str] = (), *, session: str = "", add: bool = False
    ) -> None:
        """Let these runs, and recalled grids of other registers, count for what is learned (``add``: beside others)."""
        with self._change():
            if not add:
                self._db.execute("UPDATE runs SET historical = 0")
                self._db.execute("UPDATE pasts SET historical = 0")
            for name in pasts:
                self._db.execute("INSERT OR REPLACE INTO pasts VALUES (?, ?, 1)", (name, session))
            for run in runs:
                self._db.execute("UPDATE runs SET historical = 1 WHERE run = ?", (run,))

    def bind(self, session: str) -> None:
        """The daemon's session is this one: grids of which it has seen nothing yet belong to it from now on."""
        with self._change():
            self._db.execute(
                "UPDATE grids SET session = ? WHERE session != ? AND name NOT IN"
                " (SELECT grid FROM tiles WHERE state != 'waiting' UNION SELECT grid FROM images)",
                (session, session),
            )
            self._db.execute("INSERT OR REPLACE INTO about VALUES ('session', ?)", (json.dumps(session),))

    def grid_names(self, session: str, grid_id: int = -1) -> list[str]:
        """Names of the grids of the current runs in this session of the daemon; of one grid unless it is -1."""
        query = "SELECT name FROM grids JOIN runs USING (run) WHERE current AND session = ?"
        names = self._rows(query + " AND (? = -1 OR grid_id = ?) ORDER BY name", (session, grid_id, grid_id))
        return [row[0] for row in names]

    def knows(self, session: str, runs: Iterable[int]) -> bool:
        """Whether these runs belong to this session of the daemon."""
        chosen = tuple(int(run) for run in runs)
        here = self._rows("SELECT DISTINCT run FROM grids WHERE session = ?", (session,))
        return bool({row[0] for row in here} & set(chosen))

    def historical_names(self, session: str) -> list[str]:
        """Names of further grids that count for what is learned."""
        query = """SELECT name FROM grids JOIN runs USING (run) WHERE historical AND session = ?
                   UNION SELECT name FROM pasts WHERE historical AND session = ? ORDER BY name"""
        return [row[0] for row in self._rows(query, (session, session))]

    def _grid(self, session: str, run: int, grid_id: int, pitch_um: float) -> str:
        name = self._one(
            "SELECT name FROM grids WHERE run = ? AND session = ? AND grid_id = ?", (run, session, grid_id)
        )
        if name is None:
            plain = f"G{grid_id}"
            names = itertools.chain((plain, f"{plain}.{run}"), (f"{plain}.{run}.{n}" for n in itertools.count(2)))
            name = next(n for n in names if not self._one("SELECT count(*) FROM grids WHERE name = ?", (n,)))
            values = (name, run, session, grid_id, pitch_um)
            self._db.execute("INSERT INTO grids VALUES (?, ?, ?, ?, ?, 0)", values)
        return str(name)

    def _take_place(self, grid: str) -> int:
        place = int(self._one("SELECT places FROM grids WHERE name = ?", (grid,)))
        self._db.execute("UPDATE grids SET places = places + 1 WHERE name = ?", (grid,))
        return place

    # ------------------------------------------------------------------------------------------ tiles and squares

    def archived_run_of(self, grid_id: int, tile_id: int) -> int | None:
        """The newest archived run with this grid in which this tile is new: its atlas goes on."""
        query = """SELECT max(run) FROM grids JOIN runs USING (run) WHERE NOT current AND grid_id = ?
                   AND NOT EXISTS (SELECT 1 FROM tiles WHERE tiles.run = grids.run AND tile_id = ?)"""
        found = self._one(query, (grid_id, tile_id))
        return int(found) if found is not None else None

    def tile(self, tile_id: int, run: int) -> Tile | None:
        """The tile with Leginon's id in this run."""
        rows = self._rows(TILES + "WHERE t.tile_id = ? AND t.run = ?", (tile_id, run))
        return Tile(*rows[0]) if rows else None

    def tile_of_frame(self, frame_id: str) -> Tile | None:
        """The tile that went to the daemon as this frame."""
        rows = self._rows(TILES + "WHERE t.frame_id = ?", (frame_id,))
        return Tile(*rows[0]) if rows else None

    def waiting_tiles(self, run: int | None = None) -> list[Tile]:
        """Tiles on their way to the daemon, in the order in which they came."""
        rows = self._rows(TILES + "WHERE t.state = 'waiting' AND (? IS NULL OR t.run = ?) ORDER BY t.tile", (run, run))
        return [Tile(*row) for row in rows]

    def add_tile(
        self,
        *,
        session: str,
        run: int,
        grid_id: int,
        tile_id: int,
        frame_id: str,
        shape: tuple[int, int],
        pitch_um: float,
    ) -> Tile:
        """Note a new tile, to be handed in to the daemon."""
        with self._change():
            grid = self._grid(session, run, grid_id, pitch_um)
            self._db.execute(
                "INSERT INTO tiles (run, grid, tile_id, frame_id, place, rows, columns, state)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, 'waiting')",
                (run, grid, tile_id, frame_id, self._take_place(grid), *shape),
            )
        added = self.tile(tile_id, run)
        assert added is not None  # noqa: S101 - it was inserted a line ago
        return added

    def fail_tile(self, tile: Tile, note: str) -> None:
        """A tile that the daemon refused for good."""
        with self._change():
            self._db.execute("UPDATE tiles SET state = 'failed', note = ? WHERE tile = ?", (note, tile.tile))

    def add_squares(self, tile: Tile, squares: Iterable[NewSquare], note: str = "") -> None:
        """The answer to a tile: its squares get their ids. Given twice, it counts once."""
        with self._change():
            for square in squares:
                self._db.execute(
                    "INSERT OR IGNORE INTO squares (tile, area_id, x, y, vertices, brightness, area, score, x_um, y_um,"
                    " side_um) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (tile.tile, square.area_id, square.x, square.y, json.dumps(square.vertices), *square[4:]),
                )
            self._db.execute("UPDATE tiles SET state = 'found', note = ? WHERE tile = ?", (note, tile.tile))

    def squares(self, runs: Iterable[int], grid_id: int = -1) -> list[Square]:
        """Every square of these runs, by id; of one grid unless it is -1."""
        chosen = tuple(runs)
        query = f"{SQUARES} WHERE t.run IN ({_marks(chosen)}) AND (? = -1 OR g.grid_id = ?) ORDER BY s.square_id"
        return [square_of(row) for row in self._rows(query, (*chosen, grid_id, grid_id))]

    def square(self, square_id: int) -> Square | None:
        """The square with this id, of whatever run."""
        rows = self._rows(SQUARES + "WHERE s.square_id = ?", (square_id,))
        return square_of(rows[0]) if rows else None

    def parent(self, session: str, grid_id: int, square_id: int, pitch_um: float) -> Parent:
        """The square that a hole image names, as the daemon knows it; else a free place on its grid."""
        rows = self._rows(
            "SELECT t.run, t.grid, s.area_id, s.x_um, s.y_um, s.side_um FROM squares s JOIN tiles t USING (tile)"
            " JOIN grids g ON g.name = t.grid WHERE s.square_id = ? AND g.session = ?",
            (square_id, session),
        )
        if rows:
            return Parent(*rows[0])
        run = self.run
        with self._change():
            grid = self._grid(session, run, grid_id, pitch_um)
            known = self._one("SELECT area_id FROM strangers WHERE run = ? AND square_id = ?", (run, square_id))
            return Parent(run, grid, str(known or ""), 0.0, 0.0, 0.0)

    def take_place(self, grid: str) -> int:
        """A free place on a grid, for the image of a square that nobody knows."""
        with self._change():
            return self._take_place(grid)

    def pitch_of(self, grid: str) -> float:
        """Distance of neighbouring places on a grid, in µm."""
        return float(self._one("SELECT pitch_um FROM grids WHERE name = ?", (grid,)))

    # ------------------------------------------------------------------------------------------ images and holes

    def image_of_frame(self, frame_id: str) -> HoleImage | None:
        """The hole image that went to the daemon as this frame."""
        rows = self._rows("SELECT * FROM images WHERE frame_id = ?", (frame_id,))
        return HoleImage(*rows[0]) if rows else None

    def add_image(
        self,
        *,
        run: int,
        grid: str,
        square_id: int,
        mm_img_id: int,
        frame_id: str,
        shape: tuple[int, int],
        place: int = -1,
    ) -> HoleImage:
        """Note a hole image; pushed again it is the same one. Without a place it gets the next one of its square."""
        with self._change():
            if place < 0:
                query = "SELECT count(*) FROM images WHERE run = ? AND square_id = ?"
                place = int(self._one(query, (run, square_id)))
            self._db.execute(
                "INSERT OR IGNORE INTO images (run, grid, square_id, mm_img_id, frame_id, place, rows, columns)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (run, grid, square_id, mm_img_id, frame_id, place, *shape),
            )
        added = self.image_of_frame(frame_id)
        assert added is not None  # noqa: S101 - it was inserted a line ago
        return added

    def add_holes(self, image: HoleImage, holes: Iterable[NewHole], stranger: str = "") -> None:
        """The answer to a hole image; ``stranger`` is the area that the daemon gave a square nobody knew."""
        with self._change():
            for hole in holes:
                self._db.execute(
                    "INSERT OR IGNORE INTO holes (image, area_id, x, y, radius, score) VALUES (?, ?, ?, ?, ?, ?)",
                    (image.image, *hole),
                )
            if stranger:
                values = (image.run, image.square_id, stranger)
                self._db.execute("INSERT OR IGNORE INTO strangers VALUES (?, ?, ?)", values)

    def holes(self, runs: Iterable[int] = (), *, image: int | None = None, hole_ids: Iterable[int] = ()) -> list[Hole]:
        """Holes of these runs, of one image, or with these ids; by id."""
        chosen, ids = tuple(runs), tuple(hole_ids)
        if image is not None:
            rows = self._rows(HOLES + "WHERE h.image = ? ORDER BY h.hole_id", (image,))
        elif ids:
            rows = self._rows(f"{HOLES} WHERE h.hole_id IN ({_marks(ids)}) ORDER BY h.hole_id", ids)
        else:
            rows = self._rows(f"{HOLES} WHERE i.run IN ({_marks(chosen)}) ORDER BY h.hole_id", chosen)
        return [Hole._make((*row[:-1], bool(row[-1]))) for row in rows]

    # ------------------------------------------------------------------------------------------ visits

    def add_visits(self, session: str, visits: Iterable[tuple[int, float | None, float | None]]) -> list[int]:
        """Note reports (hole id, CTF in Å, ice in nm) of exposures; returns the hole ids that nobody was ever given.

        Reports about runs of another session of the daemon are kept, and it is not told of them.
        """
        unknown = []
        with self._change():
            for hole_id, ctf, ice in visits:
                rows = self._rows(
                    "SELECT h.area_id, g.session, i.square_id FROM holes h JOIN images i USING (image)"
                    " JOIN grids g ON g.name = i.grid WHERE h.hole_id = ?",
                    (hole_id,),
                )
                if not rows:
                    unknown.append(hole_id)
                    continue
                area_id, where, square_id = rows[0]
                self._visit(area_id, ctf, ice, told=where != session)
                self._db.execute("UPDATE holes SET visited = 1 WHERE hole_id = ?", (hole_id,))
                self._db.execute("UPDATE squares SET visited = 1 WHERE square_id = ?", (square_id,))
        return unknown

    def add_square_visit(self, session: str, square_id: int) -> bool:
        """Note that a square was visited; False when there is none with this id."""
        with self._change():
            rows = self._rows(
                "SELECT s.area_id, g.session FROM squares s JOIN tiles t USING (tile) JOIN grids g ON g.name = t.grid"
                " WHERE s.square_id = ?",
                (square_id,),
            )
            if rows:
                self._visit(rows[0][0], None, None, told=rows[0][1] != session)
                self._db.execute("UPDATE squares SET visited = 1 WHERE square_id = ?", (square_id,))
            return bool(rows)

    def _visit(self, area_id: str, ctf: float | None, ice: float | None, *, told: bool) -> None:
        values = (area_id, ctf, ice, int(told), time.time())
        self._db.execute("INSERT INTO visits (area_id, ctf, ice, told, utc) VALUES (?, ?, ?, ?, ?)", values)

    def visits_of(self, area_ids: Iterable[str]) -> list[dict[str, Any]]:
        """Every report about these areas: area, CTF in Å, ice in nm, time."""
        wanted = set(area_ids)
        rows = self._rows("SELECT area_id, ctf, ice, utc FROM visits ORDER BY visit")
        return [dict(zip(("area_id", "ctf", "ice", "utc"), row, strict=True)) for row in rows if row[0] in wanted]

    def untold(self) -> list[Visit]:
        """Reports that the daemon was not told yet, in order."""
        rows = self._rows("SELECT visit, area_id, ctf, ice FROM visits WHERE NOT told ORDER BY visit LIMIT 1000")
        return [Visit(*row) for row in rows]

    def told(self, visit: Visit) -> None:
        """The daemon has this report on disk."""
        with self._change():
            self._db.execute("UPDATE visits SET told = 1 WHERE visit = ?", (visit.visit,))


def _marks(values: tuple[Any, ...]) -> str:
    return ", ".join("?" * len(values)) or "NULL"
